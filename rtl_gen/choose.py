"""Which engines meet a wish: the menus of all engines for each number of vectors side by side, the cheapest or fastest
of their ways.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from operator import itemgetter
from typing import Any

from bfthw import IntNetwork, Settings

from .choice import Choice, Impossible
from .emit import OPTIONS, check_products, hardware
from .engines import ENGINES, Sequential
from .engines.sequential import MOST_LANES, worth_a_thought
from .menu import FIGURES, Menu, rank
from .plan import Plan
from .stages import over_maps, stages_of

MOST_VECTORS = 64  # side by side, where nobody asked for more
TINY = 256  # weights of a network that is worth a thought as adders


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
    if "roms" not in settings.given:
        del given["roms"]
    return choose(network, **given, **wishes)


def choose(
    network: IntNetwork, *, interval: float | None = None, multipliers: int | None = None,
    room: Mapping[str, int] | None = None, vectors: int | None = None, **kept: Any,
) -> Choice:
    """The Choice that meets every wish: the cheapest at an interval, else the fastest.

    interval: cycles a vector, at most (with E vectors side by side a frame may take E times as many). multipliers: at
    most. room: resource (LUT, FF, DSP, RAM) → number, at most, by estimate. vectors: side by side; as many as fit best
    where not given. kept (choices, target, roms, count_beats): as in Plan. Cheapest is by multipliers, then by
    estimated LUT, then by block RAMs; adders in place of multipliers are taken only where nothing else will do. Over
    maps products are of tables where a room's DSP run out and, without `roms`, small memories where its RAM do.
    Where no engines of their own have room, layers that can take turns on one do.
    Raises ValueError where there is no wish; Impossible where not all can be met: it names the nearest that can.
    """
    if room is not None and "roms" not in kept and over_maps(stages_of(network)):
        return _with_memories(network, interval=interval, multipliers=multipliers, room=room, vectors=vectors, **kept)
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
            needs += f"; {best.binds(room)}; {best.slowest} is always busy" if room and menus[0].over_maps else ""
            count = sum(len(found) for menu in menus for found in menu.segments.values())
            why = f"{best}{needs and f'; estimated {needs}'}; {kind} that can be made of {count} engines"
            return replace(best, why=why)
    if room is not None and usual[0].over_maps:
        if best := _in_turn(network, interval, vectors=vectors, **wish, **kept):
            return best
    raise _impossible(usual, interval, **wish)


def _with_memories(network, **wish):
    """The faster Choice of memories in blocks and of small ones in tables; of equals, and at an interval, the first."""
    found, failed = [], []
    for roms in ("initial", "tables"):
        try:
            found.append(choose(network, **wish, roms=roms))
        except Impossible as error:
            failed.append(error)
        if found and wish["interval"] is not None:
            break
    if not found:
        raise failed[-1]
    return min(found, key=lambda choice: choice.interval)


def _in_turn(network, interval, *, multipliers, room, vectors, choices=None, **kept):
    """The fastest Choice whose layers take turns on one engine, None where none meets the wishes."""
    stages, best = stages_of(network), None
    if choices or (vectors or 1) > 1 or Sequential.serves(stages) is None:
        return None
    for lanes in worth_a_thought(stages, int(min(room.get("DSP", MOST_LANES), MOST_LANES, multipliers))):
        chosen = {layer.name: {"engine": Sequential.kind, "lanes": lanes} for layer in network.layers}
        try:
            choice = Choice(plan=Plan(network=network, choices=chosen, **kept))
        except ValueError:  # maps are too large for so few lanes
            continue
        most = min(interval or inf, best.interval - 1 if best else inf)
        if choice.interval <= most and choice.fits(room):
            needs = ", ".join(f"{n} {r}" for r, n in choice.needs.items())
            why = f"{choice}; estimated {needs}; {choice.binds(room)}; engines of their own have no room"
            best = replace(choice, why=why)
    return best


def _cheapest(menus, interval, multipliers=inf, room=None):
    best = None
    for menu in menus:
        choice = menu.cheapest(interval, multipliers if best is None else best.plan.multipliers, room)
        best = min([c for c in (best, choice) if c], key=rank, default=None)
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


def _menus(network, vectors, kept, last_resort):
    """Menus for each number of vectors side by side. Where nobody asked for a number, several are for factors that can
    take turns on an engine, which then do; an engine of its own gets wider by lanes.
    """
    kinds = [cls for cls in ENGINES.values() if last_resort or not cls.last_resort]
    if last_resort and network.work > TINY:
        return []
    menus = [Menu(network, vectors or 1, kinds, **kept)]
    if vectors is None and not menus[0].over_maps and menus[0].shared():
        for n in range(1, MOST_VECTORS.bit_length()):
            menus.append(menu := Menu(network, 1 << n, kinds, **kept))
            for start in menu.shared():
                menu.segments[start] = [(stop, engine) for stop, engine in menu.segments[start] if engine.shares]
    return menus


def _impossible(menus, interval, multipliers, room):
    """Why no choice meets the wishes, and the nearest that can be had."""
    fewest = _cheapest(menus, inf)
    if fewest is None:
        return Impossible("no engines for this network can be built: each would be too large")
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
    return Impossible(f"nothing fits; the nearest, {best}, needs {best.short(room)}: {best.lacking(room)}", best)


def _lack(figures, room):
    """How many times the room it would take, in the resource that lacks most."""
    return max(number / max(room.get(key, 0), 0.5) for key, number in zip(FIGURES[1:], figures[1:]))
