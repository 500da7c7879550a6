"""Integer networks in files: exact round trips, and everything else refused."""

import json

import numpy as np
import pytest
from checkpoint_files import FACTORS, npz, random_network, refused

from bfthw import Chain, Layer, Network, Settings, chain, compile
from bfthw.checkpoint import is_integers, load, load_integers, save, save_integers
from bfthw.formats import formats_of


@pytest.mark.parametrize("seed", range(8), ids="seed-{}".format)
def test_save_and_load_integers(tmp_path, seed):
    network = random_network(seed)
    integers = compile(network, settings=Settings(row_exponents=seed % 3, weight_bits=4 + 3 * (seed % 4)))
    path = tmp_path / "w.npz"
    save_integers(integers, path)
    again = load_integers(path)
    assert again.names == integers.names and is_integers(path)
    for a, b in zip(integers.factors, again.factors):
        for key in a.__dataclass_fields__:
            x, y = getattr(a, key), getattr(b, key)
            assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y, key
    x = np.random.default_rng(seed).integers(-128, 128, (20, 16))
    assert np.array_equal(integers(x), again(x))
    save_integers(again, tmp_path / "again.npz")
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()
    refused(path, "holds an integer network", "bfthw generate")
    with np.load(path) as arrays:
        bits = 4 + 3 * (seed % 4)
        assert arrays["first.factors.0"].dtype == (np.int8 if bits <= 8 else np.int16)


def integer_file(tmp_path, change=lambda arrays, table: None):
    """An integer file with something changed."""
    network = Network(
        layers=[Layer(chain=Chain.random(chain.bft(16), 0), residual=True, scale=np.ones(16), bias=np.ones(16))]
    )
    save_integers(compile(network, settings=Settings(row_exponents=2)), tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as file:
        arrays = dict(file)
    table = json.loads(arrays.pop("bfthw").tobytes())
    change(arrays, table)
    return npz(tmp_path / "w.npz", arrays | {"bfthw": np.frombuffer(json.dumps(table).encode(), np.uint8)})


INTEGERS = {
    "float": (
        lambda a, t: a.update({"0.factors.0": np.ones((1, 4, 4, 4))}),
        ["'0.factors.0'", "must be integers.*float64"],
    ),
    "too-wide": (
        lambda a, t: a.update({"0.factors.0": np.full((1, 4, 4, 4), 200)}),
        ["'0.factors.0'", r"must fit 8 bits \(-128 to 127\), got 200"],
    ),
    "shape": (lambda a, t: a.update({"0.factors.1": np.ones((4, 4), int)}), ["'0.factors.1'", r"shape \(a, b, c, d\)"]),
    "chain": (lambda a, t: a.update({"0.factors.0": np.ones((1, 4, 4, 5), int)}), ["'0.factors.0'|do not chain"]),
    "exponents": (
        lambda a, t: a.update({"0.factors.0.exponents": np.full((1, 4, 4), -1)}),
        ["'0.factors.0'", "exponents must be 0 to 62, got -1"],
    ),
    "missing": (lambda a, t: a.pop("0.factors.1"), ["missing key '0.factors.1'"]),
    "no-skip": (lambda a, t: a.pop("0.skip"), ["missing key '0.skip'"]),
    "extra": (
        lambda a, t: a.update({"0.biass": np.ones(3, int)}),
        ["unexpected key '0.biass'", "did you mean '0.bias'"],
    ),
    "version": (lambda a, t: t.update(version=3), ["bfthw.version", "versions 1 to 2 are read here, got 3"]),
    "unknown": (lambda a, t: t.update(more=2), ["bfthw.more"]),
    "no-layers": (lambda a, t: (t.update(layers=[]), a.clear()), ["at least one layer"]),
    "no-factors": (
        lambda a, t: (t["layers"][0].update(factors=[], skip=None, bias_width=None), a.clear()),
        ["at least one"],
    ),
    "layer-twice": (lambda a, t: t["layers"].append(t["layers"][0]), ["layer names must differ"]),
    "name": (
        lambda a, t: (t["layers"][0].update(name="../0"), a.update({f"../{k}": a.pop(k) for k in list(a)})),
        ["a layer's name must be words"],
    ),
    "residual": (lambda a, t: t["layers"][0].update(residual=False), ["layer '0': skip needs residual = true"]),
    "residual-number": (lambda a, t: t["layers"][0].update(residual=1), ["bfthw.layers.0.residual"]),
    "format": (
        lambda a, t: t["layers"][0]["factors"][0].update(output=[99, 0]),
        ["'0.factors.0'", "1 to 62 bits, got 99"],
    ),
    "mismatch": (
        lambda a, t: t["layers"][0]["factors"][0].update(output=[9, 9]),
        ["factor 0 of layer '0' gives 9 bits"],
    ),
    "overflow": (
        lambda a, t: t["layers"][0]["factors"][1].update(output=[10, 900]),
        ["'0.factors.1'", "integer overflow"],
    ),
    "bias-width": (
        lambda a, t: t["layers"][0].update(bias_width=2),
        ["'0.factors.1'", "IntFactor.bias must fit 2 bits"],
    ),
    "bias-zero": (lambda a, t: t["layers"][0].update(bias_width=0), ["'0.factors.1'", "1 to 62 bits, got 0"]),
}


@pytest.mark.parametrize("change, texts", INTEGERS.values(), ids=INTEGERS)
def test_malformed_integers(tmp_path, change, texts):
    path = integer_file(tmp_path, change)
    refused(path, *texts, read=load_integers)
    assert is_integers(path)
    refused(path, "integer network")


def test_float_files_are_no_integer_networks(tmp_path):
    path = npz(tmp_path / "w.npz", FACTORS)
    refused(path, "not marked as an integer network", read=load_integers)
    refused(tmp_path / "none.npz", "no such file", read=load_integers)
    assert load_integers(integer_file(tmp_path)).inputs == 16
    for name in ("none.npz", "w.safetensors", ".."):
        assert not is_integers(tmp_path / name)


def by_the_book(seed):
    """(arrays, inputs, outputs) of a file as docs/manifest.md has it and of the arithmetic of docs/numbers.md.

    One layer of two factors with row exponents, a weighted residual, a bias and a ReLU; one whose inputs are named.
    """
    rng = np.random.default_rng(seed)
    formats = [[9, 5], [9, 4], [7, 2], [12, 3]]  # between the three factors
    tables = [{"weights": [5, 3], "input": i, "output": o} for i, o in zip(formats, formats[1:])]
    layers = [
        {"name": "a.b", "residual": True, "relu": True, "factors": tables[:2], "skip": [4, 2], "bias_width": 11},
        {"name": "c", "residual": False, "relu": False, "factors": [tables[2] | {"inputs": 8}], "skip": None}
        | {"bias_width": None},
    ]
    text = json.dumps({"version": 1, "kind": "integers", "layers": layers})
    v0, v1 = (rng.integers(-16, 16, shape) for shape in ((1, 4, 4, 2), (4, 2, 2, 1)))
    v2, index = rng.integers(-16, 16, (5, 1, 3, 1)), rng.integers(8, size=(5, 3))
    exponents, skip, bias = rng.integers(0, 4, (4, 2, 1)), rng.integers(-8, 8, 8), rng.integers(-1024, 1024, 8)
    exponents[0, 0, 0] = 3
    arrays = {"bfthw": np.frombuffer(text.encode(), np.uint8), "a.b.factors.0": v0, "a.b.factors.1": v1}
    arrays |= {"a.b.factors.1.exponents": exponents.astype(np.uint8), "a.b.skip": skip.astype(">i2"), "a.b.bias": bias}
    arrays |= {"c.factors.0": v2, "c.factors.0.index": index}

    def rounded(acc, shift, width):
        half = 1 << shift - 1
        return max(-(1 << width - 1), min((1 << width - 1) - 1, (acc + half) >> shift))

    def outputs(x):
        y = [
            rounded(sum(int(v0[0, j, k, l]) * x[2 * k + l] for k in range(4)), 5 + 3 - 4, 9)
            for j in range(4)
            for l in range(2)
        ]
        z = []
        for i in range(4):
            for j in range(2):
                # acc_frac: 4 + 3 + 3 of the dot product is more than the residual's 5 + 2
                dot = sum(int(v1[i, j, k, 0]) * y[2 * i + k] for k in range(2)) << 3 - int(exponents[i, j, 0])
                n = 2 * i + j
                z.append(max(0, rounded(dot + (int(skip[n]) * x[n] << 3) + int(bias[n]), 10 - 2, 7)))
        return [rounded(sum(int(v2[j, 0, k, 0]) * z[index[j, k]] for k in range(3)), 2 + 3 - 3, 12) for j in range(5)]

    x = rng.integers(-256, 256, (50, 8))
    return arrays, x, [outputs(row) for row in x.tolist()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_by_the_book_alone(tmp_path, seed, save):
    arrays, x, y = by_the_book(seed)
    save(tmp_path / "q.npz", **arrays)
    network = load_integers(tmp_path / "q.npz")
    assert network(x).tolist() == y
    assert network.names == ("a.b.factors.0", "a.b.factors.1", "c.factors.0")


AGAINST = {
    "missing key 'a.b.bias'": lambda arrays: arrays.pop("a.b.bias"),
    "unexpected key 'c.bias'": lambda arrays: arrays.update({"c.bias": arrays["a.b.bias"]}),
    "must fit 4 bits": lambda arrays: arrays.update({"a.b.skip": arrays["a.b.skip"] * 2}),
    "must be 0 to 7": lambda arrays: arrays.update({"c.factors.0.index": arrays["c.factors.0.index"] + 4}),
}


@pytest.mark.parametrize("text", AGAINST)
def test_a_file_against_the_book_is_refused(tmp_path, text):
    arrays, *_ = by_the_book(0)
    AGAINST[text](arrays)
    refused(npz(tmp_path / "q.npz", arrays), text, read=load_integers)


def test_formats_without_a_sign_come_back(tmp_path):
    network = random_network(1)
    settings = Settings(unsigned=True, activation_bits=9)
    x = np.random.default_rng(0).uniform(size=(50, network.inputs))
    integers = compile(network, settings=settings, calibration=x)
    assert not integers.input.signed and any(not f.output.signed for f in integers.factors)
    save_integers(integers, tmp_path / "x.npz")
    again = load_integers(tmp_path / "x.npz")
    for one, two in zip(again.factors, integers.factors):
        for key in ("input", "weights", "output", "skip_input"):
            assert getattr(one, key) == getattr(two, key)
    q = np.random.default_rng(1).integers(0, integers.input.hi + 1, (30, network.inputs))
    assert np.array_equal(again(q), integers(q))
    trained = Network(layers=network.layers, formats=formats_of(integers))
    save(trained, tmp_path / "f.safetensors")
    assert load(tmp_path / "f.safetensors").network.formats == formats_of(integers)
