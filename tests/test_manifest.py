"""The manifest: it says all there is to know, repeats the specification, and is refused where it was changed."""

import ast
import hashlib
import json
import random
import re
import struct
import zipfile

import numpy as np
import pytest
from rtl_bench import extremes, random_network
from test_emit import example

from bfthw import IntNetwork, Settings
from rtl_gen import estimate, read_manifest, write
from rtl_gen.manifest import configuration


def changed(path, **keys):
    """Write a manifest again with other values of dotted keys; a value of None takes the key away."""
    table = json.loads(path.read_text())
    for key, value in keys.items():
        *where, last = key.split("__")
        place = table
        for part in where:
            place = place[int(part) if part.isdigit() else part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(table))


def arrays_of(path):
    """Arrays of an .npz as (shape, list of ints), read with nothing but the format's description."""
    result, kinds = {}, {"|i1": "b", "<i2": "h", "<i4": "i", "<i8": "q", "|u1": "B"}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert data[:6] == b"\x93NUMPY"
            size = struct.unpack("<H", data[8:10])[0]
            header = ast.literal_eval(data[10 : 10 + size].decode())
            assert not header["fortran_order"]
            count = 1
            for n in header["shape"]:
                count *= n
            values = struct.unpack(f"<{count}{kinds[header['descr']]}", data[10 + size :])
            result[name.removesuffix(".npy")] = header["shape"], list(values)
    return result


def recompute(path, vector):
    """Every stage's outputs from the manifest and the integers beside it, in Python's own ints."""
    manifest = json.loads(path.read_text())
    arrays = arrays_of(path.parent / manifest["files"]["integers"]["name"])
    x, entered, of, outputs = list(vector), None, None, []
    for stage in manifest["stages"]:
        layer = stage["name"].rsplit(".factors.", 1)[0]
        if layer != of:
            of, entered = layer, x
        a, b, c, d = stage["pattern"]
        shape, weights = arrays[stage["name"]]
        assert list(shape) == [a, b, c, d]
        exponents = arrays.get(stage["name"] + ".exponents")
        skip, bias = arrays.get(layer + ".skip"), arrays.get(layer + ".bias")
        lo, hi = -(1 << (stage["output"]["width"] - 1)), (1 << (stage["output"]["width"] - 1)) - 1
        y = []
        for row in range(a * b * d):
            i, j, l = row // (b * d), row // d % b, row % d
            places = [(i * c + k) * d + l for k in range(c)]
            if stage["index_of"] is not None:
                assert len(x) == stage["index_of"]
                places = arrays[stage["name"] + ".index"][1][row * c : (row + 1) * c]
            acc = sum(weights[((i * b + j) * c + k) * d + l] * x[place] for k, place in enumerate(places))
            if stage["shift_dot"] is None:
                # a row's own: up to the accumulator's fraction bits
                frac = stage["input"]["frac"] + stage["weights"]["frac"] + exponents[1][row]
                acc <<= stage["output"]["frac"] + stage["shift"] - frac
            else:
                acc <<= stage["shift_dot"]
            if stage["residual"]:
                acc += entered[row] * (skip[1][row] if stage["residual_weights"] else 1) << stage["shift_residual"]
            if stage["bias_width"] is not None:
                acc += bias[1][row]
            shift = stage["shift"]
            value = (acc + (1 << (shift - 1))) >> shift if shift > 0 else acc << -shift
            value = min(max(value, lo), hi)
            y.append(max(value, 0) if stage["relu"] else value)
        x = y
        outputs.append(y)
    return outputs


@pytest.mark.parametrize("seed", range(12), ids="seed-{}".format)
def test_manifest_and_integers_say_it_all(tmp_path, seed):
    network: IntNetwork = random_network(seed, largest=32, weights=128) if seed else example()
    design = write(network, tmp_path, name="core")
    x = extremes(np.random.default_rng(seed), network.input, (6, network.inputs))
    taps = network.taps(x)
    for n, vector in enumerate(x.tolist()):
        for stage, (y, tap) in enumerate(zip(recompute(design.path, vector), taps, strict=True)):
            assert y == tap[n].tolist(), f"vector {n}, stage {stage}"


def test_manifest_repeats_the_specification(tmp_path):
    design = write(example(), tmp_path, name="core", settings=Settings(lanes=[2, 4]))
    m, spec = design.manifest, design.plan
    simd = [engine.simd for engine in spec.engines]
    assert m.choices == {
        "body.0": {"engine": "pipelined", "lanes": [2, 4], "simd": simd, "products": "dsp"},
    }
    assert (m.latency, m.interval) == (spec.latency, spec.interval)
    assert (m.vectors, m.target) == (1, "plain")
    assert m.resources.model_dump() == {
        "multipliers": spec.multipliers,
        "rom_bits": spec.rom_bits,
        "buffer_bits": spec.buffer_bits,
        "estimated": estimate(spec),
    }
    assert (m.input.lanes, m.input.beats, m.output.lanes, m.output.beats) == (2, 8, 4, 4)
    for shown, engine, stage in zip(m.stages, m.engines, spec.engines, strict=True):
        assert engine.lanes == stage.lanes_out
        assert (engine.stages, engine.multipliers) == ([shown.name], stage.multipliers)
    for kind in ("verilog", "integers"):
        file = getattr(m.files, kind)
        assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.sha256


def test_folded_factors_share_an_engine(tmp_path):
    settings = Settings(engine="folded", vectors=2, target="ecp5", products="lut")
    design = write(example(), tmp_path, name="core", settings=settings)
    m, (fold,) = design.manifest, design.plan.engines
    assert m.choices == {"body.0": {"engine": "folded", "products": "lut", "paired": False}}
    (engine,) = m.engines
    assert (engine.lanes, fold.simd) == (1, 4)
    assert engine.instance == "network.stage_0" and engine.stages == [stage.name for stage in m.stages]
    for key in ("interval", "multipliers", "rom_bits", "buffer_bits"):
        assert getattr(engine, key) == getattr(fold, key)
    assert m.resources.estimated.model_dump() == estimate(design.plan)
    assert m.vectors == 2 and m.interval == fold.interval


def test_configuration_is_of_numbers_order_and_ports(tmp_path):
    def hash_of(network, number=iter(range(100)), **settings):
        return write(
            network, tmp_path / str(next(number)), name="core", settings=Settings(**settings)
        ).manifest.configuration

    network = example(64)
    plain = hash_of(network)
    assert plain == hash_of(network) == hash_of(example(64))
    # what is inside may be built otherwise
    assert plain == hash_of(network, lanes=[1, 4, 1]) == hash_of(network, simd=[1, 2, 4])
    # other ports, numbers, order
    others = [
        hash_of(network, lanes=[2, 1, 1]),
        hash_of(network, lanes=[1, 1, 4]),
        hash_of(example(64, activation_bits=9)),
    ]
    values = network.factors[0].values.copy()
    values[0, 0, 0, 0] += 1 if values[0, 0, 0, 0] < 0 else -1
    factor = type(network.factors[0])(**{**network.factors[0].__dict__, "values": values})
    layer = network.layers[0]
    others.append(hash_of(IntNetwork(layers=(type(layer)(factors=(factor, *layer.factors[1:]), name=layer.name),))))
    assert len({plain, *others}) == 5


@pytest.fixture
def core(tmp_path):
    return write(example(4), tmp_path, name="core").path


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"latency": None}, "latency: Field required"),
        ({"stages__0__shift": None}, "stages.0.shift: Field required"),
        ({"stages__0__engine": "systolic"}, "stages.0.engine: Extra inputs are not permitted"),
        ({"choices": None}, "choices: Field required"),
        ({"choices__body.0__engine": "../x"}, "choices.body.0.engine."),
        ({"choices__body.0__lanes": 0}, "choices.body.0.lanes."),
        ({"choices__body.0__lanes": 1.5}, "choices.body.0.lanes."),
        ({"choices__body.0__la nes": 1}, "choices.body.0.la nes."),
        ({"engines__0__stages": []}, "engines.0.stages: List should have at least 1 item"),
        ({"resources__estimated": {"LUT": 3}}, "resources.estimated.FF: Field required"),
        ({"paired": True}, "paired: Extra inputs are not permitted"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"input__more": 1}, "input.more: Extra"),
        ({"version": 3}, "version: Input should be 2"),
        ({"version": "2"}, "version: Input should be 2 (got '2')"),
        ({"format": "bfthw manifes"}, "format"),
        ({"name": "../core"}, "name"),
        ({"latency": "17"}, "latency"),
        ({"latency": 0}, "latency"),
        ({"interval": 1.5}, "interval"),
        ({"vectors": None}, "vectors: Field required"),
        ({"vectors": 0}, "vectors: Input should be greater than or equal to 1"),
        ({"vectors": 1 << 40}, "vectors: Input should be less than or equal to 4096"),
        ({"vectors": "3"}, "vectors: Input should be a valid integer"),
        ({"target": None}, "target: Field required"),
        ({"target": "../plain"}, "target: String should match pattern '^[A-Za-z][A-Za-z0-9_]{0,63}$' (got '../plain')"),
        ({"files__verilog__name": "../core.v"}, "files.verilog.name"),
        ({"files__verilog__name": "/core.v"}, "files.verilog.name"),
        ({"files__verilog__name": "core.v\n"}, "files.verilog.name"),
        ({"files__integers__name": "a/core.npz"}, "files.integers.name"),
        ({"files__integers__name": "core.npy"}, "files.integers.name"),
        ({"files__integers__name": "other.npz"}, "other.npz is missing beside it; run `bfthw generate` again"),
        ({"files__verilog__sha256": "0" * 64}, "core.v: not the file that core.json was made with"),
        ({"files__integers__sha256": "0" * 63}, "files.integers.sha256"),
        ({"configuration": "0" * 64}, "configuration: the hash does not fit"),
        ({"output__lane_bytes": 3}, "configuration: the hash does not fit"),
    ],
)
def test_manifests_refused(core, keys, words):
    changed(core, **keys)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_manifest(core)
    assert str(core.parent) in str(error.value)


def test_damaged_files_are_refused(core):
    whole = core.read_bytes()
    for data, words in (
        (whole[: len(whole) // 2], "not a manifest of version 2: the file: Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"[]", "not a manifest of version 2: the file"),
        (b"null", "not a manifest of version 2: the file"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe" + bytes(100), "not a manifest: it is no text file"),
        (b"[" * 100_000, "not a manifest"),
    ):
        core.write_bytes(data)
        with pytest.raises(ValueError, match=re.escape(f"{core}: ") + ".*" + words):
            read_manifest(core)
    core.write_bytes(whole)
    with pytest.raises(ValueError, match="is a folder; name the manifest"):
        read_manifest(core.parent)
    with pytest.raises(ValueError, match="none.json: no such file"):
        read_manifest(core.with_name("none.json"))
    verilog = core.with_suffix(".v")
    verilog.write_text(verilog.read_text() + "\n")
    with pytest.raises(ValueError, match="core.v: not the file that core.json was made with"):
        read_manifest(core)
    assert read_manifest(core, check=()).name == "core"
    verilog.unlink()
    with pytest.raises(ValueError, match="core.v is missing beside it"):
        read_manifest(core)


@pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
def test_any_damage_is_a_value_error(core, seed):
    """Bytes changed at random: refused with a ValueError, or the same manifest."""
    whole, rng = core.read_bytes(), random.Random(seed)
    good = read_manifest(core)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        core.write_bytes(data)
        try:
            shown = read_manifest(core)
        except ValueError:
            continue
        assert shown.files == good.files and shown.input == good.input and shown.output == good.output


def hash_of(m):
    parts = [m["files"]["integers"]["sha256"], m["vectors"], m["input"], m["output"]]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_configuration_is_a_hash_of_documented_text(core):
    m, shown = json.loads(core.read_text()), read_manifest(core)
    assert m["configuration"] == hash_of(m)
    parts = shown.files.integers.sha256, shown.input, shown.output
    assert m["configuration"] == configuration(*parts) != configuration(*parts, vectors=2)
