"""What is written into .onnx files: nodes, constants, and the table of who writes a node."""

import json
from collections.abc import Callable

import numpy as np

from .golden import IntNetwork

OPSET, IR = 17, 8  # of 2022: old runtimes read them


class OnnxGraph:
    """Nodes and constants of a file, all of one type; names of values begin with `prefix`."""

    def __init__(self, onnx, dtype=np.int64):
        self.onnx, self.dtype, self.nodes, self.tensors, self.prefix = onnx, dtype, [], [], "input"

    def op(self, kind, *inputs, output=None, **given):
        """The name of what an operator gives. inputs: names, or numbers that become constants."""
        name = output or f"{self.prefix}/{len(self.nodes)}"
        inputs = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=f"{name}/{kind}", **given))
        return name

    def constant(self, values, dtype=None):
        name = f"{self.prefix}/constant{len(self.tensors)}"
        self.tensors.append(self.onnx.numpy_helper.from_array(np.array(values, dtype or self.dtype), name))
        return name

    def model(self, network: IntNetwork, *dims, functions=()):
        """The onnx.ModelProto from "input" to "output", values of dims behind the batch's axis; the network's formats
        are in its metadata."""
        helper, kind = self.onnx.helper, self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        ends = [helper.make_tensor_value_info(name, kind, ["N", *own]) for name, own in zip(("input", "output"), dims)]
        graph = helper.make_graph(self.nodes, "integers", ends[:1], ends[1:], self.tensors)
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(one.domain, 1) for one in functions)]
        result = helper.make_model(
            graph, opset_imports=opsets, functions=functions, ir_version=IR, producer_name="bfthw"
        )
        formats = {"input": network.input.to_list(), "output": network.output.to_list()}
        helper.set_model_props(result, {"bfthw": json.dumps(formats)})
        return result


class Writers(dict):
    """How nodes without weights are written, by class: `writer(kind)` registers a function (graph, node, names and
    Shapes of inputs) -> the name of its sums. what: the language of the file."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __call__(self, kind: type) -> Callable:
        return lambda function: self.setdefault(kind, function)

    def of(self, node) -> Callable:
        """The function of a node's class; ValueError where there is none."""
        if type(node) not in self:
            known = ", ".join(kind.__name__ for kind in self)
            own = type(node).__name__
            raise ValueError(f"node {node.name!r}: a {own} is not written as {self.what}; {known} are")
        return self[type(node)]
