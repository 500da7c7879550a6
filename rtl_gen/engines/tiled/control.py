"""Which instruction runs, and its loops."""

from types import SimpleNamespace

from amaranth.hdl import Array, Mux, Signal

from ...signals import delay
from ..sequential.control import down, unpacked
from .code import BEAT_BITS, STORE, STORE_BITS
from .program import ROWS
from .timing import DRAIN, SETUP, STORED


def control(m, code, booted, stored):
    """The instruction, and the cycles of it.

    booted: whether the store has any. stored: what comes of it. Returns `fetching`, a request of the store at
    `fetch_at`; `now`, fields of the instruction; `block_ends`, whether this is its layer's last block; `off`, what
    blocks before this one add to places in the instruction, by name; `sets`, cycles that end with `begins`, the one
    before the first turn; `runs`, up to `done`, which is to be driven, in the last turn.
    """
    words, beats = code.instructions, code.beats
    word = Signal(beats * BEAT_BITS, name="instruction")
    now = unpacked(words, word)
    s = SimpleNamespace(now=now, fetch_at=Signal(STORE_BITS, name="fetch_address", init=code.first_instruction))
    for name in ("fetching", "sets", "begins", "runs", "done"):
        setattr(s, name, Signal(name=name))
    most = max(row["blocks"] for row in words.rows)
    block = Signal(range(max(2, 1 + most)), name="block")
    s.block_ends = block == now.blocks
    sizes = {"in": STORE, "out": STORE, "weight": 2 * STORE, "row": code.row_slots, "table": len(code.groups.rows)}
    s.off = {name: Signal(range(max(2, size)), name=f"off_{name}") for name, size in sizes.items()}
    with m.If(delay(m, s.fetching, STORED, "fetched", reset=True)):
        m.d.sync += word.eq(stored << (beats - 1) * BEAT_BITS | word >> BEAT_BITS)
    wait, left = Signal(range(DRAIN), name="wait"), Signal(range(beats), name="fetch_left", init=beats - 1)
    # beats from behind an instruction to the first one of its layer
    back = Array((n + 2) * beats for n in range(1 + max(row["back"] for row in words.rows)))[now.back]
    with m.If(wait != 0):
        m.d.sync += wait.eq(wait - 1)
    with m.FSM(name="control"):
        with m.State("BOOT"):
            with m.If(booted):
                m.next = "FETCH"
        with m.State("FETCH"):
            m.d.comb += s.fetching.eq(1)
            m.d.sync += [s.fetch_at.eq(s.fetch_at + 1), left.eq(left - 1), wait.eq(STORED + SETUP)]
            with m.If(left == 0):
                m.next = "SET"
        with m.State("SET"):
            m.d.comb += [s.sets.eq(wait != 0), s.begins.eq(wait == 0)]
            with m.If(wait == 0):
                m.d.sync += s.runs.eq(1)
                m.next = "RUN"
        with m.State("RUN"):
            with m.If(s.done):
                m.d.sync += s.runs.eq(0)
            with m.If(~s.runs):
                m.d.sync += [wait.eq(Mux(now.computes, DRAIN - 2, STORED - 1)), left.eq(beats - 1)]
                m.next = "DRAIN"
        with m.State("DRAIN"):
            with m.If(wait == 0):
                m.next = "FETCH"
                with m.If(now.last):
                    # those of the next block, or of the next layer's first
                    m.d.sync += block.eq(Mux(s.block_ends, 0, block + 1))
                    for name, off in s.off.items():
                        m.d.sync += off.eq(Mux(s.block_ends, 0, off + getattr(now, f"further_{name}")))
                    with m.If(~s.block_ends):
                        m.d.sync += s.fetch_at.eq(s.fetch_at - back)
                with m.If(now.gives):
                    m.d.sync += s.fetch_at.eq(code.first_instruction)
    return s


def loops(m, tech, code, run, walk):
    """The turns of a pass: `step`; `read`, `address` and `active`, whether it has a term; `output_ends`, `group_ends`
    and `last_group`. run: of `control`. walk: of `walks`, whose two loops are a pass's too.
    """
    now, begins, tables = run.now, run.begins, code.groups
    s = SimpleNamespace(step=run.runs & now.computes, last_group=walk.last_group)
    s.output_ends, s.group_ends, b_step, a_step = (
        Signal(name=name) for name in ("output_ends", "group_ends", "b_step", "a_step")
    )
    # a group's reads are looked up while the one before runs
    pointer = Signal(range(max(2, len(tables.rows))), name="table_address")
    entry = unpacked(tables, tech.rom(m, "groups", tables.words, tables.width, pointer))
    turns, left = (Signal(max(len(entry.turns), len(now.turns)), name=name) for name in ("turns", "turns_left"))
    start, s.read = (Signal(range(max(2, len(code.words.rows))), name=name) for name in ("read_start", "read"))
    s.address, last_turn = Signal(range(ROWS), name="operand"), Signal(name="turns_end")
    s.active = left[:3] <= now.terms  # idle turns come first
    b_end, _ = down(m, begins, b_step, now.b, now.b, "b")
    a_end, _ = down(m, begins, a_step, now.a, now.a, "a")
    fresh = begins | s.group_ends
    m.d.comb += [
        s.output_ends.eq(s.step & last_turn), b_step.eq(s.output_ends & walk.last_word), a_step.eq(b_step & b_end),
        s.group_ends.eq(a_step & a_end), walk.word_step.eq(s.output_ends | walk.word_moves),
        walk.group_step.eq(s.group_ends | walk.group_moves),
        run.done.eq(Mux(now.computes, s.group_ends, walk.group_moves) & s.last_group),
    ]
    with m.If(run.sets):
        m.d.sync += pointer.eq(now.table + run.off["table"])
    with m.Elif(fresh):
        m.d.sync += pointer.eq(pointer + 1)
    first_turns, first_read = Mux(now.fetches, entry.turns, now.turns), Mux(now.fetches, entry.start, now.bank)
    along = Mux(walk.last_word, Mux(b_end, now.step_a, now.step_b), now.step_d)
    with m.If(fresh):
        m.d.sync += [
            left.eq(first_turns), turns.eq(first_turns), last_turn.eq(0), start.eq(first_read), s.read.eq(first_read),
            s.address.eq(Mux(now.fetches, entry.base, Mux(begins, 0, s.address + now.step_g))),
        ]
    with m.Elif(s.step):
        m.d.sync += [
            left.eq(Mux(last_turn, turns, left - 1)), last_turn.eq(left == 1),
            s.address.eq(s.address + Mux(last_turn, along, Mux(s.active, now.step_c, 0))),
            s.read.eq(Mux(now.fetches, Mux(last_turn, start, s.read + 1), s.read)),
        ]
    return s
