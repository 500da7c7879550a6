"""Weights of any size: bits that cannot reach the last bit of a stage's output go, with a note; nothing else does."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from test_quantize import random_network, random_settings
from typer.testing import CliRunner

from bfthw import Chain, Factor, Layer, Network, QFormat, Settings, chain, compile, load_integers, save
from bfthw.check import dropped
from bfthw.choose import GUARD, _Stage, choose_formats, weight_format
from bfthw.cli.main import app
from bfthw.quantize import checked, prepare, quantise

seeds = pytest.mark.parametrize("seed", range(12), ids="seed-{}".format)


def dead_weights(size=1e-4):
    rng = np.random.default_rng(3)
    factors = [Factor(rng.normal(size=tuple(p)) * size / np.sqrt(2)) for p in chain.bft(16, 2)]
    return Network(layers=[Layer(chain=Chain(factors), bias=np.tile([1.0, -1.0], 8))])


@pytest.mark.parametrize("calibrated", [False, True])
def test_dead_weights(calibrated, tmp_path):
    """1e-16 beside a bias of one: a constant, in float32 as well."""
    x = np.random.default_rng(0).uniform(-1, 1, (200, 16))
    np.save(tmp_path / "x.npy", x)
    save(dead_weights(), tmp_path / "dead.npz")
    command = ["quantize", str(tmp_path / "dead.npz"), "-o", str(tmp_path / "q.npz")]
    result = CliRunner().invoke(app, [*command, *(["--calibration", str(tmp_path / "x.npy")] if calibrated else [])])
    assert result.exit_code == 0 and "warning" not in result.output, result.output
    note = r"note: 0:3: weights, 0\.0\d+ at most, cannot .* \(10 bits, 2\^-8\): all became zero"
    assert re.search(note, result.output)
    integers = load_integers(tmp_path / "q.npz")
    assert np.array_equal(integers.predict(x), np.tile([1.0, -1.0], (200, 8)))
    *front, last = integers.factors
    assert not last.values.any() and last.shift < 20 and all(f.values.any() for f in front)


def weights_of(factor):
    scale = factor.weights.frac + (0 if factor.exponents is None else factor.exponents[:, :, None, :])
    return np.ldexp(factor.values.astype(float), -scale)


def check_reach(network, integers):
    """What a stage lost by dropped bits, beyond half a step of weights that fill their format, is below GUARD."""
    factors, count = iter(integers.factors), 0
    for layer in network.layers:
        x0 = None
        for own in layer.scaled:
            factor = next(factors)
            x0, last = x0 or factor.input, np.ldexp(1.0, -factor.output.frac)
            parts = [(own.values, weights_of(factor), factor.values, factor.weights, factor.input)]
            if factor.skip is not None:
                fmt = factor.skip_weights
                parts.append((layer.scale, fmt.dequantise(factor.skip), factor.skip, fmt, x0))
            for floats, kept, ints, fmt, x in parts:
                if int(np.abs(ints).max()).bit_length() < fmt.width - 1 and floats.any():
                    lost = np.abs(kept - floats) * np.ldexp(1.0, x.width - 1 - x.frac)
                    lost = chain.apply(lost, np.ones((1, own.pattern.inputs)), own.support) if lost.ndim == 4 else lost
                    assert lost.max() <= last * 2.0**-GUARD
                    count += 1
    assert count == len(dropped(network, integers))
    return count


def any_network(seed):
    """Layers of any size, with dead rows, denormals, scales and biases of any other."""
    rng, layers = np.random.default_rng(seed), []

    def size():
        return 10.0 ** rng.uniform(*[(-30, 30), (-3, 3), (-12, 0)][rng.integers(3)])

    for n in range(int(rng.integers(1, 4))):
        factors = []
        for p in chain.bft(16, 4):
            values = rng.normal(size=tuple(p)) * size()
            if rng.random() < 0.3:
                values[:, rng.integers(4)] = rng.choice([0.0, 5e-324, 1e-310])
            factors.append(Factor(values if rng.random() < 0.9 else np.full(tuple(p), 5e-324)))
        scale = rng.normal(size=16) * size() if rng.random() < 0.4 else None
        bias = rng.normal(size=16) * size() if rng.random() < 0.5 else None
        rest = {"relu": bool(rng.integers(2)), "residual": bool(rng.random() < 0.5)}
        layers.append(Layer(chain=Chain(factors), scale=scale, bias=bias, name=f"l{n}", **rest))
    return Network(layers=layers)


def test_any_finite_network_gives_integers_or_one_error():
    """Seeds 0 to 79; what is right or said is right or said, what is refused names layer and factor."""
    ends = {"plain": 0, "dropped": 0, "refused": 0}
    for seed in range(80):
        network, own = any_network(seed), random_settings(seed)
        x = np.random.default_rng(seed).uniform(-1, 1, (40, 16)) if seed % 2 else None
        try:
            prepared, formats, integers, found = checked(network, settings=own, calibration=x)
        except ValueError as error:
            named = r"layer 'l\d', factor \d: |the float network gives infinity or NaN"
            assert re.match(named, str(error)), (seed, error)
            ends["refused"] += 1
            continue
        assert quantise(prepared, formats).output == integers.output
        try:
            ends["dropped" if check_reach(prepared, integers) else "plain"] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        assert found.refusal or found.warnings or found.outputs.score >= 15, seed
        assert len(dropped(prepared, integers)) == sum("cannot reach" in note for note in found.notes), seed
    assert ends["plain"] > 10 and ends["dropped"] > 10 and ends["refused"] < 30, ends


@seeds
@pytest.mark.parametrize("calibrated", [False, True])
def test_formats_that_fit_are_left_alone(seed, calibrated, monkeypatch):
    network, settings = random_network(seed), random_settings(seed)
    x = np.random.default_rng(seed).normal(size=(50, 16)) if calibrated else None
    monkeypatch.setattr(_Stage, "reaching", lambda *given: pytest.fail("every bit fits"))
    integers = quantise(network, choose_formats(network, settings, x))
    assert not dropped(network, integers)


def one(value, *, settings=None, **rest):
    layer = Layer(chain=Chain([Factor(np.full((1, 4, 4, 1), value))]), name="a", **rest)
    return Network(layers=[layer]), choose_formats(Network(layers=[layer]), settings or Settings())


def test_what_is_dropped_is_no_more_than_needed():
    """Weights of 2^-60 beside a bias of one: 2^-8 is the output's last bit, 4 bits below it are kept, and 2 for four
    products of at most one; half a step is the most that a weight is off.
    """
    network, formats = one(2.0**-60, bias=np.ones(4))
    (own,) = formats.layers[0].factors
    assert own.output == QFormat(10, 8) and own.weights == QFormat(8, 8 + GUARD + 2 - 1)
    network, formats = one(2.0**-60, bias=np.ones(4), settings=Settings(row_exponents=3, input_frac=3))
    (own,) = formats.layers[0].factors  # inputs of up to 16
    assert own.output == QFormat(10, 8) and own.weights == QFormat(8, 8 + GUARD + 2 + 4 - 1)
    # the residual's scale: of one product, and inputs of at most one
    network, formats = one(1.0, residual=True, scale=np.full(4, 2.0**-80), bias=np.ones(4))
    (own,) = formats.layers[0].factors
    assert formats.layers[0].skip == QFormat(8, own.output.frac + GUARD - 1)


def test_layers_that_are_not_square():
    factors = [Factor(f.values * 1e-15) for f in Chain.random(chain.monarch(12, 16, 4), 0).factors]
    for own in ({}, {"scale": -np.ones(12)}):
        network = Network(layers=[Layer(chain=Chain(factors), bias=np.linspace(1, 1.9, 12), relu=True, **own)])
        integers = quantise(network, choose_formats(network))
        assert check_reach(network, integers) == 1 and integers.output == QFormat(10, 8)


def test_a_residual_reaches_both_ways():
    """7.5 and a residual of -1 to 1, whatever the sign of its scale: 8.5 at most."""
    for scale in (1.0, -1.0):
        network, formats = one(2.0**-70, residual=True, scale=np.full(4, scale), bias=np.full(4, 7.5))
        (own,) = formats.layers[0].factors
        assert own.output == QFormat(10, 5) and own.weights.frac == 5 + GUARD + 2 - 1


def test_what_cannot_be_dropped_is_refused():
    """Wide formats, all of whose bits show; a residual that joins as it is; but a bias below everything is zero."""
    wide = Settings(weight_bits=24, activation_bits=24, input_bits=24, row_exponents=8)
    values = np.linspace(0.1, 1, 1024) * np.array([[1.0], [0.01]])
    network = Network(layers=[Layer(chain=Chain([Factor(values[None, :, :, None])]), name="a")])
    with pytest.raises(ValueError, match=r"layer 'a', factor 0: integer overflow: the accumulator needs 6\d bits"):
        choose_formats(network, wide)
    with pytest.raises(ValueError, match=r"layer 'a', factor 0: integer overflow: .* 62 are the limit"):
        one(1e30, residual=True)
    _, formats = one(1e300, bias=np.full(4, 1e-300))
    assert formats.layers[0].bias_width == 2  # of zeros


def test_outputs_finer_than_all_that_meets_in_them():
    """Calibration data that cancel: what is left is float's own noise, and no accumulator's."""
    values = np.array([1.0, 0.1, -1.1]).reshape(1, 1, 3, 1)
    network = Network(layers=[Layer(chain=Chain([Factor(values)]), name="a")])
    x = np.repeat(np.random.default_rng(0).uniform(-1, 1, (50, 1)), 3, axis=1)
    formats = choose_formats(network, Settings(), x)
    assert 0 < np.abs(network(x)).max() < 1e-15
    (own,) = formats.layers[0].factors
    assert own.output == QFormat(10, formats.input.frac + own.weights.frac)


@pytest.mark.parametrize("method", ["percentile", "least-squares"])
@pytest.mark.parametrize("value", [5e-324, 1e-310, 2.0**-1000])
def test_denormals_are_zero(value, method):
    assert weight_format(np.full((1, 2, 2, 1), value), 8, 0, method) == QFormat(8, 7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer = Layer(chain=Chain([Factor(np.full((1, 2, 2, 1), value))]), bias=np.ones(2))
        integers = compile(Network(layers=[layer]))
    assert not integers.factors[0].values.any() and "all became zero" in str(caught[0].message)


@seeds
def test_given_formats_have_no_notes(seed):
    """Trained weights need not fill their formats."""
    network = random_network(seed)
    formats = choose_formats(network, Settings(weight_bits=6))
    chains = [Chain(replace(f, values=f.values / 8) for f in layer.chain.factors) for layer in network.layers]
    small = replace(network, layers=[replace(layer, chain=own) for layer, own in zip(network.layers, chains)])
    *_, found = checked(small, formats=formats)
    assert not found.notes
    assert prepare(small, formats=formats)[1] == formats
