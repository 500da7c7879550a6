"""Formats that follow numbers: what a float network makes of calibration data, and its weights."""

import numpy as np

from .qformat import QFormat

OCTAVES = 24  # how far below the largest magnitude a format is looked for


def check_vectors(x, size, name):
    """Finite real vectors (N, size) as float64; TypeError or ValueError otherwise."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, got dtype {x.dtype}")
    if x.ndim != 2 or x.shape[1] != size or not len(x):
        raise ValueError(f"{name} must have shape (N, {size}), got {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        found = f"{x[row, column]} in row {row}, column {column}"
        raise ValueError(f"{name} must be finite, found NaN or infinity: {found}")
    return x.astype(np.float64)


def counted(columns, what):
    """How many of an array of bool there are: `2 of 8 inputs`."""
    return f"{int(columns.sum())} of {len(columns)} {what}s"


def which(columns):
    """The numbers of the first six."""
    found = np.flatnonzero(columns).tolist()
    return ", ".join(map(str, found[:6])) + (" ..." if len(found) > 6 else "")


def unusual(vectors):
    """(warnings, notes), lines, on floats (N, inputs) that formats are to follow."""
    if not vectors.any():
        return ["calibration data are all zero: what follows from them means nothing"], []
    still = np.ptp(vectors, axis=0) == 0
    if still.all():
        return ["calibration data: every row is the same: they stand for that one vector alone"], []
    if not still.any():
        return [], []
    return [], [f"calibration data: {counted(still, 'input')} never vary: number {which(still)}"]


def least_squares(width, values, quantised=None):
    """The format of `width` bits with the least squared error on floats, the coarsest of equals.

    quantised: format -> what it makes of the values; None: rounded and saturated. Every number of fraction bits is
    tried, from the finest format that saturates nothing (a coarser one is no better: its numbers are among those of the
    finer one) to one OCTAVES finer. (Nagel et al., "A White Paper on Neural Network Quantization", arXiv 2106.08295,
    section 3.1, with steps that are powers of two.)
    """
    quantised = quantised or (lambda fmt: fmt.dequantise(fmt.quantise(values)))
    coarsest = QFormat.covering(width, values.min(), values.max())
    if not values.any():
        return coarsest
    candidates = (QFormat(width, coarsest.frac + octave) for octave in range(OCTAVES))
    return min(candidates, key=lambda fmt: np.square(quantised(fmt) - values).sum())


class Calibration:
    """Floats (N, inputs) and what a float network makes of them; each format of it is chosen once."""

    def __init__(self, network, vectors):
        self.network = network
        self.vectors = check_vectors(vectors, network.inputs, "calibration data")
        with np.errstate(over="ignore", invalid="ignore"):
            self.taps = [self.vectors, *network.taps(self.vectors)]
        if not np.isfinite(self.taps[-1]).all():
            raise ValueError("the float network gives infinity or NaN on the calibration data")
        self._chosen = {}

    @property
    def wanted(self):
        """What the network should give, (N, outputs)."""
        return self.taps[-1]

    def format(self, stage, width, settings):
        """The output format of a stage, counted from 1, or of the input, 0, by the settings' method."""

        def choose():
            if settings.calibration_method == "least-squares":
                return least_squares(width, self.taps[stage])
            reach = np.percentile(self.taps[stage], [100 - settings.percentile, settings.percentile])
            return QFormat.covering(width, *map(float, reach))

        return self.once(("output", stage, width, settings.calibration_method, settings.percentile), choose)

    def once(self, key, choose):
        """What `choose()` gave the first time it was asked for by this key."""
        if key not in self._chosen:
            self._chosen[key] = choose()
        return self._chosen[key]
