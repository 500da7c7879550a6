"""Which folding of a network meets a wish: all that are worth a thought, held against what is asked for."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, product

from bfthw import Settings
from bfthw.settings import FOLDING

from .emit import check_lut, choices
from .foldspec import check_fold
from .netspec import NetworkSpec
from .resources import estimate
from .size import too_large
from .spec import divisors, fitting_lanes

MOST_VECTORS = 64  # side by side, where nobody asked for more
TINY = 256  # weights of a network that is worth a thought as adders


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A folding. spec: the NetworkSpec. what: it in words. why: a sentence that says what it costs."""

    spec: NetworkSpec
    what: str
    why: str = ""

    @property
    def interval(self):
        """Cycles a vector; those side by side share a frame's."""
        return self.spec.interval / self.spec.vectors

    @property
    def spatial(self):
        return "spatial" in self.spec.engines

    @cached_property
    def needs(self):
        """Resource → number, estimated; in plain HDL as if it were for ECP5."""
        return estimate(self.spec, "ecp5" if self.spec.target == "plain" else None)

    @cached_property
    def possible(self):
        """Whether the target has memories so deep."""
        try:
            return bool(self.needs)
        except ValueError:
            return False

    def short(self, room):
        """What is missing of resource → number, as text; empty where it fits."""
        room = self.needs if room is None else room
        return ", ".join(f"{n} {r} of {room.get(r, 0)}" for r, n in self.needs.items() if n > room.get(r, 0))

    def __str__(self):
        return f"{self.what}: interval {self.interval:g} cycles a vector, {self.spec.multipliers} multipliers"


class Impossible(ValueError):
    """No folding meets the wishes. nearest: the Choice that comes nearest, None where nothing can be built at all."""

    def __init__(self, message, nearest=None):
        super().__init__(message)
        self.nearest = nearest


def choose_for(network, settings=None, **wishes):
    """`choose` with the target, vectors and products of Settings; ValueError where these name engines, lanes or
    SIMD.
    """
    settings = settings or Settings()
    if both := sorted(settings.given & FOLDING - {"vectors"}):
        raise ValueError(f"a wish chooses {' and '.join(both)} itself; give the one or the other")
    given = choices(network, settings)
    check_lut(given)
    vectors = given["vectors"] if "vectors" in settings.given else None
    kept = {key: given[key] for key in ("target", "lut", "roms", "count_beats")}
    return choose(network, vectors=vectors, **kept, **wishes)


def choose(network, *, interval=None, multipliers=None, room=None, target="plain", vectors=None, **kept):
    """The Choice that meets every wish: the cheapest at an interval, else the fastest.

    interval: cycles a vector, at most (with E vectors side by side a frame may take E times as many). multipliers: at
    most. room: resource (LUT, FF, DSP, RAM) → number, at most, by estimate. vectors: side by side; as many as fit best
    where not given. target, kept (lut, roms, count_beats): as in NetworkSpec. Cheapest is by multipliers, then by
    estimated LUT, then by block RAMs; adders in place of multipliers (spatial) are taken only where nothing else will
    do.
    Raises ValueError where there is no wish; Impossible where not all can be met: it names the nearest that can.
    """
    if interval is None and multipliers is None and room is None:
        raise ValueError("nothing to choose by: name an interval, multipliers or a room")
    if room is not None and target == "plain":
        raise ValueError("room is counted in primitives; the target 'plain' has none, name ecp5, ice40 or gowin")
    found = list(foldings(network, target=target, vectors=vectors, **kept))

    def rank(choice):
        speed = 0 if interval is not None else choice.interval
        return choice.spatial, speed, choice.spec.multipliers

    in_time = [c for c in found if interval is None or c.interval <= interval]
    affordable = [c for c in in_time if multipliers is None or c.spec.multipliers <= multipliers]
    for _, alike in groupby(sorted(affordable, key=rank), key=rank):
        alike = [choice for choice in alike if choice.possible and not choice.short(room)]
        if alike:
            best = min(alike, key=lambda choice: (choice.needs["LUT"], choice.needs["RAM"]))
            kind = "the fastest" if interval is None else "the cheapest"
            needs = ", ".join(f"{n} {r}" for r, n in best.needs.items()) if target != "plain" else ""
            why = f"{best}{needs and f'; estimated {needs}'}; {kind} of {len(found)} foldings that were tried"
            return Choice(spec=best.spec, what=best.what, why=why)
    raise _impossible([c for c in found if c.possible], interval, multipliers, room)


def _impossible(found, interval, multipliers, room):
    """Why no choice meets the wishes, and the nearest that can be had."""
    if not found:
        return Impossible("no folding of this network can be built: its memories are too deep for the target")
    affordable = [c for c in found if multipliers is None or c.spec.multipliers <= multipliers]
    if not affordable:
        best = min(found, key=lambda c: (c.spec.multipliers, c.interval))
        return Impossible(f"multipliers {multipliers}: the fewest are {best.spec.multipliers}, {best}", best)
    fits = [c for c in affordable if not c.short(room)]
    if not fits:
        best = min(affordable, key=lambda c: max(c.needs[r] / max(room.get(r, 0), 0.5) for r in c.needs))
        return Impossible(f"nothing fits; the nearest, {best}, needs {best.short(room)}", best)
    best = min(fits, key=lambda c: c.interval)
    return Impossible(f"interval {interval:g}: the fastest that fits is {best.interval:g}, {best}", best)


def foldings(network, *, vectors=None, **kept):
    """Choices: every layer folded that can be, each multiplier with one product or two; pipelined, with each number of
    lanes that all factors can have and, for each interval that they allow, the smallest SIMD; spatial, for tiny
    ones.
    """
    common = {"network": network, **kept}
    factors = network.factors
    engines = tuple(engine for layer in network.layers for engine in [_folded(layer)] * len(layer.factors))
    if "folded" in engines:
        several = [1 << n for n in range(MOST_VECTORS.bit_length())] if vectors is None else [vectors]
        for e, paired in product(several, (False, True)):
            spec = NetworkSpec(engines=engines, vectors=e, paired=paired, **common)
            if not paired or _can_pair(spec):
                yield Choice(spec=spec, what=f"folded{', two products a multiplier' * paired}{_side_by_side(e)}")
    for lanes in sorted(set.intersection(*(set(fitting_lanes(f.pattern)) for f in factors))):
        seen = set()
        beats = [f.pattern.outputs // lanes for f in factors]
        times = {b * f.pattern.c // v for b, f in zip(beats, factors) for v in divisors(f.pattern.c)}
        for time in sorted(times):
            simd = tuple(_simd(f.pattern.c, b, time) for b, f in zip(beats, factors))
            if simd not in seen:
                seen.add(simd)
                spec = NetworkSpec(lanes=(lanes,) * len(factors), simd=simd, vectors=vectors or 1, **common)
                shown = " ".join(map(str, dict.fromkeys(simd) if len(set(simd)) == 1 else simd))
                what = f"pipelined, {lanes} lane{'s' * (lanes > 1)}, SIMD {shown}{_side_by_side(vectors)}"
                yield Choice(spec=spec, what=what)
    if sum(f.pattern.weights for f in factors) <= TINY:
        spec = NetworkSpec(engines=("spatial",) * len(factors), vectors=vectors or 1, **common)
        if not too_large(spec):
            yield Choice(spec=spec, what=f"spatial{_side_by_side(vectors)}")


def _folded(layer):
    try:
        check_fold(layer.factors, layer.name)
    except ValueError:
        return "pipelined"
    return "folded"


def _can_pair(spec):
    try:
        return bool(spec.stages)
    except ValueError:
        return False


def _simd(c, beats, time):
    """The smallest SIMD that computes `beats` in `time` cycles, c where none does."""
    return next((v for v in divisors(c) if beats * (c // v) <= time), c)


def _side_by_side(vectors):
    return "" if vectors in (None, 1) else f", {vectors} vectors side by side"
