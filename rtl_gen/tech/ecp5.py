"""Lattice ECP5: MULT18X18D, DP16KD with its output register, distributed RAM.

Sources: Lattice FPGA-TN-02205 (sysDSP), FPGA-TN-02204 (memory); the arrangement of ports and of INITVAL is the one that
Yosys maps to.
"""

from functools import partial

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Shape, Signal

from . import ecp5_carry, wide
from .blocks import Blocks
from .cut import Mode, mode_of
from .plain import registered

WIDEST = 18  # bits of an operand of MULT18X18D
SHALLOW = 16  # words: what is no deeper goes into distributed RAM, or into tables
CHUNKS = 2048  # of 9 bits, in a block RAM
# FPGA-TN-02204, pseudo dual port: 36 bits take the data pins of both ports; an enable for each byte of 9 bits
MODES = Mode(512, 36, 9), Mode(1024, 18, 9), Mode(2048, 9, 9), Mode(4096, 4, 4), Mode(8192, 2, 2), Mode(16384, 1, 1)


def shape(depth):
    """Data bits of a DP16KD port that has `depth` words."""
    return mode_of(depth, MODES).bits


def initial(words, width):
    """The 64 INITVAL parameters: rows of two chunks of 9 bits, 20 bits apart; below 9 bits a chunk holds 8 data
    bits.
    """
    if width < 9:
        each = 8 // width
        chunks = [sum(w << n * width for n, w in enumerate(words[at : at + each])) for at in range(0, len(words), each)]
    else:
        chunks = [word >> at & 0x1FF for word in words for at in range(0, width, 9)]
    chunks += [0] * (CHUNKS - len(chunks))
    rows = [low | high << 9 for low, high in zip(chunks[::2], chunks[1::2])]
    return {
        f"p_INITVAL_{n:02X}": Const(sum(row << 20 * k for k, row in enumerate(rows[16 * n :][:16])), 320)
        for n in range(64)
    }


def block_ram(m, name, width, r_address, *, words=(), enable=(), w_address=None, w_data=None):
    """A DP16KD that writes by port A and reads by port B, `width` bits of data; returns the word read.

    enable: of each 9 bits (of the whole word below 18 bits).
    """
    low = {36: 5, 18: 4, 9: 3, 4: 2, 2: 1, 1: 0}[width]
    data = Signal(width, name=f"{name}_do")
    byte_enable = Cat(*enable) if width >= 18 else Const(0, 0)
    ports = {"CLKA": ClockSignal(), "CLKB": ClockSignal(), "CEA": 1, "CEB": 1, "OCEA": 1, "OCEB": 1}
    ports |= {"RSTA": 0, "RSTB": 0, "WEA": Const(1 if width >= 18 else 0) if len(enable) != 1 else enable[0], "WEB": 0}
    ports |= {f"CS{port}{n}": 0 for port in "AB" for n in range(3)}
    inputs = {
        "ADA": Cat(byte_enable, Const(0, low - len(byte_enable)), w_address if enable else Const(0, 14 - low)),
        "ADB": Cat(Const(0, low), r_address),
        "DIA": w_data[:18] if enable else Const(0, 18),
        "DIB": w_data[18:] if enable and width == 36 else Const(0, 18),
    }
    bits = 14, 14, 18, 18
    for (port, value), size in zip(inputs.items(), bits):
        value = Cat(value, Const(0, size))[:size]
        ports |= {f"{port}{n}": value[n] for n in range(size)}
    outputs = {"DOB": data} if width < 36 else {"DOA": data[:18], "DOB": data[18:]}
    m.submodules[name] = Instance(
        "DP16KD",
        p_DATA_WIDTH_A=width,
        p_DATA_WIDTH_B=width,
        p_REGMODE_A="OUTREG",
        p_REGMODE_B="OUTREG",
        p_GSR="DISABLED",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        **initial(words, width),
        **{f"i_{port}": value for port, value in ports.items()},
        **{f"o_{port}{n}": bit for port, value in outputs.items() for n, bit in enumerate(value)},
    )
    return data


class Ecp5(Blocks):
    name = "ecp5"
    worth = 300
    operand = WIDEST
    chain, pair = 2, 2
    block, rows, row = 128, 16, 6
    modes, few_words, few_in_ram, short = MODES, 2 * SHALLOW, SHALLOW, SHALLOW

    def products(self, m, name, xs, ws, *, lut=False):
        if lut:
            return ecp5_carry.products(m, name, xs, ws)
        if max(len(xs[0]), len(ws[0])) > WIDEST:
            return wide.products(m, name, xs, ws, WIDEST, partial(self._mult, m))
        # the third register stands in the fabric, so that the way from the block to the adder is cut in two;
        # without the pipeline register the block itself still reaches 290 MHz at speed grade 6
        pairs = enumerate(zip(xs, ws))
        return [registered(m, self._mult(m, f"{name}_{n}", x, w), f"{name}_p{n}") for n, (x, w) in pairs]

    @staticmethod
    def _mult(m, name, x, w):
        """The product of two operands of a block, with registers in front of it and behind."""
        p = Signal(36, name=f"{name}_m")
        # clocks, enables and resets that no register is set to are left open: nextpnr brings a constant there by wires
        # of the fabric, of which there are few, and its router may then not end
        ports = {"SIGNEDA": int(x.shape().signed), "SIGNEDB": 1, "SOURCEA": 0, "SOURCEB": 0}
        ports |= {"CLK0": ClockSignal(), "CE0": 1, "RST0": 0}
        for port, value in (("A", x), ("B", w)):
            extended = Signal(Shape(WIDEST, value.shape().signed), name=f"{name}_{port.lower()}")
            m.d.comb += extended.eq(value)
            ports |= {f"{port}{k}": extended[k] for k in range(WIDEST)}
        m.submodules[f"{name}_mult"] = Instance(
            "MULT18X18D",
            p_REG_INPUTA_CLK="CLK0",
            p_REG_INPUTB_CLK="CLK0",
            p_REG_PIPELINE_CLK="NONE",
            p_REG_OUTPUT_CLK="CLK0",
            p_GSR="DISABLED",
            **{f"i_{port}": value for port, value in ports.items()},
            **{f"o_P{k}": p[k] for k in range(36)},
        )
        return p[: len(x) + len(w)].as_signed()

    def rom_row(self, m, name, words, width, address, late):
        size, parts = shape(len(words)), []
        for at in range(0, width, size):
            column = [word >> at & ((1 << size) - 1) for word in words]
            parts.append(block_ram(m, f"{name}_{at // size}", size, address, words=column))
        return Cat(*parts)[:width]

    def ram_row(self, m, name, *, depth, width, enable, w_address, w_data, r_address, late):
        size = shape(depth)
        each = -(-width // 9) * 9  # bits of a bank, in whole enables
        words = []
        if 2 * each <= size:
            # several banks in one block RAM
            together = size // each
            for at in range(0, len(enable), together):
                banks = enable[at : at + together]
                lines = Cat(Cat(data, Const(0, each))[:each] for data in w_data[at : at + together])
                word = block_ram(
                    m, f"{name}_{at // together}", size, r_address, enable=self._bytes(banks, each, size),
                    w_address=w_address, w_data=Cat(lines, Const(0, size))[:size],
                )
                words += [word[n * each :][:width] for n in range(len(banks))]
            return words
        for n, (bank, data) in enumerate(zip(enable, w_data)):
            parts = []
            for at in range(0, width, size):
                parts.append(
                    block_ram(
                        m, f"{name}_{n}_{at // size}", size, r_address, enable=[bank] * max(1, size // 9),
                        w_address=w_address, w_data=Cat(data[at:], Const(0, size))[:size],
                    )
                )
            words.append(Cat(*parts)[:width])
        return words

    @staticmethod
    def _bytes(banks, each, size):
        enables = [bank for bank in banks for _ in range(each // 9)]
        return enables + [Const(0)] * (size // 9 - len(enables))

    def products_cost(self, count, x_width, w_width, *, lut=False, signed=True):
        if lut:
            return ecp5_carry.cost(count, x_width, w_width, signed)
        if max(x_width, w_width) > WIDEST:
            return wide.cost(count, x_width + (not signed), w_width, WIDEST)
        return {"DSP": count, "FF": count * (x_width + w_width)}

    def small_rom_cost(self, depth, width):
        # multiplexers of up to eight inputs are no tables
        tables = 1 << max(0, (depth - 1).bit_length() - 4)
        return {"LUT": width * (tables + tables // 32), "FF": width + (depth - 1).bit_length()}

    def small_ram_cost(self, depth, width, banks):
        rows = -(-depth // 16)
        lut = banks * (-(-width // 4) * 4 * rows + (width + 1 if rows > 1 else 0))
        return {"LUT": lut, "FF": banks * width + (depth - 1).bit_length()}


TECHNOLOGY = Ecp5()
