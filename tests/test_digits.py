"""The shipped digits checkpoint: what its README says of it, on the held-out images."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from bfthw import QFormat, chain, compile  # noqa: E402
from bfthw.checkpoint import load, save  # noqa: E402

HERE = Path(__file__).parent.parent / "examples" / "digits"


@pytest.fixture
def images(example):
    return example("digits/data").load()


@pytest.fixture(scope="module")
def network():
    return load(HERE / "digits.safetensors").network


def test_split(images, example):
    x, y, x_test, y_test = images
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((1442, 64), (1442,), (355, 64), (355,))
    assert np.abs(np.bincount(y_test) / (np.bincount(y) + np.bincount(y_test)) - 0.2).max() < 0.01
    together = {row.tobytes() for row in x} & {row.tobytes() for row in x_test}
    assert not together  # no image is on both sides
    fmt = example("digits/data").INPUT
    for pixels in (x, x_test):
        assert pixels.min() == 0 and pixels.max() == 1
        assert np.array_equal(fmt.dequantise(fmt.quantise(pixels)), pixels)


def test_data_needs_no_torch():
    code = "import sys, data; data.load(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True)


def test_network_is_small_and_has_its_formats(network, example):
    body, head = network.layers
    assert (body.name, head.name) == ("body", "head")
    assert body.chain.patterns == chain.bft(64, 4) and body.residual and body.relu
    assert head.chain.patterns == chain.dense(10, 64) and not head.residual and not head.relu
    integers = compile(network)
    assert integers.input == example("digits/data").INPUT == QFormat(8, 6)
    assert {f.weights.width for f in integers.factors} == {8} and {f.output.width for f in integers.factors} == {10}
    assert sum(f.pattern.weights for f in integers.factors) == 768 + 640


def test_accuracies_are_those_of_the_readme(network, images):
    _, _, x, y = images
    exact = 100 * np.mean(network(x).argmax(axis=1) == y)
    integer = 100 * np.mean(compile(network).classify(x) == y)
    assert exact >= 97 and abs(exact - integer) <= 1
    text = (HERE / "README.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| .*shipped.*\| ([0-9.]+) % \| ([0-9.]+) % \|$", text, re.MULTILINE)
    assert stated == [(f"{exact:.2f}", f"{integer:.2f}")]


@pytest.mark.slow
def test_training_again(example, images, tmp_path):
    """A few epochs reach most of the accuracy, twice the same numbers, and survive the checkpoint."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (example("digits/train").train(*images, epochs=12, fine_epochs=3) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert first.float_after > 0.93 and abs(first.float_after - first.integer_after) < 0.02
    assert {f.weights.width for f in compile(first.network).factors} == {8}
    save(first.network, tmp_path / "digits.safetensors")
    loaded = load(tmp_path / "digits.safetensors").network
    for x in (images[0], images[2]):
        assert np.array_equal(first.network(x), second.network(x))
        assert np.array_equal(compile(loaded).predict(x), compile(first.network).predict(x))
