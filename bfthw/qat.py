"""Quantisation-aware training: a torch module whose integers are the golden model's."""

from dataclasses import replace
from math import log

import numpy as np
import torch
from torch import nn

from .network import Network
from .nn import Butterfly, apply, to_layer, to_network
from .qformat import QFormat
from .quantize import Formats, LayerFormats, apply_formats, quantise

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


def _straight(x, q, inside, learned):
    """Integers q in the place of x. learned: zero, with the gradient of ln(2) times the fraction bits; 0: fixed.

    x scales with 2**frac, what q stands for with 2**-frac. Together the gradient for frac is ln(2) * (x - q) steps
    where inside and -ln(2) * q steps where saturated: that of Jain et al. ("Trained Quantization Thresholds", MLSys
    2020) for the logarithm of the step, with the sign turned.
    """
    return _Straight.apply(x * (1 + learned), q, inside) * (1 - learned)


def _round(x, fmt, frac, learned=0):
    """Floats in units of 2**-frac to integers in `fmt`: halves up, saturated, with the straight-through gradient."""
    x = x * 2.0 ** (fmt.frac - frac)
    low = torch.floor(x)
    wanted = low + (x - low >= 0.5)  # x + 0.5 would be rounded itself: see QFormat.round
    q = wanted.clamp(fmt.lo, fmt.hi)
    return _straight(x, q, wanted.detach() == q.detach(), learned)


def _weights(x, integers, fmt, learned=0):
    """Trainable `x`, in units of the integers' last place, replaced by the int64 `integers` quantize made of it."""
    q = torch.from_numpy(integers).to(x)
    inside = (x.detach() >= fmt.lo - 0.5) & (x.detach() < fmt.hi + 0.5)
    return _straight(x, q, inside, learned)


class QuantisedNetwork(nn.Module):
    """A network with rounding and saturation in its forward pass, for training at fixed or learned formats.

    network: a float `Network` (what `quantize.prepare` returned, say) or a model that `to_network` takes; formats:
    quantize.Formats. Parameters are those of `layers`, one Butterfly in float64 for each layer.
    learn_ranges: the fraction bits of every format but the input's are trained too, widths stay: parameter `fractions`,
    float64, one number for each, which `formats` rounds (halves up). Those of a bias follow.
    forward: floats (..., inputs) -> float64 (..., outputs), the integers of `quantise(self.to_network(), formats)`
    times 2**-frac of the last format. Gradients pass every rounding unchanged and stop where a value saturates; for the
    fractions see `_straight`.
    Raises ValueError where formats do not fit the network, or an accumulator could exceed the 53 bits in which float64
    is exact (in forward, because row exponents and learned formats move).
    """

    def __init__(self, network, formats, *, learn_ranges=False):
        super().__init__()
        if not isinstance(network, Network):
            network = to_network(network)
        quantise(network, formats)  # raises where they do not fit each other
        self._formats = formats
        self.names = tuple(layer.name for layer in network.layers)
        self.layers = nn.ModuleList(_module(layer) for layer in network.layers)
        fracs = torch.tensor([float(fmt.frac) for fmt in _learnable(formats)], dtype=torch.float64)
        self.register_parameter("fractions", nn.Parameter(fracs) if learn_ranges else None)

    @property
    def formats(self):
        """quantize.Formats: those given, or as learned so far."""
        if self.fractions is None:
            return self._formats
        fmt, layers = self._formats.input, []
        for module, name, own in zip(self.layers, self.names, self._moved().layers):
            last = apply_formats(to_layer(module, name), fmt, own).factors[-1]
            layers.append(replace(own, bias_width=last.bias_width))
            fmt = last.output
        return replace(self._formats, layers=tuple(layers))

    @formats.setter
    def formats(self, formats):
        self._formats = formats

    def _moved(self):
        """The formats with the learned fraction bits; the widths of biases, which depend on the weights, left open."""
        if self.fractions is None:
            return self._formats
        fracs = iter(torch.floor(self.fractions.detach() + 0.5).long().tolist())

        def moved(fmt):
            return fmt and QFormat(fmt.width, next(fracs))

        layers = []
        for own in self._formats.layers:
            factors = tuple(replace(f, weights=moved(f.weights), output=moved(f.output)) for f in own.factors)
            layers.append(LayerFormats(factors=factors, skip=moved(own.skip)))
        return Formats(input=self._formats.input, layers=tuple(layers))

    def to_network(self):
        """The float `Network` as trained so far, formats attached: `compile` of it needs nothing else."""
        layers = (to_layer(module, name) for module, name in zip(self.layers, self.names))
        return Network(layers=tuple(layers), formats=self.formats)

    def _integers(self, x):
        """Floats (..., inputs) -> float64 integers (..., outputs), differentiable, and their format."""
        formats = self._moved()
        inputs, fmt = self.layers[0].inputs, formats.input
        if x.shape[-1] != inputs:
            raise ValueError(f"QuantisedNetwork takes (..., {inputs}), got {tuple(x.shape)}")
        learned = iter(_zeros(self.fractions, len(_learnable(formats))))
        q = _round(x.reshape(-1, inputs).double(), fmt, 0)
        for module, name, own in zip(self.layers, self.names, formats.layers):
            # the weights' integers come from quantize itself, so that nothing about them is said twice
            integers = apply_formats(to_layer(module, name), fmt, own)
            q = _layer(module, integers, q, own, learned)
            fmt = integers.factors[-1].output
        return q.reshape(*x.shape[:-1], self.layers[-1].outputs), fmt

    def forward(self, x):
        q, fmt = self._integers(x)
        return q * 2.0**-fmt.frac

    @torch.no_grad()
    def integers(self, x):
        """Finite floats (..., inputs) -> the golden model's int64 (..., outputs)."""
        if not torch.isfinite(x).all():
            raise ValueError("QuantisedNetwork.integers: inputs must be finite, found NaN or infinity")
        return self._integers(x)[0].to(torch.int64)


def _learnable(formats):
    """The formats that can be learned, in order: weights and output of each factor, then the layer's skip."""
    found = []
    for layer in formats.layers:
        found += [fmt for f in layer.factors for fmt in (f.weights, f.output)]
        found += [layer.skip] * (layer.skip is not None)
    return found


def _zeros(fractions, count):
    """What `_straight` calls learned, for each format."""
    return [0] * count if fractions is None else (log(2) * (fractions - fractions.detach())).double().unbind()


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


def _layer(module, integers, x0, formats, learned):
    """One Butterfly, quantised as the IntLayer `integers` says, on integer-valued float64 x0 (N, inputs).

    formats: LayerFormats. learned: what `_straight` calls so, for each format in the order of `_learnable`.
    """
    x, learned = x0, [next(learned) for _ in range(2 * len(integers.factors) + (integers.factors[-1].skip is not None))]
    for m, (values, factor) in enumerate(zip(module.factors, integers.factors)):
        if factor.acc_width > EXACT_BITS:
            raise ValueError(
                f"QuantisedNetwork: the accumulator of {integers.name}:{m} needs {factor.acc_width} bits, "
                f"float64 is exact up to {EXACT_BITS}; take narrower formats"
            )
        a, b, _, d = values.shape
        last = m == len(integers.factors) - 1
        w = values.double()
        if last and module.scale is not None:
            w = w * module.scale.double().reshape(a, b, 1, d)
        extra, fraction = 0, learned[2 * m]
        if factor.exponents is not None:
            extra = factor.exponents[:, :, None, :]
            # a row whose exponent is between its limits gives way: the format moves, its step does not
            fraction = fraction * torch.from_numpy((extra == 0) | (extra == formats.factors[m].rows))
        w = w * _power(factor.weights.frac + extra, w)
        w = _weights(w, factor.values, factor.weights, fraction)
        acc = apply(w, x, module.index_of(m)) * _power(factor.dot_shift, w)
        if last and module.residual:
            skip = x0
            if factor.skip is not None:
                fmt = factor.skip_weights
                skip = x0 * _weights(module.scale.double() * 2.0**fmt.frac, factor.skip, fmt, learned[-1])
            acc = acc + skip * 2.0**factor.skip_shift
        if last and module.bias is not None:
            fmt = factor.bias_format
            acc = acc + _weights(module.bias.double() * 2.0**fmt.frac, factor.bias, fmt)
        x = _round(acc, factor.output, factor.acc_frac, learned[2 * m + 1])
        if factor.relu:
            x = torch.relu(x)
    return x
