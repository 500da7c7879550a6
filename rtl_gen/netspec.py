"""What a whole network's hardware is: which engine serves which factors, and the cycles and bits it will take."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import ceil

import numpy as np

from bfthw import IntNetwork
from bfthw.golden import short_stage

from .foldspec import FoldSpec, check_fold
from .spatial import SpatialSpec
from .spec import StageSpec, check_parallelism, divisors
from .stream import ENTER, ENTRY, FIFO_LATENCY, QUEUE, Gearbox
from .tech import check_target

LONG = 16  # cycles between grant and arrival from which a FIFO is smaller than what they cost further on
ENGINES = ("pipelined", "folded", "spatial")
ROMS = ("initial", "case", "readmemh")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """An IntNetwork and its parallelism; tuples have an entry for each factor.

    engines: "pipelined" (an engine of its own), "folded" (neighbours within a layer take turns on one), or "spatial" (a
    vector a cycle, weights in logic); pipelined where not given. lanes, simd: of pipelined factors; 1 lane, and the
    smallest SIMD that does not slow the network below what its lanes and engines allow, where not given (or None).
    vectors: whole vectors side by side in every beat. target: of the technology layer. lut: multipliers of tables in
    place of DSP blocks. paired: folded engines make two products a multiplier, where the widths allow it. roms: where
    a plain core's weights are, in `initial` contents of memories, in "case" statements, or in files that "readmemh"
    reads. count_beats: a frame ends after its beats, whatever TLAST says.
    Raises ValueError, which names the stage and what fits, for what a factor cannot have.
    """

    network: IntNetwork
    engines: tuple | None = None
    lanes: tuple | None = None
    simd: tuple | None = None
    vectors: int = 1
    target: str = "plain"
    lut: tuple | None = None
    paired: bool = False
    roms: str = "initial"
    count_beats: bool = False

    def __post_init__(self):
        factors, names = self.network.factors, [short_stage(name) for name in self.network.names]
        defaults = {"engines": "pipelined", "lanes": None, "simd": None, "lut": False}
        given = {name: getattr(self, name) for name in defaults}
        given = {n: (defaults[n],) * len(factors) if v is None else tuple(v) for n, v in given.items()}
        for name, entries in given.items():
            if len(entries) != len(factors):
                raise ValueError(
                    f"NetworkSpec.{name} needs an entry for each of {len(factors)} factors, got {len(entries)}"
                )
        if self.vectors < 1:
            raise ValueError(f"vectors must be 1 or more, got {self.vectors}")
        check_target(self.target)
        if self.roms not in ROMS:
            raise ValueError(f"roms must be one of {', '.join(ROMS)}, got {self.roms!r}")
        if self.roms != "initial" and self.target != "plain":
            raise ValueError(
                f"roms = {self.roms!r}: of target 'plain' alone; ROMs of {self.target} are primitives, whose contents "
                "no synthesis ignores"
            )
        lanes = list(given["lanes"])
        for n, (name, engine, f, simd) in enumerate(zip(names, given["engines"], factors, given["simd"])):
            if engine not in ENGINES:
                raise ValueError(f"stage {name}: engine must be one of {', '.join(ENGINES)}, got {engine!r}")
            lanes[n] = {"folded": 1, "spatial": f.pattern.outputs}.get(engine, lanes[n] or 1)
            if engine == "pipelined":
                check_parallelism(f.pattern, lanes[n], simd or 1, f"stage {name}")
        object.__setattr__(self, "lanes", tuple(lanes))
        object.__setattr__(self, "engines", given["engines"])
        object.__setattr__(self, "lut", given["lut"])
        for layer, start, stop, _ in self.groups:
            if self.engines[start] == "folded":
                check_fold(factors[start:stop], f"stage {names[start]}", stop - start == len(layer.factors))
        object.__setattr__(self, "simd", self._choose_simd(given["simd"]))

    @cached_property
    def groups(self):
        """(layer, start, stop, whether the layer's last) of the factors of each engine, in order."""
        found, first = [], 0
        for layer in self.network.layers:
            after = first + len(layer.factors)
            runs = groupby(range(first, after), key=lambda n: -1 if self.engines[n] == "folded" else n)
            for _, run in runs:
                run = list(run)
                found.append((layer, run[0], run[-1] + 1, run[-1] + 1 == after))
            first = after
        return tuple(found)

    def _choose_simd(self, given):
        """The SIMD that was given, or the smallest that loses nothing against the interval that no choice could
        better.
        """
        factors, best = self.network.factors, 1
        for _, start, stop, _ in self.groups:
            f, engine = factors[start], self.engines[start]
            if engine == "folded":
                best = max(best, FoldSpec(factors=factors[start:stop]).interval)
            elif engine == "pipelined":
                best = max(best, max(f.pattern.inputs, f.pattern.outputs) // self.lanes[start])
        chosen = []
        for f, engine, lanes, simd in zip(factors, self.engines, self.lanes, given):
            beats = f.pattern.outputs // lanes
            if engine != "pipelined":
                simd = f.pattern.c
            chosen.append(
                simd or min(v for v in divisors(f.pattern.c) if beats * (f.pattern.c // v) <= max(best, beats))
            )
        return tuple(chosen)

    @cached_property
    def stages(self):
        """The specification of each engine: StageSpec, FoldSpec or SpatialSpec."""
        stages, lanes, flight = [], None, ENTRY
        for layer, start, stop, _ in self.groups:
            factors, engine = self.network.factors[start:stop], self.engines[start]
            common = {"factor": factors[0], "vectors": self.vectors, "flight": flight}
            taken = factors[0].pattern.inputs if engine == "spatial" else self.lanes[start]
            if lanes not in (None, taken) or flight > LONG:
                common["flight"] = ENTRY  # behind a FIFO, beats arrive as they are granted
            parts = {"target": "cases" if self.roms == "case" else self.target, "lut": self.lut[start]}
            if engine == "spatial":
                stages.append(SpatialSpec(**common))
            elif engine == "folded":
                prompt = not stages or self.stream_time <= factors[0].pattern.inputs
                stages.append(
                    FoldSpec(factors=factors, vectors=self.vectors, prompt=prompt, paired=self.paired, **parts)
                )
            else:
                positive = bool(stages) and stages[-1].factors[-1].relu and factors[0].input.width > 1
                own = {"lanes": self.lanes[start], "simd": self.simd[start], "positive": positive}
                stages.append(StageSpec(**own, **common, **parts))
            lanes, flight = stages[-1].lanes_out, stages[-1].output_flight
        return tuple(stages)

    @property
    def stream_time(self):
        """Cycles in which a frame passes the slowest engine that is not folded."""
        times = [1]
        for f, engine, lanes, simd in zip(self.network.factors, self.engines, self.lanes, self.simd):
            if engine == "pipelined":
                p = f.pattern
                times.append(max(p.inputs, p.outputs * (p.c // simd)) // lanes)
        return max(times)

    @cached_property
    def queues(self):
        """For each engine None, or the beats that a FIFO in front of it holds beyond those on their way.

        A folded engine counts on beats that arrive a known time after they are granted, so it has a FIFO unless it
        comes first. It takes and gives a frame in a burst: where others are slower than that, the FIFO holds a frame.
        Elsewhere a FIFO cuts a long time between grant and arrival.
        """
        found = []
        for before, after in zip((None, *self.stages), self.stages):
            if before is None:
                found.append(None)
            elif isinstance(after, FoldSpec):
                found.append(0 if after.prompt else after.size)
            else:
                slow = isinstance(before, FoldSpec) and self.stream_time > before.size
                found.append(before.size if slow else 0 if before.output_flight > LONG else None)
        return tuple(found)

    @cached_property
    def layers(self):
        """The engines of each layer, a tuple of tuples."""
        layers = [[]]
        for stage, (_, _, _, last) in zip(self.stages, self.groups):
            layers[-1].append(stage)
            if last:
                layers.append([])
        return tuple(map(tuple, layers[:-1]))

    @property
    def lanes_in(self):
        return self.stages[0].lanes_in

    @property
    def lanes_out(self):
        return self.stages[-1].lanes_out

    @property
    def beats_in(self):
        return self.stages[0].beats_in

    @property
    def beats_out(self):
        return self.stages[-1].beats_out

    @property
    def interval(self):
        """Cycles from a frame's first beat to the next one's, in steady state: those of the slowest engine.

        (A converter passes as many beats as the engine on its narrower side takes or gives.)
        """
        return max(stage.interval for stage in self.stages)

    @cached_property
    def latency(self):
        """Cycles from the first accepted input beat to the first valid output beat of the core, empty and unstalled."""
        return ENTER + self.pipeline_latency

    @property
    def pipeline_latency(self):
        """The same for the bare pipeline, `Network`."""
        return self._schedule[0]

    @cached_property
    def _schedule(self):
        """The first frame's way through: the latency, and for each layer the beats its residual's FIFO must hold."""
        times, lanes, depths, queues = np.arange(self.beats_in) + ENTRY, self.lanes_in, [], iter(self.queues)
        for layer in self.layers:
            entered = skip = None
            for stage in layer:
                times = convert_times(times, lanes, stage.lanes_in, always=next(queues) is not None)
                if entered is None:
                    entered = times
                if stage.takes_skip:
                    wide = max(layer[0].lanes_in, stage.lanes_out)
                    entered = convert_times(entered, layer[0].lanes_in, wide)
                    skip = convert_times(entered + FIFO_LATENCY, wide, stage.lanes_out, fifo=False)
                arrived, times, lanes = times, stage.output_times(times, skip), stage.lanes_out
            depths.append(
                None if skip is None else self._skip_depth(layer, entered, layer[-1].skip_times(arrived, times))
            )
        return int(times[0]) + FIFO_LATENCY, tuple(depths)

    def _skip_depth(self, layer, entered, taken):
        """Beats, of the wider side, of a residual's FIFO: enough for the interval and for a first frame that runs
        ahead.

        The interval is kept, as in `StageSpec.slots`, if the FIFO holds what enters the layer in the slowest schedule
        before its last stage takes the first of it. entered, taken: cycles of a beat into the FIFO and out of it.
        """
        cycles = sum(stage.keeps(self.interval) for stage in layer)
        steady = ceil(cycles * len(entered) / self.interval)
        gone = np.arange(len(taken)) * len(entered) // len(taken)
        ahead = np.searchsorted(entered, taken, side="right") - gone
        return max(steady, int(ahead.max())) + layer[0].flight + 4

    @property
    def skip_depths(self):
        """Beats of each layer's residual FIFO, None for a layer without."""
        return self._schedule[1]

    @property
    def exit_depth(self):
        """Beats that the FIFO behind the last engine holds."""
        return self.stages[-1].output_flight + QUEUE

    @property
    def frames_in_flight(self):
        """Frames inside at once, at most: what all buffers, pipelines and FIFOs can hold."""
        ends = 16 / self.beats_in + 2 * self.exit_depth / self.beats_out
        between = sum((4 * max(self.lanes) + 2 * s.flight + 16) / s.factors[0].pattern.inputs for s in self.stages)
        queues = sum(beats / s.beats_in for s, beats in zip(self.stages, self.queues) if beats)
        return ceil(2 + ends + between + 2 * queues + sum(s.holds for s in self.stages))

    @property
    def multipliers(self):
        return sum(stage.multipliers for stage in self.stages)

    @property
    def rom_bits(self):
        return sum(stage.rom_bits for stage in self.stages)

    @property
    def buffer_bits(self):
        """Bits of the engines' buffers and of the residuals' FIFOs."""
        skips = (
            (1 << (depth - 1).bit_length())
            * max(layer[0].lanes_in, layer[-1].lanes_out)
            * self.vectors
            * layer[0].factors[0].input.width
            for layer, depth in zip(self.layers, self.skip_depths)
            if depth
        )
        return sum(stage.buffer_bits for stage in self.stages) + sum(skips)


def convert_times(times, before, after, *, fifo=True, always=False):
    """Cycles at which beats of `before` lanes, coming at `times`, leave a converter as beats of `after` lanes.

    fifo: with the FIFO before it and the register behind it; always: those also between equal lanes.
    """
    if before == after:
        return times + FIFO_LATENCY + ENTRY if always else times
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
    return np.array(result) + (ENTRY if fifo else 0)
