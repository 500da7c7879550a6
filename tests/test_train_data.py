"""examples/train_data.py on small sets made on the spot: what it reads, and what it refuses."""

import os
import pickle

import numpy as np
import pytest
import torch
import train_files


@pytest.fixture
def reader(example):
    return example("train_data")


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


def attacks(marker):
    touch = f"open({str(marker)!r}, 'w')"
    yield "a shell", pickle.dumps(train_files.Evil(os.system, (f"touch {marker}",)))
    yield "eval", pickle.dumps(train_files.Evil(eval, (touch,)))
    yield "eval, old protocol", pickle.dumps(train_files.Evil(exec, (touch,)), protocol=0)
    yield "inside an item", pickle.dumps({"data": train_files.Evil(eval, (touch,)), "labels": [0]})
    yield "a name with dots", b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93."
    yield "numpy's own loader", pickle.dumps(train_files.Evil(np.load, ("x.npy", None, True)))
    yield "numpy's runner", b"cnumpy.testing._private.utils\nrunstring\n(Vx\nVy\ntR."
    yield "an array of objects", pickle.dumps({"data": np.array([train_files.Evil(eval, (touch,))], object), "labels": [0]})
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
