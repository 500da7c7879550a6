"""A bench in cocotb, with cocotbext-axi's source and sink: random vectors in, the golden model's integers out.

    python examples/cocotb_core.py build/fast/fast.json

Needs Icarus Verilog, libpython and `pip install cocotbext-axi`.
"""

import random
import sys
import tempfile
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource

import rtl_gen
from rtl_gen.tech import models

FRAMES = 20


def to_bytes(values, port):
    size, signed = port.lane_bytes, port.format.signed
    return b"".join(int(value).to_bytes(size, "little", signed=signed) for value in values.ravel())


def pauses(seed):
    rng = random.Random(seed)
    while True:
        yield rng.random() < 0.3


@cocotb.test()
async def golden_integers_come_out(dut):
    """Frames with pauses on both sides."""
    design = rtl_gen.load_design(cocotb.plusargs["manifest"])
    m, network = design.manifest, design.plan.network
    x = np.random.default_rng(0).integers(network.input.lo, network.input.hi + 1, (FRAMES, m.vectors, network.inputs))
    y = network(x.reshape(-1, network.inputs)).reshape(FRAMES, m.vectors, -1)

    dut.aresetn.value = 0
    Clock(dut.aclk, 10, "ns").start()
    reset = {"reset": dut.aresetn, "reset_active_level": False}
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, m.input.prefix), dut.aclk, **reset)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, m.output.prefix), dut.aclk, **reset)
    await ClockCycles(dut.aclk, 2)
    dut.aresetn.value = 1
    source.set_pause_generator(pauses(1))
    sink.set_pause_generator(pauses(2))
    # in a frame the vectors that are side by side take turns, element by element
    for vectors in x:
        await source.send(to_bytes(vectors.T, m.input))
    for n, vectors in enumerate(y):
        frame = await sink.recv()
        assert bytes(frame.tdata) == to_bytes(vectors.T, m.output), f"frame {n}"
        assert not np.any(frame.tuser), f"frame {n} is marked as wrong"


def main(manifest):
    """Exit status 0 if it passes."""
    design = rtl_gen.load_design(manifest)
    verilog = design.path.resolve().with_name(design.manifest.files.verilog.name)
    with tempfile.TemporaryDirectory() as folder:
        runner, top = get_runner("icarus"), design.manifest.name
        sources = [verilog, *models(design.manifest.target)]
        runner.build(sources=sources, hdl_toplevel=top, build_dir=folder, timescale=("1ns", "1ps"))
        plusargs = [f"+manifest={design.path.resolve()}"]
        results = runner.test(hdl_toplevel=top, test_module=Path(__file__).stem, test_dir=folder, plusargs=plusargs)
        count, failed = get_results(results)
    return 0 if count and not failed else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(*map(Path, sys.argv[1:])))
