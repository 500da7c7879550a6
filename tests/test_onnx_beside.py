"""Constants in files beside an .onnx file: by a plain name, in the same folder, regular, and with honest numbers."""

import os

import numpy as np
import pytest
from checkpoint_files import refused

import bfthw

onnx = pytest.importorskip("onnx")
from onnx import TensorProto
from onnx_files import model, written

W = np.random.default_rng(5).normal(size=(6, 10)).astype(np.float32)
NODES = [("Gemm", ["x", "fc.weight"], "y", {"transB": 1})]


def beside(path, location="w.bin", dims=None, kind=None, **entries):
    """A model whose weight is elsewhere."""
    made = model(NODES, {"fc.weight": W}, ("N", 10))
    (tensor,) = made.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if dims is not None:
        tensor.dims[:] = dims
    if kind is not None:
        tensor.data_type = kind
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    return written(path, made)


def read(path):
    (layer,) = bfthw.load(path).network.layers
    return layer.chain.dense()


def test_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"12345678" + W.tobytes() + b"more")
    assert np.array_equal(read(beside(tmp_path / "a.onnx", offset=8, length=W.nbytes)), W)
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    assert np.array_equal(read(beside(tmp_path / "a.onnx")), W)


WRONG = {
    "above": ({"location": "../w.bin"}, ["'../w.bin'; a plain name of a file in the same folder"]),
    "below": ({"location": "sub/w.bin"}, ["a plain name"]),
    "absolute": ({"location": "/etc/passwd"}, ["'/etc/passwd'; a plain name"]),
    "the folder": ({"location": "."}, ["a plain name"]),
    "the folder above": ({"location": ".."}, ["a plain name"]),
    "backslashes": ({"location": "..\\w.bin"}, ["a plain name"]),
    "no name": ({"location": ""}, ["a plain name"]),
    "missing": ({"location": "other.bin"}, ["other.bin: no such file"]),
    "a link": ({"location": "link.bin"}, ["is a link; the file itself"]),
    "a pipe": ({"location": "pipe"}, ["is a pipe, not a file"]),
    "a folder": ({"location": "sub"}, ["is a directory, not a file"]),
    "a device by its link": ({"location": "zero"}, ["is a link"]),
    "an offset behind the end": ({"offset": 1000}, ["bytes 1000 to 1240, ends behind 'w.bin' of 240 bytes"]),
    "an offset without an end": ({"offset": 1 << 59}, ["of 240 bytes"]),
    "a negative offset": ({"offset": -8}, ["the offset '-8', a number of bytes is read"]),
    "no number": ({"length": "0x10"}, ["the length '0x10'"]),
    "another length": ({"length": 100}, ["has 100 bytes, .6, 10. numbers of its type take 240"]),
    "more than there is": ({"dims": [6, 1000]}, ["ends behind"]),
    "huge": ({"dims": [1 << 31, 1 << 31]}, ["unpack to more memory"]),
    "a base path": ({"basepath": "/"}, ["location, offset and length are read"]),
    "strings": ({"kind": TensorProto.STRING}, ["is no array of real numbers"]),
}


@pytest.mark.parametrize("how, texts", WRONG.values(), ids=WRONG)
def test_refused(tmp_path, how, texts):
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        (place / "w.bin").write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to("w.bin")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    refused(beside(folder / "a.onnx", **how), "node 0, Gemm '/0/Gemm'|pipe|sub|other.bin|zero|link", *texts)


def test_many_files_and_large_ones(tmp_path):
    nodes = [("Gemm", ["x" if k == 0 else f"h{k}", f"w{k}"], f"h{k + 1}" if k < 9 else "y", {}) for k in range(10)]
    made = model(nodes, {f"w{k}": np.eye(4, dtype=np.float32) for k in range(10)}, ("N", 4))
    for k, tensor in enumerate(made.graph.initializer):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{k}.bin")
        (tmp_path / f"{k}.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    refused(written(tmp_path / "a.onnx", made), "node 8, Gemm", "the 9th file beside this one, 8 are the limit")
    with open(tmp_path / "w.bin", "wb") as file:  # a hole, which takes no room
        file.truncate(2 << 30)
    refused(beside(tmp_path / "b.onnx"), "w.bin: 0 to .* bytes are read, this file has 2147483648")
