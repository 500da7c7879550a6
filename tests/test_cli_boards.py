"""The commands for boards as a stranger uses them."""

import re

import numpy as np
import pytest
import typer
from test_cli import run

import bfthw
import rtl_gen
from bfthw.chain import bft
from bfthw.cli.main import app
from boards.session import compare


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A folder with a small core, its checkpoint and vectors for it."""
    folder = tmp_path_factory.mktemp("core")
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=2), residual=True, name="body")
    network = bfthw.Network(layers=(layer,))
    bfthw.save(network, folder / "net.safetensors")
    rtl_gen.write(bfthw.compile(network), folder, name="core")
    rng = np.random.default_rng(2)
    np.save(folder / "x.npy", rng.uniform(-1, 1, (40, 4)))
    np.save(folder / "q.npy", rng.integers(-128, 128, (40, 4)))
    return folder


@pytest.mark.parametrize("vectors", ["x.npy", "q.npy"])
def test_run_on_a_simulated_board(core, tmp_path, vectors):
    output = tmp_path / "y.npy"
    status, out, err = run(
        "run", core / "core.json", "--simulate", "--input", core / vectors, "--output", output, "--compare"
    )
    assert status == 0, err
    assert "40 vectors" in out and "ok every answer equals the golden model's" in out
    x, y = np.load(core / vectors), np.load(output)
    network = bfthw.load_integers(core / "core.npz")
    assert (y == (network.predict(x) if x.dtype.kind == "f" else network(x))).all()
    assert y.dtype.kind == x.dtype.kind


def test_run_prints_classes(core):
    options = "--simulate", "--input", core / "x.npy", "--classify", "--compare"
    status, out, err = run("run", core / "core.json", *options)
    assert status == 0 and "warning" not in out, err
    wanted = bfthw.load_integers(core / "core.npz").classify(np.load(core / "x.npy"))
    # in a pipe no bar, and nothing of one: the first line is what was asked for
    assert out.startswith("classes: " + " ".join(map(str, wanted)) + "\n")


@pytest.mark.parametrize(
    "scale, said",
    [(16, r"9\d % are beyond the input's format, -1 to 0.992188: of"), (1e-4, "4 of 4 inputs vary and become")],
)
def test_run_doubts_the_scale_of_inputs(core, tmp_path, scale, said):
    np.save(tmp_path / "x.npy", scale * np.load(core / "x.npy"))
    status, out, err = run("run", core / "core.json", "--simulate", "--input", tmp_path / "x.npy", "--classify")
    assert status == 0 and re.search(f"warning: inputs: {said}", out), out + err


def test_compare_counts_wrong_answers(core):
    x = np.load(core / "q.npy")
    y = bfthw.load_integers(core / "core.npz")(x)
    y[3, 1] += 1
    y[7] -= 1
    assert compare(core / "core.json", x, y) == 2
    labels = y.argmax(axis=1)
    labels[0] = 3 - labels[0]
    assert compare(core / "core.json", x, labels, labels=True) >= 1


BAD = [
    (["run", "core.json", "--input", "x.npy"], ["--port", "--simulate"]),
    (["run", "core.json", "--input", "x.npy", "--port", "/dev/nothing"], ["/dev/nothing", "no such port"]),
    (["run", "core.json", "--input", "x.npy", "--port", "/dev/null"], ["/dev/null"]),
    (["run", "core.json", "--input", "none.npy", "--simulate"], ["none.npy"]),
    (["run", "core.json", "--input", "x.npy", "--simulate", "--labels", "y.npy"], ["y.npy", "`bfthw report`"]),
    (["run", "none.json", "--input", "x.npy", "--simulate"], ["none.json"]),
    (["run", "core.json", "--input", "x.npy", "--simulate", "--baud", "9600"], ["--baud"]),
    (["run", "core.json", "--input", "x.npy", "--simulate", "--output", "y.txt"], ["y.txt", ".npy"]),
    (["build", "core.json", "--board", "icebraker", "-o", "out"], ["icebraker", "icebreaker"]),
    (["build", "core.json", "--board", "orangecrab", "-o", "out"], ["USB"]),
    (["build", "core.json", "--board", "icebreaker", "-o", "out", "--clock", "9999"], ["9999"]),
    (["build", "core.json", "--board", "icebreaker", "-o", "out", "--seeds", "0"], ["seeds"]),
    (["build", "none.json", "--board", "icebreaker", "-o", "out"], ["none.json"]),
    (["flash", "."], ["report.json", "bfthw build"]),
    (["flash", "core.json"], ["core.json: is a file", "folder of `bfthw build`"]),
    (["flash", ".", "--sram", "--flash"], ["not both"]),
    (["patch", ".", "--weights", "net.safetensors"], ["report.json", "bfthw build"]),
    (["fit", "x.npy"], ["x.npy"]),
]


@pytest.mark.parametrize("arguments, words", BAD, ids=lambda v: " ".join(v) if v and isinstance(v[0], str) else None)
def test_bad_input_is_status_1_with_one_message(core, arguments, words):
    before = {path.name for path in core.iterdir()} | {"out"}
    status, out, err = run(*arguments, cwd=core)
    assert status == 1, (out, err)
    assert err.startswith("error: ") and "Traceback" not in out + err
    for word in words:
        assert word in err, err
    assert {path.name for path in core.iterdir()} <= before
    assert not (core / "out").exists() or not list((core / "out").iterdir())


@pytest.mark.parametrize("command", ["build", "run", "measure", "flash", "patch", "fit"])
def test_help(command):
    status, out, err = run(command, "--help")
    assert status == 0 and "Usage: bfthw " + command in out and not err


def test_help_names_commands_that_exist():
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        texts = [command.help, *(getattr(option, "help", None) or "" for option in command.params)]
        named = re.findall(r"`bfthw (\S+?)[ `]", " ".join(texts))
        assert set(named) <= set(commands), (name, named)


def test_board_comes_from_boards():
    for name, hint in (("Bord", "$"), ("Board", ": from boards import Board$")):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'{hint}"):
            getattr(bfthw, name)
    from boards import Board, host

    assert Board is host.Board
