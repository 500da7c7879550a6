"""The clock, for Vivado (NAME.xdc), Quartus (NAME.sdc) and nextpnr (NAME_nextpnr.py)."""

MHZ = 100.0  # where nothing else is asked for


def check_clock(mhz: float) -> None:
    """ValueError unless a clock can be so fast."""
    if not 1e-3 <= mhz <= 1e5:
        raise ValueError(f"clock must be 0.001 to 100000 MHz, got {mhz:g}")


def constraints(name, mhz):
    """Ending of a file → its text, for a core whose clock has so many MHz."""
    head = f"# The clock of {name} where that is the whole design: {mhz:g} MHz.\n"
    head += "# Where a design around it has constrained its clock, leave this file out.\n"
    create = f"create_clock -name aclk -period {1000 / mhz:.3f} [get_ports aclk]\n"
    return {
        ".xdc": f"{head}{create}",
        ".sdc": f"{head}# Quartus; nextpnr too, whose newer versions have an option --sdc.\n{create}",
        "_nextpnr.py": f"{head}# nextpnr-ecp5 --pre-pack {name}_nextpnr.py ..., and others with Python in them.\n"
        f'ctx.addClock("aclk", {mhz:g})\n',
    }
