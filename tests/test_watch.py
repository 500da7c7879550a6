"""The watch's series: which windows there are, who is held out, what is refused of a file."""

import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import train_files

from bfthw import compile, load

SHIPPED = Path(__file__).resolve().parents[1] / "examples" / "watch" / "watch.safetensors"


@pytest.fixture
def data(example):
    return example("watch/data")


def series(place, **changed):
    """A file as seglearn's, of 10 people with 7 exercises each, numbers by chance."""
    rng = np.random.default_rng(0)
    given = {
        "X": [rng.normal(size=(int(rng.integers(90, 400)), 6)) for _ in range(70)],
        "y": np.arange(70) % 7,
        "subject": np.arange(70) // 7 + 1,
        "y_labels": ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"],
    } | changed
    np.save(place / "watch.npy", np.array(given, object), allow_pickle=True)
    return place / "watch.npy", given


def test_windows(data, tmp_path):
    """Of each series windows of 100 steps, half a window apart; of people 8, 9 and 10 none in training."""
    path, given = series(tmp_path)
    for part, people in (("train", range(1, 8)), ("test", range(8, 11))):
        x, labels = data.load(part, path)
        own = [(one, label) for one, label, who in zip(given["X"], given["y"], given["subject"]) if who in people]
        assert np.array_equal(labels, [label for one, label in own for _ in range((len(one) - 50) // 50)])
        assert x.shape == (len(labels), 1, 100, 6) and x.dtype == np.int8
        last = [one for one, _ in own if len(one) >= 100][-1]
        scaled = np.clip(np.rint(last / [4, 4, 4, 8, 8, 8] * 128), -128, 127)
        at = (len(scaled) - 100) // 50 * 50
        assert np.array_equal(x[-1, 0], scaled[at : at + 100])


@pytest.mark.parametrize("change", [
    {"y": np.arange(69) % 7}, {"X": [np.zeros((200, 5))] * 70}, {"y_labels": ["PEN"]}, {"subject": None},
    {"X": [np.zeros((200, 6), np.float32)] * 70},
])
def test_other_files(data, tmp_path, change):
    path, _ = series(tmp_path, **change)
    with pytest.raises(ValueError, match="watch.npy: no series of the watch"):
        data.load("test", path)


def test_files_of_strangers(data, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "watch.npy"
    evil = train_files.Evil(os.system, (f"touch {marker}",))
    np.save(path, np.array({"X": evil}, object), allow_pickle=True)
    with pytest.raises(ValueError, match="it asks for .*system, which is no data"):
        data.load("test", path)
    np.save(path, np.array({"X": [evil]}, object), allow_pickle=True)
    with pytest.raises(ValueError, match="it asks for .*system, which is no data"):
        data.load("test", path)
    for raw in (b"", b"hello", b"\x93NUMPY\x01\x00", path.read_bytes()[:200], pickle.dumps({"X": 1})):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="watch.npy: (no series of the watch|1 to)"):
            data.load("test", path)
    assert not marker.exists()


def test_no_package(data, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps seglearn==1.2.5"):
        data.load("test")


@pytest.fixture(scope="module")
def shipped():
    """Integers of the network that comes along."""
    return compile(load(SHIPPED).network)


def test_shipped_network(shipped):
    """Its integers are those of the day it was made."""
    found = shipped(np.random.default_rng(0).integers(-128, 128, (20, 1, 100, 6)))
    assert zlib.crc32(found.astype("<i4").tobytes()) == 3098935900


@pytest.mark.slow
def test_shipped_network_on_people_it_does_not_know(data, shipped):
    """docs/watch.md says so."""
    try:
        x, labels = data.load("test")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert ((shipped(x.astype(np.int64)).argmax(1) == labels).sum(), len(labels)) == (1264, 1484)
