"""The constants of a file: in it, or beside it in files by plain names, within limits."""

import os
from math import prod
from pathlib import Path

import numpy as np

from ...reading import CheckpointError, open_file, room, short, take

FILES = 8  # beside the file, at most
KINDS = {2: (False, 8), 3: (True, 8), 4: (False, 16), 5: (True, 16), 6: (True, 32), 12: (False, 32)}
KINDS |= {21: (False, 4), 22: (True, 4)}


class Store:
    """Constants by name. shapes: of all; spend: counts the memory that they take, which stays within the limit."""

    def __init__(self, onnx, path: Path, tensors: dict, size: int, limit: int):
        self.onnx, self.path, self.tensors, self.size, self.limit = onnx, Path(path), tensors, size, limit
        self.shapes = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
        self.most = room(size, limit) // 160  # numbers of a tensor: several arrays of such are worked with at once
        self.spent, self.files, self._arrays = 0, {}, {}

    def kinds(self, names: list[str]) -> dict[int, tuple[bool, int]]:
        """{place: (signed, bits)} of those of some inputs that are integers of the file."""
        types = (self.tensors[name].data_type if name in self.tensors else None for name in names)
        return {k: KINDS[kind] for k, kind in enumerate(types) if kind in KINDS}

    def spend(self, count: int) -> None:
        """ValueError where all numbers so far, those of tensors that are used again included, take too much memory."""
        self.spent += 26 * count  # as they are, as float64, twice, and a mask
        if self.spent > room(self.size, self.limit) - self.size:
            raise ValueError("the layers unpack to more memory than a file of this size may take")

    def array(self, name: str) -> np.ndarray:
        """`numbers` of a tensor by its name, once for all."""
        if name not in self._arrays:
            self._arrays[name] = self.numbers(self.tensors[name], name)
        return self._arrays[name]

    def numbers(self, tensor, name: str) -> np.ndarray:
        """A tensor's numbers: integers as int64, all others as float64; ValueError for all that are no real ones."""
        beside = tensor.data_location == self.onnx.TensorProto.EXTERNAL or bool(tensor.external_data)
        try:
            if min(tensor.dims, default=0) < 0:
                raise ValueError(f"a dimension is negative: {list(tensor.dims)}")
            self.spend(prod(tensor.dims))
            if beside:
                tensor = self._beside(tensor)
            array = self.onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind == "c":
                raise ValueError(f"got {array.dtype}")
            return np.asarray(array, np.int64 if array.dtype.kind in "iub" else np.float64)
        except CheckpointError as error:  # of a file beside; the node's name comes in front
            raise ValueError(error) from None
        except Exception as error:  # wrong sizes, odd types
            raise ValueError(f"{short(name)} is no array of real numbers: {error}") from None

    def _beside(self, tensor):
        """The tensor with its bytes, which are in another file (onnx/docs/ExternalData.md)."""
        keys = [entry.key for entry in tensor.external_data]
        given = {entry.key: entry.value for entry in tensor.external_data}
        place, unknown = (
            given.get("location", ""),
            set(given) - {"location", "offset", "length", "checksum", "basepath"},
        )
        if len(given) != len(keys) or unknown or given.get("basepath"):
            raise ValueError(
                f"its external data has {', '.join(map(short, sorted(keys)))}; location, offset and length are read"
            )
        if tensor.data_location != self.onnx.TensorProto.EXTERNAL or tensor.HasField("raw_data"):
            raise ValueError("is in another file, and in this one")
        if not place or place != os.path.basename(place) or place in (".", "..") or "\\" in place or "\0" in place:
            raise ValueError(
                f"its external data is in {short(place)}; a plain name of a file in the same folder is read"
            )
        size = self._bytes(tensor)
        offset, length = (_number(given, key, default) for key, default in (("offset", 0), ("length", size)))
        if length != size:
            raise ValueError(
                f"its external data has {length} bytes, {list(tensor.dims)} numbers of its type take {size}"
            )
        file, there = self._open(place)
        if offset + length > there:
            raise ValueError(
                f"its external data, bytes {offset} to {offset + length}, ends behind {short(place)} of {there} bytes"
            )
        with file:
            file.seek(offset)
            data = take(file, length)
        same = self.onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name, raw_data=data)
        return same

    def _bytes(self, tensor):
        bits = {kind: 4 for kind in (21, 22)}.get(tensor.data_type)
        count = prod(tensor.dims)
        if bits:
            return (count * bits + 7) // 8
        return count * self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize

    def _open(self, name):
        """(open file, its size) of a regular file beside this one, which may be no link."""
        path = self.path.parent / name
        if os.path.islink(path):
            raise ValueError(f"{path}: is a link; the file itself has to be there")
        if name not in self.files and len(self.files) == FILES:
            raise ValueError(f"is in the {FILES + 1}th file beside this one, {FILES} are the limit")
        file = open_file(path, most=self.limit // 4 - self.size)
        there = os.fstat(file.fileno()).st_size
        if name not in self.files:
            self.files[name] = there
            self.size += there
            if self.size > self.limit // 4:
                file.close()
                raise ValueError(f"with {short(name)} more than {self.limit // 4} bytes are read, the limit")
        return file, there


def _number(given, key, default):
    text = given.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"its external data has the {key} {short(text)}, a number of bytes is read")
    return int(text)
