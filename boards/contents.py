"""Contents of ROMs into what place and route left, and into the mapped netlist; and the bitstream of it."""

import json

from bfthw.reading import read_json, read_text

from . import roms, tools
from .families import FAMILIES
from .report import MARKED


def pack(board, name, directory, kind="yowasp"):
    """NAME.asc, .config or .pnr.json in `directory` to the bitstream, NAME.bin, .bit or .fs."""
    family = FAMILIES[board.device.family]
    source, target = f"{name}.{family.placed}", f"{name}.{family.bitstream}"
    arguments = family.pack(board.make_platform(), board.pack, source, target)
    tools.run(family.packer, arguments, directory=directory, log="pack.log", kind=kind)


def fill_products(source, target, name, family, contents, kind="yowasp"):
    """Contents of ROMs into the marked text and netlist in `source`: NAME.asc, .config or .pnr.json and NAME.netlist.v
    in `target`.
    """
    fill_placed(source, target, name, family, *fill_netlist(source, target, name, family, contents, kind))


def fill_netlist(source, target, name, family, contents, kind="yowasp"):
    """NAME.netlist.v alone; returns its block RAMs and what they hold, for fill_placed."""
    ram = FAMILIES[family].ram
    netlist = read_json(source / f"{name}.marked.json", MARKED, values=MARKED)
    rams = roms.read_rams(netlist, ram)
    marks = roms.marks([roms.Rom(name=rom, bits=bits) for rom, bits in contents.items()])
    filled = roms.fill(rams, roms.locate(rams, marks, ram, name), contents)
    roms.fill_netlist(netlist, filled, ram)
    open_outputs(netlist)
    (target / f"{name}.filled.json").write_text(json.dumps(netlist), encoding="utf-8")
    script = f"read_json {name}.filled.json; write_verilog -noattr {name}.netlist.v"
    tools.run("yosys", ["-q", "-l", "netlist.log", "-p", script], directory=target, log="netlist.log", kind=kind)
    return rams, filled


def fill_placed(source, target, name, family, rams, filled):
    """The other one alone."""
    text = FAMILIES[family].placed
    placed = read_text(source / f"{name}.marked.{text}", MARKED)
    (target / f"{name}.{text}").write_text(roms.fill_text(placed, family, rams, filled), encoding="utf-8")


def open_outputs(netlist):
    """Take x from outputs in a mapped netlist (the table of Yosys' JSON), in place: nextpnr's word for open ones (see
    families.ecp5.trim_carries) is a short in Verilog.
    """
    for module in netlist["modules"].values():
        for cell in module["cells"].values():
            for port, direction in cell.get("port_directions", {}).items():
                if direction == "output" and set(cell["connections"].get(port, ())) == {"x"}:
                    del cell["connections"][port]
