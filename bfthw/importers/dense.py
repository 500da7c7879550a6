"""nn.Linear, nn.Conv1d and nn.Conv2d of kernel 1, grouped too, and the batch norms behind layers, by state_dicts."""

import numpy as np

from ..chain import Chain, Factor
from ..line import affine
from .layout import Layout, bias_of, only

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def layer(parts, hints):
    """weight (out, in), or (out, in / groups, 1[, 1]): a factor (groups, out/groups, in/groups, 1)."""
    only(parts, "weight", "bias")
    weight, bias = parts["weight"], parts.get("bias")
    out, each = weight.shape[:2]
    inputs = each
    if weight.ndim == 2:
        hints.note("weight taken as (outputs, inputs), y = W x, as nn.Linear has it")
    else:
        given = hints.get("inputs", shared=hints.before is None) or hints.before or each
        if not str(given).isdecimal() or int(given) < each or int(given) % each or out % (int(given) // each):
            raise ValueError(
                f"weight {weight.shape}: {given} inputs are no groups of {each} for {out} outputs{_hint(out)}"
            )
        inputs = int(given)
        if bias is not None and bias.shape != (out,) and bias.shape[:1] and bias.size % each == 0:
            raise ValueError(f"weight {weight.shape} and bias {bias.shape}: not as a convolution has them{_hint(out)}")
        if inputs != each or hints.before is None:
            count = f"{inputs // each} group{'s' * (inputs > each)}"
            hints.note(f"{count}, for {inputs} inputs; {hints.name}.inputs=N says otherwise")
        shape = f"nn.Conv{weight.ndim - 2}d has it, (outputs, inputs / groups{', 1' * (weight.ndim - 2)})"
        hints.note(f"weight taken as {shape}, with stride 1 and no padding")
        if bias is None or out % each == 0:
            hints.note("a transposed convolution, which is not read, would look the same")
    groups = inputs // each
    values = weight.reshape(groups, out // groups, each, 1)
    return {"chain": Chain((Factor(values),)), "bias": bias_of(parts, out)}


def _hint(inputs):
    return f"; those of a transposed convolution, (inputs, outputs / groups, 1 ...) with {inputs} inputs, are not read"


def gain_and_shift(parts, eps):
    """What a batch norm does: x * gain + shift, gain = gamma / sqrt(var + eps), shift = beta - mean * gain."""
    only(parts, *NORM)
    shape = parts["running_var"].shape
    for part, value in parts.items():
        if part != "num_batches_tracked" and (value.shape != shape or value.ndim != 1):
            raise ValueError(f"{part} must have one value a feature, as running_var {shape}, got {value.shape}")
    variance = parts["running_var"].astype(np.float64)
    if "running_mean" not in parts or not (variance + eps > 0).all():
        raise ValueError("a batch norm needs running_mean, and running_var above zero")
    return affine(parts["running_mean"], variance, parts.get("weight"), parts.get("bias"), eps)


def is_norm(parts):
    return "running_var" in parts


def knows(parts):
    weight = parts.get("weight")
    if weight is None or is_norm(parts) or 0 in weight.shape or not set(parts) <= {"weight", "bias"}:
        return False
    return weight.ndim == 2 or weight.shape[2:] in ((1,), (1, 1))


LAYOUTS = (Layout(name="dense", telling="weight (out, in) or (out, in / groups, 1[, 1])", knows=knows, layer=layer),)
