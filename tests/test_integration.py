"""The examples of docs/integration.md: the core in designs of others, each played against the golden model."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_cases import ENGINES, spec_of
from rtl_bench import extremes, one_by_one, play
from test_top import lanes_of, tdata

import bfthw
import rtl_gen
from rtl_gen.top import lane_bytes
from sim.scenarios import wrong_frames

ROOT = Path(__file__).resolve().parents[1]
needs_icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")


def example(name):
    """A program of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frames_of(spec, count=12, seed=0):
    """(beats as (TDATA, TLAST), the golden model's outputs, which frames are wrong): every other frame is."""
    q, rng = spec.network, np.random.default_rng(seed)
    x = extremes(rng, q.input, (count * spec.vectors, q.inputs))
    scenario = wrong_frames(x, spec.vectors, spec.lanes_in, rng, name="frames")
    values, last = scenario.beats(spec.lanes_in * spec.vectors)
    return list(zip(tdata(values, q.input.width), last.tolist())), q(scenario.vectors), scenario.wrong.tolist()


def check(spec, got, wanted, wrong):
    """Beats that came, (TDATA, TLAST, TUSER), are the golden model's; TUSER on the last beat of a wrong frame alone."""
    beats, lanes = spec.beats_out, spec.lanes_out * spec.vectors
    rows = [lanes_of(data, spec.network.output.width, lanes) for data, _, _ in got]
    assert np.array_equal(one_by_one(np.reshape(rows, (len(wrong), -1)), spec.vectors), wanted)
    ends = [n % beats == beats - 1 for n in range(len(got))]
    assert [last for _, last, _ in got] == ends
    assert [user for _, _, user in got] == [end and wrong[n // beats] for n, end in enumerate(ends)]


@pytest.mark.parametrize("period", [0.31e-6, 2.3e-6])
def test_amaranth_with_a_clock_of_its_own(period):
    """Between FIFOs to a faster and to a slower clock, with stalls on both sides."""
    spec = spec_of(*ENGINES["direct"])
    top = example("amaranth_core").OwnClock(spec)
    top.clocks = {"core": period}
    beats, wanted, wrong = frames_of(spec)
    bits, bits_out = len(top.core.s_axis_tdata), len(top.core.m_axis_tdata)
    words = [data | last << bits for data, last in beats]
    _, out = play(top, [(top.i, words)], [(top.o, len(wrong) * spec.beats_out)], stall=0.3, seed=1)
    got = [(word % (1 << bits_out), word >> bits_out & 1, word >> bits_out + 1) for word in out.beats]
    check(spec, got, wanted, wrong)


def test_fifos_between_clocks_pass_a_beat_a_cycle():
    """With the core's clock a little faster: none is missing in the steady state."""
    spec, module = spec_of(*ENGINES["direct"]), example("amaranth_core")
    top = module.OwnClock(spec)
    top.clocks = {"core": 0.93e-6}
    assert spec.interval == spec.beats_in == spec.beats_out
    bits = len(top.core.s_axis_tdata)
    words = [(n % spec.beats_in == spec.beats_in - 1) << bits for n in range(60)]
    taken, given = play(top, [(top.i, words)], [(top.o, len(words))])
    assert all(flow.moved[-1] - flow.moved[20] == 39 for flow in (taken, given)), (taken.moved, given.moved)
    assert module.DEPTH == example("litex_core").DEPTH == 16


LITEX_BENCH = """
module bench #(parameter SYS = 1, CORE = 1, NAME = "out") (output done);
    reg sys = 0, core = 0, rst = 1, valid = 0, ready = 0;
    reg [{bits_in}:0] beats [0:{count_in} - 1];
    reg [15:0] noise = 16'hACE1;
    wire taken, given, last, wrong;
    wire [{bits_out} - 1:0] data;
    integer at = 0, came = 0, file;
    assign done = came == {count_out};
    always #SYS sys = ~sys;
    always #CORE core = ~core;
    initial begin
        $readmemh("beats", beats);
        file = $fopen(NAME, "w");
        #100 rst = 0;
    end
    always @(posedge sys) begin
        if (valid && taken) at <= at + 1;
        if (given && ready) begin
            $fdisplay(file, "%h %b %b", data, last, wrong);
            came <= came + 1;
        end
    end
    always @(negedge sys) begin
        noise <= {{noise[14:0], noise[15] ^ noise[13] ^ noise[12] ^ noise[10]}};
        valid <= !rst && at < {count_in} && ((valid && !taken) || noise[1:0] != 0);
        ready <= noise[3:2] != 0 && came < {count_out};
    end
    core_litex dut (
        .sys_clk(sys), .sys_rst(rst), .core_clk(core), .core_rst(rst), .sink_payload_data(beats[at][{bits_in} - 1:0]),
        .sink_last(beats[at][{bits_in}]), .sink_first(1'b0), .sink_valid(valid), .sink_ready(taken),
        .source_payload_data(data), .source_payload_wrong(wrong), .source_last(last), .source_valid(given),
        .source_ready(ready)
    );
endmodule
module both;
    wire fast, slow;
    bench #(.SYS(3), .CORE(1), .NAME("fast")) of_fast(fast);
    bench #(.SYS(3), .CORE(7), .NAME("slow")) of_slow(slow);
    always @(fast or slow) if (fast && slow) $finish;
    initial #200000 $finish;
endmodule
"""


@needs_icarus
def test_litex_with_a_clock_of_its_own(tmp_path):
    """What the program writes, played in Icarus, the core's clock faster and slower than the system's."""
    from litex.build.sim import SimPlatform

    spec = spec_of(*ENGINES["direct"])
    design = rtl_gen.write_plan(spec, tmp_path, name="core")
    command = [sys.executable, ROOT / "examples" / "litex_core.py", design.path, "-o", tmp_path / "litex"]
    subprocess.run(command, check=True, cwd=ROOT)
    beats, wanted, wrong = frames_of(spec)
    port = design.manifest.input
    bits, count = 8 * port.lanes * port.lane_bytes * spec.vectors, len(wrong) * spec.beats_out
    bits_out = 8 * spec.lanes_out * lane_bytes(spec.network.output.width) * spec.vectors
    bench = LITEX_BENCH.format(bits_in=bits, bits_out=bits_out, count_in=len(beats), count_out=count)
    (tmp_path / "bench.v").write_text(bench, encoding="utf-8")
    lines = [f"{data | last << bits:x}" for data, last in beats]
    (tmp_path / "beats").write_text("\n".join(lines), encoding="utf-8")
    compiled = ["iverilog", "-g2005", "-s", "both", "-o", "all.vvp", "bench.v", "litex/core_litex.v", "core.v"]
    for command in (compiled, ["vvp", "-n", "all.vvp"]):
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    platform = SimPlatform("SIM", [])
    example("litex_core").Core(design.path, platform)
    assert [Path(source[0]) for source in platform.sources] == [tmp_path / "core.v"]
    for name in ("fast", "slow"):
        rows = [line.split() for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        check(spec, [(int(data, 16), int(last), int(user)) for data, last, user in rows], wanted, wrong)


def test_the_waveform_is_of_this_core():
    """docs/waveform.svg is what `make figures` draws of the core as it is today."""
    drawn = example("waveform").picture()
    assert drawn == (ROOT / "docs" / "waveform.svg").read_text(encoding="utf-8"), "make figures draws it again"
    spec, _ = example("waveform").example()
    assert f"latency: {spec.latency} cycles" in drawn and drawn.count(">its input was too") == 2 * 2
    page = " ".join((ROOT / "docs" / "integration.md").read_text(encoding="utf-8").split())
    assert f"a frame of {spec.beats_in} beats every {spec.interval} cycles" in page


VIVADO = """
set argv [list {core} xc7a35ticsg324-1L {folder}]
proc read_xdc {{file}} {{ puts "read_xdc $file"; source $file }}
proc get_ports {{name}} {{ puts "get_ports $name"; return $name }}
proc get_property {{args}} {{ puts "get_property $args"; return 0.25 }}
proc unknown {{args}} {{ puts $args }}
source {script}
"""
COMMANDS = """read_verilog read_xdc create_clock get_ports synth_design opt_design place_design route_design
    report_utilization report_timing_summary write_checkpoint all_registers get_timing_paths get_property""".split()


def test_vivado_script_names_what_is_there(tmp_path):
    """Its files and ports exist; where there is a Tcl interpreter it runs, with Vivado's own commands replaced."""
    integers = bfthw.compile(bfthw.load(ROOT / "examples/digits/digits.safetensors").network)
    expected = rtl_gen.make_plan(integers, bfthw.make_settings(lanes=2)).multipliers
    assert f"{expected} DSP48E1" in (ROOT / "docs" / "integration.md").read_text(encoding="utf-8")
    script = ROOT / "examples" / "vivado.tcl"
    text = script.read_text(encoding="utf-8")
    rtl_gen.write_plan(spec_of(*ENGINES["direct"]), tmp_path, name="core")
    named = [tmp_path / f"core{ending}" for ending in re.findall(r"\$core(\.\w+)", text)]
    assert len(named) == 2 and all(path.exists() for path in named), named
    ports = re.findall(r"get_ports (\w+)", text + named[1].read_text(encoding="utf-8"))
    assert ports and all(re.search(rf"^ *input (wire )?{port};", named[0].read_text(), re.MULTILINE) for port in ports)
    assert all(text.count(a) == text.count(b) for a, b in ("{}", "[]"))
    if tclsh := shutil.which("tclsh"):
        stub = VIVADO.format(core=tmp_path / "core", folder=tmp_path / "made", script=script)
        (tmp_path / "stub.tcl").write_text(stub, encoding="utf-8")
        done = subprocess.run([tclsh, tmp_path / "stub.tcl"], capture_output=True, text=True)
        assert done.returncode == 0 and "core on xc7a35ticsg324-1L: slack 0.250 ns" in done.stdout, done
        *lines, _ = done.stdout.splitlines()
        assert {line.split()[0] for line in lines} == set(COMMANDS)
        assert f"read_verilog {named[0]}" in lines
        assert "synth_design -top core -part xc7a35ticsg324-1L -mode out_of_context" in lines


def test_cocotb_with_its_axi_extension(tmp_path):
    """The bench passes, and it has seen every frame: its exit status is that of the comparison."""
    pytest.importorskip("cocotbext.axi")
    design = rtl_gen.write_plan(spec_of(*ENGINES["direct"]), tmp_path, name="core")
    command = [sys.executable, ROOT / "examples" / "cocotb_core.py", design.path]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
