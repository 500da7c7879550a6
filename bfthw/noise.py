"""What quantisation costs: the integers against the float network, stage by stage."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .calibrate import check_vectors
from .golden import IntNetwork, Stage
from .network import Layer, Network


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage, or the input, against the float network.

    sqnr: dB, of the whole chain up to here. own: dB, of the noise that arises here: against the float stage on the
    inputs that the integers really give it. cause: the largest part of that noise, "weights" (the residual's and the
    bias' too), "rounding" or "saturation" of the output; "" where there is none.
    saturated, values: outputs that saturate, outputs in all. peak: the largest float magnitude.
    """

    name: str
    factor: Stage | None
    sqnr: float
    own: float
    cause: str
    saturated: int
    values: int
    peak: float


def decibels(signal: float, noise: float) -> float:
    """10 log10 of the ratio of two energies; infinite without noise, -infinite without signal."""
    return float(np.inf if noise == 0 else -np.inf if signal == 0 else 10 * np.log10(signal / noise))


def _energy(x):
    return float(np.square(x).sum())


def output_sqnr(integers: IntNetwork, vectors: np.ndarray, wanted: np.ndarray) -> float:
    """SQNR in dB of an IntNetwork's outputs for floats (N, inputs), against floats (N, outputs)."""
    return decibels(_energy(wanted), _energy(wanted - integers.predict(vectors)))


def report(network: Network, integers: IntNetwork, x: ArrayLike) -> list[StageReport]:
    """Compare an IntNetwork, stage by stage, with the float network it came from on floats x (N, *dims).

    `network` is what `prepare` returned: an equalised network has other values between its factors.
    Returns a list of StageReport, the input's quantisation first (its factor is None).
    """
    x = check_vectors(x, network.shape.dims, "vectors")
    sums = {name: _Sums(name, factor) for name, factor in (("input", None), *integers.stages)}
    size = min(network.batch, integers.batch)
    for start in range(0, len(x), size):
        _see(network, integers, x[start : start + size], iter(sums.values()))
    return [own.report() for own in sums.values()]


def _see(network, integers, x, sums):
    """A slice of the vectors: what is lost where is added to the sums, one for each stage."""
    q = integers.input.quantise(x)
    next(sums).add(x, integers.input.dequantise(q), {}, x, x, integers.input.round(x) != q)
    nodes = iter(integers.nodes)

    def step(node, *given):
        """What a node gives, in floats and in integers, as both find it."""
        whole, (floats, ints) = next(nodes), zip(*given)
        stages = list(whole.accumulators(*ints))
        here = [fmt.dequantise(q) for q, fmt in zip(ints, whole.formats)]
        layer = isinstance(node, Layer)
        taps = node.taps(*floats) if layer else [node(*floats)]
        got = node.vectors(here[0]) if layer else None
        for m, (wanted, (stage, acc, y)) in enumerate(zip(taps, stages)):
            summed = np.ldexp(acc.astype(np.float64), -stage.acc_frac)
            ideal = node.scaled[m](got) if layer else node(*here)
            if layer and m == len(taps) - 1:
                ideal = node.finish(ideal, here[-1])
                summed = summed if node.act is None else node.act(summed)
            got = stage.output.dequantise(y)
            parts = {"weights": _energy(summed - ideal)}
            next(sums).add(wanted, got, parts, summed, ideal, stage.saturated(acc))
        return taps[-1], stages[-1][2]

    for _ in network.walk((x, q), step):
        pass


class _Sums:
    """Energies of a stage, added up slice by slice."""

    def __init__(self, name, factor):
        self.name, self.factor, self.parts = name, factor, {}
        self.signal = self.error = self.own = self.peak = 0.0
        self.saturated = self.values = 0

    def add(self, wanted, got, parts, summed, ideal, clipped):
        """summed: what was rounded to `got`, here and there `clipped`. ideal: `got` without this stage's noise."""
        dropped = got - summed
        parts = {**parts, "rounding": _energy(dropped[~clipped]), "saturation": _energy(dropped[clipped])}
        for key, energy in parts.items():
            self.parts[key] = self.parts.get(key, 0.0) + energy
        self.signal += _energy(wanted)
        self.error += _energy(wanted - got)
        self.own += _energy(got - ideal)
        self.peak = max(self.peak, float(np.abs(wanted).max()))
        self.saturated += int(clipped.sum())
        self.values += wanted.size

    def report(self):
        return StageReport(
            name=self.name,
            factor=self.factor,
            sqnr=decibels(self.signal, self.error),
            own=decibels(self.signal, self.own),
            cause=max(self.parts, key=self.parts.get) if self.own else "",
            saturated=self.saturated,
            values=self.values,
            peak=self.peak,
        )


def first_hurt(rows: Iterable[StageReport], drop: float = 6.0) -> tuple[StageReport | None, float | None]:
    """The stage to look at first, as (StageReport, dB lost there or None); (None, None) where nothing is lost.

    It is the first whose SQNR is more than `drop` dB (6: one bit) below the chain's so far, by noise of which at least
    half is its own; what an exact chain may lose is counted from its best stage. Where no stage drops so far, the one
    with the most noise of its own.
    """
    noisy = [row for row in rows if row.own < np.inf]
    if not noisy:
        return None, None
    so_far = max(row.own for row in noisy)
    for row in rows:
        if row.sqnr < so_far - drop and row.own < row.sqnr + 10 * np.log10(2) + 1e-9:
            return row, so_far - row.sqnr
        so_far = min(so_far, row.sqnr)
    return min(noisy, key=lambda row: row.own), None
