"""Integers as QONNX files: onnxruntime gives the golden integers, ==, and bfthw reads them back with their formats."""


import numpy as np
import pytest
from checkpoint_files import refused
from onnx_cases import RIGHT, needed
from onnx_files import model, quantised, written
from typer.testing import CliRunner

import bfthw
from bfthw import Chain, Factor, IntFactor, IntLayer, IntNetwork, Layer, Network, QFormat, Window, chain
from bfthw.cli.main import app
from bfthw.formats import quantise
from bfthw.golden import IntNode
from bfthw.models import csc1d, fbfly, resnet8, small
from bfthw.nodes import Max, Pick, Sum

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")


def turned(x):
    """Channels last to first, and back to the file's float32."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)).astype(np.float32)


def judged(integers, path, q):
    """The file that is written, held against the golden integers by onnxruntime."""
    bfthw.save_onnx(integers, path, qonnx=True)
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    assert {node.domain for node in made.graph.node if node.op_type == "Quant"} == {"qonnx.custom_op.general"}
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    y = session.run(None, {"input": turned(integers.input.dequantise(q))})[0]
    assert y.dtype == np.float32 and np.array_equal(y, turned(integers.output.dequantise(integers(q))))
    return made


TABLES = "its activation is a table, QONNX has no operator for it"


@pytest.mark.parametrize("name", RIGHT)
def test_graphs_of_onnx_and_back(tmp_path, name):
    """Convolutions, residuals, pools, gates, picks, products: read, quantised, written, judged; tables are refused."""
    given, shape = RIGHT[name]
    network = bfthw.load(written(tmp_path / "w.onnx", model(given, needed(given), shape))).network
    x = np.random.default_rng(1).normal(size=(6, *network.shape.dims))
    integers = quantised(network, x, activation_bits=8, weight_bits=6)
    q = integers.input.quantise(2 * x)  # beyond the calibration: some saturate
    if any(layer.factors[-1].table is not None for layer in integers.weighted):
        with pytest.raises(ValueError, match=f"^node '[^']*': {TABLES}; a ReLU or ReLU6 would do"):
            bfthw.save_onnx(integers, tmp_path / "q.onnx", qonnx=True)
    else:
        judged(integers, tmp_path / "q.onnx", q)


NETWORKS = {
    "h": lambda: small.separable28(4, 4, ((8, 2), (16, 1)), fusion="bft"),
    "csc1d": lambda: csc1d(steps=20, width=16, blocks=2),
    "resnet8": lambda: resnet8(width=0.25),
    "a bft chain": lambda: Network(
        layers=[
            Layer(name="a", chain=Chain.random(chain.bft(16, 2), 1), relu=True, residual=True),
            Layer(name="b", chain=Chain.random(chain.dense(5, 16), 2), bias=np.linspace(-1, 1, 5)),
        ]
    ),
}


def formats_in(integers):
    return sorted([str(integers.input), *(f"{f.input} {f.weights} {f.output}" for f in integers.factors)])


@pytest.mark.parametrize("name, rows", [*((name, 0) for name in NETWORKS), ("h", 2), ("a bft chain", 3)])
def test_there_and_back(tmp_path, name, rows):
    """The file's formats are ours, and so are the integers, halves too: what breaks them vanishes in the reading."""
    network = NETWORKS[name]()
    x = np.random.default_rng(2).normal(size=(5, *network.shape.dims))
    integers = quantised(network, x, activation_bits=9, unsigned=True, row_exponents=rows)
    q = integers.input.quantise(2 * x)
    judged(integers, tmp_path / "q.onnx", q)
    back = bfthw.load(tmp_path / "q.onnx").network
    read = quantise(back, back.formats)
    ones = sum(isinstance(node, IntNode) and isinstance(node.node, Sum) for node in integers.nodes)
    there = formats_in(read)
    for node in integers.nodes:  # a sum is a layer of ones in the file
        if isinstance(node, IntNode) and isinstance(node.node, Sum):
            there.remove(f"{node.formats[0]} {QFormat(1, 0, False)} {node.output}")
    assert there == formats_in(integers) and len(read.factors) == len(integers.factors) + ones
    assert np.array_equal(read(q), integers(q))
    biases = [last.bias is not None for last in (layer.factors[-1] for layer in integers.weighted)]
    assert sum(layer.bias is not None for layer in back.layers) == sum(biases)
    named = {node.name for node in integers.weighted if len(node.factors) == 1}
    assert named <= {node.name for node in back.nodes}


def test_rearranged_maps(tmp_path):
    """Channels stand first in the file, so that the same numbers stand elsewhere."""
    network = fbfly(8, 4, widening=2)
    x = np.random.default_rng(2).normal(size=(5, *network.shape.dims))
    integers = quantised(network, x, activation_bits=8)
    judged(integers, tmp_path / "q.onnx", integers.input.quantise(2 * x))


def one(values, x, weights, output, **rest):
    factor = IntFactor(values=np.array(values), input=x, weights=weights, output=output, **rest)
    return IntNetwork(layers=[IntLayer(name="a", factors=(factor,))])


@pytest.mark.parametrize(
    "rest", [{}, {"relu": True}, {"bias": np.array([-4, 4]), "bias_width": 5}], ids=["plain", "relu", "bias"]
)
def test_halves_are_rounded_up(tmp_path, rest):
    """Every sum that there is, negative ones and both ends too; an eighth of them halves."""
    x, output = QFormat(6, 0), QFormat(4, -3)
    integers = one([[[[1]], [[-1]]]], x, QFormat(2, 0), output, **rest)
    q = np.arange(x.lo, x.hi + 1)[:, None]
    halves = (q + 4) % 8 == 0
    assert halves.sum() == 8 and (q[halves] < 0).any()
    judged(integers, tmp_path / "q.onnx", q)
    read = bfthw.load(tmp_path / "q.onnx").network
    assert np.array_equal(quantise(read, read.formats)(q), integers(q))


@pytest.mark.parametrize("over", [0, 1], ids=["exact", "more"])
@pytest.mark.parametrize("shift, room", [(2, 22), (0, 24)], ids=["rounded", "not rounded"])
def test_what_a_float_holds(tmp_path, shift, room, over):
    """The largest sums that float32 holds, and a quarter beside them where bits are dropped; one more is refused."""
    most = (1 << room) - 1
    x, weights = QFormat(13, 0), QFormat(20, 0)
    values = np.array([most // 4096, 0, 0, 0]).reshape(1, 1, 4, 1)  # 4096 * that, and the rest in the bias
    bias = most - 4096 * values.sum() + over
    integers = one(values, x, weights, QFormat(30, -shift), bias=np.array([bias]), bias_width=20)
    q = np.array([[x.lo, 0, 0, 0], [x.hi, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0]])
    if over:
        with pytest.raises(ValueError, match=f"node 'a': its sums take {room + 1} bits .* hold {room} of them exactly"):
            bfthw.save_onnx(integers, tmp_path / "q.onnx", qonnx=True)
        assert not [*tmp_path.iterdir()]
    else:
        judged(integers, tmp_path / "q.onnx", q)


def test_windows(tmp_path):
    """Blocks, taps by columns, uneven pads and strides, a chain behind a window, pools at the edge, twice an input."""
    rng = np.random.default_rng(3)
    network = Network(
        [
            Layer(
                name="conv",
                chain=Chain([Factor(rng.normal(size=(2, 4, 18, 1))), Factor(rng.normal(size=(2, 3, 2, 2)))]),
                window=Window(3, stride=(1, 2), padding=(1, 0, 2, 1), block=2, order="kx"), relu=True,
            ),
            Max(name="max", window=Window((3, 2), stride=2, padding=1)),
            Sum(name="sum", window=Window(2, padding=(1, 0, 0, 1))),
            Layer(name="own", chain=Chain([Factor(rng.normal(size=(1, 1, 1, 12)))]), residual=True, act="relu6"),
            Pick(name="pick", inputs=("own", "sum"), index=np.array([3, 9, 9, 0])),
            Layer(name="last", chain=Chain.random(chain.dense(3, 4), 4), window=Window(1, padding=1)),
        ],
        (7, 6, 4),
    )
    x = rng.normal(size=(5, 7, 6, 4))
    integers = quantised(network, x, activation_bits=7, weight_bits=5)
    made = judged(integers, tmp_path / "q.onnx", integers.input.quantise(2 * x))
    groups = [a.i for node in made.graph.node for a in node.attribute if a.name == "group"]
    assert groups == [1, 1, 12, 12, 1]  # dense or depthwise
    assert {"Conv", "MaxPool", "Gather", "Concat", "Relu", "Clip"} < {node.op_type for node in made.graph.node}


def test_weights_that_the_steps_do_not_hold(tmp_path):
    """A norm behind rounded weights makes others of them, and no format of the file is theirs."""
    integers = one(np.ones((1, 3, 3, 1), int), QFormat(6, 3), QFormat(4, 2), QFormat(6, 1))
    bfthw.save_onnx(integers, tmp_path / "q.onnx", qonnx=True)
    made = onnx.load(tmp_path / "q.onnx")
    place = next(k for k, node in enumerate(made.graph.node) if node.op_type == "MatMul")
    scale = onnx.numpy_helper.from_array(np.array([0.3, 1, 1], np.float32), "scale")
    made.graph.initializer.append(scale)
    after = made.graph.node[place].output[0]
    made.graph.node[place].output[0] = "products"
    made.graph.node.insert(place + 1, onnx.helper.make_node("Mul", ["products", "scale"], [after]))
    loaded = bfthw.load(written(tmp_path / "w.onnx", made))
    assert not loaded.network.formats and "at the weights of a: values are taken" in loaded.notes[-1]


def test_another_function(tmp_path):
    """A file whose Quant is other operators than ours is refused."""
    integers = one(np.ones((1, 3, 3, 1), int), QFormat(6, 3), QFormat(4, 2), QFormat(6, 1))
    bfthw.save_onnx(integers, tmp_path / "q.onnx", qonnx=True)
    made = onnx.load(tmp_path / "q.onnx")
    assert bfthw.load(tmp_path / "q.onnx").network.formats
    made.functions[0].node[-1].op_type = "Add"
    refused(written(tmp_path / "w.onnx", made), "has functions, which may change what its nodes compute")


def test_refused(tmp_path):
    fmt = QFormat(8, 4)
    for integers, text in [
        (one([[[[1]]]], QFormat(1, 0), fmt, fmt), "the input: one bit with a sign, which QONNX takes for -1 and 1"),
        (one([[[[1]]]], QFormat(26, 0), fmt, fmt), "the input: its sums take 26 bits"),
        (one([[[[1]]]], QFormat(8, 120), fmt, QFormat(8, 120)), "the input: steps of 2"),
        (one([[[[-1]]]], fmt, QFormat(1, 0), fmt), "node 'a': one bit with a sign"),
        (one([[[[1]]]], QFormat(8, 90), QFormat(2, 0), QFormat(8, 140)), "node 'a': steps of 2"),
    ]:
        with pytest.raises(ValueError, match=text):
            bfthw.save_onnx(integers, tmp_path / "q.onnx", qonnx=True)
    conv = Layer(name="conv", chain=Chain.random(chain.dense(2, 9), 1), window=Window(3, padding=1, outside=(0.5,)))
    x = np.random.default_rng(4).normal(size=(5, 4, 4, 1))
    with pytest.raises(ValueError, match="node 'conv': numbers other than 0 stand outside its window"):
        bfthw.save_onnx(quantised(Network([conv], (4, 4, 1)), x), tmp_path / "q.onnx", qonnx=True)
    assert not [*tmp_path.iterdir()]


def test_by_command(tmp_path):
    bfthw.save(NETWORKS["a bft chain"](), tmp_path / "w.npz")
    words = ["quantize", str(tmp_path / "w.npz"), "--activation-bits", "8", "--qonnx", "-o"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "q.onnx")])
    assert done.exit_code == 0 and "floats that are the integers" in done.output, done.output
    assert len(onnx.load(tmp_path / "q.onnx").functions) == 1
    done = CliRunner().invoke(app, [*words, str(tmp_path / "q.npz")])
    assert done.exit_code == 1 and "--qonnx goes with -o OUT.onnx, not q.npz" in str(done.exception)


def test_qonnx_itself(tmp_path):
    """The package qonnx, which FINN is built on, executes its own Quant to the same numbers."""
    wrapper = pytest.importorskip("qonnx.core.modelwrapper", reason="qonnx is not installed")
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    network = NETWORKS["h"]()
    x = np.random.default_rng(5).normal(size=(1, 28, 28, 1))
    integers = quantised(network, x, activation_bits=8)
    q = integers.input.quantise(x)
    judged(integers, tmp_path / "q.onnx", q)
    clean = cleanup_model(wrapper.ModelWrapper(str(tmp_path / "q.onnx")), override_inpsize=1)
    given, last = clean.graph.input[0].name, clean.graph.output[0].name
    y = execute_onnx(clean, {given: turned(integers.input.dequantise(q))})[last]
    assert np.array_equal(y, integers.output.dequantise(integers(q)))
