"""Two's complement fixed point and the one rounding rule of the project."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = Any  # an array of numpy; of one number, one number

VANISHES = 2.0**-900  # numbers below have no format: the fraction bits of one end at 1000


@dataclass(frozen=True)
class QFormat:
    """Fixed point: value = integer * 2**-frac, the integer in `width` bits, of two's complement where it is signed.

    `frac` is any integer: negative and larger than `width` are both useful.
    Raises TypeError for anything but int (and bool), ValueError for a width outside 1..62.
    """

    width: int
    frac: int
    signed: bool = True

    def __post_init__(self):
        if type(self.signed) is not bool:
            raise TypeError(f"QFormat.signed must be a bool, got {self.signed!r}")
        for name in ("width", "frac"):
            if type(getattr(self, name)) is not int:
                raise TypeError(f"QFormat.{name} must be an int, got {getattr(self, name)!r}")
        if not 1 <= self.width <= 62:
            raise ValueError(f"QFormat.width must be 1 to 62 bits, got {self.width}")
        if abs(self.frac) > 1000:
            raise ValueError(f"QFormat.frac must be -1000 to 1000, got {self.frac}")

    @property
    def lo(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        return (1 << (self.operand - 1)) - 1

    @property
    def operand(self) -> int:
        """Bits of a signed number that holds each integer: one more where there is no sign."""
        return self.width + (not self.signed)

    def to_list(self) -> list[int]:
        """[width, frac], and False where there is no sign: `QFormat(*list)` is this format again."""
        return [self.width, self.frac] + [False] * (not self.signed)

    PLAIN, plain = list, to_list  # as bfthw.fields takes it

    @classmethod
    def of(cls, given: Sequence[int]) -> Self:
        """The inverse of `to_list`."""
        if len(given) not in (2, 3):
            raise ValueError(f"a format is [width, frac], or [width, frac, false] without a sign, got {given!r}")
        return cls(*given)

    def __str__(self):
        return f"{self.width} bits{'' if self.signed else ' unsigned'}, 2^{-self.frac}"

    def round(self, x: ArrayLike) -> Numbers:
        """Floats to integers, floor(x * 2**frac + 1/2), before saturation; returned as float64."""
        # x * 2**frac + 0.5 itself would be rounded: 0.49999999999999994 + 0.5 is 1 in float64
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.ldexp(np.asarray(x, np.float64), self.frac)
            low = np.floor(scaled)
            return low + (scaled - low >= 0.5)

    def quantise(self, x: ArrayLike) -> Numbers:
        """Floats of any shape to int64 of the same shape, rounded (halves up) and saturated; ValueError for NaN."""
        q = self.round(x)
        if np.isnan(q).any():
            raise ValueError("QFormat.quantise takes numbers, got NaN")
        # again as integers: above 54 bits `hi` is no float64 and the first clip goes one too far
        return self.saturate(np.clip(q, self.lo, self.hi).astype(np.int64))

    def dequantise(self, q: ArrayLike) -> Numbers:
        """Integers to the float64 they stand for (exact up to 53 bits)."""
        return np.ldexp(np.asarray(q, np.float64), -self.frac)

    def saturate(self, q: Numbers) -> Numbers:
        return np.clip(q, self.lo, self.hi)

    def check(self, q: ArrayLike, name: str) -> NDArray[np.int64]:
        """Return `q` as int64; TypeError unless integers, ValueError unless each one fits."""
        q = np.asarray(q)
        if q.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, got dtype {q.dtype}")
        if q.size and not self.lo <= int(q.min()) <= int(q.max()) <= self.hi:
            worst = int(q.max()) if q.max() > self.hi else int(q.min())
            sign = "" if self.signed else " unsigned"
            raise ValueError(f"{name} must fit {self.width} bits{sign} ({self.lo} to {self.hi}), got {worst}")
        return q.astype(np.int64)

    @classmethod
    def covering(cls, width: int, lo: float, hi: float, signed: bool = True) -> Self:
        """The finest format of `width` bits that holds the floats lo and hi without saturation; unsigned, what is not
        below zero of them.

        A range of nothing but zero, or so small that no format reaches it, gives numbers below 1.
        """
        lo, hi = (lo, hi) if signed else (0, max(hi, 0))
        peak, bits = max(abs(lo), abs(hi)), width - signed
        if peak < VANISHES:
            return cls(width, bits, signed)
        frac = bits - int(np.frexp(peak)[1]) + 1
        while (q := cls(width, frac, signed)).round(hi) > q.hi or q.round(lo) < q.lo:
            frac -= 1
        return q


def product_bits(*formats: QFormat) -> int:
    """Bits of a signed number that holds each product of numbers of these formats, one of each.

    (2^a - 1) 2^(b-1) of an unsigned and a signed one is below 2^(a+b-1); where no format has a sign, there is one more.
    """
    return sum(fmt.width for fmt in formats) + (not any(fmt.signed for fmt in formats))


def rescale(acc: Numbers, shift: int) -> Numbers:
    """Drop `shift` fraction bits of an int64 array, halves up; a negative shift adds bits.

    (acc + 2**(shift-1)) >> shift, so that -2.5 becomes -2.
    """
    return (acc + (1 << (shift - 1))) >> shift if shift > 0 else acc << -shift
