"""What a user may set, for the whole network or for one layer, from the command line or a TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Lanes = Annotated[int, Field(ge=1, le=4096)]
Simd = Annotated[int, Field(ge=1, le=65536)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LayerSettings(_Strict):
    """Settings of one layer; a list has one entry for each factor. None: the network's setting."""

    weight_bits: Annotated[int, Field(ge=2, le=24)] | None = None
    activation_bits: Annotated[int, Field(ge=2, le=24)] | None = None
    row_exponents: Annotated[int, Field(ge=0, le=8)] | None = None
    lanes: Lanes | list[Lanes] | None = None
    simd: Simd | list[Simd] | None = None


class Settings(LayerSettings):
    """Settings of a network.

    row_exponents: extra fraction bits, at most, that a row of weights may have of its own.
    percentile: a format holds what lies between the percentiles 100 - p and p of the calibration data.
    """

    weight_bits: Annotated[int, Field(ge=2, le=24)] = 8
    activation_bits: Annotated[int, Field(ge=2, le=24)] = 10
    row_exponents: Annotated[int, Field(ge=0, le=8)] = 0
    input_bits: Annotated[int, Field(ge=2, le=24)] = 8
    input_frac: Annotated[int, Field(ge=-64, le=64)] | None = None
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    equalise: bool | None = None
    layers: dict[str, LayerSettings] = {}

    @property
    def chooses_formats(self):
        """Whether anything but the hardware's lanes and SIMD was set."""
        hardware = {"lanes", "simd"}
        own = (layer.model_fields_set - hardware for layer in self.layers.values())
        return bool(self.model_fields_set - hardware - {"layers"}) or any(own)

    def layer(self, name):
        """The settings of a layer, every number filled in (lanes and simd may stay None: chosen later)."""
        own = self.layers.get(name, LayerSettings())
        given = own.model_dump(exclude_none=True)
        return LayerSettings(**{key: given.get(key, getattr(self, key)) for key in LayerSettings.model_fields})

    def check_layers(self, names):
        """ValueError where a table names a layer that the network does not have."""
        for name in self.layers:
            if name not in names:
                known = ", ".join(map(repr, names))
                raise ValueError(f"settings: the network has no layer {name!r}; its layers are {known}")


def make_settings(path=None, **given):
    """Settings from a TOML file with the given values (None: not given) on top; ValueError names file, key and rule."""
    table, where = {}, "settings"
    if path is not None:
        where = str(path)
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{where}: not a TOML file: {error}") from None
    table |= {key: value for key, value in given.items() if value is not None}
    try:
        return Settings(**table)
    except ValidationError as error:
        # of the ways to read `int or list`, the one that came furthest; pydantic puts their names into the location
        first = max(error.errors(), key=lambda e: len(e["loc"]))
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("constrained-", "list[")))
        if first["type"] == "extra_forbidden":
            known = LayerSettings.model_fields if "." in key else Settings.model_fields
            raise ValueError(f"{where}: unknown key {key!r}; the keys are {', '.join(known)}") from None
        raise ValueError(f"{where}: {key} = {first['input']!r}: {first['msg']}") from None
