"""torch_butterfly and the older `butterfly` module: chains against products of matrices written pair by pair."""

import numpy as np
import pytest
from checkpoint_files import refused

import bfthw

SIZES = [(16, 16), (2, 2), (24, 24), (32, 58), (58, 32), (116, 128), (7, 40), (24, 10), (128, 128)]


def log2(n):
    """m of the first 2^m that holds n values."""
    m = 0
    while 2**m < n:
        m += 1
    return m


def stage(n, stride, radix, matrix_of):
    """The matrix of a stage: element e of group g, at offset o, is at g * radix * stride + e * stride + o; the groups'
    matrices are numbered g * stride + o."""
    result = np.zeros((n, n))
    for pair in range(n // radix):
        first = pair // stride * radix * stride + pair % stride
        places = first + stride * np.arange(radix)
        result[np.ix_(places, places)] = matrix_of(pair)
    return result


def product(matrices, n):
    result = np.eye(n)
    for matrix in matrices:
        result = matrix @ result
    return result


def strides(m, blocks, increasing):
    """log2 of the stride of each stage, in the order of use: every other block runs the other way."""
    up, down = list(range(m)), list(range(m))[::-1]
    return [(up, down)[(block + (not increasing)) % 2] for block in range(blocks)]


def load(tmp_path, arrays, **options):
    np.savez(tmp_path / "w.npz", **arrays)
    return bfthw.load(tmp_path / "w.npz", options=options)


def matrix(network):
    return network(np.eye(network.inputs)).T


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_base_2(tmp_path, inputs, outputs, blocks, increasing):
    m = log2(inputs)
    n, rng = 2**m, np.random.default_rng(inputs + outputs + blocks)
    stacks = -(-outputs // n)
    twiddle, bias = rng.normal(size=(stacks, blocks, m, n // 2, 2, 2)), rng.normal(size=outputs)
    wanted = []
    for s in range(stacks):
        order = strides(m, blocks, increasing)
        stages = [
            stage(n, 2**k, 2, lambda pair: twiddle[s, b, idx, pair])  # noqa: B023 (used at once)
            for b in range(blocks)
            for idx, k in enumerate(order[b])
        ]
        wanted.append(product(stages, n))
    wanted = np.concatenate(wanted)[:outputs, :inputs]
    stride = "increasing" if increasing else "decreasing"
    loaded = load(tmp_path, {"fc.twiddle": twiddle, "fc.bias": bias}, stride=stride, inputs=inputs)
    assert np.allclose(loaded.network.layers[0].chain.dense(), wanted)
    assert np.array_equal(loaded.network.layers[0].bias, bias)
    # plain patterns where nothing is cut, and inside
    indexed = [f.support is not None for f in loaded.network.layers[0].chain.factors]
    assert not any(indexed[1:-1]) and any(indexed) == ((stacks, inputs, outputs) != (1, n, n))


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_base_4(tmp_path, inputs, outputs, blocks, increasing):
    m = log2(inputs)
    n, rng = 2**m, np.random.default_rng(inputs + outputs + blocks)
    stacks, odd = -(-outputs // n), m % 2
    four = rng.normal(size=(stacks, blocks, m // 2, n // 4, 4, 4))
    two = rng.normal(size=(stacks, blocks, odd, n // 2, 2, 2))
    wanted = []
    for s in range(stacks):
        stages = []
        for b in range(blocks):
            # radix 4 takes two strides of the radix-2 order at a time, the smaller of both; what is left over comes
            # last
            order = strides(m, blocks, increasing)[b]
            for idx in range(m // 2):
                k = min(order[2 * idx : 2 * idx + 2])
                stages.append(stage(n, 2**k, 4, lambda pair: four[s, b, idx, pair]))  # noqa: B023
            if odd:
                stages.append(stage(n, 2 ** order[-1], 2, lambda pair: two[s, b, 0, pair]))  # noqa: B023
        wanted.append(product(stages, n))
    wanted = np.concatenate(wanted)[:outputs, :inputs]
    arrays = {"twiddle4": four, "twiddle2": two, "bias": np.zeros(outputs)}
    loaded = load(tmp_path, arrays, inputs=inputs, stride="increasing" if increasing else "decreasing")
    assert np.allclose(matrix(loaded.network), wanted)


def fold(whole, outputs):
    """What the older module does with all stacks' rows: rows a power of two apart are added up, then cut."""
    part = 2 ** log2(outputs)
    count = len(whole) // part
    return sum(whole[k * part : (k + 1) * part] for k in range(count))[:outputs] if count > 1 else whole[:outputs]


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_the_old_module(tmp_path, inputs, outputs, tied, increasing):
    m = log2(inputs)
    n, rng = 2**m, np.random.default_rng(inputs + outputs)
    stacks = -(-outputs // n)
    twiddle = rng.normal(size=(stacks, n - 1, 2, 2) if tied else (stacks, m, n // 2, 2, 2))

    def matrix_of(s, k):
        if tied:  # the matrices of stride 2^k begin behind those of all smaller strides, one for each offset
            return lambda pair: twiddle[s, sum(2**j for j in range(k)) + pair % 2**k]
        return lambda pair: twiddle[s, k, pair]

    (order,) = strides(m, 1, increasing)
    whole = np.concatenate([product([stage(n, 2**k, 2, matrix_of(s, k)) for k in order], n) for s in range(stacks)])
    arrays = {"fc.twiddle": twiddle, "fc.bias": np.zeros(outputs)}
    loaded = load(tmp_path, arrays, inputs=inputs, stride="increasing" if increasing else "decreasing")
    assert loaded.notes[0] == "format recognised: butterfly"
    assert np.allclose(matrix(loaded.network), fold(whole, outputs)[:, :inputs])


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_old_module_with_b_bt(tmp_path, blocks):
    m, n, stacks, outputs = 4, 16, 2, 20
    twiddle = np.random.default_rng(blocks).normal(size=(stacks, 2 * m * blocks, n // 2, 2, 2))
    order = sum(strides(m, 2 * blocks, False), [])  # as applied; B first, by decreasing stride
    whole = [
        product([stage(n, 2**k, 2, lambda pair: twiddle[s, idx, pair]) for idx, k in enumerate(order)], n)  # noqa: B023
        for s in range(stacks)
    ]
    loaded = load(tmp_path, {"twiddle": twiddle, "bias": np.zeros(outputs)})
    assert np.allclose(matrix(loaded.network), np.concatenate(whole)[:outputs])


def test_expansion_is_a_sum(tmp_path):
    """Two stacks where one would do, of 16 -> 16: their sum."""
    twiddle = np.random.default_rng(0).normal(size=(2, 4, 8, 2, 2))
    both = matrix(load(tmp_path, {"twiddle": twiddle, "bias": np.zeros(16)}).network)
    one, two = (matrix(load(tmp_path, {"twiddle": t[None], "bias": np.zeros(16)}).network) for t in twiddle)
    assert np.allclose(both, one + two)


def test_what_is_taken_for_granted_is_said(tmp_path):
    twiddle = np.ones((2, 1, 4, 8, 2, 2))
    loaded = load(tmp_path, {"fc.twiddle": twiddle})
    assert (loaded.network.inputs, loaded.network.outputs) == (16, 32)
    for text in [
        "increasing stride assumed",
        "inputs taken as 16, 9 to 16 are possible; fc.inputs=N",
        "outputs taken as 32, 17 to 32",
    ]:
        assert any(text in note for note in loaded.notes), text
    loaded = load(tmp_path, {"fc.twiddle": twiddle}, **{"fc.inputs": "9", "outputs": 17, "stride": "decreasing"})
    assert (loaded.network.inputs, loaded.network.outputs) == (9, 17)
    assert not any("taken as" in note or "assumed" in note for note in loaded.notes)


def test_inputs_follow_from_the_layer_before(tmp_path):
    arrays = {
        "0.twiddle": np.ones((1, 1, 4, 8, 2, 2)),
        "0.bias": np.zeros(10),
        "1.twiddle": np.ones((1, 1, 4, 8, 2, 2)),
    }
    network = load(tmp_path, arrays).network
    assert [(layer.chain.inputs, layer.chain.outputs) for layer in network.layers] == [(16, 10), (10, 16)]
    arrays["1.twiddle"] = np.ones((1, 1, 3, 4, 2, 2))
    np.savez(tmp_path / "w.npz", **arrays)
    refused(
        tmp_path / "w.npz", "layer '1'", "the layer before gives 10 values, which does not fit: inputs are 5 to 8 here"
    )


def packed(twiddle, order):
    """The matrix of a stack that fast=True has packed, (stages, 2, n), by what their kernel does with a value: it takes
    its own weight times itself and the other one times its partner, a stride away."""
    n, result = twiddle.shape[-1], np.eye(twiddle.shape[-1])
    for (own, other), k in zip(twiddle, order, strict=True):
        one = np.diag(own)
        one[np.arange(n), np.arange(n) ^ 2**k] = other
        result = one @ result
    return result


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_the_old_module_fast(tmp_path, inputs, outputs, increasing):
    m = log2(inputs)
    n, rng = 2**m, np.random.default_rng(inputs + outputs)
    stacks = -(-outputs // n)
    twiddle, bias = rng.normal(size=(stacks, m, 2, n)), rng.normal(size=outputs)
    (order,) = strides(m, 1, increasing)
    whole = np.concatenate([packed(twiddle[s], order) for s in range(stacks)])
    stride = "increasing" if increasing else "decreasing"
    options = {"inputs": inputs, "stride": stride} | ({"fast": "yes"} if n == 2 else {})  # which looks like a tied one
    loaded = load(tmp_path, {"fc.twiddle": twiddle, "fc.bias": bias}, **options)
    assert loaded.notes[0] == "format recognised: butterfly" and any("as packed for fast" in n for n in loaded.notes)
    assert np.allclose(loaded.network.layers[0].chain.dense(), fold(whole, outputs)[:, :inputs])
    assert np.array_equal(loaded.network.layers[0].bias, bias)


@pytest.mark.parametrize("blocks, m", [(1, 4), (2, 4), (1, 1), (3, 1), (1, 2), (2, 5)])
def test_the_old_module_fast_with_b_bt(tmp_path, blocks, m):
    twiddle = np.random.default_rng(blocks).normal(size=(2, 2 * m * blocks, 2, 2**m))
    order = sum(strides(m, 2 * blocks, False), [])
    loaded = load(tmp_path, {"twiddle": twiddle, "bias": np.zeros(2 * 2**m)})
    assert np.allclose(matrix(loaded.network), np.concatenate([packed(t, order) for t in twiddle]))


def matrix_of_number(param, t):
    """What the module makes of one number."""
    p = {"ds": t, "logit": 1 / (1 + np.exp(-t)), "ortho2": np.cos(t) ** 2}.get(param)
    if param == "ortho":
        return np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return np.array([[p, 1 - p], [1 - p, p]])


@pytest.mark.parametrize("param", ["ortho", "ortho2", "ds", "logit"])
@pytest.mark.parametrize("kind", ["tied", "untied", "b_bt"])
@pytest.mark.parametrize("inputs, outputs", [(16, 16), (2, 2), (32, 58), (7, 40), (24, 10)])
def test_the_old_module_of_numbers(tmp_path, inputs, outputs, kind, param):
    m = log2(inputs)
    n, rng = 2**m, np.random.default_rng(inputs + outputs)
    stacks = -(-outputs // n)
    shape = {"tied": (stacks, n - 1), "untied": (stacks, m, n // 2), "b_bt": (stacks, 2 * m, n // 2)}[kind]
    twiddle = rng.normal(size=shape)
    order = sum(strides(m, 2, False), []) if kind == "b_bt" else strides(m, 1, False)[0]

    def number(s, index, k, pair):
        if kind == "tied":
            return twiddle[s, 2**k - 1 + pair % 2**k]
        return twiddle[s, index if kind == "b_bt" else k, pair]

    whole = []
    for s in range(stacks):
        stages = [
            stage(n, 2**k, 2, lambda pair: matrix_of_number(param, number(s, index, k, pair)))  # noqa: B023
            for index, k in enumerate(order)
        ]
        whole.append(product(stages, n))
    options = {"inputs": inputs, "stride": "decreasing"} | ({} if param == "ortho" else {"param": param})
    if kind == "b_bt":
        options.pop("stride")
    loaded = load(tmp_path, {"fc.twiddle": twiddle, "fc.bias": np.zeros(outputs)}, **options)
    assert np.allclose(loaded.network.layers[0].chain.dense(), fold(np.concatenate(whole), outputs)[:, :inputs])
    assert any("taken as angles of rotations" in note for note in loaded.notes) == (param == "ortho")


def test_two_by_two_may_be_new_or_old(tmp_path):
    """Six dimensions of two: two blocks over four values, or complex ones of the older module. A bias tells them."""
    twiddle = np.random.default_rng(1).normal(size=(1, 2, 2, 2, 2, 2))
    np.savez(tmp_path / "w.npz", twiddle=twiddle)
    refused(tmp_path / "w.npz", "two real blocks over 4 values or complex", "--format torch_butterfly")
    refused(tmp_path / "w.npz", "complex weights", format="butterfly")
    order = strides(2, 2, True)
    stages = [(twiddle[0, b, j], 2**k) for b in range(2) for j, k in enumerate(order[b])]
    wanted = product([stage(4, stride, 2, matrices.__getitem__) for matrices, stride in stages], 4)
    assert np.allclose(matrix(bfthw.load(tmp_path / "w.npz", format="torch_butterfly").network), wanted)
    assert np.allclose(matrix(load(tmp_path, {"twiddle": twiddle, "bias": np.zeros(4)}).network), wanted)
    np.savez(tmp_path / "w.npz", twiddle=twiddle, bias=np.ones((4, 2)))
    refused(tmp_path / "w.npz", "complex weights")


@pytest.mark.parametrize("m", range(1, 8))
@pytest.mark.parametrize("stacks", [1, 3])
def test_complex_ones_are_refused_as_complex_at_every_size(tmp_path, m, stacks):
    """The older module's untied and tied ones, of two numbers each, and those of torch_butterfly, in both forms."""
    n = 2**m
    shapes = {"untied": (stacks, m, n // 2, 2, 2, 2), "tied": (stacks, n - 1, 2, 2, 2)}
    shapes["torch_butterfly"] = (stacks, 2, m, n // 2, 2, 2, 2)
    for name, shape in shapes.items():
        np.savez(tmp_path / "w.npz", **{"fc.twiddle": np.ones(shape)})
        words = "or complex ones of" if (name, m) == ("untied", 2) else "complex weights have no real butterfly"
        refused(tmp_path / "w.npz", words)
        np.savez(tmp_path / "w.npz", **{"fc.twiddle": np.ones(shape), "fc.bias": np.ones((n, 2))})
        refused(tmp_path / "w.npz", "complex weights have no real butterfly of the same size")
    np.savez(tmp_path / "w.npz", **{"fc.twiddle": np.ones((stacks, 2, m, n // 2, 2, 2), np.complex64)})
    refused(tmp_path / "w.npz", "a complex butterfly has no real one")


REFUSED = {
    "complex": ({"twiddle": np.ones((1, 1, 4, 8, 2, 2), np.complex64)}, {}, ["must be real numbers", "complex64"]),
    "unitary": ({"twiddle": np.ones((1, 1, 4, 8, 4))}, {}, ["ButterflyUnitary", "complex"]),
    "shape": ({"twiddle": np.ones((1, 1, 3, 8, 2, 2))}, {}, ["must have shape .stacks, blocks, m"]),
    "size": ({"twiddle": np.ones((1, 1, 3, 6, 2, 2))}, {}, ["power of two"]),
    "bias": (
        {"twiddle": np.ones((1, 1, 4, 8, 2, 2)), "bias": np.ones(17)},
        {},
        ["bias has 17 entries, the butterfly 1 to 16"],
    ),
    "bias of fewer stacks": (
        {"twiddle": np.ones((2, 1, 4, 8, 2, 2)), "bias": np.ones(16)},
        {},
        ["bias has 16 entries, the butterfly 17 to 32"],
    ),
    "inputs": (
        {"twiddle": np.ones((1, 1, 4, 8, 2, 2))},
        {"inputs": 8},
        ["inputs = 8 does not fit: inputs are 9 to 16"],
    ),
    "words": ({"twiddle": np.ones((1, 1, 4, 8, 2, 2))}, {"inputs": "x"}, ["inputs = x"]),
    "stride": (
        {"twiddle": np.ones((1, 1, 4, 8, 2, 2))},
        {"stride": "up"},
        ["stride must be increasing or decreasing, got 'up'"],
    ),
    "base 4 without 2": ({"twiddle4": np.ones((1, 1, 2, 4, 4, 4))}, {}, ["has twiddle4 and twiddle2"]),
    "base 4": (
        {"twiddle4": np.ones((1, 1, 2, 8, 4, 4)), "twiddle2": np.ones((1, 1, 0, 8, 2, 2))},
        {},
        ["for n = 16", r"\(1, 1, 2, 4, 4, 4\)"],
    ),
    "another part": (
        {"twiddle": np.ones((1, 1, 4, 8, 2, 2)), "scale_": np.ones(3)},
        {},
        ["'scale_' is not known here"],
    ),
    "old, empty": ({"twiddle": np.ones((0, 15, 2, 2))}, {}, ["twiddle is empty"]),
    "old, packed, stages": ({"twiddle": np.ones((1, 6, 2, 16))}, {}, ["packed, .*stacks, m or 2 m blocks", "m = 4"]),
    "old, packed, size": ({"twiddle": np.ones((1, 4, 2, 12))}, {}, ["packed, is over 12 values"]),
    "old, angles": ({"twiddle": np.ones((1, 4, 7))}, {}, ["untied, is over 14 values"]),
    "old, tied angles": ({"twiddle": np.ones((1, 14))}, {}, ["tied, is over 15 values"]),
    "old, param": ({"twiddle": np.ones((1, 15))}, {"param": "svd"}, ["param must be ortho or ortho2 or ds or logit"]),
    "old, odo": ({"twiddle": np.ones((1, 4, 8, 2, 2)), "diag": np.ones((1, 16))}, {}, ["angles"]),
    "old, complex": ({"twiddle": np.ones((1, 15, 2, 2, 2))}, {}, ["complex"]),
    "old, no power of two": ({"twiddle": np.ones((1, 13, 2, 2))}, {}, ["over 14 values"]),
    "old, stages": ({"twiddle": np.ones((1, 5, 8, 2, 2))}, {}, ["stacks, m or 2 m blocks"]),
    "old, folded": (
        {"twiddle": np.ones((5, 2, 2, 2, 2)), "bias": np.ones(5)},
        {},
        ["5 stacks of 4 values cannot be folded to 8"],
    ),
}


@pytest.mark.parametrize("arrays, options, texts", REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, arrays, options, texts):
    np.savez(tmp_path / "w.npz", **arrays)
    refused(tmp_path / "w.npz", *texts, options=options)
