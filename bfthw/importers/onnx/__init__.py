""".onnx files as graphs, each operator by its own rules.

Operators are those of the ONNX specification (https://onnx.ai/onnx/operators/), and QONNX's Quant. Adding one is a
function in one of the modules below, registered by name; a module of its own is named in MODULES.
"""

from collections import Counter
from pathlib import Path

from ...graphfile import check_sizes
from ...network import Network
from ...reading import LIMIT, CheckpointError, first_line, nearest, owned, read_bytes, reader, short
from ..protobuf import check_fields
from . import elementwise, ends, joins, layers, moves, quant, rules, tensors, windows
from .made import RAW, Made
from .registry import INSTEAD, OPERATORS, POINTWISE, Call
from .values import Tensor

MODULES = (layers, elementwise, windows, moves, joins, quant)
CHANNELS_FIRST = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization")


@reader
def read(path: str | Path, limit: int = LIMIT) -> tuple[Network, list[str]]:
    """(Network, notes) of an .onnx file; CheckpointError names the node that cannot be taken."""
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
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1 or graph.sparse_initializer:
        raise CheckpointError(
            f"{path}: must have one input, one output and no sparse tensors, "
            f"got {len(inputs)}, {len(graph.output)} and {len(graph.sparse_initializer)}"
        )
    with owned(path):
        context, dims, notes = rules.opened(onnx, model, constants)
        store = tensors.Store(onnx, path, constants, len(data), limit)
        file = _File(onnx, model, context, dims, store)
        network, more = file.follow(path, inputs[0])
        check_sizes(network)
        rules.check_model(onnx, model, file.axes)
    return network, ["format recognised: onnx", *more, *notes]


class _File:
    """The nodes of a file one after the other. values: {name: Tensor} of those still needed; given: all names so far;
    uses: {name: nodes to come that take it}; held: numbers of all values together; axes: of the output's.

    dims: of the input, None for open ones. open: whether its positions are; untold: whether its only size is, and
    no weight tells it; batched: whether its first axis may be longer than 1.
    """

    def __init__(self, onnx, model, context, dims, store):
        self.onnx, self.graph, self.context, self.store = onnx, model.graph, context, store
        sizes = ends.sizes(dims, self.graph, store.shapes, store.most)
        self.open = len(dims) > 2 and None in dims[1:]
        self.untold = len(dims) < 3 and None in dims[-1:] and sizes == [1]
        self.batched = len(dims) > 1 and dims[0] != 1
        first = len(dims) == 4 or any(node.op_type in CHANNELS_FIRST for node in self.graph.node)
        self.made = Made(([1] if len(dims) > 1 else []) + sizes, first, dims[0], store.spend, store.most)
        self.values, self.given, self.held, self.rank, self.axes = {}, set(), 0, len(dims), 0
        self.uses = Counter(name for node in self.graph.node for name in node.input)
        self.uses.update([self.graph.output[0].name])
        self.made.open = self.open

    def follow(self, path: Path, name: str) -> tuple[Network, list[str]]:
        """(Network, notes); CheckpointError names the node that cannot be taken."""
        self._bind(name, self.made.input)
        for number, node in enumerate(self.graph.node):
            with owned(f"{path}: node {number}, {node.op_type} {short(node.name)}", (ValueError, TypeError)):
                self._take(node)
        given = self.values.get(self.graph.output[0].name)
        if given is None or given.node is None or given.step:
            raise ValueError("the nodes do not lead from the input to the output through a dense layer")
        self.axes = given.array.ndim
        if self.untold and given.node != RAW:
            raise ValueError("its input leaves sizes open, and no weights tell them; export it with fixed sizes")
        return ends.finished(self.made, given, self.rank, self.open)

    def _bind(self, name, tensor):
        if name in self.given or name in self.store.shapes:
            raise ValueError(f"gives {short(name)}, which another one gives already")
        self.given.add(name)
        if self.uses[name]:
            self.values[name] = tensor
            self.held += tensor.array.size
        if self.held > 3 * self.store.most:
            raise ValueError(f"more than {3 * self.store.most} numbers at once, the limit of a file of this size")

    def _take(self, node):
        domain = "" if node.domain in rules.DOMAINS else node.domain
        domain = "qonnx.custom_op.general" if domain == "onnx.brevitas" else domain
        if node.op_type == "Constant" and not domain:
            return self._bind(node.output[0], rules.constant(self.onnx, node, self.context, self.store))
        found = OPERATORS.get((domain, node.op_type))
        if found is None:
            instead = INSTEAD.get(node.op_type)
            own = f" of {short(domain)}" if domain else ""
            hint = f"; {instead} would be" if instead else nearest(node.op_type, (name for _, name in OPERATORS))
            raise ValueError(f"an operator{own} that is not read{hint}; docs/onnx.md has those that are")
        given = rules.attributes(self.onnx, node, self.context, self.store, checked=not domain)
        inputs = [self._input(name) if name else None for name in node.input]
        if self.open and node.op_type not in POINTWISE and any(t is not None and t.node for t in inputs):
            raise ValueError(
                "needs the sizes of all axes, and the file's input leaves some open; export it with fixed sizes"
            )
        if node.op_type != "DequantizeLinear" and any(t is not None and t.step for t in inputs):
            raise ValueError("takes the integers of QuantizeLinear; behind that DequantizeLinear alone is read")
        for name in node.input:
            self.uses[name] -= 1
            if not self.uses[name] and name in self.values:
                self.held -= self.values.pop(name).array.size
        call = Call(
            op=node.op_type,
            inputs=inputs,
            names=list(node.input),
            outputs=len(node.output),
            given=given,
            made=self.made,
            batched=self.batched,
            kinds=self.store.kinds(node.input),
            last=node.output[0] == self.graph.output[0].name,
        )
        results = found(call)
        for name, tensor in zip(node.output, results if isinstance(results, list) else [results]):
            if name:
                self._bind(name, tensor)

    def _input(self, name):
        if name in self.values:
            return self.values[name]
        if name not in self.store.shapes:
            raise ValueError(f"{short(name)} must be a tensor of the file or what a node before gives, there is none")
        return Tensor(array=self.store.array(name))
