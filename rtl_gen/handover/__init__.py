"""What stands beside a core's Verilog, so that it can be used without this project; one module for a kind of file."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from .. import memories, tech
from ..plan import Plan
from .bench import bench
from .clock import MHZ, check_clock, constraints
from .fusesoc import core
from .lint import waivers
from .reference import header
from .template import template

ENDINGS = "_inst.v", "_models.v", "_nextpnr.py", "_tb.v", ".core", ".h", ".sdc", ".vlt", ".xdc"
OF_WEIGHTS = "_tb.v", ".h"  # those that new weights change

__all__ = ["ENDINGS", "MHZ", "OF_WEIGHTS", "check_clock", "check_free", "names", "write"]


def names(name: str, endings: Iterable[str] = ENDINGS) -> list[str]:
    """Those that there may be beside NAME.v."""
    return [f"{name}{ending}" for ending in endings]


def check_free(folder: Path, name: str) -> None:
    """FileExistsError where files have these names, but there is no core that they would be of: somebody's own. And
    where the Verilog of two cores, such as x and x_tb, would be one's core and what stands beside the other.
    """
    tails = [ending.removesuffix(".v") for ending in ENDINGS if ending.endswith(".v")]
    for tail in tails:
        for other, whole in ((name + tail, name + tail), (name.removesuffix(tail), name)):
            if other != name and os.path.lexists(folder / f"{other}.json"):
                raise FileExistsError(
                    f"{folder / whole}.v: would be of two cores, {name} and {other}, whose folder this is; take "
                    f"another folder or name"
                )
    found = [] if (folder / f"{name}.json").exists() else [f for f in names(name) if os.path.lexists(folder / f)]
    if found:
        raise FileExistsError(
            f"{folder / found[0]}: would be overwritten, and there is no core {name} in this folder that it could be "
            f"of; take another folder or name, or move it"
        )


def write(plan: Plan, folder: Path, name: str, mhz: float = MHZ) -> None:
    """Write what the core of a Plan needs beside NAME.v, which is in the folder already.

    mhz: the clock of the constraints. NAME_models.v is there where the core instances primitives.
    """
    models = [path.read_text(encoding="utf-8") for path in tech.models(plan.target)]
    cells = set(re.findall(r"^module (\w+)", "".join(models), re.MULTILINE))
    primitives = not cells.isdisjoint(re.findall(r"\w+", (folder / f"{name}.v").read_text(encoding="utf-8")))
    texts = {
        "_inst.v": template(plan, name),
        "_tb.v": bench(plan, name, primitives),
        ".vlt": waivers(name, primitives),
        ".core": core(name, primitives, memories.left(folder, name)),
        **constraints(name, mhz),
    }
    if plan.network.beyond_row is None:
        texts[".h"] = header(plan.network, name)
    if primitives:
        models += [tech.FLASH.read_text(encoding="utf-8")] * bool(plan.outside)
        texts["_models.v"] = f"// For the simulation of {name}, not for its synthesis.\n{''.join(models)}"
    for ending, text in texts.items():
        (folder / f"{name}{ending}").write_text(text, encoding="utf-8")
