"""What quantisation costs: the integers against the float network, stage by stage."""

from dataclasses import dataclass

import numpy as np

from .calibrate import check_vectors
from .golden import IntFactor


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage, or the input, against the float network.

    sqnr: dB, of the whole chain up to here. own: dB, of the noise that arises here: against the float stage on the
    inputs that the integers really give it. cause: the largest part of that noise, "weights" (the residual's and the
    bias' too), "rounding" or "saturation" of the output; "" where there is none.
    saturated, values: outputs that saturate, outputs in all. peak: the largest float magnitude.
    """

    name: str
    factor: IntFactor | None
    sqnr: float
    own: float
    cause: str
    saturated: int
    values: int
    peak: float


def decibels(signal, noise):
    """10 log10 of the ratio of two energies; infinite without noise, -infinite without signal."""
    return float(np.inf if noise == 0 else -np.inf if signal == 0 else 10 * np.log10(signal / noise))


def _energy(x):
    return float(np.square(x).sum())


def output_sqnr(integers, vectors, wanted):
    """SQNR in dB of an IntNetwork's outputs for floats (N, inputs), against floats (N, outputs)."""
    return decibels(_energy(wanted), _energy(wanted - integers.predict(vectors)))


def report(network, integers, x):
    """Compare an IntNetwork, stage by stage, with the float network it came from on floats x (N, inputs).

    `network` is what `prepare` returned: an equalised network has other values between its factors.
    Returns a list of StageReport, the input's quantisation first (its factor is None).
    """
    x = check_vectors(x, network.inputs, "vectors")
    q = integers.input.quantise(x)
    here = integers.input.dequantise(q)
    clipped = integers.input.round(x) != q
    rows = [_row("input", None, x, here, {}, x, here, clipped)]
    taps = zip(integers.names, network.taps(x), integers.accumulators(q))
    for layer in network.layers:
        x0 = here
        for m, own in enumerate(layer.folded):
            name, wanted, (factor, acc, y) = next(taps)
            ideal, summed = own(here), np.ldexp(acc.astype(np.float64), -factor.acc_frac)
            if m == len(layer.folded) - 1:
                ideal = layer.finish(ideal, x0)
            if factor.relu:
                summed = np.maximum(summed, 0)
            here = factor.output.dequantise(y)
            parts = {"weights": _energy(summed - ideal)}
            rows.append(_row(name, factor, wanted, here, parts, summed, ideal, factor.saturated(acc)))
    return rows


def _row(name, factor, wanted, got, parts, summed, ideal, clipped):
    """summed: what was rounded to `got`, here and there `clipped`. ideal: `got` without the noise of this stage."""
    dropped = got - summed
    parts = {**parts, "rounding": _energy(dropped[~clipped]), "saturation": _energy(dropped[clipped])}
    noise = _energy(got - (ideal if factor else wanted))
    return StageReport(
        name=name,
        factor=factor,
        sqnr=decibels(_energy(wanted), _energy(wanted - got)),
        own=decibels(_energy(wanted), noise),
        cause=max(parts, key=parts.get) if noise else "",
        saturated=int(clipped.sum()),
        values=wanted.size,
        peak=float(np.abs(wanted).max()),
    )


def first_hurt(rows, drop=6.0):
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
