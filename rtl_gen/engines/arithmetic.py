"""What a datapath computes: widths, shifts, what each output needs, how it ends; of one factor or of some."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..signals import element
from ..tech import MULTIPLY, READ


class End(NamedTuple):
    """How an output ends: lo, hi, what its format, or its table's input, holds; whether a ReLU makes it 0 or more; what
    it is clamped to at most, None for nothing below `hi`; whether a table follows.
    """

    lo: int
    hi: int
    relu: bool
    top: int | None
    table: bool = False

    @classmethod
    def of(cls, factor):
        q, top = factor.rounded, factor.top
        return cls(q.lo, q.hi, factor.relu, None if top == q.hi else top, factor.table is not None)

    def beyond(self, total):
        """Whether a sum is outside; below zero is nothing that a clamp looks at, the ReLU before it does."""
        if self.top is not None:
            return total > self.top
        above = total[self.hi.bit_length() :]
        return above.any() & ~above.all() if self.lo else above.any()


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """What a datapath that serves some factors computes; for one factor, exactly IntFactor's rule.

    Where the factors' shifts differ, sums are shifted left by the difference, so that one requantisation serves all.
    order: indices of the outputs of all factors in a row, in the order in which they are computed; None: as they are.
    """

    factors: tuple
    simd: int
    steps: int
    order: np.ndarray | None = None

    @cached_property
    def x_shape(self):
        """Shape of an input, of whichever factor."""
        return element(*(f.input for f in self.factors))

    x_width = property(lambda self: self.x_shape.width)

    @property
    def bits(self):
        """Whether weights are 0 or 1: what only picks, or sums."""
        return all(f.weights.width == 1 and not f.weights.signed for f in self.factors)

    @cached_property
    def w_width(self):
        """Weights have a sign in any case."""
        return max(f.weights.operand for f in self.factors)

    @cached_property
    def rounded_shape(self):
        return element(*(f.rounded for f in self.factors))

    @property
    def table(self):
        """Of the last factor, or None."""
        return self.factors[-1].table

    @property
    def table_bits(self):
        """Bits of the table behind an output."""
        return 0 if self.table is None else len(self.table.values) * self.factors[-1].output.width

    @cached_property
    def output_shape(self):
        return element(*(f.output for f in self.factors))

    output_width = property(lambda self: self.output_shape.width)

    @cached_property
    def ends(self):
        """The ways in which outputs end."""
        return tuple(dict.fromkeys(map(End.of, self.factors)))

    @cached_property
    def total_width(self):
        """Bits of the rounded sum."""
        most = max(f.rounded.operand for f in self.factors)
        return max(self.acc_width - self.shift, most) if self.shift > 0 else self.acc_width

    @cached_property
    def shift(self):
        return max(f.shift for f in self.factors)

    @cached_property
    def lifts(self):
        """Left shifts that bring each factor's sums to the common shift."""
        return tuple(self.shift - f.shift for f in self.factors)

    @cached_property
    def dot_width(self):
        return self.x_width + self.w_width + (self.simd * self.steps - 1).bit_length()

    @cached_property
    def acc_width(self):
        return max(f.acc_width + lift for f, lift in zip(self.factors, self.lifts))

    @cached_property
    def dot_shifts(self):
        """Left shift of each output's dot product, int64, all factors in a row."""
        per_factor = ((f.dot_shift + lift, f.pattern.outputs) for f, lift in zip(self.factors, self.lifts))
        return np.concatenate([np.broadcast_to(shift, outputs) for shift, outputs in per_factor])

    @cached_property
    def half(self):
        return 1 << (self.shift - 1) if self.shift > 0 else 0

    @property
    def skip_factor(self):
        """The factor that a residual joins, which is the last, or None."""
        return self.factors[-1] if self.factors[-1].skip_input else None

    @cached_property
    def fields(self):
        """What an output needs beside its dot product: name → (values (outputs,), bits, signed); `bias` with the half
        in it.
        """
        fields, f = {}, self.factors[-1]
        outputs = [f.pattern.outputs for f in self.factors]
        before = sum(outputs) - outputs[-1]
        if f.skip is not None:
            fields["skip"] = np.concatenate([np.zeros(before, int), f.skip]), f.skip_weights.operand, True
        if any(f.bias is not None for f in self.factors):
            parts, bits = [], []
            for f, lift in zip(self.factors, self.lifts):
                bias = np.zeros(f.pattern.outputs, int) if f.bias is None else f.bias
                parts.append((bias << lift) + self.half)
                bits.append((f.bias_width or 0) + lift)
            fields["bias"] = np.concatenate(parts), max(*bits, self.half.bit_length()) + 1, True
        if np.ptp(self.dot_shifts):
            extra = self.dot_shifts - self.dot_shifts.min()
            fields["extra"] = extra, int(extra.max()).bit_length(), False
        if len(self.ends) > 1:
            ends = [self.ends.index(End.of(f)) for f in self.factors]
            fields["end"] = np.repeat(ends, outputs), (len(self.ends) - 1).bit_length(), False
        return fields

    def in_order(self, values):
        return values if self.order is None else values[self.order]

    tree = property(lambda self: (self.simd - 1).bit_length())

    @property
    def to_total(self):
        """Cycles from operands to the sum that is rounded."""
        return MULTIPLY + self.tree + (self.steps > 1)

    @property
    def depth(self):
        """Cycles from a dot product's last operands to its output: to the sum, the rounded sum, its overflow, the
        output; through a table.
        """
        return self.to_rounded + READ * (self.table is not None)

    @property
    def to_rounded(self):
        return self.to_total + 3
