"""SQNR and accuracy against bits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .network import Network
from .noise import output_sqnr
from .quantize import prepare, quantise
from .settings import LayerSettings, Settings

WEIGHTS, ACTIVATIONS = range(2, 13), range(4, 17)


@dataclass(frozen=True, kw_only=True)
class Point:
    """bits of all weights, or of all activations; sqnr in dB; accuracy 0 to 1, None without labels."""

    bits: int
    sqnr: float
    accuracy: float | None


def sweep(
    network: Network, vectors: np.ndarray, key: str, widths: Sequence[int], *, settings: Settings | None = None,
    labels: ArrayLike | None = None, progress: Callable[[float], object] | None = None,
) -> list[Point]:
    """[Point]: a float network quantised at each width. key: weight_bits or activation_bits, of all factors.

    vectors: floats (N, inputs), which calibrate and measure. labels: integers (N,). All else is as the settings say.
    """
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(vectors),) or labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be {len(vectors)} integers, got {labels.dtype} of shape {labels.shape}")
    settings, points, wanted = settings or Settings(), [], network(vectors)
    layers = {
        name: LayerSettings(**own.model_dump(exclude_unset=True, exclude={key}))
        for name, own in settings.layers.items()
    }
    for n, bits in enumerate(widths):
        own = settings.model_copy(update={key: bits, "layers": layers})
        integers = quantise(*prepare(network, settings=own, calibration=vectors))
        accuracy = None if labels is None else float(np.mean(integers.classify(vectors) == labels))
        points.append(Point(bits=bits, sqnr=output_sqnr(integers, vectors, wanted), accuracy=accuracy))
        if progress:
            progress((n + 1) / len(widths))
    return points
