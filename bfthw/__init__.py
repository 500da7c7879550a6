"""Learned butterfly networks as integers: formats, golden model, quantisation, checkpoints; never loads torch."""

from importlib import import_module

from . import chain, packages
from .chain import Chain, Factor, Pattern
from .checkpoint import load, load_integers, save, save_integers
from .golden import IntFactor, IntLayer, IntNetwork
from .network import Layer, Network
from .qformat import QFormat
from .quantize import compile, report
from .settings import Settings, make_settings

__version__ = "0.1.0"
packages.find()


def __getattr__(name):
    """`bfthw.Board`, for scripts, is boards.host.Board; nothing of boards/ is loaded before it is asked for."""
    if name == "Board":
        packages.check()
        return import_module("boards.host").Board
    raise AttributeError(f"module 'bfthw' has no attribute {name!r}")


__all__ = [
    "Chain",
    "Factor",
    "IntFactor",
    "IntLayer",
    "IntNetwork",
    "Layer",
    "Network",
    "Pattern",
    "QFormat",
    "Settings",
    "chain",
    "compile",
    "load",
    "load_integers",
    "make_settings",
    "report",
    "save",
    "save_integers",
]
