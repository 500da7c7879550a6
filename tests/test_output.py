"""What commands print: a line for whoever waits, and files that are there whatever becomes of the print."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import bfthw
from bfthw import child
from bfthw.chain import Pattern, bft
from bfthw.cli import console
from bfthw.cli import main as cli

CODE = "import sys; sys.argv[0] = 'bfthw'; from bfthw.cli.main import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, one with a dense layer, and vectors for them."""
    place = tmp_path_factory.mktemp("output")
    for name, shape in (("net", bft(16, 4)), ("dense", [Pattern(1, 16, 16, 1)])):
        layer = bfthw.Layer(chain=bfthw.Chain.random(shape, seed=1), name="body")
        bfthw.save(bfthw.Network(layers=(layer,)), place / f"{name}.safetensors")
    x = np.random.default_rng(1).normal(size=(50, 16))
    np.save(place / "x.npy", x)
    np.save(place / "y.npy", bfthw.load(place / "net.safetensors").network(x))
    return place


def test_a_line_for_whoever_waits(monkeypatch):
    """Title and time on a terminal, a bar as soon as there is a fraction; gone in the end; nothing of it in a pipe."""
    for terminal in (True, False):
        file = io.StringIO()
        monkeypatch.setattr(console, "console", console._Console(file=file, force_terminal=terminal, width=80))
        with console.progress("reading [it]") as step:
            step.bar.refresh()
            step.begin("compiling")
            step.bar.refresh()
            assert "%" not in file.getvalue()
            step(0.25)
            step.bar.refresh()
        shown = file.getvalue()
        assert all((words in shown) == terminal for words in ("reading [it]", "compiling", "25%", "0:00:00")), shown
        assert terminal or not shown


WAITS = {
    "doctor": ["asking the tools"],
    "inspect net.safetensors --check x.npy y.npy": ["reading net.safetensors", "comparing with the recorded outputs"],
    "quantize net.safetensors -o q.npz": ["reading net.safetensors", "choosing formats"],
    "report net.safetensors --calibration x.npy": ["reading net.safetensors", "choosing formats", "other bits"],
    "search net.safetensors --calibration x.npy --budget-rom-bits 600": ["reading net.safetensors", "measuring"],
    "project dense.safetensors --method als": ["reading dense.safetensors", "projecting"],
    "generate net.safetensors -o . --name core": [
        "reading net.safetensors", "choosing formats", "choosing and writing Verilog",
    ],
    "fit net.safetensors": ["reading net.safetensors", "fitting"],
    "simulate none.json": ["reading the core"],
    "run none.json --simulate --input x.npy": ["connecting"],
    "build none.json --board icebreaker -o .": ["reading the design"],
    "patch none --weights net.safetensors": ["reading the design"],
}


@pytest.mark.parametrize("line", WAITS)
def test_every_command_says_what_it_does(folder, monkeypatch, line):
    titles, start = [], console._Progress.__init__
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        console._Progress, "__init__", lambda self, bar, title: titles.append(title) or start(self, bar, title)
    )
    CliRunner().invoke(cli.app, line.split())
    assert titles == WAITS[line]


def outcome(folder, out, *arguments):
    """(exit status, stderr) of a command that prints to `out`."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stderr


def test_files_are_written_whoever_reads(folder):
    """Nobody reads, the disk of the print is full, it is closed from the start: the files are there."""
    names = {"core.v", "core.json", "core.npz"}

    def generate(place, out):
        told = outcome(folder, out, "generate", "net.safetensors", "-o", place, "--name", "core")
        assert names <= set(os.listdir(folder / place))
        return told

    read, write = os.pipe()
    os.close(read)
    assert generate("pipe", write) == (0, "")
    os.close(write)
    with open("/dev/full", "w") as full:
        status, err = generate("full", full)
    assert status == 1 and err.startswith("error: standard output: the disk is full; ") and err.count("\n") == 1
    closed = f"exec {sys.executable} -c \"{CODE}\" generate net.safetensors -o closed --name core >&-"
    done = subprocess.run(["sh", "-c", closed], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and names <= set(os.listdir(folder / "closed"))


@pytest.mark.parametrize(
    "line",
    [
        "quantize net.safetensors -o {}.npz",
        "report net.safetensors --calibration x.npy --plot {}.svg",
        "search net.safetensors --calibration x.npy --budget-rom-bits 600 -o {}.toml",
        "project dense.safetensors --chain bft4 -o {}.safetensors",
        "run none.json --simulate --input x.npy --output {}.npy",
    ],
)
def test_a_place_is_looked_at_before_time_is_spent(folder, monkeypatch, line):
    monkeypatch.chdir(folder)
    for place, told in (("none/a", "none: no such folder; make it: mkdir -p none"), ("x.npy/a", "through a file")):
        result = CliRunner().invoke(cli.app, line.format(place).split())
        assert isinstance(result.exception, OSError) and told in str(result.exception) and not result.output


def test_a_log_says_that_the_disk_is_full(tmp_path, monkeypatch):
    (tmp_path / "log").write_text("exit 1\n")
    assert child.log_end(tmp_path / "log") == "exit 1"
    monkeypatch.setattr(child, "FULL", 1 << 80)  # more than any disk has
    assert child.log_end(tmp_path / "log").splitlines()[1].startswith(f"{tmp_path}: the disk is full; make room there")
