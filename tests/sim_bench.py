"""The bench of the simulation tests: one small core, compiled once, and copies of it to plant mistakes in."""

import json
import re
import shutil
from pathlib import Path

import pytest
from rtl_bench import factor_of

from bfthw import IntLayer, IntNetwork, QFormat, Settings, load_integers
from bfthw.reading import sha256
from rtl_gen import handover, write
from rtl_gen.manifest import FILE, Port, configuration, read_manifest
from sim import simulate
from sim.simulate import play

needs_icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
TLAST, TUSER = r"assign m_axis_tlast = [^;]*;", r"assign m_axis_tuser = [^;]*;"


def agrees(result, design, vectors):
    """Nothing to complain about, everything checked, and the figures as the specification has them."""
    assert result.problems == () and result.ok, result.problems
    assert len(result.checks) == 4 and result.checks[0] == "back to back"
    assert (result.latency, result.interval) == (design.plan.latency, design.plan.interval)
    assert result.outputs.shape == (vectors, design.plan.network.outputs)
    assert result.cycles > vectors * design.plan.interval


def small_core(place):
    """The Design of a core of two stages, two lanes."""
    first = factor_of((1, 4, 4, 4), 0, x=QFormat(8, 7), drop=4)
    second = factor_of((4, 4, 4, 1), 1, x=first.output, drop=4)
    network = IntNetwork(layers=(IntLayer(factors=(first, second), name="body"),))
    return write(network, place, name="core", settings=Settings(lanes=2))


def make_core(place, simulator="verilator"):
    """Write `small_core` and simulate it, so that it is compiled; returns its folder."""
    assert simulate(small_core(place), vectors=12, simulator=simulator).ok
    return place


def files_of(folder, name="core"):
    """Names of the files in a core's folder, without what `rtl_gen.handover` writes beside the core."""
    return {path.name for path in Path(folder).iterdir()} - set(handover.names(name))


def copied(folder, place):
    """Path of the manifest of a copy."""
    shutil.copytree(folder, place / "copy", symlinks=True)
    return place / "copy" / "core.json"


def sign(path, **keys):
    """Make the manifest fit the files beside it again, with some values changed; returns it."""
    table = json.loads(path.read_text()) | keys
    files = table["files"]
    for file in (files["verilog"], files["integers"], *files["memories"]):
        file["sha256"] = sha256(path.parent / file["name"], FILE)
    ports = [Port.model_validate(table[side]) for side in ("input", "output")]
    table["configuration"] = configuration(table["files"]["integers"]["sha256"], *ports, table["vectors"])
    path.write_text(json.dumps(table))
    return read_manifest(path)


def play_as_signed(path, **options):
    """sim.simulate of a manifest that need not be what its integers give: nothing but the simulation can notice."""
    return play(path, read_manifest(path), load_integers(path.with_suffix(".npz")), **options)


def edit(path, *changes):
    """Replace the only match of each pattern in the Verilog beside a manifest."""
    verilog = path.with_suffix(".v")
    text = verilog.read_text()
    for old, new in changes:
        text, count = re.subn(old, new, text)
        assert count == 1, f"{old} is there {count} times"
    verilog.write_text(text)
    sign(path)
