"""Monarch layers of HazyResearch/fly: two block-diagonal matrices and the transposition between them.

blkdiag1 (k, q, p) is the factor (k, q, p, 1); blkdiag2 (l, s, r) takes value j*l + i of what it gives as the j-th of
block i and puts its outputs back in the same way: the factor (1, s, r, l) (Dao et al., "Monarch", ICML 2022, section
3.1).
"""

import numpy as np

from .layout import Layout, bias_of, entries, only
from .plan import cut


def layer(parts, hints):
    """Inputs and outputs are multiples of k and l, padded with zeros and cut where the layer has fewer."""
    only(parts, "blkdiag1", "blkdiag2", "bias")
    one, two = parts["blkdiag1"], parts.get("blkdiag2")
    if two is None or one.ndim != 3 or two.ndim != 3 or 0 in one.shape + two.shape:
        raise ValueError("a Monarch layer has blkdiag1 (k, q, p) and blkdiag2 (l, s, r)")
    (k, q, p), (l, s, r) = one.shape, two.shape  # noqa: E741
    if k * q != l * r:
        raise ValueError(f"blkdiag1 {one.shape} gives {k * q} values, blkdiag2 {two.shape} takes {l * r}")
    inputs, bias = hints.size("inputs", k * p, least=k * (p - 1) + 1), parts.get("bias")
    outputs = hints.size("outputs", l * s, least=l * (s - 1) + 1) if bias is None else bias.size
    if not 0 < outputs <= l * s:
        raise ValueError(f"bias has {outputs} entries, the layer {l * s} outputs")
    first, second = entries(one.shape, two.shape)
    result = cut(1, inputs, outputs, [first[..., None], second.transpose(1, 2, 0)[None]])
    return {"chain": result.chain(np.concatenate([one.ravel(), two.ravel()])), "bias": bias_of(parts, outputs)}


LAYOUTS = (
    Layout(
        name="monarch",
        telling="blkdiag1 (k, q, p) and blkdiag2 (l, s, r)",
        knows=lambda parts: "blkdiag1" in parts,
        layer=layer,
    ),
)
