"""The layers of the papers as torch modules: each a Butterfly of given patterns with the start its authors gave it.

Arguments are (inputs, outputs, ...), as of nn.Linear; x (..., inputs) -> (..., outputs). Over channels: `Pointwise`.
"""

from typing import Any

import torch
from torch import nn

from .. import chain as chains
from .. import structures
from .butterfly import Butterfly, Structured
from .multiply import apply


class _Linear(Butterfly):
    """A Butterfly without the residual, which belongs to the Butterfly Transform alone.

    Factors start uniform with bounds 1/sqrt(c), those of nn.Linear.
    """

    def __init__(self, shape: int | chains.Patterns, *, bias: bool = False, relu: bool = False) -> None:
        super().__init__(shape, residual=False, bias=bias, relu=relu)

    def reset_parameters(self) -> None:
        for values in self.factors:
            nn.init.uniform_(values, -(values.shape[2] ** -0.5), values.shape[2] ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Deformable(_Linear):
    """The chain of `structures.debut_chain`, with its options (Lin et al., "Deformable Butterfly", NeurIPS 2021).

    Factors start normal with deviation 1/sqrt(c): the authors' 1/sqrt(2) keeps the variance for c = 2, this for any c.
    """

    def __init__(
        self, inputs: int, outputs: int, kind: str = "monotonic", *, bias: bool = False, relu: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(structures.debut_chain(outputs, inputs, kind, **options), bias=bias, relu=relu)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for values in self.factors:
            nn.init.normal_(values, std=values.shape[2] ** -0.5)


class Monarch(_Linear):
    """Two block-diagonal factors, `structures.padded_monarch` (Dao et al., 2022); starts as their MonarchLinear."""

    def __init__(self, inputs: int, outputs: int, blocks: int = 4, *, bias: bool = False, relu: bool = False) -> None:
        super().__init__(structures.padded_monarch(outputs, inputs, blocks), bias=bias, relu=relu)


class FixedButterfly(_Linear):
    """Truncated butterfly, dense core, transposed truncated butterfly; starts as `structures.fixed_butterfly` says.

    seed: also of which values are kept, so it belongs to the layer's structure.
    """

    def __init__(
        self, inputs: int, outputs: int, k1: int | None = None, k2: int | None = None, *, seed: int = 0,
        bias: bool = False, relu: bool = False,
    ) -> None:
        self._made = {"outputs": outputs, "inputs": inputs, "k1": k1, "k2": k2, "seed": seed}
        super().__init__(structures.fixed_butterfly(**self._made).patterns, bias=bias, relu=relu)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.fill(torch.from_numpy(factor.values) for factor in structures.fixed_butterfly(**self._made).factors)


class CyclicSupport(_Linear):
    """Cyclic support layers over any n values, `structures.csc` (Hosseini et al., TVLSI 29(10), 2021)."""

    def __init__(self, n: int, fan: int, *, bias: bool = False, relu: bool = False) -> None:
        super().__init__(structures.csc(n, fan), bias=bias, relu=relu)


class LowRank(_Linear):
    """inputs -> rank -> outputs, two dense factors."""

    def __init__(self, inputs: int, outputs: int, rank: int, *, bias: bool = False, relu: bool = False) -> None:
        super().__init__(chains.low_rank(outputs, inputs, rank), bias=bias, relu=relu)


class Grouped(_Linear):
    """A grouped pointwise convolution: one block-diagonal factor."""

    def __init__(self, inputs: int, outputs: int, groups: int, *, bias: bool = False, relu: bool = False) -> None:
        super().__init__(chains.grouped(outputs, inputs, groups), bias=bias, relu=relu)


class Invertible(Butterfly):
    """A butterfly with an exact inverse (Meng et al., "ButterflyFlow", ICML 2022).

    shape: n, for the base-k butterfly, or patterns with b = c. Blocks start as random orthogonal ones, so log_det is 0
    (as for the 1x1 convolution of Kingma and Dhariwal, "Glow", NeurIPS 2018).
    Raises ValueError for patterns that have no inverse.
    """

    def __init__(self, shape: int | chains.Patterns, *, base: int = 2, bias: bool = False) -> None:
        shape = chains.bft(shape, base) if isinstance(shape, int) else chains.patterns(shape)
        for m, p in enumerate(shape):
            if isinstance(p, chains.Indexed) or p.b != p.c:
                raise ValueError(f"Invertible: factor {m}, {p}, has no square blocks (b = c) to invert")
        super().__init__(shape, residual=False, bias=bias)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        blocks = (torch.linalg.qr(torch.randn_like(values.permute(0, 3, 1, 2))).Q for values in self.factors)
        self.fill(each.permute(0, 2, 3, 1) for each in blocks)

    def log_det(self) -> torch.Tensor:
        """log |det| of the layer: of all blocks of all factors, summed. A scalar, differentiable."""
        return sum(torch.linalg.slogdet(values.permute(0, 3, 1, 2)).logabsdet.sum() for values in self.factors)

    def solve(self, y: torch.Tensor) -> torch.Tensor:
        """The x with forward(x) = y, (..., n), differentiable."""
        x = y.reshape(-1, self.outputs)
        if self.bias is not None:
            x = x - self.bias
        for values in reversed(self.factors):
            blocks = torch.linalg.inv(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = apply(blocks, x)
        return x.reshape(y.shape)

    def inverse(self) -> "Invertible":
        """The inverse as a layer, without gradient: `Chain.inverse`, with its errors, and the bias -B^-1 bias."""
        chain = chains.Chain(chains.Factor(v.detach().cpu().double().numpy()) for v in self.factors).inverse()
        result = Invertible(chain.patterns, bias=self.bias is not None).to(self.factors[0])
        result.fill(torch.from_numpy(factor.values) for factor in chain.factors)
        if self.bias is not None:
            with torch.no_grad():
                result.bias.copy_(self.solve(torch.zeros_like(self.bias)))
        return result


class Circulant(Structured):
    """y[j] = sum_i weight[(j - i) mod n] x[i] with n = max(inputs, outputs): one vector of n parameters, by FFT.

    Trained so; hardware gets the dense factor that `to_butterfly` gives, inputs * outputs multiplications a vector.
    """

    over = "the last axis"

    def __init__(self, inputs: int, outputs: int | None = None, *, bias: bool = False) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, inputs if outputs is None else outputs
        chains._check_sizes("Circulant", inputs=self.inputs, outputs=self.outputs)
        n = max(self.inputs, self.outputs)
        self.weight = nn.Parameter(torch.empty(n).uniform_(-(self.inputs**-0.5), self.inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(self.outputs)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != self.inputs:
            raise ValueError(f"Circulant takes (..., {self.inputs}), got {tuple(x.shape)}")
        n = len(self.weight)
        y = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(self.weight), n)[..., : self.outputs]
        return y if self.bias is None else y + self.bias

    def to_butterfly(self) -> Butterfly:
        j, i = torch.arange(self.outputs)[:, None], torch.arange(self.inputs)
        values = self.weight[(j - i) % len(self.weight)][None, ..., None]
        return Butterfly.of(chains.dense(self.outputs, self.inputs), [values], bias=self.bias)


class Pointwise(Structured):
    """Any layer of vectors, Butterfly or Structured, over the channels of NCHW or CHW, as nn.Conv2d(n, m, 1)."""

    over = "channels"

    def __init__(self, layer: Butterfly | Structured) -> None:
        super().__init__()
        if not isinstance(layer, Butterfly | Structured):
            raise TypeError(f"Pointwise takes a layer of bfthw.nn, got {type(layer).__name__}")
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim not in (3, 4):
            raise ValueError(f"Pointwise takes (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
        return self.layer(x.movedim(-3, -1)).movedim(-1, -3)

    def to_butterfly(self) -> Butterfly:
        return self.layer.to_butterfly() if isinstance(self.layer, Structured) else self.layer
