"""The pipelined engine: a factor; a reader brings the operands in the order of use, a datapath makes them outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any, ClassVar, Self

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bfthw import Pattern
from bfthw.chain import divisors

from ..cost import Tally
from ..signals import beat, count, delay, element, numbers
from ..stream import Link
from ..tech import READ, technology
from .arithmetic import Arithmetic
from .datapath import Datapath
from .engine import Engine, figure
from .fields import field_bits
from .readers import READERS, Reader
from .words import LEAD, ordered, ordered_cost, to_bits


def fitting_lanes(pattern: Pattern) -> tuple[int, ...]:
    """The lanes (PE) a factor can have: divisors of both widths that divide d or are a multiple of it."""
    common = divisors(gcd(pattern.inputs, pattern.outputs))
    return tuple(lanes for lanes in common if pattern.d % lanes == 0 or lanes % pattern.d == 0)


def check_parallelism(pattern, lanes, simd):
    """ValueError where a factor cannot have these lanes or this SIMD; it names those that fit."""
    pattern = pattern if isinstance(pattern, Pattern) else Pattern(*pattern)
    if lanes not in fitting_lanes(pattern):
        fits = ", ".join(map(str, fitting_lanes(pattern)))
        raise ValueError(f"pattern {pattern} cannot have {lanes} lanes; lanes that fit: {fits}")
    if simd < 1 or pattern.c % simd:
        fits = ", ".join(map(str, divisors(pattern.c)))
        raise ValueError(f"pattern {pattern} cannot have SIMD {simd}, it must divide c; SIMD that fits: {fits}")


@dataclass(frozen=True, kw_only=True)
class Pipelined(Engine):
    """lanes: outputs a beat, and elements of an input beat (PE). simd: inputs of a dot product taken a cycle, a divisor
    of c. products: of multipliers, "dsp", or of tables, "lut".

    More members: reader, the Reader; steps, cycles of a dot product; cycles, reads of a vector; kept_width, bits of an
    input in the buffer; word_bits, of the weights used in a cycle; operands, that are taken in a cycle.
    """

    lanes: int = 1
    simd: int | None = None
    products: str = "dsp"

    kind: ClassVar[str] = "pipelined"
    options: ClassVar[tuple] = ("lanes", "simd", "products")
    left_open: ClassVar[tuple] = ("simd",)

    def __post_init__(self):
        super().__post_init__()
        if self.simd is None:
            object.__setattr__(self, "simd", self.pattern.c)
        check_parallelism(self.pattern, self.lanes, self.simd)

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        (factor,) = fields["factors"]
        for lanes in [fields["lanes"]] if "lanes" in fields else fitting_lanes(factor.pattern):
            intervals = set()
            for simd in [fields["simd"]] if "simd" in fields else divisors(factor.pattern.c):
                engine = cls(**{**fields, "lanes": lanes, "simd": simd})
                if engine.interval not in intervals:
                    intervals.add(engine.interval)
                    yield engine

    @cached_property
    def reader(self) -> Reader:
        skip = self.factor.skip_input is not None
        takes = (cls for cls in READERS if cls.takes(self.pattern, self.lanes, self.simd, skip))
        return next(takes)(self)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.factors, self.simd, self.steps)

    steps = figure(int, lambda self: self.pattern.c // self.simd)

    def in_order_of_use(self) -> np.ndarray:
        """Weights int64 (cycles, lanes, simd), one entry a cycle of a vector."""
        # (a, b, d, c): outputs in natural order, then k
        v = self.factor.values.transpose(0, 1, 3, 2)[..., self.reader.order]
        v = v.reshape(-1, self.lanes, self.steps, self.simd)
        return v.transpose(0, 2, 1, 3).reshape(-1, self.lanes, self.simd)

    # cycles

    lanes_in = lanes_out = figure(int, lambda self: self.lanes)
    beats_in = figure(int, lambda self: self.pattern.inputs // self.lanes)
    beats_out = figure(int, lambda self: self.pattern.outputs // self.lanes)
    cycles = figure(int, lambda self: self.reader.blocks * self.reader.issues)

    @property
    def interval(self) -> int:
        """The input's beats or the dot products' cycles, whichever are more."""
        return max(self.beats_in, self.beats_out * self.steps) + self.reader.gap

    depth = figure(int, lambda self: self.reader.depth + LEAD + self.arithmetic.depth)
    output_flight = figure(int, lambda self: self.depth + self.reader.output_flight)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return self.reader.reads(arrivals, skip)[self.steps - 1 :: self.steps] + self.depth

    def skip_times(self, arrivals: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return outputs - self.depth

    holds = figure(float, lambda self: self.reader.holds + (self.depth + 8) / self.beats_out)

    # bits

    @cached_property
    def same(self) -> bool:
        """Whether its weights are nothing but ones, so that no ROM holds them."""
        return bool(self.arithmetic.bits and self.factor.values.all())

    @property
    def multipliers(self) -> int:
        skip = 1 if self.factor.skip is not None else 0
        return self.lanes * self.vectors * (self.simd * (not self.arithmetic.bits) + skip)

    word_bits = figure(int, lambda self: self.lanes * self.simd * self.factor.weights.operand)

    @property
    def rom_bits(self) -> int:
        more = field_bits(self.arithmetic, technology(self.target), self.lanes) + self.cycles * self.reader.address_bits
        more += self.lanes * self.vectors * self.arithmetic.table_bits
        return self.pattern.weights * self.factor.weights.operand * (not self.same) + more

    kept_width = figure(int, lambda self: self.factor.input.width - (self.positive and self.factor.input.signed))
    buffer_bits = figure(int, lambda self: self.reader.buffer_bits)
    parts = figure(int, lambda self: self.lanes * self.simd + 2 * self.lanes)
    operands = figure(int, lambda self: self.lanes * self.simd)

    @property
    def words(self) -> int:
        p = self.pattern
        return p.weights // (self.lanes * self.simd) + p.inputs + p.outputs

    def cost(self, tally: Tally) -> None:
        if not self.same:
            ordered_cost(tally, self.cycles, self.word_bits)
        self.cost_around(tally)

    def cost_around(self, tally: Tally) -> None:
        """All but the weights' ROM."""
        self.reader.cost(tally)
        # operands: registers, and a choice of so many places
        operands = self.operands * self.factor.input.width * self.vectors
        tally.add(operands * (len(self.reader.select) - 1) * 0.7, operands)
        costs = tally.tech.products_cost(1, self.factor.input.width, self.factor.weights.operand)
        if costs.get("DSP") and not self.arithmetic.bits:
            # into the blocks' second registers go operands, and weights that no vectors share
            alone = self.word_bits if self.vectors == 1 and self.cycles > 1 else 0
            tally.add(0, -tally.tech.absorbs * (operands + alone))
        Datapath.cost(tally, self.arithmetic, lanes=self.lanes, vectors=self.vectors, lut=self.lut, wait=LEAD)

    def component(self) -> wiring.Component:
        return PipelinedUnit(self)


class PipelinedUnit(wiring.Component):
    """The component of a Pipelined engine.

    Every register of the datapath runs free: a read is issued only when `o` has room for what it becomes.

    Parameters
    ----------
    engine : Pipelined

    Members
    -------
    i : In(Link), o : Out(Link)
        `lanes_in * vectors` elements a beat, and `lanes * vectors`.
    skip : In(stream), where a residual joins
        the layer's input, a beat for each of `o`.
    saturated : Out
        values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, engine, **ports):
        self.engine = engine
        f, elements = engine.factor, engine.lanes * engine.vectors
        ports |= {
            "i": In(Link(beat(f.input, engine.lanes_in * engine.vectors))),
            "o": Out(Link(beat(f.output, elements))),
            "saturated": Out(range(elements + 1)),
        }
        if f.skip_input:
            ports["skip"] = In(stream.Signature(beat(f.skip_input, elements)))
        super().__init__(ports)

    def entry(self, m):
        """The link whose beats the reader takes."""
        return wiring.flipped(self.i)

    def weights(self, m, reads):
        """The bits of those that Reads are about, LEAD cycles later, lane by lane."""
        s, width = self.engine, self.engine.factor.weights.operand
        if s.same:
            return Const(-1, s.word_bits)
        words = to_bits(s.in_order_of_use(), width)
        return ordered(m, technology(s.target), "weights", words, s.word_bits, reads.address)

    def elaborate(self, platform):
        m = Module()
        s, f = self.engine, self.engine.factor
        skip = self.skip if f.skip_input else None
        o = s.reader.leave(m, wiring.flipped(self.o))
        reads = s.reader.build(m, self.entry(m), o, skip)

        w, weights = f.weights.operand, self.weights(m, reads)
        ws = [[weights[n * w :][:w].as_signed() for n in range(l * s.simd, (l + 1) * s.simd)] for l in range(s.lanes)]
        xs = operands(m, s.reader, element(f.input), reads.seen, reads.choice)
        x0 = None
        if skip is not None:
            ahead = s.reader.ahead
            x0 = [
                [delay(m, skip.payload[l * s.vectors + e], ahead, f"skip{l}v{e}") for e in range(s.vectors)]
                for l in range(s.lanes)
            ]
        path = Datapath(s.arithmetic, lanes=s.lanes, vectors=s.vectors, target=s.target, lut=s.lut)
        outputs, clips = path.build(m, xs, ws, take=reads.take, busy=reads.issue, first=reads.first, x0=x0)
        done = delay(m, reads.take, LEAD + s.arithmetic.depth, "done", reset=True)
        m.d.comb += [o.valid.eq(done), o.payload.eq(Cat(*outputs))]
        clips = [clip & done for clip in clips]
        m.d.comb += self.saturated.eq(count(m, clips, "saturated", reset=True))
        return m


def operands(m, reader, shape, seen, choice):
    """[lane][vector][q] of signals, a cycle after they are seen; shape: of one; seen, choice: of a Reader's Reads."""
    s, xs = reader.engine, []
    seen = numbers(seen, shape, reader.elements_seen)
    choice = delay(m, choice, READ, "choice_seen") if len(reader.select) > 1 else choice
    for lane in range(s.lanes):
        xs.append([])
        for e in range(s.vectors):
            xs[-1].append([])
            for q in range(s.simd):
                places = [n * s.vectors + e for n in reader.select[:, lane, q]]
                sources = [seen[at] for at in places]
                x = sources[0] if len(set(places)) == 1 else Array(sources)[choice]
                xs[-1][-1].append(delay(m, x, 1, f"x{lane}v{e}_{q}"))
    return xs
