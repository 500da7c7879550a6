"""The specification of a Tiled engine: what it takes, when its beats come, what it costs."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring

from bfthw import IntFactor, Pattern
from bfthw.nodes import Sum

from ...cost import Tally
from ...signals import count_cost
from ...stages import Stage
from ..engine import InTurn, figure
from ..sequential.program import factor_of
from .boot import PINS
from .code import BEAT_BITS, STORE, STORE_BITS, WIDTH, Code
from .program import HALVES, LANES, ROWS, layers_of
from .results import UNITS
from .timing import GIVEN, TO_RESULT, Timing
from .unit import TiledUnit


@dataclass(frozen=True, kw_only=True)
class Tiled(InTurn):
    """All stages of a network in turn, LANES positions at once, maps and weights in memories with a single port.

    stages: of the whole network, each of the one before: factors, behind windows or not, and sums. A tile of a layer's
    input, some positions or some channels of it, is brought into a working memory of two banks, computed, and what
    becomes of it is stored. For an iCE40 UltraPlus, all of whose single-port RAM it takes, loaded from a SPI flash
    after configuration; and in plain HDL. Raises ValueError for another target, for several vectors side by side, and
    for what has no room.

    More members: code, what its memories hold; timing.
    """


    kind: ClassVar[str] = "tiled"
    rounds: ClassVar[int] = UNITS

    @classmethod
    def lacks(cls, stage: Stage) -> str | None:
        work = stage.work
        if max(stage.input.width, stage.output.width) > WIDTH:
            return f"numbers of more than {WIDTH} bits"
        if not isinstance(work, IntFactor):
            return None if isinstance(work.node, Sum) else f"a {type(work.node).__name__}"
        most = max(q.operand for q in (work.weights, work.skip_weights) if q is not None)
        return f"weights of more than {WIDTH} bits" if most > WIDTH else super().lacks(stage)

    def __post_init__(self):
        super().__post_init__()
        if self.vectors > 1:
            raise ValueError(f"tiled layers take 1 vector at a time, got {self.vectors} side by side")
        if self.target not in ("ice40", "plain"):
            raise ValueError(f"tiled layers are for the target ice40, or plain, got {self.target}")
        _ = self.code  # ValueError where there is no room

    code = figure(Code, lambda self: _code(self.stages))

    @cached_property
    def timing(self) -> Timing:
        return Timing(self.code)

    @cached_property
    def pattern(self) -> Pattern:
        return self.code.passes[-1].factor.pattern

    outside = figure(dict, lambda self: PINS if self.target == "ice40" else {})
    interval = figure(int, lambda self: self.timing.interval)
    depth: ClassVar[int] = GIVEN
    output_flight: ClassVar[int] = GIVEN
    multipliers = figure(int, lambda self: LANES + UNITS * bool(self.code.joins))
    buffer_bits: ClassVar[int] = STORE * BEAT_BITS + 2 * ROWS * LANES * WIDTH
    words = figure(int, lambda self: len(self.code.weights))
    parts: ClassVar[int] = 20 * LANES

    @property
    def rom_bits(self) -> int:
        code = self.code
        own = sum(table.width * len(table.rows) for table in (code.groups, code.words, code.turns))
        return own + 8 * len(code.flash)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return int(arrivals[-1]) + 1 + self.timing.between + GIVEN + np.arange(self.beats_out)

    def cost(self, tally: Tally) -> None:
        code, tech, a = self.code, tally.tech, self.code.arithmetic
        for bits in (BEAT_BITS, 2 * WIDTH):
            tally.take(tech.store_cost(STORE, bits))
        tally.take(tech.ram_cost(ROWS, BEAT_BITS, 1), 2 * HALVES)
        for table in (code.groups, code.words, code.turns):
            tally.take(tech.rom_cost(len(table.words), table.width))
        # the port of the store; instructions, places and what is added to them; loops; boot
        tally.add(3 * STORE_BITS + 2 * BEAT_BITS, BEAT_BITS)
        tally.add(30, code.beats * BEAT_BITS)
        for _ in range(10):
            tally.adder(STORE_BITS, STORE_BITS)
        tally.add(250, 150)
        tally.add(100 * bool(self.outside), 60 * bool(self.outside))
        # operands: turned, chosen, loaded
        word, steps = LANES * WIDTH, len(code.steps)
        tally.add(2 * word * (LANES - 1).bit_length() + word * (2 * steps + 2), 5 * word + 2 * code.turns.width)
        # products, sums, results
        tally.take(tech.products_cost(LANES, WIDTH, WIDTH))
        one = tally.empty()
        one.adder(code.sum_bits, code.sum_bits)
        one.add(code.sum_bits, code.sum_bits)
        tally.take(one.sum, LANES)
        one, width = tally.empty(), a.rounded_shape.width
        one.add(a.acc_width * code.most_shift.bit_length(), a.acc_width)
        one.adder(a.acc_width, a.total_width)
        one.add(len(a.ends) * (a.total_width - width + 1) / 2 + 2 * width + 4, a.total_width + 2 * width + 4)
        tally.take(one.sum, UNITS)
        tally.add(word + a.acc_width, 2 * word + 2 * a.acc_width + 2 * sum(code.row_bits) + TO_RESULT)
        if code.joins:
            spread = max(code.joins) - min(code.joins)
            tally.take(tech.products_cost(UNITS, WIDTH, WIDTH))
            tally.adder(STORE_BITS, STORE_BITS)
            tally.add(word + STORE_BITS + WIDTH, word + 2 * WIDTH)
            one = tally.empty()
            one.add((2 * WIDTH + spread) * spread.bit_length())
            one.adder(a.acc_width, a.acc_width)
            tally.take(one.sum, UNITS)
        count_cost(tally, UNITS)

    def shown(self, stage: Stage) -> tuple[Pattern, int, int]:
        return factor_of(stage).pattern, LANES, 1

    def component(self) -> wiring.Component:
        return TiledUnit(self)


@lru_cache(maxsize=4)
def _code(stages):
    return Code(*layers_of(stages))
