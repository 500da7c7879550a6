"""The commands that write files, killed before every step: old or new, whole, and the same command then succeeds."""

import hashlib
import json
import shutil
import sys
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from kills import ended_well, forked, hidden, killed, visible

import bfthw
from bfthw import files
from bfthw.cli import main as cli
from bfthw.storage import write_array
from boards.flash import bitstream
from boards.session import compare
from rtl_gen import emit, load_design, read_manifest, write
from sim import simulate


def network(seed):
    layer = bfthw.Layer(chain=bfthw.Chain.random(bfthw.chain.bft(4, 2), seed), name="layer")
    return bfthw.Network(layers=[layer])


def dense(seed):
    values = np.random.default_rng(seed).uniform(-1, 1, (1, 4, 4, 1))
    return bfthw.Network(layers=[bfthw.Layer(chain=bfthw.Chain([bfthw.Factor(values)]), name="layer")])


def read_core(folder):
    design = load_design(folder / "core.json")
    assert read_manifest(folder / "core.json") == design.manifest
    return bfthw.load_integers(folder / "core.npz")


# arguments of the old and of the new files' command, and what reads them
COMMANDS = {
    "generate": (["generate", "{ckpt}", "-o", "{out}", "--name", "core", "--rtlil"], 1, read_core),
    "quantize": (["quantize", "{ckpt}", "-o", "{out}/q.npz"], 0, lambda out: bfthw.load_integers(out / "q.npz")),
    "project": (
        ["project", "{dense}", "--chain", "lowrank:1", "-o", "{out}/p.npz"], 0, lambda out: bfthw.load(out / "p.npz"),
    ),
    "search": (
        ["search", "{ckpt}", "--calibration", "{x}", "--min-sqnr", "20", "-o", "{out}/s.toml"], 0,
        lambda out: bfthw.make_settings(out / "s.toml"),
    ),
}


@pytest.fixture
def folder(tmp_path):
    (folder := tmp_path / "it's a $HOME; dir").mkdir()
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """run(words, seed): a function that runs a command on the files of that seed, in this process."""
    texts = {}

    def to_files(spec, name, convert=emit.to_files):  # Yosys takes a second
        key = spec.network.factors[0].values.tobytes()
        if key not in texts:
            texts[key] = convert(spec, name)
        return texts[key]

    monkeypatch.setattr(emit, "to_files", to_files)

    def make(words, seed):
        names = {key: tmp_path / f"{key}{seed}.npz" for key in ("ckpt", "dense")} | {"x": tmp_path / f"x{seed}.npy"}
        bfthw.save(network(seed), names["ckpt"])
        bfthw.save(dense(seed), names["dense"])
        write_array(names["x"], np.random.default_rng(seed).uniform(-1 - seed, 1 + seed, (8, 4)))
        words = [word.format(out=folder, **names) for word in words]

        def action():
            monkeypatch.setattr(sys, "argv", ["bfthw", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code

        return action

    return make


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_before_every_step(command, folder, run, tmp_path):
    words, fewer, read = COMMANDS[command]
    write_old, write = run(words, 1), run(words[: len(words) - fewer], 2)
    write_old()
    old, before = visible(folder), shutil.copytree(folder, tmp_path / "before")
    write()
    new = visible(folder)
    assert not hidden(folder) and old != new and (command != "generate" or set(old) - set(new) == {"core.il"})
    seen = []
    for step in count(1):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        if not killed(write, step):
            break
        # a reader first
        copy = shutil.copytree(folder, tmp_path / "copy")
        read(copy)
        there = visible(copy)
        assert there in (old, new), f"killed before step {step}: {sorted(there)}"
        seen.append(there == new)
        shutil.rmtree(copy)
        # the same command first
        write()
        assert visible(folder) == new and not hidden(folder), f"killed before step {step}: {hidden(folder)}"
    # once new, always new
    assert seen == sorted(seen) and set(seen) == {False, True}
    assert visible(folder) == new and not hidden(folder)


READERS = {
    "read_manifest": lambda out: read_manifest(out / "core.json"),
    "load_design": lambda out: load_design(out / "core.json"),
    "load_integers": lambda out: bfthw.load_integers(out / "core.npz"),
    "compare": lambda out: compare(out / "core.json", np.zeros((1, 4), int), [[0] * 4]),
    "simulate": lambda out: simulate(out / "core.json", simulator="none"),
    "bitstream": bitstream,
}


def test_every_reader_finishes_what_was_cut_off(tmp_path):
    sets = []
    for seed in (1, 2):
        write(bfthw.compile(network(seed)), made := tmp_path / str(seed), name="core")
        (made / "core.bin").write_bytes(bits := bytes([seed]))
        report = {"board": "icebreaker", "bitstream": "core.bin", "sha256": hashlib.sha256(bits).hexdigest()}
        (made / "report.json").write_text(json.dumps(report))
        sets.append(visible(made))
    for name, reads in READERS.items():
        folder = shutil.copytree(tmp_path / "1", tmp_path / name)
        shutil.copytree(tmp_path / "2", folder / ".bfthw-journal")
        (folder / ".bfthw-journal" / "core.v").rename(folder / "core.v")
        with suppress(ValueError):  # of the simulator
            reads(folder)
        assert visible(folder) == sets[1] != sets[0] and not hidden(folder), name


@pytest.mark.parametrize(
    "where, second, read",
    [("rtl_gen.emit", "load_integers", load_design), ("sim.simulate", "check_plain", simulate)],
    ids=["rtl_gen.emit", "sim.simulate"],
)
def test_the_files_of_a_core_are_read_as_one(where, second, read, folder, monkeypatch):
    """No writer comes between the manifest and what is read after it: the integers, a simulation's Verilog."""
    monkeypatch.setattr(files, "WAIT", 0.1)
    path, kept_out = write(bfthw.compile(network(1)), folder, name="core").path, []

    def between(path, **_):
        kept_out.append(not ended_well(forked(lambda: files.write(path, b"another one"))))
        raise InterruptedError("seen")

    monkeypatch.setattr(sys.modules[where], second, between)
    with pytest.raises(InterruptedError, match="seen"):
        read(path)
    assert kept_out == [True]
    read_manifest(path)
