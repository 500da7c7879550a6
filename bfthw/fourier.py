"""The discrete Fourier transform as a chain: complex butterflies written as factors of real numbers.

A number re + i im is two values, and a complex weight w the matrix [[Re w, -Im w], [Im w, Re w]] (FABNet: Fan et al.,
MICRO 2022, section IV, which runs Fourier transforms and learned butterflies in one engine).
"""

import numpy as np

from .chain import Chain, Factor, factorise


def fourier(n: int, base: int = 4, *, real_in: bool = True, real_out: bool = False) -> Chain:
    """Of n values the transform divided by sqrt(n), in decimation in frequency, of radices up to `base`.

    In: n real numbers, or with real_in=False all real parts, then all imaginary ones. Out: at place j the real part of
    frequency `reversed_digits(n, base)[j]` and, but for real_out, behind it the imaginary one. A radix r is a factor
    (n/(r m), 2r, 2r, m), with r in the place of 2r where numbers are real.
    """
    radices, before, left, factors = factorise(n, base), 1, n, []
    for number, r in enumerate(radices):
        left //= r
        k, at, rest = np.ogrid[:r, :r, :left]
        w = np.exp(-2j * np.pi * (k * at / r + k * rest / (r * left))) / np.sqrt(r)
        # (out, z out, z in, in, rest): the parts of an output stand side by side, those of the inputs each together
        values = np.stack([np.stack([w.real, -w.imag], 1), np.stack([w.imag, w.real], 1)], 1)
        if number == 0 and real_in:
            values = values[:, :, :1]
        if number == len(radices) - 1 and real_out:
            values = values[:, :1]
        outs, zs_out, zs_in, ins, _ = values.shape
        values = values.reshape(1, outs * zs_out, zs_in * ins, left)
        factors.append(Factor(np.repeat(values, before, 0)))
        before *= r
    return Chain(factors)


def reversed_digits(n: int, base: int = 4) -> np.ndarray:
    """The frequency at each place of what `fourier` gives, int64 (n,)."""
    radices = factorise(n, base)
    return np.arange(n).reshape(radices[::-1]).transpose(*range(len(radices))[::-1]).ravel()
