"""Networks as graphs: named nodes over maps, and the one walk that floats, integers, formats and training share.

A node takes what nodes before it give; so there are no circles. A value is a map (N, H, W, C) or, of one position, a
vector (N, C). Nodes compute on floats and integers, of numpy and torch alike; what is rounded is in bfthw.golden.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .chain import check_name
from .reading import nearest
from .window import Array, Shape, turned

BEFORE = None  # among a node's inputs: the node before it, for the first one the network's input
INPUT = "input"  # the network's input by name, where no node has that one
Ends = tuple[np.ndarray, np.ndarray]  # (lo, hi), bounds of numbers
SLICE = 32 << 20  # bytes of the largest value of a slice of a batch


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Node:
    """inputs: names of nodes before it, `BEFORE` or `INPUT`."""

    name: str = "0"
    inputs: tuple = (BEFORE,)

    KINDS: ClassVar[dict[str, type]] = {}  # kind -> class, of every class that says one
    kind: ClassVar[str | None] = None  # the word for the class in files and tables; None of a base, which is no node
    takes = 1, 1  # inputs, at least and at most
    computes = False  # whether its numbers are other ones than those of its inputs
    multiplies = False  # whether they are products of those
    carries = 0  # bits that its sums have more than their terms

    def __init_subclass__(cls):
        if (kind := cls.__dict__.get("kind")) is not None:
            other = Node.KINDS.setdefault(kind, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{cls.__qualname__}: {other.__qualname__} is of the kind {kind!r} already")
            Node.KINDS[kind] = cls  # also where its module is read again

    def __post_init__(self):
        check_name(self.name)
        given = self.inputs
        inputs = (given,) if given is None or isinstance(given, str) else tuple(given)
        object.__setattr__(self, "inputs", inputs)
        least, most = self.takes
        if not least <= len(inputs) <= most:
            wanted = least if least == most else f"{least} or {most}" if most < 1000 else f"{least} or more"
            what = f"node {self.name!r} ({type(self).__name__})"
            raise ValueError(f"{what} takes {wanted} input{'s' * (wanted != 1)}, got {len(inputs)}")

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}>"

    def shape(self, *shapes: Shape) -> Shape:
        """The Shape of what it gives, of those of its inputs; ValueError, with the axis and what would fit."""
        raise NotImplementedError

    @property
    def parts(self) -> list[str]:
        """What it does, in order, in words for tables."""
        return [self.kind]

    weights = 0  # numbers that it multiplies by

    def products(self, *shapes: Shape) -> int:
        """Multiplications for one map."""
        return self.shape(*shapes).size * self.multiplies

    def beyond_row(self) -> str | None:
        """Why it is no layer over vectors, or None."""
        return f"is a {type(self).__name__}"

    def room(self, *shapes: Shape) -> int:
        """The most numbers at once, of one map, that it computes with."""
        return self.shape(*shapes).size

    def bounds(self, *ends: Ends) -> Ends:
        """(lo, hi) of each input's channels, arrays (1, C) -> (lo, hi) of its own."""
        raise NotImplementedError

    def __call__(self, *xs: Array) -> Array:
        raise NotImplementedError


class Graph:
    """Base of networks of `nodes` over maps of `shape`: the wiring, checked, and the walk."""

    nodes: tuple
    shape: Shape
    sources: tuple[tuple[int, ...], ...]  # of each node its inputs: 0, the network's, or the number of a node, from 1

    def _wire(self, nodes, shape):
        """Check and keep them; ValueError names the node."""
        nodes = tuple(nodes)
        if not nodes:
            raise ValueError("a network needs at least one layer")
        places = {}
        for k, node in enumerate(nodes, 1):
            if places.setdefault(node.name, k) != k:
                raise ValueError(f"layer names must differ, {node.name!r} stands twice: {[n.name for n in nodes][:20]}")
        sources = tuple(tuple(_source(k, node, one, places) for one in node.inputs) for k, node in enumerate(nodes, 1))
        taken = {source for own in sources for source in own}
        for k, node in enumerate(nodes[:-1], 1):
            if k not in taken:
                raise ValueError(
                    f"node {node.name!r}: no node takes what it gives; leave it out, or name it among a later node's "
                    "inputs"
                )
        for key, value in (("nodes", nodes), ("sources", sources), ("shape", Shape.of(shape))):
            object.__setattr__(self, key, value)
        _ = self.shapes  # raises where they do not fit

    def walk(self, x: Any, step: Callable) -> Iterator[tuple[Node, Any]]:
        """Yield (node, y = step(node, *what its inputs gave)), in order; x stands for the network's input.

        What no later node takes is let go.
        """
        last = {source: k for k, own in enumerate(self.sources) for source in own}
        values = {0: x}
        for k, (node, own) in enumerate(zip(self.nodes, self.sources)):
            values[k + 1] = y = step(node, *(values[source] for source in own))
            yield node, y
            for source in own:
                if last[source] == k:
                    values.pop(source, None)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The Shape of what each node gives, in order."""
        place = iter(self.sources)

        def step(node, *shapes):
            own = next(place)
            try:
                return node.shape(*shapes)
            except ValueError as error:
                given = ", ".join(f"{self._name(s)!r} gives {shape}" for s, shape in zip(own, shapes))
                names = str(error).startswith(repr(node.name))
                what = "layers do not chain" if names else f"node {node.name!r}"
                raise ValueError(f"{what}: {given}, {error}") from None

        return tuple(shape for _, shape in self.walk(self.shape, step))

    def _name(self, source):
        return self.nodes[source - 1].name if source else INPUT

    @property
    def inputs(self) -> int:
        """Numbers of one input."""
        return self.shape.size

    @property
    def outputs(self) -> int:
        return self.shapes[-1].size

    @cached_property
    def beyond_row(self) -> tuple[Node, str] | None:
        """(node, why) of the first that makes it no row of layers over vectors; None where it is one."""
        for k, node in enumerate(self.nodes):
            reason = node.beyond_row()
            if self.shapes[k].positions > 1 or self.shape.positions > 1:
                reason = reason or f"works on a map, {self.shapes[k]}"
            if set(self.sources[k]) != {k}:
                reason = reason or "takes more than the node before it"
            if reason:
                return node, reason
        return None

    @property
    def in_version_1(self) -> bool:
        """Whether files of version 1 hold it: a row of layers over vectors with no activation but ReLU."""
        return self.beyond_row is None and all(node.plain for node in self.nodes)

    def check_input(self, x: np.ndarray) -> np.ndarray:
        """Arrays of inputs, (N, *dims), as maps or vectors; ValueError for another shape."""
        if x.ndim < 2 or x.shape[1:] not in (self.shape.dims, tuple(self.shape)):
            dims = ", ".join(map(str, self.shape.dims))
            what = "vectors" if self.shape.positions == 1 else "maps"
            raise ValueError(
                f"input {what} must have shape (N, {dims}), got {x.shape}{turned(x.shape, self.shape.dims)}"
            )
        return x.reshape(len(x), *self.shape.dims)

    @cached_property
    def batch(self) -> int:
        """Inputs at once, so that the largest value stays within SLICE bytes."""
        shapes = (self.shape, *self.shapes)
        room = max(node.room(*(shapes[s] for s in own)) for node, own in zip(self.nodes, self.sources))
        return max(1, SLICE // (8 * max(room, self.inputs)))

    def sliced(self, x: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """compute(slice) of x, slice by slice, put together again."""
        if len(x) <= self.batch:
            return compute(x)
        return np.concatenate([compute(x[k : k + self.batch]) for k in range(0, len(x), self.batch)])

    def last(self, x: np.ndarray) -> np.ndarray:
        """What the last node makes of x (N, *dims), in slices."""

        def compute(x):
            for _, y in self.walk(x, lambda node, *xs: node(*xs)):
                pass
            return y

        return self.sliced(x, compute)


def _source(k, node, name, places):
    """Where node k's input comes from: 0, the network's input, or the number of a node, from 1."""
    if name is BEFORE:
        return k - 1
    found = places.get(name, 0 if name == INPUT else None)
    if found is None:
        raise ValueError(f"node {node.name!r}: there is no node {name!r}{nearest(name, [*places, INPUT])}")
    if found >= k and name == INPUT:
        return 0
    if found >= k:
        where = "itself" if found == k else f"{name!r}, which stands behind it"
        raise ValueError(
            f"node {node.name!r} takes {where}: a circle; a node takes what stands before it, put it further behind"
        )
    return found
