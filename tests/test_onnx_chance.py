"""Graphs of operators drawn by chance: what is read equals onnxruntime, and so do its integers; nothing else than a
refusal comes out."""

import warnings

import numpy as np
import pytest

import bfthw
from bfthw import Settings

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")
from onnx_files import model, outputs, written

SHAPE = 4, 7, 6


class Drawn:
    """nodes and tensors of a model; maps: (name, (C, H, W)) of what there is."""

    def __init__(self, rng):
        self.rng, self.nodes, self.tensors, self.maps = rng, [], {}, [("x", SHAPE)]

    def constant(self, *shape, values=None):
        name = f"c{len(self.tensors)}"
        self.tensors[name] = self.rng.normal(size=shape).astype(np.float32) if values is None else np.array(values)
        return name

    def node(self, op, inputs, shape=None, **given):
        name = f"v{len(self.nodes)}"
        self.nodes.append((op, inputs, name, given))
        if shape is not None:
            self.maps.append((name, shape))
        return name

    def like(self, fits):
        """One of the maps whose shape fits."""
        found = [own for own in self.maps if fits(own[1])]
        return found[self.rng.integers(len(found))]

    def swapped(self, *names):
        return list(names[:: self.rng.choice([1, -1])])


def conv(d, x, c, h, w):
    groups, kernel, stride = (int(d.rng.choice(v)) for v in ((1, 1, 2, c), (1, 1, 3), (1, 1, 2)))
    pad, groups = int(d.rng.integers(2)) * (kernel == 3), groups if c % groups == 0 else 1
    sizes = [(n + 2 * pad - kernel) // stride + 1 for n in (h, w)]
    if min(sizes) > 0:
        m = c if groups == c else 4
        bias = [d.constant(m)] * int(d.rng.integers(2))
        inputs = [x, d.constant(m, c // groups, kernel, kernel), *bias]
        d.node("Conv", inputs, (m, *sizes), group=groups, pads=[pad] * 4, strides=[stride] * 2)


def norm(d, x, c, h, w):
    numbers = [d.constant(c) for _ in range(3)]
    d.node("BatchNormalization", [x, *numbers, d.constant(values=d.rng.uniform(0.5, 2, c).astype("f"))], (c, h, w))


def constants(d, x, c, h, w):
    d.node(str(d.rng.choice(["Add", "Sub", "Mul"])), d.swapped(x, d.constant(c, 1, 1)), (c, h, w))


def added(d, x, c, h, w):
    other, _ = d.like(lambda shape: shape == (c, h, w))
    d.node(str(d.rng.choice(["Add", "Sub"])), d.swapped(x, other), (c, h, w))


def function(d, x, c, h, w):
    d.node(str(d.rng.choice(["Relu", "Sigmoid", "Neg", "HardSwish", "Abs"])), [x], (c, h, w))


def clip(d, x, c, h, w):
    ends = [d.constant(values=np.float32(v)) for v in (0, d.rng.choice([1, 6]))]
    d.node("Clip", [x, *ends], (c, h, w))


def swish(d, x, c, h, w):
    d.node("Mul", d.swapped(x, d.node("Sigmoid", [x], (c, h, w))), (c, h, w))


def padded(d, x, c, h, w):
    top, left, bottom, right = (int(v) for v in d.rng.integers(0, 2, 4))
    pads = d.constant(values=[0, 0, top, left, 0, 0, bottom, right])
    d.node("Pad", [x, pads], (c, h + top + bottom, w + left + right))


def pooled(d, x, c, h, w):
    if min(h, w) > 2 and d.rng.integers(2):
        d.node("MaxPool", [x], (c, (h - 2) // 2 + 1, w - 1), kernel_shape=[2, 2], strides=[2, 1])
    elif min(h, w) > 2:
        how = {"kernel_shape": [2, 3], "pads": [0, 1, 0, 1], "count_include_pad": 1}
        d.node("AveragePool", [x], (c, h - 1, w), **how)


def cut(d, x, c, h, w):
    if h > 2:
        step = int(d.rng.integers(1, 3))
        ends = [d.constant(values=[v]) for v in (1, h, 2, step)]
        d.node("Slice", [x, *ends], (c, -(-(h - 1) // step), w))


def joined(d, x, c, h, w):
    other, (more, *_) = d.like(lambda shape: shape[1:] == (h, w))
    if c + more <= 12:
        d.node("Concat", [x, other], (c + more, h, w), axis=1)


def gated(d, x, c, h, w):
    gate = d.node("GlobalAveragePool", [x], (c, 1, 1))
    gate = d.node("Conv", [gate, d.constant(c, c, 1, 1)], (c, 1, 1)) if d.rng.integers(2) else gate
    gate = d.node("HardSigmoid", [gate], (c, 1, 1)) if d.rng.integers(2) else gate
    d.node("Mul", d.swapped(x, gate), (c, h, w))


def picked(d, x, c, h, w):
    index = d.rng.permutation(c)[: max(1, c - int(d.rng.integers(2)))]
    d.node("Gather", [x, d.constant(values=index)], (len(index), h, w), axis=1)


def shuffled(d, x, c, h, w):
    if c % 2 == 0:
        halves = d.node("Reshape", [x, d.constant(values=[0, 2, c // 2, h, w])])
        turned = d.node("Transpose", [halves], perm=[0, 2, 1, 3, 4])
        d.node("Reshape", [turned, d.constant(values=[0, c, h, w])], (c, h, w))


STEPS = (conv, conv, conv, norm, constants, added, added, function, clip, swish, padded, pooled, cut, joined, gated)
STEPS += (picked, shuffled)


def drawn(seed):
    """A model, x (N, 4, 7, 6) -> y."""
    d = Drawn(np.random.default_rng(seed))
    while not d.nodes or d.rng.random() < 0.8:
        x, shape = d.maps[d.rng.integers(max(0, len(d.maps) - 3), len(d.maps))]
        STEPS[d.rng.integers(len(STEPS))](d, x, *shape)
    x, (c, h, w) = d.maps[-1]
    if d.rng.random() < 0.4:
        flat = d.node("Flatten", [x])
        flat = d.node("Relu", [flat]) if d.rng.integers(2) else flat
        d.node("Gemm", [flat, d.constant(c * h * w, 5), d.constant(5)])
    op, inputs, _, given = d.nodes[-1]
    return model([*d.nodes[:-1], (op, inputs, "y", given)], d.tensors, ("N", *SHAPE))


def test_what_is_read_equals_onnxruntime(tmp_path):
    read = 0
    for seed in range(200):
        made = drawn(seed)
        x = np.random.default_rng(seed).normal(size=(3, *SHAPE)).astype(np.float32)
        wanted = runtime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]
        try:
            loaded = bfthw.load(written(tmp_path / "w.onnx", made))
        except bfthw.checkpoint.CheckpointError:
            continue
        read += 1
        found = outputs(loaded, x.astype(np.float64), wanted.shape)
        assert np.abs(found - wanted).max() <= 2e-5 * max(1e-3, np.abs(wanted).max()), f"seed {seed}"
        if seed % 2:
            judged(loaded.network, tmp_path / "q.onnx", seed)
    assert read > 180, read


def judged(network, path, seed):
    """onnxruntime gives the golden integers, beyond the calibration too."""
    x = np.random.default_rng(seed).normal(size=(4, *network.shape.dims))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        integers = bfthw.compile(network, settings=Settings(activation_bits=8), calibration=x, allow_constant=True)
    bfthw.save_onnx(integers, path)
    q = integers.input.quantise(2 * x)
    found = runtime.InferenceSession(str(path)).run(None, {"input": q})[0]
    assert np.array_equal(found, integers(q)), f"seed {seed}"
