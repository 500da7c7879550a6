"""Edges of formats and widths by hand: where one bit, one sign or one equality decides."""

import numpy as np
import pytest

from bfthw import Chain, Factor, IntFactor, IntLayer, IntNetwork, Layer, Network, QFormat, Settings
from bfthw.calibrate import Calibration
from bfthw.noise import decibels, report
from bfthw.quantize import (
    FactorFormats,
    Formats,
    LayerFormats,
    check_fits,
    choose_formats,
    finish,
    formats_of,
    quantise,
    quantise_factor,
    row_exponents,
    weight_format,
)


def column(*values):
    """One output of so many inputs."""
    return Factor(np.array(values, float).reshape(1, 1, -1, 1))


def row(*values):
    """One output of one input, each."""
    return Factor(np.array(values, float).reshape(-1, 1, 1, 1))


def network(factor, **rest):
    return Network(layers=[Layer(chain=Chain([factor]), name="a", **rest)])


# quantize


@pytest.mark.parametrize("bias, width", [(0, 2), (1, 3), (3, 4), (4, 5), (-4, 5), (7, 5), (8, 6), (-8, 6), (-9, 6)])
def test_a_bias_has_a_sign_and_one_bit_to_spare(bias, width):
    formats = FactorFormats(weights=QFormat(8, 2), output=QFormat(8, 0))
    factor = quantise_factor(row(1.0), QFormat(8, 1), formats)
    done = finish(factor, network(row(1.0), bias=np.array([bias / 8])).layers[0], QFormat(8, 1), None)
    assert done.acc_frac == 3 and (done.bias_width, done.bias.tolist()) == (width, [bias])
    assert abs(2 * bias) <= QFormat(width, 0).hi and (not bias or abs(4 * bias) > QFormat(width, 0).hi)


def test_the_largest_bias():
    """2^58 takes 61 bits, the accumulator one more; beyond, the error says which part is too large."""
    factor = quantise_factor(row(1.0), QFormat(2, 0), FactorFormats(weights=QFormat(2, 0), output=QFormat(8, 0)))
    layers = [network(row(1.0), bias=np.array([2.0**n])).layers[0] for n in (58, 59, 60)]
    assert finish(factor, layers[0], QFormat(2, 0), None).acc_width == 62
    for layer, text in zip(layers[1:], ("the accumulator needs 63 bits", "a bias of up to 1.15292e\\+18")):
        with pytest.raises(ValueError, match=f"integer overflow: {text}"):
            finish(factor, layer, QFormat(2, 0), None)


@pytest.mark.parametrize(
    "value, rows, exponent",
    [(-0.5, 3, 1), (0.5, 3, 0), (-0.501, 3, 1), (-0.51, 3, 0), (0.496, 3, 1), (-0.25, 3, 2), (-0.125, 3, 3),
     (-0.0625, 3, 3), (-0.0625, 4, 4), (0.0, 2, 2), (-1.0, 3, 0)],
)  # fmt: skip
def test_a_row_may_reach_the_most_negative_number(value, rows, exponent):
    values = np.array([value, 0.001]).reshape(1, 1, 2, 1)
    assert row_exponents(values, QFormat(8, 7), rows).item() == exponent


def test_a_relu_needs_no_room_below_zero():
    """-8 x of x in [-1, 1): the bounds reach -8, the output 8; with a bias of -7.5 it reaches half a one."""
    table = (0.0, False, 5), (0.0, True, 5), (-7.5, False, 5), (-7.5, True, 9), (-9.0, True, 9), (-6.1, True, 8)
    for bias, relu, frac in table:
        formats = choose_formats(network(row(-8.0), bias=np.array([bias]), relu=relu))
        assert formats.layers[0].factors[0].output == QFormat(10, frac), (bias, relu)
    # the range of what follows is that of the ReLU, too: values of 0 to 8 less 8 times a one
    layers = network(row(-8.0), relu=True).layers
    after = Layer(chain=Chain([row(-1.0)]), bias=np.array([8.5]), name="b")
    formats = choose_formats(Network(layers=[*layers, after]))
    assert formats.layers[1].factors[0].output == QFormat(10, 5)  # 0.5 to 8.5
    after = Layer(chain=Chain([row(-1.0)]), bias=np.array([7.0]), name="b")
    assert choose_formats(Network(layers=[*layers, after])).layers[1].factors[0].output == QFormat(10, 6)  # -1 to 7


def test_bounds_pass_on_what_a_stage_can_give():
    """Not the format: 3 inputs of at most one give 3, whose format goes to 4; twice that fits 8 only by bounds."""
    first, second = column(1.0, 1.0, 1.0), row(1.3)
    chain = Network(layers=[Layer(chain=Chain([first]), name="a"), Layer(chain=Chain([second]), name="b")])
    formats = choose_formats(chain)
    assert [layer.factors[0].output for layer in formats.layers] == [QFormat(10, 7)] * 2


def test_formats_of_what_was_quantised():
    own = FactorFormats(weights=QFormat(8, 7), output=QFormat(10, 7), rows=3)
    given = Formats(input=QFormat(8, 7), layers=(LayerFormats(factors=(own,), bias_width=9),))
    values = row(0.9, 0.1)
    assert formats_of(quantise(network(values, bias=np.array([0.01, 0.0])), given)) == given


@pytest.mark.parametrize(
    "value, name", [(-1.0, None), (-1.005, "factors.0"), (0.993, None), (0.9962, "factors.0")]
)
def test_what_fits_to_the_last_bit(value, name):
    formats = Formats(
        input=QFormat(8, 7),
        layers=(LayerFormats(factors=(FactorFormats(weights=QFormat(8, 7), output=QFormat(8, 5)),), bias_width=12),),
    )
    if name is None:
        check_fits(network(row(value), bias=np.array([0.1])), formats)
    else:
        text = rf"a\.{name}: {value:g} does not fit 8 bits, 2\^-7, which holds -1 to 0.992188"
        with pytest.raises(ValueError, match=text):
            check_fits(network(row(value), bias=np.array([0.1])), formats)
    with pytest.raises(ValueError, match=r"a\.bias: 0.2 does not fit"):
        check_fits(network(row(0.5), bias=np.array([0.2])), formats)


def test_settings_reach_the_input():
    one = network(row(0.5))
    assert choose_formats(one, Settings(input_bits=6)).input == QFormat(6, 5)
    assert choose_formats(one, Settings(input_bits=6, input_frac=-2)).input == QFormat(6, -2)


# golden


def integer(c=1, *, weights=QFormat(4, 0), x=QFormat(4, 0), output=QFormat(8, 0), **rest):
    return IntFactor(values=np.ones((1, 1, c, 1), int), input=x, weights=weights, output=output, **rest)


@pytest.mark.parametrize(
    "factor, width",
    [
        (integer(), 8),  # a dot product of 8 bits alone
        (integer(3), 10),
        (integer(4), 10),
        (integer(5), 11),
        (integer(output=QFormat(20, 0)), 20),  # no narrower than what leaves it
        (integer(output=QFormat(8, 3)), 8 + 3),  # and the bits that a left shift adds
        (integer(x=QFormat(4, 5), output=QFormat(8, 4)), 9),  # and the half of its rounding: two parts
        (integer(x=QFormat(4, 20), output=QFormat(8, 0)), 22),  # the half, 2^19, alone has 21
        (integer(bias=np.zeros(1, int), bias_width=12), 13),
        (integer(bias=np.zeros(1, int), bias_width=3), 9),
        (integer(x=QFormat(4, 4), bias=np.zeros(1, int), bias_width=12), 14),  # three parts
        (integer(skip_input=QFormat(4, 0)), 9),
        (integer(skip_input=QFormat(4, 5), output=QFormat(8, 5)), 8 + 5 + 1),  # the dot product shifted
        (integer(x=QFormat(4, 9), skip_input=QFormat(9, 0), output=QFormat(8, 9)), 9 + 9 + 1),  # the residual shifted
        (integer(skip_input=QFormat(4, 0), skip=np.ones(1, int), skip_weights=QFormat(9, 0)), 14),
        (integer(exponents=np.full((1, 1, 1), 5), output=QFormat(8, 5)), 8),  # no row has more: nothing to shift
        (integer(x=QFormat(4, 4), skip_input=QFormat(4, 0), bias=np.zeros(1, int), bias_width=3), 8 + 2),  # four parts
    ],
)
def test_bits_of_an_accumulator(factor, width):
    """Those of the widest part, and ceil(log2) of their number."""
    assert factor.acc_width == width


def test_62_bits_and_no_more():
    for x, good in ((QFormat(50, 0), True), (QFormat(58, 0), True), (QFormat(59, 0), False)):
        if good:
            assert integer(x=x).acc_width == x.width + 4 <= 62
        else:
            with pytest.raises(ValueError, match="the accumulator needs 63 bits and a shift of 0, 62 are the limit"):
                integer(x=x)
    assert integer(x=QFormat(4, 60)).acc_width == 62
    with pytest.raises(ValueError, match="needs 63 bits and a shift of 61"):
        integer(x=QFormat(4, 61))
    assert integer(x=QFormat(2, -40), weights=QFormat(2, 0)).acc_width == 48
    with pytest.raises(ValueError, match="a shift of -63"):
        integer(x=QFormat(1, -63), weights=QFormat(2, 0), output=QFormat(1, 0))


def test_shifts_by_hand():
    exponents = np.array([[[0], [2]]])  # two rows of one block
    factor = IntFactor(
        values=np.array([3, 3]).reshape(1, 2, 1, 1), input=QFormat(4, 1), weights=QFormat(4, 2), output=QFormat(8, 3),
        exponents=exponents, skip_input=QFormat(4, 7), bias=np.array([1, -1]), bias_width=3,
    )  # fmt: skip
    assert (factor.acc_frac, factor.skip_shift, factor.shift, factor.dot_shift.tolist()) == (7, 0, 4, [4, 2])
    acc = factor.accumulate(np.array([[2]]), np.array([[1, 5]]))
    assert acc.tolist() == [[6 * 16 + 1 + 1, 6 * 4 + 5 - 1]] and factor.requantise(acc).tolist() == [[6, 2]]
    low, high = factor.bounds(np.array([[-2]]), np.array([[3]]), np.array([-1, -1]), np.array([2, 2]))
    assert low.tolist() == [-96 - 1 + 1, -24 - 1 - 1] and high.tolist() == [144 + 2 + 1, 36 + 2 - 1]


def test_bounds_of_a_residual_that_is_shifted():
    factor = IntFactor(
        values=np.array([[[[2]]]]), input=QFormat(4, 6), weights=QFormat(4, 0), output=QFormat(8, 0),
        skip_input=QFormat(4, 1), skip=np.array([-3]), skip_weights=QFormat(4, 2),
    )  # fmt: skip
    low, high = factor.bounds(np.array([[-1]]), np.array([[5]]), np.array([-2]), np.array([7]))
    assert factor.skip_shift == 3 and (low.tolist(), high.tolist()) == ([-2 - 21 * 8], [10 + 6 * 8])


def test_exponents_are_0_to_62():
    def of(*exponents):
        return IntFactor(
            values=np.zeros((1, 2, 1, 1), int), input=QFormat(1, 0), weights=QFormat(1, -62), output=QFormat(8, 0),
            exponents=np.array(exponents).reshape(1, 2, 1),
        )  # fmt: skip

    assert of(62, 60).max_exponent == 62 and of(62, 60).dot_shift.tolist() == [0, 2]
    for exponents in ((63, 63), (-1, 3)):
        with pytest.raises(ValueError, match=f"exponents must be 0 to 62, got {min(exponents)} to {max(exponents)}"):
            of(*exponents)


def test_what_saturates_to_the_last_bit():
    factor = integer(x=QFormat(8, 1), output=QFormat(4, 0))
    x = np.array([[14], [15], [-16], [-17], [-18]])  # halves: 7, 7.5 -> 8, -8, -8.5 -> -8, -9
    acc = factor.accumulate(x)
    assert factor.saturated(acc).ravel().tolist() == [False, True, False, False, True]
    assert factor.requantise(acc).ravel().tolist() == [7, 7, -8, -8, -8]


def test_what_layers_and_networks_take_from_which_factor():
    """Sizes and formats that differ from factor to factor; the first and the last are asked, each for its own."""
    f2, f3, f5 = (QFormat(8, frac) for frac in (2, 3, 5))

    def of(shape, x, y, **rest):
        return IntFactor(values=np.ones(shape, int), input=x, weights=QFormat(2, 0), output=y, **rest)

    wide = of((1, 3, 2, 1), f2, f3), of((1, 2, 3, 1), f3, f5, skip_input=f2)
    layer, after = IntLayer(factors=wide, name="a"), IntLayer(factors=[of((1, 4, 2, 1), f5, f2)], name="b")
    whole = IntNetwork(layers=[layer, after])
    assert layer.residual and not after.residual and (whole.inputs, whole.outputs) == (2, 4)
    assert whole.names == ("a.factors.0", "a.factors.1", "b.factors.0") and (whole.input, whole.output) == (f2, f2)
    with pytest.raises(ValueError, match="layer 'a' gives another format than 'b' takes"):
        IntNetwork(layers=[layer, IntLayer(factors=[of((1, 4, 2, 1), f3, f2)], name="b")])
    with pytest.raises(ValueError, match="as many outputs as inputs"):
        IntLayer(factors=[of((1, 2, 2, 1), f2, f3), of((1, 3, 2, 1), f3, f5, skip_input=f2)])


# calibrate and noise


def test_percentiles_are_of_both_ends():
    x = np.linspace(-1, 3, 4001)[:, None]
    for percentile, frac in ((100.0, 5), (51.0, 6), (74.0, 6), (76.0, 5)):
        data = Calibration(network(row(1.0)), x)
        assert data.format(0, 8, Settings(percentile=percentile)) == QFormat(8, frac), percentile
    assert Calibration(network(row(1.0)), -x).format(0, 8, Settings(percentile=51.0)) == QFormat(8, 6)


def test_decibels():
    assert decibels(100.0, 1.0) == 20 and decibels(0.0, 1.0) == -np.inf and decibels(0.0, 0.0) == np.inf
    assert decibels(1.0, 100.0) == -20


def test_report_splits_noise_to_the_last_bit():
    """1.6 -> 1.5 (rounded), 2 -> 1.75 (saturated), times 2 with 2 bits: all of it by hand."""
    formats = Formats(
        input=QFormat(4, 2),
        layers=(LayerFormats(factors=(FactorFormats(weights=QFormat(4, 0), output=QFormat(4, 1)),)),),
    )
    net = network(row(2.0))
    first, last = report(net, quantise(net, formats), np.array([[1.6], [2.0], [-1.0]]))
    assert first.saturated == 1 and first.cause == "saturation" and first.own == first.sqnr
    assert first.sqnr == pytest.approx(10 * np.log10((1.6**2 + 4 + 1) / (0.01 + 0.0625)))
    assert last.saturated == 0 and last.own == np.inf and last.cause == ""
    assert last.sqnr == pytest.approx(first.sqnr) and (last.peak, last.values) == (4.0, 3)


def test_weights_of_both_signs():
    assert weight_format(np.array([-1.0, 0.3]), 8, 0, "percentile") == QFormat(8, 7)
    assert weight_format(np.array([-0.3, 1.0]), 8, 0, "percentile") == QFormat(8, 6)
    assert weight_format(np.array([-1.0, 0.3]), 8, 0, "percentile", symmetric=True) == QFormat(8, 6)
