"""Diagonals and fixed permutations of torch_butterfly between its butterflies: against products of matrices."""

import numpy as np
import pytest
import torch
from checkpoint_files import WRITERS, refused
from test_import_torch_butterfly import log2, product, stage, strides
from torch import nn

import bfthw


def matrix(parts, increasing=True):
    """Of a layer, from its definition."""
    if "diagonal" in parts:
        return np.diag(parts["diagonal"])
    if "permutation" in parts:
        rows = np.zeros((len(parts["permutation"]),) * 2)
        for j, i in enumerate(parts["permutation"]):
            rows[j, i] = 1
        return rows
    (twiddle,), n = parts["twiddle"], 2 * parts["twiddle"].shape[3]
    orders = strides(log2(n), len(twiddle), increasing)
    stages = [
        stage(n, 2**k, 2, lambda pair: twiddle[b, place, pair])  # noqa: B023 (used at once)
        for b, order in enumerate(orders)
        for place, k in enumerate(order)
    ]
    return product(stages, n)


def parts_of(kind, n, rng):
    if kind == "D":
        return {"diagonal": rng.normal(size=n)}
    if kind == "P":
        return {"permutation": rng.permutation(n)}
    if kind == "H":  # a Hadamard matrix, as it starts
        return {"twiddle": np.broadcast_to([[1.0, 1], [1, -1]], (1, 1, log2(n), n // 2, 2, 2))}
    return {"twiddle": rng.normal(size=(1, len(kind), log2(n), n // 2, 2, 2))}


# fastfood; Hadamard and diagonals in turn; a wavelet's butterfly and permutation; what flips a butterfly; ends alone
PRODUCTS = ["DBPDBD", "DHDHDH", "BP", "PBP", "D", "P", "PDP", "BB", "DBB"]


@pytest.mark.parametrize("n, name", [*((n, "w.npz") for n in (2, 4, 16, 64)), (16, "w.pt"), (16, "w.safetensors")])
@pytest.mark.parametrize("product_", PRODUCTS)
def test_products(tmp_path, product_, n, name):
    rng, arrays, wanted, options = np.random.default_rng(n), {}, np.eye(n), {}
    for k, kind in enumerate(product_):
        parts, increasing = parts_of(kind, n, rng), bool(rng.integers(2))
        arrays |= {f"{k}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}
        wanted = matrix(parts, increasing) @ wanted
        if "twiddle" in parts:
            options[f"{k}.stride"] = "increasing" if increasing else "decreasing"
    loaded = bfthw.load(WRITERS[name](tmp_path / name, arrays), options=options)
    assert np.allclose(loaded.network(np.eye(n)).T, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    kinds = {"D": "special", "P": "special"}
    expected = ", ".join(dict.fromkeys(kinds.get(kind, "torch_butterfly") for kind in product_))
    assert loaded.notes[0] == f"format recognised: {expected}"
    assert any("y[j] = x[permutation[j]]" in note for note in loaded.notes) == ("P" in product_)


def test_patterns(tmp_path):
    np.savez(tmp_path / "w.npz", **{"0.diagonal": np.arange(1.0, 5), "1.permutation": np.array([2, 0, 3, 1])})
    one, two = (layer.chain.factors[0] for layer in bfthw.load(tmp_path / "w.npz").network.layers)
    assert one.pattern == (4, 1, 1, 1) and one.values.ravel().tolist() == [1, 2, 3, 4]
    assert two.support.index.tolist() == [[2], [0], [3], [1]] and two.values.ravel().tolist() == [1] * 4


def test_integers(tmp_path):
    """Through integers: a permutation moves them, and loses nothing."""
    order = np.array([5, 2, 0, 7, 3, 1, 6, 4])
    np.savez(tmp_path / "w.npz", **{"0.permutation": order, "1.diagonal": np.full(8, 0.5), "2.permutation": order})
    integers = bfthw.compile(bfthw.load(tmp_path / "w.npz").network)
    x = np.arange(8)[None] * 16 - 64
    scale = 2.0 ** (integers.output.frac - integers.input.frac)
    assert np.array_equal(integers(x)[0] / scale, 0.5 * x[0, order][order])


@pytest.mark.parametrize("format", ["torch_butterfly", "butterfly", "special"])
def test_a_format_that_is_named(tmp_path, format):
    """They stand beside layers of every format, the older package's too."""
    twiddle = {"torch_butterfly": (1, 1, 2, 2, 2, 2), "butterfly": (1, 2, 2, 2, 2)}.get(format)
    arrays = {"0.permutation": np.array([1, 0, 3, 2]), "1.diagonal": np.ones(4)}
    arrays |= {"2.twiddle": np.ones(twiddle)} if twiddle else {}
    np.savez(tmp_path / "w.npz", **arrays)
    assert len(bfthw.load(tmp_path / "w.npz", format=format).network.layers) == len(arrays)


def test_beside_modules_and_norms(tmp_path):
    """A batch norm behind a diagonal is folded into it, and a ReLU stands behind a permutation."""
    torch.manual_seed(2)
    norm = nn.BatchNorm1d(6).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    diagonal, order = torch.randn(6).double(), torch.randperm(6)
    state = {f"1.{key}": value for key, value in norm.state_dict().items()}
    torch.save({"0.diagonal": diagonal} | state | {"2.permutation": order}, tmp_path / "w.pt")
    network = bfthw.load(tmp_path / "w.pt", options={"2.relu": "yes"}).network
    x = torch.randn(5, 6).double()
    wanted = norm(x * diagonal)[:, order].relu().detach().numpy()
    assert [layer.name for layer in network.layers] == ["0", "2"] and np.allclose(network(x.numpy()), wanted)


@pytest.mark.parametrize(
    "arrays, texts",
    [
        ({"diagonal": np.ones(4, np.complex64)}, ["'diagonal' must be real numbers, got dtype complex64"]),
        ({"diagonal": np.ones((2, 4))}, ["diagonal must have shape .n,., got .2, 4."]),
        ({"diagonal": np.ones(0)}, ["diagonal must have shape .n,., got .0,."]),
        ({"permutation": np.array([0, 1, 1])}, ["permutation must be integers, each of 0 to 2 once"]),
        ({"permutation": np.array([1, 2, 3])}, ["permutation must be integers, each of 0 to 2 once"]),
        ({"permutation": np.array([0, -1])}, ["permutation must be integers, each of 0 to 1 once"]),
        ({"permutation": np.array([0.0, 1.0])}, ["permutation must be integers"]),
        ({"permutation": np.arange(3), "bias": np.ones(3)}, ["no layer that is read here"]),
        ({"0.diagonal": np.ones(4), "1.diagonal": np.ones(8)}, ["do not chain: '0' gives 4 values, '1' takes 8"]),
    ],
)
def test_refused(tmp_path, arrays, texts):
    np.savez(tmp_path / "w.npz", **arrays)
    refused(tmp_path / "w.npz", *texts)


@pytest.mark.parametrize("before", ["", "a.", "kop."])
@pytest.mark.parametrize("inside", ["", ".0"])
def test_maps_along_two_axes_are_no_chain(tmp_path, before, inside):
    """A TensorProduct has one map along each axis of an image: of n each, they would chain by their sizes."""
    one = {f"{before}map{k}{inside}.twiddle": np.ones((1, 1, 3, 4, 2, 2)) for k in (1, 2)}
    np.savez(tmp_path / "w.npz", **{f"{before}map1.9.permutation": np.arange(8)} | one)
    refused(tmp_path / "w.npz", "are those of a TensorProduct, .* along two axes .*--order .*map[12].* takes one")
    name = f"{before}map1{inside}"
    assert bfthw.load(tmp_path / "w.npz", order=[name]).network.layers[0].name == name
    # dense layers of such names are
    np.savez(tmp_path / "w.npz", **{f"{before}map{k}{inside}.weight": np.ones((8, 8)) for k in (1, 2)})
    assert len(bfthw.load(tmp_path / "w.npz").network.layers) == 2
