"""The network shipped for Fashion-MNIST: what it gets right, and its integers, on test images that come along."""

from pathlib import Path

import numpy as np
import pytest

from bfthw import load
from bfthw.quantize import compile

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "fashion"


@pytest.fixture
def fashion(example):
    """(the shipped network, data.py of the example)."""
    return load(FOLDER / "fashion.safetensors").network, example("fashion/data")


def test_shipped_network(fashion):
    """Its integers are those of the day it was made; what they get right is within a point of what floats do."""
    trained, data = fashion
    samples = np.load(FOLDER / "samples.npz")
    x, labels = samples["images"] / data.SCALE, samples["labels"]
    integers = compile(trained)
    assert np.array_equal(integers.input.dequantise(integers.input.quantise(x)), x), "pixels are integers of the input"
    assert np.array_equal(integers(integers.input.quantise(x)), samples["scores"])
    right, floats = (int((found == labels).sum()) for found in (integers.classify(x), trained(x).argmax(1)))
    assert right >= 0.85 * len(labels) and abs(right - floats) <= 1
    widths = {stage.output.width for _, stage in integers.stages[:-1]}
    assert widths == {9} and all(f.weights.width == 8 for f in integers.factors)
    assert [node.output.signed for node in integers.weighted] == [not layer.relu for layer in trained.layers]


def test_sizes(fashion):
    """Small enough to come along."""
    assert all((FOLDER / name).stat().st_size <= 100_000 for name in ("fashion.safetensors", "samples.npz"))


def test_idx_files(fashion, tmp_path):
    _, data = fashion
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        data.load("t10k", tmp_path)


@pytest.mark.slow
def test_all_test_images(fashion):
    """docs/fashion.md has the figures."""
    trained, data = fashion
    if not data.FOLDER.exists():
        pytest.skip("needs dataset-fashion-mnist")
    images, labels = data.load("t10k")
    x = images / data.SCALE
    found = [round(100 * float((y == labels).mean()), 2) for y in (trained(x).argmax(1), compile(trained).classify(x))]
    assert found == [86.75, 86.85] and found[1] > found[0] - 0.5
