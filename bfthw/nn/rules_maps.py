"""The rules of torch's functions with weights or windows: convolutions, dense layers, pools, sums, products."""

from math import prod

import torch

from ..chain import Chain, Factor
from ..conv import convolution, spans
from ..network import Layer
from ..nodes import Max, Product, Sum
from ..window import Window
from . import places
from .places import Places
from .rules import rule, rule_of, scaled
from .seen import Ending

__all__ = ["rule_of"]


def pair(value, rank, rest):
    """(along H, along W) of a number or of one for each of `rank` axes; a sequence has `rest` along W."""
    given = (value,) * rank if isinstance(value, int) else tuple(value) * (rank if len(value) == 1 else 1)
    return given if rank == 2 else (given[0], rest)


@rule("conv1d", "conv2d")
def convolved(seen, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    rank = weight.ndim - 2
    if isinstance(weight, Places) or isinstance(bias, Places) or x.ndim != weight.ndim:
        raise ValueError(f"takes samples (N, C, {'H, W' if rank == 2 else 'L'}), and weights that are no data")
    weight = weight.numpy() if rank == 2 else weight.numpy()[..., None]
    dilation = pair(dilation, rank, 1)
    if padding == "same":  # the odd one behind
        size = spans(weight.shape[2:], dilation)
        around = [(k - 1) // 2 for k in size] + [k // 2 for k in size]
    else:
        around = pair(0 if padding == "valid" else padding, rank, 0) * 2
    factor, window = convolution(weight, groups, pair(stride, rank, 1), around, dilation)

    def node(name, source):
        shift = None if bias is None else bias.numpy()
        return Layer(name=name, inputs=source, chain=Chain([factor]), window=window, bias=shift)

    return seen.windowed(x, node)


@rule("linear")
def dense(seen, x, weight, bias=None):
    if isinstance(weight, Places) or isinstance(bias, Places) or weight.ndim != 2:
        raise TypeError("has weights that are data; torch.matmul of them would be taken")
    shift = None if bias is None else bias.numpy()
    return seen.vectors(x, Layer(chain=Chain([Factor(weight.numpy()[None, ..., None])]), bias=shift), places.last)


# pools


@rule("max_pool1d", "max_pool2d")
def max_pooled(seen, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    if return_indices or {*pair(dilation, x.ndim - 2, 1)} != {1}:
        raise ValueError("with indices or dilation is not taken; without it would be")
    window, _ = pool_window(x, kernel_size, stride, padding, ceil_mode)
    return seen.windowed(x, lambda name, source: Max(name=name, inputs=source, window=window))


@rule("avg_pool1d", "avg_pool2d")
def averaged(
    seen, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    window, more = pool_window(x, kernel_size, stride, padding, ceil_mode)
    if more or any(window.padding) and not count_include_pad:
        raise ValueError(
            "averages fewer numbers at the border; count_include_pad=True and ceil_mode=False would be taken, or no "
            "padding"
        )
    y = seen.windowed(x, lambda name, source: Sum(name=name, inputs=source, window=window))
    return scaled(seen, y, 1 / (divisor_override or window.taps))


def pool_window(x, kernel, stride, padding, ceil_mode):
    """(Window, whether its last ones reach beyond the padding)."""
    rank = x.ndim - 2
    if rank not in (1, 2):
        raise ValueError(f"takes (N, C, L) or (N, C, H, W), got {x.ndim} axes")
    size, before = pair(kernel, rank, 1), pair(padding, rank, 0)
    stride, behind = pair(stride or kernel, rank, 1), []
    for length, k, s, p in zip((*x.shape[2:], 1), size, stride, before):
        steps = -(-(length + 2 * p - k) // s) if ceil_mode else (length + 2 * p - k) // s
        if ceil_mode and steps * s >= length + p:  # a window that would begin behind the map
            steps -= 1
        behind.append(max(p, steps * s + k - length - p))
    return Window(size, stride, (*before, *behind)), behind != [*before]


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_averaged(seen, x, output_size):
    window = adaptive_window(x, output_size)
    y = seen.windowed(x, lambda name, source: Sum(name=name, inputs=source, window=window))
    return scaled(seen, y, 1 / window.taps)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pooled(seen, x, output_size, return_indices=False):
    if return_indices:
        raise ValueError("with indices is not taken; without it would be")
    window = adaptive_window(x, output_size)
    return seen.windowed(x, lambda name, source: Max(name=name, inputs=source, window=window))


def adaptive_window(x, wanted):
    rank = x.ndim - 2
    lengths = (*x.shape[2:], 1)[:2]
    wanted = (wanted,) * rank if isinstance(wanted, int) else wanted
    wanted = [length if n is None else n for n, length in zip((*wanted, 1), lengths)]
    for n, length in zip(wanted, lengths):
        if length % n:
            fits = [k for k in range(1, length + 1) if length % k == 0]
            sizes = ", ".join(map(str, fits))
            raise ValueError(f"makes {n} windows of unequal size of {length}; {sizes} would be taken")
    size = tuple(length // n for n, length in zip(wanted, lengths))
    return Window(size, size)


# sums, means and maxima over positions


@rule("mean", "sum", "amax", "max")
def reduced(seen, x, dim=None, keepdim=False, dtype=None):
    kind = seen.func.__name__
    if isinstance(dim, torch.Tensor):
        raise TypeError("of two maps is not taken; over positions it would be, or relu(a - b) + b")
    axes = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    axes = sorted({axis % x.ndim for axis in axes})
    number = places.read(x)
    if not axes or 0 in axes:
        raise ValueError("goes over the samples too; dim= with the axes of positions would be taken")
    y = _over(seen, number, axes, Max if "max" in kind else Sum)
    if kind == "mean":
        y = scaled(seen, y, 1 / prod(x.shape[axis] for axis in axes))
    if not keepdim:
        y = y.as_subclass(torch.Tensor).squeeze(axes).as_subclass(Places)
    return torch.return_types.max((y, None)) if kind == "max" else y


def _over(seen, number, axes, kind):
    """The sum or maximum over axes, counted with that of the samples, which stay as axes of one."""
    dims = [1 if axis in axes else size for axis, size in enumerate(number.shape, 1)]
    for layout, positions in ((places.first, range(2, number.ndim + 1)), (places.last, range(1, number.ndim))):
        order = layout(number.shape)
        if order is None or number.ndim < 2 or not set(axes) <= set(positions):
            continue
        size = [number.shape[axis - 1] if axis in axes else 1 for axis in positions] + [1]
        if set(axes) == set(positions):  # the grid does not matter
            order = seen.table.gridded(order, number)
            size = order.shape
        source = seen.take(number.ravel()[order])
        if source is not None:
            node = kind(name=seen.name(), inputs=source, window=Window(size[:2], size[:2]))
            return seen.give(node, layout(dims), dims)
    raise ValueError("goes over channels; over positions, an image's H and W or a sequence's L, it would be taken")


@rule("softmax", "log_softmax")
def ending(seen, x, dim=None, _stacklevel=3, dtype=None):
    number = places.read(x)
    axis = 1 if dim is None else dim % x.ndim
    order = places.first(number.shape)
    if axis != 1 or order is None:
        raise TypeError("is taken at the end of a network alone, over channels, where it is left out")

    def function(y):
        return getattr(torch, seen_name)(torch.from_numpy(y), -1).numpy()

    seen_name = seen.func.__name__
    node = Ending(name=seen.name(), inputs=seen.taken(number.ravel()[order]), function=function)
    return seen.give(node, order, number.shape)


# products of data


@rule("matmul", "bmm", "mm")
def product(seen, a, b):
    if not isinstance(b, Places):
        return dense(seen, a, b.mT)
    if not isinstance(a, Places):
        return _turned(dense(seen, _turned(b), a))
    for x, matrix, turned in ((a, b, False), (_turned(b), _turned(a), True)):
        numbers, vector = places.read(x), places.read(matrix)
        name = seen.table.vector(vector.ravel(), seen.name) if numbers.ndim == vector.ndim == 2 else None
        if name is not None:
            order = seen.table.gridded(places.last(numbers.shape), numbers)
            node = Product(name=seen.name(), inputs=(seen.taken(numbers.ravel()[order]), name))
            dims = (len(numbers), vector.shape[1])
            y = seen.give(node, places.last(dims).reshape(*order.shape[:2], -1), dims)
            return _turned(y) if turned else y
    raise TypeError(
        "multiplies two maps (attention); a map (N, L, k) by a matrix (N, k, m) that is made of vectors would be taken"
    )


def _turned(x):
    return x.as_subclass(torch.Tensor).mT.as_subclass(Places) if isinstance(x, Places) else x.mT


@rule("einsum")
def einsum(seen, equation, *operands):
    """Of two: one letter of both is summed, one of each stays, and the samples stand first."""
    given, _, out = equation.replace(" ", "").partition("->")
    letters = given.split(",")
    if len(letters) != 2 or len(operands) != 2 or "." in equation:
        raise TypeError("of anything but two tensors by letters is not taken; matmul would be")
    one, other = letters
    both = (set(one) & set(other)) - {out[:1]}
    if not len(one) == len(other) == len(out) == 3 or {one[0], other[0]} != {out[0]} or len(both) != 1:
        raise TypeError(f"{equation} is not taken; matmul, or 'nij,njk->nik' and the like would be")
    (summed,) = both
    a, b = operands
    a = a if one[2] == summed else _turned(a)
    b = b if other[1] == summed else _turned(b)
    y = product(seen, a, b)
    kept = (set(one) - {out[0], summed}).pop()
    return y if out[1] == kept else _turned(y)
