"""What is made of a few signals: shapes of numbers, delays, counters, credits, sums."""

from math import prod
from operator import add

from amaranth.hdl import Cat, Const, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In

from .tech.plain import registered

SMALL = 16  # values of a counter that is a table rather than an adder


def element(*formats):
    """The narrowest Shape that holds numbers of each of some QFormats."""
    if any(q.signed for q in formats):
        return signed(max(q.operand for q in formats))
    return unsigned(max(q.width for q in formats))


def beat(number, lanes):
    """Shape of a beat: `lanes` elements, lane 0 in the low bits. number: their format; bits, where they only pass."""
    return data.ArrayLayout(signed(number) if isinstance(number, int) else element(number), lanes)


def numbers(bits, shape, count):
    """`count` values of a shape, the first in the low bits."""
    parts = (bits[n * shape.width :][: shape.width] for n in range(count))
    return [part.as_signed() if shape.signed else part for part in parts]


def delay(m, value, cycles, name, reset=False):
    """`value` registered `cycles` times, as `name_s1`, `name_s2`, ...; only control bits are reset. Constants among
    the rest have no registers: Yosys would make a single one for those of a whole chip.
    """
    for n in range(cycles if len(value) and (reset or not isinstance(value, Const)) else 0):
        value = registered(m, value, f"{name}_s{n + 1}", reset)
    return value


def counter(m, size, step, name, init=0):
    """A counter of 0..size-1 that advances with `step`; returns (value, whether it is at its last value)."""
    if size == 1:
        return Const(0, 0), Const(1, 1)
    value = Signal(range(size), name=name, init=init)
    last = value == size - 1
    if size > SMALL:
        last = Signal(name=f"{name}_last", init=init == size - 1)
    with m.If(step):
        if size > SMALL:
            m.d.sync += last.eq(value == size - 2)
        if size <= SMALL:
            with m.Switch(value):
                for n in range(size):
                    with m.Case(n):
                        m.d.sync += value.eq((n + 1) % size)
        elif size & (size - 1) == 0:
            m.d.sync += value.eq(value + 1)
        else:
            m.d.sync += value.eq(Mux(last, 0, value + 1))
    return value, last


def counter_cost(tally, size, count=1):
    """A table a bit for a small counter, else an adder, its comparison and the flag of its last value."""
    if size > 1:
        bits = (size - 1).bit_length()
        for _ in range(count):
            if size > SMALL:
                tally.adder(bits, bits, one=True)
                # what makes the flag, and the way back to zero where the adder does not wrap
                tally.add(bits / 3 + 1 + (bits if size & (size - 1) else 0), 1)
            else:
                tally.add(bits, bits)


def credit(m, size, given, taken, name, init=0, reserve=0):
    """Count what `given` adds and `taken` takes, 0 to `size`, `init` at first; returns whether there are more than
    `reserve`.

    Few are kept in unary, many as a number less what is asked for, so that its sign is the answer.
    """
    if size <= SMALL // 2:
        held = Signal(size, name=name, init=(1 << init) - 1)
        with m.If(given ^ taken):
            m.d.sync += held.eq(Mux(taken, held[1:], Cat(1, held)))
        return held[reserve]
    held = Signal(signed(size.bit_length() + 1), name=name, init=init - 1 - reserve)
    with m.If(given ^ taken):
        # one more, or one less, with one adder: 1 or -1 in two's complement
        m.d.sync += held.eq(held + Cat(1, taken.replicate(len(held) - 1)).as_signed())
    return ~held[-1]


def credit_cost(tally, size):
    """A bit a place for few, else an adder."""
    if size <= SMALL // 2:
        tally.add(size, size)
    else:
        tally.adder(size.bit_length() + 1, size.bit_length() + 1)


def tree(m, values, name, join, reset=False):
    """`join` of two neighbours, and so on until one is left, a register a level; reset: of what must be forgotten with
    it.
    """
    level = 0
    while len(values) > 1:
        joined = []
        for n in range(0, len(values), 2):
            value = join(*values[n : n + 2]) if n + 1 < len(values) else values[n]
            joined.append(Signal.like(value, name=f"{name}_{level}_{n // 2}", reset_less=not reset))
            m.d.sync += joined[-1].eq(value)
        values, level = joined, level + 1
    return values[0]


def count(m, values, name, reset=False):
    """The sum of many small numbers."""
    return tree(m, values, name, add, reset)


def count_cost(tally, values):
    """Of single bits: a level of sums, each a few bits wide."""
    bits = 1
    while values > 1:
        values, bits = values // 2, bits + 1
        tally.add(values * (bits if bits < 3 else bits + 1), values * bits)


def turns(m, start, more, most):
    """A cycle for `start` and each of the `more` that follow it, of which there are at most `most`.

    Returns (whether it is one, how many are left: in a start's own cycle, of the start before).
    """
    left = Signal(range(max(2, most + 1)))
    with m.If(start):
        m.d.sync += left.eq(more)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)
    return start | (left != 0), left


def gathered(m, word, places, arrives, complete, name):
    """The last `places` words that arrived, kept from the cycle after `complete` (with its last word) to the next
    one.
    """
    kept = Signal(places * len(word), name=name, reset_less=True)
    recent = Signal(len(kept) - len(word), name=f"{name}_recent", reset_less=True) if places > 1 else Cat()
    if places > 1:
        with m.If(arrives):
            m.d.sync += recent.eq(Cat(recent, word)[len(word) :])
    with m.If(complete):
        m.d.sync += kept.eq(Cat(recent, word))
    return kept


def digits(m, sizes, step, name):
    """Nested counters, the first one fastest, that advance with `step`: values, and whether each is at its last value.

    Neighbours whose sizes are powers of two share one counter.
    """
    values, lasts, n = [], [], 0
    while n < len(sizes):
        group = [sizes[n]]
        while n + len(group) < len(sizes) and all(size & (size - 1) == 0 for size in (*group, sizes[n + len(group)])):
            group.append(sizes[n + len(group)])
        size = prod(group)
        enable = step
        for last in lasts:
            enable = enable & last
        value, _ = counter(m, size, enable, f"{name}_{n}")
        at = 0
        for part in group:
            bits = (part - 1).bit_length()
            digit = value[at : at + bits] if bits else Const(0, 0)
            values.append(digit)
            lasts.append(digit == part - 1 if bits else Const(1, 1))
            at += bits
        n += len(group)
    return values, lasts


def digits_cost(tally, *sizes):
    together = 1
    for size in (*sizes, 0):
        if size & (size - 1) == 0 and size:
            together *= size
            continue
        counter_cost(tally, together)
        together = 1
        counter_cost(tally, size)


def through(m, outer, inner, members):
    """Connects members that a component has with those of the same names of the one around it."""
    for name, member in members.items():
        a, b = getattr(outer, name), getattr(inner, name)
        m.d.comb += b.eq(a) if member.flow == In else a.eq(b)
