"""Products, their sums, and what becomes of these: a third of an output's lanes a cycle."""

from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Mux, Signal, signed

from ...signals import count, delay
from ...tech import READ
from ..datapath import Datapath
from .code import BEAT_BITS, STORE_BITS, WIDTH
from .program import HALVES, LANES, ROUND, ROWS
from .timing import STORED, TO_HOLD, TO_JOINED, TO_LIMITED, TO_RESULT, TO_ROW

UNITS = LANES // ROUND  # lanes that are rounded at once


def results(m, tech, code, run, turn, *, xs, weight, adds, stored, start):
    """Of the operands of LANES lanes and their weight.

    run, turn: of `control` and `loops`. adds: whether there are any, READ cycles after the turn. stored: what comes of
    the store; start: where a tile that is loaded begins. Returns requests of the store: `reads` at `read_at`, and where
    there is none, `stores` of `data` at `place`; `keeps`, `row` and `word`, what goes into the bank that is not read
    from; `clips`, how many were clipped.
    """
    now, ages = run.now, [turn.output_ends]  # the end of an output, so many cycles ago
    for n in range(TO_RESULT):
        ages.append(delay(m, ages[-1], 1, f"ended_{n}", reset=True))
    s = SimpleNamespace(reads=ages[TO_ROW], keeps=Signal(name="keeps"))
    adds = delay(m, adds, TO_HOLD - 1 - READ, "adds", reset=True)
    xs = [Cat(x[:-1], x[-1] ^ now.unsigned).as_signed() for x in xs]
    held = _sums(m, tech, code, xs, weight, adds, ages)
    s.read_at, amount, added = _row(m, code, run, turn, ages, stored)
    rests = [added] * UNITS
    if code.joins:
        asks, at, joined = _joined(m, tech, code, run, ages, start, stored)
        s.reads, s.read_at = s.reads | asks, Mux(asks, at, s.read_at)
        rests = [added + one for one in joined]
    word, s.clips = _rounded(m, tech, code, run, turn, held, amount, rests, ages)
    s.word, s.row = word, Signal(range(ROWS), name="result_row")
    whole = ages[TO_RESULT]
    m.d.comb += s.keeps.eq(whole & ~now.stores)
    with m.If(run.begins):
        m.d.sync += s.row.eq(0)
    with m.Elif(s.keeps):
        m.d.sync += s.row.eq(s.row + 1)
    # to the store, where nothing is read: two cycles of each output at least
    waits, kept = Signal(2, name="waits"), Signal(len(word), name="result_kept", reset_less=True)
    s.place, jumps = Signal(STORE_BITS, name="result_address"), Signal(name="jumps")
    s.stores, s.data = (waits != 0) & ~s.reads, kept[:BEAT_BITS]
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


def _sums(m, tech, code, xs, weight, adds, ages):
    """Of each lane a register of its sum, which is that of the next lane a cycle later, within ROUND lanes."""
    # an adder, and what stands in its place at first, is one table of an iCE40, with the sum's flip-flop behind it
    sums, first = [], Signal(name="first", init=1)
    with m.If(ages[TO_HOLD - 1]):
        m.d.sync += first.eq(1)
    with m.Elif(adds):
        m.d.sync += first.eq(0)
    for lane, product in enumerate(tech.products(m, "product", xs, [weight] * LANES)):
        sums.append(total := Signal(signed(code.sum_bits), name=f"sum{lane}", reset_less=True))
        with m.If(adds):
            m.d.sync += total.eq(Mux(first, product, total + product))
    held = [Signal.like(total, name=f"held{lane}", reset_less=True) for lane, total in enumerate(sums)]
    for lane, (total, hold) in enumerate(zip(sums, held)):
        after = held[lane + 1] if (lane + 1) % ROUND else hold
        m.d.sync += hold.eq(Mux(ages[TO_HOLD], total, after))
    return held


def _row(m, code, run, turn, ages, stored):
    """(the address of the row of an output, how far its sums are shifted, what is added to them)."""
    now, (bits, _), each = run.now, code.row_bits, code.rows_of_beat
    row, first = (Signal(range(max(2, code.row_slots)), name=f"row_{name}") for name in ("address", "first"))
    m.d.comb += first.eq(now.row + run.off["row"])
    with m.If(run.begins | delay(m, turn.group_ends, TO_ROW, "row_group", reset=True)):
        m.d.sync += row.eq(first)
    with m.Elif(ages[TO_ROW]):
        m.d.sync += row.eq(row + (Mux(now.joins, each, 1) if code.joins else 1))
    part, size = (each - 1).bit_length(), BEAT_BITS // each
    which = delay(m, row[:part], STORED, "row_part")
    own = Signal(sum(code.row_bits), name="row", reset_less=True)
    with m.If(ages[TO_ROW + STORED]):
        m.d.sync += own.eq(Array(stored[n * size :][: len(own)] for n in range(each))[which])
    amount = Signal(range(max(2, 1 + code.most_shift)), name="amount", reset_less=True)
    added = Signal(signed(bits), name="added", reset_less=True)
    with m.If(ages[TO_HOLD - 1]):
        m.d.sync += [amount.eq(own[bits:] + now.lift), added.eq(own[:bits].as_signed())]
    lifted = Signal(signed(code.arithmetic.acc_width), name="lifted", reset_less=True)
    m.d.sync += lifted.eq(added << now.lift)
    return code.first_row + row[part:], delay(m, amount, 1, "amount"), lifted


def _joined(m, tech, code, run, ages, start, stored):
    """(whether what is added to an output's sums is asked for, where, and that of each unit's lane, shifted; 0 where a
    pass adds nothing).
    """
    now = run.now
    own, weight = (Signal(signed(WIDTH), name=f"joined_{name}", reset_less=True) for name in ("row", "weight"))
    with m.If(ages[TO_ROW + STORED]):
        m.d.sync += own.eq(stored[-WIDTH:])
    with m.If(ages[TO_JOINED - 1]):
        m.d.sync += weight.eq(Mux(now.joins, own, 0))
    low, high = asks = [age & now.joins for age in ages[TO_ROW + 1 :][:HALVES]]
    at, word = Signal(STORE_BITS, name="joined_address"), Signal(LANES * WIDTH, name="joined_word", reset_less=True)
    with m.If(run.begins & now.loads):
        m.d.sync += at.eq(start)
    with m.Elif(low | high):
        m.d.sync += at.eq(at + 1)
    lanes = [word[n * WIDTH :][:WIDTH] for n in range(LANES)]
    low_comes, high_comes = (delay(m, ask, STORED, f"joined_{n}", reset=True) for n, ask in enumerate(asks))
    with m.If(low_comes):
        m.d.sync += word[:BEAT_BITS].eq(stored)
    with m.Elif(high_comes):
        m.d.sync += word[BEAT_BITS:].eq(stored)
    with m.Else():  # to the next lane of each unit
        m.d.sync += [lane.eq(after) for n, (lane, after) in enumerate(zip(lanes, lanes[1:])) if (n + 1) % ROUND]
    xs = [Cat(x[:-1], x[-1] ^ now.joined_unsigned).as_signed() for x in lanes[::ROUND]]
    products = tech.products(m, "joined_product", xs, [weight] * UNITS)
    return low | high, at, [product << now.joined << min(code.joins) for product in products]


def _rounded(m, tech, code, run, turn, held, amount, rests, ages):
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
    for unit, joins in enumerate(rests):
        aligned, rest = (
            Signal(signed(a.acc_width), name=f"{name}{unit}", reset_less=True) for name in ("aligned", "rest")
        )
        total = Signal(signed(a.total_width), name=f"total{unit}", reset_less=True)
        value = aligned + rest
        m.d.sync += [
            aligned.eq(held[unit * ROUND] << amount), rest.eq(joins),
            total.eq(value >> a.shift if a.shift > 0 else value << -a.shift),
        ]
        y, clipped = path.limited(m, f"{unit}", total, {"end": now.end})
        own, number = word[unit * ROUND * WIDTH :][: ROUND * WIDTH], Signal(WIDTH, name=f"number{unit}")
        m.d.comb += number.eq(y)
        m.d.sync += own.eq(Cat(own[WIDTH:], number))
        clips.append(clipped & valid & ~(cut & (unit * ROUND + k > now.tail)))
    return word, count(m, clips, "saturated", reset=True)
