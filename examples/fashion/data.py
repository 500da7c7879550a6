"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; Zalando SE, MIT license) from Debian's dataset-fashion-mnist."""

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train", "test": "t10k"}


def load(part, folder=FOLDER):
    """part: "train", 60,000, or "test", 10,000 -> pixels uint8 (N, 28, 28, 1), labels int64 (N,).

    IDX files: images from byte 16 on, labels from byte 8 on. FileNotFoundError says what to install.
    """
    found = []
    for kind, start, shape in (("images-idx3", 16, (-1, 28, 28, 1)), ("labels-idx1", 8, (-1,))):
        path = Path(folder) / f"{FILES[part]}-{kind}-ubyte.gz"
        if not path.exists():
            raise FileNotFoundError(f"{path}: apt-get install dataset-fashion-mnist, or name a --data folder")
        with gzip.open(path) as file:
            found.append(np.frombuffer(file.read(), np.uint8, offset=start).reshape(shape))
    images, labels = found
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {len(images)} images of {part}, {len(labels)} labels")
    return images, labels.astype(np.int64)
