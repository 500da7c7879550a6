"""Integer networks in .npz files: what `generate` takes, marked so that it is never read as float weights."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from . import graphfile, storage
from .archive import ARRAYS
from .chain import Indexed
from .golden import IntFactor, IntLayer, IntNetwork
from .qformat import QFormat
from .reading import LIMIT, CheckpointError, StrPath, nearest, owned, reader
from .storage import Strict

MOST_INPUTS = 1 << 16  # of a factor with an index, which no array of the file bounds
_Pair = tuple[int, int] | tuple[int, int, bool]  # QFormat.to_list


class _Factor(Strict):
    weights: _Pair
    input: _Pair
    output: _Pair
    inputs: Annotated[int, Field(ge=1, le=MOST_INPUTS)] | None = None  # of a factor with an index


class _Layer(Strict):
    name: str
    residual: bool
    relu: bool
    factors: Annotated[list[_Factor], Field(max_length=ARRAYS)]
    skip: _Pair | None
    bias_width: int | None


class _Description(Strict):
    version: Literal[1]
    kind: Literal["integers"]
    layers: Annotated[list[_Layer], Field(max_length=ARRAYS)]


def _pair(q):
    return None if q is None else q.to_list()


def save_integers(network: IntNetwork, path: StrPath) -> None:
    """Write an IntNetwork as .npz, whole or not at all, the same bytes for the same network.

    Arrays `<layer>.factors.<m>`, `<layer>.factors.<m>.exponents` and `.index`, `<layer>.skip`, `<layer>.bias` in the
    smallest signed integers that hold their formats; the formats as JSON in the uint8 array `bfthw`. Graphs that are no
    row of layers over vectors, or have other activations than ReLU, as bfthw.graphfile says.
    """
    if not network.in_version_1:
        return storage.write(path, *graphfile.described(path, network), (".npz",))
    arrays, layers = {}, []
    for layer in network.nodes:
        last = layer.factors[-1]
        for m, factor in enumerate(layer.factors):
            arrays[f"{layer.name}.factors.{m}"] = _smallest(factor.values, factor.weights.operand)
            if factor.exponents is not None:
                arrays[f"{layer.name}.factors.{m}.exponents"] = factor.exponents.astype(np.int8)
            if factor.support is not None:
                arrays[f"{layer.name}.factors.{m}.index"] = factor.support.index.astype(np.int32)
        if last.skip is not None:
            arrays[f"{layer.name}.skip"] = _smallest(last.skip, last.skip_weights.operand)
        if last.bias is not None:
            arrays[f"{layer.name}.bias"] = _smallest(last.bias, last.bias_width)
        factors = [{key: _pair(getattr(f, key)) for key in ("weights", "input", "output")} for f in layer.factors]
        for table, factor in zip(factors, layer.factors):
            if factor.support is not None:
                table["inputs"] = factor.support.inputs
        layers.append(
            {
                "name": layer.name,
                "residual": layer.residual,
                "relu": last.relu,
                "factors": factors,
                "skip": _pair(last.skip_weights),
                "bias_width": last.bias_width,
            }
        )
    storage.write(path, arrays, {"version": 1, "kind": "integers", "layers": layers}, (".npz",))


def _smallest(values, width):
    return values.astype(next(t for t in (np.int8, np.int16, np.int32, np.int64) if width <= np.iinfo(t).bits))


@reader
def load_integers(path: StrPath, limit: int = LIMIT) -> IntNetwork:
    """Read an IntNetwork that `save_integers` wrote; CheckpointError for everything else."""
    contents = storage.read(path, limit)
    if storage.kind(contents.description) != "integers":
        raise CheckpointError(f"{path}: not marked as an integer network; float weights have to be quantised first")
    if storage.version(path, contents.description) == graphfile.VERSION:
        return graphfile.read_integers(path, contents)
    description = storage.parse(path, _Description, contents.description)
    _check_keys(path, description, contents.arrays)
    with owned(path, (ValueError, TypeError)):
        return IntNetwork(layers=tuple(_layer(path, layer, contents.arrays) for layer in description.layers))


def _check_keys(path, description, arrays):
    """Exactly the arrays that the description asks for; exponents may be there or not."""
    needed, known = [], []
    for layer in description.layers:
        factors = [f"{layer.name}.factors.{m}" for m in range(len(layer.factors))]
        needed += [f"{key}.index" for key, factor in zip(factors, layer.factors) if factor.inputs is not None]
        needed += factors + [f"{layer.name}.skip"] * (layer.skip is not None)
        needed += [f"{layer.name}.bias"] * (layer.bias_width is not None)
        known += [f"{factor}.exponents" for factor in factors]
    for key in needed:
        if key not in arrays:
            raise CheckpointError(f"{path}: missing key {key!r}, which the description asks for")
    known = {*needed, *known}
    for key in arrays:
        if key not in known:
            raise CheckpointError(
                f"{path}: unexpected key {key!r}: the description has no such array{nearest(key, known)}"
            )


def _layer(path, layer, arrays):
    factors = []
    if layer.skip is not None and not layer.residual:
        raise CheckpointError(f"{path}: layer {layer.name!r}: skip needs residual = true, got false")
    for m, formats in enumerate(layer.factors):
        key, rest = f"{layer.name}.factors.{m}", {}
        with owned(f"{path}: {key!r}", (ValueError, TypeError)):
            if m == len(layer.factors) - 1:
                rest = {
                    "skip_input": QFormat(*layer.factors[0].input) if layer.residual else None,
                    "skip": arrays.get(f"{layer.name}.skip"),
                    "skip_weights": None if layer.skip is None else QFormat(*layer.skip),
                    "bias": arrays.get(f"{layer.name}.bias"),
                    "bias_width": layer.bias_width,
                    "relu": layer.relu,
                }
            factors.append(
                IntFactor(
                    values=arrays[key],
                    exponents=arrays.get(f"{key}.exponents"),
                    support=None if formats.inputs is None else Indexed(arrays[f"{key}.index"], formats.inputs),
                    **{name: QFormat(*getattr(formats, name)) for name in ("input", "weights", "output")},
                    **rest,
                )
            )
    return IntLayer(factors=tuple(factors), name=layer.name)
