"""Quantisation-aware training: a torch module whose integers are the golden model's."""

from dataclasses import replace
from math import log

import numpy as np
import torch
from torch import nn

from .chain import Chain
from .network import Layer, Network
from .nn import Butterfly, apply, to_network
from .nn.module import convolution, convolve
from .quantize import Formats, LayerFormats, apply_formats, quantise

EXACT_BITS = 53  # of a float64: integers up to here add and multiply without rounding
SHORT_BITS = 24  # of a float32


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


class _Rounded(torch.autograd.Function):
    """Forward: x * power to integers in `fmt`, halves up, saturated. Backward: `_Straight`'s, of x * power."""

    @staticmethod
    def forward(ctx, x, power, fmt):
        x = x * power
        q = torch.floor(x)
        q += x.sub_(q) >= 0.5  # x + 0.5 would be rounded itself: see QFormat.round
        y = q.clamp(fmt.lo, fmt.hi)
        ctx.power = power
        ctx.save_for_backward(y == q)
        return y

    @staticmethod
    def backward(ctx, grad):
        (inside,) = ctx.saved_tensors
        return grad * inside * ctx.power, None, None


def _round(x, fmt, frac, learned=0):
    """Floats in units of 2**-frac to integers in `fmt`; learned: as of `_straight`."""
    fixed = isinstance(learned, int)  # to multiply by one takes time
    y = _Rounded.apply(x if fixed else x * (1 + learned), 2.0 ** (fmt.frac - frac), fmt)
    return y if fixed else y * (1 - learned)


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

    def __init__(self, network: Network | nn.Module, formats: Formats, *, learn_ranges: bool = False) -> None:
        super().__init__()
        if not isinstance(network, Network):
            network = to_network(network)
        quantise(network, formats)  # raises where they do not fit each other
        self._network, self._formats = network, formats
        self.names = tuple(layer.name for layer in network.layers)
        self.layers = nn.ModuleList(_module(layer) for layer in network.layers)
        fracs = torch.tensor([float(fmt.frac) for fmt in _learnable(formats)], dtype=torch.float64)
        self.register_parameter("fractions", nn.Parameter(fracs) if learn_ranges else None)

    @property
    def formats(self) -> Formats:
        """quantize.Formats: those given, or as learned so far."""
        if self.fractions is None:
            return self._formats
        formats = self._moved()
        whole = quantise(self._trained(), formats, apply_formats)
        layers = zip(formats.layers, whole.weighted)
        return replace(formats, layers=tuple(replace(f, bias_width=own.factors[-1].bias_width) for f, own in layers))

    @formats.setter
    def formats(self, formats: Formats) -> None:
        self._formats = formats

    def _moved(self):
        """The formats with the learned fraction bits; the widths of biases, which depend on the weights, left open."""
        if self.fractions is None:
            return self._formats
        fracs = iter(torch.floor(self.fractions.detach() + 0.5).long().tolist())

        def moved(fmt):
            return fmt and replace(fmt, frac=next(fracs))

        layers = []
        for own in self._formats.layers:
            factors = tuple(replace(f, weights=moved(f.weights), output=moved(f.output)) for f in own.factors)
            layers.append(LayerFormats(factors=factors, skip=moved(own.skip)))
        return replace(self._formats, layers=tuple(layers))

    def _trained(self):
        """The float `Network` with the weights as they are."""
        modules = iter(self.layers)
        nodes = (_layer_of(node, next(modules)) if isinstance(node, Layer) else node for node in self._network.nodes)
        return Network(nodes, self._network.shape)

    def to_network(self) -> Network:
        """The float `Network` as trained so far, formats attached: `compile` of it needs nothing else."""
        return replace(self._trained(), formats=self.formats)

    def _walk(self, x):
        """(IntNetwork, the walk of floats (N, *dims) through it, float64 integers, differentiable)."""
        formats, network = self._moved(), self._trained()
        # the weights' integers come from quantize itself, so that nothing about them is said twice
        integers = quantise(network, formats, apply_formats)
        learned = iter(_zeros(self.fractions, len(_learnable(formats))))
        nodes, layers = iter(integers.nodes), iter(zip(self.layers, formats.layers))

        def step(node, *given):
            whole = next(nodes)
            if isinstance(node, Layer):
                return _layer(node, *next(layers), whole, learned, *given)
            return _join(whole, *given)

        return integers, network.walk(_round(x.double(), formats.input, 0), step)

    def _integers(self, x):
        """Floats (..., *dims) -> float64 integers (..., *dims of the output), differentiable, and their format."""
        dims = self._network.shape.dims
        if x.shape[-len(dims) :] != dims:
            raise ValueError(f"QuantisedNetwork takes (..., {', '.join(map(str, dims))}), got {tuple(x.shape)}")
        integers, steps = self._walk(x.reshape(-1, *dims))
        for _, q in steps:
            pass
        return q.reshape(*x.shape[: -len(dims)], *q.shape[1:]), integers.output

    @torch.no_grad()
    def taps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Floats (N, *dims) -> {node: the integers that it gives, float64 (N, *dims)}."""
        return {node.name: y for node, y in self._walk(x)[1]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, fmt = self._integers(x)
        return q * 2.0**-fmt.frac

    @torch.no_grad()
    def integers(self, x: torch.Tensor) -> torch.Tensor:
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
    """A float `Layer` as a Butterfly with its exact values, in float64; `add_scale` where that is not the scale."""
    own = layer.residual and layer.window is None
    module = Butterfly(layer.chain.patterns, residual=own, relu=layer.relu).double()
    with torch.no_grad():
        for values, factor in zip(module.factors, layer.chain.factors):
            values.copy_(torch.from_numpy(factor.values))
    for key in ("bias", "scale"):
        if (value := getattr(layer, key)) is not None:
            setattr(module, key, nn.Parameter(torch.from_numpy(value.copy())))
    if layer.add_scale is not None and not layer.residual:
        module.add_scale = nn.Parameter(torch.from_numpy(layer.add_scale.copy()))
    return module


def _add_scale(module):
    """Of what is added; a residual's is the layer's own."""
    return getattr(module, "add_scale", module.scale)


def _layer_of(node, module):
    """A float `Layer` with the weights of its module."""

    def numbers(p):
        return None if p is None else p.detach().cpu().double().numpy().copy()

    chain = Chain(replace(f, values=numbers(p)) for f, p in zip(node.chain.factors, module.factors))
    added = None if node.add_scale is None else numbers(_add_scale(module))
    return replace(node, chain=chain, scale=numbers(module.scale), bias=numbers(module.bias), add_scale=added)


def _power(exponent, like):
    """2**exponent, exact, for an integer or an array of integers."""
    return torch.from_numpy(np.asarray(np.ldexp(1.0, exponent))).to(like)


def _exact(name, stage):
    """ValueError where float64 is too narrow for a stage's accumulator."""
    if stage.acc_width > EXACT_BITS:
        raise ValueError(
            f"QuantisedNetwork: the accumulator of {name.replace('.factors.', ':')} needs {stage.acc_width} bits, "
            f"float64 is exact up to {EXACT_BITS}; take narrower formats"
        )


def _join(node, *given):
    """An IntNode on integer-valued float64 arrays."""
    _exact(node.name, node)
    return _round(node.accumulate(*given), node.output, node.acc_frac)


def _dots(w, x, index):
    """The exact dot products of integer-valued float64 vectors (..., inputs) -> (..., outputs)."""
    return apply(w, x.reshape(-1, x.shape[-1]), index).reshape(*x.shape[:-1], -1)


def _convolved(conv, w, x, factor, window):
    """The same of a convolution, on maps (N, *dims). Of each channel alone torch's is 20 times as fast in float32, and
    on a CPU adds up as it stands; of whole pixels some multiply in fewer steps, which is not exact.
    """
    weight = conv(w)
    if weight.shape[1] == 1 < x.shape[-1] and x.device.type == "cpu" and factor.dot_width <= SHORT_BITS:
        return convolve(x.float(), weight.float(), window).double()
    return convolve(x, weight, window)


def _layer(node, module, formats, whole, learned, x, added=None):
    """One Butterfly of a float `Layer`, quantised as the IntLayer `whole` says, on integer-valued float64 (N, *dims).

    formats: LayerFormats. learned: what `_straight` calls so, for each format in the order of `_learnable`.
    """
    learned = [next(learned) for _ in range(2 * len(whole.factors) + (formats.skip is not None))]
    conv = convolution(node)
    x = x if conv else whole.vectors(x)
    for m, (values, (name, factor)) in enumerate(zip(module.factors, whole.stages)):
        _exact(name, factor)
        a, b, _, d = values.shape
        last = m == len(whole.factors) - 1
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
        w = w * _power(np.broadcast_to(factor.dot_shift, a * b * d).reshape(a, b, 1, d), w)
        acc = _convolved(conv, w, x, factor, node.window) if conv else _dots(w, x, module.index_of(m))
        if factor.skip_input is not None:
            skip, fmt = 1, factor.skip_weights
            if factor.skip is not None:
                skip = _weights(_add_scale(module).double() * 2.0**fmt.frac, factor.skip, fmt, learned[-1])
            acc = acc + added * (skip * 2.0**factor.skip_shift)
        if last and module.bias is not None:
            fmt = factor.bias_format
            acc = acc + _weights(module.bias.double() * 2.0**fmt.frac, factor.bias, fmt)
        x = _activated(factor, _round(acc, factor.rounded, factor.acc_frac, 0 if factor.table else learned[2 * m + 1]))
    return x


def _activated(factor, x):
    """What an IntFactor's activation makes of rounded numbers; the gradient through a table is its own slope."""
    if factor.table is None:
        return x.clamp(0, factor.top) if factor.top is not None else torch.relu(x) if factor.relu else x
    place = x.detach().long() - factor.table.input.lo
    values = factor.table.values.astype(np.float64)
    y, slope = (torch.from_numpy(table)[place].to(x) for table in (values, np.gradient(values)))
    return _Straight.apply(x, y, slope)
