"""When a first frame's beats come through the engines of a plan, and what FIFOs have to hold meanwhile."""

from math import ceil
from typing import Any, NamedTuple

import numpy as np

from .engines.engine import Engine
from .fifo import DEEP_LATENCY, FIFO_LATENCY, QUEUE, fifo_latency
from .row import INPUT
from .schedule import convert_times, most_within, output_times
from .stream import ENTRY

LONG = 16  # cycles between grant and arrival from which a FIFO is smaller than what they cost further on


class Join(NamedTuple):
    """Where what an engine adds comes from: what the Engine of a number gives, INPUT for the network's input, or what
    it takes (`inside`: a residual's, in its lanes).
    """

    engine: int
    inside: bool


class Skip(NamedTuple):
    """What an engine adds: the lanes that it comes with, and the cycles from grant to arrival; the lanes of its FIFO;
    bits of an element of all vectors.
    """

    lanes: int
    flight: int
    wide: int
    bits: int


class Timetable:
    """Of a Plan, from its engines, what they take and what they add.

    Where two ways that part at an engine join again, each waits for the other one in a FIFO. It is large enough, for
    the interval and against a standstill, if it holds what comes while the other way is at its slowest: a window's lag
    is as many pixels at any pace, so that is a sum of cycles over the other way's engines (`Engine.keeps`) at the
    plan's interval, and no simulation.

    Members
    -------
    latency
        cycles of the first output beat.
    queues
        of each engine None, or the beats that a FIFO in front of it holds beyond those on their way.
    depths
        of each engine None, or the beats of the FIFO of what it adds.
    """

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        gives, takes, queues, depths = {INPUT: np.arange(plan.beats_in) + ENTRY}, [], [], []
        paces = plan.paces(plan.engines)
        for number, (engine, source, join) in enumerate(zip(plan.engines, plan.sources, plan.joins)):
            queue = None
            if source != INPUT:
                queue = queue_between(plan.engines[source].burst, plan.end(source)[1], engine, paces[number])
            arrivals = self._arrivals(number, gives[source], queue)
            takes.append(arrivals)
            alone, depth = output_times(engine, plan.positions[number], arrivals), None
            gives[number] = alone
            if join is not None:
                entered = takes[join.engine] if join.inside else gives[join.engine]
                gives[number], depth = self._joined(number, entered, arrivals)
                late = int((gives[number] - alone).max())
                if late > 0 and not join.inside:  # what the engine takes waits for what it adds
                    slowest = self._held(self._fork(number), join.engine, plan.interval)
                    steady = ceil(slowest * len(arrivals) / plan.interval)
                    waiting = max(most_within(arrivals, late, plan.interval), steady) * engine.lanes_in
                    queue = (queue or 0) + ceil(waiting / plan.end(source)[0])  # in front of a change of lanes
                    arrivals = self._arrivals(number, gives[source], queue)
                    gives[number], depth = self._joined(number, entered, arrivals)
            queues.append(queue)
            depths.append(depth)
        self.latency, self.queues, self.depths = int(gives[number][0]) + FIFO_LATENCY, tuple(queues), tuple(depths)

    def _arrivals(self, number, times, queue):
        """Cycles of the beats that come to an engine, of those of its source."""
        plan, engine = self.plan, self.plan.engines[number]
        lanes, flight = plan.end(plan.sources[number])
        fifo = fifo_latency(flight + QUEUE + (queue or 0), lanes * engine.takes.width * plan.vectors)
        return self._converted(times, lanes, engine.lanes_in, fifo, always=queue is not None)

    def _converted(self, times, before, after, fifo, **rest):
        return convert_times(times, before, after, fifo=fifo, large=self.plan.over_maps, **rest)

    def _joined(self, number, entered, arrivals):
        """Cycles of the output beats of an engine that adds something, and the beats of the FIFO of what it adds.

        entered: cycles of the beats of what is added, where it comes from; arrivals: of those at the engine.
        """
        engine, skip = self.plan.engines[number], self.plan.skip(number)
        fifo = fifo_latency(skip.flight + QUEUE, skip.lanes * skip.bits)
        entered = self._converted(entered, skip.lanes, skip.wide, fifo)
        # how many it must hold depends on how long it takes, and the other way round
        for latency in (FIFO_LATENCY, DEEP_LATENCY):
            come = self._converted(entered + latency, skip.wide, engine.lanes_out, 0)
            times = output_times(engine, self.plan.positions[number], arrivals, come)
            depth = self._depth(number, entered, engine.skip_times(arrivals, times))
            if fifo_latency(depth, skip.wide * skip.bits) == latency:
                break
        return times, depth

    def _depth(self, number, entered, taken):
        """Beats, of the wider side, of the FIFO of what an engine adds: enough for the interval and for a first frame
        that runs ahead. entered, taken: cycles of a beat into the FIFO and out of it.
        """
        plan, (start, inside) = self.plan, self.plan.joins[number]
        interval = plan.interval
        if plan.over_maps and inside:  # a layer may be as fast as its own engines
            interval = max(plan.engines[n].interval * plan.positions[n] for n in range(start, number + 1))
        steady = ceil(self._held(self._fork(number), number, interval) * len(entered) / interval)
        gone = np.arange(len(taken)) * len(entered) // len(taken)
        ahead = np.searchsorted(entered, taken, side="right") - gone
        return max(steady, int(ahead.max())) + plan.skip(number).flight + 4

    def _fork(self, number):
        """The engine, or INPUT, where the two ways part that join at an engine."""
        sources, (end, inside) = self.plan.sources, self.plan.joins[number]
        ways = [[sources[number]], [sources[end] if inside else end]]
        for way in ways:
            while way[-1] != INPUT:
                way.append(sources[way[-1]])
        return next(n for n in ways[0] if n in ways[1])

    def _held(self, start, end, interval):
        """Cycles, at most, from a beat that an engine gives to the one at its place that a later one gives, by all ways
        between them, where each engine takes its frames as slowly as the interval allows.
        """
        plan, held = self.plan, {start: 0}
        for n in range(start + 1, end + 1):
            join = plan.joins[n]
            before = [plan.sources[n], *([join.engine] if join and not join.inside else [])]
            if behind := [held[e] for e in before if e in held]:
                held[n] = max(behind) + plan.engines[n].keeps(max(1, interval // plan.positions[n]))
        return held.get(end, 0)


def queue_between(burst: int, flight: int, after: Engine, time: int) -> int | None:
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
