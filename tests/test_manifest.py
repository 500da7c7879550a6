"""The manifest: it says all there is to know, repeats the specification, and is refused where it was changed."""

import ast
import hashlib
import json
import random
import re
import shutil
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
from rtl_bench import extremes, random_network
from test_emit import example

from bfthw import IntNetwork, QFormat, Settings
from boards.build import build
from boards.host import Board
from boards.session import compare, connect
from rtl_gen import estimate, load_design, read_manifest, write
from rtl_gen.manifest import Format, Port, configuration
from rtl_gen.top import lane_bytes
from sim import simulate


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
    m, spec = design.manifest, design.spec
    assert (m.latency, m.interval) == (spec.latency, spec.interval)
    assert (m.vectors, m.target) == (1, "plain")
    assert m.resources.model_dump() == {
        "multipliers": spec.multipliers,
        "rom_bits": spec.rom_bits,
        "buffer_bits": spec.buffer_bits,
        "estimated": None,
    }
    assert (m.input.lanes, m.input.beats, m.output.lanes, m.output.beats) == (2, 8, 4, 4)
    for shown, engine, stage in zip(m.stages, m.engines, spec.stages, strict=True):
        assert (shown.engine, shown.lanes, shown.simd, shown.products) == ("pipelined", stage.lanes, stage.simd, "dsp")
        assert (engine.stages, engine.multipliers) == ([shown.name], stage.multipliers)
    for kind in ("verilog", "integers"):
        file = getattr(m.files, kind)
        assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.sha256


def test_folded_factors_share_an_engine(tmp_path):
    settings = Settings(engine="folded", vectors=2, target="ecp5", products="lut")
    design = write(example(), tmp_path, name="core", settings=settings)
    m, (fold,) = design.manifest, design.spec.stages
    assert [(s.engine, s.lanes, s.simd, s.products) for s in m.stages] == [("folded", 1, 4, "lut")] * 2
    (engine,) = m.engines
    assert engine.instance == "network.stage_0" and engine.stages == [stage.name for stage in m.stages]
    for key in ("interval", "multipliers", "rom_bits", "buffer_bits"):
        assert getattr(engine, key) == getattr(fold, key)
    assert m.resources.estimated.model_dump() == estimate(design.spec)
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
        ({"stages__0__engine": "systolic"}, "stages.0.engine: Input should be 'pipelined', 'folded' or 'spatial'"),
        ({"stages__0__products": None}, "stages.0.products: Field required"),
        ({"engines__0__stages": []}, "engines.0.stages: List should have at least 1 item"),
        ({"resources__estimated": {"LUT": 3}}, "resources.estimated.FF: Field required"),
        ({"paired": 1}, "paired: Input should be a valid boolean"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"input__more": 1}, "input.more: Extra"),
        ({"version": 2}, "version: Input should be 1"),
        ({"version": "1"}, "version"),
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
        ({"target": "../plain"}, "target: Input should be 'plain', 'ecp5', 'ice40' or 'gowin' (got '../plain')"),
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
        (whole[: len(whole) // 2], "not a manifest of version 1: the file: Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"[]", "not a manifest of version 1: the file"),
        (b"null", "not a manifest of version 1: the file"),
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


# what a manifest says beyond the choices must follow from them and from the integers


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A core with two kinds of engines, an estimate and everything in its layer; its folder."""
    settings = Settings(target="ecp5", engine=["pipelined", "spatial"], lanes=[2, 1], vectors=2)
    return write(example(4, 2), tmp_path_factory.mktemp("whole"), name="core", settings=settings).path.parent


def leaves(tree, key=()):
    """(path, value) of all that is in nested dicts and lists."""
    if isinstance(tree, (dict, list)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*key, name))
    else:
        yield key, tree


def another(key, value):
    """A value in the place of one that is as good by itself."""
    choices = {
        "engine": ["folded", "pipelined", "spatial"], "products": ["lut", "dsp"],
        "target": ["plain", "ecp5", "ice40", "gowin"], "prefix": ["s_axis", "m_axis"],
    }
    if key[-1] in choices:
        return next(v for v in choices[key[-1]] if v != value)
    if value is None:
        return {"width": 3, "frac": 1} if key[-1] == "residual_weights" else 3
    if isinstance(value, (bool, int)):
        return not value if isinstance(value, bool) else value + 1
    first = "x" if len(value) < 64 else "0" if value[0] != "0" else "1"  # a name, or a hash
    return first + value[1:]


FIXED = ("format", "version", "clock", "reset", "rounding", "saturation")  # there is one value alone


def test_every_key_is_held_against_the_integers(whole):
    """Each value changed alone, the hash of the configuration made to fit: no result or port can say otherwise."""
    path = whole / "core.json"
    text = path.read_text(encoding="utf-8")
    good, free, tried = json.loads(text), set(), 0
    try:
        for key, value in leaves(good):
            if key[0] in FIXED:
                continue
            table = json.loads(text)
            place = table
            for name in key[:-1]:
                place = place[name]
            place[key[-1]] = another(key, value)
            assert place[key[-1]] != value, key
            if key != ("configuration",):
                table["configuration"] = hash_of(table)
            path.write_text(json.dumps(table), encoding="utf-8")
            tried += 1
            try:
                load_design(path)
                free.add(key)
            except ValueError as error:
                assert str(error).startswith(str(path.parent)), (key, error)
    finally:
        path.write_text(text, encoding="utf-8")
    # tools, estimates, and choices from which nothing follows but the Verilog, whose hash is there
    choices = {("target",), *(("stages", n, "products") for n in range(2))}
    assert free == {key for key, _ in leaves(good) if key[0] == "tools" or "estimated" in key} | choices and tried > 90


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"stages__0__shift": 1}, r"stages.0.shift is 1, but core.npz and the manifest's choices give \d+; run `bfthw ge"),
        ({"stages__1__pattern": [4, 1, 1, 1]}, r"stages.1.pattern.0 is 4, but core.npz and"),
        ({"stages__0__output__width": 62}, "stages.0.output.width is 62, but"),
        ({"engines__0__stages": ["x"]}, "engines.0.stages.0 is 'x', but"),
        ({"latency": 7}, "latency is 7, but"),
        ({"engines__1__interval": 99}, "engines.1.interval is 99, but"),
        ({"stages": []}, "NetworkSpec.engines needs an entry for each of 2 factors, got 0"),
        ({"paired": True}, "paired: of folded engines alone, and here is none"),
    ],
)
def test_every_reader_of_a_core_refuses_it(whole, tmp_path, keys, words):
    """In load_design, simulate, build, patch's start, a simulated board, and a host that has the core's files."""
    path = shutil.copytree(whole, tmp_path / "core") / "core.json"
    changed(path, **keys)
    readers = (
        load_design, partial(simulate, vectors=1), lambda path: build(path, "ulx3s-85f", tmp_path),
        lambda path: Board(Nobody(), path), lambda path: compare(path, np.zeros((1, 4)), np.zeros((1, 4))),
        lambda path: connect(None, path).__enter__(),
    )
    for read in readers:
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*(" + words + ")"):
            read(path)


class Nobody:
    """A line on which no byte may be written before the manifest is held to be good."""

    def read(self, size):
        raise AssertionError("read")

    write = read


def test_a_host_needs_the_manifest_alone(whole, tmp_path):
    """Without the core's files nothing can be regenerated; a host asks the board, whose configuration must be the same."""
    path = tmp_path / "core.json"
    path.write_text((whole / "core.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssertionError, match="read"):
        Board(Nobody(), path)
    shutil.copy(whole / "core.npz", tmp_path)
    with pytest.raises(AssertionError, match="read"):
        Board(Nobody(), path)
    (tmp_path / "core.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="core.npz: not the file that core.json was made with"):
        Board(Nobody(), path)


def test_widths_of_a_manifest_are_those_of_formats():
    """As wide as a QFormat can be, and no wider: readers compute with 64 bits."""
    assert Format(width=62, frac=0).qformat() == QFormat(62, 0)
    for width in (0, 63):
        with pytest.raises(ValueError, match="width"):
            Format(width=width, frac=0)
        with pytest.raises(ValueError, match="width must be 1 to 62 bits"):
            QFormat(width, 0)
    for width in (1, 8, 9, 62):
        assert 1 <= lane_bytes(width) <= 8
        q = QFormat(width, 0)
        port = Port(prefix="s_axis", elements=1, format=Format.of(q), lanes=1, lane_bytes=lane_bytes(width), beats=1)
        assert port.format.qformat() == q
