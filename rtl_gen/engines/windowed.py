"""Engines that see a map through windows, from pixel to pixel: convolutions, and maxima."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bfthw import Pattern, QFormat
from bfthw.window import Shape, Window

from ..cost import Tally
from ..signals import beat, delay, element, tree
from ..stream import Link
from .datapath import LEAD
from .engine import Engine, figure
from .pipelined import Pipelined, operands
from .readers.linebuffer import LineReader
from .readers.lines import Lines


class Windowed:
    """What follows from an engine's `lines`, a Lines: a frame is an image, its pixels in rows, channels fastest."""

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

    kind: ClassVar[str] = ""  # in no table of choices before a plan has maps
    options: ClassVar[tuple] = (*Pipelined.options, "lanes_in")

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
            flight=self.flight, target=self.target,
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

    kind: ClassVar[str] = ""
    options: ClassVar[tuple] = ("lanes", "simd")
    multipliers: ClassVar[int] = 0
    rom_bits: ClassVar[int] = 0
    takes_skip: ClassVar[bool] = False

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

    def keeps(self, interval: int) -> int:
        return self.reader.wait(interval) + self.depth + 8

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
