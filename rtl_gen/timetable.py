"""When a first frame's beats come through the engines of a plan, and what FIFOs have to hold meanwhile."""

from math import ceil
from typing import Any, NamedTuple

import numpy as np

from .engines.engine import Engine
from .fifo import FIFO_LATENCY, QUEUE, fifo_latency
from .schedule import convert_times, most_waiting, output_times
from .stages import INPUT
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


class Schedule(NamedTuple):
    """Cycles of a frame's beats, each engine as early as they allow: what each gives, by its number, and what it takes.

    interval: 0 for a first frame, else the cycles in which each engine has the next one's beats as well.
    """

    interval: int
    gives: dict[int, np.ndarray]
    takes: dict[int, np.ndarray]


class Timetable:
    """Of a Plan, from its engines, what they take and what they add.

    Where two ways that part at an engine join again, each waits for the other one in a FIFO. Its size follows, without
    a simulation, from the schedule in which the input's beats come evenly, an interval a frame: as no beat comes later
    because another comes earlier or finds more room (a marked graph: Commoner et al., JCSS 5, 1971), what waits then is
    room enough for the interval.

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
        self.plan, beats = plan, np.arange(plan.beats_in)
        first = Schedule(0, {INPUT: beats + ENTRY}, {})
        steady = Schedule(plan.interval, {INPUT: beats * plan.interval // len(beats) + ENTRY}, {})
        schedules = first, steady
        queues, depths, paces = [], [], plan.paces(plan.engines)
        for number, (engine, source, join) in enumerate(zip(plan.engines, plan.sources, plan.joins)):
            queue, depth = None, None
            if source != INPUT:
                queue = queue_between(plan.engines[source].burst, plan.end(source)[1], engine, paces[number])
                if plan.engines[source].sudden and (waiting := self._sudden(source)):
                    queue = max(queue or 0, waiting)
            self._arrive(number, schedules, queue)
            if join is not None:
                late = 0 if join.inside else self._late(number, steady)
                if late > 0:  # what the engine takes waits for what it adds
                    come = steady.takes[number]
                    waiting = most_waiting(come, come + late + 1, plan.interval) * engine.lanes_in
                    queue = (queue or 0) + ceil(waiting / plan.end(source)[0])  # in front of a change of lanes
                    self._arrive(number, schedules, queue)
                depth = self._depth(number, first, steady)
            queues.append(queue)
            depths.append(depth)
            for schedule in schedules:
                _, schedule.gives[number] = self._times(number, schedule, depth)
        self.latency = int(first.gives[number][0]) + FIFO_LATENCY
        self.queues, self.depths = tuple(queues), tuple(depths)

    def _arrive(self, number, schedules, queue):
        """Note when an engine takes its beats, behind a FIFO that holds so many."""
        plan, engine, source = self.plan, self.plan.engines[number], self.plan.sources[number]
        lanes, flight = plan.end(source)
        fifo = fifo_latency(flight + QUEUE + (queue or 0), lanes * engine.takes.width * plan.vectors)
        for schedule in schedules:
            schedule.takes[number] = self._converted(
                schedule.gives[source], lanes, engine.lanes_in, fifo, always=queue is not None
            )

    def _converted(self, times, before, after, fifo, **rest):
        return convert_times(times, before, after, fifo=fifo, large=self.plan.over_maps, **rest)

    def _times(self, number, schedule, depth):
        """Cycles of the beats that an engine adds, where they enter their FIFO of a depth, and of those that it gives;
        depth None leaves out what it adds.
        """
        plan, engine, join = self.plan, self.plan.engines[number], self.plan.joins[number]
        arrivals, entered, come = schedule.takes[number], None, None
        if depth is not None:
            skip = plan.skip(number)
            times = schedule.takes[join.engine] if join.inside else schedule.gives[join.engine]
            entered = self._converted(
                times, skip.lanes, skip.wide, fifo_latency(skip.flight + QUEUE, skip.lanes * skip.bits)
            )
            come = entered + fifo_latency(depth, skip.wide * skip.bits)
            come = self._converted(come, skip.wide, engine.lanes_out, 0)
        return entered, output_times(engine, plan.positions[number], arrivals, come, schedule.interval)

    def _sudden(self, source):
        """Beats of a frame that comes at the end of an engine's, for which those behind have no time meanwhile."""
        plan, behind = self.plan, {source}
        for number, before in enumerate(plan.sources):
            if before in behind:
                behind.add(number)
        slowest = max(plan.engines[number].interval * plan.positions[number] for number in behind - {source})
        time = plan.interval - plan.engines[source].interval + plan.engines[source].beats_out
        return max(0, ceil(plan.engines[source].beats_out * (1 - time / slowest)))

    def _late(self, number, schedule):
        """Cycles, at most, that an output waits for what is added to it."""
        alone, joined = (self._times(number, schedule, depth)[1] for depth in (None, 1))
        return int((joined - alone).max())

    def _depth(self, number, first, steady):
        """Beats, of the wider side, of the FIFO of what an engine adds."""
        engine, skip, depth = self.plan.engines[number], self.plan.skip(number), 1
        flight = skip.flight if skip.lanes == skip.wide else ENTRY
        for _ in range(2):  # how many it must hold depends on how long it takes, and the other way round
            entered, outputs = self._times(number, steady, depth)
            taken = engine.skip_times(steady.takes[number], outputs)
            begins = np.arange(len(entered)) * len(taken) // len(entered)
            depth = most_waiting(entered - flight, np.maximum(taken[begins], entered), steady.interval)
            if not self.plan.over_maps:  # a first frame that runs ahead never waits
                entered, outputs = self._times(number, first, depth)
                taken = engine.skip_times(first.takes[number], outputs)
                ahead = np.searchsorted(entered, taken[begins], side="right")
                depth = max(depth, int((ahead - np.arange(len(entered))).max()) + flight + 4)
        return depth


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
