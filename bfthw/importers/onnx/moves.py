"""Operators that only move numbers, of the data and of constants alike: numpy does what ONNX has."""

from dataclasses import replace
from math import prod

import numpy as np

from .registry import Call, operator
from .values import Tensor

BATCH = -(1 << 40)  # the length of an axis of many inputs, in what Shape gives


def moved(call: Call, array: np.ndarray, t: Tensor | None = None) -> Tensor:
    """A tensor with its numbers elsewhere; ValueError where the first axis is no longer that of the inputs."""
    t = call.input(0) if t is None else t
    if call.batched and t.node is not None and (not array.ndim or array.shape[0] != 1):
        raise ValueError("would mix the vectors of a batch: its first axis is that of the inputs")
    return replace(t, array=array)


def axes_of(call: Call, t: Tensor, axes: list, count: int | None = None) -> list[int]:
    """Axes as numbers from 0 on; ValueError for those that are none, and for the batch's."""
    count = t.array.ndim if count is None else count
    found = [int(axis) + count * (axis < 0) for axis in axes]
    if len({*found}) != len(found) or any(not 0 <= axis < count for axis in found):
        raise ValueError(f"axes {list(axes)} are not those of an array of {count}")
    if call.batched and t.node is not None and 0 in found:
        raise ValueError("would mix the vectors of a batch: its first axis is that of the inputs")
    return found


@operator("Identity", "Dropout", pointwise=True)
def same(call: Call) -> Tensor:
    """What does nothing."""
    training = call.input(2)
    if training is not None and call.constant(2).any():
        raise ValueError("training_mode is on: it draws by chance what it drops")
    return call.input(0)


@operator("Cast", pointwise=True)
def cast(call: Call) -> Tensor:
    """To floats; of constants to integers too."""
    t, floats = call.input(0), (1, 10, 11, 16)
    if t.node is None:
        kind = np.float64 if call.given["to"] in floats else np.int64
        if kind == np.float64 and t.array.dtype.kind in "iu" and (t.array <= BATCH // 2).any():
            raise ValueError("the size of the batch is no number to compute with")
        return replace(t, array=t.array.astype(kind))
    if call.given["to"] not in floats:
        raise ValueError("makes integers of the data; casts to floats are read")
    return t


@operator("Flatten", pointwise=True)
def flatten(call: Call) -> Tensor:
    """Behind axis 1, which leaves the samples' axis alone."""
    t, axis = call.input(0), call.given.get("axis", 1)
    axis += t.array.ndim * (axis < 0)
    if not 0 <= axis <= t.array.ndim or call.batched and t.node is not None and axis != 1:
        raise ValueError(f"only axis 1 is taken, got {axis}")
    return moved(call, t.array.reshape(prod(t.array.shape[:axis]), -1))


@operator("Reshape")
def reshape(call: Call) -> Tensor:
    """0 keeps a length, -1 is what is left; the samples' length may be what Shape gave."""
    t, given = call.input(0), [int(v) for v in call.constant(1).ravel()]
    if call.given.get("allowzero", 0) and 0 in given:
        raise ValueError(f"to {given}: a length of 0")
    if len(given) > 8 or any(v == 0 and k >= t.array.ndim for k, v in enumerate(given)):
        raise ValueError(f"to {given}: an array of {t.array.ndim} axes has no such axis, and 8 are the most")
    wanted = [t.array.shape[k] if v == 0 else v for k, v in enumerate(given)]
    if call.batched and t.node is not None:
        if not given or given[0] not in (0, -1, BATCH, call.made.batch):
            raise ValueError(f"to {given}: would mix the vectors of a batch: its first axis is that of the inputs")
        wanted[0] = 1
    if wanted.count(-1) > 1 or any(v < -1 for v in wanted):
        raise ValueError(f"to {wanted}: one length may be left open")
    try:
        return moved(call, t.array.reshape(wanted))
    except ValueError:
        raise ValueError(f"to {given}: {t.array.size} numbers, without the batch, do not go into that") from None


@operator("Transpose")
def transpose(call: Call) -> Tensor:
    """All axes but the samples'."""
    t = call.input(0)
    perm = [int(v) for v in call.given.get("perm", range(t.array.ndim)[::-1])]
    if sorted(perm) != list(range(t.array.ndim)):
        raise ValueError(f"perm {perm} is none of {t.array.ndim} axes")
    if call.batched and t.node is not None and perm[0] != 0:
        raise ValueError("would mix the vectors of a batch: its first axis is that of the inputs")
    return moved(call, t.array.transpose(perm))


@operator("DepthToSpace", "SpaceToDepth")
def shuffled(call: Call) -> Tensor:
    """Channels to blocks of positions, or the other way round."""
    t, size = call.input(0), call.given.get("blocksize", 0)
    mode = call.given.get("mode", b"DCR")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if t.array.ndim != 4 or size < 1 or mode not in ("DCR", "CRD"):
        raise ValueError(f"takes 4 axes, a blocksize of 1 or more and the mode DCR or CRD, got {size} and {mode}")
    n, c, h, w = t.array.shape
    one, other = (c, size * size) if call.op == "DepthToSpace" else (h * w, size * size * (h % size == w % size == 0))
    if not other or one % other:
        raise ValueError(f"{t.array.shape} is not made of blocks of {size} by {size}")
    if call.op == "SpaceToDepth":
        parts = t.array.reshape(n, c, h // size, size, w // size, size).transpose(0, 3, 5, 1, 2, 4)
        return moved(call, parts.reshape(n, c * size * size, h // size, w // size))
    if mode == "DCR":
        parts = t.array.reshape(n, size, size, -1, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = t.array.reshape(n, -1, size, size, h, w).transpose(0, 1, 4, 2, 5, 3)
    return moved(call, parts.reshape(n, -1, h * size, w * size))


@operator("Squeeze")
def squeeze(call: Call) -> Tensor:
    """Axes of length 1 go."""
    t = call.input(0)
    keep = call.batched and t.node is not None
    axes = call.integers(1, "axes", [k for k, n in enumerate(t.array.shape) if n == 1 and not (k == 0 and keep)])
    axes = axes_of(call, t, axes)
    if any(t.array.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {axes} of {t.array.shape} are not all of length 1")
    return moved(call, t.array.squeeze(tuple(axes)))


@operator("Unsqueeze")
def unsqueeze(call: Call) -> Tensor:
    """Axes of length 1 come."""
    t, axes = call.input(0), call.integers(1, "axes")
    axes = axes_of(call, t, axes, t.array.ndim + len(axes))
    return moved(call, np.expand_dims(t.array, tuple(axes)))


@operator("Shape")
def shape_of(call: Call) -> Tensor:
    """A constant; BATCH stands for a number of samples that the file leaves open."""
    t = call.input(0)
    sizes = list(t.array.shape)
    if call.batched and t.node is not None:
        sizes[0] = call.made.batch or BATCH
    return Tensor(array=np.array(sizes[slice(call.given.get("start"), call.given.get("end"))], np.int64))


@operator("Slice")
def sliced(call: Call) -> Tensor:
    """Starts, ends and steps as numpy has them, but for an end before the first one."""
    t = call.input(0)
    starts, ends = call.integers(1, "starts"), call.integers(2, "ends")
    axes = call.integers(3, "axes", list(range(len(starts))))
    steps = call.integers(4, "steps", [1] * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not go together")
    cut = [slice(None)] * t.array.ndim
    for axis, start, end, step in zip(axes_of(call, t, axes), starts, ends, steps):
        low = step < 0 and end < -t.array.shape[axis]  # before the first one
        cut[axis] = slice(start, None if low else end, step)
    return moved(call, t.array[tuple(cut)])


@operator("Split")
def split(call: Call) -> list[Tensor]:
    """Along an axis, into equal parts, the last one perhaps smaller, or into given sizes."""
    t = call.input(0)
    (axis,) = axes_of(call, t, [call.given.get("axis", 0)])
    size, count = t.array.shape[axis], call.given.get("num_outputs", call.outputs)
    sizes = call.integers(1, "split", [min(-(-size // count), size - k * -(-size // count)) for k in range(count)])
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) != call.outputs:
        raise ValueError(f"{size} values along axis {axis} are not split into {sizes} for {call.outputs} outputs")
    return [moved(call, part) for part in np.split(t.array, np.cumsum(sizes)[:-1], axis)]


@operator("Gather")
def gather(call: Call) -> Tensor:
    """By a constant index along an axis."""
    t, index = call.input(0), call.constant(1)
    (axis,) = axes_of(call, t, [call.given.get("axis", 0)])
    _check(call, index, t.array.shape[axis], index.size * (t.array.size // t.array.shape[axis]))
    return moved(call, np.take(t.array, index.astype(np.int64), axis))


@operator("GatherND")
def gather_nd(call: Call) -> Tensor:
    """By constant indices along the first axes."""
    t, index = call.input(0), call.constant(1)
    if call.given.get("batch_dims", 0) or index.ndim < 1 or not 0 < index.shape[-1] <= t.array.ndim:
        raise ValueError(f"batch_dims of 0 and indices of 1 to {t.array.ndim} axes are read, got {index.shape}")
    if call.batched and t.node is not None:
        raise ValueError("would mix the vectors of a batch: its first axis is that of the inputs")
    for axis in range(index.shape[-1]):
        _check(call, index[..., axis], t.array.shape[axis], index.size * t.array[(0,) * index.shape[-1]].size)
    return moved(call, t.array[tuple(np.moveaxis(index, -1, 0))])


def _check(call, index, size, count):
    if index.dtype.kind not in "iu" or index.size and not -size <= index.min() <= index.max() < size:
        raise ValueError(f"its index must be integers from {-size} to {size - 1}")
    if count > call.made.most:
        raise ValueError(f"gives {count} numbers, {call.made.most} are the limit")


@operator("Expand")
def expand(call: Call) -> Tensor:
    """Broadcast to a constant shape."""
    t, wanted = call.input(0), call.constant(1).ravel()
    try:
        shape = np.broadcast_shapes(t.array.shape, tuple(int(v) for v in wanted))
    except ValueError:
        raise ValueError(f"{t.array.shape} does not broadcast to {wanted.tolist()}") from None
    if prod(shape) > call.made.most:
        raise ValueError(f"gives {prod(shape)} numbers, {call.made.most} are the limit")
    return moved(call, np.broadcast_to(t.array, shape))


@operator("Tile")
def tiled(call: Call) -> Tensor:
    """Again and again along each axis; once for each sample is once here."""
    t, times = call.input(0), [int(v) for v in call.constant(1).ravel()]
    if len(times) != t.array.ndim or min(times, default=1) < 1 and times[0] != BATCH:
        raise ValueError(f"repeats {times}, one of 1 or more for each of {t.array.ndim} axes are read")
    if times[0] in (BATCH, call.made.batch) and call.batched and t.array.shape[0] == 1 and t.node is None:
        times[0] = 1
    if t.array.size * prod(times) > call.made.most:
        raise ValueError(f"gives {t.array.size * prod(times)} numbers, {call.made.most} are the limit")
    return moved(call, np.tile(t.array, times))


@operator("ConstantOfShape")
def filled(call: Call) -> Tensor:
    """A constant."""
    sizes = [int(v) for v in call.constant(0).ravel()]
    if min(sizes, default=0) < 0 or prod(sizes) > call.made.most:
        raise ValueError(f"makes an array of {sizes}, {call.made.most} numbers are the limit")
    value = call.given.get("value")
    return Tensor(array=np.full(sizes, 0.0 if value is None else value.ravel()[0]))
