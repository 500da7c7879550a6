"""Gowin: Apicula. A GW5A is a family of its own: PLL, multipliers and block RAMs are not those of the others."""

from itertools import product

from amaranth.hdl import Const, Instance

from .family import NAMES_APART, Family, Ram, Range, within


class Gowin(Family):
    target = "gowin"
    library = "gowin"
    toolchain, pnr, packer = "Apicula", "nextpnr-gowin", "gowin_pack"
    constraints, placed, bitstream = "cst", "pnr.json", "fs"
    cells = {
        "LUT": {"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP": 8},
        "FF": {"DFF": 1},
        "DSP": {"MULT18X18": 1, "MULT9X9": 0.5, "MULT36X36": 4},
        "RAM": {"SDPB": 1, "SDPX9B": 1, "DPB": 1, "DPX9B": 1, "SPX9": 1, "pROM": 1},
    }
    variants = "DFF", "RAM16SDP", "pROM"  # DFFRE, RAM16SDP4, pROMX9
    # an ALU cell stands in the place of a table
    used = {
        "LUT": {"LUT4": 1, "ALU": 1}, "FF": {"DFF": 1}, "DSP": {"MULT18X18": 1, "MULT9X9": 0.5}, "RAM": {"BSRAM": 1},
    }
    # Gowin UG285: 64 parameters of 16 words of 16 bits, or of 18 in the cells of 9 bits a byte
    ram = Ram(
        cells=("pROM", "SDPB", "SDPX9B", "DPB", "DPX9B", "SP", "SPX9"),
        parameters=tuple(f"INIT_RAM_{n:02X}" for n in range(64)),
        bits=18, pitch=None, layouts=((1, 1), (1, 2), (2, 1), (1, 4), (1, 8), (1, 16)),
    )
    # DS117 (C6/I5) and DS102 (C8/I7), table "PLL Switching Characteristic"; the narrower of both
    pll = Range(input=(3, 400), pfd=(3, 400), vco=(500, 1200), output=(3.90625, 600))
    writes_json = True
    without = ""  # options of Yosys

    def synthesis(self, device, top):
        # -json leaves out what nextpnr does not know
        family = device.name[:4].lower()
        return [NAMES_APART, f"synth_gowin -family {family}{self.without} -top {top} -json {top}.json"]

    def place(self, platform, name, seed, options):
        arguments = ["--device", platform.part, "--vopt", f"family={platform._chipdb_device}"]
        arguments += ["--vopt", f"cst={name}.cst", "--write", f"{seed}.pnr.json"]
        return arguments + ["--vopt", "sspi_as_gpio"] * ("--sspi_as_gpio" in options)

    def pack(self, platform, options, source, target):
        return ["-d", platform._chipdb_device, "-o", target, *options, source]

    def notes(self, device):
        untimed = "nextpnr has no timing of Gowin's multipliers: with them, the clock is an upper bound"
        return ["LUT counts tables and ALU cells"] + [untimed] * bool(device.dsp)

    def pll_candidates(self, f):
        """UG286: output = f * (FBDIV_SEL + 1) / (IDIV_SEL + 1), vco = output * ODIV_SEL."""
        for idiv, fbdiv, odiv in product(range(64), range(64), (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)):
            pfd = f / (idiv + 1)
            out = pfd * (fbdiv + 1)
            yield pfd, out * odiv, out, {"IDIV_SEL": idiv, "FBDIV_SEL": fbdiv, "ODIV_SEL": odiv}

    def pll_instance(self, pll, *, source, clock, locked, pad, device):
        p = pll.parameters
        return Instance(
            "rPLL", p_FCLKIN=f"{pll.input_hz / 1e6:g}", p_DEVICE=device, p_IDIV_SEL=p["IDIV_SEL"],
            p_FBDIV_SEL=p["FBDIV_SEL"], p_ODIV_SEL=p["ODIV_SEL"], p_DYN_IDIV_SEL="false",
            p_DYN_FBDIV_SEL="false", p_DYN_ODIV_SEL="false", p_DYN_DA_EN="false",
            p_PSDA_SEL="0000", p_DUTYDA_SEL="1000", p_CLKFB_SEL="internal", p_CLKOUT_BYPASS="false",
            p_CLKOUTP_BYPASS="false", p_CLKOUTD_BYPASS="false", p_DYN_SDIV_SEL=2, p_CLKOUT_FT_DIR=1, p_CLKOUTP_FT_DIR=1,
            p_CLKOUT_DLY_STEP=0, p_CLKOUTP_DLY_STEP=0, p_CLKOUTD_SRC="CLKOUT", p_CLKOUTD3_SRC="CLKOUT",
            i_CLKIN=source, i_CLKFB=0, i_RESET=0, i_RESET_P=0, i_FBDSEL=0, i_IDSEL=0, i_ODSEL=0, i_PSDA=0, i_DUTYDA=0,
            i_FDLY=0, o_CLKOUT=clock, o_LOCK=locked,
        )


class Gw5a(Gowin):
    target = "plain"
    # DS1103, the same table
    pll = Range(input=(19, 800), pfd=(19, 800), vco=(800, 1600), output=(6.25, 1600))
    # nextpnr-himbaechel 0.11 knows neither its shadow RAM, nor what Yosys multiplies with
    without = " -nolutram -nodsp"

    def pll_candidates(self, f):
        """UG306, feedback inside: vco = f / IDIV_SEL * FBDIV_SEL * MDIV_SEL, output = vco / ODIV0_SEL."""
        for idiv, mdiv in product(range(1, 65), range(2, 129)):
            vco = f / idiv * mdiv
            for odiv in range(1, 129) if within(vco, self.pll.vco) else ():
                yield f / idiv, vco, vco / odiv, {"IDIV_SEL": idiv, "FBDIV_SEL": 1, "MDIV_SEL": mdiv, "ODIV0_SEL": odiv}

    def pll_instance(self, pll, *, source, clock, locked, pad, device):
        p = pll.parameters
        return Instance(
            "PLLA", p_FCLKIN=f"{pll.input_hz / 1e6:g}", **{f"p_{name}": value for name, value in p.items()},
            # gowin_pack reads no defaults of the outputs that stand still
            **{f"p_ODIV{n}_SEL": 8 for n in range(1, 7)}, **{f"p_CLKOUT{n}_EN": "FALSE" for n in range(1, 7)},
            p_CLKOUT0_EN="TRUE", p_CLKFB_SEL="INTERNAL", i_CLKIN=source, o_CLKOUT0=clock, o_LOCK=locked,
            **{f"i_{port}": 0 for port in ("CLKFB", "RESET", "PLLPWD", "RESET_I", "RESET_O", "PSDIR", "PSPULSE")},
            **{f"i_{port}": 0 for port in ("SSCPOL", "SSCON", "MDCLK", "MDAINC")},
            i_PSSEL=Const(0, 3), i_SSCMDSEL=Const(0, 7), i_SSCMDSEL_FRAC=Const(0, 3), i_MDOPC=Const(0, 2),
            i_MDWDI=Const(0, 8),
        )


FAMILY, GW5A = Gowin(), Gw5a()
