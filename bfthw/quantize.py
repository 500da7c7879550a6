"""Float network to integers: choose formats, apply them, report what it cost."""

from dataclasses import dataclass, replace

import numpy as np

from .calibrate import Calibration, least_squares
from .golden import IntFactor, IntLayer, IntNetwork
from .network import equalise
from .noise import output_sqnr, report  # noqa: F401 (`report` is asked for here)
from .qformat import QFormat
from .settings import Settings


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


def row_exponents(values, weights, rows):
    """Extra fraction bits (a, b, d), at most `rows`, with which each row of float values still fits `weights`."""
    if not rows:
        return None
    exponents = np.zeros((values.shape[0], values.shape[1], values.shape[3]), np.int64)
    for e in range(1, rows + 1):
        q = QFormat(weights.width, weights.frac + e).round(values)
        fits = ((q <= weights.hi) & (q >= weights.lo)).all(axis=2)
        exponents[fits & (exponents == e - 1)] = e
    return exponents


def quantise_factor(factor, x_format, formats):
    """A float Factor to an IntFactor without residual, bias and ReLU; see `finish`."""
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


def finish(factor, layer, x_format, skip, bias_width=None):
    """The last IntFactor of a layer with the layer's residual, bias and ReLU.

    x_format: of the layer's input. skip: format of the residual's weights, None where they are one. bias_width: None
    means: as wide as the bias, one bit more.
    """
    if layer.residual:
        factor = replace(factor, skip_input=x_format)
        if layer.scale is not None:
            factor = replace(factor, skip=skip.quantise(layer.scale), skip_weights=skip)
    if layer.bias is not None:
        # the accumulator's fraction bits are known only now, and the bias is an integer there
        if bias_width is None:
            needed = int(np.abs(QFormat(62, factor.acc_frac).round(layer.bias)).max())
            bias_width = needed.bit_length() + 2  # a sign, and room for the training that follows
        bias = QFormat(bias_width, factor.acc_frac).quantise(layer.bias)
        factor = replace(factor, bias=bias, bias_width=bias_width)
    return replace(factor, relu=layer.relu)


def quantise_layer(layer, x_format, formats):
    """A float layer and its LayerFormats to an IntLayer. Weights beyond their format saturate."""
    if len(formats.factors) != len(layer.folded):
        raise ValueError(f"formats for {len(formats.factors)} factors, layer {layer.name!r} has {len(layer.folded)}")
    for key, there, needed in (
        ("skip", formats.skip is not None, layer.residual and layer.scale is not None),
        ("bias_width", formats.bias_width is not None, layer.bias is not None),
    ):
        if there != needed:
            raise ValueError(f"formats of layer {layer.name!r}: {key} {'is missing' if needed else 'has no use here'}")
    return apply_formats(layer, x_format, formats)


def apply_formats(layer, x_format, formats):
    """`quantise_layer` unchecked: a bias_width of None is as wide as the bias needs."""
    factors, q = [], x_format
    for factor, f in zip(layer.folded, formats.factors):
        factors.append(quantise_factor(factor, q, f))
        q = f.output
    factors[-1] = finish(factors[-1], layer, x_format, formats.skip, formats.bias_width)
    return IntLayer(factors=tuple(factors), name=layer.name)


def quantise(network, formats):
    """A float network to an IntNetwork by given formats: the same numbers on every machine."""
    if len(formats.layers) != len(network.layers):
        raise ValueError(f"formats for {len(formats.layers)} layers, the network has {len(network.layers)}")
    layers, q = [], formats.input
    for layer, f in zip(network.layers, formats.layers):
        layers.append(quantise_layer(layer, q, f))
        q = f.factors[-1].output
    return IntNetwork(layers=tuple(layers))


def formats_of(integers):
    """The Formats that an IntNetwork was made by, so that other weights can be put in its place."""
    layers = []
    for layer in integers.layers:
        factors = tuple(FactorFormats(weights=f.weights, output=f.output, rows=f.max_exponent) for f in layer.factors)
        last = layer.factors[-1]
        layers.append(LayerFormats(factors=factors, skip=last.skip_weights, bias_width=last.bias_width))
    return Formats(input=integers.input, layers=tuple(layers))


def check_fits(network, formats):
    """ValueError, with the first number, where a weight, scale or bias of a float network is beyond its format."""
    integers = quantise(network, formats)
    for layer, whole in zip(network.layers, integers.layers):
        last = whole.factors[-1]
        parts = [(f"factors.{m}", f.weights, v.values) for m, (f, v) in enumerate(zip(whole.factors, layer.folded))]
        parts += [("scale", last.skip_weights, layer.scale)] if last.skip is not None else []
        parts += [("bias", last.bias_format, layer.bias)] if last.bias is not None else []
        for name, fmt, values in parts:
            q = fmt.round(values)
            beyond = values[(q < fmt.lo) | (q > fmt.hi)]
            if beyond.size:
                worst = beyond.flat[np.abs(beyond).argmax()]
                lo, hi = fmt.dequantise(fmt.lo), fmt.dequantise(fmt.hi)
                raise ValueError(f"{layer.name}.{name}: {worst:g} does not fit {fmt}, which holds {lo:g} to {hi:g}")


def weight_format(values, width, rows, method):
    """The format of a factor's weights, floats (a, b, c, d): the finest that holds them, or that of least squares."""
    if method == "percentile":
        return QFormat.covering(width, values.min(), values.max())

    def quantised(fmt):
        e = row_exponents(values, fmt, rows)
        e = 0 if e is None else e[:, :, None, :]
        return np.ldexp(fmt.dequantise(fmt.quantise(np.ldexp(values, e))), -e)

    return least_squares(width, values, quantised)


def choose_formats(network, settings=None, calibration=None):
    """Formats for a network.

    With calibration data, floats (N, inputs) in the network's own units or a `Calibration` of them, a stage's output
    format follows what the float network produces there: it holds what lies between the given percentiles, or has the
    least squared error. Without, it is the finest that cannot overflow whatever the inputs, each stage's inputs taken
    as independent of each other. Weights: see `weight_format`.
    """
    settings = settings or Settings()
    settings.check_layers([layer.name for layer in network.layers])
    q = QFormat(settings.input_bits, settings.input_bits - 1 if settings.input_frac is None else settings.input_frac)
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = Calibration(network, calibration)
    assert calibration is None or calibration.network is network
    if calibration is not None and settings.input_frac is None:
        q = calibration.format(0, settings.input_bits, settings)
    first, chosen, stages, method = q, [], 0, settings.calibration_method
    once = calibration.once if calibration is not None else lambda key, choose: choose()
    lo, hi = np.full((1, network.inputs), q.lo), np.full((1, network.inputs), q.hi)  # what each value can be
    for layer in network.layers:
        x_format, lo0, hi0, skip, factors = q, lo[0], hi[0], None, []
        bits, widths, rows = (
            settings.of_factors(layer.name, key, len(layer.folded))
            for key in ("weight_bits", "activation_bits", "row_exponents")
        )
        if layer.residual and layer.scale is not None:
            skip = weight_format(layer.scale, bits[-1], 0, method)
        for m, factor in enumerate(layer.folded):
            asked = factor.values, bits[m], rows[m], method
            weights = once(("weights", stages, *asked[1:]), lambda asked=asked: weight_format(*asked))
            # bounds of the accumulator are wanted first; for them any output format does, say one that drops nothing
            draft = FactorFormats(weights=weights, output=QFormat(widths[m], q.frac + weights.frac), rows=rows[m])
            stage = quantise_factor(factor, q, draft)
            if m == len(layer.folded) - 1:
                stage = finish(stage, layer, x_format, skip)
            stages += 1
            if calibration is not None:
                q = calibration.format(stages, widths[m], settings)
            else:
                low, high = stage.bounds(lo, hi, lo0, hi0)
                if stage.relu:
                    low, high = np.maximum(low, 0), np.maximum(high, 0)
                reach = np.ldexp([float(low.min()), float(high.max())], -stage.acc_frac)
                q = QFormat.covering(widths[m], *reach.tolist())
                stage = replace(stage, output=q)
                lo, hi = stage.requantise(low)[None], stage.requantise(high)[None]
            factors.append(replace(draft, output=q))
        chosen.append(LayerFormats(factors=tuple(factors), skip=skip, bias_width=stage.bias_width))
    return Formats(input=first, layers=tuple(chosen))


def compile(network, *, settings=None, calibration=None, formats=None):
    """A float network to an IntNetwork; see `prepare` for the choice of formats."""
    return quantise(*prepare(network, settings=settings, calibration=calibration, formats=formats))


def prepare(network, *, settings=None, calibration=None, formats=None):
    """What `compile` quantises: (network, formats), the network equalised where that is wanted.

    In order of preference: the given formats; those that the network was trained for, unless settings or calibration
    data are given; formats chosen here. settings.equalise = None means: equalise if that raises the SQNR on the
    calibration data (without data: no).
    """
    if formats is None and settings is None and calibration is None:
        formats = network.formats
    if formats is not None:
        return network, formats
    settings = settings or Settings()
    if settings.equalise is not None or calibration is None:
        network = equalise(network) if settings.equalise else network
        return network, choose_formats(network, settings, calibration)

    def candidate(network):
        data = Calibration(network, calibration)
        formats = choose_formats(network, settings, data)
        return output_sqnr(quantise(network, formats), data.vectors, data.wanted), network, formats

    return max(candidate(network), candidate(equalise(network)), key=lambda found: found[0])[1:]
