""".onnx files: layers against ONNX's own reference evaluation, and graphs that are no straight line."""

import sys

import numpy as np
import pytest
from checkpoint_files import refused

import bfthw

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(0)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def model(nodes, tensors, inputs=("x",), outputs=("y",), shape=("N", None)):
    """A model; a node is (operator, inputs, output, attributes)."""
    made = [
        helper.make_node(op, names, [out], name=f"/{k}/{op}", **rest) for k, (op, names, out, rest) in enumerate(nodes)
    ]
    values = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in group] for group in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return helper.make_model(helper.make_graph(made, "g", *values, tensors))


def save(path, made):
    path.write_bytes(made.SerializeToString())
    return path


W, B = numbers(6, 10), numbers(6)
GOOD = {
    "gemm": ([("Gemm", ["x", "fc.weight", "b"], "y", {"transB": 1})], {"fc.weight": W, "b": B}),
    "gemm, alpha and beta": (
        [("Gemm", ["x", "w", "b"], "y", {"alpha": 0.5, "beta": -2.0})],
        {"w": W.T.copy(), "b": B[None]},
    ),
    "gemm without bias": ([("Gemm", ["x", "w"], "y", {})], {"w": W.T.copy()}),
    "matmul": ([("MatMul", ["x", "w"], "y", {})], {"w": W.T.copy()}),
    "matmul, bias on either side": (
        [("MatMul", ["x", "w"], "a", {}), ("Add", ["b", "a"], "c", {}), ("Add", ["c", "s"], "y", {})],
        {"w": W.T.copy(), "b": B, "s": np.float32([3])},
    ),
    "two layers, and what does nothing": (
        [
            ("Identity", ["x"], "i", {}),
            ("Gemm", ["i", "0.weight", "0.bias"], "a", {"transB": 1}),
            ("Relu", ["a"], "r", {}),
            ("Dropout", ["r"], "d", {}),
            ("Flatten", ["d"], "f", {"axis": 1}),
            ("Gemm", ["f", "2.weight"], "y", {"transB": 1}),
        ],
        {"0.weight": W, "0.bias": B, "2.weight": numbers(3, 6)},
    ),
    "constant": (
        [("Constant", [], "w", {"value": numpy_helper.from_array(W.T.copy())}), ("MatMul", ["x", "w"], "y", {})],
        {},
    ),
}


@pytest.mark.parametrize("nodes, tensors", GOOD.values(), ids=GOOD)
def test_equals_the_reference(tmp_path, nodes, tensors):
    made = model(nodes, tensors, shape=("N", 10))
    network = bfthw.load(save(tmp_path / "w.onnx", made)).network
    x = numbers(5, 10)
    assert np.allclose(network(x), ReferenceEvaluator(made).run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pointwise_convolutions(tmp_path, groups):
    weight = numbers(12, 8 // groups, 1, 1)
    nodes = [
        (
            "Conv",
            ["x", "a.weight", "b"],
            "h",
            {"group": groups, "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4},
        ),
        ("Relu", ["h"], "y", {}),
    ]
    made = model(nodes, {"a.weight": weight, "b": numbers(12)}, shape=("N", 8, None, None))
    (layer,) = bfthw.load(save(tmp_path / "w.onnx", made)).network.layers
    assert layer.chain.patterns == ((groups, 12 // groups, 8 // groups, 1),) and layer.relu and layer.name == "a"
    x = numbers(5, 8, 1, 1)
    assert np.allclose(layer(x[..., 0, 0]), ReferenceEvaluator(made).run(None, {"x": x})[0][..., 0, 0], atol=1e-5)


def test_names(tmp_path):
    nodes, tensors = GOOD["two layers, and what does nothing"]
    loaded = bfthw.load(save(tmp_path / "w.onnx", model(nodes, tensors)))
    assert [layer.name for layer in loaded.network.layers] == ["0", "2"] and [
        x.relu for x in loaded.network.layers
    ] == [True, False]
    nodes, tensors = GOOD["matmul"]
    assert bfthw.load(save(tmp_path / "w.onnx", model(nodes, tensors))).network.layers[0].name == "0"
    assert "format recognised: onnx" in loaded.notes


GEMM, T = ("Gemm", ["x", "w"], "h", {"transB": 1}), {"w": W, "b": B}
BAD = {
    "another operator": ([GEMM, ("Hardmax", ["h"], "y", {})], T, ["node 1, Hardmax '/1/Hardmax': an operator that"]),
    "another domain": ([("Gemm", ["x", "w"], "y", {"domain": "mine"})], T, ["node 0, Gemm"]),
    "a residual": (
        [("Gemm", ["x", "w"], "h", {"transB": 1}), ("Add", ["h", "x"], "y", {})],
        T,
        ["node 1, Add", r"shapes \(1, 6\) and \(1, 10\): data is added to data of the same shape"],
    ),
    "weights that are computed": (
        [("Relu", ["w"], "v", {}), ("MatMul", ["x", "v"], "y", {})],
        T,
        ["node 1, MatMul", "takes 6 values, here it gets 1"],
    ),
    "weights on the left": ([("MatMul", ["w", "x"], "y", {})], T, ["node 0, MatMul", "would mix the vectors"]),
    "transposed input": ([("Gemm", ["x", "w"], "y", {"transA": 1})], T, ["transA"]),
    "flatten all": ([GEMM, ("Flatten", ["h"], "y", {"axis": 0})], T, ["only axis 1"]),
    "bias of another size": (
        [GEMM, ("Add", ["h", "c"], "y", {})],
        T | {"c": numbers(5)},
        ["must be a bias of 6 values", r"\(5,\)"],
    ),
    "bias that is a matrix": ([GEMM, ("Add", ["h", "c"], "y", {})], T | {"c": numbers(2, 3)}, [r"got shape \(2, 3\)"]),
    "3x3": ([("Conv", ["x", "k"], "y", {})], {"k": numbers(4, 4, 3, 3)}, ["node 0, Conv", "here it has 2"]),
    "groups": ([("Conv", ["x", "k"], "y", {"group": 3})], {"k": numbers(4, 4, 1, 1)}, ["group = 3 does not divide 4"]),
    "missing tensor": ([("Gemm", ["x", "q"], "y", {})], T, ["'q' must be a tensor of the file"]),
    "no layer": (
        [("Identity", ["x"], "y", {})],
        {},
        ["do not lead from the input to the output through a dense layer"],
    ),
    "sizes": ([GEMM, ("MatMul", ["h", "v"], "y", {})], T | {"v": numbers(7, 3)}, ["takes 7 values, here it gets 6"]),
    "not a number": ([("Gemm", ["x", "v"], "y", {})], {"v": np.full((4, 4), np.nan, np.float32)}, ["must be finite"]),
}


@pytest.mark.parametrize("nodes, tensors, texts", BAD.values(), ids=BAD)
def test_refused(tmp_path, nodes, tensors, texts):
    refused(save(tmp_path / "w.onnx", model(nodes, tensors)), *texts)


def test_weights_beside_the_file(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.T.copy().tobytes())
    made = model(GOOD["gemm without bias"][0], {"w": W.T.copy()})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (layer,) = bfthw.load(save(tmp_path / "w.onnx", made)).network.layers
    assert np.array_equal(layer.chain.dense(), W)
    tensor.data_location = TensorProto.DEFAULT
    refused(save(tmp_path / "w.onnx", made), "node 0, Gemm", "is in another file, and in this one")


def test_damaged(tmp_path):
    path = tmp_path / "w.onnx"
    refused(path, "no such file")
    for data, text in [(b"", "1 to"), (b"\xff" * 50, "not a valid .onnx file"), (b"\x00", "not a valid|one input")]:
        path.write_bytes(data)
        refused(path, text)
    made = model(GOOD["gemm without bias"][0], {"w": W.T.copy()})
    made.graph.initializer[0].dims[0] = 1 << 40
    refused(save(path, made), "'w' is no array of real numbers")
    refused(save(path, model(*GOOD["gemm"], inputs=("x", "z"))), "got 2, 1 and 0")
    path.rename(tmp_path / "folder.onnx")
    refused(tmp_path / "folder.onnx", "no order, format", order=["a"])
    (tmp_path / "d.onnx").mkdir()
    refused(tmp_path / "d.onnx", "is a directory")


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(save(tmp_path / "w.onnx", model(*GOOD["gemm"])), r"pip install 'bfthw\[onnx\]'")
