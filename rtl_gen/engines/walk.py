"""The way of a folded engine over its memory: a pass after the other, a group of words after the other."""

from amaranth.hdl import Mux, Signal

from ..signals import counter, counter_cost


def walk(m, patterns, step, name):
    """Addresses in which the passes read their groups, one a step: address, and by name what is true of the read.

    A group's words are d apart; the next group is one further; a block's last word is followed by the next block's
    first. So the address is a sum; what is added next, and all flags, are a step ahead in registers of their own.
    """
    size, passes = patterns[0].inputs, len(patterns)
    address = Signal(range(size), name=f"{name}_address")
    added = Signal(len(address), name=f"{name}_added", init=patterns[0].d)
    now = {
        "opens": Signal(name=f"{name}_opens", init=1),  # a group of the first pass
        "last": Signal(name=f"{name}_last"),  # of a group
        "end": Signal(name=f"{name}_end"),  # of a pass
        "last_pass": Signal(name=f"{name}_last_pass", init=passes == 1),
        "pass": Signal(range(max(passes, 2)), name=f"{name}_pass"),
    }
    # the next read: its pass, its place in group, block and pass
    pass_ = Signal(range(max(passes, 2)), name=f"{name}_next_pass")
    k = Signal(range(max(p.c for p in patterns)), name=f"{name}_next_k", init=1)
    l = Signal(range(max(2, *(p.d for p in patterns))), name=f"{name}_next_l")
    block_end = Signal(name=f"{name}_next_block_end", init=patterns[0].d == 1)
    last = Signal()
    with m.Switch(pass_):
        for n, p in enumerate(patterns):
            with m.Case(n):
                m.d.comb += last.eq(k == p.c - 1)
    _, end = counter(m, size, step, f"{name}_next", init=1)
    with m.If(step):
        m.d.sync += [address.eq(address + added), k.eq(Mux(last, 0, k + 1))]
        m.d.sync += [now["opens"].eq(now["last"] & (pass_ == 0)), now["last"].eq(last), now["end"].eq(end)]
        m.d.sync += [now["pass"].eq(pass_), now["last_pass"].eq(pass_ == passes - 1)]
        with m.If(last):
            m.d.sync += l.eq(Mux(block_end, 0, l + 1))
        with m.Switch(pass_):
            for n, p in enumerate(patterns):
                after = (n + 1) % passes
                with m.Case(n):
                    m.d.sync += added.eq(Mux(last, Mux(end, 1 - size, Mux(block_end, 1, 1 - (p.c - 1) * p.d)), p.d))
                    with m.If(last):
                        again = Mux(end, patterns[after].d == 1, p.d == 1)
                        m.d.sync += block_end.eq(Mux(block_end, again, l == p.d - 2))
                    with m.If(end):
                        m.d.sync += pass_.eq(after)
    return address, now


def walk_cost(tally, size):
    """An address by adding, a counter of the pass, and the tables of what comes next."""
    bits = (size - 1).bit_length()
    tally.adder(bits, 2 * bits)
    counter_cost(tally, size)
    tally.add(3 * bits + 12, bits + 10)
