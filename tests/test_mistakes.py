"""Every planted mistake is found in simulation, and named: its scenario, where it is, what it should be."""

import re

import pytest
from sim_bench import TLAST, TUSER, copied, edit, make_core, needs_icarus, play_as_signed, sign

from bfthw import IntLayer, IntNetwork, load_integers, save_integers
from rtl_gen.manifest import read_manifest
from sim import simulate

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_core(tmp_path_factory.mktemp("core"))


@pytest.fixture
def core(folder, tmp_path):
    return copied(folder, tmp_path)


def flip(word, width):
    """A hexadecimal word with one bit of its third weight, of `width` bits each, the other way round."""
    return format(int(word, 16) ^ 1 << 2 * width + 1, f"0{len(word)}x")


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=slow)])
def test_a_wrong_weight_names_stage_and_index(core, stage, simulator="verilator"):
    # the fourth read of the stage's ROM, outputs 6 and 7: the third weight is one of output 6
    width = load_integers(core.with_suffix(".npz")).factors[stage].weights.width
    verilog = core.with_suffix(".v")
    text = verilog.read_text()
    start = text.index(f"module core__network__stage_{stage}(")
    word = re.compile(r"(weights\[3\] = \d+'h)([0-9a-f]+);").search(text, start, text.index("endmodule", start))
    verilog.write_text(text[: word.start(2)] + flip(word[2], width) + text[word.end(2) :])
    sign(core)
    result = simulate(core, vectors=12, simulator=simulator)
    assert not result.ok
    first = result.problems[0]
    assert re.match(
        r"back to back: vector \d+, output \d+ is -?\d+, should be -?\d+; the first stage that differs is ", first
    )
    found = re.search(
        r"differs is body:(\d) \(network\.stage_(\d)\), vector \d+, index (\d+): -?\d+, should be", first
    )
    assert found and found[1] == found[2] == str(stage) and found[3] == "6"
    assert len(result.problems) == 4


@needs_icarus
@pytest.mark.parametrize("stage", [0, 1])
def test_icarus_finds_a_wrong_weight_too(core, stage):
    test_a_wrong_weight_names_stage_and_index(core, stage, "icarus")


def test_wrong_figures_in_the_manifest(core):
    manifest = read_manifest(core)
    sign(core, latency=manifest.latency + 1, interval=manifest.interval - 1)
    result = play_as_signed(core, vectors=12)
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
    assert "the first stage that differs is body:1 (network.stage_1)" in result.problems[0]
    assert ", index 9: " in result.problems[0] and ", output 9 is " in result.problems[0]


CIRCUITS = {
    "TUSER never": (
        [(TUSER, "assign m_axis_tuser = 1'b0;")],
        "frames of wrong length: TUSER marks frames [], should mark",
    ),
    "TUSER always": ([(TUSER, "assign m_axis_tuser = m_axis_tlast;")], "back to back: TUSER marks frames [ 0  1"),
    "TUSER on other beats too": (
        [(r"(assign \S+ += )\S+ +& frame_wrong_s1;", r"\1frame_wrong_s1;")],
        "frames of wrong length: TUSER marks frames",
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
        "back to back: 0 frames came out of 12",
    ),
    "surplus not dropped": ([(r"= ~ dropping;", r"= 1'h1;")], "frames of wrong length: "),
    "something left by the reset": (
        # where the next beat of the buffer is written
        [(r"(module core__network__stage_0__buffer\([\s\S]*? = wr_0;[\s\S]*?)if \(rst\)", r"\1if (1'b0)")],
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
