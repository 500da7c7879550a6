"""Formats: every choice that turns a float network into integers, as data."""

from dataclasses import dataclass

from .qformat import QFormat


@dataclass(frozen=True, kw_only=True)
class FactorFormats:
    """weights, output: formats of a factor. rows: extra fraction bits, at most, of a single row of weights."""

    weights: QFormat
    output: QFormat
    rows: int = 0

    def __post_init__(self):
        if type(self.rows) is not int or not 0 <= self.rows <= 62:
            raise ValueError(f"FactorFormats.rows must be an integer from 0 to 62, got {self.rows!r}")


@dataclass(frozen=True, kw_only=True)
class LayerFormats:
    """factors: FactorFormats in order; skip: format of the residual's weights; bias_width: bits of the bias."""

    factors: tuple
    skip: QFormat | None = None
    bias_width: int | None = None


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Every choice that turns a float network into integers; nothing else is needed to repeat it."""

    input: QFormat
    layers: tuple

    def to_dict(self):
        def pair(q):
            return None if q is None else [q.width, q.frac]

        return {
            "input": pair(self.input),
            "layers": [
                {
                    "factors": [
                        {"weights": pair(f.weights), "output": pair(f.output), "rows": f.rows} for f in layer.factors
                    ],
                    "skip": pair(layer.skip),
                    "bias_width": layer.bias_width,
                }
                for layer in self.layers
            ],
        }

    @classmethod
    def from_dict(cls, table):
        """The inverse of `to_dict`; ValueError for anything that `to_dict` does not write."""

        def maybe(q):
            return None if q is None else QFormat(*q)

        try:
            result = cls(
                input=QFormat(*table["input"]),
                layers=tuple(
                    LayerFormats(
                        factors=tuple(
                            FactorFormats(weights=QFormat(*f["weights"]), output=QFormat(*f["output"]), rows=f["rows"])
                            for f in layer["factors"]
                        ),
                        skip=maybe(layer["skip"]),
                        bias_width=layer["bias_width"],
                    )
                    for layer in table["layers"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"formats are malformed: {error!r}") from None
        if result.to_dict() != table:
            raise ValueError("formats are malformed: entries that formats do not have")
        return result
