"""A new engine and a new reader, each a class in a file of its own, here this one: planned, simulated, costed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from engine_cases import network_of
from rtl_bench import extremes, play_network

from bfthw import Settings
from rtl_gen import ENGINES, Engine, Network, Pipelined, choose, estimate, load_design, make_plan, write
from rtl_gen.engines.readers import READERS, banked
from rtl_gen.signals import beat
from rtl_gen.stream import Link
from sim import simulate


@pytest.fixture
def registered():
    """What a test registers is gone after it."""
    kinds, readers = dict(ENGINES), list(READERS)
    yield
    ENGINES.clear()
    ENGINES.update(kinds)
    READERS[:] = readers


def toy_engine():
    @dataclass(frozen=True, kw_only=True)
    class Toy(Engine):
        """A square factor of one weight an output, (n, 1, 1, 1): a product of constants, `lanes` elements a beat."""

        lanes: int = 1

        kind: ClassVar[str] = "toy"
        options: ClassVar[tuple] = ("lanes",)
        interval = property(lambda self: self.pattern.outputs // self.lanes)
        lanes_in = lanes_out = property(lambda self: self.lanes)
        beats_in = beats_out = interval
        depth: ClassVar[int] = 1
        output_flight = property(lambda self: self.flight + self.depth)
        holds: ClassVar[int] = 1
        multipliers = property(lambda self: self.lanes * self.vectors)
        rom_bits: ClassVar[int] = 0
        buffer_bits: ClassVar[int] = 0
        words: ClassVar[int] = 0
        parts = property(lambda self: 3 * self.lanes)

        def __post_init__(self):
            super().__post_init__()
            a, *rest = self.pattern
            if rest != [1, 1, 1] or self.factor.skip_input or a % self.lanes:
                raise ValueError(f"a toy takes (n, 1, 1, 1) and lanes that divide n, got {self.pattern}")

        @classmethod
        def menu(cls, **fields):
            for lanes in [fields["lanes"]] if "lanes" in fields else (1, 2, 4):
                try:
                    yield cls(**{**fields, "lanes": lanes})
                except ValueError:
                    continue

        def output_times(self, arrivals, skip=None):
            return np.asarray(arrivals) + self.depth

        def cost(self, tally):
            tally.take({"DSP": self.multipliers, "FF": 1})

        def component(self):
            return ToyUnit(self)

    return Toy


class ToyUnit(wiring.Component):
    def __init__(self, engine):
        self.engine = engine
        elements = engine.lanes * engine.vectors
        super().__init__(
            {
                "i": In(Link(beat(engine.factor.input.width, elements))),
                "o": Out(Link(beat(engine.factor.output.width, elements))),
                "saturated": Out(range(elements + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        e, f = self.engine, self.engine.factor
        m.d.comb += [self.i.ready.eq(self.o.ready), self.o.take.eq(self.i.take)]
        m.d.sync += self.o.valid.eq(self.i.valid)
        place, clips = Signal(range(max(2, e.beats_in))), []
        with m.If(self.i.valid):
            m.d.sync += place.eq(Mux(place == e.beats_in - 1, 0, place + 1))
        bias = np.zeros(e.pattern.outputs, int) if f.bias is None else f.bias
        shifts = np.broadcast_to(f.dot_shift, e.pattern.outputs)
        half = 1 << f.shift - 1 if f.shift > 0 else 0
        for n in range(e.lanes * e.vectors):
            totals = []
            for at in range(n // e.vectors, e.pattern.outputs, e.lanes):
                weight = int(f.values[at, 0, 0, 0]) << int(shifts[at])
                totals.append(self.i.payload[n] * weight + int(bias[at]) + half)
            acc = Signal(signed(max(len(total) for total in totals)), name=f"acc{n}")
            total = Signal(signed(len(acc) + max(0, -f.shift)), name=f"total{n}")
            m.d.comb += [acc.eq(Array(totals)[place]), total.eq(acc >> f.shift if f.shift > 0 else acc << -f.shift)]
            over, under = total > f.output.hi, total < f.output.lo
            y = Mux(over, f.output.hi, Mux(under, f.output.lo, total))
            m.d.sync += self.o.payload[n].eq(Mux(total < 0, 0, y) if f.relu else y)
            clips.append(self.i.valid & (over if f.relu else over | under))
        m.d.sync += self.saturated.eq(sum(clips[1:], clips[0]))
        return m


def test_a_new_engine(registered, tmp_path):
    toy = toy_engine()
    network = network_of([(8, 1, 1, 1), (2, 2, 2, 2), (8, 1, 1, 1)], bias=9, relu=True)
    settings = Settings(layers={"l": {"engine": ["toy", "pipelined", "toy"], "lanes": [2, 1, 4]}})
    plan = make_plan(network, settings)
    assert [type(engine) for engine in plan.engines] == [toy, Pipelined, toy]
    x = extremes(np.random.default_rng(0), network.input, (20, 8))
    for stall in (0.0, 0.4):
        played = play_network(Network(plan), x, stall=stall)
        assert np.array_equal(played.outputs, network(x))
    assert play_network(Network(plan), x).latency == plan.pipeline_latency
    # a wish finds it on its menu, where it is the cheapest
    assert estimate(plan, "ecp5")["DSP"] == plan.multipliers == 2 + plan.engines[1].multipliers + 4
    best = choose(network, multipliers=10)
    assert {engine.kind for engine in best.plan.engines} & {"toy"}
    # and files know it by its name
    design = write(network, tmp_path, name="core", settings=settings)
    assert design.plan.choices["l"] | {"simd": None} == {
        "engine": ["toy", "pipelined", "toy"], "lanes": [2, 1, 4], "simd": None, "products": [None, "dsp", None]
    }
    assert load_design(design.path).plan.choices == design.plan.choices
    assert simulate(design, vectors=8, simulator="compiled").ok


def test_a_new_reader(registered):
    class Deeper(banked.Banked):
        """Twice the slots that are needed."""

        @classmethod
        def takes(cls, pattern, lanes, simd, skip):
            return banked.Banked.takes(pattern, lanes, simd, skip) and pattern.d > 1

        @property
        def slots(self):
            return 2 * super().slots

    network = network_of([(1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1)])
    plan = make_plan(network)
    assert [type(engine.reader) for engine in plan.engines][:2] == [Deeper, Deeper]
    READERS.remove(Deeper)
    before = make_plan(network)
    assert plan.buffer_bits > before.buffer_bits and estimate(plan)["LUT"] >= estimate(before)["LUT"]
    x = extremes(np.random.default_rng(0), network.input, (20, 8))
    assert np.array_equal(play_network(Network(plan), x, stall=0.3).outputs, network(x))
