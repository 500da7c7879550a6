"""Maps, and the windows over them that make every convolution a factor on vectors.

A map is (H, W, C), channels last; a vector is a map of one position. Arrays of N maps are (N, H, W, C), of N vectors
(N, C). A window turns each output position into a vector of K·C numbers, K = kh·kw:

    element (g*K + t)*q + j  of position (v, u)  is channel g*q + j  at  y = v*sh - top + ky,  x = u*sw - left + kx

with blocks of q channels and taps t = ky*kw + kx (order "ky") or kx*kh + ky ("kx").
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

Array = Any  # of numpy, or a tensor of torch


class Shape(NamedTuple):
    """Of a map: height, width, channels. A vector of n numbers is 1x1xn."""

    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, given: int | Iterable[int]) -> Self:
        """A Shape, three positive integers, or one: a vector's; ValueError for all else."""
        found = (1, 1, given) if type(given) is int else tuple(given)
        if len(found) != 3 or any(type(size) is not int or size < 1 for size in found):
            raise ValueError(f"a shape is (height, width, channels), positive integers, got {given!r}")
        return cls(*found)

    def plain(self) -> list[int]:
        return list(self)

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def size(self) -> int:
        return self.positions * self.channels

    @property
    def dims(self) -> tuple[int, ...]:
        """Of the array of one map: all three, or the channels alone where there is one position."""
        return tuple(self) if self.positions > 1 else (self.channels,)

    def __str__(self):
        return "x".join(map(str, self)) if self.positions > 1 else f"{self.channels} values"


Shape.PLAIN = list  # as bfthw.fields takes it; in the class, type checkers would take it for a field


def turned(given: Sequence[int], dims: Sequence[int]) -> str:
    """A hint, or nothing, where an array of maps (N, H, W, C) has come with the channels first."""
    first = len(dims) == 3 and tuple(given[1:]) == (dims[2], *dims[:2])
    return "; channels come last: numpy.moveaxis(x, 1, -1)" if first else ""


def library(x: Array) -> ModuleType:
    """The library of an array: numpy, or torch for a tensor. What both call by one name is written once."""
    return sys.modules["torch"] if type(x).__module__.startswith("torch") else np


def to_map(x: Array) -> Array:
    """(N, C) or (N, H, W, C) -> (N, H, W, C)."""
    return x[:, None, None] if x.ndim == 2 else x


def to_value(x: Array) -> Array:
    """(N, H, W, C) -> (N, C) where there is one position."""
    return x[:, 0, 0] if x.shape[1:3] == (1, 1) else x


@dataclass(frozen=True, init=False)
class Window:
    """size: (height, width), one number for both; stride: likewise. padding: one number, (y, x), or (top, left, bottom,
    right). block: channels q that stay together, None for all. order: of the taps, "ky" (as torch's weights) or "kx".
    outside: what stands where a window leaves the map, 0 or a number for each channel.
    """

    size: tuple
    stride: tuple = (1, 1)
    padding: tuple = (0, 0, 0, 0)
    block: int | None = None
    order: str = "ky"
    outside: tuple | int = 0

    def __init__(
        self, size: int | Iterable[int], stride: int | Iterable[int] = (1, 1),
        padding: int | Iterable[int] = (0, 0, 0, 0), block: int | None = None, order: str = "ky",
        outside: ArrayLike = 0,
    ) -> None:
        vars(self).update(size=size, stride=stride, padding=padding, block=block, order=order, outside=outside)
        self.__post_init__()

    def __post_init__(self):
        for key, least, count in (("size", 1, 2), ("stride", 1, 2), ("padding", 0, 4)):
            value = getattr(self, key)
            value = (value,) * count if type(value) is int else tuple(value)
            value = value * 2 if key == "padding" and len(value) == 2 else value
            if len(value) != count or any(type(v) is not int or v < least for v in value):
                raise ValueError(f"Window.{key} must be {count} integers of {least} or more, got {getattr(self, key)}")
            object.__setattr__(self, key, value)
        if self.block is not None and (type(self.block) is not int or self.block < 1):
            raise ValueError(f"Window.block must be a positive number of channels or None, got {self.block!r}")
        if self.order not in ("ky", "kx"):
            raise ValueError(f"Window.order must be 'ky' or 'kx', got {self.order!r}")
        outside = np.asarray(self.outside)
        if outside.dtype.kind not in "fiu" or not np.isfinite(outside).all() or outside.ndim > 1:
            raise ValueError("Window.outside must be 0 or a finite number for each channel")
        if outside.ndim == 0 and outside != 0:
            raise ValueError(f"Window.outside must be 0 or a number for each channel, got {self.outside!r}")
        object.__setattr__(self, "outside", tuple(outside.tolist()) if outside.any() else 0)

    @classmethod
    def whole(cls, shape: Sequence[int], **rest: Any) -> Self:
        """The window that is the whole map."""
        return cls(size=(shape[0], shape[1]), **rest)

    def turned(self) -> Self:
        """The window over a map whose rows are columns, that makes the same vectors."""
        (top, left, bottom, right), order = self.padding, {"ky": "kx", "kx": "ky"}[self.order]
        padding = left, top, right, bottom
        return replace(self, size=self.size[::-1], stride=self.stride[::-1], padding=padding, order=order)

    def __str__(self):
        """3x3 / 2 padded 1, blocks of 4, kx first, outside given: what is not as usual."""
        height, width, (top, left, bottom, right) = *self.size, self.padding
        text = f"{height}x{width}"
        if self.stride != (1, 1):
            text += f" / {self.stride[0]}" + f"x{self.stride[1]}" * (self.stride[0] != self.stride[1])
        if any(self.padding):
            both = [top] if top == left else [top, left]
            sides = both if (top, left) == (bottom, right) else self.padding
            text += " padded " + ",".join(map(str, sides))
        text += f" in blocks of {self.block}" if self.block else ""
        return text + ", kx first" * (self.order == "kx") + ", outside given" * bool(self.outside)

    @property
    def taps(self) -> int:
        """K, the positions of a window."""
        return self.size[0] * self.size[1]

    def shape(self, shape: Shape) -> Shape:
        """The Shape of the window vectors over a map; ValueError, with the axis and what would fit."""
        (kh, kw), (sh, sw), (top, left, bottom, right) = self.size, self.stride, self.padding
        sizes = []
        for axis, size, k, pads, s in (
            ("height", shape.height, kh, top + bottom, sh), ("width", shape.width, kw, left + right, sw),
        ):
            if size + pads < k:
                raise ValueError(
                    f"in {axis} a window of {k} does not fit into {size} with {pads} of padding; one of {size + pads} "
                    f"at most would, or {k - size} of padding"
                )
            sizes.append((size + pads - k) // s + 1)
        if self.block and shape.channels % self.block:
            raise ValueError(
                f"in channels a block of {self.block} does not divide {shape.channels}; one of "
                f"{np.gcd(self.block, shape.channels)} would"
            )
        if self.outside and len(self.outside) != shape.channels:
            raise ValueError(
                f"in channels Window.outside has {len(self.outside)} numbers, the map {shape.channels} channels; one "
                "for each would fit"
            )
        return Shape(*sizes, self.taps * shape.channels)

    def gather(self, x: Array, outside: float | None = None) -> Array:
        """Maps (N, H, W, C), of numpy or torch -> window vectors (N, H', W', K*C), in the same dtype.

        outside: one number for all channels, in the place of the window's own.
        """
        n, channels = len(x), x.shape[3]
        height, width, _ = self.shape(Shape(*x.shape[1:]))
        if self.size == (1, 1) and self.stride == (1, 1) and not any(self.padding):
            return x
        q = self.block or channels
        if self.size == tuple(x.shape[1:3]) and not any(self.padding) and self.order == "ky" and q == channels:
            return x.reshape(n, 1, 1, -1)
        lib, (kh, kw), (sh, sw) = library(x), self.size, self.stride
        if any(self.padding):
            x = self._padded(lib, x, self.outside if outside is None else outside)
        taps = [(ky, kx) for ky in range(kh) for kx in range(kw)]
        if self.order == "kx":
            taps.sort(key=lambda tap: tap[1])
        rows, columns = (height - 1) * sh + 1, (width - 1) * sw + 1
        parts = [x[:, ky : ky + rows : sh, kx : kx + columns : sw] for ky, kx in taps]
        if q == channels:
            return lib.concatenate(parts, 3)
        # (N, H', W', K, blocks, q) -> (N, H', W', blocks, K, q)
        parts = [part.reshape(n, height, width, -1, q) for part in parts]
        return lib.stack(parts, 4).reshape(n, height, width, -1)

    def _padded(self, lib, x, outside):
        (top, left, bottom, right), (n, height, width, channels) = self.padding, x.shape
        edge = lib.asarray(outside, dtype=x.dtype) if lib is np else lib.as_tensor(outside).to(x)

        def filled(height, width):
            return [lib.broadcast_to(edge, (n, height, width, channels))] * (height * width > 0)

        x = lib.concatenate([*filled(height, left), x, *filled(height, right)], 2)
        width += left + right
        return lib.concatenate([*filled(top, width), x, *filled(bottom, width)], 1)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """A number for each channel (..., C) -> for each element of a window vector (..., K*C)."""
        q = self.block or values.shape[-1]
        parts = values.reshape(*values.shape[:-1], -1, 1, q)
        return np.repeat(parts, self.taps, axis=-2).reshape(*values.shape[:-1], -1)
