"""Every so many positions of a map, as a window: what is left where a map was cut, or zeros were put around it."""

import numpy as np

from .window import Shape, Window

ZERO = -1  # the place of a zero


def sampled(at: np.ndarray, shape: Shape) -> tuple[Window | None, np.ndarray, np.ndarray] | None:
    """How places (H', W', C') in a map, ZERO for zeros, are taken from it: (window, None for each position as it
    stands; index (C',) into its vectors; values, ones and zeros). None where positions stand in no such row.
    """
    known = at != ZERO
    y, x, c = np.unravel_index(np.where(known, at, 0), shape)
    axes = []
    for axis, value, size in ((0, y, shape.height), (1, x, shape.width)):
        rest = tuple(a for a in range(3) if a != axis)
        there = known.any(axis=rest)
        rows = np.where(known, value, -1).max(axis=rest)
        steps = np.diff(rows[there])
        step = int(steps[0]) if len(steps) else 1
        begin = int(rows[there][0]) - step * int(np.flatnonzero(there)[0])
        wanted = begin + step * np.arange(len(rows))
        inside = (wanted >= 0) & (wanted < size)
        if step < 1 or not np.array_equal(inside, there) or not np.array_equal(wanted[there], rows[there]):
            return None
        before, behind = max(0, -begin), max(0, int(wanted[-1]) - size + 1)
        axes.append((rows, step, begin + before, before, behind, size + before + behind - step * (len(rows) - 1)))
    channels = known.any(axis=(0, 1))
    (rows, sy, ty, top, bottom, kh), (columns, sx, tx, left, right, kw) = axes
    index = np.where(known, c, -1).max(axis=(0, 1))
    wanted = (rows[:, None, None] * shape.width + columns[None, :, None]) * shape.channels + index
    there = (rows >= 0)[:, None, None] & (columns >= 0)[None, :, None] & channels
    if not np.array_equal(np.where(there, wanted, ZERO), at):
        return None
    window = Window((kh, kw), (sy, sx), (top, left, bottom, right))
    index = np.where(channels, (ty * kw + tx) * shape.channels + index, 0)
    return None if window == Window(1) else window, index, channels.astype(float)
