"""The AXI4-Stream top in Amaranth's simulator: frames, lanes, errors, reset; outputs follow clock edges alone."""

import random

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator
from rtl_bench import extremes, factor_of, one_by_one, pack, plan_of, random_spec, side_by_side

from bfthw import IntFactor, IntLayer, IntNetwork, QFormat
from rtl_gen import AxiStream
from rtl_gen import top as top_module
from rtl_gen.top import lane_bytes


def spec_of(shape=((1, 2, 2, 4), (4, 2, 2, 1)), lanes=(2, 2), x=QFormat(6, 3), out=9, skip="one", vectors=1):
    factors, q = [], x
    for m, pattern in enumerate(shape):
        last = m == len(shape) - 1
        rest = {"skip": skip, "skip_input": x} if last and skip else {}
        factors.append(factor_of(pattern, m, x=q, drop=3, out=out if last else 8, **rest))
        q = factors[-1].output
    return plan_of(IntNetwork(layers=(IntLayer(factors=tuple(factors)),)), lanes=lanes, vectors=vectors)


def tdata(beats, width, noise=None):
    """Integers (beats, lanes) to words of whole bytes a lane; noise: a generator that fills the bits above `width`."""
    size, words = lane_bytes(width), []
    for row in beats:
        word = 0
        for n, value in enumerate(row):
            bits = int(value) & ((1 << width) - 1)
            if noise:
                bits |= noise.getrandbits(8 * size - width) << width if 8 * size > width else 0
            word |= bits << (8 * size * n)
        words.append(word)
    return words


def lanes_of(word, width, lanes):
    """Sign-extended lanes of whole bytes; every bit above the sign has to repeat it."""
    bits = 8 * lane_bytes(width)
    values = []
    for n in range(lanes):
        raw = word >> (bits * n) & ((1 << bits) - 1)
        value = raw - (1 << bits) if raw >> (bits - 1) else raw
        assert -(1 << (width - 1)) <= value < 1 << (width - 1)
        values.append(value)
    assert word >> (bits * lanes) == 0
    return values


class Axi:
    """A top with its clock driven by hand."""

    def __init__(self, spec):
        self.spec, self.top = spec, AxiStream(spec)

    def run(self, body):
        async def bench(ctx):
            self.ctx = ctx
            await body()

        simulator = Simulator(self.top)
        simulator.add_testbench(bench)
        simulator.run()

    async def edge(self):
        self.ctx.set(self.top.aclk, 1)
        await self.ctx.delay(1e-6)
        self.ctx.set(self.top.aclk, 0)
        await self.ctx.delay(1e-6)

    async def reset(self, cycles=2):
        ctx, top = self.ctx, self.top
        ctx.set(top.aresetn, 0)
        for _ in range(cycles):
            # offered in reset, so never taken
            ctx.set(top.s_axis_tvalid, 1)
            await self.edge()
            assert ctx.get(top.s_axis_tready) == 0
        ctx.set(top.s_axis_tvalid, 0)
        ctx.set(top.aresetn, 1)

    async def play(self, frames, count, stall=0.0, seed=0, limit=20_000, wait=0):
        """Frames are lists of words; returns output frames as lists of (tdata, tuser).

        wait: cycles in which the sink takes nothing at first.
        Cycles in which beats went in are in `taken`, those in which beats went out in `given`, the sum of what was
        clipped in `clipped`.
        """
        ctx, top, rng = self.ctx, self.top, random.Random(seed)
        beats = [(word, n == len(frame) - 1) for frame in frames for n, word in enumerate(frame)]
        place, offered, result, frame, held = 0, False, [], [], None
        self.taken, self.given, self.clipped = [], [], 0
        for cycle in range(limit):
            if len(result) == count:
                break
            if not offered and place < len(beats) and rng.random() >= stall:
                ctx.set(top.s_axis_tdata, beats[place][0])
                ctx.set(top.s_axis_tlast, beats[place][1])
                offered = True
            ctx.set(top.s_axis_tvalid, offered)
            ready = rng.random() >= stall and cycle >= wait
            ctx.set(top.m_axis_tready, ready)
            if ctx.get(top.m_axis_tvalid):
                shown = (ctx.get(top.m_axis_tdata), ctx.get(top.m_axis_tuser), ctx.get(top.m_axis_tlast))
                assert held in (None, shown), "a beat did not hold"
                held = None if ready else shown
                if ready:
                    self.given.append(cycle)
                    frame.append(shown[:2])
                    if shown[2]:
                        result.append(frame)
                        frame = []
            else:
                assert held is None
            if offered and ctx.get(top.s_axis_tready):
                place, offered = place + 1, False
                self.taken.append(cycle)
            self.clipped += ctx.get(top.saturated)
            await self.edge()
        assert len(result) == count, f"{len(result)} frames of {count} came out"
        ctx.set(top.s_axis_tvalid, 0)
        ctx.set(top.m_axis_tready, 0)
        return result

    def errors(self):
        return self.ctx.get(self.top.frame_error), self.ctx.get(self.top.frame_errors)


def check_frames(spec, frames, stall=0.0, seed=0, wait=0):
    """Frames of any length (integers, whole beats) through a top, against the contract; returns the top."""
    q, axi, size = spec.network, Axi(spec), spec.network.inputs * spec.vectors
    lanes_in, lanes_out = spec.lanes_in * spec.vectors, spec.lanes_out * spec.vectors
    whole = np.array([np.concatenate([frame, np.zeros(size, int)])[:size] for frame in frames])
    wrong = [len(frame) != size for frame in frames]
    wanted = side_by_side(q(one_by_one(whole, spec.vectors)), spec.vectors)
    noise = random.Random(seed)
    words = [tdata(np.reshape(frame, (-1, lanes_in)), q.input.width, noise) for frame in frames]

    async def body():
        await axi.reset()
        got = await axi.play(words, len(frames), stall, seed, wait=wait)
        for n, frame in enumerate(got):
            assert len(frame) == spec.beats_out, f"frame {n}"
            values = [v for word, _ in frame for v in lanes_of(word, q.output.width, lanes_out)]
            assert values == wanted[n].tolist(), f"frame {n}"
            assert [user for _, user in frame] == [0] * (len(frame) - 1) + [wrong[n]], f"frame {n}"
        assert axi.errors() == (any(wrong), sum(wrong))
        # sticky, and gone after a reset
        for _ in range(5):
            await axi.edge()
        assert axi.errors() == (any(wrong), sum(wrong))
        await axi.reset()
        assert axi.errors() == (0, 0)

    axi.run(body)
    return axi.top


def vectors_of(spec, count, seed=0):
    """Frames of right length: a vector each, or some side by side."""
    return list(extremes(np.random.default_rng(seed), spec.network.input, (count, spec.network.inputs * spec.vectors)))


@pytest.mark.parametrize("stall", [0, 0.4])
def test_right_frames(stall):
    for vectors in (1, 3):
        spec = spec_of(vectors=vectors)
        check_frames(spec, vectors_of(spec, 8), stall)


@pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
def test_latency_interval_and_saturations(seed):
    """Those of the specification and of the golden model, at full speed."""
    spec = random_spec(seed, largest=32, weights=100)
    print(f"seed {seed}, vectors {spec.vectors}:", [(str(s.pattern), s.lanes, s.simd) for s in spec.engines])
    q, axi = spec.network, Axi(spec)
    frames = vectors_of(spec, max(10, 2 * spec.latency // spec.interval), seed)
    words = [tdata(np.reshape(frame, (-1, spec.lanes_in * spec.vectors)), q.input.width) for frame in frames]
    x = one_by_one(np.array(frames), spec.vectors)
    clipped = sum(int(factor.saturated(acc).sum()) for factor, acc, _ in q.accumulators(x))

    async def body():
        await axi.reset()
        await axi.play(words, len(frames))
        firsts = axi.given[:: spec.beats_out]
        half = firsts[len(firsts) // 2 :]
        assert firsts[0] - axi.taken[0] == spec.latency
        assert half[-1] - half[0] == spec.interval * (len(half) - 1)
        for _ in range(24):
            axi.clipped += axi.ctx.get(axi.top.saturated)
            await axi.edge()
        assert axi.clipped == clipped

    axi.run(body)


@pytest.mark.parametrize("length", range(1, 4))
def test_short_frame_is_filled_with_zeros(length):
    spec = spec_of()
    frames = vectors_of(spec, 6)
    frames[2] = frames[2][: 2 * length]
    check_frames(spec, frames)
    check_frames(spec, frames, 0.4)


@pytest.mark.parametrize("extra", [1, 3, 4, 9])
def test_surplus_of_a_long_frame_is_dropped(extra):
    spec = spec_of()
    frames = vectors_of(spec, 6)
    frames[2] = np.concatenate([frames[2], np.resize(frames[0], 2 * extra)])
    check_frames(spec, frames)
    check_frames(spec, frames, 0.4)


@pytest.mark.parametrize("seed", range(12), ids="seed-{}".format)
def test_frames_of_any_length(seed):
    rng = np.random.default_rng(seed)
    lanes = [(1, 1), (2, 4), (4, 2), (8, 8), (1, 8), (8, 1)][seed % 6]
    spec = spec_of(lanes=lanes, skip=[None, "one"][seed % 2], vectors=1 + seed % 5 // 4)
    frames = []
    for vector in vectors_of(spec, 20, seed):
        beats = spec.beats_in if rng.random() < 0.4 else int(rng.integers(1, 2 * spec.beats_in + 3))
        frames.append(np.resize(vector, beats * lanes[0] * spec.vectors))
    check_frames(spec, frames, float(rng.choice([0, 0.3, 0.6])), seed)


@pytest.mark.parametrize("seed", [0, 2, 3], ids="seed-{}".format)
def test_everything_full(seed):
    """A sink that waits until nothing more goes in, while wrong frames and right ones are inside."""
    spec = random_spec(seed, largest=16, weights=60) if seed else spec_of(lanes=(8, 8), skip=None)
    print(f"seed {seed}, vectors {spec.vectors}:", [(str(s.pattern), s.lanes, s.simd) for s in spec.engines])
    count = 2 * spec.frames_in_flight + 2 * spec.exit_depth // spec.beats_out + 8
    frames = vectors_of(spec, count, seed)
    for n in np.flatnonzero(np.random.default_rng(seed).integers(2, size=count)):
        frames[n] = np.concatenate([frames[n], frames[n][: spec.lanes_in * spec.vectors]])
    check_frames(spec, frames, wait=count * (max(spec.interval, spec.beats_in) + 1) + 2 * spec.latency)


@pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
def test_vectors_of_one_beat(seed):
    """TLAST on every beat is right; the surplus of a long frame is all but its first beat."""
    rng = np.random.default_rng(seed)
    spec = spec_of(lanes=(8, 8), skip=None)
    assert spec.beats_in == spec.beats_out == 1
    frames = [np.resize(v, 8 * int(rng.choice([1, 1, 2, 5]))) for v in vectors_of(spec, 20, seed)]
    check_frames(spec, frames, [0, 0, 0.3, 0.6][seed], seed)


@pytest.mark.parametrize("width", range(3, 18))
def test_lane_packing_for_every_width(width):
    """Input and output of the same width through a factor that passes everything on."""
    q = QFormat(width, 0)
    factor = IntFactor(values=np.ones((1, 1, 1, 4), int), input=q, weights=QFormat(2, 0), output=q)
    spec = plan_of(IntNetwork(layers=(IntLayer(factors=(factor,)),)), lanes=(4,))
    frames = [np.array([q.lo, q.hi, -1, 0]), np.array([0, 1, q.lo, q.lo]), *vectors_of(spec, 4, width)]
    top = check_frames(spec, frames)
    assert len(top.s_axis_tdata) == len(top.m_axis_tdata) == 4 * 8 * (-(-width // 8))


def test_lanes_are_low_first():
    """Lane 0 is the lowest index and in the low bytes: the packing itself, written out."""
    assert tdata([[1, -2]], 6) == [0x3E_01] and tdata([[1, -2]], 12) == [0x0FFE_0001]
    assert lanes_of(0xFE_01, 6, 2) == [1, -2] and lanes_of(0xFFFE_0001, 12, 2) == [1, -2]
    assert pack([[1, -2]], 6) == [0b111110_000001]


def test_counter_stays_at_its_largest_value(monkeypatch):
    assert top_module.ERRORS_BITS == 16
    monkeypatch.setattr(top_module, "ERRORS_BITS", 3)
    spec = spec_of()
    q, axi = spec.network, Axi(spec)
    short = [tdata(np.reshape(v[:2], (-1, 2)), q.input.width) for v in vectors_of(spec, 11)]

    async def body():
        await axi.reset()
        for n, frame in enumerate(short):
            assert axi.errors() == (n > 0, min(n, 7))
            await axi.play([frame], 1)
        assert axi.errors() == (1, 7)

    axi.run(body)


@pytest.mark.parametrize("cycles", [1, 3, 6, 11, 18, 25, 40])
def test_reset_in_flight(cycles):
    """After a reset in the middle of frames, even of wrong ones, nothing of them is left."""
    spec = spec_of()
    q, axi = spec.network, Axi(spec)
    vectors = vectors_of(spec, 6)
    words = [tdata(np.reshape(v, (-1, 2)), q.input.width) for v in vectors]
    wrong = [words[0][:1], words[1] + words[2], words[3], words[4][:2]]

    async def body():
        await axi.reset()
        with pytest.raises(AssertionError, match="came out"):
            await axi.play(wrong, 99, limit=cycles)
        await axi.reset(1)
        assert axi.errors() == (0, 0)
        got = await axi.play(words, len(words), 0.2, cycles)
        values = [[v for word, _ in frame for v in lanes_of(word, q.output.width, 2)] for frame in got]
        assert values == q(np.array(vectors)).tolist()
        assert not any(user for frame in got for _, user in frame)

    axi.run(body)


@pytest.mark.parametrize("clock", [True, False])
def test_nothing_is_accepted_from_the_moment_of_reset(clock):
    """tready falls with the reset itself, not with the clock edge after it: a beat taken there would be lost."""
    top = AxiStream(spec_of(), clock=clock)
    m = Module()
    m.submodules.top = top
    domain = ClockDomain("sync")
    if not clock:
        m.domains.sync = domain
    clk, reset, active = (top.aclk, top.aresetn, 0) if clock else (domain.clk, domain.rst, 1)

    async def bench(ctx):
        async def edges(count):
            for _ in range(count):
                ctx.set(clk, 1)
                await ctx.delay(1e-6)
                ctx.set(clk, 0)
                await ctx.delay(1e-6)

        ctx.set(top.s_axis_tvalid, 1)
        ctx.set(reset, active)
        await edges(2)
        for cycles in (1, 4, 9):
            ctx.set(reset, 1 - active)
            await edges(cycles)
            before = ctx.get(top.s_axis_tready)
            ctx.set(reset, active)
            await ctx.delay(1e-7)
            assert (before, ctx.get(top.s_axis_tready)) == (1, 0), cycles
            await edges(1)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


def test_no_output_follows_an_input_at_once():
    """Outputs change at clock edges alone (aresetn apart): what a bench that samples between the edges relies on."""
    for lanes, skip in (((2, 2), "one"), ((8, 8), None), ((1, 4), "one")):
        spec = spec_of(lanes=lanes, skip=skip)
        axi, rng = Axi(spec), random.Random(1)
        top = axi.top
        outputs = [
            top.s_axis_tready,
            top.m_axis_tdata,
            top.m_axis_tvalid,
            top.m_axis_tlast,
            top.m_axis_tuser,
            top.frame_error,
            top.frame_errors,
        ]
        inputs = [top.s_axis_tdata, top.s_axis_tlast, top.s_axis_tvalid, top.m_axis_tready]

        async def body():
            await axi.reset()
            states = set()
            for cycle in range(400):
                ctx, shown = axi.ctx, set()
                for trial in range(8):
                    for port in inputs:
                        ctx.set(port, rng.getrandbits(len(port)))
                    if trial < 4:
                        ctx.set(top.s_axis_tvalid, trial & 1)
                        ctx.set(top.m_axis_tready, trial >> 1)
                    await ctx.delay(1e-8)
                    shown.add(tuple(ctx.get(port) for port in outputs))
                assert len(shown) == 1, f"cycle {cycle}: {shown}"
                states |= {(s[0], s[2]) for s in shown}
                # long waits too, so that everything is full and empty at times
                ctx.set(top.m_axis_tready, cycle % 200 > 120)
                ctx.set(top.s_axis_tvalid, cycle % 200 < 150)
                await axi.edge()
            assert {(0, 1), (1, 0), (1, 1)} <= states

        axi.run(body)
