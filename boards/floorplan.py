"""Where the block RAMs and multipliers of a large design go: those of an engine side by side, engine after engine in a
snake over the device. Place and route finds the rest its place around them.
"""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from . import tools
from .families import FAMILIES

PART = re.compile(r"(?:^|\.)network\.(stage|convert|skip|join)[a-z_]*_(\d+)")  # of rtl_gen.pipeline
BANDS = 3  # of the snake
# of nextpnr: around fixed places its usual placer packs logic so tightly that the last arcs are not routed for hours
PLACER = "static"


def check_floorplan(device):
    """ValueError for a device of whose family nothing is known here, or without scipy."""
    if not FAMILIES[device.family].spread:
        there = ", ".join(key for key, family in FAMILIES.items() if family.spread)
        raise ValueError(f"a floorplan is for devices of the family {there}; {device.name} is of {device.family}")
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise ValueError("scipy is missing, which a floorplan needs: pip install scipy") from None


def place_engines(device, plan, top, directory, part, *, kind="yowasp"):
    """TOP.json in `directory`, of a core of `plan`, to TOP.placed.json, in which block RAMs and multipliers have the
    attribute BEL.

    part: arguments that tell nextpnr the device. kind: as in tools.run. Raises RuntimeError where nextpnr fails.
    """
    directory, family = Path(directory), FAMILIES[device.family]
    netlist = json.loads((directory / f"{top}.json").read_text(encoding="utf-8"))
    cells = netlist["modules"][top]["cells"]
    counts = {cell: device.available[resource] for cell, resource in family.spread.items()}
    found = sites(counts, family.pnr, part, directory, kind)
    for name, bel in assign(cells, engines_of(cells, plan), found, family.cells["LUT"]).items():
        cells[name]["attributes"]["BEL"] = bel
    (directory / f"{top}.placed.json").write_text(json.dumps(netlist), encoding="utf-8")


def sites(counts, pnr, part, directory, kind):
    """Type of cell → names of all places for it: where nextpnr puts as many loose ones as there are."""
    loose = dict.fromkeys(("parameters", "attributes", "port_directions", "connections"), {})
    cells = {f"{cell}_{n}": {"type": cell} | loose for cell, count in counts.items() for n in range(count)}
    module = {"attributes": {"top": "1"}, "ports": {}, "cells": cells, "netnames": {}}
    (directory / "loose.json").write_text(json.dumps({"modules": {"top": module}}), encoding="utf-8")
    arguments = [*part, "-q", "-l", "sites.log", "--json", "loose.json", "--no-route", "--write", "sites.json"]
    tools.run(pnr, arguments, directory=directory, log="sites.log", kind=kind)
    placed = json.loads((directory / "sites.json").read_text(encoding="utf-8"))
    found = defaultdict(list)
    for cell in placed["modules"]["top"]["cells"].values():
        found[cell["type"]].append(cell["attributes"]["NEXTPNR_BEL"])
    return found


def engines_of(names, plan):
    """Name → number of the engine that it is a part of or stands in front of, as a residual's FIFO at its end does."""
    lasts = {plan.layer(number): number for number in range(len(plan.engines))}
    found = {name: part for name in names if (part := PART.search(name))}
    return {name: lasts[int(part[2])] if part[1] == "skip" else int(part[2]) for name, part in found.items()}


def assign(cells, engines, sites, tables):
    """Name of a cell → name of its place, for all of the types that have sites.

    cells: of a netlist, as Yosys' JSON has them. engines: see engines_of; what has none counts as the last one's.
    sites: type → names. tables: type → 4-input tables of such a cell.
    The way of the snake is shared among the engines by what they have of the design; then all cells of a type are
    placed for the least sum of distances to their engines' places, each to the power of 1.5: one that is far away
    costs more than two that are half as far.
    """
    from scipy.optimize import linear_sum_assignment

    count = 1 + max(engines.values(), default=0)
    shares, own = defaultdict(Counter), defaultdict(dict)
    for name, cell in cells.items():
        kind, engine = cell["type"], engines.get(name, count - 1)
        if kind in sites:
            own[kind][name] = engine
            shares[kind][engine] += 1 / len(sites[kind])
        else:
            shares[None][engine] += tables.get(kind, 0)
    area = shares.pop(None)
    need = np.array([area[n] / area.total() + sum(share[n] for share in shares.values()) for n in range(count)])
    everywhere = [position(bel) for bels in sites.values() for bel in bels]
    middles = snake((need.cumsum() - need / 2) / need.sum(), everywhere)
    places = {}
    for kind, members in own.items():
        away = np.abs(middles[list(members.values()), None] - [position(bel) for bel in sites[kind]]).sum(axis=2)
        _, chosen = linear_sum_assignment(away**1.5)
        places |= {name: sites[kind][n] for name, n in zip(members, chosen)}
    return places


def snake(along, places):
    """(x, y) of shares of the way, (n,) in 0 to 1, that goes to and fro over the rectangle of `places`."""
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    band, across = np.divmod(np.asarray(along) * BANDS, 1)
    across = np.where(band % 2, 1 - across, across)
    return low + np.stack([across, (band + 0.5) / BANDS], axis=1) * (high - low)


def position(bel):
    """(x, y) of X../Y../.."""
    return [int(number) for number in re.match(r"X(\d+)/Y(\d+)/", bel).groups()]
