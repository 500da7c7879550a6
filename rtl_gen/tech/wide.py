"""Products of operands wider than a multiplier block: of pieces, so that what they take follows from the widths.

x = sum of x_n * 2^(n*(size-1)): all pieces but the last have size-1 bits and a zero as their sign, the last has what is
left, with x's own sign. Each product of two pieces is a block, or tables and carry chains where one of the two is
narrow; all of them are there after MULTIPLY-1 cycles and are added in the last one. Left to synthesis, the number of
blocks would be up to its version, and the clock would suffer from blocks without registers.
"""

from amaranth.hdl import Cat, Const, Signal, signed

from . import rows
from .technology import MULTIPLY, number

NARROW = 4  # bits of a piece that is multiplied in tables: two levels of adders


def products(m, name, xs, ws, size, multiply):
    """Technology.products of any width; multiply(name, x, w): a block's product, MULTIPLY-1 cycles later, and its
    operands have `size` bits at most.
    """
    result = []
    for n, (x, w) in enumerate(zip(xs, ws)):
        terms = []
        for k, (at, left) in enumerate(pieces(number(x), size)):
            for l, (up, right) in enumerate(pieces(w, size)):
                part = f"{name}_{n}_{k}_{l}"
                if min(len(left), len(right)) > NARROW:
                    product = multiply(part, left, right)
                else:
                    product = rows.product(m, part, left, right, cycles=MULTIPLY - 1)
                terms.append(product << at + up)
        total = Signal(signed(len(x) + len(w)), name=f"{name}_p{n}", reset_less=True)
        m.d.sync += total.eq(sum(terms[1:], terms[0]))
        result.append(total)
    return result


def pieces(x, size):
    """[(bits below it, signed piece)], as wide as `widths` says."""
    *starts, last = _starts(len(x), size)
    return [(at, Cat(x[at : at + size - 1], Const(0, 1)).as_signed()) for at in starts] + [(last, x[last:].as_signed())]


def cost(count, x_width, w_width, size):
    """Dict of DSP (blocks) and of LUT and FF, estimated, of `count` products."""
    lefts, rights = (widths(width, size) for width in (x_width, w_width))
    used = {"DSP": 0, "LUT": (len(lefts) * len(rights) - 1) * (x_width + w_width), "FF": x_width + w_width}
    for left in lefts:
        for right in rights:
            if min(left, right) > NARROW:
                used["DSP"] += 1
            else:
                tables = rows.cost(1, left, right, cycles=MULTIPLY - 1)
                used = {key: number + tables.get(key, 0) for key, number in used.items()}
    return {key: count * number for key, number in used.items()}


def widths(width, size):
    """Bits of the pieces of an operand, `size` at most."""
    *starts, last = _starts(width, size)
    return [size] * len(starts) + [width - last]


def _starts(width, size):
    """The lowest bit of each piece; the last has a bit beside its sign, where there is one."""
    return range(0, max(1, width - 1), size - 1)
