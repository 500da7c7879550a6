"""The specification of a Sequential engine: what it takes, when its beats come, what it costs."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring

from bfthw import IntFactor, Pattern, QFormat
from bfthw.nodes import Sum

from ...cost import Tally
from ...stages import Stage
from ..engine import Engine, figure
from .code import Code
from .places import places_of
from .program import layers_of
from .timing import TO_OPERANDS, Timing

MOST_LANES = 64


@dataclass(frozen=True, kw_only=True)
class Sequential(Engine):
    """All stages of a network in turn, each dot product of `lanes` positions at once, a product a lane and cycle.

    stages: of the whole network, in a row: factors, behind windows or not, and sums. products: of multipliers, "dsp",
    or of tables, "lut". Maps and vectors stand in a memory of two banks (gather), weights in one that gives one a cycle.
    Raises ValueError for several vectors side by side, and maps that are too large for any memory.

    More members: code, what its memories hold; timing; width, bits of a number as it is kept.
    """

    factors: tuple = ()
    stages: tuple[Stage, ...]
    lanes: int = 16
    products: str = "dsp"

    kind: ClassVar[str] = "sequential"
    options: ClassVar[tuple] = ("lanes", "products")
    shares: ClassVar[bool] = True
    sees_map: ClassVar[bool] = True
    spans_network: ClassVar[bool] = True
    takes_skip: ClassVar[bool] = False
    sudden: ClassVar[bool] = True
    holds: ClassVar[float] = 2.0
    lanes_in: ClassVar[int] = 1
    lanes_out: ClassVar[int] = 1
    takes = figure(QFormat, lambda self: self.stages[0].input)
    gives = figure(QFormat, lambda self: self.stages[-1].output)
    relu = figure(bool, lambda self: getattr(self.stages[-1].work, "relu", False))

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        return {"stages": stages} if all(map(_serves, stages)) else None

    def __post_init__(self):
        super().__post_init__()
        if self.vectors > 1:
            raise ValueError(f"layers in turn take 1 vector at a time, got {self.vectors} side by side")
        if not 1 <= self.lanes <= MOST_LANES:
            raise ValueError(f"lanes must be 1 to {MOST_LANES}, got {self.lanes}")

    code = figure(Code, lambda self: _code(self.stages, self.lanes))

    @cached_property
    def pattern(self) -> Pattern:
        return self.code.factors[-1].pattern

    @property
    def width(self) -> int:
        """Bits of a number as it is kept."""
        return max(self.takes.width, *(f.output.width for f in self.code.factors))

    timing = figure(Timing, lambda self: self.code.timing)
    beats_in = figure(int, lambda self: self.stages[0].shape.size)
    beats_out = figure(int, lambda self: self.stages[-1].after.size)
    interval = figure(int, lambda self: self.timing.interval)
    depth: ClassVar[int] = TO_OPERANDS
    output_flight: ClassVar[int] = TO_OPERANDS
    multipliers = figure(int, lambda self: self.lanes)
    buffer_bits = figure(int, lambda self: 2 * self.code.depth * self.lanes * self.width)
    words = figure(int, lambda self: sum(map(len, self.code.numbers)))
    parts = figure(int, lambda self: 20 * self.lanes)

    @property
    def rom_bits(self) -> int:
        weights, shifts, biases = self.code.numbers
        tables = self.code.passes, self.code.groups, self.code.words, self.code.turns
        bits = len(weights) * self.code.arithmetic.w_width + len(shifts) * int(shifts.max()).bit_length()
        bits += len(biases) * (int(abs(biases).max()).bit_length() + 1)
        return bits + sum(table.width * len(table.rows) for table in tables)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return self.timing.outputs(np.asarray(arrivals) - self.flight)

    def cost(self, tally: Tally) -> None:
        code, tech = self.code, tally.tech
        a, word = code.arithmetic, self.lanes * self.width
        tally.take(tech.ram_cost(code.depth, word, 1), 2)
        weights, shifts, biases = code.numbers
        tally.take(tech.rom_cost(len(weights), a.w_width))
        tally.take(tech.products_cost(self.lanes, self.width + 1, code.operand_bits, lut=self.lut))

    def component(self) -> wiring.Component:
        from .unit import SequentialUnit

        return SequentialUnit(self)


@lru_cache(maxsize=4)
def _code(stages, lanes):
    layers, reads = layers_of(stages, lanes)
    places, depth = places_of(layers)
    return Code(layers, places, reads, depth, Timing(layers, places, lanes))


def _serves(stage):
    work = stage.work
    if isinstance(work, IntFactor):
        fits = work.support is None and work.table is None and (len(stage.takes) == 1 or stage.residual)
        return fits and (stage.window is None or not stage.window.outside)
    return isinstance(getattr(work, "node", None), Sum)
