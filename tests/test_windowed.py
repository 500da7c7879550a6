"""Convolutions from an image stream to an image stream, against the golden layer: values, latency, interval, stalls."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tech_bench
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from rtl_bench import ACTS, Bench, beats_of, extremes, factor_of, one_by_one, play, unpack
from tech_bench import Part
from test_lines import figures, random_lines
from test_resources import DEVICES, chain_starts, check_near

from bfthw import IntLayer, IntNetwork, QFormat
from bfthw.act import Table
from bfthw.golden import IntNode
from bfthw.nodes import Max, Sum
from bfthw.window import Shape, Window, to_value
from boards import synth
from rtl_gen.cost import Tally
from rtl_gen.engines import Convolution, Maximum, Pipelined, Reduction
from rtl_gen.fifo import FIFO_LATENCY, QUEUE
from rtl_gen.stream import ENTRY, Link
from rtl_gen.tech import TARGETS, models, technology


def engine_of(shape, window, pattern, seed=0, options=None, act=None, **rest):
    factor = ending(factor_of(pattern, seed, **(options or {})), act)
    return Convolution(factors=(factor,), shape=Shape(*shape), window=window, flight=ENTRY, **rest)


def ending(factor, act):
    """The same factor with an output without a sign where an `act` of ACTS is given."""
    output = replace(factor.output, signed=False)
    if act == "table":
        values = np.random.default_rng(0).permutation(1 << output.width)
        return replace(factor, output=output, relu=False, table=Table(input=factor.output, values=values))
    top = output.hi * 2 // 3 if act == "clamp" else None
    return replace(factor, output=output, relu=act != "none", top=top) if act else factor


def held(engine, images=7, stall=0.0, seed=0, part=None, record=None, **rest):
    """Plays images and holds the outputs against IntLayer; returns what was measured: (latency, interval)."""
    s, f, e = engine, engine.factor, engine.vectors
    rng = np.random.default_rng(seed)
    inputs = ("a", "b") if f.skip_input else ("a",)
    layer = IntLayer(factors=(f,), window=s.window, name="l", inputs=inputs)
    x = extremes(rng, f.input, (images * e, *s.shape))
    x = np.maximum(x, 0) if s.positive else x
    height, width = s.lines.out
    x0 = extremes(rng, f.skip_input, (images * e, height, width, f.pattern.outputs)) if f.skip_input else None
    want = layer(x, x0 if x0 is None else to_value(x0)).reshape(images * e, -1)
    part = part or bench_of(s)
    sources = [(part.i, beats_of(x.reshape(images * e, -1), s.lanes_in, e, f.input.width))]
    if x0 is not None:
        sources.append((part.skip, beats_of(x0.reshape(images * e, -1), s.lanes, e, f.skip_input.width)))
    flows = play(part, sources, [(part.o, images * s.beats_out)], stall=stall, seed=seed, **rest)
    came, left = flows[0], flows[len(sources)]
    if record is not None:
        record += flows[len(sources) + 1 :]
    got = one_by_one(unpack(left.beats, f.output, s.lanes * e).reshape(images, -1), e)
    wrong = np.argwhere(got.reshape(want.shape) != want)
    assert not len(wrong), f"image, output {wrong[0]} of {len(wrong)} wrong: {s}"
    return figures(came, left, s.beats_out)


def held_maximum(engine, images=7, stall=0.0, seed=0, part=None):
    """The same of a Maximum, against the node."""
    s, e, rng = engine, engine.vectors, np.random.default_rng(seed)
    x = extremes(rng, s.input, (images * e, *s.shape))
    x[::2] = np.minimum(x[::2], s.input.lo + s.input.hi >> 1)  # what stands outside must be less
    x = np.maximum(x, 0) if s.positive else x
    part = part or bench_of(s)
    beats = beats_of(x.reshape(images * e, -1), s.lanes, e, s.input.width)
    came, left = play(part, [(part.i, beats)], [(part.o, images * s.beats_out)], stall=stall, seed=seed)
    got = one_by_one(unpack(left.beats, s.input, s.lanes * e).reshape(images, -1), e)
    assert np.array_equal(got, Max(window=s.window, name="m")(x).reshape(images * e, -1)), s
    return figures(came, left, s.beats_out)


def bench_of(engine):
    return Bench(engine.component(), engine.output_flight + QUEUE)


def promised(engine):
    """(latency, interval) of an engine between streams."""
    return engine.output_times(np.arange(engine.beats_in) + ENTRY)[0] + FIFO_LATENCY, engine.interval


ALL = dict(bias=9, relu=True, exponents=2)
PIXELS = dict(ALL, x=QFormat(8, 8, signed=False))
SKIP = dict(PIXELS, skip=QFormat(4, 3))
BITS = dict(x=QFormat(1, 0, signed=False), w=QFormat(3, 0, signed=False), drop=2)
OUTSIDE = Window(3, 2, 1, outside=(200, 7, 255))
CASES = {
    "depthwise": engine_of(
        (6, 6, 4), Window(3, 1, 1), (1, 1, 9, 4), options=PIXELS, act="clamp", lanes=2, lanes_in=2, simd=3,
        positive=True,
    ),
    "depthwise-torchs-order": engine_of((5, 4, 4), Window(3, 2, 1, block=1), (4, 1, 9, 1), lanes=4, lanes_in=4),
    "multiplier-2": engine_of((5, 4, 2), Window(3, 1, 1, block=1), (2, 2, 9, 1), options=ALL, lanes=2, simd=3),
    "full-stride-2": engine_of((7, 7, 3), OUTSIDE, (1, 8, 27, 1), options=SKIP, act="relu", lanes=4, lanes_in=3),
    "grouped": engine_of((4, 5, 6), Window((3, 2), 1, (1, 0, 1, 1), block=3), (2, 4, 18, 1), lanes=2, lanes_in=3),
    "1-D": engine_of(
        (1, 16, 3), Window((1, 5), (1, 2), (0, 2)), (1, 4, 15, 1), options=ALL, act="table", simd=5, positive=True
    ),
    "1x1": engine_of((3, 3, 4), Window(1), (1, 6, 4, 1), options=BITS, act="none", lanes=3, lanes_in=4),
    "sum-of-all": engine_of((4, 3, 2), Window((4, 3)), (1, 1, 12, 2), simd=4, lanes=2, lanes_in=2),
    "wide": engine_of((4, 4, 2), Window(3, 1, 1, outside=(3, -7)), (1, 4, 18, 1), lanes=2, lanes_in=2, vectors=2),
}


@pytest.mark.parametrize("engine", CASES.values(), ids=CASES)
def test_convolutions(engine):
    part = bench_of(engine)
    assert held(engine, part=part) == promised(engine)
    held(engine, 3, 0.4, 1, part)


def random_engine(seed, largest):
    """A Convolution of any geometry, with any parts of a factor."""
    lines, rng = random_lines(seed, largest), np.random.default_rng(seed)
    options = {"bias": 9} if rng.random() < 0.5 else {}
    x = QFormat(8, 3, signed=bool(rng.integers(2) or np.min(lines.window.outside) < 0))
    options |= {"relu": bool(rng.integers(2)), "exponents": int(rng.choice([0, 2])), "x": x}
    options |= {"skip": [None, "one", QFormat(4, 3)][rng.integers(3)]} if rng.random() < 0.3 else {}
    rest = {name: getattr(lines, name) for name in ("lanes", "lanes_in", "simd", "vectors")}
    act = rng.choice([None, *ACTS])
    return engine_of(lines.shape, lines.window, lines.pattern, seed, options, act, **rest)


@pytest.mark.parametrize("seed", range(6))
def test_random_convolutions(seed):
    engine = random_engine(seed, 150)
    part = bench_of(engine)
    assert held(engine, 6, seed=seed, part=part) == promised(engine)
    held(engine, 3, 0.4, seed, part)


BYTES = QFormat(8, 0, signed=False)
MAXIMA = {
    "2x2": dict(shape=Shape(6, 4, 4), window=Window(2, 2), lanes=2),
    "padded": dict(shape=Shape(5, 6, 2), window=Window(3, 2, 1), simd=3),
    "one-by-one": dict(
        input=BYTES, shape=Shape(4, 4, 2), window=Window(3, 1, (1, 0, 1, 2)), simd=1, lanes=2, vectors=2
    ),
    "1-D": dict(shape=Shape(1, 12, 3), window=Window((1, 4), (1, 3)), simd=2, lanes=3, positive=True),
    "all-of-it": dict(shape=Shape(3, 3, 4), window=Window(3)),
}


@pytest.mark.parametrize("fields", MAXIMA.values(), ids=MAXIMA)
def test_maxima(fields):
    engine = Maximum(**{"input": QFormat(7, 3), "flight": ENTRY} | fields)
    part = bench_of(engine)
    assert held_maximum(engine, part=part) == promised(engine)
    held_maximum(engine, 3, 0.4, 1, part)


class Row(wiring.Component):
    """Engines in a row, nothing between them."""

    def __init__(self, engines):
        self.parts = [engine.component() for engine in engines]
        links = self.parts[0].i.payload.shape(), self.parts[-1].o.payload.shape()
        super().__init__({"i": In(Link(links[0])), "o": Out(Link(links[1]))})

    def elaborate(self, platform):
        m = Module()
        m.submodules += self.parts
        wiring.connect(m, wiring.flipped(self.i), self.parts[0].i)
        for before, after in pairwise(self.parts):
            wiring.connect(m, before.o, after.i)
        wiring.connect(m, self.parts[-1].o, wiring.flipped(self.o))
        return m


def rings(size, *windows, channels=1):
    """Depthwise convolutions in a row over square maps, (window, SIMD) each; room is granted as far ahead as it is."""
    shape, engines, flight, x = Shape(size, size, channels), [], ENTRY, QFormat(6, 3)
    for n, (window, simd) in enumerate(windows):
        engine = engine_of(shape, window, (1, 1, window.taps, channels), n, dict(x=x, out=6, drop=4), simd=simd)
        engines.append(replace(engine, flight=flight))
        shape, flight = window.shape(shape)._replace(channels=channels), engines[-1].output_flight
        x = engine.factor.output
    return engines


def small_network():
    """A convolution of pixels with strides, a depthwise one, one over channels alone, the mean, classes."""
    after, engines = {}, []

    def add(kind, **fields):
        engines.append(kind(flight=after.get("flight", ENTRY), lanes=2, **fields))
        after["flight"] = engines[-1].output_flight

    x, shape = BYTES, Shape(8, 8, 1)
    windows = Window(3, 2, 1), Window(3, 1, 1), Window(1)
    patterns, acts = [(1, 4, 9, 1), (1, 1, 9, 4), (1, 6, 4, 1)], ["clamp", "relu", None]
    for n, (window, pattern, act) in enumerate(zip(windows, patterns, acts)):
        factor = ending(factor_of(pattern, n, x=x, bias=9, out=8, drop=6), act)
        lanes_in = min(2, shape.channels)
        add(Convolution, factors=(factor,), shape=shape, window=window, lanes_in=lanes_in)
        x, shape = factor.output, window.shape(shape)._replace(channels=factor.pattern.outputs)
    mean = QFormat(9, x.frac - 2)
    add(Reduction, shape=shape, input=x, output=mean)
    add(Pipelined, factors=(factor_of((1, 4, 6, 1), 3, x=mean, bias=9, out=10),))
    return engines


def golden(engines):
    """The IntNetwork that engines in a row compute."""
    nodes = []
    for n, engine in enumerate(engines):
        if isinstance(engine, Reduction):
            node = Sum(window=Window.whole(engine.shape), name=f"n{n}")
            nodes.append(IntNode(node=node, formats=(engine.input,), output=engine.output))
        else:
            nodes.append(IntLayer(factors=engine.factors, window=getattr(engine, "window", None), name=f"n{n}"))
    return IntNetwork(nodes, engines[0].shape)


ROWS = {
    "a-network": small_network(),
    "five-balanced": rings(12, *[(Window(3, s, 1), n) for s, n in ((2, 3), (1, 3), (2, 1), (1, 1), (1, 1))]),
    "3x3-all-taps": rings(3, *[(Window(3, 1, 1), 9)] * 3),
    "one-number": rings(1, *[(Window(1), 1)] * 3),
    "shrinking": rings(6, (Window(3), 9), (Window((1, 3)), 3), (Window((3, 1), 1), 3), channels=2),
}


@pytest.mark.parametrize("engines", ROWS.values(), ids=ROWS)
def test_a_row_is_as_fast_as_its_slowest(engines):
    """No FIFO stands between rings: room that is granted ahead counts all of the way."""
    part = Bench(Row(engines), engines[-1].output_flight + QUEUE)
    first, last, network = engines[0], engines[-1], golden(engines)
    x = extremes(np.random.default_rng(0), network.input, (9, *first.shape.dims))
    beats = beats_of(x.reshape(9, -1), first.lanes_in, 1, network.input.width)
    ends, wanted = ([(part.i, beats)], [(part.o, 9 * last.beats_out)]), network(x).ravel().tolist()
    assert len(set(wanted)) > 2
    came, left = play(part, *ends)
    times = np.arange(first.beats_in) + ENTRY
    for engine in engines:
        times = engine.output_times(times)
    assert unpack(left.beats, network.output, last.lanes).ravel().tolist() == wanted
    interval = max(engine.interval for engine in engines)
    assert figures(came, left, last.beats_out) == (times[0] + FIFO_LATENCY, interval)
    _, left = play(part, *ends, stall=0.4, reset_after=100)
    assert unpack(left.beats, network.output, last.lanes).ravel().tolist() == wanted


def test_all_targets_alike(tmp_path):
    """The Verilog of every family gives, cycle by cycle, what plain hardware gives in Amaranth's simulator."""
    window = Window(3, 1, 1, outside=(3, 200))
    engine = engine_of((4, 5, 2), window, (1, 2, 18, 1), options=PIXELS, act="clamp", lanes=2, simd=9)
    bench = bench_of(engine)
    i, o = bench.part.i, bench.part.o
    given = [i.take, i.valid, i.payload.as_value(), o.ready]
    shown = [i.ready, o.take, o.valid, Mux(o.valid, o.payload.as_value(), 0)]
    recorded = []
    held(engine, 3, 0.3, part=bench, watch=[Cat(given), Cat(shown)], record=recorded)
    words, wanted = recorded
    top = Part(len(Cat(given)))
    inputs = [top.take(len(signal), f"i{n}") for n, signal in enumerate(given)]
    for target in TARGETS:
        top.m.submodules[target] = part = replace(engine, target=target).component()
        ports = part.i.take, part.i.valid, part.i.payload.as_value(), part.o.ready
        top.m.d.comb += [port.eq(signal) for port, signal in zip(ports, inputs)]
        top.outputs += [part.i.ready, part.o.take, part.o.valid, Mux(part.o.valid, part.o.payload.as_value(), 0)]
    text, width = top.convert("top")
    (tmp_path / "top.v").write_text(text, encoding="utf-8")
    files = ["top.v", *(file for target in TARGETS for file in models(target))]
    got = tech_bench.play(tmp_path, "top", files, words, (len(top.i), width))
    size = width // len(TARGETS)
    for n, target in enumerate(TARGETS):
        assert [word >> n * size & (1 << size) - 1 for word in got] == wanted, target


def test_lanes_share_operands():
    full, alone = CASES["full-stride-2"], CASES["depthwise"]
    assert full.operands == full.simd < full.lanes * full.simd
    assert alone.operands == alone.lanes * alone.simd


class Flat(wiring.Component):
    """A part whose ports have names that no netlist's nets have."""

    def __init__(self, part):
        self.part = part
        sizes = len(part.i.payload.as_value()) + 2, len(part.o.payload.as_value()) + 2 + len(part.saturated)
        super().__init__({"x": In(sizes[0]), "room": In(1), "ready": Out(1), "y": Out(sizes[1])})

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self.part
        i, o = part.i, part.o
        m.d.comb += [
            Cat(i.take, i.valid, i.payload.as_value()).eq(self.x), o.ready.eq(self.room), self.ready.eq(i.ready),
            self.y.eq(Cat(o.take, o.valid, o.payload.as_value(), part.saturated)),
        ]
        return m


WIDE = dict(ALL, x=QFormat(9, 3), w=QFormat(8, 4))
COSTS = {
    "depthwise": engine_of((12, 12, 16), Window(3, 1, 1), (1, 1, 9, 16), options=WIDE, lanes=2, lanes_in=2, simd=3),
    "a-bank": engine_of((24, 24, 16), Window(3, 2, 1), (1, 1, 9, 16), options=WIDE, simd=1),
    "full": engine_of((24, 24, 3), Window(3, 2, 1), (1, 8, 27, 1), options=WIDE, lanes=4, lanes_in=3, simd=9),
    "one-channel": engine_of((28, 28, 1), Window(3, 2, 1), (1, 16, 9, 1), options=WIDE, lanes=2, simd=3),
    "all-taps": engine_of((14, 14, 8), Window(3, 1, 1), (1, 1, 9, 8), options=WIDE, simd=9),
    "5x5": engine_of((10, 10, 4), Window(5, 1, 2), (1, 4, 100, 1), options=WIDE, lanes_in=4, simd=20),
}
NINE = QFormat(9, 3)
COSTS |= {
    "maximum": Maximum(input=NINE, shape=Shape(14, 14, 16), window=Window(3, 2, 1), lanes=2, simd=3),
    "maximum-of-all-taps": Maximum(input=NINE, shape=Shape(24, 24, 4), window=Window(2, 2)),
    "sum-of-a-map": Reduction(input=NINE, output=QFormat(9, 4), shape=Shape(7, 7, 64)),
    "largest-of-a-map": Reduction(input=NINE, output=NINE, shape=Shape(8, 8, 8), lanes=4, largest=True),
}
QUICK = [("depthwise", "ecp5"), ("one-channel", "ice40")]
FAR = [("largest-of-a-map", "gowin")]  # half as many tables again are made of these comparisons
SLOW = [(name, target) for name in COSTS for target in DEVICES if (name, target) not in QUICK + FAR]


@pytest.mark.parametrize("name, target", [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)])
def test_prediction_is_near_synthesis(tmp_path, name, target):
    engine = replace(COSTS[name], target=target)
    tally = Tally(technology(target))
    engine.cost(tally)
    (tmp_path / "core.il").write_text(rtlil.convert(Flat(engine.component()), name="core", emit_src=False))
    made = synth.synthesise(DEVICES[target], "core", tmp_path)
    if target == "ecp5":
        made["LUT"] += chain_starts(tmp_path / "core.json")
    check_near(name, tally.total(), made)
