"""Constant matrix-vector products as graphs of two-operand adders and subtractors.

Three steps, a few times with other random choices; the cheapest graph is kept.

1. and 2. Sums share patterns, those of the matrix or of its transpose (`sharing`).
3. A sum becomes a tree of adders, the cheapest pair first. Constants go where adders have a place for them: the carry
   input, or the zeros below a shifted operand.

The cost is that of the ECP5: bits of carry chains, and what a chain takes beside its bits.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

import numpy as np

from .sharing import signed_digits, signed_powers, sums_of

OVERHEAD = 4  # cells of a carry chain beside its bits: nextpnr enters and leaves a chain by two cells each
RUNS, DIGITS = 8, 600  # runs of step 1; fewer where they would go over more digits than this, all in all
FINE, TREES, NOISE = 2, 8, 4.0  # runs that go on to step 3, trees tried for a sum there, cells by which choices vary
OFFERS = 500  # places for constants that are tried in pairs


def width(lo, hi):
    """Bits of two's complement that hold lo..hi."""
    return max(hi.bit_length(), (~lo).bit_length() if lo < 0 else 0) + 1


@dataclass(frozen=True)
class Node:
    """(a << a_shift) + (b << b_shift), or minus b; plus `constant`. One of the shifts is 0.

    a, b: numbers of values, first the inputs, then the nodes; a None is zero. lo, hi: exact range. level: adders on
    the longest way here, the inputs counted from their own levels.
    """

    a: int | None
    a_shift: int
    b: int
    b_shift: int
    minus: bool
    constant: int
    lo: int
    hi: int
    level: int

    width = property(lambda self: width(self.lo, self.hi))

    @property
    def start(self):
        """The lowest bit that needs an adder; the bits of `a` below pass."""
        return chain_start(self, self.constant)

    @property
    def cells(self):
        """Bits of the carry chain."""
        return max(1, self.width - self.start)


def chain_start(node, constant):
    """Where the carry chain of `node` begins with another constant; None where that finds no place in it.

    The zeros below the shifted operand take a constant; so does the carry input, at the chain's first bit.
    """
    if node.a is None:
        return lowest(constant)
    if node.minus and node.a_shift:  # every bit of b counts; the zeros are below a
        return 0 if -1 <= constant < 1 << node.a_shift else None
    if node.minus:
        constant = -constant
    if not 0 <= constant <= 1 << node.b_shift:
        return None
    return lowest(constant) if constant else node.b_shift


def lowest(n):
    """Number of the lowest bit set."""
    return (n & -n).bit_length() - 1


@dataclass(frozen=True)
class Output:
    """(value `source` << shift) + constant, all bits inverted where `invert`; constant: 0 to 2**shift - 1.

    source None is zero; the constant is any then.
    """

    source: int | None
    shift: int
    constant: int
    invert: bool


@dataclass(frozen=True)
class Graph:
    """outputs = matrix @ x + constants, by `nodes` in an order in which operands come first.

    ranges: ((lo, hi), ...) of the inputs; levels: of the inputs.
    """

    ranges: tuple
    levels: tuple
    nodes: tuple
    outputs: tuple

    inputs = property(lambda self: len(self.ranges))

    @property
    def cost(self):
        """Cells of all carry chains."""
        return sum(node.cells + OVERHEAD for node in self.nodes)

    @property
    def depth(self):
        """The highest level of an output."""
        return max((self.level(o.source) for o in self.outputs if o.source is not None), default=0)

    def level(self, number):
        return self.levels[number] if number < self.inputs else self.nodes[number - self.inputs].level

    def range(self, number):
        """Exact (lo, hi) of a value."""
        if number < self.inputs:
            return self.ranges[number]
        return self.nodes[number - self.inputs].lo, self.nodes[number - self.inputs].hi

    def registers(self, depth, shift):
        """Bits of registers: one behind every adder, values kept until their last use, outputs until `depth`.

        Outputs drop their `shift` lowest bits.
        """
        last = [self.level(n) for n in range(self.inputs + len(self.nodes))]
        used = set()
        for node in self.nodes:
            for n in {node.a, node.b} - {None}:
                last[n] = max(last[n], node.level - 1)
                used.add(n)
        bits = 0
        for n, end in enumerate(last):
            drops = [shift - out.shift for out in self.outputs if out.source == n]
            whole = width(*self.range(n)) - (n < self.inputs and self.range(n)[0] >= 0)
            dropped = max(1, whole - max(0, min(drops, default=0)))
            bits += whole * (end - self.level(n)) + (n >= self.inputs) * (whole if n in used else dropped)
            bits += dropped * (depth - end) if drops else 0
        return bits

    def output_range(self, number):
        """Exact (lo, hi) of an output."""
        out = self.outputs[number]
        lo, hi = (0, 0) if out.source is None else self.range(out.source)
        lo, hi = (lo << out.shift) + out.constant, (hi << out.shift) + out.constant
        return (~hi, ~lo) if out.invert else (lo, hi)

    def __call__(self, x):
        """Integers x (N, inputs) -> (N, outputs)."""
        x = np.asarray(x)
        values = list(x.T)
        for node in self.nodes:
            a = 0 if node.a is None else values[node.a] << node.a_shift
            b = values[node.b] << node.b_shift
            values.append((a - b if node.minus else a + b) + node.constant)
        result = np.zeros((len(x), len(self.outputs)), x.dtype)
        for n, out in enumerate(self.outputs):
            y = (0 if out.source is None else values[out.source] << out.shift) + out.constant
            result[:, n] = ~y if out.invert else y
        return result


class _Builder:
    """Nodes made one by one; a term is (value, shift, sign)."""

    def __init__(self, ranges, levels):
        # the constant is one more input, which is always 1
        self.inputs, self.ranges, self.input_levels = len(ranges), [*ranges, (1, 1)], levels
        self.forms = [tuple(int(n == k) for k in range(len(self.ranges))) for n in range(self.inputs)]
        self.nodes = []

    def node(self, a, a_shift, b, b_shift, minus, constant=0):
        """A node and its linear form."""
        form = [-(f << b_shift) if minus else f << b_shift for f in self.forms[b]]
        level = self.level(b)
        if a is not None:
            form = [f + (g << a_shift) for f, g in zip(form, self.forms[a])]
            level = max(level, self.level(a))
        form[-1] += constant
        lo, hi = self.span(form)
        return Node(a, a_shift, b, b_shift, minus, constant, lo, hi, level + 1), tuple(form)

    def level(self, number):
        return self.input_levels[number] if number < self.inputs else self.nodes[number - self.inputs].level

    def span(self, form):
        lo = hi = 0
        for f, (low, high) in zip(form, self.ranges):
            lo, hi = lo + f * (low if f > 0 else high), hi + f * (high if f > 0 else low)
        return lo, hi

    def add(self, node, form):
        self.nodes.append(node)
        self.forms.append(form)
        return len(self.forms) - 1

    def joins(self, s, t):
        """The ways to add two terms: node, form, and shift and sign of the term it makes."""
        if (s[1], -s[2]) > (t[1], -t[2]):
            s, t = t, s
        (a, shift, sign), (b, above, other) = s, t
        yield *self.node(a, 0, b, above - shift, sign != other), shift, sign
        if sign < other:
            yield *self.node(b, above - shift, a, 0, True), shift, other

    def tree(self, terms, rng):
        """A term that is the sum of `terms`: the cheapest pair first."""
        parts, pairs, numbers = {}, {}, count()

        def offer(part):
            new = next(numbers)
            for k, other in parts.items():
                for way, joined in enumerate(self.joins(other, part)):
                    noise = 0 if rng is None else NOISE * rng.random()
                    pairs[k, new, way] = joined[0].cells + joined[0].level / 4 + noise, joined
            parts[new] = part

        for term in terms:
            offer(term)
        while len(parts) > 1:
            i, j, way = min(pairs, key=lambda pair: pairs[pair][0])
            node, form, shift, sign = pairs[i, j, way][1]
            del parts[i], parts[j]
            pairs = {key: v for key, v in pairs.items() if not {i, j} & {*key[:2]}}
            offer((self.add(node, form), shift, sign))
        return parts.popitem()[1]

    def cheapest(self, terms, constant, rng, tries):
        """The cheapest of a few trees, the price of its constant included."""
        first, best = len(self.nodes), None
        for n in range(tries if len(terms) > 2 else 1):
            term = self.tree(terms, rng if n else None)
            nodes = self.nodes[first:]
            cost = sum(node.cells for node in nodes) + self.price(term, constant, first)
            if best is None or cost < best[0]:
                best = cost, term, nodes, self.forms[first + self.inputs :]
            del self.nodes[first:], self.forms[first + self.inputs :]
        self.nodes += best[2]
        self.forms += best[3]
        return best[1]

    def gains(self, roots, first=0):
        """What one more at a value, those below node `first` left out, adds to each root: ints (values, roots)."""
        gains = np.zeros((len(self.forms), len(roots)), object)
        for r, root in enumerate(roots):
            if root is not None:
                gains[root, r] += 1
        for n in reversed(range(first, len(self.nodes))):
            node, gain = self.nodes[n], gains[self.inputs + n].copy()
            gains[node.a] += gain << node.a_shift
            gains[node.b] += (-gain if node.minus else gain) << node.b_shift
        return gains

    def lone(self, root, constant):
        """Cells of one more adder that adds a constant to a value; 0 for no constant."""
        return OVERHEAD + max(1, width(*self.span(self.forms[root])) - lowest(constant)) if constant else 0

    def price(self, term, constant, first):
        """Cells that a constant costs in one of the nodes from `first` on, or behind them."""
        root, shift, sign = term
        constant = (constant if sign > 0 else ~constant) >> shift
        cells = self.lone(root, constant)
        if constant:
            gains = self.gains([root], first)[self.inputs :, 0]
            for node, gain in zip(self.nodes[first:], gains[first:]):
                if constant % gain == 0 and (start := chain_start(node, constant // gain)) is not None:
                    cells = min(cells, node.start - start)
        return cells

    def offers(self, gains, left, taken):
        """Constants that fit a node and may help: (cells, node number, constant) and their effects, int64."""
        places, effects, most = [], [], 2 * max(map(abs, left))
        for n, (node, gain) in enumerate(zip(self.nodes, gains[self.inputs :])):
            shift = max(node.a_shift, node.b_shift)
            values = {sign << q for q in range(shift + 1) for sign in (1, -1)}
            for g, k in zip(gain, left):
                if g and k % g == 0:
                    values |= {k // g, k // g & (1 << shift) - 1}
            for value in values - {0} if n not in taken and gain.any() else ():
                if max(abs(gain * value)) <= most and (start := chain_start(node, value)) is not None:
                    places.append((node.start - start, n, value))
                    effects.append(gain * value)
        return places, np.array(effects, np.int64).reshape(-1, len(left))

    def place(self, terms, constants):
        """Terms plus constants as outputs: constants into nodes, one or two at a time, the rest into new adders."""
        outputs = [
            # constant - v is ~(v + ~constant)
            Output(None, 0, k, False)
            if v is None
            else Output(v, shift, (k if sign > 0 else ~k) % (1 << shift), sign < 0)
            for (v, shift, sign), k in zip(terms, constants)
        ]
        roots = [out.source for out in outputs]
        left = [
            0 if out.source is None else (~k if out.invert else k) >> out.shift for out, k in zip(outputs, constants)
        ]
        gains, taken = self.gains(roots), {}
        while any(left):
            places, effects = self.offers(gains, left, taken)
            lone = np.array([self.lone(root, k) for root, k in zip(roots, left)])
            cells = np.array([place[0] for place in places])
            rest = np.array(left) - effects
            costs = [cells + (rest != 0) @ lone]
            if len(places) <= OFFERS:
                both = cells[:, None] + cells + ((rest[:, None] - effects) != 0) @ lone
                numbers = np.array([place[1] for place in places])
                costs.append(np.where(numbers[:, None] == numbers, lone.sum() + 1, both).ravel())
            costs = np.concatenate(costs)
            if not places or costs.min() >= lone.sum():
                break
            best = int(costs.argmin())
            best = [best] if best < len(places) else divmod(best - len(places), len(places))
            taken |= {places[n][1]: places[n][2] for n in best}
            left = [int(k) for k in np.array(left) - effects[list(best)].sum(0)]
        for n, node in enumerate(self.nodes):
            self.nodes[n], self.forms[self.inputs + n] = self.node(
                node.a, node.a_shift, node.b, node.b_shift, node.minus, taken.get(n, 0)
            )
        for r, k in enumerate(left):
            if k:
                outputs[r] = replace(outputs[r], source=self.add(*self.node(None, 0, roots[r], 0, False, k)))
        return outputs


def _build(sums, shifts, constants, ranges, levels, rng, tries):
    """A builder with all sums in it, and the terms of the outputs."""
    builder, known = _Builder(ranges, levels), {n: (n, 0, 1) for n in range(len(ranges))}

    def resolve(row, shift=0, constant=0):
        terms = []
        for source, factor in row.items():
            if source not in known:
                known[source] = resolve(sums[source - len(ranges) + len(constants)])
            value, base, up = known[source]
            terms += [(value, shift + base + k, up * sign) for k, sign in signed_powers(factor)]
        return builder.cheapest(terms, constant, rng, tries) if terms else (None, 0, 1)

    return builder, [resolve(*output) for output in zip(sums, shifts, constants)]


@lru_cache(1 << 12)
def _solve(rows, constants, ranges, levels):
    matrix = np.array(rows, np.int64)
    # a shift of a whole row is free
    shifts = [lowest(int(bits)) if bits else 0 for bits in np.bitwise_or.reduce(matrix, 1)]
    matrix >>= np.array(shifts)[:, None]
    drafts = []
    for run in range(max(2, min(RUNS, DIGITS // max(1, int(signed_digits(matrix).sum()))))):
        sums = sums_of(matrix, np.random.default_rng(run) if run > 1 else None, run % 2)
        builder, _ = _build(sums, shifts, constants, ranges, levels, None, 1)
        drafts.append((sum(node.cells + OVERHEAD for node in builder.nodes), run, sums))
    graphs = []
    for _, run, sums in sorted(drafts)[:FINE]:
        builder, terms = _build(sums, shifts, constants, ranges, levels, np.random.default_rng(run), TREES)
        outputs = builder.place(terms, constants)
        graphs.append(Graph(ranges, levels, tuple(builder.nodes), tuple(outputs)))
    return min(graphs, key=lambda graph: graph.cost)


def solve(matrix, ranges, constants=None, levels=None):
    """A Graph of matrix @ x + constants.

    matrix: integers (outputs, inputs), sums below 2**61; ranges: (lo, hi) of each input; constants: (outputs,), 0 if
    None; levels: adder levels at which the inputs come, 0 if None. The same arguments give the same graph, and it is
    kept. Raises ValueError where the sizes do not fit.
    """
    matrix = np.asarray(matrix)
    outputs, inputs = matrix.shape
    constants = (0,) * outputs if constants is None else tuple(map(int, constants))
    levels = (0,) * inputs if levels is None else tuple(map(int, levels))
    ranges = tuple((int(lo), int(hi)) for lo, hi in ranges)
    if (len(constants), len(ranges), len(levels)) != (outputs, inputs, inputs):
        raise ValueError(f"{matrix.shape}, {len(ranges)} ranges, {len(constants)} constants, {len(levels)} levels")
    return _solve(tuple(map(tuple, matrix.tolist())), constants, ranges, levels)
