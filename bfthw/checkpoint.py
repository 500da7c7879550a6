"""Float checkpoints: `factors.<m>`, `bias`, `scale` and `flags` of each layer, from file to Network and back.

Keys are `<layer>.factors.<m>` of shape (a, b, c, d), first applied first; `<layer>.bias` and `<layer>.scale`, of shape
(outputs,); `<layer>.flags`, integers (version 1, residual 0 or 1, ReLU 0 or 1). A factor of shape (outputs, 1, c, 1)
may have `<layer>.index.<m>`, integers (outputs, c) that name its inputs; then the flags have version 2 and, as a fourth
number, the layer's inputs. A single layer may go without `<layer>.` and is then named "0". Under `bfthw` (metadata of
safetensors, a uint8 array of npz) there may be a JSON description, {"version": 1, "layers": [names in order],
"formats": {...}}. All this says rows of layers over vectors with ReLUs; of other graphs there is version 2, in
bfthw.graphfile.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import graphfile, importers, state_dicts, storage
from .chain import Chain, Factor, Indexed, check_name
from .formats import Formats, integer_nodes
from .importers import real
from .integers import MOST_INPUTS, load_integers, save_integers
from .network import Layer, Network
from .reading import LIMIT, NOT_TAKEN, CheckpointError, StrPath, nearest, owned, reader, some
from .storage import is_integers

__all__ = ["Checkpoint", "CheckpointError", "is_integers", "load", "load_integers", "save", "save_integers"]

_KEY = re.compile(r"(?:(?P<layer>.*)\.)?(?P<part>(?:factors|index)\.(?:0|[1-9][0-9]{0,5})|bias|scale|flags)", re.DOTALL)


class _Description(storage.Strict):
    version: Literal[1]
    layers: list[str]
    formats: dict | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """network: what the file says. notes: lines for a person, on what was taken for granted."""

    network: Network
    notes: tuple[str, ...]


@reader
def load(
    path: StrPath, *, key: str | None = None, order: Sequence[str] | None = None, format: str | None = None,
    shapes: StrPath | None = None, options: Mapping[str, object] | None = None, limit: int = LIMIT,
) -> Checkpoint:
    """Read a float Network as a Checkpoint: .safetensors, .npz (no pickle), .onnx, or torch's .pt, .pth, .ckpt, .bin,
    .pth.tar (weights only).

    The layers' order is that of the file's description; else `order`, a list of their names; else by number, where the
    names differ in their digits alone; else that of a .pt or .npz file. CheckpointError for everything else.
    format: one of importers.FORMATS, None to recognise it. Of a foreign file, shapes is the text file of DeBut layers'
    sizes, options says what is in no file ({"stride": "decreasing"}, importers.OPTIONS), order may name single layers.
    key: of the state dict, where a file of torch has several. limit: bytes of memory, in all, that reading may take
    (reading.LIMIT).
    """
    return File(path, key=key, format=format, shapes=shapes, limit=limit).read(order=order, options=options)


class File:
    """A checkpoint's arrays, read once for any number of readings; arguments and errors are those of `load`."""

    def __init__(
        self, path: StrPath, *, key: str | None = None, format: str | None = None, shapes: StrPath | None = None,
        limit: int = LIMIT,
    ) -> None:
        if format is not None and format not in importers.FORMATS:
            hint = nearest(format, importers.FORMATS)
            raise CheckpointError(f"{path}: format must be one of {', '.join(importers.FORMATS)}, got {format!r}{hint}")
        self.path, self.format, self.shapes, self.names, self.contents = path, format, shapes, (), None
        self.limit = limit
        if str(path).lower().endswith(".onnx"):
            if key is not None:
                raise CheckpointError(f"{path}: an .onnx file says it all; no key goes with it")
            return
        if format == "onnx":
            raise CheckpointError(f"{path}: the format onnx is that of .onnx files")
        self.contents = storage.read(path, limit, key)
        if storage.kind(self.contents.description) == "integers":
            raise CheckpointError(
                f"{path}: holds an integer network, no float weights; `bfthw generate` takes it as it is"
            )

    def read(
        self, *, order: Sequence[str] | None = None, options: Mapping[str, object] | None = None,
        asked: dict | None = None,
    ) -> Checkpoint:
        """The Checkpoint of one reading. asked: a dict that gets every key that an option could have, with its values.

        Afterwards `names` are those of the layers whose order may be given.
        """
        path, asked, options = self.path, {} if asked is None else asked, dict(options or {})
        if self.contents is None:
            return self._of_onnx(order, options)
        contents = self.contents
        notes, description, arrays = list(contents.notes), None, contents.arrays
        if contents.description is not None and storage.version(path, contents.description) == graphfile.VERSION:
            if order or options or self.shapes is not None or self.format not in (None, "native"):
                raise CheckpointError(
                    f"{path}: a graph says its wiring itself; no order, format, shapes or options go with it"
                )
            nodes, shape, description = graphfile.read(path, contents)
            return _checkpoint(path, nodes, notes, description.formats, shape)
        if contents.description is not None:
            description = storage.parse(path, _Description, contents.description)
        else:
            arrays, prefix = state_dicts.plain(arrays, notes)
            order = order and [name.removeprefix(prefix) for name in order]
            options = {name.removeprefix(prefix): value for name, value in options.items()}
            if not importers.is_native(arrays, self.format) or self.format is None and _beside(arrays, order):
                return self._foreign(arrays, notes, order, options, asked)
        if self.format not in (None, "native") or self.shapes is not None or (options and description is not None):
            raise CheckpointError(
                f"{path}: is in bfthw's own format; --format and --shapes are for foreign files, --import for what a "
                "file does not say"
            )
        tables = _tables(path, arrays)
        if description is None:
            self.names = tuple(tables)
        described, formats = (None, None) if description is None else (description.layers, description.formats)
        some_of = order and order == [name for name in described or () if name in order] and len(order) < len(described)
        names = _ordered(path, list(tables), described, None if some_of else order, contents.ordered, notes)
        if some_of:
            rest = [name for name in names if name not in order]
            notes.append(f"{NOT_TAKEN}: {some(rest)}")
            names, formats = order, None  # they were chosen for all layers in a row
        layers = [_layer(path, name, tables[name], notes) for name in names]
        if description is None:
            layers, more = importers.with_relus(path, layers, list(tables), options, asked)
            notes += more
        return _checkpoint(path, layers, notes, formats)

    def layers(self) -> tuple[list[str], str]:
        """(names, prefix): of all layers, whether they can be read or not, in the file's order, without batch norms.

        prefix: what all keys of the file begin with, left out of the names.
        """
        if self.contents is None:
            raise CheckpointError(f"{self.path}: an .onnx file is read as a whole, without --each")
        arrays, prefix, text = self.contents.arrays, "", self.contents.description
        if text is not None and storage.version(self.path, text) == graphfile.VERSION:
            raise CheckpointError(f"{self.path}: a graph is read as a whole, without --each")
        if text is None:
            arrays, prefix = state_dicts.plain(arrays, [])
        return importers.names(self.path, arrays), prefix

    def _of_onnx(self, order, options):
        from .importers import onnx

        if self.format not in (None, "onnx") or order is not None or self.shapes is not None or options:
            raise CheckpointError(
                f"{self.path}: an .onnx file says it all; no order, format, shapes or options go with it"
            )
        network, notes = onnx.read(self.path, self.limit)
        return Checkpoint(network=network, notes=tuple(notes))

    def _foreign(self, arrays, notes, order, options, asked):
        def arranged(names, wanted, notes):
            self.names = tuple(names)
            return _ordered(self.path, names, None, wanted, self.contents.ordered, notes)

        given = {"format": self.format, "shapes": self.shapes, "options": options, "asked": asked}
        layers, more = importers.layers(self.path, arrays, order=arranged, wanted=order, own=_layer, **given)
        return _checkpoint(self.path, layers, [*notes, *more])


def _checkpoint(path, nodes, notes, formats=None, shape=None):
    """Nodes over a shape, or layers in a row, and the formats that the file describes, as a Checkpoint."""
    try:
        network = Network(nodes, shape)
        if shape is not None:
            graphfile.check_sizes(network)
        if formats is not None:
            formats = Formats.from_dict(formats)
            for _ in integer_nodes(network, formats):  # raises where they do not fit the network
                pass
            network = Network(nodes, shape, formats=formats)
    except (ValueError, TypeError) as error:
        hint = "; --each takes every layer on its own" if "do not chain" in str(error) else ""
        raise CheckpointError(f"{path}: {error}{hint}") from None
    return Checkpoint(network=network, notes=tuple(notes))


def _beside(arrays, order):
    """Whether parameters of torch's modules stand beside our layers, or `order` names some of our layers alone."""
    matches = [_KEY.fullmatch(key) for key in arrays]
    if None not in matches:
        return order is not None and set(order) < {match["layer"] for match in matches}
    return any(re.match("weight|running_", key.split(".")[-1]) for key, match in zip(arrays, matches) if match is None)


def _tables(path, arrays):
    """{layer: {part: (key, array)}}, in the order of the file."""
    matches = {key: _KEY.fullmatch(key) for key in arrays}
    unknown = [key for key, match in matches.items() if match is None]
    if unknown:
        raise CheckpointError(f"{path}: {_unexpected(unknown, arrays)}")
    tables = {}
    for key, match in matches.items():
        name, part = match["layer"], match["part"]
        with owned(f"{path}: {key!r}"):
            table = tables.setdefault("0" if name is None else check_name(name), {})
        if part in table:
            raise CheckpointError(f"{path}: {key!r} and {table[part][0]!r} are the same: no layer means '0'")
        table[part] = key, arrays[key]
    if not tables:
        raise CheckpointError(f"{path}: no weights: [<layer>.]factors.<m> are needed, found no arrays at all")
    return tables


def _unexpected(unknown, arrays):
    """What to say of keys that a checkpoint does not have, the most telling first."""
    norms = [key for key in unknown if key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    if norms:
        return (
            f"unexpected key {norms[0]!r}: it belongs to a batch norm; fold it with bfthw.nn.fold or "
            "bfthw.nn.to_network before saving"
        )
    key = unknown[0]
    number = int((re.search(r"[0-9]{1,6}$", key) or "0")[0])
    pieces = key.split(".")
    known = list(arrays.keys() - set(unknown))[:100]
    for cut in {max(0, len(pieces) - 1), max(0, len(pieces) - 2)}:
        known += [".".join([*pieces[:cut], part]) for part in (f"factors.{number}", "bias", "scale", "flags")]
    hint = nearest(key, known)
    if pieces[-1] == "weight":
        hint = "; bfthw.nn.to_network takes dense layers (nn.Linear, nn.Conv2d 1x1) and butterflies of one torch module"
    return f"unexpected key {key!r}: keys are [<layer>.]factors.<m>, index.<m>, bias, scale and flags{hint}"


def _ordered(path, names, described, wanted, ordered, notes):
    """The layers' names in the order in which they are applied."""
    if described is not None and wanted is not None and list(wanted) != described:
        raise CheckpointError(f"{path}: order = {list(wanted)} contradicts the file's own order, {described}")
    given, owner, source = wanted, "order", "as given"
    if described is not None:
        given, owner, source = described, "bfthw.layers", "as the file describes it"
    if given is not None:
        if sorted(given) != sorted(names):
            raise CheckpointError(f"{path}: {owner} must name each layer of the file once ({names}), got {list(given)}")
        result = list(given)
    elif len({re.sub("[0-9]+", "#", name) for name in names}) == 1:
        result = sorted(names, key=lambda name: ([int(digits) for digits in re.findall("[0-9]+", name)], name))
        source = "by number"
    elif ordered:
        result, source = names, "as in the file"
    else:
        raise CheckpointError(
            f"{path}: safetensors keeps no order and the layers {names} have no numbers to go by; pass order=, "
            "their names in the order in which they are applied"
        )
    if len(names) > 1:
        notes.append(f"order of the layers, {source}: {', '.join(result)}")
    return result


def _layer(path, name, table, notes):
    """One layer of {part: (key, array)}."""
    some_key = next(iter(table.values()))[0]
    prefix = "" if _KEY.fullmatch(some_key)["layer"] is None else f"{name}."
    flags = _flags(path, *table["flags"]) if "flags" in table else {}
    count = sum(part.startswith("factors.") for part in table)
    factors = []
    for m in range(max(count, 1)):
        if f"factors.{m}" not in table:
            found = ", ".join(sorted(table))
            raise CheckpointError(f"{path}: missing key '{prefix}factors.{m}': layer {name!r} has only {found}")
        key, array = table[f"factors.{m}"]
        array = real(path, key, array)
        if array.ndim != 4 or 0 in array.shape:
            raise CheckpointError(f"{path}: {key!r} must have shape (a, b, c, d), got {array.shape}")
        inputs = factors[-1].pattern.outputs if factors else flags.get("inputs")
        factors.append(Factor(array, _support(path, table, m, array.shape, inputs)))
        before, after = factors[max(0, m - 1)].pattern, factors[m].pattern
        if m and before.outputs != after.inputs:
            raise CheckpointError(
                f"{path}: factors do not chain: '{prefix}factors.{m - 1}' {before} gives a*b*d = {before.outputs} "
                f"values, {key!r} {after} takes a*c*d = {after.inputs}"
            )
    chain, rest = Chain(factors), {}
    for part in ("bias", "scale"):
        if part in table:
            key, array = table[part]
            rest[part] = real(path, key, array)
            if array.shape != (chain.outputs,):
                raise CheckpointError(f"{path}: {key!r} must have shape ({chain.outputs},), got {array.shape}")
    for part in table:
        if part.startswith("index.") and part.replace("index", "factors") not in table:
            raise CheckpointError(f"{path}: {table[part][0]!r}: there is no such factor")
    if flags:
        rest |= {"residual": flags["residual"], "relu": flags["relu"]}
        if flags.get("inputs", chain.inputs) != chain.inputs:
            raise CheckpointError(f"{path}: layer {name!r} has {chain.inputs} inputs, its flags say {flags['inputs']}")
        if rest["residual"] and chain.inputs != chain.outputs:
            raise CheckpointError(
                f"{path}: '{prefix}flags': a residual needs as many outputs as inputs, got {chain.inputs} -> "
                f"{chain.outputs}"
            )
    else:
        without = "residual and ReLU" if "bias" in table else "residual, bias and ReLU"
        notes.append(f"no flags: layer {name!r} is taken without {without}")
    return Layer(chain=chain, name=name, **rest)


def _support(path, table, m, shape, inputs):
    """The Indexed of factor m, or None where the file has no index for it."""
    if f"index.{m}" not in table:
        return None
    key, array = table[f"index.{m}"]
    if shape != (shape[0], 1, shape[2], 1) or array.shape != (shape[0], shape[2]):
        raise CheckpointError(
            f"{path}: {key!r} must have shape (outputs, c) for a factor of shape (outputs, 1, c, 1), "
            f"got {array.shape} for {shape}"
        )
    if inputs is None:
        raise CheckpointError(f"{path}: {key!r}: the layer's flags must say its inputs: (2, residual, ReLU, inputs)")
    with owned(f"{path}: {key!r}"):
        return Indexed(array, inputs)


def _flags(path, key, array):
    """residual, relu and, of version 2, inputs, by name."""
    if array.dtype.kind not in "iu" or array.shape not in ((3,), (4,)):
        raise CheckpointError(
            f"{path}: {key!r} must be 3 integers (version, residual, ReLU), or 4 with the layer's inputs, "
            f"got {array.dtype} of shape {array.shape}"
        )
    version, residual, relu, *inputs = array.tolist()
    if version != len(array) - 2:
        wanted = len(array) - 2
        raise CheckpointError(f"{path}: {key!r}: the version of {len(array)} flags must be {wanted}, got {version}")
    if not {residual, relu} <= {0, 1}:
        raise CheckpointError(f"{path}: {key!r}: residual and ReLU must be 0 or 1, got {residual} and {relu}")
    if inputs and not 0 < inputs[0] <= MOST_INPUTS:
        raise CheckpointError(f"{path}: {key!r}: the number of inputs must be 1 to {MOST_INPUTS}, got {inputs[0]}")
    return {"residual": bool(residual), "relu": bool(relu)} | ({"inputs": inputs[0]} if inputs else {})


def save(network: Network, path: StrPath) -> None:
    """Write a float Network as .safetensors or .npz, self-describing: `load` gives exactly the same numbers.

    float32 where that is exact, float64 elsewhere. The file appears whole or not at all. Rows of layers over vectors
    are written as before, with keys as above, which older readers take; all other graphs as bfthw.graphfile says.
    """
    if not network.in_version_1:
        return storage.write(path, *graphfile.described(path, network), storage.FLOAT)
    arrays = {}
    for layer in network.nodes:
        for m, factor in enumerate(layer.chain.factors):
            arrays[f"{layer.name}.factors.{m}"] = _narrow(factor.values)
            if factor.support is not None:
                arrays[f"{layer.name}.index.{m}"] = factor.support.index
        for part in ("bias", "scale"):
            if (value := getattr(layer, part)) is not None:
                arrays[f"{layer.name}.{part}"] = _narrow(value)
        flags = [layer.residual, layer.relu]
        indexed = any(factor.support is not None for factor in layer.chain.factors)
        flags = [2, *flags, layer.chain.inputs] if indexed else [1, *flags]
        arrays[f"{layer.name}.flags"] = np.array(flags, np.int64)
    description = {"version": 1, "layers": [layer.name for layer in network.layers]}
    if network.formats is not None:
        description["formats"] = network.formats.to_dict()
    storage.write(path, arrays, description, storage.FLOAT)


def _narrow(values):
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values
