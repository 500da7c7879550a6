"""The golden model: the integers every other level has to equal, in int64 numpy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .chain import Indexed, apply, check_name, interval, pattern_of, patterns
from .qformat import QFormat, rescale


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntFactor:
    """One integer factor and the single requantisation that ends it.

    y = saturate(round(acc * 2**-shift)), then max(y, 0) where `relu`, with everything aligned to `acc_frac`:

        acc = (sum_k values * x) << dot_shift  +  (skip * x0) << skip_shift  +  bias

    values (a, b, c, d) in `weights`, of `support` where that is not their shape; exponents (a, b, d), 0 or more, are
    extra fraction bits of a row's weights. bias: (outputs,), integers at acc_frac, in `bias_width` bits. x0: the
    layer's input, in `skip_input`, where there is a residual; skip: (outputs,) in `skip_weights`, or None for a weight
    of one. Raises ValueError where integers do not fit their formats or the accumulator exceeds 62 bits.
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
        if self.acc_width > 62 or abs(self.shift) > 62:
            raise ValueError(
                f"integer overflow: the accumulator needs {self.acc_width} bits and a shift of {self.shift}, "
                "62 are the limit; take narrower formats or formats nearer to each other"
            )

    def __repr__(self):
        return f"<IntFactor {self.pattern}: {self.input} -> {self.output}>"

    @property
    def pattern(self):
        return pattern_of(self.values, self.support)

    @property
    def bias_format(self):
        return None if self.bias_width is None else QFormat(self.bias_width, self.acc_frac)

    @property
    def max_exponent(self):
        return 0 if self.exponents is None else int(self.exponents.max())

    @property
    def skip_frac(self):
        return self.skip_input.frac + (self.skip_weights.frac if self.skip_weights else 0)

    @property
    def acc_frac(self):
        """Fraction bits at which all that meets in an output is aligned: the most of any part."""
        dot = self.input.frac + self.weights.frac + self.max_exponent
        return max(dot, self.skip_frac) if self.skip_input else dot

    @property
    def dot_shift(self):
        """Left shifts that align the dot products: an int, or int64 (outputs,) with row exponents."""
        shift = self.acc_frac - self.input.frac - self.weights.frac
        return shift if self.exponents is None else shift - self.exponents.reshape(-1)

    @property
    def skip_shift(self):
        return self.acc_frac - self.skip_frac

    @property
    def shift(self):
        """Fraction bits that the requantisation drops; negative where it adds some."""
        return self.acc_frac - self.output.frac

    @property
    def dot_width(self):
        """Bits of the exact dot product: w_x + w_v + ceil(log2 c)."""
        return self.input.width + self.weights.width + (self.pattern.c - 1).bit_length()

    @property
    def acc_width(self):
        """Bits that hold the aligned sum of all parts, the rounding constant included, whatever the integers are."""
        parts = [self.dot_width + int(np.max(self.dot_shift))]
        if self.skip_input:
            weights = self.skip_weights.width if self.skip_weights else 0
            parts.append(self.skip_input.width + weights + self.skip_shift)
        if self.bias_width:
            parts.append(self.bias_width)
        if self.shift > 0:
            parts.append(self.shift + 1)
        return max(max(parts) + (len(parts) - 1).bit_length(), self.output.width) + max(0, -self.shift)

    def accumulate(self, x, x0=None):
        """x (N, inputs), x0 (N, outputs) -> the aligned sum, int64 (N, outputs)."""
        acc = apply(self.values, x, self.support) << self.dot_shift
        if self.skip_input:
            acc = acc + ((x0 if self.skip is None else x0 * self.skip) << self.skip_shift)
        return acc if self.bias is None else acc + self.bias

    def requantise(self, acc):
        y = self.output.saturate(rescale(acc, self.shift))
        return np.maximum(y, 0) if self.relu else y

    def saturated(self, acc):
        """Where the requantisation clips; what a ReLU removes anyway is no saturation."""
        y = rescale(acc, self.shift)
        return (y > self.output.hi) | ((y < self.output.lo) & (not self.relu))

    def __call__(self, x, x0=None):
        return self.requantise(self.accumulate(x, x0))

    def bounds(self, lo, hi, lo0=None, hi0=None):
        """Bounds (inputs,) of each input and (outputs,) of each x0 -> exact bounds of each accumulator."""
        low, high = (end[0] << self.dot_shift for end in interval(self.values, lo, hi, self.support))
        if self.skip_input:
            w = np.int64(1) if self.skip is None else self.skip
            low = low + (np.minimum(lo0 * w, hi0 * w) << self.skip_shift)
            high = high + (np.maximum(lo0 * w, hi0 * w) << self.skip_shift)
        bias = 0 if self.bias is None else self.bias
        return low + bias, high + bias


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntLayer:
    """Integer factors in order; where the last one has a `skip_input`, the layer's input joins it there."""

    factors: tuple
    name: str = "0"

    def __post_init__(self):
        check_name(self.name)
        factors = tuple(self.factors)
        object.__setattr__(self, "factors", factors)
        patterns(f.pattern for f in factors)
        for m, (before, after) in enumerate(zip(factors, factors[1:])):
            owner = f"factor {m} of layer {self.name!r}"
            if before.output != after.input:
                raise ValueError(f"{owner} gives {before.output}, the next takes {after.input}")
            if before.skip_input or before.bias is not None or before.relu:
                raise ValueError(f"{owner}: residual, bias and ReLU belong to the last factor")
        if self.residual and (factors[-1].skip_input != factors[0].input):
            raise ValueError(f"layer {self.name!r}: the residual must have the format of the layer's input")
        if self.residual and factors[-1].pattern.outputs != factors[0].pattern.inputs:
            raise ValueError(f"layer {self.name!r}: a residual needs as many outputs as inputs")

    def __repr__(self):
        return f"<IntLayer {self.name}: {' '.join(str(factor.pattern) for factor in self.factors)}>"

    @property
    def residual(self):
        return self.factors[-1].skip_input is not None


def short_stage(name):
    """A stage's short name, for tables and messages: body:0 of body.factors.0."""
    return name.replace(".factors.", ":")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntNetwork:
    """The integer network: integers in `input`, integers out in `output`, both (N, size)."""

    layers: tuple

    def __post_init__(self):
        layers = tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not layers:
            raise ValueError("a network needs at least one layer")
        if len({layer.name for layer in layers}) != len(layers):
            raise ValueError(f"layer names must differ, got {[layer.name for layer in layers]}")
        patterns(f.pattern for f in self.factors)
        for before, after in zip(layers, layers[1:]):
            if before.factors[-1].output != after.factors[0].input:
                raise ValueError(f"layer {before.name!r} gives another format than {after.name!r} takes")

    def __repr__(self):
        names = ", ".join(layer.name for layer in self.layers)
        return f"<IntNetwork {self.inputs} -> {self.outputs}, {self.input} -> {self.output}: {names}>"

    @cached_property
    def factors(self):
        return tuple(f for layer in self.layers for f in layer.factors)

    @cached_property
    def names(self):
        """`<layer>.factors.<m>` of each stage."""
        return tuple(f"{layer.name}.factors.{m}" for layer in self.layers for m in range(len(layer.factors)))

    @property
    def input(self):
        return self.factors[0].input

    @property
    def output(self):
        return self.factors[-1].output

    @property
    def inputs(self):
        return self.factors[0].pattern.inputs

    @property
    def outputs(self):
        return self.factors[-1].pattern.outputs

    def accumulators(self, x):
        """Yield (factor, accumulators (N, outputs), outputs (N, outputs)) of each stage for integers x (N, inputs)."""
        x = self.input.check(x, "input vectors")
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"input vectors must have shape (N, {self.inputs}), got {x.shape}")
        for layer in self.layers:
            x0 = x
            for factor in layer.factors:
                acc = factor.accumulate(x, x0 if factor.skip_input else None)
                x = factor.requantise(acc)
                yield factor, acc, x

    def taps(self, x):
        """The outputs of every stage, in order."""
        return [y for _, _, y in self.accumulators(x)]

    def __call__(self, x):
        return self.taps(x)[-1]

    def predict(self, x):
        """Floats (N, inputs) -> floats (N, outputs): input quantised with saturation, then exact."""
        return self.output.dequantise(self(self.input.quantise(x)))

    def classify(self, x):
        """Floats (N, inputs) -> the index of the largest output, ties to the lowest index."""
        return self(self.input.quantise(x)).argmax(axis=1)
