"""Any torch module as a `Network`: its forward is seen at work on places of numbers, and every call makes its nodes.

Python runs as it is; so shapes that it asks for, hooks and writing into a tensor mean what they mean in torch, which a
symbolic trace does not promise. What each function of torch makes stands in bfthw.nn.rules and the modules beside it.
"""

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from ..network import Network
from . import convert, foreign, places
from .butterfly import Butterfly, Structured
from .hooks import copied, evaluated, refresh, unwrapped
from .rules_maps import rule_of
from .seen import UNARRANGED, Seen

TOLERANCE = 1e-9  # of the largest output: what was read must compute what the module does


def to_network(model: nn.Module, shape: int | Sequence[int] | None = None, notes: list[str] | None = None) -> Network:
    """A torch model to the `Network` that it computes in eval mode.

    shape: of one input, as the module takes it without the axis of the samples: (n,), (C, L) or (C, H, W). The network
    takes vectors where the module flattens its input first, else maps (H, W, C), of sequences (L, 1, C), also where the
    module has its channels last. Its outputs are arranged likewise. Nodes have the names of their modules.
    notes: a list, to which lines are added: what went into what, and what is a layer of its own and why.
    Without a shape the model is a row of layers over vectors: see `convert.row`.

    What is taken stands in bfthw.nn.rules. Batch norms, activations, constants and additions go into the layers beside
    them where that is exact. Weights are those that hooks and parametrizations make. In the end both are compared, in
    float64, on random inputs.
    Raises TypeError for what is not taken and ValueError for a use that is not, with the module's path, the line of
    the caller's code and what would be taken; ValueError where the network computes something else than the module.
    """
    if shape is None:
        return convert.row(model)
    dims = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not 1 <= len(dims) <= 3 or any(type(size) is not int or size < 1 for size in dims):
        raise ValueError(f"to_network: a shape is (n,), (C, L) or (C, H, W), positive integers, got {shape!r}")
    model = _ready(model)
    leaves = [(module, *_layer(path, module)) for path, module in _leaves(model)]
    with evaluated(model), torch.no_grad(), _doubles():
        x = torch.randn((2, *dims), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        wanted = _forward(model, x)
        seen, network, order, lines = _network(model, leaves, dims)
    given = network(x.flatten(1).numpy()[:, seen.table.order].reshape(2, *network.shape.dims))
    _compare(seen.ending(given).reshape(2, -1), wanted.flatten(1).numpy()[:, order.ravel()])
    if notes is not None:
        notes += lines
    return network


def _network(model, leaves, dims):
    """(Seen, Network, order of its outputs, notes): of the first layout of the input in which the module is taken, or
    where maps are not arranged for that in any, of the first in which rearranging them helps.
    """
    layouts = (places.flat, places.first, places.last) if len(dims) > 1 else (places.first,)
    for rearranges in (False, True):
        refusal = None
        for layout in layouts:
            seen = Seen(layout(dims), rule_of, rearranges)
            try:
                return seen, *seen.network(_watched(model, leaves, seen, dims))
            except (ValueError, TypeError) as error:
                if refusal is None or layout is places.first:
                    refusal = error
        if UNARRANGED not in str(refusal):
            break
        layouts = (places.first, places.last)[: len(layouts)]
    raise refusal


def _ready(model):
    """A copy in float64 on the CPU, without wrappers inside."""
    model = copied(unwrapped(model))
    for path, module in model.named_modules():
        where = f"to_network: module {path or '0'!r}"
        if type(module).__module__.partition(".")[0] == "brevitas":
            raise TypeError(
                f"{where} is Brevitas's {type(module).__name__}, whose forward rounds; the .onnx file that "
                "brevitas.export.export_qonnx writes would be read, formats and all"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{where} is a {type(module).__name__}, a closed one; give the module that it was made of")
        for name, child in module.named_children():
            if (inner := unwrapped(child)) is not child:
                setattr(module, name, inner)
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if value.is_meta or isinstance(value, nn.parameter.UninitializedTensorMixin):
                raise ValueError(f"{where}: {name!r} has no values (device meta, or a lazy module)")
            if value.is_complex():
                raise ValueError(f"{where}: {name!r} must be real numbers, got {value.dtype}")
    return model.cpu().double()


@contextmanager
def _doubles():
    """New tensors are of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _forward(model, x):
    """What the module itself makes of x."""
    try:
        y = model(x)
    except Exception as error:  # of a stranger's code: it takes other inputs, or none
        dims = ", ".join(map(str, x.shape[1:]))
        raise ValueError(f"to_network: the module takes no input (N, {dims}): {_told(error)}") from None
    if not isinstance(y, torch.Tensor):
        raise ValueError(
            f"to_network: the module gives a {type(y).__name__}, a network one tensor; wrap it in a module that "
            "returns one"
        )
    if y.ndim < 2 or len(y) != len(x):
        raise ValueError(f"to_network: of {len(x)} samples the module makes {tuple(y.shape)}, not an output for each")
    return y


def _told(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _watched(model, leaves, seen, dims):
    """What the model gives, as Places. leaves: (module, Layer, what it works along) of what is one node each."""
    for module, layer, over in leaves:
        module.forward = lambda x, layer=layer, over=over: seen.asked("", seen.leaf, layer, over, x)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            enter, leave = seen.around(path, module)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        stack.enter_context(seen)
        try:
            y = model(places.tensor(seen.table.input.reshape(dims)))
        except Exception as error:  # refused here, or of a stranger's code
            if seen.refusal is None:
                raise ValueError(f"to_network: {seen.where(error=error)}: its forward says {_told(error)}") from None
        if seen.refusal is not None:  # torch turns a TypeError of an operator into one of its own
            raise seen.refusal from None
        return y


def _leaves(module, path=""):
    """(path, module) of the layers that are one node each."""
    if isinstance(module, Butterfly | Structured) or any(kind.is_of(module) for kind in foreign.KINDS):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _leaves(child, f"{path}.{name}" if path else name)


def _layer(path, module):
    """(Layer, what it works along) of a butterfly, or of a layer of another project."""
    where = f"to_network: module {path or '0'!r}"
    try:
        with evaluated(module), torch.no_grad():
            refresh(module)
            butterfly = convert._linear(module)
            found = foreign.read(module, "0") if butterfly is None else (convert.to_layer(butterfly, "0"), module.over)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if found is None:
        raise TypeError(f"{where} is a {type(module).__name__}, with a forward of its own")
    return found


def _compare(given, wanted):
    worst, largest = np.abs(given - wanted).max(), np.abs(wanted).max()
    if not worst <= TOLERANCE * largest:
        raise ValueError(
            f"to_network: what was read differs from the module by {worst:.3g}, of outputs up to {largest:.3g}: "
            "it draws by chance, or computes beside torch's functions; those parts must be left out"
        )
