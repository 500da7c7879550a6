"""Factors, chains and the patterns of the known butterflies."""

from math import prod

import numpy as np
import pytest

from bfthw import Chain, Factor, Pattern, chain


def dense_from_blocks(factor):
    """The matrix of a factor, entry by entry from its definition."""
    a, b, c, d = factor.values.shape
    matrix = np.zeros((a * b * d, a * c * d))
    for i, j, k, l in np.ndindex(a, b, c, d):
        matrix[(i * b + j) * d + l, (i * c + k) * d + l] = factor.values[i, j, k, l]
    return matrix


def paper_matrix(values, radices):
    """B^(n,k) = [M_i D_ij], D_ij diagonal (n/k), M_i the same again of size n/k: CVPR 2020, section 3.1, recursively.

    values: those of the factors, of which each M_i takes its own share (the i-th of the k parts of the first axis).
    """
    if not radices:
        return np.eye(1)
    k, n = radices[0], prod(radices)
    first, rest = values[0], values[1:]
    assert first.shape == (1, k, k, n // k)
    rows = []
    for i in range(k):
        share = [v[i * len(v) // k : (i + 1) * len(v) // k] for v in rest]
        m_i = paper_matrix(share, radices[1:])
        rows.append(np.hstack([m_i @ np.diag(first[0, i, j]) for j in range(k)]))
    return np.vstack(rows)


@pytest.mark.parametrize(
    "radices",
    [(2,), (2, 2), (2, 2, 2), (4, 4), (4, 4, 4), (3, 3), (8, 8), (4, 4, 2), (2, 4, 4), (2, 29), (4, 3, 2), (5, 2, 3)],
    ids=str,
)
def test_butterfly_is_the_papers_matrix(radices):
    butterfly = Chain.random(chain.mixed_radix(radices), seed=3)
    wanted = paper_matrix([f.values for f in butterfly.factors], radices)
    np.testing.assert_allclose(butterfly.dense(), wanted, rtol=1e-12, atol=1e-15)
    assert np.all(wanted != 0)  # one path from each input to each output


@pytest.mark.parametrize("n, base, stages", [(2, 2, 1), (16, 4, 2), (64, 4, 3), (256, 4, 4), (81, 3, 4), (64, 2, 6)])
def test_bft(n, base, stages):
    shape = chain.bft(n, base)
    assert shape == tuple((base**m, base, base, n // base ** (m + 1)) for m in range(stages))
    assert sum(p.weights for p in shape) == n * base * stages  # T(n, k) of the paper


@pytest.mark.parametrize("pattern", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 5, 2, 3), (3, 1, 4, 1), (4, 4, 4, 1)], ids=str)
def test_factor_is_its_definition(pattern):
    factor = Chain.random([pattern], seed=1).factors[0]
    assert factor.pattern == Pattern(*pattern)
    assert np.array_equal(factor.dense(), dense_from_blocks(factor))
    x = np.random.default_rng(2).normal(size=(7, factor.pattern.inputs))
    np.testing.assert_allclose(factor(x), x @ dense_from_blocks(factor).T, atol=1e-12)


CONSTRUCTED = {
    "mixed_radix": (chain.mixed_radix((4, 3, 2)), 24, 24, [(1, 4, 4, 6), (4, 3, 3, 2), (12, 2, 2, 1)]),
    "debut": (chain.debut((2, 4, 1), (4, 2, 2), inputs=16), 16, 16, [(4, 2, 4, 1), (2, 4, 2, 2)]),
    "monarch": (chain.monarch(12, 16, 4), 16, 12, [(4, 3, 4, 1), (1, 3, 3, 4)]),
    "monarch-wider": (chain.monarch(16, 8, 2), 8, 16, [(2, 4, 4, 1), (1, 8, 4, 2)]),
    "low_rank": (chain.low_rank(5, 7, 2), 7, 5, [(1, 2, 7, 1), (1, 5, 2, 1)]),
    "dense": (chain.dense(5, 7), 7, 5, [(1, 5, 7, 1)]),
    "grouped": (chain.grouped(6, 8, 2), 8, 6, [(2, 3, 4, 1)]),
}


@pytest.mark.parametrize("shape, inputs, outputs, wanted", CONSTRUCTED.values(), ids=CONSTRUCTED)
def test_constructors(shape, inputs, outputs, wanted):
    assert list(shape) == wanted
    built = Chain.random(shape, seed=0)
    assert (built.inputs, built.outputs, built.dense().shape) == (inputs, outputs, (outputs, inputs))
    assert built.weights == sum(prod(p) for p in wanted) == sum(f.values.size for f in built.factors)
    product = np.eye(inputs)
    for factor in built.factors:
        product = dense_from_blocks(factor) @ product
    np.testing.assert_allclose(built.dense(), product, atol=1e-12)


def test_monarch_is_two_block_diagonals_and_a_permutation():
    # Dao et al.: y = P^T R P L x with P the transposition of a (blocks, width) array
    built = Chain.random(chain.monarch(16, 16, 4), seed=5)
    left, right = built.factors[0].values, built.factors[1].values
    x = np.random.default_rng(6).normal(size=16)
    middle = np.stack([left[i, :, :, 0] @ x.reshape(4, 4)[i] for i in range(4)])
    wanted = np.stack([right[0, :, :, l] @ middle.reshape(4, 4)[:, l] for l in range(4)], axis=1).ravel()
    np.testing.assert_allclose(built(x[None])[0], wanted, atol=1e-12)


@pytest.mark.parametrize("n, base, radices", [(64, 4, (4, 4, 4)), (128, 4, (4, 4, 4, 2)), (58, 4, (29, 2)), (1, 4, ())])
def test_factorise(n, base, radices):
    assert chain.factorise(n, base) == radices
    assert prod(radices) == n


def test_start_of_training():
    # one factor, L = 1: Xavier's own range
    assert chain.initial_range(chain.dense(2, 4)) == pytest.approx(1.0)
    shape = chain.bft(64, 4)
    y = chain.initial_range(shape)
    assert all(np.abs(f.values).max() <= y for f in Chain.random(shape, seed=0).factors)
    # the mean size of an entry of the product is that of Xavier's uniform(-x, x), x / 2
    sizes = [np.abs(Chain.random(shape, seed).dense()).mean() for seed in range(20)]
    assert np.mean(sizes) == pytest.approx(np.sqrt(6 / 128) / 2, rel=0.03)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: chain.patterns([]), "at least one factor"),
        (lambda: chain.patterns([(1, 2, 2)]), r"pattern 0 must be four positive integers .*got \(1, 2, 2\)"),
        (lambda: chain.patterns([(1, 2, 2, 0)]), "pattern 0 must be four positive integers"),
        (lambda: chain.patterns([(1, 2, 2, 1), (1, 2, 3, 1)]), r"factor 0 \(1, 2, 2, 1\) gives 2 values.* takes 3"),
        (lambda: chain.bft(32, 4), r"32 is no power of base 4: .*mixed_radix\(\(4, 4, 2\)\)"),
        (lambda: chain.bft(1, 4), "n and base of 2 or more, got n = 1"),
        (lambda: chain.factorise(0, 4), "factorise: n must be a positive integer, got 0"),
        (lambda: chain.mixed_radix(()), "radices must be integers of 2 or more"),
        (lambda: chain.mixed_radix((4, 1)), "radices must be integers of 2 or more"),
        (lambda: chain.debut((2, 3, 1), inputs=16), r"debut: factor \(2, 3, 1\) .*not 16"),
        (lambda: chain.debut((2, 0, 1), inputs=16), "debut: s must be a positive integer, got 0"),
        (lambda: chain.monarch(16, 15, 4), "blocks to divide"),
        (lambda: chain.monarch(16, 16, 0), "monarch: blocks must be a positive integer, got 0"),
        (lambda: chain.grouped(6, 8, 4), "groups must divide"),
        (lambda: chain.grouped(6, 8, 0), "grouped: groups must be a positive integer, got 0"),
        (lambda: chain.low_rank(6, 8, 0), "four positive integers"),
        (lambda: Factor(np.zeros((2, 2))), r"Factor.values must have shape \(a, b, c, d\), got \(2, 2\)"),
        (lambda: Factor(np.zeros((1, 0, 1, 1))), "Factor.values must have shape"),
        (lambda: Factor(np.full((1, 1, 1, 1), np.nan)), "finite"),
        (lambda: Chain([Factor(np.ones((1, 2, 2, 1))), Factor(np.ones((1, 2, 3, 1)))]), "do not chain"),
        (lambda: Chain.random(chain.bft(16), 0)(np.zeros((2, 8))), r"vectors must have shape \(N, 16\), got \(2, 8\)"),
        (lambda: Chain.random(chain.bft(16), 0)(np.zeros(16)), r"vectors must have shape \(N, 16\), got \(16,\)"),
    ],
)
def test_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    "values", [np.ones((1, 1, 1, 1), complex), np.ones((1, 1, 1, 1), bool)], ids=["complex", "bool"]
)
def test_factors_are_real(values):
    with pytest.raises(TypeError, match="real numbers, got dtype"):
        Factor(values)


def test_integers_stay_exact():
    big = np.full((1, 1, 2, 1), 2**29 + 1, np.int64)
    assert chain.apply(big, np.full((1, 2), 2**30 + 1, np.int64)).tolist() == [[2 * (2**29 + 1) * (2**30 + 1)]]


@pytest.mark.parametrize("name", ["0", "a.b.c", "block_3.Conv", "x" * 200])
def test_names(name):
    assert chain.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "a/b",
        "../x",
        "/x",
        "a\\b",
        "a b",
        "a\n",
        "é",
        "a\0",
        "C:",
        "x" * 201,
        3,
        None,
    ],
)
def test_no_name_is_a_path(name):
    with pytest.raises(ValueError, match="a layer's name must be words"):
        chain.check_name(name)
