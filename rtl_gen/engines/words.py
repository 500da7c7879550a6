"""Words in the order in which they are used, out of ROMs: weights, and what outputs need beside them."""

from math import ceil

import numpy as np
from amaranth.hdl import Const

from ..signals import SMALL, delay
from ..tech import READ

LEAD = READ + 1  # cycles from the addresses of buffer and weights to operands


def to_bits(values, width):
    """Integers (words, ...) -> unsigned Python ints, one a word, the first element in the low bits."""
    values = np.asarray(values)
    if values.size == 0 or width == 0:
        return [0] * len(values)
    bits = (values.reshape(len(values), -1)[..., None] >> np.arange(width)) & 1
    packed = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def ordered(m, tech, name, words, width, address, instead=lambda data, cycles: data):
    """`words[address]`, LEAD cycles later, on its way through one register more than a ROM has.

    instead(data, cycles): what takes the place of the ROM's data, so many cycles after the address.
    """
    if len(words) == 1 or width == 0:
        return instead(Const(words[0], width), LEAD)
    if tech.free_registers:
        return delay(m, instead(tech.rom(m, name, words, width, address), READ), 1, f"{name}_far")
    return instead(tech.rom(m, name, words, width, delay(m, address, 1, f"{name}_near")), LEAD)


def ordered_cost(tally, words, width):
    """The ROM, and the register behind it or that of the address before it.

    Of a few words, columns that are equal become one: so many of 2^words are expected to be there.
    """
    if words > 1:
        if words <= min(SMALL, getattr(tally.tech, "few_words", SMALL)):
            width = 2**words * (1 - (1 - 0.5**words) ** width)
        tally.take(tally.tech.rom_cost(words, ceil(width)))
        tally.add(0, width if tally.tech.free_registers else (words - 1).bit_length())
