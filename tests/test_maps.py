"""Networks over maps, from their nodes to a core whose frames are images: values, intervals, stalls, wishes."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from amaranth.back import rtlil
from rtl_bench import extremes, factor_of, play_network

from bfthw import IntLayer, IntNetwork, QFormat, chain
from bfthw.chain import divisors, patterns
from bfthw.golden import IntNode
from bfthw.graph import Node
from bfthw.nodes import Max, Sum
from bfthw.window import Shape, Window
from boards import synth
from rtl_gen import ENGINES, AxiStream, Impossible, Network, Plan, choose, estimate, load_design, write_plan
from rtl_gen.stages import stages_of
from rtl_gen.vectors import answers
from sim import simulate

PIXELS = QFormat(8, 8, signed=False)


class Row:
    """Nodes of random numbers, one behind the other."""

    def __init__(self, shape, seed=0, x=PIXELS):
        self.shape = self.first = Shape(*shape)
        self.rng, self.x, self.nodes = np.random.default_rng(seed), x, []

    def layer(self, shape, window=None, residual=False, w=QFormat(6, 4), out=8, **rest):
        """A chain of patterns, behind a window; what is added is the layer's own input. residual: whether any is, or
        the format of its weights. out: bits of what it gives.
        """
        x, factors = self.x, []
        for m, pattern in enumerate(shape := patterns(shape)):
            last = m == len(shape) - 1
            own = dict(skip="one" if residual is True else residual, skip_input=x) if residual else {}
            own = rest | own if last else {}
            seed = int(self.rng.integers(1 << 30))
            factors.append(factor_of(pattern, seed, x=self.x, w=w, drop=5, out=out, **own))
            self.x = factors[-1].output
        node = IntLayer(factors=tuple(factors), window=window, name=f"l{len(self.nodes)}")
        return self._add(node, node.shape(self.shape, self.shape if residual else None))

    def pool(self, kind, window):
        output = self.x if kind is Max else QFormat(self.x.width + 2, self.x.frac, self.x.signed)
        node = kind(window=window, name=f"n{len(self.nodes)}")
        return self._add(IntNode(node=node, formats=(self.x,), output=output), node.shape(self.shape))

    def whole(self, kind=Sum):
        return self.pool(kind, Window.whole(self.shape))

    def _add(self, node, shape):
        self.nodes.append(node)
        self.shape, self.x = shape, node.output
        return self

    @property
    def network(self):
        return IntNetwork(self.nodes, self.first)


def separable(**rest):
    """A convolution of pixels, a maximum, a depthwise one, a chain with a residual, the mean, classes."""
    row = Row((8, 8, 1), **rest).layer([(1, 8, 9, 1)], Window(3, 1, 1), bias=9, relu=True).pool(Max, Window(2, 2))
    row.layer([(1, 1, 9, 8)], Window(3, 1, 1), exponents=2, relu=True)
    return row.layer(chain.bft(8, 2), residual=True, bias=9).whole().layer([(1, 3, 8, 1)], bias=9)


ROWS = {
    "separable": separable(),
    "to-a-map": Row((5, 4, 4)).layer([(1, 6, 4, 1)]).layer([(1, 1, 4, 6)], Window(2), relu=True),
    "sums-in-windows": Row((6, 6, 2), x=QFormat(5, 2)).pool(Sum, Window(2, 2)).layer([(1, 4, 2, 1)]).whole(Max),
    "residual-of-a-window": Row((4, 4, 2)).layer([(1, 1, 9, 2)], Window(3, 1, 1), residual=True).whole(),
    "chain-behind-a-window": Row((5, 5, 2)).layer([(2, 4, 4, 1), (1, 4, 4, 2)], Window(2, 1, block=1)).whole(),
    "one-dimensional": Row((1, 12, 3)).layer([(1, 4, 9, 1)], Window((1, 3), (1, 2))).layer(chain.bft(4, 2)),
    "one-position": Row((3, 3, 2)).layer([(1, 4, 18, 1)], Window(3)).layer([(1, 3, 4, 1)]),
}


def random_row(seed):
    """Nodes of every kind in any order over a small map."""
    rng = np.random.default_rng(seed)
    x = QFormat(6, 3, bool(rng.integers(2)))
    row = Row([*rng.integers(2, 9, 2).tolist(), int(rng.choice([1, 2, 3, 4]))], seed, x)
    for _ in range(int(rng.integers(1, 5))):
        height, width, n = row.shape
        kernel = int(rng.integers(1, min(3, height) + 1)), int(rng.integers(1, min(3, width) + 1))
        window = Window(kernel, tuple(rng.integers(1, 3, 2).tolist()), tuple(int(rng.integers(k)) for k in kernel))
        last = {"relu": bool(rng.integers(2)), "bias": 8 if rng.integers(2) else None}
        kind = rng.choice(["full", "depthwise", "pool", "pointwise", "chain"])
        if kind == "full":
            row.layer([(1, int(rng.integers(1, 6)), window.taps * n, 1)], window, exponents=2, **last)
        elif kind == "depthwise":
            row.layer([(1, 1, window.taps, n)], window, residual=window.shape(row.shape)[:2] == (height, width), **last)
        elif kind == "pool":
            row.pool([Max, Sum][rng.integers(2)], window)
        elif kind == "pointwise" or n & n - 1 or n < 2:
            row.layer([(1, int(rng.integers(1, 7)), n, 1)], **last)
        else:
            row.layer(chain.bft(n, 2), residual=bool(rng.integers(2)), **last)
    return row.whole([Sum, Max][rng.integers(2)]) if rng.integers(2) else row


def random_plan(network, seed, **rest):
    """A Plan with engines of every kind, lanes and SIMD by chance."""
    rng, chosen = np.random.default_rng(seed), {}
    for stage in stages_of(network):
        served = [(cls, found) for cls in ENGINES.values() if (found := cls.serves((stage,))) and not cls.last_resort]
        cls, fields = served[rng.integers(len(served))]
        if engines := list(cls.menu(**fields)):
            for key, value in engines[rng.integers(len(engines))].chosen.items():
                chosen.setdefault(stage.owner, {}).setdefault(key, []).append(value)
    counts = Counter(stage.owner for stage in stages_of(network))
    whole = {name: {k: v for k, v in own.items() if len(v) == counts[name]} for name, own in chosen.items()}
    return Plan(network=network, choices=whole, **rest)


def check(plan, seed=0, images=7):
    """Equal to golden, the interval as promised, whatever stalls and resets; prints the case."""
    network, q = Network(plan), plan.network
    print(f"seed {seed}:", [(str(stage.shape), str(stage.window), stage.name) for stage in plan.stages], plan.choices)
    many = max(images, 2 * plan.pipeline_latency // plan.interval) * plan.vectors
    x = extremes(np.random.default_rng(seed), q.input, (many, q.inputs))
    wanted, limit = answers(q, x), 4 * many * plan.interval + 8 * plan.pipeline_latency
    free = play_network(network, x, limit=limit)
    assert np.array_equal(free.outputs, wanted)
    assert free.interval == plan.interval and free.latency >= plan.pipeline_latency
    few = 3 * plan.vectors
    stalled = play_network(network, x[:few], stall=0.4, seed=seed, reset_after=plan.interval + seed % 50, limit=limit)
    assert np.array_equal(stalled.outputs, wanted[:few])


@pytest.mark.parametrize("name", ROWS)
def test_rows(name):
    check(Plan(network=ROWS[name].network))


@pytest.mark.parametrize("seed", range(8))
def test_random_rows(seed):
    network = random_row(seed).network
    check(random_plan(network, seed, vectors=1 + seed % 5 // 4), seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 300, 20))
def test_many_random_rows(start):
    for seed in range(start, start + 20):
        check(random_plan(random_row(seed).network, seed), seed)


def test_folded_chains_take_pixel_after_pixel():
    plan = Plan(network=ROWS["separable"].network, choices={"l3": {"engine": "folded"}})
    (folded,) = (n for n, engine in enumerate(plan.engines) if engine.kind == "folded")
    assert plan.positions[folded] == 16 and plan.interval == 16 * plan.engines[folded].interval
    check(plan)


def test_rows_wait_for_whoever_takes_windows_evenly():
    """Windows of stride 2 that are read faster than pixels come, in front of an engine that takes all of its time."""
    network = Row((12, 12, 8)).layer([(1, 1, 9, 8)], Window(3, 2, 1)).layer([(2, 8, 4, 1)]).network
    plan = Plan(network=network, choices={"l0": {"lanes": 1, "lanes_in": 1, "simd": 3}, "l1": {"lanes": 1, "simd": 2}})
    assert plan.interval == 12 * 12 * 8 == plan.engines[1].interval * 36 > plan.engines[0].lines.reads * 36
    check(plan)


def test_the_whole_way_of_an_image(tmp_path):
    """Verilog, its manifest and what reads it; images of wrong length; the plan that the manifest gives."""
    plan = Plan(network=ROWS["separable"].network, choices={"l0": {"lanes": 2}}, target="ecp5")
    design = write_plan(plan, tmp_path, name="core")
    assert design.manifest.input.beats == 64 and design.manifest.input.elements == 64
    over = [stage.over and stage.over.map for stage in design.manifest.stages]
    assert over == [[8, 8, 1], [8, 8, 8], [4, 4, 8], *[[4, 4, 8]] * 4, None]
    again = load_design(design.path)
    assert again.manifest == design.manifest and again.plan.choices == plan.choices
    result = simulate(design.path, vectors=8, simulator="compiled")
    assert result.ok and result.interval == plan.interval, result.problems
    table = json.loads(design.path.read_text())
    table["interval"] -= 1
    design.path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=f"interval is {plan.interval - 1}, but .* give {plan.interval}"):
        load_design(design.path)


def test_what_the_chip_cannot_do_is_named():
    row = Row((4, 4, 4)).layer(chain.bft(4, 2))
    formats = row.x, row.whole().x

    class Larger(Node):  # one of a user's own
        takes = 2, 2
        computes = True

        def shape(self, one, other):
            return one

    nodes = [*row.nodes, IntNode(node=Larger(name="own", inputs=("l0", "n1")), formats=formats, output=row.x)]
    for make in (Plan, partial(choose, interval=1000)):
        with pytest.raises(ValueError, match="stage own: no engine serves a Larger"):
            make(network=IntNetwork(nodes, row.first))
    with pytest.raises(ValueError, match="stage l2:0: lanes must be 3 where 3 channels come a beat|lanes must"):
        Plan(network=ROWS["separable"].network, choices={"l2": {"lanes": 4, "lanes_in": 2}})


ROOM = {"LUT": 20_000, "FF": 20_000, "DSP": 60, "RAM": 60}


def test_wishes_over_maps():
    """The cheapest at an interval has no more multipliers than any plan whose engines are alike; the fastest is as fast
    as promised.
    """
    network = separable().network
    least = choose(network, interval=10**6, target="ecp5").plan
    for interval in (least.interval, 200, 100, 64):
        choice = choose(network, interval=interval, target="ecp5")
        assert choice.plan.interval <= interval and choice.plan.multipliers >= least.multipliers
    check(replace(choice.plan, target="plain"))
    best = choose(network, room=ROOM, target="ecp5")
    needs = estimate(best.plan)
    assert best.plan.interval == 64 and all(needs[key] <= ROOM[key] for key in ROOM), best
    assert "binds" in best.why and "is always busy" in best.why


def test_products_are_of_tables_where_multipliers_run_out():
    network = separable().network
    alone = choose(network, interval=100, target="ecp5").plan
    room = ROOM | {"DSP": alone.multipliers - 3}
    mixed = choose(network, interval=100, room=room, target="ecp5")
    assert mixed.plan.multipliers == alone.multipliers and mixed.needs["DSP"] <= room["DSP"]
    assert {engine.lut for engine in mixed.plan.engines if engine.multipliers} == {True, False}
    with pytest.raises(Impossible, match="nothing fits; the nearest"):
        choose(network, room=ROOM | {"DSP": 0, "LUT": 900}, target="ecp5")


def test_small_memories_are_tables_where_blocks_run_out():
    network = separable().network
    blocks, most = choose(network, interval=200, target="ecp5"), {}
    for roms in ("initial", "tables"):
        with pytest.raises(Impossible) as none:
            choose(network, room=ROOM | {"RAM": -1}, target="ecp5", roms=roms)
        most[roms] = none.value.nearest.needs["RAM"]
    assert most["tables"] < most["initial"]
    few = choose(network, room=ROOM | {"RAM": most["tables"]}, target="ecp5")
    assert few.plan.roms == "tables" and few.needs["RAM"] <= most["tables"] < blocks.needs["RAM"]


@pytest.mark.parametrize("target", ["ecp5", "gowin"])
def test_blocks_are_as_many_as_counted(target):
    """Wherever ROMs are, those of FIFOs among them: an iCE40 has some that Yosys makes of short memories."""
    row = Row((3, 3, 4)).layer([(1, 64, 4, 1)]).layer(chain.bft(64, 2), residual=True, bias=9, relu=True)
    row.layer([(1, 32, 64, 1)]).layer(chain.bft(32, 2), bias=9).whole()
    counted = []
    for roms in ("initial", "tables", "blocks"):
        plan = Plan(network=row.network, target=target, roms=roms)
        text, needs = rtlil.convert(AxiStream(plan), name="core", emit_src=False), estimate(plan)
        made = synth.count(target, Counter(re.findall(r"^ *cell \\(\S+) ", text, re.MULTILINE)))
        assert made["RAM"] == needs["RAM"] and made["DSP"] == needs["DSP"], roms
        counted.append(needs["RAM"])
    assert max(filter(None, plan.skip_depths)) > 128 and counted[1] < counted[0] < counted[2]


def test_lanes_follow_from_what_is_asked():
    """Without lanes_in and SIMD, those are taken that slow nothing down."""
    network = Row((4, 4, 4)).layer([(1, 4, 36, 1)], Window(3, 1, 1)).network
    plan = Plan(network=network, choices={"l0": {"lanes": divisors(4)[-1]}})
    assert plan.interval == 16 and plan.choices["l0"]["lanes_in"] == 4
