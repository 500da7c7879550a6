"""From dense to chains: exact where one is there, optimal where a formula says so, monotone, refused elsewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("lazylinop") is None:
    pytest.skip("needs lazylinop", allow_module_level=True)

from bfthw import Chain, Factor, Layer, chain, structures  # noqa: E402
from bfthw import project as projection  # noqa: E402
from bfthw.chain import Indexed  # noqa: E402
from bfthw.project import named, project, project_layer, suggestions  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("recursion_limit")


def cyclic(n, fan, stride):
    return Indexed((np.arange(n)[:, None] + stride * np.arange(fan)) % n, n)


CHAINABLE = {
    "base 2": chain.bft(16, 2),
    "base 4": chain.bft(64, 4),
    "base 2, other order": chain.bft(16, 2)[::-1],
    "mixed radix": chain.mixed_radix((3, 4, 2)),
    "monarch": chain.monarch(16, 16, 4),
    "monarch, wide": chain.monarch(8, 24, 2),
    "monarch, tall": chain.monarch(24, 8, 2),
    "debut": chain.debut((4, 4, 1), (2, 3, 4), (3, 2, 8), inputs=24),
    "debut, bulging": chain.debut((4, 2, 1), (2, 4, 4), (1, 2, 8), inputs=16),
    "low rank": chain.low_rank(12, 10, 3),
    "more rank than there is": chain.low_rank(4, 6, 5),
}
OTHER = {
    "monarch, blocks do not align": chain.monarch(12, 16, 4),
    "grouped": chain.debut((2, 4, 1), (4, 2, 2), inputs=16),
    "cyclic": chain.patterns([cyclic(9, 3, 1), cyclic(9, 3, 3)]),
    "one input twice": chain.patterns([Indexed([[0, 0], [1, 0]], 2)]),
    "padded": chain.patterns(
        [Indexed(np.arange(8)[:, None] % 6, 6), *chain.bft(8, 2), Indexed(np.arange(6)[:, None], 8)]
    ),
}


def cases(table):
    return pytest.mark.parametrize("shape", table.values(), ids=table.keys())


def gap(built, matrix):
    return np.linalg.norm(built.dense() - matrix) / np.linalg.norm(matrix)


@cases(CHAINABLE)
@pytest.mark.parametrize("method", ["svd", "als", "auto"])
def test_finds_a_chain_again(shape, method):
    matrix = Chain.random(shape, seed=3).dense()
    found, error = project(matrix, shape, method=method)
    assert found.patterns == shape
    assert error < 1e-12 and gap(found, matrix) < 1e-12


@cases(OTHER)
def test_finds_other_chains_again(shape):
    matrix = Chain.random(shape, seed=4).dense()
    # padded chains have many equal forms, among which least squares come near slowly, and starts that lead elsewhere
    found, error = min((project(matrix, shape, seed=seed) for seed in range(3)), key=lambda result: result[1])
    assert found.patterns == shape
    limit = 1e-3 if shape == OTHER["padded"] else 1e-12
    assert error < limit and gap(found, matrix) < limit
    with pytest.raises(ValueError, match="not chainable; method='als'"):
        project(matrix, shape, method="svd")


@cases(CHAINABLE | OTHER)
def test_chainable_as_the_library_has_it(shape):
    from lazylinop import butterfly
    from lazylinop.butterfly import GB_utils

    def theirs(left):
        try:
            left = butterfly.Chain([tuple(p) for p in left])
            return left.chainability and GB_utils.compatible_chain_gb_params(left.abcdpq)
        except ZeroDivisionError:
            return False

    expected = not any(isinstance(p, Indexed) for p in shape) and (
        theirs(shape[::-1]) or theirs([(p.a, p.c, p.b, p.d) for p in shape])
    )
    assert (projection.chainable(shape) is not None) == expected == (shape in CHAINABLE.values())


@pytest.mark.parametrize("n, k, error", [(64, 4, 0.855), (64, 8, 0.785), (256, 4, 0.954), (1024, 4, 0.987)])
def test_random_matrices_lose_most_of_their_energy(n, k, error):
    matrix = np.random.default_rng(n).normal(size=(n, n))
    found, reported = project(matrix, chain.bft(n, k), sweeps=0)
    assert reported == pytest.approx(error, abs=0.01) and reported == pytest.approx(gap(found, matrix), rel=1e-12)
    sizes = [np.mean(f.values**2) for f in found.factors]
    assert np.allclose(sizes, sizes[0])


@pytest.mark.parametrize("outputs, inputs, blocks", [(16, 16, 4), (8, 24, 2), (24, 8, 2), (36, 36, 6)])
def test_two_factors_are_the_optimum(outputs, inputs, blocks):
    """A Monarch matrix consists of blocks of rank q/k: what is lost are the other singular values of each."""
    shape = chain.monarch(outputs, inputs, blocks)
    matrix = np.random.default_rng(5).normal(size=(outputs, inputs))
    rank, lost = shape[0].b // blocks, 0.0
    for i in range(blocks):
        for m in range(blocks):
            # outputs m, m + k, ... see the inputs of block i through q/k of its middle values
            piece = matrix[m::blocks, i * (inputs // blocks) : (i + 1) * (inputs // blocks)]
            lost += np.sum(np.linalg.svd(piece, compute_uv=False)[rank:] ** 2)
    optimum = np.sqrt(lost) / np.linalg.norm(matrix)
    assert project(matrix, shape)[1] == pytest.approx(optimum, rel=1e-10)
    fitted = project(matrix, shape, method="als", sweeps=300)[1]
    assert optimum - 1e-12 <= fitted < optimum + 0.03


@cases({"bft": chain.bft(64, 4), "there and back": chain.bft(16, 4) + chain.bft(16, 4)[::-1]} | OTHER)
@pytest.mark.parametrize("with_inputs", [False, True])
def test_least_squares_never_gets_worse(shape, with_inputs):
    rng = np.random.default_rng(6)
    n, m = shape[0].inputs, shape[-1].outputs
    matrix = rng.normal(size=(m, n))
    x = rng.normal(size=(40, 3)) @ rng.normal(size=(3, n)) + 0.1 * rng.normal(size=(40, n))
    metric = projection._metric(x) if with_inputs else None

    def error(values):
        built = Chain(Factor(v, chain.support(p)) for v, p in zip(values, shape))
        return projection.relative_error(matrix, built.dense(), metric)

    values = projection._random(matrix, shape, 7)
    errors = [error(values), *map(error, projection._improve(matrix, shape, values, 6, metric))]
    assert len(errors) > len(shape) and errors[-1] < errors[0]
    assert all(after <= before * (1 + 1e-12) for before, after in zip(errors, errors[1:]))
    # and each is the least: no other values of the first factor, the last one fitted, do better
    *_, values = projection._improve(matrix, shape, values, 1, metric)
    best = error(values)
    for _ in range(5):
        assert error([values[0] + 1e-3 * rng.normal(size=values[0].shape), *values[1:]]) > best * (1 - 1e-12)


def test_one_factor_is_solved_exactly():
    """The least squares of a factor against numpy's, on all its values at once."""
    rng = np.random.default_rng(8)
    for pattern in (chain.Pattern(2, 3, 2, 2), chain.Pattern(1, 4, 3, 1), cyclic(6, 2, 4)):
        after, before = rng.normal(size=(7, pattern.outputs)), rng.normal(size=(pattern.inputs, 9))
        target = rng.normal(size=(7, 9))

        def product(values):
            return after @ Factor(values, chain.support(pattern)).dense() @ before

        units = np.eye(pattern.weights).reshape(-1, *pattern)
        design = np.stack([product(unit).ravel() for unit in units], axis=1)
        expected = np.linalg.lstsq(design, target.ravel(), rcond=None)[0].reshape(pattern)
        start = rng.normal(size=tuple(pattern))
        assert np.allclose(projection._least_squares(pattern, start, after, before, target), expected)


def test_refinement_after_the_svd():
    matrix = np.random.default_rng(9).normal(size=(64, 64))
    plain, refined = (project(matrix, chain.bft(64, 4), sweeps=sweeps)[1] for sweeps in (0, 50))
    assert refined < plain - 0.01


def test_inputs_that_matter():
    """Outputs on vectors of few directions are kept far better than by the nearest weights; the error is theirs."""
    rng = np.random.default_rng(10)
    matrix, x = rng.normal(size=(64, 64)), rng.uniform(size=(300, 4)) @ rng.normal(size=(4, 64))
    shape = chain.bft(64, 4)
    # the ridge keeps what the inputs do not show near the matrix, and gives up some of what they do
    for inputs, ridge, rest in ((x, 0, 1e-3), (x, None, 0.01), (x + 0.1 * rng.normal(size=x.shape), None, 0.3)):
        found, error = project(matrix, shape, inputs=inputs, **({} if ridge is None else {"ridge": ridge}))
        blind, _ = project(matrix, shape)
        measured, nearest = (
            np.linalg.norm(inputs @ (matrix - c.dense()).T) / np.linalg.norm(inputs @ matrix.T) for c in (found, blind)
        )
        assert error == pytest.approx(measured, rel=1e-6, abs=1e-9)
        assert measured < rest < nearest


def test_few_rows_lead_no_further_than_they_show():
    """20 rows of 64 inputs: without a ridge the outputs on others are wrong by more than themselves, weights grow."""
    rng = np.random.default_rng(0)
    matrix, mixed = rng.normal(size=(64, 64)) / 8, rng.normal(size=(64, 64)) / 8
    few, other = np.maximum(rng.normal(size=(20, 64)) @ mixed, 0), np.maximum(rng.normal(size=(500, 64)) @ mixed, 0)
    layer, found = Layer(chain=Chain([Factor(matrix[None, :, :, None])])), {}
    for ridge in (0, projection.RIDGE):
        new, fitted = project_layer(layer, chain.bft(64, 4), inputs=few, ridge=ridge)
        assert fitted == pytest.approx(projection.layer_error(layer, new, few), rel=1e-6)
        largest = max(np.abs(f.values).max() for f in new.chain.factors)
        found[ridge] = fitted, projection.layer_error(layer, new, other), largest
    plain, ridged = found.values()
    assert plain[0] < ridged[0] and plain[1] > 1.1 and ridged[1] < 0.8 * plain[1], found
    assert ridged[2] < plain[2], found


def test_a_fifth_is_held_out():
    x = np.arange(50)[:, None]
    for seed in (0, 1):
        fitted, held = projection.split(x, seed)
        assert len(held) == 10 and sorted([*fitted.ravel(), *held.ravel()]) == list(range(50))
        assert np.array_equal(projection.split(x, seed)[1], held)
    assert not np.array_equal(projection.split(x, 0)[1], held)
    assert [len(projection.split(x[:n])[1]) for n in (1, 2, 4, 9, 10)] == [0, 1, 1, 1, 2]


@pytest.mark.parametrize("shape, finds_better", [(chain.bft(64, 4), True), (chain.monarch(64, 64, 8), False)])
def test_sweeps_where_they_help(shape, finds_better):
    """By default least squares follow an SVD of three factors and more, below 256; two factors are optimal."""
    matrix, seen = np.random.default_rng(9).normal(size=(64, 64)), []
    found = project(matrix, shape, progress=seen.append)[1]
    assert (found < project(matrix, shape, sweeps=0)[1] - 0.005) == finds_better == (len(seen) > 1)
    for radices, swept in (((17, 5, 3), True), ((16, 4, 4), False)):  # 255 and 256
        seen = []
        project(np.eye(np.prod(radices)), chain.mixed_radix(radices), progress=seen.append)
        assert (len(seen) > 1) == swept


def test_layers_keep_the_rest():
    rng = np.random.default_rng(11)
    true = Chain.random(chain.bft(16, 4), seed=12).dense()
    rest = {"scale": rng.normal(size=16), "bias": rng.normal(size=16), "relu": True, "name": "a"}
    x = rng.normal(size=(20, 16))
    for own, wanted in ((False, False), (False, True), (True, False), (True, True)):
        added = wanted and not own
        layer = Layer(chain=Chain([Factor((true + added * np.eye(16))[None, :, :, None])]), residual=own, **rest)
        for inputs in (None, x):
            found, error = project_layer(layer, chain.bft(16, 4), residual=wanted, inputs=inputs)
            assert error < 1e-7 and found.residual == (own or wanted) and found.chain.patterns == chain.bft(16, 4)
            assert np.allclose(found(x), layer(x), atol=1e-6)
    # the error is that of the whole matrix
    layer = Layer(chain=Chain([Factor(rng.normal(size=(1, 16, 16, 1)))]))
    found, error = project_layer(layer, chain.bft(16, 4), residual=True)
    full = layer.chain.dense()
    assert error == pytest.approx(np.linalg.norm(full - np.eye(16) - found.chain.dense()) / np.linalg.norm(full))


def test_zero_and_progress():
    found, error = project(np.zeros((16, 16)), chain.bft(16, 4))
    assert error == 0 and not found.dense().any()
    assert project(np.zeros((16, 16)), chain.bft(16, 4), method="als")[1] == 0
    seen = []
    project(np.random.default_rng(0).normal(size=(16, 16)), chain.bft(16, 4), sweeps=3, progress=seen.append)
    assert seen == sorted(seen) and len(seen) > 3 and seen[-1] == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((np.ones((3, 16)), chain.bft(16, 4)), ["(16, 16)", "(3, 16)"]),
        ((np.full((16, 16), np.nan), chain.bft(16, 4)), ["finite"]),
        ((np.ones((16, 16)), chain.bft(16, 4), {"method": "best"}), ["auto, svd or als", "'best'"]),
        ((np.ones((16, 16)), chain.bft(16, 4), {"inputs": np.ones((5, 3))}), ["inputs", "(N, 16)", "(5, 3)"]),
    ],
)
def test_refuses(arguments, words):
    matrix, shape, *rest = arguments
    with pytest.raises(ValueError) as caught:
        project(matrix, shape, **(rest[0] if rest else {}))
    assert all(word in str(caught.value) for word in words), caught.value


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "lazylinop", None)
    matrix = Chain.random(chain.bft(16, 4), seed=1).dense()
    with pytest.raises(ImportError, match=r"pip install 'bfthw\[project\]'"):
        project(matrix, chain.bft(16, 4))
    assert project(matrix, chain.bft(16, 4), method="als")[1] < 1e-12


def test_names():
    assert named("bft4", 64, 64) == chain.bft(64, 4)
    assert named("bft4", 24, 24) == chain.mixed_radix((4, 3, 2))
    assert named("bft2", 10, 16) == structures.padded(chain.bft(16, 2), 16, 10)
    assert named("bft4", 58, 58) == structures.padded(chain.bft(64, 4), 58, 58)
    assert named("monarch:4", 12, 16) == chain.monarch(12, 16, 4)
    assert named("lowrank:3", 12, 16) == chain.low_rank(12, 16, 3)
    assert named("debut", 10, 64) == structures.debut_chain(10, 64)
    assert named("(1,4,4,4) 4,4,4,1", 16, 16) == chain.bft(16, 4)


def test_suggestions_fit_and_are_small():
    for sizes in ((10, 64), (64, 64), (58, 58), (29, 29), (232, 116), (7, 5), (2, 2), (1, 9)):
        for name in suggestions(*sizes):
            shape = named(name, *sizes)
            assert (shape[-1].outputs, shape[0].inputs) == sizes
            assert sum(p.weights for p in shape) < sizes[0] * sizes[1]
    assert "debut" in suggestions(10, 64) and projection.chainable(named("debut", 10, 64))


@pytest.mark.parametrize(
    "text, sizes, words",
    [
        ("bft64", (10, 64), ["2 to 63", "64 -> 10"]),
        ("monarch:11", (10, 64), ["2 to 10", "64 -> 10"]),
        ("lowrank:10", (10, 64), ["1 to 9", "64 -> 10"]),
        ("lowrank:0", (10, 64), ["1 to 9"]),
        ("1,4,4,4 4,4,4,1", (10, 64), ["16 -> 16", "64 -> 10"]),
        ("1,4,4,4 4,4,4,2", (16, 16), ["do not chain"]),
        ("toeplitz", (16, 16), ["toeplitz", "bft<k>"]),
    ],
)
def test_names_that_do_not_fit(text, sizes, words):
    with pytest.raises(ValueError) as caught:
        named(text, *sizes)
    assert all(word in str(caught.value) for word in words), caught.value


def test_figures_of_the_page(capsys):
    """What docs/projection.md computes is what it says."""
    text = (ROOT / "docs" / "projection.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python slow\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "projection.md", "exec"), {})
    for line in capsys.readouterr().out.splitlines():
        start, *errors = re.fullmatch(r"(.*\| < 1e-14 \|) (0\.\d+) \| (0\.\d+) \|", line).groups()
        stated = re.search(re.escape(start) + r" (0\.\d+) \| (0\.\d+) \|", text)
        assert np.allclose([*map(float, errors)], [*map(float, stated.groups())], atol=0.002), line


def test_the_recursion_limit_is_left_alone():
    code = (
        "import sys, numpy as np; from bfthw.project import project; from bfthw.chain import bft; "
        "before = sys.getrecursionlimit(); project(np.eye(16), bft(16), method='svd'); "
        "assert 'lazylinop' in sys.modules and sys.getrecursionlimit() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
