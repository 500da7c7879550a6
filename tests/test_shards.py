"""Networks in several files, read through their index: equal to the same network in one, or refused."""

import json
import os

import numpy as np
import pytest
import torch
from checkpoint_files import refused, safetensors, torch_file
from torch import nn

import bfthw
from bfthw.checkpoint import load
from bfthw.reading import OWN

SUFFIXES = {".safetensors": safetensors, ".bin": torch_file}


@pytest.fixture
def model():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def write(folder, arrays, suffix=".safetensors", count=2, stem="model"):
    """Arrays spread over `count` files, some layers over two of them, and the index as Hugging Face has it."""
    names = [f"{stem}-{n + 1:05}-of-{count:05}{suffix}" for n in range(count)]
    places = {key: names[n * count // len(arrays)] for n, key in enumerate(arrays)}
    for name in names:
        SUFFIXES[suffix](folder / name, {key: array for key, array in arrays.items() if places[key] == name})
    index = {"metadata": {"total_size": 8 * sum(a.size for a in arrays.values())}, "weight_map": places}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder / f"{stem}{suffix}.index.json", [folder / name for name in names]


def arrays_of(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("suffix, stem", [(".safetensors", "model"), (".bin", "torch_model"), (".safetensors", "a.b")])
@pytest.mark.parametrize("count", [2, 5])
def test_index_or_any_part(tmp_path, model, suffix, stem, count):
    index, parts = write(tmp_path, arrays_of(model), suffix, count, stem)
    x = torch.randn(9, 16).double()
    for path in (index, parts[0], parts[-1]):
        loaded = load(path, options={"relu": "gaps"})
        assert np.allclose(loaded.network(x.numpy()), model(x).detach().numpy(), rtol=1e-12, atol=1e-12)
        assert loaded.notes[0] == f"read from {count} files, {parts[0].name} to {parts[-1].name}"
    single = SUFFIXES[suffix](tmp_path / f"whole{suffix}", arrays_of(model))
    for one, two in zip(load(single).network.layers, loaded.network.layers):
        assert np.array_equal(one.chain.factors[0].values, two.chain.factors[0].values)
        assert np.array_equal(one.bias, two.bias)


def test_parts_of_torch_have_an_order_and_one_key(tmp_path):
    arrays = {f"{name}.weight": np.eye(4) * k for k, name in enumerate(("last", "first", "body"))}
    _, (one, two) = write(tmp_path, arrays, ".bin", 2, "w")
    assert [layer.name for layer in load(one).network.layers] == ["last", "first", "body"]
    index, _ = write(tmp_path, arrays)
    refused(index, "safetensors keeps no order")
    for path in (one, two):
        torch.save({"ema": torch.load(path), "net": torch.load(path)}, path)
    refused(one, "holds 2 state dicts", r"choose with --key 'ema'")
    assert "weights taken from 'ema'; not used: 'net'" in load(one, key="ema").notes


def test_links_to_files_elsewhere_are_followed(tmp_path, model):
    """As caches of downloads have them."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "named").mkdir()
    index, parts = write(tmp_path / "blobs", arrays_of(model))
    for n, path in enumerate((index, *parts)):
        path.rename(tmp_path / "blobs" / str(n))
        (tmp_path / "named" / path.name).symlink_to(tmp_path / "blobs" / str(n))
    assert load(tmp_path / "named" / parts[0].name).network.inputs == 16


def changed(index, change):
    table = json.loads(index.read_text())
    change(table["weight_map"])
    index.write_text(json.dumps(table))


PLACES = {
    "above": ("../model.safetensors", "must be a file beside the index"),
    "absolute": ("/etc/model.safetensors", "must be a file beside the index"),
    "below": ("a/model.safetensors", "must be a file beside the index"),
    "hidden": (".safetensors", "must be a file beside the index"),
    "number": (3, "must be a file beside the index"),
    "another kind": ("model.json", r"ends in one of \.safetensors"),
    "zero": ("a\0.safetensors", "must be a file beside the index"),
    "absent": ("other.safetensors", "other.safetensors: no such file"),
}


@pytest.mark.parametrize("place, words", PLACES.values(), ids=PLACES)
def test_places_that_are_refused(tmp_path, model, place, words):
    index, (_, part) = write(tmp_path, arrays_of(model))
    changed(index, lambda places: places.update({"0.bias": place}))
    with pytest.raises(ValueError, match=words) as caught:
        load(part)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_index_and_files_must_agree(tmp_path, model):
    index, (one, two) = write(tmp_path, arrays_of(model))
    before = index.read_text()
    changed(index, lambda places: places.update({"9.weight": one.name}))
    with pytest.raises(ValueError, match="00001-of-00002.safetensors: the index says that '9.weight' is here, and it"):
        load(index)
    index.write_text(before)
    changed(index, lambda places: places.pop("4.bias"))
    with pytest.raises(ValueError, match="00002-of-00002.safetensors: '4.bias' is here, and the index does not say so"):
        load(index)
    changed(index, lambda places: [places.pop(key) for key in [k for k in places if places[k] == two.name]])
    refused(two, "its index, .*model.safetensors.index.json, does not name it")
    index.write_text(before.replace('"0.bias"', '"0.weight"'))
    refused(index, "a name stands twice")
    for text in ("[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', "{", "[" * 10_000, "\xff"):
        index.write_text(text)
        refused(index, "not an index of files")
    index.unlink()
    refused(one, "is part 1 of 2 of a network, model.safetensors.index.json lists the others and must be beside it")
    refused(index, "no such file")


def test_limits_hold_in_all(tmp_path):
    """The files together are read within the limit of one, and so are their numbers."""
    arrays = {f"{n}.weight": np.ones((128, 128), np.float32) for n in range(6)}
    index, parts = write(tmp_path, arrays, count=6)
    size = parts[0].stat().st_size
    assert load(index, limit=OWN + 6 * 13 * 128**2).network.inputs == 128
    with pytest.raises(ValueError, match="unpacks to more than .* bytes, the limit"):
        load(index, limit=OWN + 6 * 13 * 128**2 - 1)
    with pytest.raises(ValueError, match=f"00006-of-00006.safetensors: 1 to {size - 1} bytes are read"):
        load(index, limit=4 * (6 * size - 1))
    changed(index, lambda places: places.update({str(n): f"{n}.safetensors" for n in range(200)}))
    refused(index, "names 206 files, 200 are the limit")


def test_a_pipe_among_the_parts(tmp_path, model):
    index, (one, _) = write(tmp_path, arrays_of(model))
    one.unlink()
    os.mkfifo(one)
    with pytest.raises(ValueError, match="00001-of-00002.safetensors: is a pipe, not a file"):
        load(index)


def test_a_part_that_describes_itself(tmp_path):
    network = bfthw.Network(layers=[bfthw.Layer(chain=bfthw.Chain.random(bfthw.chain.bft(4, 2), 1), name="a")])
    index, (one, two) = write(tmp_path, {"b.weight": np.eye(4), "a.weight": np.eye(4)})
    bfthw.save(network, two)
    names = dict.fromkeys(("a.factors.0", "a.factors.1", "a.flags"), two.name)
    changed(index, lambda places: [places.pop("a.weight"), places.update(names)])
    with pytest.raises(ValueError, match="00002-of-00002.safetensors: describes itself"):
        load(index)
