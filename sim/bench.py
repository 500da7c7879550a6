"""The cocotb side: plays recorded scenarios to the core and records what comes out. Runs inside the simulator.

The plusarg +job names the folder of the job, see job.py. All checking is done by the caller, on arrays. A module by
itself, of cocotb and the standard library alone: what it imports would be loaded again in every run.

Everything happens at the falling edge: the core's outputs depend on its registers alone (and on aresetn), so what is
seen there together with what is driven there is what the next rising edge will act upon.
"""

import json
import struct
from itertools import chain
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

PERIOD_NS = 10


def stalls(below, seed):
    """A function that says for each cycle whether it stalls, `below` in 2^32 do; the sequence of driver.cpp."""
    state = seed

    def stalled():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return state >> 32 < below

    return stalled if below else lambda: False


class Core:
    """Handles of the core's ports, and the cycle count."""

    def __init__(self, dut, job):
        self.dut, self.cycle, self.job = dut, 0, job
        self.falling = FallingEdge(dut.aclk)
        self.progress = job / "progress"

    async def tick(self):
        await self.falling
        self.cycle += 1

    async def reset(self):
        dut = self.dut
        for port in (dut.s_axis_tvalid, dut.s_axis_tlast, dut.s_axis_tdata, dut.m_axis_tready, dut.aresetn):
            port.value = 0
        for _ in range(4):
            await self.tick()
        dut.aresetn.value = 1
        await self.tick()

    async def play(self, data, last, frames, stall, seed, cycles, watch=()):
        """Send beats, receive `frames` output frames or until `cycles` have passed.

        Returns received (tdata, tlast, tuser), cycles of accepted and of first-seen beats, and for each watched link
        the payloads that passed.
        """
        dut, stalled = self.dut, stalls(stall, seed)
        valid, ready = dut.s_axis_tvalid, dut.s_axis_tready
        out_valid, out_ready = dut.m_axis_tvalid, dut.m_axis_tready
        received, accepted_at, seen_at, passed = [], [], [], [[] for _ in watch]
        index, offered, seen, start, ended = 0, False, False, self.cycle, 0
        taking = None
        while ended < frames and self.cycle - start < cycles:
            # input: a beat once offered stays
            if not offered and index < len(data) and not stalled():
                dut.s_axis_tdata.value = data[index]
                dut.s_axis_tlast.value = last[index]
                valid.value = 1
                offered = True
            elif not offered:
                valid.value = 0
            take = not stalled()
            if take is not taking:
                out_ready.value = take
                taking = take
            accepted = offered and ready.value == 1
            if out_valid.value == 1:
                if not seen:
                    seen_at.append(self.cycle)
                    seen = True
                if take:
                    is_last = int(dut.m_axis_tlast.value)
                    received.append((int(dut.m_axis_tdata.value), is_last, int(dut.m_axis_tuser.value)))
                    ended += is_last
                    seen = False
            for (link_valid, payload), values in zip(watch, passed):
                if link_valid.value == 1:
                    values.append(int(payload.value))
            await self.tick()
            if accepted:
                accepted_at.append(self.cycle)
                index += 1
                offered = False
            if self.cycle % 4096 == 0:
                self.progress.write_text(str(self.cycle))
        valid.value = 0
        # a beat of the last frame seen at cycle t is compared with one accepted at the edge that ends cycle t
        return received, [c - 1 for c in accepted_at], seen_at, passed


def find(dut, stem):
    """The handles (o__valid, o__payload) of an engine's output link; stem: what stands before that in its path."""
    *instances, prefix = stem.split(".")
    for part in instances:
        dut = dut[part]
    return dut[f"{prefix}o__valid"], dut[f"{prefix}o__payload"]


@cocotb.test()
async def run(dut):
    job = Path(cocotb.plusargs["job"])
    cocotb.start_soon(Clock(dut.aclk, PERIOD_NS, unit="ns").start())
    core = Core(dut, job)
    bytes_in, bytes_out = struct.unpack("<2Q", (job / "ports").read_bytes())
    widths = len(dut.s_axis_tdata), len(dut.m_axis_tdata)
    assert widths == (8 * bytes_in, 8 * bytes_out), f"TDATA of the core has {widths} bits, not as the job says"
    watch = json.loads((job / "watch.json").read_text())
    scenarios = struct.iter_unpack("<6Q", (job / "scenarios").read_bytes())
    for n, (_, frames, stall, seed, reset, cycles) in enumerate(scenarios):
        if reset:
            await core.reset()
        raw = (job / f"data_{n}").read_bytes()
        received, accepted, seen, passed = await core.play(
            [int.from_bytes(raw[at : at + bytes_in], "little") for at in range(0, len(raw), bytes_in)],
            list((job / f"last_{n}").read_bytes()),
            frames, stall, seed, cycles, [find(dut, stem) for stem, _ in watch],
        )
        words = [value for value, *_ in received]
        results = {f"bytes_{n}": joined(words, bytes_out), f"accepted_{n}": joined(accepted), f"seen_{n}": joined(seen)}
        results[f"flags_{n}"] = bytes(chain.from_iterable(flags for _, *flags in received))
        results[f"errors_{n}"] = joined([int(dut.frame_error.value), int(dut.frame_errors.value)])
        results |= {f"watch_{n}_{w}": joined(own, width) for w, ((_, width), own) in enumerate(zip(watch, passed))}
        for name, content in results.items():
            (job / name).write_bytes(content)
    (job / "cycles").write_bytes(joined([core.cycle]))


def joined(values, width=8):
    """Numbers of `width` bytes each, in two's complement, little-endian; those of 8 bytes may be negative."""
    return b"".join((value % 2 ** (8 * width)).to_bytes(width, "little") for value in values)
