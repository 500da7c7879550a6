"""Integer networks as .onnx files in plain ONNX operators, for whoever runs or reads those: an independent judge.

Everything is int64, as in the golden model. An accumulator has 62 bits at most, which IntFactor and IntNode see to, so
sums are exact in whatever order they are taken; the shift is a division that leaves no remainder. Numbers that go in
and come out are the integers of the network's formats, channels last: (N, H, W, C), or (N, C) for vectors.
"""

from pathlib import Path

import numpy as np

from . import files, storage, to_qonnx
from .golden import IntLayer, IntNetwork
from .nodes import Gate, Max, Pick, Product, Rearrange, Sum
from .onnx_graph import OnnxGraph, Writers

LEAST = -(1 << 62)  # below every number of a format
writer = Writers("ONNX")


def save_onnx(network: IntNetwork, path: str | Path, qonnx: bool = False) -> None:
    """Write an IntNetwork as .onnx, whole or not at all, the same bytes for the same network.

    qonnx: as floats between Quant nodes, see bfthw.to_qonnx, instead of integers.
    ImportError without the package onnx; ValueError names a node that ONNX, or QONNX, has no words for here.
    """
    path = Path(path)
    storage.check_suffix(path, (".onnx",))
    try:
        import onnx
    except ImportError:
        raise ImportError(".onnx files need onnx: pip install 'bfthw[onnx]'") from None
    if not isinstance(network, IntNetwork):
        what = type(network).__name__
        raise TypeError(f"save_onnx takes an IntNetwork, got {what}; bfthw.compile makes one of floats")
    write = to_qonnx.model if qonnx else model
    files.write(path, write(onnx, network).SerializeToString(deterministic=True))


def model(onnx, network: IntNetwork):
    """The onnx.ModelProto of an IntNetwork, all in integers; ValueError as `save_onnx`."""
    graph = OnnxGraph(onnx)
    values, shapes = {0: graph.op("Reshape", "input", [-1, *network.shape])}, (network.shape, *network.shapes)
    for k, (node, sources) in enumerate(zip(network.nodes, network.sources), 1):
        graph.prefix = node.name
        xs, given = [values[s] for s in sources], [shapes[s] for s in sources]
        values[k] = _layer(graph, node, xs, given) if isinstance(node, IntLayer) else _node(graph, node, xs, given)
    graph.op("Reshape", values[len(network.nodes)], [-1, *network.shapes[-1].dims], output="output")
    return graph.model(network, network.shape.dims, network.shapes[-1].dims)


def _layer(graph, layer, xs, shapes):
    """(N, H, W, C) -> (N, H', W', C'), the window's vectors as rows in between."""
    shape, x = layer.shape(*shapes), xs[0]
    if layer.window is not None:
        x = _gathered(graph, layer.window, x, shapes[0])
    x = graph.op("Reshape", x, [-1, layer.factors[0].pattern.inputs])
    for factor in layer.factors:
        acc = _scaled(graph, _products(graph, factor, x), factor.dot_shift)
        if factor.skip_input:
            added = graph.op("Reshape", xs[1], [-1, shape.channels])
            added = added if factor.skip is None else graph.op("Mul", added, factor.skip)
            acc = graph.op("Add", acc, _scaled(graph, added, factor.skip_shift))
        if factor.bias is not None:
            acc = graph.op("Add", acc, factor.bias)
        x = _rounded(graph, acc, factor.shift, factor.rounded)
        if factor.table is not None:
            x = graph.op("Gather", factor.table.values, graph.op("Sub", x, factor.rounded.lo), axis=0)
        elif factor.relu:
            x = graph.op("Clip", x, 0, factor.output.hi if factor.top is None else factor.top)
    return graph.op("Reshape", x, [-1, *shape])


def _products(graph, factor, x):
    """Rows (R, inputs) -> the factor's dot products (R, outputs)."""
    values, (a, b, c, d) = factor.values, factor.pattern
    if factor.support is not None:
        taken = graph.op("Gather", x, factor.support.index, axis=1)  # (R, outputs, c)
        return graph.op("ReduceSum", graph.op("Mul", taken, values[:, 0, :, 0]), [2], keepdims=0)
    if a == d == 1:
        return graph.op("MatMul", x, values[0, :, :, 0].T)
    blocks = graph.op("Transpose", graph.op("Reshape", x, [-1, a, c, d]), perm=[1, 3, 0, 2])  # (a, d, R, c)
    y = graph.op("MatMul", blocks, values.transpose(0, 3, 2, 1))  # (a, d, R, b)
    return graph.op("Reshape", graph.op("Transpose", y, perm=[2, 0, 3, 1]), [-1, a * b * d])


def _scaled(graph, x, shift):
    """x << shift, a number or one for each output."""
    return graph.op("Mul", x, np.int64(1) << np.asarray(shift)) if np.any(shift) else x


def _rounded(graph, acc, shift, fmt):
    """saturate(round(acc * 2**-shift)), halves up. ONNX divides towards zero, so what is below a step goes first."""
    if shift > 0:
        acc = graph.op("Add", acc, 1 << (shift - 1))
        acc = graph.op("Div", graph.op("Sub", acc, graph.op("Mod", acc, 1 << shift)), 1 << shift)
    elif shift < 0:
        acc = graph.op("Mul", acc, 1 << -shift)
    return graph.op("Clip", acc, fmt.lo, fmt.hi)


def _gathered(graph, window, x, shape, outside=None):
    """Maps (N, H, W, C) -> window vectors (N, H', W', K*C), as Window.gather has them."""
    (kh, kw), (sh, sw), (top, left, bottom, right) = window.size, window.stride, window.padding
    height, width, _ = window.shape(shape)
    if (
        window.taps > 1
        and window.size == shape[:2]
        and not any(window.padding)
        and window.block is None
        and window.order == "ky"
    ):
        return graph.op("Reshape", x, [-1, 1, 1, shape.size])
    if any(window.padding):
        edge = np.array(window.outside if outside is None else outside)
        varies = edge.ndim and edge.any()  # a number for each channel: added again when it stands everywhere
        x = graph.op("Sub", x, edge) if varies else x
        x = graph.op("Pad", x, [0, top, left, 0, 0, bottom, right, 0], 0 if edge.ndim else edge)
        x = graph.op("Add", x, edge) if varies else x
    taps = [(ky, kx) for ky in range(kh) for kx in range(kw)]
    taps = taps if window.order == "ky" else sorted(taps, key=lambda tap: tap[1])
    rows, columns, q = (height - 1) * sh + 1, (width - 1) * sw + 1, window.block or shape.channels
    parts = [graph.op("Slice", x, tap, [tap[0] + rows, tap[1] + columns], [1, 2], [sh, sw]) for tap in taps]
    if q == shape.channels:
        return graph.op("Concat", *parts, axis=3)
    parts = [graph.op("Reshape", part, [-1, height, width, shape.channels // q, 1, q]) for part in parts]
    return graph.op("Reshape", graph.op("Concat", *parts, axis=4), [-1, height, width, window.taps * shape.channels])


def _node(graph, node, xs, shapes):
    """A node without weights: its inputs aligned, computed, rounded once."""
    own = node.node
    write = writer.of(own)
    if not own.multiplies:
        xs = [_scaled(graph, x, node.acc_frac - fmt.frac) for x, fmt in zip(xs, node.formats)]
    return _rounded(graph, write(graph, own, xs, shapes), node.shift, node.output)


def _taps(graph, node, x, shape, outside):
    """(N, H, W, C) -> (N, H', W', K, C)."""
    height, width, _ = node.window.shape(shape)
    x = _gathered(graph, node.window, x, shape, outside)
    return graph.op("Reshape", x, [-1, height, width, node.window.taps, shape.channels])


@writer(Max)
def _max(graph, node, xs, shapes):
    return graph.op("ReduceMax", _taps(graph, node, xs[0], shapes[0], LEAST), axes=[3], keepdims=0)


@writer(Sum)
def _sum(graph, node, xs, shapes):
    return graph.op("ReduceSum", _taps(graph, node, xs[0], shapes[0], 0), [3], keepdims=0)


@writer(Pick)
def _pick(graph, node, xs, shapes):
    x = graph.op("Concat", *xs, axis=3)
    return x if node.index is None else graph.op("Gather", x, node.index, axis=3)


@writer(Rearrange)
def _rearrange(graph, node, xs, shapes):
    found = graph.op("Gather", graph.op("Reshape", xs[0], [-1, shapes[0].size]), node.index, axis=1)
    return graph.op("Reshape", found, [-1, *node.shape(*shapes)])


@writer(Gate)
def _gate(graph, node, xs, shapes):
    return graph.op("Mul", *xs)


@writer(Product)
def _product(graph, node, xs, shapes):
    shape, k = shapes[0], shapes[0].channels
    rows = graph.op("Reshape", xs[0], [-1, shape.positions, k])
    matrix = graph.op("Reshape", xs[1], [-1, k, shapes[1].channels // k])
    return graph.op("Reshape", graph.op("MatMul", rows, matrix), [-1, *node.shape(*shapes)])
