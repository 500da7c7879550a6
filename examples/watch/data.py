"""Exercises of the shoulder, seen by a smart watch: 7 kinds, 10 people, 140 series (Burns et al., arXiv 1802.01489), as
seglearn 1.2.5 (BSD 3-clause) brings them along.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train_data import unpickle

STEPS, HOP = 100, 50  # of a window, 2 seconds; from one to the next
UNSEEN = 8, 9, 10  # subjects of whom nothing is seen in training
LIMITS = np.array([4, 4, 4, 8, 8, 8])  # accelerations, and how fast it turns, that are 128 of an integer of 8 bits
CLASSES = "PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"
FILE_LIMIT = 1 << 26  # bytes


def file():
    """Where an installed seglearn has the series; FileNotFoundError says how to get them. It is not imported, so what
    it depends on need not be there.
    """
    spec = find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no seglearn: pip install --no-deps seglearn==1.2.5, or name its watch_dataset.npy, --data")
    return Path(spec.origin).parent / "data" / "watch_dataset.npy"


def load(part, path=None):
    """part: "train", 7 people, or "test", 3 others -> int8 (N, 1, STEPS, 6), labels int64 (N,).

    The file is a pickle behind numpy's header; it is read as data, nothing in it runs. ValueError where it is another.
    """
    path = Path(path or file())
    if not 0 < path.stat().st_size <= FILE_LIMIT:
        raise ValueError(f"{path}: 1 to {FILE_LIMIT} bytes are expected, found {path.stat().st_size}")
    raw = path.read_bytes()
    try:
        if raw[:8] != b"\x93NUMPY\x01\x00":
            raise ValueError("it does not begin as numpy's files do")
        given = unpickle(raw[10 + int.from_bytes(raw[8:10], "little") :])
        series, labels, subjects = given["X"], given["y"], given["subject"]
        if not len(series) == len(labels) == len(subjects) or {one.shape[1:] for one in series} != {(6,)}:
            raise ValueError("needs a label and a subject for each series of 6 numbers a step")
        if given["y_labels"] != [*CLASSES]:
            raise ValueError(f"classes {given['y_labels']}")
    except Exception as error:  # a broken pickle may raise anything, and nothing of it has run
        raise ValueError(f"{path}: no series of the watch: {type(error).__name__}: {error}") from None
    found, kinds = [], []
    for own, label, subject in zip(series, labels, subjects):
        if (subject in UNSEEN) == (part == "test"):
            whole = np.clip(np.rint(own / LIMITS * 128), -128, 127).astype(np.int8)
            found += [whole[at : at + STEPS][None] for at in range(0, len(own) - STEPS + 1, HOP)]
            kinds += [label] * (len(found) - len(kinds))
    return np.stack(found), np.array(kinds, np.int64)
