"""Several vectors in a frame: how they are grouped, and a small hand-written core that carries them."""

import re
from pathlib import Path

import numpy as np
import pytest
from rtl_bench import factor_of
from sim_bench import edit, needs_icarus, play_as_signed, sign

from bfthw import IntLayer, IntNetwork, QFormat, Settings
from rtl_gen import write
from rtl_gen.vectors import interleave, separate
from sim.scenarios import whole, wrong_frames

VERILOG = Path(__file__).with_name("side_by_side.v")
SIZE, LANES = 6, 2
slow = pytest.mark.slow


def test_interleaved_vectors():
    vectors = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert interleave(vectors, 1).tolist() == vectors.tolist()
    assert interleave(vectors, 3).tolist() == [[1, 4, 7, 2, 5, 8, 3, 6, 9]]
    assert interleave(vectors, 2).tolist() == [[1, 4, 2, 5, 3, 6], [7, 0, 8, 0, 9, 0]]


@pytest.mark.parametrize("together", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 5, 8, 9])
def test_separate_is_the_inverse(count, together):
    vectors = np.random.default_rng(count).integers(-99, 99, (count, 4))
    back = separate(interleave(vectors, together), together)
    assert np.array_equal(back[:count], vectors) and not back[count:].any()
    assert len(back) == -(-count // together) * together
    assert separate(np.zeros((0, 4 * together), int), together).shape == (0, 4)


def test_whole_frames():
    vectors = np.arange(1, 19).reshape(3, 6)
    scenario = whole(vectors, 2, name="three")
    data, last = scenario.beats(2 * 2)
    # lane, vector: the vector counts fastest
    assert data.tolist() == [
        [1, 7, 2, 8],
        [3, 9, 4, 10],
        [5, 11, 6, 12],
        [13, 0, 14, 0],
        [15, 0, 16, 0],
        [17, 0, 18, 0],
    ]
    assert last.tolist() == [0, 0, 1, 0, 0, 1] and scenario.wrong.tolist() == [False, False]
    assert scenario.vectors.tolist() == [*vectors.tolist(), [0] * 6] and scenario.count == 3


@pytest.mark.parametrize("together", [1, 3])
def test_frames_of_wrong_length(together):
    """Every vector of a short frame loses the same elements; what is too much is whole beats."""
    lanes, kinds = 2, set()
    vectors = np.random.default_rng(0).integers(1, 99, (40, 6))
    scenario = wrong_frames(vectors, together, lanes, np.random.default_rng(1), name="wrong")
    frames = interleave(vectors, together)
    assert scenario.count == 40 and len(scenario.frames) == len(scenario.wrong) == len(frames)
    for frame, sent, wrong, n in zip(frames, scenario.frames, scenario.wrong, range(len(frames))):
        seen = scenario.vectors[n * together : (n + 1) * together]
        kept = min(len(sent), len(frame)) // together
        assert len(sent) % (lanes * together) == 0 and wrong == (len(sent) != len(frame)) and not (wrong and n % 2 == 0)
        assert np.array_equal(sent[: len(frame)], frame[: len(sent)])
        assert np.array_equal(seen[:, :kept], separate(frame[None], together)[:, :kept]) and not seen[:, kept:].any()
        kinds.add(np.sign(len(sent) - len(frame)))
    assert kinds == {-1, 0, 1}


# a core


def make(place, together):
    """Path of the manifest of the hand-written core."""
    factor = factor_of((1, 1, 1, SIZE), x=QFormat(6, 3), w=QFormat(4, 2), drop=0, out=10)
    network = IntNetwork(layers=(IntLayer(factors=(factor,), name="body"),))
    path = write(network, place, name="core", settings=Settings(lanes=LANES)).path
    digits = "".join(f"{w & 15:x}" for w in reversed(factor.values.ravel().tolist()))
    numbers = {"LANES": LANES, "VECTORS": together, "BEATS": SIZE // LANES, "WEIGHTS": f"{4 * SIZE}'h{digits}"}
    text = VERILOG.read_text(encoding="utf-8")
    for name, number in numbers.items():
        text = text.replace(f"@{name}@", str(number))
    path.with_suffix(".v").write_text(text)
    sign(path, vectors=together, latency=1, interval=2 * SIZE // LANES)
    return path, network


@pytest.fixture
def core(tmp_path):
    return make(tmp_path, 3)[0]


@pytest.mark.parametrize(
    "simulator, together",
    [
        ("verilator", 3),
        ("compiled", 3),
        pytest.param("icarus", 1, marks=needs_icarus),
        pytest.param("icarus", 4, marks=needs_icarus),
    ],
)
def test_vectors_side_by_side(tmp_path, simulator, together):
    path, network = make(tmp_path, together)
    x = np.random.default_rng(1).integers(-32, 32, (31, SIZE))
    result = play_as_signed(path, inputs=x, vectors=50, seed=2, simulator=simulator)
    assert result.ok, result.problems
    assert np.array_equal(result.outputs, network(x)) and result.vectors == 31 + 50 + 2 * min(50, 32 * together)
    assert (result.latency, result.interval) == (1, 6)
    # a single frame, not full
    result = play_as_signed(path, inputs=x[:1], vectors=1, simulator=simulator)
    assert result.ok and np.array_equal(result.outputs, network(x[:1])) and result.interval is None


X = r"data\[8\*\(lane \* VECTORS \+ e\)"
MISTAKES = {
    "the lane counts fastest": (
        [(X, "data[8*(e * LANES + lane)")],
        r"back to back: vector 0, output 1 .* differs is body:0 \(network.stage_0\), vector 1, index 0:",
    ),
    "one vector for another": (
        [(r"VECTORS \+ e\) \+: 6", "VECTORS + (e + 1) % VECTORS) +: 6")],
        "back to back: vector 0,",
    ),
    "the last vector is another": (
        [(r"<= product;", "<= e == VECTORS - 1 ? 10'd0 : product;")],
        r"back to back: vector 5, output 0 .*\(network.stage_0\), vector 5, index 0: 0, should be",
    ),
    "lost behind the stage": (
        [(r"\{\{6\{values\[10\*n\+9\]\}\}, (.*)\};", r"n % VECTORS == 1 ? 16'd0 : {{6{values[10*n+9]}}, \1};")],
        "back to back: vector 1, output .*; every stage agrees",
    ),
    "zeros for the first vector alone": (
        [(r"\{8\*LANES\*VECTORS\{1'b0\}\}", r"(s_axis_tdata >> 8 << 8)")],
        r"frames of wrong length: vector \d+, output",
    ),
    "TUSER never": ([("user <= full & .*;", "user <= 0;")], r"frames of wrong length: TUSER marks frames \[\]"),
    "slower": (
        [
            ("~held & ~padding", "~held & ~padding & ~late"),
            ("reg padding,", r"reg late; always @(posedge aclk) late <= held; reg padding,"),
        ],
        "interval is 9.0 cycles, the manifest says 6",
    ),
}


SLOW = "one vector for another", "the last vector is another", "lost behind the stage"


@needs_icarus
@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) if name in SLOW else name for name in MISTAKES])
def test_mistakes(core, name):
    changes, words = MISTAKES[name]
    edit(core, *changes)
    problems = play_as_signed(core, vectors=30, simulator="icarus").problems
    assert any(re.match(words, problem) for problem in problems), problems


@pytest.mark.parametrize("simulator", ["compiled", pytest.param("icarus", marks=needs_icarus)])
@pytest.mark.parametrize("said", [2, pytest.param(6, marks=slow)])
def test_another_number_than_the_cores_is_noticed(core, simulator, said):
    sign(core, vectors=said)
    with pytest.raises(RuntimeError, match="TDATA of the core"):
        play_as_signed(core, vectors=9, simulator=simulator)
