"""Integer networks as QONNX files: operators of floats between Quant nodes, as FINN, hls4ml and Brevitas have them.

Values are (N, C, H, W), or (N, C) for vectors, numbers q * 2**-frac of the golden integers q. All sums are exact in
float32, which holds integers of 24 bits, or the node is refused. A Quant rounds halves to the even number, we round
them up, and readers of QONNX have rules of their own (FINN's thresholds round up, hls4ml has AP_RND_CONV). So no half
is left to round: where bits are dropped, a quarter of the sum's last bit is in the bias, and every way agrees.

Chains are dense matrices with zeros, and convolutions dense or depthwise, as these tools know no other ones.
"""

from typing import NamedTuple

import numpy as np

from .chain import apply
from .golden import IntLayer, IntNetwork
from .nodes import Gate, Max, Pick, Product, Rearrange, Sum
from .onnx_graph import OPSET, OnnxGraph, Writers
from .qformat import QFormat
from .window import Window

DOMAIN = "qonnx.custom_op.general"
EXACT, REACH = 24, 100  # bits of a float32's integer; exponents of two that stay far from its ends
QUANT = f"""<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>
Quant <signed, narrow, rounding_mode> (x, scale, zero, bits) => (y) {{
    signed_0 = Constant <value_int: int = @signed> ()
    narrow_0 = Constant <value_int: int = @narrow> ()
    signed_1 = Cast <to = 1> (signed_0)
    narrow_1 = Cast <to = 1> (narrow_0)
    one = Constant <value = float {{1}}> ()
    two = Constant <value = float {{2}}> ()
    magnitude = Sub (bits, signed_1)
    reach = Pow (two, magnitude)
    unsigned = Sub (one, signed_1)
    narrow_top = Mul (narrow_1, unsigned)
    beyond = Add (one, narrow_top)
    top = Sub (reach, beyond)
    above = Sub (narrow_1, reach)
    bottom = Mul (signed_1, above)
    steps = Div (x, scale)
    moved = Add (steps, zero)
    whole = Round (moved)
    high = Max (whole, bottom)
    q = Min (high, top)
    back = Sub (q, zero)
    y = Mul (back, scale)
}}"""  # of rounding_mode ROUND
writer = Writers("QONNX")


class _Value(NamedTuple):
    """The name of a value, and integers (1, C) that it lies between, zero too."""

    name: str
    lo: np.ndarray
    hi: np.ndarray


def model(onnx, network: IntNetwork):
    """The onnx.ModelProto of an IntNetwork; ValueError names a node that QONNX has no words for, or float32 no room."""
    graph, fmt = OnnxGraph(onnx, np.float32), network.input
    _check(max(-fmt.lo, fmt.hi), fmt.frac, "the input", False)
    ends = (np.full((1, network.shape.channels), end) for end in (fmt.lo, fmt.hi))
    values, shapes = {0: _Value(_quant(graph, "input", fmt, "the input"), *ends)}, (network.shape, *network.shapes)
    for k, (node, sources) in enumerate(zip(network.nodes, network.sources), 1):
        graph.prefix = node.name
        write = _layer if isinstance(node, IntLayer) else _node
        values[k] = write(graph, node, [values[s] for s in sources], [shapes[s] for s in sources])
    graph.nodes[-1].output[0] = "output"  # no Identity: hls4ml leaves those out, and its output with them
    dims = ((shape.channels, *shape[:2])[: 3 if shape.positions > 1 else 1] for shape in (shapes[0], shapes[-1]))
    return graph.model(network, *dims, functions=[function(onnx)])


def function(onnx):
    """Quant as the onnx.FunctionProto that these files have, in operators that every runtime knows."""
    return onnx.parser.parse_function(QUANT)


def _check(reach, frac, owner, rounds):
    """ValueError unless sums of integers up to `reach`, in 2^-frac, are exact; rounds: a quarter is added."""
    bits = EXACT - 2 * rounds
    if (needed := int(np.max(reach)).bit_length()) > bits:
        raise ValueError(
            f"{owner}: its sums take {needed} bits and a sign, and QONNX has floats that hold {bits} of them exactly; "
            "fewer bits of weights and activations would do, or plain ONNX, without qonnx"
        )
    if abs(frac) > REACH:
        raise ValueError(f"{owner}: steps of 2^{-frac}, in floats 2^-{REACH} to 2^{REACH} would do")


def _quant(graph, x, fmt, owner, frac=None, name=None):
    """A Quant to a format. frac: of each number, where they differ. name: of what it gives."""
    if fmt.width == 1 and fmt.signed:
        raise ValueError(f"{owner}: one bit with a sign, which QONNX takes for -1 and 1; 2 bits, or no sign, would do")
    frac = np.atleast_1d(fmt.frac if frac is None else frac)
    _check(0, np.abs(frac).max(), owner, False)
    scale = np.ldexp(1.0, -frac)
    given = {"signed": int(fmt.signed), "narrow": 0, "rounding_mode": "ROUND", "domain": DOMAIN}
    return graph.op("Quant", x, scale, [0.0], float(fmt.width), output=name, **given)


def _constant(graph, q, fmt, owner, frac=None, name=None):
    """Integers in a format, or as many bits more as they need, as constants behind a Quant; see there."""
    frac = fmt.frac if frac is None else frac
    _check(np.abs(q).max(), 0, owner, False)
    needed = int(max(q.max(), -1 - q.min())).bit_length() + fmt.signed
    fmt = QFormat(max(fmt.width, needed), fmt.frac, fmt.signed)
    return _quant(graph, graph.constant(np.ldexp(q.astype(np.float64), -frac)), fmt, owner, frac, name)


def _layer(graph, layer, given, shapes):
    """y = Quant(act(products + bias + added)) of each factor."""
    shape, own, window = layer.shape(*shapes), f"node {layer.name!r}", layer.window
    x, lo, hi = given[0]
    if window is not None and window.outside:
        raise ValueError(f"{own}: numbers other than 0 stand outside its window, and a Conv pads with 0 alone")
    if layer.factors[-1].table is not None:
        raise ValueError(f"{own}: its activation is a table, QONNX has no operator for it; a ReLU or ReLU6 would do")
    if window is not None:
        lo, hi = window.spread(lo), window.spread(hi)
    before = shapes[0]
    for m, factor in enumerate(layer.factors):
        graph.prefix = layer.name if len(layer.factors) == 1 else f"{layer.name}.{m}"
        low, high = factor.bounds(lo, hi, *((given[1].lo[0], given[1].hi[0]) if factor.skip_input else ()))
        bias = np.zeros_like(low) if factor.bias is None else factor.bias
        _check(np.maximum(high - bias, bias - low) + np.abs(bias), factor.acc_frac + 2, own, factor.shift > 0)
        x = _products(graph, factor, x, window, before, shape, own, _bias(graph, bias, factor, own))
        if factor.skip_input:
            x = graph.op("Add", x, _weighted(graph, factor, given[1].name, shape, own))
        if factor.relu:
            top = factor.top is not None and factor.output.dequantise(factor.top)
            top = 6.0 if top and factor.top == factor.output.quantise(6) else top
            x = graph.op("Relu", x) if top is False else graph.op("Clip", x, 0.0, top)
        x, lo, hi = _valued(_quant(graph, x, factor.output, own), factor, low[None], high[None])
        window, before = None, shape
    return _Value(x, lo, hi)


def _valued(name, node, low, high):
    return _Value(name, np.minimum(node.requantise(low), 0), np.maximum(node.requantise(high), 0))


def _products(graph, factor, x, window, before, shape, own, bias):
    """A factor's dot products and bias: MatMul of vectors; Conv of maps, dense, or depthwise where it is."""
    matrix = apply(factor.values, np.eye(factor.pattern.inputs, dtype=np.int64), factor.support).T
    rows, name = factor.exponents is not None and factor.exponents.any(), f"{graph.prefix}.weight"
    frac = factor.weights.frac + factor.exponents.reshape(-1) if rows else None
    if before.positions == 1 and (window is None or not any(window.padding)):
        x = graph.op("MatMul", x, _constant(graph, matrix.T, factor.weights, own, frac, name))
        return graph.op("Add", x, *bias) if bias else x
    window = window or Window(1)
    weights, groups = _kernels(matrix, window, matrix.shape[1] // window.taps)
    frac = frac[:, None, None, None] if rows else None
    weights = _constant(graph, weights, factor.weights, own, frac, name)
    return _windowed(graph, "Conv", x, window, before, shape, (weights, *bias), groups)


def _kernels(matrix, window, channels):
    """(weights (m, C / groups, kh, kw), groups) of a matrix (m, K * C) on window vectors: 1 group, or depthwise."""
    (kh, kw), m = window.size, len(matrix)
    taps = matrix.reshape(m, -1, kh * kw, window.block or channels).swapaxes(2, 3).reshape(m, channels, -1)
    kernels = taps.reshape(m, channels, kh, kw)
    if window.order == "kx":
        kernels = taps.reshape(m, channels, kw, kh).swapaxes(2, 3)
    if channels == 1 or m % channels:
        return kernels, 1
    own = kernels[np.arange(m), np.arange(m) // (m // channels)][:, None]
    return (own, channels) if np.count_nonzero(own) == np.count_nonzero(kernels) else (kernels, 1)


def _windowed(graph, kind, x, window, before, shape, weights=(), groups=1):
    """A Conv or MaxPool; vectors are maps of one position meanwhile."""
    if before.positions == 1:
        x = graph.op("Reshape", x, graph.constant([-1, before.channels, 1, 1], np.int64))
    given = {"kernel_shape": window.size, "strides": window.stride, "pads": window.padding}
    given |= {"group": groups, "dilations": (1, 1)} if weights else {}
    x = graph.op(kind, x, *weights, **given)
    return graph.op("Flatten", x) if shape.positions == 1 else x


def _channels(values, shape):
    """Numbers of channels (C,) as they broadcast against values."""
    return values[None, :, None, None] if shape.positions > 1 else values


def _weighted(graph, factor, x, shape, own):
    """What is added, times its weights."""
    if factor.skip is None:
        return x
    return graph.op("Mul", x, _constant(graph, _channels(factor.skip, shape), factor.skip_weights, own))


def _bias(graph, bias, node, own):
    """[the name of a bias (C,), integers at acc_frac, with the quarter of a last bit where bits are dropped], or []."""
    rounds = node.shift > 0
    if not rounds and not np.any(bias):
        return []
    q = bias * 4 + 1 if rounds else bias
    return [_constant(graph, q, QFormat(2, node.acc_frac + 2 * rounds), own)]


def _node(graph, node, given, shapes):
    """A node without weights, with a Quant where it rounds."""
    own, shape = node.node, node.shape(*shapes)
    low, high = node.reach(*((value.lo, value.hi) for value in given))
    name = f"node {own.name!r}"
    _check(np.maximum(-low, high), node.acc_frac + 2, name, node.shift > 0)
    rounds, sums = own.computes or {*node.formats} != {node.output}, isinstance(own, Sum)
    bias = _bias(graph, np.zeros(shape.channels if sums else 1, np.int64), node, name) if rounds else []
    x = writer.of(own)(graph, own, [value.name for value in given], shapes, *(bias if sums else []))
    if rounds:
        x = graph.op("Add", x, *bias) if bias and not sums else x
        if sums and not node.output.signed:
            x = graph.op("Relu", x)  # changes nothing; FINN takes formats without a sign behind a Relu alone
        x = _quant(graph, x, node.output, name)
    return _valued(x, node, low, high)


@writer(Max)
def _max(graph, node, xs, shapes):
    return _windowed(graph, "MaxPool", xs[0], node.window, shapes[0], node.shape(*shapes))


@writer(Sum)
def _sum(graph, node, xs, shapes, *bias):
    """A depthwise Conv of ones: hls4ml has no ReduceSum."""
    channels = shapes[0].channels
    ones, name = np.ones((channels, 1, *node.window.size), np.int64), f"{node.name}.weight"
    ones = _constant(graph, ones, QFormat(1, 0, False), node.name, name=name)
    return _windowed(graph, "Conv", xs[0], node.window, shapes[0], node.shape(*shapes), (ones, *bias), channels)


@writer(Pick)
def _pick(graph, node, xs, shapes):
    x = graph.op("Concat", *xs, axis=1) if len(xs) > 1 else xs[0]
    return x if node.index is None else graph.op("Gather", x, graph.constant(node.index, np.int64), axis=1)


@writer(Rearrange)
def _rearrange(graph, node, xs, shapes):
    """Channels come first there: the places of both maps are others."""
    (height, width, channels), after = shapes[0], node.shape(*shapes)
    place, channel = node.index // channels, node.index % channels
    index = (channel * height * width + place).reshape(after.positions, -1).T.ravel()
    flat = graph.op("Reshape", xs[0], graph.constant([-1, shapes[0].size], np.int64))
    found = graph.op("Gather", flat, graph.constant(index, np.int64), axis=1)
    sizes = [-1, after.channels, *node.size] if after.positions > 1 else [-1, after.channels]
    return graph.op("Reshape", found, graph.constant(sizes, np.int64))


@writer(Gate)
def _gate(graph, node, xs, shapes):
    x, gate = xs
    if shapes[0].positions > 1:
        gate = graph.op("Reshape", gate, graph.constant([-1, shapes[0].channels, 1, 1], np.int64))
    return graph.op("Mul", x, gate)


@writer(Product)
def _product(graph, node, xs, shapes):
    (height, width, k), m = shapes[0], shapes[1].channels // shapes[0].channels
    columns = graph.op("Reshape", xs[0], graph.constant([-1, k, height * width], np.int64))
    matrix = graph.op("Reshape", xs[1], graph.constant([-1, k, m], np.int64))
    y = graph.op("MatMul", graph.op("Transpose", matrix, perm=[0, 2, 1]), columns)
    sizes = [-1, m, height, width] if height * width > 1 else [-1, m]
    return graph.op("Reshape", y, graph.constant(sizes, np.int64))
