"""Small stream parts: links with granted room, FIFOs behind them, and a change of lanes."""

from math import gcd

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .signals import beat, counter, counter_cost, credit, credit_cost

ENTRY = 1  # cycles from a grant at a `FromStream` to the beat's arrival
ENTER = 4  # cycles through a `Pad`
QUEUE = 2  # places of a `LinkFifo` beyond those on their way, so that beats come without a gap
FIFO_LATENCY = 2  # cycles from a write into an empty `LinkFifo` to valid at its output


class Link(wiring.Signature):
    """A stream whose room is granted ahead, so that whatever makes the beats may run free.

    Parameters
    ----------
    shape
        of a beat.

    Members
    -------
    ready : In(1), take : Out(1)
        there is room for one more beat; the producer takes it, in the same cycle.
    valid : Out(1), payload : Out(shape)
        a beat for each take, in order, never refused. Where the time between the two is the same for every beat, the
        parts along the way have no state of their own.
    """

    def __init__(self, shape):
        super().__init__({"ready": In(1), "take": Out(1), "valid": Out(1), "payload": Out(shape)})
        self.shape = shape


class FromStream(wiring.Component):
    """A stream with back-pressure to a link: a beat arrives ENTRY cycles after it is granted.

    Parameters
    ----------
    shape
        of a beat.

    Members
    -------
    i : In(stream.Signature(shape)), o : Out(Link(shape))
        `i` is ready where `o` is.
    """

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        payload = Signal.like(self.i.payload.as_value(), name="payload", reset_less=True)
        m.d.sync += [self.o.valid.eq(self.o.take), payload.eq(self.i.payload)]
        m.d.comb += [
            self.i.ready.eq(self.o.ready),
            self.o.take.eq(self.i.valid & self.o.ready),
            self.o.payload.eq(payload),
        ]
        return m

    @staticmethod
    def cost(tally, width):
        tally.add(2, width + 1)


class Fork(wiring.Component):
    """A link to two: a beat is granted where both have room for it.

    Parameters
    ----------
    shape
        of a beat.

    Members
    -------
    i : In(Link(shape))
    a : Out(Link(shape)), b : Out(Link(shape))
        the same beats, in the same cycles.
    """

    def __init__(self, shape):
        super().__init__({"i": In(Link(shape)), "a": Out(Link(shape)), "b": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(self.a.ready & self.b.ready)
        for side in (self.a, self.b):
            m.d.comb += [side.take.eq(self.i.take), side.valid.eq(self.i.valid), side.payload.eq(self.i.payload)]
        return m


class Queue(wiring.Component):
    """A FIFO that is never written when it is full: whoever writes counts the places.

    Parameters
    ----------
    shape, depth
        of a word; places, the next power of two from there. A word more waits in the output register.

    Members
    -------
    write : In(1), payload : In(shape)
        a word in.
    pop : Out(1)
        a place is free again.
    o : Out(stream.Signature(shape))
        the words, in order, FIFO_LATENCY cycles after they came, at the earliest.
    """

    def __init__(self, shape, depth):
        self.depth = 1 << (depth - 1).bit_length()
        super().__init__({"write": In(1), "payload": In(shape), "pop": Out(1), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        width = len(self.payload.as_value())
        m.submodules.store = store = memory.Memory(shape=unsigned(width), depth=self.depth, init=[])
        write = store.write_port()
        read = store.read_port(domain="sync")
        head, _ = counter(m, self.depth, self.write, "head")
        tail, _ = counter(m, self.depth, self.pop, "tail")
        m.d.comb += [
            write.addr.eq(head),
            write.data.eq(self.payload),
            write.en.eq(self.write),
            self.pop.eq(credit(m, self.depth, self.write, self.pop, "held") & (self.o.ready | ~self.o.valid)),
            read.addr.eq(tail),
            read.en.eq(self.pop),
            self.o.payload.eq(read.data),
        ]
        m.d.sync += self.o.valid.eq(self.pop | (self.o.valid & ~self.o.ready))
        return m

    @staticmethod
    def cost(tally, depth, width):
        """With whoever counts its places: two counters, what it holds, what is free, a memory."""
        places = 1 << (depth - 1).bit_length()
        counter_cost(tally, places, 2)
        credit_cost(tally, places)
        credit_cost(tally, places)
        tally.memory(places, width)
        tally.add(3, 1)


class LinkFifo(wiring.Component):
    """Where a free-running producer ends: a FIFO, a stream with back-pressure behind it.

    Parameters
    ----------
    shape, depth
        of a beat; beats that are granted, at least, before any has left.

    Members
    -------
    i : In(Link(shape)), o : Out(stream.Signature(shape))
        beats leave FIFO_LATENCY cycles after they arrive, at the earliest.
    """

    def __init__(self, shape, depth):
        self.depth = depth
        super().__init__({"i": In(Link(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.i.payload.shape(), self.depth)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        freed = queue.pop
        if queue.depth > self.depth:
            # there are places for the time that a register takes
            freed = Signal()
            m.d.sync += freed.eq(queue.pop)
        m.d.comb += [
            self.i.ready.eq(credit(m, queue.depth, freed, self.i.take, "room", init=queue.depth)),
            queue.write.eq(self.i.valid),
            queue.payload.eq(self.i.payload),
        ]
        return m


class Pad(wiring.Component):
    """Where a stream comes from far away: registers on all its wires, and a FIFO; a beat a cycle, ENTER cycles later.

    Parameters
    ----------
    shape
        of a beat.

    Members
    -------
    i : In(stream.Signature(shape)), o : Out(stream.Signature(shape))
        `i` is not ready in the first cycle.
    """

    DEPTH = 8  # ENTER, what the FIFO's answer takes, and some

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        ready = Signal()
        payload, valid = self.i.payload.as_value(), self.i.valid & ready
        for n in range(ENTER - FIFO_LATENCY):
            was, payload, valid = (
                (payload, valid),
                Signal.like(payload, name=f"payload{n}", reset_less=True),
                Signal(name=f"valid{n}"),
            )
            m.d.sync += [payload.eq(was[0]), valid.eq(was[1])]
        m.submodules.queue = queue = Queue(self.i.payload.shape(), self.DEPTH)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        left = Signal()
        room = credit(m, self.DEPTH, left, self.i.valid & ready, "room", init=self.DEPTH, reserve=1)
        m.d.sync += [ready.eq(room), left.eq(queue.pop)]
        m.d.comb += [self.i.ready.eq(ready), queue.write.eq(valid), queue.payload.eq(payload)]
        return m

    @classmethod
    def cost(cls, tally, width):
        tally.add(4, (ENTER - FIFO_LATENCY) * (width + 1) + 1)
        Queue.cost(tally, cls.DEPTH, width)


class Gearbox(wiring.Component):
    """A change of lanes: the elements in order, one beat a cycle at the slower side.

    Parameters
    ----------
    width, before, after
        bits of an element; elements of a beat in, and of a beat out.

    Members
    -------
    i : In(stream.Signature(beat(width, before))), o : Out(stream.Signature(beat(width, after)))
    """

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
        pop = Signal()
        push = Signal()
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

    @classmethod
    def cost(cls, tally, width, before, after):
        """Each place chooses between what stays, what moves and what comes."""
        places = cls.capacity(before, after)
        tally.add(places * width * 2.5 + 12, places * width + places.bit_length())
