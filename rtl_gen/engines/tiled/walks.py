"""Numbers of a map, one after the other: into the store, out of it to a bank, out of it to the output."""

from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Mux, Signal

from ...signals import delay
from ..sequential.control import down
from .code import STORE_BITS, WIDTH
from .program import BEAT, HALVES, LANES, ROWS
from .timing import GIVEN, STORED


def walks(m, run, i, o, total, stored):
    """Instructions that compute nothing. run: of `control`. i, o: Links; total: numbers of a frame of `i`. stored: what
    comes of the store.

    Returns requests of the store, `reads` and `writes` at `at`, with `data` and `mask`; `start`, the first place of a
    map or of a tile; `loads`, of each bank whether each half of a word has come, and `row`, that word's; and two loops,
    whose steps are to be driven: `last_word` and `last_group`, `word_step` and `group_step`, of which these
    instructions do `word_moves` and `group_moves`.
    """
    now, begins = run.now, run.begins
    s = SimpleNamespace(at=Signal(STORE_BITS, name="walk_address"))
    for name in ("word_step", "group_step", "word_moves", "group_moves"):
        setattr(s, name, Signal(name=name))
    s.last_word, _ = down(m, begins, s.word_step, now.d, now.d, "d")
    s.last_group, next_last = down(m, begins, s.group_step, now.groups, now.groups, "groups")
    walking, step, half = run.runs & ~now.computes, Signal(name="walk_step"), Signal(name="walk_half")
    base, along = Signal.like(s.at, name="walk_base"), Signal.like(s.at, name="walk_next")
    lane, lane_ends = Signal(range(LANES), name="walk_lane"), Signal(name="walk_lane_ends")
    # all lanes of a word, but those behind the tail of the last group
    lane_next, whole = Mux(lane_ends, 0, lane + 1), ~s.last_group & ~(lane_ends & next_last)
    s.start = Signal.like(s.at, name="walk_start")
    m.d.comb += [
        s.start.eq(now.target + run.off["in"]), along.eq(base + now.stride),
        s.word_moves.eq(step & (half | ~now.loads)),
        s.group_moves.eq(step & s.last_word & Mux(now.loads, half, lane_ends)),
    ]
    with m.If(begins):
        m.d.sync += [base.eq(s.start), s.at.eq(s.start), lane.eq(0), half.eq(0)]
        m.d.sync += lane_ends.eq((now.groups == 0) & (now.tail == 0))
    with m.Elif(step):
        with m.If(now.loads):
            m.d.sync += [half.eq(~half), s.at.eq(s.at + 1)]
        with m.Else():
            m.d.sync += s.at.eq(s.at + 2)
            with m.If(s.last_word):
                m.d.sync += [lane.eq(lane_next), s.at.eq(base + (lane >= BEAT - 1))]
                m.d.sync += lane_ends.eq(lane_next == Mux(whole, LANES - 1, now.tail))
        with m.If(s.group_moves):
            m.d.sync += [base.eq(along), s.at.eq(along)]
    # all of a frame is asked for, and written as it comes
    asked, left = Signal(name="asked"), Signal(range(max(2, total)), name="asked_left", init=total - 1)
    m.d.comb += i.ready.eq(walking & now.takes & ~asked)
    with m.If(begins):
        m.d.sync += asked.eq(0)
    with m.If(i.take):
        m.d.sync += [left.eq(Mux(left == 0, total - 1, left - 1)), asked.eq(left == 0)]
    byte, number = Signal(range(BEAT), name="walk_byte"), Signal(WIDTH, name="number")
    loads, gives = walking & now.loads, walking & now.gives & o.ready
    m.d.comb += [
        byte.eq(Mux(lane >= BEAT, lane - BEAT, lane)), number.eq(i.payload[0]), o.take.eq(gives),
        step.eq(i.valid | loads | gives),
    ]
    s.reads, s.writes = loads | gives, i.valid
    s.data, s.mask = number.replicate(BEAT), Cat(byte == n for n in range(BEAT))
    s.loads, s.row = _loads(m, run, delay(m, Cat(loads, half, s.group_moves & loads), STORED, "loaded", reset=True))
    which, given = delay(m, byte, STORED, "given_byte"), Signal(WIDTH, name="given")
    m.d.sync += given.eq(Array(stored[n * WIDTH :][:WIDTH] for n in range(BEAT))[which])
    m.d.comb += [o.valid.eq(delay(m, gives, GIVEN, "gives", reset=True)), o.payload[0].eq(given)]
    return s


def _loads(m, run, loaded):
    """(of both banks whether each half of a word has come, its row). loaded: whether a beat has come, its word's
    second, and its group's last.
    """
    now, (comes, upper, ends) = run.now, loaded
    row, first = (Signal(range(ROWS), name=f"load_{name}") for name in ("row", "first"))
    bank = Signal(name="load_bank")
    with m.If(run.begins):
        m.d.sync += [row.eq(0), first.eq(0), bank.eq(0)]
    with m.If(comes):
        with m.If(upper):
            m.d.sync += row.eq(row + 1)
        with m.If(ends & ~now.alone):  # two groups side by side have the same rows
            following = Mux(bank, row + 1, first)
            m.d.sync += [bank.eq(~bank), row.eq(following), first.eq(following)]
    return [[comes & (upper == half) & (bank == n) for half in range(HALVES)] for n in range(2)], row
