"""examples/train.py on small sets made on the spot: what it reads and refuses, going on after a kill, handing over."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import train_files

import bfthw

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports a module of the examples; its plain name is forgotten again afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield import_module
    for name in ("train", "train_data"):
        sys.modules.pop(name, None)


@pytest.fixture
def reader(example):
    return example("train_data")


@pytest.fixture
def trainer(example):
    return example("train")


# --- images ---


def test_images(tmp_path, reader):
    train, held = reader.load("imagenet", train_files.imagenet(tmp_path), size=32, seed=7)
    assert (len(train), len(held), train.classes) == (24, 9, ["n000", "n001", "n002"])
    x, label = train[3, 20]
    assert x.shape == (3, 32, 32) and x.dtype == torch.float32 and label == 2
    # chance comes from seed, epoch and item alone
    assert torch.equal(x, train[3, 20][0])
    assert not torch.equal(x, train[4, 20][0])
    other, _ = reader.load("imagenet", tmp_path, size=32, seed=8)
    assert not torch.equal(x, other[3, 20][0])
    assert torch.equal(held[0, 5][0], held[9, 5][0])
    # classes are 60 grey levels apart
    means = [np.mean([held[0, i][0].mean() for i in range(len(held)) if held.items[i][1] == y]) for y in range(3)]
    assert np.allclose(np.diff(means), 60 / 255 / 0.226, rtol=0.1)


def test_middle_of_a_held_out_image(tmp_path, reader):
    from PIL import Image

    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        pixels = np.zeros((64, 128, 3), np.uint8)
        pixels[4:60, 36:92] = 255  # 56 of 64 pixels, as 224 of 256
        Image.fromarray(pixels).save(tmp_path / split / "a" / "a.png")
    _, held = reader.load("imagenet", tmp_path, size=224)
    x, white = held[0, 0][0], torch.from_numpy((1 - reader.MEAN) / reader.SPREAD)[:, None]
    # just the white square: at its edges black begins to mix in
    assert torch.allclose(x[:, 3:-3, 3:-3].flatten(1), white)
    assert (x[:, 0, 9:-9] < white - 0.1).all() and (x[:, 9:-9, -1] < white - 0.1).all()


def test_a_broken_image(tmp_path, reader):
    folder = train_files.imagenet(tmp_path)
    (folder / "train" / "n001" / "0.jpg").write_bytes(b"\xff\xd8\xff no image")
    train, _ = reader.load("imagenet", folder, size=32)
    with pytest.raises(ValueError, match="n001/0.jpg: no image that can be read"):
        train[0, 8]


# --- CIFAR-10 ---


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_cifar(tmp_path, reader, protocol):
    train, held = reader.load("cifar10", train_files.cifar(tmp_path / "x", protocol=protocol), size=32)
    batch = pickle.loads((tmp_path / "x" / "data_batch_2").read_bytes())
    assert (len(train), len(held), len(train.classes)) == (48, 24, 10)
    assert np.array_equal(train.items[30][0].ravel(), batch["data"][6]) and train.items[30][1] == batch["labels"][6]
    x, _ = train[0, 30]
    assert x.shape == (3, 32, 32) and not torch.equal(x, train[1, 30][0]) and torch.equal(x, train[0, 30][0])


def test_cifar_written_by_python_2(reader):
    """Bytes are str there, and reach us as text; written out by hand: {'data': uint8 (1, 2), 'labels': [7]}."""
    text = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x00\xfetbU\x06labelsq\x07]q\x08K\x07au."
    )
    found = reader.unpickle(text)
    assert found["labels"] == [7] and found["data"].tolist() == [[0, 254]] and found["data"].dtype == np.uint8


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def attacks(marker):
    touch = f"open({str(marker)!r}, 'w')"
    yield "a shell", pickle.dumps(Evil(os.system, (f"touch {marker}",)))
    yield "eval", pickle.dumps(Evil(eval, (touch,)))
    yield "eval, old protocol", pickle.dumps(Evil(exec, (touch,)), protocol=0)
    yield "inside an item", pickle.dumps({"data": Evil(eval, (touch,)), "labels": [0]})
    yield "a name with dots", b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93."
    yield "numpy's own loader", pickle.dumps(Evil(np.load, ("x.npy", None, True)))
    yield "numpy's runner", b"cnumpy.testing._private.utils\nrunstring\n(Vx\nVy\ntR."
    yield "an array of objects", pickle.dumps({"data": np.array([Evil(eval, (touch,))], object), "labels": [0]})
    yield "floats", pickle.dumps({"data": np.zeros((1, 384)), "labels": [0]})
    yield "signed bytes", pickle.dumps({"data": np.zeros((1, 3072), np.int8), "labels": [0]})
    yield "an instance", b"(ios\nsystem\n."
    yield "a shape that its bytes do not fill", pickle.dumps({"data": np.zeros(3072, np.uint8), "labels": [0, 0]})
    yield "a memo of 64 GB", b"\x80\x02]r\xff\xff\xff\xff."
    yield "persistent names", b"Pabc\n."
    yield "no dictionary", pickle.dumps([1, 2])
    yield "labels past the end", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})
    yield "no pickle", b"hello"
    yield "cut off", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]})[:-40]
    yield "nothing", b""


@pytest.mark.parametrize("name", [name for name, _ in attacks("x")])
def test_pickles_of_strangers(tmp_path, reader, name):
    marker, file = tmp_path / "ran", tmp_path / "data_batch_1"
    file.write_bytes(dict(attacks(marker))[name])
    with pytest.raises(ValueError, match="data_batch_1: (no batch of CIFAR-10|1 to)"):
        reader.read_batch(file)
    assert not marker.exists()


def test_the_attacks_are_some(tmp_path):
    """The plain unpickler does run them."""
    marker = tmp_path / "ran"
    pickle.loads(dict(attacks(marker))["inside an item"])
    assert marker.exists()


# --- meshes ---


def test_meshes(tmp_path, reader):
    train, held = reader.load("modelnet40", train_files.modelnet(tmp_path), size=50)
    assert (len(train), len(held), train.classes) == (18, 6, ["cube", "plate", "rod"])
    x, label = held[0, 0]
    assert x.shape == (3, 50) and x.dtype == torch.float32 and label == 0
    assert torch.equal(train[1, 2][0], train[1, 2][0]) and not torch.equal(train[1, 2][0], train[2, 2][0])
    points = held.items[0][0]
    assert points.shape == (200, 3) and np.isclose(np.linalg.norm(points, axis=1).max(), 1, atol=1e-6)
    assert np.allclose(points.mean(axis=0), 0, atol=1e-5)


def test_points_are_even_over_the_area(tmp_path, reader):
    (tmp_path / "a.off").write_text("OFF # a comment\n" + train_files.box((4, 2, 1)).removeprefix("OFF\n"))
    (tmp_path / "b.off").write_text(train_files.box((4, 2, 1), joined=True))
    vertices, triangles = reader.read_off(tmp_path / "a.off")
    assert all(np.array_equal(*pair) for pair in zip(reader.read_off(tmp_path / "b.off"), (vertices, triangles)))
    assert vertices.shape == (8, 3) and triangles.shape == (12, 3)
    points = reader.sample(vertices, triangles, 20000, np.random.default_rng(0))
    reach = np.abs(points).max(axis=0)
    assert np.allclose(reach / reach[0], (1, 0.5, 0.25), atol=0.02)
    # of 28, 4 + 4 lie on the faces that are 4 by 1
    on = np.mean(np.abs(points) > reach - 2e-2 * reach[0], axis=0)
    assert np.allclose(on, np.array([4, 8, 16]) / 28, atol=0.04)


@pytest.mark.parametrize(
    "text",
    [
        "PLY\n3 1 0\n",
        "OFF\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 nan\n3 0 1 2\n",
        "OFF\n999999999 1 0\n0 0 0\n",
        "OFF\n3 -1 0\n0 0 0\n1 0 0\n0 1 0\n",
        "OFF\n2 1 0\n0 0 0\n1 0 0\n2 0 1\n",
        "OFF\nx y z\n",
    ],
)
def test_broken_meshes(tmp_path, reader, text):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(ValueError, match="a.off: no mesh in the Object File Format"):
        reader.read_off(tmp_path / "a.off")


# --- folders of another kind ---


def test_what_is_no_data_set(tmp_path, reader):
    images, archive = train_files.imagenet(tmp_path / "i"), train_files.cifar(tmp_path / "c")
    meshes, empty = train_files.modelnet(tmp_path / "m"), tmp_path / "e"
    empty.mkdir()
    for name, path, message in (
        ("imagenet", tmp_path / "none", "no such folder"),
        ("imagenet", archive / "data_batch_1", "is a file, not a folder"),
        ("imagenet", empty, r"imagenet needs train/<class>/\*.jpg and val/<class>/\*.jpg$"),
        ("imagenet", archive, "this looks like --dataset cifar10"),
        ("cifar10", meshes, "cifar10 needs data_batch_1 .*this looks like --dataset modelnet40"),
        ("modelnet40", images, "this looks like --dataset imagenet"),
    ):
        with pytest.raises(ValueError, match=message):
            reader.load(name, path, size=32)
    for file in (images / "val").glob("*/*"):
        file.unlink()
    with pytest.raises(ValueError, match="no held-out items"):
        reader.load("imagenet", images, size=32)


def test_held_out_classes(tmp_path, reader):
    """Labels go by the name of a class, not by its place in its own folder."""
    folder = train_files.modelnet(tmp_path)
    for file in (folder / "cube" / "test").iterdir():
        file.unlink()
    (folder / "cube" / "test").rmdir()
    _, held = reader.load("modelnet40", folder, size=20)
    assert [held.classes[label] for _, label in held.items] == ["plate"] * 2 + ["rod"] * 2
    (folder / "rod" / "train").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="held-out classes that training does not have: rod"):
        reader.load("modelnet40", folder, size=20)


def test_some_items_of_every_class(tmp_path, reader):
    train, _ = reader.load("imagenet", train_files.imagenet(tmp_path), size=32, limit=6)
    assert len(train) == 6 and {label for _, label in train.items} == {0, 1, 2}


# --- training ---


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
    (out / "last.pt").write_bytes(pickle.dumps(Evil(os.system, (f"touch {tmp_path / 'ran'}",)), protocol=2))
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
