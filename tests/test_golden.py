"""The golden model against dense matrices and exact arithmetic that shares nothing with it."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from bfthw import IntFactor, IntLayer, IntNetwork, QFormat

seeds = pytest.mark.parametrize("seed", range(40), ids="seed-{}".format)


def power(e):
    return Fraction(2) ** e


def exact_factor(factor, x, x0):
    """One vector through one factor: the real numbers that the integers stand for, rounded once. (outputs, clipped)."""
    a, b, c, d = factor.values.shape
    y, clipped = [], 0
    for i, j, l in np.ndindex(a, b, d):
        row = (i * b + j) * d + l
        e = 0 if factor.exponents is None else int(factor.exponents[i, j, l])
        total = Fraction(0)
        for k in range(c):
            weight = int(factor.values[i, j, k, l]) * power(-factor.weights.frac - e)
            total += weight * x[(i * c + k) * d + l] * power(-factor.input.frac)
        finest = factor.input.frac + factor.weights.frac + factor.max_exponent
        if factor.skip_input:
            frac = factor.skip_input.frac
            weight = Fraction(1)
            if factor.skip is not None:
                weight = int(factor.skip[row]) * power(-factor.skip_weights.frac)
                frac += factor.skip_weights.frac
            total += weight * x0[row] * power(-factor.skip_input.frac)
            finest = max(finest, frac)
        if factor.bias is not None:
            total += int(factor.bias[row]) * power(-finest)
        q = floor(total * power(factor.output.frac) + Fraction(1, 2))
        lo, hi = -(2 ** (factor.output.width - 1)), 2 ** (factor.output.width - 1) - 1
        if not factor.output.signed:
            lo, hi = 0, 2**factor.output.width - 1
        clipped += q > hi or (q < lo and not factor.relu)
        q = min(max(q, lo), hi)
        y.append(max(q, 0) if factor.relu else q)
    return y, clipped


def integers(rng, fmt, shape):
    """Integers of a format with the extremes well represented."""
    q = rng.integers(fmt.lo, fmt.hi + 1, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([fmt.lo, fmt.hi, 0], shape), q)


def random_factor(rng, pattern, x_format, **rest):
    a, b, _, d = pattern
    weights = QFormat(int(rng.integers(2, 9)), int(rng.integers(-6, 12)))
    exponents = rng.integers(0, 5, (a, b, d)) if rng.random() < 0.5 else None
    # around the accumulator's own fraction bits: shifts of both signs, with and without saturation
    output = QFormat(int(rng.integers(2, 13)), x_format.frac + weights.frac + int(rng.integers(-12, 5)))
    values = integers(rng, weights, pattern)
    return IntFactor(values=values, input=x_format, weights=weights, output=output, exponents=exponents, **rest)


def random_layer(seed, patterns=((1, 2, 2, 4), (2, 4, 4, 1)), unsigned=False):
    """A layer of two factors with a random choice of residual, scale, bias, ReLU and row exponents.

    unsigned: formats between weights lose their sign, each by chance.
    """
    rng = np.random.default_rng(seed)
    x_format = QFormat(int(rng.integers(2, 9)), int(rng.integers(-3, 9)))
    if unsigned:
        x_format = replace(x_format, signed=bool(rng.integers(2)))
    first = random_factor(rng, patterns[0], x_format)
    if unsigned:
        first = replace(first, output=replace(first.output, signed=bool(rng.integers(2))))
    rest, n = {"relu": bool(rng.integers(2))}, patterns[1][0] * patterns[1][1] * patterns[1][3]
    if rng.random() < 0.7:
        rest["skip_input"] = x_format
        if rng.random() < 0.6:
            rest["skip_weights"] = QFormat(int(rng.integers(2, 9)), int(rng.integers(-3, 9)))
            rest["skip"] = integers(rng, rest["skip_weights"], n)
    if rng.random() < 0.6:
        rest["bias_width"] = int(rng.integers(2, 16))
        rest["bias"] = integers(rng, QFormat(rest["bias_width"], 0), n)
    last = random_factor(rng, patterns[1], first.output, **rest)
    if unsigned:
        last = replace(last, output=replace(last.output, signed=bool(rng.integers(2))))
    return IntLayer(factors=[first, last])


@seeds
@pytest.mark.parametrize("unsigned", [False, True], ids=["", "unsigned"])
def test_layer_is_exact_arithmetic(seed, unsigned):
    layer = random_layer(seed, unsigned=unsigned)
    network = IntNetwork(layers=[layer])
    x = integers(np.random.default_rng(seed + 1000), network.input, (12, network.inputs))
    stages = list(network.accumulators(x))
    clipped = 0
    for n, vector in enumerate(x.tolist()):
        y = vector
        for m, factor in enumerate(layer.factors):
            y, count = exact_factor(factor, y, vector)
            assert stages[m][2][n].tolist() == y, f"factor {m}, vector {n}"
            clipped += count
    assert sum(int(factor.saturated(acc).sum()) for factor, acc, _ in stages) == clipped
    assert np.array_equal(network(x), stages[-1][2])


@seeds
@pytest.mark.parametrize("unsigned", [False, True], ids=["", "unsigned"])
def test_accumulator_fits_its_width(seed, unsigned):
    for factor in random_layer(seed, unsigned=unsigned).factors:
        width = factor.acc_width - max(0, -factor.shift)  # without the bits that a left shift adds at the end
        lo, hi = (
            np.full((1, factor.pattern.inputs), factor.input.lo),
            np.full((1, factor.pattern.inputs), factor.input.hi),
        )
        skip = factor.skip_input or QFormat(2, 0)
        n = factor.pattern.outputs
        low, high = factor.bounds(lo, hi, np.full(n, skip.lo), np.full(n, skip.hi))
        half = 1 << (factor.shift - 1) if factor.shift > 0 else 0
        assert -(2 ** (width - 1)) <= low.min() and high.max() + half <= 2 ** (width - 1) - 1


@pytest.mark.parametrize("c, bits", [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_accumulator_width_holds_the_most_negative_products(c, bits):
    fmt = QFormat(8, 7)
    factor = IntFactor(values=np.full((1, 1, c, 1), -128), input=fmt, weights=fmt, output=QFormat(8, 14))
    assert factor.dot_width == 8 + 8 + bits
    assert factor.accumulate(np.full((1, c), -128)) == c * 2**14 <= 2 ** (factor.acc_width - 1) - 1


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("x_signed, w_signed", [(False, True), (False, False), (True, False)])
def test_accumulator_width_without_signs(c, x_signed, w_signed):
    """The largest sum in the fewest bits: 8 + 8 for one product, one more where neither has a sign."""
    x, w = QFormat(8, 7, signed=x_signed), QFormat(8, 7, signed=w_signed)
    ends = [(a, b) for a in (x.lo, x.hi) for b in (w.lo, w.hi)]
    a, b = max(ends, key=lambda pair: abs(pair[0] * pair[1]))
    factor = IntFactor(values=np.full((1, 1, c, 1), b), input=x, weights=w, output=QFormat(8, 14))
    total = int(factor.accumulate(np.full((1, c), a))[0, 0])
    assert factor.dot_width == 16 + (c - 1).bit_length() + (not x_signed and not w_signed)
    assert -(2 ** (factor.acc_width - 1)) <= total <= 2 ** (factor.acc_width - 1) - 1
    if c in (1, 2, 4):  # and not in fewer
        fewer = factor.dot_width - 2
        assert not -(2**fewer) <= total <= 2**fewer - 1


@pytest.mark.parametrize("seed", range(5), ids="seed-{}".format)
def test_bounds_are_reached(seed):
    rng = np.random.default_rng(seed)
    fmt = QFormat(6, 3)
    factor = random_factor(rng, (2, 3, 4, 2), fmt)
    lo, hi = np.full((1, 16), fmt.lo), np.full((1, 16), fmt.hi)
    low, high = factor.bounds(lo, hi)
    matrix = np.stack([factor.accumulate(e[None])[0] for e in np.eye(16, dtype=np.int64)]).T
    for row in range(12):
        assert factor.accumulate(np.where(matrix[row] > 0, hi, lo))[0, row] == high[row]
        assert factor.accumulate(np.where(matrix[row] > 0, lo, hi))[0, row] == low[row]


def test_unit_vectors_give_the_dense_matrix():
    rng = np.random.default_rng(5)
    wide, patterns = QFormat(40, 0), [(1, 4, 4, 4), (4, 4, 4, 1)]
    formats = QFormat(4, 0), QFormat(20, 0), QFormat(30, 0)
    factors = [
        IntFactor(
            values=integers(rng, QFormat(6, 0), p), input=formats[m], weights=QFormat(6, 0), output=formats[m + 1]
        )
        for m, p in enumerate(patterns)
    ]
    network = IntNetwork(layers=[IntLayer(factors=factors)])
    product = np.eye(16, dtype=np.int64)
    for factor, (a, b, c, d) in zip(factors, patterns):
        matrix = np.zeros((a * b * d, a * c * d), np.int64)
        for i, j, k, l in np.ndindex(a, b, c, d):
            matrix[(i * b + j) * d + l, (i * c + k) * d + l] = factor.values[i, j, k, l]
        product = matrix @ product
    assert np.abs(product).max() < wide.hi
    assert np.array_equal(network(np.eye(16, dtype=np.int64)).T, product)
    x = integers(rng, formats[0], (50, 16))
    assert np.array_equal(network(x), x @ product.T)


def one(output, *, weight=1, **rest):
    return IntFactor(values=[[[[weight]]]], input=QFormat(8, 0), weights=QFormat(8, 1), output=output, **rest)


def test_halves_go_up():
    assert one(QFormat(8, 0))(np.array([[-5], [5], [-6], [1], [-1]])).ravel().tolist() == [-2, 3, -3, 1, 0]


def test_saturation_is_counted_but_not_what_a_relu_removes():
    x = np.array([[100], [-100], [14], [-16], [15]])  # times one half
    for relu, y, clipped in ((False, [7, -8, 7, -8, 7], [1, 1, 0, 0, 1]), (True, [7, 0, 7, 0, 7], [1, 0, 0, 0, 1])):
        factor = one(QFormat(4, 0), relu=relu)
        acc = factor.accumulate(x)
        assert factor.requantise(acc).ravel().tolist() == y
        assert factor.saturated(acc).ravel().tolist() == clipped


def test_predict_and_classify():
    fmt = QFormat(8, 4)
    factor = IntFactor(values=np.ones((1, 3, 1, 1), int), input=fmt, weights=QFormat(2, 0), output=fmt)
    network = IntNetwork(layers=[IntLayer(factors=[factor])])
    assert network.predict([[0.5], [100.0]]).tolist() == [[0.5] * 3, [127 / 16] * 3]
    assert network.classify([[0.5]]).tolist() == [0]  # a tie goes to the lowest index
    with pytest.raises(ValueError, match="got NaN"):
        network.predict([[np.nan]])


def factor(**changes):
    given = {
        "values": np.ones((1, 2, 2, 1), np.int64),
        "input": QFormat(8, 0),
        "weights": QFormat(4, 0),
        "output": QFormat(8, 0),
    }
    return IntFactor(**given | changes)


EIGHT = QFormat(8, 0)


@pytest.mark.parametrize(
    "make, kind, text",
    [
        (
            lambda: factor(values=np.ones((1, 2, 2, 1))),
            TypeError,
            "IntFactor.values must be integers, got dtype float64",
        ),
        (
            lambda: factor(values=np.full((1, 2, 2, 1), 8)),
            ValueError,
            r"IntFactor.values must fit 4 bits \(-8 to 7\), got 8",
        ),
        (lambda: factor(values=np.ones((2, 2), int)), ValueError, r"IntFactor.values must have shape \(a, b, c, d\)"),
        (
            lambda: factor(exponents=np.zeros((1, 2), int)),
            ValueError,
            r"exponents must be integers of shape \(1, 2, 1\)",
        ),
        (lambda: factor(exponents=np.full((1, 2, 1), -1)), ValueError, "exponents must be 0 to 62, got -1"),
        (lambda: factor(skip=np.ones(2, int)), ValueError, "skip goes with skip_weights and skip_input"),
        (lambda: factor(bias=np.ones(2, int)), ValueError, "bias goes with bias_width"),
        (lambda: factor(bias_width=4), ValueError, "bias goes with bias_width"),
        (lambda: factor(bias=np.zeros(2, int), bias_width=0), ValueError, "width must be 1 to 62 bits, got 0"),
        (lambda: factor(bias=np.ones(3, int), bias_width=4), ValueError, r"IntFactor.bias must have shape \(2,\)"),
        (lambda: factor(bias=np.full(2, 8), bias_width=4), ValueError, r"IntFactor.bias must fit 4 bits"),
        (lambda: factor(input=QFormat(60, 0)), ValueError, "integer overflow: the accumulator needs 65 bits"),
        (lambda: factor(output=QFormat(8, 60)), ValueError, "integer overflow"),
        (lambda: factor(output=QFormat(8, -63)), ValueError, "integer overflow.* shift of 63"),
        (
            lambda: IntLayer(factors=[factor(), factor(input=QFormat(9, 0))]),
            ValueError,
            "factor 0 of layer '0' gives 8 bits",
        ),
        (lambda: IntLayer(factors=[factor(relu=True), factor()]), ValueError, "ReLU belong to the last factor"),
        (lambda: IntLayer(factors=[factor(skip_input=EIGHT), factor()]), ValueError, "belong to the last factor"),
        (lambda: IntLayer(factors=[factor(skip_input=QFormat(7, 0))]), ValueError, "format of the layer's input"),
        (
            lambda: IntLayer(factors=[factor(values=np.ones((1, 2, 3, 1), int), skip_input=EIGHT)]),
            ValueError,
            "as many outputs as inputs",
        ),
        (lambda: IntLayer(factors=[factor()], name="a/b"), ValueError, "a layer's name must be words"),
        (lambda: IntNetwork(layers=[]), ValueError, "at least one layer"),
        (lambda: IntNetwork(layers=[IntLayer(factors=[factor()])] * 2), ValueError, "layer names must differ"),
        (
            lambda: IntNetwork(
                layers=[IntLayer(factors=[factor(output=QFormat(7, 0))]), IntLayer(factors=[factor()], name="1")]
            ),
            ValueError,
            "layer '0' gives another format than '1' takes",
        ),
        (
            lambda: IntNetwork(layers=[IntLayer(factors=[factor()])])(np.ones((1, 3), int)),
            ValueError,
            r"shape \(N, 2\)",
        ),
        (lambda: IntNetwork(layers=[IntLayer(factors=[factor()])])(np.ones((1, 2))), TypeError, "must be integers"),
        (
            lambda: IntNetwork(layers=[IntLayer(factors=[factor()])])([[128, 0]]),
            ValueError,
            "input vectors must fit 8 bits",
        ),
    ],
)
def test_refused(make, kind, text):
    with pytest.raises(kind, match=text):
        make()
