"""Butterfly layers for torch: train, fold a batch norm, hand over to `Network`; needs torch, as `bfthw.qat` does."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    text = "bfthw.nn and bfthw.qat need torch, which is not installed: pip install 'bfthw[torch]'"
    raise ModuleNotFoundError(text, name="torch") from None

from .butterfly import Butterfly, ButterflyPointwise, Structured, parameter_groups
from .convert import fold, to_layer
from .extract import Extracted, extract
from .module import GraphModule
from .multiply import apply
from .released import ReleasedBFT
from .replace import Replaced, replace
from .structures import Circulant, CyclicSupport, Deformable, FixedButterfly, Grouped, Invertible, LowRank
from .structures import Monarch, Pointwise
from .trace import to_network

__all__ = [
    "Butterfly", "ButterflyPointwise", "Circulant", "CyclicSupport", "Deformable", "Extracted", "FixedButterfly",
    "GraphModule", "Grouped", "Invertible", "LowRank", "Monarch", "Pointwise", "ReleasedBFT", "Replaced", "Structured",
    "apply", "extract", "fold", "parameter_groups", "replace", "to_layer", "to_network",
]
