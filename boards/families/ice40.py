"""Lattice iCE40: icestorm."""

import re
from itertools import product
from pathlib import Path

import numpy as np
from amaranth.hdl import Instance

from .family import Family, Ram, Range

# synth_ice40 -dsp, but without its pass ice40_dsp, which packs registers and adders into SB_MAC16 and gets two cases
# wrong (Yosys 0.70): a product followed by two registers becomes a constant, and where two registered products are
# added, one of them is lost, without a word. SB_MAC16's own registers stay unused, so it runs at 50 MHz at most.
WITH_DSP = """\
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
chtype -set $mul t:$__soft_mul"""

# The eight cells of a tile share an enable: one that fewer flip-flops have goes into their tables. Else nextpnr looks
# for minutes for places where all of a nearly full device lie: the 28x28 digits took 280 seconds, and take 70.
MAP = "synth_ice40 -dffe_min_ce_use 8 -top {top}"
# what `map_ram` of synth_ice40 does, but for the time that it takes over contents
MAP_RAM = f"""\
memory_libmap -lib +/ice40/brams.txt -lib +/ice40/spram.txt -no-auto-huge
design -push
read_verilog <<END
{Path(__file__).with_name("ice40_ram.v").read_text(encoding="ascii")}
END
design -stash ram
design -pop
techmap -map %ram"""

# In a placed bitstream's text block RAMs have no names: a block is known by its whole content.
_ASC = re.compile(r"^(\.ram_data \d+ \d+\n)((?:[0-9a-f]{64}\n){16})", re.MULTILINE)


def _asc_rows(text):
    lines = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(16, 32)[:, ::-1]
    return np.unpackbits(lines, bitorder="little").reshape(256, 16).astype(bool)


def _asc_text(content):
    lines = np.packbits(content.reshape(16, 256), axis=1, bitorder="little")[:, ::-1]
    return "".join(f"{line.tobytes().hex()}\n" for line in lines)


class Ice40(Family):
    target = "ice40"
    library = "ice40"
    toolchain, pnr, packer = "IceStorm", "nextpnr-ice40", "icepack"
    constraints, placed, bitstream = "pcf", "asc", "bin"
    cells = {"LUT": {"SB_LUT4": 1}, "FF": {"SB_DFF": 1}, "DSP": {"SB_MAC16": 1}, "RAM": {"SB_RAM40_4K": 1}}
    variants = "SB_DFF", "SB_RAM40_4K"  # SB_DFFESR, SB_RAM40_4KNR
    # nextpnr does not count the flip-flops
    used = {"LUT": {"ICESTORM_LC": 1}, "FF": {}, "DSP": {"ICESTORM_DSP": 1}, "RAM": {"ICESTORM_RAM": 1}}
    blocks = _ASC, _asc_rows, _asc_text
    # Lattice TN1250, Memory Usage Guide for iCE40: 16 parameters of 16 words of 16 bits; narrower words share a row
    ram = Ram(
        cells=("SB_RAM40_4K",), parameters=tuple(f"INIT_{n:X}" for n in range(16)),
        bits=16, pitch=16, layouts=((1, 1), (1, 2), (1, 4), (1, 8)),
    )
    # FPGA-DS-02008 and FPGA-DS-02029, table "sysCLOCK PLL Timing"
    pll = Range(input=(10, 133), pfd=(10, 133), vco=(533, 1066), output=(16, 275))

    def synthesis(self, device, top):
        before = f"{WITH_DSP}\n{MAP} -run coarse:map_ram" if device.dsp else f"{MAP} -run begin:map_ram"
        return [*before.format(top=top).splitlines(), *MAP_RAM.splitlines(), f"{MAP} -run map_ram:".format(top=top)]

    def place(self, platform, name, seed, options):
        device = platform._nextpnr_device_options[platform.device]
        return [device, "--package", platform.package.lower(), "--pcf", f"{name}.pcf", "--asc", f"{seed}.asc"]

    def pack(self, platform, options, source, target):
        return [*options, source, target]

    def notes(self, device):
        return ("LUT, routed, counts logic cells (a table and a flip-flop each)",)

    def pll_candidates(self, f):
        """FPGA-TN-02052, FEEDBACK_PATH SIMPLE: vco = f / (DIVR + 1) * (DIVF + 1), output = vco / 2^DIVQ."""
        for divr, divf, divq in product(range(16), range(128), range(1, 7)):
            pfd = f / (divr + 1)
            vco = pfd * (divf + 1)
            # the loop filter follows the frequency of the phase comparison
            steps = sum(pfd / 1e6 >= step for step in (17, 26, 44, 66, 101))
            yield pfd, vco, vco / (1 << divq), {"DIVR": divr, "DIVF": divf, "DIVQ": divq, "FILTER_RANGE": 1 + steps}

    def pll_instance(self, pll, *, source, clock, locked, pad, device):
        p = pll.parameters
        feed = {"io_PACKAGEPIN": source} if pad else {"i_REFERENCECLK": source}
        return Instance(
            "SB_PLL40_PAD" if pad else "SB_PLL40_CORE", p_FEEDBACK_PATH="SIMPLE", p_DIVR=p["DIVR"], p_DIVF=p["DIVF"],
            p_DIVQ=p["DIVQ"], p_FILTER_RANGE=p["FILTER_RANGE"], i_RESETB=1, i_BYPASS=0, o_PLLOUTGLOBAL=clock,
            o_LOCK=locked, **feed,
        )


FAMILY = Ice40()
