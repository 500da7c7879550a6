"""The small stream parts, each one: values, cycles, stalls, reset in flight."""

import re

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from rtl_bench import Bench, pack, play, unpack

from rtl_gen.engines.words import LEAD, ordered, to_bits
from rtl_gen.fifo import DEEP_LATENCY, ENTER, FIFO_LATENCY, FRONT, QUEUE, LinkFifo, Pad, fifo_latency, is_deep
from rtl_gen.schedule import convert_times
from rtl_gen.signals import SMALL, beat, count, counter, credit, delay, digits
from rtl_gen.stream import ENTRY, Fork, FromStream, Gearbox, Link, Skid
from rtl_gen.tech import technology

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


@pytest.mark.parametrize("cycles, depth", [(0, 1), (0, 3), (1, 4), (2, 5), (5, 8), (5, 16), (2, 3)])
@pytest.mark.parametrize("stall", [0, 0.4, (0.9, 0), (0, 0.9)])
@pytest.mark.parametrize("reset_after", [None, 1, 17])
def test_link_fifo_loses_and_repeats_nothing(cycles, depth, stall, reset_after):
    part = Bench(Wire(beat(8, 2), cycles), depth)
    sent = words(60, 16)
    came, left = play(part, [(part.i, sent)], [(part.o, 60)], stall=stall, seed=1, reset_after=reset_after)
    assert left.beats == sent
    if not stall:
        assert left.seen[0] - came.moved[0] == ENTRY + cycles + FIFO_LATENCY
    if not stall and depth >= ENTRY + cycles + QUEUE:
        # no bubbles at either end
        assert came.moved == list(range(60)) and np.ptp(np.diff(left.moved)) == 0


@pytest.mark.parametrize("stall, reset_after", [(0, None), (0.4, 40), ((0, 0.7), 110)])
def test_deep_link_fifo_loses_and_repeats_nothing(stall, reset_after):
    """In block RAM with the register behind it, filled to its last place where the sink stalls."""
    part, sent = Bench(Wire(beat(32, 1), 3), 40, "plain"), words(160, 32)
    came, left = play(part, [(part.i, sent)], [(part.o, 160)], stall=stall, seed=4, reset_after=reset_after)
    assert left.beats == sent
    if not stall:
        assert left.seen[0] - came.moved[0] == ENTRY + 3 + DEEP_LATENCY == ENTRY + 3 + fifo_latency(40, 32)
        # no bubbles at either end
        assert came.moved == list(range(160)) and np.ptp(np.diff(left.moved)) == 0


def test_deep_link_fifo_takes_exactly_what_it_holds():
    """Its places, FRONT more behind them and one in the output register."""
    part = Bench(Wire(beat(32, 1), 2), 64, "plain")
    with pytest.raises(AssertionError, match=rf"hangs: \[{64 + FRONT + 1}, 0\] beats"):
        play(part, [(part.i, words(90, 32))], [(part.o, 1)], stall=(0, 1), limit=200)


def test_which_fifos_are_deep():
    """None of few places, and none that distributed RAM holds cheaper."""
    tried = [(places, width) for places in (32, 64, 128, 256, 1024) for width in (1, 4, 8, 28, 29, 64)]
    deep = {fifo for fifo in tried if is_deep(*fifo)}
    assert deep == {(64, 29), (64, 64), (128, 28), (128, 29), (128, 64)} | {
        (places, width) for places in (256, 1024) for width in (8, 28, 29, 64)
    } | {(1024, 1), (1024, 4)}


def test_link_fifo_takes_exactly_what_it_holds():
    """With a sink that never takes: the next power of two from `depth` up, and one more for the output register."""
    for depth in (1, 3, 4, 9):
        part = Bench(Wire(beat(4, 1), 2), depth)
        places = 1 << (depth - 1).bit_length()
        with pytest.raises(AssertionError, match=rf"hangs: \[{places + 1}, 0\] beats"):
            play(part, [(part.i, words(40, 4))], [(part.o, 1)], stall=(0, 1), limit=100)


@pairs
def test_gearbox(before, after):
    width, elements = 5, before * after * 6
    x = np.random.default_rng(before * 9 + after).integers(-16, 16, elements)
    sent = pack(x.reshape(-1, before), width)
    part = Gearbox(width, before, after)
    for stall, reset_after in ((0, None), (0.4, None), ((0.8, 0), None), ((0, 0.8), None), (0.3, 5), (0, 4)):
        came, left = play(
            part, [(part.i, sent)], [(part.o, elements // after)], stall=stall, seed=3, reset_after=reset_after
        )
        assert np.array_equal(unpack(left.beats, width, after).ravel(), x)
        if not stall:
            # the schedule that the latency is computed from
            wanted = convert_times(np.arange(len(sent)), before, after, fifo=0)
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
        assert a.seen[0] == b.seen[0] == came.moved[0] + ENTRY + FIFO_LATENCY


def test_from_stream_is_ready_where_there_is_room():
    part = FromStream(beat(8, 1))

    async def bench(ctx):
        for n in range(8):
            valid, ready = n & 1, n >> 1 & 1
            ctx.set(part.i.valid, valid)
            ctx.set(part.i.payload.as_value(), 7 + n)
            ctx.set(part.o.ready, ready)
            assert ctx.get(part.i.ready) == ready and ctx.get(part.o.take) == (valid and ready)
            for _ in range(ENTRY):
                await ctx.tick()
            assert ctx.get(part.o.valid) == (valid and ready)
            assert not ctx.get(part.o.valid) or ctx.get(part.o.payload.as_value()) == 7 + n

    clocked(part, bench)


@pytest.mark.parametrize("stall", [0, 0.4, (0.9, 0), (0, 0.9)])
@pytest.mark.parametrize("reset_after", [None, 1, 17])
def test_skid_loses_nothing_and_takes_no_cycle(stall, reset_after):
    part, sent = Skid(beat(8, 2)), words(60, 16)
    came, left = play(part, [(part.i, sent)], [(part.o, 60)], stall=stall, seed=6, reset_after=reset_after)
    assert left.beats == sent
    if not stall:
        assert came.moved == left.moved == list(range(60))


def test_skid_is_ready_whoever_stalls():
    """It keeps one beat, and its `ready` is that of the cycle before, whatever `o` says."""
    part = Skid(beat(8, 1))

    async def bench(ctx):
        ctx.set(part.i.valid, 1)
        for kept in range(2):
            ctx.set(part.i.payload.as_value(), 5 + kept)
            for ready in (1, 0):
                ctx.set(part.o.ready, ready)
                assert ctx.get(part.i.ready) == (not kept) and ctx.get(part.o.valid)
                assert ctx.get(part.o.payload.as_value()) == 5
            await ctx.tick()

    clocked(part, bench)


@pytest.mark.parametrize("stall", [0, 0.4, (0.9, 0), (0, 0.9)])
@pytest.mark.parametrize("reset_after", [None, 0, 1, 3, 17])
def test_pad_loses_nothing_and_passes_a_beat_a_cycle(stall, reset_after):
    part, sent = Pad(beat(8, 2)), words(60, 16)
    came, left = play(part, [(part.i, sent)], [(part.o, 60)], stall=stall, seed=1, reset_after=reset_after)
    assert left.beats == sent
    if not stall:
        # not ready in the first cycle
        assert came.moved == list(range(1, 61)) and left.moved == [cycle + ENTER for cycle in came.moved]


def test_pad_fills_up_and_is_registered():
    """With a sink that never takes it fills all its places and a register; `ready` and `valid` wait for nobody."""
    part = Pad(beat(4, 1))
    with pytest.raises(AssertionError, match=rf"hangs: \[{Pad.DEPTH + 1}, 0\] beats"):
        play(part, [(part.i, words(40, 4))], [(part.o, 1)], stall=(0, 1), limit=100)
    part, rng = Pad(beat(4, 1)), np.random.default_rng(1)

    async def bench(ctx):
        for _ in range(200):
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


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 20])
def test_words_in_order(size):
    """A ROM's word comes LEAD cycles after its address."""
    rng, table = np.random.default_rng(size), words(size, 9, size)
    m, step, shown = Module(), Signal(), Signal(9)
    address, _ = counter(m, size, step, "n")
    m.d.comb += shown.eq(ordered(m, technology("plain"), "rom", table, 9, address))

    async def bench(ctx):
        place, wanted = 0, []
        for _ in range(5 * size + 10):
            wanted.append(table[place])
            advance = int(rng.integers(2))
            ctx.set(step, advance)
            if len(wanted) > LEAD:
                assert ctx.get(shown) == wanted[-1 - LEAD]
            await ctx.tick()
            place = (place + advance) % size

    clocked(m, bench)


def test_words_of_bits():
    assert to_bits(np.array([[1, -1], [-8, 7]]), 4) == [0xF1, 0x78]
    assert to_bits(np.array([[[1], [2]], [[-1], [0]]]), 3) == [0b010_001, 0b000_111]


@pytest.mark.parametrize("size", [1, 2, 5, 8, SMALL, SMALL + 1, 23, 2 * SMALL])
def test_counter(size):
    m, rng = Module(), np.random.default_rng(size)
    step, shown, shown_last = Signal(), Signal(8), Signal()
    value, last = counter(m, size, step, "n")
    m.d.comb += [shown.eq(value), shown_last.eq(last)]
    assert (repr(last) == "(sig n_last)") == (size > SMALL)  # a register of its own

    async def bench(ctx):
        count = 0
        for _ in range(8 * size + 40):
            assert (ctx.get(shown), ctx.get(shown_last)) == (count, count == size - 1)
            advance = int(rng.integers(2))
            ctx.set(step, advance)
            await ctx.tick()
            count = (count + advance) % size

    clocked(m, bench)


@pytest.mark.parametrize(
    "sizes, owners",
    [
        ((1,), "-"),
        ((5,), "0"),
        ((1, 1), "--"),
        ((2, 4, 8), "000"),
        ((2, 1, 4), "0-0"),
        ((1, 2, 1), "-0-"),
        ((2, 3, 4, 2), "0122"),
        ((2, 4, 3, 2, 2), "00233"),
        ((3, 1, 2), "0-1"),
        ((3, 5), "01"),
        ((2, 2, 3, 1, 4), "002-3"),
        ((17, 2), "01"),
    ],
)
def test_digits(sizes, owners):
    """The digits of a number that counts up, and which are full; neighbours of powers of two share a counter."""
    m, rng = Module(), np.random.default_rng(len(sizes))
    step, values, lasts = Signal(), [Signal(8) for _ in sizes], [Signal() for _ in sizes]
    got, full = digits(m, sizes, step, "n")
    m.d.comb += [shown.eq(value) for shown, value in zip([*values, *lasts], [*got, *full])]
    assert [re.findall(r"sig n_(\d)", repr(digit)) for digit in got] == [[n] if n != "-" else [] for n in owners]

    async def bench(ctx):
        number = 0
        for _ in range(3 * int(np.prod(sizes)) + 10):
            place = number
            for size, value, last in zip(sizes, values, lasts):
                place, digit = divmod(place, size)
                assert (ctx.get(value), ctx.get(last)) == (digit, digit == size - 1)
            advance = int(rng.random() < 0.8)
            ctx.set(step, advance)
            await ctx.tick()
            number += advance

    clocked(m, bench)


@pytest.mark.parametrize("numbers", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("width", [1, 3])
def test_count(numbers, width):
    """The sum of all numbers of a cycle, a cycle a level later."""
    m, rng = Module(), np.random.default_rng(numbers)
    values, total, cycles = [Signal(width) for _ in range(numbers)], Signal(8), (numbers - 1).bit_length()
    m.d.comb += total.eq(count(m, values, "n"))

    async def bench(ctx):
        wanted = []
        for n in range(40):
            row = rng.integers(0, 1 << width, numbers) if n else np.full(numbers, (1 << width) - 1)
            wanted.append(int(row.sum()))
            for value, number in zip(values, row):
                ctx.set(value, int(number))
            if len(wanted) > cycles:
                assert ctx.get(total) == wanted[-1 - cycles]
            await ctx.tick()

    clocked(m, bench)


@pytest.mark.parametrize("empty, reserve", [(False, 0), (True, 0), (False, 1)])
@pytest.mark.parametrize("size", [2, 3, 4, SMALL // 2, SMALL // 2 + 1, 12, 15, 16])
def test_credit(size, empty, reserve):
    """What is given and taken, in unary and as a number, from none or all; more than the reserve or not."""
    m, rng = Module(), np.random.default_rng(size)
    given, taken, shown = Signal(), Signal(), Signal()
    init = 0 if empty else size
    m.d.comb += shown.eq(credit(m, size, given, taken, "n", init=init, reserve=reserve))

    async def bench(ctx):
        held, seen = init, set()
        for n in range(400):
            seen.add(held)
            assert ctx.get(shown) == (held > reserve), held
            # mostly taking, then mostly giving back, so that both ends are met
            take = held > 0 and rng.random() < (0.9, 0.2)[n // 50 % 2]
            give = (held < size or take) and rng.random() < (0.1, 0.9)[n // 50 % 2]
            ctx.set(taken, take)
            ctx.set(given, give)
            await ctx.tick()
            held += give - take
        assert seen == set(range(size + 1))

    clocked(m, bench)
