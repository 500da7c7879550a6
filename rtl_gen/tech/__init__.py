"""The technology layer: multipliers, ROMs and RAMs of each family of FPGAs, behind one interface.

Every part answers after the same number of cycles on every family, so that the cycles of a design depend on its
specification alone.
"""

from functools import cache
from importlib import import_module
from pathlib import Path

from .technology import MULTIPLY, READ, Technology, number

TARGETS = ("plain", "ecp5", "ice40", "gowin")
VARIANTS = "tables", "blocks"  # of those with primitives


def check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")


@cache
def technology(target: str) -> Technology:
    """The Technology of a target's name, or of "cases", plain HDL without contents of memories; with "-tables" behind
    it, of a family whose small memories are in tables wherever that is cheap, with "-blocks" of one whose ROMs are all
    in block RAMs. ValueError for a name that is none.
    """
    family, _, kind = target.partition("-")
    if target != "cases":
        check_target(family)
    own = import_module(f".{family}", __name__).TECHNOLOGY
    if not kind:
        return own
    if kind not in VARIANTS or family == "plain":
        raise ValueError(f"{target!r} is no technology; {', '.join(TARGETS[1:])} have -{' and -'.join(VARIANTS)}")
    return own.variant(kind)


FLASH = Path(__file__).with_name("flash.v")  # a model of what cores with pins for it are loaded from


def models(target: str) -> tuple[Path, ...]:
    """Paths of the Verilog models of the primitives that a target's Verilog instances."""
    path = Path(__file__).with_name(f"{target}.v")
    return () if target == "plain" else (path,)


__all__ = [
    "FLASH", "MULTIPLY", "READ", "TARGETS", "VARIANTS", "Technology",
    "check_target", "models", "number", "technology",
]
