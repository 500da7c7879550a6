"""Whole boards in gates: netlists with their PLLs, pads, block RAMs and multipliers, the real host before them."""

import re
from functools import partial

import numpy as np
import pytest
from tech_bench import run

import bfthw
import rtl_gen
from bfthw.chain import bft
from boards import gatelevel, netlist, synth
from boards.build import gateware
from boards.families import FAMILIES
from boards.pll import plan
from boards.shell import Shell
from boards.table import BOARDS

# family: Hz that the PLL gets and makes, its cell
PLLS = {
    "ice40": (12e6, 24e6, "SB_PLL40_PAD"), "ecp5": (25e6, 62.5e6, "EHXPLLL"),
    "gowin": (27e6, 54e6, "rPLL"), "gw5a": (50e6, 60e6, "PLLA"),
}


def mapped(directory, key, clock_mhz, target):
    """(design, netlist, Hz) of a butterfly of 4 values on a board, as `build` maps it."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=0), relu=True, bias=np.array([0.5, 0.0, -0.25, 0.125]))
    integers = bfthw.compile(bfthw.Network(layers=(layer,)))
    design = rtl_gen.write(integers, directory / "core", name="tiny", settings=bfthw.make_settings(target=target))
    top, rtlil, _ = gateware(BOARDS[key], partial(Shell, design), "tiny", clock_mhz)
    (directory / "tiny.il").write_text(rtlil)
    synth.synthesise(BOARDS[key].device, "tiny", directory)
    return design, directory / "tiny.netlist.v", top.clock_hz


@pytest.mark.parametrize("key, clock_mhz, target, ours", [
    ("ulx3s-85f", 50, "ecp5", "DP16KD, EHXPLLL, MULT18X18D"),
    ("tang-nano-9k", 54, "gowin", "DPX9B, MULT18X18, MULT9X9, rPLL"),
    pytest.param("tang-primer-25k", 60, "plain", "DPX9B, PLLA", marks=pytest.mark.slow),
    pytest.param("hx8k-b-evn", 24, "plain", "SB_PLL40_CORE", marks=pytest.mark.slow),
], ids=["ecp5", "gowin", "gw5a", "ice40"])
def test_whole_boards_equal_the_golden_model(key, clock_mhz, target, ours, tmp_path):
    design, there, clock_hz = mapped(tmp_path, key, clock_mhz, target)
    assert ", ".join(netlist.with_our_models(BOARDS[key].device.family, there.read_text())) == ours
    result = gatelevel.compare(design, key, there, clock_hz=clock_hz, count=6)
    assert result.ok and result.vectors == 6, result.problems


def pll_built(directory, family, parameters):
    """Whether Verilator takes a PLL with these parameters, and what it says where not."""
    given, made, cell = PLLS[family]
    (directory / "cells.v").write_text(netlist.cell_models(family, pll=(given, round(made))))
    values = ", ".join(f".{name}({value})" for name, value in parameters.items())
    (directory / "top.v").write_text(f"module top; {cell} #({values}) pll(); endmodule\n")
    flags = ["--lint-only", "-Wno-fatal", "-Wno-lint", "--top-module", "top"]
    try:
        run(["verilator", *flags, "top.v", "cells.v"], directory)
    except AssertionError as error:
        return re.search(r"\bPLL_\w+|\w+_without_model", str(error))[0]
    return None


@pytest.mark.parametrize("family", PLLS)
def test_plls_check_their_dividers(family, tmp_path):
    """The model has the formula of its own: what the planner chose fits, and no divider may be another."""
    given, made, _ = PLLS[family]
    parameters = plan(family, given, made).parameters
    assert pll_built(tmp_path, family, parameters) is None
    for name in (name for name in parameters if name not in ("FILTER_RANGE", "ODIV_SEL", "CLKOP_DIV")):
        wrong = parameters | {name: parameters[name] + 1}
        assert pll_built(tmp_path, family, wrong) == "PLL_makes_another_clock_than_the_board_is_told", name
    # the right clock of an oscillator that is too slow
    slow = {
        "ice40": {"DIVF": 7, "DIVQ": 2}, "ecp5": {"CLKOP_DIV": 2}, "gowin": {"ODIV_SEL": 2},
        "gw5a": {"MDIV_SEL": 6, "ODIV0_SEL": 5},
    }[family]
    assert pll_built(tmp_path, family, parameters | slow) == "PLL_runs_outside_the_ranges_of_its_data_sheet"


def test_a_pll_that_has_no_model(tmp_path):
    parameters = plan("ice40", *PLLS["ice40"][:2]).parameters | {"FEEDBACK_PATH": '"DELAY"'}
    assert pll_built(tmp_path, "ice40", parameters) == "SB_PLL40_has_a_parameter_without_model"


def test_long_vectors_do_not_go_through_the_line(tmp_path):
    """10 vectors, fewer where the line takes long or the netlist is large, none where one is too much for a check."""
    netlist = tmp_path / "large.v"
    for times, wanted in ((1, [10, 10, 3, 0]), (6, [10, 2, 1, 0])):
        with netlist.open("wb") as file:
            file.truncate(times * gatelevel.LARGE)
        counts = []
        for elements in (64, 784, 3072, 27648):
            port = type("Port", (), {"elements": elements, "lane_bytes": 1})
            design = type("Design", (), {"manifest": type("Manifest", (), {"input": port})})
            counts.append(gatelevel.vectors(design, 25_000_000, 1_000_000, netlist))
        assert counts == wanted


def test_every_family_has_its_models():
    for family in FAMILIES:
        text = netlist.cell_models(family, pll=(12e6, 24e6))
        names = re.findall(r"^\s*module\s+(\w+)", text, re.MULTILINE)
        assert len(names) == len(set(names)) and "blackbox" not in text, family
