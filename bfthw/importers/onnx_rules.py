"""What ONNX itself says of a file: opsets, attributes, how constants broadcast (onnx/docs/Broadcasting.md, IR.md)."""

from ..reading import first_line, short

DOMAINS = ("", "ai.onnx")  # two names of the same operators
OLDEST = 7  # the opset from which Add and Gemm broadcast as numpy does, aligned at the last axis
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def opened(onnx, model, tensors):
    """(context for `check_node`, the input's dimensions with None for unknown ones, notes) of a model.

    ValueError for opsets of no known meaning, for functions of its own, and for parts that only training uses.
    """
    newest = onnx.defs.onnx_opset_version()
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if len(versions) != 1 or not OLDEST <= max(versions) <= newest:
        found = ", ".join(map(str, sorted(versions))) or "none"
        raise ValueError(f"its opset of ai.onnx must be one from {OLDEST} to {newest}, got {found}")
    for name in ("functions", "training_info"):
        if len(getattr(model, name)):
            raise ValueError(f"has {name.replace('_', ' ')}, which may change what its nodes compute and are not read")
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
        raise ValueError(f"its input must be of {' or '.join(FLOATS)}, got type {own.elem_type}")
    if not own.shape.dim:
        raise ValueError("its input must be declared with a shape")
    return context, [d.dim_value if d.HasField("dim_value") else None for d in own.shape.dim], notes


def attributes(onnx, node, context):
    """{name: value} of a node that is as its operator's schema wants it; ValueError else."""
    same = onnx.NodeProto()
    same.CopyFrom(node)
    same.domain = ""
    if any(a.ref_attr_name for a in node.attribute):
        raise ValueError("refers to an attribute of a function")
    try:
        onnx.checker.check_node(same, context)
    except Exception as error:  # onnx has errors of its own
        raise ValueError(f"not as ONNX has it: {first_line(error)}") from None
    if not node.output[0]:
        raise ValueError("its first output has no name")
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def bias(name, array, outputs, rank, behind=0):
    """A constant that is added to every vector alike, as (outputs,); ValueError for what ONNX broadcasts otherwise.

    rank: of the array that it is added to; behind: axes behind that of the vectors' values.
    """
    shape, at = array.shape, array.ndim - 1 - behind
    rest = shape[: max(at, 0)] + shape[max(at + 1, 0) :]
    if len(shape) > rank or set(rest) - {1} or (at >= 0 and shape[at] not in (1, outputs)):
        wanted = (outputs, *[1] * behind)
        raise ValueError(
            f"{short(name)} must be a bias of {outputs} values: ONNX aligns shapes at the last axis, so one number, "
            f"{wanted} or that with ones in front, {rank} axes at most; got shape {shape}"
        )
    return array.reshape(-1) if array.size == outputs else array.reshape(-1).repeat(outputs)


def convolution(weight, given):
    """Whether a Conv is pointwise, its attributes `given`; ValueError, with what is not, else."""
    rank = weight.ndim - 2
    odd = [key for key in ("strides", "dilations") if given.get(key, [1] * rank) != [1] * rank]
    odd += ["pads"] * (given.get("pads", [0] * 2 * rank) != [0] * 2 * rank)
    odd += ["auto_pad"] * (given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"))
    odd += ["kernel_shape"] * (given.get("kernel_shape", [1] * rank) != [1] * rank)
    if weight.ndim < 3 or set(weight.shape[2:]) != {1} or odd:
        raise ValueError(
            f"only 1x1 kernels with stride 1 and no padding are taken, got {weight.shape} {' '.join(odd)}".rstrip()
        )


def check_model(onnx, model):
    """ValueError where onnx's checker, or its inference of types and shapes, finds a fault; weights are left out."""
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
        graph.output.append(
            onnx.helper.make_tensor_value_info(value.name, type.elem_type, [None] * len(type.shape.dim))
        )
    try:
        onnx.checker.check_model(light, full_check=True)
    except Exception as error:  # onnx has errors of its own
        raise ValueError(f"not as ONNX has it: {first_line(error)}") from None
