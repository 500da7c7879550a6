"""Where maps and vectors stand in the memory: as high as they can, a map over what is no longer needed of the one that
it is made from.
"""

from dataclasses import dataclass

import numpy as np

from .program import Layer

MOST = 1 << 14  # words of a bank


TOO_MANY = f"take more than the {MOST} words that a bank may have; more lanes, or smaller maps, would take fewer"


@dataclass(frozen=True)
class Places:
    """Of a Layer: the first words, in either bank, of the map that it takes, and of what each of its passes gives."""

    source: int
    targets: tuple[int, ...]

    @property
    def lowest(self) -> int:
        return min(self.source, *self.targets) if self.targets else self.source


def places_of(layers: tuple[Layer, ...]) -> tuple[tuple[Places, ...], int]:
    """The Places of each Layer, the network's input from word 0 on; and the fewest words of a bank that they need.
    ValueError where that are too many.
    """
    low, high = 0, MOST
    if not (best := _placed(layers, high)):
        raise ValueError(f"the maps of its layers {TOO_MANY}")
    while low + 1 < high:
        middle = (low + high) // 2
        if found := _placed(layers, middle):
            best, high = found, middle
        else:
            low = middle
    return best, high


def live(layer: Layer) -> np.ndarray:
    """The first row that is still needed of the map that a Layer takes when it gives each of its rows."""
    own = np.arange(layer.rows_out)
    if layer.passes[0].fetches is None:
        return own
    first = np.array([fetch.row for fetch in layer.passes[0].fetches])
    first = np.minimum.accumulate(first[::-1])[::-1][::2]
    return np.minimum(first, own) if layer.residual else first


def _placed(layers, depth):
    """Places in so many words, None where they do not fit."""
    found, source = [], 0
    for layer in layers:
        taken = source, source + layer.rows_in * layer.shape.channels
        if taken[1] > depth:
            return None
        targets = _targets(layer, taken, depth)
        if targets is None:
            return None
        found.append(Places(source, targets))
        source = targets[-1] if targets else source
    return tuple(found)


def _targets(layer, taken, depth):
    if layer.passes[0].factor is None:
        return ()
    several = layer.rows_out > 1
    # whether what a layer takes is needed when its later passes write
    kept = several or layer.residual or layer.groups > 1 and layer.passes[0].fetches is not None
    out, before, targets = None, None, []
    if several and (out := _over(layer, taken, depth)) is None:
        return None
    for number, one in enumerate(layer.passes):
        if several and number == len(layer.passes) - 1:
            at = out
        else:
            given = (out, out + layer.rows_out * layer.outputs) if several else None
            at = _highest(one.outputs, [taken if kept or number == 0 else None, given, before], depth)
        if at is None:
            return None
        targets.append(at)
        before = at, at + one.outputs
    return tuple(targets)


def _over(layer, taken, depth):
    """The highest place of a map such that none of its rows is written where there is what is still needed."""
    each, first = layer.outputs, taken[0] + live(layer) * layer.shape.channels
    row = np.arange(layer.rows_out)
    for at in range(depth - layer.rows_out * each, -1, -1):
        if ((at + (row + 1) * each <= first) | (at + row * each >= taken[1])).all():
            return at
    return None


def _highest(words, taken, depth):
    """The highest place of so many words none of which are taken: pairs (first, behind the last), None for nothing."""
    taken = [pair for pair in taken if pair]
    for top in sorted({depth, *(low for low, _ in taken)}, reverse=True):
        if top >= words and all(top - words >= behind or top <= low for low, behind in taken):
            return top - words
    return None
