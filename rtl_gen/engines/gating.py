"""A map times a vector of the data, channel by channel: squeeze and excite."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bfthw import IntFactor, Pattern, QFormat
from bfthw.nodes import Gate

from ..cost import Tally
from ..signals import beat, count, delay, digits, digits_cost, element, numbers
from ..stages import Stage
from ..stream import Link
from ..tech import READ, technology
from .arithmetic import Arithmetic
from .datapath import Datapath
from .engine import ByChannels, figure
from .words import LEAD


@dataclass(frozen=True, kw_only=True)
class Gating(ByChannels):
    """y = saturate(round(map * gate * 2**-shift)), as an IntNode of a Gate.

    gate: its QFormat. products: of multipliers, "dsp", or of tables, "lut". The gate comes as what is added does, a
    beat for each of the first position, and is kept for others.
    Raises ValueError for several vectors side by side, whose gates would differ.
    """

    gate: QFormat
    products: str = "dsp"

    kind: ClassVar[str] = "gate"
    options: ClassVar[tuple] = ("lanes", "products")
    known_flight: ClassVar[bool] = True
    takes_skip: ClassVar[bool] = True
    adds = figure(QFormat, lambda self: self.gate)

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        (stage, *more), node = stages, getattr(stages[0].work, "node", None)
        if more or not isinstance(node, Gate):
            return None
        own, gate = stage.work.formats
        return {"shape": stage.shape, "input": own, "gate": gate, "output": stage.output}

    def __post_init__(self):
        super().__post_init__()
        if self.vectors > 1:
            raise ValueError(f"gates of {self.vectors} vectors side by side differ; 1 vector at a time would fit")

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """Of a channel: a weight that comes from outside."""
        nothing = np.zeros((1, 1, 1, self.shape.channels), int)
        factor = IntFactor(values=nothing, input=self.input, weights=self.gate, output=self.output)
        return Arithmetic((factor,), 1, 1)

    pattern = figure(Pattern, lambda self: Pattern(1, 1, 1, self.shape.channels))
    multipliers = figure(int, lambda self: self.lanes)
    words = figure(int, lambda self: self.shape.channels // self.lanes)
    beats_in = beats_out = interval = figure(int, lambda self: self.shape.positions * self.words)
    depth = figure(int, lambda self: LEAD + self.arithmetic.depth)
    output_flight = figure(int, lambda self: self.flight + self.depth)
    in_memory = figure(bool, lambda self: self.words > 1)
    buffer_bits = figure(int, lambda self: self.shape.channels * self.gate.operand)
    holds = figure(float, lambda self: (self.depth + 8) / self.beats_out)
    parts = figure(int, lambda self: 3 * self.lanes)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        times, cycle = np.array(arrivals), np.arange(len(arrivals))
        if skip is not None:
            times[: self.words] = np.maximum(times[: self.words], np.asarray(skip) + self.flight)
        return np.maximum.accumulate(times - cycle) + cycle + self.depth

    def skip_times(self, arrivals: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return outputs[: self.words] - self.output_flight

    def cost(self, tally: Tally) -> None:
        digits_cost(tally, self.words, self.shape.positions)
        digits_cost(tally, self.words, self.shape.positions)
        width = self.lanes * self.gate.operand
        if self.in_memory:
            tally.take(tally.tech.ram_cost(self.words, width, 1))
        tally.add(width, (LEAD + 2) * width + LEAD * self.lanes * self.input.width)
        Datapath.cost(tally, self.arithmetic, lanes=self.lanes, vectors=1, lut=self.lut, wait=LEAD)
        tally.add(4, 4)

    def component(self) -> wiring.Component:
        return GatingUnit(self)


class GatingUnit(wiring.Component):
    """The component of a Gating; it runs free.

    Parameters
    ----------
    engine : Gating

    Members
    -------
    i : In(Link), o : Out(Link)
        `lanes` elements a beat.
    skip : In(stream)
        the gate, a beat for each of a map's first position.
    saturated : Out
        values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, engine):
        self.engine = engine
        super().__init__(
            {
                "i": In(Link(beat(engine.input, engine.lanes))),
                "o": Out(Link(beat(engine.output, engine.lanes))),
                "skip": In(stream.Signature(beat(engine.gate, engine.lanes))),
                "saturated": Out(range(engine.lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.engine
        sizes = s.words, s.shape.positions
        # a beat is granted with room for what it becomes, those of the first position with their gates
        (_, position), _ = digits(m, sizes, self.i.take, "granted")
        first = position == 0
        m.d.comb += [
            self.i.ready.eq(self.o.ready & (self.skip.valid | ~first)),
            self.o.take.eq(self.i.take),
            self.skip.ready.eq(self.i.take & first),
        ]
        came = delay(m, Cat(self.skip.payload), s.flight, "gate")
        (word, position), _ = digits(m, sizes, self.i.valid, "come")
        gates = numbers(self._kept(m, word, position == 0, came), element(s.gate), s.lanes)
        ws = [Signal(signed(s.gate.operand), name=f"w{n}") for n in range(s.lanes)]
        m.d.comb += [w.eq(gate) for w, gate in zip(ws, gates)]
        xs = [[[delay(m, self.i.payload[n], LEAD, f"x{n}")]] for n in range(s.lanes)]
        path = Datapath(s.arithmetic, lanes=s.lanes, vectors=1, target=s.target, lut=s.lut)
        outputs, clips = path.build(m, xs, [[w] for w in ws], take=self.i.valid)
        done = delay(m, self.i.valid, s.depth, "done", reset=True)
        m.d.comb += [
            self.o.valid.eq(done),
            self.o.payload.eq(Cat(outputs)),
            self.saturated.eq(count(m, [clip & done for clip in clips], "saturated", reset=True)),
        ]
        return m

    def _kept(self, m, word, first, came):
        """The gates of a beat, LEAD cycles after it came: those that came with it, or as they are kept."""
        s = self.engine
        now, new = delay(m, came, LEAD, "gate_now"), delay(m, first, LEAD, "first")
        if s.in_memory:
            # written a cycle later, when another word is read
            (word_kept,) = technology(s.target).ram(
                m, "gates", depth=s.words, width=len(came), w_data=delay(m, came, 1, "gate_kept"), r_address=word,
                enable=[delay(m, first & self.i.valid, 1, "keep", reset=True)], w_address=delay(m, word, 1, "written"),
            )
            kept = delay(m, word_kept, LEAD - READ, "kept")
        else:
            kept = Signal.like(came, name="kept", reset_less=True)
            with m.If(delay(m, first & self.i.valid, LEAD, "keep", reset=True)):
                m.d.sync += kept.eq(now)
        return Mux(new, now, kept)
