"""torch's files, both of its formats, without torch: a pickle of a few known names, and raw numbers.

Only the steps and names that `torch.load(weights_only=True)` takes are read. Nothing that a file names is ever called:
a tensor becomes a note of where its numbers lie, everything else of torch one of its name. So a pickle takes no more
memory than its own length allows, and torch, with all that it would allocate, is not needed.
"""

import io
import pickle
import pickletools
import zipfile
from math import prod
from typing import NamedTuple

import numpy as np

from .archive import open_archive, unpacked
from .reading import CheckpointError, short, take

PICKLE = 16 << 20  # bytes of the pickles of a file
STEPS = 2_000_000  # of a pickle
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
OPCODES = frozenset(
    """APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST
    EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS
    SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3""".split()
)
# storage types and dtypes by their names in torch, little-endian; bfloat16 has no numpy dtype and is widened by hand
DTYPES = {"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "bool": "?", "uint8": "u1"}
DTYPES |= {"complex64": "c8", "complex128": "c16"}
DTYPES |= {f"{kind}{8 * size}": f"{kind[0]}{size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)}
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool",
    "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Untyped": "uint8",
}
REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
PASSED = ("_rebuild_parameter", "_rebuild_parameter_with_state")
# what weights_only takes, beside dtypes and storages; most of it is kept by its name alone
KNOWN = {f"torch._utils.{name}" for name in (*REBUILT, *PASSED)} | set(
    """collections.OrderedDict torch._tensor._rebuild_from_type_v2 torch.storage.UntypedStorage collections.Counter
    torch.nn.parameter.Parameter torch.serialization._get_layout torch.Size torch.Tensor
    torch.device _codecs.encode builtins.bytearray builtins.set builtins.complex __builtin__.bytearray __builtin__.set
    __builtin__.complex torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor
    torch._utils._rebuild_wrapper_subclass torch._utils._rebuild_device_tensor_from_numpy
    torch._utils._rebuild_device_tensor_from_cpu_tensor torch.per_tensor_affine torch.per_tensor_symmetric
    torch.per_channel_affine torch.per_channel_symmetric torch.per_channel_affine_float_qparams""".split()
)


class Storage(NamedTuple):
    dtype: str
    key: str


class Tensor(NamedTuple):
    """Numbers of a storage: places offset + sum of index * stride, all counted in numbers of `dtype`."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple
    dtype: str

    @property
    def count(self):
        return prod(self.size)


class Other(NamedTuple):
    """Something of torch that is no plain tensor."""

    name: str


class Table(dict):
    """An OrderedDict, without the attributes that a pickle may give it."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Name(NamedTuple):
    """A name in a pickle; calling it makes a note, and never anything else."""

    full: str

    def __call__(self, *args):
        module, _, name = self.full.rpartition(".")
        if self.full == "collections.OrderedDict" and not args:
            return Table()
        if module == "torch._utils" and name in REBUILT:
            return _tensor(self.full, name == "_rebuild_tensor_v3", *args)
        if module == "torch._utils" and name in PASSED:
            return args[0]
        if self.full == "torch._tensor._rebuild_from_type_v2" and isinstance(args[0], _Name):
            return args[0](*args[2])
        return Other(self.full)


def _tensor(full, typed, storage, offset, size, stride, *rest):
    """The Tensor of the arguments of torch's own functions; of v3 the dtype is the third of the rest."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in numbers):
        return Other(full)
    dtype = storage.dtype
    if typed:
        dtype = rest[2].full.removeprefix("torch.")
        if dtype not in DTYPES:
            return Other(f"torch.{dtype}")
    if len(size) != len(stride) or any(rest[2 + typed :]):  # metadata: conjugated, negated
        return Other(full)
    return Tensor(storage, offset, tuple(size), tuple(stride), dtype)


class Refused(pickle.UnpicklingError):
    """What no file of weights alone has; torch refuses it as well."""


def _shown(name):
    """A name from a file, whole as far as it is of use, with nothing that a terminal would obey."""
    return repr(name[:200])


class _Unpickler(pickle.Unpickler):
    """storages: key -> dtype of those that were named."""

    def find_class(self, module, name):
        full = f"{module}.{name}"
        of_torch = module == "torch" and (name in DTYPES or name.removesuffix("Storage") in STORAGES)
        if of_torch or full in KNOWN:
            return _Name(full)
        raise Refused(f"its pickle names {_shown(full)}")

    def persistent_load(self, pid):
        kind, storage, key, _, count, *views = pid
        name = storage.full.rpartition(".")[2].removesuffix("Storage")
        if kind != "storage" or name not in STORAGES or any(view is not None for view in views):
            raise Refused(f"its pickle names {short(pid)}, from outside")
        self.storages.setdefault(str(key), STORAGES[name])
        return Storage(STORAGES[name], str(key))


def unpickle(stream):
    """The next pickle of a stream, and {key: dtype} of its storages; raises whatever is wrong with it."""
    start = stream.tell()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name not in OPCODES:
            raise Refused(f"its pickle has a step {opcode.name}")
        # a place far out would make the table of places as long
        if step > STEPS or (opcode.name.endswith("BINPUT") and argument > step):
            raise pickle.UnpicklingError(f"it has more than {STEPS} steps, or places beyond them")
    size = stream.tell() - start
    stream.seek(start)
    unpickler = _Unpickler(io.BytesIO(stream.read(size)))
    unpickler.storages = {}
    return unpickler.load(), unpickler.storages


class TorchFile:
    """What a file of torch says. table: its object, with `Tensor` and `Other` in it; array(tensor): the numbers."""

    def __init__(self, path, file, room):
        """file: open for reading; room: bytes that it may unpack to. CheckpointError where it cannot be read."""
        self.raw, self.order = {}, "<"
        try:
            if zipfile.is_zipfile(file):
                self._read_zip(open_archive(path, file, room))
            else:
                self._read_old(file)
        except CheckpointError:
            raise
        except Refused as error:
            raise CheckpointError(
                f"{path}: {error}, which torch refuses too with weights_only=True, and nothing of a file is run here; "
                "save model.state_dict() alone"
            ) from None
        except Exception as error:  # whatever the damage leads to
            reason = _shown(str(error).strip() or "no reason given")[1:-1]
            raise CheckpointError(
                f"{path}: not a valid file of weights, damaged or of another kind ({type(error).__name__}: {reason})"
            ) from None

    def _read_zip(self, archive):
        members = {member.filename: member for member in archive.infolist()}
        (pickled,) = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise Refused("it is a TorchScript program")
        if members[pickled].file_size > PICKLE:
            raise ValueError(f"its pickle has more than {PICKLE} bytes")
        if f"{folder}byteorder" in members and unpacked(archive, members[f"{folder}byteorder"]) == b"big":
            self.order = ">"
        self.table, _ = unpickle(io.BytesIO(unpacked(archive, members[pickled])))
        self.fetch = lambda key: unpacked(archive, members[f"{folder}data/{key}"])

    def _read_old(self, file):
        """Five pickles: magic number, version, sizes of C's types, the object, keys of storages; then the storages."""
        size = file.seek(0, 2)
        file.seek(0)
        head = io.BytesIO(take(file, min(size, PICKLE)))
        if head.getvalue()[:1] != pickle.PROTO:
            raise ValueError("it begins as no file of torch does")
        magic, version, machine = (unpickle(head)[0] for _ in range(3))
        if (magic, version) != (MAGIC, PROTOCOL):
            raise ValueError("it is none of torch's files")
        self.order = "<" if machine["little_endian"] else ">"
        (self.table, storages), (keys, _) = unpickle(head), unpickle(head)
        places, at = {}, head.tell()
        for key in keys:
            file.seek(at)
            count = int.from_bytes(take(file, 8), "little") * np.dtype(DTYPES[storages[key]]).itemsize
            places[key] = at + 8, min(count, size - at - 8)
            at += 8 + count

        def fetch(key):
            file.seek(places[key][0])
            return take(file, places[key][1])

        self.fetch = fetch

    def array(self, tensor):
        """A Tensor's numbers, in torch's own type; ValueError where the file does not hold them."""
        if tensor.storage.key not in self.raw:
            self.raw[tensor.storage.key] = self.fetch(tensor.storage.key)
        held, dtype = self.raw[tensor.storage.key], np.dtype(self.order + DTYPES[tensor.dtype])
        count = len(held) // dtype.itemsize
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride))
        if tensor.count and last >= count:
            raise ValueError(f"number {last} is beyond the {count} that the file has for it")
        flat = np.frombuffer(held, dtype, count)[min(tensor.offset, count) :]
        strides = [step * dtype.itemsize for step in tensor.stride]
        array = np.lib.stride_tricks.as_strided(flat, tensor.size, strides, writeable=False)
        return widened(array) if tensor.dtype == "bfloat16" else array


def widened(array):
    """bfloat16, the upper half of a float32, as float32."""
    wide = array.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
