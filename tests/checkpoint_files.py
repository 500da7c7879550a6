"""Checkpoint files for the tests, well-formed and not, written without the code under test."""

import json
import re
import struct

import numpy as np
import pytest

from bfthw import Chain, Layer, Network, chain
from bfthw.checkpoint import CheckpointError, load

FACTORS = {"factors.0": np.ones((1, 2, 2, 2)), "factors.1": np.ones((2, 2, 2, 1))}
SAFETENSORS = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8"}
SAFETENSORS |= {"u2": "U16", "u4": "U32", "u8": "U64", "b1": "BOOL", "c8": "C64"}


def layer(name, **parts):
    return {f"{name}.{key}": array for key, array in (FACTORS | parts).items()}


def safetensors(path, arrays, metadata=None, **raw):
    """A safetensors file by the format's own rules: 8 bytes of length, a JSON header, the data."""
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for key, array in arrays.items():
        array = np.asarray(array)
        dtype = raw.get("dtype") or SAFETENSORS[array.dtype.str[1:]]
        header[key] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def npz(path, arrays):
    np.savez(path, **arrays)
    return path


def torch_file(path, arrays):
    torch = pytest.importorskip("torch")
    torch.save({key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}, path)
    return path


WRITERS = {"w.safetensors": safetensors, "w.npz": npz, "w.pt": torch_file, "w.pth": torch_file}
formats = pytest.mark.parametrize("name", WRITERS)


def refused(path, *texts, read=load, **options):
    with pytest.raises(CheckpointError) as caught:
        read(path, **options)
    for text in (path.name, *texts):
        assert re.search(text, str(caught.value)), f"{text!r} is not in {caught.value}"


def random_network(seed, names=("first", "a.b", "10")):
    rng, layers, n = np.random.default_rng(seed), [], 16
    for i, name in enumerate(names):
        shape = [chain.bft(16, 4), chain.mixed_radix((4, 2, 2)), chain.monarch(12, 16, 4)][min(i, 2)]
        built = Chain.random(shape, seed + i)
        n = built.outputs
        layers.append(
            Layer(
                chain=built if i else Chain(type(f)(f.values.astype(np.float32)) for f in built.factors),
                residual=built.inputs == n and bool(rng.integers(2)),
                scale=rng.normal(size=n) if rng.integers(2) else None,
                bias=rng.normal(size=n).astype(np.float32) if rng.integers(2) else None,
                relu=bool(rng.integers(2)),
                name=name,
            )
        )
    return Network(layers=layers)


def same(a, b):
    assert len(a.layers) == len(b.layers) and a.formats == b.formats
    for one, two in zip(a.layers, b.layers):
        assert (one.name, one.residual, one.relu) == (two.name, two.residual, two.relu)
        assert one.chain.patterns == two.chain.patterns
        assert all(np.array_equal(f.values, g.values) for f, g in zip(one.chain.factors, two.chain.factors))
        for key in ("scale", "bias"):
            x, y = getattr(one, key), getattr(two, key)
            assert (x is None) == (y is None) and (x is None or np.array_equal(x, y))
