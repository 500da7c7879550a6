"""The command line as a stranger uses it: exit status, one message, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sim_bench import TLAST, edit, sign

import bfthw
from bfthw.chain import bft

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits.safetensors"
COMMANDS = ("doctor", "inspect", "project", "report", "search", "quantize", "generate", "simulate", "demo")


def run(*arguments, cwd=None):
    """(exit status, stdout and stderr) of a command, in a process of its own."""
    code = "import sys; sys.argv[0] = 'bfthw'; from bfthw.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def butterfly(tmp_path):
    """A checkpoint of a small layer, and vectors for it."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(16, 4), seed=1), residual=True, relu=True, name="body")
    path = tmp_path / "net.safetensors"
    bfthw.save(bfthw.Network(layers=(layer,)), path)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(50, 16)))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    status, out, err = run(command, "--help")
    assert status == 0 and "Usage: bfthw " + command in out and not err


def test_no_command_shows_all_commands():
    status, out, err = run()
    assert status in (0, 2) and all(command in out + err for command in COMMANDS)


def test_wrong_usage_is_status_2():
    assert run("generate")[0] == 2
    assert run("simulate", "x.json", "--vectors", "many")[0] == 2
    assert run("fly")[0] == 2


@pytest.mark.parametrize("command", [["quantize", "-o", "net.npz"], ["generate", "-o", ".", "--name", "net"]])
def test_floats_are_not_replaced_by_their_integers(butterfly, command):
    bfthw.save(bfthw.load(butterfly).network, butterfly.with_suffix(".npz"))
    before = butterfly.with_suffix(".npz").read_bytes()
    status, _, err = run(*command, "net.npz", cwd=butterfly.parent)
    assert status == 1 and "net.npz: its floats would be replaced by integers" in err
    assert butterfly.with_suffix(".npz").read_bytes() == before


def test_doctor_lists_tools_with_versions():
    status, out, _ = run("doctor")
    assert status == 0
    for name in ("numpy", "amaranth", "cocotb", "verilator", "g++", "iverilog", "torch"):
        assert name in out
    assert np.__version__ in out


def test_doctor_tells_what_is_missing(monkeypatch, tmp_path):
    from bfthw.cli import doctor

    monkeypatch.setenv("PATH", str(tmp_path))
    missing = {tool.name for tool in doctor.tools() if not tool.found}
    assert missing - {"libpython"} == {"g++", "make", "perl", "iverilog", "git"}  # libpython is not looked for on PATH
    assert all(tool.cure and tool.use for tool in doctor.tools())


def test_inspect_counts():
    status, out, _ = run("inspect", DIGITS)
    assert status == 0
    assert "(16, 4, 4, 1)" in out and "1408" in out and "4736" in out and "3.36" in out


def test_quantize_then_generate_equals_generate(butterfly, tmp_path):
    bits = "--weight-bits", 6, "--activation-bits", 9, "--input-bits", 7, "--calibration", tmp_path / "x.npy"
    assert run("quantize", butterfly, "-o", tmp_path / "q.npz", *bits)[0] == 0
    assert run("generate", tmp_path / "q.npz", "-o", tmp_path / "a", "--name", "core", "--lanes", 2)[0] == 0
    status, out, _ = run("generate", butterfly, "-o", tmp_path / "b", "--name", "core", "--lanes", 2, *bits)
    assert status == 0 and "SQNR" in out and "body:1" in out
    for file in ("core.v", "core.npz", "core.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    integers = bfthw.load_integers(tmp_path / "q.npz")
    assert integers.input.width == 7 and integers.factors[0].weights.width == 6 and integers.output.width == 9


def test_settings_file_for_a_layer(butterfly, tmp_path):
    (tmp_path / "s.toml").write_text("weight_bits = 7\n[layers.body]\nlanes = [4, 2]\nsimd = 2\nweight_bits = 5\n")
    status, out, err = run(
        "generate", butterfly, "-o", tmp_path / "out", "--name", "core", "--settings", tmp_path / "s.toml"
    )
    assert status == 0, err
    import rtl_gen

    manifest = rtl_gen.read_manifest(tmp_path / "out" / "core.json")
    assert manifest.choices == {"body": {"engine": "pipelined", "lanes": [4, 2], "simd": 2, "products": "dsp"}}
    assert [s.weights.width for s in manifest.stages] == [5, 5]
    engines = rtl_gen.load_design(tmp_path / "out" / "core.json").plan.engines
    assert [(engine.lanes, engine.simd) for engine in engines] == [(4, 2), (2, 2)]


def test_a_wish_is_met_and_explained(butterfly, tmp_path):
    import rtl_gen

    wish = "--interval", 40, "--target", "ecp5"
    status, out, err = run("generate", butterfly, "-o", tmp_path / "out", "--name", "core", *wish)
    assert status == 0 and "chosen: " in out and "the cheapest that can be made of" in out and "estimated, without board" in out, err
    design = rtl_gen.load_design(tmp_path / "out" / "core.json")
    assert design.plan.interval <= 40 * design.plan.vectors and design.plan.target == "ecp5"
    status, out, _ = run("generate", butterfly, "-o", tmp_path / "out", "--name", "fits", "--fit", "icebreaker")
    spec = rtl_gen.load_design(tmp_path / "out" / "fits.json").plan
    assert status == 0 and "the fastest that can be made of" in out and spec.target == "ice40" and spec.multipliers <= 8
    options = "--engine", "folded", "--vectors", 2, "--target", "gowin", "--products", "lut"
    status, out, err = run("generate", butterfly, "-o", tmp_path / "out", "--name", "own", *options)
    spec = rtl_gen.load_design(tmp_path / "out" / "own.json").plan
    assert status == 0 and "cycles a frame of 2 vectors, " in out, err
    assert spec.choices == {"body": {"engine": "folded", "products": "lut", "paired": False}}
    assert (spec.vectors, spec.target) == (2, "gowin")


BAD = [
    (["inspect", "nothing.npz"], ["nothing.npz", "no such file"]),
    (["inspect", "."], ["must end in"]),
    (["inspect", "net.h5"], [".safetensors", ".h5"]),
    (["generate", "net.safetensors", "-o", "out", "--name", "module"], ["module", "keyword"]),
    (["generate", "net.safetensors", "-o", "out", "--name", "../up"], ["'../up'", "letters"]),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--lanes", "3"],
        ["3 lanes", "lanes that fit: 1, 2, 4"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--simd", "3"],
        ["SIMD 3", "SIMD that fits: 1, 2, 4"],
    ),
    (["generate", "net.safetensors", "-o", "out", "--name", "core", "--weight-bits", "99"], ["weight_bits", "99"]),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--engine", "fold"],
        ["engine must be one of folded, gate, pipelined, product, reduction, spatial, convolution, maximum, sequential, tiled, got 'fold'"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--products", "lut"],
        ["products = 'lut'", "name ecp5, ice40 or gowin"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--interval", "1", "--fit", "icebreaker"],
        ["interval 1: the fastest that fits is ", "pipelined ("],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--interval", "16", "--lanes", "2"],
        ["chooses lanes itself"],
    ),
    (["generate", "net.safetensors", "-o", "out", "--name", "core", "--fit", "icebraker"], ["icebraker", "icebreaker"]),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--fit", "ulx3s-85f", "--target", "ice40"],
        ["target = 'ice40': on ULX3S", "'ecp5'"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--calibration", "y.npy"],
        ["y.npy", "no such file"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--calibration", "wrong.npy"],
        ["(N, 16)", "(50, 3)"],
    ),
    (
        ["generate", "net.safetensors", "-o", "out", "--name", "core", "--settings", "bad.toml"],
        ["bad.toml", "wieght_bits"],
    ),
    (["generate", "net.safetensors", "-o", "out", "--name", "core", "--settings", "none.toml"], ["none.toml"]),
    (["quantize", "net.safetensors", "-o", "q.txt"], ["q.txt", ".npz"]),
    (["quantize", "net.safetensors", "-o", "missing/q.npz"], ["missing"]),
    (["simulate", "nothing.json"], ["nothing.json"]),
    (["simulate", "bad.toml"], ["bad.toml", "manifest"]),
    (["simulate", "."], ["folder"]),
    (["inspect", "net.safetensors", "--order", "a,b"], ["body"]),
]


@pytest.mark.parametrize("arguments, words", BAD, ids=lambda v: " ".join(v) if v and isinstance(v[0], str) else None)
def test_bad_input_is_status_1_with_one_message(butterfly, tmp_path, arguments, words):
    (tmp_path / "net.h5").write_bytes(b"x")
    (tmp_path / "bad.toml").write_text("wieght_bits = 8\n")
    np.save(tmp_path / "wrong.npy", np.zeros((50, 3)))
    before = sorted(tmp_path.iterdir())
    status, out, err = run(*arguments, cwd=tmp_path)
    assert status == 1, (out, err)
    assert err.startswith("error: ") and "Traceback" not in out + err
    for word in words:
        assert word in err, err
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"


def test_integers_are_not_quantised_again(butterfly, tmp_path):
    assert run("quantize", butterfly, "-o", tmp_path / "q.npz")[0] == 0
    status, _, err = run("quantize", tmp_path / "q.npz", "-o", tmp_path / "r.npz", "--weight-bits", 4)
    assert status == 1 and "holds integers already" in err and not (tmp_path / "r.npz").exists()


def test_markup_in_a_file_name_is_printed_as_it_is(tmp_path):
    status, _, err = run("inspect", tmp_path / "[red]x[/].npz")
    assert status == 1 and "[red]x[/].npz" in err


def test_simulate_ok_and_not_ok(butterfly, tmp_path):
    assert run("generate", butterfly, "-o", tmp_path, "--name", "core", "--lanes", 4)[0] == 0
    status, out, err = run("simulate", tmp_path / "core.json", "--vectors", 12, "--input", tmp_path / "x.npy")
    # by the compiled simulation, which needs no libpython
    assert status == 0 and "equal the golden model bit for bit (compiled)" in out, (out, err)
    status, out, err = run("simulate", tmp_path / "core.json", "--stall", 1.5)
    assert status == 1 and "stall" in err
    # a core that promises more than it keeps
    edit(tmp_path / "core.json", (TLAST, "assign m_axis_tlast = 1'b0;"))
    sign(tmp_path / "core.json")
    status, out, err = run("simulate", tmp_path / "core.json", "--vectors", 12)
    assert status == 1 and "TLAST on beats" in out and "differences" in err
