"""Small stream parts: links with granted room, FIFOs behind them, and a change of lanes."""

from math import gcd

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

FIFO_LATENCY = 2  # cycles from a write into an empty `LinkFifo` to valid at its output


def beat(width, lanes):
    """Shape of a beat: `lanes` signed elements, lane 0 in the low bits."""
    return data.ArrayLayout(signed(width), lanes)


class Link(wiring.Signature):
    """A stream whose room is granted ahead, so that whatever makes the beats may run free.

    `ready`: there is room for one more beat; the producer may `take` it in the same cycle. Each take is followed, in
    order and a constant number of cycles later, by one `valid` with its `payload`, which is never refused.
    """

    def __init__(self, shape):
        super().__init__({"ready": In(1), "take": Out(1), "valid": Out(1), "payload": Out(shape)})
        self.shape = shape


def counter(m, size, step, name):
    """A counter of 0..size-1 that advances with `step`; returns (value, whether it is at its last value)."""
    if size == 1:
        return Const(0, 0), Const(1, 1)
    value = Signal(range(size), name=name)
    last = value == size - 1
    with m.If(step):
        m.d.sync += value.eq(Mux(last, 0, value + 1))
    return value, last


def room(m, places, take, freed, by=1, name="room"):
    """Count free places, `places` at first; returns whether there is one. `freed` gives `by` of them back."""
    # one less than what is free, so that the sign bit is the answer
    spare = Signal(signed(places.bit_length() + 1), name=name, init=places - 1)
    m.d.sync += spare.eq(spare - take + Mux(freed, by, 0))
    return spare >= 0


class FromStream(wiring.Component):
    """A stream with back-pressure to a link: a beat is granted and arrives in the same cycle."""

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.i.ready.eq(self.o.ready),
            self.o.take.eq(self.i.valid & self.o.ready),
            self.o.valid.eq(self.o.take),
            self.o.payload.eq(self.i.payload),
        ]
        return m


class Fork(wiring.Component):
    """A link to two: a beat is granted where both have room for it."""

    def __init__(self, shape):
        super().__init__({"i": In(Link(shape)), "a": Out(Link(shape)), "b": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(self.a.ready & self.b.ready)
        for side in (self.a, self.b):
            m.d.comb += [side.take.eq(self.i.take), side.valid.eq(self.i.valid), side.payload.eq(self.i.payload)]
        return m


class LinkFifo(wiring.Component):
    """Where a free-running producer ends: a FIFO of `depth` beats, a stream with back-pressure behind it.

    Raises ValueError for a depth below 3: with a single word of memory behind its output register, SyncFIFOBuffered
    cannot take two beats in a row.
    """

    def __init__(self, shape, depth):
        if depth < 3:
            raise ValueError(f"LinkFifo.depth must be 3 or more, got {depth}")
        self.depth = depth
        super().__init__({"i": In(Link(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(width=len(self.i.payload.as_value()), depth=self.depth)
        m.d.comb += [
            self.i.ready.eq(room(m, self.depth, self.i.take, self.o.valid & self.o.ready)),
            queue.w_en.eq(self.i.valid),
            queue.w_data.eq(self.i.payload),
            self.o.valid.eq(queue.r_rdy),
            self.o.payload.eq(queue.r_data),
            queue.r_en.eq(self.o.ready),
        ]
        return m


class Gearbox(wiring.Component):
    """`before` elements a beat in, `after` elements a beat out, in order; one beat a cycle at the slower side."""

    def __init__(self, width, before, after):
        self.width, self.before, self.after = width, before, after
        super().__init__(
            {
                "i": In(stream.Signature(beat(width, before))),
                "o": Out(stream.Signature(beat(width, after))),
            }
        )

    @staticmethod
    def capacity(before, after):
        """Elements held, so that the slower side never waits although `ready` looks only at what is held already.

        Beats out without a gap: one more is taken up to level 2*after - 1. Beats in without a gap: the level reaches
        after - 1 + before at most before a beat leaves.
        """
        return 2 * max(before, after) + min(before, after)

    def elaborate(self, platform):
        m = Module()
        unit = gcd(self.before, self.after)
        came, left = self.before // unit, self.after // unit
        places = self.capacity(self.before, self.after) // unit
        bits = unit * self.width
        held = Signal(places * bits, reset_less=True)
        level = Signal(range(places + 1))
        pop, push = Signal(), Signal()
        kept = Signal(range(places + 1))
        rest = Signal(places * bits)
        m.d.comb += [
            self.o.valid.eq(level >= left),
            self.o.payload.eq(held),
            self.i.ready.eq(level <= places - came),
            pop.eq(self.o.valid & self.o.ready),
            push.eq(self.i.valid & self.i.ready),
            kept.eq(Mux(pop, level - left, level)),
            rest.eq(Mux(pop, held >> (left * bits), held)),
        ]
        m.d.sync += [level.eq(kept + Mux(push, came, 0)), held.eq(rest)]
        with m.If(push), m.Switch(kept):
            for position in range(places - came + 1):
                with m.Case(position):
                    m.d.sync += held[position * bits :][: came * bits].eq(self.i.payload)
        return m
