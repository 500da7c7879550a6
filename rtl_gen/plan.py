"""The plan of a core: which engine serves which stages of an integer network, what is between them, and the cycles and
bits that it will take.
"""

from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from functools import cached_property
from itertools import groupby
from math import ceil

from bfthw import IntNetwork
from bfthw.golden import short_stage
from bfthw.reading import owned

from .choices import by_layer, by_stage, options_of
from .engines import Engine, engine_class
from .engines.engine import figure, serving
from .fifo import ENTER, QUEUE, fifo_bits
from .stages import INPUT, over_maps, stages_of
from .stream import ENTRY
from .tech import VARIANTS, check_target
from .timetable import LONG, Join, Skip, Timetable

ROMS = ("initial", "case", "readmemh", "tables", "blocks")
DEFAULT = "pipelined"  # engine


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """An IntNetwork and what is chosen for its hardware.

    network: of nodes each behind any of those before it. A frame is what it takes at once: a vector
    or, over maps, an image, its pixels in rows, channels fastest. choices: layer → {"engine": kind, option:
    value}, each a value for all of the layer's factors or a list with an entry for each; the options are those of the
    engines (rtl_gen.engines), and what is left out is as they have it, or follows from the rest: the smallest SIMD that
    does not slow the network below what its lanes and engines allow. An engine that takes no windows stands behind one
    that does. Given or not, all of it is there in `choices` afterwards. vectors: whole vectors side by side in every
    beat. target: of the technology layer. roms: where a plain core's weights are, in `initial` contents of memories,
    in "case" statements, or in files that "readmemh" reads; of other targets, in block RAMs but for those of few
    words ("initial"), all of them in block RAMs ("blocks"), where new numbers can be patched in, or small memories in
    tables where block RAMs are worth more ("tables"). count_beats: a frame ends after its beats, whatever TLAST says.
    Raises ValueError, which names the stage and what fits, for what a factor cannot have.

    Members
    -------
    drafts, engines, queues
        the Engines, in order, each as it would be alone, which takes no time, and as it is behind the one that it
        takes; for each None, or the beats that a FIFO in front of it holds beyond those on their way.
    sources, joins, skip_depths
        of each engine: the number of the one that it takes, INPUT for the network's input; None, or the Join of what is
        added; and the beats that the FIFO of that holds.
    stages, spans
        stages.Stages; (start, stop) of those of each engine.
    timetable
        a Timetable, where latency, queues and skip_depths are from.
    positions
        of each engine: its frames in one of the core's, those of the map that it takes where it takes vectors.
    lanes_in, lanes_out, beats_in, beats_out, interval, latency, pipeline_latency, exit_depth, frames_in_flight
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
        with self._naming(0):
            kind = engine_class(chosen[0].get("engine", DEFAULT))
        if kind.spans_network:
            yield (0, len(chosen)), True, chosen
            return
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
            cls = engine_class(chosen.get("engine", DEFAULT))
        if cls.spans_network:
            self._check_spanning(cls)
            return cls
        kinds = serving(self.stages[n])
        return cls if cls in kinds else kinds[0]

    def _check_spanning(self, cls):
        """ValueError, of the first stage, where an engine of the whole network cannot be that."""
        for n, one in enumerate(by_stage(self.stages, self.choices)):
            with self._naming(n):
                if one.get("engine", DEFAULT) != cls.kind:
                    raise ValueError(f"engine {cls.kind!r} is that of all layers, or of none")
                if what := cls.lacks(self.stages[n]):
                    raise ValueError(f"engine {cls.kind!r} has no way to compute {what}; engines of its own may have")

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
        found = []
        for draft, source, time in zip(self.drafts, self.sources, self.paces(self.drafts)):
            # over maps beats come in rows, and not as fast as they are granted
            prompt = source == INPUT or not self.over_maps and time <= draft.beats_in * draft.lanes_in
            if source == INPUT:
                found.append(behind(draft, None, ENTRY, relu=False, prompt=prompt))
            else:
                before = found[source]
                found.append(behind(draft, before.lanes_out, before.output_flight, relu=before.relu, prompt=prompt))
        return tuple(found)

    def paces(self, engines: tuple[Engine, ...]) -> list[int]:
        """For each the cycles in which one of its frames passes the slowest engine that takes it evenly."""
        most = max([1, *(e.interval * p for e, p in zip(engines, self.positions) if not e.burst)])
        return [max(1, most // positions) for positions in self.positions]

    @cached_property
    def sources(self) -> tuple[int, ...]:
        ends = {stop - 1: number for number, (_, stop) in enumerate(self.spans)} | {INPUT: INPUT}
        return tuple(ends[self.stages[start].takes[0]] for start, _ in self.spans)

    @cached_property
    def joins(self) -> tuple[Join | None, ...]:
        ends, found = {INPUT: INPUT}, []
        firsts = {}  # the first engine of each layer
        for number, (start, stop) in enumerate(self.spans):
            first = firsts.setdefault(self.stages[start].owner, number)
            ends[stop - 1] = number
            join = None
            if self.drafts[number].takes_skip:
                stage = self.stages[stop - 1]
                join = Join(first, True) if stage.residual else Join(ends[stage.takes[1]], False)
            found.append(join)
        return tuple(found)

    @property
    def entry(self) -> Engine:
        """One that takes the network's input, and says in which beats that comes."""
        return self.engines[self.sources.index(INPUT)]

    lanes_in = figure(int, lambda self: self.entry.lanes_in)
    lanes_out = figure(int, lambda self: self.engines[-1].lanes_out)
    beats_in = figure(int, lambda self: self.entry.beats_in * self.positions[self.sources.index(INPUT)])
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

    @cached_property
    def timetable(self) -> Timetable:
        return Timetable(self)

    pipeline_latency = figure(int, lambda self: self.timetable.latency)  # the same for the bare pipeline
    queues = figure(tuple[int | None, ...], lambda self: self.timetable.queues)
    skip_depths = figure(tuple[int | None, ...], lambda self: self.timetable.depths)

    def layer(self, number: int) -> int:
        """The number of an engine's layer."""
        owners = [stage.owner for stage in self.stages]
        return [*dict.fromkeys(owners)].index(owners[self.spans[number][0]])

    def end(self, number: int) -> tuple[int, int]:
        """Lanes of what an engine gives, or of the INPUT, and cycles from grant to arrival."""
        if number == INPUT:
            return self.lanes_in, ENTRY
        return self.engines[number].lanes_out, self.engines[number].output_flight

    def skip(self, number: int) -> Skip:
        """What an engine adds."""
        join, engine = self.joins[number], self.engines[number]
        first = self.engines[join.engine]
        lanes, flight = (first.lanes_in, first.flight) if join.inside else self.end(join.engine)
        bits = engine.adds.width * self.vectors
        return Skip(lanes=lanes, flight=flight, wide=max(lanes, engine.lanes_out), bits=bits)

    @property
    def outside(self) -> dict:
        """Further members of the core, those of its engines."""
        return {name: member for engine in self.engines for name, member in engine.outside.items()}

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
            fifo_bits(depth, self.skip(number).wide * self.skip(number).bits)
            for number, depth in enumerate(self.skip_depths)
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
