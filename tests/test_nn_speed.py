"""The fast way through a chain: the same numbers and gradients as the formula, fused or not, in blocks or not."""

from functools import reduce

import numpy as np
import pytest
import torch

from bfthw import chain
from bfthw.chain import Indexed
from bfthw.nn import Butterfly, ButterflyPointwise, apply, multiply

CHAINS = {
    "base 4": chain.bft(64, 4),
    "base 2": chain.bft(64, 2),
    "mixed": chain.mixed_radix((3, 2, 5, 2)),
    "bulging": chain.patterns([(1, 4, 2, 8), (4, 4, 2, 4), (16, 2, 4, 1)]),
    "summed between": chain.patterns([(1, 6, 4, 4), (2, 3, 6, 2), (2, 1, 2, 3)]),
    "not to be fused": chain.patterns([(1, 3, 2, 4), (2, 2, 3, 2)]),
    "monarch": chain.monarch(24, 36, 4),
    "low rank": chain.low_rank(9, 12, 3),
    "grouped": chain.grouped(8, 12, 4),
    "indexed": (Indexed(np.arange(16)[:, None] % 12, 12), *chain.bft(16, 2), Indexed([[0, 3], [9, 9], [15, 1]], 16)),
}


@pytest.fixture(params=CHAINS.values(), ids=CHAINS.keys())
def patterns(request):
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 vectors, as soon as there are more than 64."""
    monkeypatch.setattr(multiply, "BLOCK", 1)
    monkeypatch.setattr(multiply, "MANY", 1)


def formula(module, x):
    """The chain as a dense matrix, made of numpy's factors, differentiable in x and in the module's factors."""
    y = x
    for values, pattern in zip(module.factors, module.patterns):
        a, b, c, d = pattern
        if isinstance(pattern, Indexed):
            y = (values[:, 0, :, 0] * y[:, torch.from_numpy(pattern.index.copy())]).sum(2)
        else:
            y = torch.einsum("ijkl,nikl->nijl", values, y.reshape(-1, a, c, d)).reshape(-1, a * b * d)
    return y


def both(patterns, count, seed=0):
    """(module, inputs, a direction), all float64, the inputs with gradients."""
    torch.manual_seed(seed)
    module = Butterfly(patterns, residual=False).double()
    x = torch.randn(count, module.inputs, dtype=torch.float64, requires_grad=True)
    return module, x, torch.randn(count, module.outputs, dtype=torch.float64)


def gradients(y, module, x, g, **how):
    return torch.autograd.grad(y, [x, *module.factors], g, **how)


def close(one, two):
    return torch.allclose(one, two, rtol=1e-11, atol=1e-12 * float(two.detach().abs().max()))


@pytest.mark.parametrize("count", [0, 1, 5, 64, 65, 300, 1000])
def test_equal_to_the_formula(patterns, count):
    module, x, g = both(patterns, count)
    y, wanted = module(x), formula(module, x)
    assert y.shape == wanted.shape and y.is_contiguous()
    if count:
        assert close(y, wanted)
        assert all(map(close, gradients(y, module, x, g), gradients(wanted, module, x, g)))


@pytest.mark.parametrize("count", [65, 128, 200])
def test_blocks(patterns, count, small_blocks):
    """Whole blocks and a rest of one; frozen factors and inputs; a second derivative."""
    module, x, g = both(patterns, count)
    y, wanted = module(x), formula(module, x)
    assert "_Blocks" in str(y.grad_fn.next_functions)  # under the view of a reshape
    assert close(y, wanted) and y.is_contiguous()
    assert all(map(close, gradients(y, module, x, g), gradients(wanted, module, x, g)))
    factor = module.factors[0]
    assert close(*(torch.autograd.grad(y, factor, g)[0] for y in (module(x.detach()), formula(module, x))))
    first = [torch.autograd.grad(f(x), x, g, create_graph=True)[0] for f in (module, lambda t: formula(module, t))]
    if len(module.factors) > 1:
        second = [torch.autograd.grad(one.pow(2).sum(), list(module.factors)) for one in first]
        assert all(map(close, *second))
    module.requires_grad_(False)
    assert close(torch.autograd.grad(module(x), x, g)[0], torch.autograd.grad(formula(module, x), x, g)[0])


@pytest.mark.parametrize("count", [1, 1 << 20])
def test_plan_splits_the_chain(patterns, count):
    groups = multiply.plan(patterns, count)
    assert [m for group in groups for m in group] == list(range(len(patterns)))
    shapes = [reduce(multiply.fused, (patterns[m] for m in group)) for group in groups]
    assert all(s.a * s.d > 1 for s, group in zip(shapes, groups) if len(group) > 1)  # never a dense matrix
    assert (shapes[0].inputs, shapes[-1].outputs) == (patterns[0].inputs, patterns[-1].outputs)


def test_plan_fuses_for_many_vectors_only():
    patterns = chain.bft(1024, 4)
    assert len(multiply.plan(patterns, 1)) == 5 and len(multiply.plan(patterns, 4096)) == 2


def test_fused_factors_have_their_product():
    for patterns in CHAINS.values():
        for first, second in zip(patterns, patterns[1:]):
            one, two = (torch.randn(tuple(p), dtype=torch.float64) for p in (first, second))
            if pattern := multiply.fused(first, second):
                values = multiply.fuse(one, two)
                assert tuple(values.shape) == tuple(pattern)
                product = chain.Factor(two.numpy()).dense() @ chain.Factor(one.numpy()).dense()
                assert np.allclose(chain.Factor(values.numpy()).dense(), product, rtol=1e-12, atol=1e-12)


def test_apply_is_exact_on_integers(patterns):
    """Integers in float64 below 2**53, as quantisation-aware training has them: any order of sums is the same."""
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**20), 2**20, (77, patterns[0].inputs))
    for pattern in patterns:
        values = rng.integers(-(2**15), 2**15, tuple(pattern))
        wanted = chain.apply(values, x, chain.support(pattern))
        index = torch.from_numpy(pattern.index.copy()) if isinstance(pattern, Indexed) else None
        found = apply(torch.tensor(values, dtype=torch.float64), torch.tensor(x, dtype=torch.float64), index)
        assert np.array_equal(found.numpy(), wanted)
        x = wanted % 2**20


@pytest.mark.parametrize("channels_last", [False, True])
def test_pointwise_in_blocks(small_blocks, channels_last):
    torch.manual_seed(0)
    module = ButterflyPointwise(16, bias=True, relu=True).double()
    x = torch.randn(3, 16, 7, 5, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    rows = x.permute(0, 2, 3, 1).reshape(-1, 16)
    wanted = torch.relu(formula(module, rows) + rows).reshape(3, 7, 5, 16).permute(0, 3, 1, 2)
    assert close(module(x), wanted)


def test_bfloat16_under_autocast(small_blocks):
    module, x = Butterfly(64), torch.randn(100, 64)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    y.sum().backward()
    assert torch.allclose(y.float(), module(x), atol=0.2) and all(p.grad is not None for p in module.factors)
