"""Graphs of adders: exact for all integers, exact ranges, and what they cost."""

import numpy as np
import pytest

from rtl_gen.engines.adders import Graph, chain_start, lowest, solve, width
from rtl_gen.engines.sharing import signed_digits, signed_powers, sums_of

SHAPES = [(1, 1), (1, 4), (4, 1), (2, 2), (3, 5), (5, 3), (4, 4), (8, 6), (16, 16)]


def ranges_of(rng, count):
    """Ranges of formats, and now and then of one sign or of one value."""
    kinds = [(-128, 127), (-8, 7), (-1, 0), (0, 15), (-7, -3), (5, 5)]
    return [kinds[n] for n in rng.choice(len(kinds), count, p=[0.6, 0.2, 0.05, 0.05, 0.05, 0.05])]


def vectors(rng, ranges, count=40):
    """Random integers of the ranges and all of their ends."""
    lo, hi = np.array(ranges).T
    return np.concatenate([rng.integers(lo, hi + 1, (count, len(lo))), [lo, hi]])


def check(matrix, ranges, constants, x, levels=None):
    """Outputs, values and ranges of a graph against the matrix product, in Python's integers."""
    graph = solve(matrix, ranges, constants, levels)
    wanted = x.astype(object) @ matrix.T.astype(object) + np.array(constants, object)
    assert (graph(x.astype(object)) == wanted).all()
    assert (graph(x) == wanted).all()
    # the forms of all values, from the graph alone
    forms = [(row, 0) for row in np.eye(len(ranges), dtype=object)]
    for node in graph.nodes:
        a, b = forms[node.a] if node.a is not None else (0 * forms[0][0], 0), forms[node.b]
        sign = -1 if node.minus else 1
        form = (a[0] << node.a_shift) + sign * (b[0] << node.b_shift)
        constant = (a[1] << node.a_shift) + sign * (b[1] << node.b_shift) + node.constant
        assert (node.lo, node.hi) == bounds(form, constant, ranges)
        assert width(node.lo, node.hi) == node.width and 0 <= node.start and min(node.a_shift, node.b_shift) == 0
        assert node.level == 1 + max(graph.level(n) for n in (node.a, node.b) if n is not None)
        forms.append((form, constant))
    for n, (row, constant) in enumerate(zip(matrix, constants)):
        assert graph.output_range(n) == bounds(row, constant, ranges)
        out = graph.outputs[n]
        assert 0 <= out.constant < 1 << out.shift or out.source is None
    return graph


def bounds(row, constant, ranges):
    ends = [sorted((int(f) * lo, int(f) * hi)) for f, (lo, hi) in zip(row, ranges)]
    return sum(lo for lo, _ in ends) + constant, sum(hi for _, hi in ends) + constant


@pytest.mark.parametrize(
    "shape, bits", [(s, b) for s in SHAPES for b in (2, 4, 8, 12) if s != (16, 16) or b in (2, 8)], ids=str
)
def test_any_matrix(shape, bits):
    seed = 100 * bits + sum(shape)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-(1 << bits - 1), 1 << bits - 1, shape)
    matrix[rng.random(shape) < 0.1] = 0
    ranges = ranges_of(rng, shape[1])
    constants = [int(k) for k in rng.choice([0, 1, 64, -1, -64, 37, 100_000, -12345], shape[0])]
    check(matrix, ranges, constants, vectors(rng, ranges))


@pytest.mark.parametrize(
    "matrix, adders",
    [
        ([[0]], 0),
        ([[0, 0], [0, 0]], 0),
        ([[1]], 0),
        ([[-4]], 1),
        ([[1, 0], [0, 8]], 0),
        ([[1, 1]], 1),
        ([[7]], 1),
        ([[-1, -1]], 2),
        ([[3, 5]], 3),
        ([[1, 1], [1, 1], [1, 1]], 1),
        ([[5, -3], [-5, 3], [10, -6]], 4),
        ([[1, 1, 1, 1], [1, 1, 1, 2]], 4),
        ([[1], [3], [6], [-12], [96]], 2),
        ([[105]], 2),
    ],
    ids=str,
)
def test_special_matrices(matrix, adders):
    matrix = np.array(matrix)
    ranges = [(-128, 127)] * matrix.shape[1]
    x = vectors(np.random.default_rng(0), ranges)
    assert len(check(matrix, ranges, [0] * len(matrix), x).nodes) <= adders
    check(matrix, ranges, list(range(-1, len(matrix) - 1)), x)
    check(matrix << 20, ranges, [1 << 19] * len(matrix), x)


def test_all_small_constants():
    """Every product by one constant plus every small constant."""
    x = np.arange(-8, 8)[:, None]
    for factor in range(-40, 41):
        for constant in (-1, 0, 1, 8):
            check(np.array([[factor]]), [(-8, 7)], [constant], x)


def test_levels():
    matrix = np.array([[3, 1, 1], [1, 5, 0]])
    graph = check(matrix, [(-8, 7)] * 3, [0, 0], vectors(np.random.default_rng(0), [(-8, 7)] * 3), levels=[0, 0, 3])
    assert graph.depth >= 4


def test_constants_find_a_place():
    """The rounding constant costs nothing below a shifted operand, and no adder in most blocks."""
    assert len(solve([[1, 128]], [(-128, 127)] * 2, [64]).nodes) == 1
    assert len(solve([[1, 64]], [(-128, 127)] * 2, [64]).nodes) == 1
    assert solve([[1, 64]], [(-128, 127)] * 2, [64]).cost == solve([[1, 64]], [(-128, 127)] * 2).cost
    assert len(solve([[64]], [(-128, 127)], [37]).nodes) == 0


def test_chain_start_is_the_lowest_bit_that_is_added():
    """Every start against the bits of all operands: below it the sum is `a` as it is, and at it a place for a carry."""
    for shift in range(5):
        for minus, a_shift, b_shift in ((False, 0, shift), (True, 0, shift), (True, shift, 0)):
            for constant in range(-35, 36, 3 if shift > 2 else 1):
                graph = solve([[1 << a_shift, (-1 if minus else 1) << b_shift]], [(-16, 15)] * 2, [constant])
                node = graph.nodes[0]
                start = chain_start(node.__class__(0, a_shift, 1, b_shift, minus, 0, 0, 0, 1), constant)
                if start is not None:
                    a = np.arange(-16, 16)[:, None] << a_shift
                    b = np.arange(-16, 16) << b_shift
                    total = (a - b if minus else a + b) + constant
                    assert not ((total ^ a) & (1 << start) - 1).any()


def test_signed_digits():
    n = np.concatenate([np.arange(-3000, 3000), [1 << 60, -(1 << 60), (1 << 60) - 1, 0x555555555555555]])
    for value, count in zip(n.tolist(), signed_digits(n)):
        powers = signed_powers(value)
        assert sum(sign << shift for shift, sign in powers) == value and len(powers) == count
        assert all(b - a > 1 for (a, _), (b, _) in zip(powers, powers[1:]))


@pytest.mark.parametrize("transposed", [False, True])
def test_sums_are_the_matrix(transposed):
    rng = np.random.default_rng(3)
    for seed in range(20):
        matrix = rng.integers(-128, 128, rng.integers(1, 6, 2))
        outputs, inputs = matrix.shape
        sums = sums_of(matrix, np.random.default_rng(seed), transposed)

        def row(source):
            if source < inputs:
                return np.eye(inputs, dtype=int)[source]
            return total(sums[source - inputs + outputs])

        def total(terms):
            return sum((f * row(source) for source, f in terms.items()), np.zeros(inputs, int))

        assert np.array_equal([total(terms) for terms in sums[:outputs]], matrix)


def test_lowest_and_width():
    assert [lowest(n) for n in (1, 2, 12, -8, -1)] == [0, 1, 2, 3, 0]
    ends = [(-1, 0), (0, 0), (-128, 127), (0, 128), (-129, 0), (-7, -3)]
    assert [width(lo, hi) for lo, hi in ends] == [1, 1, 8, 9, 9, 4]


def test_refused_and_kept():
    with pytest.raises(ValueError, match=r"\(2, 2\), 1 ranges"):
        solve([[1, 2], [3, 4]], [(-8, 7)])
    assert solve([[1, 2], [3, 4]], [(-8, 7)] * 2) is solve([[1, 2], [3, 4]], [(-8, 7)] * 2)
    assert isinstance(solve([[1, 2], [3, 4]], [(-8, 7)] * 2), Graph)


def test_cost_of_random_blocks():
    """The 48 blocks of n = 64, k = 4 in 8 bits, with the rounding constant: adders and their bits."""
    rng = np.random.default_rng(1)
    graphs = [solve(rng.integers(-128, 128, (4, 4)), [(-128, 127)] * 4, [64] * 4) for _ in range(48)]
    assert np.mean([len(graph.nodes) for graph in graphs]) < 26.8
    assert np.mean([graph.cost for graph in graphs]) < 400
