"""Kronecker-sparse factors, chains of them, and the patterns of the known butterflies.

A factor of pattern (a, b, c, d) has the support I_a (x) 1_{b x c} (x) I_d and values v[a, b, c, d]:

    y[i, j, l] = sum_k v[i, j, k, l] * x[i, k, l]        i < a,  j < b,  k < c,  l < d

(Le, Zheng, Riccietti, Gribonval, "Butterfly factorization with error guarantees", SIMAX 46(4), 2025, Def. 2.1.)
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt, prod
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

Patterns = Iterable[Sequence[int]]  # of a chain, (a, b, c, d) each; `patterns` checks them


class Pattern(NamedTuple):
    """(a, b, c, d) of one factor; maps a*c*d inputs to a*b*d outputs."""

    a: int
    b: int
    c: int
    d: int

    @property
    def inputs(self) -> int:
        return self.a * self.c * self.d

    @property
    def outputs(self) -> int:
        return self.a * self.b * self.d

    @property
    def weights(self) -> int:
        """Weights of the factor, and multiplications a vector."""
        return prod(self)

    def __str__(self):
        return "({}, {}, {}, {})".format(*self)


class Indexed(Pattern):
    """The support of a factor whose inputs are named one by one, of pattern (outputs, 1, c, 1):

        y[j] = sum_k v[j, 0, k, 0] * x[index[j, k]]         j < outputs,  k < c

    index: integers (outputs, c), 0 to inputs - 1. Permuted, truncated, padded and repeated vectors, sums of blocks and
    cyclic layers are all such factors; where an output needs fewer inputs than others, the rest has the weight zero.
    Raises ValueError where the index does not fit.
    """

    index: np.ndarray
    _inputs: int
    FIELDS = {"index": np.ndarray, "inputs": int}

    def __new__(cls, index: ArrayLike, inputs: int) -> Self:
        index = np.array(index)
        if index.ndim != 2 or 0 in index.shape or index.dtype.kind not in "iu":
            raise ValueError(f"an index must be integers (outputs, c), got {index.dtype} of shape {index.shape}")
        if type(inputs) is not int or inputs < 1:
            raise ValueError(f"an index needs a positive number of inputs, got {inputs!r}")
        if index.min() < 0 or index.max() >= inputs:
            raise ValueError(
                f"an index into {inputs} values must be 0 to {inputs - 1}, found {index.min()} to {index.max()}"
            )
        self = super().__new__(cls, index.shape[0], 1, index.shape[1], 1)
        self.index, self._inputs = index.astype(np.int64), inputs
        self.index.flags.writeable = False
        return self

    def __getnewargs__(self):
        return self.index, self._inputs

    @property
    def inputs(self) -> int:
        return self._inputs

    def __eq__(self, other):
        same = isinstance(other, Indexed) and tuple(self) == tuple(other) and self.inputs == other.inputs
        return same and np.array_equal(self.index, other.index)

    def __ne__(self, other):
        return not self == other

    __hash__ = Pattern.__hash__

    def __str__(self):
        return f"{super().__str__()} of {self.inputs}"


def support(pattern: Sequence[int]) -> Indexed | None:
    """What a factor of this pattern keeps beside its values: the pattern itself where it is Indexed, else None."""
    return pattern if isinstance(pattern, Indexed) else None


def patterns(items: Patterns) -> tuple[Pattern, ...]:
    """Check a chain of patterns, first applied first: positive ints, each output size the next input size."""
    result = []
    for m, item in enumerate(items):
        if len(item) != 4 or any(type(v) is not int or v < 1 for v in item):
            raise ValueError(f"pattern {m} must be four positive integers (a, b, c, d), got {tuple(item)}")
        result.append(item if isinstance(item, Indexed) else Pattern(*item))
        if m and result[m - 1].outputs != result[m].inputs:
            raise ValueError(
                f"factors do not chain: factor {m - 1} {result[m - 1]} gives {result[m - 1].outputs} values, "
                f"factor {m} {result[m]} takes {result[m].inputs}"
            )
    if not result:
        raise ValueError("a chain needs at least one factor")
    return tuple(result)


def check_name(name: str) -> str:
    """Return a layer's name: words of A-Z, a-z, 0-9 and _ with dots between them, so never a path; ValueError else."""
    if not isinstance(name, str) or len(name) > 200 or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", name):
        raise ValueError(
            f"a layer's name must be words of A-Z, a-z, 0-9 and _ with dots between them, 200 characters at most, "
            f"got {name!r}"
        )
    return name


def pattern_of(values: np.ndarray, support: Indexed | None = None, owner: str = "values") -> Pattern:
    """The pattern of values (a, b, c, d): `support`, an Indexed that must fit them, or their shape where it is None."""
    if values.ndim != 4 or 0 in values.shape:
        raise ValueError(f"{owner} must have shape (a, b, c, d), got {values.shape}")
    if support is not None and values.shape != tuple(support):
        raise ValueError(f"{owner} of the pattern {support} must have shape {tuple(support)}, got {values.shape}")
    return support or Pattern(*values.shape)


def apply(values: np.ndarray, x: np.ndarray, support: Indexed | None = None) -> np.ndarray:
    """values (a, b, c, d) on x (..., inputs) -> (..., a*b*d), in the dtype of the arguments (int64 stays exact)."""
    a, b, c, d = values.shape
    inputs = pattern_of(values, support).inputs
    if x.ndim < 2 or x.shape[-1] != inputs:
        raise ValueError(f"vectors must have shape (N, {inputs}), got {x.shape}")
    if support is not None:
        return sum(values[:, 0, k, 0] * x[..., support.index[:, k]] for k in range(c))
    y = np.einsum("ijkl,nikl->nijl", values, x.reshape(-1, a, c, d))
    return y.reshape(*x.shape[:-1], a * b * d)


def interval(
    values: np.ndarray, lo: np.ndarray, hi: np.ndarray, support: Indexed | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (N, inputs) of each input -> exact bounds (N, a*b*d) of each output, in the dtype of the arguments."""
    positive, negative = np.maximum(values, 0), np.minimum(values, 0)
    low = apply(positive, lo, support) + apply(negative, hi, support)
    return low, apply(positive, hi, support) + apply(negative, lo, support)


def column_peaks(values: np.ndarray, support: Indexed | None = None) -> np.ndarray:
    """The largest magnitude of any weight of each input, (inputs,)."""
    if support is None:
        return np.abs(values).max(axis=1).ravel()
    peaks = np.zeros(support.inputs)
    np.maximum.at(peaks, support.index, np.abs(values[:, 0, :, 0]))
    return peaks


def scale_columns(values: np.ndarray, scale: np.ndarray, support: Indexed | None = None) -> np.ndarray:
    """Values with all weights of each input multiplied by its entry of `scale`, (inputs,)."""
    a, _, c, d = values.shape
    return values * (scale.reshape(a, 1, c, d) if support is None else scale[support.index][:, None, :, None])


@dataclass(frozen=True, eq=False, repr=False)
class Factor:
    """One float factor. `values`: finite reals of shape (a, b, c, d), kept as float64; support: None, or an Indexed."""

    values: np.ndarray
    support: Indexed | None = None

    def __post_init__(self):
        values = np.asarray(self.values)
        pattern_of(values, self.support, "Factor.values")
        if values.dtype.kind not in "fiu":
            raise TypeError(f"Factor.values must be real numbers, got dtype {values.dtype}")
        if not np.isfinite(values).all():
            raise ValueError("Factor.values must be finite, found NaN or infinity")
        object.__setattr__(self, "values", values.astype(np.float64))

    def __repr__(self):
        return f"<Factor {self.pattern}>"

    @property
    def pattern(self) -> Pattern:
        return pattern_of(self.values, self.support)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return apply(self.values, x, self.support)

    def dense(self) -> np.ndarray:
        """The factor as a dense matrix (outputs, inputs)."""
        return self(np.eye(self.pattern.inputs)).T


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Chain:
    """Factors, first applied first. Raises ValueError where the sizes do not chain."""

    factors: tuple[Factor, ...]

    def __init__(self, factors: Iterable[Factor]) -> None:
        object.__setattr__(self, "factors", tuple(factors))
        patterns(self.patterns)

    def __repr__(self):
        return f"<Chain {self.inputs} -> {self.outputs}: {' '.join(map(str, self.patterns))}>"

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return tuple(f.pattern for f in self.factors)

    @property
    def inputs(self) -> int:
        return self.factors[0].pattern.inputs

    @property
    def outputs(self) -> int:
        return self.factors[-1].pattern.outputs

    @property
    def weights(self) -> int:
        return sum(p.weights for p in self.patterns)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for factor in self.factors:
            x = factor(x)
        return x

    def dense(self) -> np.ndarray:
        """The whole chain as a dense matrix (outputs, inputs)."""
        return self(np.eye(self.inputs)).T

    def inverse(self) -> "Chain":
        """The inverse, again a chain: each b x c block (i, l) of each factor inverted, in reverse order.

        (Meng et al., "ButterflyFlow", ICML 2022, section 3.) Raises ValueError, which names factor and block, where
        b != c, inputs are named one by one, or a block is singular.
        """
        return Chain(_inverse(m, factor) for m, factor in reversed(tuple(enumerate(self.factors))))

    @classmethod
    def random(cls, shape: Patterns, seed: int) -> Self:
        """Patterns to a chain with the paper's initialisation (see `initial_range`)."""
        rng, shape = np.random.default_rng(seed), patterns(shape)
        y = initial_range(shape)
        return cls(Factor(rng.uniform(-y, y, tuple(p)), support(p)) for p in shape)


def _inverse(m, factor):
    p = factor.pattern
    if factor.support is not None or p.b != p.c:
        raise ValueError(f"Chain.inverse: factor {m}, {p}, has no square blocks (b = c) to invert")
    blocks = factor.values.transpose(0, 3, 1, 2)
    singular = np.argwhere(np.linalg.matrix_rank(blocks) < p.b)
    if len(singular):
        raise ValueError(f"Chain.inverse: block (i, l) = {tuple(singular[0].tolist())} of factor {m}, {p}, is singular")
    return Factor(np.linalg.inv(blocks).transpose(0, 2, 3, 1))


def initial_range(shape: Sequence[Pattern]) -> float:
    """y of the edges' uniform(-y, y) at the start of training.

    y = x^(1/L) * 2^((L-1)/L) with x = sqrt(6 / (inputs + outputs)), so that an entry of the product has the mean size
    of Xavier's initialisation, x/2 (Alizadeh et al., "Butterfly Transform", CVPR 2020, section 3.4).
    """
    x = np.sqrt(6 / (shape[0].inputs + shape[-1].outputs))
    return float(x ** (1 / len(shape)) * 2 ** ((len(shape) - 1) / len(shape)))


def _check_sizes(owner, **sizes):
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"{owner}: {name} must be a positive integer, got {size!r}")


@cache
def divisors(n: int) -> tuple[int, ...]:
    """Of a positive integer, ascending."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))


def factorise(n: int, base: int) -> tuple[int, ...]:
    """Radices of n for `mixed_radix`: as many `base` as divide n, then what is left in primes, largest first."""
    _check_sizes("factorise", n=n, base=base)
    radices, rest, p = [], n, 2
    while base > 1 and rest % base == 0:
        radices.append(base)
        rest //= base
    primes = []
    while rest > 1:
        if rest % p == 0:
            primes.append(p)
            rest //= p
        else:
            p = p + 1 if p <= isqrt(rest) else rest
    return tuple(radices) + tuple(reversed(primes))


def mixed_radix(radices: Iterable[int | tuple[int, int]]) -> tuple[Pattern, ...]:
    """A butterfly over n = r_0 * r_1 * ... values, stage m of radix r_m, the largest stride first.

    A radix may be a pair (r, s), blocks of r outputs and s inputs: s_0 * s_1 * ... values become r_0 * r_1 * ...
    """
    pairs = [radix if isinstance(radix, tuple) else (radix, radix) for radix in radices]
    if not pairs or any(len(pair) != 2 or any(type(r) is not int or r < 2 for r in pair) for pair in pairs):
        raise ValueError(f"radices must be integers of 2 or more, or pairs of them, got {tuple(radices)}")
    rows, columns = zip(*pairs)
    return patterns((prod(rows[:m]), r, s, prod(columns[m + 1 :])) for m, (r, s) in enumerate(pairs))


def bft(n: int, base: int = 4) -> tuple[Pattern, ...]:
    """The base-k Butterfly Transform: stage m is (k^m, k, k, n/k^(m+1)) (CVPR 2020, section 3.1)."""
    if base < 2 or n < 2:
        raise ValueError(f"bft needs n and base of 2 or more, got n = {n}, base = {base}")
    radices = factorise(n, base)
    if any(r != base for r in radices):
        raise ValueError(f"{n} is no power of base {base}: name the radices, mixed_radix({radices}) for example")
    return mixed_radix(radices)


def debut(*rst: Sequence[int], inputs: int) -> tuple[Pattern, ...]:
    """Deformable butterfly, factors R(p,q | r,s,t) as (r, s, t), first applied first: pattern (p/(r t), r, s, t).

    (Lin, Ran, Chiu, Chesi, Wong, "Deformable Butterfly", NeurIPS 2021, section 3.) `inputs` is q of the first.
    """
    result, q = [], inputs
    _check_sizes("debut", inputs=inputs)
    for r, s, t in rst:
        _check_sizes("debut", r=r, s=s, t=t)
        if q % (s * t):
            raise ValueError(f"debut: factor ({r}, {s}, {t}) takes a multiple of s*t = {s * t} values, not {q}")
        result.append((q // (s * t), r, s, t))
        q = q // s * r
    return patterns(result)


def monarch(outputs: int, inputs: int, blocks: int = 4) -> tuple[Pattern, ...]:
    """Two block-diagonal factors with `blocks` blocks each, (k, q, p, 1) then (1, s, q, k).

    p = inputs/k, s = outputs/k and q = min(p, s): the sizes of Dao et al., "Monarch", ICML 2022, for rectangles.
    """
    _check_sizes("monarch", outputs=outputs, inputs=inputs, blocks=blocks)
    if inputs % blocks or outputs % blocks:
        raise ValueError(f"monarch needs blocks to divide inputs and outputs, got {blocks} for {inputs} -> {outputs}")
    q = min(inputs, outputs) // blocks
    return patterns([(blocks, q, inputs // blocks, 1), (1, outputs // blocks, q, blocks)])


def low_rank(outputs: int, inputs: int, rank: int) -> tuple[Pattern, ...]:
    return patterns([(1, rank, inputs, 1), (1, outputs, rank, 1)])


def dense(outputs: int, inputs: int) -> tuple[Pattern, ...]:
    return patterns([(1, outputs, inputs, 1)])


def grouped(outputs: int, inputs: int, groups: int) -> tuple[Pattern, ...]:
    """A grouped pointwise convolution."""
    _check_sizes("grouped", outputs=outputs, inputs=inputs, groups=groups)
    if inputs % groups or outputs % groups:
        raise ValueError(f"groups must divide inputs and outputs, got {groups} for {inputs} -> {outputs}")
    return patterns([(groups, outputs // groups, inputs // groups, 1)])
