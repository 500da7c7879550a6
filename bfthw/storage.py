"""Named arrays in files: safetensors, torch and numpy archives, read without running anything that is in them."""

import io
import json
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as safetensors_bytes

from . import files

LIMIT = 1 << 30  # bytes of a file, and of what it unpacks to: far above any butterfly, far below a machine's memory
DEEPEST = 50  # levels of a JSON description
NAME_LIMIT = 300  # characters of an array's name
DESCRIPTION = "bfthw"  # metadata key (safetensors) or array (npz) that holds the JSON description

# little-endian, as the safetensors format has it; BF16 has no numpy dtype and is widened by hand
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "C64": "<c8"}
_DTYPES |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}


class CheckpointError(ValueError):
    """A file that cannot be read as a checkpoint; the message names file, key, rule and value."""


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


def read(path):
    """The Contents of a .safetensors, .pt, .pth or .npz file; CheckpointError for everything else."""
    path = Path(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        known = ", ".join((*_READERS, ".onnx"))
        raise CheckpointError(f"{path}: the name must end in one of {known}, got {path.suffix!r}")
    files.finish(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'no such file'}")
    if not 0 < (size := path.stat().st_size) <= LIMIT:
        raise CheckpointError(f"{path}: a checkpoint has 1 to {LIMIT} bytes, this file {size}")
    contents = reader(path)
    for name in contents.arrays:
        if len(name) > NAME_LIMIT:
            raise CheckpointError(f"{path}: {short(name)}: a name has at most {NAME_LIMIT} characters, got {len(name)}")
    return contents


def _read_safetensors(path):
    data = path.read_bytes()
    try:
        tensors = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_no_repetition)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a valid safetensors file: {error}") from None
    arrays = {}
    for name, tensor in sorted(tensors, key=lambda item: item[0]):  # they come in any order
        if tensor["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path}: {short(name)} must be real numbers, got dtype {tensor['dtype']}")
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        if tensor["dtype"] == "BF16":
            # bfloat16 is the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array.reshape(tensor["shape"])
    description = header.get("__metadata__", {}).get(DESCRIPTION)
    return Contents(arrays=arrays, ordered=False, description=None if description is None else description.encode())


def _no_repetition(pairs):
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return table


def _read_npz(path):
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays or name == member.filename:
                    raise CheckpointError(f"{path}: {short(member.filename)} is no array of its own (.npy)")
                arrays[name] = _read_npy(path, name, archive.read(member))
    except CheckpointError:
        raise
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path}: not a valid .npz file: {error}") from None
    description = arrays.pop(DESCRIPTION, None)
    if description is not None and (description.dtype != np.uint8 or description.ndim != 1):
        raise CheckpointError(f"{path}: {DESCRIPTION!r} must be a vector of uint8, got {description.dtype}")
    return Contents(arrays=arrays, ordered=True, description=None if description is None else description.tobytes())


# what zipfile raises for damaged, encrypted or unknown archives
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)


def _members(path, archive):
    """Members of an archive that unpack to no more than the limit; zipfile unpacks no more than a member claims."""
    members = archive.infolist()
    if (size := sum(member.file_size for member in members)) > LIMIT:
        raise CheckpointError(f"{path}: unpacks to {size} bytes, {LIMIT} are the limit")
    return members


def _read_npy(path, name, data):
    """One array in numpy's .npy format; its header must agree with the bytes that are there."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(stream)
    except Exception as error:  # numpy parses a Python literal and lets through whatever that raises
        raise CheckpointError(f"{path}: {name!r} is not a valid .npy array: {error}") from None
    if dtype.kind not in "biufc":
        raise CheckpointError(f"{path}: {name!r} must be real numbers, never pickled objects, got dtype {dtype}")
    rest = data[stream.tell() :]
    try:
        if min(shape, default=1) < 0:
            raise ValueError
        return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError:
        raise CheckpointError(
            f"{path}: {name!r} of shape {shape} and dtype {dtype} does not fit its {len(rest)} bytes"
        ) from None


def _read_torch(path):
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path}: {path.suffix} files need torch: pip install 'bfthw[torch]', or save as .safetensors"
        ) from None
    try:
        if zipfile.is_zipfile(path):  # else torch's old format
            with zipfile.ZipFile(path) as archive:
                _members(path, archive)
    except CheckpointError:
        raise
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path}: not a valid {path.suffix} file: {error}") from None
    try:
        table = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever the damage leads to
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise CheckpointError(
            f"{path}: torch refuses it with weights_only=True, which is never turned off here; save model.state_dict() "
            f"({type(error).__name__}: {reason})"
        ) from None
    notes = []
    for key in ("state_dict", "model"):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            others = [name for name in table if name != key]
            rest = f"; not used: {', '.join(map(short, others))}" if others else ""
            notes.append(f"weights taken from {key!r}{rest}")
            table = table[key]
            break
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: must hold a state_dict (a dict of tensors), got {type(table).__name__}")
    arrays, size = {}, 0
    for name, tensor in table.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path}: {short(name)} must be a tensor, got {type(tensor).__name__}")
        # an expanded tensor claims more than the file holds
        size += tensor.numel() * 8
        if size > LIMIT:
            raise CheckpointError(f"{path}: {short(name)}: unpacks to more than {LIMIT} bytes, the limit")
        try:
            tensor = tensor.detach()
            arrays[name] = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
        except Exception as error:  # sparse, quantised, meta: all sorts of types
            raise CheckpointError(f"{path}: {short(name)} cannot be read as an array: {error}") from None
    return Contents(arrays=arrays, ordered=True, notes=tuple(notes))


_READERS = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch, ".npz": _read_npz}


def parse(path, model, text):
    """The JSON description as a pydantic model; CheckpointError names the entry."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        entry = ".".join([DESCRIPTION, *map(str, first["loc"])])
        raise CheckpointError(f"{path}: {short(entry)}: {first['msg']}, got {short(first['input'])}") from None


def kind(text):
    """The `kind` that a JSON description says, None where it says none, is no JSON or is nested without an end."""
    signs = np.frombuffer(text or b"", np.uint8)
    depth = np.cumsum(np.isin(signs, list(b"[{")).astype(int) - np.isin(signs, list(b"]}")))
    if depth.max(initial=0) > DEEPEST:  # json stops at the recursion limit, which any package may have raised
        return None
    try:
        table = json.loads(text or b"null")
    except (ValueError, RecursionError):
        return None
    return table.get("kind") if isinstance(table, dict) else None


def is_integers(path):
    """Whether a file is marked as an integer network; False for whatever cannot be read."""
    path = Path(path)
    with suppress(KeyError, *_ZIP_ERRORS):
        if path.suffix == ".npz" and path.is_file():
            with zipfile.ZipFile(path) as archive:
                _members(path, archive)
                return kind(_read_npy(path, DESCRIPTION, archive.read(f"{DESCRIPTION}.npy")).tobytes()) == "integers"
    return False


def write(path, arrays, description, suffixes):
    """Write arrays and a JSON-able description under a path that ends in one of the suffixes, all of it or nothing.

    The same arrays give the same bytes.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise CheckpointError(f"{path}: the name must end in {' or '.join(suffixes)}, got {path.suffix!r}")
    text = json.dumps(description, separators=(",", ":"))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if path.suffix == ".npz":
        data = _npz_bytes({DESCRIPTION: np.frombuffer(text.encode(), np.uint8)} | arrays)
    else:
        data = safetensors_bytes(arrays, {DESCRIPTION: text})
    files.write(path, data)


def write_array(path, array):
    """Write an array as .npy, whole or not at all; CheckpointError for another suffix."""
    path = Path(path)
    if path.suffix != ".npy":
        raise CheckpointError(f"{path}: the name must end in .npy, got {path.suffix!r}")
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


def read_vectors(path):
    """The array of a .npy file, numbers only; CheckpointError for everything else."""
    path = Path(path)
    if path.suffix != ".npy":
        raise CheckpointError(f"{path}: vectors come as a .npy file (numpy.save), got {path.suffix!r}")
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'no such file'}")
    if not 0 < (size := path.stat().st_size) <= LIMIT:
        raise CheckpointError(f"{path}: 1 to {LIMIT} bytes are read, this file has {size}")
    return _read_npy(path, path.name, path.read_bytes())
