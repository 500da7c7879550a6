"""The numbers of all lanes, out of two banks of words that are turned."""

from amaranth.hdl import Array, Cat, Mux, Signal

from ...signals import delay
from ...tech import READ
from .control import unpacked


def operands(m, tech, code, *, lanes, width, depth, step, read, address, writes, late=True):
    """The numbers of `lanes` lanes, TO_OPERANDS cycles after the turn that makes them whole, one less where the banks
    are not `late`; and whether a turn does, READ cycles after it.

    code: has the Words of reads and turns, and the `steps` of these. depth: words of a bank, lanes * width bits each.
    step: a turn; read, address: number of its read, and the row that its offsets are from. writes: of each bank
    (enable, row, part) of the parts of its words, which are equally wide.
    """
    own = unpacked(code.words, tech.rom(m, "reads", code.words.words, code.words.width, read))
    base, step = delay(m, address, READ, "operand"), delay(m, step, READ, "step", reset=True)
    turns = tech.rom(m, "turns", code.turns.words, code.turns.width, own.turn)
    early, half = unpacked(code.turns, delay(m, turns, late, "turn_early")), (lanes - 1).bit_length() // 2
    kept = []
    for bank, parts in enumerate(writes):
        at = Signal(max(1, (depth - 1).bit_length()), name=f"address_{bank}", reset_less=True)
        m.d.sync += at.eq(base + getattr(own, f"offset_{bank}"))
        word, how = [], {"depth": depth, "width": lanes * width // len(parts), "r_address": at, "late": late}
        for n, (enable, row, data) in enumerate(parts):
            name = f"bank_{bank}" + f"_part{n}" * (len(parts) > 1)
            word += tech.ram(m, name, enable=[enable], w_address=row, w_data=data, **how)
        word = Cat(word)
        found, amount = [word[n * width :][:width] for n in range(lanes)], getattr(early, f"turn_{bank}")
        for name, part, unit in (("far", amount[half:], 1 << half), ("near", amount[:half], 1)):
            part = part if unit > 1 or not half else delay(m, part, 1, f"amount_{bank}")
            found = [delay(m, x, 1, f"{name}_{bank}_{n}") for n, x in enumerate(_turned(found, part, unit))]
        kept.append(found)
    choice = unpacked(code.turns, delay(m, turns, 2 + late, "turn_late"))
    last = delay(m, own.last, 4 + late, "tap_last")
    goes_on, xs = Signal(name="goes_on"), []  # a tap whose first reads were before
    with m.If(delay(m, step, 4 + late, "operand_step", reset=True)):
        m.d.sync += goes_on.eq(~last)
    for lane in range(lanes):
        first, second = (Array(bank[by * lane % lanes] for by in code.steps)[choice.step] for bank in kept)
        chosen = Mux(getattr(choice, f"bank_{lane}"), second, first)
        x = Signal(width, name=f"x{lane}", reset_less=True)
        m.d.sync += x.eq(Mux(getattr(choice, f"takes_{lane}"), chosen, 0) | Mux(goes_on, x, 0))
        xs.append(x)
    return xs, step & own.last


def _turned(lanes, amount, unit):
    """Lanes, lane l being what lane l + amount * unit was, around the end."""
    for n, bit in enumerate(amount):
        lanes = [Mux(bit, lanes[(lane + (unit << n)) % len(lanes)], x) for lane, x in enumerate(lanes)]
    return lanes
