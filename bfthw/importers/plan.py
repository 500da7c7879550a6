"""Chains whose weights are entries of a flat vector: tied, moved, cut, zero and one, without their values."""

from dataclasses import dataclass

import numpy as np

from ..chain import Chain, Factor, Indexed, Pattern, patterns, support
from ..structures import index, places

ZERO, ONE = -1, -2  # in the place of an entry: a weight that is 0, that is 1
LIMIT = 1 << 27  # weights of a factor


@dataclass(frozen=True, eq=False)
class Plan:
    """patterns of a chain, and sources: for each the entry of the flat vector, ZERO or ONE, integers (a, b, c, d)."""

    patterns: tuple
    sources: tuple

    @property
    def weights(self):
        return sum(p.weights for p in self.patterns)

    def chain(self, flat):
        """The Chain with the values of a flat vector."""
        table = np.concatenate([np.asarray(flat, np.float64), [1.0, 0.0]])  # the last two are ONE and ZERO
        return Chain(Factor(table[s], support(p)) for p, s in zip(self.patterns, self.sources))


def check_size(weights):
    """ValueError where a factor of so many weights is too large to be made."""
    if weights > LIMIT:
        raise ValueError(f"needs a factor of {weights} weights, {LIMIT} are the limit")


def rows(sources):
    """(a, b, c, d) -> the inputs and the sources of every output, two arrays (outputs, c)."""
    pattern = Pattern(*sources.shape)
    return index(pattern), sources.ravel()[places(pattern)]


def named(taken, sources, inputs):
    """Inputs and sources (outputs, c) to the Indexed and the sources of a factor, without columns that are all ZERO."""
    check_size(taken.size)
    last = np.argsort(sources == ZERO, axis=1, kind="stable")
    width = max(1, int((sources != ZERO).sum(axis=1).max()))
    taken, sources = (np.take_along_axis(t, last, axis=1)[:, :width] for t in (taken, sources))
    return Indexed(np.where(sources == ZERO, 0, taken), inputs), sources[:, None, :, None]


def plan(sources, take=None, give=None, inputs=None):
    """The Plan of factors with the sources (a, b, c, d), its ends cut, padded or added up.

    take: integers (inputs of the first factor,), which of `inputs` values each of them is, ZERO for none of them.
    give: integers (outputs,) or (outputs, g), the outputs of the last factor that are kept, or whose sums are.
    """
    sources = list(sources)
    shapes = [Pattern(*map(int, s.shape)) for s in sources]
    if give is not None:
        taken, entries = (t[give].reshape(len(give), -1) for t in rows(sources[-1]))
        shapes[-1], sources[-1] = named(taken, entries, shapes[-1].inputs)
    if take is not None:
        taken, entries = take[index(shapes[0])], rows(sources[0])[1]
        shapes[0], sources[0] = named(taken, np.where(taken == ZERO, ZERO, entries), inputs)
    return Plan(patterns(shapes), tuple(sources))


def cut(count, inputs, outputs, sources):
    """`count` chains side by side on the same input, padded from `inputs` values, cut to the first `outputs` values.

    The sources' first axis holds the chains. Ends stay as they are where nothing has to be cut.
    """
    shape = Pattern(*sources[0].shape)
    n, whole = shape.inputs // count, Pattern(*sources[-1].shape).outputs
    place = np.tile(np.arange(n), count)
    take = None if count == 1 and inputs == n else np.where(place < inputs, place, ZERO)
    return plan(sources, take, None if outputs == whole else np.arange(outputs), inputs)
