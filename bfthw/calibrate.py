"""Formats that follow numbers: what a float network makes of calibration data, and its weights."""

from collections.abc import Callable, Hashable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .network import Layer, Network
from .qformat import QFormat
from .settings import Settings
from .window import turned

OCTAVES = 24  # how far below the largest magnitude a format is looked for
VALUES = 1 << 26  # of all stages together that are kept, at most


def check_vectors(x: ArrayLike, size: int | tuple[int, ...], name: str) -> np.ndarray:
    """Finite real vectors (N, size), or maps of a size (H, W, C), as float64; TypeError or ValueError otherwise."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, got dtype {x.dtype}")
    dims = (size,) if isinstance(size, int) else size
    if x.ndim < 2 or x.shape[1:] != dims or not len(x):
        wanted = f"(N, {', '.join(map(str, dims))})"
        raise ValueError(f"{name} must have shape {wanted}, got {x.shape}{turned(x.shape, dims)}")
    if not np.isfinite(x).all():
        row, *at = np.argwhere(~np.isfinite(x))[0].tolist()
        place = f"column {at[0]}" if len(at) == 1 else f"place {tuple(at)}"
        raise ValueError(f"{name} must be finite, found NaN or infinity: {x[(row, *at)]} in row {row}, {place}")
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


def least_squares(width, values, quantised=None, signed=True):
    """The format of `width` bits with the least squared error on floats, the coarsest of equals.

    quantised: format -> what it makes of the values; None: rounded and saturated. Every number of fraction bits is
    tried, from the finest format that saturates nothing (a coarser one is no better: its numbers are among those of the
    finer one) to one OCTAVES finer. (Nagel et al., "A White Paper on Neural Network Quantization", arXiv 2106.08295,
    section 3.1, with steps that are powers of two.)
    """
    quantised = quantised or (lambda fmt: fmt.dequantise(fmt.quantise(values)))
    coarsest = QFormat.covering(width, values.min(), values.max(), signed)
    if not values.any():
        return coarsest
    candidates = (QFormat(width, coarsest.frac + octave, signed) for octave in range(OCTAVES))
    return min(candidates, key=lambda fmt: np.square(quantised(fmt) - values).sum())


class Calibration:
    """Floats (N, *dims) and what a float network makes of them; each format of it is chosen once.

    wanted: what the network should give, (N, outputs). taps: of the input and of every stage in order, what it gave;
    where that is very much, an even share of it and the extremes. before: by stage, what a table's input would be.
    """

    def __init__(self, network: Network, vectors: ArrayLike) -> None:
        self.network = network
        self.vectors = check_vectors(vectors, network.shape.dims, "calibration data")
        self._parts, self._chosen = {}, {}
        kept = (len(node.chain.factors) + 1 if isinstance(node, Layer) else 1 for node in network.nodes)
        self._share = VALUES // (1 + sum(kept))
        with np.errstate(over="ignore", invalid="ignore"):
            self.wanted = network.sliced(self.vectors, self._see)
        if not np.isfinite(self.wanted).all():
            raise ValueError("the float network gives infinity or NaN on the calibration data")
        found = {key: parts[0] if len(parts) == 1 else np.concatenate(parts) for key, parts in self._parts.items()}
        self.taps = [found[stage, False] for stage in range(len(found)) if (stage, False) in found]
        self.before = {stage: values for (stage, before), values in found.items() if before}
        del self._parts

    def _see(self, x):
        """The outputs for a slice, after what each stage gave is kept."""
        stages = count(1)

        def step(node, *xs):
            *head, y = node.sums(*xs) if isinstance(node, Layer) else [node(*xs)]
            for value in head:
                self._keep((next(stages), False), value)
            stage = next(stages)
            if isinstance(node, Layer) and node.act is not None:
                if not node.act.clamps:
                    self._keep((stage, True), y)
                y = node.act(y)
            self._keep((stage, False), y)
            return y

        self._keep((0, False), x)
        for _, y in self.network.walk(x, step):
            pass
        return y

    def _keep(self, key, values):
        step = -(-values[0].size * len(self.vectors) // self._share)
        if step > 1:
            flat = values.reshape(-1)
            values = np.concatenate([flat[::step], [flat.min(), flat.max()]])
        self._parts.setdefault(key, []).append(values)

    def format(self, stage: int, width: int, settings: Settings, signed: bool = True, before: bool = False) -> QFormat:
        """The output format of a stage, counted from 1, or of the input, 0, by the settings' method.

        before: of what goes into its table.
        """
        values = self.before[stage] if before else self.taps[stage]

        def choose():
            if settings.calibration_method == "least-squares":
                return least_squares(width, values, signed=signed)
            reach = np.percentile(values, [100 - settings.percentile, settings.percentile])
            return QFormat.covering(width, *map(float, reach), signed)

        how = settings.calibration_method, settings.percentile
        return self.once(("output", stage, width, *how, signed, before), choose)

    def once(self, key: Hashable, choose: Callable) -> Any:
        """What `choose()` gave the first time it was asked for by this key."""
        if key not in self._chosen:
            self._chosen[key] = choose()
        return self._chosen[key]


Data = Calibration | ArrayLike  # calibration data, seen already or as they are
