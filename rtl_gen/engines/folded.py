"""The folded engine: factors that take turns on one memory and one datapath, in place, for some vectors at a time.

A pass is a factor: it reads a group of c words, one a cycle, keeps them while its c outputs are computed, one a cycle,
and writes these to the places of the words they were made of. The last pass leaves in natural order instead, and the
next vectors are loaded into the places that it has read. So the memory holds each vector once, every multiplier is busy
in every cycle, and n words in, n·passes cycles, n words out are one vector's share (with `vectors`, of each of them).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..cost import Tally
from ..signals import (
    beat,
    count,
    counter,
    counter_cost,
    credit,
    credit_cost,
    delay,
    digits,
    digits_cost,
    element,
    gathered,
    numbers,
    turns,
)
from ..stream import ENTRY, Link
from ..tech import READ, technology
from .arithmetic import Arithmetic
from .datapath import Datapath
from .engine import Engine, figure
from .fields import field_bits
from .pairs import build_pairs, check_pairs, in_pairs, pairs_cost
from .walk import walk, walk_cost
from .words import LEAD, ordered, ordered_cost, to_bits


def check_fold(factors, whole=True):
    """ValueError that says why factors cannot share a folded engine; whole: they are all of their layer's."""
    patterns = [f.pattern for f in factors]
    if len(factors) < 2:
        raise ValueError(
            "a folded engine needs two neighbouring factors or more, this one stands alone; a settings file can make "
            "it pipelined"
        )
    for p in patterns:
        if p.b != p.c or p.c < 2:
            raise ValueError(f"only factors with b = c of 2 or more are folded, in place; {p} is none")
    if patterns[-1].d != 1:
        raise ValueError(f"the last factor folded must have d = 1, to leave in natural order; it is {patterns[-1]}")
    if factors[-1].skip_input and not whole:
        raise ValueError("a residual can be folded with all factors of its layer only")


@dataclass(frozen=True, kw_only=True)
class Folded(Engine):
    """products: of multipliers, "dsp", or of tables, "lut". paired: each multiplier makes two products (see `pairs`);
    radices must be even then, weights symmetric, and both weights must fit the multiplier. Where input beats are not
    prompt, a vector is waited for until it is complete.

    More members: size, words of the memory; passes; radix, the largest: words of a group, products a cycle; simd,
    multipliers a vector; width, bits of a word in memory; gaps; early; last_pass; first_group.
    """

    products: str = "dsp"
    paired: bool = False
    flight: int = ENTRY  # a word is granted only if the memory will be free to take it, which needs a known delay

    kind: ClassVar[str] = "folded"
    options: ClassVar[tuple] = ("products", "paired")
    shares: ClassVar[bool] = True
    known_flight: ClassVar[bool] = True
    lanes_in = lanes_out = 1
    holds = 2.0
    takes_skip = False  # it keeps the layer's input itself

    def __post_init__(self):
        super().__post_init__()
        check_fold(self.factors, self.whole)
        if self.paired:
            check_pairs(self.factors, self.arithmetic, self.target)

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        for paired in [fields["paired"]] if "paired" in fields else (False, True):
            try:
                yield cls(**{**fields, "paired": paired})
            except ValueError:
                continue  # these factors cannot share an engine, or not their products a multiplier

    size = figure(int, lambda self: self.pattern.outputs)
    burst = figure(int, lambda self: self.size)
    passes = figure(int, lambda self: len(self.factors))
    radix = figure(int, lambda self: max(f.pattern.c for f in self.factors))
    simd = figure(int, lambda self: self.radix // 2 if self.paired else self.radix)
    width = figure(int, lambda self: self.arithmetic.x_width)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        order = []
        for a, b, _, d in (f.pattern for f in self.factors):
            order.append(np.arange(a * b * d).reshape(a, b, d).transpose(0, 2, 1).ravel() + len(order) * self.size)
        return Arithmetic(self.factors, self.simd, self.radix // self.simd, order=np.concatenate(order))

    def in_order_of_use(self) -> np.ndarray:
        """Weights int64 (passes*n, radix), a row a turn; a radix smaller than the largest takes the last operands.

        Paired: as `pairs.in_pairs` has them.
        """
        table = np.zeros((self.passes, self.size, self.radix), np.int64)
        for m, f in enumerate(self.factors):
            table[m, :, self.radix - f.pattern.c :] = f.values.transpose(0, 3, 1, 2).reshape(self.size, -1)
        table = table.reshape(-1, self.radix)
        return in_pairs(table) if self.paired else table

    # cycles

    beats_in = beats_out = figure(int, lambda self: self.size)

    @property
    def depth(self) -> int:
        """Cycles from an output's turn to its arrival; its turn comes at the earliest with its group's last read."""
        return LEAD + self.arithmetic.depth + self.paired

    output_flight = figure(int, lambda self: self.pattern.c - 1 + self.depth)

    @property
    def early(self) -> int:
        """Words of a vector that may be missing when its first pass begins: they arrive before its first result."""
        first = self.factors[0].pattern.c
        return min(first + self.depth, self.size - 1) if self.prompt else 0

    @cached_property
    def gaps(self) -> tuple[int, ...]:
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
    def last_pass(self) -> int:
        """Cycles from the first read of the first pass to that of the last pass."""
        return (self.passes - 1) * self.size + sum(self.gaps[:-1])

    @property
    def first_group(self) -> int:
        """Words of a vector before its first group is complete."""
        p = self.factors[0].pattern
        return (p.c - 1) * p.d + 1

    @property
    def interval(self) -> int:
        """Cycles from one vector's first beat to the next one's: every pass, and what the next one is waited for."""
        # the next vector's words are granted as soon as the last results of the pass before the last are written
        radices = [f.pattern.c for f in self.factors]
        granted = max(radices[-2] + self.depth - 2 - self.gaps[-2], radices[-1] + 1) + np.arange(self.size)
        enough, group = granted[self.size - self.early - 1] + 3, granted[self.first_group - 1] + 4
        begin = max(self.size + self.gaps[-1], enough, group)
        return int(self.last_pass + begin)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        arrivals = np.asarray(arrivals)
        begin = max(arrivals[self.size - self.early - 1] - ENTRY + 3, arrivals[self.first_group - 1] + 3)
        # groups of the first pass wait for their words, where these come slowly
        _, _, c, d = self.factors[0].pattern
        block, l = np.divmod(np.arange(self.size // c), d)
        ready = arrivals[block * c * d + (c - 1) * d + l] + 3 - c * np.arange(self.size // c)
        last = max(begin, ready.max()) + self.last_pass
        return last + self.factor.pattern.c - 1 + self.depth + np.arange(self.size)

    # bits

    @property
    def multipliers(self) -> int:
        skip = 1 if self.factor.skip is not None else 0
        return self.vectors * (self.simd + skip)

    @property
    def rom_bits(self) -> int:
        a, lanes = self.arithmetic, 1 + self.paired
        more = field_bits(a, technology(self.target), lanes) + self.vectors * lanes * a.table_bits
        return self.passes * self.size * self.radix * a.w_width + more

    @property
    def buffer_bits(self) -> int:
        residual = self.factors[0].input.width if self.factor.skip_input else 0
        return self.size * self.vectors * (self.width + residual)

    parts = figure(int, lambda self: self.radix + 2)

    @property
    def words(self) -> int:
        shapes = [f.pattern for f in self.factors]
        return sum(p.weights // self.radix + p.inputs + p.outputs for p in shapes)

    def cost(self, tally: Tally) -> None:
        word, first = self.width * self.vectors, self.factors[0]
        walk_cost(tally, self.size)
        walk_cost(tally, self.size)
        counter_cost(tally, self.size, 2)
        digits_cost(tally, first.pattern.d, first.pattern.c)
        credit_cost(tally, self.size)
        credit_cost(tally, self.size // first.pattern.c)
        counter_cost(tally, self.passes * self.size)
        tally.add(word + (self.size - 1).bit_length() + 30, self.depth * 2 + 16)
        tally.take(tally.tech.ram_cost(self.size, word, 1))
        tally.add(0, (2 * self.radix - 1) * word)
        if self.factor.skip_input:
            counter_cost(tally, self.size)
            bits = self.vectors * first.input.width
            tally.take(tally.tech.ram_cost(self.size, bits, 1))
            tally.add(2, bits + READ)
        a = self.arithmetic
        ordered_cost(tally, self.passes * self.size, self.radix * a.w_width)
        if self.paired:
            pairs_cost(tally, self)
        lanes = 2 if self.paired else 1
        Datapath.cost(tally, a, lanes=lanes, vectors=self.vectors, lut=self.lut, wait=0, paired=self.paired)

    def component(self) -> wiring.Component:
        return FoldedUnit(self)


class FoldedUnit(wiring.Component):
    """The component of a Folded engine.

    Parameters
    ----------
    engine : Folded

    Members
    -------
    i : In(Link), o : Out(Link)
        `vectors` elements a beat.
    saturated : Out
        values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, engine):
        self.engine = engine
        super().__init__(
            {
                "i": In(Link(beat(engine.factors[0].input, engine.vectors))),
                "o": Out(Link(beat(engine.factor.output, engine.vectors))),
                "saturated": Out(range(engine.vectors + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s, tech = self.engine, technology(self.engine.target)
        patterns, depth = [f.pattern for f in s.factors], s.depth

        # reads: one word a cycle; in the last pass each needs room for the output that takes its place
        issue = Signal()
        address, now = walk(m, patterns, issue, "read")
        opens, last, end, last_pass, pass_ = (now[key] for key in ("opens", "last", "end", "last_pass", "pass"))
        fresh = Signal(init=1)  # the next read is a vector's first
        idle = Signal()  # between passes
        fresh_next = Signal()
        may_open = Signal()
        group_here = self._groups(m, issue & opens)
        loaded = self._loaded(m, issue & fresh)
        m.d.comb += [
            issue.eq(Mux(opens, may_open, self.o.ready | ~last_pass) & ~idle),
            self.o.take.eq(issue & last_pass),
            fresh_next.eq(Mux(issue, end & last_pass, fresh)),
        ]
        # groups open two cycles apart or more, so this may be a cycle old
        m.d.sync += [fresh.eq(fresh_next), may_open.eq(group_here & (loaded | ~fresh_next))]
        if any(s.gaps):
            waiting = Signal(range(max(s.gaps) + 1))
            with m.If(issue & end):
                m.d.sync += waiting.eq(Array(s.gaps)[pass_])
            with m.Elif(waiting != 0):
                m.d.sync += waiting.eq(waiting - 1)
            m.d.comb += idle.eq(waiting != 0)

        # turns: with a group's last read begins the first of as many outputs
        start = issue & last
        leaving = Signal()
        turn, _ = turns(m, start, Array(p.c - 1 for p in patterns)[pass_], s.radix - 1)
        out = Mux(start, last_pass, leaving)
        with m.If(start):
            m.d.sync += leaving.eq(last_pass)

        # the memory's only way in: results, which are never late, and new words where there is a place for them
        returns = delay(m, turn & ~out, depth - 1, "returns", reset=True)  # a cycle ahead of the result
        writes = delay(m, returns, 1, "writes", reset=True)
        space = credit(m, s.size, delay(m, turn & out, 1, "freed", reset=True), self.i.take, "space", init=s.size)
        m.d.comb += self.i.ready.eq(space & ~returns)
        load_address, _ = counter(m, s.size, self.i.valid, "load_address")
        write_address, _ = walk(m, patterns[:-1], writes, "write")

        # operands: READ cycles after its read a word joins its group; a complete group stays for its outputs
        y = Signal(s.vectors * s.arithmetic.output_width)
        words = self._words(self.i.payload.as_value(), element(s.factors[0].input))
        results = self._words(y, s.arithmetic.output_shape)
        (seen,) = tech.ram(
            m, "words", depth=s.size, width=s.width * s.vectors, enable=[self.i.valid | writes],
            w_address=Mux(writes, write_address, load_address), w_data=Mux(writes, results, words), r_address=address,
        )
        arrives, complete = delay(m, issue, READ, "arrives", reset=True), delay(m, start, READ, "complete", reset=True)
        group = gathered(m, seen, s.radix, arrives, complete, "group")

        outputs, clips = self._compute(m, group, turn, turn & out, load_address)
        done = delay(m, turn, depth, "done", reset=True)
        leaves = y if s.arithmetic.output_width == s.factor.output.width else Cat(
            value[: s.factor.output.width] for value in outputs
        )
        m.d.comb += [y.eq(Cat(*outputs)), self.o.payload.eq(leaves), self.o.valid.eq(done & ~writes)]
        m.d.comb += self.saturated.eq(count(m, [clip & done for clip in clips], "saturated", reset=True))
        return m

    def _compute(self, m, group, turn, leaves, load_address):
        """[vector] of outputs and whether they were clipped, `depth` cycles after their turn."""
        s, a, tech = self.engine, self.engine.arithmetic, technology(self.engine.target)
        w = a.w_width
        table = to_bits(s.in_order_of_use(), w)
        address, _ = counter(m, len(table), turn, "weights_address")
        word = ordered(m, tech, "weights", table, s.radix * w, address)
        words = numbers(group, a.x_shape, s.radix * s.vectors)
        operands = [words[e :: s.vectors] for e in range(s.vectors)]
        x0 = self._residual(m, leaves, load_address)
        if s.paired:
            # the lowest bit of the address says which half of the operands, where two rows are paired
            return build_pairs(m, s, operands, word, address[0], turn, x0)
        ws = [[word[n * w :][:w].as_signed() for n in range(s.radix)]]
        path = Datapath(a, lanes=1, vectors=s.vectors, target=s.target, lut=s.lut)
        return path.build(m, [operands], ws, take=turn, x0=x0 and [x0], x0_lead=0)

    def _words(self, bits, shape):
        """Numbers of a shape to words of the memory; what does not fit is an output that leaves."""
        wide, size = [], self.engine.width
        for x in numbers(bits, shape, self.engine.vectors):
            sign = x[-1] if shape.signed else Const(0, 1)
            wide.append(x[:size] if len(x) > size else Cat(x, sign.replicate(size - len(x))))
        return Cat(wide)

    def _groups(self, m, taken):
        """Whether the next group of the first pass is in memory."""
        s = self.engine
        _, _, c, d = s.factors[0].pattern
        _, (_, row_end) = digits(m, (d, c), self.i.valid, "load")
        arrived = delay(m, self.i.valid & row_end, 1, "group_here", reset=True)
        return credit(m, s.size // c, arrived, taken, "groups")

    def _loaded(self, m, begins):
        """Whether all but `early` words of the vector that comes next are granted."""
        s, loaded = self.engine, Signal(name="loaded")
        granted, _ = counter(m, s.size, self.i.take, "granted")
        enough = delay(m, self.i.take & (granted == s.size - s.early - 1), 1, "enough", reset=True)
        with m.If(enough):
            m.d.sync += loaded.eq(1)
        with m.Elif(begins):
            m.d.sync += loaded.eq(0)
        return loaded

    def _residual(self, m, leaves, load_address):
        """[vector] of the layer's input at the outputs' places, LEAD cycles after their turn, zero in other passes."""
        s = self.engine
        if not s.factor.skip_input:
            return None
        address, _ = counter(m, s.size, leaves, "residual_address")
        shape = element(s.factors[0].input)
        (seen,) = technology(s.target).ram(
            m, "residual", depth=s.size, width=s.vectors * shape.width, enable=[self.i.valid],
            w_address=load_address, w_data=self.i.payload.as_value(), r_address=address,
        )
        kept = Signal.like(seen, name="residual_kept", reset_less=True)
        m.d.sync += kept.eq(seen)
        with m.If(~delay(m, leaves, READ, "residual_seen", reset=True)):
            m.d.sync += kept.eq(0)
        return numbers(kept, shape, s.vectors)
