"""The small print of docs/integration.md: what it says of reset, stalls and counters, measured."""

import random
import re
import shutil

import numpy as np
import pytest
from engine_cases import ENGINES, spec_of
from plain_bench import play_all
from rtl_bench import extremes, one_by_one, random_spec
from test_top import Axi, tdata

from rtl_gen import to_verilog

REGISTER = re.compile(r"^(\s*reg (?:\[\d+:\d+\] )?\S+) += (\d+)'h[0-9a-f]+;", re.MULTILINE)
needs_icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")


def random_start(text):
    """Verilog whose registers have any value at the start."""
    rng = random.Random(1)
    text, count = REGISTER.subn(lambda m: f"{m[1]}  = {m[2]}'h{rng.getrandbits(int(m[2])):x};", text)
    assert count > 10
    return text


@needs_icarus
def test_one_edge_of_reset_is_enough_and_none_after_configuration(tmp_path):
    """With registers as an FPGA loads them no reset is needed; with registers of any value, one clock edge of it."""
    cores = {}
    for name in ("banked", "gathered", "indexed", "folded", "spatial"):
        spec = spec_of(*ENGINES[name], target="ecp5" if name == "banked" else "plain")
        size = 3 * spec.vectors, spec.network.inputs
        cores[name] = spec, extremes(np.random.default_rng(0), spec.network.input, size)
    for edges, change in ((0, str), (1, random_start)):
        for name, (y, wrong) in play_all(tmp_path, cores, edges=edges, change=change).items():
            spec, x = cores[name]
            assert not wrong and np.array_equal(y, spec.network(x)), f"{name}, {edges}, {change.__name__}: {wrong}"
    # a control: the random start is one that needs the reset
    spec, x = cores["banked"]
    ((y, wrong),) = play_all(tmp_path, {"banked": (spec, x)}, edges=0, change=random_start, limit=1000).values()
    assert wrong or not np.array_equal(y, spec.network(x))


def frames_of(spec, count, seed=0):
    """Integers (count, elements of a frame), as lists of TDATA too."""
    q, lanes = spec.network, spec.lanes_in * spec.vectors
    x = extremes(np.random.default_rng(seed), q.input, (count, q.inputs * spec.vectors))
    return x, [tdata(frame.reshape(-1, lanes), q.input.width) for frame in x]


@pytest.mark.parametrize("name", ["banked", "folded", "spatial"])
def test_valid_and_ready_about_a_reset(name):
    """TVALID falls at the first edge in reset and rises with a result alone; TREADY rises one edge after the reset."""
    spec = spec_of(*ENGINES[name])
    axi, (_, words) = Axi(spec), frames_of(spec, 6)

    async def body():
        ctx, top = axi.ctx, axi.top
        await axi.reset()
        for cycles in (1, 3):
            await axi.play(words, 1)
            ctx.set(top.m_axis_tready, 0)
            while not ctx.get(top.m_axis_tvalid):
                await axi.edge()
            ctx.set(top.aresetn, 0)
            for _ in range(cycles):
                await axi.edge()
                assert not ctx.get(top.m_axis_tvalid)
            ctx.set(top.aresetn, 1)
            assert not ctx.get(top.s_axis_tready)
            await axi.edge()
            assert ctx.get(top.s_axis_tready)
            ctx.set(top.m_axis_tready, 1)
            for _ in range(spec.latency + spec.interval):
                assert not ctx.get(top.m_axis_tvalid)
                await axi.edge()

    axi.run(body)


async def played(axi, words, offers=(), takes=()):
    """The cycle in which the last beat of frames left; offers, takes: cycles in which no beat is begun, or taken."""
    beats = [(word, n == len(frame) - 1) for frame in words for n, word in enumerate(frame)][::-1]
    left, shown, cycle, ctx, top = len(words) * axi.spec.beats_out, False, -1, axi.ctx, axi.top
    await axi.reset()
    while left:
        cycle += 1
        assert cycle < 5000, f"hangs: {left} beats are missing"
        shown = shown or (bool(beats) and cycle not in offers)
        ctx.set(top.s_axis_tvalid, shown)
        if shown:
            ctx.set(top.s_axis_tdata, beats[-1][0])
            ctx.set(top.s_axis_tlast, beats[-1][1])
        ctx.set(top.m_axis_tready, cycle not in takes)
        left -= ctx.get(top.m_axis_tvalid) and cycle not in takes
        if shown and ctx.get(top.s_axis_tready):
            beats.pop()
            shown = False
        await axi.edge()
    return cycle


@pytest.mark.parametrize("name", ["banked", "indexed", "folded", "seed 3"])
def test_a_pause_costs_no_more_than_itself(name):
    """A pause of the source, or of the sink, delays the end by its own length at most: nothing has to start again."""
    spec = spec_of(*ENGINES[name]) if name in ENGINES else random_spec(3, largest=32, weights=100)
    axi, (_, words), rng = Axi(spec), frames_of(spec, 6), random.Random(7)

    async def body():
        end = await played(axi, words)
        for length in (1, 17):
            begin = rng.randrange(end)
            gap = range(begin, begin + length)
            assert await played(axi, words, offers=gap) <= end + length, ("source", gap)
            assert await played(axi, words, takes=gap) <= end + length, ("sink", gap)

    axi.run(body)


@pytest.mark.parametrize("name", ["banked", "gathered", "spatial"])
def test_saturated_counts_what_the_golden_model_clips(name):
    """Over frames of wrong length too: of the vectors as they are filled with zeros or cut, before the ReLU."""
    spec = spec_of(*ENGINES[name])
    q, axi, (x, words) = spec.network, Axi(spec), frames_of(spec, 9)
    lanes = spec.lanes_in * spec.vectors
    for n, frame in enumerate(words):
        if n % 3 == 1 and spec.beats_in > 1:
            del frame[spec.beats_in // 2 :]
            x[n, len(frame) * lanes :] = 0
        elif n % 3 == 2:
            frame += frame[: spec.beats_in // 2 + 1]
    vectors = one_by_one(x, spec.vectors)
    clipped = sum(int(factor.saturated(acc).sum()) for factor, acc, _ in q.accumulators(vectors))

    async def body():
        await axi.reset()
        await axi.play(words, len(words), 0.2)
        for _ in range(24):
            axi.clipped += axi.ctx.get(axi.top.saturated)
            await axi.edge()
        assert axi.clipped == clipped > 0

    axi.run(body)


def test_no_other_ports():
    """No TKEEP, TSTRB, TID, TDEST; TUSER on the way out alone; one edge of one clock, and nothing asynchronous."""
    text = to_verilog(spec_of(*ENGINES["direct"]), "core")
    declared = r"^ *(?:in|out)put (?:wire |reg )?(?:\[\d+:0\] )?(\w+)"
    names = set(re.findall(declared, text.split("endmodule")[0], re.MULTILINE))
    axi = {f"{side}_axis_t{name}" for side in "sm" for name in ("data", "last", "valid", "ready")} | {"m_axis_tuser"}
    assert names == axi | {"aclk", "aresetn", "frame_error", "frame_errors", "saturated"}
    assert set(re.findall(r"always @ *\((.*?)\)|always @(\*)", text)) == {("posedge aclk", ""), ("", "*")}
