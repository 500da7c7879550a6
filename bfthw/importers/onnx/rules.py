"""What ONNX itself says of a file: opsets, attributes, how constants broadcast (onnx/docs/Broadcasting.md, IR.md)."""

import numpy as np

from ... import to_qonnx
from ...reading import first_line
from .tensors import Store
from .values import Tensor

DOMAINS = ("", "ai.onnx")  # two names of the same operators
OLDEST = 7  # the opset from which Add and Gemm broadcast as numpy does, aligned at the last axis
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def opened(onnx, model, tensors: dict) -> tuple:
    """(context for `check_node`, the input's dimensions with None for unknown ones, notes) of a model.

    ValueError for opsets of no known meaning, for functions of its own other than the Quant that bfthw writes, and for
    parts that only training uses.
    """
    newest = onnx.defs.onnx_opset_version()
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if len(versions) != 1 or not OLDEST <= max(versions) <= newest:
        found = ", ".join(map(str, sorted(versions))) or "none"
        raise ValueError(f"its opset of ai.onnx must be one from {OLDEST} to {newest}, got {found}")
    strange = [one.name for one in model.functions if one != to_qonnx.function(onnx)]
    for what, there in (("functions", strange), ("training info", model.training_info)):
        if there:
            raise ValueError(f"has {what}, which may change what its nodes compute and are not read")
    names = [tensor.name for tensor in model.graph.initializer]
    if len(names) != len(tensors):
        raise ValueError("two of its tensors have the same name")
    context = type(onnx.checker.DEFAULT_CONTEXT)()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": max(versions)}
    values = {value.name: value.type.tensor_type for value in model.graph.input}
    free = [name for name in values if name in tensors]
    notes = []
    if free and model.ir_version >= 4:
        notes.append(f"inputs of the graph with a value of their own are taken as fixed: {', '.join(free[:6])}")
    (own,) = [type for name, type in values.items() if name not in tensors]
    kinds = [onnx.TensorProto.DataType.Value(name) for name in FLOATS]
    if own.elem_type not in kinds:
        kind = onnx.TensorProto.DataType.Name(own.elem_type)
        hint = "; of integers the .npz of `quantize` is read" if "INT" in kind else ""
        raise ValueError(f"its input must be of {' or '.join(FLOATS)}, got {kind}{hint}")
    if not own.shape.dim:
        raise ValueError("its input must be declared with a shape")
    return context, [d.dim_value if d.HasField("dim_value") else None for d in own.shape.dim], notes


def attributes(onnx, node, context, store: Store, checked: bool = True) -> dict:
    """{name: value} of a node that is as its operator's schema wants it, tensors as arrays; ValueError else.

    checked: whether onnx has a schema.
    """
    same = onnx.NodeProto()
    same.CopyFrom(node)
    same.domain = ""
    if any(a.ref_attr_name for a in node.attribute):
        raise ValueError("refers to an attribute of a function")
    try:
        if checked:
            onnx.checker.check_node(same, context)
    except Exception as error:  # onnx has errors of its own
        raise ValueError(f"not as ONNX has it: {first_line(error)}") from None
    if not node.output[0]:
        raise ValueError("its first output has no name")
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    tensors = {key: value for key, value in given.items() if isinstance(value, onnx.TensorProto)}
    return given | {key: store.numbers(value, key) for key, value in tensors.items()}


def constant(onnx, node, context, store: Store) -> Tensor:
    """The Tensor of a Constant."""
    given = attributes(onnx, node, context, store)
    ((key, value),) = given.items() if len(given) == 1 else [(None, None)]
    if key not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError("only constants that are tensors are taken")
    return Tensor(array=np.asarray(value, np.int64 if "int" in key else None))


def check_model(onnx, model, rank: int) -> None:
    """ValueError where onnx's checker, or its inference of types and shapes, finds a fault; weights are left out.

    rank: axes of the output, where the file does not declare them.
    """
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    initial = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in initial)
    for tensor in model.graph.initializer:
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for value in model.graph.output:
        type = value.type.tensor_type
        axes = [None] * (len(type.shape.dim) if type.HasField("shape") else rank)
        graph.output.append(onnx.helper.make_tensor_value_info(value.name, type.elem_type, axes))
    try:
        onnx.checker.check_model(light, full_check=True)
    except Exception as error:  # onnx has errors of its own
        raise ValueError(f"not as ONNX has it: {first_line(error)}") from None
