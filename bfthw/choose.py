"""Formats chosen: by calibration data, or by bounds that hold whatever the inputs are."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from .act import MOST, RELU6
from .calibrate import Calibration, Data, least_squares
from .chain import Factor, interval
from .formats import FactorFormats, Formats, LayerFormats, activated, joined, quantise_factor, row_exponents
from .golden import IntNode
from .network import Layer, Network
from .qformat import QFormat
from .settings import Settings

GUARD = 4  # bits that weights keep below the last bit of a stage's output, where an accumulator cannot hold all of them


def weight_format(values: np.ndarray, width: int, rows: int, method: str, symmetric: bool | None = False) -> QFormat:
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
    """What a node gives: a format, and bounds of each channel (1, n), integers; None where calibration data tell more.
    """

    format: QFormat
    lo: np.ndarray | None
    hi: np.ndarray | None

    @property
    def exponent(self):
        """Of a power of two that no magnitude exceeds."""
        return self.format.operand - 1 - self.format.frac

    def through(self, window):
        """What a layer's chain sees of it."""
        if window is None or self.lo is None:
            return self
        lo, hi = window.spread(self.lo), window.spread(self.hi)
        if any(window.padding):
            edge = self.format.quantise(np.broadcast_to(window.outside, self.lo.shape))
            lo, hi = np.minimum(lo, window.spread(edge)), np.maximum(hi, window.spread(edge))
        return replace(self, lo=lo, hi=hi)


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A float factor, what enters it and its layer; layer: None but for the last factor. width: bits of its output, of
    numbers with a sign or without.
    """

    factor: Factor
    layer: Layer | None
    x: _Entry
    x0: _Entry
    width: int
    rows: int
    signed: bool = True

    @property
    def tabled(self):
        """Whether its activation is a table, whose input has a format, too."""
        return self.layer is not None and self.layer.act is not None and not self.layer.act.clamps

    @property
    def table_width(self):
        return min(MOST, self.width)

    def integers(self, weights, skip, output, table):
        """(IntFactor, what leaves it). output, table: formats; None means: the finest that hold the bounds."""
        # bounds of the accumulator are wanted first; for them any output format does, say one that drops nothing
        draft = output or QFormat(self.width, self.x.format.frac + weights.frac)
        own = FactorFormats(weights=weights, output=draft, rows=self.rows)
        stage, act = quantise_factor(self.factor, self.x.format, own), None
        if self.layer is not None:
            stage, act = joined(stage, self.layer, self.x0.format, skip), self.layer.act
        if output is not None:
            return activated(stage, act, table), _Entry(format=output, lo=None, hi=None)
        low, high = stage.bounds(self.x.lo, self.x.hi, self.x0.lo[0], self.x0.hi[0])
        if act is not None and act.clamps:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        reach = np.ldexp([float(low.min()), float(high.max())], -stage.acc_frac)
        if self.tabled:
            table = QFormat.covering(self.table_width, *reach.tolist())
            grid = table.dequantise(np.arange(*table.quantise(reach) + (0, 1)))
            reach = np.array([act(grid).min(), act(grid).max()])
        elif act == RELU6:
            reach = np.minimum(reach, 6)
        output = QFormat.covering(self.width, *reach.tolist(), self.signed)
        stage = activated(replace(stage, output=output), act, table)
        if self.tabled:
            lo, hi = (np.full_like(low, end) for end in output.quantise(reach))
        else:
            lo, hi = stage.requantise(low), stage.requantise(high)
        return stage, _Entry(format=output, lo=lo[None], hi=hi[None])

    def reaching(self, weights, skip, output, table):
        """The same four formats without the fraction bits that cannot reach the last bit of the output.

        What all weights of an output lose together, and what the residual's loses, stay below 2^-GUARD of that bit; an
        output finer than all that meets in it loses bits that are always zero.
        """
        finest = self.x.format.frac + weights.frac + self.rows
        if skip is not None:
            finest = max(finest, self.x0.format.frac + skip.frac)
        rounded = table or output or QFormat.covering(self.table_width if self.tabled else self.width, *self._reach())
        limit = min(rounded.frac, finest) + GUARD - 1
        products = (self.factor.pattern.c - 1).bit_length()
        weights = _coarser(weights, limit + products + self.x.exponent)
        skip = skip and _coarser(skip, limit + self.x0.exponent)
        output, table = (output, _coarser(table, finest)) if table else (output and _coarser(output, finest), None)
        return weights, skip, output, table

    def _reach(self):
        """The least and the largest number, floats, that the bounds of what enters allow, in front of a table."""
        ends = [self.x.format.dequantise(end) for end in (self.x.lo, self.x.hi)]
        low, high = interval(self.factor.values, *ends, self.factor.support)
        if self.layer is not None:
            lo0, hi0 = (self.x0.format.dequantise(end) for end in (self.x0.lo, self.x0.hi))
            if self.layer.add_scale is not None:  # a scale below zero turns its bounds round
                falls = self.layer.add_scale < 0
                lo0, hi0 = np.where(falls, hi0, lo0), np.where(falls, lo0, hi0)
            done = self.layer.joined if self.tabled else self.layer.finish
            low, high = done(low, lo0), done(high, hi0)
        return float(low.min()), float(high.max())


def _coarser(fmt, frac):
    """The format with at most so many fraction bits."""
    return replace(fmt, frac=max(-1000, min(fmt.frac, frac)))


def _fitting(stage, *formats):
    """`_Stage.integers` of these formats or, where no accumulator holds them, of what `_Stage.reaching` leaves."""
    try:
        return stage.integers(*formats)
    except ValueError as error:
        try:
            return stage.integers(*stage.reaching(*formats))
        except ValueError:
            raise error from None


@contextmanager
def _named(layer, m):
    """Errors name the layer and the factor."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {layer.name!r}, factor {m}: {error}") from None


def choose_formats(network: Network, settings: Settings | None = None, calibration: Data | None = None) -> Formats:
    """Formats for a network.

    With calibration data, floats (N, *dims) in the network's own units or a `Calibration` of them, a stage's output
    format follows what the float network produces there: it holds what lies between the given percentiles, or has the
    least squared error. Without, it is the finest that cannot overflow whatever the inputs, each stage's inputs taken
    as independent of each other. Weights: see `weight_format`; where an accumulator cannot hold all of their bits,
    those are dropped that cannot reach the last bit of the stage's output (`dropped` in bfthw.check names them).
    Behind an activation that gives nothing below zero formats have no sign, where settings.unsigned says so or leaves
    it open and the network is over maps; so has the input's, where calibration data are never below zero.
    Raises ValueError, which names layer and factor, where that is not enough.
    """
    settings = settings or Settings()
    settings.check_layers([node.name for node in network.nodes])
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = Calibration(network, calibration)
    assert calibration is None or calibration.network is network
    chooser = _Chooser(network, settings, calibration)
    first = chooser.input()
    for _ in network.walk(first, chooser.step):
        pass
    return Formats(input=first.format, layers=tuple(chooser.layers), joins=chooser.joins)


class _Chooser:
    """Formats of one node after the other; see `choose_formats`."""

    def __init__(self, network, settings, calibration):
        self.network, self.settings, self.calibration = network, settings, calibration
        self.layers, self.joins, self.stage = [], {}, 0
        over_maps = any(shape.positions > 1 for shape in (network.shape, *network.shapes))
        self.unsigned = over_maps if settings.unsigned is None else settings.unsigned

    def input(self):
        own, data = self.settings, self.calibration
        q = QFormat(own.input_bits, own.input_bits - 1 if own.input_frac is None else own.input_frac)
        if data is not None and own.input_frac is None:
            q = data.format(0, own.input_bits, own, signed=not self.unsigned or bool(data.vectors.min() < 0))
        ends = (np.full((1, self.network.shape.channels), end) for end in (q.lo, q.hi))
        return _Entry(format=q, **dict(zip(("lo", "hi"), ends)))

    def step(self, node, *given):
        return self._layer(node, *given) if isinstance(node, Layer) else self._join(node, *given)

    def _layer(self, layer, x, x0=None):
        x0, x, factors, skip, own = x0 or x, x.through(layer.window), [], None, self.settings
        bits, widths, rows = (
            own.of_factors(layer.name, key, len(layer.scaled))
            for key in ("weight_bits", "activation_bits", "row_exponents")
        )
        if layer.add_scale is not None:
            skip = weight_format(layer.add_scale, bits[-1], 0, own.calibration_method)
        for m, factor in enumerate(layer.scaled):
            last, method = m == len(layer.scaled) - 1, own.calibration_method
            asked = factor.values, bits[m], rows[m], method, own.paired
            weights = self._once(("weights", self.stage, *asked[1:]), lambda asked=asked: weight_format(*asked))
            self.stage += 1
            signed = not (self.unsigned and last and layer.act is not None and layer.act.positive)
            stage = _Stage(
                factor=factor, layer=layer if last else None, x=x, x0=x0, width=widths[m], rows=rows[m], signed=signed
            )
            with _named(layer, m):
                made, x = _fitting(stage, weights, skip if last else None, *self._measured(stage))
            table = made.table and made.table.input
            factors.append(FactorFormats(weights=made.weights, output=made.output, rows=rows[m], table=table))
        self.layers.append(LayerFormats(factors=tuple(factors), skip=made.skip_weights, bias_width=made.bias_width))
        return x

    def _once(self, key, choose):
        return choose() if self.calibration is None else self.calibration.once(key, choose)

    def _measured(self, stage):
        """The formats of a stage's output and of its table, by calibration data."""
        if self.calibration is None:
            return None, None
        find, table = self.calibration.format, None
        if stage.tabled:
            table = find(self.stage, stage.table_width, self.settings, before=True)
        return find(self.stage, stage.width, self.settings, signed=stage.signed), table

    def _join(self, node, *given):
        """A node without weights: the format of its inputs where they have the same and it computes nothing, else one
        that holds all that it gives."""
        self.stage += 1
        formats = [entry.format for entry in given]
        bounded = all(entry.lo is not None for entry in given)
        if not node.computes and len(set(formats)) == 1:
            output = formats[0]
        else:
            width, signed = self.settings.of_factors(node.name, "activation_bits", 1)[0], any(f.signed for f in formats)
            if node.computes and self.calibration is not None:
                output = self.calibration.format(self.stage, width, self.settings, signed=signed)
            else:
                reach = [fmt.dequantise(end) for fmt in formats for end in (fmt.lo, fmt.hi)]
                if node.computes:
                    ends = node.bounds(*((e.format.dequantise(e.lo), e.format.dequantise(e.hi)) for e in given))
                    reach = [ends[0].min(), ends[1].max()]
                output = QFormat.covering(width, float(min(reach)), float(max(reach)), signed)
            self.joins[node.name] = output
        if not bounded:
            return _Entry(format=output, lo=None, hi=None)
        made = IntNode(node=node, formats=formats, output=output)
        lo, hi = made.bounds(*((entry.lo, entry.hi) for entry in given))
        return _Entry(format=output, lo=lo, hi=hi)
