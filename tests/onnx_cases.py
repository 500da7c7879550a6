"""Small graphs of ONNX's operators that are read, as nodes and an input's shape; T has their constants."""

import numpy as np
from onnx import TensorProto

RNG = np.random.default_rng(7)
IMAGE, MAP, TOKENS = ("N", 3, 9, 8), ("N", 4, 6, 5), ("N", 5, 4)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


F = np.float32
T = {
    "w": numbers(6, 3, 3, 3),
    "b": numbers(6),
    "w4": numbers(6, 4, 3, 3),
    "p": numbers(6, 4, 1, 1),
    "s": numbers(4, 4, 1, 1),
    "d": numbers(4, 1, 3, 3),
    "mul8": numbers(8, 1, 3, 3),
    "grp": numbers(6, 2, 3, 3),
    "k1": numbers(6, 4, 3),
    "kh": numbers(5, 4, 3, 2),
    "gain": numbers(4),
    "shift": numbers(4),
    "mean": numbers(4),
    "var": np.abs(numbers(4)) + F(0.5),
    "c4": numbers(4, 1, 1),
    "gain3": numbers(3),
    "shift3": numbers(3),
    "mean3": numbers(3),
    "var3": np.abs(numbers(3)) + F(0.5),
    "std": np.abs(numbers(3, 1, 1)) + F(0.5),
    "mu": numbers(1, 3, 1, 1),
    "f120": numbers(120, 7),
    "f4": numbers(4, 7),
    "b7": numbers(7),
    "f216": numbers(216, 5),
    "l": numbers(3, 5),
    "one1": numbers(2, 1, 1, 1),
    "l3": numbers(2, 3, 1, 1),
    "l16": numbers(3, 16, 1, 1),
    "sq": numbers(4, 4),
    "blocks": numbers(2, 3, 2),
    "b2": numbers(2, 2, 2),
    "red": numbers(2, 4, 1, 1),
    "exc": numbers(4, 2, 1, 1),
    "zero": F(0),
    "six": F(6),
    "three": F(3),
    "one": F(1),
    "half": F(0.5),
    "slope": F([0.1]),
    "t12": numbers(12, 4, 1, 1),
    "i0": ints(0),
    "i1": ints(1),
    "im1": ints(-1),
    "im1s": np.array(-1, np.int64),
    "i00": ints(0, 0),
    "far2": ints(99, 99),
    "step2": ints(2, 2),
    "last": ints(-1),
    "first": ints(-99),
    "d2": numbers(6, 4, 2, 2),
    "f6": numbers(6, 7),
    "g120": numbers(120),
    "v120": np.abs(numbers(120)) + F(0.5),
    "p4": numbers(4, 4, 1, 1),
    "row4": numbers(1, 4),
    "half2": numbers(2, 4, 1, 1),
    "twice": ints(3, 1, 1, 1),
    "flat": ints(0, -1),
    "open": ints(-1, 120),
    "sh": ints(0, 2, 2, 6, 5),
    "back": ints(0, 4, 6, 5),
    "lo": ints(1),
    "hi": ints(3),
    "ax1": ints(1),
    "ax2": ints(2),
    "ax23": ints(2, 3),
    "pads": ints(0, 0, 1, 2, 0, 0, 2, 1),
    "cpads": ints(0, 1, 0, 0, 0, 2, 0, 0),
    "two": ints(2, 2),
    "pick": ints(3, 0, 2),
    "mat": numbers(9, 4, 1, 1),
    "p3": numbers(3, 4, 1, 1),
    "m33": ints(0, 3, 3),
    "m430": ints(0, 3, 30),
}


def nodes(*given):
    """Nodes by "Operator in in -> out", attributes behind; `x` is the input, a name of T a constant, _ is left out."""
    made = []
    for one in given:
        text, rest = one if isinstance(one, tuple) else (one, {})
        left, right = text.split(" -> ")
        op, *names = left.split()
        made.append((op, ["" if n == "_" else n for n in names], right.split(), rest))
    return made


CONV = ("Conv x w b -> h", {"pads": [1, 1, 1, 1]})
RIGHT = {
    "a vector added to a map": (
        nodes("GlobalAveragePool x -> g", "Add x g -> y"),
        MAP,
    ),
    "turned maps added": (
        nodes(("Transpose x -> t", {"perm": [0, 1, 3, 2]}), "Conv x s -> h", "Add h t -> y"),
        ("N", 4, 5, 5),
    ),
    "positions turned": (
        nodes(
            ("Transpose x -> h", {"perm": [0, 1, 3, 2]}),
            "Conv x s -> g",
            ("Transpose g -> k", {"perm": [0, 1, 3, 2]}),
            "Conv k w4 -> y",
        ),
        MAP,
    ),
    "positions in reverse": (
        nodes("Conv x s -> h", "Slice h last first ax2 im1 -> c", "Conv c w4 -> y"),
        MAP,
    ),
    "channels to blocks": (
        nodes(("DepthToSpace x -> h", {"blocksize": 2}), "Conv h one1 -> y"), MAP,
    ),
    "channels to blocks, as torch": (
        nodes("Conv x t12 -> h", ("DepthToSpace h -> k", {"blocksize": 2, "mode": "CRD"}), "Conv k l3 -> y"), MAP,
    ),
    "blocks to channels": (
        nodes(("SpaceToDepth x -> h", {"blocksize": 2}), "Conv h l16 -> y"), ("N", 4, 6, 4),
    ),
    "a convolution with stride": (
        nodes(("Conv x w b -> h", {"pads": [1, 1, 1, 1], "strides": [2, 2]}), "Relu h -> y"),
        IMAGE,
    ),
    "kernel and pads of unequal sides": (nodes(("Conv x kh -> y", {"pads": [2, 0, 0, 1], "strides": [2, 1]})), MAP),
    "same upper": (nodes(("Conv x w b -> y", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})), IMAGE),
    "same lower": (nodes(("Conv x kh -> y", {"auto_pad": "SAME_LOWER", "strides": [2, 3]})), MAP),
    "valid": (nodes(("Conv x w b -> y", {"auto_pad": "VALID", "kernel_shape": [3, 3]})), IMAGE),
    "depthwise, ReLU6": (nodes(("Conv x d -> h", {"group": 4, "pads": [1, 1, 1, 1]}), "Clip h zero six -> y"), MAP),
    "depthwise with a multiplier": (nodes(("Conv x mul8 -> y", {"group": 4})), MAP),
    "groups": (nodes(("Conv x grp -> y", {"group": 2})), MAP),
    "dilations": (nodes(("Conv x w b -> y", {"dilations": [2, 3], "pads": [2, 0, 1, 3], "strides": [2, 1]})), IMAGE),
    "dilated depthwise": (nodes(("Conv x d -> y", {"group": 4, "dilations": [1, 2], "pads": [1, 2, 1, 2]})), MAP),
    "dilated groups": (nodes(("Conv x grp -> y", {"group": 2, "dilations": [2, 2]})), MAP),
    "dilated along one axis": (nodes(("Conv x k1 b -> y", {"dilations": [3]})), ("N", 4, 11)),
    "along one axis": (nodes(("Conv x k1 b -> h", {"pads": [1, 1], "strides": [2]}), "Relu h -> y"), ("N", 4, 11)),
    "clips": (nodes("Clip x zero _ -> h", "Clip h _ one -> i", ("Conv i s -> y", {})), MAP),
    "a norm behind": (
        nodes(("Conv x s -> h", {}), ("BatchNormalization h gain shift mean var -> y", {"epsilon": 1e-3})),
        MAP,
    ),
    "a norm in front of padding": (
        nodes("BatchNormalization x gain3 shift3 mean3 var3 -> h", ("Conv h w b -> y", {"pads": [1, 1, 1, 1]})),
        IMAGE,
    ),
    "a norm behind a ReLU": (
        nodes("Relu x -> r", "BatchNormalization r gain shift mean var -> h", "Conv h p b -> y"),
        MAP,
    ),
    "the input scaled": (
        nodes("Sub x mu -> a", "Div a std -> c", "Mul c half -> e", ("Conv e w b -> y", {"pads": [1] * 4})),
        IMAGE,
    ),
    "a residual": (nodes("Conv x s -> h", "Relu h -> r", "Conv r s -> g", "Add g r -> a", "Relu a -> y"), MAP),
    "a sum of two branches": (nodes("Conv x p -> g", "Conv x p b -> h", "Add g h -> y"), MAP),
    "a difference": (nodes("Conv x p -> g", "Relu g -> r", "Conv x p b -> h", "Sub r h -> y"), MAP),
    "a sum of three, and of itself": (nodes("Conv x s -> h", "Sum h x h -> y"), MAP),
    "from channels last": (
        nodes(
            ("Transpose x -> t", {"perm": [0, 3, 1, 2]}), "Conv t p -> h", ("Transpose h -> y", {"perm": [0, 2, 3, 1]})
        ),
        ("N", 6, 5, 4),
    ),
    "flattened": (nodes("Conv x s -> h", "Relu h -> r", "Flatten r -> f", "Gemm f f120 b7 -> y"), MAP),
    "reshaped to a vector": (nodes("Conv x s -> h", "Reshape h flat -> f", "MatMul f f120 -> m", "Add m b7 -> y"), MAP),
    "an image to a dense layer": (nodes("Flatten x -> f", "Gemm f f216 -> y"), IMAGE),
    "max pool": (
        nodes(("MaxPool x -> h", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}), "Conv h p -> y"),
        MAP,
    ),
    "a pool alone": (nodes(("MaxPool x -> y", {"kernel_shape": [2, 2], "strides": [2, 1]})), MAP),
    "max pool, rounded up": (
        nodes(("MaxPool x -> h", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}), "Conv h p -> y"),
        MAP,
    ),
    "mean pool": (nodes(("AveragePool x -> h", {"kernel_shape": [2, 3], "strides": [1, 2]}), "Conv h p -> y"), MAP),
    "mean pool with its padding": (
        nodes(("AveragePool x -> y", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1})),
        MAP,
    ),
    "mean of all": (nodes("Conv x s -> h", "GlobalAveragePool h -> g", "Flatten g -> f", "Gemm f f4 b7 -> y"), MAP),
    "ReduceMean": (nodes(("ReduceMean x -> h", {"axes": [-1, -2], "keepdims": 0}), "MatMul h f4 -> y"), MAP),
    "ReduceMax": (nodes(("ReduceMax x -> h", {"axes": [2, 3], "keepdims": 1}), "Conv h p -> y"), MAP),
    "ReduceSum": (nodes(("ReduceSum x ax23 -> h", {"keepdims": 0}), "MatMul h f4 -> y"), MAP),
    "mean of tokens": (
        nodes(
            "MatMul x sq -> h", "Relu h -> r", ("ReduceMean r -> m", {"axes": [1], "keepdims": 0}), "Gemm m f4 b7 -> y"
        ),
        TOKENS,
    ),
    "a gate": (
        nodes(
            "GlobalAveragePool x -> a",
            "Conv a red -> c",
            "Relu c -> e1",
            "Conv e1 exc -> f",
            ("HardSigmoid f -> s1", {"alpha": 1 / 6}),
            "Mul x s1 -> y",
        ),
        MAP,
    ),
    "hard swish": (nodes("Conv x p -> h", "HardSwish h -> y"), MAP),
    "hard swish by hand": (
        nodes("Conv x p -> h", "Add h three -> a", "Clip a zero six -> c", "Div c six -> e1", "Mul h e1 -> y"),
        MAP,
    ),
    "silu": (nodes("Conv x p -> h", "Sigmoid h -> s1", "Mul h s1 -> y"), MAP),
    "tables": (
        nodes(
            "Tanh x -> a",
            ("LeakyRelu a -> c", {"alpha": 0.2}),
            ("Elu c -> e1", {"alpha": 0.5}),
            "Softplus e1 -> f",
            "Erf f -> k",
            "PRelu k slope -> y",
        ),
        MAP,
    ),
    "branches side by side": (nodes("Conv x p -> g", "Conv x s -> h", ("Concat g h x -> y", {"axis": 1})), MAP),
    "a channel shuffle": (
        nodes(
            "Conv x s -> h",
            "Reshape h sh -> a",
            ("Transpose a -> c", {"perm": [0, 2, 1, 3, 4]}),
            "Reshape c back -> e1",
            ("Conv e1 grp -> y", {"group": 2}),
        ),
        MAP,
    ),
    "split, one half changed": (
        nodes(("Split x two -> a c", {"axis": 1}), "Relu c -> e1", ("Concat e1 a -> y", {"axis": 1})),
        MAP,
    ),
    "channels sliced and gathered": (
        nodes(
            "Slice x lo hi ax1 -> a",
            ("Gather x pick -> c", {"axis": 1}),
            ("Concat a c -> e1", {"axis": -3}),
            "Relu e1 -> y",
        ),
        MAP,
    ),
    "weights on the left": (nodes("MatMul l x -> h", "Relu h -> y"), TOKENS),
    "tokens mixed": (
        nodes(
            ("Transpose x -> a", {"perm": [0, 2, 1]}),
            "MatMul a l2 -> c",
            ("Transpose c -> e1", {"perm": [0, 2, 1]}),
            "Add e1 x -> y",
        ),
        TOKENS,
    ),
    "blocks of a butterfly": (
        nodes(
            "Reshape x b4 -> a",
            ("Einsum a b2 -> c", {"equation": "nac,abc->nab"}),
            "Reshape c v4 -> e1",
            "Relu e1 -> y",
        ),
        ("N", 4),
    ),
    "a matrix of the data": (
        nodes(
            "GlobalAveragePool x -> a",
            "Conv a mat -> c",
            "Reshape c m33 -> m",
            "Conv x p3 -> e1",
            "Reshape e1 m430 -> f",
            ("Transpose f -> t", {"perm": [0, 2, 1]}),
            "MatMul t m -> y",
        ),
        MAP,
    ),
    "the batch's size by name": (
        nodes(
            "Conv x s -> h",
            "Shape h -> a",
            ("Gather a i0 -> c", {"axis": 0}),
            ("Concat c im1 -> e1", {"axis": 0}),
            "Reshape h e1 -> f",
            "Gemm f f120 -> y",
        ),
        MAP,
    ),
    "axes of length one": (
        nodes(
            "GlobalAveragePool x -> a",
            "Squeeze a ax23 -> c",
            "Gemm c sq -> e1",
            "Unsqueeze e1 ax2 -> f",
            "Squeeze f ax2 -> y",
        ),
        MAP,
    ),
    "positions cut off": (nodes("Conv x s -> h", "Slice h lo hi ax2 -> c", "Conv c d2 -> y"), MAP),
    "cut positions with an activation": (nodes("Conv x s -> h", "Slice h lo hi ax2 -> c", "Relu c -> y"), MAP),
    "every other position": (
        nodes(
            "Slice x i00 far2 ax23 step2 -> c",
            ("Conv x w4 b -> h", {"strides": [2, 2], "pads": [1] * 4}),
            "Conv c p -> e1",
            "Add h e1 -> y",
        ),
        MAP,
    ),
    "the last of a sequence": (
        nodes(("Conv x k1 -> h", {}), ("Gather h im1s -> c", {"axis": 2}), "Gemm c f6 b7 -> y"),
        ("N", 4, 11),
    ),
    "a norm of a flattened map": (
        nodes("Conv x s -> h", "Flatten h -> f", "BatchNormalization f g120 g120 g120 v120 -> k", "Gemm k f120 -> y"),
        MAP,
    ),
    "softsign by hand": (nodes("Conv x p -> h", "Abs h -> a", "Add a one -> c", "Div h c -> y"), MAP),
    "a constant again and again": (nodes("Tile half2 twice -> p2", "Conv x p2 -> y"), MAP),
    "a constant for each sample": (
        nodes(
            "GlobalAveragePool x -> g",
            "Flatten g -> f",
            "Shape f -> a",
            ("Gather a i0 -> c", {"axis": 0}),
            ("Concat c i1 -> t", {"axis": 0}),
            "Tile row4 t -> e1",
            "Add f e1 -> y",
        ),
        MAP,
    ),
    "zeros around": (nodes("Conv x s -> a", "Relu a -> r1", "Pad r1 pads -> c", "Conv c w4 b -> y"), MAP),
    "zeros around, then a ReLU": (nodes("Pad x pads -> a", "Relu a -> c", "Conv c w4 b -> y"), MAP),
    "zeros around, then a bias": (nodes("Pad x pads -> a", "Add a c4 -> c", "Conv c w4 b -> y"), MAP),
    "zeros around, added to": (
        nodes("Pad x pads -> a", "Conv x p4 -> e1", "Pad e1 pads -> f", "Add a f -> c", "Conv c w4 b -> y"),
        MAP,
    ),
    "zeros around what is added to itself": (nodes("Pad x pads -> a", "Conv a s -> e1", "Add e1 a -> y"), MAP),
    "more channels": (nodes("Pad x cpads -> c", "Relu c -> y"), MAP),
    "what does nothing": (
        nodes(
            "Identity x -> a",
            "Dropout a -> c",
            ("Cast c -> e1", {"to": TensorProto.FLOAT}),
            "Identity s -> s1",
            "Conv e1 s1 -> y",
        ),
        MAP,
    ),
    "turned signs": (nodes("Conv x p -> a", "Neg a -> c", "Sub one c -> e1", "Relu e1 -> y"), MAP),
    "two that take one": (
        nodes(
            "Conv x s -> a", "Relu a -> r1", "Conv r1 p -> c", "Conv r1 p b -> e1", ("Concat c e1 -> y", {"axis": 1})
        ),
        MAP,
    ),
    "a branch that nobody takes": (nodes("Conv x s -> a", "Relu a -> r1", "Conv a p -> y"), MAP),
    "constants computed": (nodes("Mul s half -> s1", "Add s1 s -> s2", "Conv x s2 -> y"), MAP),
}
T |= {
    "row": numbers(5),
    "five": numbers(2, 1, 1, 1),
    "cc": numbers(1, 4, 6, 5),
    "mix": ints(-1, 5),
    "seven": ints(0, 7),
    "far": ints(1, 4),
    "four": ints(4),
    "k3": numbers(2, 4, 2, 2, 2),
    "z": ints(1, 4, 12, 10),
    "much": ints(1 << 24, 1, 4, 6, 5),
}
T |= {"l2": numbers(5, 5), "b4": ints(0, 2, 2), "v4": ints(0, 4)}


def needed(given):
    names = {name for _, inputs, _, _ in given for name in inputs}
    return {name: array for name, array in T.items() if name in names}


RIGHT["the input scaled twice, apart"] = (
    nodes("Sub x mu -> a", "Mul a half -> c", "Conv a w b -> e1", "Conv c w -> f", "Add e1 f -> y"),
    IMAGE,
)
