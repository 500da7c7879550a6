"""Small sets of images and points for tests of examples/train.py; classes differ, so that there is much to learn."""

import pickle

import numpy as np
from PIL import Image


def imagenet(path, *, classes=3, count=8, size=40):
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 3)):
        for label in range(classes):
            folder = path / split / f"n{label:03d}"
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 60, (size, size + 4 * i, 3)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg")
    return path


def cifar(path, *, count=24, protocol=2):
    rng = np.random.default_rng(1)
    path.mkdir(parents=True)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        labels = [int(y) for y in rng.integers(0, 10, count)]
        data = (rng.integers(0, 40, (count, 3072)) + 20 * np.array(labels)[:, None]).astype(np.uint8)
        batch = {"batch_label": name, "labels": labels, "data": data, "filenames": [f"{i}.png" for i in range(count)]}
        (path / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return path


CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def box(sides, joined=False):
    """The text of a box; `joined` as in many files of ModelNet40, the counts in the line of OFF."""
    lines = [" ".join(str(c * s) for c, s in zip(corner, sides)) for corner in CORNERS]
    lines += [" ".join(map(str, (4, *face))) for face in SIDES]
    return f"OFF{'' if joined else chr(10)}8 6 0\n" + "\n".join(lines) + "\n"


def modelnet(path, *, count=6):
    rng = np.random.default_rng(2)
    for label, kind in enumerate(("plate", "cube", "rod")):
        for split, number in (("train", count), ("test", 2)):
            folder = path / kind / split
            folder.mkdir(parents=True)
            for i in range(number):
                sides = rng.uniform(0.9, 1.1, 3) * [(1, 1, 0.05), (1, 1, 1), (0.05, 0.05, 1)][label]
                (folder / f"{kind}_{i:04d}.off").write_text(box(sides, joined=bool(i % 2)))
    return path


class Evil:
    """A pickle of one calls a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call
