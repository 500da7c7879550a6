"""Linear layers by their names as chains of patterns: padded, deformable, those of the papers; and what they cost."""

from bisect import bisect_left
from fractions import Fraction
from functools import cache
from math import inf
from typing import NamedTuple

import numpy as np

from . import chain as chains
from .chain import Chain, Factor, Indexed, dense, divisors, factorise, mixed_radix, patterns

WIDEST = 1 << 20  # inputs or outputs for which chains are sought


def index(pattern):
    """The inputs of each output of a factor, int64 (outputs, c): what would make any pattern an Indexed one."""
    if isinstance(pattern, Indexed):
        return pattern.index
    a, b, c, d = pattern
    i, j, l, k = np.ogrid[:a, :b, :d, :c]
    return ((i * c + k) * d + l + 0 * j).reshape(-1, c)


def places(pattern):
    """Where the weights of `index` lie in the flat values (a, b, c, d), int64 (outputs, c)."""
    a, b, c, d = pattern
    i, j, l, k = np.ogrid[:a, :b, :d, :c]
    return (((i * b + j) * c + k) * d + l).reshape(-1, c)


def selected(chain, inputs=None, outputs=None, inside=False):
    """A chain, or its patterns, on some values of its input vector, the others zero, and giving some of its outputs.

    inputs, outputs: distinct positions in the vectors of the given chain, in the order of the new ones; None: all.
    Exact: a value that nothing can reach goes, and the factors around it become Indexed; so does the last factor, where
    outputs are left out. inside: also values between the factors go that no output needs, which saves multiplications
    and makes more factors Indexed. Where an output has fewer inputs than others of its factor, one of its own stands
    again; its weight there is zero in a chain. Returns what it was given, a Chain or patterns.
    """
    shape = chain.patterns if isinstance(chain, Chain) else patterns(chain)
    tables = [index(p) for p in shape]
    live = [_positions("inputs", inputs, shape[0].inputs)]
    for pattern, table in zip(shape, tables):
        alive = np.isin(np.arange(pattern.inputs), live[-1])
        live.append(np.flatnonzero(alive[table].any(axis=1)))
    live[-1] = _positions("outputs", outputs, shape[-1].outputs)
    for m in range(len(shape) - 1, 0, -1) if inside else ():
        live[m] = live[m][np.isin(live[m], tables[m][live[m + 1]])]
        if not len(live[m]):  # every output is zero; a chain needs one value
            live[m] = np.zeros(1, np.int64)
    result = []
    for m, (pattern, table, before, after) in enumerate(zip(shape, tables, live, live[1:])):
        values = chain.factors[m].values if isinstance(chain, Chain) else None
        whole = all(
            np.array_equal(kept, np.arange(n)) for kept, n in ((before, pattern.inputs), (after, pattern.outputs))
        )
        result.append((pattern, values) if whole else _renumbered(pattern, table, before, after, values))
    if isinstance(chain, Chain):
        return Chain(Factor(values, chains.support(pattern)) for pattern, values in result)
    return patterns(pattern for pattern, _ in result)


def _positions(name, given, size):
    kept = np.arange(size) if given is None else np.asarray(given)
    inside = kept.ndim == 1 and len(kept) and kept.dtype.kind in "iu" and kept.min() >= 0 and kept.max() < size
    if not inside or len(np.unique(kept)) != len(kept):
        raise ValueError(f"selected: {name} must be distinct positions from 0 to {size - 1}, got {given}")
    return kept.astype(np.int64)


def _renumbered(pattern, table, before, after, values):
    """A factor between the values `before` and `after` alone: its Indexed pattern, and its values if it has some."""
    number = np.full(pattern.inputs, -1)
    number[before] = np.arange(len(before))
    found = number[table[after]]
    order = np.argsort(found < 0, axis=1, kind="stable")[:, : max(1, (found >= 0).sum(axis=1).max())]
    found = np.take_along_axis(found, order, axis=1)
    if values is not None:
        values = values.ravel()[np.take_along_axis(places(pattern)[after], order, axis=1)]
        values = np.where(found >= 0, values, 0.0)[:, None, :, None]
    return Indexed(np.where(found >= 0, found, np.maximum(found[:, :1], 0)), len(before)), values


def padded(chain, inputs, outputs):
    """A chain, or its patterns, on the first `inputs` of its values, giving the first `outputs`: exact, no padding.

    It is as if the vector were padded with zeros and the result cut: the weights of the zeros and the outputs to be cut
    are left out of the first and the last factor, which become Indexed. See `selected`.
    """
    shape = chain.patterns if isinstance(chain, Chain) else patterns(chain)
    for name, size, most in (("inputs", inputs, shape[0].inputs), ("outputs", outputs, shape[-1].outputs)):
        if type(size) is not int or not 1 <= size <= most:
            raise ValueError(f"padded: {name} must be 1 to {most}, those of the chain, got {size!r}")
    return selected(chain, range(inputs), range(outputs))


def side_by_side(shape, count):
    """Patterns of `count` such chains, each on values of its own: block-diagonal, weights joined along their axis 0."""
    result = []
    for p in patterns(shape):
        if isinstance(p, Indexed):
            table = p.index + p.inputs * np.arange(count)[:, None, None]
            result.append(Indexed(table.reshape(-1, p.c), count * p.inputs))
        else:
            result.append((count * p.a, p.b, p.c, p.d))
    return patterns(result)


def paths(shape):
    """(fewest, most) paths from an input to an output, over all pairs of them: fewest 1 is fully connected."""
    shape = patterns(shape)
    fewest, most, n = inf, 0, shape[0].inputs
    for first in range(0, n, 256):
        x = np.eye(min(256, n - first), n, first, dtype=np.int64)
        for p in shape:
            if isinstance(p, Indexed):
                x = x[:, p.index].sum(axis=2)
            else:
                sums = x.reshape(-1, p.a, p.c, p.d).sum(axis=2)
                x = np.repeat(sums[:, :, None], p.b, axis=2).reshape(len(x), -1)
        fewest, most = min(fewest, int(x.min())), max(most, int(x.max()))
    return fewest, most


class DebutRules(NamedTuple):
    """What holds of a valid deformable chain; all three together mean one path from each input to each output.

    strides: the t of each factor is the product of the r before it; rows: the r multiply to the outputs; columns: the s
    multiply to the inputs.
    """

    strides: bool
    rows: bool
    columns: bool

    @property
    def one_path(self):
        return all(self)


def debut_rules(shape):
    """DebutRules of patterns (p/(r t), r, s, t), first applied first; ValueError where the sizes do not chain.

    A chain that breaks a rule is valid still: it may miss pairs or have several paths between them; `paths` counts.

    With all three rules, after factor i an input has reached one run of R = r_1 ... r_i neighbouring values, the one of
    number floor(input / (s_1 ... s_i)), each of them once: factor i+1 has t = R, so it sends every value of a run to r
    places R apart, and s neighbouring runs to the same places. After the last factor the run is everything.
    """
    shape = patterns(shape)
    rows = np.cumprod([1, *(p.b for p in shape)], dtype=object)
    columns = np.prod([p.c for p in shape], dtype=object)
    return DebutRules(
        strides=all(p.d == t for p, t in zip(shape, rows)),
        rows=bool(rows[-1] == shape[-1].outputs),
        columns=bool(columns == shape[0].inputs),
    )


def debut_chain(outputs, inputs, kind="monotonic", *, shrink=None, bulge=4 / 3, start=()):
    """The deformable chain of the fewest weights, one path for each pair, for any sizes (NeurIPS 2021, section 3).

    kind: "monotonic", sizes between inputs and outputs go one way only; "bulging", the first factor grows to `bulge`
    times the larger of them at least, and the rest never grows. shrink: what a factor of the rest may change the size
    by at most; None: anything. start: (r, s) of factors to begin with, before the rule of the kind applies.
    Raises ValueError, with the reason, where there is no such chain.
    """
    chains._check_sizes("debut_chain", outputs=outputs, inputs=inputs)
    if kind not in ("monotonic", "bulging"):
        raise ValueError(f"debut_chain: kind must be monotonic or bulging, got {kind!r}")
    rest_in, rest_out, factors = inputs, outputs, []
    for r, s in start:
        chains._check_sizes("debut_chain: start", r=r, s=s)
        if rest_out % r or rest_in % s:
            raise ValueError(
                f"debut_chain: start ({r}, {s}): r must divide the {rest_out} that is left of {outputs} outputs, "
                f"s the {rest_in} left of {inputs} inputs"
            )
        rest_in, rest_out, factors = rest_in // s, rest_out // r, [*factors, (r, s)]
    done = outputs // rest_out

    def find(shrink):
        """(weights, factors, ((r, s), ...)) of every candidate for the rest; no candidate, no chain."""
        cheapest = _cheapest(outputs, shrink, kind == "monotonic" and rest_out > rest_in)
        if kind == "monotonic":
            return [tail] if (tail := cheapest(rest_in, rest_out)) else []
        found, most = [], max(inputs, outputs)
        for r, s in ((r, s) for r in divisors(rest_out) for s in divisors(rest_in)):
            peak = rest_in // s * done * r
            if r > s and peak > most and peak >= bulge * most and (tail := cheapest(rest_in // s, rest_out // r)):
                found.append((peak * s + tail[0], 1 + tail[1], ((r, s), *tail[2])))
        return found

    if not (found := find(inf if shrink is None else shrink)):
        text = f"debut_chain: no {kind} chain {inputs} -> {outputs}"
        if not find(inf):
            grown = max(inputs, done * rest_in * rest_out) / max(inputs, outputs)
            raise ValueError(
                f"{text}: the size can grow to {grown:g} times the larger at most, bulge = {bulge:g} is wanted"
            )
        ratios = sorted({Fraction(max(r, s), min(r, s)) for r in divisors(rest_out) for s in divisors(rest_in)})
        least = ratios[bisect_left(ratios, True, key=lambda ratio: bool(find(ratio)))]
        raise ValueError(
            f"{text} whose factors change the size {shrink:g} times at most: shrink = {least} is the least that does"
        )
    factors = [*factors, *min(found)[2]] or [(1, 1)]
    rows = np.cumprod([1, *(r for r, _ in factors)])
    return chains.debut(*((r, s, int(t)) for (r, s), t in zip(factors, rows)), inputs=inputs)


def _cheapest(total, shrink, growing, least=1):
    """The function from (inputs, outputs) to (weights, factors, ((r, s), ...)) of the cheapest end of a chain, or None.

    `inputs` is what the s have still to multiply to, `outputs` the r: the vector has inputs * (total / outputs) values.
    least: of every r and s; with 2 no output of a factor is a multiple of another one, and no input.
    """

    @cache
    def best(inputs, outputs):
        if inputs == outputs == 1:
            return 0, 0, ()
        found = None
        for r in divisors(outputs):
            weights = inputs * (total // outputs) * r
            if found and weights > found[0]:
                break
            for s in divisors(inputs):
                big, small = (r, s) if growing else (s, r)
                if not least <= small <= big <= shrink * small or big == 1:
                    continue
                tail = best(inputs // s, outputs // r)
                if tail and (found is None or (weights + tail[0], 1 + tail[1]) < found[:2]):
                    found = weights + tail[0], 1 + tail[1], ((r, s), *tail[2])
        return found

    return best


def padded_monarch(outputs, inputs, blocks=4):
    """`chain.monarch` for any sizes: padded to the next multiples of `blocks`, as the authors' MonarchLinear does."""
    chains._check_sizes("monarch", outputs=outputs, inputs=inputs, blocks=blocks)
    up = [-(-size // blocks) * blocks for size in (outputs, inputs)]
    return padded(chains.monarch(*up, blocks), inputs, outputs)


def next_power(n, base=2):
    """The smallest power of base, the base itself at least, that is not below n."""
    power = base
    while power < n:
        power *= base
    return power


def fixed_butterfly(outputs, inputs, k1=None, k2=None, *, seed=0):
    """A Chain: truncated butterfly, dense core k1 -> k2, transposed truncated butterfly, at its start of training.

    (Ailon, Leibovich, Nair, "Sparse Linear Networks with a Fixed Butterfly Structure", UAI 2021.) n1 and n2 are the
    next powers of two of inputs and outputs, k1 and k2 are log2 of those where not given. A butterfly over n is a
    randomised Hadamard transform, stages [[1, 1], [1, -1]] / sqrt(2) with signs by chance on the input, of whose
    outputs k, chosen by chance, are kept and multiplied by sqrt(n/k); the core is uniform(-1/sqrt(k1), 1/sqrt(k1)).
    seed: of all of it. Only what the kept values need is there. Raises ValueError where k1 or k2 do not fit.
    """
    chains._check_sizes("fixed_butterfly", outputs=outputs, inputs=inputs)
    rng, sides = np.random.default_rng(seed), []
    for name, size, k in (("k1", inputs, k1), ("k2", outputs, k2)):
        n = next_power(size)
        k = n.bit_length() - 1 if k is None else k
        if type(k) is not int or not 1 <= k <= n:
            raise ValueError(f"fixed_butterfly: {name} must be 1 to {n}, the next power of two of {size}, got {k!r}")
        kept = np.sort(rng.choice(n, k, replace=False))
        values = [np.ones((a, b, c, d)) for a, b, c, d in chains.bft(n, 2)]
        for v in values:
            v[:, 1, 1] = -1
            v /= np.sqrt(2)
        signs = rng.choice([-1.0, 1.0], n)
        values[0] = chains.scale_columns(values[0], signs)
        values[-1] = values[-1] * np.sqrt(n / k)
        sides.append((values, kept, k))
    (first, kept1, k1), (last, kept2, k2) = sides
    transposed = Chain(Factor(v.swapaxes(1, 2)) for v in reversed(last))
    core = Factor(rng.uniform(-1, 1, (1, k2, k1, 1)) / np.sqrt(k1))
    head = selected(Chain(map(Factor, first)), range(inputs), kept1, inside=True)
    tail = selected(transposed, kept2, range(outputs), inside=True)
    return Chain([*head.factors, core, *tail.factors])


def csc(n, fan):
    """Cyclic support layers: y[j] = sum_f w[j, f] x[(j + f fan^l) mod n] for l = 0 .. L-1, L = ceil(log_fan n).

    After layer l an input has reached all outputs up to fan^(l+1) - 1 before it, so every pair is connected, by one
    path where n = fan^L. (After Hosseini et al., "Cyclic Sparsely Connected Architectures", TVLSI 29(10), 2021.)
    """
    chains._check_sizes("csc", n=n, fan=fan)
    if n < 2 or fan < 2:
        raise ValueError(f"csc needs n and fan of 2 or more, got n = {n}, fan = {fan}")
    result, stride = [], 1
    while stride < n:
        result.append(Indexed((np.arange(n)[:, None] + stride * np.arange(fan)) % n, n))
        stride *= fan
    return patterns(result)


class Way(NamedTuple):
    """One of the `ways`: what to write to get it from this module, and its patterns."""

    code: str
    patterns: tuple

    @property
    def weights(self):
        """Weights, and multiplications a vector."""
        return sum(p.weights for p in self.patterns)

    def __str__(self):
        return f"{self.code}: {self.weights}"


def ways(inputs, outputs=None, base=4):
    """Butterflies from `inputs` to `outputs` values with a path for each pair, and dense: Ways, the cheapest first.

    Mixed radix; padded, from and to the sizes whose radices are at most the base (3 at least) and whose butterfly is
    cheapest, and over the next power of the base and of two; the deformable chain.
    """
    outputs = inputs if outputs is None else outputs
    _check_widths("ways", inputs, outputs)
    if type(base) is not int or base < 2:
        raise ValueError(f"ways: base must be 2 or more, got {base!r}")
    size = max(inputs, outputs, 2)
    powers = {n: factorise(n, base) for n in sorted({next_power(size), next_power(size, base)})}
    found = [_exact(inputs, outputs, base), _wider(inputs, outputs, base)]
    found += [_padded(radices, inputs, outputs) for n, radices in powers.items() if not n == inputs == outputs]
    found.append(Way(f"debut_chain({outputs}, {inputs})", debut_chain(outputs, inputs)))
    found.append(Way(f"dense({outputs}, {inputs})", dense(outputs, inputs)))
    return sorted({way.code: way for way in found if way}.values(), key=lambda way: way.weights)


@cache
def way(inputs, outputs=None):
    """The one of `ways` that a layer takes unless it is told another: the Butterfly Transform of base 4 where there is

    one, else mixed radix, and padded only where that saves a fifth of the weights at least, because factors with an
    index cost more in hardware.
    """
    outputs = inputs if outputs is None else outputs
    _check_widths("way", inputs, outputs)
    exact, wider = _exact(inputs, outputs, 4), _wider(inputs, outputs, 4)
    return wider if wider and wider.weights < 0.8 * exact.weights else exact


def _check_widths(owner, inputs, outputs):
    chains._check_sizes(owner, inputs=inputs, outputs=outputs)
    if max(inputs, outputs) > WIDEST:
        raise ValueError(
            f"{owner}: chains are sought for {WIDEST} inputs and outputs at most, got {inputs} and {outputs}; give "
            f"patterns"
        )


def _exact(inputs, outputs, base):
    """The Way of mixed radix of these very sizes, of one dense factor where there is no other."""
    radices = _radices(inputs, outputs, base)
    if len(radices) < 2:
        return Way(f"dense({outputs}, {inputs})", dense(outputs, inputs))
    return Way(f"mixed_radix({radices})", mixed_radix(radices))


def _wider(inputs, outputs, base):
    """The Way of the cheapest mixed radix of smooth sizes, padded, None where that is the exact one."""
    pairs = [(n, m) for n in _smooth(inputs, base) for m in _smooth(outputs, base) if n == m or inputs != outputs]
    costs = {pair: sum(p.weights for p in mixed_radix(r)) for pair in pairs if (r := _radices(*pair, base))}
    best = min(costs, key=costs.get, default=(inputs, outputs))
    return None if best == (inputs, outputs) else _padded(_radices(*best, base), inputs, outputs)


def _padded(radices, inputs, outputs):
    code = f"padded(mixed_radix({radices}), {inputs}, {outputs})"
    return Way(code, padded(mixed_radix(radices), inputs, outputs))


def _smooth(size, base):
    """The sizes from `size` to the next power of two whose radices are at most the base, or 3."""
    near = range(max(size, 2), next_power(size) + 1)
    return [n for n in near if max(factorise(n, base)) <= max(base, 3)]


@cache
def _radices(inputs, outputs, base):
    """Radices for `mixed_radix`: of as many outputs as inputs `factorise`'s, else the cheapest, all 2 at least."""
    if inputs == outputs:
        return factorise(inputs, base)
    found = _cheapest(outputs, inf, outputs > inputs, least=2)(inputs, outputs)
    return tuple(r if r == s else (r, s) for r, s in found[2]) if found else ()
