"""Multipliers in the tables of the ECP5, along its carry chains.

Each bit of a CCU2C adds A & B to C & D (Lattice FPGA-DS-02012, slice in ripple mode). So one chain adds two rows of
partial products, or a row and a sum, and no table is spent on the rows. Rows are added in pairs, then the sums, in
three levels with a register after each; the row of the sign bit is subtracted.

A term, row or sum, is the number of rows in it and its bits, from bit 0 to the sign; each bit is a pair of values that
stands for their AND. Several sums share a chain, a bit that sets the carry before each: nextpnr spends two tables on
the start of a chain, but takes it for one path, so that the clock falls with its length (10 by 8 bits on an LFE5U-85F
of speed grade 6, medians of three seeds: 101 tables and 301 MHz with a sum a chain, 97 and 282 here, 95 and 252 with 38
bits a chain). Where the last carry has a net in the netlist it takes two tables more: boards.families leaves it open.
"""

from functools import cache

from amaranth.hdl import Cat, Const, Instance, Shape, Signal, signed

CYCLES = 3
LONGEST = 26  # bits of a chain
START = 2  # tables of a chain beside its bits
ZERO, ONE = Const(0, 1), Const(1, 1)
ADD = 0x7888  # (A & B) + (C & D)
SUBTRACT = 0x8777  # ~(A & B) + (C & D)
CLEAR, SET = 0x0000, 0x0001  # the carry out where A, B, C are 0 and D is 1, whatever the carry in


def products(m, name, xs, ws):
    """Products of two lists of signals of equal length, 3 cycles later; a list of signed signals. Those without a sign
    have a zero for it.

    Of any width; beyond 8 bits of the narrower operand several levels share a cycle, and the clock falls.
    """
    result = []
    for n, (x, w) in enumerate(zip(xs, ws)):
        bits, chains, registers = _plan(f"{name}_{n}", x, w)
        for k, chain in enumerate(chains):
            _chain(m, f"{name}_{n}_chain{k}", chain)
        m.d.sync += [register.eq(Cat(*values)) for register, values in registers]
        product = Signal(signed(len(x) + len(w)), name=f"{name}_p{n}")
        m.d.comb += product.eq(Cat(*bits))
        result.append(product)
    return result


def cost(count, x_width, w_width, signed=True):
    """Dict of LUT (nextpnr's TRELLIS_COMB) and FF of `count` products."""
    tables, registers = _cost(x_width, w_width, signed)
    return {"LUT": count * tables, "FF": count * registers}


@cache
def _cost(x_width, w_width, signed):
    _, chains, registers = _plan("", Signal(Shape(x_width, signed)), Signal(Shape(w_width, True)))
    # the lowest bit of the product is an AND by itself
    tables = sum(len(chain) // 2 * 2 + START for chain in chains) + (min(x_width, w_width) > 1)
    return tables, sum(len(register) for register, _ in registers)


def _plan(name, x, w):
    """Bits of the product, chains of bits (table, A, B, C, D, sum), and registers, each with its next values."""
    sides = ([*value, *[ZERO] * (not value.shape().signed)] for value in (x, w))
    (row, w), sums, registers = sorted(sides, key=len, reverse=True), [], []
    terms = [(1, [(bit, weight) for bit in row]) for weight in w]
    if len(terms) == 1:
        terms.insert(0, (0, []))
    levels = (len(terms) - 1).bit_length()
    steps = max(levels, CYCLES)
    for step in range(steps):
        if step >= steps - levels:
            for n in range(len(terms) // 2):
                negative = terms[n + 1][0] == 1 and len(terms) == n + 2
                term, bits = _sum(f"{name}_t{step}_{n}", len(row), *terms[n : n + 2], negative, lowest=n == 0)
                terms[n : n + 2] = [term]
                sums.append(bits)
        if step >= steps - CYCLES:
            terms, *register = _registered(f"{name}_s{step}", terms)
            registers.append(register)
    chains = []
    for bits in sums:
        if not chains or len(chains[-1]) + len(bits) > LONGEST:
            chains.append([])
        chains[-1] += bits
    return [bit for bit, _ in terms[0][1]], chains, registers


def _sum(name, size, low, high, negative, lowest):
    """low + high, or low - high, high standing as many bits above low as low has rows; and the chain.

    size: bits of a row.
    """
    shift, rows = low[0], low[0] + high[0]
    sums, table = Signal(rows + size - shift, name=name), SUBTRACT if negative else ADD
    chain = [(SET if negative else CLEAR, ZERO, ZERO, ZERO, ONE, Signal(name=f"{name}_carry"))]
    chain += [(table, *_bit(high[1], k), *_bit(low[1], k + shift), bit) for k, bit in enumerate(sums)]
    # the low bits of low stay; the chain of a later level may yet AND them, but none comes to those of the lowest term
    below = [(a if b is ONE else a & b, ONE) if lowest else (a, b) for a, b in low[1][:shift]]
    return (rows, below + [(bit, ONE) for bit in sums]), chain


def _bit(bits, k):
    """Bit k of a term, its sign after its last."""
    return bits[min(k, len(bits) - 1)] if bits else (ZERO, ZERO)


def _registered(name, terms):
    """The terms a cycle later, their register, and its next values: a value that is in many terms has one bit."""
    values = {id(value): value for _, bits in terms for pair in bits for value in pair if not isinstance(value, Const)}
    register = Signal(len(values), name=name, reset_less=True)
    later = dict(zip(values, register))
    terms = [(rows, [tuple(later.get(id(value), value) for value in pair) for pair in bits]) for rows, bits in terms]
    return terms, register, list(values.values())


def _chain(m, name, bits):
    # what the first bit sets can come from outside
    (first, *_), *bits = bits
    carry = Const(first == SET, 1)
    if len(bits) % 2:
        bits.append((CLEAR, ZERO, ZERO, ZERO, ONE, Signal(name=f"{name}_end")))
    for n in range(0, len(bits), 2):
        ports = {f"i_{port}{k}": value for k in (0, 1) for port, value in zip("ABCD", bits[n + k][1:5])}
        carry_out = Signal(name=f"{name}_c{n}")
        m.submodules[f"{name}_{n}"] = Instance(
            "CCU2C", **ports, i_CIN=carry, o_COUT=carry_out, o_S0=bits[n][5], o_S1=bits[n + 1][5],
            p_INIT0=Const(bits[n][0], 16), p_INIT1=Const(bits[n + 1][0], 16), p_INJECT1_0="NO", p_INJECT1_1="NO",
        )
        carry = carry_out
