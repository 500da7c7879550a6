"""Integer networks as .onnx files: onnxruntime gives the golden integers, ==."""

from dataclasses import dataclass

import numpy as np
import pytest
from onnx_cases import RIGHT, needed
from onnx_files import model, quantised, written
from typer.testing import CliRunner

import bfthw
from bfthw import Chain, Factor, IntFactor, IntLayer, IntNetwork, Layer, Network, QFormat, Window, chain
from bfthw.cli.main import app
from bfthw.golden import IntNode
from bfthw.nodes import Pick

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")


def judged(integers, path, q):
    """What onnxruntime makes of integers, of the file that is written; it says the golden ones."""
    bfthw.save_onnx(integers, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    y = session.run(None, {"input": q})[0]
    assert y.dtype == np.int64 and np.array_equal(y, integers(q))
    return y


@pytest.mark.parametrize("name", RIGHT)
def test_graphs_of_onnx_and_back(tmp_path, name):
    """Convolutions, residuals, pools, gates, tables, picks, products: read, quantised, written, judged."""
    given, shape = RIGHT[name]
    network = bfthw.load(written(tmp_path / "w.onnx", model(given, needed(given), shape))).network
    x = np.random.default_rng(1).normal(size=(6, *network.shape.dims))
    integers = quantised(network, x, activation_bits=9, weight_bits=7)
    judged(integers, tmp_path / "q.onnx", integers.input.quantise(2 * x))  # beyond the calibration: some saturate


@pytest.mark.parametrize("seed", range(8), ids="seed-{}".format)
def test_any_integers(tmp_path, seed):
    """Chains with row exponents, additions with weights, shifts up and down, ends of every format."""
    rng = np.random.default_rng(seed)
    n, formats = (
        8,
        [QFormat(int(rng.integers(3, 12)), int(rng.integers(-3, 9)), bool(rng.integers(2))) for _ in range(4)],
    )

    def factor(shape, x, y, **rest):
        weights = QFormat(int(rng.integers(2, 9)), int(rng.integers(0, 9)))
        values = rng.integers(weights.lo, weights.hi, tuple(shape), endpoint=True)
        exponents = rng.integers(0, 4, (shape[0], shape[1], shape[3])) if rng.integers(2) else None
        return IntFactor(values=values, weights=weights, input=x, output=y, exponents=exponents, **rest)

    one, two = chain.bft(n, 2)[:2]
    skip = QFormat(5, 3)
    added = {"skip_input": formats[0], "skip": rng.integers(skip.lo, skip.hi, n), "skip_weights": skip}
    bias = {"bias": rng.integers(-500, 500, n), "bias_width": 11}
    layers = [
        IntLayer(
            name="a",
            factors=(factor(one, formats[0], formats[1]), factor(two, formats[1], formats[2], **added, **bias)),
        ),
        IntLayer(name="b", factors=(factor((1, 5, n, 1), formats[2], formats[3], relu=True),)),
    ]
    integers = IntNetwork(layers=layers)
    lo, hi = formats[0].lo, formats[0].hi
    q = np.concatenate([rng.integers(lo, hi, (60, n), endpoint=True), np.full((1, n), lo), np.full((1, n), hi)])
    judged(integers, tmp_path / "q.onnx", q)


def test_widest_sums(tmp_path):
    """Sums of 62 bits, far beyond what a float64 holds: the last bit counts."""
    x, w = QFormat(30, 0), QFormat(30, 0)
    values = np.full((1, 1, 4, 1), w.hi)
    values[0, 0, 3] -= 1
    factor = IntFactor(values=values, weights=w, input=x, output=QFormat(62, 0))
    integers = IntNetwork(layers=[IntLayer(name="wide", factors=(factor,))])
    y = judged(integers, tmp_path / "q.onnx", np.array([[x.hi, x.hi, x.hi, x.hi], [x.lo, x.lo, x.lo, x.hi]]))
    assert abs(int(y[0, 0])) > 1 << 59


def test_what_stands_outside(tmp_path):
    conv = Layer(
        name="conv",
        chain=Chain([Factor(np.random.default_rng(3).normal(size=(2, 3, 18, 1)))]),
        window=Window(3, padding=(1, 0, 2, 1), block=2, order="kx", outside=(0.5, -0.25, 0, 1)),
    )
    x = np.random.default_rng(4).normal(size=(5, 7, 6, 4))
    integers = quantised(Network([conv], (7, 6, 4)), x)
    judged(integers, tmp_path / "q.onnx", integers.input.quantise(x))


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = Network(layers=[Layer(name="a", chain=Chain.random(chain.bft(8, 2), 1), bias=np.ones(8), relu=True)])
    integers = quantised(network, np.random.default_rng(0).normal(size=(20, 8)))
    for name in ("a.onnx", "b.onnx"):
        bfthw.save_onnx(integers, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Odd(Pick):
    """A node that nobody knows."""


def test_refused(tmp_path):
    fmt = QFormat(8, 4)
    node = IntNode(node=Odd(name="strange"), formats=(fmt,), output=fmt)
    with pytest.raises(ValueError, match="node 'strange': a Odd is not written as ONNX; Max, Sum, Pick"):
        bfthw.save_onnx(IntNetwork([node], 4), tmp_path / "q.onnx")
    network = Network(layers=[Layer(name="a", chain=Chain.random(chain.bft(8, 2), 1))])
    with pytest.raises(TypeError, match="takes an IntNetwork, got Network; bfthw.compile"):
        bfthw.save_onnx(network, tmp_path / "q.onnx")
    with pytest.raises(ValueError, match="must end in .onnx"):
        bfthw.save_onnx(quantised(network, np.eye(8)), tmp_path / "q.npz")
    assert not [*tmp_path.iterdir()]


def test_by_command(tmp_path):
    bfthw.save(Network(layers=[Layer(name="a", chain=Chain.random(chain.bft(8, 2), 1), relu=True)]), tmp_path / "w.npz")
    done = CliRunner().invoke(app, ["quantize", str(tmp_path / "w.npz"), "-o", str(tmp_path / "q.onnx")])
    assert done.exit_code == 0 and "integers to integers" in done.output, done.output
    session = runtime.InferenceSession(str(tmp_path / "q.onnx"))
    CliRunner().invoke(app, ["quantize", str(tmp_path / "w.npz"), "-o", str(tmp_path / "q.npz")])
    integers = bfthw.load_integers(tmp_path / "q.npz")
    q = np.arange(-64, 64).reshape(16, 8)
    assert np.array_equal(session.run(None, {"input": q})[0], integers(q))


def test_graphs_of_onnx_by_command(tmp_path):
    """inspect, quantize and report take them; what is for rows alone, or for files of layers, says so in a line."""
    given, shape = RIGHT["depthwise, ReLU6"]
    file = written(tmp_path / "w.onnx", model(given, needed(given), shape))
    np.save(tmp_path / "x.npy", np.random.default_rng(2).normal(size=(9, 6, 5, 4)))
    calibrated = ["--calibration", tmp_path / "x.npy"]
    for words, text in [
        (["inspect", file], "maps are 6x5x4, channels first in the file"),
        (["quantize", file, *calibrated, "-o", tmp_path / "q.npz"], "next: bfthw generate"),
        (["quantize", file, *calibrated, "-o", tmp_path / "q.onnx"], "integers to integers"),
        (["report", file, *calibrated], "Other bits"),
        (["generate", file, "-o", tmp_path / "o", "--name", "a"], "interval 120 cycles an image"),
    ]:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0 and text in " ".join(done.output.split()), done.output
    for words, text in [
        (["inspect", file, "--each"], "an .onnx file is read as a whole, without --each"),
        (["inspect", tmp_path / "q.onnx"], "got INT64; of integers the .npz of `quantize` is read"),
    ]:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 1 and text in str(done.exception), done.output
