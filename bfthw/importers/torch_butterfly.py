"""The butterflies of HazyResearch/butterfly: the package torch_butterfly and the older module `butterfly`.

A factor of stride s over n = 2^m values is of pattern (n/(2s), 2, 2, s), with the 2x2 matrix of pair (i, l) at the
place i*s + l; of radix 4, (n/(4s), 4, 4, s). The input is padded with zeros to n values; the stacks' outputs stand one
after the other and are cut.
"""

import numpy as np

from .layout import Layout, bias_of, entries, only
from .plan import ZERO, cut, plan

STRIDES = ("increasing", "decreasing")
COMPLEX = "complex weights have no real butterfly of the same size, and the cores compute with real integers"
ANGLES = "parametrisations by angles and a diagonal are not read; save the module's 2x2 matrices as `twiddle` instead"
# 2x2 matrices of one number each, row by row, by the older module's `param`
PARAMS = {
    "ortho": lambda t: (np.cos(t), -np.sin(t), np.sin(t), np.cos(t)),
    "ortho2": lambda t: (np.cos(t) ** 2, np.sin(t) ** 2, np.sin(t) ** 2, np.cos(t) ** 2),
    "ds": lambda t: (t, 1 - t, 1 - t, t),
    "logit": lambda t: PARAMS["ds"](0.5 + 0.5 * np.tanh(t / 2)),  # the logistic function, without overflow
}


def factor(matrices, stride):
    """(stacks, n/r, r, r) matrices of pairs -> (stacks * n/(r s), r, r, s), the values of a factor."""
    *_, r, _ = matrices.shape
    return matrices.reshape(-1, stride, r, r).transpose(0, 2, 3, 1)


def _log2(n, owner):
    if n < 2 or n & (n - 1):
        raise ValueError(f"{owner} is over {n} values, which must be a power of two from 2 on")
    return n.bit_length() - 1


def _increasing(hints):
    """Whether the first block goes from stride 1 up: their `increasing_stride`, which is in no file."""
    stride = hints.choice("stride", STRIDES)
    if stride is None:
        hints.note("increasing stride assumed, as it is their default; stride=decreasing says otherwise")
    return stride != "decreasing"


def _fields(sources, flat, stacks, parts, hints, least, build=cut):
    """Fields of the Layer of these sources. least: fewest outputs. build(stacks, inputs, outputs, sources) -> Plan."""
    a, _, c, d = sources[0].shape
    n, bias, whole = a * c * d // stacks, parts.get("bias"), a * c * d
    inputs = hints.size("inputs", n, least=n // 2 + 1)
    outputs = hints.size("outputs", whole, least=least) if bias is None else bias.size
    if not least <= outputs <= whole:
        raise ValueError(f"bias has {outputs} entries, the butterfly {least} to {whole} outputs")
    return {"chain": build(stacks, inputs, outputs, sources).chain(flat), "bias": bias_of(parts, outputs)}


def layer(parts, hints):
    """torch_butterfly.Butterfly: twiddle (stacks, blocks, m, n/2, 2, 2), every second block in the other direction."""
    if "twiddle4" in parts or "twiddle2" in parts:
        return _base4(parts, hints)
    only(parts, "twiddle", "bias")
    twiddle = parts["twiddle"]
    if twiddle.ndim == 5:
        raise ValueError(f"a ButterflyUnitary has angles of complex matrices: {COMPLEX}")
    if _is_complex(parts, hints):
        raise ValueError(f"twiddle {twiddle.shape}: {COMPLEX}")
    stacks, blocks, m, half = twiddle.shape[:4]
    if twiddle.shape[4:] != (2, 2) or 0 in twiddle.shape or _log2(2 * half, "twiddle") != m:
        raise ValueError(f"twiddle must have shape (stacks, blocks, m, 2^m / 2, 2, 2), got {twiddle.shape}")
    if stacks > 1:
        hints.note(
            "outputs of the stacks stand one after the other; a ButterflyConv2d, which is not read, has such keys"
        )
    ((entry,), flat), up, sources = entries(twiddle), _increasing(hints), []
    for block in range(blocks):
        for m_ in range(m):
            sources.append(factor(entry[:, block, m_], 1 << (m_ if up else m - 1 - m_)))
        up = not up
    return _fields(sources, flat, stacks, parts, hints, least=(stacks - 1) * 2 * half + 1)


def _is_complex(parts, hints):
    """Whether a twiddle has real and imaginary parts: a dimension more, or the older untied (stacks, m, n/2, 2, 2, 2).

    Over 4 values the latter is as two blocks of real ones; ValueError where neither the bias nor the user tells.
    """
    twiddle, bias = parts["twiddle"], parts.get("bias")
    if twiddle.ndim == 7 or bias is not None and bias.shape[1:] == (2,):
        return True
    m, half = twiddle.shape[1:3]
    if twiddle.shape[3:] != (2, 2, 2) or not 0 < m < 40 or half != 1 << (m - 1):
        return False
    if half == 2 and bias is None and hints.format is None:
        raise ValueError(
            f"twiddle {twiddle.shape}: may be two real blocks over 4 values or complex ones of the older module: "
            "--format torch_butterfly says the former"
        )
    return half != 2


def _base4(parts, hints):
    """ButterflyBase4: twiddle4 (stacks, blocks, m//2, n/4, 4, 4), then twiddle2 (stacks, blocks, m % 2, n/2, 2, 2)."""
    only(parts, "twiddle4", "twiddle2", "bias")
    four, two = (parts.get(f"twiddle{r}") for r in (4, 2))
    if four is None or two is None or four.ndim != 6 or two.ndim != 6 or two.shape[2] > 1:
        raise ValueError("a ButterflyBase4 has twiddle4 and twiddle2 of six dimensions, (stacks, blocks, stages, ...)")
    stacks, blocks, count = four.shape[:3]
    m = 2 * count + two.shape[2]
    n, odd = 1 << min(m, 40), two.shape[2]
    shapes = (stacks, blocks, count, n // 4, 4, 4), (stacks, blocks, odd, n // 2, 2, 2)
    if not stacks * blocks * m or (count and four.shape != shapes[0]) or (odd and two.shape != shapes[1]):
        raise ValueError(
            f"for n = {n} twiddle4 and twiddle2 must be {shapes[0]} and {shapes[1]}, got {four.shape}, {two.shape}"
        )
    ((entry4, entry2), flat), up, sources = entries(four, two), _increasing(hints), []
    for block in range(blocks):
        for m_ in range(count):
            sources.append(factor(entry4[:, block, m_], 1 << (2 * m_ if up else m - 2 - 2 * m_)))
        if odd:
            sources.append(factor(entry2[:, block, 0], 1 << (m - 1 if up else 0)))
        up = not up
    return _fields(sources, flat, stacks, parts, hints, least=(stacks - 1) * n + 1)


def _applied(twiddle, n, kind, hints):
    """Strides of the older module's stages, (stacks, stages, ...), as they are applied."""
    count, m = twiddle.shape[1], _log2(n, f"twiddle {twiddle.shape}, {kind},")
    up = [1 << m_ for m_ in range(m)]
    if count == m:
        return up if _increasing(hints) else up[::-1]
    if not count or count % (2 * m):
        raise ValueError(f"twiddle {twiddle.shape}, {kind}, must be (stacks, m or 2 m blocks, ...) with m = {m}")
    hints.note("taken as B B^T, in pairs of blocks, each by decreasing stride first")
    return (up[::-1] + up) * (count // (2 * m))


def _unpacked(entry, stride):
    """(stacks, 2, n) weights of each value and of its partner -> (stacks, n/2, 2, 2) matrices of pairs."""
    stacks, _, n = entry.shape
    # stacks, own or partner's, group, first or second of the pair, offset
    halves = entry.reshape(stacks, 2, n // (2 * stride), 2, stride)
    first, second = halves[:, :, :, 0], halves[:, ::-1, :, 1]  # the second's partner is the first
    return np.stack([first, second], axis=1).transpose(0, 3, 4, 1, 2).reshape(stacks, n // 2, 2, 2)


def _of_numbers(twiddle, hints):
    """A twiddle of one number for each 2x2 matrix, with the matrices in its place."""
    param = hints.choice("param", tuple(PARAMS))
    if param is None:
        others = ", ".join(list(PARAMS)[1:])
        hints.note(f"twiddle {twiddle.shape} taken as angles of rotations, param=ortho; {others} have such arrays too")
    return np.stack(PARAMS[param or "ortho"](twiddle.astype(np.float64)), axis=-1).reshape(*twiddle.shape, 2, 2)


def layer_of_old(parts, hints):
    """butterfly.Butterfly: tied (stacks, n-1, 2, 2), untied (stacks, m, n/2, 2, 2), B B^T (stacks, 2 m k, n/2, 2, 2).

    Tied and untied keep the matrices of stride s at s - 1 to 2 s - 2 and at log2 s, in whatever order they are applied;
    the blocks of B B^T are kept as they are applied, the first one by decreasing stride. With fast=True untied and
    B B^T are (stacks, stages, 2, n), as they are applied: value i becomes t[0, i] x[i] + t[1, i] x[i xor stride].
    Without the last two dimensions there is one number for a matrix (`PARAMS`).
    """
    twiddle = parts["twiddle"]
    if "twiddle1" in parts or "diag" in parts:
        raise ValueError(f"{', '.join(f'{key} {value.shape}' for key, value in parts.items())}: {ANGLES}")
    only(parts, "twiddle", "bias")
    if not twiddle.size:
        raise ValueError(f"twiddle is empty: {twiddle.shape}")
    if twiddle.ndim == 6 or (twiddle.shape[2:] == (2, 2, 2) and twiddle.shape[1] % 2):
        raise ValueError(f"twiddle {twiddle.shape}: {COMPLEX}")
    packed = twiddle.shape[2:3] == (2,) and twiddle.ndim == 4 and (twiddle.shape[3] > 2 or twiddle.shape[1] % 2 == 0)
    if twiddle.shape[1:] == (1, 2, 2):
        packed = hints.choice("fast", ("no", "yes")) == "yes"
    if twiddle.ndim < 4:
        twiddle = _of_numbers(twiddle, hints)
    ((entry,), flat), sources, stacks = entries(twiddle), [], twiddle.shape[0]
    if packed:
        n = twiddle.shape[3]
        strides = _applied(twiddle, n, "packed", hints)
        hints.note("taken as packed for fast=True")
        sources = [factor(_unpacked(entry[:, m_], s), s) for m_, s in enumerate(strides)]
    elif twiddle.ndim == 4:
        n = twiddle.shape[1] + 1
        if n == 2:
            hints.note("one 2x2 matrix: taken as tied, not as packed for fast=True; fast=yes says otherwise")
        m, up = _log2(n, f"twiddle {twiddle.shape}, tied,"), _increasing(hints)
        for s in [1 << m_ for m_ in (range(m) if up else reversed(range(m)))]:
            tied = np.broadcast_to(entry[:, None, s - 1 : 2 * s - 1], (stacks, n // (2 * s), s, 2, 2))
            sources.append(factor(tied.reshape(stacks, n // 2, 2, 2), s))
    else:
        n = 2 * twiddle.shape[2]
        if twiddle.shape[3:] != (2, 2):
            raise ValueError(f"twiddle must have shape (stacks, m or 2 m blocks, 2^m / 2, 2, 2), got {twiddle.shape}")
        strides = _applied(twiddle, n, "untied", hints)
        # those of one direction alone are kept by their strides
        places = [s.bit_length() - 1 for s in strides] if n == 1 << len(strides) else range(len(strides))
        sources = [factor(entry[:, m_], s) for m_, s in zip(places, strides)]

    def fold(stacks, inputs, outputs, sources):
        """Their output step: where twice 2^ceil(log2 outputs) fits into all stacks, parts of this size are added up."""
        part = 1 << (outputs - 1).bit_length()
        if stacks * n // part < 2:
            return cut(stacks, inputs, outputs, sources)
        if stacks * n % part:
            raise ValueError(f"{stacks} stacks of {n} values cannot be folded to {part} for {outputs} outputs")
        place = np.tile(np.arange(n), stacks)
        hints.note(f"outputs are sums of {stacks * n // part} values each, as theirs are")
        take = None if stacks == 1 and inputs == n else np.where(place < inputs, place, ZERO)
        give = np.arange(outputs)[:, None] + part * np.arange(stacks * n // part)
        return plan(sources, take, give, inputs)

    return _fields(sources, flat, stacks, parts, hints, least=1, build=fold)


def _twiddle(parts, *dimensions):
    return "twiddle" in parts and parts["twiddle"].ndim in dimensions


LAYOUTS = (
    Layout(
        name="torch_butterfly",
        telling="twiddle (stacks, blocks, m, n/2, 2, 2), or twiddle4 and twiddle2",
        knows=lambda parts: (
            "twiddle4" in parts or _twiddle(parts, 6, 7) or (_twiddle(parts, 5) and parts["twiddle"].shape[-1] == 4)
        ),
        layer=layer,
    ),
    Layout(
        name="butterfly",
        telling="twiddle (stacks, n-1[, 2, 2]), (stacks, m, n/2[, 2, 2]) or (stacks, m, 2, n)",
        knows=lambda parts: _twiddle(parts, 2, 3, 4, 5, 6),
        layer=layer_of_old,
    ),
)
