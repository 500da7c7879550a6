"""Whether a reading of a file gives the outputs that the original model was seen to give, and which reading would."""

from dataclasses import dataclass
from itertools import combinations, permutations, product
from time import monotonic

import numpy as np

from ..chain import apply
from ..network import Layer
from ..reading import CheckpointError
from ..storage import read_vectors
from ..window import turned

TRIES, SECONDS = 3000, 60  # other readings tried, whichever ends first
ROWS = 64  # records or pixels that a try is judged by first
ORDERED = 5  # layers and batch norms, at most, whose other orders are tried


@dataclass(frozen=True, kw_only=True)
class Difference:
    """error: the largest, found at [vector, output]; allowed: what rounding explains there; share: of the largest |Y|.

    right: whether every error is allowed: 30 times what float32 costs the network on these vectors, measured, and 16
    steps of the recorded outputs' type (float32 at best) at the output's largest value.
    """

    error: float
    vector: int
    output: int
    allowed: float
    share: float
    right: bool


def load(path):
    """Recorded values, (N, values) or images (N, C, H, W); CheckpointError for anything else."""
    array = read_vectors(path)
    if array.ndim < 2 or not array.size or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise CheckpointError(f"{path}: must be finite real numbers, (N, values), got {array.dtype} {array.shape}")
    return array


def maps(array, shape):
    """Values of a Shape: of one position as `vectors`; maps (N, H, W, C) as they are, (N, C, H, W) turned."""
    if shape.positions == 1:
        return vectors(array, shape.channels)
    return np.moveaxis(array, 1, -1) if turned(array.shape, shape.dims) else array


def vectors(array, size):
    """(N, values) as it is; images (N, C, H, W) as the vectors of their pixels where C is `size`, else one each."""
    if array.ndim > 2 and array.shape[1] == size:
        return np.moveaxis(array, 1, -1).reshape(-1, size)
    return array.reshape(len(array), -1)


def difference(network, x, y):
    """The Difference between the float network's outputs and recorded ones; ValueError where they do not fit."""
    shapes = network.shape, network.shapes[-1]
    x, y = map(maps, (x, y), shapes)
    if len(x) != len(y) or any(one.shape[1:] != shape.dims for one, shape in zip((x, y), shapes)):
        kind = "vectors" if shapes[0].positions == 1 else "maps"
        raise ValueError(
            f"it takes {_size(shapes[0].dims)} and gives {_size(shapes[1].dims, '')}, recorded are {len(x)} {kind} of "
            f"{_size(x.shape[1:])} and {len(y)} of {_size(y.shape[1:], '')}"
        )
    if not y.any() or len(y) > 1 and not np.ptp(y, axis=0).any():
        raise ValueError(f"the {len(y)} recorded outputs are all the same, which tells no reading from another")
    errors, noise, y = [], np.zeros(network.outputs), y.reshape(len(y), -1)
    size = min(1024, network.batch)
    for start in range(0, len(x), size):
        rows = x[start : start + size].astype(np.float64)
        given = network(rows).reshape(len(rows), -1)
        with np.errstate(all="ignore"):
            noise = np.maximum(noise, np.abs(_single(network, rows).reshape(given.shape) - given).max(axis=0))
        errors.append(np.abs(given - y[start : start + size]))
    errors, peak = np.concatenate(errors), np.abs(y).max(axis=0).astype(np.float64)
    step = np.finfo(np.float32 if y.dtype.kind != "f" or y.dtype.itemsize > 4 else y.dtype).eps
    allowed = 30 * noise + 16 * step * peak + step * peak.max()
    vector, output = np.unravel_index(np.argmax(errors - allowed), errors.shape)
    worst = errors[vector, output]
    return Difference(
        error=float(worst), vector=int(vector), output=int(output), allowed=float(allowed[output]),
        share=float(worst / peak.max()), right=bool(np.isfinite(allowed).all() and (errors <= allowed).all()),
    )


def _size(dims, what=" values"):
    return " x ".join(map(str, dims)) + (what if len(dims) == 1 else "")


def _single(network, x):
    """The outputs in float32, as the original most likely computed them."""

    def step(node, *xs):
        if not isinstance(node, Layer):
            return node(*xs).astype(np.float32)
        y = node.vectors(xs[0])
        for factor in node.scaled:
            y = apply(factor.values.astype(np.float32), y, factor.support)
        return node.finish(y, xs[-1]).astype(np.float32)

    for _, y in network.walk(x.astype(np.float32), step):
        pass
    return y


def search(file, x, y, *, order=None, options=None):
    """((order, options) of a reading that gives y or None, readings tried, whether those were all).

    Tried are all values of what the file's layers ask for (stride, base, relu, norm, eps, and the sizes by x and y),
    and all orders of `ORDERED` names at most; those with the fewest changes first, those of single layers last.
    """
    given, asked, end = dict(options or {}), {}, monotonic() + SECONDS
    seen = {(order and tuple(order), ())}
    some = slice(None, None, max(1, x.size // x.shape[1] // ROWS))

    def right(order, options):
        try:
            network = file.read(order=order, options=options, asked=asked).network
            return difference(network, x[some], y[some]).right and difference(network, x, y).right
        except ValueError:  # also CheckpointError: this reading is none
            return False

    right(order, given)  # for what is asked
    known = -1
    while known < len(asked):  # a reading that gets further may ask for more
        known = len(asked)
        for which, options in _changes(file, dict(asked), given, order, x, y):
            key = which and tuple(which), tuple(sorted(options.items()))
            if key in seen:
                continue
            if len(seen) > TRIES or monotonic() > end:
                return None, len(seen) - 1, False
            seen.add(key)
            if right(which, given | options):
                return (which, given | options), len(seen) - 1, True
    return None, len(seen) - 1, True


def _changes(file, asked, given, order, x, y):
    """(order, options) of every reading, fewest changes first: options of all layers, then those of single ones too."""
    sizes = {key: tuple({v.shape[1], v[0].size}) for key, v in (("inputs", x), ("outputs", y))}
    values = {key: found or sizes.get(key, ()) for key, found in asked.items() if key not in given}
    shared = {key: found for key, found in values.items() if "." not in key}
    if order is None and 1 < len(file.names) <= ORDERED:
        shared |= {"order": tuple(map(list, permutations(file.names)))}
    for table in (shared, shared | values):
        for count in range(len(table) + 1):
            for keys in combinations(table, count):
                for chosen in product(*(table[key] for key in keys)):
                    options = dict(zip(keys, chosen))
                    yield options.pop("order", order), options


def check(file, network, reason, x_path, y_path, *, order=None, options=None):
    """What to say of a reading that gives the recorded outputs; ValueError, with the options that would, for another.

    network: that of the reading, None where it failed for `reason`.
    """
    x, y = load(x_path), load(y_path)
    if network is not None:
        try:
            found = difference(network, x, y)
            share = f"{float(f'{100 * found.share:.2g}'):g} %"  # 110, not 1.1e+02
            reason = (
                f"output {found.output} of vector {found.vector} is {found.error:.3g} off, {share} "
                f"of the largest; rounding explains {found.allowed:.2g}"
            )
            if found.right:
                return (
                    f"check: right: {len(x)} vectors, largest error {found.error:.2g}, {found.share:.1g} of the "
                    f"largest output; rounding explains {found.allowed:.2g} there"
                )
        except ValueError as error:
            reason = error
        reason = f"{file.path}: this reading does not give {y_path}: {reason}"
    match, tried, whole = search(file, x, y, order=order, options=options)
    if match is not None:
        line = ["--order " + ",".join(match[0])] if match[0] is not None else []
        line += [f"--import {key}={value}" for key, value in match[1].items()]
        raise ValueError(f"{reason}; what gives it: {' '.join(line)}")
    if not tried:
        raise ValueError(f"{reason}; there is no other reading of this file")
    rest = "" if whole else f"; more are possible, at most {TRIES} are tried in {SECONDS} s"
    raise ValueError(f"{reason}; none of {tried} other readings gives it{rest}")
