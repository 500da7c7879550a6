"""The cocotb side: plays recorded scenarios to the core and records what comes out. Runs inside the simulator.

The job, a folder named by the plusarg +job, holds `job.json` and `stimuli.npz`; `result.npz` is written beside them. All
checking is done by the caller, on arrays.

Everything happens at the falling edge: the core's outputs depend on its registers alone (and on aresetn), so what is seen
there together with what is driven there is what the next rising edge will act upon.
"""

import json
import random
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

PERIOD_NS = 10


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

        Returns received (tdata, tlast, tuser), cycles of accepted and of first-seen beats, and for each watched link the
        payloads that passed.
        """
        dut, rng = self.dut, random.Random(seed)
        valid, ready = dut.s_axis_tvalid, dut.s_axis_tready
        out_valid, out_ready = dut.m_axis_tvalid, dut.m_axis_tready
        received, accepted_at, seen_at, passed = [], [], [], [[] for _ in watch]
        index, offered, seen, start, ended = 0, False, False, self.cycle, 0
        taking = None
        while ended < frames and self.cycle - start < cycles:
            # input: a beat once offered stays
            if not offered and index < len(data) and (not stall or rng.random() >= stall):
                dut.s_axis_tdata.value = data[index]
                dut.s_axis_tlast.value = last[index]
                valid.value = 1
                offered = True
            elif not offered:
                valid.value = 0
            take = not stall or rng.random() >= stall
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


def find(dut, instance):
    """The handles (o__valid, o__payload) of an instance's output link."""
    for part in instance.split("."):
        dut = dut[part]
    return dut["o__valid"], dut["o__payload"]


@cocotb.test()
async def run(dut):
    job = Path(cocotb.plusargs["job"])
    settings = json.loads((job / "job.json").read_text())
    stimuli = np.load(job / "stimuli.npz", allow_pickle=False)
    cocotb.start_soon(Clock(dut.aclk, PERIOD_NS, unit="ns").start())
    core, results = Core(dut, job), {}
    lane_bytes = settings["input_bytes"]
    for number, scenario in enumerate(settings["scenarios"]):
        if scenario["reset"]:
            await core.reset()
        beats = stimuli[f"data_{number}"]
        raw = beats.astype("<i8").view(np.uint8).reshape(*beats.shape, 8)[..., :lane_bytes].reshape(len(beats), -1)
        watch = [find(dut, instance) for instance in settings["watch"]]
        received, accepted, seen, passed = await core.play(
            [int.from_bytes(row.tobytes(), "little") for row in raw],
            stimuli[f"last_{number}"].tolist(),
            scenario["frames"],
            scenario["stall"],
            scenario["seed"],
            scenario["cycles"],
            watch,
        )
        size = settings["output_bytes"]
        bits = b"".join(value.to_bytes(size, "little") for value, _, _ in received)
        results[f"bytes_{number}"] = np.frombuffer(bits, np.uint8)
        results[f"flags_{number}"] = np.array([flags for _, *flags in received], np.uint8).reshape(-1, 2)
        results[f"accepted_{number}"], results[f"seen_{number}"] = np.array(accepted), np.array(seen)
        results[f"errors_{number}"] = np.array([int(dut.frame_error.value), int(dut.frame_errors.value)])
        for n, values in enumerate(passed):
            width = settings["watch_bytes"][n]
            bits = b"".join(value.to_bytes(width, "little") for value in values)
            results[f"watch_{number}_{n}"] = np.frombuffer(bits, np.uint8).reshape(-1, width)
    results["cycles"] = np.array(core.cycle)
    np.savez(job / "result.npz", **results)
