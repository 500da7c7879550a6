"""Layers of other projects as live torch modules: read as their files are, by their own attributes, and compared.

A module is known by the names of its class and of its attributes; nothing of its package is imported. What its arrays
mean is in `importers`; what no file says (strides, sizes, shapes ...) its attributes do. Then its own forward, in
float64, must give what was read: on random vectors, small and large ones, so that no other class of the same name, no
subclass and no patch is taken for what it isn't.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..importers import LAYOUTS
from ..importers.debut import Lines
from ..importers.layout import Hints
from ..network import Layer
from ..reading import owned
from .butterfly import Butterfly, ButterflyPointwise
from .hooks import is_plain

LAST, CHANNELS, POINTS = Butterfly.over, ButterflyPointwise.over, "the channels of sequences"
TOLERANCE = 1e-8  # of a vector's largest output
SCALES = (1e-3, 1.0, 1.0, 1.0, 30.0, 1e3)  # of the vectors that are compared
# the option of a file's layer -> attributes that say it
_SIZES = {
    "inputs": ("in_size", "in_features", "in_channels", "input_channel"),
    "outputs": ("out_size", "out_features", "out_channels", "output_channel"),
}


@dataclass(frozen=True)
class Kind:
    """A class of another project, by its name and the attributes that it must have, in a row as arrays are.

    layout: one of importers.LAYOUTS; arrays: those of a layer's file, as attributes.
    """

    name: str
    layout: str
    has: str
    arrays: str = ""

    def is_of(self, module):
        names = {kind.__name__ for kind in type(module).__mro__}
        return self.name in names and all(hasattr(module, attribute) for attribute in self.has.split())


_BASE2 = "twiddle twiddle1 twiddle2 twiddle4 diag bias"
KINDS = (
    Kind("Butterfly", "torch_butterfly", "in_size out_size nstacks nblocks increasing_stride", _BASE2),
    Kind("Butterfly", "butterfly", "in_size out_size nstack increasing_stride tied_weight param twiddle", _BASE2),
    Kind("Diagonal", "special", "diagonal", "diagonal"),
    Kind("FixedPermutation", "special", "permutation", "permutation"),
    *(Kind(name, "debut", "R_shapes twiddle", "twiddle bias") for name in ("DeBut", "DeBut_1dConv", "DeBut_2dConv")),
    Kind("MonarchLinear", "monarch", "in_features out_features blkdiag1 blkdiag2", "blkdiag1 blkdiag2 bias"),
    Kind("MonarchLinear", "monarch", "in_features out_features w1 w2", "w1 w2 bias"),
    Kind("BlockdiagLinear", "monarch", "in_features out_features weight shuffle", "weight bias"),
    Kind("BlockdiagButterflyLinear", "monarch", "w1_bfly w2_bfly b2", "w1_bfly w2_bfly bias"),
    Kind("BlastLinear", "blast", "B C D", "B C D bias"),
    Kind("ButterflyTransform", "released", "in_channels out_channels balanced_bfts"),
    Kind("Butterfly_general_matrix", "released", "in_channels out_channels weight1 residual_method"),
    Kind("Fusion", "released", "fusion_method conv", "weight bias"),
)


def read(module, name):
    """(Layer in float64, what its vectors lie along) of another project's module; None where it is none that is known.

    In eval mode, hooks run. ValueError where it cannot be read, or computes something else than was read.
    """
    kind = next((kind for kind in KINDS if kind.is_of(module)), None)
    if kind is None:
        return None
    what = f"a {type(module).__name__}, read as {kind.layout}"
    if getattr(module, "complex", False):
        raise ValueError(f"{what}: complex weights have no real butterfly of the same size")
    kernel = getattr(module, "kernel_size", 1)
    if kernel not in (1, (1,), (1, 1)):
        raise ValueError(f"{what}: only pointwise convolutions (kernel 1) are supported, got kernel {kernel}")
    module = deepcopy(module).double()
    inner = module.conv if kind.name == "Fusion" else module
    with owned(what, (ValueError, TypeError, AttributeError), ValueError):
        flat = kind.layout == "released" and not is_plain(inner, nn.Conv2d)  # a Fusion may have either
        parts, more = _released(inner) if flat else (_arrays(inner, kind.arrays.split()), {})
        layout = "dense" if kind.name == "Fusion" and not flat else kind.layout
        hints = Hints(name=name, options=_options(inner) | more, format=layout)
        if hasattr(inner, "R_shapes"):
            line = 1, [tuple(map(int, shape)) for shape in inner.R_shapes]
            hints.shapes = Lines("R_shapes", [line], {name: line})
        fields = LAYOUTS[layout].layer(parts, hints)
        if kind.name == "Butterfly_general_matrix":  # the only one that may go without
            fields["residual"] = module.residual_method == "residual_stoe"
        layer = Layer(name=name, **fields)
    return layer, _compared(module, layer, what)


def _arrays(module, names):
    """{name: array} of those that a module has; bias_conv is the bias of a ButterflyConv."""
    found = {name: getattr(module, name, None) for name in names}
    if getattr(module, "bias_conv", None) is not None:
        found["bias"] = module.bias_conv
    return {name: value.detach().cpu().numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}


def _options(module):
    """What a layer's file would not say, from the attributes that do."""
    sizes = ((key, getattr(module, name, None)) for key, names in _SIZES.items() for name in names)
    options = {key: size for key, size in sizes if isinstance(size, int)}
    if hasattr(module, "increasing_stride"):
        options["stride"] = "increasing" if module.increasing_stride else "decreasing"
    flags = (key for key in ("shuffle", "fast") if hasattr(module, key))
    options |= {key: "yes" if getattr(module, key) else "no" for key in flags}
    if isinstance(getattr(module, "param", None), str) and module.param != "regular":
        options["param"] = module.param
    return options | ({"b2": module.b2} if hasattr(module, "b2") else {})


def _released(module):
    """Arrays as of a file, and the base, of a ButterflyTransform or of one of its blocks."""
    blocks = list(getattr(module, "balanced_bfts", [module]))
    parts = {f"balanced_bfts.{t}.weight1": _arrays(block, ["weight1"])["weight1"] for t, block in enumerate(blocks)}
    parts["weight"] = np.broadcast_to(0.0, (module.out_channels, module.in_channels, 1, 1))
    n, stages = min(module.in_channels, module.out_channels), len(blocks[0].cir_cplex)
    return parts, {"base": blocks[0].weight1.numel() // (n * stages)}


def _compared(module, layer, what):
    """What vectors lie along in a module that computes the layer; ValueError where it computes something else."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(SCALES) * 9, layer.chain.inputs)) * np.repeat(SCALES, 9)[:, None]
    wanted, reason = layer(x), ""
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else "cpu"
    allowed = TOLERANCE * np.abs(wanted).max(axis=1, keepdims=True)
    for over, shape in ((LAST, ()), (POINTS, (9,)), (CHANNELS, (3, 3))):
        vectors = x.reshape(-1, *shape, x.shape[1]) if shape else x
        given = torch.from_numpy(np.moveaxis(vectors, -1, 1).copy()).to(device)
        try:
            y = np.moveaxis(module(given).detach().cpu().numpy(), 1, -1)
        except Exception as error:  # of a stranger's code: it takes vectors in another way, or none
            reason = reason or f"; its forward says {type(error).__name__}: {str(error)[:200]}"
            continue
        fits = y.shape == (*vectors.shape[:-1], wanted.shape[1])
        if fits and (np.abs(y.reshape(wanted.shape) - wanted) <= allowed).all():
            return over
    raise ValueError(f"{what}: its own forward gives other numbers than its weights do so{reason}")
