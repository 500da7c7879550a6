"""Monarch layers of HazyResearch/fly and torch-structured: one or two block-diagonal matrices.

blkdiag1 (k, q, p) is the factor (k, q, p, 1); blkdiag2 (l, s, r) takes value j*l + i of what it gives as the j-th of
block i and puts its outputs back in the same way: the factor (1, s, r, l) (Dao et al., "Monarch", ICML 2022, section
3.1). torch-structured calls them w1 and w2. A BlockdiagLinear is the first alone, `weight`. A BlockdiagButterflyLinear
has w1_bfly (k, l*b1, p) and w2_bfly (l, s, k*b1), where the b1 outputs of the first that go to the same block of the
second stand together; of the outputs, b2 of a block.
"""

import numpy as np

from .layout import Layout, bias_of, entries, only
from .plan import ZERO, plan
from .torch_butterfly import COMPLEX

NAMES = ("blkdiag1", "blkdiag2"), ("w1", "w2"), ("w1_bfly", "w2_bfly")


def layer(parts, hints):
    """Inputs and outputs are multiples of k and l, padded with zeros and cut where the layer has fewer."""
    if "weight" in parts:
        return _single(parts, hints)
    names = next(both for both in NAMES if both[0] in parts)
    only(parts, *names, "bias")
    one, two = (parts.get(name) for name in names)
    if two is not None and one.ndim == two.ndim == 4 and one.shape[3] == two.shape[3] == 2:
        raise ValueError(f"{names[0]} {one.shape} and {names[1]} {two.shape} have two numbers each: {COMPLEX}")
    if two is None or one.ndim != 3 or two.ndim != 3 or 0 in one.shape + two.shape:
        raise ValueError(f"a Monarch layer has {names[0]} (k, q, p) and {names[1]} (l, s, r)")
    (k, q, p), (l, s, r) = one.shape, two.shape  # noqa: E741
    if k * q != l * r:
        raise ValueError(f"{names[0]} {one.shape} gives {k * q} values, {names[1]} {two.shape} takes {l * r}")
    if names == NAMES[1]:
        hints.note("w1 and w2 taken as torch-structured's MonarchLinear has them: outputs before inputs, w1 first")
    ((first, second), flat), give = entries(one, two), None
    if names == NAMES[2]:
        if q % l:
            raise ValueError(f"{names[0]} {one.shape} has {q} outputs a block, no multiple of the {l} of {names[1]}")
        give = _turns(l, s, hints)
        first = first.reshape(k, l, q // l, p).transpose(0, 2, 1, 3).reshape(k, q, p)
    sources = [first[..., None], second.transpose(1, 2, 0)[None]]
    return _fields(sources, flat, (k, p), (l, s), parts, hints, padded=names != NAMES[2], give=give)


def _turns(l, s, hints):  # noqa: E741
    """Which output of l blocks of s stands where in a BlockdiagButterflyLinear: b2 of each in turn; None for one."""
    given = hints.get("b2")
    if given is None:
        hints.note("w1_bfly and w2_bfly taken as BlockdiagButterflyLinear has them, with b2 = 1, its default")
    elif not str(given).isdecimal() or not int(given) or s % int(given):
        raise ValueError(f"b2 = {given} does not fit: it must divide the {s} outputs of a block")
    elif int(given) > 1:
        return np.arange(l * s).reshape(-1, int(given), l).transpose(0, 2, 1).ravel()
    return None


def _fields(sources, flat, ins, outs, parts, hints, *, padded=True, take=None, give=None):
    """Fields of the Layer. ins, outs: (blocks, values of each), perhaps padded to the next multiple of the blocks.

    take, give: which of the padded inputs, which of the outputs stands where; None for each in its place.
    """
    (k, p), (l, s), bias = ins, outs, parts.get("bias")  # noqa: E741
    inputs = hints.size("inputs", k * p, least=k * p - padded * (k - 1))
    outputs = hints.size("outputs", l * s, least=l * s - padded * (l - 1)) if bias is None else bias.size
    if not (1 if padded else l * s) <= outputs <= l * s:
        raise ValueError(f"bias has {outputs} entries, the layer {l * s} outputs")
    if take is not None or inputs < k * p:
        take = np.arange(k * p) if take is None else take
        take = np.where(take < inputs, take, ZERO)
    if give is not None or outputs < l * s:
        give = (np.arange(l * s) if give is None else give)[:outputs]
    return {"chain": plan(sources, take, give, inputs).chain(flat), "bias": bias_of(parts, outputs)}


def _single(parts, hints):
    """BlockdiagLinear: weight (k, q, p), as a convolution of kernel p has it too, of k outputs and q inputs."""
    (k, q, p), ((entry,), flat) = parts["weight"].shape, entries(parts["weight"])
    shuffle = hints.choice("shuffle", ("no", "yes"))
    if hints.format is None and shuffle is None and ("bias" not in parts or q == 1):
        raise ValueError(
            f"weight {(k, q, p)}: may be {k} blocks on a diagonal or a convolution of kernel {p}, which is not read: "
            "--format monarch says the former"
        )
    how = "with" if shuffle == "yes" else "without"
    hints.note(f"weight taken as {k} blocks on a diagonal, as a BlockdiagLinear {how} shuffle has it")
    # with it, inputs go to the blocks as ShuffleNet's channels do: one of each in turn
    take = np.arange(k * p).reshape(k, p).T.ravel() if shuffle == "yes" else None
    return _fields([entry[..., None]], flat, (k, p), (k, q), parts, hints, take=take)


def knows(parts):
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None:
        small = [parts[name].ndim for name in NAMES[1] if name in parts]  # names that others have too
        return "blkdiag1" in parts or "w1_bfly" in parts or small == [3, 3]
    if weight.ndim != 3 or weight.shape[2] < 2 or 0 in weight.shape or not set(parts) <= {"weight", "bias"}:
        return False
    k, q, _ = weight.shape
    return bias is None or k * (q - 1) < bias.size <= k * q


TELLING = "blkdiag1 (k, q, p) and blkdiag2 (l, s, r), or w1, w2 or w1_bfly, w2_bfly, or weight (k, q, p) alone"
LAYOUTS = (Layout(name="monarch", telling=TELLING, knows=knows, layer=layer),)
