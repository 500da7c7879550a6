"""What ONNX's rules make of a straight line: whatever is read equals ONNX's own reference evaluation."""

import numpy as np
import pytest
from checkpoint_files import refused
from onnx_files import outputs

import bfthw

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

SIZES = 1, 2, 4  # few, so that shapes often broadcast by chance


def model(nodes, tensors, shape, rank=None, opset=17, kind=TensorProto.FLOAT, inputs=(), ir=8, **rest):
    """A model x -> y; a node is (operator, inputs, outputs, attributes)."""
    made = [helper.make_node(op, names, outputs, **given) for op, names, outputs, given in nodes]
    shapes = {"x": shape, "y": [None] * (len(shape) if rank is None else rank)}
    x, y = (helper.make_tensor_value_info(name, kind, dims) for name, dims in shapes.items())
    more = [helper.make_tensor_value_info(n, kind, tensors[n].shape) for n in inputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(made, "g", [x, *more], [y], tensors)
    rest.setdefault("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(graph, ir_version=ir, **rest)


def written(path, made):
    path.write_bytes(made.SerializeToString())
    return path


def by_chance(seed):
    """(model, shape of its input): a line that is often no network at all."""
    rng = np.random.default_rng(seed)

    def some(most):
        return [int(rng.choice(SIZES)) for _ in range(rng.integers(0, most + 1))]

    conv = rng.random() < 0.35
    rank = int(rng.integers(3, 5)) if conv else int(rng.choice([1, 2, 2, 2, 2, 3, 4]))
    shape = [int(rng.choice(SIZES)) for _ in range(rank)]
    value, nodes, tensors, size = "x", [], {}, shape[1] if conv else shape[-1]

    def tensor(*dims):
        tensors[f"t{len(tensors)}"] = rng.normal(size=dims).astype(np.float32)
        return f"t{len(tensors) - 1}"

    def node(op, *names, **given):
        nonlocal value
        nodes.append((op, list(names), [f"v{len(nodes)}"], given))
        value = f"v{len(nodes) - 1}"

    flat = rank
    for _ in range(rng.integers(1, 6)):
        which = rng.random()
        if which < 0.1:
            node("Flatten", value, **({} if rng.random() < 0.8 else {"axis": int(rng.integers(0, 3))}))
            size, flat = (int(np.prod(shape[1:])) if len(nodes) == 1 else size), 2
        elif which < 0.2:
            node(str(rng.choice(["Relu", "Identity"])), value)
        elif which < 0.5 and {"Conv", "Gemm", "MatMul"} & {op for op, *_ in nodes}:
            dims = some(4)
            if rng.random() < 0.7:  # the output's size where a bias would have it, and what comes near
                dims = [1] * int(rng.integers(0, 3)) + [size] + [1] * int(rng.choice([0, 1, rank - 2]) if conv else 0)
            node("Add", *([value, tensor(*dims)] if rng.random() < 0.8 else [tensor(*dims), value]))
        elif conv and rng.random() < 0.9:
            groups, out = int(rng.choice([1, 1, 2])), int(rng.choice(SIZES))
            given = {"group": groups} | ({"auto_pad": "SAME_UPPER"} if rng.random() < 0.1 else {})
            bias = [tensor(int(rng.choice([out, out, 1])))] if rng.random() < 0.5 else []
            node("Conv", value, tensor(out, max(1, size // groups), *[1] * (rank - 2)), *bias, **given)
            size = out
        elif rng.random() < 0.5 and flat == 2:
            out, turned = int(rng.choice(SIZES)), int(rng.integers(2))
            given = {"transB": turned, "alpha": float(rng.normal()), "beta": float(rng.normal())}
            dims = some(2) if rng.random() < 0.5 else [out]
            more = [tensor(*dims)] if rng.random() < 0.7 else []
            node("Gemm", value, tensor(*((out, size) if turned else (size, out))), *more, **given)
            size = out
        else:
            out = int(rng.choice(SIZES))
            node("MatMul", value, tensor(size, out))
            size = out
    nodes[-1] = nodes[-1][:2] + (["y"],) + nodes[-1][3:]
    return model(nodes, tensors, shape, rank=2 if flat == 2 else rank), shape


def test_whatever_is_read_equals_the_reference(tmp_path):
    read = 0
    for seed in range(400):
        made, shape = by_chance(seed)
        try:
            loaded = bfthw.load(written(tmp_path / "w.onnx", made))
        except bfthw.checkpoint.CheckpointError:
            continue
        read += 1
        x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        wanted = ReferenceEvaluator(made).run(None, {"x": x})[0]
        assert np.allclose(outputs(loaded, x, wanted.shape), wanted, atol=1e-4), f"seed {seed}"
    assert read > 150, read


W, B = np.ones((4, 4), np.float32), np.arange(4, dtype=np.float32)
GEMM = ("Gemm", ["x", "w"], ["y"], {})
KERNEL = W[..., None, None]


def gemm(c):
    return [("Gemm", ["x", "w", "c"], ["y"], {})], {"w": W, "c": c}, [4, 4]


def behind(op, weight, c, shape):
    return [(op, ["x", "w"], ["t"], {}), ("Add", ["t", "c"], ["y"], {})], {"w": weight, "c": c}, shape


def one(op, tensors, shape=(2, 4), inputs=("x", "w"), **given):
    return [(op, list(inputs), ["y"], given)], tensors, list(shape)


NOT = "not as ONNX has it: "
BAD = {
    "Gemm's C, a column": (*gemm(B[:, None]), {}, ["node 0, Gemm", r"bias of 4 values", r"got shape \(4, 1\)"]),
    "Gemm's C, a matrix": (*gemm(W), {}, [r"got shape \(4, 4\)"]),
    "Gemm's C, of three axes": (*gemm(B[None, None]), {}, [r"got shape \(1, 1, 4\)"]),
    "a row behind a Conv": (*behind("Conv", KERNEL, B, [1, 4, 4, 4]), {}, ["node 1, Add", r", \(4, 1, 1\) or"]),
    "an axis more": (*behind("MatMul", W, B[None, None], [2, 4]), {}, ["node 1, Add", r"got shape \(1, 1, 4\)"]),
    "one output and many": (*behind("MatMul", W[:, :1], B, [2, 4]), {}, ["bias of 1 values"]),
    "Conv's B, one number": (
        *one("Conv", {"w": KERNEL, "c": B[:1]}, (1, 4, 2, 2), ("x", "w", "c")),
        {},
        [r"must have shape \(4,\), got \(1,\)"],
    ),
    "Gemm of images": (*one("Gemm", {"w": W}, (2, 3, 4)), {}, ["takes an array of 2 axes, here it has 3"]),
    "declared otherwise": (*one("MatMul", {"w": W}, (2, 5)), {}, [r"takes 4 values, .*declared as \[2, 5\]"]),
    "one input": (*one("Gemm", {}, inputs=("x",)), {}, ["node 0, Gemm", NOT, "input size 1"]),
    "four inputs": (*one("Gemm", {"w": W}, inputs=("x", "w", "w", "w")), {}, [NOT, "input size 4"]),
    "two outputs": ([("Gemm", ["x", "w"], ["y", "z"], {})], {"w": W}, [2, 4], {}, [NOT, "output size 2"]),
    "weights on the left": (*one("MatMul", {"w": W}, inputs=("w", "x")), {}, ["would mix the vectors of a batch"]),
    "an attribute of another type": (*one("Gemm", {"w": W}, alpha=2), {}, [NOT, "alpha"]),
    "an attribute that is a tensor": (
        *one("Gemm", {"w": W}, alpha=numpy_helper.from_array(B[:1])),
        {},
        [NOT, "alpha"],
    ),
    "an attribute that is none": (*one("Gemm", {"w": W}, gain=2.0), {}, [NOT, "gain"]),
    "auto_pad": (*one("Conv", {"w": KERNEL}, (1, 4, 2, 2), auto_pad="SAME"), {}, ["auto_pad SAME"]),
    "kernel_shape": (*one("Conv", {"w": KERNEL}, (1, 4, 2, 2), kernel_shape=[3, 3]), {}, ["kernel_shape"]),
    "strides of one axis": (*one("Conv", {"w": KERNEL}, (1, 4, 2, 2), strides=[1]), {}, ["strides"]),
    "Dropout that trains": (
        [("Dropout", ["x", "r", "m"], ["d"], {}), ("Gemm", ["d", "w"], ["y"], {})],
        {"w": W, "r": np.float32(0.5), "m": np.bool_(True)},
        [2, 4],
        {},
        ["node 0, Dropout", "training_mode"],
    ),
    "an old opset": (*one("Gemm", {"w": W}), {"opset": 6}, ["opset of ai.onnx must be one from 7 to", "got 6"]),
    "an opset to come": (*one("Gemm", {"w": W}), {"opset": 99}, ["got 99"]),
    "no opset": (
        *one("Gemm", {"w": W}),
        {"opset_imports": [helper.make_opsetid("ai.onnx.ml", 3)]},
        ["got none"],
    ),
    "functions": (
        *one("Gemm", {"w": W}),
        {
            "functions": [
                helper.make_function(
                    "",
                    "Gemm",
                    ["a", "b"],
                    ["c"],
                    [helper.make_node("Mul", ["a", "b"], ["c"])],
                    [helper.make_opsetid("", 17)],
                )
            ]
        },
        ["has functions"],
    ),
    "a name twice": (
        [("Gemm", ["x", "w"], ["t"], {}), ("Gemm", ["t", "w"], ["x"], {}), ("Relu", ["x"], ["y"], {})],
        {"w": W},
        [2, 4],
        {},
        ["x"],
    ),
    "integers": (*one("MatMul", {"w": W.astype(np.int32)}), {"kind": TensorProto.INT32}, ["input must be of FLOAT"]),
    "weights of another type": (*one("MatMul", {"w": W.astype(np.float64)}), {}, [NOT]),
    "complex weights": (*one("MatMul", {"w": W.astype(np.complex64)}), {}, ["'w' is no array of real numbers"]),
}


@pytest.mark.parametrize("nodes, tensors, shape, rest, texts", BAD.values(), ids=BAD)
def test_refused(tmp_path, nodes, tensors, shape, rest, texts):
    refused(written(tmp_path / "w.onnx", model(nodes, tensors, shape, **rest)), *texts)


def test_two_tensors_of_one_name(tmp_path):
    made = model([GEMM], {"w": W}, [2, 4])
    made.graph.initializer.append(numpy_helper.from_array(2 * W, "w"))
    refused(written(tmp_path / "w.onnx", made), "two of its tensors have the same name")


@pytest.mark.parametrize(
    "nodes, tensors, shape, rest, note",
    [
        (
            [("Flatten", ["x"], ["f"], {}), ("Gemm", ["f", "w"], ["y"], {})],
            {"w": W},
            [3, 2, 2],
            {"rank": 2},
            "flattened",
        ),
        (*one("MatMul", {"w": W}, (2, 3, 4)), {}, "along the last axis"),
        (*one("Conv", {"w": KERNEL}, (1, 4, 2, 2)), {}, "channels of a pixel"),
        (*one("Gemm", {"w": W}), {"inputs": ["w"]}, "taken as fixed: w"),
    ],
    ids=["flattened", "last axis", "pixels", "overridable"],
)
def test_what_is_taken_for_granted_is_said(tmp_path, nodes, tensors, shape, rest, note):
    notes = bfthw.load(written(tmp_path / "w.onnx", model(nodes, tensors, shape, **rest))).notes
    assert any(note in line for line in notes), notes
    assert not bfthw.load(written(tmp_path / "w.onnx", model([GEMM], {"w": W}, [2, 4]))).notes[2:]
