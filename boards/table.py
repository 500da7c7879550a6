"""The boards: what is on each, which part of it is used, how it is programmed. docs/boards.md says how to add one."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module

from .families import FAMILIES

ICEPROG = "iceprog is missing; on Debian: apt-get install fpga-icestorm"
OPENFPGALOADER = "openFPGALoader is missing; on Debian: apt-get install openfpgaloader"
DFU_UTIL = "dfu-util is missing; on Debian: apt-get install dfu-util"
ICESPROG = "icesprog is missing: it is in the tools folder of https://github.com/wuxx/icesugar"


@dataclass(frozen=True, kw_only=True)
class Device:
    """An FPGA: what nextpnr may use of it.

    family: of boards.families. lut, ff: 4-input tables and flip-flops. dsp: multipliers of 16×16 (iCE40) or 18×18
    bits. ram: block RAMs. limits: clock limits (resource, MHz, why) that nextpnr does not
    know; each counts where the resource is used.
    """

    name: str
    family: str
    lut: int
    ff: int
    dsp: int
    ram: int
    limits: tuple = ()

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(f"Device.family must be one of {', '.join(FAMILIES)}, got {self.family!r}")

    @property
    def target(self):
        """The target of cores made of its own parts, or "plain" where there is none."""
        return FAMILIES[self.family].target

    @property
    def ram_bits(self):
        """Of a block RAM."""
        return FAMILIES[self.family].ram.size

    @property
    def available(self):
        """Resource name → number."""
        return {"LUT": self.lut, "FF": self.ff, "DSP": self.dsp, "RAM": self.ram}


# sizes: FPGA-DS-02008 (UltraPlus), FPGA-DS-02029 (LP/HX), FPGA-DS-02012 (ECP5), DS117 (GW1NR), DS102 (GW2A), DS226
# (GW2AR), DS1103 (GW5A); a test holds those of the boards it builds for against what nextpnr counts
UP5K = Device(
    name="iCE40UP5K", family="ice40", lut=5280, ff=5280, dsp=8, ram=30,
    # the datasheet's typical figures (table "Register-to-Register Performance")
    limits=(
        ("DSP", 50.0, "SB_MAC16 16×16 without its pipeline register, FPGA-DS-02008"),
        ("RAM", 150.0, "SB_RAM40_4K, FPGA-DS-02008"),
    ),
)
HX8K = Device(name="iCE40HX8K", family="ice40", lut=7680, ff=7680, dsp=0, ram=32)


def _ecp5(name, lut, dsp, ram, speed):
    # twice the smallest width of the block RAM's clock pulse, from the timing database: nextpnr does not check it
    clock = {6: 212.0, 8: 271.0}[speed]
    limits = (("RAM", clock, f"DP16KD, smallest clock pulse at speed grade {speed}"),)
    return Device(name=name, family="ecp5", lut=lut, ff=lut, dsp=dsp, ram=ram, limits=limits)


# nextpnr would give the whole of the 25F, whose die it is
ECP5_12F = _ecp5("LFE5U-12F", 12144, 28, 32, 6)
ECP5_25F = _ecp5("LFE5U-25F", 24288, 28, 56, 6)
ECP5_45F = _ecp5("LFE5U-45F", 43848, 72, 108, 6)
ECP5_85F = _ecp5("LFE5U-85F", 83640, 156, 208, 6)
ECP5_5G_85F = _ecp5("LFE5UM5G-85F", 83640, 156, 208, 8)
GW1NR9 = Device(name="GW1NR-9C", family="gowin", lut=8640, ff=6480, dsp=20, ram=26)
GW2A18 = Device(name="GW2A-18C", family="gowin", lut=20736, ff=15552, dsp=48, ram=46)
GW2AR18 = replace(GW2A18, name="GW2AR-18C")
# its multipliers of 12×12 and 27×36 bits are used by neither Yosys nor our gateware
GW5A25 = Device(name="GW5A-25A", family="gw5a", lut=23040, ff=23040, dsp=0, ram=56)


@dataclass(frozen=True, kw_only=True)
class Programmer:
    """A command with `{file}` in it, and what to do where the program is missing. note: what the board needs for it."""

    command: tuple
    cure: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Board:
    """A board of the table.

    platform: "module:class" in amaranth_boards, ":class" in boards.platforms. clock, clock_hz: oscillator resource and
    its frequency. pll: how its PLL is fed, "pad" or "core" (iCE40: only some pins reach the PLL as a pad), True
    elsewhere, or None for none. clock_mhz: of the core, where nothing else is asked for; it closes timing with room to
    spare. uart: its resource. led: resource of a light for the line's activity, or None. programmers: "sram" and
    "flash", the first one is the default. pack: options of the program that packs the bitstream.
    """

    key: str
    title: str
    platform: str
    device: Device
    clock: str
    clock_hz: int
    clock_mhz: float
    baud: int
    programmers: dict
    pll: object = True
    uart: tuple = ("uart", 0)
    led: tuple | None = ("led", 0)
    pack: tuple = ()
    note: str = ""

    def __repr__(self):
        return f"<Board {self.key}: {self.device.name}, core clock {self.clock_mhz:g} MHz>"

    def __post_init__(self):
        if not 115_200 <= self.baud <= 3_000_000:
            raise ValueError(f"Board.baud of {self.key} must be 115200 to 3000000, got {self.baud}")
        if wrong := set(self.programmers) - {"sram", "flash"}:
            raise ValueError(f"Board.programmers of {self.key} must be sram or flash, got {', '.join(sorted(wrong))}")

    @property
    def suffix(self):
        """Of the bitstream's file name."""
        return FAMILIES[self.device.family].bitstream

    def make_platform(self):
        """A fresh Amaranth platform; each serves one build."""
        from . import platforms

        module, name = self.platform.split(":")
        platform = getattr(import_module(f"amaranth_boards.{module}") if module else platforms, name)
        # open tools, where a platform has the choice
        return platform(toolchain=FAMILIES[self.device.family].toolchain)


def _openfpgaloader(*which):
    return {
        "sram": Programmer(command=("openFPGALoader", *which, "-m", "{file}"), cure=OPENFPGALOADER),
        "flash": Programmer(command=("openFPGALoader", *which, "-f", "{file}"), cure=OPENFPGALOADER),
    }


def _iceprog(jumpers):
    return {
        "flash": Programmer(command=("iceprog", "{file}"), cure=ICEPROG),
        "sram": Programmer(command=("iceprog", "-S", "{file}"), cure=ICEPROG, note=jumpers),
    }


COMPRESS = ("--compress",)
SPI_PINS = ("--sspi_as_gpio", "--mspi_as_gpio")  # what amaranth-boards gives for these boards


def _ulx3s(device):
    size = device.name.removeprefix("LFE5U-")
    return Board(
        key=f"ulx3s-{size.lower()}", title=f"ULX3S with {device.name}", platform=f"ulx3s:ULX3S_{size}_Platform",
        device=device, clock="clk25", clock_hz=25_000_000, clock_mhz=25.0, baud=1_000_000,
        programmers=_openfpgaloader("-b", "ulx3s"), pack=COMPRESS,
    )


_BOARDS = (
    Board(
        key="icebreaker", title="iCEBreaker", platform="icebreaker:ICEBreakerPlatform", device=UP5K,
        clock="clk12", clock_hz=12_000_000, clock_mhz=12.0, pll="pad", baud=1_000_000,
        programmers=_iceprog("the board's jumpers must be set for SRAM programming"),
    ),
    _ulx3s(ECP5_85F),
    Board(
        key="tang-nano-9k", title="Tang Nano 9K", platform="tang_nano_9k:TangNano9kPlatform", device=GW1NR9,
        clock="clk27", clock_hz=27_000_000, clock_mhz=27.0, baud=115_200,
        programmers=_openfpgaloader("-b", "tangnano9k"), pack=SPI_PINS,
    ),
    Board(
        key="hx8k-b-evn", title="iCE40HX8K Breakout Board", platform="ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
        device=HX8K, clock="clk12", clock_hz=12_000_000, clock_mhz=12.0, pll="core", baud=1_000_000,
        programmers=_iceprog("jumpers J6 must be set for SRAM programming"),
        note="no multipliers: products are made of LUTs",
    ),
    Board(
        key="icesugar", title="iCESugar 1.5", platform="icesugar:ICESugarPlatform", device=UP5K,
        clock="clk12", clock_hz=12_000_000, clock_mhz=12.0, pll="pad", baud=115_200,
        programmers={"flash": Programmer(command=("icesprog", "{file}"), cure=ICESPROG)},
        note="the bitstream may also be copied onto the USB drive that the board shows",
    ),
    Board(
        key="ecpix-5-85", title="ECPIX-5 with LFE5UM5G-85F", platform="ecpix5:ECPIX585Platform", device=ECP5_5G_85F,
        clock="clk100", clock_hz=100_000_000, clock_mhz=50.0, baud=1_000_000, led=None,
        programmers=_openfpgaloader("-b", "ecpix5"), pack=COMPRESS,
    ),
    Board(
        key="colorlight-5a-75b", title="Colorlight 5A-75B 7.0",
        platform="colorlight_5a75b_r7_0:Colorlight_5A75B_R70Platform", device=ECP5_25F,
        clock="clk25", clock_hz=25_000_000, clock_mhz=25.0, baud=115_200, led=None,
        programmers=_openfpgaloader("-b", "colorlight", "-c", "ft232"), pack=COMPRESS,
        note="no USB: the UART is on J19, transmit on the LED's pin, receive on the button's, so that neither can be "
        "used; JTAG and serial adapters of 3.3 V are needed",
    ),
    Board(
        key="tang-primer-20k", title="Tang Primer 20K with dock", platform="tang_primer_20k:TangPrimer20kDockPlatform",
        device=GW2A18, clock="clk27", clock_hz=27_000_000, clock_mhz=27.0, baud=115_200,
        programmers=_openfpgaloader("-b", "tangprimer20k"), pack=(*SPI_PINS, "--ready_as_gpio", "--done_as_gpio"),
    ),
    Board(
        key="ecp5-5g-evn", title="ECP5-5G Evaluation Board", platform="ecp5_5g_evn:ECP55GEVNPlatform",
        device=ECP5_5G_85F, clock="clk12", clock_hz=12_000_000, clock_mhz=48.0, baud=1_000_000,
        programmers=_openfpgaloader("-b", "ecp5_evn"), pack=COMPRESS,
        note="the UART works only after two resistors are moved and the FTDI chip is set up again (user manual, 6.2)",
    ),
    *map(_ulx3s, (ECP5_12F, ECP5_25F, ECP5_45F)),
    Board(
        key="tang-nano-20k", title="Tang Nano 20K", platform=":TangNano20k", device=GW2AR18,
        clock="clk27", clock_hz=27_000_000, clock_mhz=27.0, baud=115_200,
        programmers=_openfpgaloader("-b", "tangnano20k"), pack=SPI_PINS,
    ),
    Board(
        key="tang-primer-25k", title="Tang Primer 25K with dock", platform=":TangPrimer25k", device=GW5A25,
        clock="clk50", clock_hz=50_000_000, clock_mhz=50.0, baud=115_200, led=None,
        programmers=_openfpgaloader("-b", "tangprimer25k"), pack=("--sspi_as_gpio", "--cpu_as_gpio"),
        note="no multipliers: products are made of LUTs",
    ),
    Board(
        key="icebreaker-bitsy", title="iCEBreaker bitsy", platform=":ICEBreakerBitsy", device=UP5K,
        clock="clk12", clock_hz=12_000_000, clock_mhz=12.0, pll="pad", baud=115_200,
        programmers={"flash": Programmer(
            command=("dfu-util", "-d", ",1d50:6146", "-a", "0", "-R", "-D", "{file}"), cure=DFU_UTIL,
            note="the board must be in its bootloader: hold its button while it is plugged in",
        )},
        note="its USB is no serial port: a serial adapter of 3.3 V is needed; P0 transmits, P1 receives",
    ),
    Board(
        key="upduino-3", title="UPduino 3.0, 3.1", platform=":UPduino3", device=UP5K,
        clock="clk12", clock_hz=12_000_000, clock_mhz=12.0, pll="core", baud=115_200,
        programmers={"flash": Programmer(command=("iceprog", "{file}"), cure=ICEPROG)},
        note="R16 (OSC) must be closed for its clock, and a serial adapter of 3.3 V is needed: pin 28 transmits, 38 "
        "receives; the lines of its own USB chip are those of the flash",
    ),
)
BOARDS = {board.key: board for board in _BOARDS}
USB_ONLY = {"orangecrab": "OrangeCrab", "fomu": "Fomu"}


def find_board(key):
    """The Board of a key; ValueError names the nearest key, and says of boards with USB alone that they wait."""
    if isinstance(key, Board):
        return key
    if key in BOARDS:
        return BOARDS[key]
    for word, title in USB_ONLY.items():
        if key.lower().startswith(word):
            raise ValueError(f"board {key!r}: {title} has USB and no UART, which is not yet supported")
    near = get_close_matches(key.lower(), BOARDS, n=1, cutoff=0.3)
    hint = f", the nearest is {near[0]!r}" if near else ""
    raise ValueError(f"board {key!r} is not in the table{hint}; there are {', '.join(BOARDS)}")
