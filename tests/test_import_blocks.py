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
    assert loaded.notes[0] == "format recognised: monarch" and any("w1 and w2 taken" in n for n in loaded.notes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "k, j, b1, i, rows", [(4, 4, 1, 4, 4), (4, 4, 3, 6, 5), (3, 5, 2, 4, 6), (2, 8, 4, 16, 3), (1, 1, 2, 5, 7)]
)
def test_blocks_of_some_rank(tmp_path, k, j, b1, i, rows, bias):
    """BlockdiagButterflyLinear: block (j, k) of the matrix is of rank b1, its rows are every j-th of the outputs."""
    rng = np.random.default_rng(k + j)
    w1, w2 = rng.normal(size=(k, j * b1, i)), rng.normal(size=(j, rows, k * b1))
    wanted = np.zeros((rows * j, k * i))
    for row in range(j):
        for column in range(k):
            right = w1[column, row * b1 : (row + 1) * b1]
            left = w2[row, :, column * b1 : (column + 1) * b1]
            wanted[row::j, column * i : (column + 1) * i] = left @ right
    arrays = {"fc.w1_bfly": w1, "fc.w2_bfly": w2} | ({"fc.bias": np.arange(rows * j)} if bias else {})
    loaded = load(tmp_path, arrays)
    assert np.allclose(loaded.network.layers[0].chain.dense(), wanted)
    assert loaded.network.layers[0].chain.patterns == ((k, b1 * j, i, 1), (1, rows, k * b1, j))
    assert any("with b2 = 1" in n for n in loaded.notes) and not any("are possible" in n for n in loaded.notes)


@pytest.mark.parametrize("b2", [1, 2, 3])
@pytest.mark.parametrize("k, j, b1, i, rows", [(4, 4, 1, 4, 6), (3, 5, 2, 4, 6), (2, 8, 4, 5, 12), (1, 1, 2, 5, 6)])
def test_outputs_that_stand_together(tmp_path, k, j, b1, i, rows, b2):
    """Output (l, block, z) is row (l, z) of the block, b2 of them side by side."""
    rng = np.random.default_rng(k + j + b2)
    w1, w2, bias = rng.normal(size=(k, j * b1, i)), rng.normal(size=(j, rows, k * b1)), np.arange(rows * j)
    right, left = w1.reshape(k, j, b1, i), w2.reshape(j, rows // b2, b2, k, b1)
    wanted = np.einsum("jlzky,kjyi->ljzki", left, right).reshape(rows * j, k * i)
    loaded = load(tmp_path, {"fc.w1_bfly": w1, "fc.w2_bfly": w2, "fc.bias": bias}, options={"b2": b2})
    assert np.allclose(loaded.network.layers[0].chain.dense(), wanted)
    assert not any("with b2 = 1" in note for note in loaded.notes)
    for wrong in (4 if rows % 4 else 5, 0, "x"):
        words = f"b2 = {wrong} does not fit: it must divide the {rows} outputs"
        refused(tmp_path / "w.npz", words, options={"b2": wrong})


@pytest.mark.parametrize("inputs, outputs, blocks", [(16, 16, 4), (24, 58, 4), (58, 24, 4), (7, 9, 3), (6, 12, 1)])
def test_blocks_of_shuffled_inputs(tmp_path, inputs, outputs, blocks):
    """Input g p + c, of the padded ones, goes to place c k + g, as ShuffleNet shuffles channels of k groups."""
    p, q = -(-inputs // blocks), -(-outputs // blocks)
    rng = np.random.default_rng(inputs)
    weight, bias = rng.normal(size=(blocks, q, p)), rng.normal(size=outputs)
    x = rng.normal(size=(3, inputs))
    whole = np.concatenate([x, np.zeros((3, blocks * p - inputs))], axis=1)
    shuffled = np.zeros_like(whole)
    for g in range(blocks):
        for c in range(p):
            shuffled[:, c * blocks + g] = whole[:, g * p + c]
    wanted = np.concatenate([shuffled[:, b * p : (b + 1) * p] @ weight[b].T for b in range(blocks)], axis=1)
    wanted = wanted[:, :outputs]
    options = {"inputs": inputs, "shuffle": "yes"}
    loaded = load(tmp_path, {"fc.weight": weight, "fc.bias": bias}, options=options)
    assert np.allclose(loaded.network(x), wanted + bias) and any("with shuffle" in note for note in loaded.notes)
    # saying so says that it is blocks, no convolution
    bare = load(tmp_path, {"fc.weight": weight}, options=options | {"outputs": outputs})
    assert np.allclose(bare.network(x), wanted)
    refused(tmp_path / "w.npz", "shuffle must be no or yes, got 'maybe'", options={"shuffle": "maybe"})


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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("b1, b2, p, q, r", [(4, 4, 4, 4, 3), (2, 5, 6, 3, 7), (1, 3, 5, 2, 1), (3, 1, 2, 5, 4)])
def test_blast(tmp_path, b1, b2, p, q, r, bias):
    rng = np.random.default_rng(b1 + b2)
    left, right, middle = rng.normal(size=(b1, p, r)), rng.normal(size=(b2, r, q)), rng.normal(size=(b1, b2, r))
    blocks = [[left[i] @ np.diag(middle[i, j]) @ right[j] for j in range(b2)] for i in range(b1)]
    arrays = {"fc.B": left, "fc.C": right, "fc.D": middle} | ({"fc.bias": np.arange(b1 * p)} if bias else {})
    loaded = load(tmp_path, arrays)
    assert np.allclose(loaded.network.layers[0].chain.dense(), np.block(blocks))
    assert loaded.notes[0] == "format recognised: blast"
    np.savez(tmp_path / "w.npz", **{"fc.B": left, "fc.C": right, "fc.D": middle[:, :, :0]})
    refused(tmp_path / "w.npz", "layer 'fc', read as blast: a BLAST layer has B")


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
        ({"w1_bfly": np.ones((4, 3, 3)), "w2_bfly": np.ones((2, 3, 6))}, "has 3 outputs a block, no multiple of the 2"),
        ({"w1_bfly": np.ones((4, 2, 3))}, "a Monarch layer has w1_bfly .k, q, p. and w2_bfly"),
        ({"w1_bfly": np.ones((4, 4, 4, 2)), "w2_bfly": np.ones((4, 4, 4, 2))}, "two numbers each: complex"),
        ({"w1_bfly": np.ones((2, 4, 3)), "w2_bfly": np.ones((2, 3, 4)), "bias": np.ones(5)}, "has 5 entries, .* 6 out"),
        ({"w1": np.ones((4, 2, 3))}, "no layer that is read here"),
        ({"weight": np.ones((4, 2, 3)), "bias": np.ones(9)}, "no layer that is read here"),
    ],
)
def test_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "w.npz", **arrays)
    refused(tmp_path / "w.npz", words)
