"""Other people's checkpoints as chains: each layer's arrays recognised by their keys and shapes.

A layout (`layout.Layout`) knows one way to store a layer. Adding one is a module with a `LAYOUTS` tuple, named in
`LAYOUTS` below.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..line import Line
from ..network import Layer
from ..reading import NOT_TAKEN, CheckpointError, StrPath, owned, short, some
from . import blast, debut, dense, monarch, released, special, torch_butterfly
from .between import Between
from .layout import Hints

Arrays = Mapping[str, np.ndarray]
MODULES = (released, torch_butterfly, special, debut, monarch, blast, dense)
LAYOUTS = {one.name: one for module in MODULES for one in module.LAYOUTS}
BESIDE = ("special", "dense")  # what may stand beside layers of every format
NATIVE = "native"
FORMATS = (NATIVE, *LAYOUTS, "onnx")
OPTIONS = {
    "base": "2, 4 or 8: radix of released layers",
    "stride": "increasing or decreasing: the first block's of torch_butterfly and butterfly",
    "param": "ortho, ortho2, ds or logit: of an older butterfly whose twiddle has numbers, not matrices",
    "fast": "yes or no: whether the one matrix of an older butterfly over 2 values is packed for fast=True",
    "shuffle": "yes or no: whether a BlockdiagLinear shuffles its inputs",
    "b2": "of a BlockdiagButterflyLinear: outputs that stand together",
    "line": "LAYER.line of a DeBut layer: its line of the shapes file",
    "inputs": "sizes that padding hides, of the network; LAYER.inputs of a layer",
    "outputs": "the same at the other end",
    "relu": "none, hidden (all layers but the last), all or gaps (where numbers skip); LAYER.relu=yes or no of one",
    "norm": "before or behind: on which side of the ReLU batch norms stand; NORM.norm of one",
    "eps": "of batch norms; NORM.eps of one",
}
EPS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-12)  # torch's default, then those of other places, which `recorded` tries
NOTHING = (
    "nothing else stands before, between and behind the layers (no pooling, reshaping or other activation), and there "
    "are no skip connections but those that a layer's format has"
)

# a layer's name, and the part that belongs to it
_KEY = re.compile(
    r"(?:(?P<layer>.*?)\.)??(?P<part>(?:factors|index)\.[0-9]+|balanced_bfts\.[^.]*\.[^.]*|[^.]*)", re.DOTALL
)


def layers(
    path: StrPath, arrays: Arrays, *, order: Callable, wanted: Sequence[str] | None = None, format: str | None = None,
    shapes: StrPath | None = None, options: Mapping[str, object] | None = None, asked: dict | None = None,
    own: Callable | None = None,
) -> tuple[list[Layer], list[str]]:
    """(layers, notes) of the arrays of a file.

    order: names, wanted, notes -> names in the order of use. wanted: names of the layers to take, None for all; others
    are left out with a note. format: the only layout, besides dense ones, that is tried; shapes: the text file of
    debut; options: see `OPTIONS`, with `<layer>.` before the key or without. asked: a dict that gets every key that an
    option could have here, with its values. own: path, name, {part: (key, array)}, notes -> Layer, of bfthw's own ones.
    CheckpointError for everything that is not understood.
    """
    options, groups, notes = dict(options or {}), _groups(path, arrays), []
    kinds = {n: "batch norm" if dense.is_norm(parts) else _recognised(parts, format) for n, parts in groups.items()}
    names = order(_taken(path, groups, kinds, wanted, format, notes), wanted, notes)
    lines = _lines(path, names, kinds, shapes, order, groups)
    asked = {} if asked is None else asked
    between = _between(path, names, kinds, groups, options, asked)
    line, granted = Line(), {}
    for name in names:
        parts = {}
        with owned(f"{path}: layer {name!r}, read as {kinds[name]}", (ValueError, TypeError)):
            for part, (key, array) in groups[name].items():
                parts[part] = real(path, key, array)
            if kinds[name] == "batch norm":
                notes.append(_norm(line, name, parts, _eps(name, options, asked)))
            elif kinds[name] == NATIVE:
                line.layer(own(path, name, groups[name], notes))
            else:
                before = line.layers[-1].chain.outputs if line.layers else None
                hints = Hints(name=name, options=options, before=before, last=name == between.layers[-1])
                hints.shapes, hints.asked, hints.format = lines, asked, format
                line.layer(Layer(name=name, **LAYOUTS[kinds[name]].layer(parts, hints)))
                for text in hints.notes:
                    granted.setdefault(text, []).append(name)
            if name in between.ends:
                line.relu()
    unused = [key for key in options if key not in asked]
    if unused:
        raise CheckpointError(f"{path}: the option {unused[0]!r} says nothing here; there are {some(sorted(asked))}")
    found = ", ".join(dict.fromkeys(kinds[name] for name in between.layers))
    notes.insert(0, f"format recognised: {found}" if format is None else f"format: {found}")
    notes += [f"layer{'s' * (len(of) > 1)} {some(of)}: {text}" for text, of in granted.items()]
    notes += [*between.notes(), f"taken for granted: {NOTHING}"]
    try:
        return line.end(), notes
    except ValueError as error:
        raise CheckpointError(f"{path}: batch norm {error}") from None


def names(path: StrPath, arrays: Arrays) -> list[str]:
    """Names of all layers of a file, read or not, without batch norms."""
    groups = _groups(path, arrays)
    return [name for name, parts in groups.items() if not dense.is_norm(parts)]


def _taken(path, groups, kinds, wanted, format, notes):
    """Names of the layers to take, in the order of the file; notes those that are left out."""
    names = list(groups)
    if wanted is not None:
        unknown = [name for name in wanted if name not in groups]
        if unknown:
            raise CheckpointError(f"{path}: order: there is no layer {unknown[0]!r} among {some(names)}")
        names = [name for name in names if name in wanted]
        if len(names) < len(groups):
            rest = sorted((n for n in groups if n not in names), key=lambda n: kinds[n] != "batch norm")
            notes.append(f"{NOT_TAKEN}: {some(rest)}")
    strangers = [name for name in names if kinds[name] is None]
    if strangers or all(kinds[name] == "batch norm" for name in names):
        raise CheckpointError(f"{path}: {_unknown(strangers, groups, names, kinds, format)}")
    products = _products(names, kinds)
    if products:
        raise CheckpointError(
            f"{path}: {' and '.join(map(repr, products))} are those of a TensorProduct, which work along two axes and "
            f"are no chain; --order {products[0]} takes one"
        )
    if format not in (None, "dense", *kinds.values()):
        raise CheckpointError(f"{path}: no layer of the format {format!r}: its keys are {LAYOUTS[format].telling}")
    return names


def _products(names, kinds):
    """The first layers in both maps of a TensorProduct of torch_butterfly; None where there is none."""
    found = {}
    for name in names:
        place = re.match(r"((?:.*\.)?)map([12])(?:\.|$)", name)
        if place and kinds[name] in ("torch_butterfly", "special"):
            found.setdefault(place[1], {}).setdefault(place[2], name)
    return next((tuple(maps.values()) for maps in found.values() if len(maps) == 2), None)


def with_relus(
    path: StrPath, layers: list[Layer], every: list[str], options: Mapping[str, object], asked: dict
) -> tuple[list[Layer], list[str]]:
    """(layers of bfthw's own kind, notes): with the ReLUs that `options` put behind them, as of foreign layers."""
    between = _between(path, [layer.name for layer in layers], {}, every, options, asked)
    unused = [key for key in options if key not in asked]
    if unused:
        raise CheckpointError(
            f"{path}: in bfthw's own format {unused[0]!r} says nothing; there are {some(sorted(asked))}"
        )
    notes = []
    if len(layers) > 1 or between.start or between.relus:
        notes = [*between.notes(own=" beside the layers' own"), f"taken for granted: {NOTHING}"]
    return [replace(layer, relu=layer.relu or layer.name in between.relus) for layer in layers], notes


def _between(path, names, kinds, groups, options, asked):
    norms = {name for name in names if kinds.get(name) == "batch norm"}
    with owned(path):
        return Between(names, norms, list(groups), options, asked)


def _norm(line, name, parts, eps):
    """Takes a batch norm into the line; what to say of it."""
    gain, shift = dense.gain_and_shift(parts, eps)
    if line.norm(name, gain, shift):
        return f"batch norm {name!r} folded into layer {line.layers[-1].name!r}, with eps = {eps:g}"
    where = f"behind the ReLU of {line.layers[-1].name!r}" if line.layers else "in front of all layers"
    return f"batch norm {name!r}, {where}, folded into the layer behind it, with eps = {eps:g}"


def is_native(arrays: Iterable[str], format: str | None = None) -> bool:
    """Whether the arrays are bfthw's own, or to be taken so."""
    if format is not None:
        return format == "native"
    own = re.compile(r"(.*\.)?((factors|index)\.[0-9]+|flags)", re.DOTALL)
    if any(own.fullmatch(key) for key in arrays):
        return True
    return all(key.split(".")[-1] in ("bias", "scale") for key in arrays)


def real(path: StrPath, key: str, array: np.ndarray) -> np.ndarray:
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
    if format is None and "factors.0" in parts:
        return NATIVE
    parts = {part: array for part, (_, array) in parts.items()}
    tried = LAYOUTS if format is None else [format, *BESIDE]
    return next((name for name in tried if LAYOUTS[name].knows(parts)), None)


def _lines(path, names, kinds, shapes, order, groups):
    """debut.Lines, with those of the layers by order: of all in the file, or of all that are taken, where they fit.

    None without a shapes file.
    """
    if shapes is None:
        return None
    lines, every = debut.read_shapes(shapes), [name for name in kinds if kinds[name] == "debut"]
    wanting = [name for name in names if kinds[name] == "debut"]
    if not lines:
        raise CheckpointError(f"{shapes}: has lines for 0 layers, {path} has {len(wanting)} of DeBut: {some(wanting)}")
    if len(lines) == len(every):
        wanting, fit = order(every, None, []) if len(every) > len(wanting) else wanting, True
    else:
        parts = [{part: array for part, (_, array) in groups[name].items()} for name in wanting]
        fit = len(lines) == len(wanting) and all(debut.fits(line[1], one) for one, line in zip(parts, lines))
    return debut.Lines(shapes, lines, dict(zip(wanting, lines)) if fit else {})


def _eps(name, options, asked):
    asked |= {"eps": EPS, f"{name}.eps": EPS}
    given = options.get(f"{name}.eps", options.get("eps", EPS[0]))
    try:
        eps = float(given)
    except (TypeError, ValueError):
        eps = -1.0
    if not 0 <= eps < 1:
        raise ValueError(f"eps must be a small positive number, got {given!r}")
    return eps


def _unknown(strangers, groups, names, kinds, format):
    """What was looked for and what was found."""
    tried = LAYOUTS.values() if format is None else [LAYOUTS[format]]
    looked = "; ".join(f"{one.name}: {one.telling}" for one in tried)
    native = "native: factors.<m> (a, b, c, d); " if format is None else ""
    found = [(key, array.shape) for name in strangers or names for key, array in groups[name].values()]
    listed = some(found, lambda array: f"{short(array[0])} {array[1]}")
    known = [name for name in names if kinds[name] not in (None, "batch norm")]
    if known:
        start = f"{len(found)} arrays belong to no layer that is read here: {listed}"
        hint = f"; --order takes single layers, of {some(known)}"
        if NATIVE in kinds.values():  # whoever has such a file has the module, which says more
            return f"{start}{hint}; bfthw.nn.extract(model, x, folder) writes each with its norm and its ReLU"
    else:
        start, hint = f"no layer that is read here; found {listed}", ""
        if others := [name for name, kind in kinds.items() if kind not in (None, "batch norm")]:
            return f"{start}; layers of the file that are read: {some(others)}"
    return f"{start}. Looked for, each behind <layer>.: {native}{looked}{hint}"
