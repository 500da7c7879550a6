"""A whole integer network as a pipeline of stages, and the cycles it will take."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bfthw import IntNetwork

from .spec import StageSpec, check_parallelism, divisors
from .stage import Stage
from .stream import FIFO_LATENCY, Fork, FromStream, Gearbox, LinkFifo, beat


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """An IntNetwork and its parallelism: lanes and simd, one number for each factor.

    lanes: 1 for each factor where not given. simd: where not given (or None), the smallest that does not slow the
    pipeline below what its lanes allow.
    Raises ValueError, which names the stage and what fits, for lanes or SIMD that a factor cannot have.
    """

    network: IntNetwork
    lanes: tuple | None = None
    simd: tuple | None = None

    def __post_init__(self):
        factors = self.network.factors
        lanes = tuple(self.lanes or [1] * len(factors))
        simd = tuple(self.simd or [None] * len(factors))
        for name, numbers in (("lanes", lanes), ("simd", simd)):
            if len(numbers) != len(factors):
                raise ValueError(
                    f"NetworkSpec.{name} needs a number for each of {len(factors)} factors, got {len(numbers)}"
                )
        for name, f, l, s in zip(self.network.names, factors, lanes, simd):
            check_parallelism(f.pattern, l, s or 1, f"stage {name}")
        # the interval that no choice of SIMD can better
        best = max(max(f.pattern.inputs, f.pattern.outputs) // l for f, l in zip(factors, lanes))
        chosen = []
        for f, l, s in zip(factors, lanes, simd):
            beats = f.pattern.outputs // l
            chosen.append(s or min(v for v in divisors(f.pattern.c) if beats * (f.pattern.c // v) <= max(best, beats)))
        object.__setattr__(self, "lanes", lanes)
        object.__setattr__(self, "simd", tuple(chosen))

    @cached_property
    def stages(self):
        """A StageSpec for each factor."""
        stages, lanes, flight = [], self.lanes[0], 0
        for factor, l, s in zip(self.network.factors, self.lanes, self.simd):
            # behind a converter, beats arrive as they are granted
            stages.append(StageSpec(factor=factor, lanes=l, simd=s, flight=flight if l == lanes else 0))
            lanes, flight = l, stages[-1].depth
        return tuple(stages)

    @cached_property
    def layers(self):
        """The stages of each layer, a tuple of tuples."""
        stages = iter(self.stages)
        return tuple(tuple(next(stages) for _ in layer.factors) for layer in self.network.layers)

    @property
    def beats_in(self):
        return self.stages[0].beats_in

    @property
    def beats_out(self):
        return self.stages[-1].beats_out

    @property
    def interval(self):
        """Cycles from a vector's first beat to the next one's, in steady state: those of the slowest stage.

        (A converter passes as many beats as the stage on its narrower side takes or gives.)
        """
        return max(stage.interval for stage in self.stages)

    @cached_property
    def latency(self):
        """Cycles from the first accepted input beat to the first valid output beat, empty and unstalled."""
        return self._schedule[0]

    @cached_property
    def _schedule(self):
        """The first vector's way through: the latency, and for each layer the beats its residual's FIFO must hold."""
        times, lanes, depths = np.arange(self.beats_in), self.lanes[0], []
        for layer in self.layers:
            entered = skip = None
            for stage in layer:
                times, lanes = convert_times(times, lanes, stage.lanes), stage.lanes
                if entered is None:
                    entered = times
                if stage.factor.skip_input:
                    wide = max(layer[0].lanes, lanes)
                    entered = convert_times(entered, layer[0].lanes, wide)
                    skip = convert_times(entered + FIFO_LATENCY, wide, lanes, fifo=False)
                reads = stage.reads(times, skip)
                times = reads[stage.steps - 1 :: stage.steps] + stage.depth
            depths.append(None if skip is None else self._skip_depth(layer, entered, times - layer[-1].depth))
        return int(times[0]) + FIFO_LATENCY, tuple(depths)

    def _skip_depth(self, layer, entered, taken):
        """Beats, of the wider side, of a residual's FIFO: enough for the interval and for a first vector that runs ahead.

        The interval is kept, as in `StageSpec.slots`, if the FIFO holds what enters the layer in the slowest schedule
        before its last stage takes the first of it. entered, taken: cycles of a beat into the FIFO and out of it.
        """
        cycles = sum(s.wait(self.interval // s.blocks) + s.depth + 8 for s in layer)
        steady = ceil(cycles * len(entered) / self.interval)
        gone = np.arange(len(taken)) * len(entered) // len(taken)
        ahead = np.searchsorted(entered, taken, side="right") - gone
        return max(steady, int(ahead.max())) + layer[0].flight + 4

    @property
    def skip_depths(self):
        """Beats of each layer's residual FIFO, None for a layer without."""
        return self._schedule[1]

    @property
    def vectors_in_flight(self):
        """Vectors inside at once, at most: what all buffers and pipelines can hold."""
        held = 2.0
        for layer in self.layers:
            for s in layer:
                held += s.slots / s.blocks + (s.depth + 8) / s.beats_out + 4 * max(self.lanes) / s.pattern.inputs
        return ceil(held)

    @property
    def multipliers(self):
        return sum(stage.multipliers for stage in self.stages)

    @property
    def rom_bits(self):
        return sum(stage.rom_bits for stage in self.stages)

    @property
    def buffer_bits(self):
        """Bits of the stages' buffers and of the residuals' FIFOs."""
        skips = (
            depth * max(layer[0].lanes, layer[-1].lanes) * layer[0].factor.input.width
            for layer, depth in zip(self.layers, self.skip_depths)
            if depth
        )
        return sum(stage.buffer_bits for stage in self.stages) + sum(skips)


def convert_times(times, before, after, fifo=True):
    """Cycles at which beats of `before` lanes, coming at `times`, leave a converter as beats of `after` lanes."""
    if before == after:
        return times
    arrivals = times + FIFO_LATENCY if fifo else times
    places = Gearbox.capacity(before, after)
    result, accepted, cycle = [], [], -1
    for q in range(len(times) * before // after):
        while len(accepted) * before < (q + 1) * after:
            p = len(accepted)
            # beats that must have left before there is room for this one
            gone = -(-(p * before + before - places) // after)
            cycle = max(cycle + 1, arrivals[p], result[gone - 1] + 1 if gone > 0 else 0)
            accepted.append(cycle)
        needed = accepted[-(-(q + 1) * after // before) - 1]
        result.append(max(needed, result[-1] if result else -1) + 1)
    return np.array(result)


class Network(wiring.Component):
    """The pipeline: streams of beats `i` and `o`, in natural order, in the network's formats.

    `saturated`: values that some stage clipped, a cycle ago.
    """

    def __init__(self, spec: NetworkSpec):
        self.spec = spec
        first, last = spec.stages[0], spec.stages[-1]
        super().__init__(
            {
                "i": In(stream.Signature(beat(first.factor.input.width, first.lanes))),
                "o": Out(stream.Signature(beat(last.factor.output.width, last.lanes))),
                "saturated": Out(range(sum(spec.lanes) + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clipped = []
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        at, flight, number = entry.o, 0, 0
        for l, layer in enumerate(self.spec.layers):
            for stage in layer:
                at, flight = self._convert(m, at, stage.lanes, flight, f"convert_{number}")
                if stage is layer[0] and self.spec.skip_depths[l]:
                    m.submodules[f"fork_{l}"] = fork = Fork(at.payload.shape())
                    wiring.connect(m, at, fork.i)
                    at, skip_flight, skip = fork.a, flight, fork.b
                m.submodules[f"stage_{number}"] = part = Stage(stage)
                wiring.connect(m, at, part.i)
                if stage.factor.skip_input:
                    wide = max(layer[0].lanes, stage.lanes)
                    skip, _ = self._convert(m, skip, wide, skip_flight, f"skip_convert_{l}")
                    m.submodules[f"skip_{l}"] = queue = LinkFifo(skip.payload.shape(), self.spec.skip_depths[l])
                    wiring.connect(m, skip, queue.i)
                    wiring.connect(m, self._gear(m, queue.o, wide, stage.lanes, f"skip_gear_{l}"), part.skip)
                clipped.append(part.saturated)
                at, flight, number = part.o, stage.depth, number + 1
        m.d.sync += self.saturated.eq(sum(clipped[1:], clipped[0]))
        m.submodules.exit = queue = LinkFifo(at.payload.shape(), flight + 4)
        wiring.connect(m, at, queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m

    def _gear(self, m, source, before, after, name):
        """A stream of `before` lanes to one of `after` lanes."""
        if before == after:
            return source
        m.submodules[name] = gearbox = Gearbox(len(source.payload.as_value()) // before, before, after)
        wiring.connect(m, source, gearbox.i)
        return gearbox.o

    def _convert(self, m, link, lanes, flight, name):
        """A link to one of other lanes, and the cycles between grant and arrival there."""
        before = link.payload.shape().length
        if before == lanes:
            return link, flight
        m.submodules[f"{name}_fifo"] = queue = LinkFifo(link.payload.shape(), flight + 4)
        wiring.connect(m, link, queue.i)
        source = self._gear(m, queue.o, before, lanes, f"{name}_gear")
        m.submodules[name] = entry = FromStream(source.payload.shape())
        wiring.connect(m, source, entry.i)
        return entry.o, 0
