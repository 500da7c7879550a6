"""From trained modules to a `Network`: batch norms folded, ReLUs joined, dense layers taken along."""

from copy import deepcopy

import torch
from torch import nn

from .. import chain as chains
from ..chain import Chain, Factor
from ..network import Layer, Network
from .butterfly import Butterfly, ButterflyPointwise, Structured


def fold(butterfly, norm):
    """A copy of `butterfly` that does what `norm` in eval mode does after it.

    scale' = scale * g and bias' = bias * g + beta - mean * g with g = gamma / sqrt(var + eps), in float64, stored in
    the butterfly's own dtype. Raises TypeError unless norm is BatchNorm1d or 2d; ValueError where the sizes differ, the
    norm has no running statistics, or the butterfly ends in a ReLU, through which nothing can be folded.
    """
    if not _is(norm, nn.BatchNorm1d, nn.BatchNorm2d):
        raise TypeError(f"fold takes a BatchNorm1d or BatchNorm2d, got {type(norm).__name__}")
    if norm.num_features != butterfly.outputs:
        raise ValueError(f"fold: the norm has {norm.num_features} features, the butterfly {butterfly.outputs} outputs")
    if norm.running_mean is None:
        raise ValueError("fold: the norm has no running statistics (track_running_stats=False)")
    if butterfly.relu:
        raise ValueError("fold: a batch norm after a ReLU cannot be folded into the layer before it")
    result = deepcopy(butterfly)
    with torch.no_grad():
        gain = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            gain = gain * norm.weight.double()
        bias = -norm.running_mean.double() * gain
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        if butterfly.bias is not None:
            bias = bias + butterfly.bias.double() * gain
        if butterfly.scale is not None:
            gain = gain * butterfly.scale.double()
        dtype = butterfly.factors[0].dtype
        result.scale, result.bias = nn.Parameter(gain.to(dtype)), nn.Parameter(bias.to(dtype))
    return result


def _is(module, *kinds):
    """Whether the module is of a kind and still computes what the kind does."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def _leaves(module, path):
    """(path, module) of everything in nested Sequentials, in the order of use."""
    if not _is(module, nn.Sequential):
        yield path, module
        return
    # a module that stands twice must be seen twice, so not named_children()
    for name, child in module.named_modules(remove_duplicate=False):
        if name and "." not in name:
            yield from _leaves(child, f"{path}.{name}" if path else name)


def _linear(module, where):
    """A Butterfly, a Structured layer, Linear or 1x1 Conv2d -> an equal Butterfly in float64; None for others."""
    if isinstance(module, Structured):
        module = module.to_butterfly()
    if _is(module, Butterfly, ButterflyPointwise):
        result = Butterfly(module.patterns, residual=module.residual, relu=module.relu).double()
        values, scale = list(module.factors), module.scale
    elif _is(module, nn.Linear):
        result = Butterfly(chains.dense(module.out_features, module.in_features), residual=False).double()
        values, scale = [module.weight[None, ..., None]], None
    elif _is(module, nn.Conv2d):
        if module.kernel_size != (1, 1) or module.stride != (1, 1) or module.padding not in ((0, 0), "same", "valid"):
            raise ValueError(
                f"{where}: only pointwise convolutions (kernel 1x1, stride 1, no padding) are supported, got {module}"
            )
        g, m, n = module.groups, module.out_channels, module.in_channels
        result = Butterfly(chains.grouped(m, n, g), residual=False).double()
        values, scale = [module.weight.reshape(g, m // g, n // g, 1)], None
    else:
        return None
    with torch.no_grad():
        for own, given in zip(result.factors, values):
            own.copy_(given)
        for key, given in (("bias", module.bias), ("scale", scale)):
            setattr(result, key, None if given is None else nn.Parameter(given.detach().double().clone()))
    return result


def to_layer(butterfly, name):
    """A Butterfly as a float `Layer` (numpy, float64)."""

    def numbers(p):
        return None if p is None else p.detach().cpu().double().numpy().copy()

    return Layer(
        chain=Chain(Factor(numbers(v), chains.support(p)) for v, p in zip(butterfly.factors, butterfly.patterns)),
        residual=butterfly.residual,
        scale=numbers(butterfly.scale),
        bias=numbers(butterfly.bias),
        relu=butterfly.relu,
        name=name,
    )


def to_network(model):
    """A torch model to the `Network` that it computes in eval mode, on vectors (channels of a pixel for a convolution).

    Takes Butterfly, ButterflyPointwise, nn.Linear, nn.Conv2d 1x1 (grouped too) or a Sequential, nested too, of those
    and BatchNorm1d/2d, ReLU, Flatten(1), Identity and Dropout. Batch norms and ReLUs go into the layer before them. A
    layer has its module's name, "body.0" inside a nested Sequential; "0" for a model that is one module.
    Raises TypeError for any other module, ValueError for a use of these that a Network cannot express, with the path.
    """
    found = []  # [name, butterfly in float64]
    for path, module in _leaves(model, ""):
        where = f"to_network: module {path or '0'!r}"
        if (butterfly := _linear(module, where)) is not None:
            found.append([path or "0", butterfly])
        elif _is(module, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d):
            continue
        elif _is(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise ValueError(f"{where}: only Flatten(1, -1) is supported, got {module}")
        elif _is(module, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU):
            if not found:
                raise ValueError(f"{where}: {type(module).__name__} needs a layer before it to go into")
            if _is(module, nn.ReLU):
                found[-1][1]._relu = True
                continue
            try:
                found[-1][1] = fold(found[-1][1], module)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        else:
            raise TypeError(
                f"{where} is a {type(module).__name__}; supported are Butterfly and the other layers of bfthw.nn, "
                "Linear, Conv2d 1x1, BatchNorm1d/2d, ReLU, Flatten, Identity, Dropout and Sequential of them"
            )
    if not found:
        raise ValueError("to_network: the model has no layer with weights")
    return Network(layers=tuple(to_layer(butterfly, name) for name, butterfly in found))
