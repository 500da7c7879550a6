"""The compiled driver: what it records is what cocotb records, array for array, and what it shows is judged alike."""

import importlib
import re
import subprocess

import numpy as np
import pytest
from rtl_bench import factor_of
from sim_bench import TLAST, TUSER, agrees, copied, edit, make_core, play_as_signed, sign
from test_mistakes import test_a_wrong_weight_names_stage_and_index as judge_a_wrong_weight

from bfthw import IntLayer, IntNetwork, QFormat, Settings, load_integers
from rtl_gen import write
from rtl_gen.manifest import read_manifest
from rtl_gen.vectors import random_vectors
from sim import simulate, simulators
from sim.job import KINDS, write_job
from sim.scenarios import whole

slow = pytest.mark.slow
play = importlib.import_module("sim.simulate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_core(tmp_path_factory.mktemp("core"), "compiled")


@pytest.fixture
def core(folder, tmp_path):
    return copied(folder, tmp_path)


@pytest.fixture
def recorded(monkeypatch):
    """What the simulators recorded, a dict of arrays a run."""
    runs, read = [], play.read_results
    monkeypatch.setattr(play, "read_results", lambda *arguments: runs.append(read(*arguments)) or runs[-1])
    return runs


def test_arrays_are_those_of_cocotb(core, recorded):
    """Of every scenario: without stalls, with the same stalls, wrong frames, cut by a reset."""
    shown = [simulate(core, vectors=20, simulator=name) for name in ("verilator", "compiled")]
    first, second = recorded
    assert set(first) == set(second) == {"cycles", *(f"{kind}_{n}" for kind in KINDS for n in range(5))}
    for key, array in first.items():
        assert np.array_equal(array, second[key]), key
        assert np.size(array) > 1 or key == "cycles"
    assert all(run.ok for run in shown) and np.array_equal(shown[0].outputs, shown[1].outputs)
    for key in ("latency", "interval", "cycles", "checks", "vectors"):
        assert getattr(shown[0], key) == getattr(shown[1], key), key


# pattern, input and output width, lanes: bytes of TDATA
WIDTHS = {
    "64 lanes of 2": ((32, 2, 2, 1), 10, 64),
    "3 lanes of 3": ((1, 3, 3, 3), 20, 3),
    "1 lane of 3": pytest.param(((1, 4, 4, 1), 20, 1), marks=slow),
    "5 lanes of 1": pytest.param(((1, 5, 5, 1), 6, 5), marks=slow),
    "2 lanes of 4": pytest.param(((1, 4, 4, 1), 30, 2), marks=slow),
    "5 lanes of 7": pytest.param(((1, 5, 5, 1), 49, 5), marks=slow),
}


@pytest.mark.parametrize("case", WIDTHS.values(), ids=WIDTHS)
def test_tdata_of_any_width(tmp_path, case):
    pattern, width, lanes = case
    network = IntNetwork(layers=(IntLayer(factors=(factor_of(pattern, x=QFormat(width, 4)),), name="body"),))
    design = write(network, tmp_path, name="core", settings=Settings(lanes=lanes))
    agrees(simulate(design, vectors=30, simulator="compiled"), design, 30)


def test_seeds(folder):
    runs = [simulate(folder / "core.json", vectors=9, seed=s, simulator="compiled") for s in (3, 3, 4)]
    assert runs[0].cycles == runs[1].cycles != runs[2].cycles
    assert np.array_equal(runs[0].outputs, runs[1].outputs) and not np.array_equal(runs[0].outputs, runs[2].outputs)


def test_stalls_come_with_their_probability(folder, recorded):
    simulate(folder / "core.json", vectors=400, stall=0.75, simulator="compiled")
    accepted = recorded[0]["accepted_1"]
    # a beat is offered in a quarter of the cycles, the core being faster than that
    assert abs((accepted[-1] - accepted[0]) / len(accepted) - 4) < 0.3


def test_progress_of_a_long_run(folder):
    seen = []
    network = load_integers(folder / "core.npz")
    x = random_vectors(network, 500_000, 0)
    result = simulate(folder / "core.json", inputs=x, vectors=1, simulator="compiled", progress=seen.append)
    assert result.ok and np.array_equal(result.outputs, network(x))
    assert seen == sorted(seen) and 0 <= seen[0] < seen[-1] <= 1


def test_what_was_built_is_used_again(core, monkeypatch, children):
    assert simulate(core, vectors=3, simulator="compiled").ok
    assert children == ["driver"]
    # another driver.cpp is another program
    other = core.with_name(simulators.DRIVER.name)
    other.write_text("no C++")
    monkeypatch.setattr(simulators, "DRIVER", other)
    began = []
    with pytest.raises(RuntimeError, match="compiled could not build core.v"):
        simulate(core, vectors=3, simulator="compiled", begin=began.append)
    assert [title.split(" (")[0] for title in began] == ["translating to C++", "compiling the simulation"]


# mistakes


def test_a_wrong_weight_is_located_by_cocotb(core, children):
    judge_a_wrong_weight(core, 1, "compiled")
    assert "make" in children and children[-1] == "core"


def test_wrong_flags_errors_and_figures(core):
    """Several at once, one build: each has its line."""
    edit(
        core,
        (TUSER, "assign m_axis_tuser = m_axis_tlast & ~m_axis_tuser_;"),
        (TLAST, r"\g<0> reg m_axis_tuser_ = 0; always @(posedge aclk) m_axis_tuser_ <= m_axis_tvalid;"),
        (r"(assign \S+ += frame_errors \+ )1'h1", r"\g<1>2'h2"),
    )
    latency = read_manifest(core).latency
    sign(core, latency=latency + 1)
    problems = play_as_signed(core, vectors=12, stall=0, simulator="compiled").problems
    for words in (
        f"latency is {latency} cycles, the manifest says {latency + 1}",
        "frames of wrong length: TUSER marks frames",
        "frames of wrong length: frame_error and frame_errors are [1, ",
    ):
        assert any(problem.startswith(words) for problem in problems), (words, problems)


@slow
def test_a_core_that_hangs_is_reported(core):
    edit(core, (r"assign s_axis_tready = [^;]*;", "assign s_axis_tready = 1'b0;"))
    problems = simulate(core, vectors=12, simulator="compiled").problems
    assert problems[0].startswith("back to back: TLAST on beats [7]...")


def test_waves_are_refused(folder):
    with pytest.raises(ValueError, match="simulator compiled writes no waves; take verilator or icarus"):
        simulate(folder / "core.json", vectors=1, simulator="compiled", waves=True)


def test_what_does_not_compile(core):
    edit(core, (TLAST, "assign m_axis_tlast = nowhere(;"))
    with pytest.raises(RuntimeError, match=r"compiled could not build core.v: [\s\S]*syntax error"):
        simulate(core, vectors=1, simulator="compiled")


def test_warnings_stop_the_build(core):
    edit(core, (TLAST, r"\g<0> wire [3:0] narrow = 9'd300;"))
    with pytest.raises(RuntimeError, match=r"compiled could not build core.v: [\s\S]*WIDTHTRUNC"):
        simulate(core, vectors=1, simulator="compiled")


def run_driver(core, job):
    verilog = core.with_suffix(".v")
    driver = simulators.build({verilog.name: verilog.read_text()}, "core", "compiled") / "driver"
    return subprocess.run([driver, job], capture_output=True, text=True, check=False)


def test_the_driver_names_what_it_misses(core, tmp_path):
    manifest = read_manifest(core)
    scenario = whole(random_vectors(load_integers(core.with_suffix(".npz")), 3, 0), 1, name="three")
    expected = write_job(tmp_path, manifest, [scenario])
    assert run_driver(core, tmp_path).returncode == 0
    cycles = np.fromfile(tmp_path / "cycles", "<i8")
    assert len(cycles) == 1 and 0 < cycles[0] <= expected + 10
    assert np.fromfile(tmp_path / "scenarios", "<u8").size == 6  # of one scenario
    (tmp_path / "data_0").unlink()
    done = run_driver(core, tmp_path)
    assert done.returncode == 1 and done.stderr == "driver: cannot read data_0\n"
    # 2 lanes of a byte; 3 and 4 bytes are kept in as many
    np.array([4, 2], "<u8").tofile(tmp_path / "ports")
    done = run_driver(core, tmp_path)
    assert done.returncode == 1 and "TDATA of the core is not as wide as the job says" in done.stderr


@pytest.mark.parametrize("tool", ["perl", "make", "g++"])
def test_missing_tools(folder, monkeypatch, tool):
    which = simulators.shutil.which
    monkeypatch.setattr(simulators.shutil, "which", lambda name: None if name == tool else which(name))
    told = f"compiled needs {tool}, not found here; on Debian: apt-get install {tool}"
    with pytest.raises(ValueError, match=re.escape(told)):
        simulate(folder / "core.json", simulator="compiled")
