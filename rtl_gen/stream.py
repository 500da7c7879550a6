"""Small stream parts: links with granted room, and a change of lanes."""

from math import gcd

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .signals import beat, counter, counter_cost

ENTRY = 1  # cycles from a grant at a `FromStream` to the beat's arrival


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


class Skid(wiring.Component):
    """A stream whose `ready` is a register: a beat that comes when `o` stalls is kept aside. No cycle later.

    Parameters
    ----------
    shape
        of a beat.

    Members
    -------
    i : In(stream.Signature(shape)), o : Out(stream.Signature(shape))
    """

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        payload = self.i.payload.as_value()
        aside = Signal.like(payload, name="aside", reset_less=True)
        held = Signal()
        m.d.comb += [
            self.i.ready.eq(~held),
            self.o.valid.eq(self.i.valid | held),
            self.o.payload.as_value().eq(Mux(held, aside, payload)),
        ]
        m.d.sync += held.eq(self.o.valid & ~self.o.ready)
        with m.If(~held):
            m.d.sync += aside.eq(payload)
        return m

    @staticmethod
    def cost(tally, width):
        tally.add(width + 2, width + 1)


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

        Two beats of the wider side or, where that is the one that leaves, a beat less of the narrower. Where neither
        is a whole number of the other, beats out without a gap: one more is taken up to level 2*after - 1; and in: the
        level reaches after - 1 + before at most before a beat leaves.
        """
        wide, narrow = max(before, after), min(before, after)
        return 2 * wide + (narrow if wide % narrow else -narrow if after == wide else 0)

    def elaborate(self, platform):
        if self.before % self.after == 0:
            return self._to_parts(self.before // self.after)
        return self._from_parts(self.after // self.before) if self.after % self.before == 0 else self._to_any()

    def _to_parts(self, number):
        """A beat leaves in so many parts while the next one waits."""
        m, bits = Module(), self.after * self.width
        here, waiting = (Signal.like(self.i.payload.as_value(), name=n, reset_less=True) for n in ("here", "waiting"))
        full, push, pop, load, free = (Signal(name=name) for name in ("full", "push", "pop", "load", "free"))
        _, last = counter(m, number, pop, "part")
        m.d.comb += [
            self.i.ready.eq(~full),
            push.eq(self.i.valid & ~full),
            pop.eq(self.o.valid & self.o.ready),
            free.eq(~self.o.valid | (pop & last)),
            load.eq(free & (full | push)),
            self.o.payload.eq(here[:bits]),
        ]
        m.d.sync += [full.eq((full | push) & ~free), self.o.valid.eq(load | ~free)]
        with m.If(push):
            m.d.sync += waiting.eq(self.i.payload)
        with m.If(load):
            m.d.sync += here.eq(Mux(full, waiting, self.i.payload))
        with m.Elif(pop):
            m.d.sync += here[:-bits].eq(here[bits:])
        return m

    def _from_parts(self, number):
        """So many beats leave as one, while the next ones come, but for the last of them."""
        m, payload = Module(), self.i.payload.as_value()
        parts = Signal((number - 1) * len(payload), reset_less=True)
        whole = Signal(number * len(payload), reset_less=True)
        push = Signal()
        _, last = counter(m, number, push, "part")
        m.d.comb += [
            self.i.ready.eq(~(last & self.o.valid)),
            push.eq(self.i.valid & self.i.ready),
            self.o.payload.eq(whole),
        ]
        m.d.sync += self.o.valid.eq((push & last) | (self.o.valid & ~self.o.ready))
        with m.If(push):
            m.d.sync += parts.eq(Cat(parts, payload)[len(payload) :])
        with m.If(push & last):
            m.d.sync += whole.eq(Cat(parts, payload))
        return m

    def _to_any(self):
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
        """Each place that is chosen for: of what stays, what moves and what comes."""
        places = cls.capacity(before, after)
        if before % after == 0:
            tally.add((2 * before - after) * width + 5, places * width + 2)
            counter_cost(tally, before // after)
        elif after % before == 0:
            tally.add(4, places * width + 1)
            counter_cost(tally, after // before)
        else:
            tally.add(places * width * 2.5 + 12, places * width + places.bit_length())
