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
    """Of a Layer: the first words, in either bank, of the map that it takes, of the one that it adds (0 for none), and
    of what each of its passes gives. lowest: the first word of all that is kept meanwhile.
    """

    source: int
    added: int
    targets: tuple[int, ...]
    lowest: int


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


def _placed(layers, depth):
    """Places in so many words, None where they do not fit."""
    last = {number: n for n, layer in enumerate(layers) for number in (layer.takes, layer.adds)}
    found, spans = [], {0: (0, layers[0].rows_in * layers[0].shape.channels)}  # of maps that are there
    if spans[0][1] > depth:
        return None
    for n, layer in enumerate(layers):
        taken = spans[layer.takes]
        held = [span for number, span in spans.items() if number != layer.takes]
        targets = _targets(layer, taken, held, last[layer.takes] == n, depth)
        if targets is None:
            return None
        lowest = min((*targets, *(low for low, _ in spans.values())))
        found.append(Places(taken[0], spans.get(layer.adds, (0,))[0], targets, lowest))
        spans = {number: span for number, span in spans.items() if last[number] > n}
        if targets:
            spans[n + 1] = targets[-1], targets[-1] + layer.rows_out * layer.outputs
    return tuple(found)


def _targets(layer, taken, held, dies, depth):
    """Where each pass writes, None for nowhere. held: what else is kept; dies: whether what is taken is not."""
    if layer.passes[0].factor is None:
        return ()
    several = layer.rows_out > 1
    # whether what a layer takes is needed when its later passes write
    fetches = layer.groups > 1 and layer.passes[0].fetches is not None
    kept = several or not dies or layer.adds == layer.takes or fetches
    out, before, targets = None, None, []
    if several and (out := _over(layer, taken, held, dies, depth)) is None:
        return None
    given = (out, out + layer.rows_out * layer.outputs) if several else None
    for number, one in enumerate(layer.passes):
        if several and number == len(layer.passes) - 1:
            at = out
        else:
            at = _highest(one.outputs, [*held, taken if kept or number == 0 else None, given, before], depth)
        if at is None:
            return None
        targets.append(at)
        before = at, at + one.outputs
    return tuple(targets)


def _over(layer, taken, held, dies, depth):
    """The highest place of a map such that none of its rows is written where there is what is still needed."""
    each, rows = layer.outputs, np.arange(layer.rows_out)
    first = taken[0] + _live(layer) * layer.shape.channels * dies
    for at in range(depth - layer.rows_out * each, -1, -1):
        free = ((at + (rows + 1) * each <= first) | (at + rows * each >= taken[1])).all()
        if free and all(at + layer.rows_out * each <= low or at >= behind for low, behind in held):
            return at
    return None


def _live(layer):
    """The first row that is still needed of the map that a Layer takes when it gives each of its rows."""
    own = np.arange(layer.rows_out)
    if layer.passes[0].fetches is None:
        return own
    first = np.array([fetch.row for fetch in layer.passes[0].fetches])
    first = np.minimum.accumulate(first[::-1])[::-1][::2]
    return np.minimum(first, own) if layer.adds == layer.takes else first


def _highest(words, taken, depth):
    """The highest place of so many words none of which are taken: pairs (first, behind the last), None for nothing."""
    taken = [pair for pair in taken if pair]
    for top in sorted({depth, *(low for low, _ in taken)}, reverse=True):
        if top >= words and all(top - words >= behind or top <= low for low, behind in taken):
            return top - words
    return None
