"""Butterfly layers for torch: train, fold a batch norm, hand over to `Network`; needs torch, as `bfthw.qat` does."""

from copy import deepcopy

import torch
from torch import nn

from . import chain as chains
from .chain import Chain, Factor
from .network import Layer, Network


def apply(values, x, index=None):
    """values (a, b, c, d) on x (N, inputs) -> (N, a*b*d); the torch twin of `chain.apply`. index: of an Indexed pattern."""
    a, b, c, d = values.shape
    if index is not None:
        return sum(values[:, 0, k, 0] * x[:, index[:, k]] for k in range(c))
    return torch.einsum("ijkl,nikl->nijl", values, x.reshape(-1, a, c, d)).reshape(-1, a * b * d)


class Butterfly(nn.Module):
    """y = relu(scale * (B x + x) + bias) over the last dimension, B a chain of factors (Alizadeh et al., CVPR 2020).

    shape: n, for the base-k Butterfly Transform over n = base^L values, or a chain of patterns (a, b, c, d), first
    applied first. x (..., inputs) -> (..., outputs); the dense matrix is never formed.
    residual: first-to-last, before scale and bias; None means: wherever there are as many outputs as inputs.
    Parameters `factors.<m>` of shape (a, b, c, d), started as in section 3.4 of the paper; `bias` (outputs,) or None;
    `scale` (outputs,), None until `fold` puts a batch norm there. Buffers: `index.<m>` of Indexed patterns; `flags` =
    (1, residual, relu), or with such patterns (2, residual, relu, inputs), lets a state_dict describe itself; loading one
    with another index or other flags is an error.
    Raises ValueError where the patterns do not chain or a residual has unequal sizes.
    """

    def __init__(self, shape, *, base=4, residual=None, bias=False, relu=False):
        super().__init__()
        self.patterns = chains.bft(shape, base) if isinstance(shape, int) else chains.patterns(shape)
        self.inputs, self.outputs = self.patterns[0].inputs, self.patterns[-1].outputs
        self._residual = self.inputs == self.outputs if residual is None else bool(residual)
        self._relu = bool(relu)
        if self.residual and self.inputs != self.outputs:
            raise ValueError(
                f"{type(self).__name__}: a residual needs as many outputs as inputs, "
                f"got {self.inputs} -> {self.outputs}"
            )
        self.factors = nn.ParameterList(torch.empty(tuple(p)) for p in self.patterns)
        self.index = nn.Module()
        for m, pattern in enumerate(self.patterns):
            if isinstance(pattern, chains.Indexed):
                self.index.register_buffer(str(m), torch.from_numpy(pattern.index.copy()))
        self.bias = nn.Parameter(torch.empty(self.outputs)) if bias else None
        self.register_parameter("scale", None)
        self.register_buffer("flags", torch.tensor(self._flags()))
        self.register_load_state_dict_pre_hook(_check_flags)
        self.reset_parameters()

    # read only, because `flags` says the same
    @property
    def residual(self):
        return self._residual

    @property
    def relu(self):
        return self._relu

    def reset_parameters(self):
        """The paper's start for the edges, zero for the bias."""
        y = chains.initial_range(self.patterns)
        for values in self.factors:
            nn.init.uniform_(values, -y, y)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _flags(self):
        rest = [int(self.residual), int(self.relu)]
        return [1, *rest] if not self.index._buffers else [2, *rest, self.inputs]

    def index_of(self, m):
        """The index of factor m, an int64 tensor (outputs, c), or None."""
        return self.index._buffers.get(str(m))

    def forward(self, x):
        if x.shape[-1] != self.inputs:
            raise ValueError(f"{type(self).__name__} takes (..., {self.inputs}), got {tuple(x.shape)}")
        y = x.reshape(-1, self.inputs)
        for m, values in enumerate(self.factors):
            y = apply(values, y, self.index_of(m))
        y = y.reshape(*x.shape[:-1], self.outputs)
        if self.residual:
            y = y + x
        if self.scale is not None:
            y = y * self.scale
        if self.bias is not None:
            y = y + self.bias
        return torch.relu(y) if self.relu else y

    def extra_repr(self):
        stages = ", ".join(map(str, self.patterns))
        return f"{self.inputs} -> {self.outputs}, [{stages}], residual={self.residual}, relu={self.relu}"


class ButterflyPointwise(Butterfly):
    """A butterfly over the channels of NCHW or CHW, in the place of nn.Conv2d(n, m, 1, bias=False).

    (N, n, H, W) -> (N, m, H, W), the memory format kept. patterns: the chain, needed where n != m or n is no power of
    `base`. The rest, the state_dict too, is `Butterfly`'s. Raises ValueError where patterns are missing or do not fit.
    """

    def __init__(self, n, m=None, *, base=4, patterns=None, residual=None, bias=False, relu=False):
        m = n if m is None else m
        if patterns is None and n != m:
            raise ValueError(
                f"ButterflyPointwise: {n} -> {m} channels need a chain of their own, for example "
                f"patterns=chain.monarch({m}, {n}, blocks=...), or any (a, b, c, d) that chain"
            )
        if patterns is None and any(r != base for r in chains.factorise(n, base)):
            raise ValueError(
                f"ButterflyPointwise: {n} channels are no power of base {base}; name the chain, for example "
                f"patterns=chain.mixed_radix(chain.factorise({n}, {base}))"
            )
        super().__init__(n if patterns is None else patterns, base=base, residual=residual, bias=bias, relu=relu)
        if (self.inputs, self.outputs) != (n, m):
            raise ValueError(
                f"ButterflyPointwise: the patterns map {self.inputs} -> {self.outputs}, the channels are {n} -> {m}"
            )

    def forward(self, x):
        if x.ndim not in (3, 4) or x.shape[-3] != self.inputs:
            raise ValueError(f"ButterflyPointwise takes (N, {self.inputs}, H, W), got {tuple(x.shape)}")
        y = super().forward(x.movedim(-3, -1)).movedim(-1, -3)
        channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return y.contiguous(memory_format=torch.channels_last) if channels_last else y.contiguous()


def _check_flags(module, state_dict, prefix, _metadata, _strict, _missing, _unexpected, errors):
    flags = state_dict.get(prefix + "flags")
    if flags is not None and flags.tolist() != module._flags():
        errors.append(
            f"{prefix}flags (version, residual, relu) must be {module._flags()} for this module, got {flags.tolist()}"
        )
    for m, pattern in enumerate(module.patterns):
        given = state_dict.get(f"{prefix}index.{m}")
        if isinstance(pattern, chains.Indexed) and given is not None and given.tolist() != pattern.index.tolist():
            errors.append(f"{prefix}index.{m} must be that of this module's patterns, found another")


def parameter_groups(model, weight_decay):
    """Two groups for an optimiser: what weight decay may touch, and what it must not.

    Butterfly factors are exempt: an output is a product of one weight of each stage, so decay shrinks it to the power
    of the number of stages (the CVPR paper asks for little or none). So are all one-dimensional parameters:
    biases, scales, norms. Parameters that need no gradient are left out.
    """
    butterflies = [m for m in model.modules() if isinstance(m, Butterfly)]
    exempt = {id(p) for module in butterflies for p in module.parameters()}
    wanted = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in wanted if id(p) not in exempt and p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in wanted if id(p) in exempt or p.ndim <= 1], "weight_decay": 0.0},
    ]


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
    """Butterfly, Linear or 1x1 Conv2d -> an equal Butterfly in float64; None for any other module."""
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
                f"{where} is a {type(module).__name__}; supported are Butterfly, ButterflyPointwise, Linear, "
                "Conv2d 1x1, BatchNorm1d/2d, ReLU, Flatten, Identity, Dropout and Sequential of them"
            )
    if not found:
        raise ValueError("to_network: the model has no layer with weights")
    return Network(layers=tuple(to_layer(butterfly, name) for name, butterfly in found))
