"""The papers' layers in torch: each is its dense matrix, becomes a Network, starts as it should."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from bfthw import chain, structures  # noqa: E402
from bfthw import nn as layers  # noqa: E402
from bfthw.nn import to_network  # noqa: E402

LAYERS = {
    "deformable": (layers.Deformable, 36, 8),
    "bulging": (layers.Deformable, 24, 16, "bulging"),
    "Monarch": (layers.Monarch, 16, 16, 4),
    "Monarch 58 -> 10": (layers.Monarch, 58, 10, 3),
    "fixed butterfly": (layers.FixedButterfly, 58, 20),
    "cyclic": (layers.CyclicSupport, 10, 4),
    "low rank": (layers.LowRank, 12, 10, 3),
    "grouped": (layers.Grouped, 12, 8, 4),
    "invertible": (layers.Invertible, 16),
    "circulant": (layers.Circulant, 9),
    "circulant 5 -> 8": (layers.Circulant, 5, 8),
    "circulant 8 -> 5": (layers.Circulant, 8, 5),
}
every = pytest.mark.parametrize("name", LAYERS)


def made(name, **rest):
    kind, *arguments = LAYERS[name]
    layer = kind(*arguments, **rest).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


@every
@pytest.mark.parametrize("bias", [False, True])
def test_is_its_network(name, bias):
    torch.manual_seed(0)
    layer = made(name, bias=bias)
    x = torch.randn(2, 3, layer.inputs, dtype=torch.float64)
    y = layer(x)
    assert y.shape == (2, 3, layer.outputs)
    network = to_network(nn.Sequential(layer, nn.ReLU()))
    wanted = network(x.reshape(-1, layer.inputs).numpy()).reshape(y.shape)
    np.testing.assert_allclose(torch.relu(y).detach().numpy(), wanted, atol=1e-10)
    assert network.layers[0].residual is False and network.layers[0].relu is True


@every
def test_over_channels(name):
    torch.manual_seed(1)
    layer = made(name, bias=True)
    pointwise = layers.Pointwise(layer)
    x = torch.randn(2, layer.inputs, 3, 5, dtype=torch.float64)
    conv = nn.Conv2d(layer.inputs, layer.outputs, 1).double()
    with torch.no_grad():
        conv.bias.copy_(layer.bias)
        bare = layer(torch.eye(layer.inputs, dtype=torch.float64)) - layer.bias
        conv.weight.copy_(bare.T[:, :, None, None])
    assert torch.allclose(pointwise(x), conv(x), atol=1e-10)
    assert torch.allclose(pointwise(x[0]), conv(x)[0], atol=1e-10)
    pixels = x.movedim(1, -1).reshape(-1, layer.inputs)
    wanted = to_network(layer)(pixels.numpy())
    np.testing.assert_allclose(to_network(pointwise)(pixels.numpy()), wanted, atol=1e-12)


@every
def test_state_dict_and_gradients(name):
    torch.manual_seed(2)
    layer, other = made(name), made(name)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(4, layer.inputs, dtype=torch.float64)
    assert torch.equal(layer(x), other(x))
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("inputs, outputs", [(256, 256), (512, 128)])
@pytest.mark.parametrize("kind", [layers.Deformable, layers.Monarch])
def test_start_keeps_the_size_of_a_linear_layer(kind, inputs, outputs):
    """Deformable: the variance stays; Monarch: that of nn.Linear, 1/3, once a factor."""
    torch.manual_seed(3)
    with torch.no_grad():
        gain = float(torch.stack([kind(inputs, outputs)(torch.randn(50, inputs)).var() for _ in range(10)]).mean())
    assert gain == pytest.approx(1 if kind is layers.Deformable else 1 / 9, rel=0.35)


def test_fixed_butterfly_keeps_other_values_with_another_seed():
    one, same, other = (layers.FixedButterfly(64, 64, seed=seed) for seed in (1, 1, 2))
    x = torch.randn(3, 64)
    assert torch.equal(one(x), same(x)) and one.patterns == same.patterns and one.patterns != other.patterns
    wanted = structures.fixed_butterfly(64, 64, seed=1)
    np.testing.assert_allclose(one.double()(x.double()).detach().numpy(), wanted(x.double().numpy()), atol=1e-5)
    with pytest.raises(RuntimeError):
        other.load_state_dict(one.state_dict())


def test_circulant_is_the_convolution():
    layer = made("circulant")
    w, x = layer.weight.detach().numpy(), np.random.default_rng(0).normal(size=9)
    wanted = [sum(w[(j - i) % 9] * x[i] for i in range(9)) for j in range(9)]
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), wanted, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == 9
    assert layer.to_butterfly().factors[0].numel() == 81 and layer.to_butterfly().factors[0].dtype == torch.float64


# the invertible layer


@pytest.mark.parametrize("shape", [16, chain.mixed_radix((4, 3, 2)), chain.grouped(12, 12, 3)], ids=str)
def test_inverse(shape):
    torch.manual_seed(4)
    layer = layers.Invertible(shape, bias=True).double()
    n = layer.inputs
    assert float(layer.log_det().detach()) == pytest.approx(0, abs=1e-4)  # as it starts, in float32
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.1 * torch.randn_like(p)
    x = torch.randn(3, 2, n, dtype=torch.float64)
    assert torch.allclose(layer.solve(layer(x)), x, atol=1e-10)
    inverse = layer.inverse()
    assert torch.allclose(inverse(layer(x)), x, atol=1e-10) and torch.allclose(layer(inverse(x)), x, atol=1e-10)
    matrix = to_network(layer).layers[0].chain.dense()
    assert float(layer.log_det().detach()) == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-10)
    assert float(inverse.log_det().detach()) == pytest.approx(-np.linalg.slogdet(matrix)[1], abs=1e-10)


def test_a_flow_learns_through_log_det_and_solve():
    torch.manual_seed(5)
    layer = layers.Invertible(8, bias=True).double()
    y = torch.randn(300, 8, dtype=torch.float64) * torch.arange(1, 9) + 2
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)

    def loss():
        return layer(y).square().sum(-1).mean() / 2 - layer.log_det()

    before = loss().item()
    for _ in range(100):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    # the best a Gaussian can do: 8/2 + log|det covariance|/2 = 4 + log(8!)
    assert before > 50 and loss().item() == pytest.approx(4 + np.log(40320), abs=0.1)
    assert torch.autograd.gradcheck(layer.solve, (torch.randn(2, 8, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize(
    "make, error, text",
    [
        (
            lambda: layers.Invertible(chain.monarch(8, 4, 2)),
            ValueError,
            r"Invertible: factor 1, \(1, 4, 2, 2\), has no square",
        ),
        (lambda: layers.Invertible(structures.csc(9, 3)), ValueError, "Invertible: factor 0, .*has no square"),
        (lambda: layers.Circulant(9)(torch.zeros(2, 8)), ValueError, r"Circulant takes \(..., 9\), got \(2, 8\)"),
        (lambda: layers.Circulant(0), ValueError, "Circulant: inputs must be a positive integer, got 0"),
        (lambda: layers.Pointwise(nn.Linear(3, 3)), TypeError, "Pointwise takes a layer of bfthw.nn, got Linear"),
        (lambda: layers.Pointwise(layers.LowRank(3, 3, 1))(torch.zeros(2, 3)), ValueError, r"takes \(N, C, H, W\)"),
    ],
)
def test_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("code", [way.code for way in structures.ways(58)])
def test_pointwise_takes_the_ways(code):
    layer = layers.ButterflyPointwise(58, patterns=eval(code, vars(structures)))
    assert layer(torch.randn(2, 58, 2, 2)).shape == (2, 58, 2, 2) and layer.residual
