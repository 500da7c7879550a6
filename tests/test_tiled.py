"""Layers in turn, tile by tile, out of memories with a single port: against the golden model, and out of a flash."""

import numpy as np
import pytest
from rtl_bench import beats_of, extremes, play, play_network
from test_maps import Row, check

from bfthw import QFormat, chain
from bfthw.nodes import Max, Sum
from bfthw.window import Window
from boards import netlist
from boards.build import build
from rtl_gen import Network, Plan, write_plan
from rtl_gen.engines.tiled.code import STORE
from rtl_gen.engines.tiled.program import ROWS
from rtl_gen.vectors import answers
from sim import simulate
from sim.simulate import play as play_files

W = QFormat(8, 6)


def tiled(network, target="plain"):
    return Plan(network=network, choices={layer.name: {"engine": "tiled"} for layer in network.layers}, target=target)


def random_layers(seed):
    """Windows over all channels and over each, chains, pointwise layers, sums, in any order."""
    rng = np.random.default_rng(seed)
    width, signed = int(rng.integers(4, 9)), bool(rng.integers(2))
    row = Row([*rng.integers(2, 9, 2).tolist(), int(rng.choice([1, 2, 3, 4, 8]))], seed, QFormat(width, 3, signed))
    for _ in range(int(rng.integers(1, 5))):
        height, width, n = row.shape
        kernel = int(rng.integers(1, min(3, height) + 1)), int(rng.integers(1, min(3, width) + 1))
        window = Window(kernel, tuple(rng.integers(1, 4, 2).tolist()), tuple(int(rng.integers(k)) for k in kernel))
        last = {"relu": bool(rng.integers(2)), "bias": 8 if rng.integers(2) else None, "w": W}
        last["out"] = int(rng.integers(5, 9))
        kind = rng.choice(["full", "depthwise", "sum", "pointwise", "chain"])
        if kind == "full":
            row.layer([(1, int(rng.integers(1, 6)), window.taps * n, 1)], window, exponents=2, **last)
        elif kind == "depthwise":
            row.layer([(1, 1, window.taps, n)], window, exponents=2, **last)
        elif kind == "sum" and row.x.width <= 6:
            row.pool(Sum, window)
        elif kind == "pointwise" or n & n - 1 or n < 2:
            row.layer([(1, int(rng.integers(1, 7)), n, 1)], **last)
        else:
            row.layer(chain.bft(n, 2), **last)
    return row.network


@pytest.mark.parametrize("seed", range(10))
def test_random_layers(seed):
    check(tiled(random_layers(seed)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 200, 10))
def test_many_random_layers(start):
    for seed in range(start, start + 10):
        check(tiled(random_layers(seed)), seed)


@pytest.mark.parametrize("seed", range(4))
def test_residuals(seed):
    """Chains and pointwise layers that add what they took, with weights or without, of numbers with and without a sign,
    aligned differently.
    """
    rng = np.random.default_rng(seed)
    row = Row([*rng.integers(3, 8, 2).tolist(), 4], seed, QFormat(7, 3, bool(seed % 2)))
    for _ in range(3):
        bias, relu = 8 if rng.integers(2) else None, bool(rng.integers(2))
        shape = [(1, 4, 4, 1)] if rng.integers(2) else chain.bft(4, 2)
        weights, residual = QFormat(8, int(rng.integers(4, 7))), True if rng.integers(2) else QFormat(8, 6)
        row.layer(shape, residual=residual, bias=bias, relu=relu, w=weights, exponents=3)
        row.layer([(1, 1, 9, 4)], Window(3, 1, 1), relu=bool(rng.integers(2)), w=W)
    check(tiled(row.network), seed)


def test_tiles_of_channels_and_of_groups(tmp_path):
    """Maps that do not fit the working memory: some channels of the whole map, some rows of all channels, some
    positions of vectors, to each of which its own is added; of the first frame on, with stalls, wrong frames and a
    reset.
    """
    row = Row((41, 46, 4), 3).layer([(1, 6, 36, 1)], Window(3, 2, 1), w=W, relu=True, bias=8)
    row.layer([(1, 1, 9, 6)], Window(3, 1, 1), w=W, exponents=2).layer([(1, 30, 6, 1), (1, 6, 30, 1)], w=W, residual=W)
    design = write_plan(tiled(row.network), tmp_path, name="tiles")
    layers = design.plan.engines[0].code.layers
    assert [(layer.chunk, layer.blocks > 1, layer.load.alone) for layer in layers] == [
        (False, True, False), (False, False, False), (False, True, True)
    ]
    result = simulate(design, vectors=3, simulator="compiled")
    assert result.ok, result.problems


def test_tiles_of_channels(tmp_path):
    row = Row((40, 40, 6), 4, QFormat(8, 6)).layer([(1, 1, 9, 6)], Window(3, 2, 1), w=W, relu=True, exponents=2, out=6)
    design = write_plan(tiled(row.pool(Sum, Window(2, 2)).network), tmp_path, name="tiles")
    first = design.plan.engines[0].code.layers[0]
    assert first.chunk and first.blocks > 1 and -(-first.load.groups // 2) * first.load.words <= ROWS
    result = simulate(design, vectors=3, simulator="compiled")
    assert result.ok, result.problems


def small(seed=2):
    row = Row((5, 7, 2), seed).layer([(1, 4, 18, 1)], Window(3, 2, 1), w=W, relu=True, bias=8)
    return row.layer([(1, 2, 2, 2), (2, 2, 2, 1)], w=W, exponents=3).network


def test_loaded_from_a_flash(tmp_path):
    """In the Verilog of an iCE40, beside a model of a flash that sleeps: what is in it is what is computed with."""
    design = write_plan(tiled(small(), "ice40"), tmp_path, name="core")
    result = simulate(design, vectors=8, simulator="compiled")
    assert result.ok, result.problems
    assert result.interval == design.plan.interval
    text = design.path.with_name("core.v").read_text()
    assert text.count("SB_SPRAM256KA") == 4 and all(f"flash_{pin}" in text for pin in ("select", "clock", "out", "in"))
    # another weight: one answer at least is another
    flash = design.path.with_name("core.flash.mem")
    found = flash.read_text().split("\n")
    found[7] = f"{int(found[7], 16) ^ 0x40:02x}"
    core = {"core.v": text, "core.flash.mem": "\n".join(found)}
    result = play_files(design.path, design.manifest, design.plan.network, vectors=5, simulator="compiled", core=core)
    assert not result.ok and "should be" in result.problems[0]


@pytest.mark.slow
def test_mapped_netlist_beside_a_flash(tmp_path):
    """Single-port memories, products and tables as Yosys maps them on an UP5K, by its own models of the cells."""
    row = Row((5, 7, 2), 2).layer([(1, 4, 18, 1)], Window(3, 2, 1), w=W, relu=True, bias=8)
    row.layer([(1, 2, 2, 2), (2, 2, 2, 1)], w=W, exponents=3, residual=W)
    design = write_plan(tiled(row.network, "ice40"), tmp_path, name="core")
    result = netlist.simulate(design, vectors=8, simulator="compiled")
    assert result.ok and result.interval == design.plan.interval, result.problems


@pytest.mark.parametrize("part", range(2))
def test_a_reset_at_any_time(part):
    """Nothing of what was begun is left: instructions, sums, results on their way."""
    network = small(3)
    core = Network(plan := tiled(network))
    x = extremes(np.random.default_rng(part), network.input, (3, network.inputs))
    for after in range(plan.beats_in + 20 + part, plan.interval, 97):
        played = play_network(core, x, reset_after=after, limit=20 * plan.interval)
        assert np.array_equal(played.outputs, answers(network, x)), after


def test_boards_have_no_such_pins(tmp_path):
    design = write_plan(tiled(small(), "ice40"), tmp_path, name="core")
    with pytest.raises(ValueError, match="core has pins of its own, flash_select, .* which no board's shell connects"):
        build(design, board="icebreaker", directory=tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_flash_holds_weights_and_what_stands_behind_the_maps():
    code = tiled(small(), "ice40").engines[0].code
    weights = np.concatenate([one.weights.ravel() for one in code.passes])
    assert np.array_equal(np.frombuffer(code.flash, np.int8)[: len(weights)], weights)
    assert len(code.flash) == 2 * len(code.pairs) + 6 * (len(code.store) - code.first_row)


def test_clipped_numbers_are_counted():
    """Of every lane that stands for a position, and of no other: as many as the golden model clips."""
    network = Row((5, 5, 2), 5).layer([(1, 3, 2, 1)], w=W, out=5).layer([(1, 1, 9, 3)], Window(3, 1, 1), w=W).network
    plan = tiled(network)
    x = extremes(np.random.default_rng(5), network.input, (3, network.inputs))
    core = Network(plan)
    words = beats_of(x, 1, 1, network.input.width)
    flows = [(core.i, words)], [(core.o, 3 * plan.beats_out)]
    *_, counts = play(core, *flows, watch=(core.saturated,), limit=20 * plan.interval)
    wanted = sum(int(f.saturated(acc).sum()) for f, acc, _ in network.accumulators(x.reshape(3, *network.shape)))
    assert sum(counts) == wanted > 20


def one(shape, patterns, window=None, **rest):
    return Row(shape).layer(patterns, window, **rest).network


@pytest.mark.parametrize(
    "network, target, message",
    [
        (one((4, 4, 2), [(1, 1, 9, 2)], Window(3, 1, 1), residual=True), "plain", "l0 adds something; .* no window's"),
        (Row((4, 4, 2)).pool(Max, Window(2)).network, "plain", "stage n0: .* a Max"),
        (Row((4, 4, 2), x=QFormat(9, 4)).layer([(1, 2, 2, 1)]).network, "plain", "numbers of more than 8 bits"),
        (one((4, 4, 2), [(1, 2, 2, 1)], w=QFormat(9, 6)), "plain", "weights of more than 8 bits"),
        (one((4, 4, 2), [(1, 2, 2, 1)]), "ecp5", "for the target ice40, or plain, got ecp5"),
        (one((3, 3, 2), [(1, 300, 2, 1), (1, 2, 300, 1)]), "plain", "layer l0: a vector of 300 has no room"),
        (one((9, 70, 40), [(1, 2, 360, 1)], Window(3)), "plain", "layer l0: what a window sees of 9x70x40"),
        (one((4, 4, 4), [(2, 2, 18, 1)], Window(3, block=2)), "plain", "groups of channels behind a window"),
        (one((4, 4, 2), [(1, 4, 8, 1), (1, 2, 4, 1)], Window(2)), "plain", "several factors behind a window"),
        (one((40, 40, 2), [(1, 250, 2, 1)]), "plain", f"of {STORE} words of 6"),
        (one((1, 1, 200), [(1, 200, 200, 1)]), "plain", f"weights take 40000 of {2 * STORE}"),
    ],
)
def test_what_it_is_not_for(network, target, message):
    with pytest.raises(ValueError, match=message):
        _ = tiled(network, target).engines
