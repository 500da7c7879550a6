"""Formats: every choice that turns a float network into integers, as data, and the integers that they make."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from .act import RELU6, Act
from .chain import Factor
from .golden import IntFactor, IntLayer, IntNetwork, IntNode
from .network import Layer, Network
from .qformat import QFormat


@dataclass(frozen=True, kw_only=True)
class FactorFormats:
    """weights, output: formats of a factor. rows: extra fraction bits, at most, of a single row of weights. table: the
    format in which an activation that is a table takes what the factor gives."""

    weights: QFormat
    output: QFormat
    rows: int = 0
    table: QFormat | None = None

    def __post_init__(self):
        if type(self.rows) is not int or not 0 <= self.rows <= 62:
            raise ValueError(f"FactorFormats.rows must be an integer from 0 to 62, got {self.rows!r}")


@dataclass(frozen=True, kw_only=True)
class LayerFormats:
    """factors: FactorFormats in order; skip: format of the weights of what is added; bias_width: bits of the bias."""

    factors: tuple[FactorFormats, ...]
    skip: QFormat | None = None
    bias_width: int | None = None


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Every choice that turns a float network into integers; nothing else is needed to repeat it.

    layers: LayerFormats of the layers, in order. joins: output formats of other nodes, by name; one that is left out
    gives what it takes.
    """

    input: QFormat
    layers: tuple[LayerFormats, ...]
    joins: dict[str, QFormat] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Plain data: formats as `QFormat.to_list` has them; tables and joins where there are any."""

        def maybe(q):
            return None if q is None else q.to_list()

        def factor(f):
            own = {"weights": f.weights.to_list(), "output": f.output.to_list(), "rows": f.rows}
            return own if f.table is None else own | {"table": f.table.to_list()}

        layers = [
            {"factors": [factor(f) for f in own.factors], "skip": maybe(own.skip), "bias_width": own.bias_width}
            for own in self.layers
        ]
        table = {"input": self.input.to_list(), "layers": layers}
        joins = {name: q.to_list() for name, q in self.joins.items()}
        return table | {"joins": joins} if joins else table

    @classmethod
    def from_dict(cls, table: object) -> Self:
        """The inverse of `to_dict`; ValueError for anything that `to_dict` does not write."""

        def maybe(q):
            return None if q is None else QFormat(*q)

        def factor(f):
            weights, output = QFormat(*f["weights"]), QFormat(*f["output"])
            return FactorFormats(weights=weights, output=output, rows=f["rows"], table=maybe(f.get("table")))

        try:
            result = cls(
                input=QFormat(*table["input"]),
                layers=tuple(
                    LayerFormats(
                        factors=tuple(map(factor, own["factors"])),
                        skip=maybe(own["skip"]),
                        bias_width=own["bias_width"],
                    )
                    for own in table["layers"]
                ),
                joins={name: QFormat(*q) for name, q in table.get("joins", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"formats are malformed: {error!r}") from None
        if result.to_dict() != table:
            raise ValueError("formats are malformed: entries that formats do not have")
        return result


def row_exponents(values: np.ndarray, weights: QFormat, rows: int) -> np.ndarray | None:
    """Extra fraction bits (a, b, d), at most `rows`, with which each row of float values still fits `weights`."""
    if not rows:
        return None
    exponents = np.zeros((values.shape[0], values.shape[1], values.shape[3]), np.int64)
    for e in range(1, rows + 1):
        q = replace(weights, frac=weights.frac + e).round(values)
        fits = ((q <= weights.hi) & (q >= weights.lo)).all(axis=2)
        exponents[fits & (exponents == e - 1)] = e
    return exponents


def quantise_factor(factor: Factor, x_format: QFormat, formats: FactorFormats) -> IntFactor:
    """A float Factor to an IntFactor without addition, bias and activation; see `finish`."""
    values, exponents = factor.values, row_exponents(factor.values, formats.weights, formats.rows)
    scaled = values if exponents is None else np.ldexp(values, exponents[:, :, None, :])
    return IntFactor(
        values=formats.weights.quantise(scaled),
        exponents=exponents,
        input=x_format,
        weights=formats.weights,
        output=formats.output,
        support=factor.support,
    )


def finish(
    factor: IntFactor, layer: Layer, added: QFormat | None, skip: QFormat | None, bias_width: int | None = None,
    table: QFormat | None = None,
) -> IntFactor:
    """The last IntFactor of a layer with all that the layer does: `joined`, then `activated`."""
    return activated(joined(factor, layer, added, skip, bias_width), layer.act, table)


def joined(
    factor: IntFactor, layer: Layer, added: QFormat | None, skip: QFormat | None, bias_width: int | None = None
) -> IntFactor:
    """The last IntFactor of a layer with what is added and the layer's bias.

    added: format of what is added. skip: format of its weights, None where they are one. bias_width: None means: as
    wide as the bias, one bit more.
    """
    if layer.adds:
        factor = replace(factor, skip_input=added)
        if layer.add_scale is not None:
            factor = replace(factor, skip=skip.quantise(layer.add_scale), skip_weights=skip)
    if layer.bias is not None:
        # the accumulator's fraction bits are known only now, and the bias is an integer there
        if bias_width is None:
            needed = np.abs(QFormat(62, factor.acc_frac).round(layer.bias)).max()
            if needed >= 1 << 60:
                raise ValueError(
                    f"integer overflow: a bias of up to {np.abs(layer.bias).max():g}, beside products counted in "
                    f"2^{-factor.acc_frac}, needs more than 62 bits; take narrower formats"
                )
            bias_width = int(needed).bit_length() + 2  # a sign, and room for the training that follows
        bias = QFormat(bias_width, factor.acc_frac).quantise(layer.bias)
        factor = replace(factor, bias=bias, bias_width=bias_width)
    return factor


def activated(factor: IntFactor, act: Act | None, table: QFormat | None) -> IntFactor:
    """An IntFactor with a float activation behind it; table: the format of a table's input."""
    if act is None:
        return factor
    if not act.clamps:
        return replace(factor, table=act.table(table, factor.output))
    return replace(factor, relu=True, top=int(factor.output.quantise(6)) if act == RELU6 else None)


def quantise_layer(layer: Layer, given: Sequence[QFormat], formats: LayerFormats) -> IntLayer:
    """A float layer, the formats of its inputs and its LayerFormats to an IntLayer.

    Weights beyond their format saturate.
    """
    if len(formats.factors) != len(layer.scaled):
        raise ValueError(f"formats for {len(formats.factors)} factors, layer {layer.name!r} has {len(layer.scaled)}")
    for key, there, needed in (
        ("skip", formats.skip is not None, layer.add_scale is not None),
        ("bias_width", formats.bias_width is not None, layer.bias is not None),
        ("table", formats.factors[-1].table is not None, layer.act is not None and not layer.act.clamps),
    ):
        if there != needed:
            raise ValueError(f"formats of layer {layer.name!r}: {key} {'is missing' if needed else 'has no use here'}")
    return apply_formats(layer, given, formats)


def apply_formats(layer: Layer, given: Sequence[QFormat], formats: LayerFormats) -> IntLayer:
    """`quantise_layer` unchecked: a bias_width of None is as wide as the bias needs."""
    factors, q = [], given[0]
    for factor, f in zip(layer.scaled, formats.factors):
        factors.append(quantise_factor(factor, q, f))
        q = f.output
    table = formats.factors[-1].table
    factors[-1] = finish(factors[-1], layer, given[-1], formats.skip, formats.bias_width, table)
    window = layer.window
    if window is not None and window.outside:
        window = replace(window, outside=given[0].quantise(window.outside))
    return IntLayer(factors=tuple(factors), name=layer.name, inputs=layer.inputs, window=window)


def quantise(network: Network, formats: Formats, layer: Callable[..., IntLayer] = quantise_layer) -> IntNetwork:
    """A float network to an IntNetwork by given formats: the same numbers on every machine.

    layer: what makes an IntLayer, `quantise_layer` or `apply_formats`.
    """
    return IntNetwork(integer_nodes(network, formats, layer), network.shape, input=formats.input)


def integer_nodes(
    network: Network, formats: Formats, layer: Callable[..., IntLayer] = quantise_layer
) -> Iterator[IntLayer | IntNode]:
    """Yield the nodes of `quantise`, one after the other."""
    if len(formats.layers) != len(network.layers):
        raise ValueError(f"formats for {len(formats.layers)} layers, the network has {len(network.layers)}")
    made, own = None, iter(formats.layers)

    def step(node, *given):
        nonlocal made
        if isinstance(node, Layer):
            made = layer(node, given, next(own))
        else:
            made = IntNode(node=node, formats=given, output=_joined(node, given, formats))
        return made.output

    for _ in network.walk(formats.input, step):
        yield made


def _joined(node, given, formats):
    """The output format of a node without weights."""
    output = formats.joins.get(node.name)
    if output is None and (node.computes or len(set(given)) > 1):
        raise ValueError(f"formats: node {node.name!r} needs one of its own among the joins, as its inputs' differ")
    return output or given[0]


def formats_of(integers: IntNetwork) -> Formats:
    """The Formats that an IntNetwork was made by, so that other weights can be put in its place."""
    layers, joins = [], {}
    for node in integers.nodes:
        if isinstance(node, IntNode):
            joins[node.name] = node.output
            continue
        factors = tuple(
            FactorFormats(weights=f.weights, output=f.output, rows=f.max_exponent, table=f.table and f.table.input)
            for f in node.factors
        )
        last = node.factors[-1]
        layers.append(LayerFormats(factors=factors, skip=last.skip_weights, bias_width=last.bias_width))
    return Formats(input=integers.input, layers=tuple(layers), joins=joins)


def check_fits(network: Network, formats: Formats) -> None:
    """ValueError, with the first number, where a weight, scale or bias of a float network is beyond its format."""
    integers = quantise(network, formats)
    for layer, whole in zip(network.layers, integers.weighted):
        last = whole.factors[-1]
        parts = [(f"factors.{m}", f.weights, v.values) for m, (f, v) in enumerate(zip(whole.factors, layer.scaled))]
        parts += [("scale", last.skip_weights, layer.add_scale)] if last.skip is not None else []
        parts += [("bias", last.bias_format, layer.bias)] if last.bias is not None else []
        for name, fmt, values in parts:
            q = fmt.round(values)
            beyond = values[(q < fmt.lo) | (q > fmt.hi)]
            if beyond.size:
                worst = beyond.flat[np.abs(beyond).argmax()]
                lo, hi = fmt.dequantise(fmt.lo), fmt.dequantise(fmt.hi)
                raise ValueError(f"{layer.name}.{name}: {worst:g} does not fit {fmt}, which holds {lo:g} to {hi:g}")
