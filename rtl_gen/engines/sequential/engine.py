"""The specification of a Sequential engine: what it takes, when its beats come, what it costs."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring

from bfthw import IntFactor, Pattern
from bfthw.nodes import Max, Sum

from ...cost import Tally
from ...signals import SMALL, count_cost, counter_cost
from ...stages import Stage
from ..engine import InTurn, figure
from .code import Code
from .places import MOST, TOO_MANY, places_of
from .program import factor_of, layers_of, rows_of
from .timing import TO_OPERANDS, TO_WRITE, Timing
from .unit import SequentialUnit

MOST_LANES = 64
FEW = 4  # numbers of lanes beside the most that are worth a thought


@dataclass(frozen=True, kw_only=True)
class Sequential(InTurn):
    """All stages of a network in turn, each dot product of `lanes` positions at once, a product a lane and cycle.

    stages: of the whole network: factors, behind windows or not, sums and maxima. products: of multipliers,
    "dsp", or of tables, "lut". Maps stand in a memory of two banks (see gather), weights in one that gives one a cycle.
    Raises ValueError for several vectors side by side, and maps that are too large for any memory.

    More members: code, what its memories hold; timing; width, bits of a number as it is kept.
    """

    lanes: int = 16
    products: str = "dsp"

    kind: ClassVar[str] = "sequential"
    options: ClassVar[tuple] = ("lanes", "products")
    rounds = figure(int, lambda self: self.lanes)

    @classmethod
    def lacks(cls, stage: Stage) -> str | None:
        if isinstance(work := stage.work, IntFactor):
            return super().lacks(stage)
        if not isinstance(work.node, Sum | Max):
            return f"a {type(work.node).__name__}"
        # zeros stand outside, which are the least where nothing has a sign
        signed = isinstance(work.node, Max) and any(stage.window.padding) and stage.input.signed
        return "a maximum of signed numbers over an edge" if signed else None

    def __post_init__(self):
        super().__post_init__()
        if self.vectors > 1:
            raise ValueError(f"layers in turn take 1 vector at a time, got {self.vectors} side by side")
        if not 1 <= self.lanes <= MOST_LANES:
            raise ValueError(f"lanes must be 1 to {MOST_LANES}, got {self.lanes}")
        for stage in self.stages:  # before anything is made of these
            for shape in (stage.shape, stage.after):
                if rows_of(shape, self.lanes) * shape.channels > MOST:
                    raise ValueError(f"its {shape} numbers with {self.lanes} lanes {TOO_MANY}")

    code = figure(Code, lambda self: _code(self.stages, self.lanes))

    @cached_property
    def pattern(self) -> Pattern:
        return self.code.factors[-1].pattern

    @property
    def width(self) -> int:
        """Bits of a number as it is kept."""
        return max(self.takes.width, *(f.output.width for f in self.code.factors))

    timing = figure(Timing, lambda self: self.code.timing)
    interval = figure(int, lambda self: self.timing.interval)
    depth: ClassVar[int] = TO_OPERANDS
    output_flight: ClassVar[int] = TO_OPERANDS
    multipliers = figure(int, lambda self: self.lanes)
    buffer_bits = figure(int, lambda self: 2 * self.code.depth * self.lanes * self.width)
    words = figure(int, lambda self: sum(map(len, self.code.numbers)))
    parts = figure(int, lambda self: 20 * self.lanes)

    @property
    def rom_bits(self) -> int:
        code = self.code
        tables = code.passes, code.groups, code.words, code.turns
        own = sum(len(numbers) * bits for numbers, bits in zip(code.numbers, code.number_bits))
        return own + sum(table.width * len(table.rows) for table in tables)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return self.timing.outputs(np.asarray(arrivals) - self.flight)

    def cost(self, tally: Tally) -> None:
        code, tech = self.code, tally.tech
        # the next input: its counters, and what its words are seen in
        shape = code.layers[0].shape
        for size in (shape.channels, self.lanes, code.timing.groups_in):
            counter_cost(tally, size)
        tally.add(40, self.takes.width * ((self.lanes - 1) * shape.channels + 1) + 4 * code.address + 12)
        # memories of the program; the pass that comes, and the one that runs
        for table in (code.passes, code.groups, code.words, code.turns):
            tally.take(tech.rom_cost(len(table.words), table.width))
        tally.add(10 * code.address + 60, 2 * code.passes.width + code.groups.width + 12 * code.address + 40)
        # loops and addresses
        for name in ("a", "b", "d"):
            tally.add(3 * code.passes.fields[name][1] + 2, code.passes.fields[name][1] + 1)
        tally.add(3 * code.turn_bits + 2, code.turn_bits + 1)
        for _ in range(5):
            tally.adder(code.address, code.address)
        tally.add(4 * code.address + 4 * code.read_bits, 2 * code.read_bits + TO_WRITE * (code.address + 1))
        self._operands_cost(tally)
        self._results_cost(tally)

    def _operands_cost(self, tally):
        """Both banks, what turns their words, and what is chosen of them."""
        code, word, amount = self.code, self.lanes * self.width, (self.lanes - 1).bit_length()
        tally.take(tally.tech.ram_cost(code.depth, word, 1), 2)
        tally.add(word + code.address, 3 * code.turns.width)
        tally.add(2 * word * amount + 2 * word * (len(code.steps) - 1), 4 * word)
        tally.add(2 * word, word)

    def _results_cost(self, tally):
        """Weights, shifts and biases; for each lane the product, its sum, and how that ends."""
        code, tech, a = self.code, tally.tech, self.code.arithmetic
        for numbers, bits in zip(code.numbers, code.number_bits):
            tally.take(tech.rom_cost(len(numbers), bits))
            counter_cost(tally, max(SMALL + 1, len(numbers)))
        amount = a.acc_width.bit_length()
        tally.add(amount * code.operand_bits / 2 + 3 * a.acc_width, code.operand_bits + a.acc_width + 60)
        tally.take(tech.products_cost(self.lanes, self.width + 1, code.operand_bits, lut=self.lut))
        one, width = tally.empty(), a.rounded_shape.width
        one.adder(a.acc_width, a.acc_width)
        one.add(a.acc_width)  # the bias, or the sum so far
        one.adder(a.acc_width * code.largest)
        one.add(len(a.ends) * (a.total_width - width + 1) / 2 + 2 * width + 4, a.total_width + 2 * width + 4)
        tally.take(one.sum, self.lanes)
        count_cost(tally, self.lanes)
        tally.add(self.lanes / 2, TO_WRITE * (self.lanes.bit_length() + 2))

    def shown(self, stage: Stage) -> tuple[Pattern, int, int]:
        return factor_of(stage).pattern, self.lanes, 1

    def component(self) -> wiring.Component:
        return SequentialUnit(self)


def worth_a_thought(stages: tuple[Stage, ...], most: int) -> list[int]:
    """Numbers of lanes up to `most`: all of these, and those that fall in with the rows of the larger maps, which need
    the fewest reads.
    """
    widths = {stage.after.width for stage in stages if stage.after.width > 1}
    even = [n for n in range(1, most) if sum(not n % w or not w % n for w in widths) > len(widths) / 2]
    return [most, *sorted(even, reverse=True)[:FEW]] if most > 0 else []


@lru_cache(maxsize=FEW + 1)
def _code(stages, lanes):
    layers, reads = layers_of(stages, lanes)
    places, depth = places_of(layers)
    return Code(layers, places, reads, depth, Timing(layers, places, lanes))
