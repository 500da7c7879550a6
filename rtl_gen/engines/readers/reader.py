"""The contract of a reader: what brings the operands of a pipelined engine from its input link, in the order of use."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...signals import beat, counter, credit, delay, digits
from ...stream import Link
from ..engine import Engine, figure

READERS = []  # classes, in the order in which they are asked: those defined last come first


class Reads(NamedTuple):
    """Signals, LEAD cycles ahead of the operands that they are about.

    issue: some operands are read. take: an output's last. first: its first. choice: which of `Reader.select`. address:
    which of a vector's cycles, for the weights. seen: READ cycles later, the elements of all vectors that are seen.
    """

    issue: ValueLike
    take: ValueLike
    first: ValueLike
    choice: ValueLike
    address: ValueLike
    seen: ValueLike


class Reader:
    """A vector's beats come in natural order and are kept in blocks; a block is read in `issues` cycles.

    Members
    -------
    engine
        the Pipelined that it is part of: pattern, lanes, simd, steps, vectors, flight, interval, kept_width, target.
    takes(pattern, lanes, simd, skip) (of the class)
        whether it can serve such a factor; skip: a residual joins.
    group, blocks, block_beats, issues
        pattern blocks in a block; blocks in a vector; beats in, and cycles that read, of a block.
    select
        positions, in the elements of a vector that are seen at once, of the operands: int (choices, lanes, simd).
    ahead, depth, output_flight
        cycles from a read's issue to its addresses; from an output's turn to its datapath, less LEAD; and what comes to
        the engine's depth from the grant of room for an output beat to its arrival.
    order
        inputs of a dot product in the order in which they are taken: an index of (c,).
    reads(arrivals, skip)
        cycle of each read of a vector, int64 (blocks * issues,), given those of its input beats and residual beats; or
        of several, one behind the other.
    holds
        vectors inside at once, at most.
    buffer_bits, address_bits
        of its memories; of a word of the ROM that holds its addresses, 0 for none.
    gap
        cycles that it wants between two vectors.
    build(m, i, o, skip), leave(m, o)
        Reads, of a module `m` with the links `i` and `o` and, where a residual joins, its stream; before that, the link
        that stands for the engine's `o`.
    cost(tally)
    """

    ahead = 1
    address_bits = 0
    output_flight = 0
    gap = 0
    order = slice(None)

    def __init_subclass__(cls):
        if "takes" in vars(cls):
            READERS.insert(0, cls)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    depth = figure(int, lambda self: self.ahead)

    def leave(self, m: Module, o: Link) -> Link:
        return o

    @cached_property
    def blocks(self) -> int:
        return self.engine.pattern.a // self.group

    @cached_property
    def block_beats(self) -> int:
        return self.engine.pattern.inputs // (self.blocks * self.engine.lanes)

    @cached_property
    def issues(self) -> int:
        s = self.engine
        return self.group * s.pattern.b * s.pattern.d // s.lanes * s.steps


class Buffered(Reader):
    """A reader with an input buffer of `slots` blocks in `banks` memories of `bank_depth` words.

    More members: words, rows, beats of a row, and rows of a bank that make a dot product; elements_seen, of all vectors
    at once; powers_of_two, whether one counter addresses buffer and weights; wait(time), cycles from a block's first
    arrival to its first read, where arrivals and reads are both spread over `time`; buffer(), its component, a Buffer.
    """

    words = rows = 1
    powers_of_two = False

    @cached_property
    def slots(self) -> int:
        """Blocks in the buffer, so that the promised interval is kept.

        In the slowest schedule that keeps it, a block's slot is taken for the flight of its first beat, the wait, the
        time of its reads and six cycles of hand-over.
        """
        s = self.engine
        time = s.interval // self.blocks
        slots = -(-(s.flight + self.wait(time) + time + 6) // time)
        return 1 << (slots - 1).bit_length() if self.powers_of_two else slots

    @cached_property
    def bank_depth(self) -> int:
        """Words of a bank: word and row in whole bits each, so that an address is put together from counters."""
        return self.slots << ((self.words - 1).bit_length() + (self.rows - 1).bit_length())

    @cached_property
    def buffer_bits(self) -> int:
        s = self.engine
        return self.banks * self.bank_depth * s.lanes * s.vectors * s.kept_width

    holds = figure(float, lambda self: self.slots / self.blocks)

    def needed(self):
        """For each read of a vector the last beat that it needs, in order."""
        raise NotImplementedError

    def reads(self, arrivals, skip=None):
        vectors = np.asarray(arrivals).reshape(-1, self.engine.beats_in)
        earliest, steps = (vectors[:, self.needed()] + 2).ravel(), self.engine.steps
        if skip is not None:
            last = slice(steps - 1, None, steps)
            earliest[last] = np.maximum(earliest[last], skip)
        cycle = np.arange(len(earliest))
        return np.maximum.accumulate(earliest - cycle) + cycle

    def build(self, m, i, o, skip=None):
        m.submodules.buffer = buffer = self.buffer()
        wiring.connect(m, i, buffer.i)
        # issue: a dot product's last read needs room at the output, and the residual's beat
        issue = Signal()
        (step,), (last,) = digits(m, (self.engine.steps,), issue, "step")
        may_end = o.ready if skip is None else o.ready & skip.valid
        m.d.comb += [
            issue.eq(buffer.available & (may_end | ~last)),
            buffer.issue.eq(issue),
            o.take.eq(issue & last),
        ]
        if skip is not None:
            m.d.comb += skip.ready.eq(o.take)
        return Reads(
            issue=delay(m, issue, self.ahead, "issue", reset=True),
            take=delay(m, o.take, self.ahead, "take", reset=True),
            first=delay(m, step, self.ahead, "step") == 0,
            choice=delay(m, buffer.choice, self.ahead, "choice"),
            address=buffer.weights_address,
            seen=buffer.seen,
        )


class Buffer(wiring.Component):
    """An input buffer, written in order, read in the order of its reader.

    Parameters
    ----------
    reader : Buffered

    Members
    -------
    i : In(Link)
    issue : In(1), available : Out(1)
        read; the next read has its data.
    choice : Out
        which of `Reader.select` the present read is for.
    weights_address : Out
        which of the vector's cycles it is, `ahead` cycles later.
    seen : Out
        the elements, `ahead + READ` cycles later, with their signs.
    """

    def __init__(self, reader):
        self.reader, self.engine = reader, reader.engine
        s = self.engine
        super().__init__(
            {
                "i": In(Link(beat(s.factor.input, s.lanes * s.vectors))),
                "issue": In(1),
                "available": Out(1),
                "choice": Out(range(max(2, len(reader.select)))),
                "weights_address": Out(range(max(2, s.cycles))),
                "seen": Out(reader.elements_seen * s.factor.input.width),
            }
        )

    def kept(self):
        """A beat without the signs that are known."""
        s, payload = self.engine, self.i.payload.as_value()
        return Cat(payload[n * s.factor.input.width :][: s.kept_width] for n in range(s.lanes * s.vectors))

    def whole(self, element):
        return Cat(element, Const(0, self.engine.factor.input.width - self.engine.kept_width))

    def await_vectors(self, m, most, arrived, last):
        """Whether the next read has its data, where a vector's first waits for all of it. most: vectors that are here
        at once; arrived: another one is; last: the read is a vector's last.
        """
        begins = Signal(init=1)  # the next read is a vector's first
        with m.If(self.issue):
            m.d.sync += begins.eq(last)
        ready = credit(m, most, arrived, self.issue & begins, "vectors_here")
        m.d.comb += self.available.eq(ready | ~begins)

    def grant(self, m, block_end):
        """Room: a slot is taken by the first beat of a block and free again once its last read is under way."""
        r = self.reader
        freed = delay(m, block_end, 1, "freed", reset=True)
        _, block_full = counter(m, r.block_beats, self.i.take, "granted")
        starts = Signal(init=1)  # the next beat granted is a block's first
        with m.If(self.i.take):
            m.d.sync += starts.eq(block_full)
        # the next slot is not wanted before the next block, so there is time to count this one
        taken = delay(m, self.i.take & starts, int(r.block_beats > 1), "slot_taken", reset=True)
        spare = credit(m, r.slots, freed, taken, "slots_spare", init=r.slots)
        m.d.comb += self.i.ready.eq(spare | ~starts)


def joined(*fields):
    """An address of its fields; one bit where all are empty."""
    address = Cat(*fields)
    return address if len(address) else Const(0, 1)
