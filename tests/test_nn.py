"""Torch layers against the chain's dense matrix, autograd through it, Conv2d and the numpy network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import bfthw.nn  # noqa: E402
from bfthw import chain, structures  # noqa: E402
from bfthw.nn import Butterfly, ButterflyPointwise, fold, parameter_groups, to_network  # noqa: E402

SHAPES = {
    "bft-64": chain.bft(64, 4),
    "radix-2": chain.bft(16, 2),
    "mixed-24": chain.mixed_radix((4, 3, 2)),
    "bulging": chain.patterns([(1, 4, 2, 4), (4, 2, 4, 1)]),
    "monarch-12-8": chain.monarch(8, 12, blocks=4),
    "dense": chain.dense(5, 7),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def numpy_layer(module, name="0"):
    return to_network(module).layers[0]


def normalised(norm, seed):
    """A batch norm with statistics and an affine part of its own, in eval mode."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.running_mean.normal_(generator=g)
        norm.running_var.uniform_(0.3, 3, generator=g)
        if norm.affine:
            norm.weight.uniform_(-2, 2, generator=g)
            norm.bias.normal_(generator=g)
    return norm.eval()


@shapes
def test_forward_is_the_dense_matrix(shape):
    torch.manual_seed(0)
    module = Butterfly(shape, residual=False).double()
    x = torch.randn(2, 3, shape[0].inputs, dtype=torch.float64)
    dense = torch.from_numpy(numpy_layer(module).chain.dense())
    assert torch.allclose(module(x), x @ dense.T, atol=1e-12)


@shapes
def test_gradients_are_those_of_the_dense_product(shape):
    torch.manual_seed(1)
    module = Butterfly(shape, residual=False).double()
    x = torch.randn(6, shape[0].inputs, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, shape[-1].outputs, dtype=torch.float64)
    own = torch.autograd.grad((module(x) * weight).sum(), [x, *module.factors])

    product = torch.eye(shape[0].inputs, dtype=torch.float64)
    for (a, b, c, d), values in zip(shape, module.factors):
        entries = torch.einsum("ijkl,ip,lq->ijlpkq", values, torch.eye(a).double(), torch.eye(d).double())
        product = entries.reshape(a * b * d, a * c * d) @ product
    wanted = torch.autograd.grad((x @ product.T * weight).sum(), [x, *module.factors])
    assert all(torch.allclose(g, w, atol=1e-12) for g, w in zip(own, wanted))


@shapes
@pytest.mark.parametrize("parts", [{}, {"bias": True}, {"bias": True, "relu": True}], ids=["bare", "bias", "bias-relu"])
def test_torch_equals_numpy(shape, parts):
    torch.manual_seed(2)
    module = Butterfly(shape, **parts)
    if module.bias is not None:
        nn.init.normal_(module.bias)
    x = torch.randn(20, shape[0].inputs)
    assert module.residual == (shape[0].inputs == shape[-1].outputs)
    np.testing.assert_allclose(module(x).detach().numpy(), to_network(module)(x.numpy()), rtol=0, atol=1e-5)


def test_initialisation_is_the_papers():
    torch.manual_seed(3)
    module = Butterfly(256)
    y = chain.initial_range(module.patterns)
    values = torch.cat([v.detach().reshape(-1) for v in module.factors])
    assert values.dtype == torch.float32 and values.abs().max() <= y
    assert abs(values.mean()) < y / 20 and abs(values.abs().mean() / y - 0.5) < 0.02


@pytest.mark.parametrize("channels_last", [False, True])
def test_pointwise_is_a_drop_in_for_conv2d(channels_last):
    torch.manual_seed(4)
    mine = ButterflyPointwise(16, bias=True)
    nn.init.normal_(mine.bias)
    conv = nn.Conv2d(16, 16, 1)
    with torch.no_grad():
        layer = numpy_layer(mine)
        conv.weight.copy_(torch.from_numpy(layer.chain.dense() + np.eye(16))[..., None, None])
        conv.bias.copy_(mine.bias)
    x = torch.randn(2, 16, 3, 5)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    got, wanted = mine(x), conv(x)
    assert got.shape == wanted.shape and got.stride() == wanted.stride()
    assert torch.allclose(got, wanted, atol=1e-5)
    assert torch.allclose(mine(x[0]), wanted[0], atol=1e-5)  # no batch, as Conv2d allows


def test_pointwise_with_patterns_and_butterfly_share_a_state_dict():
    shape = chain.monarch(8, 12, 4)
    pointwise, plain = ButterflyPointwise(12, 8, patterns=shape, relu=True), Butterfly(shape, relu=True)
    assert list(pointwise.state_dict()) == ["flags", "factors.0", "factors.1"]
    assert pointwise.flags.tolist() == [1, 0, 1]
    plain.load_state_dict(pointwise.state_dict())
    x = torch.randn(2, 12, 3, 3)
    assert torch.equal(pointwise(x), plain(x.movedim(1, -1)).movedim(-1, 1))


def test_state_dict_with_other_flags_is_refused():
    with pytest.raises(RuntimeError, match=r"flags \(version, residual, relu\) must be \[1, 1, 0\].* got \[1, 1, 1\]"):
        nn.Sequential(Butterfly(16)).load_state_dict(nn.Sequential(Butterfly(16, relu=True)).state_dict())
    with pytest.raises(AttributeError):  # or the flags would lie
        Butterfly(16).relu = True


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(16), nn.BatchNorm1d(16, affine=False), nn.BatchNorm2d(16)],
    ids=["1d", "1d-not-affine", "2d"],
)
@pytest.mark.parametrize("bias", [False, True])
def test_fold(norm, bias):
    torch.manual_seed(5)
    pointwise = isinstance(norm, nn.BatchNorm2d)
    module = (ButterflyPointwise if pointwise else Butterfly)(16, bias=bias)
    if bias:
        nn.init.normal_(module.bias)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    x = torch.randn(4, 16, 3, 3) if pointwise else torch.randn(30, 16)
    folded = fold(module, normalised(norm, 6))
    assert torch.allclose(folded(x), norm(module(x)), atol=2e-5)
    twice = fold(folded, normalised(norm, 7))  # on top of a scale that is there already
    assert torch.allclose(twice(x), norm(folded(x)), atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert folded.scale.dtype == torch.float32 and set(folded.state_dict()) == {*before, "scale", "bias"}


def test_fold_errors():
    with pytest.raises(TypeError, match="BatchNorm1d or BatchNorm2d, got LayerNorm"):
        fold(Butterfly(16), nn.LayerNorm(16))
    with pytest.raises(ValueError, match="8 features, the butterfly 16 outputs"):
        fold(Butterfly(16), nn.BatchNorm1d(8))
    with pytest.raises(ValueError, match="no running statistics"):
        fold(Butterfly(16), nn.BatchNorm1d(16, track_running_stats=False))
    with pytest.raises(ValueError, match="after a ReLU"):
        fold(Butterfly(16, relu=True), nn.BatchNorm1d(16))


def test_to_network_of_a_sequential():
    torch.manual_seed(8)
    model = nn.Sequential(
        nn.Flatten(),
        Butterfly(16, bias=True),
        normalised(nn.BatchNorm1d(16), 1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Sequential(Butterfly(chain.monarch(12, 16, 4)), normalised(nn.BatchNorm1d(12, affine=False), 2)),
        nn.Identity(),
        nn.Linear(12, 5),
        normalised(nn.BatchNorm1d(5), 3),
        nn.ReLU(),
    ).eval()
    network = to_network(model)
    assert [layer.name for layer in network.layers] == ["1", "5.0", "7"]
    assert [layer.relu for layer in network.layers] == [True, False, True]
    assert [layer.residual for layer in network.layers] == [True, False, False]
    x = torch.randn(50, 4, 4)
    np.testing.assert_allclose(network(x.reshape(50, 16).numpy()), model(x).detach().numpy(), rtol=0, atol=1e-4)


def test_to_network_of_pointwise_convolutions():
    torch.manual_seed(9)
    model = nn.Sequential(
        ButterflyPointwise(16),
        normalised(nn.BatchNorm2d(16), 1),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1, groups=4),
        normalised(nn.BatchNorm2d(8), 2),
        nn.Conv2d(8, 3, 1, bias=False),
    ).eval()
    network = to_network(model)
    assert [layer.chain.patterns[0] for layer in network.layers] == [(1, 4, 4, 4), (4, 2, 4, 1), (1, 3, 8, 1)]
    x = torch.randn(2, 16, 5, 3)
    wanted = model(x).movedim(1, -1).reshape(-1, 3).detach().numpy()
    np.testing.assert_allclose(network(x.movedim(1, -1).reshape(-1, 16).numpy()), wanted, rtol=0, atol=1e-4)


def test_to_network_keeps_a_module_that_stands_twice():
    layer = nn.Linear(4, 4)
    assert [found.name for found in to_network(nn.Sequential(layer, nn.ReLU(), layer)).layers] == ["0", "2"]


class Twist(nn.Linear):
    def forward(self, x):
        return super().forward(x.flip(-1))


@pytest.mark.parametrize(
    "modules, error, message",
    [
        ((nn.Linear(4, 4), nn.Sequential(nn.GELU())), TypeError, r"module '1.0' is a GELU; supported are Butterfly"),
        ((Twist(4, 4),), TypeError, "module '0' is a Twist"),
        ((nn.Conv2d(4, 4, 3),), ValueError, r"module '0': only pointwise convolutions .* kernel_size=\(3, 3\)"),
        ((nn.Conv2d(4, 4, 3, groups=4, padding=1),), ValueError, "only pointwise convolutions"),
        ((nn.Conv2d(4, 4, 1, stride=2),), ValueError, "only pointwise convolutions"),
        ((nn.Conv2d(4, 4, 1, padding=1),), ValueError, "only pointwise convolutions"),
        ((nn.ReLU(), nn.Linear(4, 4)), ValueError, "module '0': ReLU needs a layer before it"),
        ((nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)), ValueError, "module '2': fold: a batch norm after a ReLU"),
        ((nn.Linear(4, 4), nn.BatchNorm1d(5)), ValueError, "module '1': fold: the norm has 5 features"),
        ((nn.Linear(4, 4), nn.Flatten(0)), ValueError, r"module '1': only Flatten\(1, -1\)"),
        ((nn.Linear(4, 6), nn.Linear(5, 2)), ValueError, "layers do not chain: '0' gives 6 values, '1' takes 5"),
        ((nn.Identity(),), ValueError, "no layer with weights"),
    ],
)
def test_to_network_errors(modules, error, message):
    with pytest.raises(error, match=message):
        to_network(nn.Sequential(*modules))


# vectors along the last axis of an image and along its channels: torch computes something in every pair of them
LAST = [nn.Linear(8, 8), Butterfly(8, base=2, residual=False), bfthw.nn.Circulant(8), nn.BatchNorm1d(8)]
CHANNELS = [nn.Conv2d(8, 8, 1), ButterflyPointwise(8, base=2, residual=False), nn.BatchNorm2d(8)]
CHANNELS.append(bfthw.nn.Pointwise(bfthw.nn.LowRank(8, 8, 2)))


@pytest.mark.parametrize("one", LAST + CHANNELS, ids=lambda module: type(module).__name__)
def test_to_network_refuses_channels_beside_the_last_axis(one):
    for other in CHANNELS if one in LAST else LAST:
        with pytest.raises(ValueError, match=r"module '2': works along .*, what stands before it along"):
            to_network(nn.Sequential(one, nn.Identity(), other))


def test_to_network_of_channels_flattened():
    """With as many values behind a Flatten as channels before it, an image has one pixel."""
    torch.manual_seed(11)
    model = nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)).double()
    x = torch.randn(20, 6, dtype=torch.float64)
    np.testing.assert_allclose(to_network(model)(x.numpy()), model(x[..., None, None]).detach().numpy(), atol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Butterfly(24, base=4), r"Butterfly: with base=4 there must be a power of 4 .* 24 -> 24; .* 216 w"),
        (lambda: Butterfly(16, 32, base=4), r"power of 4 of values and as many outputs, got 16 -> 32; .* 160 weights"),
        (lambda: Butterfly([(1, 2, 3, 1)], base=4), "base= is for a number of values, not for a chain"),
        (lambda: Butterfly([(1, 2, 3, 1)], 3), "the patterns give 2 values, not 3"),
        (lambda: Butterfly(0), "way: inputs must be a positive integer, got 0"),
        (lambda: Butterfly([(1, 2, 3, 1)], residual=True), "Butterfly: a residual needs as many .* got 3 -> 2"),
        (lambda: ButterflyPointwise(8, 6, patterns=[(1, 5, 8, 1)]), "map 8 -> 5, the channels are 8 -> 6"),
        (lambda: Butterfly(16)(torch.zeros(3, 8)), r"takes \(..., 16\), got \(3, 8\)"),
        (lambda: ButterflyPointwise(16)(torch.zeros(3, 8, 2, 2)), r"takes \(N, 16, H, W\), got \(3, 8, 2, 2\)"),
    ],
)
def test_layer_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weight_decay_touches_no_factor():
    model = nn.Sequential(Butterfly(16, bias=True), nn.BatchNorm1d(16), nn.Linear(16, 4), ButterflyPointwise(16))
    model[2].bias.requires_grad_(False)
    decayed, exempt = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(model[2].weight)]
    assert len(exempt["params"]) == 2 + 1 + 2 + 2
    before = [p.detach().clone() for p in model[0].factors]
    optimiser = torch.optim.SGD([decayed, exempt], lr=1.0)
    sum(p.sum() * 0 for p in model.parameters()).backward()
    optimiser.step()
    assert all(torch.equal(b, p) for b, p in zip(before, model[0].factors))


def test_torch_exports_indexed_factors():
    """torch.export takes a module's tuples apart and makes named ones anew of their numbers, which an index is not."""
    module = Butterfly(structures.padded(chain.bft(8, 2), 6, 6)).eval()
    x = torch.randn(3, 6)
    assert torch.equal(torch.export.export(module, (x,)).module()(x), module(x))
