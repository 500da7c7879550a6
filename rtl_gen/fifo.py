"""FIFOs: behind links, at the ends of a core, and where beats wait long, in block RAM."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .signals import counter, counter_cost, credit, credit_cost, delay
from .stream import Link
from .tech import READ, technology

ENTER = 4  # cycles through a `Pad`
QUEUE = 2  # places of a `LinkFifo` beyond those on their way, so that beats come without a gap
FIFO_LATENCY = 2  # cycles from a write into an empty FIFO to valid at its output
DEEP = 64  # places of a FIFO from which on it may be in block RAM,
DEEP_BITS = 2048  # and bits, its words in whole fours: as many as distributed RAM is dearer for
DEEP_LATENCY = 1 + READ + FIFO_LATENCY  # FIFO_LATENCY of such a one
FRONT = 1 + FIFO_LATENCY + 1  # words that wait behind that block RAM, so that they leave without a gap


def places_of(depth):
    """Places of a FIFO of `depth` or more."""
    return 1 << (depth - 1).bit_length()


def is_deep(depth, width):
    """Whether a FIFO that may be in block RAM is, the same for every target."""
    return places_of(depth) >= DEEP and places_of(depth) * -(-width // 4) * 4 >= DEEP_BITS


def fifo_bits(depth, width):
    """Bits of such a FIFO's memories."""
    return (places_of(depth) + FRONT * is_deep(depth, width)) * width


def fifo_latency(depth, width):
    """Cycles from a write into such a FIFO, when it is empty, to valid at its output."""
    return DEEP_LATENCY if is_deep(depth, width) else FIFO_LATENCY


class Queue(wiring.Component):
    """A FIFO that is never written when it is full: whoever writes counts the places.

    Parameters
    ----------
    shape, depth
        of a word; places, the next power of two from there. A word more waits in the output register.
    target : str, optional
        of the technology layer, in whose block RAM it is where it is deep, with the register behind it and FRONT words
        more in a Queue. None: it is not, and has FIFO_LATENCY whatever its size.
    in_registers : bool
        not in block RAM, where there is no distributed RAM either.

    Members
    -------
    write : In(1), payload : In(shape)
        a word in.
    pop : Out(1)
        a place is free again.
    o : Out(stream.Signature(shape))
        the words, in order, FIFO_LATENCY, or DEEP_LATENCY, cycles after they came, at the earliest.
    """

    def __init__(self, shape, depth, target=None, in_registers=False):
        self.depth, self.target = places_of(depth), target
        self.attributes = {"ram_style": "registers"} if in_registers else {}
        super().__init__({"write": In(1), "payload": In(shape), "pop": Out(1), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        width = len(self.payload.as_value())
        return self._deep(width) if self.target and is_deep(self.depth, width) else self._short(width)

    def _deep(self, width):
        m, tech = Module(), technology(self.target)
        m.submodules.front = front = Queue(self.payload.shape(), FRONT, in_registers=not tech.rows)
        wiring.connect(m, front.o, wiring.flipped(self.o))
        head, _ = counter(m, self.depth, self.write, "head")
        tail, _ = counter(m, self.depth, self.pop, "tail")
        room = credit(m, FRONT, front.pop, self.pop, "room_in_front", init=FRONT)
        (word,) = tech.ram(
            m, "store", depth=self.depth, width=width, enable=[self.write], w_address=head,
            w_data=self.payload.as_value(), r_address=tail,
        )
        m.d.comb += [
            self.pop.eq(credit(m, self.depth, self.write, self.pop, "held") & room),
            front.write.eq(delay(m, self.pop, READ, "arrives", reset=True)),
            front.payload.eq(word),
        ]
        return m

    def _short(self, width):
        m = Module()
        # of one place too it has an address of a bit: Verilog has none of no bits
        m.submodules.store = store = memory.Memory(
            shape=unsigned(width), depth=max(2, self.depth), init=[], attrs=self.attributes
        )
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

    @classmethod
    def cost(cls, tally, depth, width, *, may_be_deep=False, in_registers=False):
        """With whoever counts its places: two counters, what it holds, what is free, a memory."""
        places = places_of(depth)
        counter_cost(tally, places, 2)
        credit_cost(tally, places)
        credit_cost(tally, places)
        tally.add(3, 1)
        if may_be_deep and is_deep(depth, width):
            tally.take(tally.tech.ram_cost(places, width, 1))
            tally.add(2, READ)
            cls.cost(tally, FRONT, width, in_registers=not tally.tech.rows)
        else:
            tally.memory(places, width, in_registers=in_registers)


class LinkFifo(wiring.Component):
    """Where a free-running producer ends: a FIFO, a stream with back-pressure behind it.

    Parameters
    ----------
    shape, depth
        of a beat; beats that are granted, at least, before any has left.
    target : str, optional
        of its Queue.

    Members
    -------
    i : In(Link(shape)), o : Out(stream.Signature(shape))
        beats leave as many cycles after they arrive, at the earliest, as the Queue takes.
    """

    def __init__(self, shape, depth, target=None):
        self.depth, self.target = depth, target
        super().__init__({"i": In(Link(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.i.payload.shape(), self.depth, self.target)
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
