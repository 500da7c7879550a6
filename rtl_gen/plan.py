"""The plan of a core: which engine serves which factors of an integer network, what is between them, and the cycles and
bits that it will take.
"""

from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from functools import cached_property
from itertools import groupby
from math import ceil

import numpy as np

from bfthw import IntNetwork
from bfthw.golden import short_stage
from bfthw.reading import owned

from .choices import by_factor, by_layer, options_of
from .engines import Engine, engine_class
from .engines.engine import figure
from .stream import ENTER, ENTRY, FIFO_LATENCY, QUEUE, Gearbox
from .tech import check_target

LONG = 16  # cycles between grant and arrival from which a FIFO is smaller than what they cost further on
ROMS = ("initial", "case", "readmemh")
DEFAULT = "pipelined"  # engine


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """An IntNetwork and what is chosen for its hardware.

    choices: layer → {"engine": kind, option: value}, each a value for all of the layer's factors or a list with an
    entry for each; the options are those of the engines (rtl_gen.engines), and what is left out is as they have it, or
    follows from the rest: the smallest SIMD that does not slow the network below what its lanes and engines allow.
    Given or not, all of it is there in `choices` afterwards. vectors: whole vectors side by side in every beat. target:
    of the technology layer. roms: where a plain core's weights are, in `initial` contents of memories, in "case"
    statements, or in files that "readmemh" reads. count_beats: a frame ends after its beats, whatever TLAST says.
    Raises ValueError, which names the stage and what fits, for what a factor cannot have.

    Members
    -------
    drafts, engines, queues
        the Engines, in order, each as it would be alone, which takes no time, and as it is behind the one before it;
        for each None, or the beats that a FIFO in front of it holds beyond those on their way.
    spans, layers
        (start, stop) of each engine's factors; the engines of each layer, a tuple of tuples.
    lanes_in, lanes_out, beats_in, beats_out, interval, latency, pipeline_latency, skip_depths, exit_depth,
    frames_in_flight
        of the core and its frames, in cycles, beats and frames.
    multipliers, rom_bits, buffer_bits
    """

    network: IntNetwork
    choices: dict = field(default_factory=dict)
    vectors: int = 1
    target: str = "plain"
    roms: str = "initial"
    count_beats: bool = False

    def __post_init__(self):
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
        drafts = self._drafts()
        object.__setattr__(self, "spans", tuple(span for span, _ in drafts))
        object.__setattr__(self, "drafts", tuple(engine for _, engine in drafts))
        chosen = [engine.chosen for (start, stop), engine in drafts for _ in range(start, stop)]
        object.__setattr__(self, "choices", by_layer(self.network.names, chosen))

    def _drafts(self):
        """[((start, stop), Engine)] of the factors that share an engine, as it would be alone."""
        groups = [(*span, *self._fields(*span, whole, own)) for span, whole, own in self._groups()]
        # nothing could be faster than the slowest of these
        best = max(
            min(engine.interval for engine in cls.menu(**{k: v for k, v in fields.items() if k not in cls.left_open}))
            for *_, cls, fields in groups
        )
        drafts = []
        for start, stop, cls, fields in groups:
            engines = list(cls.menu(**fields))
            fast = [engine for engine in engines if engine.interval <= best]
            # one that was asked for may be slower
            engine = min(fast, key=lambda e: e.multipliers) if fast else min(engines, key=lambda e: e.interval)
            drafts.append(((start, stop), engine))
        return drafts

    def _groups(self):
        """((start, stop), whether that is a whole layer, choices of each) of neighbours that share an engine."""
        chosen, first = by_factor(self.network, self.choices), 0
        for layer in self.network.layers:
            after = first + len(layer.factors)
            kinds = {n: self._class(n, chosen[n]) for n in range(first, after)}
            for _, run in groupby(range(first, after), key=lambda n: kinds[n] if kinds[n].shares else n):
                run = [*run]
                yield (run[0], run[-1] + 1), len(run) == len(layer.factors), [chosen[n] for n in run]
            first = after

    def _class(self, n, chosen):
        with self._naming(n):
            return engine_class(chosen.get("engine", DEFAULT))

    def _fields(self, start, stop, whole, own):
        """The class of an engine and its fields, as far as they are given; ValueError where it cannot be."""
        cls = self._class(start, own[0])
        given = {
            "factors": self.network.factors[start:stop], "vectors": self.vectors, "whole": whole,
            "target": parts_of(self.target, self.roms),
        }
        given |= {f.name: f.default for f in fields_of(cls) if f.name in set(cls.options) - set(cls.left_open)}
        with self._naming(start):
            given |= options_of(cls, own)
            cls(**given)
        return cls, given

    def _naming(self, n):
        """The stage's name in front of what is wrong with it."""
        return owned(f"stage {short_stage(self.network.names[n])}", error=ValueError)

    @cached_property
    def engines(self) -> tuple[Engine, ...]:
        drafts = self.drafts
        found, lanes, flight, relu = [], None, ENTRY, False
        time = self._time(drafts)
        for draft in drafts:
            prompt = not found or time <= draft.factors[0].pattern.inputs
            engine = behind(draft, lanes, flight, relu=relu, prompt=prompt)
            found.append(engine)
            lanes, flight, relu = engine.lanes_out, engine.output_flight, engine.factor.relu
        return tuple(found)

    @staticmethod
    def _time(engines):
        """Cycles in which a frame passes the slowest engine that takes it evenly."""
        return max([1, *(engine.interval for engine in engines if not engine.burst)])

    @cached_property
    def queues(self) -> tuple[int | None, ...]:
        time = self._time(self.engines)
        pairs = zip(self.engines, self.engines[1:])
        return (None, *(queue_between(a.burst, a.output_flight, b, time) for a, b in pairs))

    @cached_property
    def layers(self) -> tuple[tuple[Engine, ...], ...]:
        ends = np.cumsum([len(layer.factors) for layer in self.network.layers])
        layers = [[] for _ in ends]
        for (_, stop), engine in zip(self.spans, self.engines):
            layers[np.searchsorted(ends, stop)].append(engine)
        return tuple(map(tuple, layers))

    lanes_in = figure(int, lambda self: self.engines[0].lanes_in)
    lanes_out = figure(int, lambda self: self.engines[-1].lanes_out)
    beats_in = figure(int, lambda self: self.engines[0].beats_in)
    beats_out = figure(int, lambda self: self.engines[-1].beats_out)

    @property
    def interval(self) -> int:
        """Cycles from a frame's first beat to the next one's, in steady state: those of the slowest engine.

        (A converter passes as many beats as the engine on its narrower side takes or gives.)
        """
        return max(engine.interval for engine in self.engines)

    @cached_property
    def latency(self) -> int:
        """Cycles from the first accepted input beat to the first valid output beat of the core, empty and unstalled."""
        return ENTER + self.pipeline_latency

    @property
    def pipeline_latency(self) -> int:
        """The same for the bare pipeline, between two streams."""
        return self._schedule[0]

    @cached_property
    def _schedule(self):
        """The first frame's way through: the latency, and for each layer the beats its residual's FIFO must hold."""
        times, lanes, depths, queues = np.arange(self.beats_in) + ENTRY, self.lanes_in, [], iter(self.queues)
        for layer in self.layers:
            entered = skip = None
            for engine in layer:
                times = convert_times(times, lanes, engine.lanes_in, always=next(queues) is not None)
                if entered is None:
                    entered = times
                if engine.takes_skip:
                    wide = max(layer[0].lanes_in, engine.lanes_out)
                    entered = convert_times(entered, layer[0].lanes_in, wide)
                    skip = convert_times(entered + FIFO_LATENCY, wide, engine.lanes_out, fifo=False)
                arrived, times, lanes = times, engine.output_times(times, skip), engine.lanes_out
            depths.append(
                None if skip is None else self._skip_depth(layer, entered, layer[-1].skip_times(arrived, times))
            )
        return int(times[0]) + FIFO_LATENCY, tuple(depths)

    def _skip_depth(self, layer, entered, taken):
        """Beats, of the wider side, of a residual's FIFO: enough for the interval and for a first frame that runs
        ahead.

        The interval is kept, as in `readers.Buffered.slots`, if the FIFO holds what enters the layer in the slowest
        schedule before its last engine takes the first of it. entered, taken: cycles of a beat into the FIFO and out
        of it.
        """
        cycles = sum(engine.keeps(self.interval) for engine in layer)
        steady = ceil(cycles * len(entered) / self.interval)
        gone = np.arange(len(taken)) * len(entered) // len(taken)
        ahead = np.searchsorted(entered, taken, side="right") - gone
        return max(steady, int(ahead.max())) + layer[0].flight + 4

    @property
    def skip_depths(self) -> tuple[int | None, ...]:
        """Beats of each layer's residual FIFO, None for a layer without."""
        return self._schedule[1]

    @property
    def exit_depth(self) -> int:
        """Beats that the FIFO behind the last engine holds."""
        return self.engines[-1].output_flight + QUEUE

    @property
    def frames_in_flight(self) -> int:
        """Frames inside at once, at most: what all buffers, pipelines and FIFOs can hold."""
        most = max(engine.lanes_out for engine in self.engines)
        ends = 16 / self.beats_in + 2 * self.exit_depth / self.beats_out
        between = sum((4 * most + 2 * s.flight + 16) / s.factors[0].pattern.inputs for s in self.engines)
        queues = sum(beats / s.beats_in for s, beats in zip(self.engines, self.queues) if beats)
        return ceil(2 + ends + between + 2 * queues + sum(s.holds for s in self.engines))

    multipliers = figure(int, lambda self: sum(engine.multipliers for engine in self.engines))
    rom_bits = figure(int, lambda self: sum(engine.rom_bits for engine in self.engines))

    @property
    def buffer_bits(self) -> int:
        """Bits of the engines' buffers and of the residuals' FIFOs."""
        skips = (
            (1 << (depth - 1).bit_length())
            * max(layer[0].lanes_in, layer[-1].lanes_out)
            * self.vectors
            * layer[0].factors[0].input.width
            for layer, depth in zip(self.layers, self.skip_depths)
            if depth
        )
        return sum(engine.buffer_bits for engine in self.engines) + sum(skips)


def parts_of(target, roms):
    """The name of the Technology that engines are made of."""
    return "cases" if roms == "case" else target


def behind(draft, lanes, flight, *, relu, prompt):
    """An Engine as it is behind one of so many lanes (None: first of all) whose beats take `flight` from their grant;
    relu: behind a ReLU. prompt: as in Engine.
    """
    if lanes not in (None, draft.lanes_in) or flight > LONG or draft.known_flight:
        flight = ENTRY  # behind a FIFO, beats arrive as they are granted
    q = draft.factors[0].input
    return replace(draft, flight=flight, positive=relu and q.signed and q.width > 1, prompt=prompt)


def queue_between(burst, flight, after, time):
    """Beats that a FIFO in front of the Engine `after` holds beyond those on their way; None for no FIFO.

    burst, flight: of the engine before; time: cycles in which a frame passes the slowest engine that takes it evenly.
    An engine that counts on beats that arrive a known time after they are granted has a FIFO. One that takes and gives
    a frame in a burst has room for one where others are slower. Elsewhere a FIFO cuts a long time between grant and
    arrival.
    """
    if after.known_flight:
        return 0 if after.prompt else after.burst
    if burst and time > burst:
        return burst
    return 0 if flight > LONG else None


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
