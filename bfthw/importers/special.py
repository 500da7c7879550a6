"""Diagonals and fixed permutations of torch_butterfly, as they stand between its butterflies (fastfood, wavelets ...).

`diagonal` (n,) is the factor (n, 1, 1, 1): y[i] = diagonal[i] x[i]. `permutation`, integers (n,), is an indexed factor
of ones: y[j] = x[permutation[j]].
"""

import numpy as np

from ..chain import Chain, Factor, Indexed
from .layout import Layout, only


def layer(parts, hints):
    ((name, values),) = parts.items()
    only(parts, "diagonal", "permutation")
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must have shape (n,), got {values.shape}")
    if name == "diagonal":
        return {"chain": Chain([Factor(values.reshape(-1, 1, 1, 1))])}
    n = len(values)
    if values.dtype.kind not in "iu" or not np.array_equal(np.sort(values), np.arange(n)):
        raise ValueError(f"permutation must be integers, each of 0 to {n - 1} once, got {values.dtype} {values}")
    hints.note("a permutation's weights are ones; y[j] = x[permutation[j]]")
    return {"chain": Chain([Factor(np.ones((n, 1, 1, 1)), Indexed(values[:, None], n))])}


def knows(parts):
    return set(parts) in ({"diagonal"}, {"permutation"})


LAYOUTS = (Layout(name="special", telling="diagonal (n,), or permutation, integers (n,)", knows=knows, layer=layer),)
