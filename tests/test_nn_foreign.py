"""Live modules of other projects in `to_network`: against modules of the same look, written from the definitions."""

import foreign_modules as theirs
import numpy as np
import pytest
import torch
from torch import nn

from bfthw.nn import ReleasedBFT, to_network
from bfthw.nn.foreign import KINDS

CHAIN = [[48, 24, 4, 2, 1], [232, 48, 29, 6, 8]]
POINTS = [[4, 3, 4, 3, 1], [8, 4, 2, 1, 4], [64, 8, 16, 2, 4]]
SIZES = [(16, 16), (2, 2), (24, 24), (32, 58), (58, 32), (7, 40), (24, 10)]


def cases():
    """(id, what makes the module)."""
    for n, m in SIZES:
        for stride in (True, False):
            for blocks in (1, 2, 3) if n < 30 else (1,):
                for base4 in (False, True):
                    how = {"bias": stride, "increasing_stride": stride, "nblocks": blocks}
                    kind = theirs.torch_butterfly(base4)
                    yield f"{kind.__name__} {n} {m} {stride} {blocks}", lambda k=kind, a=(n, m), h=how: k(*a, **h)
            for kind in ("tied", "untied", "fast", "b_bt", "fast b_bt"):
                for param in ("regular", "ortho", "ds", "logit", "ortho2")[: 1 if "fast" in kind else 5]:
                    if param == "regular" or n in (16, 7):
                        how = {"increasing_stride": stride, "kind": kind, "param": param, "bias": n < 20}
                        yield f"old {kind} {param} {n} {m} {stride}", lambda a=(n, m), h=how: theirs.Butterfly(*a, **h)
    yield "old expansion", lambda: theirs.Butterfly(16, 20, kind="untied", expansion=2)
    yield "old conv", lambda: theirs.ButterflyConv1d(24, 40, 1, kind="untied")
    for n in (1, 7, 16):
        yield f"diagonal {n}", lambda n=n: theirs.Diagonal(n)
        yield f"permutation {n}", lambda n=n: theirs.FixedPermutation(torch.randperm(n))
    yield "debut", lambda: theirs.DeBut(24, 232, CHAIN, bias=False)
    yield "debut 1d", lambda: theirs.DeBut_1dConv(3, 64, 1, POINTS)
    yield "debut 2d", lambda: theirs.DeBut_2dConv(24, 232, 1, CHAIN)
    for n, m, k in [(16, 16, 4), (24, 58, 4), (58, 24, 4), (7, 9, 3), (32, 20, 2)]:
        for names in (("blkdiag1", "blkdiag2"), ("w1", "w2")):
            how = {"nblocks": k, "bias": n > 20, "names": names}
            yield f"monarch {names[0]} {n} {m}", lambda a=(n, m), h=how: theirs.MonarchLinear(*a, **h)
        for shuffle in (True, False):
            how = {"nblocks": k, "bias": n > 20, "shuffle": shuffle}
            yield f"blockdiag {n} {m} {shuffle}", lambda a=(n, m), h=how: theirs.BlockdiagLinear(*a, **h)
    for b1, b2 in [(1, 1), (3, 1), (2, 2), (3, 6)]:
        how = {"b1": b1, "b2": b2, "bias": b1 > 2}
        yield f"rank {b1} {b2}", lambda h=how: theirs.BlockdiagButterflyLinear(16, 24, **h)
        yield f"rank {b1} {b2} unequal", lambda h=how: theirs.BlockdiagButterflyLinear(15, 12, 3, 2, **h)
    yield "blast", lambda: theirs.BlastLinear(4, 3, 5, 2, 7)
    yield "blast without bias", lambda: theirs.BlastLinear(1, 3, 5, 2, 1, bias=False)
    for n, m in [(16, 16), (24, 24), (6, 14), (14, 6)]:
        for base in (2, 4, 8):
            yield f"released {n} {m} {base}", lambda a=(n, m, base): theirs.ButterflyTransform(*a)
    for method in ("no_residual", "residual_stoe"):
        yield f"block {method}", lambda m=method: theirs.Butterfly_general_matrix(12, 2, m)
    yield "fusion", lambda: theirs.Fusion(8, 12, "butterfly")
    yield "dense fusion", lambda: theirs.Fusion(8, 12, "conv2d")


CASES = dict(cases())


def agrees(model, shape=()):
    """Whether the network computes what the model does, in float64."""
    network = to_network(model)
    x = torch.randn(5, network.inputs, *shape, dtype=torch.float64)
    with torch.no_grad():
        y = model.double().eval()(x)
    vectors = (np.moveaxis(v.numpy(), 1, -1).reshape(-1, v.shape[1]) for v in (x, y))
    given, wanted = vectors
    return np.allclose(network(given), wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_equals_its_forward(make, one_thread):
    torch.manual_seed(3)
    model = make()
    two = isinstance(model, nn.Conv2d | theirs.Fusion | theirs.DeBut_2dConv)
    one = isinstance(model, theirs.DeBut_1dConv | theirs.ButterflyConv1d)
    assert agrees(model, (2, 3) if two else (4,) if one else ())


def test_the_structure_is_kept():
    """No dense matrix in its place."""
    patterns = to_network(theirs.torch_butterfly()(16, 16)).layers[0].chain.patterns
    assert patterns == tuple((16 // (2 * s), 2, 2, s) for s in (1, 2, 4, 8))
    assert to_network(theirs.Diagonal(8)).layers[0].chain.patterns == ((8, 1, 1, 1),)
    (pattern,) = to_network(theirs.FixedPermutation(torch.tensor([2, 0, 1]))).layers[0].chain.patterns
    assert pattern.index.tolist() == [[2], [0], [1]]
    assert to_network(theirs.BlastLinear(4, 3, 5, 2, 7)).layers[0].chain.weights == 4 * 5 * 7 + 3 * 7 * 2 + 4 * 3 * 7
    mine, yours = ReleasedBFT(24, 24), theirs.ButterflyTransform(24, 24)
    assert to_network(yours).layers[0].chain.patterns == to_network(mine).layers[0].chain.patterns


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(
            theirs.Diagonal(16), theirs.torch_butterfly()(16, 16, False), theirs.FixedPermutation(torch.randperm(16)),
            theirs.Diagonal(16), theirs.torch_butterfly()(16, 16, False, False), theirs.Diagonal(16), nn.ReLU(),
            nn.BatchNorm1d(16), theirs.MonarchLinear(16, 12), nn.Linear(12, 3),
        ),
        lambda: nn.Sequential(
            theirs.DeBut_1dConv(3, 64, 1, POINTS), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 8, 1, groups=2),
        ),
        lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1), nn.ReLU(), nn.BatchNorm1d(4), nn.Conv1d(4, 4, 1)),
        lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), theirs.Fusion(8, 12, "butterfly")),
    ],
    ids=["fastfood", "points", "sequences", "images"],
)
def test_among_other_modules(model):
    torch.manual_seed(8)
    model = model().eval()
    for norm in (m for m in model if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_()
    kinds = [type(module) for module in model]
    assert agrees(model, (2, 2) if nn.Conv2d in kinds else (3,) if nn.Conv1d in kinds else ())


class Clamped(theirs.torch_butterfly()):
    """A subclass that does more, with large values alone."""

    def forward(self, x):
        return super().forward(x).clamp(-100, 100)


class Twice(theirs.MonarchLinear):
    def linear(self, x):
        return 2 * super().linear(x)


def patched():
    model = theirs.DeBut(24, 232, CHAIN)
    model.forward = lambda x: torch.relu(model.linear(x))
    return model


GIVES = "its own forward gives other numbers than its weights do"
REFUSED = {
    "a subclass that does more": (lambda: Clamped(16, 16), GIVES),
    "a method of a subclass": (lambda: Twice(16, 16), "a Twice, read as monarch: " + GIVES),
    "a patched forward": (patched, GIVES),
    "complex": (lambda: theirs.torch_butterfly()(4, 4, False, complex=True), "'twiddle' must be real numbers"),
    "unitary": (lambda: theirs.torch_butterfly(unitary=True)(16, 16), "read as torch_butterfly: complex weights"),
    "kernel": (lambda: theirs.DeBut_1dConv(8, 232, 3, CHAIN), r"only pointwise .*, got kernel 3"),
    "stride": (lambda: theirs.DeBut_2dConv(24, 232, 1, CHAIN, stride=2), GIVES),
    "shapes that do not fit": (
        lambda: theirs.DeBut(24, 232, [CHAIN[0]] * 2), "read as debut: factors do not chain",
    ),
    "a diagonal of the old module": (lambda: with_diagonal(), "parametrisations by angles and a diagonal"),
    "no permutation": (lambda: theirs.FixedPermutation(torch.tensor([0, 0, 1])), "each of 0 to 2 once"),
    "a class of that name alone": (lambda: type("DeBut", (nn.Module,), {"forward": lambda _, x: x})(), "is a DeBut;"),
    "along another axis": (
        lambda: nn.Sequential(theirs.DeBut_1dConv(3, 64, 1, POINTS), theirs.Diagonal(64)),
        "module '1': works along the last axis, what stands before it along the channels of sequences",
    ),
    "of images behind sequences": (
        lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 1)), "module '1': works along channels",
    ),
    "a convolution of kernel 3": (lambda: nn.Conv1d(4, 4, 3), "only pointwise convolutions"),
    "a padded one": (lambda: nn.Conv1d(4, 4, 1, padding=1), "only pointwise convolutions"),
}


def with_diagonal():
    model = theirs.Butterfly(16, 16, kind="untied", param="ortho")
    model.param, model.diag, model.twiddle1 = "odo", torch.ones(1, 16), model.twiddle
    return model


@pytest.mark.parametrize("make, words", REFUSED.values(), ids=REFUSED)
def test_refused(make, words):
    torch.manual_seed(1)
    with pytest.raises((ValueError, TypeError), match=words):
        to_network(make())


def test_the_module_stays_as_it_was():
    model = theirs.torch_butterfly()(16, 16).float()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    to_network(model.train())
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.twiddle.dtype == torch.float32


def test_weights_that_are_made():
    model = theirs.MonarchLinear(16, 16)
    nn.utils.parametrizations.spectral_norm(model, "blkdiag1")
    assert agrees(model)
    with pytest.raises(ValueError, match="a forward pre-hook, WeightNorm, may change what it computes"):
        to_network(nn.utils.weight_norm(theirs.DeBut(24, 232, CHAIN), "twiddle", dim=None))


def test_every_kind_is_met():
    met = {kind for make in CASES.values() for kind in KINDS if kind.is_of(make())}
    assert met == set(KINDS)
