"""Multipliers of adders, in plain HDL, for tables of four inputs beside a carry chain.

Such a cell adds two bits and can choose between their sum and one of them, so that a row added by choice,
`s + x if w else s`, takes no cells of its own: of every two rows of partial products only one is ANDed. The row of the
sign bit is subtracted in the same way. Then the sums of two rows are added in pairs, with registers between.
"""

from amaranth.hdl import Cat, Mux, Signal, signed

from .plain import registered
from .technology import MULTIPLY, number


def products(m, name, xs, ws):
    """Products of two lists of signals of equal length, MULTIPLY cycles later; a list of signed signals.

    Of any width; beyond 8 bits of the narrower operand several levels share a cycle, and the clock falls.
    """
    return [product(m, f"{name}_{n}", x, w) for n, (x, w) in enumerate(zip(xs, ws))]


def product(m, name, x, w, *, cycles=MULTIPLY):
    """The product of two signals, the second one signed, `cycles` later."""
    result = Signal(signed(len(x) + len(w)), name=f"{name}_p")
    x, w = sorted((number(x), w), key=len, reverse=True)
    levels = _levels(len(w))
    for step in range(cycles - levels):
        x, w = registered(m, x, f"{name}_x{step}"), registered(m, w, f"{name}_w{step}")
    terms = [_rows(x, w, n) for n in range(0, len(w), 2)]  # sum, rows in it
    for level in range(levels):
        if level:
            terms = [_sum(len(x), *terms[n : n + 2]) for n in range(0, len(terms), 2)]
        if level >= levels - cycles:
            terms = [(registered(m, term, f"{name}_s{level}_{n}"), rows) for n, (term, rows) in enumerate(terms)]
    m.d.comb += result.eq(terms[0][0])
    return result


def cost(count, x_width, w_width, *, cycles=MULTIPLY):
    """Dict of LUT and FF of `count` products; synthesis leaves out the zero above an operand without a sign."""
    n, rows = max(x_width, w_width), min(x_width, w_width)
    levels, terms = _levels(rows), [2] * (rows // 2) + [1] * (rows % 2)
    lut, ff = 0, max(0, cycles - levels) * (n + rows)
    for level in range(levels):
        if level:
            pairs = [terms[k : k + 2] for k in range(0, len(terms), 2)]
            lut += sum(n + pair[1] for pair in pairs if len(pair) == 2)
            terms = [sum(pair) for pair in pairs]
        else:
            # a single row is that of the sign bit, and is inverted as well
            lut += len(terms) * (2 * n + 1)
        if level >= levels - cycles:
            ff += sum(n + term for term in terms)
    return {"LUT": count * lut, "FF": count * ff}


def _levels(rows):
    return (-(-rows // 2) - 1).bit_length() + 1


def _rows(x, w, n):
    if n == len(w) - 1:
        return Mux(w[n], -x, 0), 1
    row = Mux(w[n], x, 0)
    high = row >> 1
    if n + 1 == len(w) - 1:
        # high - x, without cells that invert x
        inverse = (~high).as_signed()
        chosen = ~Mux(w[n + 1], inverse + x, inverse)
    else:
        chosen = Mux(w[n + 1], high + x, high)
    return Cat(row[0], chosen).as_signed(), 2


def _sum(size, low, high=None):
    if high is None:
        return low
    term, rows = low
    # a sum of so many rows has no more bits than this
    total = Cat(term[:rows], (term >> rows) + high[0])[: size + rows + high[1]]
    return total.as_signed(), rows + high[1]
