"""examples/train.py on small sets made on the spot: what it refuses, going on after a kill, handing over."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import train_files

import bfthw

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def trainer(example):
    return example("train")


def test_rate(trainer):
    rates = [trainer.rate_at(step, rate=0.5, warmup=4, steps=104) for step in range(104)]
    assert np.allclose(rates[:5], [0.125, 0.25, 0.375, 0.5, 0.5])
    assert np.isclose(rates[54], 0.25) and 0 < rates[-1] < 2e-4
    assert all(a >= b for a, b in zip(rates[4:], rates[5:]))


def test_learns_and_hands_over(tmp_path, trainer):
    """Three shades of grey are learnt; each exported butterfly does what its part of the network does."""
    data, out, folder = train_files.imagenet(tmp_path / "data", count=32), tmp_path / "out", tmp_path / "butterflies"
    how = {"resolution": 32, "width": 0.25, "epochs": 6, "batch": 16, "rate": 0.02, "warmup": 1}
    trainer.main(data=data, out=out, export_to=folder, **how)
    rows = list(csv.reader((out / "log.csv").open()))
    assert rows[0] == ["epoch", "loss", "training %", "held out %"] and len(rows) == 7
    assert float(rows[-1][1]) < 0.8 * float(rows[1][1]) and float(rows[-1][2]) > 60
    state = torch.load(out / "last.pt", weights_only=True)
    module = trainer.build("mobilenetv1", width=0.25, resolution=32, classes=3)
    module.load_state_dict(state["module"])
    trained = module.eval().to_network()
    for number in (1, 2, 3, 13):
        name = f"pointwise{number}"
        network, x = bfthw.load(folder / f"{name}.safetensors").network, np.load(folder / f"{name}.npy")
        (layer,) = network.layers
        assert layer.name == name and layer.relu and x.shape[1] == network.inputs
        own = [node for node in trained.nodes if node.name.startswith(name + ".") or node.name == name]
        names = {own[0].inputs[0]: "input"}
        own = [replace(node, inputs=tuple(names.get(i, i) for i in node.inputs)) for node in own]
        assert np.allclose(network(x), bfthw.Network(own, x.shape[1])(x), rtol=1e-4, atol=1e-4)
        assert np.abs(network(x)).max() > 0
    integers = bfthw.compile(bfthw.load(folder / "pointwise2.safetensors").network, calibration=x[:, :16])
    assert integers.inputs == 16
    assert len(list(folder.iterdir())) == 26


def test_half_precision(tmp_path, trainer):
    out = tmp_path / "out"
    how = {"width": 0.25, "epochs": 1, "batch": 48, "rate": 0.01}  # of fewer, batch norms enlarge the roundings
    data = train_files.cifar(tmp_path / "data")
    for precision in ("bfloat16", "float32"):
        trainer.main(data=data, dataset="cifar10", out=out / precision, precision=precision, **how)
    loss = [float(list(csv.reader((out / p / "log.csv").open()))[1][1]) for p in ("bfloat16", "float32")]
    assert loss[0] != loss[1] and np.isclose(*loss, rtol=0.02)


def command(data, out, *more):
    return [sys.executable, EXAMPLES / "train.py", "--data", data, "--out", out, *more]


def run(arguments, **how):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


def made(file):
    return file.stat().st_mtime_ns if file.exists() else None


def kill_after(process, file, saves):
    """SIGKILL as soon as so many checkpoints, or one or two more, have been written."""
    seen, until = made(file), time.monotonic() + 120
    while saves:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        if (now := made(file)) != seen:
            seen, saves = now, saves - 1
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def test_goes_on_after_a_kill(tmp_path):
    """Killed in the middle of an epoch: the same weights, momentum, chance and log as without (dropout is in it)."""
    data = train_files.modelnet(tmp_path / "data")
    more = ["--dataset", "modelnet40", "--fusion", "debut", "--resolution", "64", "--epochs", "3", "--batch", "3"]
    more += ["--rate", "0.01", "--every", "1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    other = run(command(data, whole, *more))
    for saves in (8, 2, 2):  # an epoch is 6 steps; again where the kill came between two epochs
        kill_after(run(command(data, killed, *more)), killed / "last.pt", saves)
        state = torch.load(killed / "last.pt", weights_only=True)  # never a half of one
        if state["step"] > 0:
            break
    assert state["step"] > 0 and 0 < state["epoch"] < 3
    (left := killed / ".bfthw-work-1234abcd" / "new").mkdir(parents=True)
    (left / "last.pt").write_bytes(b"half a checkpoint")  # what a kill while writing leaves
    last = run(command(data, killed, *more))
    text = last.communicate()[0].decode()
    assert last.returncode == 0 and f"after epoch {state['epoch']}, step {state['step']}" in text
    assert other.wait() == 0
    other.communicate()
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, killed))
    assert same(a, b)
    assert (whole / "log.csv").read_text() == (killed / "log.csv").read_text()
    assert sorted(file.name for file in killed.iterdir()) == ["last.pt", "log.csv"]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_workers_change_nothing(tmp_path, trainer):
    data = train_files.imagenet(tmp_path / "data", count=4)
    how = {"resolution": 32, "width": 0.25, "epochs": 1, "batch": 4, "rate": 0.01}
    for workers in (0, 2):
        trainer.main(data=data, out=tmp_path / str(workers), workers=workers, **how)
    assert same(*(torch.load(tmp_path / w / "last.pt", weights_only=True) for w in "02"))


def test_what_is_refused(tmp_path, trainer):
    data, meshes = train_files.imagenet(tmp_path / "i", count=3), train_files.modelnet(tmp_path / "m")
    out = tmp_path / "out"
    how = {"data": data, "resolution": 32, "width": 0.25, "epochs": 1, "batch": 4, "rate": 0.01, "out": out}
    trainer.main(**how)
    for change, message in (
        ({"rate": 0.02}, "last.pt: was made with rate 0.01, not 0.02; name another --out"),
        ({"batch": 10, "out": tmp_path / "b"}, "--batch 10 is more than there is to train on; 9 at most"),
        ({"dataset": "mnist"}, "unknown --dataset 'mnist'; there are imagenet, cifar10, modelnet40"),
        ({"model": "pointnet"}, "--model pointnet goes with points"),
        ({"model": "vgg"}, "unknown network 'vgg'"),
        ({"model": "mobilenetv1", "dataset": "modelnet40", "data": meshes}, "--model mobilenetv1 goes with images"),
        ({"width": 99.0}, "the width must be"),
        ({"resolution": 7}, "the resolution must be"),
        ({"precision": "int8"}, "--precision must be"),
        ({"fusion": "dense", "out": tmp_path / "d", "export_to": tmp_path / "e"}, "its fusion is dense"),
        ({"rate": 1e30, "warmup": 0, "out": tmp_path / "n", "epochs": 3}, "the loss is (nan|inf); try a lower --rate"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.main(**(how | change))
    (out / "last.pt").write_bytes(pickle.dumps(train_files.Evil(os.system, (f"touch {tmp_path / 'ran'}",)), protocol=2))
    with pytest.raises(ValueError, match="last.pt: no checkpoint of a run"):
        trainer.main(**how)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "e").exists()


def test_one_message_at_the_command_line(tmp_path):
    data = train_files.imagenet(tmp_path / "data", count=4)
    (data / "train" / "n001" / "0.jpg").write_bytes(b"no image")
    more = ["--resolution", "32", "--width", "0.25", "--epochs", "1", "--batch", "4", "--workers", "1"]
    process = run(command(data, tmp_path / "out", *more))
    text = process.communicate()[1].decode()
    assert process.returncode == 1 and text.startswith("error: ") and len(text.splitlines()) == 1, text
    assert "n001/0.jpg: no image that can be read" in text


def test_square_residuals_export_as_plain_chains(tmp_path, trainer):
    data, folder = train_files.imagenet(tmp_path / "data", count=2), tmp_path / "butterflies"
    how = {"resolution": 32, "width": 0.25, "epochs": 1, "batch": 2, "rate": 0.01, "residual": "square"}
    trainer.main(data=data, out=tmp_path / "out", export_to=folder, **how)
    (layer,) = bfthw.load(folder / "pointwise2.safetensors").network.layers
    assert not layer.residual and layer.chain.weights == 2 * 16 * 4 * 2
    assert not any(isinstance(p, bfthw.chain.Indexed) for p in layer.chain.patterns)
