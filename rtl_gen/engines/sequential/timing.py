"""The cycles of a program: when each pass begins, when its results are written, when the next input may come."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .places import Places
from .program import Layer

FETCH = 8  # cycles from the beginning of a pass to that of the next one, at least: what that is is read meanwhile
TO_ADDRESS, TO_OPERANDS = 3, 8  # from a read's turn to its addresses, to its operands
TO_WRITE = 15  # from an output's last turn to its write
SETTLED = TO_WRITE + 1 - TO_ADDRESS  # from an output's last turn to the turn of a read of it
GRANTED, ENTERED = 2, 4  # from a beat's grant to the write of the word that it makes whole, to a pass that may read it
FRAMES = 4  # after which each is as the one before


@dataclass(frozen=True, eq=False)
class Timing:
    """Of Layers in their Places, `lanes` positions together.

    Members
    -------
    waits
        of each pass of a layer, cycles that it begins later than the one before has ended, so that what it reads of
        that is there.
    opens
        (layer, groups): with whose beginning the next input may come, and how much of it until the end; (None, 0)
        where it may come at the end alone.
    interval
        cycles from frame to frame.
    """

    layers: tuple[Layer, ...]
    places: tuple[Places, ...]
    lanes: int

    @cached_property
    def waits(self) -> tuple[tuple[int, ...], ...]:
        found = []
        for layer in self.layers:
            own = [0]
            for before, after in zip(layer.passes, layer.passes[1:]):
                own.append(max(_wait(before, after, n) for n in set(map(before.turns, range(layer.groups)))))
            found.append(tuple(own))
        return tuple(found)

    @cached_property
    def opens(self) -> tuple[int | None, int]:
        free = np.minimum.accumulate([place.lowest for place in self.places[:0:-1]])[::-1]
        groups = np.minimum(2 * (free // self.layers[0].shape.channels), self.groups_in)
        some = [int(one) for one in sorted(set(groups)) if one >= self.needs(0)]
        return min(((1 + int(np.argmax(groups == one)), one) for one in some), key=self._interval, default=(None, 0))

    @cached_property
    def groups_in(self) -> int:
        return -(-self.layers[0].shape.positions // self.lanes)

    def needs(self, group: int) -> int:
        """Groups of the input that a group of the first layer waits for; the last one for all of them."""
        fetches = self.layers[0].passes[0].fetches
        if group == self.layers[0].groups - 1:
            return self.groups_in
        return group + 1 if fetches is None else fetches[group].needs

    def outputs(self, come: np.ndarray) -> np.ndarray:
        """Cycles of a first frame's outputs; come: those of the grants of its inputs."""
        channels = self.layers[0].shape.channels
        last = np.minimum(np.arange(1, self.groups_in + 1) * self.lanes, self.layers[0].shape.positions) * channels - 1
        there = come[last] + ENTERED
        return self._frame(0, lambda groups: int(there[groups - 1]))[2]

    @cached_property
    def interval(self) -> int:
        return self._interval(self.opens)

    def _interval(self, opens):
        layer, some = opens
        entry, begins, end = _Arrivals(self, 0), [], 0
        for _ in range(FRAMES):
            opened = []

            def begun(n, cycle):
                if n == layer:
                    opened.append(cycle + 1)

            begin, end, _ = self._frame(end, entry.there, begun, entry.note)
            begins.append(begin)
            entry = _Arrivals(self, opened[0] if opened else end + 1, some if opened else None, end + 1, entry.written)
        return begins[-1] - begins[-2]

    def _frame(self, cycle, there, begun=lambda n, cycle: None, note=lambda cycles: None):
        """(the beginning of its first pass, the cycle from which the next frame may begin, cycles of its outputs) of a
        frame that may begin at a cycle; there(n): the cycle from which n groups of its input are there. begun(n, cycle)
        is told the beginning of each layer, note(cycles) those of results' writes.
        """
        begin, ready, given = None, cycle, []
        for n, (layer, waits) in enumerate(zip(self.layers, self.waits)):
            for group in range(layer.groups):
                for number, (one, wait) in enumerate(zip(layer.passes, waits)):
                    at = max(cycle, ready + (SETTLED if n and not group and not number else wait))
                    if not n and not number:
                        at = max(at, there(self.needs(group)))
                    if not group and not number:
                        begun(n, at)
                    begin = at if begin is None else begin
                    turns = one.turns(group)
                    last = at + np.arange(1, one.outputs + 1) * turns
                    if one.factor is None:
                        given.append(last + TO_OPERANDS)
                    else:
                        note(last + TO_WRITE)
                    cycle, ready = at + FETCH, int(last[-1])
        return begin, max(cycle, ready + SETTLED), np.concatenate(given)


class _Arrivals:
    """The next input on its way: from `opened` on as far as so many groups, the rest from `end` on."""

    def __init__(self, timing, opened, groups=None, end=0, written=None):
        self.timing, self.end, self.cycle, self.groups = timing, end, opened, groups
        self.written = set() if written is None else written
        self.ends = []

    def note(self, cycles):
        self.written.update(cycles.tolist())

    def there(self, groups):
        channels, lanes = self.timing.layers[0].shape.channels, self.timing.lanes
        while len(self.ends) < groups:
            if self.groups is not None and len(self.ends) == self.groups:
                self.cycle = max(self.cycle, self.end)
            self.cycle += (lanes - 1) * channels
            for _ in range(channels):
                while self.cycle + GRANTED in self.written:
                    self.cycle += 1
                self.cycle += 1
            self.ends.append(self.cycle - 1 + ENTERED)
        return self.ends[groups - 1]


def _wait(before, after, turns_before):
    """Cycles between two passes, the second of which reads what the first one gives, each in so many turns."""
    a, b, d, c = after.sizes
    steps, turns = after.steps, after.turns(0)
    place = sum(
        step * np.arange(size).reshape([-1 if n == axis else 1 for n in range(3)])
        for axis, (step, size) in enumerate(zip((steps[0], steps[2], steps[3]), (a, d, c)))
    )
    i, k, q = np.indices(place.shape)
    read = np.full(before.outputs, np.iinfo(np.int64).max // 2)
    np.minimum.at(read, place.ravel(), ((i * b * d + k) * turns + q).ravel())
    written = (np.arange(before.outputs) + 1) * turns_before - 1
    late = written + SETTLED - read - before.outputs * turns_before
    return max(0, int(late.max()))
