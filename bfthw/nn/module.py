"""A whole float network as a torch module to train, made from its graph, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..chain import Chain, Pattern
from ..network import Layer, Network
from ..nodes import Product
from ..window import to_map, to_value
from .butterfly import Butterfly, Structured
from .multiply import apply

ACTS = {
    "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid,
    "silu": F.silu, "tanh": torch.tanh,
}


class GraphModule(nn.Module):
    """A float `Network` as a module: (N, *dims of its shape), channels last -> (N, *dims of its output); in
    float64, as the network is, until `.float()`.

    norm: batch norms take the place of scales that differ from output to output (and of the bias behind them); in eval
    mode they begin as exactly those. A scale that is one number stays that number, and so do factors of nothing but 0
    and 1, which add up. dropout: {node: share} of what nodes give.
    Layers whose chain is one convolution are computed as one by torch. `to_network` is the way back.
    Raises ValueError for an activation with a function of its own, which torch does not have.
    """

    def __init__(self, network: Network, *, norm: bool = False, dropout: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.network, self.matrices = network, []
        self.layers = nn.ModuleDict({_key(layer.name): GraphLayer(layer, norm) for layer in network.layers})
        self.dropout = nn.ModuleDict({_key(name): nn.Dropout(share) for name, share in (dropout or {}).items()})

    def layer(self, name: str) -> "GraphLayer":
        return self.layers[_key(name)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.matrices = []

        def step(node, *xs):
            if isinstance(node, Product):
                self.matrices.append(xs[1])
            y = self.layer(node.name)(*xs) if isinstance(node, Layer) else node(*xs)
            return self.dropout[_key(node.name)](y) if _key(node.name) in self.dropout else y

        for _, y in self.network.walk(x.reshape(-1, *self.network.shape.dims), step):
            pass
        return y

    def penalty(self) -> torch.Tensor | int:
        """Mean |A A^T - I| of square matrices of more than 3 rows in the last forward (PointNet, section 4.2); or 0."""
        found = 0
        for given in self.matrices:
            n = round(given.shape[1] ** 0.5)
            a = given.float().reshape(-1, n, n)
            found = found + (n > 3) * (a @ a.mT - torch.eye(n, device=a.device)).norm(dim=(1, 2)).mean()
        return found

    def reset_parameters(self) -> Self:
        """Matrices, kernels and batch norms as torch starts them; butterflies and biases stay. Returns itself."""
        for layer in self.layers.values():
            if layer.norm is not None:
                layer.norm.reset_parameters()
            if isinstance(layer.chain, Single):
                layer.chain.reset_parameters()
        return self

    def to_network(self) -> Network:
        """The float `Network` with the weights as they are, batch norms folded."""
        nodes = [self.layer(n.name).to_layer() if isinstance(n, Layer) else n for n in self.network.nodes]
        return Network(nodes, self.network.shape)


def _key(name):
    return name.replace(".", "_")


class Single(Structured):
    """A chain of one factor: no butterfly, so weight decay is for it, see `parameter_groups`."""

    over = "the last axis"

    def __init__(self, patterns, residual):
        super().__init__()
        self.factors = nn.ParameterList(torch.empty(tuple(p)) for p in patterns)

    def reset_parameters(self):
        for values in self.factors:
            if values.requires_grad:
                nn.init.uniform_(values, -(values.shape[2] ** -0.5), values.shape[2] ** -0.5)

    def forward(self, x):
        y = apply(self.factors[0], x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], -1)

    def to_butterfly(self):
        return Butterfly.of([Pattern(*values.shape) for values in self.factors], self.factors)


class GraphLayer(nn.Module):
    """A `Layer` on (N, *dims). chain: its factors. norm, scale, add_scale, bias: those there are."""

    def __init__(self, layer, norm):
        super().__init__()
        self.node, outputs = layer, layer.chain.outputs
        if layer.act is not None and layer.act.name not in ACTS:
            raise ValueError(f"layer {layer.name!r}: torch has no activation {layer.act.name!r}")
        one = len(layer.chain.factors) == 1 and layer.chain.factors[0].support is None
        self.chain = (Single if one else Butterfly)(layer.chain.patterns, residual=False).double()
        for own, factor in zip(self.chain.factors, layer.chain.factors):
            own.data.copy_(torch.from_numpy(factor.values))
            own.requires_grad_(not np.isin(factor.values, (0, 1)).all())
        self.conv = convolution(layer)
        normed = norm and layer.scale is not None and layer.bias is not None and np.ptp(layer.scale) > 0
        self.norm = nn.BatchNorm1d(outputs).double() if normed else None
        self.inside = normed and layer.adds and np.array_equal(layer.scale, layer.add_scale)  # in front of the norm
        for key in ("scale", "add_scale", "bias"):
            value = getattr(layer, key)
            here = value is None or normed and (key != "add_scale" or self.inside)
            made = None if here else nn.Parameter(torch.from_numpy(value.copy()), key != "scale" or bool(np.ptp(value)))
            self.register_parameter(key, made)
        if normed:
            self.norm.running_var.fill_(1 - self.norm.eps)
            for own, value in ((self.norm.weight, layer.scale), (self.norm.bias, layer.bias)):
                own.data.copy_(torch.from_numpy(value))

    def forward(self, x, add=None):
        y = self._vectors(x)
        if self.inside:
            y = y + add
        if self.norm is not None:
            y = self.norm(y.reshape(-1, y.shape[-1])).reshape(y.shape)
        if self.scale is not None:
            y = y * self.scale
        if add is not None and not self.inside:
            y = y + (add if self.add_scale is None else add * self.add_scale)
        if self.bias is not None:
            y = y + self.bias
        return y if self.node.act is None else ACTS[self.node.act.name](y)

    def _vectors(self, x):
        """What the chain makes of the layer's input."""
        if self.conv is None:
            return self.chain(self.node.vectors(x))
        return convolve(x, self.conv(self.chain.factors[0]), self.node.window)

    def to_layer(self):
        """The `Layer` with the weights as they are."""

        def numbers(p):
            return None if p is None else p.detach().double().cpu().numpy().copy()

        parts = {key: numbers(getattr(self, key)) for key in ("scale", "add_scale", "bias")}
        if self.norm is not None:
            scale = numbers(self.norm.weight) / np.sqrt(numbers(self.norm.running_var) + self.norm.eps)
            parts |= {"scale": scale, "bias": numbers(self.norm.bias) - numbers(self.norm.running_mean) * scale}
            parts |= {"add_scale": scale} if self.inside else {}
        factors = zip(self.node.chain.factors, self.chain.factors)
        return replace(self.node, chain=Chain(replace(f, values=numbers(v)) for f, v in factors), **parts)


def convolution(layer):
    """A layer's window and one factor as torch's weight (m, n/g, kh, kw): a function of the values; None where it is
    no convolution."""
    window, (factor, *more) = layer.window, layer.chain.factors
    if window is None or more or window.outside or factor.support is not None:
        return None
    (a, b, c, d), (kh, kw), taps = factor.values.shape, window.size, window.taps
    channels = factor.pattern.inputs // taps
    q, swap = window.block or channels, window.order == "kx"
    size = (kw, kh) if swap else (kh, kw)
    if (a, b, c, q) == (1, 1, taps, d):  # depthwise

        def shaped(values):
            return values.reshape(taps, channels).t().reshape(channels, 1, *size)

    elif d == 1 and c % (taps * q) == 0:  # full, or of a groups

        def shaped(values):
            blocks = values.reshape(a * b, c // (taps * q), taps, q).transpose(2, 3)
            return blocks.reshape(a * b, c // taps, *size)

    else:
        return None
    return (lambda values: shaped(values).transpose(2, 3)) if swap else shaped


def convolve(x, weight, window):
    """Maps (N, *dims), channels last, and a weight of `convolution` -> (N, *dims of the output)."""
    top, left, bottom, right = window.padding
    x = to_map(x).permute(0, 3, 1, 2)
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    y = F.conv2d(x, weight, None, window.stride, (top, left), groups=x.shape[1] // weight.shape[1])
    return to_value(y.permute(0, 2, 3, 1))
