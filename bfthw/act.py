"""Activations: float functions, and what they are in integers, a clamp or a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from .qformat import QFormat
from .reading import nearest

MOST = 12  # bits of a table's input


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))  # without overflow


# name -> (function, whether it never gives anything below zero)
KNOWN = {
    "relu": (lambda x: np.maximum(x, 0), True),
    "relu6": (lambda x: np.clip(x, 0, 6), True),
    "hsigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), True),
    "hswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), False),
    "sigmoid": (_sigmoid, True),
    "silu": (lambda x: x * _sigmoid(x), False),
    "tanh": (np.tanh, False),
}


@dataclass(frozen=True)
class Act:
    """y = f(x), number by number. name: of `KNOWN`; or any other, with a function of float64 arrays.

    ReLU and ReLU6 are clamps in integers, everything else is a table of what the function gives.
    """

    name: str
    function: Callable | None = None

    def __post_init__(self):
        if self.function is None and self.name not in KNOWN:
            raise ValueError(
                f"unknown activation {self.name!r}{nearest(self.name, KNOWN)}; there are {', '.join(KNOWN)}, and any "
                "other as Act(name, function)"
            )
        if self.function is not None and (self.name in KNOWN or not isinstance(self.name, str)):
            raise ValueError(f"an activation with a function of its own needs a name of its own, got {self.name!r}")

    @classmethod
    def of(cls, given: Self | str | None) -> Self | None:
        """An Act, or None for none: by name, or as it is."""
        return given if given is None or isinstance(given, cls) else cls(given)

    PLAIN = str  # as bfthw.fields takes it

    def plain(self) -> str:
        """The name; TypeError for a function of its own."""
        if self.function is not None:
            raise TypeError(
                f"the activation {self.name!r} is a function, which no file holds; what bfthw.act.KNOWN has under its "
                "name, (function, whether it gives nothing below zero), is saved by that name, and read where it is "
                "known; the integers' tables are saved as they are"
            )
        return self.name

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (self.function or KNOWN[self.name][0])(x)

    @property
    def clamps(self) -> bool:
        return self in (RELU, RELU6)

    @property
    def positive(self) -> bool:
        """Whether it is known to give nothing below zero."""
        return self.function is None and KNOWN[self.name][1]

    def table(self, fmt: QFormat, output: QFormat) -> "Table":
        """The `Table` with inputs of one format and outputs of another; ValueError for too wide inputs, and NaN."""
        if fmt.width > MOST:
            raise ValueError(f"a table for {self.name!r} has inputs of at most {MOST} bits, got {fmt}")
        x = fmt.dequantise(np.arange(fmt.lo, fmt.hi + 1))
        y = np.asarray(self(x), np.float64)
        if y.shape != x.shape or not np.isfinite(y).all():
            at = "" if y.shape != x.shape else f" at {x[~np.isfinite(y)][0]:g}"
            raise ValueError(f"activation {self.name!r} gives no finite number{at}")
        return Table(input=fmt, values=output.quantise(y))


RELU, RELU6 = Act("relu"), Act("relu6")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Table:
    """A function of integers in `input`, of 12 bits at most: q -> values[q - input.lo], int64 (2**width,)."""

    input: QFormat
    values: np.ndarray

    def __post_init__(self):
        values = np.asarray(self.values)
        if self.input.width > MOST:
            raise ValueError(f"a table's input has at most {MOST} bits, got {self.input}")
        if values.dtype.kind not in "iu" or values.shape != (1 << self.input.width,):
            raise ValueError(f"a table of {self.input} has {1 << self.input.width} integers, got {values.shape}")
        object.__setattr__(self, "values", values.astype(np.int64))

    def __repr__(self):
        return f"<Table of {self.input}>"

    def __call__(self, q: np.ndarray) -> np.ndarray:
        return self.values[q - self.input.lo]
