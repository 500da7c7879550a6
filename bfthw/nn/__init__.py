"""Butterfly layers for torch: train, fold a batch norm, hand over to `Network`; needs torch, as `bfthw.qat` does."""

from .butterfly import Butterfly, ButterflyPointwise, Structured, apply, parameter_groups
from .convert import fold, to_layer, to_network

__all__ = [
    "Butterfly",
    "ButterflyPointwise",
    "Structured",
    "apply",
    "fold",
    "parameter_groups",
    "to_layer",
    "to_network",
]
