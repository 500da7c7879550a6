"""Operators over windows: pools, and sums, means and maxima over all positions."""

import numpy as np

from ...conv import spans
from ...nodes import Max, Sum
from ...window import Window
from .registry import Call, operator
from .values import Tensor


def window_of(call: Call, t: Tensor, kernel: tuple, ceil: bool = False) -> tuple[Window, tuple]:
    """The Window of a Conv's or pool's attributes over a tensor (1, C, *positions), its kernel as ONNX has it, and the
    dilation that has made it larger."""
    given, sizes, ones = call.given, t.array.shape[2:], [1] * len(kernel)
    stride, dilation = list(given.get("strides", ones)), list(given.get("dilations", ones))
    if {len(stride), len(dilation), len(kernel)} != {len(sizes)} or min(*stride, *dilation) < 1:
        raise ValueError(f"strides {stride} and dilations {dilation}: one for each of {len(sizes)} axes, 1 or more")
    if max(dilation) > 1 and given.get("auto_pad", b"").startswith(b"SAME"):
        raise ValueError(f"auto_pad with dilations {dilation}: runtimes refuse it; pads are read")
    kernel = spans(kernel, dilation)
    before, after = _padding(given, sizes, kernel, stride)
    if ceil:
        for axis, (size, k, s) in enumerate(zip(sizes, kernel, stride)):
            over = (size + before[axis] + after[axis] - k) % s
            starts = size + before[axis] + after[axis] - k + s - over  # of the window more, if it begins inside
            after[axis] += (s - over) if over and starts < size + before[axis] else 0
    pad = [1] * (2 - len(kernel))  # an axis of one position behind those along one axis
    zero = [0] * (2 - len(kernel))
    return Window((*kernel, *pad), (*stride, *pad), (*before, *zero, *after, *zero)), (*dilation, *pad)


def _padding(given, sizes, kernel, stride):
    auto, count = given.get("auto_pad", b"NOTSET").decode(), len(kernel)
    pads = [int(v) for v in given.get("pads", [0] * 2 * count)]
    if len(pads) != 2 * count or min(pads) < 0 or auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"pads {pads} with auto_pad {auto}: two for each of {count} axes, 0 or more")
    if not auto.startswith("SAME"):
        return (pads[:count], pads[count:]) if auto == "NOTSET" else ([0] * count, [0] * count)
    total = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(sizes, kernel, stride)]
    small, large = [v // 2 for v in total], [v - v // 2 for v in total]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


@operator("MaxPool", "AveragePool")
def pool(call: Call) -> Tensor:
    """A maximum, or a sum and 1 / its places behind it; those outside count only where the file says so."""
    given, t = call.given, call.data()
    if t.array.ndim not in (3, 4):
        raise ValueError(f"takes an array of 3 or 4 axes, here it has {t.array.ndim}")
    node, _ = call.made.map(t)
    ceil = bool(given.get("ceil_mode", 0))
    window, dilation = window_of(call, t, given["kernel_shape"], ceil and call.op == "MaxPool")
    if dilation != (1, 1):
        raise ValueError(f"dilations {list(dilation)} leave places of a window out; dilations of 1 are read")
    if call.op == "MaxPool":
        return call.made.unmap(call.made.add(Max(inputs=(node,), window=window)), t)
    if ceil and window != window_of(call, t, given["kernel_shape"], ceil)[0]:
        raise ValueError("ceil_mode = 1 makes windows of fewer positions at the end; ceil_mode = 0 is read")
    if any(window.padding) and not given.get("count_include_pad", 0):
        raise ValueError("windows at the edge would have fewer positions; count_include_pad = 1 or no pads are read")
    return mean(call, call.made.unmap(call.made.add(Sum(inputs=(node,), window=window)), t), window.taps)


def mean(call: Call, t: Tensor, count: int) -> Tensor:
    """A sum of so many numbers, divided by them."""
    return t if count == 1 else call.made.scaled(t, gain=np.full(t.array.shape, 1 / count))


@operator("GlobalAveragePool", "GlobalMaxPool")
def globally(call: Call) -> Tensor:
    """Over all positions."""
    t = call.data()
    if t.array.ndim < 3:
        raise ValueError(f"takes an array of 3 axes or more, here it has {t.array.ndim}")
    return whole(call, t, [*range(2, t.array.ndim)], True, "Max" if "Max" in call.op else "Mean")


@operator("ReduceMean", "ReduceSum", "ReduceMax")
def reduced(call: Call) -> Tensor:
    """Over axes that are all positions, which an attribute says in old opsets."""
    t = call.data()
    axes = call.integers(1, "axes", None if call.given.get("noop_with_empty_axes") else list(range(t.array.ndim)))
    if not axes:
        return t
    return whole(call, t, axes, call.given.get("keepdims", 1), call.op.removeprefix("Reduce"))


def whole(call: Call, t: Tensor, axes: list, keep: bool, what: str) -> Tensor:
    """The maximum, sum or mean of each channel over all positions, which must be what the axes are."""
    count = t.array.ndim
    axes = sorted({axis % count for axis in axes if -count <= axis < count})
    rest = [axis for axis in range(count) if axis not in axes]
    if call.batched and 0 in axes:
        raise ValueError("would mix the vectors of a batch")
    t = call.made.uncut(call.made.known(t, 1 if 1 in rest and count > 2 else rest[-1] if rest else None))
    shape = call.made.shapes[t.node]
    places = t.array.transpose(*rest, *axes).reshape(-1, int(np.prod([t.array.shape[a] for a in axes])))
    position, channel = np.divmod(places, shape.channels)
    if (
        (channel != channel[:, :1]).any()
        or places.shape[1] != shape.positions
        or (np.sort(position) != np.arange(shape.positions)).any()
    ):
        raise ValueError(
            f"takes axes {axes} together, which are not the positions {shape.height} x {shape.width} of a map"
        )
    kind, window = Max if what == "Max" else Sum, Window.whole(shape)
    node = t.node if shape.positions == 1 else call.made.add(kind(inputs=(t.node,), window=window))
    sizes = [t.array.shape[axis] if axis in rest else 1 for axis in range(count) if keep or axis in rest]
    y = Tensor(array=channel[:, 0].reshape(sizes), node=node)
    return mean(call, y, shape.positions) if what == "Mean" else y
