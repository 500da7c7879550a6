"""The program of a network whose maps stand in a large slow memory: layers as blocks, each loaded, computed, stored.

The store has a port of BEAT numbers a cycle, to read or to write; the working memory, two banks of ROWS words, is read
in both banks and written in a cycle. A word is LANES neighbouring positions of a channel. A block brings some groups of
a layer's input, or some of its channels, into the working memory; passes go from bank to bank, the last one to the
store.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from bfthw import IntFactor
from bfthw.chain import divisors
from bfthw.window import Shape

from ...stages import Stage
from ..sequential.gather import NOTHING, Fetch, Reads, grouped, reads_of, taps
from ..sequential.program import factor_of, joined_of, sees, terms, weights_of

LANES, BEAT = 12, 6
HALVES = LANES // BEAT  # beats of a word
ROWS = 256  # words of a bank
ROUND = 4  # cycles an output takes at least: a third of its lanes is rounded at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Load:
    """Brings `groups` groups from `first` on, `words` channels of each, into both banks in turn; a block further on,
    from `further` groups on, and `channels` channels. alone: of one bank, group behind group.
    """

    first: int
    groups: int
    words: int
    further: int = 0
    channels: int = 0
    alone: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """Dot products for `groups` groups: sums over c of each of (a, b, d) outputs, in this order.

    factor: whose they are. sizes: (a, b, d, c). steps: rows from an operand to the next one along each of those. row:
    from a group to the next. fetches: of each group of each block, rows counted in words of `channels`, None where
    operands are read as they stand, in `bank`. weights: (outputs, c), those of a block after those of the one before;
    `again`: the same for each output. joined: (outputs,), weights of what was loaded, which is added; None: nothing is.
    """

    factor: IntFactor
    groups: int
    sizes: tuple[int, int, int, int]
    steps: tuple[int, int, int, int]
    weights: np.ndarray
    row: int = 0
    bank: int = 0
    fetches: tuple[Fetch, ...] | None = None
    channels: int = 1
    again: bool = False
    joined: np.ndarray | None = None

    @property
    def outputs(self) -> int:
        a, b, d, _ = self.sizes
        return a * b * d

    def cycles(self, block: int) -> int:
        """In the turns of a block."""
        if self.fetches is None:
            return self.groups * self.outputs * self.turns
        at = block * self.groups % len(self.fetches)
        return self.outputs * sum(fetch.reads for fetch in self.fetches[at : at + self.groups])

    @property
    def turns(self) -> int:
        """Of an output, where operands are read as they stand. The store is asked for its row, for what is added, and
        takes what becomes of it, each in cycles of its own.
        """
        return max(ROUND if self.joined is None else 1 + 2 * HALVES, self.sizes[3])


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """blocks: how often its load and its passes run. shape, after: of its maps. chunk: whether a block is some channels
    of all groups, else some groups of all channels.
    """

    load: Load
    passes: tuple[Pass, ...]
    blocks: int
    shape: Shape
    after: Shape
    chunk: bool


def groups_of(shape: Shape) -> int:
    return -(-shape.positions // LANES)


def layers_of(stages: tuple[Stage, ...]) -> tuple[tuple[Layer, ...], Reads]:
    """The Layers of a network's stages, and the Reads of all, of which the first two are those of a word of either bank
    as it stands. Each stage takes what the one before it gives; a layer may add what it took. ValueError for a layer
    without room, and for others.
    """
    reads = Reads()
    for bank in range(2):
        reads.add(reads_of(np.arange(LANES) + bank * LANES, LANES, (1,)), 1)
    layers = []
    for owner, own in groupby(stages, key=lambda stage: stage.owner):
        own = [*own]
        windowed, adds = own[0].window is not None and sees(own[0].window), own[-1].takes[1:]
        if adds and (windowed or adds != own[0].takes[:1]):
            raise ValueError(f"layer {owner} adds something; tiled layers add the vector that they took, no window's")
        if windowed and len(own) > 1:
            raise ValueError(f"layer {owner} has several factors behind a window; tiled layers have one")
        layers.append(_windowed(own[0], reads) if windowed else _chain(own))
    return tuple(layers), reads


def _no_room(owner, what):
    return ValueError(f"layer {owner}: {what} has no room in {2 * ROWS} words of {LANES} numbers, of tiled layers")


def _chain(stages):
    """As many groups at once as a bank has room for."""
    factors = [factor_of(stage) for stage in stages]
    sizes = [factors[0].pattern.inputs, *(factor.pattern.outputs for factor in factors[:-1])]
    groups = groups_of(stages[0].shape)
    together = next((n for n in reversed(divisors(groups)) if n * max(sizes) <= ROWS), None)
    if together is None:
        raise _no_room(stages[0].owner, f"a vector of {max(sizes)}")
    passes = []
    for n, (factor, inputs) in enumerate(zip(factors, sizes)):
        a, b, c, d = factor.pattern
        passes.append(
            Pass(
                factor=factor, groups=together, sizes=(a, b, d, c), steps=(c * d, 0, 1, d), row=inputs, bank=n % 2,
                weights=weights_of(factor), joined=joined_of(factor),
            )
        )
    load = Load(first=0, groups=together, words=sizes[0], further=together, alone=True)
    return Layer(
        load=load, passes=tuple(passes), blocks=groups // together, shape=stages[0].shape, after=stages[-1].after,
        chunk=False,
    )


def _windowed(stage, reads):
    """By the tiles that bring the fewest words: some channels of the whole map, where each output has a channel of its
    own, or all channels of some groups.
    """
    factor, shape, window, channels = factor_of(stage), stage.shape, stage.window, stage.shape.channels
    a, b, c, d = factor.pattern
    both = terms(factor.pattern, window.block or channels, window.taps)
    tap, channel = (of.reshape(-1, c) for of in both)
    single = b == 1 and a * d == channels and (channel == np.arange(channels)[:, None]).all()
    if not single and a * d > 1:
        raise ValueError(f"layer {stage.owner} has groups of channels behind a window; tiled layers see one, or all")
    steps = tuple(dict.fromkeys((1, window.stride[1])))
    seen = [[reads_of(tap, LANES, steps) for tap in group] for group in grouped(taps(window, shape), LANES)]
    tiles = [(False, n) for n in divisors(len(seen))] + [(True, n) for n in divisors(channels) if single]
    found = {}
    for chunk, parts in tiles:  # parts: blocks of channels, or of groups
        load = _load(seen, len(seen) if chunk else len(seen) // parts, channels // (parts if chunk else 1), chunk)
        if -(-load.groups // 2) * load.words <= ROWS:
            found[load.groups * load.words * parts, parts, chunk] = load
    if not found:
        raise _no_room(stage.owner, f"what a window sees of {shape}")
    _, blocks, chunk = best = min(found)
    load, together = found[best], len(seen) // (1 if chunk else blocks)
    fetches = []
    for n, group in enumerate(seen):
        first = load.first + (0 if chunk else n // together * load.further)
        if single:
            run = [read for tap in group for read in tap]
        else:
            run = [_of_channel(r, load.words, ch) for t, ch in zip(tap[0], channel[0]) for r in group[t]]
        fetch = reads.add([run[0].nothing] * (ROUND - len(run)) + run, load.words if single else 1)
        fetches.append(fetch._replace(row=(fetch.row - first // 2 * (1 if single else load.words))))
    ones = not isinstance(stage.work, IntFactor)
    one = Pass(
        factor=factor, groups=together, sizes=(1, b, load.words if single else 1, c), steps=(0, 0, 1, 0), again=ones,
        weights=weights_of(factor)[: 1 if ones else None], fetches=tuple(fetches), channels=load.words if single else 1,
    )
    return Layer(load=load, passes=(one,), blocks=blocks, shape=shape, after=stage.after, chunk=chunk)


def _of_channel(read, channels, channel):
    return read._replace(rows=tuple(row * channels + channel for row in read.rows))


def _load(seen, together, words, chunk):
    """The Load of tiles of so many groups of outputs: as few groups as all of these need, evenly apart, from an even
    one on.
    """
    ranges = []
    for at in range(0, len(seen), together):
        reads = [read for group in seen[at : at + together] for tap in group for read in tap]
        used = [2 * read.rows[bank] + bank for read in reads for bank in read.turn.banks if bank != NOTHING]
        ranges.append((min(used, default=0), max(used, default=0)))
    lows, highs = np.array(ranges).T
    further = int(lows[-1] - lows[1]) // (len(lows) - 2) if len(lows) > 2 else int(lows[-1] - lows[0])
    further -= further % 2
    starts = np.arange(len(lows)) * further
    first = int((lows - starts).min()) // 2 * 2
    groups = 1 + int((highs - first - starts).max())
    return Load(first=first, groups=groups, words=words, further=further, channels=words if chunk else 0)
