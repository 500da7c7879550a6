"""Both ends of reading: the sizes that a file leaves open, and the network once all nodes are there."""

from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np

from ...chain import Chain
from ...fuse import fused, is_alone
from ...graph import INPUT
from ...network import Layer, Network
from ...nodes import Pick
from ...window import Window
from . import quant
from .made import NODES, Made
from .values import Tensor, channels_of


def sizes(dims: list, graph, shapes: dict, most: int) -> list[int]:
    """Sizes of the axes behind the batch's, [] dims of the file's input; 1 where it leaves them open, but for the axis
    that the first weights tell."""
    own = list(dims[1:] if len(dims) > 1 else dims)
    if None not in own:
        return own
    for node in graph.node:
        place = {"Conv": 1, "Gemm": 1, "MatMul": 1}.get(node.op_type)
        weight = shapes.get(node.input[1]) if place and len(node.input) > 1 else None
        if weight and len(weight) > 1 and 0 < prod(weight) <= most:
            break
    else:
        return [1 if size is None else size for size in own]
    given = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv":
        axis, size = 0, weight[1] * max(1, given.get("group", 1))
    else:
        axis, size = len(own) - 1, weight[1 if node.op_type == "Gemm" and given.get("transB") else -2]
        if node.op_type == "Gemm" and own[axis] is None:
            size = max(1, size // prod(1 if s is None else s for s in own))
    return [size if k == axis and s is None else 1 if s is None else s for k, s in enumerate(own)]


def finished(made: Made, tensor: Tensor, rank: int, open: bool) -> tuple[Network, list[str]]:
    """(Network, notes) of all nodes. A row of layers on the channels of each position is one over vectors, as ever."""
    nodes, notes = fused(*_ended(made, tensor))
    nodes, formats = _unmarked(_chained(nodes, made.blocks), made.formats)
    table = _names(nodes, made.named)
    nodes = [replace(n, name=table.get(n.name, n.name), inputs=tuple(table.get(i, i) for i in n.inputs)) for n in nodes]
    formats, weights = ({table.get(k, k): fmt for k, fmt in own.items()} for own in (formats, made.weights))
    network = Network(nodes, made.shapes[INPUT])
    alike = [isinstance(n, Pick) or isinstance(n, Layer) and n.window is None for n in network.nodes]
    row = all(isinstance(node, Layer) and not node.beyond_row() for node in network.nodes)
    row = row and all(set(source) == {k} for k, source in enumerate(network.sources))
    row = row and (network.shape.positions == 1 or made.out == made.along)
    if open and not (all(alike) and made.out in (None, made.along)):
        node = network.nodes[alike.index(False) if False in alike else -1]
        raise ValueError(
            f"its input leaves sizes open, and {node.name!r} needs them; export it with all sizes but the batch's fixed"
        )
    said = [f"layers: {', '.join(node.name for node in network.nodes)}"]
    if row or open:
        network = Network(network.nodes, network.shape.channels)
        if made.along == rank - 1 and rank != 2:
            said.append("vectors are what lies along the last axis")
        elif rank > 2:
            flat = "the input flattened, its last axis fastest"
            said.append(f"vectors are {flat if made.along is None else 'the channels of a pixel'}")
    elif rank > 2:
        said.append(f"maps are {network.shape}, channels {'first' if made.along == 1 else 'last'} in the file")
    if made.out is not None and network.shapes[-1].positions > 1:
        said.append(
            f"outputs are maps {network.shapes[-1]}, channels {'first' if made.out == 1 else 'last'} in the file"
        )
    network, more = quant.with_formats(network, formats, weights)
    return network, [*said, *made.notes, *(note for note in notes if "a layer of" in note), *more]


def _ended(made, t):
    """(nodes, the name of the one that gives the numbers of a tensor): those that it needs, in order."""
    t = made.known(t)
    if t.node == INPUT:
        raise ValueError("the nodes do not lead from the input to the output through a dense layer")
    shape = made.shapes[t.node]
    if shape.positions == 1 or t.array.ndim < 3:
        if not np.array_equal(t.array.ravel(), np.arange(shape.size)) or shape.positions > 1:
            t = made.vector(t)
    else:
        t = made.settled(t)
        axes = [made.along or 1, 1, *range(t.array.ndim - 1, 1, -1)]
        axes = [axis for axis in axes if axis < t.array.ndim]
        found = {axis: channels_of(np.moveaxis(t.array, axis, -1), made.shapes[t.node]) for axis in axes}
        made.out = next((axis for axis, index in found.items() if index is not None), None)
        if made.out is None:
            raise ValueError("the output's axes are mixed; whole axes can be moved")
        t = replace(t, node=made.pick((t.node,), found[made.out]))
    needed, nodes = {t.node}, []
    for node in reversed(made.nodes.values()):
        if node.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    if len(nodes) > NODES:
        raise ValueError(f"has {len(nodes)} nodes that compute, {NODES} are the limit")
    return nodes[::-1], t.node


def _chained(nodes, blocks):
    """Nodes, the layers of which that are factors of one chain in one, and zeros around a map with what takes it.

    blocks: of products with matrices, whether these work block by block; one of a chain's does.
    """
    nodes = {node.name: node for node in nodes}
    uses = Counter(source for node in nodes.values() for source in node.inputs)
    for name, node in list(nodes.items()):
        first = nodes.get(node.inputs[0])
        if not all(isinstance(one, Layer) for one in (first, node)) or uses[first.name] > 1:
            continue
        if _pads(first) and not (node.window and node.window.outside):
            window = node.window or Window(1)
            padding = tuple(map(sum, zip(window.padding, first.window.padding)))
            nodes[name] = replace(node, window=replace(window, padding=padding), inputs=first.inputs + node.inputs[1:])
        elif (
            blocks.get(first.name, 0) + blocks.get(name, 0) and {first.name, name} <= {*blocks} and _plain(first, node)
        ):
            chain = Chain((*first.chain.factors, *node.chain.factors))
            nodes[name] = replace(node, chain=chain, window=first.window, inputs=first.inputs + node.inputs[1:])
        else:
            continue
        del nodes[first.name]
    return list(nodes.values())


def _plain(first, node):
    """Whether two layers do nothing between their chains."""
    return not first.parts[first.window is not None :] and node.window is None and not any(map(is_alone, (first, node)))


def _pads(layer):
    """Whether it gives a map with zeros around, and does nothing else."""
    window = layer.window
    if window is None or layer.parts[1:] or not window.size == window.stride == (1, 1):
        return False
    return is_alone(replace(layer, window=None))


def _unmarked(nodes, formats):
    """(nodes without the marks of roundings, {node: format}): a node that only a mark takes has the mark's format."""
    nodes, formats = {node.name: node for node in nodes}, dict(formats)
    uses = Counter(source for node in nodes.values() for source in node.inputs)
    table = {}
    for name in [name for name in nodes if name in formats]:
        source = table.get(nodes[name].inputs[0], nodes[name].inputs[0])
        if uses[source] == 1 and source != INPUT and (source not in formats or formats[source] == formats[name]):
            table[name], formats[source] = source, formats.pop(name)
            uses[source] = uses[name]
            del nodes[name]
    made = [replace(node, inputs=tuple(table.get(source, source) for source in node.inputs)) for node in nodes.values()]
    return made, formats


def _names(nodes, named):
    """{name: another}: layers of a row without names of their own are numbered."""
    if all(isinstance(node, Layer) for node in nodes) and not all(named.get(node.name) for node in nodes):
        return {node.name: str(k) for k, node in enumerate(nodes)}
    return {}
