"""What an operator is here: a function that a `Call` goes to, registered under the operator's names."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...reading import short
from .made import Made
from .values import Tensor

OPERATORS, POINTWISE = {}, set()
# what would do in the place of operators that are none here
INSTEAD = {
    "ConvTranspose": "a Conv, and the map as large as it is,",
    "Resize": "the map as large as it is",
    "Upsample": "the map as large as it is",
    "Attention": "convolutions or butterflies over the positions",
    "ArgMax": "leaving it out (`classify` of the integers does it)",
    "TopK": "leaving it out (`classify` of the integers does it)",
    "Where": "an activation",
    "Max": "a MaxPool, or Relu(a - b) + b",
    "Min": "a - Relu(a - b)",
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "convolutions over the sequence"),
    **dict.fromkeys(("If", "Loop", "Scan"), "one way for all inputs"),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization", "LRN"),
        "a BatchNormalization",
    ),
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
        "QuantizeLinear and DequantizeLinear around operators of floats",
    ),
}


def operator(*names: str, domain: str = "", pointwise: bool = False) -> Callable:
    """Registers a function of a Call that gives a Tensor, or a list of them, one for each output; ValueError where what
    it is asked for cannot be said in a graph. pointwise: it does the same at each position, however many there are."""

    def register(function):
        for name in names:
            OPERATORS[domain, name] = function
            POINTWISE.update([name] * pointwise)
        return function

    return register


@dataclass(frozen=True, kw_only=True)
class Call:
    """One node: its Tensors, None for those left out, with their names, and its attributes. made: the Made that grows;
    batched: whether the first axis is that of many inputs; kinds: (signed, bits) of those inputs that are integers of
    the file, by place; last: whether it gives the output."""

    op: str
    inputs: list[Tensor | None]
    names: list[str]
    outputs: int
    given: dict
    made: Made
    batched: bool
    kinds: dict
    last: bool

    def input(self, k: int) -> Tensor | None:
        return self.inputs[k] if k < len(self.inputs) else None

    def constant(self, k: int, default=None) -> np.ndarray | None:
        """The numbers of an input that must be a constant; the default where it is left out."""
        t = self.input(k)
        if t is None:
            return default
        if t.node is not None:
            raise ValueError(f"{short(self.names[k])} must be a tensor of the file, it is computed from the input")
        return t.array

    def data(self, k: int = 0) -> Tensor:
        """An input that must be computed from the network's."""
        t = self.input(k)
        if t is None or t.node is None:
            raise ValueError("takes another input than what the nodes before give, constants alone")
        return t

    def integers(self, k: int, key: str, default: list | None = None) -> list[int] | None:
        """A list of integers that is an attribute in old opsets, and an input in new ones."""
        if key in self.given:
            return [int(v) for v in self.given[key]]
        values = self.constant(k)
        return default if values is None else [int(v) for v in np.ravel(values)]

    def label(self, k: int = 1) -> str | None:
        """The name of a layer by that of its weight, `fc1` of `fc1.weight`; None where there is none."""
        name = self.names[k]
        return name.removesuffix(".weight") if name.endswith(".weight") else None


def spread(call: Call, k: int, t: Tensor, what: str = "bias") -> np.ndarray:
    """A constant as ONNX broadcasts it against a tensor; ValueError where the tensor would grow by that."""
    values = call.constant(k)
    try:
        grown = np.broadcast_shapes(values.shape, t.array.shape)
    except ValueError:
        grown = None
    if grown != t.array.shape:
        raise unlike(call, k, t, what)
    return np.broadcast_to(values, grown)


def unlike(call: Call, k: int, t: Tensor, what: str) -> ValueError:
    """The ValueError of a constant that is no number for each channel of a tensor."""
    axis = call.made.axis(t)
    channels = t.array.shape[axis]
    wanted = (channels, *[1] * (t.array.ndim - 1 - axis))
    return ValueError(
        f"{short(call.names[k])} must be a {what} of {channels} values: ONNX aligns shapes at the last axis, so one "
        f"number, {wanted} or that with ones in front, {t.array.ndim} axes at most; got shape {call.constant(k).shape}"
    )
