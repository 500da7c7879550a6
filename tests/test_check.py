"""After quantising: what became constant or too coarse is said, with a remedy that helps; what is right is not."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_quantize import random_network
from typer.testing import CliRunner

from bfthw import Chain, Factor, Layer, Network, QFormat, Settings, chain, compile, load, load_integers, save
from bfthw.calibrate import unusual
from bfthw.check import LIMIT, QuantisationWarning, check, measure, random_vectors
from bfthw.cli.main import app
from bfthw.quantize import checked, choose_formats, prepare, quantise

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"


def butterfly(seed, base=2, n=16, **rest):
    rng = np.random.default_rng(seed)
    factors = [Factor(rng.normal(size=tuple(p)) / np.sqrt(p.c)) for p in chain.bft(n, base)]
    return Layer(chain=Chain(factors), name=f"l{seed}", **rest)


def large_row():
    return Network(layers=[butterfly(3, scale=np.where(np.arange(16) == 3, 316.0, 1.0), bias=np.zeros(16))])


def deep():
    return Network(layers=[butterfly(seed, base=4) for seed in range(20)])


def data(count=300, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 16))


def even(seed=1):
    """A layer that 8 bits suit."""
    return Network(layers=[Layer(chain=Chain.random(chain.bft(16, 4), seed))])


def silent(network, **how):
    """`compile`, which must say nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantisationWarning)
        return compile(network, **how)


def said(network, **how):
    """The lines of `compile`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile(network, **how)
    return [str(warning.message) for warning in caught if warning.category is QuantisationWarning]


def remedy(line):
    """(settings, whether calibration data are asked for, dB promised) of a warning."""
    how, promised = re.search(r"; (--[^;]*) raises the worst to (-?[\d.]+) dB", line).groups()
    options = dict(re.findall(r"--([a-z-]+) (\d+)", how))
    settings = {key.replace("-", "_"): int(value) for key, value in options.items()}
    return Settings(**settings), "--calibration" in how, float(promised)


# what is measured


def test_measured_by_hand():
    wanted = np.array([[1.0, 5.0, 3.0, 7.0], [-1.0, 5.0, 3.0 + 1e-7, 9.0]])
    got = np.array([[1.1, 5.5, 3.0, 8.0], [-1.0, 5.0, 3.0, 8.0]])
    found = measure(wanted, got)
    assert found.total == pytest.approx(10 * np.log10((wanted**2).sum() / (0.01 + 0.25 + 1 + 1)), abs=1e-6)
    assert found.each[0] == pytest.approx(10 * np.log10(2 / 0.01)) and found.each[3] == pytest.approx(0)
    assert np.isnan(found.each[1:3]).all()  # constant, and constant but for what a float32 would not see
    assert found.constant.tolist() == [False, False, False, True]
    assert found.score == pytest.approx(0) and not found.all_constant
    assert measure(wanted[:, 1:], got[:, 1:]).all_constant  # nothing that varies is left
    dead = measure(wanted[:, 1:2], wanted[:, 1:2])
    assert not dead.all_constant and dead.score == np.inf
    assert measure(wanted, wanted + np.array([1, 0, 0, 0])).score == pytest.approx(0)  # an offset is an error
    assert measure(wanted * [1, 1, 1, 0.25], got * [1, 1, 1, 0.25]).score == pytest.approx(0)


@pytest.mark.parametrize("fmt", [QFormat(8, 7), QFormat(2, 0), QFormat(1, 0), QFormat(24, -3)], ids=str)
def test_random_vectors_are_the_inputs_format(fmt):
    wide, smaller = random_vectors(fmt, 50, 96)
    for x in (wide, smaller):
        assert x.shape == (96, 50) and np.array_equal(fmt.dequantise(fmt.quantise(x)), x)
    q = fmt.quantise(wide)
    assert (q.min() == fmt.lo and q.max() == fmt.hi) or fmt.width > 12
    assert q.min() < fmt.lo * 0.99 and q.max() >= fmt.hi * 0.99
    q = fmt.quantise(smaller)
    for n in range(6):
        positive, both = q[n::12], q[n + 6 :: 12]
        assert positive.min() >= 0 and positive.max() <= fmt.hi >> n >= both.max() >= both.min() >= -(fmt.hi >> n)
        assert positive.max() > 0.9 * (fmt.hi >> n) or not fmt.hi >> n
    assert np.array_equal(random_vectors(fmt, 50, 96)[0], wide)
    assert fmt.width == 1 or not np.array_equal(random_vectors(fmt, 50, 96, seed=1)[0], wide)


# one row far larger than the others


@pytest.mark.parametrize("calibration", [None, data()], ids=["blind", "calibrated"])
def test_a_large_row_is_said_and_the_remedy_helps(calibration):
    network = large_row()
    (line,) = said(network, calibration=calibration)
    outputs = int(re.search(r"(\d+) of 16 outputs below 15 dB", line)[1])
    assert outputs > 9 and "all together 3" in line, line  # dB: fine as a whole
    assert int(re.search(r"(\d+) of 16 outputs became constant", line)[1]) == (11 if calibration is None else 1), line
    settings, calibrate, promised = remedy(line)
    assert settings.row_exponents and settings.activation_bits > 10 and not calibrate and promised >= LIMIT
    assert not said(network, settings=settings, calibration=calibration)
    *_, found = checked(network, settings=settings, calibration=calibration)
    assert found.outputs.score == pytest.approx(promised, abs=0.06)
    for less in ({"row_exponents": settings.row_exponents}, {"activation_bits": settings.activation_bits}):
        assert said(network, settings=Settings(**less), calibration=calibration)  # either alone does not do


def test_the_outputs_that_are_named_are_those(seed=5):
    network = large_row()
    *_, integers, found = checked(network)
    x = np.random.default_rng(seed).uniform(-1, 1, (2000, 16))
    still = np.flatnonzero(np.ptp(integers.predict(x), axis=0) == 0)
    named = re.search(r"became constant \(number ([\d, ]+)", found.warnings[0])[1]
    assert 6 < len(still) < 16 and [*map(int, named.split(","))] == still[:6].tolist()
    assert f"{len(still)} of 16 outputs became constant" in found.warnings[0]
    worst = int(re.search(r"the worst, output (\d+)", found.warnings[0])[1])
    assert found.outputs.each[worst] == np.nanmin(found.outputs.each)


def test_layers_of_their_own_settings_follow_the_remedy():
    own = Settings(layers={"l3": {"activation_bits": 9, "weight_bits": 8}}, equalise=False)
    (line,) = said(large_row(), settings=own)
    settings, *_ = remedy(line)
    assert not said(large_row(), settings=settings.model_copy(update={"equalise": False}))


# nothing left at all


def test_constant_integers_are_refused():
    network = deep()
    with pytest.warns(QuantisationWarning), pytest.raises(ValueError) as caught:
        compile(network)
    text = str(caught.value)
    assert text.startswith("every output is constant in integers, the float network's vary (random vectors, ")
    assert "; --calibration X.npy raises" in text and "allow_constant=True" in text
    with pytest.warns(QuantisationWarning, match="16 of 16 outputs became constant"):
        integers = compile(network, allow_constant=True)
    assert len(np.unique(integers(integers.input.quantise(data())), axis=0)) == 1
    *_, found = checked(network, calibration=data())
    assert found.refusal is None and found.outputs.total > 20


@pytest.mark.parametrize("command", ["quantize", "generate", "report"])
def test_commands_refuse_and_warn(command, tmp_path):
    save(deep(), tmp_path / "deep.npz")
    save(large_row(), tmp_path / "row.npz")
    np.save(tmp_path / "x.npy", data())
    np.save(tmp_path / "tiny.npy", data() / 1000)
    own = {
        "quantize": ["-o", str(tmp_path / "out.npz")],
        "generate": ["-o", str(tmp_path / "out"), "--name", "core"],
        "report": [],
    }[command]
    # what is far too small for the input's format leaves nothing, with calibration data or without
    scale = ["--calibration", str(tmp_path / "tiny.npy"), "--input-frac", "7"]
    blind = scale if command == "report" else []
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, [command, str(tmp_path / "deep.npz"), *own, *blind])
    assert isinstance(result.exception, ValueError) and "every output is constant" in str(result.exception)
    assert "16 of 16 outputs became constant" in result.output and sorted(tmp_path.iterdir()) == before
    assert not blind or "16 of 16 inputs vary and become constant" in result.output
    calibrated = ["--calibration", str(tmp_path / "x.npy")]
    result = CliRunner().invoke(app, [command, str(tmp_path / "row.npz"), *own, *calibrated])
    assert result.exit_code == 0 and re.search(r"warning: on the calibration data .*outputs below 15 dB", result.output)
    if command == "quantize":
        result = CliRunner().invoke(app, [command, str(tmp_path / "deep.npz"), *own, "--allow-constant"])
        assert result.exit_code == 0 and load_integers(tmp_path / "out.npz").outputs == 16


def test_one_output_that_is_constant():
    layer = Layer(chain=Chain([Factor(np.array([1e-3, 1e-3]).reshape(1, 1, 2, 1))]), bias=np.ones(1))
    constant = "1 of 1 outputs became constant .number 0.;"
    with pytest.warns(QuantisationWarning, match=constant), pytest.raises(ValueError):
        compile(Network(layers=[layer]))


# what is right


def test_the_digits_say_nothing():
    network = load(DIGITS / "digits.safetensors").network
    silent(network)
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    images = load_digits().data / 16
    for settings in (Settings(), Settings(calibration_method="least-squares")):
        *_, found = checked(replace(network, formats=None), settings=settings, calibration=images)
        assert not found.warnings and not found.refusal, found
        assert found.notes == ("calibration data: 3 of 64 inputs never vary: number 0, 32, 39",)
    assert silent(network, formats=network.formats).output.width


@pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
def test_outputs_that_are_constant_in_floats_are_no_fault(seed):
    network = random_network(seed)
    *front, last = network.layers
    dead = replace(last, bias=np.full(12, -1e3), relu=True)  # never above zero
    silent(Network(layers=[*front, dead]), settings=Settings(row_exponents=8, activation_bits=20, weight_bits=16))
    zero = Layer(chain=Chain([Factor(np.zeros((1, 4, 16, 1)))]), bias=np.arange(4.0))
    for calibration in (None, data()):
        integers = silent(Network(layers=[zero]), calibration=calibration)
        np.testing.assert_allclose(integers.predict(data()), np.broadcast_to(np.arange(4.0), (300, 4)), rtol=0.01)


def test_trained_formats_are_asked_for_constants_alone():
    """Three bits of weights are far from the floats, which training does not mind; nothing at all it would."""
    network = even()
    chosen = choose_formats(network, Settings(weight_bits=3), data())
    trained = replace(network, formats=chosen)
    assert said(network, settings=Settings(weight_bits=3), calibration=data())
    silent(trained), silent(network, formats=chosen)
    *factors, last = chosen.layers[0].factors
    blind = replace(last, output=QFormat(10, -5))
    coarse = replace(chosen, layers=(replace(chosen.layers[0], factors=(*factors, blind)),))
    text = "formats were given or trained for: take wider"
    with pytest.warns(QuantisationWarning, match=text), pytest.raises(ValueError, match=text):
        compile(replace(network, formats=coarse))


def test_saturated_outputs_are_not_called_constant():
    """Trained for inputs far smaller than their format: on large ones the sum of positive parts is always too large."""
    rng = np.random.default_rng(0)
    parts = Layer(chain=Chain([Factor(np.ones((64, 1, 1, 1)))]), relu=True, name="a")
    network = Network(layers=[parts, Layer(chain=Chain([Factor(np.ones((1, 1, 64, 1)))]), name="b")])
    formats = choose_formats(network, Settings(input_frac=7), rng.uniform(-1, 1, (300, 64)) / 16)
    (last,) = formats.layers[1].factors
    narrow = replace(last, output=QFormat(last.output.width - 1, last.output.frac))
    formats = replace(formats, layers=(formats.layers[0], replace(formats.layers[1], factors=(narrow,))))
    large = quantise(network, formats)(formats.input.quantise(random_vectors(formats.input, 64, 128)[0]))
    assert np.unique(large).tolist() == [narrow.output.hi]
    silent(network, formats=formats)


def test_the_same_words_twice_and_fast_enough_for_large_networks():
    network = Network(layers=[butterfly(0, n=1024, base=4)])
    integers = quantise(*prepare(network))
    first, second = (check(network, integers) for _ in range(2))
    assert first.warnings == second.warnings and first.outputs.total == second.outputs.total


# calibration data


@pytest.mark.parametrize(
    "x, lines, notes",
    [
        (np.zeros((9, 3)), ["all zero"], []),
        (np.ones((9, 3)), ["every row is the same"], []),
        (np.array([[1.0, 2.0]]), ["every row is the same"], []),
        (np.arange(12.0).reshape(6, 2) * [1, 0], [], ["1 of 2 inputs never vary: number 1"]),
        (np.eye(20)[:, 8:17] * ([0] * 8 + [1]), [], ["8 of 9 inputs never vary: number 0, 1, 2, 3, 4, 5 ..."]),
        (np.eye(3), [], []),
    ],
    ids=["zero", "constant", "one row", "a column", "columns", "fine"],
)
def test_unusual_calibration(x, lines, notes):
    for found, wanted in zip(unusual(x), (lines, notes)):
        assert len(found) == len(wanted) and all(word in line for word, line in zip(wanted, found)), found


def test_unusual_calibration_is_said():
    network = even()
    assert any("calibration data are all zero" in line for line in said(network, calibration=np.zeros((9, 16))))
    assert any("every row is the same" in line for line in said(network, calibration=np.ones((9, 16)) / 2))
    uneven = data() * np.where(np.arange(16) == 4, 1e-4, 1.0)
    (line,) = (line for line in said(network, calibration=uneven) if "inputs" in line)
    assert "1 of 16 inputs vary and become constant in the input's format (8 bits, 2^-" in line
    assert ", number 4: too small" in line
    line, *_ = said(network, settings=Settings(input_frac=7), calibration=data() * 1.3)
    assert "23 % are beyond the input's format, -1 to 0.992188: of another scale?" in line
    silent(network, settings=Settings(input_frac=7), calibration=data() * 1.05)  # 5 %
    with pytest.raises(ValueError, match="must be finite, found NaN or infinity: nan in row 2, column 3"):
        compile(network, calibration=np.where(np.arange(160).reshape(10, 16) == 35, np.nan, 0.5))


def test_outputs_that_the_data_leave_dead_are_tried_with_random_vectors():
    """The data show one sign only, behind which a ReLU gives nothing; its format has no room for the other."""
    values = np.stack([np.full(16, 1e-3), np.full(16, -1.0)])[None, :, :, None]
    layer = Layer(chain=Chain([Factor(values)]), bias=np.array([1.0, 0.0]), relu=True)
    *_, found = checked(Network(layers=[layer]), calibration=np.abs(data()))
    assert np.isnan(found.outputs.each[1]) and "1 of 2 outputs below 15 dB" in found.warnings[0]
    blind = np.ones((5, 16)) * 0.5
    *_, found = checked(Network(layers=[layer]), calibration=blind)
    assert np.isnan(found.outputs.each).all() and "every row is the same" in found.warnings[0]


def test_floats_that_overflow_are_refused():
    layers = [replace(butterfly(seed), chain=Chain([Factor(np.full((1, 16, 16, 1), 1e60))])) for seed in range(6)]
    for calibration in (None, data()):
        with pytest.raises(ValueError, match="infinity or NaN|layer 'l"):
            compile(Network(layers=layers), calibration=calibration)
