"""Quantisation-aware layers: integers equal to the golden model's, gradients straight through."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from bfthw import Chain, Factor, Layer, Network, Settings, Window, chain, compile  # noqa: E402
from bfthw.qat import QuantisedNetwork  # noqa: E402
from bfthw.quantize import choose_formats, quantise  # noqa: E402

seeds = pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)


def random_network(seed, *, scale=True, bias=True, relu=True):
    """BFT with residual, then a mixed radix layer without, then a dense one; float64."""
    rng = np.random.default_rng(seed)

    def parts(n):
        return {"scale": rng.uniform(-1.5, 1.5, n) if scale else None, "bias": rng.normal(size=n) if bias else None}

    return Network(
        layers=(
            Layer(chain=Chain.random(chain.bft(16, 4), seed), residual=True, relu=relu, name="one", **parts(16)),
            Layer(chain=Chain.random(chain.monarch(12, 16, 4), seed + 50), relu=relu, name="two", **parts(12)),
            Layer(chain=Chain.random(chain.mixed_radix((3, 2, 2)), seed), residual=True, name="three", **parts(12)),
            Layer(chain=Chain.random(chain.dense(5, 12), seed + 90), bias=rng.normal(size=5), name="four"),
        )
    )


VARIANTS = {
    "plain": ({"scale": False, "bias": False, "relu": False}, Settings()),
    "bias-relu": ({"scale": False}, Settings()),
    "scale": ({"bias": False}, Settings(weight_bits=6, activation_bits=8)),
    "all": ({}, Settings()),
    "all-rows": ({}, Settings(row_exponents=3, weight_bits=5)),
    "narrow": ({}, Settings(weight_bits=3, activation_bits=4, input_bits=4, row_exponents=1)),
}


@seeds
@pytest.mark.parametrize("parts, settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("calibrated", [False, True], ids=["", "calibrated"])
def test_quantised_integers_are_golden(seed, parts, settings, calibrated):
    network = random_network(seed, **parts)
    rng = np.random.default_rng(seed)
    # the float inputs go beyond the range, so that the input saturates as well
    formats = choose_formats(network, settings, rng.normal(size=(200, 16)) if calibrated else None)
    x = rng.normal(scale=2.0, size=(300, 16))
    module = QuantisedNetwork(network, formats)
    for own, given in zip(module.to_network().layers, network.layers):
        assert all(np.array_equal(f.values, g.values) for f, g in zip(own.chain.factors, given.chain.factors))
    for _ in range(2):  # as given, then with weights that training has moved, some beyond their formats
        golden = quantise(module.to_network(), formats)
        wanted = golden(golden.input.quantise(x))
        got = module.integers(torch.from_numpy(x))
        assert got.dtype == torch.int64 and np.array_equal(got.numpy(), wanted)
        assert np.array_equal(module(torch.from_numpy(x)).detach().numpy(), golden.predict(x))
        again = compile(module.to_network())
        assert np.array_equal(again(again.input.quantise(x)), wanted)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.from_numpy(rng.normal(scale=0.3, size=p.shape)))


def test_quantised_float32_inputs_and_parameters():
    network = random_network(3)
    formats = choose_formats(network, Settings())
    x = torch.randn(5, 7, 16, generator=torch.Generator().manual_seed(3))
    module = QuantisedNetwork(network, formats).float()
    golden = compile(module.to_network())
    wanted = golden.predict(x.reshape(-1, 16).numpy()).reshape(5, 7, 5)
    assert np.array_equal(module(x).detach().numpy(), wanted)


def test_halves_go_up():
    """At the input, behind it a lone weight of one: 0.5, 1.5, -0.5, -2.5 -> 1, 2, 0, -2; torch.round would give 0, 2,
    0, -2.
    """
    network = Network(layers=(Layer(chain=Chain.random(chain.dense(1, 1), 0)),))
    formats = choose_formats(network, Settings(input_frac=0))
    module = QuantisedNetwork(network, formats)
    factor = formats.layers[0].factors[0]
    with torch.no_grad():
        module.layers[0].factors[0].fill_(2.0**-factor.weights.frac)
    factor = replace(factor, output=replace(formats.input, frac=factor.weights.frac))
    module.formats = replace(formats, layers=(replace(formats.layers[0], factors=(factor,)),))
    got = module.integers(torch.tensor([[0.5], [1.5], [-0.5], [-2.5], [1000.0], [-1000.0]]))
    assert got.flatten().tolist() == [1, 2, 0, -2, 127, -128]


def test_the_float_just_below_a_half_goes_down():
    """floor(x + 1/2) in floats would take the sum 0.49999999999999994 + 0.5 for 1."""
    network = Network(layers=(Layer(chain=Chain.random(chain.dense(1, 1), 0)),))
    module = QuantisedNetwork(network, choose_formats(network, Settings(input_frac=0)))
    x = np.array([[np.nextafter(0.5, 0)], [0.5], [np.nextafter(-0.5, -1)]])
    golden = compile(module.to_network())
    wanted = golden(golden.input.quantise(x))
    assert np.array_equal(module.integers(torch.from_numpy(x)).numpy(), wanted) and wanted[0] == 0 != wanted[1]


def test_gradients_pass_rounding_and_stop_at_saturation():
    network = Network(layers=(Layer(chain=Chain.random(chain.dense(2, 2), 1), bias=np.zeros(2)),))
    formats = choose_formats(network, Settings(input_frac=0, input_bits=4), np.full((1, 2), 7.0))
    module = QuantisedNetwork(network, formats)
    weight = module.layers[0].factors[0]
    peak = formats.layers[0].factors[0].weights.dequantise(127)
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.11, -0.2], [3 * peak, 0.1]]).reshape(1, 2, 2, 1))  # one weight saturates
    x = torch.tensor([[0.3, 20.0]], dtype=torch.float64, requires_grad=True)  # one input saturates, at 7
    module(x)[0, 0].backward()
    q = torch.from_numpy(quantise(module.to_network(), formats).factors[0].values).flatten()
    step = formats.layers[0].factors[0].weights.dequantise(1)
    assert torch.equal(x.grad, torch.tensor([[q[0] * step, 0.0]]).double())
    assert torch.equal(weight.grad.flatten(), torch.tensor([0.0, 7.0, 0.0, 0.0]).double())
    assert torch.equal(module.layers[0].bias.grad, torch.tensor([1.0, 0.0]).double())

    module.zero_grad()
    module(torch.tensor([[1.0, 1.0]]))[0, 1].backward()
    assert torch.equal(weight.grad.flatten(), torch.tensor([0.0, 0.0, 0.0, 1.0]).double())

    module.zero_grad()
    with torch.no_grad():
        module.layers[0].bias[0] = 1e3  # the bias saturates, not the output
    module(torch.tensor([[0.0, 1.0]]))[0, 0].backward()
    assert not module.layers[0].bias.grad.any()
    assert torch.equal(weight.grad.flatten(), torch.tensor([0.0, 1.0, 0.0, 0.0]).double())

    module.zero_grad()
    with torch.no_grad():
        weight.fill_(peak)
    y = module(torch.tensor([[7.0, 7.0]]))
    assert y[0, 0] == formats.layers[0].factors[0].output.dequantise(511)  # the output saturates
    y[0, 0].backward()
    assert all(not p.grad.any() for p in module.parameters())


@seeds
def test_gradients_at_fine_formats_are_those_of_the_float_network(seed):
    network = random_network(seed)
    torch.manual_seed(seed)
    x = torch.randn(40, 16, dtype=torch.float64)
    fine = Settings(weight_bits=16, activation_bits=20, input_bits=18, row_exponents=2)
    quantised = QuantisedNetwork(network, choose_formats(network, fine, 1.1 * x.numpy()))
    plain = nn.Sequential(*(deepcopy(layer) for layer in quantised.layers))
    weight = torch.randn(40, 5, dtype=torch.float64)
    own = torch.autograd.grad((quantised(x) * weight).sum(), list(quantised.parameters()))
    wanted = torch.autograd.grad((plain(x) * weight).sum(), list(plain.parameters()))
    for g, w in zip(own, wanted, strict=True):
        assert (g - w).norm() < 1e-2 * w.norm()


@seeds
def test_training_lowers_the_loss(seed):
    """A coarse copy of a network learns to imitate the float network it came from."""
    network = random_network(seed)
    torch.manual_seed(seed)
    x = torch.randn(256, 16, dtype=torch.float64)
    wanted = torch.from_numpy(network(x.numpy()))
    formats = choose_formats(network, Settings(weight_bits=3, activation_bits=8), x.numpy())
    module = QuantisedNetwork(network, formats)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(torch.nn.functional.mse_loss(module(x), wanted))
        losses[-1].backward()
        if len(losses) == 1:
            assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())
        optimiser.step()
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_quantised_errors():
    network = random_network(0)
    formats = choose_formats(network, Settings())
    with pytest.raises(ValueError, match="formats for 4 layers, the network has 1"):
        QuantisedNetwork(nn.Sequential(nn.Linear(4, 4)), formats)
    module = QuantisedNetwork(network, formats)
    with pytest.raises(ValueError, match=r"takes \(..., 16\), got \(2, 8\)"):
        module(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="must be finite"):
        module.integers(torch.full((1, 16), torch.nan))
    wide = choose_formats(network, Settings(weight_bits=24, activation_bits=24, input_bits=24, row_exponents=8))
    with pytest.raises(ValueError, match=r"accumulator of \w+:\d needs \d+ bits, float64 is exact up to 53"):
        QuantisedNetwork(network, wide)(torch.zeros(1, 16))


@pytest.mark.parametrize("bits, dots", [(10, 24), (16, 36)], ids=["short", "long"])
def test_sums_of_each_channel_are_exact(bits, dots):
    """Convolutions of each channel alone, at the ends of their formats: float32 where that holds them, else float64."""
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], (1, 1, 9, 4)) * rng.uniform(0.99, 1, (1, 1, 9, 4))
    network = Network([Layer(chain=Chain([Factor(values)]), window=Window(3, padding=1))], (9, 8, 4))
    settings = Settings(weight_bits=bits, input_bits=bits, activation_bits=24, unsigned=False)
    x = rng.choice([-1, 1], (20, 9, 8, 4)) * rng.uniform(0.99, 1, (20, 9, 8, 4))
    golden = quantise(network, formats := choose_formats(network, settings, x))
    assert golden.factors[0].dot_width == dots
    found = QuantisedNetwork(network, formats).integers(torch.from_numpy(x))
    assert np.array_equal(found.numpy(), golden(golden.input.quantise(x)))
