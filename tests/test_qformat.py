"""Fixed point: the one rounding rule, saturation, choice of a format."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfthw import QFormat
from bfthw.qformat import rescale


def exact(x, fmt):
    """floor(x * 2**frac + 1/2) and saturation, without any float arithmetic."""
    q = floor(Fraction(x) * Fraction(2) ** fmt.frac + Fraction(1, 2))
    return min(max(q, -(2 ** (fmt.width - 1))), 2 ** (fmt.width - 1) - 1)


@pytest.mark.parametrize("x, q", [(-2.5, -2), (2.5, 3), (-0.5, 0), (0.5, 1), (-1.5, -1), (1.5, 2), (-2.51, -3)])
def test_halves_go_up(x, q):
    assert QFormat(8, 0).quantise(x) == q
    assert QFormat(8, 3).quantise(x / 8) == q
    assert QFormat(8, -3).quantise(x * 8) == q


@pytest.mark.parametrize(
    "acc, shift, y", [(-5, 1, -2), (5, 1, 3), (-10, 2, -2), (-11, 2, -3), (7, 0, 7), (-3, -4, -48)]
)
def test_rescale(acc, shift, y):
    assert rescale(np.int64(acc), shift) == y


def test_just_below_a_half_goes_down():
    below = np.nextafter(0.5, 0)
    assert below + 0.5 == 1  # where the plain formula goes wrong
    assert QFormat(8, 0).quantise(below) == 0
    assert QFormat(62, 0).quantise(2.0**52 + 1) == 2**52 + 1


@pytest.mark.parametrize("width", [1, 2, 8, 24, 53, 54, 55, 56, 62])
def test_saturates_to_the_full_range(width):
    fmt = QFormat(width, 0)
    assert fmt.quantise([-1e300, -np.inf, 1e300, np.inf]).tolist() == [fmt.lo, fmt.lo, fmt.hi, fmt.hi]
    assert (fmt.lo, fmt.hi) == (-(2 ** (width - 1)), 2 ** (width - 1) - 1)


def test_nan_has_no_integer():
    with pytest.raises(ValueError, match="QFormat.quantise takes numbers, got NaN"):
        QFormat(8, 0).quantise([0.0, np.nan])


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-70, 70),
    st.sampled_from([1, 2, 8, 53, 54, 62]),
)
def test_quantise_is_the_exact_rule(x, frac, width):
    fmt = QFormat(width, frac)
    assert fmt.quantise(x) == exact(x, fmt)


@given(st.integers(-(2**60), 2**60), st.integers(1, 62))
def test_rescale_is_the_exact_rule(acc, shift):
    assert rescale(np.int64(acc), shift) == floor(Fraction(acc, 2**shift) + Fraction(1, 2))


@given(st.integers(2, 24), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_covering_is_the_finest_without_saturation(width, lo, hi):
    lo, hi = min(lo, hi), max(lo, hi)
    if max(abs(lo), abs(hi)) < 1e-200:
        return
    fmt = QFormat.covering(width, lo, hi)
    finer = QFormat(width, fmt.frac + 1)
    fits = [f.lo <= f.round(lo) and f.round(hi) <= f.hi for f in (fmt, finer)]
    assert fits == [True, False]


def test_covering_corners():
    assert QFormat.covering(8, 0, 0) == QFormat(8, 7)
    assert QFormat.covering(8, -1, 0) == QFormat(8, 7)  # -1 fits where 1 does not
    assert QFormat.covering(8, 0, 1) == QFormat(8, 6)
    assert QFormat.covering(8, 0, 127.5 / 128) == QFormat(8, 6)  # would round up out of 8 bits


def test_dequantise_is_the_inverse():
    fmt = QFormat(10, 13)
    q = np.arange(fmt.lo, fmt.hi + 1)
    assert np.array_equal(fmt.quantise(fmt.dequantise(q)), q)


def test_check_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"w must fit 4 bits \(-8 to 7\), got 8"):
        QFormat(4, 0).check([8, 0], "w")
    with pytest.raises(ValueError, match=r"w must fit 4 bits \(-8 to 7\), got -9"):
        QFormat(4, 0).check([7, -9], "w")
    with pytest.raises(ValueError, match=f"got {2**64 - 1}"):
        QFormat(62, 0).check(np.array([2**64 - 1], np.uint64), "w")
    with pytest.raises(TypeError, match="w must be integers, got dtype float64"):
        QFormat(4, 0).check([1.0], "w")
    assert QFormat(4, 0).check(np.array([7], np.uint8), "w").dtype == np.int64


@pytest.mark.parametrize(
    "width, frac, kind, text",
    [
        (0, 0, ValueError, "width must be 1 to 62 bits, got 0"),
        (63, 0, ValueError, "width must be 1 to 62 bits, got 63"),
        (8, 1001, ValueError, "frac must be -1000 to 1000, got 1001"),
        (8.0, 0, TypeError, "width must be an int, got 8.0"),
        (8, True, TypeError, "frac must be an int, got True"),
    ],
)
def test_refused(width, frac, kind, text):
    with pytest.raises(kind, match=text):
        QFormat(width, frac)


# without a sign


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-70, 70), st.sampled_from([1, 2, 9, 53, 54, 62]))
def test_unsigned_is_the_exact_rule_from_zero_on(x, frac, width):
    q = floor(Fraction(x) * Fraction(2) ** frac + Fraction(1, 2))
    assert QFormat(width, frac, signed=False).quantise(x) == min(max(q, 0), 2**width - 1)


def test_unsigned_nine_bits_hold_what_ten_signed_did():
    nine, ten = QFormat(9, 5, signed=False), QFormat(10, 5)
    assert (nine.lo, nine.hi, nine.operand, ten.operand) == (0, ten.hi, 10, 10)
    assert str(nine) == "9 bits unsigned, 2^-5" and QFormat(*nine.to_list()) == nine != QFormat(9, 5)
    assert ten.to_list() == [10, 5] and nine.to_list() == [9, 5, False] and QFormat(*ten.to_list()) == ten
    for hi in (1.0, 0.999, 15.98, 15.99, 1e-30, 7.0):
        covering = QFormat.covering(10, 0.0, hi)
        assert QFormat.covering(9, 0.0, hi, signed=False) == QFormat(9, covering.frac, signed=False)
    assert QFormat.covering(8, -3.0, 1.0, signed=False) == QFormat(8, 7, signed=False)
    assert QFormat.covering(8, -3.0, -1.0, signed=False) == QFormat(8, 8, signed=False)
    assert QFormat.covering(8, 0, 0, signed=False) == QFormat(8, 8, signed=False)


def test_unsigned_is_refused_where_it_does_not_fit():
    with pytest.raises(ValueError, match=r"w must fit 4 bits unsigned \(0 to 15\), got -1"):
        QFormat(4, 0, signed=False).check([3, -1], "w")
    with pytest.raises(ValueError, match=r"w must fit 4 bits unsigned \(0 to 15\), got 16"):
        QFormat(4, 0, signed=False).check([3, 16], "w")
    with pytest.raises(TypeError, match="QFormat.signed must be a bool, got 1"):
        QFormat(4, 0, 1)
