"""The Butterfly Transform as its authors released it (keivanalizadeh/ButterflyTransform), as a chain.

A square block of n channels has L = ceil(log_K n) stages and a flat weight w of K*n*L numbers. With the base-K digits
of input i and output j, its matrix is

    M[j, i] = prod_l w[l*K*n + (j mod K)*n + mix_l],    mix_l = (the low L-l digits of i) + (the top l digits of j)

and the block computes y = M x + x. Between factors l-1 and l a path is at the node (top l digits of j, low L-l digits
of i, j mod K): mix_l and j mod K can be read off it. Factor l adds up over the highest of the digits of i and adds a
digit of j. So M is a chain: the first factor has the low digits of i and, new, j mod K; each other one is of pattern
(digits of j, K, K, rest), and the last leaves j in natural order. Where n is no multiple of K^(L-1) the nodes are those
of the next multiple N, and mix_l >= n reads weights of other rows, which are tied in this way.

A layer of cin <= cout channels is ceil(cout / cin) blocks of cin, their outputs one after the other and cut to cout; of
cin > cout it is ceil(cin / cout) blocks of cout on slices of the input, the last one padded, and their sum. The x of
y = M x + x then goes along through the chain, in a block more whose weights are ones and zeros.
"""

import re
from math import ceil, log

import numpy as np

from .layout import Layout, only
from .plan import ONE, ZERO, Plan, check_size, named, plan

BASES = (4, 2, 8)  # the released code takes no others; 4 is what its Fusion always has


def stages(n, base):
    """L of a block of n channels, as the released code computes it: a float logarithm, rounded up."""
    return int(ceil(log(n, base)))


def plan_layer(cin, cout, base=4):
    """The Plan of a layer cin -> cout over the flat weights of its blocks, one after the other.

    Without the residual where cin == cout: `Layer.residual` is the same. ValueError for bases and sizes that they have
    not.
    """
    if base not in BASES:
        raise ValueError(f"base must be 2, 4 or 8, got {base!r}")
    n, blocks = min(cin, cout), -(-max(cin, cout) // min(cin, cout))
    if n < 2:
        raise ValueError(f"needs 2 channels at least on both sides, got {cin} -> {cout}")
    depth, shared = stages(n, base), cin <= cout
    low = base ** (depth - 1)  # K^(L-1)
    top = -(-n // low)  # values of the top digit
    size, carried = base * n * depth, blocks > 1
    nodes, width = blocks * low * base, max(top, 1 if shared else blocks)
    check_size((nodes + carried * low * base) * width)
    index = np.zeros((nodes + carried * low * base, width), int)
    source = np.full_like(index, ZERO)
    # the first factor: node (block t, r, j mod K) takes x[i] of its block, i = (top digit, r)
    t, r, j0, digit = np.ogrid[:blocks, :low, :base, :top]
    i = digit * low + r
    x = i + (0 if shared else t * n)
    fits = (i < n) & (x < cin)
    index[:nodes, :top] = np.where(fits, x + 0 * j0 + 0 * t, 0).reshape(nodes, top)
    source[:nodes, :top] = np.where(fits, t * size + j0 * n + i, ZERO).reshape(nodes, top)
    if carried:
        # one block more: its node j holds x[j], or the sum of the slices' x[j]
        x = np.arange(n)[:, None] + n * np.arange(1 if shared else blocks)
        index[nodes : nodes + n, : x.shape[1]] = np.where(x < cin, x, 0)
        source[nodes : nodes + n, : x.shape[1]] = np.where(x < cin, ONE, ZERO)
    sources = []
    for m in range(1, depth):
        high, rest = 1 if m == 1 else top * base ** (m - 2), base ** (depth - 1 - m)
        t, before, new, old, r, j0 = np.ogrid[:blocks, :high, : top if m == 1 else base, :base, :rest, :base]
        digits = (before * new.size + new) * rest * base  # the top m digits of j
        entry = t * size + m * base * n + j0 * n + digits + old * rest + r
        entry = np.where(digits + j0 < n, entry, ZERO)  # else no output is there
        if carried:
            entry = np.concatenate([entry, np.where(new == old, ONE, ZERO) + 0 * entry[:1]])
        sources.append(entry.reshape(-1, new.size, base, rest * base))
    grid, j = base if depth == 1 else top * low, np.arange(cout)
    if carried:
        of = [j // n * grid + j % n] if shared else [t * grid + j for t in range(blocks)]
        give = np.stack([*of, blocks * grid + j % n], axis=1)
    else:
        give = None if grid == n else j[:, None]
    if depth == 1 and give is not None:
        index, source = (v[give].reshape(cout, -1) for v in (index, source))
    first = Plan(*zip(named(index, source, cin)))
    if depth == 1:
        return first
    rest = plan(sources, give=give)
    return Plan(first.patterns + rest.patterns, first.sources + rest.sources)


def layer(parts, hints):
    """The fields of a Layer of {`weight`: the unused placeholder, `balanced_bfts.<i>.weight1`: the blocks' weights}."""
    weights = {p: v for p, v in parts.items() if p.endswith(".weight1")}
    flat = [weights.get(f"balanced_bfts.{t}.weight1") for t in range(len(weights))]
    unused = [p for p in parts if re.fullmatch(r"balanced_bfts\.[0-9]+\.weight", p)]  # of copies that do not delete it
    only(parts, "weight", *weights, *unused)
    if any(v is None or v.ndim != 1 for v in flat):
        raise ValueError(
            f"blocks must be balanced_bfts.0 to {len(flat) - 1}, each weight1 a vector, got {list(weights)}"
        )
    cin, cout = _sizes(parts, hints)
    n, blocks = min(cin, cout), -(-max(cin, cout) // min(cin, cout))
    base = _base(n, {len(v) for v in flat}, hints)
    if len(flat) != blocks:
        raise ValueError(f"{cin} -> {cout} channels are {blocks} blocks of {n}, found {len(flat)}")
    result = plan_layer(cin, cout, base)
    stored, spent = sum(map(len, flat)), result.weights
    with_it = "; the residual goes along as weights of one, a block more" if blocks > 1 else ""
    hints.note(
        f"{blocks} block{'s' * (blocks > 1)} of {n}: {spent} multiplications for {stored} stored weights{with_it}"
    )
    if "weight" in parts or unused:
        hints.note(
            f"{' and '.join(['weight'] * ('weight' in parts) + unused)}: unused by their code, only shapes are read"
        )
    hints.note("taken with the residual from first to last, y = M x + x, as their Fusion has it")
    return {"chain": result.chain(np.concatenate(flat)), "residual": blocks == 1}


def _sizes(parts, hints):
    """cin, cout: the placeholder says them."""
    if "weight" not in parts:
        sizes = [hints.get(key, shared=False) for key in ("inputs", "outputs")]
        if not all(str(size).isdecimal() for size in sizes):
            raise ValueError(
                f"no placeholder `weight` (cout, cin, 1, 1) to tell the channels: give {hints.name}.inputs=N and "
                f"{hints.name}.outputs=N"
            )
        return tuple(map(int, sizes))
    shape = parts["weight"].shape
    if len(shape) != 4 or shape[2:] != (1, 1) or 0 in shape:
        raise ValueError(f"the placeholder `weight` must have shape (cout, cin, 1, 1), got {shape}")
    return shape[1], shape[0]


def _base(n, lengths, hints):
    fitting = [base for base in BASES if n > 1 and lengths == {base * n * stages(n, base)}]
    base = hints.choice("base", ("2", "4", "8"))
    if base is None and len(fitting) > 1:
        others = " or ".join(map(str, fitting[1:]))
        hints.note(
            f"base 4 assumed, as the released Fusion has it; base {others} has as many weights: base={fitting[1]}"
        )
    if not fitting or (base is not None and int(base) not in fitting):
        wanted = ", ".join(f"{k * n * stages(n, k)} (base {k})" for k in BASES) if n > 1 else "2 channels at least"
        raise ValueError(f"weight1 of a block of {n} channels has {wanted} entries, got {sorted(lengths)}")
    return fitting[0] if base is None else int(base)


def knows(parts):
    return any(part.endswith(".weight1") for part in parts)


TELLING = "balanced_bfts.<i>.weight1 (K n L,), beside weight (cout, cin, 1, 1)"
LAYOUTS = (Layout(name="released", telling=TELLING, knows=knows, layer=layer),)
