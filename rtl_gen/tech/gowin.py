"""Gowin LittleBee and Arora (GW1N, GW2A): MULT9X9 and MULT18X18, block RAM, RAM16SDP4.

Sources: Gowin UG287 (DSP), UG285 (block and shadow RAM). A byte of block RAM has 9 bits, and from two bytes a word on
the lowest bits of the address to write are the enables of its bytes.
"""

from functools import partial

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Shape, Signal, signed

from . import rows, wide
from .blocks import Blocks
from .cut import Mode, mode_of

BYTE = 9
WIDEST = 18  # bits of an operand of MULT18X18
SHALLOW = 32  # words: what is no deeper goes into shadow RAM, or into tables
# UG285, semi-dual port and ROM, GW1N and GW2A alike: 8, 16 and 32 bits too, which are those of 9, 18 and 36
MODES = Mode(512, 36, 9), Mode(1024, 18, 9), Mode(2048, 9, 9), Mode(4096, 4, 4), Mode(8192, 2, 2), Mode(16384, 1, 1)


def bits_of(depth):
    """Data bits of a block RAM of that many words."""
    return mode_of(depth, MODES).bits


def _address(value, bits, enable=()):
    """The 14 bits of an address port: the enables of the bytes, or zeros, below the word's address."""
    low = 14 - next(mode.words for mode in MODES if mode.bits == bits).bit_length() + 1
    enable = Cat(*enable)
    return Cat(enable, Const(0, low - len(enable)), value, Const(0, 14))[:14]


class Gowin(Blocks):
    name = "gowin"
    worth = 250
    operand = WIDEST
    block, rows, row = 128, 16, 8
    modes, few_words, few_in_ram, short = MODES, SHALLOW, SHALLOW, SHALLOW

    def products(self, m, name, xs, ws, *, lut=False):
        if lut:
            return rows.products(m, name, xs, ws)
        widest = max(len(xs[0]), len(ws[0]))
        if widest > WIDEST:
            return wide.products(m, name, xs, ws, WIDEST, partial(self._mult, m, size=WIDEST, between=0))
        size = BYTE if widest <= BYTE else WIDEST
        return [self._mult(m, f"{name}_{n}", x, w, size=size, between=1) for n, (x, w) in enumerate(zip(xs, ws))]

    @staticmethod
    def _mult(m, name, x, w, *, size, between):
        """The product of two operands of a block of `size` bits; registers in front of it, behind it, and `between`."""
        a, b = Signal(Shape(size, x.shape().signed), name=f"{name}_a"), Signal(signed(size), name=f"{name}_b")
        product, out = Signal(signed(len(x) + len(w)), name=f"{name}_p"), Signal(2 * size, name=f"{name}_m")
        m.d.comb += [a.eq(x), b.eq(w), product.eq(out)]
        m.submodules[f"{name}_mult"] = Instance(
            f"MULT{size}X{size}", p_AREG=Const(1), p_BREG=Const(1), p_PIPE_REG=Const(between, 1), p_OUT_REG=Const(1),
            i_A=a, i_B=b, i_SIA=Const(0, size), i_SIB=Const(0, size), i_ASIGN=int(x.shape().signed), i_BSIGN=1,
            i_ASEL=0, i_BSEL=0, i_CLK=ClockSignal(), i_CE=1, i_RESET=0, o_DOUT=out,
        )
        return product

    def rom_row(self, m, name, words, width, address, late):
        size, parts = bits_of(len(words)), []
        for at in range(0, width, size):
            content = sum((word >> at & (1 << size) - 1) << n * size for n, word in enumerate(words))
            parts.append(
                self._block(
                    m, f"{name}_{at // size}", "pROM", size, content, p_BIT_WIDTH=size, i_CLK=ClockSignal(), i_CE=1,
                    i_RESET=0, i_AD=_address(address, size),
                )
            )
        return Cat(*parts)[:width]

    @staticmethod
    def _block(m, name, kind, size, content=0, **ports):
        """A block RAM with its output register, `size` bits of it; the names of those with 9 bits a byte differ."""
        nine = size >= BYTE
        bus, each = (36, 288) if nine else (32, 256)
        kind = {"pROM": "pROMX9", "SDPB": "SDPX9B"}[kind] if nine else kind
        data = Signal(bus, name=f"{name}_do")
        content = {f"p_INIT_RAM_{n:02X}": Const(content >> n * each & (1 << each) - 1, each) for n in range(64)}
        if "i_DI" in ports:
            ports["i_DI"] = Cat(ports["i_DI"], Const(0, bus))[:bus]
        m.submodules[name] = Instance(
            kind, p_READ_MODE=Const(1), p_RESET_MODE="SYNC", i_OCE=1, o_DO=data, **content, **ports
        )
        return data[:size]

    def ram_row(self, m, name, *, depth, width, enable, w_address, w_data, r_address, late):
        size, bytes_of_bank = bits_of(depth), -(-width // BYTE)
        each = bytes_of_bank * BYTE
        together = max(1, size // each)  # banks in a block RAM
        result = []
        for first in range(0, len(enable), together):
            banks, parts = enable[first : first + together], []
            for at in range(0, width, size):
                some = w_data[first : first + together]
                lines = Cat(Cat(data[at : at + size], Const(0, each))[:each] for data in some)
                enables = [bank for bank in banks for _ in range(bytes_of_bank if together > 1 else size // BYTE)]
                parts.append(
                    self._block(
                        m, f"{name}_{first}_{at}", "SDPB", size, p_BIT_WIDTH_0=size, p_BIT_WIDTH_1=size,
                        p_BLK_SEL_0=Const(0, 3), p_BLK_SEL_1=Const(0, 3), i_BLKSELA=Const(0, 3), i_BLKSELB=Const(0, 3),
                        i_CLKA=ClockSignal(), i_CLKB=ClockSignal(), i_RESETA=0, i_RESETB=0, i_CEB=1,
                        i_CEA=1 if len(banks) > 1 else banks[0], i_DI=lines[:size],
                        i_ADA=_address(w_address, size, enables if size > BYTE else ()),
                        i_ADB=_address(r_address, size),
                    )
                )
            result += [Cat(*parts)[n * each :][:width] for n in range(len(banks))]
        return result

    def products_cost(self, count, x_width, w_width, *, lut=False, signed=True):
        if lut:
            # an ALU cannot choose between a sum and an addend: that takes tables of its own
            used = rows.cost(count, x_width, w_width)
            used["LUT"] += count * (min(x_width, w_width) // 2) * (max(x_width, w_width) + 1)
            return used
        widest = max(x_width, w_width)
        if widest <= BYTE:
            return {"DSP": count / 2}  # in MULT18X18, which is two of them
        return {"DSP": count} if widest <= WIDEST else wide.cost(count, x_width + (not signed), w_width, WIDEST)

    @staticmethod
    def choice_cost(choices):
        # Yosys makes one table of all inputs, of 16 to a bit where there are eight
        inputs = choices + (choices - 1).bit_length()
        return 1 << max(0, min(inputs, 8) - 4)

    def small_rom_cost(self, depth, width):
        return {"LUT": width * -(-depth // 16), "FF": width + (depth - 1).bit_length()}

    def small_ram_cost(self, depth, width, banks):
        blocks = -(-depth // 16)
        return {
            "LUT": banks * (8 * -(-width // 4) * blocks + (width + 2) * (blocks > 1)),
            "FF": banks * width + (depth - 1).bit_length(),
        }


TECHNOLOGY = Gowin()
