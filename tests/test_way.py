"""A butterfly for any two sizes: never dense, near the cost of the next power, equal to its matrix."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bfthw import chain
from bfthw.chain import Indexed
from bfthw.models import model
from bfthw.structures import next_power, padded, paths, side_by_side, way, ways

torch = pytest.importorskip("torch")

from bfthw.nn import Butterfly, ButterflyPointwise, to_network  # noqa: E402

LIMIT = 1.5  # times the cost of the next larger power, at most
FUSED = [layer.chain for layer in model("mobilenetv1").layers if len(layer.chain.factors) > 1]
MOBILENET = [(one.inputs, one.outputs) for one in FUSED]


def cost(shape):
    return sum(p.weights for p in shape)


def bound(n, m):
    """The cost of the next larger power of four, or of two where that is less."""
    two, four = (next_power(max(n, m), base) for base in (2, 4))
    return LIMIT * min(cost(chain.mixed_radix(chain.factorise(two, 4))), cost(chain.bft(four, 4)))


@pytest.mark.parametrize("n", range(1, 33))
def test_cost_of_any_sizes(n):
    for m in range(1, 33):
        shape = way(n, m).patterns
        assert (shape[0].inputs, shape[-1].outputs) == (n, m)
        assert cost(shape) <= bound(n, m), (n, m)
        if min(n, m) >= 16:
            assert len(shape) > 1 and cost(shape) < 0.9 * n * m, (n, m)
            assert all(min(p.c, p.b) > 1 or isinstance(p, Indexed) for p in shape), (n, m)  # nothing is doubled
        assert paths(shape)[0] == 1, (n, m)
        if n % 4 == m % 3:  # a third of them, of all kinds
            layer = Butterfly(n, m, residual=False, bias=True).double()
            torch.nn.init.normal_(layer.bias)
            x = torch.randn(3, n, dtype=torch.float64)
            (one,) = to_network(layer).layers
            wanted = x.numpy() @ one.chain.dense().T + layer.bias.detach().numpy()
            np.testing.assert_allclose(layer(x).detach().numpy(), wanted, atol=1e-12)


def test_cost_of_larger_sizes():
    rng = np.random.default_rng(11)
    for n, m in rng.integers(16, 1500, (30, 2)).tolist():
        shape = way(n, m).patterns
        assert len(shape) > 1 and cost(shape) <= bound(n, m), (n, m)


def test_pointwise_layers_of_mobilenet():
    assert len(MOBILENET) == 13
    assert sum(cost(way(n, m).patterns) for n, m in MOBILENET) == 90_624
    assert "90,624 weights" in (Path(__file__).parent.parent / "docs" / "layers.md").read_text(encoding="utf-8")
    for n, m in sorted(set(MOBILENET)):
        layer = ButterflyPointwise(n, m).double()
        x = torch.randn(2, n, 1, 2, dtype=torch.float64)
        (one,) = to_network(layer).layers
        wanted = np.einsum("mn,bnhw->bmhw", one.chain.dense() + np.eye(m, n) * (n == m), x.numpy())
        np.testing.assert_allclose(layer(x).detach().numpy(), wanted, atol=1e-12)
        assert cost(layer.patterns) <= bound(n, m) and not any(isinstance(p, Indexed) for p in layer.patterns)


@pytest.mark.parametrize(
    "n, m, code",
    [
        (64, 64, "mixed_radix((4, 4, 4))"),
        (512, 512, "mixed_radix((4, 4, 4, 4, 2))"),
        (32, 64, "mixed_radix((4, 4, (4, 2)))"),
        (96, 24, "mixed_radix(((2, 8), 3, 4))"),
        (40, 40, "mixed_radix((4, 5, 2))"),  # 440, although padding gives 416: an index would be dearer
        (58, 58, "padded(mixed_radix((4, 4, 4)), 58, 58)"),
        (17, 19, "padded(mixed_radix((2, 3, (4, 3))), 17, 19)"),
        (5, 3, "dense(3, 5)"),
    ],
)
def test_what_is_chosen(n, m, code):
    assert way(n, m).code == code and code in [one.code for one in ways(n, m)]


@pytest.mark.parametrize("make", [ButterflyPointwise, Butterfly, way, ways])
def test_too_wide_is_refused_at_once(make):
    with pytest.raises(ValueError, match="for 1048576 inputs and outputs at most, got 2097152 and 3"):
        make(1 << 21, 3)


def test_base_four_is_the_butterfly_transform():
    for n in (4, 16, 64, 256, 1024):
        assert way(n).patterns == chain.bft(n, 4) == Butterfly(n, base=4).patterns


def test_mixed_radix_of_rectangles():
    """From the definition: y[r0, r1] = sum over s1 of v1 (sum over s0 of v0 x[s0, s1])."""
    rng = np.random.default_rng(3)
    one = chain.Chain.random(chain.mixed_radix(((3, 2), (2, 5))), 4)
    first, last = (f.values for f in one.factors)
    x = rng.normal(size=(2, 5))
    middle = np.einsum("rsd,sd->rd", first[0], x)  # (r0, s1)
    wanted = np.einsum("arsd,as->ar", last, middle)
    np.testing.assert_allclose(one(x.reshape(1, -1))[0], wanted.ravel(), atol=1e-12)
    with pytest.raises(ValueError, match=r"integers of 2 or more, or pairs of them, got \(\(3, 1\),\)"):
        chain.mixed_radix(((3, 1),))


def test_side_by_side():
    shape = padded(chain.mixed_radix((4, 3)), 11, 10)
    both = side_by_side(shape, 2)
    parts = [chain.Chain.random(shape, seed) for seed in (0, 1)]
    values = [np.concatenate([part.factors[m].values for part in parts]) for m in range(len(shape))]
    whole = chain.Chain(map(chain.Factor, values, map(chain.support, both)))
    wanted = np.zeros((20, 22))
    wanted[:10, :11], wanted[10:, 11:] = (part.dense() for part in parts)
    np.testing.assert_array_equal(whole.dense(), wanted)


def test_cost_is_shown():
    assert "58 -> 58, 744 weights = 22.1 % of dense" in repr(ButterflyPointwise(58))


def test_torch_is_loaded_when_it_is_asked_for():
    code = """
import sys, bfthw
assert "torch" not in sys.modules and "bfthw.nn" not in sys.modules
sys.modules["torch"] = None
for name in ("nn", "qat"):
    try:
        getattr(bfthw, name)
    except ImportError as error:
        print(error)
del sys.modules["torch"]
print(bfthw.qat.QuantisedNetwork, bfthw.nn.Butterfly(16, 32).outputs)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[:2] == ["bfthw.nn and bfthw.qat need torch, which is not installed: pip install 'bfthw[torch]'"] * 2
    assert told[2] == "<class 'bfthw.qat.QuantisedNetwork'> 32"
