"""Nodes without weights: pools, indices, gates and products. They compute on floats, integers and tensors alike."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .graph import Ends, Node
from .reading import short
from .window import Array, Shape, Window, library, to_map, to_value


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pool(Node):
    """Base of what makes one number of each channel in each window."""

    window: Window

    def __post_init__(self):
        super().__post_init__()
        w = self.window
        if w.outside or w.block or any(p >= k for p, k in zip(w.padding, w.size * 2)):
            raise ValueError(
                f"node {self.name!r} ({type(self).__name__}): each window must see the map, so padding is less than "
                f"its size {w.size}, got {w.padding}; nothing stands outside, and channels need no blocks"
            )

    @property
    def parts(self) -> list[str]:
        return [f"{self.kind} of {self.window}"]

    def shape(self, shape: Shape) -> Shape:
        return self.window.shape(shape)._replace(channels=shape.channels)

    def room(self, shape: Shape) -> int:
        return self.window.shape(shape).size

    def _taps(self, x, outside):
        """(N, H, W, C) -> (N, H', W', K, C)."""
        y = self.window.gather(x, outside=outside)
        return y.reshape(*y.shape[:3], -1, x.shape[3])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Max(Pool):
    """The largest number of each channel in each window; places outside do not count."""

    kind = "max"

    def bounds(self, ends: Ends) -> Ends:
        return ends

    def __call__(self, x: Array) -> Array:
        lib, x = library(x), to_map(x)
        least = -np.inf if "float" in str(x.dtype) else int(lib.iinfo(x.dtype).min)
        return to_value(lib.amax(self._taps(x, least), 3))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sum(Pool):
    """The sum of each channel in each window, outside zeros; a mean is that and 1 / K in the weights behind it."""

    kind = "sum"
    computes = True

    @property
    def carries(self) -> int:
        return (self.window.taps - 1).bit_length()

    def bounds(self, ends: Ends) -> Ends:
        lo, hi = ends
        if any(self.window.padding):
            lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
        return lo * self.window.taps, hi * self.window.taps

    def __call__(self, x: Array) -> Array:
        return to_value(self._taps(to_map(x), 0).sum(3))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pick(Node):
    """y = (all channels of all inputs, side by side)[index], at each position: concatenation, split, shuffle.

    index: integers (C,); None for all of them, as they stand.
    """

    index: np.ndarray | None = None

    kind = "pick"
    takes = 1, 1000

    def __post_init__(self):
        super().__post_init__()
        if self.index is not None:
            _check_index(self)

    def shape(self, *shapes: Shape) -> Shape:
        first, there = shapes[0], sum(shape.channels for shape in shapes)
        for shape in shapes[1:]:
            for axis in ("height", "width"):
                _same(axis, getattr(first, axis), getattr(shape, axis), "inputs side by side agree")
        if self.index is not None and self.index.max() >= there:
            most = self.index.max()
            raise ValueError(f"in channels the index must be 0 to {there - 1}, the inputs' channels, got {most}")
        return first._replace(channels=there if self.index is None else len(self.index))

    def bounds(self, *ends: Ends) -> Ends:
        return tuple(self(*sides) for sides in zip(*ends))

    def __call__(self, *xs: Array) -> Array:
        x = xs[0] if len(xs) == 1 else library(xs[0]).concatenate(xs, -1)
        return x if self.index is None else x[..., self.index]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rearrange(Node):
    """y = (all numbers of a map, channels fastest)[index], as a map of `size`: transposed, reversed, cropped.

    index: integers (n,). size: (height, width) of what it gives; its channels are n / (height * width).
    """

    index: np.ndarray
    size: tuple = (1, 1)

    kind = "rearrange"

    def __post_init__(self):
        super().__post_init__()
        _check_index(self)
        what, index, size = f"node {self.name!r} (Rearrange)", self.index, self.size
        size = tuple(size) if isinstance(size, list | tuple) else size
        if type(size) is not tuple or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
            raise ValueError(f"{what}: size must be (height, width), positive integers, got {short(self.size)}")
        if len(index) % (size[0] * size[1]):
            raise ValueError(f"{what}: {len(index)} numbers are no map of {size[0]}x{size[1]}, they do not divide so")
        object.__setattr__(self, "size", size)

    @classmethod
    def transposed(cls, shape: Shape, block: int = 1, **rest: Any) -> Self:
        """Of maps of a Shape, positions and channels change places, `block` neighbouring channels together:
        y[c, 0, p * block + k] = x[p, c * block + k]. ValueError where the channels are no blocks.
        """
        if shape.channels % block:
            raise ValueError(f"{shape.channels} channels are no blocks of {block}; it must divide them")
        places = np.arange(shape.size).reshape(shape.positions, -1, block).transpose(1, 0, 2)
        return cls(index=places.ravel(), size=(len(places), 1), **rest)

    def shape(self, shape: Shape) -> Shape:
        if self.index.max() >= shape.size:
            most = self.index.max()
            raise ValueError(f"the index must be 0 to {shape.size - 1}, the map's numbers, got {most}")
        return Shape(*self.size, len(self.index) // (self.size[0] * self.size[1]))

    def bounds(self, ends: Ends) -> Ends:
        lo, hi = (side[:, self.index % side.shape[1]].reshape(self.size[0] * self.size[1], -1) for side in ends)
        return lo.min(0, keepdims=True), hi.max(0, keepdims=True)

    def __call__(self, x: Array) -> Array:
        return to_value(x.reshape(len(x), -1)[:, self.index].reshape(len(x), *self.size, -1))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Gate(Node):
    """A map times a vector with a number for each of its channels (squeeze and excite); inputs: (map, gate)."""

    inputs: tuple

    kind = "gate"
    takes = 2, 2
    computes = multiplies = True

    def shape(self, shape: Shape, gate: Shape) -> Shape:
        for axis, wanted in zip(Shape._fields, (1, 1, shape.channels)):
            _same(axis, wanted, getattr(gate, axis), f"a gate is a vector of {shape.channels}, the map's channels")
        return shape

    def bounds(self, x: Ends, gate: Ends) -> Ends:
        found = [a * b for a in x for b in gate]
        return np.minimum.reduce(found), np.maximum.reduce(found)

    def __call__(self, x: Array, gate: Array) -> Array:
        return x * (gate if x.ndim == 2 else gate[:, None, None])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Product(Node):
    """Each position's k channels times a matrix (k, m) of the map's own; inputs: (map, vector of k*m numbers)."""

    inputs: tuple

    kind = "product"
    takes = 2, 2
    computes = multiplies = True
    carries = 16  # for up to 65,536 channels

    def shape(self, shape: Shape, matrix: Shape) -> Shape:
        for axis in ("height", "width"):
            _same(axis, 1, getattr(matrix, axis), "a matrix is a vector")
        if matrix.channels % shape.channels:
            raise ValueError(
                f"in channels a matrix of {matrix.channels} numbers has no rows for {shape.channels} channels; a "
                f"multiple of {shape.channels} would fit"
            )
        return shape._replace(channels=matrix.channels // shape.channels)

    def products(self, shape: Shape, matrix: Shape) -> int:
        return shape.positions * matrix.channels

    def bounds(self, x: Ends, matrix: Ends) -> Ends:
        found = [a[:, :, None] * b.reshape(1, a.shape[1], -1) for a in x for b in matrix]
        return np.minimum.reduce(found).sum(1), np.maximum.reduce(found).sum(1)

    def __call__(self, x: Array, matrix: Array) -> Array:
        n, k = len(x), x.shape[-1]
        y = x.reshape(n, -1, k) @ matrix.reshape(n, k, -1)
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _same(axis, one, other, rule):
    if one != other:
        raise ValueError(f"in {axis} {rule}: {one} would fit, not {other}")


def _check_index(node):
    """Keep a node's index as int64 (n,); ValueError for what is none."""
    index = np.asarray(node.index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu" or index.min() < 0:
        what = f"node {node.name!r} ({type(node).__name__})"
        raise ValueError(f"{what}: index must be integers of 0 or more, got {short(node.index)}")
    object.__setattr__(node, "index", index.astype(np.int64))
