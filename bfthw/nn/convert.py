"""From trained modules to a `Network`: batch norms folded, ReLUs joined, dense layers taken along."""

from copy import deepcopy

import torch
from torch import nn

from .. import chain as chains
from ..chain import Chain, Factor
from ..line import Line, affine, behind
from ..network import Layer, Network
from ..reading import owned
from . import foreign
from .butterfly import Butterfly, ButterflyPointwise, Structured
from .foreign import CHANNELS, LAST, POINTS
from .hooks import evaluated, is_plain, refresh, refuse_hooks, unwrapped

# what vectors may lie along in torch's own modules
OVER = {nn.Linear: (LAST,), nn.BatchNorm1d: (LAST, POINTS), nn.Conv1d: (POINTS,)}
OVER |= {nn.Conv2d: (CHANNELS,), nn.BatchNorm2d: (CHANNELS,)}


def fold(butterfly: Butterfly, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Butterfly:
    """A copy of `butterfly` that does what `norm` in eval mode does after it.

    scale' = scale * g and bias' = bias * g + beta - mean * g with g = gamma / sqrt(var + eps), in float64, stored in
    the butterfly's own dtype. Raises TypeError unless norm is BatchNorm1d or 2d; ValueError where the sizes differ, the
    norm has no running statistics, or the butterfly ends in a ReLU, through which nothing can be folded.
    """
    gain, shift = gain_and_shift(norm)
    if norm.num_features != butterfly.outputs:
        raise ValueError(f"fold: the norm has {norm.num_features} features, the butterfly {butterfly.outputs} outputs")
    with owned("fold", error=ValueError):
        layer = behind(to_layer(butterfly, "0"), gain, shift)
    result = deepcopy(butterfly)
    for key in ("scale", "bias"):
        setattr(result, key, nn.Parameter(torch.from_numpy(getattr(layer, key)).to(butterfly.factors[0])))
    return result


def gain_and_shift(norm):
    """What a batch norm in eval mode does, x * gain + shift, in numpy and float64; errors as of `fold`."""
    if not is_plain(norm, nn.BatchNorm1d, nn.BatchNorm2d):
        raise TypeError(f"fold takes a BatchNorm1d or BatchNorm2d, got {type(norm).__name__}")
    if norm.running_mean is None:
        raise ValueError("fold: the norm has no running statistics (track_running_stats=False)")
    refresh(norm)
    return affine(*map(numbers, (norm.running_mean, norm.running_var, norm.weight, norm.bias)), norm.eps)


def numbers(p):
    """A tensor in numpy, float64, its own; None for None."""
    return None if p is None else p.detach().cpu().double().numpy().copy()


def _leaves(module, path):
    """(path, module) of everything in nested Sequentials, in the order of use."""
    with _at(path):
        module = unwrapped(module)
        if not is_plain(module, nn.Sequential):
            yield path, module
            return
        refuse_hooks(module)
    # a module that stands twice must be seen twice, so not named_children()
    for name, child in module._modules.items():
        yield from _leaves(child, f"{path}.{name}" if path else name)


def _at(path):
    """ValueErrors with the path of the module that they are about."""
    return owned(f"to_network: module {path or '0'!r}", error=ValueError)


def _linear(module):
    """A Butterfly, a Structured layer, Linear or Conv of kernel 1 -> an equal Butterfly in float64; None for others."""
    if isinstance(module, Structured):
        if not all(_agrees(one) for one in module.modules() if isinstance(one, Structured)):
            return None
        module = module.to_butterfly()
    if is_plain(module, Butterfly, ButterflyPointwise):
        how = {"scale": module.scale, "residual": module.residual, "relu": module.relu}
        return Butterfly.of(module.patterns, module.factors, bias=module.bias, **how)
    if is_plain(module, nn.Linear):
        shape, values = chains.dense(module.out_features, module.in_features), module.weight[None, ..., None]
    elif is_plain(module, nn.Conv1d, nn.Conv2d):
        padded = module.padding not in ("same", "valid") and any(module.padding)
        if {*module.kernel_size, *module.stride} != {1} or padded:
            raise ValueError(
                f"only pointwise convolutions (kernel 1x1, stride 1, no padding) are supported, got {module}"
            )
        g, m, n = module.groups, module.out_channels, module.in_channels
        shape, values = chains.grouped(m, n, g), module.weight.reshape(g, m // g, -1, 1)
    else:
        return None
    return Butterfly.of(shape, [values], bias=module.bias)


def _agrees(module):
    """Whether a Structured layer's to_butterfly speaks of its forward, so stands in no class above the forward's."""
    kinds = type(module).__mro__
    first, second = (next(kinds.index(k) for k in kinds if name in vars(k)) for name in ("to_butterfly", "forward"))
    return first <= second and "forward" not in vars(module)


def _over(module, before, own=None):
    """What vectors may lie along behind a module, () for unknown; ValueError where it isn't what they lie along before.

    own: that of the module, where it is known. A Flatten makes them lie along the last axis: with as many values behind
    it as channels, an image has one pixel.
    """
    if isinstance(module, nn.Flatten):
        return (LAST,)
    if isinstance(module, Butterfly | Structured):
        own = module.over and (module.over,)
    elif own is None:
        own = next((over for kind, over in OVER.items() if isinstance(module, kind)), None)
    common = tuple(over for over in own if over in before) if own and before else own or before
    if own and not common:
        raise ValueError(
            f"works along {' or '.join(own)}, what stands before it along {' or '.join(before)}; a Flatten between "
            "them makes vectors of the channels of an image of one pixel"
        )
    return common


def to_layer(butterfly: Butterfly, name: str) -> Layer:
    """A Butterfly as a float `Layer` (numpy, float64)."""
    return Layer(
        chain=Chain(Factor(numbers(v), chains.support(p)) for v, p in zip(butterfly.factors, butterfly.patterns)),
        scale=numbers(butterfly.scale), bias=numbers(butterfly.bias),
        residual=butterfly.residual, relu=butterfly.relu, name=name,
    )


def row(model: nn.Module) -> Network:
    """A torch model to the `Network` that it computes in eval mode, on vectors (channels of a pixel for a convolution).

    Takes Butterfly, ButterflyPointwise, nn.Linear, nn.Conv1d and nn.Conv2d of kernel 1 (grouped too), layers of other
    projects (`foreign.KINDS`), or a Sequential, nested too, of those and BatchNorm1d/2d, ReLU, Flatten(1), Identity and
    Dropout, also inside torch.compile's and DataParallel's wrappers.
    Layers of channels and of the last axis do not mix, but for a Flatten of images of one pixel between them.
    ReLUs go into the layer before them, and so do batch norms; behind a ReLU or in front of all layers they go into the
    layer behind. Weights that torch's own hooks make (weight_norm, spectral_norm, pruning) are made afresh. A layer has
    its module's name, "body.0" inside a nested Sequential; "0" for a model that is one module.
    Raises TypeError for any other module, ValueError for a use of these that a Network cannot express and for hooks of
    unknown effect, with the path.
    """
    line, over = Line(), ()
    for path, module in _leaves(model, ""):
        with _at(path), torch.no_grad():
            own = None
            refresh(module)
            with evaluated(module):
                butterfly = _linear(module)
                other = foreign.read(module, path or "0") if butterfly is None else None
            if butterfly is not None:
                line.layer(to_layer(butterfly, path or "0"))
            elif other is not None:
                layer, along = other
                own = (along,)
                line.layer(layer)
            elif is_plain(module, nn.BatchNorm1d, nn.BatchNorm2d):
                line.norm(path, *gain_and_shift(module))
            elif is_plain(module, nn.ReLU):
                line.relu()
            elif is_plain(module, nn.Flatten):
                if (module.start_dim, module.end_dim) != (1, -1):
                    raise ValueError(f"only Flatten(1, -1) is supported, got {module}")
            elif not is_plain(module, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d):
                raise TypeError(
                    f"to_network: module {path or '0'!r} is a {type(module).__name__}; supported are Butterfly and the "
                    "other layers of bfthw.nn, Linear, Conv1d and Conv2d of kernel 1, BatchNorm1d/2d, ReLU, Flatten, "
                    "Identity, Dropout and Sequential of them, with the forward that torch or bfthw gave them, and "
                    f"{', '.join(dict.fromkeys(kind.name for kind in foreign.KINDS))} of other projects"
                )
            over = _over(module, over, own)
    try:
        layers = line.end()
    except ValueError as error:
        raise ValueError(f"to_network: module {error}") from None
    if not layers:
        raise ValueError("to_network: the model has no layer with weights")
    return Network(layers=tuple(layers))
