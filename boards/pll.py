"""PLLs: their parameters from two frequencies, checked against the ranges of the data sheets, and their instances."""

from dataclasses import dataclass
from functools import cache
from itertools import product

from amaranth.hdl import Const, Instance

TOLERANCE = 0.005  # of the frequency asked for


@dataclass(frozen=True, kw_only=True)
class Pll:
    """A PLL that makes `output_hz` of `input_hz`. family: of RANGES; parameters: its own names; vco_hz: its
    oscillator.
    """

    family: str
    input_hz: float
    output_hz: float
    vco_hz: float
    parameters: dict


@dataclass(frozen=True, kw_only=True)
class Range:
    """Limits of a device's PLL in MHz, both ends included."""

    input: tuple
    pfd: tuple
    vco: tuple
    output: tuple


RANGES = {
    # FPGA-DS-02008 and FPGA-DS-02029, table "sysCLOCK PLL Timing"
    "ice40": Range(input=(10, 133), pfd=(10, 133), vco=(533, 1066), output=(16, 275)),
    # FPGA-DS-02012, table "sysCLOCK PLL Timing"
    "ecp5": Range(input=(8, 400), pfd=(10, 400), vco=(400, 800), output=(3.125, 400)),
    # DS117 (C6/I5) and DS102 (C8/I7), table "PLL Switching Characteristic"; the narrower of both
    "gowin": Range(input=(3, 400), pfd=(3, 400), vco=(500, 1200), output=(3.90625, 600)),
    # DS1103, the same table
    "gw5a": Range(input=(19, 800), pfd=(19, 800), vco=(800, 1600), output=(6.25, 1600)),
}


def _within(hz, limits):
    return limits[0] <= hz / 1e6 <= limits[1]


def _ice40(f):
    """FPGA-TN-02052, FEEDBACK_PATH SIMPLE: vco = f / (DIVR + 1) * (DIVF + 1), output = vco / 2^DIVQ."""
    for divr, divf, divq in product(range(16), range(128), range(1, 7)):
        pfd = f / (divr + 1)
        vco = pfd * (divf + 1)
        yield pfd, vco, vco / (1 << divq), {"DIVR": divr, "DIVF": divf, "DIVQ": divq}


def _ecp5(f):
    """FPGA-TN-02200, feedback from CLKOP: output = f / CLKI_DIV * CLKFB_DIV, vco = output * CLKOP_DIV."""
    for clki, clkfb, clkop in product(range(1, 41), range(1, 81), range(1, 129)):
        pfd = f / clki
        yield pfd, pfd * clkfb * clkop, pfd * clkfb, {"CLKI_DIV": clki, "CLKFB_DIV": clkfb, "CLKOP_DIV": clkop}


def _gowin(f):
    """UG286: output = f * (FBDIV_SEL + 1) / (IDIV_SEL + 1), vco = output * ODIV_SEL."""
    for idiv, fbdiv, odiv in product(range(64), range(64), (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)):
        pfd = f / (idiv + 1)
        out = pfd * (fbdiv + 1)
        yield pfd, out * odiv, out, {"IDIV_SEL": idiv, "FBDIV_SEL": fbdiv, "ODIV_SEL": odiv}


def _gw5a(f):
    """UG306, feedback inside: vco = f / IDIV_SEL * FBDIV_SEL * MDIV_SEL, output = vco / ODIV0_SEL."""
    for idiv, mdiv in product(range(1, 65), range(2, 129)):
        vco = f / idiv * mdiv
        for odiv in range(1, 129) if _within(vco, RANGES["gw5a"].vco) else ():
            yield f / idiv, vco, vco / odiv, {"IDIV_SEL": idiv, "FBDIV_SEL": 1, "MDIV_SEL": mdiv, "ODIV0_SEL": odiv}


_CANDIDATES = {"ice40": _ice40, "ecp5": _ecp5, "gowin": _gowin, "gw5a": _gw5a}


@cache
def plan(family, input_hz, output_hz):
    """The Pll (of RANGES) nearest to `output_hz`, the one with the fastest comparison (least jitter) of equals.

    Raises ValueError, which names the nearest frequency there is, where none within 0.5 % is in the device's ranges.
    """
    ranges, found = RANGES[family], []
    if not _within(input_hz, ranges.input):
        raise ValueError(f"the PLL takes {ranges.input[0]} to {ranges.input[1]} MHz, got {input_hz / 1e6:g} MHz")
    for pfd, vco, out, parameters in _CANDIDATES[family](input_hz):
        if _within(pfd, ranges.pfd) and _within(vco, ranges.vco) and _within(out, ranges.output):
            found.append((round(abs(out - output_hz)), -pfd, vco, out, parameters))
    error, negative_pfd, vco, out, parameters = min(found, key=lambda candidate: candidate[:3])
    if error > TOLERANCE * output_hz:
        raise ValueError(
            f"the PLL cannot make {output_hz / 1e6:g} MHz of {input_hz / 1e6:g} MHz; the nearest is {out / 1e6:.6g} "
            f"MHz (it makes {ranges.output[0]} to {ranges.output[1]} MHz)"
        )
    if family == "ice40":
        # FPGA-TN-02052: the loop filter follows the frequency of the phase comparison
        steps = (17, 26, 44, 66, 101)
        parameters = {**parameters, "FILTER_RANGE": 1 + sum(-negative_pfd / 1e6 >= step for step in steps)}
    return Pll(family=family, input_hz=input_hz, output_hz=out, vco_hz=vco, parameters=parameters)


def instance(pll, *, source, clock, locked, pad=False, device=""):
    """The primitive. source: the IO port where `pad` (iCE40), else a signal; clock, locked: signals it drives."""
    p = pll.parameters
    if pll.family == "ice40":
        feed = {"io_PACKAGEPIN": source} if pad else {"i_REFERENCECLK": source}
        return Instance(
            "SB_PLL40_PAD" if pad else "SB_PLL40_CORE", p_FEEDBACK_PATH="SIMPLE", p_DIVR=p["DIVR"], p_DIVF=p["DIVF"],
            p_DIVQ=p["DIVQ"], p_FILTER_RANGE=p["FILTER_RANGE"], i_RESETB=1, i_BYPASS=0, o_PLLOUTGLOBAL=clock,
            o_LOCK=locked, **feed,
        )
    if pll.family == "ecp5":
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
    if pll.family == "gw5a":
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
