"""Learned ranges: golden integers at every step, gradients by hand, and where they lead."""

from dataclasses import replace

import numpy as np
import pytest
from test_quantize import random_network

from bfthw import (
    Chain,
    Factor,
    Layer,
    Network,
    QFormat,
    Settings,
    chain,
    compile,
    load,
    save,
)
from bfthw.quantize import (
    FactorFormats,
    Formats,
    LayerFormats,
    choose_formats,
    quantise,
)

torch = pytest.importorskip("torch")

from bfthw.qat import QuantisedNetwork  # noqa: E402

seeds = pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
LEAST = {"calibration_method": "least-squares"}

VARIANTS = {
    "plain": Settings(),
    "narrow": Settings(weight_bits=3, activation_bits=5, input_bits=4),
    "rows": Settings(weight_bits=4, row_exponents=3, **LEAST),
}


@seeds
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_learned_integers_are_golden(seed, settings):
    network, rng = random_network(seed), np.random.default_rng(seed)
    formats = choose_formats(network, settings, rng.normal(size=(100, 16)))
    module, x = QuantisedNetwork(network, formats, learn_ranges=True), rng.normal(scale=2.0, size=(200, 16))
    assert module.formats == formats
    for step in range(4):
        assert (module.formats == formats) == (step == 0) and module.formats.input == formats.input
        golden = quantise(module.to_network(), module.formats)
        wanted = golden(golden.input.quantise(x))
        assert np.array_equal(module.integers(torch.from_numpy(x)).numpy(), wanted)
        assert np.array_equal(module(torch.from_numpy(x)).detach().numpy(), golden.predict(x))
        again = compile(module.to_network(), allow_constant=True)  # formats moved by chance may leave nothing
        assert np.array_equal(again(again.input.quantise(x)), wanted)
        for layer, own in zip(again.layers, module.formats.layers):
            assert own.bias_width == layer.factors[-1].bias_width
        with torch.no_grad():
            module.fractions.add_(torch.from_numpy(rng.normal(scale=1.5, size=len(module.fractions))))
            for p in module.layers.parameters():
                p.add_(torch.from_numpy(rng.normal(scale=0.2, size=p.shape)))


def test_learned_formats_survive_a_checkpoint(tmp_path):
    network = random_network(5)
    module = QuantisedNetwork(network, choose_formats(network, Settings()), learn_ranges=True)
    with torch.no_grad():
        module.fractions.add_(torch.linspace(-2, 2, len(module.fractions)))
    save(module.to_network(), tmp_path / "a.safetensors")
    loaded, x = load(tmp_path / "a.safetensors").network, np.random.default_rng(5).normal(size=(50, 16))
    assert loaded.formats == module.formats
    assert np.array_equal(compile(loaded).predict(x), module(torch.from_numpy(x)).detach().numpy())
    assert module.state_dict()["fractions"].dtype == torch.float64
    assert "fractions" not in QuantisedNetwork(network, choose_formats(network, Settings())).state_dict()


def single(weights, output, values, rows=0):
    """One factor (1, b, c, 1) with 8.4 inputs and given formats, its ranges learned."""
    network = Network(layers=[Layer(chain=Chain([Factor(np.array(values)[None, :, :, None])]))])
    factor = FactorFormats(weights=weights, output=output, rows=rows)
    formats = Formats(input=QFormat(8, 4), layers=(LayerFormats(factors=(factor,)),))
    return QuantisedNetwork(network, formats, learn_ranges=True)


def test_fractions_are_rounded_halves_up():
    module = single(QFormat(4, 2), QFormat(8, 2), [[0.6]])
    for given, wanted in (([2.5, 2.49], (3, 2)), ([-0.5, -0.51], (0, -1))):
        with torch.no_grad():
            module.fractions.copy_(torch.tensor(given))
        factor = module.formats.layers[0].factors[0]
        assert (factor.weights, factor.output) == (QFormat(4, wanted[0]), QFormat(8, wanted[1]))


def test_gradients_of_ranges():
    """d(step)/d(log2 step) of Jain et al., 2020, with the sign of fraction bits, for weights and output, by hand."""
    module = single(QFormat(4, 2), QFormat(8, 2), [[0.6]])  # the weight is 2.4 steps: 2
    y = module(torch.tensor([[3.0]]))
    y.backward()
    assert y.item() == 1.5
    assert module.fractions.grad.numpy() == pytest.approx([np.log(2) * (0.6 - 0.5) * 3, 0])  # 1.5 is exact: no rounding

    module = single(QFormat(4, 2), QFormat(8, 0), [[0.5]])
    y = module(torch.tensor([[3.5]]))  # 1.75 becomes 2
    y.backward()
    assert y.item() == 2 and module.fractions.grad.numpy() == pytest.approx([0, np.log(2) * (1.75 - 2)])

    module = single(QFormat(4, 2), QFormat(4, 1), [[5.0]])  # the weight saturates at 7/4
    y = module(torch.tensor([[1.0]]))
    y.backward()
    assert y.item() == 2.0 and module.layers[0].factors[0].grad.item() == 0  # 1.75 rounds up
    assert module.fractions.grad.numpy() == pytest.approx([-np.log(2) * 1.75, np.log(2) * (1.75 - 2)])

    module = single(QFormat(4, 2), QFormat(4, 1), [[1.0]])
    y = module(torch.tensor([[6.0]]))  # the output saturates at 7/2: coarser is better, and nothing reaches the weights
    y.backward()
    assert y.item() == 3.5 and module.fractions.grad.numpy() == pytest.approx([0, -np.log(2) * 3.5])


def test_gradients_of_ranges_with_row_exponents():
    """A row whose exponent can give way has no say in the range; one at its limits has."""
    module = single(QFormat(4, 0), QFormat(16, 8), [[6.3, 0], [1.3, 0], [0.27, 0]], rows=4)
    integers = quantise(module.to_network(), module.formats)
    assert integers.factors[0].exponents.ravel().tolist() == [0, 2, 4]
    for row, wanted in enumerate([6.3 - 6, 0, 0.27 - 0.25]):
        module.zero_grad()
        module(torch.tensor([[1.0, 1.0]]))[0, row].backward()
        assert module.fractions.grad[0].item() == pytest.approx(np.log(2) * wanted)


def test_ranges_learn_what_least_squares_finds():
    """From formats far too coarse and far too fine, training the fractions alone comes near the best of all formats."""
    rng = np.random.default_rng(8)
    network = Network(layers=[Layer(chain=Chain.random(chain.bft(16, 4), 8))])
    x = torch.from_numpy(rng.normal(size=(400, 16)))
    wanted = torch.from_numpy(network(x.numpy()))
    best = choose_formats(network, Settings(weight_bits=5, activation_bits=6, **LEAST), x.numpy())

    def error(formats):
        return float(np.square(quantise(network, formats).predict(x.numpy()) - wanted.numpy()).mean())

    def shifted(off):
        factors = [
            FactorFormats(weights=QFormat(5, f.weights.frac + off), output=QFormat(6, f.output.frac + off))
            for f in best.layers[0].factors
        ]
        return replace(best, layers=(LayerFormats(factors=tuple(factors)),))

    for off in (-2, 2):
        module = QuantisedNetwork(network, shifted(off), learn_ranges=True)
        optimiser = torch.optim.Adam([module.fractions], lr=0.05)
        for _ in range(150):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(module(x), wanted).backward()
            optimiser.step()
        assert error(module.formats) < 2 * error(best) < 0.5 * error(shifted(off))
