"""What a folded engine is: which factors can share one, its cycles and bits, all known before anything is built."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .datapath import LEAD, Arithmetic
from .stream import ENTRY
from .tech import technology


def pair_bits(target, x_width):
    """The most bits of weights with which two products of one input of `x_width` bits fit a multiplier of a target.

    Two fit where one does not reach into the other: w_x + 2·w_w <= w + 1 on an operand of w bits.
    """
    return (technology(target).operand + 1 - x_width) // 2


def check_fold(factors, owner, whole_layer=True):
    """ValueError that says why factors cannot share a folded engine."""
    patterns = [f.pattern for f in factors]
    if len(factors) < 2:
        raise ValueError(
            f"{owner}: a folded engine needs two neighbouring factors or more, this one stands alone; "
            "a settings file can make it pipelined"
        )
    for p in patterns:
        if p.b != p.c or p.c < 2:
            raise ValueError(f"{owner}: only factors with b = c of 2 or more are folded, in place; {p} is none")
    if patterns[-1].d != 1:
        raise ValueError(
            f"{owner}: the last factor folded must have d = 1, to leave in natural order; it is {patterns[-1]}"
        )
    widths = sorted({f.output.width for f in factors})
    if len(widths) > 1:
        raise ValueError(f"{owner}: factors folded must have outputs of one width, here they have {widths} bits")
    if factors[-1].skip_input and not whole_layer:
        raise ValueError(f"{owner}: a residual can be folded with all factors of its layer only")


@dataclass(frozen=True, kw_only=True)
class FoldSpec:
    """Factors on one engine. vectors: whole vectors side by side, which share weights and control.

    prompt: whether input beats come as fast as they are granted; else a vector is waited for until it is complete.
    paired: each multiplier makes two products, of one input and the weights of two neighbouring rows, exactly. Radices
    must be even then, weights symmetric, and both weights must fit the multiplier.
    """

    factors: tuple
    vectors: int = 1
    prompt: bool = True
    target: str = "plain"
    lut: bool = False
    paired: bool = False

    lanes_in = lanes_out = 1
    takes_skip = False  # it keeps the layer's input itself
    flight = ENTRY  # a word is granted only if the memory will be free to take it, which needs a known delay

    def __post_init__(self):
        check_fold(self.factors, "FoldSpec")
        if self.paired:
            self._check_paired()

    def _check_paired(self):
        """ValueError that says why two products do not fit a multiplier, and what would."""
        a, operand = self.arithmetic, technology(self.target).operand
        odd = next((f.pattern for f in self.factors if f.pattern.c % 2), None)
        if odd:
            raise ValueError(
                f"two products a multiplier (paired) need factors of even radix, whose rows are taken in pairs; {odd} "
                f"has radix {odd.c}; without paired they can be folded, and a settings file can make a layer pipelined"
            )
        if a.w_width > (widest := pair_bits(self.target, a.x_width)):
            raise ValueError(
                f"two products a multiplier: inputs of {a.x_width} and weights of {a.w_width} bits do not fit an "
                f"operand of {operand}; weights of {widest} bits would"
                + ("" if widest > 1 else ", with narrower inputs")
            )
        for f in self.factors:
            if f.values.min() == -(1 << (a.w_width - 1)):
                raise ValueError(
                    f"two products a multiplier: weights must be symmetric, found {f.values.min()} in {a.w_width} "
                    f"bits; {f.values.min() + 1} is the least that fits"
                )

    @property
    def factor(self):
        """The last one, which a residual joins."""
        return self.factors[-1]

    @property
    def size(self):
        return self.factor.pattern.outputs

    @property
    def passes(self):
        return len(self.factors)

    @cached_property
    def radix(self):
        """The largest: words of a group, products a cycle."""
        return max(f.pattern.c for f in self.factors)

    @property
    def simd(self):
        """Multipliers a vector."""
        return self.radix // 2 if self.paired else self.radix

    @cached_property
    def width(self):
        """Bits of a word in memory."""
        return max(self.factors[0].input.width, self.factor.output.width)

    @cached_property
    def arithmetic(self):
        order = []
        for f in self.factors:
            a, b, _, d = f.pattern
            order.append(np.arange(a * b * d).reshape(a, b, d).transpose(0, 2, 1).ravel() + len(order) * self.size)
        return Arithmetic(self.factors, self.simd, self.radix // self.simd, order=np.concatenate(order))

    def in_order_of_use(self):
        """Weights int64 (passes*n, radix), a row a turn; a radix smaller than the largest takes the last operands.

        Paired: of rows 2r and 2r+1 first one half of the operands, then the other, the lower of two weights first; the
        upper one is less by one where the lower is negative, which borrows from it.
        """
        table = np.zeros((self.passes, self.size, self.radix), np.int64)
        for m, f in enumerate(self.factors):
            table[m, :, self.radix - f.pattern.c :] = f.values.transpose(0, 3, 1, 2).reshape(self.size, -1)
        table = table.reshape(-1, self.radix)
        if self.paired:
            pairs = table.reshape(-1, 2, 2, self.simd).transpose(0, 2, 3, 1).copy()  # (pair of rows, half, q, row)
            pairs[..., 1] -= pairs[..., 0] < 0
            table = pairs.reshape(-1, self.radix)
        return table

    # cycles

    @property
    def beats_in(self):
        return self.size

    @property
    def beats_out(self):
        return self.size

    @property
    def depth(self):
        """Cycles from an output's turn to its arrival; its turn comes at the earliest with its group's last read."""
        return LEAD + self.arithmetic.depth + self.paired

    @property
    def output_flight(self):
        """Cycles from the grant of room for an output beat to its arrival, unstalled."""
        return self.factor.pattern.c - 1 + self.depth

    @property
    def early(self):
        """Words of a vector that may be missing when its first pass begins: they arrive before its first result."""
        first = self.factors[0].pattern.c
        return min(first + self.depth, self.size - 1) if self.prompt else 0

    @cached_property
    def gaps(self):
        """Idle cycles behind each pass: none of its words must be read before it is written, and a group has as many
        outputs as words, which must not fall behind when the radix gets smaller. 0 but for small n and mixed radices.
        """
        turns, reads = [], []
        for f in self.factors:
            a, _, c, d = f.pattern
            # in the order of reading, which is that of the turns
            address = np.arange(self.size).reshape(a, c, d).transpose(0, 2, 1).ravel()
            read = np.empty(self.size, int)
            read[address] = np.arange(self.size)
            reads.append(read)
            turns.append(read + c - 1)
        radices = [f.pattern.c for f in self.factors]
        behind = [c - following for c, following in zip(radices, (*radices[1:], radices[0]))]
        late = [int((turn + self.depth + 1 - self.size - read).max()) for turn, read in zip(turns, reads[1:])]
        return tuple(max(0, *pair) for pair in zip(behind, (*late, 0)))

    @property
    def last_pass(self):
        """Cycles from the first read of the first pass to that of the last pass."""
        return (self.passes - 1) * self.size + sum(self.gaps[:-1])

    @property
    def first_group(self):
        """Words of a vector before its first group is complete."""
        p = self.factors[0].pattern
        return (p.c - 1) * p.d + 1

    @property
    def interval(self):
        """Cycles from one vector's first beat to the next one's: every pass, and what the next one is waited for."""
        # the next vector's words are granted as soon as the last results of the pass before the last are written
        radices = [f.pattern.c for f in self.factors]
        granted = max(radices[-2] + self.depth - 2 - self.gaps[-2], radices[-1] + 1) + np.arange(self.size)
        enough, group = granted[self.size - self.early - 1] + 3, granted[self.first_group - 1] + 4
        begin = max(self.size + self.gaps[-1], enough, group)
        return int(self.last_pass + begin)

    def output_times(self, arrivals, skip=None):
        """Cycles of a first vector's output beats, given those of its input beats."""
        arrivals = np.asarray(arrivals)
        begin = max(arrivals[self.size - self.early - 1] - ENTRY + 3, arrivals[self.first_group - 1] + 3)
        # groups of the first pass wait for their words, where these come slowly
        a, _, c, d = self.factors[0].pattern
        block, l = np.divmod(np.arange(self.size // c), d)
        ready = arrivals[block * c * d + (c - 1) * d + l] + 3 - c * np.arange(self.size // c)
        last = max(begin, ready.max()) + self.last_pass
        return last + self.factor.pattern.c - 1 + self.depth + np.arange(self.size)

    def keeps(self, interval):
        """Cycles from an input beat to the turn of the output at its place, at most, at an interval."""
        return interval

    @property
    def holds(self):
        """Vectors (frames) that are inside at once, at most."""
        return 2.0

    # bits

    @property
    def multipliers(self):
        skip = 1 if self.factor.skip is not None else 0
        return self.vectors * (self.simd + skip)

    @property
    def rom_bits(self):
        word = self.radix * self.arithmetic.w_width + self.arithmetic.field_bits
        return self.passes * self.size * word

    @property
    def buffer_bits(self):
        residual = self.factors[0].input.width if self.factor.skip_input else 0
        return self.size * self.vectors * (self.width + residual)
