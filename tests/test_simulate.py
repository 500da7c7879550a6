"""The emitted Verilog in Verilator (and Icarus): the same integers, and every planted mistake found and named."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rtl_bench import extremes, factor_of, random_network

from bfthw import (
    Chain,
    IntLayer,
    IntNetwork,
    Layer,
    Network,
    QFormat,
    Settings,
    chain,
    compile,
    load_integers,
    save_integers,
)
from rtl_gen import fitting_lanes, write
from rtl_gen.manifest import Port, configuration, read_manifest, sha256
from sim import simulate, simulators
from sim.simulate import unpack

needs_icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
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


def agrees(result, design, vectors):
    """Nothing to complain about, everything checked, and the figures as the specification has them."""
    assert result.problems == () and result.ok, result.problems
    assert len(result.checks) == 4 and result.checks[0] == "back to back"
    assert (result.latency, result.interval) == (design.spec.latency, design.spec.interval)
    assert result.outputs.shape == (vectors, design.spec.network.outputs)
    assert result.cycles > vectors * design.spec.interval


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
    x = extremes(np.random.default_rng(1), design.spec.network.input, (7, network.inputs))
    result = simulate(design.path, inputs=x, vectors=4, stall=0)
    agrees(result, design, 7)
    assert np.array_equal(result.outputs, design.spec.network(x))


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
    """A core of two stages, two lanes, compiled once."""
    place = tmp_path_factory.mktemp("core")
    first = factor_of((1, 4, 4, 4), 0, x=QFormat(8, 7), drop=4)
    second = factor_of((4, 4, 4, 1), 1, x=first.output, drop=4)
    write(
        IntNetwork(layers=(IntLayer(factors=(first, second), name="body"),)),
        place,
        name="core",
        settings=Settings(lanes=2),
    )
    assert simulate(place / "core.json", vectors=12).ok
    return place


@pytest.fixture
def core(folder, tmp_path):
    """A copy of it, the compiled model included, to plant mistakes in."""
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    path = tmp_path / "copy" / "core.json"
    yield path


def sign(path, **keys):
    """Make the manifest fit the files beside it again, with some values changed; returns it."""
    table = json.loads(path.read_text()) | keys
    for file in table["files"].values():
        file["sha256"] = sha256(path.parent / file["name"])
    ports = [Port.model_validate(table[side]) for side in ("input", "output")]
    table["configuration"] = configuration(table["files"]["integers"]["sha256"], *ports)
    path.write_text(json.dumps(table))
    return read_manifest(path)


def edit(path, *changes):
    """Replace the only match of each pattern in the Verilog beside a manifest."""
    verilog = path.with_suffix(".v")
    text = verilog.read_text()
    for old, new in changes:
        text, count = re.subn(old, new, text)
        assert count == 1, f"{old} is there {count} times"
    verilog.write_text(text)
    sign(path)


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


def test_a_compiled_model_is_used_again_until_the_verilog_changes(core, monkeypatch):
    built = []
    monkeypatch.setattr(simulators, "build", lambda *arguments, **rest: built.append(arguments) or 1 / 0)
    core.with_suffix(".v").write_text(core.with_suffix(".v").read_text() + "\n")
    sign(core)
    with pytest.raises(ZeroDivisionError):
        simulate(core, vectors=1)
    assert len(built) == 1 and not (core.parent / "core.sim" / "verilator" / "built").exists()


# planted mistakes


def flip(word):
    """One bit of a hexadecimal digit of a word, the third of its weights."""
    digits = word[-6:]
    return word[:-6] + digits[0] + format(int(digits[1], 16) ^ 1, "x") + digits[2:]


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=slow)])
def test_a_wrong_weight_names_stage_and_index(core, stage, simulator="verilator"):
    # the fourth read of the stage's ROM: outputs 6 and 7
    verilog = core.with_suffix(".v")
    text = verilog.read_text()
    start = text.index(f"module \\core.network.stage_{stage}.weights ")
    word = re.compile(r"(store\[3\] = \d+'h)([0-9a-f]+)").search(text, start)
    verilog.write_text(text[: word.start(2)] + flip(word[2]) + text[word.end(2) :])
    sign(core)
    result = simulate(core, vectors=12, simulator=simulator)
    assert not result.ok
    first = result.problems[0]
    assert re.match(
        r"back to back: vector \d+, output \d+ is -?\d+, should be -?\d+; the first stage that differs is ", first
    )
    found = re.search(
        r"differs is body\.factors\.(\d) \(network\.stage_(\d)\), vector \d+, index (\d+): -?\d+, should be", first
    )
    assert found and found[1] == found[2] == str(stage) and found[3] in ("6", "7")
    assert len(result.problems) == 4


@needs_icarus
@pytest.mark.parametrize("stage", [0, 1])
def test_icarus_finds_a_wrong_weight_too(core, stage):
    test_a_wrong_weight_names_stage_and_index(core, stage, "icarus")


def test_wrong_figures_in_the_manifest(core):
    manifest = read_manifest(core)
    sign(core, latency=manifest.latency + 1, interval=manifest.interval - 1)
    result = simulate(core, vectors=12)
    assert set(result.problems) == {
        f"latency is {manifest.latency} cycles, the manifest says {manifest.latency + 1}",
        f"interval is {float(manifest.interval)} cycles, the manifest says {manifest.interval - 1}",
    }
    assert (result.latency, result.interval) == (manifest.latency, manifest.interval)


def test_wrong_integers_beside_the_manifest(core):
    """The golden model itself changed: one weight of the second stage."""
    network = load_integers(core.with_suffix(".npz"))
    first, second = network.factors
    values = second.values.copy()
    values[2, 1, 0, 0] += 1 if values[2, 1, 0, 0] < second.weights.hi else -1
    changed = type(second)(values=values, input=second.input, weights=second.weights, output=second.output)
    save_integers(IntNetwork(layers=(IntLayer(factors=(first, changed), name="body"),)), core.with_suffix(".npz"))
    sign(core)
    result = simulate(core, vectors=12)
    # block 2 of 4 outputs, row 1
    assert "the first stage that differs is body.factors.1 (network.stage_1)" in result.problems[0]
    assert ", index 9: " in result.problems[0] and ", output 9 is " in result.problems[0]


TLAST, TUSER = r"assign m_axis_tlast = [^;]*;", r"assign m_axis_tuser = [^;]*;"
CIRCUITS = {
    "TUSER never": (
        [(TUSER, "assign m_axis_tuser = 1'b0;")],
        "frames of wrong length: TUSER marks vectors [], should mark",
    ),
    "TUSER always": ([(TUSER, "assign m_axis_tuser = m_axis_tlast;")], "back to back: TUSER marks vectors [ 0  1"),
    "TUSER on other beats too": (
        [(TUSER, r"assign m_axis_tuser = r_data;")],
        "frames of wrong length: TUSER marks vectors",
    ),
    "TLAST on every beat": (
        [(TLAST, "assign m_axis_tlast = m_axis_tvalid;")],
        "back to back: TLAST on beats [0, 1, 2, 3, 4, 5, 6, 7]..., should be on [7,",
    ),
    "a count too high": (
        [(r"(assign \S+ += frame_errors \+ )1'h1", r"\g<1>2'h2")],
        "frames of wrong length: frame_error and frame_errors are [1, ",
    ),
    "a bubble after each beat": (
        [
            (r"\((m_axis_tready)\),", r"(\1 & ~bubble),"),
            (r"\(m_axis_tvalid\),", "(raw),"),
            (
                TLAST,
                r"\g<0> wire raw; reg bubble = 0; assign m_axis_tvalid = raw & ~bubble;"
                " always @(posedge aclk) bubble <= m_axis_tvalid & m_axis_tready;",
            ),
        ],
        "interval is 16.0 cycles, the manifest says 8",
    ),
    "nothing is accepted": (
        [(r"assign s_axis_tready = [^;]*;", "assign s_axis_tready = 1'b0;")],
        "back to back: TLAST on beats",
    ),
    "nothing comes out": (
        [(r"\(m_axis_tvalid\),", "(),"), (TLAST, r"\g<0> assign m_axis_tvalid = 1'b0;")],
        "back to back: 0 vectors came out of 12",
    ),
    "surplus not dropped": ([(r"= ~ dropping;", r"= 1'h1;")], "frames of wrong length: "),
    "something left by the reset": (
        [(r"(module \\core\.network\.stage_0\.buffer [\s\S]*?)if \(rst\)", r"\1if (1'b0)")],
        "after the reset: ",
    ),
}


@needs_icarus
@pytest.mark.parametrize("name", CIRCUITS)
def test_wrong_circuits(core, name):
    """Icarus compiles them in no time; what judges is the same for both simulators."""
    changes, words = CIRCUITS[name]
    edit(core, *changes)
    result = simulate(core, vectors=12, simulator="icarus")
    assert any(problem.startswith(words) for problem in result.problems), result.problems


def test_wrong_tuser_in_verilator(core):
    edit(core, *CIRCUITS["TUSER never"][0])
    result = simulate(core, vectors=12)
    assert [problem.startswith(CIRCUITS["TUSER never"][1]) for problem in result.problems] == [True]


# simulators and errors


@needs_icarus
def test_icarus_agrees_with_verilator(core):
    runs = [simulate(core, vectors=12, simulator=name) for name in ("icarus", "verilator")]
    assert runs[0].ok and runs[1].ok and np.array_equal(runs[0].outputs, runs[1].outputs)
    for key in ("latency", "interval", "cycles", "checks", "vectors"):
        assert getattr(runs[0], key) == getattr(runs[1], key), key


@pytest.mark.parametrize(
    "simulator, suffix", [("verilator", ".vcd"), pytest.param("icarus", ".fst", marks=needs_icarus)]
)
def test_waves(core, simulator, suffix):
    result = simulate(core, vectors=3, simulator=simulator, waves=True)
    assert result.ok and result.waves == core.with_suffix(suffix) and result.waves.stat().st_size > 1000
    if suffix == ".vcd":
        text = result.waves.read_text()
        assert "s_axis_tready" in text and "p0_0_s3" in text
    else:
        assert simulate(core, vectors=3, simulator=simulator).waves is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(simulator="modelsim"), "simulator must be verilator or icarus, got 'modelsim'"),
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
        ValueError, match=f"{simulator} needs .*not found on PATH; on Debian: apt-get install .*{package}"
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


@pytest.mark.parametrize("width", range(1, 25))
def test_unpacking_of_lanes(width):
    size = -(-width // 8)
    values = extremes(np.random.default_rng(width), QFormat(width, 0), 20)
    raw = b"".join(int(v).to_bytes(size, "little", signed=True) for v in values)
    assert np.array_equal(unpack(np.frombuffer(raw, np.uint8), size), values)
