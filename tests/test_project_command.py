"""`bfthw project`: what it writes and prints, and what it refuses in a line."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("lazylinop") is None:
    pytest.skip("needs lazylinop", allow_module_level=True)

import bfthw  # noqa: E402
from bfthw import Chain, Factor, Layer, Network, chain  # noqa: E402
from bfthw import project as projection  # noqa: E402
from bfthw.cli.main import main  # noqa: E402
from bfthw.project import project  # noqa: E402
from bfthw.quantize import prepare  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("recursion_limit")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(exit status, stdout, stderr) of `bfthw project`, in the folder of the checkpoint."""

    def command(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["bfthw", "project", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    return command


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(13)

    def layer(name, outputs, inputs, **rest):
        return Layer(chain=Chain([Factor(rng.normal(size=(1, outputs, inputs, 1)))]), name=name, **rest)

    body, mixed = layer("body", 16, 16, relu=True, bias=rng.normal(size=16)), layer("mixed", 16, 16)
    true = Layer(chain=Chain.random(chain.bft(16, 4), seed=14), name="true")
    network, formats = prepare(Network(layers=(body, mixed, true, layer("head", 3, 16))))
    bfthw.save(replace(network, formats=formats), tmp_path / "dense.safetensors")
    bfthw.save(Network(layers=(true,)), tmp_path / "true.safetensors")
    np.save(tmp_path / "x.npy", rng.uniform(size=(80, 2)) @ rng.normal(size=(2, 16)))
    np.save(tmp_path / "short.npy", np.ones((5, 3)))
    return tmp_path / "dense.safetensors"


def test_table_writes_nothing(run, checkpoint, tmp_path):
    before = sorted(tmp_path.iterdir())
    status, out, err = run(checkpoint, "--residual")  # of the square layers
    assert status == 0 and not err, err
    for word in ("body", "mixed", "head", "bft4", "bft2", "debut", "lowrank:4", "128", "50.0 %", "LAYER=CHAIN"):
        assert word in out, out
    assert "true  " not in out and sorted(tmp_path.iterdir()) == before


def test_writes_what_was_chosen(run, checkpoint, tmp_path):
    chosen = "--chain", "bft4", "--chain", "head=lowrank:2"
    status, out, err = run(checkpoint, *chosen, "-o", "out.safetensors")
    assert status == 0 and "warning" in out and "docs/projection.md" in out and "% are lost" in out, (out, err)
    old, new = (bfthw.load(path).network for path in (checkpoint, tmp_path / "out.safetensors"))
    assert new.formats is None and "formats" in out
    assert [layer.chain.patterns for layer in new.layers] == [
        chain.bft(16, 4), chain.bft(16, 4), chain.bft(16, 4), chain.low_rank(3, 16, 2)
    ]
    for a, b in zip(old.layers, new.layers):
        assert (a.name, a.relu, a.residual) == (b.name, b.relu, b.residual)
    expected, error = project(old.layers[0].chain.dense(), chain.bft(16, 4))
    assert np.array_equal(new.layers[0].chain.dense(), expected.dense()) and f"{error:.3f}" in out
    assert np.array_equal(new.layers[0].bias, old.layers[0].bias)
    assert np.array_equal(new.layers[2].chain.dense(), old.layers[2].chain.dense())


def test_keeps_outputs_and_residuals(run, checkpoint, tmp_path):
    chosen = "--chain", "mixed=bft4", "--residual", "--calibration", "x.npy"
    status, out, err = run(checkpoint, *chosen, "-o", "out.npz")
    assert status == 0 and "warning" not in out and "still dense: body, head" in out, (out, err)
    old, new = (bfthw.load(path).network for path in (checkpoint, tmp_path / "out.npz"))
    assert [layer.residual for layer in new.layers] == [False, True, False, False]
    x = np.load(tmp_path / "x.npy")
    assert np.linalg.norm(new(x) - old(x)) < 0.4 * np.linalg.norm(old(x))


def test_prints_both_errors_and_few_rows(run, checkpoint, tmp_path):
    """As a table and when written: what is held out is what the file does on it; the seed draws it."""
    np.save(tmp_path / "few.npy", np.random.default_rng(3).normal(size=(20, 16)))
    chosen = "--chain", "body=bft4", "--calibration", "few.npy", "-o", "out.npz"
    status, out, err = run(checkpoint, *chosen)
    assert status == 0 and "fitted" in out and "held out" in out, (out, err)
    assert "warning: 16 rows are fitted, few for 16 inputs" in out and "are 60 rows" in out, out
    errors = [float(word) for word in re.findall(r"\b\d\.\d{3}\b", out)]
    old, new = (bfthw.load(path).network.layers[0] for path in (checkpoint, tmp_path / "out.npz"))
    for rows, error in zip(projection.split(np.load(tmp_path / "few.npy")), errors, strict=True):
        gap = np.linalg.norm(new.chain(rows) - old.chain(rows)) / np.linalg.norm(old.chain(rows))
        assert error == pytest.approx(gap, abs=6e-4)
    assert errors[0] < errors[1]
    np.save(tmp_path / "few.npy", np.zeros((80, 16)))
    assert "warning: calibration data are all zero" in run(checkpoint, *chosen)[1]
    other = run(checkpoint, "--calibration", "x.npy")[1]
    assert "held out" in other and "warning" not in other and "held out" not in run(checkpoint)[1]
    assert other != run(checkpoint, "--calibration", "x.npy", "--seed", "1")[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["true.safetensors"], ["true.safetensors: nothing to project", "bfthw inspect"]),
        (["dense.safetensors", "--chain", "monarch:4", "-o", "o.npz"], ["'head'", "16 -> 3", "LAYER=CHAIN"]),
        (["dense.safetensors", "--chain", "body=bft4"], ["-o"]),
        (["dense.safetensors", "-o", "o.safetensors"], ["--chain"]),
        (["dense.safetensors", "--chain", "bodi=bft4", "-o", "o.safetensors"], ["'bodi'", "body, mixed, head"]),
        (["dense.safetensors", "--chain", "bft4", "--chain", "bft2", "-o", "o.safetensors"], ["bft2", "already"]),
        (["dense.safetensors", "--chain", "body=bft4", "-o", "o.bin"], ["o.bin", ".safetensors"]),
        (["dense.safetensors", "--chain", "body=bft4", "-o", "missing/o.npz"], ["missing"]),
        (["dense.safetensors", "--chain", "head=monarch:5", "-o", "o.npz"], ["head", "2 to 3", "16 -> 3"]),
        (["dense.safetensors", "--calibration", "short.npy"], ["short.npy", "(N, 16)", "(5, 3)"]),
    ],
)
def test_bad_input_is_one_message(run, checkpoint, tmp_path, arguments, words):
    before = sorted(tmp_path.iterdir())
    status, out, err = run(*arguments)
    assert status == 1 and err.startswith("error: ") and "Traceback" not in out + err, (out, err)
    assert all(word in err for word in words), err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_the_example(tmp_path, monkeypatch):
    """Dense to integers on the digits, in a few epochs; what it saves is what `generate` takes."""
    pytest.importorskip("sklearn")
    script = ROOT / "examples" / "digits" / "distill.py"
    subprocess.run([sys.executable, script, "--quick", "--plot", "p.svg"], cwd=tmp_path, timeout=600, check=True)
    assert "<svg" in (tmp_path / "p.svg").read_text()
    dense = bfthw.load(tmp_path / "digits-dense.safetensors").network
    assert [layer.chain.patterns for layer in dense.layers] == [chain.dense(64, 64)] * 2 + [chain.dense(10, 64)]
    assert np.load(tmp_path / "digits-images.npy").shape == (1442, 64)
    network = bfthw.load(tmp_path / "digits-distilled.safetensors").network
    assert [layer.chain.patterns for layer in network.layers] == [chain.bft(64, 4)] * 2 + [chain.dense(10, 64)]
    assert network.formats is not None
    monkeypatch.syspath_prepend(script.parent)
    load = import_module("data").load
    monkeypatch.delitem(sys.modules, "data")
    *_, x, y = load()
    assert np.mean(bfthw.compile(network).classify(x) == y) > 0.88
