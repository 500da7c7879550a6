"""The plan of a core: which engine serves which stages of an integer network, what is between them, and the cycles and
bits that it will take.
"""

from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from functools import cached_property
from itertools import groupby, islice
from math import ceil
from operator import itemgetter

import numpy as np

from bfthw import IntNetwork
from bfthw.golden import short_stage
from bfthw.reading import owned

from .choices import by_layer, by_stage, options_of
from .engines import ENGINES, Engine, engine_class
from .engines.engine import figure
from .fifo import DEEP_LATENCY, ENTER, FIFO_LATENCY, QUEUE, fifo_bits, fifo_latency
from .row import over_maps, stages_of
from .schedule import convert_times, output_times
from .stream import ENTRY
from .tech import VARIANTS, check_target

LONG = 16  # cycles between grant and arrival from which a FIFO is smaller than what they cost further on
ROMS = ("initial", "case", "readmemh", "tables", "blocks")
DEFAULT = "pipelined"  # engine


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """An IntNetwork and what is chosen for its hardware.

    network: of nodes in a row, each of which takes the one before it. A frame is what it takes at once: a vector or,
    over maps, an image, its pixels in rows, channels fastest. choices: layer → {"engine": kind, option: value}, each
    a value for all of the layer's factors or a list with an entry for each; the options are those of the engines
    (rtl_gen.engines), and what is left out is as they have it, or follows from the rest: the smallest SIMD that does
    not slow the network below what its lanes and engines allow. An engine that takes no windows stands behind one
    that does. Given or not, all of it is there in `choices` afterwards. vectors: whole vectors side by side in every
    beat. target: of the technology layer. roms: where a plain core's weights are, in `initial` contents of memories,
    in "case" statements, or in files that "readmemh" reads; of other targets, in block RAMs but for those of few
    words ("initial"), all of them in block RAMs ("blocks"), where new numbers can be patched in, or small memories in
    tables where block RAMs are worth more ("tables"). count_beats: a frame ends after its beats, whatever TLAST says.
    Raises ValueError, which names the stage and what fits, for what a factor cannot have.

    Members
    -------
    drafts, engines, queues
        the Engines, in order, each as it would be alone, which takes no time, and as it is behind the one before it;
        for each None, or the beats that a FIFO in front of it holds beyond those on their way.
    stages, spans, layers
        row.Stages; (start, stop) of those of each engine; the engines of each layer, a tuple of tuples.
    positions
        of each engine: its frames in one of the core's, those of the map that it takes where it takes vectors.
    lanes_in, lanes_out, beats_in, beats_out, interval, latency, pipeline_latency, skip_depths, exit_depth,
    frames_in_flight
        of the core and its frames, in cycles, beats and frames. Over maps the latency is the least: it counts on beats
        that come as fast as the core could take them, which it does not take where buffers are full.
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
        if self.roms in VARIANTS and self.target == "plain":
            raise ValueError(f"roms = {self.roms!r}: target 'plain' leaves that to synthesis; name ecp5, ice40 or gowin")
        if self.roms not in ("initial", *VARIANTS) and self.target != "plain":
            raise ValueError(
                f"roms = {self.roms!r}: of target 'plain' alone; ROMs of {self.target} are primitives, whose contents "
                "no synthesis ignores"
            )
        object.__setattr__(self, "stages", stages_of(self.network))
        drafts = self._drafts()
        object.__setattr__(self, "spans", tuple(span for span, _ in drafts))
        object.__setattr__(self, "drafts", tuple(engine for _, engine in drafts))
        chosen = [engine.chosen for (start, stop), engine in drafts for _ in range(start, stop)]
        object.__setattr__(self, "choices", by_layer([stage.owner for stage in self.stages], chosen))

    def _drafts(self):
        """[((start, stop), Engine)] of the stages that share an engine, as it would be alone."""
        groups = [(*span, *self._fields(*span, whole, own)) for span, whole, own in self._groups()]
        menus = [list(cls.menu(**fields)) for *_, cls, fields in groups]
        # nothing could be faster than the slowest of these
        best = 1
        for start, stop, cls, fields in groups:
            free = cls.menu(**{k: v for k, v in fields.items() if k not in cls.left_open})
            best = max(best, min(engine.interval for engine in free) * self.stages[start].frames(cls))
        drafts = []
        for (start, stop, cls, _), engines in zip(groups, menus):
            fast = [engine for engine in engines if engine.interval * self.stages[start].frames(cls) <= best]
            # one that was asked for may be slower
            engine = min(fast, key=lambda e: e.multipliers) if fast else min(engines, key=lambda e: e.interval)
            drafts.append(((start, stop), engine))
        return drafts

    def _groups(self):
        """((start, stop), whether that is a whole layer, choices of each) of neighbours that share an engine."""
        chosen, first = by_stage(self.stages, self.choices), 0
        for _, layer in groupby(self.stages, key=lambda stage: stage.owner):
            after = first + len([*layer])
            kinds = {n: self._class(n, chosen[n]) for n in range(first, after)}
            for _, run in groupby(range(first, after), key=lambda n: kinds[n] if kinds[n].shares else n):
                run = [*run]
                yield (run[0], run[-1] + 1), len(run) == after - first, [chosen[n] for n in run]
            first = after

    def _class(self, n, chosen):
        """The kind that was chosen where it serves the stage, else one that does."""
        with self._naming(n):
            cls, stage = engine_class(chosen.get("engine", DEFAULT)), self.stages[n : n + 1]
            serving = [kind for kind in ENGINES.values() if kind.serves(stage) is not None]
            return cls if cls in serving else serving[0]

    def _fields(self, start, stop, whole, own):
        """The class of an engine and its fields, as far as they are given; ValueError where it cannot be."""
        cls = self._class(start, own[0])
        given = cls.serves(self.stages[start:stop]) | {
            "vectors": self.vectors, "whole": whole, "target": parts_of(self.target, self.roms),
        }
        given |= {f.name: f.default for f in fields_of(cls) if f.name in set(cls.options) - set(cls.left_open)}
        with self._naming(start):
            given |= options_of(cls, own)
            if not cls.sees_map or not any(True for _ in cls.menu(**given)):
                cls(**given)  # which says what does not fit
        return cls, given

    def _naming(self, n):
        """The stage's name in front of what is wrong with it."""
        return owned(f"stage {short_stage(self.stages[n].name)}", error=ValueError)

    @cached_property
    def positions(self) -> tuple[int, ...]:
        return tuple(self.stages[start].frames(draft) for draft, (start, _) in zip(self.drafts, self.spans))

    @property
    def over_maps(self) -> bool:
        return over_maps(self.stages)

    @cached_property
    def engines(self) -> tuple[Engine, ...]:
        found, lanes, flight, relu = [], None, ENTRY, False
        for draft, time in zip(self.drafts, self._times(self.drafts)):
            # over maps beats come in rows, and not as fast as they are granted
            prompt = not found or not self.over_maps and time <= draft.beats_in * draft.lanes_in
            engine = behind(draft, lanes, flight, relu=relu, prompt=prompt)
            found.append(engine)
            lanes, flight, relu = engine.lanes_out, engine.output_flight, engine.relu
        return tuple(found)

    def _times(self, engines):
        """For each the cycles in which one of its frames passes the slowest engine that takes it evenly."""
        most = max([1, *(e.interval * p for e, p in zip(engines, self.positions) if not e.burst)])
        return [max(1, most // positions) for positions in self.positions]

    @cached_property
    def queues(self) -> tuple[int | None, ...]:
        behind = zip(self.engines, self.engines[1:], self._times(self.engines)[1:])
        return (None, *(queue_between(a.burst, a.output_flight, b, time) for a, b, time in behind))

    @cached_property
    def layers(self) -> tuple[tuple[Engine, ...], ...]:
        owned = ((self.stages[start].owner, engine) for (start, _), engine in zip(self.spans, self.engines))
        return tuple(tuple(engine for _, engine in run) for _, run in groupby(owned, key=itemgetter(0)))

    lanes_in = figure(int, lambda self: self.engines[0].lanes_in)
    lanes_out = figure(int, lambda self: self.engines[-1].lanes_out)
    beats_in = figure(int, lambda self: self.engines[0].beats_in * self.positions[0])
    beats_out = figure(int, lambda self: self.engines[-1].beats_out * self.positions[-1])

    @property
    def interval(self) -> int:
        """Cycles from a frame's first beat to the next one's, in steady state: those of the slowest engine.

        (A converter passes as many beats as the engine on its narrower side takes or gives.)
        """
        return max(engine.interval * positions for engine, positions in zip(self.engines, self.positions))

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
        times, lanes, flight = np.arange(self.beats_in) + ENTRY, self.lanes_in, ENTRY
        depths, ways = [], iter(zip(self.queues, self.positions))
        for layer in self.layers:
            entered = depth = None
            own = list(islice(ways, len(layer)))
            for engine, (queue, positions) in zip(layer, own):
                fifo = fifo_latency(flight + QUEUE + (queue or 0), lanes * engine.takes.width * self.vectors)
                times = self._converted(times, lanes, engine.lanes_in, fifo, always=queue is not None)
                if entered is None:
                    entered = times
                if engine.takes_skip:
                    times, depth = self._joined(layer, [positions for _, positions in own], entered, times)
                else:
                    times = output_times(engine, positions, times)
                lanes, flight = engine.lanes_out, engine.output_flight
            depths.append(depth)
        return int(times[0]) + FIFO_LATENCY, tuple(depths)

    def _converted(self, times, before, after, fifo, **rest):
        return convert_times(times, before, after, fifo=fifo, large=self.over_maps, **rest)

    def _joined(self, layer, positions, entered, arrivals):
        """Cycles of the output beats of a layer's last engine, and beats of the FIFO of the residual that it takes.

        positions: of the layer's engines. entered: cycles of the beats into the layer; arrivals: of those at its last.
        """
        first, last = layer[0], layer[-1]
        wide, bits = max(first.lanes_in, last.lanes_out), first.takes.width * self.vectors
        entered = self._converted(
            entered, first.lanes_in, wide, fifo_latency(first.flight + QUEUE, first.lanes_in * bits)
        )
        # how many it must hold depends on how long it takes, and the other way round
        for latency in (FIFO_LATENCY, DEEP_LATENCY):
            skip = self._converted(entered + latency, wide, last.lanes_out, 0)
            times = output_times(last, positions[-1], arrivals, skip)
            depth = self._skip_depth(layer, positions, entered, last.skip_times(arrivals, times))
            if fifo_latency(depth, wide * bits) == latency:
                break
        return times, depth

    def _skip_depth(self, layer, positions, entered, taken):
        """Beats, of the wider side, of a residual's FIFO: enough for the interval and for a first frame that runs
        ahead.

        The interval is kept, as in `readers.Buffered.slots`, if the FIFO holds what enters the layer in the slowest
        schedule before its last engine takes the first of it. positions: of the engines; over maps the layer may be as
        fast as its own. entered, taken: cycles of a beat into the FIFO and out of it.
        """
        interval = self.interval
        if self.over_maps:
            interval = max(engine.interval * n for engine, n in zip(layer, positions))
        cycles = sum(engine.keeps(max(1, interval // n)) for engine, n in zip(layer, positions))
        steady = ceil(cycles * len(entered) / interval)
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
        engines = [*zip(self.engines, self.positions)]
        between = sum((4 * most + 2 * s.flight + 16) / (s.beats_in * s.lanes_in * n) for s, n in engines)
        queues = sum(beats / (s.beats_in * n) for (s, n), beats in zip(engines, self.queues) if beats)
        return ceil(2 + ends + between + 2 * queues + sum(s.holds / n for s, n in engines))

    multipliers = figure(int, lambda self: sum(engine.multipliers for engine in self.engines))
    rom_bits = figure(int, lambda self: sum(engine.rom_bits for engine in self.engines))

    @property
    def buffer_bits(self) -> int:
        """Bits of the engines' buffers and of the residuals' FIFOs."""
        skips = (
            fifo_bits(depth, max(layer[0].lanes_in, layer[-1].lanes_out) * self.vectors * layer[0].takes.width)
            for layer, depth in zip(self.layers, self.skip_depths)
            if depth
        )
        return sum(engine.buffer_bits for engine in self.engines) + sum(skips)


def parts_of(target, roms):
    """The name of the Technology that engines are made of."""
    return "cases" if roms == "case" else f"{target}-{roms}" if roms in VARIANTS else target


def costed(target, roms):
    """The name of the Technology by which they are costed: where plain HDL has its ROMs is all the same."""
    return parts_of(target, roms if roms in VARIANTS else "initial")


def behind(draft, lanes, flight, *, relu, prompt):
    """An Engine as it is behind one of so many lanes (None: first of all) whose beats take `flight` from their grant;
    relu: behind a ReLU. prompt: as in Engine.
    """
    if lanes not in (None, draft.lanes_in) or flight > LONG or draft.known_flight:
        flight = ENTRY  # behind a FIFO, beats arrive as they are granted
    q = draft.takes
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
