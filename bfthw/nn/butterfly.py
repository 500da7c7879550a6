"""A chain of factors as a torch module, over vectors and over the channels of images."""

from collections.abc import Iterable
from typing import Self

import torch
from torch import nn

from .. import chain as chains
from ..structures import way
from .multiply import apply_chain


class Butterfly(nn.Module):
    """y = relu(scale * (B x + x) + bias) over the last dimension, B a chain of factors (Alizadeh et al., CVPR 2020).

    shape, outputs: n and m, n where it is left out, for the chain of `structures.way`: any n and m, never dense from 16
    on. Exactly chosen: with base=k the base-k Butterfly Transform over n = k^L values; as shape a chain of patterns
    (a, b, c, d), first applied first. x (..., inputs) -> (..., outputs); the dense matrix is never formed.
    residual: first-to-last, before scale and bias; None means: wherever there are as many outputs as inputs.
    Parameters `factors.<m>` of shape (a, b, c, d), started as in section 3.4 of the paper; `bias` (outputs,) or None;
    `scale` (outputs,), None until `fold` puts a batch norm there. Buffers: `index.<m>` of Indexed patterns; `flags` =
    (1, residual, relu), or with such patterns (2, residual, relu, inputs), lets a state_dict describe itself; loading
    one with another index or other flags is an error.
    Raises ValueError where the patterns do not chain, n is no power of base, or a residual has unequal sizes.
    """

    over = "the last axis"

    def __init__(
        self, shape: int | chains.Patterns, outputs: int | None = None, *, base: int | None = None,
        residual: bool | None = None, bias: bool = False, relu: bool = False,
    ) -> None:
        super().__init__()
        self.patterns = _Whole(_patterns(type(self).__name__, shape, outputs, base))
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

    @classmethod
    def of(
        cls, patterns: chains.Patterns, values: Iterable[torch.Tensor], *, bias: torch.Tensor | None = None,
        scale: torch.Tensor | None = None, residual: bool = False, relu: bool = False,
    ) -> Self:
        """A layer of its own, in float64, with these numbers, tensors; values: as `fill` takes them."""
        result = cls(patterns, residual=residual, relu=relu).double()
        result.fill(values)
        for key, given in (("bias", bias), ("scale", scale)):
            setattr(result, key, None if given is None else nn.Parameter(given.detach().cpu().double().clone()))
        return result

    def fill(self, values: Iterable[torch.Tensor]) -> None:
        """Puts values, a tensor (a, b, c, d) of each factor, in the place of those that are there."""
        with torch.no_grad():
            for own, given in zip(self.factors, values):
                if own.shape != given.shape:  # copy_ would repeat them
                    raise ValueError(f"weights of shape {tuple(given.shape)} do not fit, {tuple(own.shape)} are wanted")
                own.copy_(given)

    # read only, because `flags` says the same
    @property
    def residual(self) -> bool:
        return self._residual

    @property
    def relu(self) -> bool:
        return self._relu

    def reset_parameters(self) -> None:
        """The paper's start for the edges, zero for the bias."""
        y = chains.initial_range(self.patterns)
        for values in self.factors:
            nn.init.uniform_(values, -y, y)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _flags(self):
        rest = [int(self.residual), int(self.relu)]
        return [1, *rest] if not self.index._buffers else [2, *rest, self.inputs]

    def index_of(self, m: int) -> torch.Tensor | None:
        """The index of factor m, an int64 tensor (outputs, c), or None."""
        return self.index._buffers.get(str(m))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != self.inputs:
            raise ValueError(f"{type(self).__name__} takes (..., {self.inputs}), got {tuple(x.shape)}")
        y = x.reshape(-1, self.inputs)
        y = apply_chain(self.patterns, list(self.factors), [self.index_of(m) for m in range(len(self.patterns))], y)
        y = y.reshape(*x.shape[:-1], self.outputs)
        if self.residual:
            y = y + x
        if self.scale is not None:
            y = y * self.scale
        if self.bias is not None:
            y = y + self.bias
        return torch.relu(y) if self.relu else y

    def extra_repr(self) -> str:
        stages, dense = ", ".join(map(str, self.patterns)), self.inputs * self.outputs
        weights = sum(p.weights for p in self.patterns)
        cost = f"{weights} weights = {100 * weights / dense:.3g} % of dense"
        parts = f"residual={self.residual}, bias={self.bias is not None}, relu={self.relu}"
        return f"{self.inputs} -> {self.outputs}, {cost}, [{stages}], {parts}"

    def __repr__(self):
        return f"{self._get_name()}({self.extra_repr()})"  # a line: its factors would say the patterns again


class _Whole(tuple):
    """A tuple that torch.export leaves whole: it would make Indexed patterns anew of their four numbers."""


def _patterns(owner, shape, outputs, base):
    """The chain that a layer's arguments name."""
    if not isinstance(shape, int):
        shape = chains.patterns(shape)
        if base is not None:
            raise ValueError(f"{owner}: base= is for a number of values, not for a chain of patterns")
        if outputs not in (None, shape[-1].outputs):
            raise ValueError(f"{owner}: the patterns give {shape[-1].outputs} values, not {outputs}")
        return shape
    if base is None:
        return way(shape, outputs).patterns
    if outputs not in (None, shape) or any(r != base for r in chains.factorise(shape, base)):
        raise ValueError(
            f"{owner}: with base={base} there must be a power of {base} of values and as many outputs, got {shape} -> "
            f"{shape if outputs is None else outputs}; without base= it takes {way(shape, outputs)} weights"
        )
    return chains.bft(shape, base)


class ButterflyPointwise(Butterfly):
    """A butterfly over the channels of NCHW or CHW, in the place of nn.Conv2d(n, m, 1, bias=False), any n and m.

    (N, n, H, W) -> (N, m, H, W), the memory format kept. patterns: a chain instead of the chosen one. The rest, the
    state_dict too, is `Butterfly`'s. Raises ValueError where patterns do not fit.
    """

    over = "channels"

    def __init__(
        self, n: int, m: int | None = None, *, base: int | None = None, patterns: chains.Patterns | None = None,
        residual: bool | None = None, bias: bool = False, relu: bool = False,
    ) -> None:
        if patterns is not None:
            patterns, m = chains.patterns(patterns), n if m is None else m
            if (patterns[0].inputs, patterns[-1].outputs) != (n, m):
                raise ValueError(
                    f"ButterflyPointwise: the patterns map {patterns[0].inputs} -> {patterns[-1].outputs}, the "
                    f"channels are {n} -> {m}"
                )
        shape, outputs = (n, m) if patterns is None else (patterns, None)
        super().__init__(shape, outputs, base=base, residual=residual, bias=bias, relu=relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
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


class Structured(nn.Module):
    """Base of layers that are a chain by another name: `to_butterfly` gives the equal Butterfly, in float64.

    over: what vectors lie along in the input, "the last axis" or "channels"; None where either may be.
    """

    over: str | None = None

    def to_butterfly(self) -> Butterfly:
        raise NotImplementedError
