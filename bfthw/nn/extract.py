"""The butterflies of any model as checkpoints of their own, with the inputs to calibrate them by."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import files
from ..checkpoint import save
from ..line import Line
from ..network import Layer, Network
from ..reading import StrPath, nearest, owned
from ..storage import write_array
from .butterfly import Butterfly, Structured
from .convert import _linear, to_layer
from .hooks import evaluated, refresh, unwrapped
from .watch import Samples, followers, inputs_of

ROWS = 1024  # vectors of a layer that are kept


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A layer that was written. name: in the model. path: of its checkpoint; the inputs lie beside it, as .npy.

    layer: the float `Layer` with all that was folded into it. vectors: how many inputs there are.
    """

    name: str
    path: Path
    layer: Layer
    vectors: int

    def __str__(self):
        parts = " + ".join(["chain", *self.layer.parts])
        return f"{self.path}: {parts}, {self.layer.chain.inputs} -> {self.layer.chain.outputs}, {self.vectors} inputs"


def extract(
    model: nn.Module, x: Samples, folder: StrPath, *, leave: str | Iterable[str] = (), rows: int = ROWS, seed: int = 0
) -> tuple[Extracted, ...]:
    """Write every butterfly of a model, whatever else is in it, as folder/LAYER.safetensors and its inputs as .npy.

    x: samples, a tensor or a tuple of the model's arguments; the model sees them in eval mode, on its own device, and
    is as before afterwards. LAYER: the module's name in the model. A layer's batch norms and its ReLU, modules or calls
    of functions, are folded into it where they are all that happens to its outputs. Inputs are what the layer got, (N,
    n), at most `rows` of them, drawn by seed. leave: names of butterflies that are left out. Returns an `Extracted` of
    each, in the model's order.
    Raises ValueError, with the name, where a butterfly sees nothing of x or what isn't finite, is changed by hooks, or
    isn't as its kind is, where two would be in one file, for an unknown name, and where there is none. Each pair of
    files is replaced as one.
    """
    if rows < 1:
        raise ValueError(f"extract: rows must be at least 1, got {rows}")
    model, folder = unwrapped(model), Path(folder)
    modules, leave = dict(_butterflies(model)), [leave] if isinstance(leave, str) else leave
    if unknown := [name for name in leave if name not in modules]:
        raise ValueError(f"extract: leave: there is no butterfly {unknown[0]!r}{nearest(unknown[0], modules)}")
    modules = {name: module for name, module in modules.items() if name not in leave}
    if not modules:
        raise ValueError("extract: the model has no butterflies; bfthw.nn.replace puts them in")
    places = {}
    for name in modules:
        if (other := places.setdefault(_place(name), name)) != name:
            raise ValueError(
                f"extract: butterflies {other!r} and {name!r} would both be {_place(name)}.safetensors; "
                f"leave=[{name!r}] leaves one out"
            )
    behind = followers(model, modules, x)
    inputs = inputs_of(model, modules, x, dict.fromkeys(modules, rows), seed)
    layers = {}
    for name, module in modules.items():
        if name not in inputs or name not in behind:
            raise ValueError(
                f"extract: butterfly {name!r} sees nothing of x when the model runs in eval mode; leave=[{name!r}] "
                "leaves it out"
            )
        if not np.isfinite(inputs[name]).all():
            raise ValueError(f"extract: butterfly {name!r} gets inputs that are no finite numbers")
        layers[name] = _layer(name, module, behind[name])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, layer in layers.items():
        with files.replacing(folder) as (_, new):
            save(Network(layers=(layer,)), new / f"{layer.name}.safetensors")
            write_array(new / f"{layer.name}.npy", inputs[name])
        path = folder / f"{layer.name}.safetensors"
        written.append(Extracted(name=name, path=path, layer=layer, vectors=len(inputs[name])))
    return tuple(written)


def _butterflies(module, path=""):
    """(name, module) of every butterfly; those inside a `Structured` layer are one with it."""
    if isinstance(module, Butterfly | Structured):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _butterflies(child, f"{path}.{name}" if path else name)


def _place(name):
    """A module's name as that of a layer and of its files."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) or "0"


def _layer(name, module, steps):
    """The float Layer of a butterfly and what was found behind it."""
    with owned(f"extract: butterfly {name or '0'!r}", error=ValueError):
        with evaluated(module), torch.no_grad():
            refresh(module)
            butterfly = _linear(module)
        if butterfly is None:
            raise ValueError(f"a {type(module).__name__} has a forward of its own")
        line = Line()
        line.layer(to_layer(butterfly, _place(name)))
        for kind, numbers in steps or ():
            if line.layers[0].relu:  # its own: nothing goes through it
                break
            if kind == "norm":
                line.norm(name, *numbers)
            else:
                line.relu()
        return line.end()[0]
