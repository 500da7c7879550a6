"""The emitted Verilog in Verilator (and Icarus): the same integers; arguments, tools and errors."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rtl_bench import extremes, random_network
from sim_bench import TLAST, agrees, copied, edit, files_of, make_core, needs_icarus, play_as_signed, sign

from bfthw import Chain, Layer, Network, QFormat, Settings, chain, compile, load_integers
from rtl_gen import fitting_lanes, tech, write
from rtl_gen.vectors import unpack
from sim import simulate, simulators

slow = pytest.mark.slow
CHECKS = ("back to back", "stalled, probability 0.3", "frames of wrong length", "after the reset")


def float_network(*shape, **rest):
    n, rng = chain.patterns(shape)[-1].outputs, np.random.default_rng(1)
    if rest.pop("all", False):
        rest |= {"residual": True, "scale": rng.uniform(-1.5, 1.5, n), "bias": rng.normal(size=n), "relu": True}
    return Network(layers=[Layer(chain=Chain.random(shape, 0), **rest)])


# float network, settings
CASES = {
    "n = 4, a vector a beat": (float_network(*chain.bft(4)), dict(lanes=4)),
    "n = 64, base 4": (float_network(*chain.bft(64)), {}),
    "mixed radix, 8 lanes and fewer": (
        float_network(*chain.mixed_radix((4, 4, 2, 3)), residual=True),
        dict(lanes=[8, 6, 3, 3], activation_bits=12),
    ),
    "bulging": (float_network((1, 8, 4, 8), (8, 4, 8, 1), relu=True), dict(lanes=[4, 2])),
    "dense": (float_network(*chain.dense(10, 15)), dict(lanes=5, simd=3)),
    "lanes 1, 2, 4, 8 with residual": (
        float_network(*chain.bft(16, 2), all=True),
        dict(lanes=[1, 2, 4, 8], row_exponents=3),
    ),
    "two residual layers": (
        Network(
            layers=[
                Layer(chain=Chain.random(chain.bft(16), 3), residual=True, relu=True, name="a"),
                Layer(chain=Chain.random(chain.bft(16), 4), residual=True, scale=np.full(16, -0.7), name="b"),
            ]
        ),
        dict(lanes=2, row_exponents=2, layers={"b": {"lanes": 4, "simd": [1, 4]}}),
    ),
}
SLOW = {
    "grouped": (float_network(*chain.grouped(12, 8, 4)), dict(weight_bits=5, activation_bits=17)),
    "low rank": (float_network(*chain.low_rank(12, 18, 3)), dict(lanes=[3, 1])),
    "n = 1024, base 4": (float_network(*chain.bft(1024)), {}),
    "256 multipliers": (float_network(*chain.bft(256), all=True), dict(lanes=16)),
    "Monarch": (float_network(*chain.monarch(32, 64, 4)), dict(lanes=4, row_exponents=8)),
    "wide formats": (float_network(*chain.bft(16), all=True), dict(weight_bits=20, activation_bits=24, input_bits=20)),
    "narrow formats": (float_network(*chain.bft(16), all=True), dict(weight_bits=2, activation_bits=2, input_bits=2)),
}


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=slow) for name in SLOW)])
def test_verilog_is_bit_exact(tmp_path, name):
    network, settings = (CASES | SLOW)[name]
    settings = Settings(**settings)
    design = write(compile(network, settings=settings), tmp_path, name="core", settings=settings)
    vectors = 8 if network.inputs > 200 else 40
    result = simulate(design, vectors=vectors, seed=len(name))
    agrees(result, design, vectors)
    assert result.checks == CHECKS
    # integers of one's own, on the compiled model
    x = extremes(np.random.default_rng(1), design.plan.network.input, (7, network.inputs))
    result = simulate(design.path, inputs=x, vectors=4, stall=0)
    agrees(result, design, 7)
    assert np.array_equal(result.outputs, design.plan.network(x))


@slow
@pytest.mark.parametrize("seed", range(8), ids="seed-{}".format)
def test_random_networks(tmp_path, seed):
    network, rng = random_network(seed + 50), np.random.default_rng(seed)
    lanes = {
        layer.name: {"lanes": [int(rng.choice(fitting_lanes(f.pattern))) for f in layer.factors]}
        for layer in network.layers
    }
    design = write(network, tmp_path, name="core", settings=Settings(layers=lanes))
    agrees(simulate(design, vectors=20, seed=seed, stall=0.5), design, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_core(tmp_path_factory.mktemp("core"))


@pytest.fixture
def core(folder, tmp_path):
    return copied(folder, tmp_path)


def test_float_inputs_go_through_the_input_format(folder):
    network = load_integers(folder / "core.npz")
    x = np.random.default_rng(0).normal(size=(9, 16))
    result = simulate(folder / "core.json", inputs=x, vectors=3)
    assert result.ok and np.array_equal(result.outputs, network(network.input.quantise(x)))


def test_few_vectors_and_progress(folder):
    seen = []
    result = simulate(folder / "core.json", vectors=1, progress=seen.append)
    assert result.ok and result.interval is None and result.latency
    simulate(folder / "core.json", vectors=600, progress=seen.append)
    assert seen and seen == sorted(seen) and 0 <= seen[0] <= seen[-1] <= 1


def test_the_same_seed_gives_the_same_run(folder):
    runs = [simulate(folder / "core.json", vectors=9, seed=s) for s in (3, 3, 4)]
    assert runs[0].cycles == runs[1].cycles != runs[2].cycles
    assert np.array_equal(runs[0].outputs, runs[1].outputs) and not np.array_equal(runs[0].outputs, runs[2].outputs)


def test_a_compiled_model_is_used_again_until_the_verilog_changes(core, children):
    simulate(core, vectors=1)
    assert children == ["core"]
    core.with_suffix(".v").write_text(core.with_suffix(".v").read_text() + "\n")
    sign(core)
    began = []
    simulate(core, vectors=1, begin=began.append)
    assert children[1:] == ["verilator", "make", "make", "core"]  # the first says what is to be made
    assert [title.split(" (")[0] for title in began] == ["translating to C++", "compiling the simulation", "simulating"]
    # nothing that is run lies beside the core
    assert files_of(core.parent) == {"core.json", "core.npz", "core.v"}


# simulators and errors


def test_a_large_model_is_compiled_in_parts(core, monkeypatch):
    """Here one of some kilobytes, in parts of some hundred nodes."""
    monkeypatch.setattr(simulators, "LARGE", 1000)
    monkeypatch.setattr(simulators, "SEVERAL", ("--output-split", "400"))
    assert simulate(core, vectors=12, simulator="compiled").ok


def test_the_more_cycles_the_better_compiled(core, monkeypatch):
    """A large core some in any case: little is saved there by none."""
    levels = []

    def compiled(*arguments):
        levels.append(arguments[-1])
        raise RuntimeError("as far as here")

    monkeypatch.setattr(simulators, "compiled", compiled)
    for cycles, large in ((6, 1 << 20), (300_000, 1 << 20), (10_000_000, 1 << 20), (6, 1000), (10_000_000, 1000)):
        monkeypatch.setattr(simulators, "LARGE", large)
        monkeypatch.setattr(sys.modules["sim.simulate"], "write_job", lambda *_, cycles=cycles: cycles)
        with pytest.raises(RuntimeError, match="as far as here"):
            simulate(core, vectors=6, simulator="compiled")
    some = levels[3]
    assert levels == ["-O0", some, "-O2", some, some] and some.startswith("-O1")


@needs_icarus
def test_icarus_agrees_with_verilator(core):
    runs = [simulate(core, vectors=12, simulator=name) for name in ("icarus", "verilator")]
    assert runs[0].ok and runs[1].ok and np.array_equal(runs[0].outputs, runs[1].outputs)
    for key in ("latency", "interval", "cycles", "checks", "vectors"):
        assert getattr(runs[0], key) == getattr(runs[1], key), key


@pytest.mark.parametrize(
    "simulator, suffix, ways",
    [
        ("verilator", ".vcd", (True,)),
        pytest.param("verilator", ".vcd", (True, "all"), marks=slow),
        pytest.param("icarus", ".fst", (True, "all"), marks=needs_icarus),
    ],
)
def test_waves(core, simulator, suffix, ways):
    """Ports, and links between stages; all of it on request."""
    sizes = {}
    for waves in ways:
        result = simulate(core, vectors=3, simulator=simulator, waves=waves)
        assert result.ok and result.waves == core.with_suffix(suffix)
        sizes[waves] = result.waves.stat().st_size
        if suffix == ".vcd":
            text = result.waves.read_text()
            assert "s_axis_tready" in text and re.search(r"module network .*?o__payload", text, re.DOTALL)
            assert ("product_p0" in text) == (waves == "all")
    assert 1000 < sizes[True] < sizes.get("all", 1 << 24) / 3
    if suffix == ".fst":
        assert simulate(core, vectors=3, simulator=simulator).waves is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(simulator="modelsim"), "simulator must be verilator, icarus or compiled, got 'modelsim'"),
        (dict(vectors=0), "vectors must be 1 or more, got 0"),
        (dict(vectors=-3), "vectors must be 1 or more, got -3"),
        (dict(stall=1.0), "stall is a probability, 0 or more and less than 1, got 1.0"),
        (dict(stall=-0.1), "stall is a probability"),
        (dict(stall=float("nan")), "stall is a probability"),
        (dict(inputs=np.zeros((3, 15))), r"input vectors must have shape (N, 16), got (3, 15)"),
        (dict(inputs=np.zeros(16)), r"input vectors must have shape (N, 16), got (16,)"),
        (dict(inputs=np.zeros((0, 16))), r"input vectors must have shape (N, 16), got (0, 16)"),
        (dict(inputs=np.full((1, 16), np.nan)), "input vectors must be finite, found NaN or infinity"),
        (dict(inputs=np.full((1, 16), 128)), "input vectors must fit 8 bits (-128 to 127), got 128"),
    ],
)
def test_bad_arguments(folder, arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        simulate(folder / "core.json", **arguments)


def test_bad_types(folder):
    with pytest.raises(TypeError, match="input vectors must be integers"):
        simulate(folder / "core.json", inputs=np.zeros((1, 16), complex))


def test_changed_files_are_refused(core):
    core.with_suffix(".v").write_text("module core; endmodule\n")
    with pytest.raises(ValueError, match="core.v: not the file that core.json was made with"):
        simulate(core)


@pytest.mark.parametrize("simulator, package", [("verilator", "perl"), ("icarus", "iverilog")])
def test_missing_tools_are_named(folder, monkeypatch, tmp_path, simulator, package):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=f"{simulator} needs .*not found here; on Debian: apt-get install .*{package}"
    ):
        simulate(folder / "core.json", simulator=simulator)


@pytest.mark.parametrize("simulator", ["verilator", pytest.param("icarus", marks=needs_icarus)])
def test_verilog_that_does_not_compile(core, simulator):
    edit(core, (TLAST, "assign m_axis_tlast = nowhere(;"))
    before = dict(os.environ)
    with pytest.raises(RuntimeError, match=f"{simulator} could not build core.v"):
        simulate(core, vectors=1, simulator=simulator)
    assert dict(os.environ) == before


def test_the_environment_is_left_alone(folder):
    before = dict(os.environ), Path.cwd()
    simulate(folder / "core.json", vectors=1)
    assert (dict(os.environ), Path.cwd()) == before


PART = """
module PART(input a, input open, output y);
  // a warning, which would stop the build in a core's own file
  wire [3:0] narrow = 9'd300;
  assign y = VALUE;
endmodule
"""


@pytest.mark.parametrize(
    "simulator",
    ["compiled", pytest.param("verilator", marks=slow), pytest.param("icarus", marks=needs_icarus)],
)
def test_models_of_a_targets_primitives(core, monkeypatch, tmp_path, simulator):
    edit(core, (TLAST.replace("[^;]*", "([^;]*)"), r"PART part(.a(\1), .y(m_axis_tlast));"))
    with pytest.raises(RuntimeError, match=f"{simulator} could not build core.v: [\\s\\S]*PART"):
        simulate(core, vectors=12, simulator=simulator)
    model = tmp_path / "parts.v"
    monkeypatch.setattr(tech, "models", {"ecp5": [model]}.get)
    sign(core, target="ecp5")
    model.write_text(PART.replace("VALUE", "a"))
    assert play_as_signed(core, vectors=12, simulator=simulator).ok
    # another model, another build
    model.write_text(PART.replace("VALUE", "1'b0"))
    problems = play_as_signed(core, vectors=12, simulator=simulator).problems
    assert problems[0].startswith("back to back: TLAST on beats []"), problems


@pytest.mark.parametrize("width", range(1, 25))
def test_unpacking_of_lanes(width):
    size = -(-width // 8)
    values = extremes(np.random.default_rng(width), QFormat(width, 0), 20)
    raw = b"".join(int(v).to_bytes(size, "little", signed=True) for v in values)
    assert np.array_equal(unpack(np.frombuffer(raw, np.uint8), size), values)
