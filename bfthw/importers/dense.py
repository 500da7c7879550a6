"""nn.Linear and 1x1 nn.Conv2d, grouped too, and the batch norms behind layers, by their state_dicts."""

from dataclasses import replace

import numpy as np

from ..chain import Chain, Factor
from .layout import Layout, bias_of, only

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def layer(parts, hints):
    """weight (out, in), or (out, in / groups, 1, 1): a factor (groups, out/groups, in/groups, 1)."""
    only(parts, "weight", "bias")
    weight = parts["weight"]
    out, each = weight.shape[:2]
    inputs = each
    if weight.ndim == 4:
        given = hints.get("inputs", shared=hints.before is None) or hints.before or each
        if not str(given).isdecimal() or int(given) < each or int(given) % each or out % (int(given) // each):
            raise ValueError(f"weight {weight.shape}: {given} inputs are no groups of {each} for {out} outputs")
        inputs = int(given)
        if inputs != each:
            hints.note(f"{inputs // each} groups, for {inputs} inputs")
    groups = inputs // each
    values = weight.reshape(groups, out // groups, each, 1)
    return {"chain": Chain((Factor(values),)), "bias": bias_of(parts, out)}


def fold(layer, parts, eps):
    """The layer with a batch norm behind it: scale = gamma / sqrt(var + eps), shift = beta - mean * scale."""
    only(parts, *NORM)
    n = layer.chain.outputs
    for part, value in parts.items():
        if part != "num_batches_tracked" and value.shape != (n,):
            raise ValueError(f"{part} must have shape ({n},), the outputs of layer {layer.name!r}, got {value.shape}")
    variance = parts["running_var"].astype(np.float64) + eps
    if "running_mean" not in parts or not (variance > 0).all():
        raise ValueError("a batch norm needs running_mean, and running_var above zero")
    gain = parts.get("weight", 1.0) / np.sqrt(variance)
    bias = 0.0 if layer.bias is None else layer.bias
    shift = parts.get("bias", 0.0) + (bias - parts["running_mean"]) * gain
    scale = gain if layer.scale is None else gain * layer.scale
    return replace(layer, scale=np.broadcast_to(scale, n), bias=np.broadcast_to(shift, n))


def is_norm(parts):
    return "running_var" in parts


def knows(parts):
    weight = parts.get("weight")
    if weight is None or is_norm(parts) or 0 in weight.shape or not set(parts) <= {"weight", "bias"}:
        return False
    return weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2:] == (1, 1))


LAYOUTS = (Layout(name="dense", telling="weight (out, in) or (out, in / groups, 1, 1)", knows=knows, layer=layer),)
