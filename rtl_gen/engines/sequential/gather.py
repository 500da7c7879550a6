"""Where in a memory of two banks the operands of some positions side by side are: reads, turns, and programs of them.

A map stands in the memory in groups of `lanes` positions, row by row: group g in bank g % 2, a word a channel, those of
a group one behind the other from its row g // 2 on. So any two neighbouring groups are read in a cycle, and what a
window's tap sees for a group of positions is put together of such reads.
"""

from collections import defaultdict
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from bfthw.window import Shape, Window

NOTHING = -1  # of a lane that takes nothing, of a position that is outside


class Turn(NamedTuple):
    """How lanes take a cycle's two words: lane l takes lane (step * l + turns[bank]) % lanes of the word of
    bank `banks[l]`, or NOTHING, zero.
    """

    turns: tuple[int, int]
    step: int
    banks: tuple[int, ...]


class Read(NamedTuple):
    """A cycle's rows, of either bank, and what becomes of their words; whether a tap is whole with it."""

    rows: tuple[int, int]
    turn: Turn
    last: bool = True

    @property
    def nothing(self) -> "Read":
        """One of the same rows that no lane takes anything of, and with which no tap is whole."""
        return self._replace(turn=self.turn._replace(banks=(NOTHING,) * len(self.turn.banks)), last=False)

    @property
    def empty(self) -> bool:
        """Whether no lane takes anything."""
        return max(self.turn.banks) == NOTHING


def reads_of(positions: np.ndarray, lanes: int, steps: tuple[int, ...]) -> list[Read]:
    """The fewest Reads, one at least, by which lanes take the positions (lanes,) of a map, NOTHING for zero.

    steps: between the positions of neighbouring lanes, those that are to be had.
    """
    best = None
    for step in steps:
        found = defaultdict(list)
        for lane, position in enumerate(positions):
            if position != NOTHING:
                group, at = divmod(int(position), lanes)
                found[group % 2, group // 2, (at - step * lane) % lanes].append(lane)
        banks = [[(key[1:], own) for key, own in sorted(found.items()) if key[0] == bank] for bank in range(2)]
        if best is None or max(map(len, banks)) < len(best):
            best = [_read(*pair, step, lanes) for pair in zip_longest(*banks)]
    best = best or [Read((0, 0), Turn((0, 0), steps[0], (NOTHING,) * lanes))]
    return [read._replace(last=n == len(best) - 1) for n, read in enumerate(best)]


def _read(first, second, step, lanes):
    """Of ((row, turn), lanes) of each bank, None for nothing."""
    banks = [NOTHING] * lanes
    for bank, part in enumerate((first, second)):
        for lane in part[1] if part else ():
            banks[lane] = bank
    places = [part[0] if part else None for part in (first, second)]
    rows, turns = zip(*(place or ((places[0] or places[1])[0], 0) for place in places))
    return Read(rows, Turn(turns, step, tuple(banks)))


def taps(window: Window, shape: Shape) -> np.ndarray:
    """Positions (H' * W', K) of a map that the taps of a window see, in the window's order; NOTHING outside."""
    places = np.arange(shape.positions).reshape(1, shape.height, shape.width, 1)
    plain = Window(size=window.size, stride=window.stride, padding=window.padding, order=window.order, outside=0)
    return plain.gather(places + 1).reshape(-1, window.taps) - 1


def grouped(seen: np.ndarray, lanes: int) -> np.ndarray:
    """(positions, K) -> (groups, K, lanes); NOTHING behind the last position."""
    groups = -(-len(seen) // lanes)
    padded = np.full((groups * lanes, seen.shape[1]), NOTHING)
    padded[: len(seen)] = seen
    return padded.reshape(groups, lanes, -1).swapaxes(1, 2)


class Fetch(NamedTuple):
    """Of a group whose operands are put together: where its reads begin among all, how many they are, the row that
    their offsets are from, and how many groups of the map, from its first on, hold what they need.
    """

    start: int
    reads: int
    row: int
    needs: int


class Reads:
    """The words of all runs of reads, each run once.

    Members
    -------
    turns, words
        Turns, in the order of their numbers; (offsets in words, number of the turn, last) of each read.
    """

    def __init__(self) -> None:
        self.turns, self.words, self._starts = [], [], {}

    def add(self, reads: list[Read], channels: int) -> Fetch:
        """Of a run of reads of a map of so many channels."""
        row = min((min(read.rows) for read in reads if not read.empty), default=0)
        own = []
        for read in reads:
            if read.turn not in self.turns:
                self.turns.append(read.turn)
            offsets = (0, 0) if read.empty else tuple((r - row) * channels for r in read.rows)
            own.append((offsets, self.turns.index(read.turn), read.last))
        key = tuple(own)
        if key not in self._starts:
            self._starts[key] = len(self.words)
            self.words += own
        needs = [2 * read.rows[bank] + bank + 1 for read in reads for bank in read.turn.banks if bank != NOTHING]
        return Fetch(self._starts[key], len(own), row, max(needs, default=0))
