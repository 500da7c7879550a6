"""The PointNet shipped for clouds of points (test_shapes.py): what it gets right, and its integers."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from bfthw import load
from bfthw.nodes import Max, Product
from bfthw.quantize import compile

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "shapes"


@pytest.fixture(scope="module")
def shapes():
    """(the shipped network, its integers)."""
    network = load(FOLDER / "shapes.safetensors").network
    return network, compile(network)


@pytest.fixture
def tests(example):
    """(clouds, labels) nobody learned from."""
    return example("shapes/data").load("test")


def test_shipped_network(shapes):
    """Both T-nets in it, whose matrices turn what they are made of; 8-bit weights."""
    network, integers = shapes
    products = [node for node in network.nodes if isinstance(node, Product)]
    assert [node.inputs for node in products] == [("input", "input.6"), ("points1", "features.6")]
    assert sum(isinstance(node, Max) for node in network.nodes) == 3
    assert {f.weights.width for f in integers.factors} == {8}
    assert (integers.input.width, integers.input.signed) == (8, True)
    assert (FOLDER / "shapes.safetensors").stat().st_size <= 300_000


def test_shipped_clouds(shapes, tests):
    """Of 40 clouds the integers are those of the day the network was made; 99 of 100 are told right."""
    (_, integers), (clouds, labels) = shapes, tests
    found = integers(clouds[:100].astype(np.int64))
    assert zlib.crc32(found[:40].astype("<i4").tobytes()) == 2759782655
    assert (found.argmax(1) == labels[:100]).sum() == 99


@pytest.mark.slow
def test_all_test_clouds(shapes, tests):
    """docs/shapes.md has the figure."""
    (_, integers), (clouds, labels) = shapes, tests
    parts = np.array_split(clouds.astype(np.int64), 20)
    assert (np.concatenate([integers(part) for part in parts]).argmax(1) == labels).sum() == 1977
