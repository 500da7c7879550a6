"""Small graphs of ONNX's operators, right ones against onnxruntime and wrong ones by their refusals."""

import numpy as np
import pytest
from checkpoint_files import refused

import bfthw

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper
from onnx_cases import MAP, RIGHT, needed, nodes, numbers
from onnx_files import model, outputs, written


def run(made, x):
    """onnxruntime's output; it must be installed."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")
    return runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("given, shape", RIGHT.values(), ids=RIGHT)
def test_equals_onnxruntime(tmp_path, given, shape):
    made = model(given, needed(given), shape)
    loaded = bfthw.load(written(tmp_path / "w.onnx", made))
    x = numbers(3, *shape[1:])
    wanted = run(made, x)
    found = outputs(loaded, x.astype(np.float64), wanted.shape)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_newer_opsets(tmp_path):
    for given, opset in [
        (nodes("ReduceMean x ax23 -> h", ("Gelu h -> g", {}), "Conv g p -> y"), 20),
        (
            nodes(("Split x -> a c", {"axis": 1, "num_outputs": 2}), "Mish a -> e1", ("Concat e1 c -> y", {"axis": 1})),
            18,
        ),
    ]:
        made = model(given, needed(given), MAP, opset=opset, ir=9)
        x = numbers(2, *MAP[1:])
        wanted = run(made, x)
        loaded = bfthw.load(written(tmp_path / "w.onnx", made))
        assert np.allclose(outputs(loaded, x, wanted.shape), wanted, atol=1e-5)


def test_a_last_softmax_is_left_out(tmp_path):
    given = nodes("Flatten x -> f", "Gemm f f120 b7 -> h", ("Softmax h -> y", {"axis": 1}))
    made = model(given, needed(given), MAP)
    loaded = bfthw.load(written(tmp_path / "w.onnx", made))
    assert any("Softmax is left out" in note for note in loaded.notes)
    x = numbers(3, *MAP[1:])
    y = np.exp(outputs(loaded, x, (3, 7)))
    assert np.allclose(y / y.sum(1, keepdims=True), run(made, x), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["a residual", "blocks of a butterfly", "zeros around", "hard swish by hand", "the input scaled"]
)
def test_few_layers_come_out(tmp_path, name):
    """Biases, norms, activations and sums are in the layers that they belong to."""
    given, shape = RIGHT[name]
    network = bfthw.load(written(tmp_path / "w.onnx", model(given, needed(given), shape))).network
    wanted = {
        "a residual": 2,
        "hard swish by hand": 1,
        "blocks of a butterfly": 1,
        "zeros around": 2,
        "the input scaled": 2,
    }
    assert len(network.nodes) == wanted[name], network


BATCH = "would mix the vectors of a batch"
WRONG = {
    "a dilation of 0": (nodes(("Conv x w4 -> y", {"dilations": [0, 2]})), MAP, ["node 0, Conv '/0/Conv'", "1 or more"]),
    "dilations, the same size": (
        nodes(("Conv x w4 -> y", {"dilations": [2, 1], "auto_pad": "SAME_LOWER"})),
        MAP,
        ["auto_pad with dilations .2, 1.: runtimes refuse it; pads are read"],
    ),
    "no axes": (nodes("Conv x gain -> y"), MAP, ["along one or two axes are read, its weight has shape .4,."]),
    "strides of one axis": (nodes(("Conv x w4 -> y", {"strides": [2]})), MAP, ["one for each of 2 axes, 1 or more"]),
    "another number of channels": (nodes("Conv x w -> y"), MAP, ["takes 3 channels, 3 for each of 1 groups, got 4"]),
    "a kernel that does not fit": (
        nodes("Conv x w4 -> y"),
        ("N", 4, 2, 5),
        ["node 0", "in height a window of 3 does not fit into 2"],
    ),
    "three axes": (nodes("Conv x k3 -> y"), ("N", 4, 3, 3, 3), ["one or two axes are read"]),
    "kernel_shape": (nodes(("Conv x w4 -> y", {"kernel_shape": [3, 2]})), MAP, ["kernel_shape is"]),
    "a transposed convolution": (
        nodes("ConvTranspose x s -> y"),
        MAP,
        ["node 0, ConvTranspose '/0/ConvTranspose'", "not read; a Conv, and the map"],
    ),
    "a resize": (nodes("Conv x s -> h", "Resize h _ _ z -> y"), MAP, ["node 1, Resize '/1/Resize'", "that is not read"]),
    "a bias for each position": (
        nodes("Conv x s -> h", "Add h row -> y"),
        MAP,
        ["node 1, Add '/1/Add'", r"\(4, 1, 1\) or that"],
    ),
    "a bias that grows the map": (
        nodes("Conv x s -> h", "Add h five -> y"),
        MAP,
        ["bias of 4 values", r"got shape \(2, 1, 1, 1\)"],
    ),
    "a factor for each position": (nodes("Conv x s -> h", "Mul h row -> y"), MAP, ["must be a scale of 4 values"]),
    "maps of unequal sizes added": (
        nodes("Conv x w4 -> g", "Conv x p -> h", "Add g h -> y"),
        MAP,
        ["node 2, Add", "same shape, or repeated to it"],
    ),
    "maps multiplied": (
        nodes("Conv x s -> h", "Mul h x -> y"),
        MAP,
        ["node 1, Mul", "a map times a vector of its channels"],
    ),
    "data divided": (nodes("Conv x s -> h", "Div h x -> y"), MAP, ["node 1, Div", "divides data by data"]),
    "divided by zero": (nodes("Div x zero -> y"), MAP, ["divides by zero"]),
    "maps of unequal sizes joined": (
        nodes("Conv x w4 -> h", ("Concat h x -> y", {"axis": 1})),
        MAP,
        ["node 1, Concat", "maps of 6 x 5 and 4 x 3 positions"],
    ),
    "positions joined": (nodes("Conv x s -> h", ("Concat h x -> y", {"axis": 2})), MAP, ["joins positions"]),
    "joined with constants": (
        nodes("Conv x s -> h", ("Concat h cc -> y", {"axis": 1})),
        MAP,
        ["joins the data with constants"],
    ),
    "samples joined": (nodes("Conv x s -> h", ("Concat h x -> y", {"axis": 0})), MAP, ["node 1, Concat", BATCH]),
    "samples reshaped": (
        nodes("Conv x s -> h", "Reshape h mix -> y"),
        MAP,
        ["node 1, Reshape", "without the batch, do not go into that"],
    ),
    "samples turned": (nodes(("Transpose x -> y", {"perm": [1, 0, 2, 3]})), MAP, [BATCH]),
    "samples of one channel turned": (nodes(("Transpose x -> y", {"perm": [1, 0, 2]})), ("N", 1, 4), [BATCH]),
    "samples sliced": (nodes("Slice x i0 i1 i0 -> h", "Conv h s -> y"), MAP, ["node 0, Slice", BATCH]),
    "samples summed": (nodes(("ReduceMean x -> y", {"axes": [0, 2, 3]})), MAP, [BATCH]),
    "positions in reverse with an activation": (
        nodes("Conv x s -> h", "Slice h last i0 ax2 im1 -> c", "Relu c -> y"),
        MAP,
        ["node 2, Relu", "every so many positions"],
    ),
    "too few numbers": (nodes("Conv x s -> h", "Reshape h seven -> y"), MAP, ["node 1, Reshape", r"to \[0, 7\]"]),
    "an axis that is none": (nodes("Squeeze x ax2 -> y"), MAP, ["are not all of length 1"]),
    "a split that does not add up": (
        nodes(("Split x two -> a c e1", {"axis": 1}), "Conv a s -> y"),
        MAP,
        ["are not split into"],
    ),
    "an index beyond": (nodes(("Gather x far -> y", {"axis": 1})), MAP, ["node 0, Gather", "integers from -4 to 3"]),
    "a Softmax between": (
        nodes(("Softmax x -> h", {"axis": 1}), "Conv h s -> y"),
        MAP,
        ["node 0, Softmax", "as the last node alone"],
    ),
    "a pool with dilations": (
        nodes(("MaxPool x -> y", {"kernel_shape": [2, 2], "dilations": [2, 2]})),
        MAP,
        ["dilations of 1"],
    ),
    "a mean without its padding": (
        nodes(("AveragePool x -> y", {"kernel_shape": [3, 3], "pads": [1] * 4})),
        MAP,
        ["count_include_pad = 1"],
    ),
    "a mean rounded up": (
        nodes(("AveragePool x -> y", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})),
        MAP,
        ["ceil_mode = 0"],
    ),
    "a mean of channels": (
        nodes(("ReduceMean x -> y", {"axes": [1]})),
        MAP,
        ["node 0, ReduceMean", "not the positions"],
    ),
    "zeros that are ones": (
        nodes("Pad x pads one -> c", "Conv c w4 -> y"),
        MAP,
        ["node 0, Pad", "zeros around are read"],
    ),
    "a norm that trains": (
        nodes(("BatchNormalization x gain shift mean var -> y", {"training_mode": 1})),
        MAP,
        ["training_mode = 1"],
    ),
    "a norm of other channels": (
        nodes("BatchNormalization x gain3 shift3 mean3 var3 -> y"),
        MAP,
        ["must be of 4 channels"],
    ),
    "a slope for each channel": (nodes("PRelu x c4 -> y"), MAP, ["a slope for each channel"]),
    "sizes left open": (nodes("Conv x w4 -> y"), ("N", 4, None, None), ["leaves sizes open"]),
    "sizes left open for a mean": (
        nodes("GlobalAveragePool x -> y"),
        ("N", 4, None, None),
        ["node 0, GlobalAveragePool", "fixed sizes"],
    ),
    "what stands behind": (
        nodes("Conv r1 s -> h", "Relu h -> r1", "Conv h s -> y"),
        MAP,
        ["node 0, Conv", "'r1' must be a tensor of the file or what a node before gives"],
    ),
    "a name twice": (
        nodes("Conv x s -> h", "Relu h -> h", "Conv h s -> y"),
        MAP,
        ["node 1, Relu", "another one gives already"],
    ),
    "an output that no node gives": (nodes("Conv x s -> h"), MAP, ["do not lead from the input to the output"]),
    "constants alone": (nodes("Relu s -> y"), MAP, ["do not lead from the input to the output"]),
    "integers of the data": (
        nodes(("Cast x -> h", {"to": TensorProto.INT64}), ("Cast h -> y", {"to": TensorProto.FLOAT})),
        MAP,
        ["node 0, Cast", "casts to floats"],
    ),
    "a bias of the data": (nodes("Conv x s -> h", "Conv x s h -> y"), MAP, ["it is computed from the input"]),
    "too large": (nodes("Conv x s -> y"), ("N", 4, 1 << 20, 1 << 20), ["is too large"]),
    "too much of it": (nodes("Expand x much -> h", "Conv h s -> y"), MAP, ["node 0, Expand", "are the limit"]),
}


@pytest.mark.parametrize("given, shape, texts", WRONG.values(), ids=WRONG)
def test_refused(tmp_path, given, shape, texts):
    refused(written(tmp_path / "w.onnx", model(given, needed(given), shape)), *texts)


def test_a_branch_of_a_loop(tmp_path):
    """Operators with graphs inside are no operators here, however deep those are."""
    inner = helper.make_graph([], "inner", [], [])
    made = model(nodes("Conv x s -> h"), needed(nodes("Conv x s -> h")), MAP)
    made.graph.node.append(helper.make_node("If", ["h"], ["y"], name="branch", then_branch=inner, else_branch=inner))
    refused(written(tmp_path / "w.onnx", made), "node 1, If 'branch'", "not read; one way for all inputs would be")
