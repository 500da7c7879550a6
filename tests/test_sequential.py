"""Layers in turn on one datapath: its reads, its places and cycles, and the whole of it against the golden model."""

import numpy as np
import pytest
from graphs import made_integers
from rtl_bench import beats_of, extremes, factor_of, play, play_network
from test_maps import ROWS, Row, check, random_row

from bfthw import IntLayer, IntNetwork, QFormat
from bfthw.window import Shape, Window
from rtl_gen import Impossible, Network, Plan, choose, write_plan
from rtl_gen.engines import Sequential
from rtl_gen.engines.sequential.gather import NOTHING, grouped, reads_of, taps
from rtl_gen.stages import stages_of
from rtl_gen.vectors import answers
from sim import simulate


def in_turn(network, *, target="plain", vectors=1, **options):
    chosen = {layer.name: {"engine": "sequential", **options} for layer in network.layers}
    return Plan(network=network, choices=chosen, target=target, vectors=vectors)


def read(banks, reads, lanes):
    """What lanes get of the words of both banks, (rows, lanes) each."""
    x = np.zeros(lanes, int)
    for one in reads:
        for lane, bank in enumerate(one.turn.banks):
            if bank != NOTHING:
                x[lane] |= banks[bank][one.rows[bank], (one.turn.step * lane + one.turn.turns[bank]) % lanes]
    return x


@pytest.mark.parametrize("seed", range(60))
def test_reads_are_what_windows_see(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2).tolist()
    kernel = int(rng.integers(1, min(4, height) + 1)), int(rng.integers(1, min(4, width) + 1))
    window = Window(kernel, rng.integers(1, 4, 2).tolist(), [int(rng.integers(k)) for k in kernel])
    lanes, shape = int(rng.integers(1, 9)), Shape(height, width, 1)
    print(f"seed {seed}: {window} over {shape}, {lanes} lanes")
    x = rng.integers(1, 1000, shape)
    rows = -(-shape.positions // (2 * lanes))
    kept = np.full(2 * rows * lanes, -1)  # behind the last position anything
    kept[: x.size] = x.ravel()
    banks = kept.reshape(rows, 2, lanes).swapaxes(0, 1)
    wanted = grouped(window.gather(x[None]).reshape(-1, window.taps), lanes)
    for group, tap_positions in zip(wanted, grouped(taps(window, shape), lanes)):
        for values, positions in zip(group, tap_positions):
            reads = reads_of(positions, lanes, (1, window.stride[1]))
            assert np.array_equal(read(banks, reads, lanes), np.where(values == NOTHING, 0, values))
            assert [one.last for one in reads] == [False] * (len(reads) - 1) + [True]


def step_through(code):
    """All passes of all groups on a memory of names: each reads what it is for, and writes over nothing of it."""
    memory = [{}, {}]

    def there(bank, first, names):
        found = {(bank, first + k): name for k, name in enumerate(names)}
        assert {place: memory[place[0]].get(place[1]) for place in found} == found
        return found.keys()

    def keep(bank, first, names):
        assert 0 <= first and first + len(names) <= code.depth
        memory[bank].update({first + k: name for k, name in enumerate(names)})
        return {(bank, first + k) for k in range(len(names))}

    channels = range(code.layers[0].shape.channels)
    for group in range(code.timing.groups_in):
        keep(group % 2, group // 2 * len(channels), [(0, group, c) for c in channels])
    for n, (layer, places) in enumerate(zip(code.layers, code.places)):
        channels = range(layer.shape.channels)

        def of_map(bank, first):
            group = (first - places.source) // len(channels) * 2 + bank
            return there(bank, first, [(layer.takes, group, c) for c in channels])

        for group in range(layer.groups):
            bank, row = group % 2, group // 2
            for number, one in enumerate(layer.passes):
                read = set()
                if one.fetches is not None:
                    fetch = one.fetches[group]
                    for offsets, turn, _ in code.reads.words[fetch.start :][: fetch.reads]:
                        for own in {*code.reads.turns[turn].banks} - {NOTHING}:
                            read |= of_map(own, places.source + fetch.row * len(channels) + offsets[own])
                elif number == 0:
                    read |= of_map(bank, places.source + row * len(channels))
                else:
                    names = [(n, number - 1, group, k) for k in range(layer.passes[number - 1].outputs)]
                    read |= there(bank, places.targets[number - 1], names)
                if one.joined:
                    names = [(layer.adds, group, k) for k in range(one.outputs)]
                    read |= there(bank, places.added + row * one.outputs, names)
                if one.factor is not None:
                    last = number == len(layer.passes) - 1
                    names = [(n + 1, group, k) if last else (n, number, group, k) for k in range(one.outputs)]
                    assert not read & keep(bank, places.targets[number] + last * row * one.outputs, names)


@pytest.mark.parametrize("start", range(0, 100, 10))
def test_nothing_is_read_that_was_written_over(start):
    for seed in range(start, start + 10):
        network, lanes = served(seed), 1 + seed % 4
        print(f"seed {seed}: {network}, {lanes} lanes")
        step_through(code := in_turn(network, lanes=lanes).engines[0].code)
        layer, groups = code.timing.opens
        if layer is not None:  # the next input comes where nothing is any more
            words = -(-groups // 2) * network.shape.channels
            assert all(place.lowest >= words for place in code.places[layer:])


def branched(shape, seed=0):
    """A fork, what another layer gives added with and without a weight, a map that is kept while others are made."""
    nodes = Row(shape, seed).layer([(1, 4, 9 * shape[2], 1)], Window(3, 1, 1)).nodes

    def layer(pattern, takes, adds=None, window=None, skip="one"):
        formats = {node.name: node.output for node in nodes}
        own = {"skip": skip, "skip_input": formats[adds], "bias": 8} if adds else {"exponents": 2, "relu": True}
        factor = factor_of(pattern, seed + len(nodes), x=formats[takes], w=QFormat(6, 4), out=8, **own)
        inputs = (takes, adds) if adds else (takes,)
        nodes.append(IntLayer(factors=(factor,), window=window, inputs=inputs, name=f"l{len(nodes)}"))

    layer((1, 1, 9, 4), "l0", window=Window(3, 1, 1))
    layer((1, 4, 4, 1), "l1", adds="l0")
    layer((1, 4, 36, 1), "l0", window=Window(3, 1, 1))
    layer((1, 1, 9, 4), "l3", adds="l2", window=Window(3, 1, 1), skip=QFormat(5, 3))
    layer((2, 2, 2, 1), "l4", adds="l0")
    return IntNetwork(nodes, shape)


@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_branches_keep_their_maps(lanes):
    step_through(in_turn(branched((9, 7, 3), lanes), lanes=lanes).engines[0].code)
    check(in_turn(branched((4, 3, 2), lanes), lanes=lanes), lanes)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("lanes", [1, 3])
def test_rows(name, lanes):
    if name == "sums-in-windows":
        pytest.skip("maxima of what has a sign")
    check(in_turn(ROWS[name].network, lanes=lanes))


def served(seed):
    """The next random row from a seed on that can be in turn."""
    while not Sequential.serves(stages_of(network := random_row(seed).network)):
        seed += 1000
    return network


@pytest.mark.parametrize("seed", range(6))
def test_random_rows(seed):
    check(in_turn(served(seed), lanes=1 + seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 200, 10))
def test_many_random_rows(start):
    for seed in range(start, start + 10):
        check(in_turn(served(seed), lanes=1 + seed % 7), seed)


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_slow_input_is_waited_for(lanes):
    network = Row((6, 6, 1)).layer([(1, 2, 9, 1)], Window(3, 1, 1)).network
    x = extremes(np.random.default_rng(lanes), network.input, (3, network.inputs))
    played = play_network(Network(in_turn(network, lanes=lanes)), x, stall=(0.95, 0.0))
    assert np.array_equal(played.outputs, answers(network, x))


def test_clipped_values_are_counted():
    """Those of positions that there are, not of the rest of a map's last group."""
    network = Row((3, 5, 2)).layer([(1, 3, 18, 1)], Window(3, 1, 1), bias=14).layer([(1, 2, 3, 1)], bias=14).network
    plan = in_turn(network, lanes=4)
    x = extremes(np.random.default_rng(3), network.input, (3, network.inputs))
    core = Network(plan)
    beats = beats_of(x, 1, 1, network.input.width)
    *_, counts = play(core, [(core.i, beats)], [(core.o, 3 * plan.beats_out)], watch=(core.saturated,))
    wanted = sum(int(f.saturated(acc).sum()) for f, acc, _ in network.accumulators(x.reshape(-1, *network.shape)))
    assert sum(counts) == wanted > 0


def test_on_every_family(tmp_path):
    """Memories and multipliers of each family, compiled; the last network has neither biases nor exponents."""
    networks = [served(5)] * 3 + [ROWS["to-a-map"].network]
    for target, network in zip(("plain", "ice40", "gowin", "ecp5"), networks):
        plan = in_turn(network, lanes=2, target=target)
        result = simulate(write_plan(plan, tmp_path / target, name="core"), vectors=7, simulator="compiled")
        assert result.ok and result.interval == plan.interval, (target, result.problems)


def test_where_nothing_else_fits():
    """A wish takes layers in turn where engines of their own have no room, as many lanes as that leaves."""
    network, room = ROWS["separable"].network, {"LUT": 2200, "FF": 3000, "DSP": 3, "RAM": 12}
    with_room = choose(network, target="ecp5", room={**room, "DSP": 28, "LUT": 20000, "FF": 20000, "RAM": 56})
    assert {engine.kind for engine in with_room.plan.engines} - {"sequential"}
    choice = choose(network, target="ecp5", room=room)
    (engine,) = choice.plan.engines
    assert engine.kind == "sequential" and engine.lanes <= 3 and choice.fits(room)
    assert "engines of their own have no room" in choice.why
    assert choose(network, target="ecp5", room=room, interval=choice.interval).interval <= choice.interval
    with pytest.raises(Impossible):
        choose(network, target="ecp5", room=room, interval=choice.interval - 1)


def refused(network, what, choices=None, **options):
    with pytest.raises(ValueError, match=what):
        in_turn(network, **options) if choices is None else Plan(network=network, choices=choices)


def test_refused():
    row = ROWS["separable"].network
    refused(row, "stage l0:0: lanes must be 1 to 64, got 0", lanes=0)
    refused(row, "stage l0:0: layers in turn take 1 vector at a time, got 2 side by side", vectors=2)
    refused(row, "stage n1: engine 'sequential' is that of all layers, or of none", {"l0": {"engine": "sequential"}})
    table = made_integers(0)[-1]
    refused(table, "stage b:0: engine 'sequential' has no way to compute a table; engines of its own may", lanes=2)
    large = Row((1024, 1024, 4)).layer([(1, 4, 4, 1)]).network
    refused(large, "1024x1024x4 numbers with 2 lanes take more than the 16384 words", lanes=2)
