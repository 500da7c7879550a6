"""Which engines meet a wish: for each node the menus of all engines, merged along the network into a Pareto front."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import inf
from operator import add, itemgetter, le
from typing import Any

from bfthw import IntNetwork, Settings

from .choices import by_factor, by_layer, options_of
from .cost import Tally
from .emit import OPTIONS, check_products, hardware
from .engines import ENGINES
from .pipeline import engine_cost
from .plan import Plan, behind, parts_of, queue_between
from .size import too_large, too_large_engines
from .stream import ENTRY, QUEUE, FromStream
from .tech import technology
from .top import entry_cost, estimate, exit_cost

MOST_VECTORS = 64  # side by side, where nobody asked for more
FIGURES = "multipliers", "RAM", "LUT", "DSP"  # of a way; fronts are of the first three, which DSP follow
TINY = 256  # weights of a network that is worth a thought as adders


@dataclass(frozen=True, kw_only=True, repr=False)
class Choice:
    """A Plan that meets a wish. why: a sentence that says what it costs."""

    plan: Plan
    why: str = ""

    def __repr__(self):
        return f"<Choice {self}>"

    @property
    def interval(self) -> float:
        """Cycles a vector; those side by side share a frame's."""
        return self.plan.interval / self.plan.vectors

    @cached_property
    def what(self) -> str:
        """The engines in words."""
        found = {}
        for engine in self.plan.engines:
            for option, value in engine.chosen.items():
                found.setdefault(engine.kind, {}).setdefault(option, {})[value] = True
        parts = []
        for kind, options in found.items():
            own = [f"{option} {_shown(values)}" for option, values in options.items() if option != "engine"]
            parts.append(" ".join([kind, *([f"({', '.join(own)})"] if own else [])]))
        many = self.plan.vectors
        return " and ".join(parts) + (f", {many} vectors side by side" if many > 1 else "")

    @cached_property
    def needs(self) -> dict[str, int]:
        """Resource → number, estimated; in plain HDL as if it were for ECP5."""
        return estimate(self.plan, _priced(self.plan.target))

    def short(self, room: Mapping[str, int] | None) -> str:
        """What is missing of resource → number, as text; empty where it fits."""
        room = self.needs if room is None else room
        return ", ".join(f"{n} {r} of {room.get(r, 0)}" for r, n in self.needs.items() if n > room.get(r, 0))

    def __str__(self):
        return f"{self.what}: interval {self.interval:g} cycles a vector, {self.plan.multipliers} multipliers"


class Impossible(ValueError):
    """No plan meets the wishes. nearest: the Choice that comes nearest, None where nothing can be built at all."""

    def __init__(self, message: str, nearest: Choice | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


def choose_for(network: IntNetwork, settings: Settings | None = None, **wishes: Any) -> Choice:
    """`choose` with what Settings say; ValueError where these choose engines, lanes or SIMD themselves."""
    settings = settings or Settings()
    if both := sorted(settings.given & OPTIONS - {"products"}):
        raise ValueError(f"a wish chooses {' and '.join(both)} itself; give the one or the other")
    settings.check_layers([layer.name for layer in network.layers])
    given = hardware(network, settings)
    check_products(Plan(network=network, **given), "settings: ")
    if "vectors" not in settings.given:
        given["vectors"] = None
    return choose(network, **given, **wishes)


def choose(
    network: IntNetwork, *, interval: float | None = None, multipliers: int | None = None,
    room: Mapping[str, int] | None = None, vectors: int | None = None, **kept: Any,
) -> Choice:
    """The Choice that meets every wish: the cheapest at an interval, else the fastest.

    interval: cycles a vector, at most (with E vectors side by side a frame may take E times as many). multipliers: at
    most. room: resource (LUT, FF, DSP, RAM) → number, at most, by estimate. vectors: side by side; as many as fit best
    where not given. kept (choices, target, roms, count_beats): as in Plan. Cheapest is by multipliers, then by
    estimated LUT, then by block RAMs; adders in place of multipliers are taken only where nothing else will do.
    Raises ValueError where there is no wish; Impossible where not all can be met: it names the nearest that can.
    """
    if interval is None and multipliers is None and room is None:
        raise ValueError("nothing to choose by: name an interval, multipliers or a room")
    if room is not None and kept.get("target", "plain") == "plain":
        raise ValueError("room is counted in primitives; the target 'plain' has none, name ecp5, ice40 or gowin")
    wish = {"multipliers": inf if multipliers is None else multipliers, "room": room}
    usual = _menus(network, vectors, kept, False)
    for last_resort in (False, True):
        menus = _menus(network, vectors, kept, True) if last_resort else usual
        best = _fastest(menus, **wish) if interval is None else _cheapest(menus, interval, **wish)
        if best:
            kind = "the fastest" if interval is None else "the cheapest"
            needs = ", ".join(f"{n} {r}" for r, n in best.needs.items()) if room is not None else ""
            count = sum(len(found) for menu in menus for found in menu.segments.values())
            why = f"{best}{needs and f'; estimated {needs}'}; {kind} that can be made of {count} engines"
            return replace(best, why=why)
    raise _impossible(usual, interval, **wish)


class Menu:
    """What can serve each run of factors, for a number of vectors side by side, and the Pareto fronts it makes.

    segments: start of a run → [(stop, Engine as it would be alone)]. intervals: of all engines. prompt: each
    engine as it is where its beats come as fast as they are granted.
    """

    def __init__(self, network, vectors, kinds, *, choices=None, roms="initial", **kept):
        self.network, self.vectors = network, vectors
        self.kept = {"choices": choices or {}, "roms": roms, **kept}
        self.tech, self.counted = technology(_priced(kept.get("target", "plain"))), kept.get("count_beats", False)
        self.segments = {n: [] for n in range(len(network.factors))}
        given, first = by_factor(network, choices or {}), 0
        for layer in network.layers:
            after = first + len(layer.factors)
            for start, stop in combinations(range(first, after + 1), 2):
                fields = {"whole": (start, stop) == (first, after), "vectors": vectors, "prompt": False}
                fields["target"] = parts_of(kept.get("target", "plain"), roms)
                for cls in kinds:
                    if cls.shares or stop == start + 1:
                        own = options_of(cls, given[start:stop])
                        engines = cls.menu(factors=network.factors[start:stop], **fields, **own)
                        # what is too large to be built may take as long to be costed
                        small = [engine for engine in engines if not too_large_engines([engine], vectors)]
                        self.segments[start] += [(stop, engine) for engine in small]
            first = after
        engines = [engine for found in self.segments.values() for _, engine in found]
        self.prompt = {engine: replace(engine, prompt=True) if engine.burst else engine for engine in engines}
        self.intervals = {engine.interval for engine in [*engines, *self.prompt.values()]}
        self._costs = {}

    def shared(self):
        """Numbers of the factors that can share an engine with neighbours."""
        runs = (range(n, stop) for n, found in self.segments.items() for stop, engine in found if engine.shares)
        return {n for run in runs for n in run}

    def serving(self, limit, time):
        """Start → [(stop, Engine)] of at most `limit` cycles a frame, `time` where a frame is taken evenly."""
        found = {}
        for start, engines in self.segments.items():
            prompt = not start or time <= self.network.factors[start].pattern.inputs
            there = ((stop, self.prompt[engine] if prompt else engine) for stop, engine in engines)
            found[start] = [(stop, e) for stop, e in there if e.interval <= (limit if e.burst else time)]
        return found

    def fronts(self, limit, multipliers=inf, room=None, *, fewest=False):
        """[(figures, way)], ascending, of engines of at most `limit` cycles a frame: none is better than another in
        multipliers, RAM and LUT alike. Figures are sums over the engines and what is between; a way is (Engine, way
        before it). fewest: of as few multipliers as there can be.
        """
        # engines that take a frame in a burst count on how fast all others are: each time that matters to one
        bursts = {engine.burst for found in self.segments.values() for _, engine in found if engine.burst}
        serving = {time: self.serving(limit, time) for time in {limit, *(burst for burst in bursts if burst < limit)}}
        if fewest:
            multipliers = min(multipliers, *(least(found)[0] for found in serving.values()))
        ways = [way for time, found in serving.items() for way in self._front(found, time, multipliers, room)]
        return _front(ways)

    def _front(self, serving, time, multipliers, room):
        most = (multipliers, *(inf if room is None else room.get(key, 0) for key in FIGURES[1:]))
        rest = least(serving)
        # of what comes out behind some factors: lanes, flight, burst → ways
        ends = defaultdict(lambda: defaultdict(list))
        ends[0][None, ENTRY, 0] = [((0,) * len(FIGURES), None)]
        for start, found in serving.items():
            for end, ways in ends[start].items():
                if not (ways := _front(ways)):
                    continue
                for stop, draft in found:
                    if ways[0][0][0] + draft.multipliers + rest[stop] > multipliers:
                        continue
                    if placed := self._placed(start, stop, draft, end, time):
                        engine, cost = placed
                        ahead = [(tuple(map(add, sums, cost)), (draft, way)) for sums, way in ways]
                        after = engine.lanes_out, engine.output_flight, engine.burst
                        ends[stop][after] += [way for way in ahead if all(map(le, way[0], most))]
        return [way for ways in ends[len(serving)].values() for way in ways]

    def _placed(self, start, stop, draft, end, time):
        """An engine behind others, and its figures, with those of what is in front of it and, behind the
        last one, of what it leaves by; None where the target has no such memories.
        """
        lanes, flight, burst = end
        key = start, draft, end, time > burst  # a factor may stand in several places
        if key not in self._costs:
            relu = bool(start) and self.network.factors[start - 1].relu
            engine, tally = behind(draft, lanes, flight, relu=relu, prompt=draft.prompt), Tally(self.tech)
            try:
                if start:
                    engine_cost(tally, engine, lanes, flight, queue_between(burst, flight, engine, time))
                else:
                    width = self.network.input.width * engine.lanes_in * self.vectors
                    entry_cost(tally, width, self.counted)
                    FromStream.cost(tally, width)
                    engine_cost(tally, engine, engine.lanes_in, flight, None)
                if stop == len(self.segments):
                    width, depth = self.network.output.width * engine.lanes_out, engine.output_flight + QUEUE
                    exit_cost(tally, width * self.vectors, depth, engine.beats_out, self.counted)
                cost = engine.multipliers, *(tally.sum[key] for key in FIGURES[1:])
                self._costs[key] = engine, cost
            except ValueError:
                self._costs[key] = None
        return self._costs[key]

    def choice(self, way):
        """The Choice of a way; None where it is too large to be built, or the target has no such memories."""
        chosen = []
        while way:
            engine, way = way
            chosen = [engine.chosen] * len(engine.factors) + chosen
        choices = by_layer(self.network.names, chosen)
        plan = Plan(network=self.network, vectors=self.vectors, **{**self.kept, "choices": choices})
        choice = Choice(plan=plan)
        try:
            return None if too_large(plan) or not choice.needs else choice
        except ValueError:
            return None

    def cheapest(self, interval, multipliers=inf, room=None):
        """The Choice of the fewest multipliers, then LUT, then block RAMs, at an interval; None for none that fits."""
        # the fewest first: more of them only where those do not fit
        for fewest in (True, False):
            ways = self.fronts(interval * self.vectors, multipliers, room, fewest=fewest)
            found = [choice for _, way in ways if (choice := self.choice(way)) and not choice.short(room)]
            if found:
                return min(found, key=_rank)
        return None


def least(serving):
    """The fewest multipliers that serve all factors from each one on."""
    rest = [inf] * len(serving) + [0]
    for start in reversed(serving):
        rest[start] = min((engine.multipliers + rest[stop] for stop, engine in serving[start]), default=inf)
    return rest


def _rank(choice):
    return choice.plan.multipliers, choice.needs["LUT"], choice.needs["RAM"]


def _cheapest(menus, interval, multipliers=inf, room=None):
    best = None
    for menu in menus:
        choice = menu.cheapest(interval, multipliers if best is None else best.plan.multipliers, room)
        best = min([c for c in (best, choice) if c], key=_rank, default=None)
    return best


def _fastest(menus, **wish):
    """The cheapest at the smallest interval at which there is one: where there is one, there is one at all larger."""
    intervals, best = sorted({n / menu.vectors for menu in menus for n in menu.intervals}), None
    low, high = 0, len(intervals)
    while low < high:
        middle = (low + high) // 2
        if choice := _cheapest(menus, intervals[middle], **wish):
            best, high = choice, middle
        else:
            low = middle + 1
    return best


def _front(ways):
    """Those that no other is at least as good as in everything, ascending."""
    kept = []
    for figures, way in sorted(ways, key=itemgetter(0)):
        if not any(ram <= figures[1] and lut <= figures[2] for (_, ram, lut, _), _ in kept):
            kept.append((figures, way))
    return kept


def _menus(network, vectors, kept, last_resort):
    """Menus for each number of vectors side by side. Where nobody asked for a number, several are for factors that can
    take turns on an engine, which then do; an engine of its own gets wider by lanes.
    """
    kinds = [cls for cls in ENGINES.values() if last_resort or not cls.last_resort]
    if last_resort and sum(f.pattern.weights for f in network.factors) > TINY:
        return []
    menus = [Menu(network, vectors or 1, kinds, **kept)]
    if vectors is None and menus[0].shared():
        for n in range(1, MOST_VECTORS.bit_length()):
            menus.append(menu := Menu(network, 1 << n, kinds, **kept))
            for start in menu.shared():
                menu.segments[start] = [(stop, engine) for stop, engine in menu.segments[start] if engine.shares]
    return menus


def _impossible(menus, interval, multipliers, room):
    """Why no choice meets the wishes, and the nearest that can be had."""
    fewest = _cheapest(menus, inf)
    if fewest is None:
        return Impossible("no engines for this network can be built: its memories are too deep for the target")
    if fewest.plan.multipliers > multipliers:
        least = fewest.plan.multipliers
        best = _fastest(menus, multipliers=least)
        return Impossible(f"multipliers {multipliers}: the fewest are {least}, {best}", best)
    best = _fastest(menus, multipliers=multipliers, room=room)
    if best:
        return Impossible(f"interval {interval:g}: the fastest that fits is {best.interval:g}, {best}", best)
    ways = [(_lack(figures, room), menu, way) for menu in menus for figures, way in menu.fronts(inf, multipliers)]
    found = (menu.choice(way) for _, menu, way in sorted(ways, key=itemgetter(0)))
    best = next(choice for choice in found if choice)
    return Impossible(f"nothing fits; the nearest, {best}, needs {best.short(room)}", best)


def _lack(figures, room):
    """How many times the room it would take, in the resource that lacks most."""
    return max(number / max(room.get(key, 0), 0.5) for key, number in zip(FIGURES[1:], figures[1:]))


def _priced(target):
    """The target whose costs are compared: plain HDL is taken for ECP5's."""
    return "ecp5" if target == "plain" else target


def _shown(values):
    return " ".join(str(value).lower() for value in values)
