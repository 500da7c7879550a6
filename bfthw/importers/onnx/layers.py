"""Operators that multiply: convolutions, matrices of the file or of the data, batch norms."""

from dataclasses import replace
from math import prod

import numpy as np

from ...chain import Chain, Factor, Indexed
from ...conv import convolution
from ...network import Layer
from ...nodes import Product
from ...window import Window
from .registry import Call, operator, spread
from .values import Tensor
from .windows import window_of


@operator("Conv", pointwise=True)
def conv(call: Call) -> Tensor:
    """A layer with a window; groups, dilations and 'same' pads as ONNX has them."""
    weight, bias, given = call.constant(1), call.constant(2), call.given
    t = call.data()
    if weight.ndim not in (3, 4):
        raise ValueError(f"convolutions along one or two axes are read, its weight has shape {weight.shape}")
    groups, (outputs, each) = given.get("group", 1), weight.shape[:2]
    if groups < 1 or outputs % groups:
        raise ValueError(f"group = {groups} does not divide {outputs} outputs")
    if t.array.ndim != weight.ndim:
        raise ValueError(f"takes an array of {weight.ndim} axes, here it has {t.array.ndim}")
    if given.get("kernel_shape", list(weight.shape[2:])) != list(weight.shape[2:]):
        raise ValueError(f"kernel_shape is {given['kernel_shape']}, the weight {weight.shape}")
    if call.made.open and weight[0, 0].size > 1:
        raise ValueError("its input leaves sizes open; export the network with all sizes but the batch's fixed")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"its bias must have shape ({outputs},), got {bias.shape}")
    if t.array.shape[1] != each * groups:
        raise ValueError(f"takes {each * groups} channels, {each} for each of {groups} groups, got {t.array.shape[1]}")
    node, _ = call.made.map(t)
    window, dilation = window_of(call, t, weight.shape[2:])
    weight = weight if weight.ndim == 4 else weight[..., None]
    factor, window = convolution(weight, groups, window.stride, window.padding, dilation)
    name = call.made.add(Layer(chain=Chain((factor,)), inputs=(node,), window=window, bias=bias), call.label())
    call.made.weights[name] = call.input(1).format
    return call.made.unmap(name, t)


@operator("Gemm", pointwise=True)
def gemm(call: Call) -> Tensor:
    """alpha * x @ B + beta * C, with B of the file and C a number for each output."""
    weight, given, t = call.constant(1), call.given, call.data()
    if given.get("transA", 0):
        raise ValueError("transA = 1 would mix the vectors of a batch")
    if weight.ndim != 2:
        raise ValueError(f"the weight must have two dimensions, got {weight.shape}")
    if t.array.ndim != 2:
        raise ValueError(f"takes an array of 2 axes, here it has {t.array.ndim}")
    y = linear(call, t, given.get("alpha", 1.0) * (weight.T if given.get("transB", 0) else weight), call.label())
    if call.input(2) is None:
        return y
    return call.made.scaled(y, shift=given.get("beta", 1.0) * spread(call, 2, y))


@operator("MatMul", pointwise=True)
def matmul(call: Call) -> Tensor:
    """Weights of the file on either side, or two tensors of data."""
    a, b = call.inputs
    if a.node is not None and b.node is not None:
        return product(call, a, b)
    t = call.data(0 if b.node is None else 1)
    left, weight = t is b, call.constant(1 if t is a else 0)
    if weight.ndim < 2:
        raise ValueError(f"the weight must have two dimensions or more, got {weight.shape}")
    if call.batched and (weight.ndim > t.array.ndim or left and t.array.ndim < 3):
        raise ValueError(f"weights of shape {weight.shape} on this side would mix the vectors of a batch")
    if left:
        if t.array.ndim < 2:
            raise ValueError("weights on the left of a vector are not read; turn them round")
        y = linear(call, turned(t), weight.swapaxes(-1, -2), call.label(0))
        return turned(y)
    return linear(call, t, weight, call.label())


def turned(t: Tensor) -> Tensor:
    """The last two axes in each other's places."""
    return replace(t, array=t.array.swapaxes(-1, -2))


def linear(call: Call, t: Tensor, weight: np.ndarray, label: str | None) -> Tensor:
    """Numbers of a tensor (..., m, k) times constants (..., k, n), broadcast as ONNX has it.

    All rows of k numbers at one position become a factor on its channels, block by block. Rows that are taken from
    several positions are the positions of a rearranged map; with weights of their own, or where they are not all of the
    map, a factor on the whole map as one vector.
    """
    made = call.made
    k, n = weight.shape[-2:]
    if t.array.shape[-1] != k:
        raise ValueError(f"takes {k} values, here it gets {t.array.shape[-1]}{made.declared(t)}")
    t = made.known(t, -1) if weight.ndim == 2 else made.known_rows(t)
    shape = made.shapes[t.node]
    if shape.positions > 1 and t.array.size == k < shape.size:  # some of a map's numbers
        t = made.vector(t)
        shape = made.shapes[t.node]
    rows = t.array if t.array.ndim > 1 else t.array[None]
    if weight.ndim == 2 and k < rows.size == shape.size and np.ptp(rows // shape.channels, axis=-1).any():
        node = made.rearranged(t.node, rows.reshape(-1, 1, k))
        t = Tensor(array=np.arange(rows.size).reshape(t.array.shape), node=node)
        rows, shape = t.array, made.shapes[node]
    try:
        batch = np.broadcast_shapes(rows.shape[:-2], weight.shape[:-2])
    except ValueError:
        raise ValueError(f"shapes {t.array.shape} and {weight.shape} do not go together") from None
    out = (*batch, rows.shape[-2], n)
    if max(prod(out), prod(out[:-1]) * k) > call.made.most:
        raise ValueError(f"multiplies {prod(out[:-1])} rows of {k} values, too many")
    which = np.arange(prod(weight.shape[:-2])).reshape(*weight.shape[:-2], 1)
    which = np.broadcast_to(which, out[:-1]).ravel()
    rows = np.broadcast_to(rows, (*out[:-1], k)).reshape(-1, k)
    window, channels, positions = None, shape.channels, shape.positions
    position, channel = np.divmod(rows, channels)
    if (position != position[:, :1]).any():
        window, channels, positions = Window.whole(shape), shape.size, 1
        position, channel = np.zeros_like(rows), rows
    order = np.lexsort((channel.min(axis=1), position[:, 0]))
    each, left = divmod(len(rows), positions)
    if left or (position[order, 0].reshape(positions, -1) != np.arange(positions)[:, None]).any():
        raise ValueError("takes some positions of a map more often than others; whole maps are read")
    made.spend(each * k * n)
    channel, which = channel[order].reshape(positions, each, k), which[order].reshape(positions, each)
    if (channel != channel[0]).any() or (which != which[0]).any():
        raise ValueError("multiplies positions of a map in different ways")
    factor, place = _factor(channel[0], weight.reshape(-1, k, n)[which[0]], channels)
    places = np.empty((len(rows), n), np.int64)
    places[order] = (np.arange(positions)[:, None, None] * factor.pattern.outputs + place).reshape(-1, n)
    out = out if t.array.ndim > 1 else (n,)
    node = made.add(Layer(chain=Chain((factor,)), inputs=(t.node,), window=window), label)
    made.blocks[node] = factor.support is not None or tuple(factor.pattern[::3]) != (1, 1)
    made.weights[node] = next(own.format for own in call.inputs if own.node is None)
    return Tensor(array=places.reshape(out), node=node)


def _factor(channel, weights, channels):
    """Rows of channels (r, k) and their weights (r, k, n) -> (Factor, the place of each output, (r, n))."""
    r, k, n = weights.shape
    sort = np.argsort(channel, axis=1)
    channel, weights = np.take_along_axis(channel, sort, 1), np.take_along_axis(weights, sort[..., None], 1)
    if r == 1:
        values = np.zeros((channels, n))
        np.add.at(values, channel[0], weights[0])
        return Factor(values.T[None, ..., None]), np.arange(n)[None]
    d = int(channel[0, 1] - channel[0, 0]) if k > 1 else 1
    if r * k == channels and d > 0 and r % d == 0:
        a = r // d
        if np.array_equal(channel, np.arange(channels).reshape(a, k, d).swapaxes(1, 2).reshape(r, k)):
            values = weights.reshape(a, d, k, n).transpose(0, 3, 2, 1)
            return Factor(values), np.arange(r * n).reshape(a, n, d).swapaxes(1, 2).reshape(r, n)
    values = weights.swapaxes(1, 2).reshape(r * n, 1, k, 1)
    return Factor(values, Indexed(channel.repeat(n, axis=0), channels)), np.arange(r * n).reshape(r, n)


def product(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Two tensors of the data: a map times a vector that is a matrix."""
    made, (a, b) = call.made, (call.made.settled(a), call.made.settled(b))
    if min(a.array.ndim, b.array.ndim) < 2 or call.batched and a.array.ndim != b.array.ndim:
        raise ValueError("takes products of the data over arrays of as many axes alone")
    if prod(b.array.shape[:-2]) != 1 or made.shapes[b.node].positions > 1:
        if prod(a.array.shape[:-2]) != 1 or made.shapes[a.node].positions > 1:
            raise ValueError("of two tensors of the data one must be a matrix, a vector of all its numbers")
        return turned(product(call, turned(b), turned(a)))
    (k, n), shape = b.array.shape[-2:], made.shapes[a.node]
    position, channel = np.divmod(a.array.reshape(-1, a.array.shape[-1]), shape.channels)
    if a.array.shape[-1] != k or k != shape.channels or (channel != channel[0]).any():
        raise ValueError(
            f"multiplies {a.array.shape[-1]} values of a map {shape} by a matrix of {k} x {n}; all channels go"
        )
    nodes = made.pick((a.node,), channel[0]), made.pick((b.node,), b.array.ravel())
    node = made.add(Product(inputs=nodes))
    array = position[:, :1] * n + np.arange(n)
    return Tensor(array=array.reshape(*a.array.shape[:-1], n), node=node)


@operator("Einsum")
def einsum(call: Call) -> Tensor:
    """Of two tensors, as a product of matrices; each letter in both of them, or in one and the result."""
    text = call.given["equation"].decode().replace(" ", "")
    sides = text.replace("->", ",").split(",")
    if len(call.inputs) != 2 or len(sides) != 3 or not all(s.isalpha() and len({*s}) == len(s) for s in sides):
        raise ValueError(f"the equation {text!r} is not of two tensors, each letter once in it")
    one, two, result = sides
    both = [c for c in one if c in two]
    batch, inner = [c for c in both if c in result], [c for c in both if c not in result]
    left, right = ([c for c in s if c not in both] for s in (one, two))
    if {*result} != {*batch, *left, *right} or not inner:
        raise ValueError(f"the equation {text!r} sums one tensor alone, or multiplies none")
    if call.batched and any(t.node is not None and (s[0] != result[0]) for t, s in zip(call.inputs, sides)):
        raise ValueError(f"the equation {text!r} would mix the vectors of a batch")
    if call.batched and any(t.node is None and result[0] in s for t, s in zip(call.inputs, sides)):
        raise ValueError(f"the equation {text!r} has weights for each vector of a batch")
    sizes = {c: size for t, s in zip(call.inputs, sides) for c, size in zip(s, t.array.shape)}
    if any(t.array.shape != tuple(sizes[c] for c in s) for t, s in zip(call.inputs, sides)):
        raise ValueError(f"shapes {', '.join(str(t.array.shape) for t in call.inputs)} do not fit {text!r}")

    def matrix(t, letters, *groups):
        array = t.array.transpose([letters.index(c) for group in groups for c in group])
        return replace(t, array=array.reshape([prod(sizes[c] for c in group) for group in groups]))

    a, b = matrix(call.inputs[0], one, batch, left, inner), matrix(call.inputs[1], two, batch, inner, right)
    if a.node is None:
        y = turned(linear(call, turned(b), a.array.swapaxes(-1, -2), call.label(0)))
    else:
        y = product(call, a, b) if b.node is not None else linear(call, a, b.array, call.label())
    letters = [*batch, *left, *right]
    array = y.array.reshape([sizes[c] for c in letters])
    return replace(y, array=array.transpose([letters.index(c) for c in result]))


@operator("BatchNormalization", pointwise=True)
def norm(call: Call) -> Tensor:
    """In eval mode: a scale and a bias for each channel."""
    t, (gamma, beta, mean, var) = call.data(), (call.constant(k) for k in range(1, 5))
    channels = t.array.shape[min(1, t.array.ndim - 1)]
    if call.given.get("training_mode", 0) or call.given.get("spatial", 1) != 1:
        raise ValueError("training_mode = 1 takes the numbers of a batch; export the module in eval mode")
    if any(v.shape != (channels,) for v in (gamma, beta, mean, var)) or t.array.ndim < 2:
        raise ValueError(
            f"its numbers must be of {channels} channels, got {[v.shape for v in (gamma, beta, mean, var)]}"
        )
    variance = var + call.given.get("epsilon", 1e-5)
    if (variance <= 0).any():
        raise ValueError("a variance is not above zero")
    gain = gamma / np.sqrt(variance)
    spread = [
        np.broadcast_to(v.reshape(-1, *[1] * (t.array.ndim - 2)), t.array.shape) for v in (gain, beta - mean * gain)
    ]
    return call.made.scaled(t, *spread)
