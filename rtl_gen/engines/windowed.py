"""Engines that see a map through windows, from pixel to pixel: convolutions, and maxima."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bfthw import IntFactor, Pattern, QFormat
from bfthw.chain import divisors
from bfthw.golden import IntNode
from bfthw.nodes import Max, Sum
from bfthw.window import Shape, Window

from ..cost import Tally
from ..signals import beat, delay, element, tree
from ..stages import Stage
from ..stream import Link
from .engine import Engine, figure
from .pipelined import Pipelined, operands
from .readers.linebuffer import LineReader
from .readers.lines import Lines
from .words import LEAD

LATE = 12  # cycles, at most, that a residual comes behind the pixel it is of: two FIFOs and a change of lanes


class Windowed:
    """What follows from an engine's `lines`, a Lines: a frame is an image, its pixels in rows, channels fastest."""

    sees_map: ClassVar[bool] = True
    beats_in = figure(int, lambda self: self.lines.beats)
    interval = figure(int, lambda self: self.lines.interval)

    @cached_property
    def reader(self) -> LineReader:
        return LineReader(self)

    @property
    def beats_out(self) -> int:
        height, width = self.lines.out
        return height * width * self.pattern.outputs // self.lanes

    @property
    def words(self) -> int:
        return super().words + self.lines.depth


@dataclass(frozen=True, kw_only=True)
class Convolution(Windowed, Pipelined):
    """A factor on the window vectors of a map.

    shape: of the map. window: see Lines. lanes_in: channels a beat. simd: all that a word has of a dot product, times
    the taps, where it is not given. A residual's stream has a beat for each one out.
    """

    shape: Shape
    window: Window
    lanes_in: int = 1

    kind: ClassVar[str] = "convolution"
    options: ClassVar[tuple] = (*Pipelined.options, "lanes_in")
    left_open: ClassVar[tuple] = ("simd", "lanes_in")

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        """A factor alone, behind a window or over a map, and sums in windows: a factor of ones."""
        (stage, *more), factor = stages, stages[0].work
        if more:
            return None
        if isinstance(factor, IntNode):
            if not isinstance(factor.node, Sum):
                return None
            ones = np.ones((1, 1, stage.window.taps, stage.shape.channels), int)
            weights = QFormat(1, 0, signed=False)
            factor = IntFactor(values=ones, input=stage.input, weights=weights, output=stage.output)
        elif factor.support is not None or stage.window is None and stage.shape.positions == 1:
            return None
        _, _, c, d = factor.pattern
        window = stage.window or Window(1, block=c * d)
        return {"factors": (factor,), "shape": stage.shape, "window": window}

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        """All ways to take a map's channels and its windows' places at once, the smallest SIMD of an interval each."""
        pattern, shape, window = fields["factors"][0].pattern, fields["shape"], fields["window"]
        block = window.block or shape.channels
        lanes = [fields["lanes"]] if "lanes" in fields else divisors(pattern.outputs)
        for lanes_in in [fields["lanes_in"]] if "lanes_in" in fields else divisors(shape.channels):
            together = max(1, min(lanes_in, block) // pattern.d)
            for outputs in lanes:
                intervals = set()
                for simd in [fields["simd"]] if "simd" in fields else divisors(together * window.taps):
                    try:
                        engine = cls(**{**fields, "lanes": outputs, "lanes_in": lanes_in, "simd": simd})
                    except ValueError:
                        break  # these lanes do not go together
                    if engine.interval not in intervals:
                        intervals.add(engine.interval)
                        yield engine

    def __post_init__(self):
        Engine.__post_init__(self)
        if self.simd is None:
            block = self.window.block or self.shape.channels
            together = max(1, min(self.lanes_in, block) // self.pattern.d)
            object.__setattr__(self, "simd", together * self.window.taps)
        self.lines  # noqa: B018  which says what does not fit

    @cached_property
    def lines(self) -> Lines:
        return Lines(
            shape=self.shape, window=self.window, pattern=self.pattern, lanes_in=self.lanes_in, lanes=self.lanes,
            simd=self.simd, width=self.factor.input.width, kept_width=self.kept_width, vectors=self.vectors,
            flight=self.flight, late=LATE * self.takes_skip, target=self.target,
        )

    @property
    def rom_bits(self) -> int:
        return super().rom_bits + self.lines.around_bits

    @property
    def operands(self) -> int:
        """Lanes of a group take the same ones."""
        return len({tuple(places) for places in self.lines.select.reshape(len(self.lines.select), -1).T.tolist()})


@dataclass(frozen=True, kw_only=True)
class Maximum(Windowed, Engine):
    """The largest number of each channel in each window of a map; places outside do not count.

    input: the QFormat of both ends. lanes: channels of a beat. simd: taps that are compared in a cycle, all where it is
    not given.
    """

    factors: tuple = ()
    input: QFormat
    shape: Shape
    window: Window
    lanes: int = 1
    simd: int | None = None

    kind: ClassVar[str] = "maximum"
    options: ClassVar[tuple] = ("lanes", "simd")
    left_open: ClassVar[tuple] = ("simd",)
    multipliers: ClassVar[int] = 0
    rom_bits: ClassVar[int] = 0
    takes_skip: ClassVar[bool] = False
    relu: ClassVar[bool] = False
    takes = gives = figure(QFormat, lambda self: self.input)

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        (stage, *more) = stages
        if more or not (isinstance(stage.work, IntNode) and isinstance(stage.work.node, Max)):
            return None
        if stage.input != stage.output:
            return None
        return {"input": stage.input, "shape": stage.shape, "window": stage.window}

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        for lanes in [fields["lanes"]] if "lanes" in fields else divisors(fields["shape"].channels):
            for simd in [fields["simd"]] if "simd" in fields else divisors(fields["window"].taps):
                yield cls(**{**fields, "lanes": lanes, "simd": simd})

    def __post_init__(self):
        if self.simd is None:
            object.__setattr__(self, "simd", self.window.taps)
        super().__post_init__()
        self.lines  # noqa: B018

    @cached_property
    def pattern(self) -> Pattern:
        return Pattern(1, 1, self.window.taps, self.shape.channels)

    @cached_property
    def lines(self) -> Lines:
        return Lines(
            shape=self.shape, window=self.window, pattern=self.pattern, lanes_in=self.lanes, lanes=self.lanes,
            simd=self.simd, width=self.input.width, kept_width=self.input.width - (self.positive and self.input.signed),
            outside=self.input.lo, vectors=self.vectors, flight=self.flight, target=self.target,
        )

    lanes_in = lanes_out = figure(int, lambda self: self.lanes)
    steps = figure(int, lambda self: self.window.taps // self.simd)
    tree = figure(int, lambda self: (self.simd - 1).bit_length())
    depth = figure(int, lambda self: self.reader.depth + LEAD + self.tree + (self.steps > 1))
    output_flight = figure(int, lambda self: self.depth)
    buffer_bits = figure(int, lambda self: self.reader.buffer_bits)
    parts = figure(int, lambda self: self.lanes * self.simd + 2 * self.lanes)
    words = figure(int, lambda self: self.lines.depth)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return self.reader.reads(arrivals)[self.steps - 1 :: self.steps] + self.depth

    holds = figure(float, lambda self: self.reader.holds + (self.depth + 8) / self.beats_out)

    def cost(self, tally: Tally) -> None:
        """Operands, a tree that compares two by two, and the largest so far."""
        self.reader.cost(tally)
        each, width = self.lanes * self.vectors, self.input.width
        tally.add(self.simd * each * width * (len(self.reader.select) - 1) * 0.7, self.simd * each * width)
        for _ in range(each * (self.simd - 1 + (self.steps > 1))):
            tally.adder(width, width)
            tally.add(width)
        tally.add(2, self.depth)

    def component(self) -> wiring.Component:
        return MaximumUnit(self)


class MaximumUnit(wiring.Component):
    """The component of a Maximum; it runs free.

    Parameters
    ----------
    engine : Maximum

    Members
    -------
    i : In(Link), o : Out(Link)
        `lanes * vectors` elements a beat.
    saturated : Out
        0.
    """

    def __init__(self, engine):
        self.engine = engine
        elements = engine.lanes * engine.vectors
        link = Link(beat(engine.input, elements))
        super().__init__({"i": In(link), "o": Out(link), "saturated": Out(range(elements + 1))})

    def elaborate(self, platform):
        m = Module()
        s = self.engine
        reads = s.reader.build(m, wiring.flipped(self.i), self.o)
        busy = delay(m, reads.issue, LEAD + s.tree, "busy", reset=True)
        first = delay(m, reads.first, LEAD + s.tree, "first")
        outputs = []
        for row in operands(m, s.reader, element(s.input), reads.seen, reads.choice):
            for n, terms in enumerate(row):
                name = f"{len(outputs)}v{n}"
                top = tree(m, terms, f"most{name}", larger)
                if s.steps > 1:
                    kept = Signal.like(top, name=f"kept{name}", reset_less=True)
                    with m.If(busy):
                        m.d.sync += kept.eq(Mux(first | (top > kept), top, kept))
                    top = kept
                outputs.append(top)
        m.d.comb += [
            self.o.valid.eq(delay(m, reads.take, s.depth - s.reader.ahead, "done", reset=True)),
            self.o.payload.eq(Cat(outputs)),
        ]
        return m


def larger(x, y):
    return Mux(x > y, x, y)
