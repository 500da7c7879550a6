"""Named arrays in files: safetensors, torch and numpy archives, read without running anything that is in them."""

import io
import json
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as safetensors_bytes

from . import files, shards, state_dicts
from .archive import ARRAYS, ERRORS, open_archive, unpacked
from .reading import LIMIT, TEXT, CheckpointError, StrPath, check_shape, first_fault, no_repetition, open_file, owned
from .reading import parse_json, read_bytes, reader, room, short, take
from .torch_files import TorchFile, widened

NAME_LIMIT = 300  # characters of an array's name
FLOAT = ".safetensors", ".npz"  # of float networks that are written
VERSIONS = 2  # of descriptions: 1, rows of layers; 2, any graph (bfthw.graphfile)
DESCRIPTION = "bfthw"  # metadata key (safetensors) or array (npz) that holds the JSON description

# little-endian, as the safetensors format has it; BF16 has no numpy dtype and is widened by hand
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "C64": "<c8"}
_DTYPES |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}


class Strict(BaseModel):
    """Base of the JSON descriptions: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """arrays: by name, in the file's order. ordered: whether that is the writer's order. description: JSON or None."""

    arrays: dict
    ordered: bool
    description: bytes | None = None
    notes: tuple = ()


@reader
def read(path, limit=LIMIT, key=None):
    """The Contents of a file of one of `SUFFIXES`, upper case too, or of all files that an index names.

    CheckpointError for everything else.
    key: of the state dict in a file of torch that has several, as `state_dicts.find` names them.
    limit: bytes of memory, in all, that reading may take; also, never more than 4 × the files + 256 MiB.
    """
    path = Path(path)
    parts = shards.listed(path, SUFFIXES)
    arrays, notes, ordered, left, held = {}, {}, True, limit // 4, 0
    with ExitStack() as stack:
        opened = {}
        for part in parts or (path,):
            _check_readable(part)
            files.finish(part)
            opened[part] = stack.enter_context(open_file(part, most=left, least=1))
            left -= opened[part].seek(0, 2)
        most = room(limit // 4 - left, limit)  # of all files
        for part, file in opened.items():
            contents = _contents(part, file, most - held, key)
            if parts is None:
                return contents
            shards.check(part, parts[part], contents.arrays)
            if contents.description is not None:
                raise CheckpointError(f"{part}: describes itself; a part of several does not")
            arrays, ordered = arrays | contents.arrays, ordered and contents.ordered
            notes |= dict.fromkeys(contents.notes)
            held = check_room(path, _sizes(arrays), most)
    names = [part.name for part in parts]
    note = f"read from {len(parts)} file{'s' * (len(parts) > 1)}, {names[0]} to {names[-1]}"
    return Contents(arrays=arrays, ordered=ordered, notes=(note, *notes))


def _check_readable(path):
    if path.suffix.lower() not in _READERS:
        known = ", ".join((*SUFFIXES, ".index.json", ".onnx"))
        hint = "; it is a directory, --each takes the files in it" if path.is_dir() else ""
        raise CheckpointError(f"{path}: the name must end in one of {known}, got {path.suffix!r}{hint}")


def _contents(path, file, most, key):
    """The Contents of one open file, which may take `most` bytes."""
    read_arrays = _READERS[path.suffix.lower()]
    if read_arrays is _read_torch and _looks_like_safetensors(file):
        read_arrays = _read_safetensors
    if key is not None and read_arrays is not _read_torch:
        raise CheckpointError(f"{path}: a key chooses among state dicts of torch's files; here are arrays alone")
    file.seek(0)
    contents = read_arrays(path, file, most, *[key] * (key is not None))
    for name in contents.arrays:
        if len(name) > NAME_LIMIT:
            raise CheckpointError(f"{path}: {short(name)}: a name has at most {NAME_LIMIT} characters, got {len(name)}")
    check_room(path, _sizes(contents.arrays), most)
    return contents


def _sizes(arrays):
    return ((name, array.size, array.nbytes) for name, array in arrays.items())


def check_room(path, arrays, most):
    """Bytes of arrays (name, numbers, bytes) as float64; CheckpointError where they are over `most`, or too many."""
    held = 0
    for n, (name, count, size) in enumerate(arrays):
        held += size + 9 * count  # as they are, as float64, and a mask of them
        if n >= ARRAYS:
            raise CheckpointError(f"{path}: has more than {ARRAYS} arrays, the limit")
        if held > most:
            raise CheckpointError(
                f"{path}: {short(name)}: unpacks to more than {most} bytes, the limit of a file of this size"
            )
    return held


def _looks_like_safetensors(file):
    """Whether a file begins with a length that fits into it and a table; no file of torch does."""
    size = file.seek(0, 2)
    file.seek(0)
    head = take(file, 9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _read_safetensors(path, file, most):
    size = int.from_bytes(take(file, 8), "little")
    with owned(f"{path}: not a valid safetensors file", (SafetensorError, ValueError, RecursionError)):
        if size > TEXT:
            raise ValueError(f"its header claims {size} bytes, {TEXT} are the limit")
        header = parse_json(take(file, size), no_repetition)
        if not isinstance(header, dict):
            raise ValueError(f"its header must be a table, got {type(header).__name__}")
        metadata = {} if header.get("__metadata__") is None else header["__metadata__"]
        check_room(path, ((name, 0, 0) for name in header), most)
        file.seek(0)
        tensors = deserialize(take(file, file.seek(0, 2) - file.seek(0)))
    arrays = {}
    for name, tensor in sorted(tensors, key=lambda item: item[0]):  # they come in any order
        if tensor["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path}: {short(name)} must be real numbers, got dtype {tensor['dtype']}")
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        arrays[name] = (widened(array) if tensor["dtype"] == "BF16" else array).reshape(tensor["shape"])
    description = metadata.get(DESCRIPTION)
    return Contents(arrays=arrays, ordered=False, description=None if description is None else description.encode())


def _read_npz(path, file, most):
    arrays = {}
    with owned(f"{path}: not a valid .npz file", ERRORS):
        archive = open_archive(path, file, most)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in arrays or name == member.filename:
                raise CheckpointError(f"{path}: {short(member.filename)} is no array of its own (.npy)")
            arrays[name] = _read_npy(path, name, unpacked(archive, member))
    description = arrays.pop(DESCRIPTION, None)
    if description is not None and (description.dtype != np.uint8 or description.ndim != 1):
        raise CheckpointError(f"{path}: {DESCRIPTION!r} must be a vector of uint8, got {description.dtype}")
    return Contents(arrays=arrays, ordered=True, description=None if description is None else description.tobytes())


def _read_npy(path, name, data):
    """One array in numpy's .npy format; its header must agree with the bytes that are there."""
    stream = io.BytesIO(data)
    # numpy parses a Python literal and lets through whatever that raises
    with owned(f"{path}: {name!r} is not a valid .npy array", Exception):
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(stream)
    if dtype.kind not in "biufc":
        raise CheckpointError(f"{path}: {name!r} must be real numbers, never pickled objects, got dtype {dtype}")
    rest = memoryview(data)[stream.tell() :]
    try:
        if min(shape, default=1) < 0:
            raise ValueError
        return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, OverflowError):
        raise CheckpointError(
            f"{path}: {name!r} of shape {shape} and dtype {dtype} does not fit its {len(rest)} bytes"
        ) from None


def _read_torch(path, file, most, key=None):
    file.seek(257)
    if take(file, 5) == b"ustar":
        raise CheckpointError(f"{path}: is an archive of tar, not of torch; unpack it and name the file inside")
    read = TorchFile(path, file, most)
    table, notes = state_dicts.choose(path, read.table, key)
    arrays = {}
    # an expanded tensor claims more than the file holds
    check_room(path, ((name, t.count, 8 * t.count) for name, t in table.items()), most)
    for name, tensor in table.items():
        with owned(f"{path}: {short(name)} cannot be read as an array", Exception):  # missing, damaged, too short
            array = read.array(tensor)
            arrays[name] = array.astype(np.float64) if array.dtype.kind == "f" else array
    return Contents(arrays=arrays, ordered=True, notes=tuple(notes))


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
_READERS |= dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".tar"), _read_torch)
SUFFIXES = tuple(_READERS)


def parse(path, model, text):
    """The JSON description as a pydantic model; CheckpointError names the entry."""
    with owned(f"{path}: {DESCRIPTION}"):
        check_shape(text.decode(errors="replace"))
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = first_fault(error)
        entry = ".".join([DESCRIPTION, *map(str, first["loc"])])
        raise CheckpointError(f"{path}: {short(entry)}: {first['msg']}, got {short(first['input'])}") from None


def kind(text):
    """The `kind` that a JSON description says, None where it says none, is no JSON or is nested without an end."""
    try:
        table = parse_json(text or b"null")
    except (ValueError, RecursionError):
        return None
    return table.get("kind") if isinstance(table, dict) else None


def version(path, text):
    """The `version` of a JSON description, 1 or 2; CheckpointError for others. What is no JSON may be of any."""
    try:
        table = parse_json(text)
    except (ValueError, RecursionError):
        return 1
    found = table.get("version") if isinstance(table, dict) else None
    if type(found) is int and found > VERSIONS:
        raise CheckpointError(
            f"{path}: {DESCRIPTION}.version: versions 1 to {VERSIONS} are read here, got {short(found)}, which a newer "
            "bfthw wrote"
        )
    return found


def is_integers(path, limit=LIMIT):
    """Whether a file is marked as an integer network; False for whatever cannot be read."""
    path = Path(path)
    with suppress(KeyError, *ERRORS):
        if path.suffix.lower() == ".npz":
            with open_file(path, most=limit // 4) as file:
                archive = open_archive(path, file, room(file.seek(0, 2), limit))
                member = archive.getinfo(f"{DESCRIPTION}.npy")
                return kind(_read_npy(path, DESCRIPTION, unpacked(archive, member)).tobytes()) == "integers"
    return False


def check_suffix(path, suffixes):
    """CheckpointError unless the name of a file to write ends in one of them."""
    if path.suffix not in suffixes:
        raise CheckpointError(f"{path}: the name must end in {' or '.join(suffixes)}, got {path.suffix!r}")


def write(path, arrays, description, suffixes):
    """Write arrays and a JSON-able description under a path that ends in one of the suffixes, all of it or nothing.

    The same arrays give the same bytes.
    """
    path = Path(path)
    check_suffix(path, suffixes)
    text = json.dumps(description, separators=(",", ":"))
    try:
        if len(text) > TEXT:
            raise ValueError(f"more than {TEXT} bytes, the limit")
        check_shape(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {DESCRIPTION}: what the description would say is too much: {error}") from None
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if path.suffix == ".npz":
        data = _npz_bytes({DESCRIPTION: np.frombuffer(text.encode(), np.uint8)} | arrays)
    else:
        data = safetensors_bytes(arrays, {DESCRIPTION: text})
    files.write(path, data)


def write_array(path: StrPath, array: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all; CheckpointError for another suffix."""
    path = Path(path)
    check_suffix(path, (".npy",))
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    files.write(path, stream.getvalue())


def _npz_bytes(arrays):
    """As numpy.savez, but for the operating system's name, which zipfile would leave in the archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system, member.external_attr = 3, 0o600 << 16
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return stream.getvalue()


@reader
def read_vectors(path: StrPath) -> np.ndarray:
    """The array of a .npy file, numbers only; CheckpointError for everything else."""
    path = Path(path)
    if path.suffix.lower() != ".npy":
        raise CheckpointError(f"{path}: vectors come as a .npy file (numpy.save), got {path.suffix!r}")
    return _read_npy(path, path.name, read_bytes(path, LIMIT // 4, least=1))
