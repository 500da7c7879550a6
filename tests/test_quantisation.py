"""Least squares, bits of each factor, and who is blamed for noise."""

import re
import shutil
import subprocess
import sys
from builtins import compile as compile_code
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_quantize import random_network
from test_settings import toml
from typer.testing import CliRunner

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
    load_integers,
    make_settings,
    report,
    save,
)
from bfthw.calibrate import least_squares
from bfthw.cli.main import app
from bfthw.noise import StageReport, first_hurt
from bfthw.quantize import (
    LayerFormats,
    choose_formats,
    prepare,
    quantise,
    row_exponents,
    weight_format,
)
from bfthw.sweep import sweep

seeds = pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
LEAST = {"calibration_method": "least-squares"}


def squared_error(fmt, values):
    return np.square(fmt.dequantise(fmt.quantise(values)) - values).sum()


@seeds
@pytest.mark.parametrize("width", [2, 3, 4, 8, 14])
def test_least_squares_is_the_best_of_all_formats(seed, width):
    rng = np.random.default_rng(seed)
    values = rng.laplace(size=300) * np.exp2(rng.integers(-20, 20))
    chosen = least_squares(width, values)
    errors = {frac: squared_error(QFormat(width, frac), values) for frac in range(chosen.frac - 40, chosen.frac + 40)}
    best = min(errors.values())
    assert chosen.width == width and errors[chosen.frac] == best
    assert all(error > best for frac, error in errors.items() if frac < chosen.frac)  # the coarsest of equals


def test_least_squares_gives_up_outliers():
    many = np.concatenate([np.linspace(-1, 1, 10001), [3.0]])
    assert QFormat.covering(3, -1, 3) == QFormat(3, 0) and least_squares(3, many) == QFormat(3, 2)
    assert least_squares(5, np.zeros(4)) == QFormat(5, 4)


@seeds
@pytest.mark.parametrize("rows", [0, 2])
def test_weights_by_least_squares(seed, rows):
    values = random_network(seed).layers[0].scaled[0].values

    def error(fmt):
        e = row_exponents(values, fmt, rows)
        scale = 1.0 if e is None else np.exp2(e)[:, :, None, :]
        return np.square(fmt.dequantise(fmt.quantise(values * scale)) / scale - values).sum()

    for width in (2, 4, 8):
        chosen, covering = (weight_format(values, width, rows, method) for method in ("least-squares", "percentile"))
        best = min(error(QFormat(width, frac)) for frac in range(covering.frac - 10, covering.frac + 20))
        assert error(chosen) == best <= error(covering)


@seeds
def test_calibration_by_least_squares(seed):
    network, x = random_network(seed), np.random.default_rng(seed).normal(size=(100, 16))
    formats = choose_formats(network, Settings(activation_bits=6, **LEAST), x)
    assert formats.input == least_squares(8, x)
    outputs = [f.output for layer in formats.layers for f in layer.factors]
    assert outputs == [least_squares(6, tap) for tap in network.taps(x)]
    weights = [f.weights for layer in formats.layers for f in layer.factors]
    values = [factor.values for layer in network.layers for factor in layer.scaled]
    assert weights == [weight_format(v, 8, 0, "least-squares") for v in values]


@seeds
def test_least_squares_without_data_still_never_overflows(seed):
    integers = compile(random_network(seed), settings=Settings(weight_bits=3, **LEAST))
    corners = np.random.default_rng(seed).choice([integers.input.lo, integers.input.hi], (300, integers.inputs))
    assert not any(factor.saturated(acc).any() for factor, acc, _ in integers.accumulators(corners))


def test_bits_of_each_factor(tmp_path):
    text = '[layers."layer.0"]\nweight_bits = [7, 3, 16]\nactivation_bits = [18, 4, 9]\nrow_exponents = [0, 2, 1]\n'
    settings = make_settings(toml(tmp_path, "weight_bits = 5\n" + text))
    network = Network(layers=random_network(1).layers)
    first, second = choose_formats(network, settings).layers
    assert [f.weights.width for f in first.factors] == [7, 3, 16] and {f.weights.width for f in second.factors} == {5}
    assert [f.output.width for f in first.factors] == [18, 4, 9] and [f.rows for f in first.factors] == [0, 2, 1]
    scaled = Network(layers=[replace(network.layers[0], residual=True, scale=np.ones(16))])
    assert choose_formats(scaled, Settings(weight_bits=[7, 3, 6])).layers[0].skip.width == 6  # that of its factor
    with pytest.raises(ValueError, match="weight_bits of layer 'layer.1' needs an entry for each of 2 factors, got 3"):
        choose_formats(network, Settings(weight_bits=[7, 3, 6]))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("weight_bits = [8, 1]", "weight_bits.1 = 1: .*greater than or equal to 2"),
        ("activation_bits = [8, 25]", "activation_bits.1 = 25: .*less than or equal to 24"),
        ('[layers.a]\nrow_exponents = [0, "x"]', "layers.a.row_exponents.1 = 'x': .*valid integer"),
        ('calibration_method = "mean"', "calibration_method = 'mean': Input should be 'percentile' or 'least-squares'"),
    ],
)
def test_settings_refused(tmp_path, text, wanted):
    with pytest.raises(ValueError, match=rf"settings.toml: {wanted}"):
        make_settings(toml(tmp_path, text))


def test_settings_as_toml_and_back(tmp_path):
    layers = {"a.0": {"weight_bits": [2, 3], "engine": ["folded", "folded"]}, "b": {"lanes": 2}}
    for settings in (
        Settings(),
        Settings(weight_bits=[8, 4], percentile=99.5, equalise=False, target="ecp5", layers=layers, **LEAST),
    ):
        again = make_settings(toml(tmp_path, settings.to_toml()))
        assert again == settings and again.given == settings.given


# who is blamed


def noisy(stage, **change):
    """Formats of 14 bits for a chain of three factors, one of them changed."""
    network = Network(layers=[Layer(chain=Chain.random(chain.bft(64, 4), 3), name="a")])
    x = np.random.default_rng(3).uniform(-1, 1, (200, 64))
    formats = choose_formats(network, Settings(weight_bits=14, activation_bits=16, input_bits=14, percentile=100.0), x)
    if stage is None:
        formats = replace(formats, input=QFormat(3, 2))
    else:
        factors = list(formats.layers[0].factors)
        factors[stage] = replace(
            factors[stage], **{key: fmt(getattr(factors[stage], key)) for key, fmt in change.items()}
        )
        formats = replace(formats, layers=(LayerFormats(factors=tuple(factors)),))
    return network, quantise(network, formats), x


@pytest.mark.parametrize("stage", range(3))
@pytest.mark.parametrize(
    "change, cause",
    [
        ({"weights": lambda fmt: QFormat(5, fmt.frac - 9)}, "weights"),
        ({"output": lambda fmt: QFormat(6, fmt.frac - 10)}, "rounding"),
        ({"output": lambda fmt: QFormat(12, fmt.frac)}, "saturation"),
    ],
    ids=["weights", "rounding", "saturation"],
)
def test_the_stage_that_hurts_is_named(stage, change, cause):
    row, lost = first_hurt(rows := report(*noisy(stage, **change)))
    assert (row.name, row.cause) == (f"a.factors.{stage}", cause) and lost > 6
    assert (row.saturated > 0) == (cause == "saturation")
    assert all(other.own > row.own + 6 for other in rows if other is not row)


def test_coarse_input_is_named_and_an_exact_chain_is_not():
    row, lost = first_hurt(report(*noisy(None)))
    assert row.name == "input" and lost > 6 and row.sqnr == row.own
    network = Network(layers=[Layer(chain=Chain([Factor([[[[0.5]]]])]))])
    exact = report(network, compile(network), np.array([[0.5], [0.25]]))
    assert first_hurt(exact) == (None, None) and exact[-1].own == np.inf and exact[-1].cause == ""
    row, lost = first_hurt(report(*noisy(0)))
    assert lost is None and row.own == min(r.own for r in report(*noisy(0)))


def test_a_stage_that_passes_noise_on_is_not_blamed():
    """One where values cancel loses 20 dB without a noise of its own; the one behind it adds as much again."""

    def rows(*pairs):
        blank = {"factor": None, "cause": "weights", "saturated": 0, "values": 1, "peak": 1.0}
        return [StageReport(name=str(n), sqnr=sqnr, own=own, **blank) for n, (sqnr, own) in enumerate(pairs)]

    row, lost = first_hurt(rows((50.0, 50.0), (30.0, 55.0), (29.0, 40.0)))
    assert (row.name, lost) == ("2", None)  # none loses 6 dB by itself: the one with most noise
    row, lost = first_hurt(rows((50.0, 50.0), (30.0, 55.0), (20.0, 20.5)))
    assert (row.name, lost) == ("2", 10.0)


@seeds
def test_own_noise_by_hand(seed):
    """Of each stage: its integers against its floats from the same, truly integer inputs; ReLU, residual, bias."""
    network, x = random_network(seed), np.random.default_rng(seed).normal(size=(50, 16))
    integers = compile(network, settings=Settings(weight_bits=5, equalise=False), calibration=x)
    rows = report(network, integers, x)
    given = [integers.input.dequantise(integers.input.quantise(x))]
    given += [f.output.dequantise(y) for f, _, y in integers.accumulators(integers.input.quantise(x))]
    stage = 0
    for layer in network.layers:
        start = given[stage]
        for m, factor in enumerate(layer.scaled):
            y = factor(given[stage])
            if m == len(layer.scaled) - 1:
                y = y + (0 if not layer.residual else start if layer.scale is None else start * layer.scale)
                y = y + (0 if layer.bias is None else layer.bias)
                y = np.maximum(y, 0) if layer.relu else y
            stage += 1
            wanted = network.taps(x)[stage - 1]
            own = 10 * np.log10((wanted**2).sum() / ((given[stage] - y) ** 2).sum())
            assert rows[stage].own == pytest.approx(own, abs=1e-9)


def test_sweep():
    network, x = random_network(2), np.random.default_rng(2).normal(size=(60, 16))
    labels, seen = network(x).argmax(axis=1), []
    settings = Settings(layers={"layer.0": {"weight_bits": 3, "row_exponents": 2}})
    points = sweep(network, x, "weight_bits", (3, 8, 12), settings=settings, labels=labels, progress=seen.append)
    assert [p.bits for p in points] == [3, 8, 12] and seen[-1] == 1
    assert points[0].sqnr < points[1].sqnr < points[2].sqnr and points[0].accuracy <= points[2].accuracy > 0.9
    own = Settings(weight_bits=8, layers={"layer.0": {"row_exponents": 2}})
    pair = prepare(network, settings=own, calibration=x)
    assert points[1].sqnr == report(pair[0], quantise(*pair), x)[-1].sqnr
    with pytest.raises(ValueError, match=r"labels must be 60 integers, got float64 of shape \(60,\)"):
        sweep(network, x, "weight_bits", (8,), labels=labels / 2)


def test_report_command(tmp_path):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).normal(size=(40, 16))
    save(random_network(0), tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", random_network(0)(x).argmax(axis=1))
    common = ["report", str(tmp_path / "a.safetensors"), "--calibration", str(tmp_path / "x.npy"), "--weight-bits", "6"]
    for extra in ([], ["--labels", str(tmp_path / "y.npy")]):
        result = CliRunner().invoke(app, [*common, "--plot", str(tmp_path / "out.svg"), *extra])
        assert result.exit_code == 0, result.output
        assert "first stage that hurts: " in result.output and "Other bits" in result.output
        assert ("accuracy" in result.output) == bool(extra) == ("accuracy" in (tmp_path / "out.svg").read_text())
    result = CliRunner().invoke(app, [*common, "--plot", str(tmp_path / "out.gif")])
    assert isinstance(result.exception, ValueError) and "must end in .svg, .png or .pdf" in str(result.exception)


def test_quantize_command_takes_settings_and_methods(tmp_path):
    """At the command line a number for all factors, in a file a list of them; the error for a list says so."""
    save(Network(layers=random_network(0).layers[:1]), tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 16)))
    command = ["quantize", "a.safetensors", "-o", "q.npz", "--calibration", "x.npy"]
    (tmp_path / "s.toml").write_text("weight_bits = [8, 6, 4]\n")
    options = ["--settings", str(tmp_path / "s.toml"), "--activation-bits", "12"]
    options += ["--calibration-method", "least-squares"]
    command[1], command[3], command[5] = (str(tmp_path / name) for name in (command[1], command[3], command[5]))
    result = CliRunner().invoke(app, command + options)
    assert result.exit_code == 0, result.output
    integers = load_integers(tmp_path / "q.npz")
    assert [f.weights.width for f in integers.factors] == [8, 6, 4] and {f.output.width for f in integers.factors} == {
        12
    }
    wanted = compile(
        load(tmp_path / "a.safetensors").network,
        settings=Settings(weight_bits=[8, 6, 4], activation_bits=12, **LEAST),
        calibration=np.load(tmp_path / "x.npy"),
    )
    assert [f.output for f in wanted.factors] == [f.output for f in integers.factors]
    assert CliRunner().invoke(app, [*command, "--weight-bits", "8,x"]).exit_code == 2
    lists = CliRunner().invoke(app, [*command, "--weight-bits", "8,6,4"], env={"COLUMNS": "400"})
    assert lists.exit_code == 2 and "--settings FILE.toml, in it `weight_bits = [8, 6, 4]`" in lists.output


# the digits, and what docs/quantisation.md says

ROOT = Path(__file__).parent.parent


@pytest.fixture
def program(example):
    pytest.importorskip("sklearn")
    return example("digits/quantisation")


def test_digits_keep_their_accuracy(program):
    """8 bits after calibration within half a point of the floats, 4 bits after some training within one and a half."""
    torch = pytest.importorskip("torch")
    images, network = program.load(), load(ROOT / "examples" / "digits" / "digits.safetensors").network
    network, plan = replace(network, formats=None), program.Plan(fine_epochs=3)
    exact = np.mean(network(images[2]).argmax(axis=1) == images[3])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        narrow = program.measure(network, images, {"weight_bits": 4}, 0, plan)
    finally:
        torch.set_num_threads(threads)
    assert all(narrow[name] >= exact - 0.015 for name in program.TRAINED)
    for method in program.METHODS.values():
        own = program.settings(weight_bits=8, **method)
        prepared, formats = prepare(network, settings=own, calibration=images[0])
        assert program.accuracies(prepared, *images[2:], formats=formats)[1] >= exact - 0.005


@pytest.mark.slow
def test_script_of_the_documentation(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn"), pytest.importorskip("matplotlib")
    script = [sys.executable, ROOT / "examples" / "digits" / "quantisation.py", "--quick", "--out", tmp_path]
    out = subprocess.run(script, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "| weight bits |" in out and "| uniform 16, k = 4 |" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"quantisation-{what}.svg" for what in ("activations", "stages", "weights")
    ]


def test_python_of_the_documentation(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    text = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(compile_code(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], "quantisation.md", "exec"), {})
    trained = load("build/trained.safetensors").network
    assert {f.weights.width for layer in trained.formats.layers for f in layer.factors} == {4}
    settings = make_settings(toml(tmp_path, re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]))
    assert {f.weights.width for f in choose_formats(trained, settings).layers[0].factors} == {8, 6, 4}
