"""Lattice ECP5: prjtrellis."""

import json
import re
from itertools import product

import numpy as np
from amaranth.hdl import Instance

from .family import NAMES_APART, Family, Ram, Range

_CONFIG = re.compile(r"^(\.bram_init \d+\n)((?:(?:[0-9a-f]{3} ?)+\n)+)", re.MULTILINE)


def _config_rows(text):
    words = np.array([int(word, 16) for word in text.split()])
    return ((words[:, None] >> np.arange(9)) & 1).astype(bool).reshape(1024, 18)


def _config_text(content):
    words = (content.reshape(2048, 9) << np.arange(9)).sum(axis=1)
    return "".join(" ".join(f"{word:03x}" for word in line) + "\n" for line in words.reshape(-1, 8).tolist())


def trim_carries(module):
    """Leave unused carry outputs for nextpnr-ecp5 open: it spends two tables on each one that has a name."""
    cells = [cell for cell in module["cells"].values() if "connections" in cell]
    used = {
        bit for cell in cells for port, bits in cell["connections"].items()
        if cell["port_directions"][port] != "output" for bit in bits
    }
    used |= {bit for port in module["ports"].values() for bit in port["bits"]}
    for cell in cells:
        if cell["type"] == "CCU2C" and not used.intersection(cell["connections"]["COUT"]):
            cell["connections"]["COUT"] = ["x"]


def hold_by_clock_nets(module):
    """Bring the enables and resets of multipliers, constants, to them by clock nets: over the few wires of the fabric
    that lead to these pins, where nextpnr takes them, its router1 may not end.
    """
    multipliers = [cell for cell in module["cells"].values() if cell["type"] == "MULT18X18D"]
    wires = (bits for cell in module["cells"].values() for bits in cell.get("connections", {}).values())
    bit = max((bit for bits in wires for bit in bits if isinstance(bit, int)), default=0)
    for port, constant in (("CE0", "1"), ("RST0", "0")):
        if cells := [cell for cell in multipliers if cell["connections"].get(port) == [constant]]:
            bit += 1
            name = f"multipliers_{port}"
            module["netnames"][name] = {"hide_name": 0, "bits": [bit], "attributes": {}}
            module["cells"][f"{name}_to_clock_net"] = {
                "hide_name": 0, "type": "DCCA", "parameters": {}, "attributes": {},
                "port_directions": {"CLKI": "input", "CE": "input", "CLKO": "output"},
                "connections": {"CLKI": [constant], "CE": ["1"], "CLKO": [bit]},
            }
            for cell in cells:
                cell["connections"][port] = [bit]


class Ecp5(Family):
    target = "ecp5"
    library = "ecp5"
    toolchain, pnr, packer = "Trellis", "nextpnr-ecp5", "ecppack"
    constraints, placed, bitstream = "lpf", "config", "bit"
    cells = {
        # a carry cell takes two tables, 16×4 bits of distributed RAM four and their write port two
        "LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        "FF": {"TRELLIS_FF": 1},
        "DSP": {"MULT18X18D": 1},
        "RAM": {"DP16KD": 1, "PDPW16KD": 1},
    }
    used = {"LUT": {"TRELLIS_COMB": 1}, "FF": {"TRELLIS_FF": 1}, "DSP": {"MULT18X18D": 1}, "RAM": {"DP16KD": 1}}
    blocks = _CONFIG, _config_rows, _config_text
    # Lattice FPGA-TN-02204, ECP5 Memory Usage Guide: 64 parameters of 16 words of 18 bits, 20 apart
    ram = Ram(
        cells=("DP16KD", "PDPW16KD"), parameters=tuple(f"INITVAL_{n:02X}" for n in range(64)),
        bits=18, pitch=20, layouts=((1, 1), (1, 2), (2, 1), (1, 4), (1, 8), (1, 16)),
    )
    # static: half the time of heap, two thirds of its wire; for clocks near the device's limits heap is some 5 % faster
    placers = ("static", "heap")
    spread = {"DP16KD": "RAM", "MULT18X18D": "DSP"}
    # FPGA-DS-02012, table "sysCLOCK PLL Timing"
    pll = Range(input=(8, 400), pfd=(10, 400), vco=(400, 800), output=(3.125, 400))

    def synthesis(self, device, top):
        return [NAMES_APART, f"synth_ecp5 -top {top}"]

    def mapped(self, path):
        netlist = json.loads(path.read_text(encoding="utf-8"))
        for module in netlist["modules"].values():
            trim_carries(module)
            hold_by_clock_nets(module)
        path.write_text(json.dumps(netlist), encoding="utf-8")

    def part(self, platform):
        package = platform._nextpnr_package_options[platform.package].upper()
        return [platform._nextpnr_device_options[platform.device], "--speed", platform.speed, "--package", package]

    def place(self, platform, name, seed, options):
        # router2 costs a third of the clock on long chains of multipliers
        return [*self.part(platform), "--lpf", f"{name}.lpf", "--textcfg", f"{seed}.config", "--router", "router1"]

    def pack(self, platform, options, source, target):
        return [*options, "--input", source, "--bit", target]

    def pll_candidates(self, f):
        """FPGA-TN-02200, feedback from CLKOP: output = f / CLKI_DIV * CLKFB_DIV, vco = output * CLKOP_DIV."""
        for clki, clkfb, clkop in product(range(1, 41), range(1, 81), range(1, 129)):
            pfd = f / clki
            yield pfd, pfd * clkfb * clkop, pfd * clkfb, {"CLKI_DIV": clki, "CLKFB_DIV": clkfb, "CLKOP_DIV": clkop}

    def pll_instance(self, pll, *, source, clock, locked, pad, device):
        p = pll.parameters
        return Instance(
            "EHXPLLL", p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_CLKI_DIV=p["CLKI_DIV"],
            p_CLKFB_DIV=p["CLKFB_DIV"], p_CLKOP_DIV=p["CLKOP_DIV"], p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=p["CLKOP_DIV"] - 1, p_CLKOP_FPHASE=0, p_FEEDBK_PATH="CLKOP",
            a_FREQUENCY_PIN_CLKI=f"{pll.input_hz / 1e6:.6g}", a_FREQUENCY_PIN_CLKOP=f"{pll.output_hz / 1e6:.6g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            i_RST=0, i_STDBY=0, i_CLKI=source, i_CLKFB=clock, i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1,
            i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0, o_CLKOP=clock, o_LOCK=locked,
        )


FAMILY = Ecp5()
