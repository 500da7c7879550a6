"""The program of a network on one datapath: layers as passes over groups of positions.

Each group of a layer's positions goes through its passes before the next group does: what a window sees is put together
first where several outputs need it, then comes a pass a factor. The vectors between the passes of a group stand beside
the maps.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from bfthw import IntFactor, Pattern, QFormat
from bfthw.nodes import Max
from bfthw.window import Shape

from ...stages import INPUT, Stage
from .gather import NOTHING, Fetch, Reads, grouped, reads_of, taps

ONE = QFormat(1, 0, signed=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """Dot products for each group of a layer: sums over c of each of (a, b, d) outputs, in this order.

    factor: whose they are; None where the network's output is given, number by number. sizes: (a, b, d, c). steps:
    words from an operand to the next one along each of those. weights: (outputs, c), or (1, c), of every output.
    fetches: of each group, None where operands are read as they stand. each: where each output is a copy of an operand,
    the reads of one; else 0. joined: whether what its layer adds joins it. largest: the largest term, not the sum.
    """

    factor: IntFactor | None
    sizes: tuple[int, int, int, int]
    steps: tuple[int, int, int, int]
    weights: np.ndarray | None = None
    fetches: tuple[Fetch, ...] | None = None
    each: int = 0
    joined: bool = False
    largest: bool = False

    @property
    def outputs(self) -> int:
        a, b, d, _ = self.sizes
        return a * b * d

    def turns(self, group: int) -> int:
        """Cycles of an output."""
        if self.fetches is None:
            return self.sizes[3] + self.joined
        return self.each or self.fetches[group].reads


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """takes, adds: numbers of maps, 0 the network's input, else one more than that of the Layer that gives it; None for
    nothing. shape: of the one that it takes, `rows_in` rows. groups: of positions, that each pass is for; tail:
    positions of the last one.
    """

    passes: tuple[Pass, ...]
    takes: int
    adds: int | None
    shape: Shape
    rows_in: int
    groups: int
    tail: int

    @property
    def rows_out(self) -> int:
        return -(-self.groups // 2)

    @property
    def outputs(self) -> int:
        """Words that a group becomes."""
        return self.passes[-1].outputs


def rows_of(shape: Shape, lanes: int) -> int:
    """Rows of a map, two groups each."""
    return -(-shape.positions // (2 * lanes))


def layers_of(stages: tuple[Stage, ...], lanes: int) -> tuple[tuple[Layer, ...], Reads]:
    """The Layers of a network's stages, that which gives the output behind them; and the Reads of all, of which the
    first two are those of an even and an odd group as they stand.
    """
    reads = Reads()
    for group in range(2):
        reads.add(reads_of(np.arange(lanes) + group * lanes, lanes, (1,)), 1)
    layers, maps, count = [], {INPUT: 0}, 0  # of each stage that gives one, its map
    for _, own in groupby(stages, key=lambda stage: stage.owner):
        own = [*own]
        layers.append(_layer(own, maps, lanes, reads))
        count += len(own)
        maps[count - 1] = len(layers)
    return (*layers, _output(stages[-1].after, len(layers), lanes, reads)), reads


def factor_of(stage: Stage) -> IntFactor:
    """A stage's factor; of a sum or a maximum, one of ones."""
    if isinstance(stage.work, IntFactor):
        return stage.work
    ones = np.ones((1, 1, stage.window.taps, stage.shape.channels), int)
    return IntFactor(values=ones, input=stage.input, weights=ONE, output=stage.output)


def _layer(stages, maps, lanes, reads):
    first, passes = stages[0], [_plain(factor_of(stage)) for stage in stages]
    if first.window is not None and sees(first.window):
        passes[:1] = _windowed(first, passes[0], lanes, reads)
    positions = first.after.positions
    groups = -(-positions // lanes)
    return Layer(
        passes=tuple(passes), takes=maps[first.takes[0]], adds=maps[stages[-1].takes[1]] if passes[-1].joined else None,
        shape=first.shape, rows_in=rows_of(first.shape, lanes), groups=groups,
        tail=positions - (groups - 1) * lanes,
    )


def sees(window):
    """Whether it sees more, or less, than the position itself."""
    return (window.size, window.stride) != ((1, 1), (1, 1)) or any(window.padding)


def weights_of(factor: IntFactor) -> np.ndarray:
    """(outputs, c), in the order in which outputs are computed."""
    return factor.values.transpose(0, 1, 3, 2).reshape(-1, factor.pattern.c)


def joined_of(factor: IntFactor) -> np.ndarray | None:
    """(outputs,), weights of what is added; None where nothing is."""
    if factor.skip_input is None:
        return None
    return np.ones(factor.pattern.outputs, int) if factor.skip is None else factor.skip


def terms(pattern: Pattern, block: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tap and channel, each (a, d, c), of each term of a vector that a window of so many taps makes of blocks."""
    a, _, c, d = pattern
    index = np.arange(a * c * d).reshape(a, c, d).transpose(0, 2, 1)
    return index // block % count, index // (block * count) * block + index % block


def onward(one, turns: int) -> dict[str, int]:
    """What is added to the place of an operand behind each turn of a pass, of so many turns an output."""
    a, _, d, _ = one.sizes
    along_a, _, along_d, along_c = one.steps
    back = along_d * (d - 1) + along_c * (turns - 1)
    return {
        "step_c": along_c, "step_d": along_d - along_c * (turns - 1), "step_b": -back, "step_a": along_a - back,
    }


def _plain(factor):
    a, b, c, d = factor.pattern
    weights, joined = weights_of(factor), joined_of(factor)
    joins = joined is not None
    if joins:
        weights = np.concatenate([weights, joined[:, None]], 1)
    return Pass(factor=factor, sizes=(a, b, d, c), steps=(c * d, 0, 1, d), weights=weights, joined=joins)


def _windowed(stage, plain, lanes, reads):
    """The passes of a factor behind a window: one, that fetches its operands, where each serves one output alone; else
    one that puts a window's vectors together before it.
    """
    window, channels = stage.window, stage.shape.channels
    seen, (a, b, d, c) = grouped(taps(window, stage.shape), lanes), plain.sizes
    steps = tuple(dict.fromkeys((1, window.stride[1])))
    own = [[reads_of(tap, lanes, steps) for tap in group] for group in seen]
    block = window.block or channels
    if b == 1 and c == window.taps and not plain.joined:
        tap, channel = terms(plain.factor.pattern, block, window.taps)
        alone = channel[:, :, 0]
        by_a, by_d = (int(np.diff(alone, axis=axis).ravel()[0]) if alone.shape[axis] > 1 else 0 for axis in (0, 1))
        affine = by_a * np.arange(a)[:, None] + by_d * np.arange(d)
        if (tap == np.arange(c)).all() and (channel == affine[:, :, None]).all():
            fetches = [reads.add([read for tap in group for read in tap], channels) for group in own]
            weights = plain.weights if isinstance(stage.work, IntFactor) else plain.weights[:1]
            return [
                Pass(
                    factor=plain.factor, sizes=plain.sizes, steps=(by_a, 0, by_d, 0), weights=weights,
                    fetches=tuple(fetches), largest=isinstance(getattr(stage.work, "node", None), Max),
                )
            ]
    each = max(len(tap) for group in own for tap in group)
    fetches = [reads.add([read for tap in group for read in _padded(tap, each)], channels) for group in own]
    one = IntFactor(values=np.ones((1, 1, 1, 1), int), input=stage.input, weights=ONE, output=stage.input)
    copies = Pass(
        factor=one, sizes=(channels // block, window.taps, block, 1), steps=(block, 0, 1, 0),
        weights=np.ones((1, 1), int), fetches=tuple(fetches), each=each,
    )
    return [copies, plain]


def _padded(own, each):
    """So many reads, those that are missing before the last one."""
    return [own[0].nothing] * (each - len(own)) + own


def _output(shape, takes, lanes, reads):
    """Of each position a pass that gives its channels."""
    fetches = []
    for position in range(shape.positions):
        alone = np.full(lanes, NOTHING)
        alone[0] = position
        fetches.append(reads.add(reads_of(alone, lanes, (1,)), shape.channels))
    give = Pass(factor=None, sizes=(1, 1, shape.channels, 1), steps=(0, 0, 1, 0), fetches=tuple(fetches))
    return Layer(
        passes=(give,), takes=takes, adds=None, shape=shape, rows_in=rows_of(shape, lanes), groups=shape.positions,
        tail=lanes,
    )
