"""From a dense matrix to the nearest chain: hierarchical SVD, alternating least squares, and both on layers.

Chainable patterns have a hierarchical SVD whose error is within a constant of the best (Le, Zheng, Riccietti,
Gribonval, "Butterfly factorization with error guarantees", SIMAX 46(4), 2025); every other chain, and every metric but
Frobenius's, has alternating least squares, which only ever improve (Lin et al., "Deformable Butterfly", NeurIPS 2021).
"""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import chain as chains
from . import structures
from .chain import Chain, Factor, Indexed, Pattern, Patterns, patterns, support
from .network import Layer

SWEEPS, STALL, STEPS = 100, 1e-4, 60  # of least squares: at most; relative fall of the error that ends them; CG steps
SMALL = 256  # outputs or inputs from which least squares after an SVD are left out unless asked for: they take minutes
RIDGE = 0.01  # mean powers of an input that all directions have at least; chosen in docs/projection.md
HELD, FEW = 5, 3  # one row in so many is held out; rows for each input below which calibration data are few
LOSSY = 0.5  # relative error above which a projection without training is of little use


def chainable(shape: Sequence[Pattern]) -> tuple[list[tuple[int, ...]], bool] | None:
    """(patterns from the left of a product, whether it is the transpose's) for a hierarchical SVD (Le et al. 2025);

    None where neither is chainable: none is Indexed, and from the left a | a', d' | d and a c / a' = b' d' / d, an
    integer (the rank of the blocks), for neighbours (a, b, c, d), (a', b', c', d'), with a = 1 first and d = 1 last.
    """
    if any(isinstance(p, Indexed) for p in shape):
        return None
    for left, transposed in ((shape[::-1], False), ([Pattern(p.a, p.c, p.b, p.d) for p in shape], True)):
        pairs = zip(left, left[1:])
        if left[0].a == left[-1].d == 1 and all(
            q.a % p.a == p.d % q.d == p.a * p.c % q.a == 0 and p.a * p.c * p.d == q.b * q.d * q.a for p, q in pairs
        ):
            return [tuple(map(int, p)) for p in left], transposed
    return None


def project(
    matrix: ArrayLike, shape: Patterns, *, method: str = "auto", sweeps: int | None = None,
    inputs: ArrayLike | None = None, ridge: float = RIDGE, seed: int = 0,
    progress: Callable[[float], object] | None = None,
) -> tuple[Chain, float]:
    """The chain of patterns `shape` that is near `matrix` (outputs, inputs), and its relative error.

    method: "svd", hierarchical SVD; "als", alternating least squares from a random start (seed); "auto", the SVD where
    the chain is chainable, else least squares. sweeps: of least squares over all factors, at most; by default 0 after
    an SVD without `inputs` of two factors, which is optimal, or of 256 outputs or inputs and more, 100 elsewhere; they
    end where the error falls no more.
    inputs: vectors (N, inputs) that matter: the error is that of the outputs on them, |(W - P) X| / |W X|, and that is
    what least squares lower; without them it is |W - P| / |W|, Frobenius. ridge: beside the inputs each unit vector
    counts as well, with the square of ridge times an input's mean square, for each row: directions that few rows show
    stay near the matrix. progress: takes the fraction done, 0 to 1.
    Returns (Chain, error), factors scaled to equal mean squares. Raises ValueError where sizes do not fit or the SVD is
    asked for and does not exist, ImportError where it needs lazylinop and that is missing.
    """
    shape, progress = patterns(shape), progress or (lambda fraction: None)
    matrix = _numbers(matrix, "matrix", (shape[-1].outputs, shape[0].inputs))
    if method not in ("auto", "svd", "als"):
        raise ValueError(f"project: method must be auto, svd or als, got {method!r}")
    ordered = None if method == "als" else chainable(shape)
    if ordered is None and method == "svd":
        what = ", ".join(map(str, shape))
        raise ValueError(f"project: no hierarchical SVD: {what} is not chainable; method='als' takes it")
    metric = x = None if inputs is None else _numbers(inputs, "inputs", (None, shape[0].inputs))
    if x is not None:
        directions = np.sqrt(len(x) * ridge * np.mean(x**2)) * np.eye(x.shape[1])
        metric = _metric(np.concatenate([x, directions]) if ridge else x)
    if sweeps is None:
        done = ordered is not None and metric is None and (len(shape) <= 2 or max(matrix.shape) >= SMALL)
        sweeps = 0 if done else SWEEPS
    values = _random(matrix, shape, seed) if ordered is None else _svd(matrix, *ordered)
    for step, values in enumerate(_improve(matrix, shape, values, sweeps, metric), 1):
        progress(step / (sweeps * len(shape)))
    chain = Chain(Factor(v, support(p)) for v, p in zip(_balance(values), shape))
    progress(1.0)
    return chain, relative_error(matrix, chain.dense(), None if x is None else _metric(x))


def split(x: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, n) to fit to and rows held out, a fifth, one at least, drawn by seed; none of a single row."""
    held = max(len(x) // HELD, int(len(x) > 1))
    order = np.random.default_rng(seed).permutation(len(x))
    return x[np.sort(order[held:])], x[np.sort(order[:held])]


def relative_error(matrix: np.ndarray, other: np.ndarray, metric: np.ndarray | None = None) -> float:
    """|(W - P) M| / |W M|, Frobenius; 0 where both are zero. metric M: (inputs, any), the identity where it is None."""
    gap, size = (np.linalg.norm(m if metric is None else m @ metric) for m in (matrix - other, matrix))
    return float(gap / size) if size else float(gap > 0)


def _numbers(array, name, shape):
    array = np.asarray(array)
    if array.ndim != 2 or any(want not in (None, got) for want, got in zip(shape, array.shape)) or not array.size:
        wanted = ", ".join("N" if s is None else str(s) for s in shape)
        raise ValueError(f"project: {name} must have shape ({wanted}), as the patterns have it, got {array.shape}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"project: {name} must be finite real numbers")
    return array.astype(np.float64)


def _metric(x):
    """M with M M^T = X^T X / N, (inputs, min(N, inputs)): |A M|^2 is the mean of |A x|^2."""
    return np.linalg.qr(x, mode="r").T / np.sqrt(len(x))


def _svd(matrix, left, transposed):
    """Values of the factors, first applied first, by lazylinop's hierarchical SVD; `left` as of `chainable`."""
    limit = sys.getrecursionlimit()
    with warnings.catch_warnings(record=True):  # it warns of optional parts of its own
        try:
            from lazylinop import butterfly
        except ImportError as error:
            raise ImportError(
                f"the hierarchical SVD needs lazylinop: pip install 'bfthw[project]', or take method='als' ({error})"
            ) from None
        finally:
            sys.setrecursionlimit(limit)  # it raises it to where deep recursion ends the process
    found = butterfly.ksd(matrix.T.copy() if transposed else matrix, butterfly.Chain(left)).ks_values
    # from the left of the product is last applied first; from that of the transpose, first applied first
    return [np.asarray(v).transpose(0, 2, 1, 3) for v in found] if transposed else [np.asarray(v) for v in found[::-1]]


def _random(matrix, shape, seed):
    """A start for least squares, of the matrix's size."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=p) for p in shape]
    size = np.linalg.norm(reduce(lambda x, pv: _times(*pv, x), zip(shape, values), np.eye(shape[0].inputs)))
    return [v * (np.linalg.norm(matrix) / size) ** (1 / len(shape)) for v in values]


def _balance(values):
    """Values with the same product and equal root mean squares, so that one learning rate suits them all."""
    sizes = np.array([np.sqrt(np.mean(v**2)) for v in values])
    if not sizes.all():
        return values
    return [v * (np.exp(np.log(sizes).mean()) / size) for v, size in zip(values, sizes)]


def _improve(matrix, shape, values, sweeps, metric):
    """Values after each least squares: of every factor in its turn, last to first, all others fixed; none is worse.

    At most `sweeps` times over all factors; fewer where the error of the whole fell little.
    """
    start = np.eye(shape[0].inputs) if metric is None else metric
    target, error = matrix @ start, np.inf
    size = np.linalg.norm(target)
    for _ in range(sweeps if size else 0):
        before = [start]  # of each factor: all that is before it, (its inputs, columns of the metric)
        for pattern, v in zip(shape[:-1], values):
            before.append(_times(pattern, v, before[-1]))
        after = np.eye(shape[-1].outputs)
        for m in reversed(range(len(shape))):
            values = [*values[:m], _least_squares(shape[m], values[m], after, before[m], target), *values[m + 1 :]]
            after = after @ Factor(values[m], support(shape[m])).dense()
            yield values
        previous, error = error, np.linalg.norm(target - after @ start) / size
        if error < 1e-14 or error > previous * (1 - STALL):
            return


def _times(pattern, values, matrix):
    """The factor times a matrix (inputs, N), (outputs, N)."""
    if isinstance(pattern, Indexed):
        return chains.apply(values, matrix.T, pattern).T
    a, b, c, d = pattern
    product = values.transpose(0, 3, 1, 2) @ matrix.reshape(a, c, d, -1).transpose(0, 2, 1, 3)  # (a, d, b, N)
    return product.transpose(0, 2, 1, 3).reshape(a * b * d, -1)


def _at_values(pattern, left, right):
    """The entries of left (outputs, N) @ right (N, inputs) where the factor's matrix has its values, in their shape."""
    if isinstance(pattern, Indexed):
        entries = [np.einsum("jn,nj->j", left, right[:, column]) for column in pattern.index.T]
        return np.stack(entries, axis=1)[:, None, :, None]
    a, b, c, d = pattern
    product = left.reshape(a, b, d, -1).transpose(0, 2, 1, 3) @ right.reshape(-1, a, c, d).transpose(1, 3, 0, 2)
    return product.transpose(0, 2, 3, 1)  # from (a, d, b, c)


def _least_squares(pattern, values, after, before, target):
    """The values of the factor F that minimise |after F before - target|, from `values` on.

    Conjugate gradients on the normal equations A^T A F B B^T = A^T T B^T at the entries of the support, all
    independent blocks at once, with their diagonal as preconditioner: exact after one step where blocks have one value
    each, as those of a butterfly, and no step ever raises the error.
    """
    left, right = after.T @ after, before @ before.T
    diagonal = _at_values(pattern, np.diag(left)[:, None], np.diag(right)[None, :])
    scale = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 1e-12 * diagonal.max())
    wanted = _at_values(pattern, after.T @ target, before.T)
    residual = wanted - _at_values(pattern, left, _times(pattern, values, right))
    goal = 1e-28 * np.sum(wanted * scale * wanted)
    direction = step = scale * residual
    power = np.sum(residual * step)
    for _ in range(STEPS):
        if power <= goal:
            break
        image = _at_values(pattern, left, _times(pattern, direction, right))
        curvature = np.sum(direction * image)
        if curvature <= 0:  # rounding
            break
        values = values + (power / curvature) * direction
        residual = residual - (power / curvature) * image
        step = scale * residual
        previous, power = power, np.sum(residual * step)
        direction = step + (power / previous) * direction
    return values


def is_dense(layer: Layer) -> bool:
    """Whether a layer's chain is one dense matrix."""
    pattern = layer.chain.patterns[0]
    return len(layer.chain.factors) == 1 and (pattern.a, pattern.d) == (1, 1) and not isinstance(pattern, Indexed)


def project_layer(
    layer: Layer, shape: Patterns, *, residual: bool = False, inputs: ArrayLike | None = None, **how: Any
) -> tuple[Layer, float]:
    """(Layer, error): a layer, its chain projected; all else that it does stays. The rest goes to `project`.

    residual: the new layer has a first-to-last residual, the chain is near W - I; one that the layer has stays.
    inputs: what the layer's chain gets, (N, inputs). error: relative, of the whole matrix, I included.
    """
    full, had = _whole(layer), _own(layer)
    if residual and not had and not may_have_residual(layer):
        raise ValueError(
            "a residual needs as many outputs as inputs, no window and nothing else that is added, got "
            f"{' + '.join([f'{full.shape[1]} -> {full.shape[0]}', *layer.parts])}"
        )
    chain, _ = project(full - np.eye(*full.shape) * (had or residual), shape, inputs=inputs, **how)
    found = replace(layer, chain=chain, **{"residual": True} if residual and not had else {})
    return found, layer_error(layer, found, inputs)


def _own(layer):
    """Whether what the chain gets is added to what it gives, with the same scale."""
    return layer.residual and layer.window is None


def may_have_residual(layer: Layer) -> bool:
    """Whether a residual may be put around the layer's chain."""
    return layer.window is None and not layer.adds and layer.chain.inputs == layer.chain.outputs


def layer_error(layer: Layer, other: Layer, inputs: np.ndarray | None = None) -> float:
    """Relative error of another layer's matrix, I of a residual included, on inputs (N, inputs) or, without, itself."""
    return relative_error(_whole(layer), _whole(other), None if inputs is None else _metric(np.asarray(inputs)))


def _whole(layer):
    full = layer.chain.dense()
    return full + np.eye(*full.shape) * _own(layer)


KINDS = "bft<k>, monarch:<blocks>, debut, lowrank:<rank>, or patterns a,b,c,d a,b,c,d ... (first applied first)"


def named(text: str, outputs: int, inputs: int) -> tuple[Pattern, ...]:
    """The patterns that a name gives for a matrix (outputs, inputs); ValueError where it gives none.

    bft<k>: mixed radix, k as often as it divides, where the matrix is square and no other radix exceeds max(k, 3);
    else padded to the next power of k. monarch:<blocks>: padded to multiples. debut: the cheapest monotonic deformable
    chain. lowrank:<rank>. Else patterns "a,b,c,d a,b,c,d ...", first applied first.
    """
    if match := re.fullmatch(r"bft([0-9]{1,4})", text):
        base, size = int(match[1]), max(outputs, inputs)
        if not 2 <= base < size:
            raise ValueError(f"{text}: the base must be 2 to {size - 1} for a matrix {inputs} -> {outputs}")
        radices = chains.factorise(size, base)
        if outputs == inputs and max(radices) <= max(base, 3):
            return chains.mixed_radix(radices)
        return structures.padded(chains.bft(structures.next_power(size, base), base), inputs, outputs)
    if match := re.fullmatch(r"monarch:([0-9]{1,9})", text):
        if not 2 <= int(match[1]) <= min(outputs, inputs):
            raise ValueError(f"{text}: blocks must be 2 to {min(outputs, inputs)} for a matrix {inputs} -> {outputs}")
        return structures.padded_monarch(outputs, inputs, int(match[1]))
    if match := re.fullmatch(r"lowrank:([0-9]{1,9})", text):
        most = min(outputs, inputs) - 1
        if not 0 < int(match[1]) <= most:
            raise ValueError(f"{text}: the rank must be 1 to {most} for a matrix {inputs} -> {outputs}")
        return chains.low_rank(outputs, inputs, int(match[1]))
    if text == "debut":
        return structures.debut_chain(outputs, inputs)
    found = [re.fullmatch(r"\(?([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\)?", word) for word in text.split()]
    if not found or None in found:
        raise ValueError(f"{text!r} is no chain: a chain is {KINDS}")
    shape = patterns([tuple(map(int, match.groups())) for match in found])
    if (shape[-1].outputs, shape[0].inputs) != (outputs, inputs):
        raise ValueError(f"the patterns map {shape[0].inputs} -> {shape[-1].outputs}, the matrix {inputs} -> {outputs}")
    return shape


def suggestions(outputs: int, inputs: int) -> list[str]:
    """Names of chains worth a look for a matrix (outputs, inputs): butterflies with fewer weights, then a low rank."""
    blocks = [b for b in range(2, min(outputs, inputs)) if outputs % b == inputs % b == 0]
    near = min(blocks, key=lambda b: abs(b * b - min(outputs, inputs)), default=2)
    found = {}
    for name in dict.fromkeys(["bft4", "bft2", "debut", "monarch:4", f"monarch:{near}"]):
        try:
            shape = named(name, outputs, inputs)
        except ValueError:
            continue
        if shape not in found.values() and sum(p.weights for p in shape) < outputs * inputs:
            found[name] = shape
    size = min((sum(p.weights for p in shape) for shape in found.values()), default=0)
    rank = max(1, round(size / (outputs + inputs)))  # as many weights as the smallest of them
    return [*found, *([f"lowrank:{rank}"] if rank * (outputs + inputs) < outputs * inputs else [])]
