"""Numbers that follow nested counters by additions alone: addresses, and places in a map."""

from amaranth.hdl import Const, Mux, Signal


def changes(sizes, strides, turn=0):
    """What a sum of nested counters' values, each times its stride, changes by: for each counter, where it is the
    outermost that goes up, and where all begin anew, `turn` further on.
    """
    result, back = [], 0
    for size, stride in zip(sizes, strides):
        result.append(stride - back)
        back += (size - 1) * stride
    return [*result, turn - back]


def climb(m, step, lasts, changes, name, shape, init=0, ring=None):
    """A register that `step` changes by what belongs to the counters that are not at their `lasts` (see `digits`).

    ring: it stays in 0..ring-1.
    """
    if ring == 1:
        return Const(0, 0)
    value = Signal(shape, name=name, init=init)

    def chosen(less):
        *inner, change = [c - less for c in changes] if ring is None else [c % ring - less for c in changes]
        for last, own in zip(reversed(lasts), reversed(inner)):
            change = Mux(last, change, own)
        return change

    after = value + chosen(0)
    if ring is not None:
        # side by side, so that one sum's sign chooses between the two
        around = value + chosen(ring)
        after = Mux(around < 0, after, around)
    with m.If(step):
        m.d.sync += value.eq(after)
    return value


def climb_cost(tally, bits, levels, ring=False):
    """An adder, a choice of constants in front of it; in a ring two of both, and the choice between them."""
    tally.adder(bits, bits)
    if ring:
        tally.adder(bits + 1)
        tally.add(bits)
    tally.add((levels - 1) * bits / 4 * (1 + ring))
