"""Quantisation-aware training: a torch module whose integers are the golden model's."""

import numpy as np
import torch
from torch import nn

from .network import Network
from .nn import Butterfly, apply, to_layer, to_network
from .quantize import quantise, quantise_layer

EXACT_BITS = 53  # of a float64: integers up to here add and multiply without rounding


class _Straight(torch.autograd.Function):
    """Forward: the integers `q`. Backward: the gradient as if they were `x`, zero where not `inside`."""

    @staticmethod
    def forward(ctx, x, q, inside):
        ctx.save_for_backward(inside)
        return q.clone()

    @staticmethod
    def backward(ctx, grad):
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


def _round(x, fmt, frac):
    """Floats in units of 2**-frac to integers in `fmt`: halves up, saturated, with the straight-through gradient."""
    x = x * 2.0 ** (fmt.frac - frac)
    low = torch.floor(x)
    wanted = low + (x - low >= 0.5)  # x + 0.5 would be rounded itself: see QFormat.round
    q = wanted.clamp(fmt.lo, fmt.hi)
    return _Straight.apply(x, q, wanted == q)


def _weights(x, integers, fmt):
    """Trainable `x`, in units of the integers' last place, replaced by the int64 `integers` quantize made of it."""
    q = torch.from_numpy(integers).to(x)
    inside = (x.detach() >= fmt.lo - 0.5) & (x.detach() < fmt.hi + 0.5)
    return _Straight.apply(x, q, inside)


class QuantisedNetwork(nn.Module):
    """A network with rounding and saturation in its forward pass, for training at given formats.

    network: a float `Network` (what `quantize.prepare` returned, say) or a model that `to_network` takes; formats:
    quantize.Formats. Parameters are those of `layers`, one Butterfly in float64 for each layer.
    forward: floats (..., inputs) -> float64 (..., outputs), the integers of `quantise(self.to_network(), formats)`
    times 2**-frac of the last format. Gradients pass every rounding unchanged and stop where a value saturates.
    Raises ValueError where formats do not fit the network, or an accumulator could exceed the 53 bits in which float64
    is exact (in forward, because row exponents move with the weights).
    """

    def __init__(self, network, formats):
        super().__init__()
        if not isinstance(network, Network):
            network = to_network(network)
        quantise(network, formats)  # raises where they do not fit each other
        self.formats = formats
        self.names = tuple(layer.name for layer in network.layers)
        self.layers = nn.ModuleList(_module(layer) for layer in network.layers)

    def to_network(self):
        """The float `Network` as trained so far, formats attached: `compile` of it needs nothing else."""
        layers = (to_layer(module, name) for module, name in zip(self.layers, self.names))
        return Network(layers=tuple(layers), formats=self.formats)

    def _integers(self, x):
        """Floats (..., inputs) -> float64 integers (..., outputs), differentiable."""
        inputs, fmt = self.layers[0].inputs, self.formats.input
        if x.shape[-1] != inputs:
            raise ValueError(f"QuantisedNetwork takes (..., {inputs}), got {tuple(x.shape)}")
        q = _round(x.reshape(-1, inputs).double(), fmt, 0)
        for module, name, formats in zip(self.layers, self.names, self.formats.layers):
            # the weights' integers come from quantize itself, so that nothing about them is said twice
            integers = quantise_layer(to_layer(module, name), fmt, formats)
            q = _layer(module, integers, q)
            fmt = integers.factors[-1].output
        return q.reshape(*x.shape[:-1], self.layers[-1].outputs)

    def forward(self, x):
        return self._integers(x) * 2.0 ** -self.formats.layers[-1].factors[-1].output.frac

    @torch.no_grad()
    def integers(self, x):
        """Finite floats (..., inputs) -> the golden model's int64 (..., outputs)."""
        if not torch.isfinite(x).all():
            raise ValueError("QuantisedNetwork.integers: inputs must be finite, found NaN or infinity")
        return self._integers(x).to(torch.int64)


def _module(layer):
    """A float `Layer` as a Butterfly with its exact values, in float64."""
    module = Butterfly(layer.chain.patterns, residual=layer.residual, relu=layer.relu).double()
    with torch.no_grad():
        for own, factor in zip(module.factors, layer.chain.factors):
            own.copy_(torch.from_numpy(factor.values))
    for key in ("bias", "scale"):
        if (value := getattr(layer, key)) is not None:
            setattr(module, key, nn.Parameter(torch.from_numpy(value.copy())))
    return module


def _power(exponent, like):
    """2**exponent, exact, for an integer or an array of integers."""
    return torch.from_numpy(np.asarray(np.ldexp(1.0, exponent))).to(like)


def _layer(module, integers, x0):
    """One Butterfly, quantised as the IntLayer `integers` says, on integer-valued float64 x0 (N, inputs)."""
    x = x0
    for m, (values, factor) in enumerate(zip(module.factors, integers.factors)):
        if factor.acc_width > EXACT_BITS:
            raise ValueError(
                f"QuantisedNetwork: the accumulator of {integers.name}.factors.{m} needs {factor.acc_width} bits, "
                f"float64 is exact up to {EXACT_BITS}; take narrower formats"
            )
        a, b, _, d = values.shape
        last = m == len(integers.factors) - 1
        w = values.double()
        if last and module.scale is not None:
            w = w * module.scale.double().reshape(a, b, 1, d)
        extra = 0 if factor.exponents is None else factor.exponents[:, :, None, :]
        w = w * _power(factor.weights.frac + extra, w)
        acc = apply(_weights(w, factor.values, factor.weights), x, module.index_of(m)) * _power(factor.dot_shift, w)
        if last and module.residual:
            skip = x0
            if factor.skip is not None:
                fmt = factor.skip_weights
                skip = x0 * _weights(module.scale.double() * 2.0**fmt.frac, factor.skip, fmt)
            acc = acc + skip * 2.0**factor.skip_shift
        if last and module.bias is not None:
            fmt = factor.bias_format
            acc = acc + _weights(module.bias.double() * 2.0**fmt.frac, factor.bias, fmt)
        x = _round(acc, factor.output, factor.acc_frac)
        if factor.relu:
            x = torch.relu(x)
    return x
