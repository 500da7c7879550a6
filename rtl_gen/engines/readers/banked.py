"""Readers with memories that are written bank by bank and read all at one address."""

from functools import cached_property
from math import gcd, lcm

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal

from ...signals import counter, counter_cost, credit, credit_cost, delay, digits, digits_cost
from ...tech import technology
from .reader import Buffer, Buffered, joined


class Memories(Buffered):
    """What both kinds share: a block is read in the order (pass, word, row, part); `banks` beats are seen at once.

    More members: parts, cycles that take different elements of the same read; passes over a block; by_pass, whether a
    choice of `select` is a pass, not a part.
    """

    parts = 1
    by_pass = False

    @cached_property
    def passes(self):
        return self.issues // (self.words * self.rows * self.parts)

    @cached_property
    def elements_seen(self):
        return self.banks * self.engine.vectors * self.engine.lanes

    @cached_property
    def powers_of_two(self):
        """Whether all of a vector's counts are: then a power of two of slots lets one counter address both."""
        sizes = self.parts, self.rows, self.words, self.passes, self.blocks
        return all(size & (size - 1) == 0 for size in sizes)

    def wait(self, time):
        """The first pass must not overtake the last row: 1 - 1/passes of a block's time, or 1 - 1/rows where that is
        more.
        """
        return time - time // max(self.passes, self.rows * self.banks)

    def needed(self):
        block, _, word, _, _ = np.indices((self.blocks, self.passes, self.words, self.rows, self.parts))
        return (block * self.block_beats + (self.rows * self.banks - 1) * self.words + word).ravel()

    def buffer(self):
        return Banks(self)

    def cost(self, tally):
        s = self.engine
        digits_cost(tally, self.words, self.banks, self.rows, self.slots)
        top = max(self.slots, self.blocks) if self.powers_of_two else self.slots
        digits_cost(tally, self.parts, self.rows, self.words, self.passes, top)
        if not self.powers_of_two:
            counter_cost(tally, s.cycles)
        counter_cost(tally, self.block_beats)
        counter_cost(tally, s.steps)
        credit_cost(tally, self.slots * self.words)
        credit_cost(tally, self.slots)
        address = (self.bank_depth - 1).bit_length() + (s.cycles - 1).bit_length()
        tally.add(14 + self.banks, address + 10)
        tally.take(tally.tech.ram_cost(self.bank_depth, s.lanes * s.vectors * s.kept_width, self.banks))


class Gathered(Memories):
    """Any pattern: a block is the smallest number of pattern blocks that is a whole number of beats at both ends, each
    beat of it in its own bank, all of them seen at once.
    """

    by_pass = True

    @classmethod
    def takes(cls, pattern, lanes, simd, skip):
        return True

    @cached_property
    def group(self):
        _, b, c, d = self.engine.pattern
        lanes = self.engine.lanes
        return lcm(lanes // gcd(lanes, c * d), lanes // gcd(lanes, b * d))

    @cached_property
    def banks(self):
        return self.block_beats

    @cached_property
    def select(self):
        s = self.engine
        choice, lane, _ = np.ogrid[: self.passes, : s.lanes, : s.simd]
        return element_of(s, choice // s.steps * s.lanes + lane, choice % s.steps)


class Banked(Memories):
    """A block is a pattern block, a whole number of beats at both ends: a beat covers one k and `lanes` neighbouring l
    (or `rows_a_beat` k and all d of l); bank p holds the beats of rows r with r mod banks = p.
    """

    group = 1

    @classmethod
    def takes(cls, pattern, lanes, simd, skip):
        _, b, c, d = pattern
        rows = max(1, lanes // d)
        return c * d % lanes == 0 and b * d % lanes == 0 and (rows % simd == 0 or simd % rows == 0)

    @cached_property
    def rows_a_beat(self):
        return max(1, self.engine.lanes // self.engine.pattern.d)

    @cached_property
    def words(self):
        """Beats of one row: positions of l."""
        return max(1, self.engine.pattern.d // self.engine.lanes)

    @cached_property
    def banks(self):
        return max(1, self.engine.simd // self.rows_a_beat)

    @cached_property
    def rows(self):
        return self.block_beats // (self.words * self.banks)

    @cached_property
    def parts(self):
        return max(1, self.rows_a_beat // self.engine.simd)

    @cached_property
    def select(self):
        s = self.engine
        part, lane, _ = np.ogrid[: self.parts, : s.lanes, : s.simd]
        element = element_of(s, lane, part)
        row, position = element // s.lanes // self.words, element % s.lanes
        return row % self.banks * s.lanes + position


def element_of(engine, output, step):
    """The input that each operand of an output takes at a step, int; output, step: broadcast to (…, lanes, simd)."""
    _, b, c, d = engine.pattern
    i, l, k = output // (b * d), output % d, step * engine.simd + np.arange(engine.simd)
    return i * c * d + k * d + l


class Banks(Buffer):
    """`banks` memories with common addresses: word, row and slot."""

    def elaborate(self, platform):
        m = Module()
        r, s = self.reader, self.engine

        # a bank's address: word, row, slot, each in whole bits, so that no counter has to be multiplied
        (word, bank, row, slot), lasts = digits(m, (r.words, r.banks, r.rows, r.slots), self.i.valid, "wr")
        _, bank_end, row_end, _ = lasts
        w_address = joined(word, row, slot)
        # with such a beat, a word of all rows is there
        arrived = delay(m, self.i.valid & bank_end & row_end, 1, "arrived", reset=True)

        top = max(r.slots, r.blocks) if r.powers_of_two else r.slots
        sizes = r.parts, r.rows, r.words, r.passes, top
        (part, row, word, pass_, block), lasts = digits(m, sizes, self.issue, "rd")
        slot = block[: (r.slots - 1).bit_length()] if r.powers_of_two else block
        if r.powers_of_two:
            order = Cat(part, row, word, pass_, block)[: len(self.weights_address)]
            m.d.comb += self.weights_address.eq(delay(m, order, 1, "rd_order"))
        else:
            # a vector's reads are in the order in which its weights lie
            issued = delay(m, self.issue, 1, "issued", reset=True)
            m.d.comb += self.weights_address.eq(counter(m, s.cycles, issued, "weights_address")[0])
        block_end = lasts[0] & lasts[1] & lasts[2] & lasts[3]
        begins = Signal(init=1)  # the next read begins a dot product of a block's first pass
        with m.If(self.issue):
            m.d.sync += begins.eq(lasts[0] & lasts[1] & Mux(lasts[2], lasts[3], pass_ == 0))
        ready = credit(m, r.slots * r.words, arrived, self.issue & begins, "words_here")
        m.d.comb += [self.available.eq(ready | ~begins), self.choice.eq(pass_ if r.by_pass else part)]
        r_address = delay(m, joined(word, row, slot), 1, "rd_address")

        self.grant(m, self.issue & block_end)
        kept, elements = s.kept_width, s.lanes * s.vectors
        words = technology(s.target).ram(
            m,
            "bank",
            depth=r.bank_depth,
            width=kept * elements,
            enable=[self.i.valid & (bank == n) for n in range(r.banks)],
            w_address=w_address,
            w_data=self.kept(),
            r_address=r_address,
        )
        m.d.comb += self.seen.eq(Cat(self.whole(word[n * kept :][:kept]) for word in words for n in range(elements)))
        return m
