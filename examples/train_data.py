"""Images and points on this disk, for train.py; nothing is downloaded. Every set is a torch Dataset of (x, label).

An item is asked for as (epoch, number), and what chance does to it comes from (seed, epoch, number) alone: so a run
that goes on after a kill sees what it would have seen, with any number of workers.
"""

import io
import pickle
import pickletools
import re
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
LAYOUTS = {
    "imagenet": "train/<class>/*.jpg and val/<class>/*.jpg",
    "cifar10": "data_batch_1 to data_batch_5 and test_batch, the archive for Python unpacked",
    "modelnet40": "<class>/train/*.off and <class>/test/*.off",
}
MEAN, SPREAD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])  # of ImageNet's RGB, as is usual
FILE_LIMIT = 1 << 28  # bytes of a mesh or an archive


class Data(Dataset):
    """items: (what, label) of every item. classes: names, by label. train: whether chance may change an item."""

    def __init__(self, items, classes, *, train, size, seed=0):
        self.items, self.classes, self.train, self.size, self.seed = items, classes, train, size, seed

    def __len__(self):
        return len(self.items)

    def __getitem__(self, key):
        epoch, number = key
        what, label = self.items[number]
        chance = np.random.default_rng([self.seed, epoch, number]) if self.train else None
        return self.make(what, chance), label


def look(path):
    """Which of the LAYOUTS are under a path."""
    found = {
        "imagenet": any(p.suffix.lower() in IMAGES for p in path.glob("train/*/*")),
        "cifar10": batches(path).joinpath("data_batch_1").is_file(),
        "modelnet40": next(path.glob("*/train/*.off"), None) is not None,
    }
    return [name for name in LAYOUTS if found[name]]


def load(name, path, *, size, seed=0, limit=None, track=iter):
    """(training Data, held-out Data). size: pixels a side, or points; limit: items of each set, at most.

    ValueError for what is missing, empty or of another kind; `track` wraps what takes long.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"--data {path}: {'is a file, not a folder' if path.exists() else 'no such folder'}")
    if name not in (found := look(path)):
        hint = f"; this looks like --dataset {found[0]}" if found else ""
        raise ValueError(f"--data {path}: {name} needs {LAYOUTS[name]}{hint}")
    kind, (items, classes), (held, others) = READERS[name](path, size, limit, track)
    if not held:
        raise ValueError(f"--data {path}: no held-out items; {name} needs {LAYOUTS[name]}")
    if unknown := sorted(set(others) - set(classes)):
        raise ValueError(f"--data {path}: held-out classes that training does not have: {', '.join(unknown[:3])}")
    held = [(item, classes.index(others[label])) for item, label in held]
    how = {"size": size, "seed": seed}
    return kind(items, classes, train=True, **how), kind(held, classes, train=False, **how)


def _folders(path, pattern, suffixes, limit):
    """([(file, label)], classes) of the folders that path.glob(pattern) gives; a class is what "*" stands for."""
    at = pattern.split("/").index("*") - len(pattern.split("/"))
    folders = sorted(p for p in path.glob(pattern) if p.is_dir())
    classes = [p.parts[at] for p in folders]
    files = [sorted(f for f in p.iterdir() if f.suffix.lower() in suffixes) for p in folders]
    items = [(file, label) for label, found in enumerate(files) for file in found]
    return [items[i] for i in np.linspace(0, len(items) - 1, min(limit or len(items), len(items))).astype(int)], classes


class Folders(Data):
    def make(self, file, chance):
        """An image file as float32 (3, size, size): a part of any place and shape, or the middle of a held-out one."""
        image = _open(file)
        w, h = image.size
        if chance is None:
            side = min(w, h) * self.size / max(self.size, round(self.size / 0.875))
            box = (w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2
        else:
            box = _crop(w, h, chance)
        image = image.resize((self.size, self.size), 2, box=box)  # 2: bilinear
        x = (np.asarray(image, np.float32) / 255 - MEAN) / SPREAD
        if chance is not None and chance.random() < 0.5:
            x = x[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))


def _open(file):
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ImportError("reading images needs Pillow: pip install pillow") from error
    try:
        with Image.open(file, formats=("JPEG", "PNG", "BMP")) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: no image that can be read: {error}") from None


def _crop(w, h, chance):
    """A box of 8 to 100 % of the area and of sides 3:4 to 4:3 (Szegedy et al., CVPR 2015, section 6)."""
    for _ in range(10):
        area, ratio = w * h * chance.uniform(0.08, 1), np.exp(chance.uniform(np.log(3 / 4), np.log(4 / 3)))
        x, y = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if x <= w and y <= h:
            break
    else:
        x = y = min(w, h)
    left, top = chance.uniform(0, w - x), chance.uniform(0, h - y)
    return left, top, left + x, top + y


def read_imagenet(path, size, limit, track):
    return Folders, *(_folders(path, f"{split}/*", IMAGES, limit) for split in ("train", "val"))


class Cifar(Data):
    def make(self, pixels, chance):
        """uint8 (3, 32, 32) as float32 (3, size, size): shifted by up to 4 pixels and flipped, then made larger."""
        x = (pixels.astype(np.float32) / 255 - MEAN[:, None, None]) / SPREAD[:, None, None]
        if chance is not None:
            top, left = chance.integers(0, 9, 2)
            x = np.pad(x, ((0, 0), (4, 4), (4, 4)))[:, top : top + 32, left : left + 32]
            x = x[:, :, ::-1] if chance.random() < 0.5 else x
        x = torch.from_numpy(np.ascontiguousarray(x))
        if self.size != 32:
            x = functional.interpolate(x[None], size=(self.size, self.size), mode="bilinear", antialias=True)[0]
        return x


def batches(path):
    inner = path / "cifar-10-batches-py"
    return inner if inner.is_dir() else path


class _Type:
    """What stands for numpy.dtype while a pickle is read: the kind of plain numbers, or of a list of anything."""

    __slots__ = ("kind",)

    def __init__(self, kind="", *_):
        if kind not in ("u1", "i8", "f8", "O8"):
            raise pickle.UnpicklingError(f"an array of {kind!r}, only u1, i8, f8 and lists are allowed")
        self.kind = kind

    def __setstate__(self, state):
        if state[1] not in ("|", "<"):
            raise pickle.UnpicklingError(f"an array of {self.kind} in the order of bytes {state[1]!r}")


class _Array:
    """What stands for numpy.ndarray: made of bytes by `frombuffer`, never by what the file says."""

    __slots__ = ("array",)

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        listed = isinstance(kind, _Type) and kind.kind == "O8"
        if not isinstance(kind, _Type) or not isinstance(data, list if listed else bytes):
            raise pickle.UnpicklingError("an array that is neither of plain numbers nor a list")
        # a list stays one, whatever its shape
        self.array = data if listed else np.frombuffer(data, kind.kind).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Numbers, strings, lists, dicts and arrays of numbers; every other name is refused before anything is called."""

    def find_class(self, module, name):
        known = {
            "multiarray _reconstruct": lambda *_: _Array(),
            "numpy ndarray": _Array,
            "numpy dtype": _Type,
            "_codecs encode": lambda text, _: text.encode("latin1"),  # how old protocols spell bytes
        }
        last = module.split(".")[-1] if module in ("numpy.core.multiarray", "numpy._core.multiarray") else module
        if f"{last} {name}" not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")
        return known[f"{last} {name}"]


def unpickle(data):
    """A pickled dictionary, alone or as numpy's array of nothing else, as plain data with keys as str, without running
    anything that is in it.
    """
    # numbers of the memo take memory as large as they are
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in ("LONG_BINPUT", "PUT") and argument > len(data):
            raise pickle.UnpicklingError(f"a memo of {argument} entries")
    batch = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    if isinstance(batch, _Array) and isinstance(batch.array, list) and len(batch.array) == 1:
        (batch,) = batch.array
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"a {type(batch).__name__}, not a dictionary")
    return {k.decode("latin1") if isinstance(k, bytes) else k: _plain(v) for k, v in batch.items()}


def _plain(value):
    """An array or a list of arrays in place of what stands for them."""
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, _Array) else item for item in value]
    return value.array if isinstance(value, _Array) else value


def read_batch(file):
    """(uint8 (N, 3, 32, 32), N labels) of a file of CIFAR-10; ValueError for anything else."""
    data = _bytes(file)
    try:
        batch = unpickle(data)
        images, labels = batch["data"], batch["labels"]
        if images.dtype != np.uint8:
            raise ValueError(f"images of {images.dtype}, unsigned bytes are wanted")
        images = images.reshape(-1, 3, 32, 32)
        if len(images) != len(labels) or not all(type(y) is int and 0 <= y < 10 for y in labels):
            raise ValueError("needs one label from 0 to 9 an image")
    except Exception as error:  # a broken pickle may raise anything, and nothing of it has run
        raise ValueError(f"{file}: no batch of CIFAR-10: {type(error).__name__}: {error}") from None
    return images, labels


def read_cifar10(path, size, limit, track):
    folder, classes, result = batches(path), [str(i) for i in range(10)], []
    for names in ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]):
        # fewer than five training batches are a smaller set, not an error
        found = [read_batch(folder / name) for name in names if (folder / name).is_file()]
        items = [(image, label) for images, labels in found for image, label in zip(images, labels)]
        result.append((items[:limit], classes))
    return Cifar, *result


def _bytes(file):
    size = file.stat().st_size
    if not 0 < size <= FILE_LIMIT:
        raise ValueError(f"{file}: 1 to {FILE_LIMIT} bytes expected, found {size}")
    return file.read_bytes()


# --- ModelNet40 ---

KEPT = 4  # times as many points of a mesh are drawn once and kept, as an item takes of them


class Points(Data):
    def make(self, points, chance):
        """float32 (3, size) of points (N, 3): in training some, scaled, shifted and jittered; else the first."""
        if chance is None:
            return torch.from_numpy(np.ascontiguousarray(points[: self.size].T))
        x = points[chance.choice(len(points), self.size, replace=len(points) < self.size)]
        x = x * chance.uniform(0.8, 1.25) + chance.uniform(-0.1, 0.1, 3)
        x = x + np.clip(chance.normal(0, 0.01, x.shape), -0.05, 0.05)
        return torch.from_numpy(np.ascontiguousarray(x.T, dtype=np.float32))


def read_off(file):
    """(vertices (V, 3) float64, triangles (F, 3)) of an Object File Format text; larger faces are cut up."""
    # many files of ModelNet40 have the counts in the line of "OFF"
    text = re.sub(r"#[^\n]*", "", _bytes(file).decode("latin1"))
    try:
        if text[:3] != "OFF":
            raise ValueError("it does not begin with OFF")
        words = text[3:].split()
        v, f = int(words[0]), int(words[1])
        if not (0 < v <= len(words) and 0 < f <= len(words)):
            raise ValueError(f"{v} vertices and {f} faces are not in it")
        vertices = np.array(words[3 : 3 + 3 * v], np.float64).reshape(v, 3)
        lines, triangles = [line.split() for line in text.splitlines() if line.strip()], []
        for at, face in enumerate(lines[-f:]):
            count = int(face[0])
            corners = [int(c) for c in face[1 : 1 + count]]
            if len(corners) != count or not all(0 <= c < v for c in corners):
                raise ValueError(f"face {at} names no {count} vertices from 0 to {v - 1}")
            triangles += [(corners[0], b, c) for b, c in zip(corners[1:], corners[2:])]
        if not triangles or not np.isfinite(vertices).all():
            raise ValueError("it has no triangles, or vertices that are not finite")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file}: no mesh in the Object File Format: {error}") from None
    return vertices, np.array(triangles)


def sample(vertices, triangles, count, chance):
    """float32 (count, 3) points, even over the area of a mesh, moved to the middle and into the unit sphere."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    share = area / area.sum() if area.sum() > 0 else np.full(len(area), 1 / len(area))
    which, (u, v) = chance.choice(len(area), count, p=share), chance.random((2, count))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    points = a[which] + u[:, None] * (b - a)[which] + v[:, None] * (c - a)[which]
    points -= points.mean(axis=0)
    return (points / max(np.linalg.norm(points, axis=1).max(), 1e-12)).astype(np.float32)


def read_modelnet40(path, size, limit, track):
    result = []
    for split in ("train", "test"):
        items, classes = _folders(path, f"*/{split}", (".off",), limit)
        drawn = [
            (sample(*read_off(file), KEPT * size, np.random.default_rng(number)), label)
            for number, (file, label) in enumerate(track(items))
        ]
        result.append((drawn, classes))
    return Points, *result


READERS = {"imagenet": read_imagenet, "cifar10": read_cifar10, "modelnet40": read_modelnet40}
