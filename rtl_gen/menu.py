"""What can serve the stages of a network, merged along it into Pareto fronts of what it takes."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations, groupby, islice
from math import inf
from operator import add, itemgetter, le

import numpy as np

from .choice import SPARE, Choice, priced
from .choices import by_layer, by_stage, options_of
from .cost import Tally
from .engines.engine import serving
from .fifo import QUEUE
from .pipeline import between_cost, own_cost
from .plan import Plan, behind, costed, parts_of
from .size import too_large, too_large_engines
from .stages import INPUT, over_maps, stages_of
from .stream import ENTRY, FromStream
from .tech import technology
from .timetable import queue_between
from .top import entry_cost, exit_cost

FIGURES = "multipliers", "RAM", "LUT", "DSP"  # of a way; fronts are of the first three, which DSP follow
WORTH = 1.5  # times as many multipliers as need be that an engine over a map may have
NEAR = 1.1  # times what there is that figures of a way may be for a plan to be made of it
MOST_WAYS = 24  # that are kept of a front along a network over maps


class Menu:
    """What can serve each run of stages, for a number of vectors side by side, and the Pareto fronts it makes.

    segments: start of a run → [(stop, Engine as it would be alone)]. intervals: of all engines, in the network's
    frames. prompt: each engine as it is where its beats come as fast as they are granted.
    """

    def __init__(self, network, vectors, kinds, *, choices=None, roms="initial", **kept):
        self.network, self.vectors, self.stages = network, vectors, stages_of(network)
        self.over_maps = over_maps(self.stages)
        self.kept = {"choices": choices or {}, "roms": roms, **kept}
        self.tech = technology(costed(priced(kept.get("target", "plain")), roms))
        self.counted = kept.get("count_beats", False)
        self.segments = {n: [] for n in range(len(self.stages))}
        self.last_taken = {stage.takes[0]: n for n, stage in enumerate(self.stages)}  # of each the last that takes it
        self._costs = {}
        given, first = by_stage(self.stages, choices or {}), 0
        fields = {"vectors": vectors, "prompt": False, "target": parts_of(kept.get("target", "plain"), roms)}
        for stage in self.stages:
            serving(stage)  # by some engine at all
        for _, layer in groupby(self.stages, key=lambda stage: stage.owner):
            after = first + len([*layer])
            for start, stop in combinations(range(first, after + 1), 2):
                fields["whole"] = (start, stop) == (first, after)
                for cls in kinds:
                    served = cls.serves(self.stages[start:stop]) if cls.shares or stop == start + 1 else None
                    if served is not None:
                        engines = cls.menu(**served, **fields, **options_of(cls, given[start:stop]))
                        # what is too large to be built may take as long to be costed
                        small = [engine for engine in engines if not too_large_engines([engine], vectors)]
                        self.segments[start] += [(stop, engine) for engine in small]
            first = after
        engines = [engine for found in self.segments.values() for _, engine in found]
        self.prompt = {engine: replace(engine, prompt=True) if engine.burst else engine for engine in engines}
        self.intervals = {
            e.interval * self.stages[start].frames(e)
            for start, found in self.segments.items() for _, engine in found for e in (engine, self.prompt[engine])
        }

    def shared(self):
        """Numbers of the stages that can share an engine with neighbours."""
        runs = (range(n, stop) for n, found in self.segments.items() for stop, engine in found if engine.shares)
        return {n for run in runs for n in run}

    def serving(self, limit, time):
        """Start → [(stop, Engine)] of at most `limit` cycles a frame, `time` where a frame is taken evenly."""
        found = {}
        for start, engines in self.segments.items():
            stage = self.stages[start]
            prompt = stage.takes[0] == INPUT or not self.over_maps and time <= stage.shape.size
            there = ((stop, self.prompt[engine] if prompt else engine) for stop, engine in engines)
            found[start] = [
                (stop, e) for stop, e in there
                if e.interval * stage.frames(e) <= (limit if e.burst else time)
            ]
            if self.over_maps:
                found[start] = slowest(found[start])
        return found

    def fronts(self, limit, multipliers=inf, room=None, *, fewest=False):
        """[(figures, way)], ascending, of engines of at most `limit` cycles a frame: none is better than another in
        multipliers, RAM and LUT alike. Figures are sums over the engines and what is between; a way is (Engine, way
        before it). fewest: of as few multipliers as there can be.
        """
        # engines that take a frame in a burst count on how fast all others are: each time that matters to one
        bursts = {engine.burst for found in self.segments.values() for _, engine in found if engine.burst}
        times = {limit} if self.over_maps else {limit, *(burst for burst in bursts if burst < limit)}
        serving = {time: self.serving(limit, time) for time in times}
        if fewest:
            multipliers = min(multipliers, *(least(found)[0] for found in serving.values()))
        ways = [way for time, found in serving.items() for way in self._front(found, time, multipliers, room)]
        return front(ways)

    def _front(self, serving, time, multipliers, room):
        most = (multipliers, *(inf if room is None else room.get(key, 0) for key in FIGURES[1:]))
        if self.may_spare:
            most = (*most[:3], inf)
        rest = least(serving)
        # before a stage: what of those before it is still to be taken, {stage: (lanes, flight, burst)} in pairs → ways
        ends = defaultdict(lambda: defaultdict(list))
        ends[0][(INPUT, (None, ENTRY, 0)),] = [((0,) * len(FIGURES), None)]
        for start, found in serving.items():
            (source, *_) = self.stages[start].takes
            for there, ways in ends[start].items():
                end = dict(there)[source]
                if not (ways := front(ways)):
                    continue
                if self.over_maps:
                    ways = thinned(ways)
                for stop, draft in found:
                    if ways[0][0][0] + draft.multipliers + rest[stop] > multipliers:
                        continue
                    engine, cost = self._placed(start, stop, draft, end, time)
                    ahead = [(tuple(map(add, sums, cost)), (draft, way)) for sums, way in ways]
                    given = *there, (stop - 1, (engine.lanes_out, engine.output_flight, engine.burst))
                    after = tuple(pair for pair in given if self.last_taken.get(pair[0], 0) >= stop)
                    ends[stop][after] += [way for way in ahead if all(map(le, way[0], most))]
        return [way for ways in ends[len(serving)].values() for way in ways]

    def _placed(self, start, stop, draft, end, time):
        """An engine behind others, and its figures, with those of what is in front of it and, behind the
        last one, of what it leaves by.
        """
        (source, *_), (lanes, flight, burst) = self.stages[start].takes, end
        relu = source != INPUT and self.stages[source].work.relu
        engine = behind(draft, lanes, flight, relu=relu, prompt=draft.prompt)
        positions = self.stages[start].frames(engine)
        queue = queue_between(burst, flight, engine, max(1, time // positions)) if source != INPUT else None
        if source != INPUT:
            what = engine.takes.width, lanes, engine.lanes_in, flight, queue
            between = self._cost(what, between_cost, engine, lanes, flight, queue)
        else:
            between = self._cost(("entry", engine.lanes_in), self._entry, engine)
        costs = [self._cost(engine, own_cost, engine), between]
        if stop == len(self.segments):
            what = "exit", engine.lanes_out, engine.output_flight, engine.beats_out * positions
            costs.append(self._cost(what, self._exit, engine, engine.beats_out * positions))
        return engine, (engine.multipliers, *map(sum, zip(*costs)))

    def _cost(self, key, add_up, *arguments):
        """Figures, but for multipliers, of what a function adds to a tally; key: what they follow from."""
        if key not in self._costs:
            tally = Tally(self.tech)
            add_up(tally, *arguments)
            self._costs[key] = tuple(tally.sum[figure] for figure in FIGURES[1:])
        return self._costs[key]

    def _entry(self, tally, engine):
        width = self.network.input.width * engine.lanes_in * self.vectors
        entry_cost(tally, width, self.counted)
        FromStream.cost(tally, width)

    def _exit(self, tally, engine, beats):
        width, depth = self.network.output.width * engine.lanes_out, engine.output_flight + QUEUE
        exit_cost(tally, width * self.vectors, depth, beats, self.counted)

    @property
    def may_spare(self):
        """Whether products may be of tables where multipliers run out."""
        given = self.kept["choices"].values()
        target = self.kept.get("target", "plain")
        return self.over_maps and target != "plain" and not any("products" in table for table in given)

    def spared(self, engines, room):
        """The engines of a way, with products of tables where there are not as many multipliers, those first whose
        tables are the fewest for each; the multipliers still missing, and the LUT more.
        """
        spare = {}
        for n, engine in enumerate(engines if room and self.may_spare else ()):
            if "products" in engine.options and engine.multipliers:
                other = replace(engine, products="lut")
                lut, dsp = (b - a for a, b in zip(*(self._cost(e, own_cost, e)[1:] for e in (engine, other))))
                spare[n] = lut / max(1, -dsp), -dsp, other
        lack, more = sum(self._cost(e, own_cost, e)[2] for e in engines) - (room or {}).get("DSP", inf), 0
        for n, (lut, dsp, other) in sorted(spare.items(), key=lambda item: item[1][:2]):
            if lack > 0 and dsp:
                engines[n], lack, more = other, lack - dsp, more + lut * dsp
        return engines, lack, more

    def choice(self, way, room=None, lut=0):
        """The Choice of a way; None where it is too large to be built or, given its figures' `lut`, for a room."""
        chosen, engines = [], []
        while way:
            engine, way = way
            engines.insert(0, engine)
        engines, lack, more = self.spared(engines, room)
        # a plan takes its time, so what is far from fitting has none
        if lut and (lack > 0 or more and lut + more > NEAR * SPARE * room.get("LUT", 0)):
            return None
        for engine in engines:
            chosen += [engine.chosen] * max(1, len(engine.factors))
        choices = by_layer([stage.owner for stage in self.stages], chosen)
        plan = Plan(network=self.network, vectors=self.vectors, **{**self.kept, "choices": choices})
        return None if too_large(plan) else Choice(plan=plan)

    def cheapest(self, interval, multipliers=inf, room=None):
        """The Choice of the fewest multipliers, then LUT, then block RAMs, at an interval; None for none that fits."""
        # the fewest first: more of them only where those do not fit
        for fewest in (True, False):
            ways = self.fronts(interval * self.vectors, multipliers, room, fewest=fewest)
            plans = (self.choice(way, room, figures[2]) for figures, way in ways)
            found = (choice for choice in plans if choice and choice.fits(room))
            if self.over_maps:  # a choice takes its time there
                found = islice(found, 1)
            if best := min(found, key=rank, default=None):
                return best
        return None


def thinned(ways):
    """At most MOST_WAYS of a front: both ends, and what costs least by prices between them."""
    if len(ways) <= MOST_WAYS:
        return ways
    figures = np.array([own[:3] for own, _ in ways], float)
    figures = (figures - figures.min(0)) / np.maximum(np.ptp(figures, axis=0), 1e-9)
    prices = np.random.default_rng(0).dirichlet(np.full(3, 0.5), 4 * MOST_WAYS)
    kept = np.unique(np.concatenate([figures.argmin(0), (figures @ prices.T).argmin(0)]))
    return [ways[n] for n in kept[:: -(-len(kept) // MOST_WAYS)]]


def slowest(found):
    """Of (stop, Engine) that differ in what they take at once alone, those of the fewest multipliers."""
    kept = {}
    for stop, engine in found:
        key = stop, engine.kind, engine.lanes_in, engine.lanes_out, engine.burst and engine.multipliers
        if key not in kept or engine.multipliers < kept[key][1].multipliers:
            kept[key] = stop, engine
    fewest = defaultdict(lambda: inf)
    for stop, engine in kept.values():
        fewest[stop] = min(fewest[stop], engine.multipliers)
    # wider beats with more multipliers than need be are worth no thought
    return [(stop, engine) for stop, engine in kept.values() if engine.multipliers <= WORTH * fewest[stop] + 1]


def least(serving):
    """The fewest multipliers that serve all factors from each one on."""
    rest = [inf] * len(serving) + [0]
    for start in reversed(serving):
        rest[start] = min((engine.multipliers + rest[stop] for stop, engine in serving[start]), default=inf)
    return rest


def rank(choice):
    return choice.plan.multipliers, choice.needs["LUT"], choice.needs["RAM"]


def front(ways):
    """Those that no other is at least as good as in everything, ascending."""
    kept = []
    for figures, way in sorted(ways, key=itemgetter(0)):
        if not any(ram <= figures[1] and lut <= figures[2] for (_, ram, lut, _), _ in kept):
            kept.append((figures, way))
    return kept
