"""The golden model's arithmetic: one exact sum, one rounding; int64 numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .act import Table
from .chain import Indexed, Pattern, apply, interval, pattern_of
from .graph import Ends
from .qformat import QFormat, product_bits, rescale

LONG = 8  # products of an output from which a matrix product of floats is faster than a sum of integers


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntFactor:
    """One integer factor and the single requantisation that ends it.

    y = saturate(round(acc * 2**-shift)), then max(y, 0) where `relu`, with everything aligned to `acc_frac`:

        acc = (sum_k values * x) << dot_shift  +  (skip * x0) << skip_shift  +  bias

    values (a, b, c, d) in `weights`, of `support` where that is not their shape; exponents (a, b, d), 0 or more, are
    extra fraction bits of a row's weights. bias: (outputs,), integers at acc_frac, in `bias_width` bits. x0: what is
    added, in `skip_input`; skip: (outputs,) in `skip_weights`, or None for a weight of one. top: y is min(y, top) at
    last (ReLU6). table: y is rounded to the table's input, and the table gives the output.
    Raises ValueError where integers do not fit their formats or the accumulator exceeds 62 bits.
    """

    values: np.ndarray
    input: QFormat
    weights: QFormat
    output: QFormat
    exponents: np.ndarray | None = None
    skip_input: QFormat | None = None
    skip: np.ndarray | None = None
    skip_weights: QFormat | None = None
    bias: np.ndarray | None = None
    bias_width: int | None = None
    relu: bool = False
    support: Indexed | None = None
    top: int | None = None
    table: Table | None = None

    def __post_init__(self):
        values = self.weights.check(self.values, "IntFactor.values")
        pattern_of(values, self.support, "IntFactor.values")
        object.__setattr__(self, "values", values)
        a, b, _, d = values.shape
        if self.exponents is not None:
            exponents = np.asarray(self.exponents)
            if exponents.shape != (a, b, d) or exponents.dtype.kind not in "iu":
                raise ValueError(f"IntFactor.exponents must be integers of shape {(a, b, d)}, got {exponents.shape}")
            if exponents.min() < 0 or exponents.max() > 62:
                raise ValueError(f"IntFactor.exponents must be 0 to 62, got {exponents.min()} to {exponents.max()}")
            object.__setattr__(self, "exponents", exponents.astype(np.int64))
        if (self.skip is None) != (self.skip_weights is None) or (self.skip is not None and self.skip_input is None):
            raise ValueError("IntFactor.skip goes with skip_weights and skip_input")
        if (self.bias is None) != (self.bias_width is None):
            raise ValueError("IntFactor.bias goes with bias_width")
        for key, fmt in (("skip", self.skip_weights), ("bias", self.bias_format)):
            if (value := getattr(self, key)) is not None:
                value = fmt.check(value, f"IntFactor.{key}")
                if value.shape != (self.pattern.outputs,):
                    raise ValueError(f"IntFactor.{key} must have shape ({self.pattern.outputs},), got {value.shape}")
                object.__setattr__(self, key, value)
        if self.top is not None and not (self.relu and 0 <= self.top <= self.output.hi):
            raise ValueError(f"IntFactor.top goes with relu and is 0 to {self.output.hi}, got {self.top}")
        if self.table is not None:
            self.output.check(self.table.values, "IntFactor.table")
            if self.relu:
                raise ValueError("IntFactor.table stands in the place of a ReLU")
        if self.acc_width > 62 or abs(self.shift) > 62:
            raise ValueError(
                f"integer overflow: the accumulator needs {self.acc_width} bits and a shift of {self.shift}, "
                "62 are the limit; take narrower formats or formats nearer to each other"
            )

    def __repr__(self):
        return f"<IntFactor {self.pattern}: {self.input} -> {self.output}>"

    @property
    def pattern(self) -> Pattern:
        return pattern_of(self.values, self.support)

    @property
    def bias_format(self) -> QFormat | None:
        return None if self.bias_width is None else QFormat(self.bias_width, self.acc_frac)

    @property
    def max_exponent(self) -> int:
        return 0 if self.exponents is None else int(self.exponents.max())

    @property
    def skip_frac(self) -> int:
        return self.skip_input.frac + (self.skip_weights.frac if self.skip_weights else 0)

    @property
    def acc_frac(self) -> int:
        """Fraction bits at which all that meets in an output is aligned: the most of any part."""
        dot = self.input.frac + self.weights.frac + self.max_exponent
        return max(dot, self.skip_frac) if self.skip_input else dot

    @property
    def dot_shift(self) -> int | NDArray[np.int64]:
        """Left shifts that align the dot products: an int, or int64 (outputs,) with row exponents."""
        shift = self.acc_frac - self.input.frac - self.weights.frac
        return shift if self.exponents is None else shift - self.exponents.reshape(-1)

    @property
    def skip_shift(self) -> int:
        return self.acc_frac - self.skip_frac

    @property
    def rounded(self) -> QFormat:
        """The format that accumulators are rounded to: the table's input where there is one, else the output."""
        return self.output if self.table is None else self.table.input

    @property
    def shift(self) -> int:
        """Fraction bits that the requantisation drops; negative where it adds some."""
        return self.acc_frac - self.rounded.frac

    @property
    def dot_width(self) -> int:
        """Bits of the exact dot product: w_x + w_v + ceil(log2 c), one more where neither has a sign."""
        return product_bits(self.input, self.weights) + (self.pattern.c - 1).bit_length()

    @property
    def acc_width(self) -> int:
        """Bits that hold the aligned sum of all parts, the rounding constant included, whatever the integers are."""
        parts = [self.dot_width + int(np.max(self.dot_shift))]
        if self.skip_input:
            factors = [self.skip_input] + [self.skip_weights] * (self.skip is not None)
            parts.append(product_bits(*factors) + self.skip_shift)
        if self.bias_width:
            parts.append(self.bias_width)
        if self.shift > 0:
            parts.append(self.shift + 1)
        return max(max(parts) + (len(parts) - 1).bit_length(), self.rounded.operand) + max(0, -self.shift)

    def dots(self, x: np.ndarray) -> NDArray[np.int64]:
        """The exact dot products, int64 (..., outputs); long ones in float64, whose 53 bits hold every partial sum."""
        a, b, c, d = self.values.shape
        if self.support is not None or d > 1 or c < LONG or self.dot_width > 53:
            return apply(self.values, x, self.support)
        rows = x.reshape(-1, a, c).swapaxes(0, 1).astype(np.float64)
        y = rows @ self.values[..., 0].swapaxes(1, 2).astype(np.float64)  # (a, N, b)
        return y.swapaxes(0, 1).reshape(*x.shape[:-1], a * b).astype(np.int64)

    def accumulate(self, x: np.ndarray, x0: np.ndarray | None = None) -> NDArray[np.int64]:
        """x (..., inputs), x0 (..., outputs) -> the aligned sum, int64 (..., outputs)."""
        acc = self.dots(x) << self.dot_shift
        if self.skip_input:
            acc = acc + ((x0 if self.skip is None else x0 * self.skip) << self.skip_shift)
        return acc if self.bias is None else acc + self.bias

    def requantise(self, acc: np.ndarray) -> np.ndarray:
        y = self.rounded.saturate(rescale(acc, self.shift))
        if self.table is not None:
            return self.table(y)
        return np.clip(y, 0, self.top) if self.relu else y

    def saturated(self, acc: np.ndarray) -> np.ndarray:
        """Where the requantisation clips; what a ReLU removes anyway is no saturation."""
        y, above = rescale(acc, self.shift), self.top is None or self.top == self.output.hi
        return ((y > self.rounded.hi) & above) | ((y < self.rounded.lo) & (not self.relu))

    def __call__(self, x: np.ndarray, x0: np.ndarray | None = None) -> np.ndarray:
        return self.requantise(self.accumulate(x, x0))

    def bounds(
        self, lo: np.ndarray, hi: np.ndarray, lo0: np.ndarray | None = None, hi0: np.ndarray | None = None
    ) -> Ends:
        """Bounds (inputs,) of each input and (outputs,) of each x0 -> exact bounds of each accumulator."""
        low, high = (end[0] << self.dot_shift for end in interval(self.values, lo, hi, self.support))
        if self.skip_input:
            w = np.int64(1) if self.skip is None else self.skip
            low = low + (np.minimum(lo0 * w, hi0 * w) << self.skip_shift)
            high = high + (np.maximum(lo0 * w, hi0 * w) << self.skip_shift)
        bias = 0 if self.bias is None else self.bias
        return low + bias, high + bias
