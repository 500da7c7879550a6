"""Layers one behind the other, with the ReLUs and batch norms between them, folded where that is exact."""

from dataclasses import replace

import numpy as np

from .chain import Chain, scale_columns


def affine(mean, var, weight=None, bias=None, eps=1e-5):
    """What a batch norm does, x * gain + shift, by its numbers (n,): float64 each, weight and bias perhaps None."""
    gain = (1.0 if weight is None else weight) / np.sqrt(var + eps)
    return gain, (0.0 if bias is None else bias) - mean * gain


def behind(layer, gain, shift):
    """The layer with y * gain + shift behind it, both (outputs,); ValueError where it ends in a ReLU."""
    if layer.act is not None:
        raise ValueError("a batch norm after a ReLU cannot be folded into the layer before it")
    scale, add_scale = (gain if own is None else gain * own for own in (layer.scale, layer.add_scale))
    bias = shift if layer.bias is None else shift + gain * layer.bias
    return replace(layer, scale=scale, add_scale=add_scale if layer.adds else None, bias=bias)


def before(layer, gain, shift):
    """The layer of x * gain + shift, both a number for each channel of x; ValueError where it has a residual, whose x
    has no weights, or zeros around its window, which a shift would miss.

    B (g x + s) = (B diag g) x + B s: the first factor's columns are scaled, the rest goes into the bias. That is exact
    for padded and indexed chains too: a chain is linear in the inputs that it has.
    """
    window, shift = layer.window, np.asarray(shift)
    padded = window is not None and any(window.padding) and (shift.any() or window.outside)
    if layer.adds or padded:
        what = "a residual" if layer.adds else "zeros around its map"
        raise ValueError(f"cannot be folded into layer {layer.name!r} behind it, which has {what}")
    if window is not None:
        gain, shift = window.spread(np.asarray(gain)), window.spread(shift)
    first, *rest = layer.chain.factors
    moved = layer.chain(shift[None])[0]
    if layer.scale is not None:
        moved = moved * layer.scale
    chain = Chain([replace(first, values=scale_columns(first.values, gain, first.support)), *rest])
    return replace(layer, chain=chain, bias=moved if layer.bias is None else moved + layer.bias)


class Line:
    """Takes layers, batch norms and ReLUs in the order of use; `end` gives the layers.

    A norm goes into the layer before it; behind a ReLU and in front of all layers it waits for the layer behind it.
    ValueError where nothing of this is exact; that of `end` begins with the norm's name.
    """

    def __init__(self):
        self.layers, self._waiting = [], None  # name, gain and shift of norms that wait

    def layer(self, layer):
        if self._waiting is not None:
            name, gain, shift = self._waiting
            if len(gain) != layer.chain.inputs:
                raise ValueError(
                    f"batch norm {name!r} has {len(gain)} features, layer {layer.name!r} behind it "
                    f"{layer.chain.inputs} inputs"
                )
            try:
                layer = before(layer, gain, shift)
            except ValueError as error:
                raise ValueError(f"batch norm {name!r} stands behind a ReLU or in front, and {error}") from None
        self.layers.append(layer)
        self._waiting = None

    def norm(self, name, gain, shift):
        """y * gain + shift; True where it went into the layer before, False where it waits for the next one."""
        size = self.layers[-1].chain.outputs if self.layers else len(gain)
        if len(gain) != size:
            raise ValueError(
                f"fold: the norm has {len(gain)} features, layer {self.layers[-1].name!r} before it {size} outputs"
            )
        if self._waiting is not None:
            first, g, s = self._waiting
            self._waiting = first, g * gain, s * gain + shift
        elif self.layers and self.layers[-1].act is None:
            self.layers[-1] = behind(self.layers[-1], gain, shift)
            return True
        else:
            self._waiting = name, gain, shift
        return False

    def relu(self):
        if self._waiting is not None:
            raise ValueError(f"batch norm {self._waiting[0]!r} cannot be folded through the ReLU behind it")
        if not self.layers:
            raise ValueError("ReLU needs a layer before it to go into")
        self.layers[-1] = replace(self.layers[-1], relu=True)

    def end(self):
        if self._waiting is not None:
            name = self._waiting[0]
            raise ValueError(f"{name!r}: fold: a batch norm after a ReLU, and no layer follows that it could go into")
        return self.layers
