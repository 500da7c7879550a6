"""Files that round: QONNX's Quant, QuantizeLinear and DequantizeLinear as formats, or as notes."""

import numpy as np
import pytest
from checkpoint_files import refused

import bfthw
from bfthw import QFormat

onnx = pytest.importorskip("onnx")
from onnx import helper
from onnx_files import model, outputs, written

RNG = np.random.default_rng(11)
F = np.float32
W, V, B = (RNG.normal(size=shape).astype(F) for shape in ((4, 6), (6, 3), (6,)))
QONNX = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
OWN = {"domain": "qonnx.custom_op.general", "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}


def quant(x, scale, bits, y, **rest):
    return ("Quant", [x, scale, "zero", bits], y, OWN | rest)


STEPS = {
    "s4": F(2.0**-4),
    "s3": F(2.0**-3),
    "s5": F(2.0**-5),
    "odd": F(0.1),
    "zero": F(0),
    "b8": F(8),
    "b6": F(6),
    "b5": F(5),
}


def rounded(*nodes, **more):
    return model(nodes, STEPS | {"w": W, "v": V, "b": B} | more, ("N", 4), opset_imports=QONNX)


LAYERS = (
    quant("x", "s4", "b8", "q"),
    quant("w", "s5", "b6", "qw"),
    ("MatMul", ["q", "qw"], "h", {}),
    ("Add", ["h", "b"], "a", {}),
    ("Relu", ["a"], "r", {}),
    quant("r", "s3", "b6", "qr", signed=0),
    quant("v", "s4", "b5", "qv"),
    ("MatMul", ["qr", "qv"], "o", {}),
    quant("o", "s4", "b8", "y"),
)


def fake(x, step, bits, signed=True):
    lo, hi = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return np.clip(np.floor(x / step + 0.5), lo, hi) * step


def test_steps_that_are_powers_of_two_are_formats(tmp_path):
    loaded = bfthw.load(written(tmp_path / "w.onnx", rounded(*LAYERS)))
    assert "formats are those that the file rounds to" in loaded.notes[-1]
    integers = bfthw.compile(loaded.network)
    one, two = (layer.factors[0] for layer in integers.layers)
    assert (integers.input, one.weights, one.output) == (QFormat(8, 4), QFormat(6, 5), QFormat(6, 3, False))
    assert (two.weights, two.output) == (QFormat(5, 4), QFormat(8, 4))
    x = RNG.normal(size=(200, 4))
    # the file's arithmetic; its bias is in no format, the accumulator's is finer than a 200th of a step
    h = np.maximum(fake(x, 2**-4, 8) @ fake(W, 2**-5, 6) + np.floor(B * 2**9 + 0.5) / 2**9, 0)
    wanted = fake(fake(h, 2**-3, 6, False) @ fake(V, 2**-4, 5), 2**-4, 8)
    assert np.array_equal(integers.predict(x), wanted)


def test_other_steps_are_said(tmp_path):
    nodes = [quant("x", "s4", "b8", "q"), quant("w", "odd", "b6", "qw"), ("MatMul", ["q", "qw"], "h", {})]
    nodes += [quant("h", "s4", "b8", "y")]
    loaded = bfthw.load(written(tmp_path / "w.onnx", rounded(*nodes)))
    assert any("not in one step that is a power of two" in note for note in loaded.notes) and not loaded.network.formats
    x = RNG.normal(size=(5, 4))
    assert np.allclose(loaded.network(x), x @ (np.clip(np.rint(W / F(0.1)), -32, 31) * F(0.1)), atol=1e-6)
    nodes[1], nodes[3] = quant("w", "s5", "b6", "qw"), quant("h", "odd", "b8", "y")
    loaded = bfthw.load(written(tmp_path / "w.onnx", rounded(*nodes)))
    assert any("not in one step that is a power of two" in note for note in loaded.notes) and not loaded.network.formats


@pytest.mark.parametrize("step", [2.0**-5, 0.03], ids=["power of two", "other"])
def test_quantize_and_dequantize(tmp_path, step):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")
    q = np.clip(np.rint(W / step), -128, 127).astype(np.int8)
    pairs = [
        ("QuantizeLinear", ["x", "s", "z"], "i", {}),
        ("DequantizeLinear", ["i", "s", "z"], "d", {}),
        ("DequantizeLinear", ["q", "s", "z"], "dw", {}),
        ("MatMul", ["d", "dw"], "h", {}),
        ("Relu", ["h"], "r", {}),
        ("QuantizeLinear", ["r", "s", "u"], "k", {}),
        ("DequantizeLinear", ["k", "s", "u"], "y", {}),
    ]
    tensors = {"s": F(step), "z": np.int8(0), "u": np.uint8(0), "q": q}
    made = model(pairs, tensors, ("N", 4))
    loaded = bfthw.load(written(tmp_path / "w.onnx", made))
    x = RNG.uniform(-1, 1, size=(50, 4)).astype(F)
    wanted = runtime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]
    assert np.abs(outputs(loaded, x, wanted.shape) - wanted).max() < 8 * step
    assert (loaded.network.formats is not None) == (step == 2.0**-5)
    if step == 2.0**-5:
        integers = bfthw.compile(loaded.network)
        assert integers.output == QFormat(8, 5, False)
        sums = np.maximum(fake(x.astype(np.float64), step, 8) @ (q * step), 0) / step
        same = sums % 1 != 0.5  # the file rounds halves to the even number
        assert same.sum() > 250 and np.array_equal(integers.predict(x)[same], wanted[same])


def test_a_rounding_in_the_middle_stays(tmp_path):
    """What is rounded before it is added to is a node; nothing behind is folded into it."""
    nodes = [*LAYERS[:3], quant("h", "s4", "b8", "k"), ("Add", ["k", "b"], "y", {})]
    network = bfthw.load(written(tmp_path / "w.onnx", rounded(*nodes))).network
    assert len(network.nodes) == 2


WRONG = {
    "integers alone": (
        [("QuantizeLinear", ["x", "s4"], "i", {}), ("Relu", ["i"], "y", {})],
        ["node 1, Relu", "DequantizeLinear alone"],
    ),
    "integers at the end": ([("QuantizeLinear", ["x", "s4"], "y", {})], ["do not lead from the input"]),
    "other steps": (
        [("QuantizeLinear", ["x", "s4"], "i", {}), ("DequantizeLinear", ["i", "s3"], "y", {})],
        ["node 1, DequantizeLinear", "other steps"],
    ),
    "no step": ([quant("x", "zero", "b8", "y")], ["node 0, Quant", "steps above zero"]),
    "a way to round": ([quant("x", "s4", "b8", "y", rounding_mode="ODD")], ["rounds by ODD"]),
    "no bits": ([quant("x", "s4", "zero", "y")], ["1 to 62 bits"]),
}


@pytest.mark.parametrize("nodes, texts", WRONG.values(), ids=WRONG)
def test_refused(tmp_path, nodes, texts):
    refused(written(tmp_path / "w.onnx", rounded(*nodes)), *texts)
