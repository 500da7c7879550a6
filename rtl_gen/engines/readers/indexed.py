"""The reader of indexed factors: a copy of the vectors for every operand, each read at its own addresses."""

from functools import cached_property

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal

from bfthw.chain import Indexed

from ...signals import counter, counter_cost, credit_cost, delay, digits, digits_cost
from ...tech import READ, technology
from ..engine import figure
from .reader import Buffer, Buffered, joined


class Copies(Buffered):
    """The block is the vector; `seen` has one element of each copy.

    More members: places, the element of the vector that each operand takes, int64 (cycles, lanes, simd); counted,
    whether each is the one after that of the cycle before, so that counters name it.
    """

    ahead = READ

    @classmethod
    def takes(cls, pattern, lanes, simd, skip):
        return isinstance(pattern, Indexed)

    group = figure(int, lambda self: self.engine.pattern.a)
    words = figure(int, lambda self: self.block_beats)
    banks = figure(int, lambda self: self.engine.lanes * self.engine.simd)
    elements_seen = figure(int, lambda self: self.banks * self.engine.vectors)

    @property
    def select(self):
        # each copy's word holds one element by then
        return np.arange(self.banks).reshape(1, self.engine.lanes, self.engine.simd)

    @cached_property
    def places(self):
        s = self.engine
        index = s.pattern.index.reshape(-1, s.lanes, s.steps, s.simd)
        return index.transpose(0, 2, 1, 3).reshape(-1, s.lanes, s.simd)

    @cached_property
    def counted(self):
        if self.engine.lanes > 1 or self.words == 1:
            return False  # one element alone needs no name
        return bool(np.all(np.diff(self.places, axis=0) % self.engine.pattern.inputs == 1))

    @property
    def address_bits(self):
        bits = (self.words - 1).bit_length() + (self.engine.lanes - 1).bit_length()
        return 0 if self.counted else self.banks * bits

    def wait(self, time):
        return time

    def needed(self):
        return np.full(self.engine.cycles, self.block_beats - 1)

    def buffer(self):
        return CopiesBuffer(self)

    def cost(self, tally):
        """A memory for each operand, with its counter or its column of a ROM, and the choice of a lane."""
        s = self.engine
        digits_cost(tally, self.words, self.slots)
        for size in (s.cycles, self.slots, self.block_beats, s.steps):
            counter_cost(tally, size)
        credit_cost(tally, self.slots)
        credit_cost(tally, self.slots)
        width, bits = s.vectors * s.kept_width, (self.words - 1).bit_length()
        if self.counted:
            counter_cost(tally, self.words, self.banks)
            tally.add(self.banks * bits, READ * self.banks * bits)
        elif self.address_bits and s.cycles > 1:
            tally.take(tally.tech.rom_cost(s.cycles, self.address_bits))
        for _ in range(self.banks):
            tally.take(tally.tech.ram_cost(self.bank_depth, s.lanes * width, 1))
        tally.add(self.banks * width * (s.lanes - 1) * 0.7, READ * self.banks * (s.lanes - 1).bit_length())
        tally.add(14, READ * (s.cycles.bit_length() + self.slots.bit_length()) + 12)


class CopiesBuffer(Buffer):
    """The addresses come out of a ROM, or out of counters where they go up one by one."""

    def elaborate(self, platform):
        m = Module()
        r, s, tech = self.reader, self.engine, technology(self.engine.target)
        (word, slot), (word_end, _) = digits(m, (r.words, r.slots), self.i.valid, "wr")
        w_address = joined(word, slot)
        arrived = delay(m, self.i.valid & word_end, 1, "arrived", reset=True)

        cycle, end = counter(m, s.cycles, self.issue, "rd")
        r_slot, _ = counter(m, r.slots, self.issue & end, "rd_slot")
        self.await_vectors(m, r.slots, arrived, end)
        m.d.comb += self.weights_address.eq(delay(m, cycle, r.ahead, "rd_cycle"))
        self.grant(m, self.issue & end)

        r_slot, width = delay(m, r_slot, r.ahead, "rd_slot"), s.kept_width * s.vectors
        for n, (place, lane) in enumerate(self._places(m, cycle, end)):
            (beat_seen,) = tech.ram(
                m, f"copy{n}", depth=r.bank_depth, width=s.lanes * width, enable=[self.i.valid], w_address=w_address,
                w_data=self.kept(), r_address=joined(place, r_slot),
            )
            elements = [beat_seen[at * width :][:width] for at in range(s.lanes)]
            chosen = elements[0] if s.lanes == 1 else Array(elements)[delay(m, lane, READ, f"lane{n}")]
            chosen = [self.whole(chosen[e * s.kept_width :][: s.kept_width]) for e in range(s.vectors)]
            size = len(chosen) * s.factor.input.width
            m.d.comb += self.seen[n * size :][:size].eq(Cat(*chosen))
        return m

    def _places(self, m, cycle, end):
        """For each copy the beat and the lane of the element that is read, `ahead` cycles after its issue."""
        r, s = self.reader, self.engine
        places = r.places.reshape(s.cycles, -1)
        if r.counted:
            for n, first in enumerate(places[0].tolist()):
                place = Signal(range(max(2, r.words)), name=f"place{n}", init=first)
                after = Mux(place == r.words - 1, 0, place + 1)
                with m.If(self.issue):
                    m.d.sync += place.eq(Mux(end, first, after))
                yield delay(m, place, r.ahead, f"place{n}"), Const(0, 0)
            return
        bits = (r.words - 1).bit_length()
        fields = np.concatenate([places // s.lanes, places % s.lanes], 1)
        widths = [bits] * r.banks + [(s.lanes - 1).bit_length()] * r.banks
        words, at, slices = [0] * s.cycles, 0, []
        for column, size in zip(fields.T.tolist(), widths):
            words = [word | value << at for word, value in zip(words, column)]
            slices.append(slice(at, at + size))
            at += size
        # one beat of one lane has no address: there is nothing to look up
        fixed = s.cycles == 1 or not at
        data = Const(words[0], at) if fixed else technology(s.target).rom(m, "places", words, at, cycle)
        yield from ((data[slices[n]], data[slices[r.banks + n]]) for n in range(r.banks))
