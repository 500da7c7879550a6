"""Products, their sums, and what becomes of these: a third of an output's lanes a cycle."""

from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Mux, Signal, signed

from ...signals import count, delay
from ...tech import READ
from ..datapath import Datapath
from .code import BEAT_BITS, STORE_BITS, WIDTH
from .program import LANES, ROUND, ROWS
from .timing import STORED, TO_HOLD, TO_LIMITED, TO_RESULT, TO_ROW

UNITS = LANES // ROUND  # lanes that are rounded at once


def results(m, tech, code, run, turn, *, xs, weight, adds, stored):
    """Of the operands of LANES lanes and their weight.

    run, turn: of `control` and `loops`. adds: whether there are any, READ cycles after the turn. stored: what comes of
    the store. Returns requests of the store: `row_reads` at `row_at`, and where that is not, `stores` of `data` at
    `place`; `keeps`, `row` and `word`, what goes into the bank that is not read from; `clips`, how many were clipped.
    """
    now, ages = run.now, [turn.output_ends]  # the end of an output, so many cycles ago
    for n in range(TO_RESULT):
        ages.append(delay(m, ages[-1], 1, f"ended_{n}", reset=True))
    s = SimpleNamespace(row_reads=ages[TO_ROW], keeps=Signal(name="keeps"))
    adds = delay(m, adds, TO_HOLD - READ, "adds", reset=True)
    xs = [Cat(x[:-1], x[-1] ^ now.unsigned).as_signed() for x in xs]
    held = _sums(m, tech, code, xs, weight, adds, ages[TO_HOLD])
    s.row_at, amount, lifted = _row(m, code, run, turn, ages, stored)
    word, s.clips = _rounded(m, tech, code, run, turn, held, amount, lifted, ages)
    s.word, s.row = word, Signal(range(ROWS), name="result_row")
    whole = ages[TO_RESULT]
    m.d.comb += s.keeps.eq(whole & ~now.stores)
    with m.If(run.begins):
        m.d.sync += s.row.eq(0)
    with m.Elif(s.keeps):
        m.d.sync += s.row.eq(s.row + 1)
    # to the store, where no row is read: three cycles of each four at least
    waits, kept = Signal(2, name="waits"), Signal(len(word), name="result_kept", reset_less=True)
    s.place, jumps = Signal(STORE_BITS, name="result_address"), Signal(name="jumps")
    s.stores, s.data = (waits != 0) & ~s.row_reads, kept[:BEAT_BITS]
    with m.If(run.begins):
        m.d.sync += s.place.eq(now.target + run.off["out"])
    with m.Elif(s.stores):
        m.d.sync += s.place.eq(s.place + 1 + Mux(waits[0] & jumps, now.over, 0))
    group_ended = delay(m, turn.group_ends, TO_RESULT, "group_ended", reset=True)
    with m.If(whole & now.stores):
        m.d.sync += [waits.eq(2), kept.eq(word), jumps.eq(group_ended)]
    with m.Elif(s.stores):
        m.d.sync += [waits.eq(waits - 1), kept.eq(kept >> BEAT_BITS)]
    return s


def _sums(m, tech, code, xs, weight, adds, ends):
    """Of each lane a register of its sum, which is that of the next lane a cycle later, within ROUND lanes."""
    totals = []
    for lane, product in enumerate(tech.products(m, "product", xs, [weight] * LANES)):
        acc, total = (Signal(signed(code.sum_bits), name=f"{name}{lane}") for name in ("acc", "sum"))
        m.d.comb += total.eq(acc + product)
        with m.If(adds):
            m.d.sync += acc.eq(Mux(ends, 0, total))
        totals.append(total)
    held = [Signal.like(total, name=f"held{lane}", reset_less=True) for lane, total in enumerate(totals)]
    for lane, (total, hold) in enumerate(zip(totals, held)):
        after = held[lane + 1] if (lane + 1) % ROUND else hold
        m.d.sync += hold.eq(Mux(ends, total, after))
    return held


def _row(m, code, run, turn, ages, stored):
    """(the address of the row of an output, how far its sums are shifted, and what is added to them a cycle later)."""
    now, a, (bits, _) = run.now, code.arithmetic, code.row_bits
    row, first = (Signal(range(max(2, len(code.rows))), name=f"row_{name}") for name in ("address", "first"))
    m.d.comb += first.eq(now.row + run.off["row"])
    with m.If(run.begins | delay(m, turn.group_ends, TO_ROW, "row_group", reset=True)):
        m.d.sync += row.eq(first)
    with m.Elif(ages[TO_ROW]):
        m.d.sync += row.eq(row + 1)
    part, size = (code.rows_of_beat - 1).bit_length(), BEAT_BITS // code.rows_of_beat
    which = delay(m, row[:part], STORED, "row_part")
    own = Array(stored[n * size :][: sum(code.row_bits)] for n in range(code.rows_of_beat))[which]
    amount = Signal(range(max(2, 1 + code.most_shift)), name="amount", reset_less=True)
    added = Signal(signed(bits), name="added", reset_less=True)
    with m.If(ages[TO_ROW + STORED]):
        m.d.sync += [amount.eq(own[bits:] + now.lift), added.eq(own[:bits].as_signed())]
    lifted = Signal(signed(a.acc_width), name="lifted", reset_less=True)
    m.d.sync += lifted.eq((added << now.lift) + a.half)
    return code.first_row + row[part:], amount, lifted


def _rounded(m, tech, code, run, turn, held, amount, lifted, ages):
    """(the word of a result, how many of its numbers were clipped, some cycles later)."""
    now, a, clips = run.now, code.arithmetic, []
    path = Datapath(a, lanes=UNITS, vectors=1, target=tech.name, lut=False)
    # behind the last position of the map nothing counts
    cut, k = Signal(name="cut"), Signal(range(ROUND), name="part")
    cuts = delay(m, turn.last_group & (now.every | run.block_ends), TO_LIMITED - 1, "cuts")
    m.d.sync += k.eq(Mux(ages[TO_LIMITED - 1], 0, k + 1))
    with m.If(ages[TO_LIMITED - 1]):
        m.d.sync += cut.eq(cuts)
    valid = Cat(ages[TO_LIMITED : TO_LIMITED + ROUND]).any()
    word = Signal(LANES * WIDTH, name="result", reset_less=True)
    for unit in range(UNITS):
        aligned = Signal(signed(a.acc_width), name=f"aligned{unit}", reset_less=True)
        total = Signal(signed(a.total_width), name=f"total{unit}", reset_less=True)
        value = aligned + lifted
        m.d.sync += [
            aligned.eq(held[unit * ROUND] << amount),
            total.eq(value >> a.shift if a.shift > 0 else value << -a.shift),
        ]
        y, clipped = path.limited(m, f"{unit}", total, {"end": now.end})
        own, number = word[unit * ROUND * WIDTH :][: ROUND * WIDTH], Signal(WIDTH, name=f"number{unit}")
        m.d.comb += number.eq(y)
        m.d.sync += own.eq(Cat(own[WIDTH:], number))
        clips.append(clipped & valid & ~(cut & (unit * ROUND + k > now.tail)))
    return word, count(m, clips, "saturated", reset=True)
