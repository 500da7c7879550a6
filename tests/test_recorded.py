"""Recorded inputs and outputs of the original judge a reading, and find the one that gives them."""

import numpy as np
import pytest
import torch
from checkpoint_files import FACTORS, layer, safetensors
from test_import_between import trained
from test_import_recognition import run
from torch import nn

import bfthw
from bfthw.checkpoint import File
from bfthw.cli import recorded
from bfthw.nn import Butterfly

RNG = np.random.default_rng(0)
TWIDDLE = {"twiddle": RNG.normal(size=(1, 1, 4, 8, 2, 2))}
RELEASED = {"weight": np.zeros((16, 16, 1, 1)), "balanced_bfts.0.weight1": RNG.normal(size=128)}


def judged(folder, path, x, y, *options):
    """Exit status and what `inspect --check` says at its end, in one line."""
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    status, output, error = run("inspect", path, "--check", folder / "x.npy", folder / "y.npy", *options)
    return status, error if status else output.splitlines()[-1]


def original(folder, model, *, name="w.pt", size=16, count=60):
    """The file of a model, and what it was seen to do in float32."""
    torch.save(model.state_dict(), folder / name)
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return folder / name, x.numpy(), model.float()(x).numpy()


def test_a_right_reading_and_a_wrong_one(tmp_path):
    model = trained(nn.Linear(16, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    path, x, y = original(tmp_path, model)
    status, text = judged(tmp_path, path, x, y, "--import", "relu=hidden")
    assert status == 0 and text.startswith("check: right: 60 vectors, largest error "), text
    status, text = judged(tmp_path, path, x, y)
    assert status == 1 and "w.pt: this reading does not give" in text and "rounding explains" in text
    assert text.endswith("; what gives it: --import relu=hidden")


def test_order_activation_and_eps_together(tmp_path):
    """safetensors, names without numbers: nothing tells the order, and inspect alone refuses to guess it."""
    names = ["stem", "act", "body", "norm", "end", "head"]
    model = trained(
        nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.BatchNorm1d(12, eps=1e-3), nn.ReLU(), nn.Linear(12, 12)
    )
    named = nn.Sequential()
    for name, module in zip(names, model):
        named.add_module(name, module)
    _, x, y = original(tmp_path, named)
    path = safetensors(tmp_path / "w.safetensors", {k: v.numpy() for k, v in named.state_dict().items()})
    status, text = judged(tmp_path, path, x, y)
    assert status == 1 and "keeps no order" in text
    assert text.endswith("what gives it: --order stem,body,norm,head --import relu=hidden --import eps=0.001"), text
    options = "--order stem,body,norm,head --import eps=0.001 --import relu=hidden".split()
    assert judged(tmp_path, path, x, y, *options)[0] == 0


FOUND = {
    "stride": ({"0": TWIDDLE}, {"stride": "decreasing"}, "--import stride=decreasing"),
    "base": ({"0": RELEASED}, {"base": 2}, "--import base=2"),
    "stride and activation": ({"0": TWIDDLE}, {"stride": "decreasing", "relu": "all"}, None),
    "inputs and outputs": ({"0": TWIDDLE}, {"inputs": 11, "outputs": 9}, "--import inputs=11 --import outputs=9"),
    "of one layer": (
        {"0": TWIDDLE, "1": TWIDDLE, "2": TWIDDLE},
        {"1.stride": "decreasing", "1.relu": "yes"},
        "--import 1.relu=yes --import 1.stride=decreasing",
    ),
    "groups": ({"0": {"weight": RNG.normal(size=(8, 4, 1, 1))}}, {"inputs": 16}, "--import inputs=16"),
    "stride, base and activation": (
        {"0": TWIDDLE, "1": RELEASED},
        {"stride": "decreasing", "base": 2, "relu": "hidden"},
        None,
    ),
}


@pytest.mark.parametrize("layers, options, line", FOUND.values(), ids=FOUND)
def test_options_that_are_found(tmp_path, layers, options, line):
    path = tmp_path / "w.npz"
    np.savez(path, **{f"{name}.{part}": array for name, parts in layers.items() for part, array in parts.items()})
    network = bfthw.load(path, options=options).network
    x = RNG.normal(size=(50, network.inputs))
    y = network(x)
    status, text = judged(tmp_path, path, x, y)
    given = text.split("what gives it: ")[-1]
    assert status == 1 and (line is None or given == line), text
    assert sorted(given.split()[1::2]) == sorted(f"{key}={value}" for key, value in options.items())
    assert judged(tmp_path, path, x, y, *given.split())[0] == 0


def test_the_side_of_a_norm(tmp_path):
    """A Dropout and a ReLU, one on each side of the norm: the numbers do not say which."""
    for side, modules in {
        "behind": (nn.Linear(16, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 4)),
        "before": (nn.Linear(16, 16), nn.Dropout(), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)),
    }.items():
        path, x, y = original(tmp_path, trained(*modules))
        status, text = judged(tmp_path, path, x, y, "--import", "relu=hidden")
        assert "may stand before the ReLU of layer '0' or behind it" in text
        assert (status, text.split("gives it: ")[-1]) == (1, f"--import relu=hidden --import norm={side}")


def test_layers_of_our_own(tmp_path):
    path, x, y = original(tmp_path, trained(Butterfly(16), nn.ReLU(), Butterfly(16)))
    assert judged(tmp_path, path, x, y)[1].endswith("what gives it: --import relu=hidden")
    bfthw.save(bfthw.load(path).network, tmp_path / "w.npz")
    assert judged(tmp_path, tmp_path / "w.npz", x, y)[1].endswith("there is no other reading of this file")
    np.savez(
        tmp_path / "w.npz", **layer("a", **{"factors.0": RNG.normal(size=(1, 2, 2, 2))}), **layer("b", bias=np.ones(4))
    )
    x = RNG.normal(size=(9, 4))
    y = bfthw.load(tmp_path / "w.npz", order=["b", "a"]).network(x)
    assert judged(tmp_path, tmp_path / "w.npz", x, y)[1].endswith("what gives it: --order b,a")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_images_and_types(tmp_path, dtype):
    """Pixels of the images are the vectors; and what float16 keeps of an output is enough."""
    model = trained(nn.Conv2d(6, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    x = torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model.float()(x).numpy().astype(dtype)
    assert judged(tmp_path, tmp_path / "w.pt", x.numpy(), y, "--import", "relu=hidden")[0] == 0
    assert judged(tmp_path, tmp_path / "w.pt", x.numpy(), y)[1].endswith("--import relu=hidden")


def test_errors_just_above_rounding_are_seen(tmp_path):
    """A thousandth of one output: far below what quantising costs, far above what float32 does."""
    path, x, y = original(tmp_path, trained(nn.Linear(16, 16)))
    y[7, 3] *= 1.001
    status, text = judged(tmp_path, path, x, y)
    assert status == 1 and "output 3 of vector 7 is" in text and "none of" in text
    y[7, 3] /= 1.001
    assert judged(tmp_path, path, x, y)[0] == 0


def test_what_no_reading_gives(tmp_path, monkeypatch):
    np.savez(tmp_path / "w.npz", **{f"{k}.{part}": v for k in "abc" for part, v in TWIDDLE.items()})
    x, y = RNG.normal(size=(2, 20, 16))
    monkeypatch.setattr(recorded, "TRIES", 40)
    status, text = judged(tmp_path, tmp_path / "w.npz", x, y)
    assert status == 1 and "none of 40 other readings gives it; more are possible, at most 40 are tried in 60 s" in text
    assert (
        recorded.search(File(tmp_path / "w.npz"), x, y, order=["a"], options={"relu": "all", "stride": "increasing"})[0]
        is None
    )


@pytest.mark.parametrize(
    "x, y, text",
    [
        (np.ones((5, 4)), np.ones((6, 4)), "recorded are 5 vectors of 4 values and 6 of 4"),
        (np.ones((5, 3)), np.ones((5, 4)), "takes 4 values and gives 4, recorded are 5 vectors of 3"),
        (np.ones((5, 4)), np.ones((5, 4)), "the 5 recorded outputs are all the same"),
        (np.ones((1, 4)), np.zeros((1, 4)), "the 1 recorded outputs are all the same"),
        (np.ones(4), np.ones((1, 4)), "x.npy: must be finite real numbers, .N, values., got float64 .4,."),
        (np.ones((5, 4)), np.full((5, 4), np.nan), "y.npy: must be finite"),
        (np.ones((5, 4)), np.ones((5, 4), complex), "y.npy: must be finite real numbers, .*complex128"),
    ],
)
def test_records_that_say_nothing(tmp_path, x, y, text):
    import re

    np.savez(tmp_path / "w.npz", **FACTORS)
    status, said = judged(tmp_path, tmp_path / "w.npz", x, y)
    assert status == 1 and re.search(text, said), said


def test_files_that_are_not_judged(tmp_path):
    np.savez(tmp_path / "w.npz", **FACTORS)
    assert run("quantize", tmp_path / "w.npz", "-o", tmp_path / "q.npz")[0] == 0
    assert "take the float checkpoint" in judged(tmp_path, tmp_path / "q.npz", np.ones((2, 4)), np.ones((2, 4)))[1]
    check = "--check", tmp_path / "x.npy", tmp_path / "y.npy"
    assert "--check is for checkpoints" in run("inspect", "--model", "mobilenetv1", *check)[2]
    (tmp_path / "bad.npz").write_bytes(b"x")
    assert "not a valid .npz file" in judged(tmp_path, tmp_path / "bad.npz", np.ones((2, 4)), np.ones((2, 4)))[1]
