"""Float checkpoints: exact round trips, the order of layers, and contents refused with file, key and rule."""

import json
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import FACTORS, WRITERS, formats, layer, npz, random_network, refused, safetensors, same

from bfthw import Chain, Layer, Network, Settings, chain, compile
from bfthw.checkpoint import is_integers, load, save, save_integers
from bfthw.quantize import choose_formats

# what is read


@formats
def test_bare_factors(tmp_path, name):
    checkpoint = load(WRITERS[name](tmp_path / name, FACTORS))
    (own,) = checkpoint.network.layers
    assert (own.name, own.residual, own.relu, own.bias, own.scale) == ("0", False, False, None, None)
    assert own.chain.patterns == ((1, 2, 2, 2), (2, 2, 2, 1))
    assert "no flags: layer '0' is taken without residual, bias and ReLU" in checkpoint.notes


@formats
def test_all_parts(tmp_path, name):
    parts = {"bias": np.arange(4.0), "scale": np.arange(4.0) + 1, "flags": np.array([1, 1, 1])}
    checkpoint = load(WRITERS[name](tmp_path / name, layer("block.0", **parts)))
    (own,) = checkpoint.network.layers
    assert (own.name, own.residual, own.relu) == ("block.0", True, True)
    assert own.bias.tolist() == [0, 1, 2, 3] and own.scale.tolist() == [1, 2, 3, 4]
    assert checkpoint.notes == ()


@formats
def test_wrappers_prefixes_are_left_out_and_noted(tmp_path, name):
    arrays = {f"module._orig_mod.module.{key}": array for key, array in FACTORS.items()}
    checkpoint = load(WRITERS[name](tmp_path / name, arrays))
    assert checkpoint.network.layers[0].name == "0"
    notes = [note for note in checkpoint.notes if "prefix" in note]
    assert [note.split("'")[1] for note in notes] == ["module.", "_orig_mod.", "module."]


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8"])
def test_dtypes_of_safetensors(tmp_path, dtype):
    values = np.arange(16).reshape(1, 4, 4, 1).astype(dtype)
    network = load(safetensors(tmp_path / "w.safetensors", {"factors.0": values})).network
    assert np.array_equal(network.layers[0].chain.factors[0].values, values)


def test_bfloat16(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 1e30], np.float32).reshape(1, 2, 2, 1)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    network = load(safetensors(tmp_path / "w.safetensors", {"factors.0": upper}, dtype="BF16")).network
    wanted = (upper.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(network.layers[0].chain.factors[0].values, wanted)
    assert wanted.ravel()[:3].tolist() == [1.0, -2.5, 3.140625]


def test_bfloat16_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"factors.0": torch.tensor([[[[1.0], [-2.5]]]], dtype=torch.bfloat16)}, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt").network.layers[0].chain.factors[0].values.ravel().tolist() == [1.0, -2.5]


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_checkpoint(tmp_path, key):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in FACTORS.items()}
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    notes = load(tmp_path / "w.pt").notes
    assert notes[0] == f"weights taken from '{key}'; not used: 'epoch', 'optimizer'"


def test_a_torch_module_describes_itself(tmp_path):
    torch = pytest.importorskip("torch")
    from bfthw.nn import Butterfly, to_layer

    module = Butterfly(16, bias=True, relu=True)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    checkpoint = load(tmp_path / "w.pt")
    same(checkpoint.network, Network(layers=[to_layer(module, "0")]))
    assert checkpoint.notes == ()


# the order of layers


def test_numbers_give_the_order(tmp_path):
    arrays = {k: v for i in (10, 9, 2) for k, v in layer(f"block{i}.bft").items()}
    for name in ("w.safetensors", "w.npz"):
        checkpoint = load(WRITERS[name](tmp_path / name, arrays))
        assert [own.name for own in checkpoint.network.layers] == ["block2.bft", "block9.bft", "block10.bft"]
        assert "order of the layers, by number: block2.bft, block9.bft, block10.bft" in checkpoint.notes


@pytest.mark.parametrize("name", ["w.npz", "w.pt"])
def test_the_file_gives_the_order(tmp_path, name):
    checkpoint = load(WRITERS[name](tmp_path / name, layer("head") | layer("body")))
    assert [own.name for own in checkpoint.network.layers] == ["head", "body"]
    assert "order of the layers, as in the file: head, body" in checkpoint.notes


def test_safetensors_keeps_no_order(tmp_path):
    path = safetensors(tmp_path / "w.safetensors", layer("head") | layer("body"))
    refused(path, "keeps no order", "head", "body", "pass order=")
    for order in (["head", "body"], ["body", "head"]):
        assert [own.name for own in load(path, order=order).network.layers] == order
    refused(path, "order must name each layer of the file once", "'tail'", order=["head", "tail"])
    one = load(path, order=["head"])
    assert [own.name for own in one.network.layers] == ["head"]
    assert "not taken, as the order does not name them: 'body'" in one.notes


def test_layers_beside_modules_of_torch(tmp_path):
    """A state_dict of a whole network: dense layers and norms are read, what is not is named, --order picks."""
    norm = {"1.weight": 2 * np.ones(4), "1.bias": np.ones(4), "1.running_mean": np.ones(4), "1.running_var": np.ones(4)}
    path = npz(tmp_path / "w.npz", layer("0") | norm | {"2.weight": np.ones((3, 4))})
    one, other = load(path).network.layers
    np.testing.assert_allclose(one.scale, 2 * (1 + 1e-5) ** -0.5)
    assert other.chain.patterns == ((1, 3, 4, 1),) and other.scale is None
    path = npz(tmp_path / "w.npz", layer("0") | norm | {"2.weight": np.ones((3, 4, 3, 3))})
    refused(path, r"1 arrays .*'2.weight' \(3, 4, 3, 3\); --order takes single layers, of '0'; bfthw.nn.extract")
    assert [own.parts for own in load(path, order=["0", "1"]).network.layers] == [["scale", "bias"]]


def test_the_description_gives_the_order(tmp_path):
    arrays = layer("9") | layer("10")
    text = json.dumps({"version": 1, "layers": ["10", "9"]})
    path = safetensors(tmp_path / "w.safetensors", arrays, {"bfthw": text})
    assert [own.name for own in load(path).network.layers] == ["10", "9"]
    refused(path, "contradicts the file's own order", order=["9", "10"])
    one = load(path, order=["9"])
    assert [own.name for own in one.network.layers] == ["9"] and any("'10'" in note for note in one.notes)
    path = npz(tmp_path / "w.npz", arrays | {"bfthw": np.frombuffer(text.encode(), np.uint8)})
    assert [own.name for own in load(path).network.layers] == ["10", "9"]


# round trips


@pytest.mark.parametrize("seed", range(8), ids="seed-{}".format)
@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_save_and_load(tmp_path, name, seed):
    network = random_network(seed)
    if seed % 2:
        network = Network(layers=network.layers, formats=choose_formats(network, Settings(row_exponents=seed)))
    save(network, tmp_path / name)
    checkpoint = load(tmp_path / name)
    same(checkpoint.network, network)
    assert not any("no flags" in note for note in checkpoint.notes)
    save(checkpoint.network, tmp_path / f"again-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    assert not is_integers(tmp_path / name)


@pytest.mark.parametrize("name", ["module", "_orig_mod", "0", "factors", "bias", "bfthw", "file"])
def test_names_that_look_like_something_else(tmp_path, name):
    network = random_network(0, names=(name,))
    for file in ("w.safetensors", "w.npz"):
        save(network, tmp_path / file)
        same(load(tmp_path / file).network, network)


def test_what_is_exact_in_float32_is_written_so(tmp_path):
    save(random_network(0), tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as arrays:
        assert arrays["first.factors.0"].dtype == np.float32 and arrays["a.b.factors.0"].dtype == np.float64
        assert arrays["first.flags"].dtype == np.int64


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    path.write_bytes(b"before")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        save(random_network(0), path)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_only_what_can_be_described_is_written(tmp_path):
    refused(tmp_path / "w.pt", r"must end in \.safetensors or \.npz", read=lambda path: save(random_network(0), path))
    refused(
        tmp_path / "w.safetensors",
        r"must end in \.npz",
        read=lambda path: save_integers(compile(random_network(0)), path),
    )
    assert not list(tmp_path.iterdir())


# arrays that are no checkpoint

BAD = {
    "nothing": ({}, ["no weights"]),
    "no-factors": ({"bias": np.ones(4)}, ["missing key 'factors.0'", "has only bias"]),
    "no-factors-in-a-layer": (layer("0") | {"1.scale": np.ones(4)}, ["missing key '1.factors.0'"]),
    "gap": ({"0.factors.0": FACTORS["factors.0"], "0.factors.2": FACTORS["factors.1"]}, ["missing key '0.factors.1'"]),
    "misspelt": (layer("0") | {"0.factor.1": np.ones(4)}, ["'0.factor.1'", "did you mean '0.factors.1'"]),
    "misspelt-part": (layer("0") | {"0.bais": np.ones(4)}, ["'0.bais'", "did you mean '0.bias'"]),
    "padded-number": (FACTORS | {"factors.02": np.ones((1, 1, 1, 1))}, ["unexpected key 'factors.02'"]),
    "batch-norm": (
        layer("0") | {"1.weight": np.ones(4), "1.running_mean": np.ones(4)},
        ["2 arrays belong to no layer .*'1.running_mean'", "--order takes single layers, of '0'", "bfthw.nn.extract"],
    ),
    "both": (FACTORS | layer("0"), ["are the same", "factors.0"]),
    "2-D": ({"factors.0": np.ones((4, 4))}, ["'factors.0' must have shape", r"\(a, b, c, d\), got \(4, 4\)"]),
    "no-size": ({"factors.0": np.ones((1, 0, 4, 1))}, ["'factors.0' must have shape", r"got \(1, 0, 4, 1\)"]),
    "bias-2-D": (layer("0", bias=np.ones((4, 1))), ["'0.bias'", r"must have shape \(4,\), got \(4, 1\)"]),
    "scale-short": (layer("0", scale=np.ones(3)), ["'0.scale'", r"must have shape \(4,\), got \(3,\)"]),
    "inside": (
        {"factors.0": np.ones((1, 2, 2, 2)), "factors.1": np.ones((2, 2, 3, 1))},
        ["do not chain", "'factors.0'", "gives a.b.d = 4", "'factors.1'", "takes a.c.d = 6"],
    ),
    "between": (layer("0") | {"1.factors.0": np.ones((1, 2, 3, 1))}, ["'0' gives 4 values, '1' takes 3"]),
    "nan": (
        {"factors.0": np.full((1, 1, 2, 1), [[0], [np.nan]])},
        ["'factors.0' must be finite", r"nan at \(0, 0, 1, 0\)"],
    ),
    "infinite": (layer("0", bias=np.array([0, 0, -np.inf, 0])), ["'0.bias' must be finite", r"-inf at \(2,\)"]),
    "complex": ({"factors.0": np.ones((1, 1, 1, 1), np.complex64)}, ["'factors.0' must be real", "complex64"]),
    "bool": ({"factors.0": np.ones((1, 1, 1, 1), bool)}, ["'factors.0' must be real", "bool"]),
    "flags-version": (layer("0", flags=np.array([2, 0, 0])), ["'0.flags'", "the version of 3 flags must be 1, got 2"]),
    "flags-value": (layer("0", flags=np.array([1, 0, 2])), ["'0.flags'", "must be 0 or 1, got 0 and 2"]),
    "flags-shape": (layer("0", flags=np.array([1, 0])), ["'0.flags' must be 3 integers", r"\(2,\)"]),
    "flags-float": (layer("0", flags=np.array([1.0, 0, 0])), ["'0.flags' must be 3 integers", "float64"]),
    "flags-bool": (layer("0", flags=np.array([True, False, True])), ["'0.flags' must be 3 integers", "bool"]),
    "residual": (
        {"factors.0": np.ones((1, 3, 4, 1)), "flags": np.array([1, 1, 0])},
        ["'flags': a residual needs as many outputs as inputs, got 4 -> 3"],
    ),
    "path": (layer(".."), [r"'\.\.\.factors\.0'", "a layer's name must be words"]),
    "absolute": (layer("/etc/x"), ["a layer's name must be words"]),
    "climbing": (layer("../x"), ["a layer's name must be words"]),
    "spaces": (layer("a b"), ["a layer's name must be words"]),
    "letters": (layer("é"), ["a layer's name must be words"]),
    "empty-name": (layer(""), ["a layer's name must be words"]),
    "long-name": (layer("x" * 250), ["a layer's name must be words"]),
    "huge-name": (layer("x" * 5000), ["at most 300 characters, got 50"]),
}


@formats
@pytest.mark.parametrize("arrays, texts", BAD.values(), ids=BAD)
def test_no_checkpoint(tmp_path, name, arrays, texts):
    refused(WRITERS[name](tmp_path / name, arrays), *texts)


DESCRIPTIONS = {
    "no-json": ("{", ["bfthw", "JSON"]),
    "deep": ("[" * 100000, ["bfthw"]),
    "list": ("[]", ["bfthw"]),
    "version": ('{"version": 3, "layers": ["0"]}', ["bfthw.version", "versions 1 to 2 are read here, got 3"]),
    "version-zero": ('{"version": 0, "layers": ["0"]}', ["bfthw.version", "Input should be 1, got 0"]),
    "version-one-as-two": ('{"version": 2, "layers": ["0"]}', ["bfthw.shape.*Field required"]),
    "no-version": ('{"layers": ["0"]}', ["bfthw.version", "required"]),
    "unknown": ('{"version": 1, "layers": ["0"], "more": 1}', ["bfthw.more"]),
    "layer-missing": ('{"version": 1, "layers": ["0", "1"]}', ["bfthw.layers must name each layer of the file once"]),
    "layer-twice": ('{"version": 1, "layers": ["0", "0"]}', ["bfthw.layers must name each layer of the file once"]),
    "layer-number": ('{"version": 1, "layers": [0]}', ["bfthw.layers.0", "valid string, got 0"]),
    "formats-list": ('{"version": 1, "layers": ["0"], "formats": []}', ["bfthw.formats"]),
    "formats-empty": ('{"version": 1, "layers": ["0"], "formats": {}}', ["formats are malformed"]),
    "formats-wrong": (
        '{"version": 1, "layers": ["0"], "formats": {"input": [8, 7], "layers": []}}',
        ["formats for 0 layers, the network has 1"],
    ),
}


@pytest.mark.parametrize("text, texts", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_malformed_description(tmp_path, text, texts):
    refused(safetensors(tmp_path / "w.safetensors", FACTORS, {"bfthw": text}), *texts)
    refused(npz(tmp_path / "w.npz", FACTORS | {"bfthw": np.frombuffer(text.encode(), np.uint8)}), *texts)
    assert not is_integers(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "path, value, text",
    [
        (["input"], [8, 900], "integer overflow"),
        (["layers", 0, "bias_width"], 0, "width must be 1 to 62"),
        (["layers", 0, "bias_width"], "4", "width must be an int"),
        (["layers", 0, "factors", 0, "weights"], [62, 0], "integer overflow"),
        (["layers", 0, "factors", 0, "weights"], [8, 1000], "integer overflow"),
        (["layers", 0, "factors", 0, "rows"], 10**12, "rows must be an integer from 0 to 62"),
        (["layers", 0, "skip"], [8, 4], "skip has no use here"),
    ],
)
def test_hostile_formats(tmp_path, path, value, text):
    network = Network(layers=[Layer(chain=Chain.random(chain.bft(16), 0), bias=np.ones(16))])
    table = target = choose_formats(network).to_dict()
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    arrays = {f"0.factors.{m}": f.values for m, f in enumerate(network.layers[0].chain.factors)}
    arrays["0.bias"] = np.ones(16)
    description = json.dumps({"version": 1, "layers": ["0"], "formats": table})
    refused(safetensors(tmp_path / "w.safetensors", arrays, {"bfthw": description}), text)


def test_importing_bfthw_does_not_import_torch():
    code = "import sys, bfthw, bfthw.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
