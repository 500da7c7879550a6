"""A reader without a memory: a block is gathered in registers, each beat in is a beat out, all seen at once."""

import numpy as np
from amaranth.hdl import Const, Mux, Signal

from ...signals import counter, counter_cost, delay, gathered, turns
from ...tech import READ
from ..engine import figure
from .banked import Gathered
from .reader import Reads


class Direct(Gathered):
    """Factors of square blocks that a beat holds whole rows of, every product in one cycle, where nothing joins.

    An output's turn comes at the earliest with the arrival of its block's last beat.
    """

    ahead = depth = 0
    buffer_bits = 0

    @classmethod
    def takes(cls, pattern, lanes, simd, skip):
        _, b, c, d = pattern
        return lanes >= d and b == simd == c and not skip

    @property
    def select(self):
        choices = super().select
        return choices[:1] if (choices == choices[:1]).all() else choices

    output_flight = figure(int, lambda self: self.engine.flight + self.block_beats - 1)
    holds = figure(float, lambda self: 2 / self.blocks)

    def reads(self, arrivals, skip=None):
        """A block's turns begin with its last beat, and behind those of the block before."""
        complete = np.asarray(arrivals)[self.block_beats - 1 :: self.block_beats]
        step = self.block_beats * np.arange(len(complete))
        begin = np.maximum.accumulate(complete - step) + step
        return (begin[:, None] + np.arange(self.block_beats)).ravel()

    def build(self, m, i, o, skip=None):
        # who grants room for the output grants it for the input
        m.d.comb += [i.ready.eq(o.ready), o.take.eq(i.take)]
        beats = self.block_beats
        _, complete = counter(m, beats, i.valid, "gathered")
        start = i.valid & complete
        turn, left = turns(m, start, beats - 1, beats - 1)
        choice = Signal(range(max(2, beats)))
        m.d.comb += choice.eq(Mux(start, 0, beats - left))
        arrives, payload = delay(m, i.valid, 1, "arrives", reset=True), delay(m, i.payload.as_value(), 1, "beat")
        block = gathered(m, payload, beats, arrives, delay(m, start, 1, "complete", reset=True), "block")
        address, _ = counter(m, self.engine.cycles, turn, "weights_address")
        choice = choice if len(self.select) > 1 else Const(0, 0)
        return Reads(issue=turn, take=turn, first=Const(1, 1), choice=choice, address=address, seen=block)

    def cost(self, tally):
        """Two copies of a block, and the beat in front of them."""
        s, beats = self.engine, self.block_beats
        tally.add(6, 2 * beats * s.lanes * s.vectors * s.factor.input.width + READ + 4)
        counter_cost(tally, beats)
        counter_cost(tally, s.cycles)
