"""Files that want memory, time or patience: each is refused or read in little of all three, by its reader."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import hostile_files
import numpy as np
import pytest
from checkpoint_files import FACTORS, layer, npz, safetensors

import bfthw
from bfthw import Chain, Layer, Network, chain, make_settings
from bfthw.checkpoint import is_integers, load, load_integers
from bfthw.importers.debut import read_shapes
from bfthw.reading import OWN, ROOM, CheckpointError, parse_json, reader
from bfthw.storage import read_vectors
from boards.flash import bitstream
from boards.report import read_report
from rtl_gen.manifest import read_manifest
from sim.simulate import check_plain

READERS = {
    ".npz": load, ".pt": load, ".safetensors": load, ".onnx": load, ".toml": make_settings, ".txt": read_shapes,
    ".json": read_manifest, ".npy": read_vectors, ".report": read_report,
}
SECONDS = 10  # of anything before the first line
GROWTH = 4  # MiB that the interpreter itself takes while it reads, of those kept for the program

# all files in one process, which has no more in it than the readers; its peak of memory is set back before each
CHILD = textwrap.dedent(
    """
    import json, resource, signal, sys, time
    from pathlib import Path
    from test_hostile_files import READERS

    def status(key):
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
        return int(line.split()[1]) >> 10

    if sys.argv[2] == "onnx":
        import onnx  # not counted

    class Late(BaseException):  # so that no reader takes it for something wrong in the file
        pass

    def late(*_):
        raise Late("it never ends")

    signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30,) * 2)  # what goes wrong must not take the machine along

    for path in sorted(Path(sys.argv[1]).iterdir()):
        Path("/proc/self/clear_refs").write_text("5")
        before, begin, said = status("VmRSS:"), time.process_time(), "read"
        signal.setitimer(signal.ITIMER_PROF, 20)  # of the processor's time, whatever else it has to do
        try:
            READERS[path.suffix](path)
        except (Exception, Late) as error:
            said = f"{type(error).__name__}: {error}"
        print(json.dumps([path.name, said, status("VmHWM:") - before, time.process_time() - begin]), flush=True)
    """
)


def found(folder, files):
    """{name: (what the reader said, MiB it took, seconds, bytes of the file)} of a kind of files."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of a process's memory is measured on Linux")
    for name, data in hostile_files.KINDS[files]():
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, folder, files], cwd=os.path.dirname(__file__), capture_output=True, text=True,
        timeout=300, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert not done.returncode, done.stderr
    return {name: (*rest, (folder / name).stat().st_size) for name, *rest in rows}


READ = ("adds.onnx", "shapes.txt", "tables.safetensors")
# what some are told
SAID = {
    "bytearray.pt": "'factors.0' cannot be read as an array: it is made by __builtin__.bytearray",
    "expanded.pt": "'factors.0': unpacks to more than",
    "storage_claims.pt": "'factors.0': unpacks to more than",
    "sets.pt": "'factors.0' must be a tensor, got list",
    "places.pt": "or places beyond them",
    "lying.npz": "not a valid .npz file",
    "honest.npz": f"unpacks to {hostile_files.BOMB + 128} bytes",
    "bzip2.npz": "compressed by method 12; numpy and torch write stored and deflate alone",
    "inputs.npz": "the number of inputs must be 1 to 65536, got 2147483647",
    "many.pt": "has more than 16384 arrays",
    "many.npz": "has more than 16384 arrays",
    "many.safetensors": "has more than 16384 arrays",
    "doubled.safetensors": "'n24' gives more than 16777216 numbers",
    "thousandfold.safetensors": "'n2' gives more than 16777216 numbers",
    "nodes.safetensors": "at most 16384 items",
    "padding.safetensors": "'a' gives more than 16777216 numbers",
    "deep.pt": "'factors.0' cannot be read as an array: it is made by tuple",
    "deep.toml": "nested without an end",
    "empty.onnx": "has more than 524288 fields",
    "minus.onnx": "a dimension is negative: [-1, 4]",
    "stages.json": "more than 262144 values",
}


@pytest.mark.parametrize("files", hostile_files.KINDS)
def test_little_memory_and_time(tmp_path, files):
    """4 × the file and what is left of 256 MiB beside the program; refused in one line that names the file."""
    if files == "onnx":
        pytest.importorskip("onnx")
    wrong, rows = [], found(tmp_path, files)
    assert rows
    for name, (said, mib, seconds, size) in rows.items():
        if mib > 4 * size / 2**20 + (ROOM - OWN) / 2**20 + GROWTH or seconds > SECONDS:
            wrong.append(f"{name} ({size} bytes): {mib} MiB, {seconds:.1f} s: {said[:200]}")
        kind, _, message = said.partition(": ")
        if name in READ:
            if said != "read":
                wrong.append(f"{name}: {said[:200]}")
        elif kind not in ("CheckpointError", "ValueError") or name not in message or "\n" in message:
            wrong.append(f"{name}: {said[:200]}")
        elif SAID.get(name, "") not in message:
            wrong.append(f"{name}: {message[:200]}")
    assert not wrong, "\n".join(wrong)


def test_whole_limit(tmp_path):
    """No file may take more than the limit, whatever its size."""
    path = npz(tmp_path / "w.npz", {"factors.0": np.zeros((1, 1, 1 << 18, 1))})
    assert load(path).network.inputs == 1 << 18
    with pytest.raises(CheckpointError, match="w.npz: .*unpacks to .* bytes, 1000 are the limit"):
        load(path, limit=OWN + 1000)
    with pytest.raises(CheckpointError, match=r"w.npz: 1 to 1000 bytes are read, this file has 2\d+"):
        load(path, limit=4000)


def test_levels_and_values_of_json():
    assert parse_json("[" * 50 + '"[[\\"[["' + "]" * 50)
    assert len(parse_json("[" + "0," * 999 + "0]", values=1000)) == 1000
    with pytest.raises(ValueError, match="nested 51 levels deep, 50 are the limit"):
        parse_json("[" * 51 + "]" * 51)
    with pytest.raises(ValueError, match="more than 1000 values, the limit"):
        parse_json("[" + "0," * 1000 + "0]", values=1000)


# what is no regular file

PLACES = {
    "npz": ("x.npz", load), "pt": ("x.pt", load), "safetensors": ("x.safetensors", load), "onnx": ("x.onnx", load),
    "integers": ("x.npz", load_integers), "vectors": ("x.npy", read_vectors), "settings": ("x.toml", make_settings),
    "shapes": ("x.txt", read_shapes), "manifest": ("x.json", read_manifest), "report": ("report.json", read_report),
    "bitstream": ("report.json", lambda path: bitstream(path.parent)), "Verilog": ("x.v", check_plain),
    "is_integers": ("x.npz", lambda path: is_integers(path) or load(path)),
}


@contextmanager
def patience(seconds):
    """TimeoutError where something waits."""

    def late(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_socket(path):
    os.chdir(path.parent)  # a socket's name is short
    socket.socket(socket.AF_UNIX).bind(path.name)


KINDS = {
    "pipe": (os.mkfifo, "is a pipe, not a file"),
    "socket": (make_socket, "is a socket, not a file"),
    "directory": (os.mkdir, "is a directory, not a file|is a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    "loop": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links|is missing"),
    "nothing": (lambda path: None, "no such file|is missing"),
}


@pytest.mark.parametrize("place", PLACES)
def test_only_regular_files_are_opened(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    name, read = PLACES[place]
    for kind, (make, words) in KINDS.items():
        path = tmp_path / kind / name
        path.parent.mkdir()
        make(path)
        with patience(5), pytest.raises(ValueError, match=f"{kind}/{name}.* ({words})"):
            read(path)


def test_a_pipe_beside_a_manifest(core, tmp_path):
    """In the place of a file that the manifest names."""
    for file in ("core.json", "core.v", "core.npz"):
        (tmp_path / file).write_bytes((core / file).read_bytes())
    (tmp_path / "core.v").unlink()
    os.mkfifo(tmp_path / "core.v")
    with patience(5), pytest.raises(ValueError, match="core.v: is a pipe, not a file"):
        read_manifest(tmp_path / "core.json")


def test_links_are_followed(tmp_path):
    npz(tmp_path / "w.npz", FACTORS)
    (tmp_path / "l.npz").symlink_to("w.npz")
    assert load(tmp_path / "l.npz").network.inputs == 4


def test_what_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = npz(tmp_path / "w.npz", FACTORS)
    monkeypatch.setattr("bfthw.reading.os.open", refuse)
    with pytest.raises(CheckpointError, match=r"w.npz: permission denied; .*chmod"):
        load(path)


@pytest.mark.parametrize(
    "error, words",
    [
        (KeyError("shape"), r"a/w.npz: cannot be read: KeyError: 'shape'"),
        (AssertionError(), "a/w.npz: cannot be read: AssertionError"),
        (RecursionError("too deep"), "a/w.npz: cannot be read: RecursionError: too deep"),
        (ValueError("must be 3\nand more"), "a/w.npz: must be 3$"),
        (MemoryError(), "a/w.npz: needs more memory than there is"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: no such file$"),
    ],
)
def test_what_escapes_from_a_reader_names_the_file(error, words):
    @reader
    def read(path):
        raise error

    with pytest.raises(CheckpointError, match=f"^{words}"):
        read("a/w.npz")


# a byte order mark, metadata of null, parts of a network


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbfweight_bits = 6\r\n")
    assert make_settings(tmp_path / "bom.toml").weight_bits == 6
    (tmp_path / "shapes.txt").write_bytes(b"\xef\xbb\xbf4 4 2 2 2\r\n")
    assert read_shapes(tmp_path / "shapes.txt") == [(1, [(4, 4, 2, 2, 2)])]


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_metadata_of_null(tmp_path, metadata):
    path = safetensors(tmp_path / "w.safetensors", FACTORS, metadata)
    text = path.read_bytes().replace(json.dumps(metadata).encode(), b"null".ljust(len(json.dumps(metadata))), 1)
    path.write_bytes(text)
    try:
        assert load(path).network.inputs == 4
    except CheckpointError as error:
        assert "w.safetensors: not a valid safetensors file" in str(error)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_part_of_a_network(tmp_path, suffix):
    path = tmp_path / f"model-00001-of-00002{suffix}"
    with pytest.raises(CheckpointError, match=rf"part 1 of 2 .*model{suffix}.index.json lists the others"):
        load(path)
    whole = npz(tmp_path / "model-00001-of-00001.npz", FACTORS)
    assert load(whole).network.inputs == 4


# real files, damaged


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    import rtl_gen

    network = Network(layers=(Layer(chain=Chain.random(chain.bft(4, 2), seed=1), bias=np.ones(4)),))
    folder = tmp_path_factory.mktemp("core")
    rtl_gen.write(bfthw.compile(network), folder, name="core")
    return folder


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, core):
    """{kind: (bytes, suffix, reader)} of files that load."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("seeds")
    arrays = layer("0", bias=np.ones(4, np.float32)) | layer("1")
    safetensors(folder / "w.safetensors", arrays, {"bfthw": '{"version": 1, "layers": ["0", "1"]}'})
    npz(folder / "w.npz", arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    state = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).state_dict()
    torch.save(state, folder / "w.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    nodes = hostile_files.node("MatMul", ["x", "w"], "a") + hostile_files.node("Relu", ["a"], "y")
    weight = np.arange(16, dtype=np.float32).tobytes()
    tensors = hostile_files.initializer("w", [4, 4], weight)
    (folder / "w.onnx").write_bytes(hostile_files.onnx_model(nodes, tensors))
    np.save(folder / "x.npy", np.arange(12.0).reshape(3, 4))
    (folder / "s.toml").write_text('weight_bits = [6, 5]\npercentile = 99.5\n[layers."0"]\nlanes = 2 # two\n')
    (folder / "shapes.txt").write_text("4 4 2 2 2\n4 4 2 2 1  8 4 4 2 1\n")
    report = {"board": "icebreaker", "bitstream": "a.bin", "sha256": "0" * 64, "name": "core", "configuration": "0"}
    report |= {"clock_mhz": 12.5, "tools": {"from": "yowasp"}, "marked": {"a.asc": "0"}, "structure": None}
    (folder / "report.report").write_text(json.dumps(report))
    for file in ("core.json", "core.v", "core.npz"):
        (folder / file).write_bytes((core / file).read_bytes())
    readers = READERS | {"core.npz": load_integers, ".v": check_plain}
    return {path: (path.read_bytes(), readers.get(path.name, readers.get(path.suffix))) for path in folder.iterdir()}


@pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
def test_damaged_files_are_read_or_refused(seeds, seed):
    """Bytes flipped, cut out, doubled and swapped: a ValueError in one line that names the file, or nothing."""
    rng = np.random.default_rng(seed)
    for path, (whole, read) in seeds.items():
        read(path)  # it loads
        for _ in range(40):
            path.write_bytes(damaged(whole, rng))
            with patience(SECONDS):
                try:
                    read(path)
                except ValueError as error:
                    assert path.parent.name in str(error) and "\n" not in str(error), (path.name, str(error))
        path.write_bytes(whole)


def damaged(whole, rng):
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        at, size = int(rng.integers(len(data) or 1)), int(rng.integers(1, 40))
        way = rng.integers(5)
        if way < 2:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif way == 2:
            del data[at : at + size]
        elif way == 3:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x7f" + bytes(7), b"99999999", b"[[[[{{{{"])
    return bytes(data)
