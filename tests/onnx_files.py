"""ONNX models for the tests, and how a network that was read from one takes the same inputs."""

import warnings

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import bfthw
from bfthw import Settings


def model(nodes, tensors, shape=("N", 4), opset=17, kind=TensorProto.FLOAT, ir=8, **rest):
    """A model x -> y; a node is (operator, inputs, outputs, attributes), its name "/number/operator"."""
    made = [
        helper.make_node(op, names, [outs] if isinstance(outs, str) else outs, name=f"/{k}/{op}", **given)
        for k, (op, names, outs, given) in enumerate(nodes)
    ]
    x, y = helper.make_tensor_value_info("x", kind, shape), helper.make_empty_tensor_value_info("y")
    y.type.tensor_type.elem_type = kind
    tensors = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    rest.setdefault("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(helper.make_graph(made, "g", [x], [y], tensors), ir_version=ir, **rest)


def written(path, made):
    path.write_bytes(made.SerializeToString())
    return path


def outputs(loaded, x, shape):
    """What a read network makes of the file's input x, as an array of the file's output's shape."""
    network, notes = loaded.network, " ".join(loaded.notes)
    first = (
        "vectors are the channels of a pixel" in notes or "channels first in the file" in notes.split("outputs are")[0]
    )
    flat = not first and network.inputs == x[0].size or "flattened" in notes
    given = x.reshape(len(x), -1) if flat and network.shape.positions == 1 else np.moveaxis(x, 1, -1) if first else x
    lead = given.shape[: given.ndim - 1] if network.shape.positions == 1 else (len(x),)
    y = network(given.reshape(-1, *network.shape.dims))
    if y.ndim == 2:
        y = y.reshape(*lead, network.outputs)
    if y.ndim > 2 and (
        first
        if y.shape[1:-1] == lead[1:] and len(lead) > 1
        else "outputs are" in notes and "channels first" in notes.split("outputs are")[1]
    ):
        y = np.moveaxis(y, -1, 1)
    return y.reshape(shape)


def quantised(network, x, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bfthw.compile(network, settings=Settings(**settings), calibration=x, allow_constant=True)
