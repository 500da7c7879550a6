"""Memories of a family's block RAMs: cut (see `cut`), each part made as the family has it, and put together."""

from collections import Counter
from copy import copy
from itertools import zip_longest

from amaranth.hdl import Cat, Const, Mux

from . import small
from .cut import cut, mode_of, side_by_side
from .plain import registered
from .technology import READ, Technology


class Blocks(Technology):
    """A Technology that instances block RAMs.

    Members
    -------
    modes
        cut.Modes of a block RAM with a port to write and one to read.
    few_words, few_in_ram, short, style
        words up to which a ROM goes into tables, and a RAM into what `style` says, Yosys' attribute ram_style; words up
        to which what is left of a deeper RAM does. What is left of a ROM stays in a block, where `patch` reaches it.
    price, worth
        tables that a block RAM is worth: memories that take fewer of them are made of those, however deep; 0 for none.
        worth: the price of the variant "tables".
    late
        registers behind a block RAM that stand in the fabric, so that what is chosen of two is chosen before them.
    rom_row(m, name, words, width, address, late), rom_row_cost(depth, width, late)
        `words[address]` out of blocks side by side, in one mode; late: with the registers in the fabric.
    ram_row(m, name, *, depth, width, enable, w_address, w_data, r_address, late)
    ram_row_cost(depth, width, banks, late)
        likewise; w_data: a list, for each bank.
    """

    modes = ()
    few_words, few_in_ram, short, style = 0, 0, 0, "distributed"
    price = worth = 0
    late = 0

    def variant(self, kind):
        """"tables": small memories are tables wherever that is cheap; "blocks": every ROM is in block RAMs."""
        own = copy(self)
        if kind == "tables":
            own.price = own.worth
        else:
            own.few_words = 0
        return own

    def rom(self, m, name, words, width, address):
        if self._in_tables(len(words), width):
            return small.rom(m, name, words, width, address)
        return self._rom(m, name, self._cut_rom(len(words), width), words, address, self.late)

    def _in_tables(self, depth, width):
        """Whether a ROM is made of tables."""
        return depth <= self.few_words or self._worth(self.small_rom_cost, self._cut_rom, depth, width)

    def _worth(self, tables, cut_into, *sizes):
        """Whether the tables of a memory are worth less than its blocks; cut_into: those."""
        if not self.price:
            return False
        blocks = self._cost(cut_into(*sizes), len(sizes) > 2, self.late)
        return tables(*sizes)["LUT"] <= self.price * blocks.get("RAM", 0)

    def _cut_rom(self, depth, width):
        return cut(depth, width, 1, self.modes, written=False)

    def _cut_ram(self, depth, width, banks):
        if self.style == "distributed" and self._worth(self.small_ram_cost, self._cut_long, depth, width, banks):
            return cut(depth, width, banks, self.modes, written=True, short=depth)
        return self._cut_long(depth, width, banks)

    def _cut_long(self, depth, width, banks):
        short = depth if depth <= self.few_in_ram else self.short
        return cut(depth, width, banks, self.modes, written=True, short=short)

    def _rom(self, m, name, one, words, address, late):
        address = _address(one, address)
        if one.into == "words":
            (beside, *rest), size, width = one.parts, 1 << one.low, one.width
            chunks = [words[n * size :][:size] for n in range(one.chunks)]
            rows = [sum(word << n * width for n, word in enumerate(row)) for row in zip_longest(*chunks, fillvalue=0)]
            row = self._rom(m, f"{name}_low", beside, rows, address, 0)
            choices = [row[n * width :][:width] for n in range(one.chunks)]
            for part in rest:
                choices.append(self._rom(m, f"{name}_high", part, words[one.chunks * size :], address, 0))
            return self._chosen(m, name, [choices], address[one.low :], late)[0]
        if one.into == "bits":
            at = one.parts[0].width
            columns = [word & (1 << at) - 1 for word in words], [word >> at for word in words]
            parts = zip(("right", "left"), one.parts, columns)
            return Cat(self._rom(m, f"{name}_{side}", part, some, address, late) for side, part, some in parts)
        return self.rom_row(m, name, words, one.width, address, late)

    def ram(self, m, name, *, depth, width, enable, w_address, w_data, r_address, late=True):
        enable = [enable[n] for n in range(len(enable))]
        one = self._cut_ram(depth, width, len(enable))
        return self._ram(m, name, one, enable, w_address, [w_data] * len(enable), r_address, self.late * late)

    def _ram(self, m, name, one, enable, w_address, w_data, r_address, late):
        w_address, r_address = _address(one, w_address), _address(one, r_address)
        if one.into == "words":
            (beside, *rest), chunk = one.parts, w_address[one.low :]
            enables = [bank & (chunk == n) for bank in enable for n in range(one.chunks)]
            data = [word for word in w_data for _ in range(one.chunks)]
            words = self._ram(m, f"{name}_low", beside, enables, w_address, data, r_address, 0)
            choices = [words[n : n + one.chunks] for n in range(0, len(words), one.chunks)]
            for part in rest:
                enables = [bank & (chunk == one.chunks) for bank in enable]
                words = self._ram(m, f"{name}_high", part, enables, w_address, w_data, r_address, 0)
                choices = [[*some, word] for some, word in zip(choices, words)]
            return self._chosen(m, name, choices, r_address[one.low :], late)
        if one.into == "bits":
            at, sides = one.parts[0].width, []
            for side, part, bits in zip(("right", "left"), one.parts, (slice(at), slice(at, None))):
                data = [word[bits] for word in w_data]
                sides.append(self._ram(m, f"{name}_{side}", part, enable, w_address, data, r_address, late))
            return [Cat(*words) for words in zip(*sides)]
        if one.into == "grains":
            (part,) = one.parts
            each, grain = part.banks // one.banks, part.width
            enable = [bank for bank in enable for _ in range(each)]
            w_data = [Cat(word, Const(0, each * grain))[n * grain :][:grain] for word in w_data for n in range(each)]
            words = self._ram(m, f"{name}_grain", part, enable, w_address, w_data, r_address, late)
            return [Cat(*words[n : n + each])[: one.width] for n in range(0, len(words), each)]
        ports = {"depth": one.depth, "width": one.width, "enable": enable}
        ports |= {"w_address": w_address, "w_data": w_data, "r_address": r_address}
        if one.into == "tables":
            return small.ram(m, name, self.style, **ports)
        return self.ram_row(m, name, late=late, **ports)

    def _chosen(self, m, name, choices, which, late):
        """Of each list of words the one that the upper bits of the address say."""
        for n in range(READ - self.late):
            which = registered(m, which, f"{name}_which{n}")
        words = [_choice(some, which) for some in choices]
        return [registered(m, word, f"{name}_data{n}") for n, word in enumerate(words)] if late else words

    @staticmethod
    def choice_cost(choices):
        """Tables of a bit that is chosen of so many."""
        return choices - 1

    def rom_cost(self, depth, width):
        if self._in_tables(depth, width):
            return self.small_rom_cost(depth, width)
        return self._cost(self._cut_rom(depth, width), False, self.late)

    def ram_cost(self, depth, width, banks):
        return self._cost(self._cut_ram(depth, width, banks), True, self.late)

    def rom_row_cost(self, depth, width, late):
        return {"RAM": -(-width // mode_of(depth, self.modes).bits)}

    def ram_row_cost(self, depth, width, banks, late):
        return {"RAM": side_by_side(width, banks, mode_of(depth, self.modes))}

    def _cost(self, one, written, late):
        if one.into == "tables":
            return self.small_ram_cost(one.depth, one.width, one.banks)
        if one.into == "blocks":
            return (
                self.ram_row_cost(one.depth, one.width, one.banks, late) if written
                else self.rom_row_cost(one.depth, one.width, late)
            )
        behind, total = 0 if one.into == "words" else late, Counter()
        for part in one.parts:
            total.update(self._cost(part, written, behind))
        if one.into == "grains":
            total["LUT"] *= one.banks / one.parts[0].banks  # an enable serves all grains of its bank
        if one.into == "words":
            bits, choices = one.width * one.banks, one.chunks + len(one.parts) - 1
            which = (choices - 1).bit_length()
            total.update(
                LUT=bits * self.choice_cost(choices) + written * choices * one.banks,
                FF=(READ - self.late) * which + bits * late,
            )
        return total


def _choice(words, which):
    """words[which], a bit of `which` at a time."""
    for bit in which:
        alone = words[len(words) // 2 * 2 :]
        words = [*(Mux(bit, high, low) for low, high in zip(words[::2], words[1::2])), *alone]
    return words[0]


def _address(one, address):
    """Its bits of a part, one at least."""
    bits = max(1, (one.depth - 1).bit_length())
    return address[:bits] if len(address) > bits else address
