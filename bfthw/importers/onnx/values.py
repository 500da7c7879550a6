"""What a name of a file stands for: constants, or numbers of a node that is made already.

A tensor of the file is numbers, or an array of the same shape that says for each number which one of a node's map it
is. So whatever only moves numbers is done by numpy on that array, exactly as ONNX has it, and an operator that computes
sees from the array which axis holds channels, and whether positions are where they have to be.
"""

from dataclasses import dataclass

import numpy as np

from ...qformat import QFormat
from ...window import Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """node None: a constant, the numbers `array`. Else array holds, for each number of one input's tensor (its batch
    axis has length 1), the place in the map of that node, flattened. format: of a constant that Quant made. step: of
    QuantizeLinear, whose integers they are, as (scale, zero point)."""

    array: np.ndarray
    node: str | None = None
    format: QFormat | None = None
    step: tuple | None = None


class Varies(ValueError):
    """Numbers that differ from position to position."""


def channels_of(places: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Places (..., C') in a map, positions in front -> its channels (C',); None unless positions keep their order."""
    position, channel = np.divmod(places.reshape(-1, places.shape[-1]), shape.channels)
    straight = len(position) == shape.positions and (position == np.arange(shape.positions)[:, None]).all()
    return channel[0] if straight and (channel == channel[0]).all() else None


def one_axis_moved(order: np.ndarray) -> bool:
    """Whether places (..., C) are those of an array in its own order, one axis of which was moved to the end."""
    rows = order.reshape(-1, order.shape[-1])
    step = rows[0, 1] - rows[0, 0] if rows.shape[1] > 1 else 1
    if step < 1 or len(rows) % step:
        return False
    plain = np.arange(rows.size).reshape(-1, rows.shape[1], step)
    return bool((rows.reshape(-1, step, rows.shape[1]) == plain.swapaxes(1, 2)).all())
