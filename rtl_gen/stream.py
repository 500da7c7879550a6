"""Small stream parts: links with granted room, FIFOs behind them, and a change of lanes."""

from math import gcd, prod

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .tech.plain import registered

SMALL = 16  # values of a counter that is a table rather than an adder
ENTRY = 1  # cycles from a grant at a `FromStream` to the beat's arrival
ENTER = 4  # cycles through a `Pad`
QUEUE = 2  # places of a `LinkFifo` beyond those on their way, so that beats come without a gap
FIFO_LATENCY = 2  # cycles from a write into an empty `LinkFifo` to valid at its output


def element(*formats):
    """The narrowest Shape that holds numbers of each of some QFormats."""
    if any(q.signed for q in formats):
        return signed(max(q.operand for q in formats))
    return unsigned(max(q.width for q in formats))


def beat(number, lanes):
    """Shape of a beat: `lanes` elements, lane 0 in the low bits. number: their format; bits, where they only pass."""
    return data.ArrayLayout(signed(number) if isinstance(number, int) else element(number), lanes)


def numbers(bits, shape, count):
    """`count` values of a shape, the first in the low bits."""
    parts = (bits[n * shape.width :][: shape.width] for n in range(count))
    return [part.as_signed() if shape.signed else part for part in parts]


def delay(m, value, cycles, name, reset=False):
    """`value` registered `cycles` times, as `name_s1`, `name_s2`, ...; only control bits are reset."""
    for n in range(cycles if len(value) else 0):
        value = registered(m, value, f"{name}_s{n + 1}", reset)
    return value


class Link(wiring.Signature):
    """A stream whose room is granted ahead, so that whatever makes the beats may run free.

    `ready`: there is room for one more beat; the producer may `take` it in the same cycle. Each take is followed, in
    order, by one `valid` with its `payload`, which is never refused. Where the time between the two is the same for
    every beat, the parts along the way have no state of their own.
    """

    def __init__(self, shape):
        super().__init__({"ready": In(1), "take": Out(1), "valid": Out(1), "payload": Out(shape)})
        self.shape = shape


def counter(m, size, step, name, init=0):
    """A counter of 0..size-1 that advances with `step`; returns (value, whether it is at its last value)."""
    if size == 1:
        return Const(0, 0), Const(1, 1)
    value = Signal(range(size), name=name, init=init)
    last = value == size - 1
    if size > SMALL:
        last = Signal(name=f"{name}_last", init=init == size - 1)
    with m.If(step):
        if size > SMALL:
            m.d.sync += last.eq(value == size - 2)
        if size <= SMALL:
            with m.Switch(value):
                for n in range(size):
                    with m.Case(n):
                        m.d.sync += value.eq((n + 1) % size)
        elif size & (size - 1) == 0:
            m.d.sync += value.eq(value + 1)
        else:
            m.d.sync += value.eq(Mux(last, 0, value + 1))
    return value, last


def counter_cost(tally, size, count=1):
    """A table a bit for a small counter, else an adder, its comparison and the flag of its last value."""
    if size > 1:
        bits = (size - 1).bit_length()
        for _ in range(count):
            if size > SMALL:
                tally.adder(bits, bits, one=True)
                # what makes the flag, and the way back to zero where the adder does not wrap
                tally.add(bits / 3 + 1 + (bits if size & (size - 1) else 0), 1)
            else:
                tally.add(bits, bits)


def credit(m, size, given, taken, name, init=0, reserve=0):
    """Count what `given` adds and `taken` takes, 0 to `size`, `init` at first; returns whether there are more than
    `reserve`.

    Few are kept in unary, many as a number less what is asked for, so that its sign is the answer.
    """
    if size <= SMALL // 2:
        held = Signal(size, name=name, init=(1 << init) - 1)
        with m.If(given ^ taken):
            m.d.sync += held.eq(Mux(taken, held[1:], Cat(1, held)))
        return held[reserve]
    held = Signal(signed(size.bit_length() + 1), name=name, init=init - 1 - reserve)
    with m.If(given ^ taken):
        # one more, or one less, with one adder: 1 or -1 in two's complement
        m.d.sync += held.eq(held + Cat(1, taken.replicate(len(held) - 1)).as_signed())
    return ~held[-1]


def credit_cost(tally, size):
    """A bit a place for few, else an adder."""
    if size <= SMALL // 2:
        tally.add(size, size)
    else:
        tally.adder(size.bit_length() + 1, size.bit_length() + 1)


def count(m, values, name, reset=False):
    """The sum of many small numbers, an adder and a register a level; reset: of what must be forgotten with it."""
    level = 0
    while len(values) > 1:
        sums = []
        for n in range(0, len(values), 2):
            value = sum(values[n + 1 : n + 2], values[n])
            sums.append(Signal.like(value, name=f"{name}_{level}_{n // 2}", reset_less=not reset))
            m.d.sync += sums[-1].eq(value)
        values, level = sums, level + 1
    return values[0]


def count_cost(tally, values):
    """Of single bits: a level of sums, each a few bits wide."""
    bits = 1
    while values > 1:
        values, bits = values // 2, bits + 1
        tally.add(values * (bits if bits < 3 else bits + 1), values * bits)


def turns(m, start, more, most):
    """A cycle for `start` and each of the `more` that follow it, of which there are at most `most`.

    Returns (whether it is one, how many are left: in a start's own cycle, of the start before).
    """
    left = Signal(range(max(2, most + 1)))
    with m.If(start):
        m.d.sync += left.eq(more)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)
    return start | (left != 0), left


def gathered(m, word, places, arrives, complete, name):
    """The last `places` words that arrived, kept from the cycle after `complete` (with its last word) to the next
    one.
    """
    kept = Signal(places * len(word), name=name, reset_less=True)
    recent = Signal(len(kept) - len(word), name=f"{name}_recent", reset_less=True) if places > 1 else Cat()
    if places > 1:
        with m.If(arrives):
            m.d.sync += recent.eq(Cat(recent, word)[len(word) :])
    with m.If(complete):
        m.d.sync += kept.eq(Cat(recent, word))
    return kept


def digits(m, sizes, step, name):
    """Nested counters, the first one fastest, that advance with `step`: values, and whether each is at its last value.

    Neighbours whose sizes are powers of two share one counter.
    """
    values, lasts, n = [], [], 0
    while n < len(sizes):
        group = [sizes[n]]
        while n + len(group) < len(sizes) and all(size & (size - 1) == 0 for size in (*group, sizes[n + len(group)])):
            group.append(sizes[n + len(group)])
        size = prod(group)
        enable = step
        for last in lasts:
            enable = enable & last
        value, _ = counter(m, size, enable, f"{name}_{n}")
        at = 0
        for part in group:
            bits = (part - 1).bit_length()
            digit = value[at : at + bits] if bits else Const(0, 0)
            values.append(digit)
            lasts.append(digit == part - 1 if bits else Const(1, 1))
            at += bits
        n += len(group)
    return values, lasts


def digits_cost(tally, *sizes):
    together = 1
    for size in (*sizes, 0):
        if size & (size - 1) == 0 and size:
            together *= size
            continue
        counter_cost(tally, together)
        together = 1
        counter_cost(tally, size)


class FromStream(wiring.Component):
    """A stream with back-pressure to a link: a beat arrives ENTRY cycles after it is granted."""

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
    """A link to two: a beat is granted where both have room for it."""

    def __init__(self, shape):
        super().__init__({"i": In(Link(shape)), "a": Out(Link(shape)), "b": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(self.a.ready & self.b.ready)
        for side in (self.a, self.b):
            m.d.comb += [side.take.eq(self.i.take), side.valid.eq(self.i.valid), side.payload.eq(self.i.payload)]
        return m


class Queue(wiring.Component):
    """A FIFO that is never written when it is full: `write`, and `payload` to the stream `o`, FIFO_LATENCY cycles
    later.

    Whoever writes counts the places, the next power of two from `depth` up; `pop` gives one back. A word more waits in
    the output register.
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
    """Where a free-running producer ends: a FIFO of `depth` beats or more, a stream with back-pressure behind it."""

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

    Not ready in the first cycle.
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
