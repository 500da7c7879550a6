"""Files that are no files of their kind: damaged, lying about their size, or holding code."""

import io
import json
import struct
import sys
import zipfile

import numpy as np
import pytest
from checkpoint_files import FACTORS, WRITERS, layer, npz, refused, safetensors, torch_file

from bfthw import storage
from bfthw.checkpoint import CheckpointError, is_integers, load
from bfthw.reading import OWN


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth"])
def test_damaged_files(tmp_path, suffix):
    if suffix.startswith(".p"):
        pytest.importorskip("torch")
    path = tmp_path / f"w{suffix}"
    refused(path, "no such file")
    path.write_bytes(b"")
    refused(path, "this file has 0")
    path.write_bytes(b"no tensors in here at all, sorry")
    refused(path, "not a valid|refuses")
    whole = WRITERS[f"w{suffix}"](tmp_path / f"whole{suffix}", FACTORS).read_bytes()
    for cut in (1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, "not a valid|refuses")
    directory = tmp_path / f"dir{suffix}"
    directory.mkdir()
    refused(directory, "is a directory")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
@pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
def test_flipped_bytes_never_escape(tmp_path, suffix, seed):
    path = WRITERS[f"w{suffix}"](tmp_path / f"w{suffix}", layer("0", bias=np.ones(4)))
    whole, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for _ in range(60):
        damaged = whole.copy()
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except CheckpointError as error:
            assert path.name in str(error)


@pytest.mark.parametrize("name", ["w", "w.h5", "w.npy", "w.pkl"])
def test_other_suffixes(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, r"\.safetensors, \.npz, \.pt, \.pth, \.ckpt, \.bin, \.tar, \.index\.json, \.onnx")


def header(table, data=b""):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        header(b"{"),
        header(b"\xff\xfe"),
        header(b"[" * 50000),
        header([]),
        header({"factors.0": 3}),
        header({"factors.0": entry([2**40, 2**40, 1, 1], 0, 4)}, bytes(4)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 2**40)}, bytes(4)),
        header({"factors.0": entry([1, 1, 1, 1], 4, 0)}, bytes(4)),
        header({"factors.0": entry([1, 1, 1, -1], 0, 4)}, bytes(4)),
        header({"factors.0": entry([1, 1, 2, 1], 0, 4)}, bytes(4)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 4)}, bytes(2)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 4)}, bytes(6)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 4), "factors.1": entry([1, 1, 1, 1], 2, 6)}, bytes(6)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 4), "factors.1": entry([1, 1, 1, 1], 8, 12)}, bytes(12)),
        header({"factors.0": entry([1, 1, 1, 1], 0, 4, "Q7")}, bytes(4)),
        header(
            b'{"factors.0":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[0,4]},'
            b'"factors.0":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        header({"__metadata__": {"bfthw": 3}}),
    ],
    ids=lambda d: repr(d[8:60])[2:-1],
)
def test_hostile_safetensors(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    refused(path, "not a valid safetensors file")


def test_eight_bit_floats_are_named(tmp_path):
    path = safetensors(tmp_path / "w.safetensors", {"factors.0": np.ones((1, 1, 1, 1), np.uint8)}, dtype="F8_E4M3")
    refused(path, "'factors.0' must be real numbers, got dtype F8_E4M3")


def npy(array=None, *, text=None, data=b"", version=1):
    if array is not None:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
        return stream.getvalue()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text.encode() + data


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return path


def shape_text(shape, descr="'<f8'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "members, texts",
    [
        ({"factors.0.npy": npy(np.array([{"a": 1}], object))}, ["'factors.0'", "never pickled objects"]),
        ({"factors.0.npy": npy(np.array(["text"]))}, ["'factors.0'", "real numbers"]),
        ({"factors.0.npy": npy(np.zeros(1, [("a", "f8")]))}, ["'factors.0'", "real numbers"]),
        ({"factors.0.npy": b""}, ["'factors.0' is not a valid .npy array"]),
        ({"factors.0.npy": npy(np.ones((1, 1, 1, 1)))[:-3]}, ["'factors.0'", "does not fit its 5 bytes"]),
        ({"factors.0.npy": npy(text=shape_text((2**40, 1, 1, 1)), data=bytes(8))}, ["does not fit its 8 bytes"]),
        ({"factors.0.npy": npy(text=shape_text((-1, -1, 1, 1)), data=bytes(8))}, ["does not fit its 8 bytes"]),
        ({"factors.0.npy": npy(text=shape_text((2**63, 2, 1, 0)), data=b"")}, ["factors.0"]),
        ({"factors.0.npy": npy(text=shape_text("(1.5,)"), data=bytes(8))}, ["not a valid .npy"]),
        ({"factors.0.npy": npy(text="(" * 5000)}, ["not a valid .npy"]),
        ({"factors.0.npy": npy(text="__import__('os').getcwd()")}, ["not a valid .npy"]),
        ({"factors.0.npy": npy(text=shape_text((1, 1, 1, 1)), data=bytes(8), version=9)}, ["not a valid .npy"]),
        ({"factors.0.txt": b"1"}, ["factors.0.txt"]),
        (
            {"factors.0.npy": npy(np.ones((1, 1, 1, 1))), "bfthw.npy": npy(np.ones(3))},
            ["'bfthw' must be a vector of uint8"],
        ),
    ],
    ids=range(14),
)
def test_hostile_npz(tmp_path, members, texts):
    refused(write_zip(tmp_path / "w.npz", members), *texts)
    assert not is_integers(tmp_path / "w.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_array_twice(tmp_path):
    one = npy(np.ones((1, 1, 1, 1)))
    refused(write_zip(tmp_path / "w.npz", [("factors.0.npy", one), ("factors.0.npy", one)]), "is no array of its own")


def test_either_order_of_numbers_in_an_array(tmp_path):
    values = np.asfortranarray(np.arange(24.0).reshape(1, 2, 3, 4))
    network = load(npz(tmp_path / "w.npz", {"factors.0": values})).network
    assert np.array_equal(network.layers[0].chain.factors[0].values, values)


def test_bombs_are_refused_before_they_unpack(tmp_path):
    limit = OWN + 10**6
    zeros = npy(np.zeros((1, 1, 10**6, 1)))
    path = write_zip(tmp_path / "w.npz", {"factors.0.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    refused(path, "unpacks to 8000128 bytes, 1000000 are the limit", limit=limit)
    # one that lies about its size yields no more than it claims
    data = path.read_bytes().replace(struct.pack("<I", len(zeros)), struct.pack("<I", 200))
    path.write_bytes(data)
    refused(path, "not a valid .npz file|does not fit", limit=limit)
    torch = pytest.importorskip("torch")
    torch.save({"factors.0": torch.zeros(1).expand(1, 1000, 1000, 1)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "'factors.0'", "the limit", limit=limit)
    big = tmp_path / "big.safetensors"
    big.write_bytes(bytes(10**6 + 1))
    refused(big, "1 to 1000000 bytes are read, this file has 1000001", limit=4 * 10**6)


class Trap:
    """A pickle that would run something."""

    def __reduce__(self):
        return open, (Trap.path, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_pickle_runs(tmp_path):
    torch = pytest.importorskip("torch")
    import pickle

    Trap.path = str(tmp_path / "sprung")
    torch.save({"factors.0": Trap()}, tmp_path / "zip.pt")
    torch.save({"factors.0": Trap()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Trap()))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    for name in ("zip.pt", "legacy.pt", "plain.pt", "module.pt"):
        refused(tmp_path / name, "weights_only=True", "state_dict")
    refused(tmp_path / "plain.npz", "not a valid .npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "make, texts",
    [
        (lambda torch: [torch.ones(1)], ["must hold a state_dict", "list"]),
        (lambda torch: {"factors.0": [1.0]}, ["'factors.0' must be a tensor, got list"]),
        (lambda torch: {0: torch.ones(1)}, ["0 must be a tensor"]),
        (lambda torch: {"state_dict": 3}, ["'state_dict' must be a tensor, got int"]),
        (lambda torch: {"factors.0": torch.ones(2, 2).to_sparse()}, ["'factors.0' cannot be read as an array"]),
        (
            lambda torch: {"factors.0": torch.ones(1, 1, 1, 1, device="meta")},
            ["'factors.0' cannot be read as an array"],
        ),
    ],
    ids=["list", "list-inside", "number-key", "no-dict", "sparse", "meta"],
)
def test_torch_files_that_hold_something_else(tmp_path, make, texts):
    torch = pytest.importorskip("torch")
    torch.save(make(torch), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", *texts)


def test_legacy_torch_files_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(array) for key, array in FACTORS.items()}
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert load(tmp_path / "w.pt").network.inputs == 4


def test_without_torch(tmp_path, monkeypatch):
    """Its files are read without it."""
    path = torch_file(tmp_path / "w.pt", FACTORS)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert load(path).network.inputs == 4


def test_descriptions_without_an_end():
    """Refused before json sees them, whatever the recursion limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        assert storage.kind(b"[" * 1_000_000) is None and storage.kind(b'{"a":' * 200_000) is None
    finally:
        sys.setrecursionlimit(limit)
    assert storage.kind(b'{"kind": "integers", "layers": [{"factors": [{"weights": [8, 7]}]}]}') == "integers"
