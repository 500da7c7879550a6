"""Networks that branch: additions, channels side by side, picked, gates, products, from nodes to a core."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from amaranth.back import rtlil
from rtl_bench import extremes, factor_of, play_network
from test_maps import check, random_plan

from bfthw import IntLayer, IntNetwork, QFormat, chain
from bfthw.chain import patterns
from bfthw.golden import IntNode
from bfthw.nodes import Gate, Max, Pick, Product, Rearrange, Sum
from bfthw.window import Shape, Window
from boards import synth
from rtl_gen import ENGINES, AxiStream, Network, Plan, choose, estimate, fifo, write_plan
from rtl_gen.cost import Tally
from rtl_gen.menu import FIGURES, Menu
from rtl_gen.pipeline import between_cost, own_cost
from rtl_gen.stages import INPUT
from rtl_gen.timetable import queue_between
from sim import simulate

PIXELS = QFormat(8, 8, signed=False)


class Tree:
    """Nodes of random numbers, each behind any of those before it; `at`: name → (Shape, QFormat) of what they give."""

    def __init__(self, shape, seed=0, x=PIXELS):
        self.first, self.rng, self.nodes = Shape(*shape), np.random.default_rng(seed), []
        self.at = {"input": (self.first, x)}

    def layer(self, name, shape, window=None, *, of=None, add=None, **rest):
        """A chain of patterns; add: the name of what is added before its end."""
        of = of or self.last
        shape_in, x = self.at[of]
        factors, inputs = [], (of,)
        for pattern, more in pairwise([*patterns(shape), None]):
            last = rest if more is None else {}
            if more is None and add:
                last, inputs = last | {"skip": "one", "skip_input": self.at[add][1]}, (of, add)
            seed = int(self.rng.integers(1 << 30))
            factors.append(factor_of(pattern, seed, x=x, w=QFormat(6, 4), drop=5, out=8, **last))
            x = factors[-1].output
        node = IntLayer(factors=tuple(factors), window=window, name=name, inputs=inputs)
        return self._add(node, node.shape(shape_in, self.at[add][0] if add else None))

    def pool(self, name, kind, window=None, *, of=None):
        of = of or self.last
        shape, x = self.at[of]
        node = kind(window=window or Window.whole(shape), name=name, inputs=(of,))
        output = x if kind is Max else QFormat(x.width + 2, x.frac, x.signed)
        return self._add(IntNode(node=node, formats=(x,), output=output), node.shape(shape))

    def join(self, name, kind, of, **rest):
        """A Pick, a Gate or a Product of nodes."""
        shapes, formats = zip(*(self.at[one] for one in of))
        node = kind(name=name, inputs=of, **rest)
        output = QFormat(8, max(fmt.frac for fmt in formats) - 1 if kind is Pick else sum(f.frac for f in formats) - 7)
        return self._add(IntNode(node=node, formats=formats, output=output), node.shape(*shapes))

    def rearranged(self, name, index, size):
        shape, x = self.at[self.last]
        node = Rearrange(name=name, inputs=(self.last,), index=index, size=size)
        return self._add(IntNode(node=node, formats=(x,), output=x), node.shape(shape))

    @property
    def last(self):
        return [*self.at][-1]

    def _add(self, node, shape):
        self.nodes.append(node)
        self.at[node.name] = shape, node.output
        return self

    @property
    def network(self):
        return IntNetwork(self.nodes, self.first)


def resnet():
    """Two stacks of convolutions, the second of stride 2 with a shortcut of its own."""
    t = Tree((6, 6, 1)).layer("c0", [(1, 2, 9, 1)], Window(3, 1, 1), relu=True)
    t.layer("c1", [(1, 2, 18, 1)], Window(3, 1, 1), relu=True)
    t.layer("c2", [(1, 2, 18, 1)], Window(3, 1, 1), add="c0", relu=True, bias=9)
    t.layer("short", [(1, 3, 2, 1)], Window(1, 2), of="c2")
    t.layer("d1", [(1, 3, 18, 1)], Window(3, 2, 1), of="c2", relu=True)
    t.layer("d2", [(1, 3, 27, 1)], Window(3, 1, 1), add="short", relu=True)
    return t.pool("mean", Sum).layer("classes", [(1, 3, 3, 1)])


def shortcut_last():
    """The shortcut adds the long way, which torchvision's order of modules makes of it."""
    t = Tree((6, 6, 2)).layer("c0", [(1, 4, 18, 1)], Window(3, 1, 1), relu=True)
    t.layer("d1", [(1, 4, 36, 1)], Window(3, 2, 1), relu=True)
    t.layer("d2", [(1, 4, 36, 1)], Window(3, 1, 1))
    return t.layer("short", [(1, 4, 4, 1)], Window(1, 2), of="c0", add="d2", relu=True).pool("mean", Sum)


def shortcut_between():
    """The shortcut stands between the layers of the long way."""
    t = Tree((6, 6, 2)).layer("c0", [(1, 4, 18, 1)], Window(3, 1, 1), relu=True)
    t.layer("d1", [(1, 6, 36, 1)], Window(3, 2, 1), relu=True).layer("short", [(1, 2, 4, 1)], Window(1, 2), of="c0")
    return t.layer("d2", [(1, 2, 54, 1)], Window(3, 1, 1), of="d1", add="short", relu=True).pool("mean", Sum)


def inverted():
    """Depthwise convolutions between chains, the narrow ends joined, and one that the network's input joins."""
    t = Tree((6, 5, 4)).layer("e", [(1, 8, 4, 1)], of="input", relu=True)
    t.layer("d", [(1, 1, 9, 8)], Window(3, 1, 1), relu=True)
    t.layer("p", [(1, 4, 8, 1)], add="input")
    t.layer("e2", chain.bft(4, 2), relu=True).layer("d2", [(1, 1, 9, 4)], Window(3, 1, 1), relu=True)
    return t.layer("p2", chain.bft(4, 2), add="p")


def vectors():
    t = Tree((1, 1, 8), x=QFormat(6, 3)).layer("a", chain.bft(8, 2), relu=True)
    return t.layer("b", chain.bft(8, 2), bias=9).layer("c", [(1, 8, 8, 1)], of="a", add="b").layer(
        "d", [(1, 4, 8, 1)], relu=True)


def shuffled():
    """Halves of the channels, one of them through layers, side by side and shuffled: ShuffleNetV2's block, twice."""
    t = Tree((5, 4, 4))
    for n, before in enumerate(("input", "halves")):
        t.join(f"left{n}", Pick, (before,), index=[0, 1]).join(f"right{n}", Pick, (before,), index=[2, 3])
        t.layer(f"p{n}", [(1, 2, 2, 1)], relu=True).layer(f"d{n}", [(1, 1, 9, 2)], Window(3, 1, 1))
        t.join("halves" if n == 0 else "end", Pick, (f"left{n}", f"d{n}"), index=[0, 2, 1, 3])
    return t


def gated():
    """Squeeze and excite, its map added afterwards; three ways side by side."""
    t = Tree((4, 5, 4)).layer("e", [(1, 4, 4, 1)], of="input", relu=True).pool("mean", Sum)
    t.layer("s", [(1, 2, 4, 1)], bias=9).layer("g", [(1, 4, 2, 1)], bias=9).join("gate", Gate, ("e", "g"))
    t.layer("p", [(1, 4, 4, 1)], add="e").layer("q", [(1, 2, 4, 1)], of="e")
    return t.join("all", Pick, ("p", "q", "gate")).layer("f", [(1, 2, 10, 1)])


def turned():
    """PointNet's points and features, each times a matrix made of all of them; the second one is not square."""
    t = Tree((7, 1, 3)).layer("a", [(1, 4, 3, 1)], relu=True).pool("most", Max)
    t.layer("m", [(1, 9, 4, 1)], bias=9).join("points", Product, ("input", "m"))
    t.layer("b", [(1, 4, 3, 1)], relu=True).pool("mean", Sum).layer("n", [(1, 8, 4, 1)], bias=9)
    return t.join("features", Product, ("b", "n")).layer("c", [(1, 6, 2, 1)], relu=True).pool("all", Max)


def rearranged():
    """Channels mixed, then positions, as a Fourier layer does, what went in added: the first is a transposition of
    pairs, the second one has its places in another order too; and a crop, which is no order of bits.
    """
    t = Tree((8, 1, 4)).layer("a", [(1, 8, 4, 1)], of="input")
    t.rearranged("across", Rearrange.transposed(Shape(8, 1, 8), 2).index, (4, 1))
    t.layer("b", [(1, 4, 4, 4), (4, 2, 4, 1)])
    back = np.arange(32).reshape(2, 2, 8).transpose(2, 1, 0).ravel()
    t.rearranged("back", back, (8, 1)).layer("joined", [(1, 1, 1, 4)], add="input", relu=True)
    return t.rearranged("cropped", np.arange(32).reshape(8, 4)[1:6, ::-1].ravel(), (5, 1)).layer("c", [(1, 6, 4, 1)])


def collected():
    """Sums that leave with the last position, to layers for which that is too short a time."""
    t = Tree((8, 1, 4)).layer("a", [(1, 64, 4, 1)], relu=True).pool("most", Max)
    return t.layer("b", [(16, 4, 4, 1), (4, 4, 4, 4)], relu=True).layer("c", [(1, 8, 64, 1)])


class Chance:
    """Diamonds by chance: two ways from one node, which are added, or stand side by side, or one gates the other, or
    is a matrix to it.
    """

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        shape = [*rng.integers(2, 7, 2).tolist(), int(rng.integers(1, 5))]
        self.t = Tree(shape, seed, QFormat(6, 3, bool(rng.integers(2))))
        at = self.path("input", 1, int(rng.integers(1, 5)), (1, 1))
        for _ in range(int(rng.integers(1, 3))):
            at = self.diamond(at, tuple(rng.integers(1, 3, 2).tolist()), int(rng.integers(2)))
        if rng.integers(2):
            self.t.pool("whole", [Sum, Max][rng.integers(2)], of=at)

    def diamond(self, at, stride, deeper=0):
        """Name of the node where the ways from one join."""
        rng, channels = self.rng, int(self.rng.integers(1, 5))
        short = int(rng.integers(3))
        if not short:
            channels, stride = self.t.at[at][0].channels, (1, 1)
        ways = [short, int(rng.integers(1, 4))]
        rng.shuffle(ways)
        if not ways[1]:
            ways.reverse()
        other = self.path(at, ways[0], channels, stride, deeper)
        how, name = rng.choice(["add", "side by side", "gate", "product"], p=[0.4, 0.3, 0.15, 0.15]), f"j{len(self.t.nodes)}"
        if how == "add":
            return self.path(at, ways[1], channels, stride, 0, other)
        at = self.path(at, ways[1], channels, stride)
        if how in ("gate", "product"):
            self.t.pool(f"{name}s", Sum, of=at)
            if how == "product":
                outputs = int(rng.integers(1, 5)) * self.t.at[other][0].channels
                self.t.layer(f"{name}m", [(1, outputs, self.t.at[at][0].channels, 1)])
            self.t.join(name, Gate if how == "gate" else Product, (other, self.t.last))
            return name
        index = rng.permutation(2 * channels)[: int(rng.integers(1, 2 * channels + 1))]
        self.t.join(name, Pick, (other, at), index=index if rng.integers(3) else None)
        return name

    def path(self, at, count, channels, stride, deeper=0, add=None):
        """Name of the last of so many layers from a node on."""
        for n in range(count):
            rng, t, (shape, _) = self.rng, self.t, self.t.at[at]
            last = n == count - 1
            more = {"relu": bool(rng.integers(2)), "bias": 8 if rng.integers(2) else None, "add": add if last else None}
            kernel = tuple(int(rng.integers(1, min(3, size) + 1)) for size in shape[:2])
            padding = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
            window = Window(kernel, stride if n == 0 else (1, 1), padding)
            outputs, name = channels if last else int(rng.integers(1, 5)), f"l{len(t.nodes)}"
            if rng.integers(3) == 0 and (not last or channels == shape.channels):
                t.layer(name, [(1, 1, window.taps, shape.channels)], window, of=at, **more)
            elif rng.integers(2) or n == 0 and stride != (1, 1):
                t.layer(name, [(1, outputs, window.taps * shape.channels, 1)], window, of=at, **more)
            else:
                t.layer(name, [(1, outputs, shape.channels, 1)], of=at, **more)
            at = name
            if deeper and not last:
                at = self.diamond(at, (1, 1))
        return at


TREES = {
    "resnet": resnet(), "shortcut-last": shortcut_last(), "shortcut-between": shortcut_between(),
    "inverted": inverted(), "vectors": vectors(), "shuffled": shuffled(), "gated": gated(),
    "turned": turned(), "collected": collected(), "rearranged": rearranged(),
}


@pytest.mark.parametrize("name", TREES)
def test_trees(name):
    check(Plan(network=TREES[name].network))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_trees_with_any_engines(name, seed):
    check(random_plan(TREES[name].network, seed), seed)


@pytest.mark.parametrize("seed", range(6))
def test_random_trees(seed):
    network = Chance(seed).t.network
    check(random_plan(network, seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 300, 20))
def test_many_random_trees(start):
    for seed in range(start, start + 20):
        check(random_plan(Chance(seed).t.network, seed), seed)


@pytest.mark.parametrize("interval", [600, 100])
def test_wishes(interval):
    choice = choose(TREES["resnet"].network, interval=interval, target="ecp5")
    check(Plan(network=choice.plan.network, choices=choice.plan.choices))


def test_wishes_count_what_is_between():
    """The figures of a way are those of its engines, each behind the one that it takes."""
    network = TREES["shortcut-between"].network
    menu = Menu(network, 1, [cls for cls in ENGINES.values() if not cls.last_resort], target="ecp5")
    for figures, way in (way for limit in (600, 200, 100) for way in menu.fronts(limit)):
        plan, tally = menu.choice(way).plan, Tally(menu.tech)
        for engine, source in zip(plan.engines, plan.sources):
            own_cost(tally, engine)
            if source != INPUT:
                lanes, flight = plan.end(source)
                between_cost(tally, engine, lanes, flight, queue_between(0, flight, engine, 1))
        menu._entry(tally, plan.engines[0])
        menu._exit(tally, plan.engines[-1], plan.beats_out)
        assert figures == (plan.multipliers, *(pytest.approx(tally.sum[key]) for key in FIGURES[1:]))


def kept(plan):
    """Whether the core keeps its interval, with FIFOs of just as many places as the plan says."""
    many = max(6, 2 * plan.pipeline_latency // plan.interval)
    x = extremes(np.random.default_rng(0), plan.network.input, (many, plan.network.inputs))
    try:
        return play_network(Network(plan), x, limit=4 * many * plan.interval).interval == plan.interval
    except AssertionError as hang:
        assert "hangs" in str(hang)
        return False


@pytest.mark.parametrize(
    "name, number", [("resnet", 2), ("shortcut-last", 3), ("inverted", 2), ("inverted", 7), ("shuffled", 5), ("gated", 8)]
)
def test_fifos_are_the_least(name, number, monkeypatch):
    """With a beat less, less than a pixel of the map, the core is slower, or stands still."""
    monkeypatch.setattr(fifo, "places_of", lambda depth: depth)  # not the next power of two
    plan = Plan(network=TREES[name].network)
    assert kept(plan)
    depths = [*plan.skip_depths]
    depths[number] -= 1
    plan.timetable.depths = tuple(depths)
    assert not kept(plan)


def test_what_waits_may_do_so_in_front_of_a_change_of_lanes():
    t = Tree((3, 3, 4)).layer("e", [(1, 4, 4, 1)], of="input", relu=True).pool("mean", Sum)
    t.layer("s", [(1, 2, 4, 1)], bias=9).layer("g", [(1, 4, 2, 1)], bias=9).join("gate", Gate, ("e", "g"))
    check(Plan(network=t.network, choices={"gate": {"lanes": 4}}))


def test_folded_layers_add_their_own_input_alone():
    network = TREES["inverted"].network
    with pytest.raises(ValueError, match="stage p2:0: a folded engine needs two neighbouring factors or more"):
        Plan(network=network, choices={"p2": {"engine": "folded"}})
    check(Plan(network=network, choices={"e2": {"engine": "folded"}}))


@pytest.mark.parametrize("name", ["resnet", "shuffled", "gated", "turned"])
@pytest.mark.parametrize("target", ["ecp5", "gowin"])
def test_multipliers_and_blocks_are_as_many_as_counted(name, target):
    plan = Plan(network=TREES[name].network, target=target)
    text, needs = rtlil.convert(AxiStream(plan), name="core", emit_src=False), estimate(plan)
    made = synth.count(target, Counter(re.findall(r"^ *cell \\(\S+) ", text, re.MULTILINE)))
    assert made["DSP"] == needs["DSP"] and made["RAM"] == needs["RAM"]


@pytest.mark.parametrize("target", ["plain", "ecp5"])
def test_verilog_of_tiny_maps(target, tmp_path):
    """A row of 3x3 pixels, each column in a memory of its own, has a word in each: its address has a bit all the same."""
    plan = Plan(network=TREES["resnet"].network, target=target)
    assert any(engine.sees_map and getattr(engine, "lines", None) and engine.lines.depth == 1 for engine in plan.engines)
    result = simulate(write_plan(plan, tmp_path, name="core").path, vectors=6, simulator="compiled")
    assert result.ok and result.interval == plan.interval, result.problems


@pytest.mark.parametrize("target", ["plain", "ecp5"])
def test_verilog_of_a_fifo_of_one_place(target, tmp_path):
    """A gate of one beat waits for its map: the place's address has a bit all the same, and holds one beat."""
    plan = Plan(network=TREES["gated"].network, choices={"gate": {"lanes": 4}}, target=target)
    assert 1 in plan.skip_depths
    result = simulate(write_plan(plan, tmp_path, name="core").path, vectors=6, simulator="compiled")
    assert result.ok and result.interval == plan.interval, result.problems
