"""The network shipped for Fashion-MNIST: what it gets right, and its integers, on test images that come along."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from bfthw import load
from bfthw.quantize import compile

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "fashion"
RIGHT = 935  # of the first 1,000 test images
ALL = [9132, 9172]  # of all 10,000, in floats and as integers


@pytest.fixture(scope="module")
def fashion():
    """(the shipped network, its integers, what came along: images, labels, scores)."""
    network = load(FOLDER / "fashion.safetensors").network
    return network, compile(network), np.load(FOLDER / "samples.npz")


def test_shipped_network(fashion):
    """A row of nodes, as a chip takes them; 8-bit weights, 9 bits between layers, no sign behind each ReLU."""
    network, integers, _ = fashion
    before = [network.nodes[0].inputs[0], *(node.name for node in network.nodes)]
    assert all(set(node.inputs) == {name} for node, name in zip(network.nodes, before))
    assert (integers.input.width, integers.input.frac, integers.input.signed) == (8, 8, False)
    assert {f.weights.width for f in integers.factors} == {8}
    assert {stage.output.width for _, stage in integers.stages[:-1]} == {9}
    assert [node.output.signed for node in integers.weighted] == [not layer.relu for layer in network.layers]


def test_shipped_images(fashion):
    """Of 100 images the integers are those of the day the network was made; all 1,000 are counted."""
    _, integers, samples = fashion
    found = integers(samples["images"][:100].astype(np.int64))
    assert np.array_equal(found, samples["scores"][:100])
    assert (samples["scores"].argmax(1) == samples["labels"]).sum() == RIGHT


def test_sizes(fashion):
    """Small enough to come along."""
    assert (FOLDER / "fashion.safetensors").stat().st_size <= 120_000
    assert (FOLDER / "samples.npz").stat().st_size <= 500_000 and fashion[2]["images"].shape == (1000, 28, 28, 1)


def test_shipped_inverted_residuals(fashion):
    """Two of four blocks add what went in; the integers are those of the day the network was made."""
    path, (_, _, samples) = FOLDER / "inverted.safetensors", fashion
    integers = compile(load(path).network)
    found = integers(samples["images"][:40].astype(np.int64))
    assert zlib.crc32(found.astype("<i4").tobytes()) == 1737347308
    assert [node.name for node in integers.nodes if len(node.inputs) > 1] == ["narrow2", "narrow4"]
    assert path.stat().st_size <= 240_000


def test_idx_files(example, tmp_path):
    data = example("fashion/data")
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        data.load("test", tmp_path)


@pytest.mark.slow
def test_all_test_images(fashion, example):
    """docs/images.md has the figures; what comes along are the first of them."""
    network, integers, samples = fashion
    data = example("fashion/data")
    if not data.FOLDER.exists():
        pytest.skip("needs dataset-fashion-mnist")
    images, labels = data.load("test")
    assert np.array_equal(images[:1000], samples["images"]) and np.array_equal(labels[:1000], samples["labels"])
    parts = np.array_split(images, 20)
    scores = np.concatenate([integers(part.astype(np.int64)) for part in parts])
    assert np.array_equal(scores[:1000], samples["scores"])
    floats = np.concatenate([network(part / 256).argmax(1) for part in parts])
    assert [int((y == labels).sum()) for y in (floats, scores.argmax(1))] == ALL
