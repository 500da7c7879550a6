"""Mixed precision: budgets hold, nothing is worse than uniform bits, the settings give what was measured."""

import re
from functools import partial

import numpy as np
import pytest
from test_quantize import random_network
from test_settings import toml
from typer.testing import CliRunner

from bfthw import Chain, Factor, Layer, Network, Settings, chain, load_integers, make_settings, report, save
from bfthw import search as mixed
from bfthw.cli.main import app
from bfthw.quantize import choose_formats, prepare, quantise
from bfthw.search import search, shares
from rtl_gen import make_plan
from rtl_gen.engines.pairs import pair_bits
from rtl_gen.tech import TARGETS

seeds = pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
FIXED = Settings(activation_bits=14, input_bits=12, equalise=False)


def data(seed, inputs=16, count=80):
    return np.random.default_rng(seed).normal(size=(count, inputs))


def measured(network, settings, x):
    pair = prepare(network, settings=settings, calibration=x)
    integers = quantise(*pair)
    return report(pair[0], integers, x)[-1].sqnr, integers


def weights(network):
    return [f.values.size for layer in network.layers for f in layer.chain.factors]


def uneven():
    """A chain whose first factor feeds all noise into every output, and a large last one that is exact in 3 bits."""
    rng = np.random.default_rng(0)
    first = Factor(rng.laplace(size=(1, 4, 16, 1)))
    last = Factor(rng.integers(-3, 4, (1, 64, 4, 1)) / 4)
    return Network(layers=[Layer(chain=Chain([first, last]), name="a")])


@seeds
@pytest.mark.parametrize("settings", [FIXED, Settings(calibration_method="least-squares", row_exponents=2)])
def test_never_worse_than_uniform_bits(seed, settings):
    network, x = random_network(seed), data(seed)
    sizes = weights(network)
    for average in (2.5, 4, 6.3):
        budget = int(sum(sizes) * average)
        found = search(network, x, rom_bits=budget, settings=settings)
        assert found.rom_bits == np.dot(sizes, found.bits) <= budget
        bits = int(average)
        uniform, _ = measured(network, settings.model_copy(update={"weight_bits": bits}), x)
        assert found.sqnr >= uniform and found.uniform[1] <= found.sqnr
        assert found.uniform[0] <= bits and all(2 <= own <= 16 for own in found.bits)


@seeds
def test_settings_give_what_was_measured(seed, tmp_path):
    network, x = random_network(seed), data(seed)
    own = Settings(activation_bits=12, layers={"layer.1": {"row_exponents": 2, "lanes": 1}})
    found = search(network, x, rom_bits=5 * sum(weights(network)), settings=own)
    again = make_settings(toml(tmp_path, found.settings.to_toml()))
    sqnr, integers = measured(network, again, x)
    assert sqnr == found.sqnr and tuple(f.weights.width for f in integers.factors) == found.bits
    assert again.layers["layer.1"].row_exponents == 2 and again.layers["layer.1"].lanes == 1
    assert again.activation_bits == 12 and again.equalise is not None


def test_bits_go_where_they_help():
    network, x = uneven(), data(0)
    found = search(network, x, rom_bits=64 * 12 + 256 * 3, settings=FIXED)
    assert found.bits == (12, 3) and found.uniform[0] == 4 and found.sqnr > found.uniform[1] + 20


@seeds
def test_uniform_bits_are_the_floor(seed, monkeypatch):
    """Even where the noises, added up, lead astray."""
    network, x = random_network(seed), data(seed)
    monkeypatch.setattr(mixed, "_path", lambda trial, noise, bits: iter([(2,) * len(bits)]))
    monkeypatch.setattr(mixed, "_refined", lambda trial, noise, caps, bits, budget: bits)
    found = search(network, x, rom_bits=6 * sum(weights(network)), settings=FIXED)
    assert set(found.bits) == {6} and found.uniform == (6, found.sqnr)


def brute(network, x, budget, widths):
    best = -np.inf
    for bits in np.ndindex(*[len(widths)] * len(weights(network))):
        bits = [widths[b] for b in bits]
        if np.dot(weights(network), bits) <= budget:
            own = FIXED.model_copy(update={"weight_bits": bits})
            best = max(best, report(network, quantise(network, choose_formats(network, own, x)), x)[-1].sqnr)
    return best


@seeds
def test_near_the_best_of_all(seed):
    network, x = Network(layers=[Layer(chain=Chain.random(chain.monarch(12, 16, 4), seed))]), data(seed)
    for average in (3.4, 5.2):
        budget = int(average * sum(weights(network)))
        found = search(network, x, rom_bits=budget, settings=FIXED)
        assert found.sqnr >= brute(network, x, budget, range(2, 11)) - 0.5
        for m in range(2):  # and no bit is left over
            bits = [own + (k == m) for k, own in enumerate(found.bits)]
            if np.dot(weights(network), bits) <= budget:
                assert measured(network, FIXED.model_copy(update={"weight_bits": bits}), x)[0] <= found.sqnr


def test_exchanges_mend_a_bad_start(monkeypatch):
    network, x = uneven(), data(0)
    monkeypatch.setattr(mixed, "_path", lambda trial, noise, bits: iter([(2, 5)]))
    assert search(network, x, rom_bits=64 * 12 + 256 * 3, settings=FIXED).sqnr > 40


@seeds
def test_the_fewest_bits_for_an_sqnr(seed):
    network, x = random_network(seed), data(seed)
    for wanted in (10.0, 25.0):
        found = search(network, x, min_sqnr=wanted, settings=FIXED)
        assert found.sqnr >= wanted and measured(network, found.settings, x)[0] == found.sqnr
        bits = found.uniform[0]
        assert measured(network, FIXED.model_copy(update={"weight_bits": bits}), x)[0] >= wanted
        if bits > 2:
            assert measured(network, FIXED.model_copy(update={"weight_bits": bits - 1}), x)[0] < wanted
        assert found.rom_bits <= bits * sum(weights(network))
        for m, own in enumerate(found.bits):  # no bit too many
            if own > 2:
                layers, less = {}, [b - (k == m) for k, b in enumerate(found.bits)]
                for layer in network.layers:
                    layers[layer.name] = {"weight_bits": [less.pop(0) for _ in layer.chain.factors]}
                assert measured(network, Settings(**FIXED.model_dump(exclude_unset=True), layers=layers), x)[0] < wanted


def test_multipliers():
    assert shares((4, 5, 8), [4, 4, 4]) == 2.5
    network, x = uneven(), data(0)
    pairs = partial(pair_bits, "ecp5")
    settings = Settings(activation_bits=10, input_bits=8, equalise=False)  # two products: 4 bits in this layer
    found = search(network, x, multipliers=1.5, settings=settings, pairs=pairs)
    assert found.multipliers == 1.5 and found.bits[0] > 5 and found.bits[1] <= 4  # the exact ones are narrow
    both = search(network, x, multipliers=1.5, rom_bits=64 * 7 + 256 * 4, settings=settings, pairs=pairs)
    assert both.multipliers <= 1.5 and both.rom_bits <= 64 * 7 + 256 * 4 and both.sqnr <= found.sqnr
    assert search(network, x, multipliers=1, settings=settings, pairs=pairs).bits == (4, 4)
    assert search(network, x, multipliers=2, settings=settings, pairs=pairs).sqnr >= found.sqnr
    least = search(network, x, multipliers=1.5, min_sqnr=20, settings=settings, pairs=pairs)
    assert least.sqnr >= 20 and least.multipliers <= 1.5 and least.rom_bits < found.rom_bits
    with pytest.raises(ValueError, match="0.5 multipliers are impossible: 2 factors need 1 with two products in each"):
        search(network, x, multipliers=0.5, settings=settings, pairs=pairs)
    wide = Settings(activation_bits=16, input_bits=16)
    with pytest.raises(ValueError, match="1.5 multipliers are impossible: 2 factors need 2"):
        search(network, x, multipliers=1.5, settings=wide, pairs=pairs)
    alone = search(network, x, rom_bits=64 * 2 + 256 * 2, settings=settings)
    assert alone.multipliers == 2  # nobody said what shares one


@pytest.mark.parametrize("bits", [{"activation_bits": 8}, {"activation_bits": 10, "input_bits": 6}], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_shared_multipliers_are_built(target, bits):
    """What the budget answers, the engine takes as it is, at the most bits that it has."""
    layers = [Layer(chain=Chain.random(chain.bft(16, 4), seed), name=f"l{seed}") for seed in range(2)]
    network, x = Network(layers=layers), data(5)
    for method in ("percentile", "least-squares"):  # the second would take the most negative weight
        own = Settings(engine="folded", paired=True, target=target, calibration_method=method, **bits)
        found = search(network, x, multipliers=2, settings=own, pairs=partial(pair_bits, target))
        widest = {8: 5, 10: 4}[bits["activation_bits"]] - (target == "ice40")  # whose operands have 16 bits, not 18
        assert set(found.bits) == {widest} and found.multipliers == 2
        spec = make_plan(quantise(*prepare(network, settings=found.settings, calibration=x)), found.settings)
        assert spec.multipliers == 4  # two a layer, of radix 4
        more = found.settings.model_copy(update={"layers": {}, "weight_bits": widest + 1})
        with pytest.raises(ValueError, match=f"weights of {widest} bits would"):
            spec = make_plan(quantise(*prepare(network, settings=more, calibration=x)), more)
            assert spec.engines


@pytest.mark.parametrize("budget", [{"rom_bits": 32 * 14}, {"multipliers": 2}, {"min_sqnr": 8}], ids=str)
def test_what_paired_engines_take_is_found_by_every_budget(budget):
    network, x = Network(layers=[Layer(chain=Chain.random(chain.bft(4, 2), 1))]), data(7)[:, :4]
    own = Settings(engine="folded", paired=True, activation_bits=10, input_bits=6)
    budget |= {"pairs": partial(pair_bits, "ice40")}
    found = search(network, x, settings=own, **budget)
    assert max(found.bits) <= 3 and found.multipliers == 1
    with pytest.raises(ValueError, match="layer '0': its inputs leave no bits for two products"):
        search(network, x, settings=own.model_copy(update={"input_bits": 16}), **budget)


def test_paired_weights_are_symmetric():
    """-1 would be the most negative number, which a pair can't take; with a multiplier of its own it is."""
    values = np.array([[[[-1.0], [0.5]], [[0.25], [-0.75]]]])
    network, pair = Network(layers=[Layer(chain=Chain([Factor(values)]))]), Settings(paired=True)
    alone, paired = (choose_formats(network, own).layers[0].factors[0].weights for own in (Settings(), pair))
    assert alone.quantise(values).min() == alone.lo == -128 and paired.frac == alone.frac - 1
    fine = Network(layers=[Layer(chain=Chain([Factor(-values)]))])
    assert choose_formats(fine, Settings()) == choose_formats(fine, pair)


def test_progress_and_equalisation():
    network, x, seen = random_network(2), data(2), []
    found = search(network, x, rom_bits=5 * sum(weights(network)), progress=seen.append)
    assert seen == sorted(seen) and 0.8 < seen[-1] <= 1
    ways = [
        search(network, x, rom_bits=5 * sum(weights(network)), settings=Settings(equalise=way)).sqnr
        for way in (False, True)
    ]
    assert found.sqnr == max(ways)


@pytest.mark.parametrize(
    "how, text",
    [
        ({}, "name a budget of ROM bits, of multipliers, or an SQNR"),
        ({"rom_bits": 9, "min_sqnr": 9}, "exclude each other"),
        ({"multipliers": 9}, "a budget of multipliers needs `pairs`"),
        ({"rom_bits": 639}, "639 ROM bits are impossible: 320 weights of 2 bits need 640"),
        ({"min_sqnr": 300}, r"an SQNR of 300 dB is out of reach: weights .* give \d+\.\d dB"),
        ({"rom_bits": 999, "settings": Settings(weight_bits=8)}, "weight_bits is what is searched for"),
        (
            {"rom_bits": 999, "settings": Settings(layers={"a": {"weight_bits": 8}})},
            "weight_bits is what is searched for",
        ),
        ({"rom_bits": 999, "settings": Settings(layers={"b": {}})}, "no layer 'b'"),
    ],
    ids=["nothing", "both", "pairs", "small", "sqnr", "bits", "bits-of-a-layer", "layer"],
)
def test_refused(how, text):
    with pytest.raises(ValueError, match=text):
        search(uneven(), data(0), **how)


def test_search_command(tmp_path):
    save(uneven(), tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", data(0))
    common = [str(tmp_path / "a.safetensors"), "--calibration", str(tmp_path / "x.npy")]
    toml_path = str(tmp_path / "s.toml")
    result = CliRunner().invoke(
        app, ["search", *common, "--budget-rom-bits", "1600", "--activation-bits", "14", "-o", toml_path]
    )
    assert result.exit_code == 0 and re.search(r"SQNR \d+\.\d dB \(uniform 5 bits", result.output), result.output
    result = CliRunner().invoke(app, ["quantize", *common, "--settings", toml_path, "-o", str(tmp_path / "q.npz")])
    assert result.exit_code == 0, result.output
    widths = [f.weights.width for f in load_integers(tmp_path / "q.npz").factors]
    assert np.dot(widths, [64, 256]) <= 1600 and widths[0] > 5 and make_settings(toml_path).activation_bits == 14
    (tmp_path / "own.toml").write_text('target = "ice40"\nactivation_bits = 8\n')
    how = ["--budget-multipliers", "1", "--settings", str(tmp_path / "own.toml"), "-o", toml_path]
    result = CliRunner().invoke(app, ["search", *common, *how])  # an operand of 16 bits
    assert result.exit_code == 0 and make_settings(toml_path).layers["a"].weight_bits == [4, 4], result.output
    result = CliRunner().invoke(app, ["search", *common, "--min-sqnr", "20"])
    assert result.exit_code == 0 and "weight_bits = [" in result.output
    result = CliRunner().invoke(app, ["search", str(tmp_path / "q.npz"), *common[1:], "--min-sqnr", "20"])
    assert isinstance(result.exception, ValueError) and "name the float checkpoint" in str(result.exception)
