"""Floorplans: every place taken once, an engine's cells together, engines in their order, and nextpnr keeps to them."""

import json
import re

import numpy as np
import pytest
from rtl_bench import factor_of
from sim_bench import small_core

from bfthw import IntLayer, IntNetwork, QFormat
from boards import synth, tools
from boards.build import build
from boards.floorplan import BANDS, PLACER, assign, check_floorplan, engines_of, place_engines, position, sites, snake
from boards.table import ECP5_25F, UP5K
from rtl_gen import Plan, to_rtlil

PART = "--25k", "--package", "CABGA256"
TABLES = {"LUT4": 1}


def engines(count, each, tables=40):
    """Cells of so many engines: each a block RAM and two multipliers so often, and its tables."""
    kinds = [("DP16KD", each), ("MULT18X18D", 2 * each), ("LUT4", tables)]
    return {
        f"core.network.stage_{e}.part{n}_{kind}": {"type": kind}
        for e in range(count) for kind, of in kinds for n in range(of)
    }


def placed(cells, rows):
    """What `assign` makes of cells that have their engines' numbers in their names."""
    own = {name: int(found[1]) for name in cells if (found := re.search(r"stage_(\d+)", name))}
    return assign(cells, own, grid(rows), TABLES)


def grid(rows):
    """Places of both kinds, in rows of 30."""
    return {
        kind: [f"X{4 * x}/Y{y}/{kind}0" for y in ys for x in range(30)]
        for kind, ys in (("DP16KD", rows), ("MULT18X18D", [y + 6 for y in rows]))
    }


def middles(places, count):
    """(x, y) of the middle of each engine's cells."""
    own = [[position(bel) for name, bel in places.items() if f"stage_{e}." in name] for e in range(count)]
    return np.array([np.mean(at, axis=0) for at in own])


def test_engines_lie_together_and_in_their_order():
    places = placed(engines(10, 4), (10, 40, 70))
    assert len(set(places.values())) == len(places) == 120
    at = middles(places, 10)
    for e in range(10):
        own = np.array([position(bel) for name, bel in places.items() if f"stage_{e}." in name])
        assert np.abs(own - at[e]).sum(axis=1).mean() < 25
    steps = np.abs(np.diff(at, axis=0)).sum(axis=1)
    assert steps.max() < 60 and set(np.digitize(at[:, 1], (30, 60))) == {0, 1, 2}


def test_the_larger_engine_has_the_longer_way():
    small, large = engines(2, 4), engines(3, 4)
    cells = small | {name: cell for name, cell in large.items() if "stage_2." in name}
    cells |= {f"network.stage_0.more{n}": {"type": "LUT4"} for n in range(1000)}
    at = middles(placed(cells, (10, 40, 70)), 3)
    assert at[1][1] > 50  # in the middle of its band by count, in the last one by size


def test_a_full_device_and_cells_of_no_engine():
    cells = {f"network.stage_{n % 7}.m{n}": {"type": "DP16KD"} for n in range(58)}
    cells |= {"line.store": {"type": "DP16KD"}, "skip.x": {"type": "DP16KD"}, "x": {"type": "LUT4"}}
    places = placed(cells, (10, 40))
    assert sorted(places.values()) == sorted(grid((10, 40))["DP16KD"])
    assert placed({"x": {"type": "LUT4"}}, (10,)) == {}


def test_the_snake_turns_at_the_end_of_a_band():
    at = snake(np.array([0, 0.99 / BANDS, 1.01 / BANDS, 1.99 / BANDS, 2.01 / BANDS]), [(0, 0), (100, 60)])
    assert np.allclose(at, [(0, 10), (99, 10), (99, 30), (1, 30), (1, 50)])


def test_engines_of_names():
    """A residual is kept beside the engine that takes it, the last one of its layer; names of others tell nothing."""
    first = factor_of((1, 4, 4, 4), 0, x=QFormat(8, 7), drop=4)
    second, third = (factor_of((4, 4, 4, 1), n, x=first.output, drop=4) for n in (1, 2))
    layers = IntLayer(factors=(first, second), name="one"), IntLayer(factors=(third,), name="two")
    plan = Plan(network=IntNetwork(layers=layers))
    found = {"network.stage_1.x": 1, "core.network.convert_2_fifo.y": 2, "network.skip_1.queue.store_0_0": 2}
    found |= {"core.network.skip_gear_0.x": 1, "network.stage_0": 0}
    assert engines_of([*found, "mynetwork.stage_1", "line.x", "network.entry.x"], plan) == found


def test_sites_are_those_of_the_device(tmp_path):
    found = sites({"DP16KD": ECP5_25F.ram, "MULT18X18D": ECP5_25F.dsp}, "nextpnr-ecp5", PART, tmp_path, "yowasp")
    assert {kind: len(set(bels)) for kind, bels in found.items()} == {"DP16KD": 56, "MULT18X18D": 28}


def test_nextpnr_keeps_to_it(tmp_path):
    design = small_core(tmp_path)
    (tmp_path / "core.il").write_text(to_rtlil(design.plan, "core"))
    made = synth.synthesise(ECP5_25F, "core", tmp_path)
    place_engines(ECP5_25F, design.plan, "core", tmp_path, PART)
    wanted = json.loads((tmp_path / "core.placed.json").read_text())["modules"]["core"]["cells"]
    wanted = {name: cell["attributes"]["BEL"] for name, cell in wanted.items() if "BEL" in cell["attributes"]}
    assert len(wanted) == made["DSP"] + made["RAM"] > 0
    arguments = [*PART, "-q", "--json", "core.placed.json", "--no-route", "--write", "there.json"]
    tools.run("nextpnr-ecp5", [*arguments, "--lpf-allow-unconstrained"], directory=tmp_path, log="place.log")
    (module,) = json.loads((tmp_path / "there.json").read_text())["modules"].values()
    placed = module["cells"]
    assert {name: placed[name]["attributes"]["NEXTPNR_BEL"] for name in wanted} == wanted


def test_a_family_without_one(tmp_path):
    with pytest.raises(ValueError, match="a floorplan is for devices of the family ecp5; iCE40UP5K is of ice40"):
        check_floorplan(UP5K)
    with pytest.raises(ValueError, match="a floorplan is for devices of the family ecp5"):
        build(small_core(tmp_path), "icebreaker", tmp_path / "out", floorplan=True)
    assert not (tmp_path / "out").exists()


def test_place_and_route_reads_the_netlist_with_places(tmp_path, monkeypatch):
    """A build until there."""
    read = []
    run = tools.run

    def until_routed(tool, arguments, *, directory, **rest):
        if "--textcfg" not in arguments:
            return run(tool, arguments, directory=directory, **rest)
        netlist = json.loads((directory / arguments[arguments.index("--json") + 1]).read_text())
        read.extend(name for name, cell in netlist["modules"]["core"]["cells"].items() if "BEL" in cell["attributes"])
        assert f"--placer {PLACER}" in " ".join(arguments)
        raise RuntimeError("as far as here")

    monkeypatch.setattr(tools, "run", until_routed)
    design = small_core(tmp_path)
    with pytest.raises(RuntimeError, match="as far as here"):
        build(design, "ulx3s-12f", tmp_path / "out", floorplan=True)
    assert any("network.stage_1" in name for name in read)
