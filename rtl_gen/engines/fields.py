"""What outputs need beside their dot products: biases, scales, shifts; each stored once for an output.

The words of a folded engine's passes follow each other. What the first passes do not have, a bias above all, is not
stored for them where that saves block RAMs.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Array, Const, Mux

from ..signals import counter, counter_cost, delay
from ..tech import MULTIPLY
from .arithmetic import Arithmetic
from .words import LEAD, ordered, ordered_cost, to_bits


@dataclass(frozen=True, eq=False)
class FieldRom:
    """Fields that are needed in the same cycle: `cycle`, beyond LEAD, after an output's turn.

    arithmetic: whose they are, computed by `lanes` at once. fields: (name, values, bits, signed). heads: leading passes
    that are not stored. words: of all passes, `width` bits, in the order of turns. size: of a pass. slices: (lane,
    name, lowest bit, bits, signed) of each field.
    """

    arithmetic: Arithmetic
    cycle: int
    fields: list
    heads: int
    lanes: int

    @property
    def depth(self):
        return len(self.fields[0][1]) // self.lanes

    @property
    def width(self):
        return self.lanes * sum(bits for _, _, bits, _ in self.fields)

    @property
    def passes(self):
        return len(self.arithmetic.factors)

    @property
    def size(self):
        return self.depth // self.passes

    @property
    def stored(self):
        """Words."""
        return self.depth - self.heads * self.size

    @cached_property
    def slices(self):
        found, at = [], 0
        for name, _, bits, is_signed in self.fields:
            for lane in range(self.lanes):
                found.append((lane, name, at, bits, is_signed))
                at += bits
        return found

    @cached_property
    def words(self):
        words = [0] * self.depth
        values = {name: self.arithmetic.in_order(all_of_it) for name, all_of_it, *_ in self.fields}
        for lane, name, at, bits, _ in self.slices:
            own = to_bits(values[name][lane :: self.lanes, None], bits)
            words = [word | value << at for word, value in zip(words, own)]
        return words


def field_roms(arithmetic, tech, lanes):
    """FieldRoms of an Arithmetic, computed by `lanes` at once."""
    a, cycles, roms = arithmetic, defaultdict(list), []
    needed = {"skip": a.to_total - MULTIPLY, "end": a.to_rounded - 1}
    for name, field in a.fields.items():
        cycles[needed.get(name, a.to_total)].append((name, *field))
    for cycle, fields in cycles.items():
        by_heads = defaultdict(list)
        for field in fields:
            by_heads[_heads(a.factors, field[0])].append(field)
        together = [FieldRom(a, cycle, fields, 0, lanes)]
        apart = [FieldRom(a, cycle, some, heads, lanes) for heads, some in by_heads.items()]
        roms += min(together, apart, key=lambda some: sum(_blocks(tech, rom) for rom in some))
    return roms


def field_bits(arithmetic, tech, lanes):
    """Bits of the ROMs."""
    return sum(rom.stored * rom.width for rom in field_roms(arithmetic, tech, lanes))


def _heads(factors, field):
    """Leading passes in which all outputs have the same, whatever the numbers: new ones may be patched in."""
    own = {
        "skip": lambda factor: factor.skip is not None,
        "bias": lambda factor: factor.bias is not None,
        "extra": lambda factor: factor.exponents is not None,
        "end": lambda factor: False,
    }[field]
    return next((n for n, factor in enumerate(factors) if own(factor)), len(factors))


def _blocks(tech, rom):
    return tech.rom_cost(rom.stored, rom.width).get("RAM", 0) if rom.stored > 1 else 0


def read_fields(m, arithmetic, tech, lanes, take):
    """[lane] of name → signal, each in the cycle in which it is needed; take: LEAD cycles ahead, an output's turn."""
    result, steps = [{} for _ in range(lanes)], {}
    for n, rom in enumerate(field_roms(arithmetic, tech, lanes)):
        name = f"fields{rom.cycle}" + f"_{n}" * bool(rom.heads)
        if rom.cycle not in steps:
            steps[rom.cycle] = delay(m, take, rom.cycle, f"take{rom.cycle}", reset=True)
        data = _read(m, tech, name, rom, steps[rom.cycle])
        for lane, field, at, width, is_signed in rom.slices:
            value = data[at : at + width]
            result[lane][field] = value.as_signed() if is_signed else value
    return result


def _read(m, tech, name, rom, step):
    if not rom.heads:
        address, _ = counter(m, rom.depth, step, f"{name}_address")
        return ordered(m, tech, name, rom.words, rom.width, address)
    turn, end = counter(m, rom.size, step, f"{name}_turn")
    pass_, _ = counter(m, rom.passes, step & end, f"{name}_pass")
    if rom.stored > rom.size:
        turn, _ = counter(m, rom.stored, step & (pass_ >= rom.heads), f"{name}_address")
    alike = [Const(word, rom.width) for word in rom.words[: rom.heads * rom.size : rom.size]]

    def instead(data, cycles):
        which = delay(m, pass_, cycles, f"{name}_pass")
        known = Array(alike)[which] if len({word.value for word in alike}) > 1 else alike[0]
        return Mux(which >= rom.heads, data, known) if rom.stored else known

    return ordered(m, tech, name, rom.words[rom.heads * rom.size :] or [0], rom.width, turn, instead)


def fields_cost(tally, arithmetic, lanes):
    for rom in field_roms(arithmetic, tally.tech, lanes):
        if not rom.heads:
            counter_cost(tally, rom.stored)
        else:
            counter_cost(tally, rom.size)
            counter_cost(tally, rom.passes)
            counter_cost(tally, rom.stored if rom.stored > rom.size else 1)
            tally.add(rom.width if rom.stored else 0, LEAD * (rom.passes - 1).bit_length())
        ordered_cost(tally, rom.stored, rom.width)
