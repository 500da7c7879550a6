"""Where the numbers of a tensor stand among what the nodes of a network give.

While a module is seen at work (bfthw.nn.trace) tensors hold places instead of numbers. Whatever only moves numbers,
views, slices, permutations, concatenations, writes into parts, is run by torch itself on the places; a layer then
finds from these how its node can take them.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from math import prod

import numpy as np
import torch

from ..chain import Chain, Factor, Indexed
from ..network import Layer
from ..nodes import Pick, Rearrange
from ..sampled import ZERO, sampled
from ..structures import index as inputs_of
from ..window import Shape, Window

SAMPLE = 1 << 45  # between the places of a sample and those of the next one: two of them tell where samples mix


class Places(torch.Tensor):
    """Places (2, *dims), whole numbers in float64."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def tensor(places):
    """Places of one sample, integers (*dims) -> Places (2, *dims)."""
    both = np.stack([places, np.where(places == ZERO, ZERO, places + SAMPLE)])
    return torch.from_numpy(both.astype(np.float64)).as_subclass(Places)


def become(x):
    """Makes Places of a tensor of zeros, in place: something is written into it."""
    if x.dtype != torch.float64 or x.requires_grad or x.any():
        raise ValueError("writes data into a constant; a tensor of zeros, made in the forward, would be taken")
    x.fill_(ZERO)
    x.__class__ = Places


def read(x):
    """Places (2, *dims) -> those of one sample, int64 (*dims); ValueError where samples are mixed."""
    both = x.as_subclass(torch.Tensor).numpy().astype(np.int64)
    if len(both) != 2 or not ((both[1] == both[0] + SAMPLE) | ((both[0] == ZERO) & (both[1] == ZERO))).all():
        raise ValueError(
            "the first axis of what it takes is no longer that of the samples; keep that one first and whole"
        )
    return both[0]


def first(dims):
    """Integers (H, W, C): which numbers of a tensor (*dims), channels first, make the map; None for other tensors."""
    n = np.arange(prod(dims)).reshape(dims)
    return {1: n[None, None], 2: n.T[:, None], 3: np.moveaxis(n, 0, -1) if n.ndim == 3 else None}.get(n.ndim)


def last(dims):
    """The same, channels last."""
    n = np.arange(prod(dims)).reshape(dims)
    return {1: n[None, None], 2: n[:, None], 3: n}.get(n.ndim)


def flat(dims):
    """The same, all numbers one vector."""
    return np.arange(prod(dims))[None, None]


@dataclass(frozen=True)
class Found:
    """How to take a map: the channels of sources side by side, or one source through a window; [index] of these, times
    `values`, zeros and ones. None: as they stand."""

    sources: tuple
    window: Window | None = None
    index: np.ndarray | None = None
    values: np.ndarray | None = None

    @property
    def layered(self):
        """Whether it takes a layer."""
        return self.window is not None or self.values is not None


class Table:
    """The nodes so far, and the places of what they give: `begins` + index into (H, W, C). Source 0 is the input.

    order: integers (H, W, C), which numbers of the input make its map; `input` are the places of its numbers as
    the module has them. notes: lines.
    """

    def __init__(self, order, name):
        self.order, self.input = order, np.argsort(order.ravel())
        self.nodes, self.shapes, self.begins, self.names = [], [Shape(*order.shape)], [0], [name]
        self.total, self._found, self._taken, self.notes = order.size, {}, {}, []

    def add(self, node):
        """Places (H, W, C) of what a new node gives."""
        by_name = dict(zip(self.names, self.shapes))
        shape = node.shape(*(by_name[name] for name in node.inputs))
        self.nodes.append(node)
        for row, item in ((self.shapes, shape), (self.begins, self.total), (self.names, node.name)):
            row.append(item)
        self.total += shape.size
        return self.places(node.name)

    def places(self, name):
        """Places (H, W, C) of what a node gives."""
        at = self.names.index(name)
        return self.begins[at] + np.arange(self.shapes[at].size).reshape(self.shapes[at])

    def _sources(self, at):
        return np.searchsorted(self.begins, at, "right") - 1

    def own(self, places):
        """Integers (H, W, C): which of the places (*dims) make the map of a node, if they are all of it, else None."""
        at = places.ravel()
        source = self._sources(at[:1])[0]
        shape = self.shapes[source]
        if at[0] == ZERO or len(at) != shape.size:
            return None
        back = np.full(shape.size, -1)
        inside = (at >= self.begins[source]) & (at < self.begins[source] + shape.size)
        back[at[inside] - self.begins[source]] = np.flatnonzero(inside)
        return back.reshape(shape) if (back >= 0).all() else None

    def gridded(self, order, places):
        """Integers (H, W, C), which of the places make a map, with the positions in the grid of the node that they are
        of, where that has as many: for what works on each position alone."""
        at = places.ravel()[order]
        shape = self.shapes[self._sources(at.ravel()[:1])[0]]
        same = at.ravel()[0] != ZERO and shape.positions == at.shape[0] * at.shape[1]
        return order.reshape(shape.height, shape.width, -1) if same else order

    def find(self, at):
        """How a node can take places (H, W, C), a `Found`; None where none can."""
        known = at != ZERO
        sources = list(dict.fromkeys(self._sources(at[known]).tolist()))
        if not sources:
            return None
        found = self._beside(at, sources) if known.all() else None
        if found is None and len(sources) == 1:
            found = self._sampled(at, sources[0]) or self._whole(at, sources[0])
        return found

    def _beside(self, at, sources):
        """Where all sources have the positions of `at`."""
        if any(self.shapes[s][:2] != at.shape[:2] for s in sources):
            return None
        owner = self._sources(at[0, 0])
        begins, channels = (np.array(v)[owner] for v in (self.begins, [s and s.channels for s in self.shapes]))
        index = at[0, 0] - begins
        positions = np.arange(at.shape[0] * at.shape[1]).reshape(*at.shape[:2], 1)
        if (index >= channels).any() or (at != begins + positions * channels + index).any():
            return None
        before = dict(zip(sources, np.cumsum([0] + [self.shapes[s].channels for s in sources])))
        index = index + np.array([before[s] for s in owner])
        there = sum(self.shapes[s].channels for s in sources)
        return Found(tuple(sources), index=None if np.array_equal(index, np.arange(there)) else index)

    def _sampled(self, at, source):
        """Every so many positions of one source, cut or with zeros around, some channels perhaps zero."""
        found = sampled(np.where(at != ZERO, at - self.begins[source], ZERO), self.shapes[source])
        return found and Found((source,), *found)

    def _whole(self, at, source):
        """A vector of any numbers of one source."""
        if at.shape[:2] != (1, 1):
            return None
        known, shape = at[0, 0] != ZERO, self.shapes[source]
        index = np.where(known, at[0, 0] - self.begins[source], 0)
        if shape.positions == 1:
            return Found((source,), None, index, known.astype(float))
        for block in (None, 1):  # flattened as it is, or as torch does
            order = np.arange(shape.size).reshape(shape)
            if known.all() and np.array_equal(index, (order.transpose(2, 0, 1) if block else order).ravel()):
                return Found((source,), Window.whole(shape, block=block))
        return Found((source,), Window.whole(shape), index, known.astype(float))

    def rearranged(self, at, name):
        """The name of a new node that gives places (H, W, C), all of one source, in whatever order; else None."""
        sources = {*self._sources(at.ravel()).tolist()} if (at != ZERO).all() else ()
        if len(sources) != 1:
            return None
        (source,), key = sources, _digest(at)
        if self._taken.get(key) is None:
            index, size = (at - self.begins[source]).ravel(), tuple(map(int, at.shape[:2]))
            node = Rearrange(name=name(), inputs=(self.names[source],), index=index, size=size)
            self.add(node)
            self.notes.append(f"{node.name}: rearranges a map, between channels and positions")
            self._taken[key] = node.name
        return self._taken[key]

    def around(self, at, name):
        """(source, zeros around it: top, left, bottom, right) where places (H, W, C) are a padded map; else None."""
        found = self.found(at, name)
        if found is None or found.window is None or found.window != Window(1, padding=found.window.padding):
            return None
        channels = np.arange(self.shapes[found.sources[0]].channels)
        whole = np.array_equal(found.index, channels) and found.values.all()
        return (self.names[found.sources[0]], found.window.padding) if whole else None

    def take(self, at, name):
        """The name of the node that gives places (H, W, C), a new one where that has to be; None where none can.

        name: () -> one for a new node.
        """
        key = _digest(at)
        if key not in self._taken:
            found = self.found(at, name)
            self._taken[key] = found and self._given(found, name)
        return self._taken[key]

    def found(self, at, name):
        """`find`, of several sources, with zeros around or among them too: then from new nodes that join them."""
        key = _digest(at)
        if key not in self._found:
            self._found[key] = self.find(at) or self._vectors(at, name) or self._filled(at, name)
        return self._found[key]

    def vector(self, places, name):
        """`take` of a vector, places (n,), where all of it was one already: None where maps would be made a vector."""
        small = all(self.shapes[s].positions == 1 for s in {*self._sources(places).tolist()})
        return self.take(places[None, None], name) if small and (places != ZERO).all() else None

    def _given(self, found, name):
        if not found.layered and found.index is None and len(found.sources) == 1:
            return self.names[found.sources[0]]
        inputs = tuple(self.names[s] for s in found.sources)
        if not found.layered:
            node = Pick(name=name(), inputs=inputs, index=found.index)
        else:
            size = self.shapes[found.sources[0]].channels * (found.window.taps if found.window else 1)
            factor = Factor(np.ones((1, 1, 1, size)))
            if found.index is not None:
                factor = Factor(found.values.reshape(-1, 1, 1, 1), Indexed(found.index[:, None], size))
            node = Layer(name=name(), inputs=inputs, window=found.window, chain=Chain([factor]))
            what = "zeros among its channels" if found.window is None else f"a window {found.window.size}"
            self.notes.append(f"{node.name}: a layer of ones and zeros, for what moves with {what}")
        self.add(node)
        return node.name

    def _vectors(self, at, name):
        """Of a vector of several sources, each as a vector of its own first."""
        owner = self._sources(at.ravel())  # -1 of zeros
        if at.shape[:2] != (1, 1) or len({*owner.tolist()} - {-1}) < 2:
            return None
        moved = np.full(at.size, ZERO)
        for source in {*owner.tolist()} - {-1}:
            mine = owner == source
            own = self.take(at.ravel()[mine][None, None], name)
            moved[mine] = self.places(own).ravel()
        return self.find(moved[None, None]) if (moved != ZERO).all() else None

    def _filled(self, at, name):
        """Of channels of several sources with zeros around them or among them, the others side by side first."""
        known = at != ZERO
        inside = np.ix_(*(known.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))))
        part = at[inside]
        if part.size in (0, at.size) or not known[inside].all():
            return None
        own, moved = self.take(part, name), np.full(at.shape, ZERO)
        if own is None:
            return None
        moved[inside] = self.places(own)
        return self.find(moved)


def _digest(at):
    """What places are known by; they themselves would fill the memory."""
    return at.shape, blake2b(np.ascontiguousarray(at)).digest()


def absorbed(layer, found, size):
    """The layer, of no window and no residual, that takes what a `Found` of one source gives from the source itself.

    size: numbers of the source.
    """
    if found.index is None:
        return replace(layer, window=found.window)
    head, *rest = layer.chain.factors
    index, values = found.index, found.values
    if head.pattern[0] == head.pattern[3] == 1 and head.support is None and len(np.unique(index)) == size:
        moved = np.zeros((1, head.pattern.b, size, 1))
        np.add.at(moved[0, :, :, 0].T, index, (head.values[0, :, :, 0] * values).T)
        head = Factor(moved)
    else:
        own = inputs_of(head.pattern)
        rows = np.moveaxis(head.values, 2, 3).reshape(own.shape) * values[own]
        head = Factor(rows[:, None, :, None], Indexed(index[own], size))
    return replace(layer, window=found.window, chain=Chain([head, *rest]))
