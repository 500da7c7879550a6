"""DeBut, Monarch, dense layers and batch norms: chains against matrices written from the definitions, or torch."""

import re

import numpy as np
import pytest
import torch
from checkpoint_files import refused
from torch import nn

import bfthw


def load(tmp_path, arrays, **rest):
    np.savez(tmp_path / "w.npz", **arrays)
    return bfthw.load(tmp_path / "w.npz", **rest)


def matrix(network):
    return network(np.eye(network.inputs)).T


# DeBut

# `out in r s t` of each factor, first applied first: square, shrinking, growing, not fully connected, from the papers
CHAINS = {
    "lenet": [(96, 72, 4, 3, 1), (48, 96, 1, 2, 4), (16, 48, 2, 6, 4), (16, 16, 2, 2, 8)],
    "fc": [(64, 128, 2, 4, 1), (64, 64, 2, 2, 2), (64, 64, 2, 2, 4)],
    "bulging": [(48, 24, 4, 2, 1), (58 * 4, 48, 29, 6, 8)],
    "no rule of t": [(32, 24, 4, 3, 1), (16, 32, 2, 4, 1)],
    "a single one": [(58, 58, 2, 2, 29)],
    "narrow": [(116, 116, 4, 4, 29), (29, 116, 1, 4, 29)],
}


def debut(factors, twiddle):
    """Blocks on a diagonal, in / (s t) of them, each r x s diagonal t x t matrices. The file holds it block by block,
    place on the diagonal by place, as r x s numbers."""
    result, numbers = np.eye(factors[0][1]), iter(twiddle)
    for out, q, r, s, t in factors:
        one = np.zeros((out, q))
        for block in range(q // (s * t)):
            for place in range(t):
                for row in range(r):
                    for column in range(s):
                        one[block * r * t + row * t + place, block * s * t + column * t + place] = next(numbers)
        result = one @ result
    assert next(numbers, None) is None
    return result


def weights(factors, seed):
    return np.random.default_rng(seed).normal(size=sum(out * s for out, _, _, s, _ in factors))


def text(*chains):
    return "\n".join(" ".join(str(v) for factor in chain for v in factor) for chain in chains) + "\n\n"


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_debut(tmp_path, chain):
    (tmp_path / "shapes.txt").write_text("\n" + text(chain))
    twiddle, bias = weights(chain, 1), np.arange(chain[-1][0])
    loaded = load(
        tmp_path, {"features.debut3.twiddle": twiddle, "features.debut3.bias": bias}, shapes=tmp_path / "shapes.txt"
    )
    (layer,) = loaded.network.layers
    assert layer.name == "features.debut3" and layer.bias.tolist() == bias.tolist() and not layer.residual
    assert np.allclose(layer.chain.dense(), debut(chain, twiddle))
    assert any("shapes of line 2" in note for note in loaded.notes)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_debut_of_two_files_kinds(tmp_path, key):
    """Several layers, a dense one among them, in the order of their numbers; under the key that each repository has."""
    one, two = [(32, 48, 2, 3, 1)], [(16, 32, 2, 4, 2)]
    arrays = {
        "f.1.twiddle": weights(one, 1),
        "f.10.twiddle": weights(two, 2),
        "f.2.weight": np.eye(32),
        "f.2.bias": np.ones(32),
    }
    torch.save({key: {k: torch.from_numpy(v) for k, v in arrays.items()}, "epoch": 3}, tmp_path / "w.pth")
    (tmp_path / "s.txt").write_text(text(one, two))
    network = bfthw.load(tmp_path / "w.pth", shapes=str(tmp_path / "s.txt")).network
    assert [layer.name for layer in network.layers] == ["f.1", "f.2", "f.10"]
    x = np.random.default_rng(3).normal(size=(4, 48))
    hidden = x @ debut(one, arrays["f.1.twiddle"]).T + 1
    assert np.allclose(network(x), hidden @ debut(two, arrays["f.10.twiddle"]).T)


def test_debut_lines_of_all_layers(tmp_path):
    """One layer taken, with the shapes file of the whole network."""
    chains = [[(32, 48, 2, 3, 1)], [(16, 32, 2, 4, 2)], [(16, 32, 4, 8, 1)]]
    arrays = {f"f.{k}.twiddle": weights(chain, k) for k, chain in zip((2, 9, 10), chains)}
    arrays["f.3.weight"] = np.ones((4, 4, 3, 3))
    (tmp_path / "s.txt").write_text(text(*chains))
    loaded = load(tmp_path, arrays, shapes=tmp_path / "s.txt", order=["f.9"])
    assert np.allclose(matrix(loaded.network), debut(chains[1], arrays["f.9.twiddle"]))
    assert any("not taken" in note and "'f.3'" in note for note in loaded.notes)
    (tmp_path / "s.txt").write_text(text(chains[0], chains[2]))
    refused(tmp_path / "w.npz", "for 64 weights, none of 2 lines has", shapes=tmp_path / "s.txt", order=["f.9"])


GOOD = "96 72 4 3 1 48 96 1 2 4"
DEBUT = {
    "none": (None, ["sizes of DeBut factors are in no checkpoint", "--shapes"]),
    "missing": ("", ["w.txt: has lines for 0 layers", "1 of DeBut: 'a'"]),
    "too many": (f"{GOOD}\n48 96 4 8 1", ["for 384 weights and 48 outputs, lines 1, 2 have: a.line=N says which"]),
    "words": ("96 72 4 3 x", ["line 1: must be five integers a factor", "'x'"]),
    "four": ("\n96 72 4 3", ["line 2: must be five integers", "found 4 integers"]),
    "negative": ("96 72 4 3 -1", ["line 1", "'-1'"]),
    "zero": ("96 72 4 0 1", ["line 1, factor 0: 96 72 4 0 1: s.t must divide in"]),
    "division": ("96 72 4 5 1", ["line 1, factor 0", "s.t must divide in"]),
    "outputs": ("96 72 4 3 1 49 96 1 2 4", ["line 1, factor 1: 49 96 1 2 4", "out be in / s . r"]),
    "chain": ("96 72 4 3 1 24 48 1 2 4", ["line 1, factor 1", "takes 48 values, the factor before gives 96"]),
    "length": (
        "96 72 4 3 1",
        ["layer 'a', read as debut: line 1 of the shapes needs 288 weights, twiddle has shape .384,."],
    ),
    "folder": (..., ["w.txt: is a directory"]),
}


@pytest.mark.parametrize("shapes, texts", DEBUT.values(), ids=DEBUT)
def test_debut_refused(tmp_path, shapes, texts):
    path = tmp_path / "w.txt"
    if shapes is ...:
        path.mkdir()
    elif shapes is not None:
        path.write_text(shapes)
    np.savez(tmp_path / "w.npz", **{"a.twiddle": np.ones(384), "a.bias": np.ones(48)})
    with pytest.raises(bfthw.checkpoint.CheckpointError) as caught:
        bfthw.load(tmp_path / "w.npz", shapes=None if shapes is None else path)
    for words in texts:
        assert re.search(words, str(caught.value)), caught.value


def test_debut_names_the_line_that_fits(tmp_path):
    one, two = [(32, 48, 2, 3, 1)], [(16, 32, 2, 4, 2)]
    (tmp_path / "s.txt").write_text(text(two, one))
    np.savez(tmp_path / "w.npz", **{"0.twiddle": weights(one, 1), "1.twiddle": weights(two, 2)})
    refused(tmp_path / "w.npz", "line 1 of the shapes needs 64 weights", "line 2 would fit", shapes=tmp_path / "s.txt")


# Monarch


@pytest.mark.parametrize(
    "inputs, outputs, blocks", [(16, 16, 4), (24, 58, 4), (58, 24, 4), (116, 128, 8), (32, 32, 2), (7, 9, 3)]
)
def test_monarch(tmp_path, inputs, outputs, blocks):
    p, s = -(-inputs // blocks), -(-outputs // blocks)
    q = min(p, s)
    rng = np.random.default_rng(inputs)
    one, two = rng.normal(size=(blocks, q, p)), rng.normal(size=(blocks, s, q))
    # block-diagonal, transposed from (values of a block, blocks), block-diagonal, transposed back
    first, second = np.zeros((blocks * q, blocks * p)), np.zeros((blocks * s, blocks * q))
    for k in range(blocks):
        first[k * q : (k + 1) * q, k * p : (k + 1) * p] = one[k]
        second[k * s : (k + 1) * s, k * q : (k + 1) * q] = two[k]
    there = np.eye(blocks * q)[np.arange(blocks * q).reshape(q, blocks).T.ravel()]
    back = np.eye(blocks * s)[np.arange(blocks * s).reshape(blocks, s).T.ravel()]
    wanted = (back @ second @ there @ first)[:outputs, :inputs]
    arrays = {"fc.blkdiag1": one, "fc.blkdiag2": two, "fc.bias": np.arange(outputs)}
    loaded = load(tmp_path, arrays, options={"inputs": inputs})
    assert np.allclose(loaded.network.layers[0].chain.dense(), wanted)
    assert loaded.notes[0] == "format recognised: monarch" and loaded.network.layers[0].bias.tolist() == list(
        range(outputs)
    )


def test_monarch_of_unequal_blocks(tmp_path):
    """Six blocks, then four: the rule for k q = l r."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(6, 2, 5)), rng.normal(size=(4, 7, 3))
    x = rng.normal(size=30)
    middle = np.concatenate([one[k] @ x[5 * k : 5 * k + 5] for k in range(6)])
    y = np.zeros(28)
    for block in range(4):
        y[block::4] = two[block] @ middle[block::4]
    assert np.allclose(load(tmp_path, {"blkdiag1": one, "blkdiag2": two}).network(x[None])[0], y)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"blkdiag1": np.ones((4, 2, 3))}, "has blkdiag1 .k, q, p. and blkdiag2"),
        (
            {"blkdiag1": np.ones((4, 2, 3)), "blkdiag2": np.ones((4, 3, 3))},
            "gives 8 values, blkdiag2 .4, 3, 3. takes 12",
        ),
        (
            {"blkdiag1": np.ones((4, 2, 3)), "blkdiag2": np.ones((4, 3, 2)), "bias": np.ones(13)},
            "bias has 13 entries, the layer 12",
        ),
        ({"blkdiag1": np.ones((4, 2, 3)), "blkdiag2": np.ones((4, 3, 2)), "x": np.ones(13)}, "'x' is not known"),
    ],
)
def test_monarch_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "w.npz", **arrays)
    refused(tmp_path / "w.npz", words)


# dense layers and batch norms


def trained(*modules):
    """In double precision and eval mode, with batch norms that have seen something."""
    torch.manual_seed(5)
    model = nn.Sequential(*modules).double().eval()
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.normal_()
                    module.bias.normal_()
    return model


MODELS = {
    "linear": ([nn.Linear(24, 58), nn.ReLU(), nn.Linear(58, 10, bias=False)], {"relu": "hidden"}),
    "pointwise": (
        [nn.Conv2d(24, 58, 1), nn.ReLU(), nn.Conv2d(58, 116, 1, groups=2, bias=False), nn.ReLU()],
        {"relu": "all"},
    ),
    "depthwise": ([nn.Conv2d(24, 24, 1, groups=24)], {"inputs": "24"}),
    "norms": (
        [nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4, affine=False)],
        {"0.relu": "yes"},
    ),
    "eps": ([nn.Linear(8, 6), nn.BatchNorm1d(6, eps=0.3)], {"eps": "0.3"}),
}


@pytest.mark.parametrize("kind", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("modules, options", MODELS.values(), ids=MODELS)
def test_dense(tmp_path, modules, options, kind):
    model = trained(*modules)
    if kind == "w.pt":
        torch.save(model.state_dict(), tmp_path / kind)
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), tmp_path / kind)
    loaded = bfthw.load(tmp_path / kind, options=options)
    x = torch.randn(7, loaded.network.inputs).double()
    pixels = x if isinstance(model[0], nn.Linear) else x[..., None, None]
    assert np.allclose(loaded.network(x.numpy()), model(pixels).detach().numpy().reshape(7, -1))


@pytest.mark.parametrize(
    "modules, options, texts",
    [
        ([nn.BatchNorm1d(5), nn.Linear(6, 6)], {}, ["'0' has 5 features, layer '1' behind it 6 inputs"]),
        ([nn.Linear(6, 5), nn.BatchNorm1d(6)], {}, ["'1'", "has 6 features, layer '0' before it 5 outputs"]),
        ([nn.Linear(6, 6), nn.BatchNorm1d(6)], {"eps": "-1"}, ["eps must be a small positive number"]),
        ([nn.BatchNorm1d(6)], {}, ["no layer that is read here"]),
        ([nn.Conv2d(8, 6, 1, groups=2)], {"inputs": "16"}, ["16 inputs are no groups of 4"]),
        ([nn.Conv2d(8, 6, 1, groups=2)], {"inputs": "0"}, ["0 inputs are no groups of 4"]),
        ([nn.Linear(6, 6)], {"relu": "yes"}, ["relu must be none or hidden or all"]),
        ([nn.Linear(6, 6)], {"0.relu": "all"}, ["relu must be yes or no"]),
    ],
)
def test_dense_refused(tmp_path, modules, options, texts):
    torch.save(nn.Sequential(*modules).state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", *texts, options=options)
