"""The network that a file's nodes become, while it grows."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import prod

import numpy as np

from ...act import Act
from ...chain import Chain, Factor, Indexed, check_name
from ...fuse import alone, is_alone
from ...graph import INPUT, Node
from ...line import behind
from ...network import Layer
from ...nodes import Pick, Rearrange
from ...qformat import QFormat
from ...sampled import sampled
from ...window import Shape, Window
from .values import Tensor, Varies, channels_of, one_axis_moved

NODES = 2000  # that compute; each is compared with all others
RAW = "the input as the file has it"  # before its axes are known


class Made:
    """Nodes, as they are made. dims: of the file's input, with 1 for its batch, where it has one; first: whether
    channels are the axis behind that, where nothing else tells; batch: its length in the file, None where that is open;
    spend: is told of numbers that will be kept; most: numbers of a tensor."""

    def __init__(self, dims: list, first: bool, batch: int | None, spend: Callable, most: int):
        self.most = most
        if prod(dims) > most:
            raise ValueError(f"its input of {' x '.join(map(str, dims))} numbers is too large, {most} are the limit")
        self.nodes, self.shapes, self.named, self.notes, self.spend = {}, {}, {}, [], spend
        self.dims, self.first, self.batch, self.order = tuple(dims), first, batch, None
        # names of the input before its axes are known, to nodes; or to (gain, shift), one a number
        self.raw = {RAW: INPUT}
        self.open = False  # whether positions of the input are left open
        self.blocks = {}  # products with matrices: whether block by block
        self.out = None  # which axis of the file's output does, where it has positions
        self.along = None  # which axis of the file's input holds channels, None for all of them flattened
        self.formats, self.weights = {}, {}  # of nodes' outputs and weights, where the file says them; None for others
        self.input = Tensor(array=np.arange(prod(dims)).reshape(dims), node=RAW)

    def add(self, node: Node, label: str | None = None) -> str:
        """Take a node and give it a name: the label, if it is one that no other node has. Its name."""
        own, base = self._fits(label), node.kind
        name = label if own else next(n for k in count(len(self.nodes)) if (n := f"{base}{k}") not in self.nodes)
        self.named[name] = own
        node = replace(node, name=name)
        self.shapes[name] = node.shape(*(self.shapes[source] for source in node.inputs))
        if self.shapes[name].size > self.most:
            raise ValueError(
                f"gives {self.shapes[name].size} numbers, {self.most} are the limit of a file of this size"
            )
        self.nodes[name] = node
        return name

    def _fits(self, label):
        try:
            return bool(label) and check_name(label) not in self.nodes and label != INPUT
        except ValueError:
            return False

    def alone(self, node: str, *more: str, **rest) -> str:
        """A Layer that works on each channel alone: bfthw.fuse.alone."""
        self.spend(self.shapes[node].channels)
        return self.add(alone("0", (node, *more), self.shapes[node].channels, **rest))

    def known(self, t: Tensor, axis: int | None = None) -> Tensor:
        """The tensor; the input's with its axes fixed: `axis` is that of the channels, None for the usual one."""
        if t.node not in self.raw:
            return t
        if self.order is None:
            self._fix(t.array, axis)
        own = self.raw[t.node]
        if isinstance(own, tuple):
            gain, shift = (self._by_channel(INPUT, self.order, values) for values in own)
            own = self.raw[t.node] = self.alone(INPUT, scale=gain, bias=shift)
        return replace(t, array=self.order[t.array], node=own)

    def known_rows(self, t: Tensor) -> Tensor:
        """`known` of a tensor whose last axis holds channels, some of them: those along an axis of the input."""
        if t.node in self.raw and self.order is None:
            for axis in range(1, len(self.dims)):
                order = np.moveaxis(self.input.array, axis, -1)
                position = np.argsort(order, axis=None)[t.array] // order.shape[-1]
                if (position == position[..., :1]).all():
                    return self.known(replace(t, array=self.input.array), axis) and self.known(t)
        return self.known(t)

    def _fix(self, array, axis):
        if axis is None or array.size != prod(self.dims) or not one_axis_moved(np.moveaxis(array, axis, -1)):
            array = self.input.array
            axis = 1 if self.first and array.ndim > 2 else -1
        order = np.moveaxis(array, axis, -1)
        if np.unique(order).size != prod(self.dims):
            raise ValueError("takes parts of the input before its axes are known")
        self.along = axis % array.ndim if np.array_equal(array, self.input.array) else self._along(order)
        positions = order.shape[min(1, order.ndim - 1) : -1]
        height, width = (*positions[:1], 1)[0], prod(positions[1:])
        self.shapes[INPUT] = Shape(height, width, order.shape[-1])
        self.order = np.argsort(order, axis=None)

    def _along(self, order):
        if order.size == order.shape[-1]:
            return None
        step = int(np.diff(order.reshape(-1, order.shape[-1])[0, :2], append=order.ravel()[0] + 1)[0])
        strides = [prod(self.dims[k + 1 :]) for k in range(len(self.dims))]
        found = [k for k, s in enumerate(strides) if s == step and self.dims[k] == order.shape[-1]]
        return found[-1] if found else None

    def _by_channel(self, node, places, values):
        """Numbers for each of a tensor's to one for each channel, (C,); None where they differ between positions."""
        by_place, shape = np.empty(places.size), self.shapes[node]
        by_place[places.ravel()] = np.ravel(values)
        rows = by_place.reshape(shape.positions, shape.channels)
        if (rows != rows[0]).any():
            raise Varies("differs from position to position, a number for each channel is taken")
        return rows[0]

    def _vector_if(self, t, *numbers):
        """A flattened map as a vector, where these numbers of it differ from position to position."""
        try:
            for values in numbers:
                if values is not None:
                    self._by_channel(t.node, t.array, values)
        except Varies:
            return self.vector(t)
        return t

    def settled(self, t: Tensor) -> Tensor:
        """The tensor as all numbers of a node, each once: whole channels are picked, if it has others."""
        t = self.known(t)
        shape, places = self.shapes[t.node], t.array.ravel()
        if places.size == shape.size and (np.bincount(places, minlength=shape.size) == 1).all():
            return t
        position, channel = np.divmod(places, shape.channels)
        order = np.argsort(position, kind="stable")
        if np.array_equal(
            np.bincount(position, minlength=shape.positions), [places.size // shape.positions] * shape.positions
        ):
            rows = channel[order].reshape(shape.positions, -1)
            if (rows == rows[0]).all():
                array = np.empty_like(places)
                array[order] = np.arange(places.size)
                return Tensor(array=array.reshape(t.array.shape), node=self.pick((t.node,), rows[0]))
        if t.array.size == t.array.shape[-1]:
            return self.vector(t)
        for axis in (1, t.array.ndim - 1):
            if (found := self._cut(t, axis)) is not None:
                return found
        raise ValueError(
            f"takes {places.size} numbers of a map {shape} that are no whole channels at positions of one grid; "
            "channels can be picked, and every so many positions"
        )

    def uncut(self, t: Tensor) -> Tensor:
        """The tensor as it is, or of a node that cuts a map, where it has not all of its positions."""
        t = self.known(t)
        shape = self.shapes[t.node]
        some = t.array.ndim > 2 and np.unique(t.array // shape.channels).size < shape.positions
        return self.settled(t) if some else t

    def _cut(self, t, axis):
        """The tensor as all numbers of a node that cuts a map, channels along an axis; None where it is no such."""
        at, shape = np.moveaxis(t.array, axis, -1), self.shapes[t.node]
        if not 2 < at.ndim < 5:
            return None
        found = sampled(at.reshape(*(*at.shape[1:-1], 1)[:2], -1), shape)
        if found is None or found[0] is None:
            return None
        window, index, _ = found
        factor = Factor(np.ones((index.size, 1, 1, 1)), Indexed(index[:, None], window.taps * shape.channels))
        node = self.add(Layer(chain=Chain((factor,)), inputs=(t.node,), window=window))
        self.notes.append("a layer of ones takes those positions of a map that are not cut off")
        return Tensor(array=np.moveaxis(np.arange(at.size).reshape(at.shape), -1, axis), node=node)

    def vector(self, t: Tensor) -> Tensor:
        """The numbers of a tensor as a node of one position, in their order."""
        t = self.known(t)
        shape, places = self.shapes[t.node], t.array.ravel()
        if shape.positions == 1:
            node = self.pick((t.node,), places)
        else:
            factor = Factor(np.ones((places.size, 1, 1, 1)), Indexed(places[:, None], shape.size))
            layer = Layer(chain=Chain((factor,)), inputs=(t.node,), window=Window.whole(shape))
            node = self.add(layer)
        return Tensor(array=np.arange(places.size).reshape(t.array.shape), node=node)

    def rearranged(self, node: str, places: np.ndarray) -> str:
        """A node of the numbers of another at places (H, W, C), in whatever order."""
        self.spend(places.size)
        self.notes.append("a map is rearranged, between channels and positions")
        return self.add(Rearrange(inputs=(node,), index=places.ravel(), size=places.shape[:2]))

    def pick(self, nodes: tuple, index: np.ndarray) -> str:
        """The node with these channels of others, side by side; the one itself where nothing changes."""
        whole = np.array_equal(index, np.arange(sum(self.shapes[node].channels for node in nodes)))
        if whole and len(nodes) == 1:
            return nodes[0]
        return self.add(Pick(inputs=nodes, index=None if whole else np.asarray(index)))

    def axis(self, t: Tensor) -> int:
        """Which axis of a tensor holds channels, all positions in order along the others; else the last one."""
        axes = range(1, t.array.ndim) if t.node in self.shapes else ()
        found = (k for k in axes if channels_of(np.moveaxis(t.array, k, -1), self.shapes[t.node]) is not None)
        return next(found, t.array.ndim - 1)

    def declared(self, t: Tensor) -> str:
        """What a message says of the file's own input beside a tensor of it."""
        own = t.node == RAW and t.array.shape == self.input.array.shape
        return f", the file's input is declared as {[self.batch, *self.dims[1:]]}" if own else ""

    def map(self, t: Tensor, channels: int = 1) -> tuple[str, Shape]:
        """(node, its Shape): the tensor as a map, channels along an axis, all others but the batch its positions."""
        t = self.known(t, channels)
        shape, order = self.shapes[t.node], np.moveaxis(t.array, channels, -1)
        grid, given, index = tuple(shape[:2]), order.shape[1:-1], channels_of(order, shape)
        if index is None or given not in (grid, grid[:1] if grid[1] == 1 else None, () if grid == (1, 1) else None):
            if (cut := self._cut(t, channels)) is not None:
                return cut.node, self.shapes[cut.node]
            node = self.rearranged(t.node, order.reshape(*(*given, 1, 1)[: max(2, len(given))], -1))
            return node, self.shapes[node]
        node = self.pick((t.node,), index)
        return node, self.shapes[node]

    def unmap(self, node: str, like: Tensor) -> Tensor:
        """The tensor of a node's map, its channels along axis 1, of as many axes as another one."""
        height, width, channels = self.shapes[node]
        array = np.arange(height * width * channels).reshape(height, width, channels)
        array = np.moveaxis(array, -1, 0)
        positions = (height, width) if like.array.ndim == 4 else (height * width,)
        return Tensor(array=array.reshape(1, channels, *positions), node=node)

    def scaled(self, t: Tensor, gain: np.ndarray | None = None, shift: np.ndarray | None = None) -> Tensor:
        """t * gain + shift, both as arrays of the tensor's shape, None for nothing."""
        if t.node in self.raw and self.order is None and t.array.size == prod(self.dims):
            self.spend(t.array.size)
            own = (1.0, 0.0) if t.node == RAW else self.raw[t.node]
            one, zero = (np.broadcast_to(v, t.array.size).copy() for v in own)
            one[t.array] *= 1.0 if gain is None else gain
            zero[t.array] = zero[t.array] * (1.0 if gain is None else gain) + (0.0 if shift is None else shift)
            name = f"{RAW}, {len(self.raw)}"
            self.raw[name] = one, zero
            return replace(t, node=name)
        t = self.settled(t)
        if self.shapes[t.node].positions > 1 and t.array.size == t.array.shape[-1]:  # a map that is flattened
            t = self._vector_if(t, gain, shift)
        gain, shift = (None if v is None else self._by_channel(t.node, t.array, v) for v in (gain, shift))
        node, before = t.node, self.nodes.get(t.node)
        if before is not None and not before.inputs[1:] and is_alone(before) and before.act is None:
            # in one with the layer before, of which there may be thousands: that one is left out, unless others take it
            node, none = before.inputs[0], np.zeros(before.chain.outputs)
            if gain is None:
                gain, shift = before.scale, shift if before.bias is None else before.bias + shift
            else:
                before = behind(before, gain, none if shift is None else shift)
                gain, shift = before.scale, before.bias
        return replace(t, node=self.alone(node, scale=gain, bias=shift))

    def active(self, t: Tensor, act: Act) -> Tensor:
        """An activation behind a tensor."""
        t = self.settled(t)
        return replace(t, node=self.alone(t.node, act=act))

    def aligned(self, t: Tensor, like: Tensor) -> str:
        """The node of a tensor with its numbers where another's are."""
        places = np.empty(t.array.size, np.int64)
        places[like.array.ravel()] = t.array.ravel()
        shape, wanted = self.shapes[t.node], self.shapes[like.node]
        places = places.reshape(wanted)
        index = channels_of(places, shape)
        if shape[:2] != wanted[:2] or index is None:
            return self.rearranged(t.node, places)
        return self.pick((t.node,), index)

    def summed(self, a: Tensor, b: Tensor, sign: int = 1) -> Tensor:
        """a + sign * b, numbers of two nodes; of b some may be repeated."""
        a, b = self.settled(a), self.known(b) if np.unique(b.array).size < b.array.size else self.settled(b)
        added = self.aligned(b, a)
        scale = None if sign == 1 else np.full(self.shapes[added].channels, -1.0)
        return replace(a, node=self.alone(a.node, added, add_scale=scale))

    def rounded(self, t: Tensor, fmt: QFormat | None) -> Tensor:
        """A tensor in a format, None for steps that are none: a node that stays by itself until all are there."""
        if t.node != RAW or self.order is not None:
            t = self.known(t)
        if t.node in (RAW, INPUT):
            self.formats[INPUT] = fmt
            return t
        t = self.settled(t)
        name = self.add(Pick(inputs=(t.node,)))
        self.formats[name] = fmt
        return replace(t, node=name)
