"""Float layers and networks: what a checkpoint says."""

from dataclasses import dataclass, replace

import numpy as np

from .chain import Chain, Factor, check_name, column_peaks, scale_columns


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Layer:
    """y = relu(scale * (chain(x) + x) + bias), each part but the chain optional.

    scale, bias: shape (outputs,); a batch norm is scale = gamma / sqrt(var + eps), bias = beta - mean * scale.
    residual: first-to-last, before the scale (CVPR 2020, section 3.3); needs as many outputs as inputs.
    """

    chain: Chain
    residual: bool = False
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    relu: bool = False
    name: str = "0"

    def __post_init__(self):
        check_name(self.name)
        for key in ("scale", "bias"):
            if (value := getattr(self, key)) is not None:
                value = np.asarray(value)
                if value.shape != (self.chain.outputs,):
                    raise ValueError(f"Layer.{key} must have shape ({self.chain.outputs},), got {value.shape}")
                if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
                    raise ValueError(f"Layer.{key} must be finite real numbers")
                object.__setattr__(self, key, value.astype(np.float64))
        if self.residual and self.chain.inputs != self.chain.outputs:
            raise ValueError(
                f"a residual needs as many outputs as inputs, got {self.chain.inputs} -> {self.chain.outputs}"
            )

    def __repr__(self):
        return f"<Layer {' + '.join([self.name, *self.parts])}: {self.chain!r}>"

    @property
    def parts(self):
        """Names of what it does beside its chain, in order."""
        flags = [key for key in ("residual", "relu") if getattr(self, key)]
        return flags + [key for key in ("scale", "bias") if getattr(self, key) is not None]

    @property
    def folded(self):
        """The factors with the scale multiplied into the rows of the last one."""
        *head, last = self.chain.factors
        if self.scale is None:
            return (*head, last)
        a, b, c, d = last.values.shape
        return (*head, replace(last, values=last.values * self.scale.reshape(a, b, 1, d)))

    def taps(self, x):
        """(N, inputs) -> the output of every factor, the last one finished with residual, scale, bias and ReLU."""
        outputs, y = [], x
        for factor in self.folded:
            outputs.append(y := factor(y))
        return [*outputs[:-1], self.finish(y, x)]

    def finish(self, y, x):
        """The output of the last folded factor, and the layer's input, to the layer's output."""
        if self.residual:
            y = y + (x if self.scale is None else x * self.scale)
        if self.bias is not None:
            y = y + self.bias
        return np.maximum(y, 0) if self.relu else y

    def __call__(self, x):
        return self.taps(x)[-1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Network:
    """Layers in order. `formats`: the fixed-point formats it was trained for, if it was (quantize.Formats)."""

    layers: tuple
    formats: object = None

    def __post_init__(self):
        layers = tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not layers:
            raise ValueError("a network needs at least one layer")
        if len({layer.name for layer in layers}) != len(layers):
            raise ValueError(f"layer names must differ, got {[layer.name for layer in layers]}")
        for before, after in zip(layers, layers[1:]):
            if before.chain.outputs != after.chain.inputs:
                raise ValueError(
                    f"layers do not chain: {before.name!r} gives {before.chain.outputs} values, "
                    f"{after.name!r} takes {after.chain.inputs}"
                )

    def __repr__(self):
        return f"<Network {self.inputs} -> {self.outputs}: {', '.join(layer.name for layer in self.layers)}>"

    @property
    def inputs(self):
        return self.layers[0].chain.inputs

    @property
    def outputs(self):
        return self.layers[-1].chain.outputs

    def taps(self, x):
        """(N, inputs) -> the output of every stage of every layer, in order."""
        outputs = []
        for layer in self.layers:
            outputs += layer.taps(outputs[-1] if outputs else np.asarray(x, np.float64))
        return outputs

    def __call__(self, x):
        return self.taps(x)[-1]


def equalise(network, passes=8):
    """Rescale between neighbouring factors so that rows and columns that meet have the same largest weight.

    The product of the factors, so the network's function, is unchanged. For a middle value with row peak r in the
    factor before and column peak c in the factor after, the row is multiplied by sqrt(c / r) and the column divided by
    it (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, eq. 11).
    """
    return replace(network, layers=tuple(_equalise_layer(layer, passes) for layer in network.layers), formats=None)


def _equalise_layer(layer, passes):
    # the last factor takes part with the scale folded in, and gets it divided out again at the end
    values, supports = [f.values.copy() for f in layer.folded], [f.support for f in layer.folded]
    for _ in range(passes if len(values) > 1 else 0):
        for m, (before, after) in enumerate(zip(values, values[1:]), 1):
            a, b, _, d = before.shape
            rows = np.abs(before).max(axis=2).ravel()
            columns = column_peaks(after, supports[m])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                s = np.sqrt(columns / rows)
            s = np.where(np.isfinite(s) & (s > 0), s, 1.0)  # a dead row or column stays as it is
            before *= s.reshape(a, b, 1, d)
            values[m] = scale_columns(after, 1 / s, supports[m])
    scale = layer.scale
    if scale is not None:
        if np.any(scale == 0):  # nothing to divide by: leave the layer alone
            return layer
        a, b, _, d = values[-1].shape
        values[-1] = values[-1] / scale.reshape(a, b, 1, d)
    return replace(layer, chain=Chain(map(Factor, values, supports)))
