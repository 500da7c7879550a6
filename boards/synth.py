"""Synthesis with Yosys: one script for boards and for netlist checks, so that what is checked is what is built."""

import json
from math import ceil
from pathlib import Path

from . import tools

CONFLICT = "Driver-driver conflict"  # a warning in the log alone, behind which a net has become a constant

# cells of a family → what they take of the device's resources
_CELLS = {
    "ice40": {"LUT": {"SB_LUT4": 1}, "FF": {"SB_DFF": 1}, "DSP": {"SB_MAC16": 1}, "RAM": {"SB_RAM40_4K": 1}},
    "ecp5": {
        # a carry cell takes two tables, 16×4 bits of distributed RAM four and their write port two
        "LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        "FF": {"TRELLIS_FF": 1},
        "DSP": {"MULT18X18D": 1},
        "RAM": {"DP16KD": 1, "PDPW16KD": 1},
    },
    "gowin": {
        "LUT": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP": 8},
        "FF": {"DFF": 1},
        "DSP": {"MULT18X18": 1, "MULT9X9": 0.5, "MULT36X36": 4},
        "RAM": {"SDPB": 1, "SDPX9B": 1, "DPB": 1, "DPX9B": 1, "SPX9": 1, "pROM": 1},
    },
}
# families whose cells carry their variant in the name: SB_DFFESR, SB_RAM40_4KNR, DFFRE, RAM16SDP4, pROMX9
_PREFIXES = ("SB_DFF", "SB_RAM40_4K", "DFF", "RAM16SDP", "pROM")
# GW5A: nextpnr-himbaechel 0.11 knows neither its shadow RAM, nor what Yosys multiplies with
_GOWIN_FAMILIES = {"GW1N": "gw1n", "GW2A": "gw2a", "GW5A": "gw5a -nolutram -nodsp"}


# synth_ice40 -dsp, but without its pass ice40_dsp, which packs registers and adders into SB_MAC16 and gets two cases
# wrong (Yosys 0.70): a product followed by two registers becomes a constant, and where two registered products are
# added, one of them is lost, without a word. SB_MAC16's own registers stay unused, so it runs at 50 MHz at most.
_ICE40_DSP = """\
synth_ice40 -top {top} -run begin:coarse
opt_expr
opt_clean
opt -nodffe -nosdff
wreduce
opt_clean
techmap -map +/mul2dsp.v -map +/ice40/dsp_map.v -D DSP_A_MAXWIDTH=16 -D DSP_B_MAXWIDTH=16 -D DSP_A_MINWIDTH=2 \
-D DSP_B_MINWIDTH=2 -D DSP_Y_MINWIDTH=11 -D DSP_NAME=$__MUL16X16
select a:mul2dsp
setattr -unset mul2dsp
opt_expr -fine
wreduce
select -clear
chtype -set $mul t:$__soft_mul
synth_ice40 -top {top} -run coarse:"""


def commands(device, top):
    """The lines of Yosys' script that map a design to a device."""
    if device.family == "ice40":
        return _ICE40_DSP.format(top=top).splitlines() if device.dsp else [f"synth_ice40 -top {top}"]
    if device.family == "ecp5":
        return [f"synth_ecp5 -top {top}"]
    # -json leaves out what nextpnr does not know
    return [f"synth_gowin -family {_GOWIN_FAMILIES[device.name[:4]]} -top {top} -json {top}.json"]


def synthesise(device, top, directory, *, kind="yowasp"):
    """TOP.il in `directory` to TOP.json (for nextpnr) and TOP.netlist.v; returns resource → number.

    Raises RuntimeError where Yosys fails or reports two drivers of a net.
    """
    directory = Path(directory)
    script = [
        f"read_rtlil {top}.il",
        # where a source stood on this machine is nobody's business
        "setattr -unset src", "setattr -mod -unset src",
        *commands(device, top),
        f"write_json {top}.json",
        f"write_verilog -noattr {top}.netlist.v",
        "tee -q -o stat.json stat -json",
    ]
    if device.family == "gowin":
        script.remove(f"write_json {top}.json")
    (directory / f"{top}.ys").write_text("\n".join(script) + "\n", encoding="utf-8")
    # -l: YoWASP's Yosys loses its output after the first run of ABC
    tools.run("yosys", ["-q", "-l", "yosys.log", "-s", f"{top}.ys"], directory=directory, log="yosys.log", kind=kind)
    check_log(directory / "yosys.log")
    if device.family == "ecp5":
        trim_carries(directory / f"{top}.json")
    stat = json.loads((directory / "stat.json").read_text(encoding="utf-8"))
    return count(device.family, stat["design"]["num_cells_by_type"])


def trim_carries(path):
    """Leave unused carry outputs of a netlist for nextpnr-ecp5 open: it spends two tables on each one that has a
    name.
    """
    netlist = json.loads(path.read_text(encoding="utf-8"))
    for module in netlist["modules"].values():
        cells = [cell for cell in module["cells"].values() if "connections" in cell]
        used = {
            bit for cell in cells for port, bits in cell["connections"].items()
            if cell["port_directions"][port] != "output" for bit in bits
        }
        used |= {bit for port in module["ports"].values() for bit in port["bits"]}
        for cell in cells:
            if cell["type"] == "CCU2C" and not used.intersection(cell["connections"]["COUT"]):
                cell["connections"]["COUT"] = ["x"]
    path.write_text(json.dumps(netlist), encoding="utf-8")


def check_log(path):
    """RuntimeError where a Yosys log tells of two drivers of a net."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if CONFLICT in line]
    if lines:
        raise RuntimeError(
            f"Yosys reports two drivers of a net, {len(lines)} times, and has resolved them with a constant; the "
            "result would be wrong (known of synth_ice40 -dsp and a product followed by two registers). The first: "
            f"{lines[0].strip()}"
        )


def count(family, cells):
    """Resource → number, from cell type → number."""
    used = {}
    for resource, worth in _CELLS[family].items():
        total = 0
        for cell, number in cells.items():
            name = next((prefix for prefix in _PREFIXES if cell.startswith(prefix)), cell)
            total += worth.get(name, 0) * number
        used[resource] = ceil(total)
    return used
