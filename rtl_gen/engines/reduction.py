"""The sum, or the largest, of each channel over all positions of a map: an accumulator a channel, no ring of rows."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bfthw import IntFactor, Pattern, QFormat
from bfthw.nodes import Max, Sum

from ..cost import Tally
from ..signals import beat, count, count_cost, delay, digits, digits_cost, element, numbers
from ..stages import Stage
from ..stream import Link
from ..tech import READ, technology
from .arithmetic import Arithmetic
from .datapath import Datapath
from .engine import ByChannels, figure

REQUANTISE = 3  # cycles of Datapath's last steps


@dataclass(frozen=True, kw_only=True)
class Reduction(ByChannels):
    """y = saturate(round(sum or largest * 2**-shift)), as an IntNode of a Sum or a Max over the whole map.

    largest: whether it is that, not the sum.
    """

    largest: bool = False

    kind: ClassVar[str] = "reduction"
    options: ClassVar[tuple] = ("lanes",)
    multipliers: ClassVar[int] = 0
    takes_skip: ClassVar[bool] = False
    sudden: ClassVar[bool] = True
    holds: ClassVar[float] = 1.0

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        """Sums and maxima whose window is the whole map."""
        (stage, *more), node = stages, getattr(stages[0].work, "node", None)
        if more or not isinstance(node, Max | Sum) or any(stage.window.padding):
            return None
        if stage.window.size != stage.shape[:2]:
            return None
        return {
            "shape": stage.shape, "input": stage.input, "output": stage.output, "largest": isinstance(node, Max),
        }

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """Of a channel: weights of one."""
        ones = np.ones((1, 1, 1 if self.largest else self.shape.positions, 1), int)
        one = QFormat(1, 0, signed=False)
        factor = IntFactor(values=ones, input=self.input, weights=one, output=self.output)
        return Arithmetic((factor,), 1, ones.shape[2])

    @cached_property
    def pattern(self) -> Pattern:
        return Pattern(1, 1, self.shape.positions, self.shape.channels)

    @property
    def sums(self) -> QFormat:
        """Of an accumulator."""
        width = self.input.width + (self.arithmetic.steps - 1).bit_length()
        return QFormat(width, self.input.frac, self.input.signed)

    beats_out = figure(int, lambda self: self.shape.channels // self.lanes)
    beats_in = interval = figure(int, lambda self: self.shape.positions * self.beats_out)
    depth: ClassVar[int] = READ + 1 + REQUANTISE
    output_flight = figure(int, lambda self: self.flight + self.depth)
    width = figure(int, lambda self: self.sums.width)
    in_memory = figure(bool, lambda self: self.beats_out >= READ + 2)  # a word is back before it is read again
    buffer_bits = figure(int, lambda self: self.beats_out * self.lanes * self.vectors * self.width)
    words = beats_out
    parts = figure(int, lambda self: 2 * self.lanes)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return np.asarray(arrivals)[-self.beats_out :] + self.depth

    def cost(self, tally: Tally) -> None:
        each, a = self.lanes * self.vectors, self.arithmetic
        clips = max(0, self.width - a.shift - a.output_width)  # bits of a rounded sum that an output does not have
        for _ in range(2):
            digits_cost(tally, self.beats_out, self.shape.positions)
        if self.in_memory:
            tally.take(tally.tech.ram_cost(self.beats_out, each * self.width, 1))
        else:
            tally.add(0, each * self.width * (self.beats_out - 1))
        for _ in range(each):
            tally.adder(self.width, self.width)
            tally.add(self.width, READ * self.input.width)
            if clips:
                tally.add(clips / 2 + a.output_width, clips + 2)
            tally.adder(a.output_width + clips if a.shift > 0 else 0, 3 * a.output_width, one=True)
        count_cost(tally, each if clips else 1)
        tally.add(4, 3 * (READ + 1) + self.depth)

    def component(self) -> wiring.Component:
        return ReductionUnit(self)


class ReductionUnit(wiring.Component):
    """The component of a Reduction; it runs free.

    Parameters
    ----------
    engine : Reduction

    Members
    -------
    i : In(Link), o : Out(Link)
        `lanes * vectors` elements a beat.
    saturated : Out
        values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, engine):
        self.engine = engine
        elements = engine.lanes * engine.vectors
        super().__init__(
            {
                "i": In(Link(beat(engine.input, elements))),
                "o": Out(Link(beat(engine.output, elements))),
                "saturated": Out(range(elements + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.engine
        sizes = s.beats_out, s.shape.positions
        # what the last pixel becomes needs room
        _, (_, ends) = digits(m, sizes, self.i.take, "granted")
        m.d.comb += [self.i.ready.eq(self.o.ready | ~ends), self.o.take.eq(self.i.take & ends)]
        (word, pixel), (_, ends) = digits(m, sizes, self.i.valid, "come")
        here = delay(m, self.i.valid, READ, "here", reset=True)
        first = delay(m, pixel == 0, READ, "first")
        xs = [delay(m, self.i.payload[n], READ, f"x{n}") for n in range(s.lanes * s.vectors)]
        sums = [Signal(element(s.sums), name=f"sum{n}", reset_less=True) for n in range(len(xs))]
        for x, before, after in zip(xs, self._before(m, word, here, sums), sums):
            so_far = Mux(first | (x > before), x, before) if s.largest else Mux(first, 0, before) + x
            with m.If(here):
                m.d.sync += after.eq(so_far)
        path = Datapath(s.arithmetic, lanes=s.lanes, vectors=s.vectors, target=s.target, lut=False)
        outputs, clips = zip(*(path.requantised(m, f"{n}", x) for n, x in enumerate(sums)))
        done = delay(m, self.i.valid & ends, s.depth, "done", reset=True)
        m.d.comb += [
            self.o.valid.eq(done),
            self.o.payload.eq(Cat(outputs)),
            self.saturated.eq(count(m, [clip & done for clip in clips], "saturated", reset=True)),
        ]
        return m

    def _before(self, m, word, here, sums):
        """What each sum was at the pixel before, READ cycles after a beat came."""
        s = self.engine
        if s.in_memory:
            came = delay(m, here, 1, "came", reset=True)
            (kept,) = technology(s.target).ram(
                m, "sums", depth=s.beats_out, width=len(Cat(sums)), enable=[came],
                w_address=delay(m, word, READ + 1, "word"), w_data=Cat(sums), r_address=word,
            )
            return numbers(kept, element(s.sums), len(sums))
        for n in range(s.beats_out - 1):
            kept = [Signal.like(x, name=f"{x.name}_{n}") for x in sums]
            with m.If(here):
                m.d.sync += [after.eq(x) for x, after in zip(sums, kept)]
            sums = kept
        return sums
