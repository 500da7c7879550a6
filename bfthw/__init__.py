"""Learned butterfly networks as integers: formats, golden model, quantisation, checkpoints.

`bfthw.nn` and `bfthw.qat`, which need torch, are loaded when they are asked for, and no sooner.
"""

from importlib import import_module

from . import chain, packages
from .act import Act
from .chain import Chain, Factor, Pattern
from .checkpoint import load, load_integers, save, save_integers
from .golden import IntFactor, IntLayer, IntNetwork, IntNode
from .network import Layer, Network
from .nodes import Gate, Max, Pick, Product, Rearrange, Sum
from .qformat import QFormat
from .quantize import compile, report
from .settings import Settings, make_settings
from .to_onnx import save_onnx
from .window import Shape, Window

__version__ = "0.1.0"
packages.find()


def __getattr__(name):
    """What is loaded when it is asked for: nn and qat need torch."""
    if name in ("nn", "qat"):
        nn = import_module(".nn", __name__)  # first: it says what to install where torch is missing
        return nn if name == "nn" else import_module(".qat", __name__)
    hint = ": from boards import Board" if name == "Board" else ""
    raise AttributeError(f"module 'bfthw' has no attribute {name!r}{hint}")


__all__ = [
    "Act", "Chain", "Factor", "Gate", "IntFactor", "IntLayer", "IntNetwork", "IntNode", "Layer", "Max", "Network",
    "Pattern", "Pick", "Product", "QFormat", "Rearrange", "Settings", "Shape", "Sum", "Window", "chain", "compile",
    "load", "load_integers", "make_settings", "report", "save", "save_integers", "save_onnx",
]
