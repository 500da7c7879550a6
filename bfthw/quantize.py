"""Float network to integers: choose formats, apply them, report what it cost."""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from .calibrate import Calibration, least_squares
from .chain import Factor, interval
from .check import QuantisationWarning, check
from .formats import FactorFormats, Formats, LayerFormats
from .golden import IntFactor, IntLayer, IntNetwork
from .network import Layer, equalise
from .noise import output_sqnr, report  # noqa: F401 (`report` is asked for here)
from .qformat import QFormat
from .reading import owned
from .settings import Settings

GUARD = 4  # bits that weights keep below the last bit of a stage's output, where an accumulator cannot hold all of them


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
            needed = np.abs(QFormat(62, factor.acc_frac).round(layer.bias)).max()
            if needed >= 1 << 60:
                raise ValueError(
                    f"integer overflow: a bias of up to {np.abs(layer.bias).max():g}, beside products counted in "
                    f"2^{-factor.acc_frac}, needs more than 62 bits; take narrower formats"
                )
            bias_width = int(needed).bit_length() + 2  # a sign, and room for the training that follows
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


def weight_format(values, width, rows, method, symmetric=False):
    """The format of a factor's weights, floats (a, b, c, d): the finest that holds them, or that of least squares.

    symmetric: so that no integer is the most negative one.
    """

    def integers(fmt):
        e = row_exponents(values, fmt, rows)
        e = 0 if e is None else e[:, :, None, :]
        return fmt.quantise(np.ldexp(values, e)), e

    def quantised(fmt):
        q, e = integers(fmt)
        return np.ldexp(fmt.dequantise(q), -e)

    if method == "percentile":
        chosen = QFormat.covering(width, values.min(), values.max())
    else:
        chosen = least_squares(width, values, quantised)
    while symmetric and integers(chosen)[0].min() == chosen.lo:
        chosen = QFormat(width, chosen.frac - 1)
    return chosen


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What enters a stage or a layer: a format, and bounds (1, n), integers; None where calibration data tell more."""

    format: QFormat
    lo: np.ndarray | None
    hi: np.ndarray | None

    @property
    def exponent(self):
        """Of a power of two that no magnitude exceeds."""
        return self.format.width - 1 - self.format.frac


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A float factor, what enters it and its layer; layer: None but for the last factor. width: bits of its output."""

    factor: Factor
    layer: Layer | None
    x: _Entry
    x0: _Entry
    width: int
    rows: int

    def integers(self, weights, skip, output):
        """(IntFactor, what leaves it). output: a format, or None, which means: the finest that holds the bounds."""
        # bounds of the accumulator are wanted first; for them any output format does, say one that drops nothing
        draft = output or QFormat(self.width, self.x.format.frac + weights.frac)
        own = FactorFormats(weights=weights, output=draft, rows=self.rows)
        stage = quantise_factor(self.factor, self.x.format, own)
        if self.layer is not None:
            stage = finish(stage, self.layer, self.x0.format, skip)
        if output is not None:
            return stage, _Entry(format=output, lo=None, hi=None)
        low, high = stage.bounds(self.x.lo, self.x.hi, self.x0.lo[0], self.x0.hi[0])
        if stage.relu:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        reach = np.ldexp([float(low.min()), float(high.max())], -stage.acc_frac)
        stage = replace(stage, output=QFormat.covering(self.width, *reach.tolist()))
        return stage, _Entry(format=stage.output, lo=stage.requantise(low)[None], hi=stage.requantise(high)[None])

    def reaching(self, weights, skip, output):
        """The same three formats without the fraction bits that cannot reach the last bit of the output.

        What all weights of an output lose together, and what the residual's loses, stay below 2^-GUARD of that bit; an
        output finer than all that meets in it loses bits that are always zero.
        """
        finest = self.x.format.frac + weights.frac + self.rows
        if skip is not None:
            finest = max(finest, self.x0.format.frac + skip.frac)
        last = output.frac if output else QFormat.covering(self.width, *self._reach()).frac
        limit = min(last, finest) + GUARD - 1
        products = (self.factor.pattern.c - 1).bit_length()
        weights = _coarser(weights, limit + products + self.x.exponent)
        return weights, skip and _coarser(skip, limit + self.x0.exponent), output and _coarser(output, finest)

    def _reach(self):
        """The least and the largest number, floats, that the bounds of what enters allow."""
        ends = [self.x.format.dequantise(end) for end in (self.x.lo, self.x.hi)]
        low, high = interval(self.factor.values, *ends, self.factor.support)
        if self.layer is not None:
            lo0, hi0 = (self.x0.format.dequantise(end) for end in (self.x0.lo, self.x0.hi))
            if self.layer.residual and self.layer.scale is not None:  # a scale below zero turns its bounds round
                falls = self.layer.scale < 0
                lo0, hi0 = np.where(falls, hi0, lo0), np.where(falls, lo0, hi0)
            low, high = self.layer.finish(low, lo0), self.layer.finish(high, hi0)
        return float(low.min()), float(high.max())


def _coarser(fmt, frac):
    """The format with at most so many fraction bits."""
    return QFormat(fmt.width, max(-1000, min(fmt.frac, frac)))


def _fitting(stage, weights, skip, output):
    """`_Stage.integers` of these formats or, where no accumulator holds them, of what `_Stage.reaching` leaves."""
    try:
        return stage.integers(weights, skip, output)
    except ValueError as error:
        try:
            return stage.integers(*stage.reaching(weights, skip, output))
        except ValueError:
            raise error from None


def _named(layer, m):
    """Errors name the layer and the factor."""
    return owned(f"layer {layer.name!r}, factor {m}", error=ValueError)


def choose_formats(network, settings=None, calibration=None):
    """Formats for a network.

    With calibration data, floats (N, inputs) in the network's own units or a `Calibration` of them, a stage's output
    format follows what the float network produces there: it holds what lies between the given percentiles, or has the
    least squared error. Without, it is the finest that cannot overflow whatever the inputs, each stage's inputs taken
    as independent of each other. Weights: see `weight_format`; where an accumulator cannot hold all of their bits,
    those are dropped that cannot reach the last bit of the stage's output (`dropped` in bfthw.check names them).
    Raises ValueError, which names layer and factor, where that is not enough.
    """
    settings = settings or Settings()
    settings.check_layers([layer.name for layer in network.layers])
    q = QFormat(settings.input_bits, settings.input_bits - 1 if settings.input_frac is None else settings.input_frac)
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = Calibration(network, calibration)
    assert calibration is None or calibration.network is network
    if calibration is not None and settings.input_frac is None:
        q = calibration.format(0, settings.input_bits, settings)
    chosen, stages, method = [], 0, settings.calibration_method
    once = calibration.once if calibration is not None else lambda key, choose: choose()
    x = _Entry(format=q, lo=np.full((1, network.inputs), q.lo), hi=np.full((1, network.inputs), q.hi))
    for layer in network.layers:
        x0, skip, factors = x, None, []
        bits, widths, rows = (
            settings.of_factors(layer.name, key, len(layer.folded))
            for key in ("weight_bits", "activation_bits", "row_exponents")
        )
        if layer.residual and layer.scale is not None:
            skip = weight_format(layer.scale, bits[-1], 0, method)
        for m, factor in enumerate(layer.folded):
            last = m == len(layer.folded) - 1
            asked = factor.values, bits[m], rows[m], method, settings.paired
            weights = once(("weights", stages, *asked[1:]), lambda asked=asked: weight_format(*asked))
            stages += 1
            output = None if calibration is None else calibration.format(stages, widths[m], settings)
            own = _Stage(factor=factor, layer=layer if last else None, x=x, x0=x0, width=widths[m], rows=rows[m])
            with _named(layer, m):
                stage, x = _fitting(own, weights, skip if last else None, output)
            factors.append(FactorFormats(weights=stage.weights, output=stage.output, rows=rows[m]))
        chosen.append(LayerFormats(factors=tuple(factors), skip=stage.skip_weights, bias_width=stage.bias_width))
    return Formats(input=q, layers=tuple(chosen))


def compile(network, *, settings=None, calibration=None, formats=None, allow_constant=False):
    """A float network to an IntNetwork; see `prepare` for the choice of formats.

    Emits a `bfthw.check.QuantisationWarning` for each warning and note of `bfthw.check.check`. Raises ValueError where
    every output is constant in integers and not in floats, unless allow_constant.
    """
    *_, integers, found = checked(network, settings=settings, calibration=calibration, formats=formats)
    for line in (*found.notes, *found.warnings):
        warnings.warn(line, QuantisationWarning, stacklevel=2)
    if found.refusal and not allow_constant:
        raise ValueError(found.refusal)
    return integers


def checked(network, *, settings=None, calibration=None, formats=None):
    """(network, Formats, IntNetwork, Check): what `prepare` returned, quantised, and what is to be said of it."""
    prepared, chosen = prepare(network, settings=settings, calibration=calibration, formats=formats)
    integers = quantise(prepared, chosen)

    def again(settings, calibration):
        return quantise(*prepare(network, settings=settings, calibration=calibration))

    given = formats is not None or chosen is network.formats
    how = {"calibration": calibration, "settings": settings, "again": None if given else again}
    return prepared, chosen, integers, check(prepared, integers, **how)


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
