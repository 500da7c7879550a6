"""The families of FPGAs, a module each: all that the open flow has to know of them."""

from . import ecp5, gowin, ice40

FAMILIES = {"ice40": ice40.FAMILY, "ecp5": ecp5.FAMILY, "gowin": gowin.FAMILY, "gw5a": gowin.GW5A}
