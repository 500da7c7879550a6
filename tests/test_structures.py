"""Chains by the names of the papers: exact padding, deformable chains of any size, and what each costs."""

import re
from itertools import product
from math import log2, prod
from pathlib import Path

import numpy as np
import pytest

from bfthw import Chain, Factor, chain, structures
from bfthw.chain import Indexed
from bfthw.structures import debut_chain, debut_rules, padded, paths, selected, ways

SHAPES = {
    "bft-64": chain.bft(64),
    "strides up": [(8, 2, 2, 1), (4, 2, 2, 2), (2, 2, 2, 4), (1, 2, 2, 8)],
    "mixed": chain.mixed_radix((4, 3, 2)),
    "bulging": [(1, 4, 2, 4), (4, 2, 4, 1)],
    "Monarch": chain.monarch(20, 12, 4),
    "grouped": chain.grouped(8, 12, 4),
    "cyclic": structures.csc(10, 3),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_selected_is_the_part_of_the_matrix(shape, inside, seed):
    rng, whole = np.random.default_rng(seed), Chain.random(shape, seed)
    rows, columns = (rng.permutation(n)[: rng.integers(1, n + 1)] for n in (whole.outputs, whole.inputs))
    part = selected(whole, columns, rows, inside=inside)
    np.testing.assert_allclose(part.dense(), whole.dense()[np.ix_(rows, columns)], rtol=0, atol=1e-15)
    assert selected(shape, columns, rows, inside=inside) == part.patterns
    assert inside is False or part.weights <= selected(whole, columns, rows).weights <= whole.weights
    # a weight that stands for no input is zero, and its input is another one of the output's
    for factor in part.factors:
        if factor.support is not None:
            for row, values in zip(factor.support.index, factor.values[:, 0, :, 0]):
                assert len(set(row[values != 0])) == (values != 0).sum() and set(row) <= {*row[values != 0], row[0]}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_inside_nothing_is_computed_in_vain(shape):
    whole = Chain.random(shape, 0)
    rng = np.random.default_rng(1)
    rows, columns = (rng.choice(n, 3, replace=False) for n in (whole.outputs, whole.inputs))
    part = selected(whole, columns, rows, inside=True)
    reached = np.ones((1, 3), bool)
    for before, after in zip(part.factors, part.factors[1:]):
        reached = reached @ (before.dense() != 0).T
        used = (after.dense() != 0).any(axis=0)
        alone = not part.dense().any()
        assert alone or (reached.all() and used.all())


def test_all_selected_is_the_same():
    assert selected(chain.bft(64)) == padded(chain.bft(64), 64, 64) == chain.bft(64)
    one = padded(chain.bft(64), 58, 50)
    assert [isinstance(p, Indexed) for p in one] == [True, False, True]
    assert [p.weights for p in one] == [256, 256, 200]
    # an input that stands twice, for a zero that is left out, is a path more
    assert paths(one) == (1, 2)


def all_ones(shape):
    return Chain(Factor(np.ones(tuple(p)), chain.support(p)) for p in chain.patterns(shape)).dense()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_paths_are_counted(shape):
    matrix = all_ones(shape)
    assert paths(shape) == (matrix.min(), matrix.max())


# deformable


@pytest.mark.parametrize("seed", range(30))
def test_the_three_rules_mean_one_path(seed):
    rng = np.random.default_rng(seed)
    r, s = (rng.choice([1, 2, 2, 3, 4, 5], 4) for _ in range(2))
    t = np.cumprod([1, *r[:-1]])
    factors = [tuple(map(int, f)) for f in zip(r, s, t)]
    shape = chain.debut(*factors, inputs=int(prod(s)))
    assert debut_rules(shape) == (True, True, True) and debut_rules(shape).one_path
    assert paths(shape) == (1, 1) and (all_ones(shape) == 1).all()


def test_rules_that_do_not_hold():
    wrong = chain.debut((2, 2, 1), (2, 2, 1), inputs=4)  # the second stride is 1 again: 2 paths or none
    assert debut_rules(wrong) == (False, True, True) and paths(wrong) == (0, 2)
    few = chain.debut((2, 2, 1), inputs=4)
    assert debut_rules(few) == (True, False, False) and paths(few) == (0, 1)
    two = chain.debut((4, 4, 1), (2, 2, 2), inputs=4)
    assert debut_rules(two) == (False, False, False) and paths(two) == (2, 2)
    wide = chain.debut((2, 2, 2), inputs=4)
    assert debut_rules(wide) == (False, False, False) and paths(wide) == (0, 1)
    bft = chain.bft(16)  # the same graph with the largest stride first
    assert debut_rules(bft) == (False, True, True) and paths(bft) == (1, 1)
    with pytest.raises(ValueError, match="factors do not chain"):
        debut_rules([(1, 2, 2, 1), (1, 2, 4, 1)])


def sizes(shape):
    return [shape[0].inputs, *(p.outputs for p in shape)]


def check(shape, outputs, inputs, kind, bulge=4 / 3):
    assert debut_rules(shape).one_path and (shape[0].inputs, shape[-1].outputs) == (inputs, outputs)
    size, most = sizes(shape), max(inputs, outputs)
    if kind == "monotonic":
        assert size == sorted(size, reverse=outputs < inputs), size
        assert sum(p.weights for p in shape) <= inputs * outputs
    else:
        assert size[1] == max(size) >= bulge * most and size[1] > most and size[1:] == sorted(size[1:], reverse=True)


NAMED = [
    (512, 4608),
    (256, 2304),
    (10, 512),
    (58, 58),
    (1, 58),
    (58, 1),
    (1, 1),
    (7, 11),
    (997, 991),
    (997, 1024),
    (464, 1024),
]


@pytest.mark.parametrize("outputs, inputs", NAMED, ids=str)
def test_any_size_has_a_chain(outputs, inputs):
    check(debut_chain(outputs, inputs), outputs, inputs, "monotonic")
    if min(outputs, inputs) > 1:
        check(debut_chain(outputs, inputs, "bulging"), outputs, inputs, "bulging")
    else:
        with pytest.raises(ValueError, match=f"no bulging chain {inputs} -> {outputs}: the size can grow to 1 times"):
            debut_chain(outputs, inputs, "bulging")
    assert paths(debut_chain(outputs, inputs)) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_sizes_have_a_chain(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        outputs, inputs = (int(2 ** rng.uniform(1, 12.3)) for _ in range(2))
        inputs *= int(rng.choice([1, 9]))
        for kind in ("monotonic", "bulging"):
            shape = debut_chain(outputs, inputs, kind)
            check(shape, outputs, inputs, kind)
            if inputs * outputs < 20_000 and inputs < 500:
                assert (all_ones(shape) == 1).all()
        shrink = rng.choice([1.5, 2, 3, 8])
        try:
            shape = debut_chain(outputs, inputs, shrink=shrink)
        except ValueError as error:
            least = float(eval(str(error).split("shrink = ")[1].split(" is")[0]))
            assert least > shrink, error
            debut_chain(outputs, inputs, shrink=least * (1 + 1e-9))
        else:
            check(shape, outputs, inputs, "monotonic")
            assert all(max(p.b / p.c, p.c / p.b) <= shrink for p in shape)


def orders(n):
    """All ways to write n as a product of factors of 2 or more, in order."""
    return [()] * (n == 1) + [(d, *rest) for d in range(2, n + 1) if n % d == 0 for rest in orders(n // d)]


@pytest.mark.parametrize("outputs, inputs", [(8, 12), (12, 8), (6, 36), (12, 12), (7, 12)])
def test_the_chain_is_the_cheapest(outputs, inputs):
    """Against all chains there are, where the paddings with 1 of both lists of radices are counted too."""
    best = {"monotonic": np.inf, "bulging": np.inf}
    length = max(map(len, orders(inputs))) + max(map(len, orders(outputs)))
    for count in range(1, length + 1):
        every = {
            n: {
                tuple(np.insert(np.ones(count - len(o), int), [min(p, count - len(o)) for p in place], o))
                for o in orders(n)
                if len(o) <= count
                for place in product(range(count - len(o) + 1), repeat=len(o))
                if list(place) == sorted(place)
            }
            for n in (outputs, inputs)
        }
        for r, s in product(every[outputs], every[inputs]):
            if (1, 1) in zip(r, s):
                continue
            shape = chain.debut(*(map(int, f) for f in zip(r, s, np.cumprod([1, *r[:-1]]))), inputs=inputs)
            for kind in best:
                try:
                    check(shape, outputs, inputs, kind)
                except AssertionError:
                    continue
                best[kind] = min(best[kind], sum(p.weights for p in shape))
    for kind, weights in best.items():
        assert sum(p.weights for p in debut_chain(outputs, inputs, kind)) == weights


def test_published_beginnings():
    """3x3 kernels: (8, 9, 1), and (8, 6, 1), (2, 6, 8), as the authors' generator begins."""
    shape = debut_chain(512, 4608, shrink=2, start=[(8, 9)])
    assert shape[0] == (512, 8, 9, 1) and debut_rules(shape).one_path and max(sizes(shape)[1:]) <= 4608
    shape = debut_chain(512, 4608, start=[(8, 6), (2, 6)])
    assert shape[:2] == ((768, 8, 6, 1), (128, 2, 6, 8)) and debut_rules(shape).one_path
    assert debut_chain(8, 9, start=[(8, 9)]) == ((1, 8, 9, 1),)


# the papers' layers


@pytest.mark.parametrize("outputs, inputs, blocks", [(58, 116, 4), (116, 58, 4), (58, 58, 7), (3, 50, 7), (10, 16, 2)])
def test_monarch_of_any_size(outputs, inputs, blocks):
    shape = structures.padded_monarch(outputs, inputs, blocks)
    assert (shape[0].inputs, shape[-1].outputs) == (inputs, outputs)
    assert (paths(shape)[0] > 0) == (-(-min(inputs, outputs) // blocks) >= blocks)  # as many rows a block as blocks
    up = [-(-n // blocks) * blocks for n in (outputs, inputs)]
    assert sum(p.weights for p in shape) <= sum(p.weights for p in chain.monarch(*up, blocks))


def hadamard(n):
    return np.ones((1, 1)) if n == 1 else np.kron([[1, 1], [1, -1]], hadamard(n // 2))


@pytest.mark.parametrize("outputs, inputs, k1, k2", [(16, 64, 5, 3), (58, 100, None, None), (1, 3, 4, 1)])
def test_fixed_butterfly_is_the_papers_product(outputs, inputs, k1, k2):
    """J2^T core J1 with J = sqrt(n/k) (k rows of H / sqrt(n)) D, D signs, cut to the sizes: section 4 of the paper."""
    whole = structures.fixed_butterfly(outputs, inputs, k1, k2, seed=3)
    n1, n2 = (structures.next_power(n) for n in (inputs, outputs))
    k1, k2 = k1 or int(log2(n1)), k2 or int(log2(n2))
    middle = next(m for m, f in enumerate(whole.factors) if m >= log2(n1) and f.pattern == (1, k2, k1, 1))
    first, core, last = Chain(whole.factors[:middle]), whole.factors[middle], Chain(whole.factors[middle + 1 :])
    assert np.abs(core.values).max() <= k1**-0.5
    for matrix, n, k in ((first.dense(), n1, k1), (last.dense().T, n2, k2)):
        assert matrix.shape[0] == k
        np.testing.assert_allclose(np.abs(matrix), k**-0.5)
        signs = np.sign(matrix)
        rows = hadamard(n)[:, : matrix.shape[1]]
        # without the signs of the first row, which hold those of D, each row is a row of H
        assert all((rows * rows[[0]] == signs[m] * signs[0]).all(axis=1).any() for m in range(k))
        # and D there is: a row with it is none of H (of 16 columns and more, not by chance)
        assert matrix.shape[1] < 16 or not (rows == signs[0]).all(axis=1).any()
        if matrix.shape[1] == n:
            np.testing.assert_allclose(matrix @ matrix.T, n / k * np.eye(k), atol=1e-12)
    for part, n, k in ((first, n1, k1), (last, n2, k2)):
        assert part.weights <= 2 * n * log2(k) + 6 * n  # the bound of section 4.1
    other = structures.fixed_butterfly(outputs, inputs, k1, k2, seed=4)
    again = structures.fixed_butterfly(outputs, inputs, k1, k2, seed=3)
    assert np.array_equal(again.dense(), whole.dense()) and not np.array_equal(other.dense(), whole.dense())


@pytest.mark.parametrize(
    "n, fan, stages, exact", [(9, 3, 2, True), (10, 4, 2, False), (58, 4, 3, False), (64, 4, 3, True)]
)
def test_cyclic_support_layers(n, fan, stages, exact):
    shape = structures.csc(n, fan)
    assert len(shape) == stages and sum(p.weights for p in shape) == n * fan * stages
    assert paths(shape) == (1, 1) if exact else paths(shape)[0] == 1
    x = np.random.default_rng(0).normal(size=n)
    built = Chain.random(shape, 1)
    wanted = x
    for l, factor in enumerate(built.factors):
        w = factor.values[:, 0, :, 0]
        wanted = [sum(w[j, f] * wanted[(j + f * fan**l) % n] for f in range(fan)) for j in range(n)]
    np.testing.assert_allclose(built(x[None])[0], wanted, atol=1e-12)


@pytest.mark.parametrize(
    "inputs, outputs, base", [(24, None, 4), (58, None, 4), (116, 58, 2), (58, 232, 8), (1, None, 4), (29, 1, 4)]
)
def test_ways_are_what_they_say(inputs, outputs, base):
    found = ways(inputs, outputs, base)
    outputs = outputs or inputs
    assert [w.weights for w in found] == sorted(w.weights for w in found) and f"dense({outputs}, {inputs})" in [
        w.code for w in found
    ]
    for way in found:
        assert eval(way.code, vars(structures)) == way.patterns
        assert (way.patterns[0].inputs, way.patterns[-1].outputs) == (inputs, outputs) and paths(way.patterns)[0] == 1


def test_ways_of_shufflenet():
    assert {w.code: w.weights for w in ways(58)} == {
        "padded(mixed_radix((4, 4, 4)), 58, 58)": 744,
        "mixed_radix((29, 2))": 1798,
        "debut_chain(58, 58)": 1798,
        "dense(58, 58)": 3364,
    }


# the inverse

SQUARE = {
    "bft": chain.bft(64),
    "mixed": chain.mixed_radix((4, 3, 2)),
    "dense": chain.dense(7, 7),
    "grouped": [(3, 4, 4, 2)],
}


@pytest.mark.parametrize("shape", SQUARE.values(), ids=SQUARE)
def test_inverse(shape):
    rng = np.random.default_rng(0)
    # blocks near the identity, so that the tolerance can be tight
    one = Chain(Factor(np.eye(b)[None, :, :, None] + 0.2 * rng.normal(size=(a, b, c, d))) for a, b, c, d in shape)
    inverse = one.inverse()
    assert inverse.patterns == one.patterns[::-1]
    np.testing.assert_allclose(inverse.dense() @ one.dense(), np.eye(one.inputs), atol=1e-10)
    np.testing.assert_allclose(inverse.dense(), np.linalg.inv(one.dense()), atol=1e-9)


def singular():
    one = Chain.random(chain.bft(16, 2), 0)
    one.factors[2].values[3, :, :, 1] = [[1, 2], [2, 4]]
    return one


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: singular().inverse(), r"block \(i, l\) = \(3, 1\) of factor 2, \(4, 2, 2, 2\), is singular"),
        (lambda: Chain.random(chain.monarch(8, 4, 2), 0).inverse(), r"factor 1, \(1, 4, 2, 2\), has no square blocks"),
        (lambda: Chain.random(structures.csc(9, 3), 0).inverse(), "factor 1, .* has no square blocks"),
        (lambda: padded(chain.bft(16), 17, 16), "padded: inputs must be 1 to 16, those of the chain, got 17"),
        (lambda: padded(chain.bft(16), 16, 0), "padded: outputs must be 1 to 16"),
        (lambda: selected(chain.bft(16), [0, 0]), "inputs must be distinct positions from 0 to 15"),
        (lambda: selected(chain.bft(16), [0], [16]), "outputs must be distinct positions from 0 to 15"),
        (lambda: selected(chain.bft(16), []), "inputs must be distinct positions"),
        (
            lambda: debut_chain(1, 58, shrink=2),
            "58 -> 1 whose factors .* 2 times at most: shrink = 29 is the least that does",
        ),
        (lambda: debut_chain(2, 3, "bulging", bulge=3), "the size can grow to 2 times the larger at most, bulge = 3"),
        (lambda: debut_chain(8, 9, start=[(3, 9)]), r"start \(3, 9\): r must divide the 8 that is left of 8 outputs"),
        (lambda: debut_chain(8, 9, "round"), "kind must be monotonic or bulging, got 'round'"),
        (lambda: debut_chain(0, 9), "outputs must be a positive integer, got 0"),
        (lambda: structures.fixed_butterfly(8, 8, k1=9), "k1 must be 1 to 8, the next power of two of 8, got 9"),
        (lambda: structures.csc(1, 3), "csc needs n and fan of 2 or more, got n = 1"),
        (lambda: ways(58, base=1), "base must be 2 or more, got 1"),
    ],
)
def test_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


# the document

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "layers.md").read_text()


def test_costs_of_the_document():
    _, table = DOCUMENT.split("| n | | ")
    sizes, rows = table.split("\n", 1)
    rows = re.findall(r"^\| [^|]* \| `(.*?)` \| ([\d |]*) \|$", rows, re.MULTILINE)
    sizes = [int(n) for n in sizes.strip(" |").split(" | ")]
    assert len(rows) == 10 and len(sizes) == 5
    for code, numbers in rows:
        for n, wanted in zip(sizes, numbers.split(" | "), strict=True):
            assert sum(p.weights for p in eval(code, vars(chain) | vars(structures), {"n": n})) == int(wanted), (
                code,
                n,
            )


def test_layers_of_the_document():
    torch = pytest.importorskip("torch")
    from bfthw import nn

    made = re.findall(r"`((?:torch\.)?nn\.\w+\(.*?\))`", DOCUMENT.split("## What")[0])
    codes = [code for code in made if "..." not in code and "(layer)" not in code and "(n, m)" not in code]
    assert len(codes) == 15
    for code in codes:
        layer = eval(code, {"nn": nn, "torch": torch, "chain": chain, "structures": structures})
        n = layer.in_features if isinstance(layer, torch.nn.Linear) else layer.inputs
        assert nn.to_network(layer).inputs == n and layer(torch.zeros(2, n)).ndim == 2
