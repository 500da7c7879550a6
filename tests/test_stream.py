"""The small stream parts, each one: values, cycles, stalls, reset in flight."""

import gc

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from rtl_bench import Bench, pack, play, unpack

from rtl_gen.network import convert_times
from rtl_gen.stage import Rom, delay, to_bits
from rtl_gen.stream import FIFO_LATENCY, Fork, FromStream, Gearbox, Link, LinkFifo, beat, counter, room

pairs = pytest.mark.parametrize("before, after", [(b, a) for b in range(1, 9) for a in range(1, 9)])


class Wire(wiring.Component):
    """A link that passes on what it gets, `cycles` later."""

    def __init__(self, shape, cycles):
        self.cycles = cycles
        super().__init__({"i": In(Link(shape)), "o": Out(Link(shape))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.i.ready.eq(self.o.ready),
            self.o.take.eq(self.i.take),
            self.o.valid.eq(delay(m, self.i.valid, self.cycles, "valid", reset=True)),
            self.o.payload.eq(delay(m, self.i.payload, self.cycles, "payload")),
        ]
        return m


def clocked(part, bench):
    m = Module()
    m.domains.sync = ClockDomain("sync")  # also for a part without registers
    m.submodules.part = part
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def words(count, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << bits, count).tolist()


@pytest.mark.parametrize("cycles, depth", [(0, 3), (0, 4), (1, 5), (5, 9), (2, 3)])
@pytest.mark.parametrize("stall", [0, 0.4, (0.9, 0), (0, 0.9)])
@pytest.mark.parametrize("reset_after", [None, 1, 17])
def test_link_fifo_loses_and_repeats_nothing(cycles, depth, stall, reset_after):
    part = Bench(Wire(beat(8, 2), cycles), depth)
    sent = words(60, 16)
    came, left = play(part, [(part.i, sent)], [(part.o, 60)], stall=stall, seed=1, reset_after=reset_after)
    assert left.beats == sent
    if not stall:
        assert left.seen[0] - came.moved[0] == cycles + FIFO_LATENCY
    if not stall and depth >= cycles + 4:
        # no bubbles at either end
        assert came.moved == list(range(60)) and np.ptp(np.diff(left.moved)) == 0


def test_link_fifo_takes_exactly_its_depth():
    """With a sink that never takes, `depth` beats are granted and no more."""
    for depth in (3, 4, 7):
        part = Bench(Wire(beat(4, 1), 2), depth)
        with pytest.raises(AssertionError, match=rf"hangs: \[{depth}, 0\] beats"):
            play(part, [(part.i, words(20, 4))], [(part.o, 1)], stall=(0, 1), limit=100)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_link_fifo_refuses_what_would_lose_beats():
    for depth in (0, 1, 2):
        with pytest.raises(ValueError, match=f"LinkFifo.depth must be 3 or more, got {depth}"):
            LinkFifo(beat(4, 1), depth)
    gc.collect()  # what was never finished is reported here


@pairs
def test_gearbox(before, after):
    width, elements = 5, before * after * 6
    x = np.random.default_rng(before * 9 + after).integers(-16, 16, elements)
    sent = pack(x.reshape(-1, before), width)
    for stall, reset_after in ((0, None), (0.4, None), ((0.8, 0), None), ((0, 0.8), None), (0.3, 5), (0, 4)):
        part = Gearbox(width, before, after)
        came, left = play(
            part, [(part.i, sent)], [(part.o, elements // after)], stall=stall, seed=3, reset_after=reset_after
        )
        assert np.array_equal(unpack(left.beats, width, after).ravel(), x)
        if not stall:
            # the schedule that the latency is computed from
            wanted = convert_times(np.arange(len(sent)), before, after, fifo=False)
            if before != after:
                assert left.seen == wanted.tolist()
            # one beat a cycle at the slower side
            slower = left.seen if before >= after else came.moved
            assert slower == list(range(slower[0], slower[0] + len(slower)))


@pytest.mark.parametrize("before, after", [(1, 1), (1, 4), (4, 1), (4, 6), (6, 4), (3, 7)])
def test_gearbox_ready_and_valid_wait_for_nobody(before, after):
    """`ready` looks at what is held, never at the other side's `ready`; `valid` likewise."""
    part, rng = Gearbox(3, before, after), np.random.default_rng(before)

    async def bench(ctx):
        for _ in range(80):
            shown = set()
            for i_valid, o_ready in ((0, 0), (0, 1), (1, 0), (1, 1)):
                ctx.set(part.i.valid, i_valid)
                ctx.set(part.o.ready, o_ready)
                shown.add((ctx.get(part.i.ready), ctx.get(part.o.valid)))
            assert len(shown) == 1
            ctx.set(part.i.valid, int(rng.integers(2)))
            ctx.set(part.o.ready, int(rng.integers(2)))
            await ctx.tick()

    clocked(part, bench)


class Forked(wiring.Component):
    """A stream through a fork to two streams, one with far less room than the other."""

    def __init__(self):
        signature = stream.Signature(beat(8, 1))
        super().__init__({"i": In(signature), "a": Out(signature), "b": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        shape = self.i.payload.shape()
        m.submodules.entry, m.submodules.fork = entry, fork = FromStream(shape), Fork(shape)
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        wiring.connect(m, entry.o, fork.i)
        for name, depth in (("a", 3), ("b", 9)):
            m.submodules[name] = queue = LinkFifo(shape, depth)
            wiring.connect(m, getattr(fork, name), queue.i)
            wiring.connect(m, queue.o, wiring.flipped(getattr(self, name)))
        return m


@pytest.mark.parametrize("stall", [0, 0.4, (0.8, 0), (0, 0.8)])
@pytest.mark.parametrize("reset_after", [None, 6])
def test_fork_gives_both_everything(stall, reset_after):
    part, sent = Forked(), words(80, 8)
    came, a, b = play(
        part, [(part.i, sent)], [(part.a, 80), (part.b, 80)], stall=stall, seed=2, reset_after=reset_after
    )
    assert a.beats == sent and b.beats == sent
    if not stall:
        assert a.seen[0] == b.seen[0] == came.moved[0] + FIFO_LATENCY


def test_from_stream_is_ready_where_there_is_room():
    part = FromStream(beat(8, 1))

    async def bench(ctx):
        for valid, ready in ((0, 0), (0, 1), (1, 0), (1, 1)):
            ctx.set(part.i.valid, valid)
            ctx.set(part.i.payload.as_value(), 7 + valid)
            ctx.set(part.o.ready, ready)
            assert ctx.get(part.i.ready) == ready
            assert ctx.get(part.o.take) == ctx.get(part.o.valid) == (valid and ready)
            assert ctx.get(part.o.payload.as_value()) == 7 + valid

    clocked(part, bench)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_rom_gives_its_words_in_order(size):
    rom, rng = Rom(words(size, 9, size), 9), np.random.default_rng(size)

    async def bench(ctx):
        place = 0
        for _ in range(5 * size + 10):
            step = int(rng.integers(2))
            ctx.set(rom.next, step)
            await ctx.tick()
            # the word that `next` of the cycle before was for
            if step:
                assert ctx.get(rom.data) == rom.words[place]
                place = (place + 1) % size

    clocked(rom, bench)


def test_words_of_bits():
    assert to_bits(np.array([[1, -1], [-8, 7]]), 4) == [0xF1, 0x78]
    assert to_bits(np.array([[[1], [2]], [[-1], [0]]]), 3) == [0b010_001, 0b000_111]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_counter(size):
    m, rng = Module(), np.random.default_rng(size)
    step, shown, shown_last = Signal(), Signal(8), Signal()
    value, last = counter(m, size, step, "n")
    m.d.comb += [shown.eq(value), shown_last.eq(last)]

    async def bench(ctx):
        count = 0
        for _ in range(60):
            assert (ctx.get(shown), ctx.get(shown_last)) == (count, count == size - 1)
            advance = int(rng.integers(2))
            ctx.set(step, advance)
            await ctx.tick()
            count = (count + advance) % size

    clocked(m, bench)


@pytest.mark.parametrize("places, by", [(1, 1), (2, 1), (4, 1), (8, 4), (12, 4), (15, 5), (16, 16)])
def test_room_counts_places(places, by):
    m, rng = Module(), np.random.default_rng(places)
    take, freed, shown = Signal(), Signal(), Signal()
    m.d.comb += shown.eq(room(m, places, take, freed, by=by))

    async def bench(ctx):
        free = places
        seen = set()
        for n in range(400):
            seen.add(free)
            assert ctx.get(shown) == (free > 0), free
            # mostly taking, then mostly giving back, so that both ends are met
            may_take = free > 0 and rng.random() < (0.9, 0.2)[n // 50 % 2]
            may_free = free + by <= places and rng.random() < (0.1, 0.9)[n // 50 % 2]
            ctx.set(take, may_take)
            ctx.set(freed, may_free)
            await ctx.tick()
            free += by * may_free - may_take
        assert {0, places} <= seen

    clocked(m, bench)
