"""BLAST layers: blocks B_i diag(D_ij) C_j that share their left and right factors (Lee et al., arXiv:2410.21262).

C (b2, r, q) is the factor (b2, r, q, 1), D (b1, b2, r) is (1, b1, b2, r), B (b1, p, r) is (b1, p, r, 1).
"""

from ..chain import Chain, Factor
from .layout import Layout, bias_of, only


def layer(parts, hints):
    only(parts, "B", "C", "D", "bias")
    left, right, middle = (parts[key] for key in "BCD")
    (b1, p, r), (b2, rank, q) = left.shape, right.shape
    if middle.shape != (b1, b2, r) or rank != r or 0 in (b1, p, r, b2, q):
        raise ValueError(
            f"a BLAST layer has B (b1, p, r), C (b2, r, q) and D (b1, b2, r), got {left.shape}, {right.shape}, "
            f"{middle.shape}"
        )
    chain = Chain((Factor(right[..., None]), Factor(middle[None]), Factor(left[..., None])))
    return {"chain": chain, "bias": bias_of(parts, b1 * p)}


def knows(parts):
    return all(key in parts and parts[key].ndim == 3 for key in "BCD")


LAYOUTS = (Layout(name="blast", telling="B (b1, p, r), C (b2, r, q) and D (b1, b2, r)", knows=knows, layer=layer),)
