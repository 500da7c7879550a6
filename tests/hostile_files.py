"""Files that want more than they are: each of a few kilobytes to a megabyte, written without the code under test."""

import io
import json
import pickle
import struct
import zipfile
import zlib

import numpy as np

BOMB = 320 << 20  # bytes that a bomb would take: more than any small file may
MANY = 17_000  # arrays and layers: more than a file may have


def npy(shape, descr="<f4", data=b""):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue() + data


def zeros(size, head=b""):
    """(deflated bytes, CRC) of a header and so many zeros."""
    packer, piece, crc = zlib.compressobj(1, zlib.DEFLATED, -15), bytes(1 << 20), zlib.crc32(head)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # each piece begins anew, so all are the same
    packed = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size >> 20):
        crc = zlib.crc32(piece, crc)
    return first + packed * (size >> 20) + packer.flush(), crc


def one_member(name, method, packed, crc, claimed):
    """A zip archive of one member, whatever it claims."""
    fixed = struct.pack("<HHHHHLLLHH", 46, 0, method, 0, 33, crc, len(packed), claimed, len(name), 0)
    local = b"PK\3\4" + fixed + name + packed
    central = b"PK\1\2" + struct.pack("<H", 46) + fixed + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    return local + central + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), len(local), 0)


def archive(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return stream.getvalue()


def torch_zip(pickled, **members):
    return archive({"a/data.pkl": pickled, "a/byteorder": b"little"} | {f"a/data/{k}": v for k, v in members.items()})


def torch_old(pickled):
    """The format before torch 1.6, without storages."""
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(head, 2) for head in heads) + pickled + pickle.dumps([], 2)


def put(n):
    return b"r" + struct.pack("<I", n)


def get(n):
    return b"j" + struct.pack("<I", n)


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def state_dict(value):
    """A pickle of {"factors.0": value}, value in the pickle's own language."""
    return b"\x80\x02}" + text("factors.0") + value + b"s."


def numbers(n):
    return b"](" + b"".join(b"J" + struct.pack("<i", k) for k in range(n)) + b"e"


def again(name, n=30_000):
    """`name` called n times, each time with the same list of n numbers: n * n numbers, were it called."""
    first = name + put(0) + numbers(n) + b"\x85" + put(1) + b"R"
    return state_dict(b"](" + first + (get(0) + get(1) + b"R") * n + b"e")


STORAGE = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def long(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def tensor(size, stride, count=1):
    """A tensor of a storage of `count` numbers, in the pickle's own language."""
    place = b"(" + STORAGE + long(count) + b"tQ"
    shape = b"(" + b"".join(map(long, size)) + b"t(" + b"".join(map(long, stride)) + b"t"
    return REBUILD + b"(" + place + b"K\0" + shape + b"\x89N" + b"tR"


def torch_files():
    one = struct.pack("<f", 1.0)
    bytearray_ = b"c__builtin__\nbytearray\n" + long(6 << 30) + b"\x85R"
    laughs = b"(]" + put(0)
    for n in range(60):
        laughs += b"](" + get(n) * 10 + b"e" + put(n + 1)
    yield "bytearray.pt", torch_zip(state_dict(bytearray_))
    yield "bytearray_old.pt", torch_old(state_dict(bytearray_))
    yield "storage_of_torch.pt", torch_zip(state_dict(b"ctorch.storage\nUntypedStorage\n" + long(6 << 30) + b"\x85R"))
    yield "tensor_of_torch.pt", torch_zip(state_dict(b"ctorch\nTensor\n" + long(6 << 30) + b"\x85R"))
    yield "storage_claims.pt", torch_zip(state_dict(tensor((1 << 33,), (1,), 1 << 33)), **{"0": one})
    yield "storage_claims_old.pt", torch_old(state_dict(tensor((1 << 33,), (1,), 1 << 33)))
    yield "expanded.pt", torch_zip(state_dict(tensor((1, 1 << 14, 1 << 14, 1), (0, 0, 0, 0))), **{"0": one})
    yield "overlapping.pt", torch_zip(state_dict(tensor((1, 1 << 14, 1 << 14, 1), (0, 1, 1, 0))), **{"0": one * 40_000})
    yield "one_storage.pt", torch_zip(
        b"\x80\x02}("
        + b"".join(text(f"{n}.factors.0") + tensor((1, 1, 1 << 18, 1), (0, 0, 1, 0)) for n in range(400))
        + b"u.",
        **{"0": one * (1 << 18)},
    )
    yield "sets.pt", torch_zip(again(b"c__builtin__\nset\n"))
    yield "counters.pt", torch_zip(again(b"ccollections\nCounter\n"))
    yield "tables.pt", torch_zip(again(b"ccollections\nOrderedDict\n"))
    yield "sizes.pt", torch_zip(again(b"ctorch\nSize\n"))
    yield "laughs.pt", torch_zip(state_dict(laughs + b"t"))
    yield "places.pt", torch_zip(state_dict(b"K\1" + put(1 << 30)))
    yield "deep.pt", torch_zip(state_dict(b"N" + b"\x85" * 200_000))
    yield "steps.pt", torch_zip(state_dict(b"(" + b"]" * 3_000_000 + b"t"))
    yield "pickle_unpacks.pt", one_member(b"a/data.pkl", 8, *zeros(BOMB, state_dict(b"N")), 40)
    yield "many.pt", torch_zip(
        b"\x80\x02}(" + text("x") + tensor((1,), (1,)) + put(0)
        + b"".join(text(f"{n}.factors.0") + get(0) for n in range(MANY)) + b"u.",
        **{"0": one},
    )


def npz_files():
    head = npy((1, 4, 4, 4))
    whole = npy((1, 1, BOMB // 4, 1))
    yield "lying.npz", one_member(b"factors.0.npy", 8, *zeros(BOMB, head), 384)
    yield "honest.npz", one_member(b"factors.0.npy", 8, *zeros(BOMB, whole), len(whole) + BOMB)
    yield "bzip2.npz", archive({"factors.0.npy": head + bytes(256)}, zipfile.ZIP_BZIP2)
    yield "lzma.npz", archive({"factors.0.npy": head + bytes(256)}, zipfile.ZIP_LZMA)
    # 48 MiB of bytes are allowed, as float64 they would be eight times as much
    small = npy((1, 1, 48 << 20, 1), "|i1")
    yield "bytes.npz", one_member(b"factors.0.npy", 8, *zeros(48 << 20, small), len(small) + (48 << 20))
    yield "shape.npz", archive({"factors.0.npy": npy((1 << 40, 1 << 20, 1, 1), data=bytes(64))})
    yield "many.npz", archive({f"{n}.factors.0.npy": npy((1, 1, 1, 1), data=bytes(4)) for n in range(MANY)})
    entry = b"PK\1\2" + bytes(42)
    ends = struct.pack("<HHHHLLH", 0, 0, 65535, 65535, 46 * 250_000, 0, 0)
    yield "directory.npz", entry * 250_000 + b"PK\5\6" + ends
    flags = npy((4,), "<i8", struct.pack("<4q", 2, 0, 0, (1 << 31) - 1))
    rest = {"factors.0.npy": npy((1, 1, 1, 1), data=bytes(4)), "index.0.npy": npy((1, 1), "<i8", bytes(8))}
    yield "inputs.npz", archive({"flags.npy": flags} | rest)
    yield "names.npz", archive({f"{n:04}.{'x' * 250}.npy": npy((1,), data=bytes(4)) for n in range(3000)})


def safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def safetensors_files():
    def entry(shape, start, stop):
        return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}

    yield "header_claims.safetensors", struct.pack("<Q", 1 << 40) + b"{}"
    yield "header_large.safetensors", safetensors(b'{"a":{}' + b" " * (5 << 20) + b"}")
    yield "header_lists.safetensors", safetensors(b'{"a":[' + b"[]," * 1_300_000 + b"0]}")
    yield "deep.safetensors", safetensors(b'{"a":' * 100_000 + b"}" * 100_000)
    yield "overlapping.safetensors", safetensors(
        {f"{n}.factors.0": entry([1, 1, 16, 1], 0, 64) for n in range(1000)}, bytes(64)
    )
    yield "expanded.safetensors", safetensors({"factors.0": entry([1, 1 << 14, 1 << 14, 1], 0, 64)}, bytes(64))
    yield "many.safetensors", safetensors(
        {f"{n}.factors.0": entry([1, 1, 1, 1], 4 * n, 4 * n + 4) for n in range(MANY)}, bytes(4 * MANY)
    )


def graph_files():
    """Graphs: small files that would compute with much."""

    def graph(nodes, arrays=0, **more):
        entry = {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}
        text = json.dumps({"version": 2, "shape": [1, 1, 1], "nodes": list(nodes)} | more, separators=(",", ":"))
        keys = {f"n{n}/chain.factors.0.values": entry | {"data_offsets": [4 * n, 4 * n + 4]} for n in range(arrays)}
        return safetensors({"__metadata__": {"bfthw": text}} | keys, bytes(4 * arrays))

    def pick(n, *inputs):
        return {"kind": "pick", "name": f"n{n}", "inputs": inputs or [None]}

    def layer(n):
        return {"kind": "layer", "name": f"n{n}", "chain": {"factors": [{"values": [1] * 4}]}, "act": "tanh"}

    factor = {"weights": [8, 7], "output": [12, 7], "rows": 0, "table": [12, 7]}
    own, count = {"factors": [factor], "skip": None, "bias_width": None}, 8000
    formats = {"input": [8, 7], "layers": [own] * count}
    yield "doubled.safetensors", graph(pick(n, None, None) for n in range(16_000))
    yield "thousandfold.safetensors", graph(pick(n, *[None] * 900) for n in range(250))
    yield "nodes.safetensors", graph(pick(n) for n in range(MANY))
    window = {"size": [9999] * 2, "padding": [9998] * 4}
    yield "padding.safetensors", graph([{"kind": "sum", "name": "a", "window": window}])
    shared = [layer(0) | {"name": f"m{n}"} for n in range(9000)]
    yield "shared.safetensors", graph(shared, 1)
    yield "tables.safetensors", graph(map(layer, range(count)), count, formats=formats)


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    """A protobuf field: bytes, text or an integer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(kind, inputs, output):
    return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind))


def onnx_model(nodes, tensors=b"", size=4):
    """From x to y, both float (1, size), or (1, *size)."""
    dims = b"".join(field(1, field(1, n)) for n in (1, *(size if isinstance(size, tuple) else (size,))))
    floats = field(2, field(1, field(1, 1) + field(2, dims)))
    ends = field(11, field(1, "x") + floats) + field(12, field(1, "y") + floats)
    return field(1, 8) + field(7, nodes + field(2, "g") + tensors + ends) + field(8, field(2, 17))


def initializer(name, dims, raw):
    return field(5, b"".join(field(1, d) for d in dims) + field(2, 1) + field(8, name) + field(9, raw))


def line(kind, count, *more, start="x"):
    """Nodes one after the other from start to y."""
    names = [start, *(f"t{n}" for n in range(count - 1)), "y"]
    return b"".join(node(kind, [a, *more], b) for a, b in zip(names, names[1:]))


def onnx_files():
    weight, bias = initializer("w", [4, 4], bytes(64)), initializer("b", [1], bytes(4))
    yield "nodes.onnx", onnx_model(line("Identity", 100_000))
    adds = node("MatMul", ["x", "w"], "x0") + line("Add", 20_000, "b", start="x0")
    yield "adds.onnx", onnx_model(adds, weight + bias)
    yield "empty.onnx", onnx_model(b"\x0a\x00" * 2_000_000)
    nested = b""
    for _ in range(1000):
        nested = field(1, field(5, field(6, nested)))  # a node's attribute that is a graph
    yield "deep.onnx", onnx_model(nested)
    yield "dims.onnx", onnx_model(node("MatMul", ["x", "w"], "y"), initializer("w", [1 << 31, 1 << 31], bytes(64)))
    yield "minus.onnx", onnx_model(node("MatMul", ["x", "w"], "y"), initializer("w", [(1 << 64) - 1, 4], bytes(64)))
    yield "integers.onnx", onnx_model(b"", field(5, field(7, b"\1" * (12 << 20))))
    yield "large_input.onnx", onnx_model(line("Relu", 300), size=500_000)
    yield "scaled_input.onnx", onnx_model(line("Mul", 300, "b"), bias, size=500_000)
    yield "larger_input.onnx", onnx_model(line("Relu", 3), size=1_000_000)
    live = line("Conv", 60, "k") + node("Sum", ["x", *(f"t{k}" for k in range(59))], "z")
    yield "many_live.onnx", onnx_model(live, initializer("k", [1, 1, 1, 1], bytes(4)), (1, 700, 700))
    yield "relus.onnx", onnx_model(line("Relu", 20_000))
    yield "one_tensor.onnx", onnx_model(line("MatMul", 400, "w"), initializer("w", [512, 512], bytes(1 << 20)), 512)


def text_files():
    yield "deep.toml", b"a = " + b"[" * 100_000
    yield "tables.toml", b"a = " + b"{a = " * 40_000
    yield "dotted.toml", b"a" + b".a" * 100_000 + b" = 1"
    yield "dotted_lines.toml", b"".join(b"[t%d%s]\nx = 1\n" % (n, b".a" * 23) for n in range(3500))
    yield "digits.toml", b"weight_bits = " + b"9" * 200_000
    yield "hexadecimal.toml", b"weight_bits = 0x" + b"f" * 200_000
    yield "errors.toml", b"weight_bits = [" + b"99," * 80_000 + b"]"
    yield "keys.toml", b"".join(b"k%d = 1\n" % n for n in range(20_000))
    yield "large.toml", b"# " + b"x" * (1 << 20)
    yield "stages.json", b'{"stages": [' + b"{}," * 1_000_000 + b"{}]}"
    yield "keys.json", b"{" + b",".join(b'"k%d": 1' % n for n in range(300_000)) + b"}"
    yield "deep.json", b"[" * 1_000_000
    yield "shapes.txt", b"4 4 1 1 1\n" * 50_000
    yield "shape.npy", npy((1 << 40, 1 << 20), data=bytes(64))
    yield "lists.report", b"[" + b"[]," * 1_300_000 + b"0]"


# kind: makes (name, bytes) of every file
KINDS = {
    "torch": torch_files, "npz": npz_files, "safetensors": safetensors_files, "graph": graph_files, "onnx": onnx_files,
    "text": text_files,
}
