"""Each position of a map times a matrix of the data, one for the whole map: the turned points of PointNet."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, ClassVar, Self

import numpy as np
from amaranth.hdl import Cat, Const, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from bfthw import IntFactor, Pattern, QFormat
from bfthw.nodes import Product

from ..cost import Tally
from ..signals import beat, credit, credit_cost, delay, digits, digits_cost, element, numbers
from ..stages import Stage
from ..stream import Link
from ..tech import technology
from .engine import ByChannels, figure
from .pipelined import Pipelined, PipelinedUnit, fitting_lanes

HAND_OVER = 12  # cycles of a bank beside its writes, its reads, and the first position's way to them


@dataclass(frozen=True, kw_only=True)
class Turned(ByChannels):
    """y = saturate(round(position @ matrix * 2**-shift)), as an IntNode of a Product.

    matrix: its QFormat. outputs: channels of the outputs. products: of multipliers, "dsp", or of tables, "lut". The
    matrix comes as what is added does, row by row, into one of some banks, which is read once for each position.
    Raises ValueError for several vectors side by side, whose matrices would differ.

    More members: one, the Pipelined engine of a position, whose weights those of the matrix are; banks; bank_depth.
    """

    matrix: QFormat
    outputs: int
    products: str = "dsp"

    kind: ClassVar[str] = "product"
    options: ClassVar[tuple] = ("lanes", "products")
    known_flight: ClassVar[bool] = True  # its map waits for the matrix, in any case
    takes_skip: ClassVar[bool] = True
    adds = figure(QFormat, lambda self: self.matrix)

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        (stage, *more), node = stages, getattr(stages[0].work, "node", None)
        if more or not isinstance(node, Product):
            return None
        own, matrix = stage.work.formats
        given = {"shape": stage.shape, "outputs": stage.after.channels}
        return given | {"input": own, "matrix": matrix, "output": stage.output}

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        fit = fitting_lanes(Pattern(1, fields["outputs"], fields["shape"].channels, 1))
        for lanes in [fields["lanes"]] if "lanes" in fields else fit:
            yield cls(**{**fields, "lanes": lanes})

    def __post_init__(self):
        super().__post_init__()
        if self.vectors > 1:
            raise ValueError(f"matrices of {self.vectors} vectors side by side differ; 1 vector at a time would fit")
        self.one  # which says what lanes fit

    @cached_property
    def one(self) -> Pipelined:
        nothing = np.zeros((1, self.outputs, self.shape.channels, 1), int)
        factor = IntFactor(values=nothing, input=self.input, weights=self.matrix, output=self.output)
        same = {name: getattr(self, name) for name in ("lanes", "products", "target", "flight", "positive", "prompt")}
        return Pipelined(factors=(factor,), simd=1, **same)

    pattern = figure(Pattern, lambda self: self.one.pattern)
    multipliers = figure(int, lambda self: self.one.multipliers)
    words = figure(int, lambda self: self.one.cycles)
    beats_in = figure(int, lambda self: self.shape.positions * self.one.beats_in)
    beats_out = figure(int, lambda self: self.shape.positions * self.one.beats_out)
    interval = figure(int, lambda self: self.shape.positions * self.words)
    depth = figure(int, lambda self: self.one.depth)
    output_flight = figure(int, lambda self: self.one.output_flight)
    holds = figure(float, lambda self: self.one.holds / self.shape.positions)
    parts = figure(int, lambda self: self.one.parts)

    @property
    def banks(self) -> int:
        """So many that a matrix is there when the one before has been used: one is read, others are written before."""
        return 1 + ceil((self.words + self.flight + self.one.beats_in + HAND_OVER) / self.interval)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the matrix, beats of a row."""
        return self.shape.channels, self.outputs // self.lanes

    @property
    def bank_depth(self) -> int:
        """Words of a bank: row and part of it in whole bits each."""
        return 1 << sum((size - 1).bit_length() for size in self.sizes)

    buffer_bits = figure(
        int, lambda self: self.one.buffer_bits + self.banks * self.bank_depth * self.lanes * self.matrix.width
    )

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        if skip is not None:
            beat = np.arange(len(skip))
            there = int((np.asarray(skip) - beat).max()) + len(skip)  # the cycle behind the last of the matrix
            arrivals = np.maximum(arrivals, there + self.flight + np.arange(len(arrivals)))
        return self.one.output_times(arrivals)

    def skip_times(self, arrivals: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """As early as a bank is free at the latest."""
        first = outputs[0] - self.depth - self.one.steps + 1
        return first - (self.banks - 1) * self.interval + np.arange(self.words)

    def cost(self, tally: Tally) -> None:
        self.one.cost_around(tally)
        rows, parts = self.sizes
        for sizes in ((parts, rows, self.banks), (rows, parts, self.shape.positions, self.banks)):
            digits_cost(tally, *sizes)
        digits_cost(tally, self.one.beats_in, self.shape.positions)
        credit_cost(tally, self.banks)
        credit_cost(tally, self.banks)
        width = self.lanes * self.matrix.width
        tally.take(tally.tech.ram_cost(self.banks * self.bank_depth, width, 1))
        tally.add(6, width + 3)

    def component(self) -> wiring.Component:
        return TurnedUnit(self)


class TurnedUnit(PipelinedUnit):
    """The component of a Turned: that of a position, with the weights of the last matrix that came whole.

    Parameters
    ----------
    engine : Turned

    Members
    -------
    i : In(Link), o : Out(Link)
        `lanes` elements a beat.
    skip : In(stream)
        the matrix, `lanes` of its elements a beat.
    saturated : Out
        values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, engine):
        self.whole = engine
        super().__init__(engine.one, skip=In(stream.Signature(beat(engine.matrix, engine.lanes))))

    def entry(self, m):
        """A map's first beat is granted when its matrix is there; that comes as soon as a bank is free."""
        s = self.whole
        load, self.freed = Signal(name="load"), Signal(name="freed")
        (part, row, bank), lasts = digits(m, (*reversed(s.sizes), s.banks), load, "loaded")
        ends = load & lasts[0] & lasts[1]
        free = credit(m, s.banks, self.freed, ends, "banks_free", init=s.banks)
        self.write = load, Cat(row, part, bank)
        gated = Link(self.i.payload.shape()).create(path=("gated",))
        _, lasts = digits(m, (s.one.beats_in, s.shape.positions), self.i.take, "granted")
        starts = Signal(init=1)  # the next beat granted is a map's first
        with m.If(self.i.take):
            m.d.sync += starts.eq(lasts[0] & lasts[1])
        there = credit(m, s.banks, ends, self.i.take & starts, "banks_full")
        m.d.comb += [
            load.eq(self.skip.valid & free),
            self.skip.ready.eq(free),
            self.i.ready.eq(gated.ready & (there | ~starts)),
            gated.take.eq(self.i.take),
            gated.valid.eq(self.i.valid),
            gated.payload.eq(self.i.payload),
        ]
        return gated

    def weights(self, m, reads):
        s = self.whole
        (row, part, _, bank), lasts = digits(m, (*s.sizes, s.shape.positions, s.banks), reads.issue, "read")
        m.d.comb += self.freed.eq(delay(m, reads.issue & lasts[0] & lasts[1] & lasts[2], 1, "ended", reset=True))
        enable, address = self.write
        (word,) = technology(s.target).ram(
            m, "matrix", depth=s.banks * s.bank_depth, width=s.lanes * s.matrix.width, enable=[enable],
            w_address=address, w_data=self.skip.payload.as_value(), r_address=Cat(row, part, bank),
        )
        found = numbers(delay(m, word, 1, "weights"), element(s.matrix), s.lanes)
        return Cat(w if s.matrix.signed else Cat(w, Const(0, 1)) for w in found)
