"""Operators that make a map larger: zeros around it, channels side by side."""

from math import prod

import numpy as np

from ...chain import Chain, Factor, Indexed
from ...fuse import alone
from ...network import Layer
from ...window import Window
from .moves import axes_of
from .registry import Call, operator
from .values import Tensor


@operator("Pad")
def pad(call: Call) -> Tensor:
    """Zeros around a map, or as more channels: a layer that gives them."""
    t, mode, made = call.data(), call.given.get("mode", b"constant"), call.made
    count, value = t.array.ndim, call.given.get("value", 0.0) if call.input(2) is None else call.constant(2).ravel()[0]
    pads = call.integers(1, "pads")
    axes = call.integers(3, "axes", list(range(count)))
    if mode != b"constant" or value != 0 or pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        raise ValueError(f"pads {pads} by {mode.decode()} {value:g}; zeros around are read")
    if not any(pads):
        return t
    whole = np.zeros((count, 2), int)
    whole[[axis + count * (axis < 0) for axis in axes]] = np.reshape(pads, (2, -1)).T
    if call.batched and whole[0].any():
        raise ValueError("would mix the vectors of a batch")
    t = made.settled(t)
    axis = made.axis(t)
    node, shape = made.map(t, axis)
    around = [tuple(p) for k, p in enumerate(whole.tolist()) if k not in (0, axis)]
    if (
        whole[0].any()
        or prod(n + sum(p) for n, p in zip(t.array.shape, whole.tolist())) > call.made.most
        or len(around) > 2
    ):
        raise ValueError(
            f"pads {whole.tolist()}: channels and positions of a map, of {call.made.most} numbers at most, can have "
            "zeros around"
        )
    (top, bottom), (left, right) = [*around, (0, 0), (0, 0)][:2]
    if shape.height == 1 and len(around) == 1 and shape.width > 1:
        (top, bottom), (left, right) = (left, right), (top, bottom)
    before, behind = whole[axis].tolist()
    index = np.clip(np.arange(-before, shape.channels + behind), 0, shape.channels - 1)
    values = np.pad(np.ones(shape.channels), (before, behind)).reshape(-1, 1, 1, 1)
    padded = (
        Factor(values, Indexed(index[:, None], shape.channels))
        if before + behind
        else alone("0", (node,), shape.channels).chain.factors[0]
    )
    window = Window(1, padding=(top, left, bottom, right)) if any(map(any, around)) else None
    node = made.add(Layer(chain=Chain((padded,)), inputs=(node,), window=window))
    made.blocks[node] = before + behind > 0
    array = np.arange(made.shapes[node].size).reshape(-1, made.shapes[node].channels)
    sizes = [n + sum(p) for n, p in zip(t.array.shape, whole.tolist())]
    last = array.reshape(*(n for k, n in enumerate(sizes) if k != axis), sizes[axis])
    return Tensor(array=np.moveaxis(last, -1, axis), node=node)


@operator("Concat")
def concat(call: Call) -> Tensor:
    """Constants; or channels of nodes side by side, which become one node."""
    parts, made = call.inputs, call.made
    if all(t.node is None for t in parts):
        return Tensor(array=np.concatenate([t.array for t in parts], call.given["axis"]))
    if any(t.node is None for t in parts):
        raise ValueError("joins the data with constants; a bias adds them")
    (axis,) = axes_of(call, parts[0], [call.given["axis"]])
    parts = [made.uncut(made.known(t, axis)) for t in parts]
    grids = {made.shapes[t.node][:2] for t in parts}
    if len(grids) > 1 and all(t.array.size == t.array.shape[-1] for t in parts):
        parts = [made.vector(t) for t in parts]
    elif len(grids) > 1:
        raise ValueError(
            f"joins maps of {' and '.join(f'{h} x {w}' for h, w in grids)} positions; of equal ones they can be"
        )
    nodes = list(dict.fromkeys(t.node for t in parts))
    sizes = np.array([made.shapes[node].channels for node in nodes])
    offset, whole, arrays = dict(zip(nodes, np.cumsum(sizes) - sizes)), int(sizes.sum()), []
    for t in parts:
        position, channel = np.divmod(t.array, made.shapes[t.node].channels)
        if t.array.ndim > 2 and (position != position.take([0], axis)).any():
            raise ValueError("joins positions; channels at the same positions can be joined")
        arrays.append(position * whole + offset[t.node] + channel)
    try:
        array = np.concatenate(arrays, axis)
    except ValueError as error:
        raise ValueError(f"shapes {', '.join(str(a.shape) for a in arrays)} do not go together: {error}") from None
    position, channel = np.divmod(array.ravel(), whole)
    order, positions = np.argsort(position, kind="stable"), made.shapes[nodes[0]].positions
    rows = channel[order].reshape(positions, -1) if array.size % positions == 0 else np.arange(2)[:, None]
    if (np.bincount(position, minlength=positions) != array.size // positions).any() or (rows != rows[0]).any():
        raise ValueError("joins positions; channels at the same positions can be joined")
    places = np.empty(array.size, np.int64)
    places[order] = np.arange(array.size)
    return Tensor(array=places.reshape(array.shape), node=made.pick(tuple(nodes), rows[0]))
