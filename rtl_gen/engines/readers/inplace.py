"""The reader of rearranged maps whose places are the same bits in another order: one copy, written where it is read."""

from functools import cached_property, lru_cache
from math import lcm

import numpy as np
from amaranth.hdl import Array, Cat, Module
from amaranth.lib import wiring

from bfthw.chain import Indexed, Pattern

from ...fifo import FIFO_LATENCY, QUEUE, LinkFifo, Queue
from ...signals import counter, counter_cost, credit, credit_cost, delay
from ...stream import ENTRY, FromStream
from ...tech import technology
from ..engine import figure
from .reader import Buffer, Buffered

GAP = 3 + ENTRY  # cycles between a vector's last read and the next one's first: its place is free, filled, counted
THROUGH = FIFO_LATENCY + ENTRY  # cycles through one of its FIFOs
LEAST = 256  # beats of a vector from which one copy and two FIFOs are less than three copies
MOST_TURNS = 64  # orders of its bits that an address goes through, at most


@lru_cache(maxsize=64)
def bits_of(pattern: Pattern) -> tuple[int, ...] | None:
    """Of a permutation of 2^n places by their bits: bit k of an output's place is bit `bits[k]` of its input's; None
    for any other pattern.
    """
    if not isinstance(pattern, Indexed) or pattern.c > 1 or pattern.outputs != pattern.inputs:
        return None
    index, n = pattern.index[:, 0], pattern.inputs.bit_length() - 1
    if n == 0 or len(index) != 1 << n or index[0] != 0:
        return None
    bits = tuple(int(index[1 << k]).bit_length() - 1 for k in range(n))
    return bits if np.array_equal(index, permuted(np.arange(1 << n), bits)) and sorted(bits) == [*range(n)] else None


def permuted(place, bits):
    return sum((place >> k & 1) << to for k, to in enumerate(bits))


class InPlace(Buffered):
    """A place that has been read takes the next vector's beat, so each vector lies in an order of its own, and is read
    in one that is the next one's: of powers of the permutation, whose bits an address chooses by the vector's turn.

    A vector is read when all of it is there, whose last beats wait for the last places of the one before; two short
    FIFOs, in front and behind, keep that from those around it.

    More members: turns, of the vectors, until their order is the first one's again.
    """

    group = figure(int, lambda self: self.engine.pattern.a)
    banks = slots = 1
    holds = 2.0

    @classmethod
    def takes(cls, pattern, lanes, simd, skip):
        if skip or pattern.inputs < LEAST * lanes or (bits := bits_of(pattern)) is None:
            return False
        kept = lanes.bit_length() - 1  # bits of a place in its beat
        return bits[:kept] == tuple(range(kept)) and turns_of(bits) <= MOST_TURNS

    @cached_property
    def bits(self):
        """Of a beat's place, as of `bits_of`."""
        kept = self.engine.lanes.bit_length() - 1
        return tuple(to - kept for to in bits_of(self.engine.pattern)[kept:])

    turns = figure(int, lambda self: turns_of(self.bits))
    words = figure(int, lambda self: self.block_beats)
    gap = GAP
    elements_seen = figure(int, lambda self: self.engine.lanes * self.engine.vectors)
    depth = figure(int, lambda self: self.ahead + THROUGH)
    output_flight = figure(int, lambda self: ENTRY - self.engine.depth)

    @property
    def select(self):
        return np.arange(self.engine.lanes).reshape(1, -1, 1)

    @property
    def places(self):
        """Beats of the FIFOs in front and behind, each with those on their way to it."""
        s = self.engine
        return s.flight + QUEUE, s.depth - THROUGH + QUEUE

    def needed(self):
        return np.full(self.words, self.words - 1)

    def reads(self, arrivals, skip=None):
        return super().reads(np.asarray(arrivals) + THROUGH)

    def build(self, m, i, o, skip=None):
        before, after = _waits(m, i.payload.shape(), self.places[0], "in_front")
        wiring.connect(m, i, before)
        return super().build(m, after, o)

    def leave(self, m, o):
        """What stands before the link `o`: a Link for what is made."""
        before, after = _waits(m, o.payload.shape(), self.places[1], "behind")
        wiring.connect(m, after, o)
        return before

    def buffer(self):
        return InPlaceBuffer(self)

    def cost(self, tally):
        s = self.engine
        for size in (self.words, self.words, self.turns, self.turns, s.steps):
            counter_cost(tally, size)
        credit_cost(tally, self.words)
        credit_cost(tally, 2)
        mixed = sum(len(self.orders(k)) - 1 for k in range(len(self.bits)))
        tally.add(2 * 0.7 * mixed + 6, 2 * len(self.bits) + s.lanes * s.vectors * s.kept_width + 8)
        tally.take(tally.tech.ram_cost(self.words, s.lanes * s.vectors * s.kept_width, 1))
        for places, fmt in zip(self.places, (s.takes, s.gives)):
            width = s.lanes * s.vectors * fmt.width
            Queue.cost(tally, places, width)
            FromStream.cost(tally, width)

    def orders(self, k):
        """Of an address's bit k, in each turn: which of the place's it is."""
        found = [k]
        while (before := self.bits.index(found[-1])) != k:
            found.append(before)
        return found


def _waits(m, shape, places, name):
    """The links into a FIFO of so many places, and out of it."""
    m.submodules[name] = queue = LinkFifo(shape, places)
    m.submodules[f"{name}_entry"] = entry = FromStream(shape)
    wiring.connect(m, queue.o, entry.i)
    return queue.i, entry.o


def turns_of(bits):
    """The least power of a permutation that is none."""
    lengths, left = [], set(range(len(bits)))
    while left:
        start = at = left.pop()
        length = 1
        while (at := bits[at]) != start:
            left.remove(at)
            length += 1
        lengths.append(length)
    return lcm(*lengths)


class InPlaceBuffer(Buffer):
    """One memory; whoever writes a place waits until it has been read."""

    def elaborate(self, platform):
        m = Module()
        s, size = self.engine, self.reader.words
        w_address, w_end = self._address(m, self.i.valid, "wr", 0)
        r_address, r_end = self._address(m, self.issue, "rd", 1)
        freed = delay(m, self.issue, 1, "freed", reset=True)
        m.d.comb += self.i.ready.eq(credit(m, size, freed, self.i.take, "room", init=size))
        arrived = delay(m, self.i.valid & w_end, 1, "arrived", reset=True)
        self.await_vectors(m, 2, arrived, r_end)
        (word,) = technology(s.target).ram(
            m, "store", depth=size, width=s.kept_width * s.lanes * s.vectors, w_address=w_address,
            enable=[delay(m, self.i.valid, 1, "write", reset=True)], w_data=delay(m, self.kept(), 1, "beat"),
            r_address=r_address,
        )
        width = s.kept_width
        m.d.comb += self.seen.eq(Cat(self.whole(word[n * width :][:width]) for n in range(s.lanes * s.vectors)))
        return m

    def _address(self, m, step, name, first):
        """Of a vector's next beat, a cycle later, and whether that is its last; first: the first vector's turn."""
        r = self.reader
        place, end = counter(m, r.words, step, name)
        turn, _ = counter(m, r.turns, step & end, f"{name}_turn", init=first % r.turns)
        address = []
        for k in range(len(r.bits)):
            orders = r.orders(k)
            address.append(Array([place[orders[n % len(orders)]] for n in range(r.turns)])[turn])
        return delay(m, Cat(*address), 1, f"{name}_address"), end
