"""Files of every layout, changed by chance: each seed loads, and what becomes of it is a network or one clear error."""

import numpy as np
import pytest
import torch
from checkpoint_files import WRITERS, layer

import bfthw
from bfthw.checkpoint import CheckpointError

RNG = np.random.default_rng(0)


def numbers(*shape):
    return RNG.normal(size=shape)


def norm(name, n):
    parts = {key: numbers(n) for key in ("weight", "bias", "running_mean")} | {"running_var": RNG.uniform(0.5, 2, n)}
    return {f"{name}.{key}": array for key, array in parts.items()}


SEEDS = {
    "native": layer("0", bias=numbers(4), flags=np.array([1, 1, 0])) | layer("2", scale=numbers(4)),
    "indexed": {
        "0.factors.0": numbers(6, 1, 2, 1),
        "0.index.0": RNG.integers(5, size=(6, 2)),
        "0.flags": np.array([2, 0, 1, 5]),
    },
    "dense": {"0.weight": numbers(6, 5), "0.bias": numbers(6), "2.weight": numbers(3, 6)} | norm("3", 3),
    "pointwise": norm("0", 8)
    | {"1.weight": numbers(6, 4, 1, 1), "3.weight": numbers(4, 6, 1, 1), "3.bias": numbers(4)},
    "released": {"0.conv.weight": np.zeros((12, 5, 1, 1))}
    | {f"0.conv.balanced_bfts.{t}.weight1": numbers(40) for t in range(3)}
    | norm("1.conv", 12),
    "torch_butterfly": {
        "0.twiddle": numbers(2, 2, 3, 4, 2, 2),
        "0.bias": numbers(11),
        "1.twiddle": numbers(1, 1, 4, 8, 2, 2),
    },
    "base 4": {"twiddle4": numbers(1, 1, 1, 2, 4, 4), "twiddle2": numbers(1, 1, 1, 4, 2, 2)},
    "butterfly": {
        "0.twiddle": numbers(1, 7, 2, 2),
        "1.twiddle": numbers(1, 6, 4, 2, 2),
        "2.twiddle": numbers(2, 3, 4, 2, 2),
    },
    "debut": {"0.twiddle": numbers(32), "0.bias": numbers(8)},
    "monarch": {"blkdiag1": numbers(4, 2, 3), "blkdiag2": numbers(4, 3, 2), "bias": numbers(11)},
}
OPTIONS = {"pointwise": {"inputs": "8"}}


def written(folder, name, seed, arrays):
    (folder / "shapes.txt").write_text("4 8 2 4 1 8 4 4 2 2")
    rest = {"shapes": folder / "shapes.txt"} if seed == "debut" else {}
    return WRITERS[name](folder / name, arrays), {"options": OPTIONS.get(seed)} | rest


def changed(rng, arrays):
    """The arrays with one to three things of them changed: keys, shapes, types and values."""
    arrays = dict(arrays)
    for _ in range(rng.integers(1, 4)):
        if not arrays:
            break
        key = str(rng.choice(list(arrays)))
        array = np.asarray(arrays[key])
        which = rng.integers(11)
        if which == 0:
            del arrays[key]
        elif which == 1:
            arrays[str(rng.choice([*arrays, "x", "", "0", "0.bias", key + ".0", "factors.9", "3.flags"]))] = array
        elif which == 2:
            arrays[key] = array.reshape(rng.permutation([*array.shape, 1]))
        elif which == 3:
            arrays[key] = array.T.copy()
        elif which == 4:
            axis = int(rng.integers(max(array.ndim, 1)))
            arrays[key] = (
                array.take(range(rng.integers(2) * rng.integers(array.shape[axis] + 1)), axis)
                if array.ndim
                else array[None]
            )
        elif which == 5:
            arrays[key] = np.concatenate([array, array]) if array.ndim else array
        elif which == 6:
            arrays[key] = array.astype(rng.choice(["f2", "f4", "i8", "i1", "u1", "?"]))
        elif which == 7:
            arrays[key] = array * rng.choice([0.0, -1.0, 1e300, np.nan, np.inf])
        elif which == 8:
            arrays[key] = array.ravel() if rng.random() < 0.5 else array[..., None]
        elif which == 9:
            arrays[key.replace("0", "1", 1)] = arrays.pop(key)
        else:
            arrays[key] = np.asarray(numbers(*rng.integers(0, 5, rng.integers(0, 6))))
    return arrays


def ends_well(path, rest, owner):
    """Whether it loads: a network that computes, or a CheckpointError of one line that names the file."""
    try:
        with np.errstate(all="ignore"):
            network = bfthw.load(path, **rest).network
            y = network(np.ones((2, network.inputs)))
    except CheckpointError as error:
        assert path.name in str(error) or "shapes.txt" in str(error), f"{owner}: {error}"
        assert "\n" not in str(error), f"{owner}: {error}"
        # not the last resort for what nobody thought of
        assert error.__cause__ is None, f"{owner}: {error.__cause__!r}"
        return False
    assert y.shape == (2, network.outputs), owner
    return True


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_changed_arrays(tmp_path, seed):
    counts = [0, 0]
    for number in range(60):
        name = list(WRITERS)[number % 3]
        path, rest = written(tmp_path, name, seed, SEEDS[seed])
        assert number > 2 or ends_well(path, rest, f"{seed} as {name}, unchanged")
        rng = np.random.default_rng(number)
        path, rest = written(tmp_path, name, seed, changed(rng, SEEDS[seed]))
        counts[ends_well(path, rest, f"{seed} as {name}, change {number}")] += 1
    assert min(counts) >= 1, counts


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_options(tmp_path, seed):
    """Options of every key, of layers and of all, with values that fit and others: one clear error, or a network."""
    path, rest = written(tmp_path, "w.npz", seed, SEEDS[seed])
    keys, values = (
        ["base", "stride", "inputs", "outputs", "relu", "norm", "eps"],
        ["2", "yes", "all", "behind", "8", "-1", "x"],
    )
    for number in range(40):
        rng = np.random.default_rng(number)
        key = str(rng.choice(["", "0.", "1.", "3."])) + str(rng.choice(keys))
        rest["options"] = (OPTIONS.get(seed) or {}) | {key: str(rng.choice(values))}
        ends_well(path, rest, f"{seed}, {rest['options']}")


@pytest.mark.parametrize("seed", ["dense", "native"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.pt"])
def test_changed_bytes(tmp_path, seed, name):
    path, rest = written(tmp_path, name, seed, SEEDS[seed])
    data = path.read_bytes()
    assert ends_well(path, rest, "unchanged")
    for number in range(60):
        rng = np.random.default_rng(number)
        bad = bytearray(data)
        for at in rng.integers(0, min(len(bad), 600) if number % 2 else len(bad), rng.integers(1, 4)):
            bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad[: len(bad) if number % 3 else rng.integers(len(bad))])
        ends_well(path, rest, f"{seed} as {name}, change {number}")


def test_changed_bytes_of_onnx(tmp_path):
    """Bits of the whole file: what still loads still equals ONNX's own evaluation."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    helper, counts = onnx.helper, [0, 0]
    nodes = [
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["a"], transB=1, beta=0.5),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Add", ["c", "2.bias"], ["y"]),
    ]
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    arrays["w"] = arrays.pop("2.weight").T.copy()
    tensors = [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()]
    ends = [[helper.make_tensor_value_info(name, 1, ["N", n])] for name, n in (("x", 6), ("y", 4))]
    made = helper.make_model(helper.make_graph(nodes, "g", *ends, tensors), opset_imports=[helper.make_opsetid("", 17)])
    data, x, path = made.SerializeToString(), numbers(3, 6).astype(np.float32), tmp_path / "w.onnx"
    for number in range(250):
        rng = np.random.default_rng(number)
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), min(number, rng.integers(1, 3))):  # the first one is the seed
            bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        loaded = ends_well(path, {}, f"change {number}")
        assert loaded or number
        counts[loaded] += 1
        if loaded:
            with np.errstate(all="ignore"):
                network = bfthw.load(path).network
                if network.inputs == 6 and network.outputs == 4:
                    (wanted,) = ReferenceEvaluator(onnx.load(path)).run(None, {onnx.load(path).graph.input[0].name: x})
                    close = np.allclose(network(x), wanted, rtol=1e-4, atol=1e-4, equal_nan=True)
                    assert close or not np.isfinite(wanted).all(), f"change {number}"
    assert min(counts) > 30, counts
