"""Blocks on diagonals by other names, and convolutions over one dimension: against their definitions, or torch."""

import numpy as np
import pytest
import torch
from checkpoint_files import refused
from torch import nn

import bfthw


def load(tmp_path, arrays, **rest):
    np.savez(tmp_path / "w.npz", **arrays)
    return bfthw.load(tmp_path / "w.npz", **rest)


def two_blocks(w1, w2, x, outputs):
    """torch-structured's MonarchLinear, number by number: x padded and cut into blocks, each times its matrix of w1; of
    what that gives, every l-th value together makes a block, times its matrix of w2; outputs go back the same way."""
    (k, q, p), (count, s, r) = w1.shape, w2.shape
    x = np.concatenate([x, np.zeros(k * p - len(x))])
    middle = [sum(w1[b, row, i] * x[b * p + i] for i in range(p)) for b in range(k) for row in range(q)]
    y = np.zeros(count * s)
    for block in range(count):
        for row in range(s):
            y[row * count + block] = sum(w2[block, row, i] * middle[i * count + block] for i in range(r))
    return y[:outputs]


@pytest.mark.parametrize("middle", ["of the blocks", "of their number"])  # its release now, and those before
@pytest.mark.parametrize("inputs, outputs, blocks", [(16, 16, 4), (24, 58, 4), (58, 24, 4), (7, 9, 3), (32, 20, 2)])
def test_monarch_of_torch_structured(tmp_path, inputs, outputs, blocks, middle):
    p, s = -(-inputs // blocks), -(-outputs // blocks)
    q = p if middle == "of the blocks" else blocks
    rng = np.random.default_rng(inputs)
    w1, w2, bias = rng.normal(size=(blocks, q, p)), rng.normal(size=(blocks, s, q)), rng.normal(size=outputs)
    loaded = load(tmp_path, {"fc.w1": w1, "fc.w2": w2, "fc.bias": bias}, options={"inputs": inputs})
    x = rng.normal(size=(3, inputs))
    assert np.allclose(loaded.network(x), [two_blocks(w1, w2, one, outputs) + bias for one in x])
    assert loaded.notes[0] == "format recognised: monarch" and any("w1 and w2 taken" in note for note in loaded.notes)


@pytest.mark.parametrize("inputs, outputs, blocks", [(16, 16, 4), (24, 58, 4), (58, 24, 4), (7, 9, 3), (6, 12, 1)])
def test_blocks_on_one_diagonal(tmp_path, inputs, outputs, blocks):
    p, q = -(-inputs // blocks), -(-outputs // blocks)
    rng = np.random.default_rng(inputs)
    weight, bias = rng.normal(size=(blocks, q, p)), rng.normal(size=outputs)
    wanted = np.zeros((blocks * q, blocks * p))
    for b in range(blocks):
        wanted[b * q : (b + 1) * q, b * p : (b + 1) * p] = weight[b]
    loaded = load(tmp_path, {"fc.weight": weight, "fc.bias": bias}, options={"inputs": inputs})
    assert np.allclose(loaded.network.layers[0].chain.dense(), wanted[:outputs, :inputs])
    assert np.array_equal(loaded.network.layers[0].bias, bias) and loaded.notes[0] == "format recognised: monarch"
    assert any(f"{blocks} blocks on a diagonal" in note for note in loaded.notes)
    options = {"inputs": inputs, "outputs": outputs}
    without = load(tmp_path, {"fc.weight": weight}, options=options, format="monarch").network
    assert np.allclose(without.layers[0].chain.dense(), wanted[:outputs, :inputs])
    refused(tmp_path / "w.npz", f"may be {blocks} blocks on a diagonal or a convolution of kernel {p}", "--format")


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Conv1d(24, 58, 1), nn.ReLU(), nn.Conv1d(58, 116, 1, groups=2, bias=False), nn.ReLU(), nn.Conv1d(116, 3, 1)],
        [nn.Conv1d(24, 24, 1), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 5)],
    ],
    ids=["groups", "norm"],
)
def test_convolutions_of_kernel_1(tmp_path, modules):
    torch.manual_seed(5)
    model = nn.Sequential(*modules).double().eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    loaded = bfthw.load(tmp_path / "w.pt", options={"relu": "gaps"})
    x = torch.randn(7, 24).double()
    y = x[..., None]
    for module in model:
        y = module(y[..., 0]) if isinstance(module, nn.Linear) else module(y)
    assert np.allclose(loaded.network(x.numpy()), y.detach().numpy().reshape(7, -1))
    assert any("nn.Conv1d has it, (outputs, inputs / groups, 1)" in note for note in loaded.notes)


@pytest.mark.parametrize("sizes", [(16, 32, 3), (8, 8, 5), (1, 32, 3), (8, 8, 3, 1, 0, 1, 1, False)])
def test_larger_kernels_are_no_blocks(tmp_path, sizes):
    torch.save(nn.Sequential(nn.Conv1d(*sizes)).state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "no layer that is read here|or a convolution of kernel 3")


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"w1": np.ones((4, 2, 3)), "w2": np.ones((4, 3, 3))}, "w1 .4, 2, 3. gives 8 values, w2 .4, 3, 3. takes 12"),
        ({"w1": np.ones((4, 2, 3)), "w2": np.ones((4, 3, 2)), "bias": np.ones(13)}, "bias has 13 entries"),
        ({"w1": np.ones((4, 2, 3)), "w2": np.ones((4, 3, 2)), "w3": np.ones(13)}, "'w3' is not known"),
        ({"w1": np.ones((4, 2, 3)), "w2": np.ones((4, 0, 2))}, "a Monarch layer has w1 .k, q, p. and w2 .l, s, r."),
        ({"w1": np.ones((4, 2, 3))}, "no layer that is read here"),
        ({"weight": np.ones((4, 2, 3)), "bias": np.ones(9)}, "no layer that is read here"),
    ],
)
def test_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "w.npz", **arrays)
    refused(tmp_path / "w.npz", words)
