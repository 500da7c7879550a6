"""Factors whose inputs are named one by one: the same in numpy, torch, files and integers, and refused where they do
not fit.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from checkpoint_files import WRITERS

import bfthw
from bfthw import Chain, Factor, Layer, Network, chain
from bfthw.chain import Indexed
from bfthw.network import equalise
from bfthw.nn import Butterfly, to_layer
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import check_fits, choose_formats, formats_of, quantise


def cyclic(n, fan, stride):
    """y[j] takes x[(j + f * stride) mod n]."""
    return Indexed((np.arange(n)[:, None] + stride * np.arange(fan)) % n, n)


def dense(factor):
    """The matrix of an indexed factor, entry by entry."""
    matrix = np.zeros((factor.pattern.outputs, factor.pattern.inputs))
    for j, row in enumerate(factor.support.index):
        for k, i in enumerate(row):
            matrix[j, i] += factor.values[j, 0, k, 0]
    return matrix


SHAPES = {
    "cyclic": [cyclic(9, 3, 1), cyclic(9, 3, 3)],
    "padded": [Indexed(np.arange(8)[:, None] % 6, 6), *chain.bft(8, 2), Indexed(np.arange(6)[:, None], 8)],
    "one input twice": [Indexed([[0, 0], [1, 0]], 2)],
    "an input of no use": [Indexed([[0, 2], [2, 0]], 3), (1, 3, 2, 1)],
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def network(request):
    return random_network(request.param)


def random_network(shape, seed=0):
    one = Chain.random(shape, seed)
    return Network(layers=(Layer(chain=one, name="a", residual=one.inputs == one.outputs, relu=True),))


def test_means_its_matrix(network):
    product = np.eye(network.inputs)
    for factor in network.layers[0].chain.factors:
        product = (dense(factor) if factor.support is not None else factor.dense()) @ product
    assert np.allclose(network.layers[0].chain.dense(), product)


def test_same_in_torch(network):
    layer = network.layers[0]
    module = Butterfly(layer.chain.patterns, residual=layer.residual, relu=True).double()
    with torch.no_grad():
        for own, factor in zip(module.factors, layer.chain.factors):
            own.copy_(torch.from_numpy(factor.values))
    x = np.random.default_rng(1).normal(size=(5, network.inputs))
    assert np.allclose(module(torch.from_numpy(x)).detach().numpy(), network(x))
    again = to_layer(copy.deepcopy(module), "a")
    assert again.chain.patterns == layer.chain.patterns
    assert all(np.array_equal(a.values, b.values) for a, b in zip(again.chain.factors, layer.chain.factors))


@pytest.mark.parametrize("name", WRITERS)
def test_through_a_torch_file(tmp_path, name, network):
    layer = network.layers[0]
    module = Butterfly(layer.chain.patterns, residual=layer.residual)
    arrays = {key: value.numpy() for key, value in module.state_dict().items()}
    WRITERS[name](tmp_path / name, arrays)
    found = bfthw.load(tmp_path / name).network.layers[0]
    assert found.chain.patterns == layer.chain.patterns and found.residual == layer.residual


@pytest.mark.parametrize("suffix", (".safetensors", ".npz"))
def test_saved_and_read_again(tmp_path, network, suffix):
    path = tmp_path / f"w{suffix}"
    bfthw.checkpoint.save(network, path)
    found = bfthw.load(path).network
    assert found.layers[0].chain.patterns == network.layers[0].chain.patterns
    assert all(
        np.array_equal(a, b) for a, b in zip(found.taps(np.eye(network.inputs)), network.taps(np.eye(network.inputs)))
    )


def test_integers_everywhere(tmp_path, network):
    """Golden model, quantisation-aware training and the file of integers agree exactly."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (20, network.inputs))
    formats = choose_formats(network, bfthw.Settings(weight_bits=6, row_exponents=2), x)
    integers = quantise(network, formats)
    q = integers.input.quantise(x)
    wanted = integers(q)
    assert np.array_equal(QuantisedNetwork(network, formats).integers(torch.from_numpy(x)).numpy(), wanted)
    bfthw.save_integers(integers, tmp_path / "i.npz")
    again = bfthw.load_integers(tmp_path / "i.npz")
    assert np.array_equal(again(q), wanted) and [f.pattern for f in again.factors] == [
        f.pattern for f in integers.factors
    ]
    assert formats_of(again).input == formats.input
    check_fits(network, formats)
    # the exact sum, by the matrix
    for factor, acc, y in integers.accumulators(q):
        if factor.support is not None and factor.skip_input is None and factor.exponents is None:
            assert np.array_equal(acc, q @ dense(factor).astype(np.int64).T)
        q = y


def test_equalised_computes_the_same(network):
    x = np.random.default_rng(3).normal(size=(5, network.inputs))
    other = equalise(network)
    assert np.allclose(other(x), network(x))
    if len(network.layers[0].chain.factors) > 1:
        before, after = (n.layers[0].chain.factors for n in (network, other))
        assert not np.array_equal(before[0].values, after[0].values)


def test_equal_where_all_is():
    one, two = cyclic(9, 3, 1), cyclic(9, 3, 3)
    assert (
        one == cyclic(9, 3, 1) and one != two and one != chain.Pattern(9, 1, 3, 1) and chain.Pattern(9, 1, 3, 1) != one
    )
    for made in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert made == one and made.inputs == 9
    assert (one.inputs, one.outputs, one.weights, str(one)) == (9, 9, 27, "(9, 1, 3, 1) of 9")


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Indexed([[0, 9]], 9), "0 to 8, found 0 to 9"),
        (lambda: Indexed([[-1, 0]], 9), "found -1 to 0"),
        (lambda: Indexed([0, 1], 2), r"integers \(outputs, c\), got int64 of shape \(2,\)"),
        (lambda: Indexed([[0.5]], 2), "got float64"),
        (lambda: Indexed([[0]], 0), "positive number of inputs, got 0"),
        (
            lambda: Factor(np.ones((2, 1, 1, 1)), Indexed([[0]], 1)),
            r"must have shape \(1, 1, 1, 1\), got \(2, 1, 1, 1\)",
        ),
        (lambda: chain.patterns([(1, 2, 2, 1), Indexed([[0]], 3)]), "gives 2 values, factor 1 .*takes 3"),
    ],
)
def test_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def arrays(**changed):
    table = {
        "a.factors.0": np.ones((2, 1, 2, 1)),
        "a.index.0": np.array([[0, 1], [2, 0]]),
        "a.flags": np.array([2, 0, 0, 3]),
    }
    table |= {f"a.{key}": value for key, value in changed.items()}
    return {key: value for key, value in table.items() if value is not None}


def test_a_file_that_fits(tmp_path):
    np.savez(tmp_path / "w.npz", **arrays())
    assert bfthw.load(tmp_path / "w.npz").network.layers[0].chain.dense().tolist() == [[1, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    "changed, text",
    [
        ({"flags": None}, "flags must say its inputs"),
        ({"flags": np.array([1, 0, 0])}, "flags must say its inputs"),
        ({"flags": np.array([2, 0, 0, 2])}, "'a.index.0': an index into 2 values must be 0 to 1, found 0 to 2"),
        ({"flags": np.array([2, 0, 0, -2])}, "must be 1 to 65536, got -2"),
        ({"flags": np.array([3, 0, 0, 3])}, "version of 4 flags must be 2, got 3"),
        ({"index.0": np.array([[0, 1]])}, r"must have shape \(outputs, c\)"),
        ({"factors.0": np.ones((1, 2, 2, 1))}, r"must have shape \(outputs, c\)"),
        ({"index.0": np.array([[0, 1], [2, 0.5]])}, "got float64"),
        ({"index.1": np.array([[0]])}, "'a.index.1': there is no such factor"),
        ({"index.0": None}, "has 4 inputs, its flags say 3"),
    ],
)
def test_a_file_that_does_not(tmp_path, changed, text):
    np.savez(tmp_path / "w.npz", **arrays(**changed))
    with pytest.raises(bfthw.checkpoint.CheckpointError, match=text):
        bfthw.load(tmp_path / "w.npz")


def test_another_index_is_not_loaded():
    one, two = Butterfly([cyclic(9, 3, 1)]), Butterfly([cyclic(9, 3, 3)])
    with pytest.raises(RuntimeError, match="index.0 must be that of this module's patterns"):
        one.load_state_dict(two.state_dict())
    Butterfly([cyclic(9, 3, 1)]).load_state_dict(Butterfly([cyclic(9, 3, 1)]).state_dict())
