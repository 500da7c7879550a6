"""Synthesis with Yosys: one script for boards and for netlist checks, so that what is checked is what is built."""

import json
from math import ceil
from pathlib import Path

from . import tools
from .families import FAMILIES

# Where the log of Yosys 0.70 ends if it cannot bring back a design from ABC9: on that way names lose a first letter,
# and one that Yosys made may then be equal to one of the design, with other bits. APART keeps them apart.
ABC9 = "Executing ABC_OPS_REINTEGRATE pass"
APART = "flatten", "rename -enumerate w:$*"
CONFLICTS = "Driver-driver conflict", "multiple conflicting drivers"  # warnings in the log alone


def mapping(device, top, first=()):
    """The lines of Yosys' script that map a design; first: lines in front of its family's."""
    # a ROM that is made of tables would else become a block RAM where it is large, and the plan counts on that block
    tables = "proc", 'setattr -set rom_style "logic" m:*proc_rom*'
    return [*tables, *first, *FAMILIES[device.family].synthesis(device, top)]


def synthesise(device, top, directory, *, kind="yowasp"):
    """TOP.il in `directory` to TOP.json (for nextpnr) and TOP.netlist.v; returns resource → number.

    Raises RuntimeError where Yosys fails or reports two drivers of a net.
    """
    directory, family = Path(directory), FAMILIES[device.family]
    try:
        _run(device, top, directory, kind)
    except RuntimeError as error:
        if ABC9 not in str(error):
            raise
        _run(device, top, directory, kind, APART)
    check_log(directory / "yosys.log")
    family.mapped(directory / f"{top}.json")
    stat = json.loads((directory / "stat.json").read_text(encoding="utf-8"))
    return count(device.family, stat["design"]["num_cells_by_type"])


def _run(device, top, directory, kind, first=()):
    script = [
        f"read_rtlil {top}.il",
        # where a source stood on this machine is nobody's business
        "setattr -unset src", "setattr -mod -unset src",
        *mapping(device, top, first),
        *([] if FAMILIES[device.family].writes_json else [f"write_json {top}.json"]),
        f"write_verilog -noattr {top}.netlist.v",
        "tee -q -o stat.json stat -json",
    ]
    (directory / f"{top}.ys").write_text("\n".join(script) + "\n", encoding="utf-8")
    # -l: YoWASP's Yosys loses its output after the first run of ABC
    arguments = ["-q", "-l", "yosys.log", "-s", f"{top}.ys"]
    tools.run("yosys", arguments, directory=directory, log="yosys.log", kind=kind)


def check_log(path):
    """RuntimeError where a Yosys log tells of two drivers of a net."""
    told = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in told if any(sign in line for sign in CONFLICTS)]
    if lines:
        raise RuntimeError(
            f"Yosys reports two drivers of a net, {len(lines)} times, and the result would be wrong (known of "
            f"synth_ice40 -dsp and a product followed by two registers). The first: {lines[0].strip()}"
        )


def count(family, cells):
    """Resource → number, from cell type → number."""
    own = FAMILIES[family]
    named = [(next(filter(cell.startswith, own.variants), cell), number) for cell, number in cells.items()]
    return {resource: ceil(sum(worth.get(name, 0) * n for name, n in named)) for resource, worth in own.cells.items()}
