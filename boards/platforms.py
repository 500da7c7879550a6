"""Platforms that amaranth-boards has not, or has without a UART.

Pins of the two Tang boards: Sipeed's schematics (Tang Nano 20K 3921, Tang Primer 25K 52300 and its dock 60033), the
same as in litex-boards. iCEBreaker bitsy and UPduino 3: amaranth-boards, and two free pins as UART.
"""

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import GowinPlatform
from amaranth_boards.icebreaker_bitsy import ICEBreakerBitsyPlatform
from amaranth_boards.resources import LEDResources, UARTResource
from amaranth_boards.upduino_v3 import UpduinoV3Platform

_CMOS33 = Attrs(IO_TYPE="LVCMOS33")
_ICE40 = Attrs(IO_STANDARD="SB_LVCMOS")


class TangNano20k(GowinPlatform):
    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    _chipdb_device = "GW2A-18C"  # the same die, beside a memory
    default_clk = "clk27"
    resources = (
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), _CMOS33),
        UARTResource(0, rx="70", tx="69", attrs=Attrs(PULL_MODE="UP", IO_TYPE="LVCMOS33")),
        *LEDResources(pins="15 16 17 18 19 20", invert=True, attrs=_CMOS33),
    )
    connectors = ()


class TangPrimer25k(GowinPlatform):
    part = "GW5A-LV25MG121NC1/I0"
    family = "GW5A-25A"
    _chipdb_device = "GW5A-25A"
    default_clk = "clk50"
    resources = (
        Resource("clk50", 0, Pins("E2", dir="i"), Clock(50e6), _CMOS33),
        UARTResource(0, rx="B3", tx="C3", attrs=Attrs(PULL_MODE="UP", IO_TYPE="LVCMOS33")),
    )
    connectors = ()

    def parse_part(self):
        """Amaranth knows no GW5A; nothing here asks for the parts of its name."""


class ICEBreakerBitsy(ICEBreakerBitsyPlatform):
    # P0 and P1 of the edge connector
    resources = (*ICEBreakerBitsyPlatform.resources, UARTResource(0, rx="44", tx="47", attrs=_ICE40))


class UPduino3(UpduinoV3Platform):
    default_clk = "clk12"
    resources = (
        *UpduinoV3Platform.resources,
        *LEDResources(pins="39", invert=True, attrs=_ICE40),
        UARTResource(0, rx="38", tx="28", attrs=_ICE40),
    )
