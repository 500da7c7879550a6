"""Which pass runs for which group, and the turns of its loops."""

from types import SimpleNamespace

from amaranth.hdl import Mux, Signal

from ...signals import delay
from .timing import FETCH, SETTLED


def unpacked(words, value):
    """The fields of a word, by their names."""
    return SimpleNamespace(**{name: value[at : at + bits] for name, (at, bits) in words.fields.items()})


def passes(m, tech, code, lanes, entry, ends):
    """(fields of the next pass and what its group has, the same of the one that runs, `begins`, `busy`).

    Of a group: its parity, its positions `tail`, `turns` of an output, `start` of its reads, addresses `source`,
    `target` and `beside`, of what is added. begins: the cycle before the first turn. entry: an Entry. ends: the last
    turn.
    """
    words, table = code.passes, code.groups
    number = Signal(range(max(2, len(words.words))), name="next_pass")
    group = Signal(range(max(2, *(row["groups"] + 1 for row in words.rows))), name="next_group")
    row_in, row_out = (Signal(code.address, name=f"next_row_{side}") for side in ("in", "out"))
    fresh = Signal(name="next_layer", init=1)
    word = delay(m, tech.rom(m, "passes", words.words, words.width, number), 1, "pass_word")
    then = unpacked(words, word)
    place = Signal(range(max(2, len(table.words))), name="group_address")
    m.d.comb += place.eq(then.table + group)
    own = unpacked(table, delay(m, tech.rom(m, "groups", table.words, table.width, place), 1, "group_word"))

    begins, busy, rested = (Signal(name=name) for name in ("begins", "busy", "rested"))
    age, rest = Signal(range(FETCH), name="age"), Signal(range(SETTLED + 1), name="rest", init=SETTLED)
    last_group, first = group == then.groups, (number == 0) & (group == 0)
    # known a cycle ahead
    aged, wait, there = Signal(name="aged"), Signal.like(rest, name="wait"), Signal(name="there")
    arrived = entry.whole | (entry.loaded >= Mux(then.fetches, own.needs, group + 1))
    m.d.sync += [
        aged.eq((age >= FETCH - 2) & ~begins), wait.eq(Mux(fresh, SETTLED, then.wait)),
        there.eq((number != 0) | arrived & (entry.fresh | ~first)),
    ]
    m.d.comb += [
        # in the cycle of a last turn none has passed
        rested.eq(aged & (~busy | ends) & (Mux(busy, 0, rest) >= wait)),
        begins.eq(rested & there),
        entry.ends.eq(rested & first),
        entry.starts.eq(begins & first),
        entry.opens.eq(begins & then.opens & fresh),
    ]
    with m.If(ends):
        m.d.sync += [rest.eq(1), busy.eq(0)]
    with m.Elif(rest != SETTLED):
        m.d.sync += rest.eq(rest + 1)
    with m.If(age != FETCH - 1):
        m.d.sync += age.eq(age + 1)
    following = {
        "parity": group[0], "tail": Mux(last_group, then.tail, lanes), "turns": Mux(then.fetches, own.turns, then.c),
        "start": Mux(then.fetches, own.start, group[0]), "beside": then.added + row_out,
        "source": Mux(then.fetches, own.base, then.source + Mux(then.moves_in, row_in, 0)),
        "target": then.target + Mux(then.moves_out, row_out, 0),
    }
    bits = {"parity": 1, "tail": lanes.bit_length(), "turns": code.turn_bits, "start": code.read_bits}
    now = Signal.like(word, name="pass")
    runs = unpacked(words, now)
    for name, value in following.items():
        size = bits.get(name, code.address)
        setattr(then, name, Signal(size, name=f"next_{name}"))
        setattr(runs, name, Signal(size, name=name))
        m.d.comb += getattr(then, name).eq(value)
    with m.If(begins):
        m.d.sync += [getattr(runs, name).eq(getattr(then, name)) for name in following]
        m.d.sync += [now.eq(word), busy.eq(1), age.eq(0), fresh.eq(0), number.eq(number + 1)]
        with m.If(then.last):
            with m.If(last_group):
                m.d.sync += [fresh.eq(1), group.eq(0), row_in.eq(0), row_out.eq(0)]
                with m.If(number == len(words.words) - 1):
                    m.d.sync += number.eq(0)
            with m.Else():
                m.d.sync += [number.eq(number - then.back), group.eq(group + 1)]
                with m.If(group[0]):
                    m.d.sync += [row_in.eq(row_in + then.row_in), row_out.eq(row_out + then.row_out)]
    return then, runs, begins, busy


def down(m, begins, step, first, again, name):
    """Of a counter of `first` + 1 steps, later of `again` + 1, whether it is at its last one, and whether at that
    before it: counted down, with a register that says whether nothing is left.
    """
    left, end = Signal.like(again, name=f"{name}_left"), Signal(name=f"{name}_end")
    with m.If(begins):
        m.d.sync += [left.eq(first), end.eq(first == 0)]
    with m.Elif(step):
        m.d.sync += [left.eq(Mux(end, again, left - 1)), end.eq(Mux(end, again == 0, left == 1))]
    return end, left == 1


def loops(m, code, new, now, begins, step, ends):
    """(the number of a read, the address of an operand, that of an output, whether the turn is the last of an output).

    step: a turn. ends: is set where it is a pass's last.
    """
    enable, at_end = step, {}
    for name, size in (("turns", "turns"), ("d", "d"), ("b", "b"), ("a", "a")):
        first, again = getattr(new, size), getattr(now, size)
        end, _ = down(m, begins, enable, first, again, name)
        at_end[name], enable = end, enable & end
    m.d.comb += ends.eq(enable)
    turn_end, d_end, b_end = (at_end[name] for name in ("turns", "d", "b"))
    address, output, beside = (Signal(code.address, name=name) for name in ("operand", "output", "added"))
    read, first = Signal(code.read_bits, name="read"), Signal(code.read_bits, name="read_first")
    with m.If(begins):
        m.d.sync += [
            address.eq(new.source), output.eq(new.target), beside.eq(new.beside), read.eq(new.start),
            first.eq(new.start),
        ]
    with m.Elif(step):
        along = Mux(b_end, now.step_a, now.step_b)
        m.d.sync += address.eq(address + Mux(turn_end, Mux(d_end, along, now.step_d), now.step_c))
        with m.If(turn_end):
            m.d.sync += [output.eq(output + 1), beside.eq(beside + 1)]
        with m.If(now.fetches):
            # copies: those of a tap again for each channel, then those of the next tap
            tap_end = turn_end & now.each & d_end
            m.d.sync += read.eq(Mux(Mux(tap_end, b_end, turn_end), Mux(tap_end, now.start, first), read + 1))
            with m.If(tap_end):
                m.d.sync += first.eq(Mux(b_end, now.start, read + 1))
    return read, Mux(now.joins & turn_end, beside, address), output, turn_end
