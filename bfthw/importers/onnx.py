""".onnx files: a straight line of dense layers, with their biases and ReLUs.

Operators are those of the ONNX specification: Gemm, MatMul, Add of a bias, Conv with a 1x1 kernel, Relu; Flatten,
Identity and Dropout do nothing here. A file's tensors must be in the file itself: nothing beside it is ever opened.
"""

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from ..chain import Chain, Factor, check_name
from ..network import Layer, Network
from ..reading import LIMIT, CheckpointError, first_line, owned, read_bytes, reader, room, short
from . import onnx_rules
from .protobuf import check_fields

SKIPPED = ("Flatten", "Identity", "Dropout")
TAKEN = ("Gemm", "MatMul", "Add", "Conv", "Relu")


@reader
def read(path, limit=LIMIT):
    """(layers, notes) of an .onnx file; CheckpointError names the node that cannot be taken."""
    path = Path(path)
    try:
        import onnx
    except ImportError:
        raise CheckpointError(f"{path}: .onnx files need onnx: pip install 'bfthw[onnx]'") from None
    data = read_bytes(path, most=limit // 4, least=1)
    try:
        check_fields(data, onnx.ModelProto.DESCRIPTOR)
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises whatever the damage leads to
        raise CheckpointError(f"{path}: not a valid .onnx file: {type(error).__name__}: {first_line(error)}") from None
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in tensors]
    if len(inputs) != 1 or len(graph.output) != 1 or graph.sparse_initializer:
        raise CheckpointError(
            f"{path}: must have one input, one output and no sparse tensors, "
            f"got {len(inputs)}, {len(graph.output)} and {len(graph.sparse_initializer)}"
        )
    with owned(path):
        context, dims, notes = onnx_rules.opened(onnx, model, tensors)
        nodes = _Nodes(path, onnx, tensors, context, dims, room(len(data), limit) - len(data))
        layers, more = nodes.follow(graph, inputs[0])
        Network(layers=layers)  # says by name what does not chain
        onnx_rules.check_model(onnx, model)
    return layers, [*more, *notes]


class _Nodes:
    """The nodes one after the other, as layers."""

    def __init__(self, path, onnx, tensors, context, dims, room):
        """room: bytes that the layers' numbers may take."""
        self.path, self.onnx, self.tensors, self.context, self.room = path, onnx, tensors, context, room
        self.layers, self.names, self.notes = [], [], []
        self.dims, self.rank = dims, len(dims)  # of the input, and of the value that comes now
        self.axes = 0  # behind that of the vectors' values

    def follow(self, graph, value):
        users = Counter(name for node in graph.node for name in node.input)
        for number, node in enumerate(graph.node):
            with owned(f"{self.path}: node {number}, {node.op_type} {short(node.name)}", (ValueError, TypeError)):
                if node.op_type == "Constant":
                    self._constant(node)
                    continue
                if users[value] != 1:
                    raise ValueError(f"{short(value)} goes to {users[value]} nodes, a straight line has one")
                self._take(node, value)
            value = node.output[0]
        if value != graph.output[0].name or not self.layers:
            raise CheckpointError(
                f"{self.path}: the nodes do not lead from the input to the output through a dense layer"
            )
        own = len(set(self.names)) == len(self.names) and None not in self.names
        names = self.names if own else [str(number) for number in range(len(self.layers))]
        notes = ["format recognised: onnx", f"layers: {', '.join(names)}", *self.notes]
        if self.axes:
            notes.append("vectors are the channels of a pixel")
        elif self.rank != 2:
            notes.append("vectors are what lies along the last axis")
        return [replace(layer, name=name) for layer, name in zip(self.layers, names)], notes

    def _constant(self, node):
        given = onnx_rules.attributes(self.onnx, node, self.context)
        if set(given) != {"value"}:
            raise ValueError("only constants that are tensors are taken")
        self.tensors[node.output[0]] = given["value"]

    def _take(self, node, value):
        if node.domain not in onnx_rules.DOMAINS or node.op_type not in TAKEN + SKIPPED:
            raise ValueError(f"only {', '.join(TAKEN + SKIPPED)} are taken")
        attributes = onnx_rules.attributes(self.onnx, node, self.context)
        at = [k for k, name in enumerate(node.input) if name == value]
        if at not in ([0], [1]) or (at == [1] and node.op_type != "Add"):
            raise ValueError("takes another input than what the node before gives: only a straight line is read")
        if node.op_type in SKIPPED:
            self._skip(node, attributes)
        elif node.op_type == "Relu":
            self._open("Relu")
            self.layers[-1] = replace(self.layers[-1], relu=True)
        elif node.op_type == "Add":
            layer, name = self._open("a bias"), node.input[1 - at[0]]
            bias = self._bias(name, layer.chain.outputs, self.rank, self.axes)
            self.layers[-1] = replace(layer, bias=bias if layer.bias is None else layer.bias + bias)
        else:
            self._layer(node, attributes)

    def _skip(self, node, attributes):
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and self._tensor(node.input[2]).any():
            raise ValueError("training_mode is on: it draws by chance what it drops")
        if node.op_type != "Flatten":
            return
        if attributes.get("axis", 1) != 1:
            raise ValueError(f"only axis 1 is taken, got {attributes['axis']}")
        if self.rank != 2 and (self.layers or self.rank == 1):
            raise ValueError("behind layers whose values are no matrix (N, values) it would join their vectors")
        if self.rank != 2:
            self.notes.append("vectors are the input flattened, its last axis fastest")
            known = None not in self.dims[1:]
            self.dims, self.rank = [None, int(np.prod(self.dims[1:], dtype=object)) if known else None], 2

    def _layer(self, node, attributes):
        conv, weight = node.op_type == "Conv", self._tensor(node.input[1])
        if self.layers and conv != bool(self.axes):
            raise ValueError(
                "a Conv beside Gemm or MatMul is not read: one works on channels, the other on the last axis"
            )
        chain, factor = getattr(self, f"_{node.op_type.lower()}")(weight, attributes)
        rank = {"Gemm": 2, "MatMul": self.rank, "Conv": weight.ndim}[node.op_type]
        if self.rank != rank:
            raise ValueError(f"takes an array of {rank} axes, here it has {self.rank}")
        self.rank, self.axes = rank, weight.ndim - 2 if conv else 0
        if not self.layers and self.dims[1 if conv else -1] not in (None, chain.inputs):
            raise ValueError(f"takes {chain.inputs} values, the file's input is declared as {self.dims}")
        bias = None
        if len(node.input) > 2 and node.input[2]:
            if conv and (shape := self._tensor(node.input[2]).shape) != (chain.outputs,):
                raise ValueError(f"its bias must have shape ({chain.outputs},), got {shape}")
            bias = factor * self._bias(node.input[2], chain.outputs, 2)
        self.layers.append(Layer(chain=chain, bias=bias, name=str(len(self.layers))))
        self.names.append(_name(node.input[1]))

    def _open(self, what):
        """The last layer, which nothing has ended yet."""
        if not self.layers or self.layers[-1].relu:
            raise ValueError(f"{what} needs a dense layer before it")
        return self.layers[-1]

    def _gemm(self, weight, attributes):
        if attributes.get("transA", 0):
            raise ValueError("transA = 1 would mix the vectors of a batch")
        weight = weight if attributes.get("transB", 0) else weight.T
        return _dense(attributes.get("alpha", 1.0) * weight), attributes.get("beta", 1.0)

    def _matmul(self, weight, _):
        return _dense(weight.T), 1.0

    def _conv(self, weight, attributes):
        onnx_rules.convolution(weight, attributes)
        groups, (out, each) = attributes.get("group", 1), weight.shape[:2]
        if groups < 1 or out % groups:
            raise ValueError(f"group = {groups} does not divide {out} outputs")
        return Chain((Factor(weight.reshape(groups, out // groups, each, 1)),)), 1.0

    def _tensor(self, name):
        if name not in self.tensors:
            raise ValueError(f"{short(name)} must be a tensor of the file, so that the line stays straight")
        tensor = self.tensors[name]
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"{short(name)} is in another file; save the model with its weights inside")
        # wrong sizes, odd types
        with owned(f"{short(name)} is no array of real numbers", Exception, ValueError):
            if min(tensor.dims, default=0) < 0:
                raise ValueError(f"a dimension is negative: {list(tensor.dims)}")
            self._spend(prod(tensor.dims))
            array = self.onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind == "c":
                raise ValueError(f"got {array.dtype}")
            return np.asarray(array, np.float64)

    def _bias(self, name, *shape):
        """Numbers (outputs,) of a tensor by onnx_rules.bias; shape: outputs, rank and axes."""
        self._spend(shape[0])
        return onnx_rules.bias(name, self._tensor(name), *shape)

    def _spend(self, count):
        """ValueError where all numbers so far, those of tensors that are used again included, take too much memory."""
        self.room -= 26 * count  # as they are, as float64, twice, and a mask
        if self.room < 0:
            raise ValueError("the layers unpack to more memory than a file of this size may take")


def _dense(weight):
    if weight.ndim != 2:
        raise ValueError(f"the weight must have two dimensions, got {weight.shape}")
    return Chain((Factor(weight[None, ..., None]),))


def _name(tensor):
    """The layer's name by its weight's, `fc1` of `fc1.weight`, None where there is none."""
    try:
        return check_name(tensor.removesuffix(".weight")) if tensor.endswith(".weight") else None
    except ValueError:
        return None
