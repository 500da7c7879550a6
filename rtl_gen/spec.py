"""What a factor's hardware is: geometry, cycles and bits, all known before anything is built."""

from dataclasses import dataclass
from functools import cached_property
from math import gcd, lcm

import numpy as np

from bfthw import IntFactor, Pattern
from bfthw.chain import Indexed, divisors

from .datapath import LEAD, Arithmetic
from .tech import READ


def fitting_lanes(pattern):
    """The lanes (PE) a factor can have: divisors of both widths that divide d or are a multiple of it."""
    common = divisors(gcd(pattern.inputs, pattern.outputs))
    return tuple(lanes for lanes in common if pattern.d % lanes == 0 or lanes % pattern.d == 0)


def check_parallelism(pattern, lanes, simd, owner):
    """ValueError where a factor cannot have these lanes or this SIMD; it names those that fit."""
    pattern = pattern if isinstance(pattern, Pattern) else Pattern(*pattern)
    if lanes not in fitting_lanes(pattern):
        fits = ", ".join(map(str, fitting_lanes(pattern)))
        raise ValueError(f"{owner}: pattern {pattern} cannot have {lanes} lanes; lanes that fit: {fits}")
    if simd < 1 or pattern.c % simd:
        fits = ", ".join(map(str, divisors(pattern.c)))
        raise ValueError(
            f"{owner}: pattern {pattern} cannot have SIMD {simd}, it must divide c; SIMD that fits: {fits}"
        )


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One factor as a pipelined engine.

    factor: the numbers. lanes: outputs a beat, and elements of an input beat (PE). simd: inputs of a dot product taken
    a cycle, a divisor of c. vectors: whole vectors side by side, which share weights and control. flight: cycles
    between the moment an input beat is granted room and its arrival. target: of the technology layer; lut: multipliers
    of tables. positive: inputs are never negative, behind a ReLU, and are kept without their sign.

    A beat is `lanes` elements in natural order, each of them once for every vector. The input buffer holds whole blocks
    of
    `block_beats` beats, `slots` of them. A block is read in `issues` cycles, in the order (pass, word, row, part):
    `banks` beats are seen at once.

    - Banked, where a block is a whole number of beats at both ends: a beat covers one k and `lanes` neighbouring l
      (or `rows_a_beat` k and all d of l); bank p holds the beats of rows r with r mod banks = p.
    - Gathered, for the rest: the block is the smallest number of pattern blocks that is a whole number of beats at both
      ends, each beat of it in its own bank, all of them seen at once.
    - Indexed, where the pattern is: the block is the vector, and each of the lanes*simd operands has a copy of it, read
      at an address of its own.
    """

    factor: IntFactor
    lanes: int = 1
    simd: int | None = None
    vectors: int = 1
    flight: int = 0
    target: str = "plain"
    lut: bool = False
    positive: bool = False

    def __post_init__(self):
        if not isinstance(self.factor, IntFactor):
            raise TypeError(f"StageSpec.factor must be an IntFactor, got {type(self.factor).__name__}")
        if self.simd is None:
            object.__setattr__(self, "simd", self.pattern.c)
        check_parallelism(self.pattern, self.lanes, self.simd, "StageSpec")

    @property
    def pattern(self):
        return self.factor.pattern

    # geometry

    @property
    def rows_a_beat(self):
        return max(1, self.lanes // self.pattern.d)

    @property
    def indexed(self):
        return isinstance(self.pattern, Indexed)

    @property
    def banked(self):
        if self.indexed:
            return False
        _, b, c, d = self.pattern
        whole = c * d % self.lanes == 0 and b * d % self.lanes == 0
        return whole and (self.rows_a_beat % self.simd == 0 or self.simd % self.rows_a_beat == 0)

    @property
    def group(self):
        """Pattern blocks (of c*d inputs) in a buffer block."""
        a, b, c, d = self.pattern
        if self.indexed:
            return a
        return 1 if self.banked else lcm(self.lanes // gcd(self.lanes, c * d), self.lanes // gcd(self.lanes, b * d))

    @property
    def blocks(self):
        """Buffer blocks in a vector."""
        return self.pattern.a // self.group

    @property
    def block_beats(self):
        return self.pattern.inputs // (self.blocks * self.lanes)

    @property
    def words(self):
        """Beats of one row (banked): positions of l; of a copy (indexed)."""
        if self.indexed:
            return self.block_beats
        return max(1, self.pattern.d // self.lanes) if self.banked else 1

    @property
    def banks(self):
        if self.indexed:
            return self.lanes * self.simd
        return max(1, self.simd // self.rows_a_beat) if self.banked else self.block_beats

    @property
    def rows(self):
        """Rows of a bank: reads, at different addresses, that make one dot product."""
        if self.indexed:
            return 1
        return self.block_beats // (self.words * self.banks)

    @property
    def parts(self):
        """Cycles that take different elements of the same read."""
        return max(1, self.rows_a_beat // self.simd) if self.banked else 1

    @property
    def steps(self):
        """Cycles of a dot product."""
        return self.pattern.c // self.simd

    @property
    def passes(self):
        return 1 if self.indexed else self.issues // (self.words * self.rows * self.parts)

    @property
    def issues(self):
        """Cycles that read one block."""
        return self.group * self.pattern.b * self.pattern.d // self.lanes * self.steps

    @property
    def elements_seen(self):
        """Elements, of all vectors, that are seen at once: beats of all banks; one of each copy (indexed)."""
        return self.banks * self.vectors * (1 if self.indexed else self.lanes)

    @cached_property
    def select(self):
        """Positions, in the banks*lanes elements seen at once, of the operands: int (choices, lanes, simd).

        The choice is the part (banked) or the pass (gathered) of a cycle.
        """
        if self.indexed:
            # each copy's word holds one element by then
            return np.arange(self.lanes * self.simd).reshape(1, self.lanes, self.simd)
        _, b, c, d = self.pattern
        choices = self.parts if self.banked else self.passes
        choice, lane, q = np.ogrid[:choices, : self.lanes, : self.simd]
        beat, step = (0, choice) if self.banked else (choice // self.steps, choice % self.steps)
        output = beat * self.lanes + lane
        i, l, k = output // (b * d), output % d, step * self.simd + q
        element = i * c * d + k * d + l
        row, position = element // self.lanes // self.words, element % self.lanes
        return np.broadcast_to(row % self.banks * self.lanes + position, (choices, self.lanes, self.simd))

    def in_order_of_use(self):
        """Weights int64 (cycles, lanes, simd), one entry a cycle of a vector."""
        v = self.factor.values.transpose(0, 1, 3, 2)  # (a, b, d, c): outputs in natural order, then k
        v = v.reshape(-1, self.lanes, self.steps, self.simd)
        return v.transpose(0, 2, 1, 3).reshape(-1, self.lanes, self.simd)

    @cached_property
    def places(self):
        """Indexed: the element of the vector that each operand takes, int64 (cycles, lanes, simd)."""
        index = self.pattern.index.reshape(-1, self.lanes, self.steps, self.simd)
        return index.transpose(0, 2, 1, 3).reshape(-1, self.lanes, self.simd)

    # cycles

    @cached_property
    def arithmetic(self):
        return Arithmetic((self.factor,), self.simd, self.steps)

    @property
    def direct(self):
        """Whether a block is gathered in registers, without a memory: each beat in is a beat out, all seen at once."""
        if self.indexed:
            return False
        return self.words == 1 and self.pattern.b == self.simd == self.pattern.c and not self.factor.skip_input

    @property
    def ahead(self):
        """Cycles from a read's issue to its addresses."""
        return READ if self.indexed else 1

    @property
    def depth(self):
        """Cycles from the read of a dot product's last operands (direct: from its turn, which comes at the earliest
        with the arrival of its block's last beat) to its output."""
        return (0 if self.direct else self.ahead) + LEAD + self.arithmetic.depth

    @property
    def output_flight(self):
        """Cycles from the grant of room for an output beat to its arrival."""
        return self.depth + (self.flight + self.block_beats - 1 if self.direct else 0)

    @property
    def beats_in(self):
        return self.pattern.inputs // self.lanes

    @property
    def beats_out(self):
        return self.pattern.outputs // self.lanes

    @property
    def interval(self):
        """Cycles a vector in steady state: the input's beats or the dot products' cycles, whichever are more."""
        return max(self.beats_in, self.beats_out * self.steps)

    def wait(self, time):
        """Cycles from a block's first arrival to its first read, where arrivals and reads are both spread over `time`.

        The first pass must not overtake the last row: 1 - 1/passes of a block's time, or 1 - 1/rows where that is more.
        """
        return time if self.indexed else time - time // max(self.passes, self.rows * self.banks)

    @property
    def slots(self):
        """Blocks in the buffer, so that the promised interval is kept.

        In the slowest schedule that keeps it, a block's slot is taken for the flight of its first beat, the wait, the
        time of its reads and six cycles of hand-over.
        """
        time = self.interval // self.blocks
        slots = -(-(self.flight + self.wait(time) + time + 6) // time)
        return 1 << (slots - 1).bit_length() if self.powers_of_two else slots

    @property
    def powers_of_two(self):
        """Whether all of a vector's counts are: then a power of two of slots lets one counter address buffer and
        weights.
        """
        sizes = self.parts, self.rows, self.words, self.passes, self.blocks
        return not self.indexed and all(size & (size - 1) == 0 for size in sizes)

    @property
    def cycles(self):
        """Reads of a vector."""
        return self.blocks * self.issues

    def output_times(self, arrivals, skip=None):
        """Cycles of a first vector's output beats, given those of its input beats and of the residual's beats."""
        return self.reads(arrivals, skip)[self.steps - 1 :: self.steps] + self.depth

    def keeps(self, interval):
        """Cycles from an input beat to the read of the output at its place, at most, at an interval."""
        return self.wait(interval // self.blocks) + self.depth + 8

    @property
    def holds(self):
        """Vectors (frames) that are inside at once, at most."""
        return (2 if self.direct else self.slots) / self.blocks + (self.depth + 8) / self.beats_out

    @property
    def factors(self):
        return (self.factor,)

    @property
    def lanes_in(self):
        return self.lanes

    @property
    def lanes_out(self):
        return self.lanes

    @property
    def takes_skip(self):
        """Whether the residual comes from outside."""
        return self.factor.skip_input is not None

    def skip_times(self, arrivals, outputs):
        """Cycles in which the residual's beats are taken, given those of input and output beats."""
        return outputs - self.depth

    def reads(self, arrivals, skip=None):
        """Cycle of each read of a vector, int64 (blocks*issues,), given those of its input beats and residual beats."""
        if self.direct:
            # a block's turns begin with its last beat, and behind those of the block before
            complete = np.asarray(arrivals)[self.block_beats - 1 :: self.block_beats]
            step = self.block_beats * np.arange(self.blocks)
            begin = np.maximum.accumulate(complete - step) + step
            return (begin[:, None] + np.arange(self.block_beats)).ravel()
        if self.indexed:
            needed = np.full(self.cycles, self.block_beats - 1)
        else:
            block, _, word, _, _ = np.indices((self.blocks, self.passes, self.words, self.rows, self.parts))
            needed = (block * self.block_beats + (self.rows * self.banks - 1) * self.words + word).ravel()
        earliest = np.asarray(arrivals)[needed] + 2
        if skip is not None:
            last = slice(self.steps - 1, None, self.steps)
            earliest[last] = np.maximum(earliest[last], skip)
        cycle = np.arange(len(earliest))
        return np.maximum.accumulate(earliest - cycle) + cycle

    # bits

    @property
    def multipliers(self):
        skip = 1 if self.factor.skip is not None else 0
        return self.lanes * self.vectors * (self.simd + skip)

    @property
    def word_bits(self):
        """Bits of the weights used in a cycle: a word of their ROM."""
        return self.lanes * self.simd * self.factor.weights.width

    @property
    def rom_bits(self):
        fields = self.pattern.outputs * self.arithmetic.field_bits
        return self.pattern.weights * self.factor.weights.width + fields + self.cycles * self.address_bits

    @property
    def bank_depth(self):
        """Words of a bank: word and row in whole bits each, so that an address is put together from counters."""
        return self.slots << ((self.words - 1).bit_length() + (self.rows - 1).bit_length())

    @cached_property
    def counted(self):
        """Indexed: whether each operand's element is the one after that of the cycle before, so that counters name
        it; not where there is one element alone, which needs no name.
        """
        if not self.indexed or self.lanes > 1 or self.words == 1:
            return False
        return bool(np.all(np.diff(self.places, axis=0) % self.pattern.inputs == 1))

    @property
    def address_bits(self):
        """Bits of a word of the ROM of addresses: of each operand's element."""
        bits = (self.words - 1).bit_length() + (self.lanes - 1).bit_length()
        return self.banks * bits if self.indexed and not self.counted else 0

    @property
    def kept_width(self):
        """Bits of an input in the buffer."""
        return self.factor.input.width - self.positive

    @property
    def buffer_bits(self):
        if self.direct:
            return 0
        return self.banks * self.bank_depth * self.lanes * self.vectors * self.kept_width
