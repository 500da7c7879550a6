"""Float layers and networks against plain matrix arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from bfthw import Chain, Factor, Layer, Network, chain, compile
from bfthw.act import RELU, RELU6
from bfthw.network import equalise

CASES = [(r, s, b, u) for r in (False, True) for s in (False, True) for b in (False, True) for u in (False, True)]


def random_layer(seed, *, residual=False, scale=False, bias=False, relu=False, name="0", shape=None):
    rng = np.random.default_rng(seed)
    built = Chain.random(shape or chain.bft(16, 4), seed)
    return Layer(
        chain=built,
        residual=residual,
        scale=rng.normal(size=built.outputs) if scale else None,
        bias=rng.normal(size=built.outputs) if bias else None,
        relu=relu,
        name=name,
    )


@pytest.mark.parametrize("residual, scale, bias, relu", CASES)
def test_layer_is_its_formula(residual, scale, bias, relu):
    layer = random_layer(7, residual=residual, scale=scale, bias=bias, relu=relu)
    x = np.random.default_rng(8).normal(size=(5, 16))
    y = x @ layer.chain.dense().T
    if residual:
        y = y + x
    if scale:
        y = y * layer.scale
    if bias:
        y = y + layer.bias
    if relu:
        y = np.maximum(y, 0)
    np.testing.assert_allclose(layer(x), y, atol=1e-12)
    taps = layer.taps(x)
    np.testing.assert_allclose(taps[0], layer.chain.factors[0](x), atol=1e-12)
    assert len(taps) == 2 and np.array_equal(taps[-1], layer(x))


def test_words_of_rows_are_those_of_graphs():
    """residual and relu say what inputs, add_scale and act say; changed, they change those alone."""
    layer = random_layer(1, residual=True, scale=True, relu=True)
    assert layer.inputs == (None, None) and layer.act == RELU and layer.residual and layer.relu
    assert np.array_equal(layer.add_scale, layer.scale) and layer.parts == ["residual", "relu", "scale"]
    bare = replace(layer, relu=False, residual=False)
    assert bare.act is None and bare.inputs == (None,) and bare.add_scale is None and bare.parts == ["scale"]
    six = replace(layer, act="relu6", name="b")
    assert not six.relu and six.residual and six.act == RELU6 and six.parts == ["residual", "relu6", "scale"]
    added = replace(layer, add="a")
    assert added.inputs == (None, "a") and not added.residual and added.parts == ["add", "relu", "scale"]
    assert replace(bare, residual=True, scale=np.ones(16)).add_scale.tolist() == [1.0] * 16
    with pytest.raises(TypeError, match="a Network needs nodes and a shape, or layers"):
        Network(shape=3)
    network = Network(layers=[bare], formats="some")
    assert network.shape == (1, 1, 16) and replace(network, layers=[six]).nodes == (six,)
    assert replace(network, formats=None).formats is None and network.layers == network.nodes == (bare,)


def test_batch_norm_is_scale_and_bias():
    rng = np.random.default_rng(0)
    gamma, beta, mean, var = rng.normal(size=16), rng.normal(size=16), rng.normal(size=16), rng.uniform(0.1, 2, 16)
    scale = gamma / np.sqrt(var + 1e-5)
    plain = random_layer(1, residual=True)
    folded = Layer(chain=plain.chain, residual=True, scale=scale, bias=beta - mean * scale)
    x = rng.normal(size=(9, 16))
    np.testing.assert_allclose(folded(x), (plain(x) - mean) / np.sqrt(var + 1e-5) * gamma + beta, atol=1e-12)


def test_network_is_its_layers_in_order():
    first = random_layer(1, name="a", relu=True)
    second = random_layer(2, name="b", shape=chain.monarch(12, 16, 4), bias=True)
    network = Network(layers=[first, second])
    x = np.random.default_rng(3).normal(size=(4, 16))
    assert np.array_equal(network(x), second(first(x)))
    assert (network.inputs, network.outputs, len(network.taps(x))) == (16, 12, 4)


@pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
@pytest.mark.parametrize("parts", CASES[::3], ids=str)
def test_equalise_leaves_the_function_unchanged(parts, seed):
    residual, scale, bias, relu = parts
    layer = random_layer(seed, residual=residual, scale=scale, bias=bias, relu=relu, shape=chain.mixed_radix((4, 2, 2)))
    # rows of very different size
    values = [
        f.values * np.exp2(np.random.default_rng(seed).integers(-6, 7, f.values.shape)) for f in layer.chain.factors
    ]
    network = Network(
        layers=[Layer(chain=Chain(map(Factor, values)), residual=residual, scale=layer.scale, bias=layer.bias)]
    )
    x = np.random.default_rng(seed + 10).normal(size=(8, 16))
    even = equalise(network)
    np.testing.assert_allclose(even(x), network(x), rtol=1e-9, atol=1e-9 * np.abs(network(x)).max())
    rows = np.abs(even.layers[0].scaled[0].values).max(axis=2).ravel()
    columns = np.abs(even.layers[0].scaled[1].values).max(axis=1).ravel()
    spread = np.log2(rows / columns)
    before = np.log2(
        np.abs(values[0]).max(axis=2).ravel() / np.abs(network.layers[0].scaled[1].values).max(axis=1).ravel()
    )
    assert np.abs(spread).max() < 0.3 * np.abs(before).max()


def test_equalise_makes_peaks_equal_where_two_factors_meet():
    network = Network(layers=[Layer(chain=Chain([Factor([[[[8.0]]]]), Factor([[[[0.5]]]])]))])
    values = [f.values.item() for f in equalise(network).layers[0].chain.factors]
    assert values == [2.0, 2.0]


def test_equalise_survives_dead_rows_and_zero_scales():
    values = np.random.default_rng(0).normal(size=(1, 4, 4, 1))
    values[0, 1] = 0
    after = np.ones((1, 4, 4, 1))
    after[0, :, 2] = 0
    layer = Layer(chain=Chain([Factor(values), Factor(after)]))
    x = np.eye(4)
    np.testing.assert_allclose(equalise(Network(layers=[layer]))(x), layer(x), atol=1e-12)
    layer = Layer(chain=layer.chain, scale=np.array([1.0, 0.0, 2.0, 3.0]))
    np.testing.assert_allclose(equalise(Network(layers=[layer]))(x), layer(x), atol=1e-12)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: random_layer(0, residual=True, shape=chain.dense(3, 4)), "residual needs as many outputs .*4 -> 3"),
        (
            lambda: Layer(chain=random_layer(0).chain, bias=np.zeros(4)),
            r"Layer.bias must have shape \(16,\), got \(4,\)",
        ),
        (lambda: Layer(chain=random_layer(0).chain, scale=np.full(16, np.inf)), "Layer.scale must be finite real"),
        (lambda: Layer(chain=random_layer(0).chain, scale=np.ones(16, complex)), "Layer.scale must be finite real"),
        (lambda: Layer(chain=random_layer(0).chain, name="../0"), "a layer's name must be words"),
        (lambda: Network(layers=[]), "at least one layer"),
        (lambda: Network(layers=[random_layer(0), random_layer(1)]), "layer names must differ"),
        (
            lambda: Network(layers=[random_layer(0, name="a"), random_layer(0, name="b", shape=chain.dense(3, 4))]),
            "'a' gives 16 values, 'b' takes 4",
        ),
        (lambda: Network(layers=[random_layer(0)])(np.zeros((3, 4))), r"vectors must have shape \(N, 16\)"),
    ],
)
def test_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_repr_is_one_short_line():
    """Of large networks, too: sizes, patterns and names, no numbers."""
    built = Chain.random(chain.bft(256), seed=0)
    layers = [Layer(chain=built, residual=True, bias=np.ones(256), name=name) for name in "ab"]
    network = Network(layers=layers)
    integers = compile(network, allow_constant=True)
    assert repr(network) == "<Network 256 -> 256: a, b>"
    assert repr(layers[0]).startswith("<Layer a + residual + bias: <Chain 256 -> 256: (1, 4, 4, 64) ")
    assert repr(integers).startswith("<IntNetwork 256 -> 256, 8 bits, 2^-7 -> 10 bits, 2^")
    for one in (layers[0].chain, layers[0].chain.factors[0], integers.layers[0], integers.factors[0]):
        assert len(repr(one)) < 120 and "\n" not in repr(one) and type(one).__name__ in repr(one)
