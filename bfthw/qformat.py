"""Two's complement fixed point and the one rounding rule of the project."""

from dataclasses import dataclass

import numpy as np

VANISHES = 2.0**-900  # numbers below have no format: the fraction bits of one end at 1000


@dataclass(frozen=True)
class QFormat:
    """Signed fixed point: value = integer * 2**-frac, the integer in `width` bits of two's complement.

    `frac` is any integer: negative and larger than `width` are both useful.
    Raises TypeError for anything but int, ValueError for a width outside 1..62.
    """

    width: int
    frac: int

    def __post_init__(self):
        for name in ("width", "frac"):
            if type(getattr(self, name)) is not int:
                raise TypeError(f"QFormat.{name} must be an int, got {getattr(self, name)!r}")
        if not 1 <= self.width <= 62:
            raise ValueError(f"QFormat.width must be 1 to 62 bits, got {self.width}")
        if abs(self.frac) > 1000:
            raise ValueError(f"QFormat.frac must be -1000 to 1000, got {self.frac}")

    @property
    def lo(self):
        return -(1 << (self.width - 1))

    @property
    def hi(self):
        return (1 << (self.width - 1)) - 1

    def __str__(self):
        return f"{self.width} bits, 2^{-self.frac}"

    def round(self, x):
        """Floats to integers, floor(x * 2**frac + 1/2), before saturation; returned as float64."""
        # x * 2**frac + 0.5 itself would be rounded: 0.49999999999999994 + 0.5 is 1 in float64
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.ldexp(np.asarray(x, np.float64), self.frac)
            low = np.floor(scaled)
            return low + (scaled - low >= 0.5)

    def quantise(self, x):
        """Floats of any shape to int64 of the same shape, rounded (halves up) and saturated; ValueError for NaN."""
        q = self.round(x)
        if np.isnan(q).any():
            raise ValueError("QFormat.quantise takes numbers, got NaN")
        # again as integers: above 54 bits `hi` is no float64 and the first clip goes one too far
        return self.saturate(np.clip(q, self.lo, self.hi).astype(np.int64))

    def dequantise(self, q):
        """Integers to the float64 they stand for (exact up to 53 bits)."""
        return np.ldexp(np.asarray(q, np.float64), -self.frac)

    def saturate(self, q):
        return np.clip(q, self.lo, self.hi)

    def check(self, q, name):
        """Return `q` as int64; TypeError unless integers, ValueError unless each one fits."""
        q = np.asarray(q)
        if q.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, got dtype {q.dtype}")
        if q.size and not self.lo <= int(q.min()) <= int(q.max()) <= self.hi:
            worst = int(q.max()) if q.max() > self.hi else int(q.min())
            raise ValueError(f"{name} must fit {self.width} bits ({self.lo} to {self.hi}), got {worst}")
        return q.astype(np.int64)

    @classmethod
    def covering(cls, width, lo, hi):
        """The finest format of `width` bits that holds the floats lo and hi without saturation.

        A range of nothing but zero, or so small that no format reaches it, gives frac = width - 1.
        """
        peak = max(abs(lo), abs(hi))
        if peak < VANISHES:
            return cls(width, width - 1)
        frac = width - 1 - int(np.frexp(peak)[1]) + 1
        while (q := cls(width, frac)).round(hi) > q.hi or q.round(lo) < q.lo:
            frac -= 1
        return q


def rescale(acc, shift):
    """Drop `shift` fraction bits of an int64 array, halves up; a negative shift adds bits.

    (acc + 2**(shift-1)) >> shift, so that -2.5 becomes -2.
    """
    return (acc + (1 << (shift - 1))) >> shift if shift > 0 else acc << -shift
