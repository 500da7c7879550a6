"""What a user may set, for the whole network or for one layer, from the command line or a TOML file."""

import json
import tomllib
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from .reading import CheckpointError, StrPath, first_fault, read_text, reader, short
from .storage import Strict

Bits = Annotated[int, Field(ge=2, le=24)]
Extra = Annotated[int, Field(ge=0, le=8)]
Lanes = Annotated[int, Field(ge=1, le=4096)]
Simd = Annotated[int, Field(ge=1, le=65536)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # of an engine, a target: hardware knows
# what is chosen for the hardware: of a factor, and of the whole network
HARDWARE = {"engine", "lanes", "lanes_in", "simd", "products", "paired", "vectors", "target", "roms", "count_beats"}
MOST, MOST_DOTS = 256 << 10, 24  # bytes of a settings file, dots of a line


class LayerSettings(Strict):
    """Settings of one layer; a list has one entry for each factor. None: the network's setting.

    engine, and the options of engines, lanes, lanes_in, simd, products, paired: as in rtl_gen.Plan.choices.
    """

    weight_bits: Bits | list[Bits] | None = None
    activation_bits: Bits | list[Bits] | None = None
    row_exponents: Extra | list[Extra] | None = None
    engine: Name | list[Name] | None = None
    lanes: Lanes | list[Lanes | None] | None = None
    lanes_in: Lanes | list[Lanes | None] | None = None
    simd: Simd | list[Simd | None] | None = None
    products: Name | list[Name | None] | None = None
    paired: bool | list[bool | None] | None = None


class Settings(LayerSettings):
    """Settings of a network.

    row_exponents: extra fraction bits, at most, that a row of weights may have of its own.
    calibration_method: how formats follow the data, and those of weights the weights: see quantize.choose_formats.
    percentile: a format holds what lies between the percentiles 100 - p and p of the calibration data.
    unsigned: formats without a sign where nothing is below zero; None: in networks over maps alone.
    vectors: whole vectors side by side in a beat. target: whose primitives the Verilog instances; plain: none.
    roms: where a plain core keeps its weights. count_beats: a
    frame ends after its beats, whatever TLAST says.
    """

    weight_bits: Bits | list[Bits] = 8
    activation_bits: Bits | list[Bits] = 10
    row_exponents: Extra | list[Extra] = 0
    input_bits: Bits = 8
    input_frac: Annotated[int, Field(ge=-64, le=64)] | None = None
    calibration_method: Literal["percentile", "least-squares"] = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    equalise: bool | None = None
    unsigned: bool | None = None
    vectors: Annotated[int, Field(ge=1, le=4096)] = 1
    target: Name = "plain"
    roms: Name = "initial"
    count_beats: bool = False
    layers: dict[str, LayerSettings] = {}

    def __repr_args__(self):
        return [(key, getattr(self, key)) for key in sorted(self.model_fields_set)]  # those that were set

    @property
    def given(self) -> frozenset[str]:
        """Keys that were set, for the network or for a layer."""
        own = (layer.model_fields_set for layer in self.layers.values())
        return frozenset(self.model_fields_set - {"layers"}).union(*own)

    @property
    def chooses_formats(self) -> bool:
        """Whether anything but the hardware was set."""
        return bool(self.given - HARDWARE)

    def layer(self, name: str) -> LayerSettings:
        """The settings of a layer, every number filled in (those of the hardware may stay None: chosen later)."""
        own = self.layers.get(name, LayerSettings())
        given = own.model_dump(exclude_none=True)
        return LayerSettings(**{key: given.get(key, getattr(self, key)) for key in LayerSettings.model_fields})

    def of_factors(self, name: str, key: str, count: int) -> list:
        """A setting of each of the `count` factors of a layer, a list; ValueError where a list has another length."""
        value = getattr(self.layer(name), key)
        if isinstance(value, list) and len(value) != count:
            raise ValueError(
                f"settings: {key} of layer {name!r} needs an entry for each of {count} factors, got {len(value)}"
            )
        return value if isinstance(value, list) else [value] * count

    def to_toml(self) -> str:
        """Text that `make_settings` reads as these settings."""
        table = self.model_dump(exclude_unset=True, exclude_none=True)
        layers = table.pop("layers", {})
        # a JSON number, string, boolean or list of them is TOML as well
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        for name, own in layers.items():
            lines += ["", f"[layers.{json.dumps(name)}]", *(f"{key} = {json.dumps(v)}" for key, v in own.items())]
        return "\n".join(lines) + "\n"

    def check_layers(self, names: Collection[str]) -> None:
        """ValueError where a table names a layer that the network does not have."""
        for name in self.layers:
            if name not in names:
                known = ", ".join(map(repr, names))
                raise ValueError(f"settings: the network has no layer {name!r}; its layers are {known}")


def make_settings(path: StrPath | None = None, **given: object) -> Settings:
    """Settings from a TOML file with the given values (None: not given) on top; ValueError names file, key and rule."""
    table, where = {}, "settings"
    if path is not None:
        table, where = _read_toml(path), str(path)
    table |= {key: value for key, value in given.items() if value is not None}
    try:
        return Settings(**table)
    except ValidationError as error:
        # of the ways to read `one or list`, the one that came furthest; pydantic puts their names into the location
        first = first_fault(error, key=lambda e: -len(e["loc"]))
        ways = "constrained-", "list[", "literal[", "bool"
        named = 2 if first["loc"][:1] == ("layers",) else 1  # parts that are the user's, or a key's
        kept = [part for n, part in enumerate(first["loc"]) if n < named or not str(part).startswith(ways)]
        key = ".".join(map(str, kept))
        if first["type"] == "extra_forbidden":
            known = LayerSettings.model_fields if "." in key else Settings.model_fields
            raise ValueError(f"{where}: unknown key {key!r}; the keys are {', '.join(known)}") from None
        if first["type"] == "many":
            raise ValueError(f"{where}: {first['msg']}") from None
        raise ValueError(f"{where}: {key} = {short(first['input'])}: {first['msg']}") from None


@reader
def _read_toml(path):
    """The tables of a TOML file; a byte order mark is left out."""
    text = read_text(path, MOST, "TOML file")
    # the parser keeps a list of all parts before it for each part of a key
    if any(line.partition("#")[0].count(".") > MOST_DOTS for line in text.splitlines()):
        raise CheckpointError(f"{path}: not a settings file: a line has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CheckpointError(f"{path}: not a settings file: it is nested without an end") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not a TOML file: {error}") from None
