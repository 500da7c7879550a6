"""Float network to integers: choose formats, apply them, report what it cost."""

from dataclasses import dataclass, replace

import numpy as np

from .golden import IntFactor, IntLayer, IntNetwork
from .network import equalise
from .qformat import QFormat
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class FactorFormats:
    """weights, output: formats of a factor. rows: extra fraction bits, at most, of a single row of weights."""

    weights: QFormat
    output: QFormat
    rows: int = 0


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
                    "factors": [{"weights": pair(f.weights), "output": pair(f.output), "rows": f.rows} for f in layer.factors],
                    "skip": pair(layer.skip),
                    "bias_width": layer.bias_width,
                }
                for layer in self.layers
            ],
        }

    @classmethod
    def from_dict(cls, table):
        """The inverse of `to_dict`; ValueError for anything else."""

        def pair(q):
            return None if q is None else QFormat(*q)

        try:
            return cls(
                input=pair(table["input"]),
                layers=tuple(
                    LayerFormats(
                        factors=tuple(
                            FactorFormats(weights=pair(f["weights"]), output=pair(f["output"]), rows=int(f["rows"]))
                            for f in layer["factors"]
                        ),
                        skip=pair(layer["skip"]),
                        bias_width=layer["bias_width"],
                    )
                    for layer in table["layers"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"formats are malformed: {error!r}") from None


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


def quantise_factor(values, x_format, formats, **rest):
    """Float values (a, b, c, d) to an IntFactor; `rest` goes to it as it is."""
    exponents = row_exponents(values, formats.weights, formats.rows)
    scaled = values if exponents is None else np.ldexp(values, exponents[:, :, None, :])
    return IntFactor(
        values=formats.weights.quantise(scaled),
        exponents=exponents,
        input=x_format,
        weights=formats.weights,
        output=formats.output,
        **rest,
    )


def finishing(layer, x_format, formats, acc_frac):
    """Arguments of the last IntFactor of a layer: skip and ReLU, and the bias at `acc_frac` (None: no bias yet)."""
    rest = {"relu": layer.relu}
    if layer.residual:
        rest["skip_input"] = x_format
        if layer.scale is not None:
            rest |= {"skip": formats.skip.quantise(layer.scale), "skip_weights": formats.skip}
    if layer.bias is not None and acc_frac is not None:
        rest |= {"bias": QFormat(formats.bias_width, acc_frac).quantise(layer.bias), "bias_width": formats.bias_width}
    return rest


def quantise_layer(layer, x_format, formats):
    """A float layer and its LayerFormats to an IntLayer. Weights beyond their format saturate."""
    *head, last = layer.folded
    if len(formats.factors) != len(layer.folded):
        raise ValueError(f"formats for {len(formats.factors)} factors, layer {layer.name!r} has {len(layer.folded)}")
    if (formats.skip is None) != (not layer.residual or layer.scale is None) or (formats.bias_width is None) != (layer.bias is None):
        raise ValueError(f"formats of layer {layer.name!r} do not fit its residual and bias")
    factors, q = [], x_format
    for factor, f in zip(head, formats.factors):
        factors.append(quantise_factor(factor.values, q, f))
        q = f.output
    bare = quantise_factor(last.values, q, formats.factors[-1], **finishing(layer, x_format, formats, None))
    rest = finishing(layer, x_format, formats, bare.acc_frac)
    factors.append(quantise_factor(last.values, q, formats.factors[-1], **rest))
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


def _range(values, percentile):
    return np.percentile(values, 100 - percentile), np.percentile(values, percentile)


def _no_overflow(width, acc_frac, lo, hi):
    """The finest format that no accumulator from lo to hi (integers at acc_frac) can overflow, rounding included."""
    return QFormat.covering(width, float(np.ldexp(float(lo), -acc_frac)), float(np.ldexp(float(hi), -acc_frac)))


def choose_formats(network, settings=None, calibration=None):
    """Formats for a network.

    With calibration data (N, inputs), floats in the network's own units, a stage's output format holds the given
    percentile of what the float network produces there; without, it is the finest that no input can overflow.
    """
    settings = settings or Settings()
    settings.check_layers([layer.name for layer in network.layers])
    taps = None
    q = QFormat(settings.input_bits, settings.input_bits - 1 if settings.input_frac is None else settings.input_frac)
    if calibration is not None:
        calibration = check_vectors(calibration, network.inputs, "calibration data")
        taps = iter(network.taps(calibration))
        if settings.input_frac is None:
            q = QFormat.covering(settings.input_bits, *_range(calibration, settings.percentile))
    chosen, first = [], q
    lo, hi = np.full((1, network.inputs), q.lo), np.full((1, network.inputs), q.hi)
    for layer in network.layers:
        own, x_format, (lo0, hi0) = settings.layer(layer.name), q, (lo, hi)
        skip = bias_width = None
        if layer.residual and layer.scale is not None:
            skip = QFormat.covering(own.weight_bits, layer.scale.min(), layer.scale.max())
        factors = []
        for m, factor in enumerate(layer.folded):
            weights = QFormat.covering(own.weight_bits, factor.values.min(), factor.values.max())
            # the output's format does not matter to the accumulator, whose bounds are wanted here
            draft = FactorFormats(weights=weights, output=QFormat(own.activation_bits, q.frac), rows=own.row_exponents)
            rest, scratch = {}, LayerFormats(factors=(), skip=skip)
            if m == len(layer.folded) - 1:
                rest = finishing(layer, x_format, scratch, None)
                if layer.bias is not None:
                    acc_frac = quantise_factor(factor.values, q, draft, **rest).acc_frac
                    needed = np.abs(QFormat(62, acc_frac).round(layer.bias)).max()
                    bias_width = int(needed).bit_length() + 2  # a sign, and room for the training that follows
                    scratch = LayerFormats(factors=(), skip=skip, bias_width=bias_width)
                    rest = finishing(layer, x_format, scratch, acc_frac)
            stage = quantise_factor(factor.values, q, draft, **rest)
            low, high = stage.bounds(lo, hi, lo0[0], hi0[0]) if rest.get("skip_input") else stage.bounds(lo, hi)
            if rest.get("relu"):
                low, high = np.maximum(low, 0), np.maximum(high, 0)
            if taps is None:
                output = _no_overflow(own.activation_bits, stage.acc_frac, low.min(), high.max())
            else:
                output = QFormat.covering(own.activation_bits, *_range(next(taps), settings.percentile))
            stage = replace(stage, output=output)
            lo, hi = stage.requantise(low)[None], stage.requantise(high)[None]
            factors.append(replace(draft, output=output))
            q = output
        chosen.append(LayerFormats(factors=tuple(factors), skip=skip, bias_width=bias_width))
    return Formats(input=first, layers=tuple(chosen))


def check_vectors(x, size, name):
    """Finite real vectors (N, size) as float64; TypeError or ValueError otherwise."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, got dtype {x.dtype}")
    if x.ndim != 2 or x.shape[1] != size or not len(x):
        raise ValueError(f"{name} must have shape (N, {size}), got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite, found NaN or infinity")
    return x.astype(np.float64)


def compile(network, *, settings=None, calibration=None, formats=None):
    """A float network to an IntNetwork; see `prepare` for the choice of formats."""
    return quantise(*prepare(network, settings=settings, calibration=calibration, formats=formats))


def prepare(network, *, settings=None, calibration=None, formats=None):
    """What `compile` quantises: (network, formats), the network equalised where that is wanted.

    In order of preference: the given formats; those that the network was trained for, unless settings or calibration data
    are given; formats chosen here. settings.equalise = None means: equalise if that raises the SQNR on the calibration
    data (without data: no).
    """
    if formats is None and settings is None and calibration is None:
        formats = network.formats
    if formats is not None:
        return network, formats
    settings = settings or Settings()
    plain = network, choose_formats(network, settings, calibration)
    if settings.equalise is False or (settings.equalise is None and calibration is None):
        return plain
    even = equalise(network)
    even = even, choose_formats(even, settings, calibration)
    if settings.equalise:
        return even
    return max(plain, even, key=lambda pair: report(pair[0], quantise(*pair), calibration)[-1].sqnr)


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """name, integer factor, SQNR in dB against the float stage, saturated values, values in all, largest |float|."""

    name: str
    factor: IntFactor
    sqnr: float
    saturated: int
    values: int
    peak: float


def report(network, integers, x):
    """Compare an IntNetwork, stage by stage, with the float network it came from on floats x (N, inputs).

    `network` is what `prepare` returned: an equalised network has other values between its factors.
    Returns a list of StageReport, the input's quantisation first (its factor is None).
    """
    x = check_vectors(x, network.inputs, "vectors")
    q = integers.input.quantise(x)
    clipped = int(np.sum(np.abs(integers.input.round(x) - q) > 0))
    rows = [_row("input", None, x, integers.input.dequantise(q), clipped)]
    for name, wanted, (factor, acc, y) in zip(integers.names, network.taps(x), integers.accumulators(q)):
        saturated = int(factor.saturated(acc).sum())
        rows.append(_row(name, factor, wanted, factor.output.dequantise(y), saturated))
    return rows


def _row(name, factor, wanted, got, saturated):
    noise = float(np.square(wanted - got).sum())
    signal = float(np.square(wanted).sum())
    sqnr = np.inf if noise == 0 else -np.inf if signal == 0 else 10 * np.log10(signal / noise)
    return StageReport(
        name=name, factor=factor, sqnr=float(sqnr), saturated=saturated, values=wanted.size, peak=float(np.abs(wanted).max())
    )
