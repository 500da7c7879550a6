"""Other people's checkpoints as chains: each layer's arrays recognised by their keys and shapes.

A layout (`layout.Layout`) knows one way to store a layer. Adding one is a module with a `LAYOUTS` tuple, named in
`LAYOUTS` below.
"""

import re

import numpy as np

from ..network import Layer
from ..storage import CheckpointError, short
from . import debut, dense, monarch, released, torch_butterfly
from .layout import Hints

LAYOUTS = {one.name: one for m in (released, torch_butterfly, debut, monarch, dense) for one in m.LAYOUTS}
FORMATS = ("native", *LAYOUTS, "onnx")
OPTIONS = {
    "base": "2, 4 or 8: radix of released layers",
    "stride": "increasing or decreasing: the first block's of torch_butterfly and butterfly",
    "inputs": "sizes that padding hides, of the network; LAYER.inputs of a layer",
    "outputs": "the same at the other end",
    "relu": "none, hidden (all layers but the last) or all; LAYER.relu=yes or no of a layer",
    "eps": "of batch norms",
}
EPS = 1e-5  # torch's default

# a layer's name, and the part that belongs to it
_KEY = re.compile(r"(?:(?P<layer>.*?)\.)??(?P<part>balanced_bfts\.[^.]*\.[^.]*|[^.]*)", re.DOTALL)


def layers(path, arrays, *, order, wanted=None, format=None, shapes=None, options=None):
    """(layers, notes) of the arrays of a file.

    order: names, wanted, notes -> names in the order of use. wanted: names of the layers to take, None for all; others
    are left out with a note. format: the only layout, besides dense ones, that is tried; shapes: the text file of
    debut; options: see `OPTIONS`, with `<layer>.` before the key or without. CheckpointError for everything that is not
    understood.
    """
    options, groups, kinds = dict(options or {}), _groups(path, arrays), {}
    for name, parts in groups.items():
        kinds[name] = "batch norm" if dense.is_norm(parts) else _recognised(parts, format)
    notes, names = [], list(groups)
    if wanted is not None:
        unknown = [name for name in wanted if name not in groups]
        if unknown:
            raise CheckpointError(f"{path}: order: there is no layer {unknown[0]!r} among {_some(names)}")
        names = [name for name in names if name in wanted]
        if len(names) < len(groups):
            rest = sorted((n for n in groups if n not in names), key=lambda n: kinds[n] != "batch norm")
            notes.append(f"not taken, as the order does not name them: {_some(rest)}")
    strangers = [name for name in names if kinds[name] is None]
    if strangers or all(kinds[name] == "batch norm" for name in names):
        raise CheckpointError(f"{path}: {_unknown(strangers, groups, names, kinds, format)}")
    if format not in (None, "dense", *kinds.values()):
        raise CheckpointError(f"{path}: no layer of the format {format!r}: its keys are {LAYOUTS[format].telling}")
    names = order(names, wanted, notes)
    by_layer = _assign(path, names, kinds, shapes, order)
    result, asked = [], {"relu"}
    weighted = [name for name in names if kinds[name] != "batch norm"]
    for number, name in enumerate(names):
        parts = {}
        try:
            for part, (key, array) in groups[name].items():
                parts[part] = real(path, key, array)
            if kinds[name] == "batch norm":
                if not number or kinds[names[number - 1]] == "batch norm":
                    raise ValueError("does not stand directly behind a layer; fold it with bfthw.nn.fold before saving")
                eps = _eps(options)
                result[-1] = dense.fold(result[-1], parts, eps)
                asked.add("eps")
                notes.append(f"batch norm {name!r} folded into layer {result[-1].name!r}, with eps = {eps:g}")
                continue
            before = result[-1].chain.outputs if result else None
            hints = Hints(name=name, options=options, before=before, last=name == weighted[-1], shapes=by_layer)
            fields = LAYOUTS[kinds[name]].layer(parts, hints)
            result.append(Layer(name=name, relu=_relu(hints), **fields))
        except CheckpointError:
            raise
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: layer {name!r}, read as {kinds[name]}: {error}") from None
        notes += hints.notes
        asked |= hints.asked
    unused = [key for key in options if key not in asked]
    if unused:
        raise CheckpointError(f"{path}: the option {unused[0]!r} says nothing here; there are {_some(sorted(asked))}")
    found = dict.fromkeys(kinds[name] for name in weighted)
    notes.insert(0, f"format recognised: {', '.join(found)}" if format is None else f"format: {', '.join(found)}")
    if not any(layer.relu for layer in result):
        notes.append("activations are in no such file: taken without any; relu=hidden or relu=all says otherwise")
    return result, notes


def is_native(arrays, format=None):
    """Whether the arrays are bfthw's own, or to be taken so."""
    if format is not None:
        return format == "native"
    own = re.compile(r"(.*\.)?((factors|index)\.[0-9]+|flags)", re.DOTALL)
    if any(own.fullmatch(key) for key in arrays):
        return True
    return all(key.split(".")[-1] in ("bias", "scale") for key in arrays)


def real(path, key, array):
    """The array, if it is of finite real numbers; CheckpointError else."""
    if array.dtype.kind not in "fiu":
        hint = "; a complex butterfly has no real one of the same size" if array.dtype.kind == "c" else ""
        raise CheckpointError(f"{path}: {key!r} must be real numbers, got dtype {array.dtype}{hint}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CheckpointError(f"{path}: {key!r} must be finite, got {array[where]} at {where}")
    return array


def _groups(path, arrays):
    """{layer: {part: (key, array)}}, in the order of the file; the layer without a name is "0"."""
    groups = {}
    for key, array in arrays.items():
        match = _KEY.fullmatch(key)
        groups.setdefault(match["layer"], {})[match["part"]] = key, array
    if None in groups and "0" in groups:
        both = [next(iter(groups[name].values()))[0] for name in (None, "0")]
        raise CheckpointError(f"{path}: {both[0]!r} and {both[1]!r} would be of one layer: no layer means '0'")
    return {"0" if name is None else name: parts for name, parts in groups.items()}


def _recognised(parts, format):
    """The name of the first layout that knows a layer's arrays, None where none does."""
    parts = {part: array for part, (_, array) in parts.items()}
    tried = LAYOUTS if format is None else [format, "dense"]
    return next((name for name in tried if LAYOUTS[name].knows(parts)), None)


def _assign(path, names, kinds, shapes, order):
    """{layer: (line, factors)} of the debut layers, in order; None without a shapes file.

    Lines are those of the layers that are taken; or, where there are as many, those of all in the file.
    """
    wanting = [name for name in names if kinds[name] == "debut"]
    if shapes is None:
        return None
    lines = debut.read_shapes(shapes)
    every = [name for name in kinds if kinds[name] == "debut"]
    if len(lines) == len(every) > len(wanting):
        wanting = order(every, None, [])
    if len(lines) != len(wanting):
        raise CheckpointError(
            f"{shapes}: has lines for {len(lines)} layers, {path} has {len(wanting)} of DeBut: {_some(wanting)}"
        )
    return dict(zip(wanting, lines))


def _eps(options):
    try:
        eps = float(options.get("eps", EPS))
    except (TypeError, ValueError):
        eps = -1.0
    if not 0 <= eps < 1:
        raise ValueError(f"eps must be a small positive number, got {options['eps']!r}")
    return eps


def _relu(hints):
    """Whether the layer ends in a ReLU, by LAYER.relu, else by relu."""
    if f"{hints.name}.relu" in hints.options:
        return hints.choice("relu", ("yes", "no")) == "yes"
    which = hints.choice("relu", ("none", "hidden", "all"))
    return which == "all" or (which == "hidden" and not hints.last)


def _some(names, count=6):
    names = [str(name) for name in names]
    return ", ".join(map(short, names[:count])) + (f" and {len(names) - count} more" if len(names) > count else "")


def _unknown(strangers, groups, names, kinds, format):
    """What was looked for and what was found."""
    tried = LAYOUTS.values() if format is None else [LAYOUTS[format]]
    looked = "; ".join(f"{one.name}: {one.telling}" for one in tried)
    native = "native: factors.<m> (a, b, c, d); " if format is None else ""
    found = [(key, array.shape) for name in strangers or names for key, array in groups[name].values()]
    listed = ", ".join(f"{short(key)} {shape}" for key, shape in found[:6])
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    known = [name for name in names if kinds[name] not in (None, "batch norm")]
    if known:
        start = f"{len(found)} arrays belong to no layer that is read here: {listed}{more}"
        hint = f"; --order takes single layers, of {_some(known)}"
    else:
        start, hint = f"no layer that is read here; found {listed}{more}", ""
    return f"{start}. Looked for, each behind <layer>.: {native}{looked}{hint}"
