"""Lattice iCE40: SB_MAC16 (UltraPlus), SB_RAM40_4K, and small multipliers without DSP (HX, LP).

Sources: Lattice FPGA-TN-02007 (DSP function usage guide), FPGA-TN-02002 (memory usage guide).
"""

from functools import partial

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Signal, signed

from . import rows, wide
from .blocks import Blocks
from .cut import Mode, mode_of, side_by_side
from .plain import registered

HALF, WHOLE = 8, 16  # bits of an operand, of two products in a SB_MAC16 or of one
DEEP = 14  # bits of an address of SB_SPRAM256KA
TABLE = 16  # words: a ROM no deeper goes into tables
WORDS = 4  # a RAM no deeper goes into registers; there is no distributed RAM
MASKED = 256  # words of the mode that writes bits by a mask
# FPGA-TN-02002, 256 × 16 to 2048 × 2; a mask for each bit in the widest alone
MODES = Mode(256, 16, 1), Mode(512, 8, 8), Mode(1024, 4, 4), Mode(2048, 2, 2)
# bits → mode of SB_RAM40_4K, its data bits in WDATA and RDATA
PLACES = {16: (0, range(16)), 8: (1, range(0, 16, 2)), 4: (2, range(1, 16, 4)), 2: (3, range(3, 16, 8))}


def bits_of(depth):
    """Data bits of a block RAM of that many words."""
    return mode_of(depth, MODES).bits


class Ice40(Blocks):
    name = "ice40"
    worth = 130
    block = 64
    operand = WHOLE
    free_registers = False
    modes, few_words, few_in_ram, style = MODES, TABLE, WORDS, "registers"
    late = 1  # an iCE40's block RAM has no register behind it

    def products(self, m, name, xs, ws, *, lut=False):
        if lut:
            return rows.products(m, name, xs, ws)
        widest = max(len(xs[0]), len(ws[0]))
        if widest > WHOLE:
            return wide.products(m, name, xs, ws, WHOLE, partial(self._short, m))
        together, bits = (2, HALF) if widest <= HALF else (1, WHOLE)
        result = []
        for at in range(0, len(xs), together):
            some = list(zip(xs, ws))[at : at + together]
            o = self._mac(m, f"{name}_mac{at}", *zip(*some), bits)
            for n, (x, w) in enumerate(some):
                product = Signal(signed(len(x) + len(w)), name=f"{name}_p{at + n}")
                m.d.comb += product.eq(o[2 * bits * n :])
                result.append(product)
        return result

    def _short(self, m, name, x, w):
        """One product of a SB_MAC16 a cycle earlier, without the register at its output."""
        return self._mac(m, f"{name}_mac", [x], [w], WHOLE, last=0)[: len(x) + len(w)].as_signed()

    @staticmethod
    def _mac(m, name, xs, ws, bits, last=1):
        """Both outputs of a SB_MAC16: registers at the inputs, behind the 8 by 8 bit products, and at the output."""
        o = Signal(2 * WHOLE, name=f"{name}_o")
        inputs = {}
        for port, values in (("A", xs), ("B", ws)):
            inputs[port] = Signal(WHOLE, name=f"{name}_{port.lower()}")
            for n, value in enumerate(values):
                m.d.comb += inputs[port][bits * n :][:bits].eq(value)
        # 8 bits: the output register stands behind the adder, which adds 0; 16 bits: behind the sum of the products
        half = bits == HALF
        sides = {"ADDSUB_LOWERINPUT": 1, "ADDSUB_UPPERINPUT": 1, "OUTPUT_SELECT": 1} if half else {"OUTPUT_SELECT": 3}
        zero = ["C", "D", *(f"{port}HOLD" for port in "ABCD"), "CI", "ACCUMCI", "SIGNEXTIN"]
        zero += [f"{port}{side}" for port in ("IRST", "ORST", "OLOAD", "ADDSUB", "OHOLD") for side in ("TOP", "BOT")]
        m.submodules[name] = Instance(
            "SB_MAC16",
            p_A_REG=1, p_B_REG=1, p_A_SIGNED=int(xs[0].shape().signed), p_B_SIGNED=1, p_MODE_8x8=int(half),
            p_TOP_8x8_MULT_REG=1, p_BOT_8x8_MULT_REG=1,
            p_PIPELINE_16x16_MULT_REG1=int(not half), p_PIPELINE_16x16_MULT_REG2=int(not half and last),
            **{f"p_{side}{parameter}": value for parameter, value in sides.items() for side in ("TOP", "BOT")},
            i_CLK=ClockSignal(), i_CE=1, i_A=inputs["A"], i_B=inputs["B"],
            **{f"i_{port}": Const(0, WHOLE if len(port) == 1 else 1) for port in zero}, o_O=o,
        )
        return o

    def rom_row(self, m, name, words, width, address, late):
        size, parts = bits_of(len(words)), []
        for at in range(0, width, size):
            column = [word >> at & (1 << size) - 1 for word in words]
            data = self._block(m, f"{name}_{at // size}", len(words), address, min(size, width - at), words=column)
            parts.append(registered(m, data, f"{name}_data{at // size}") if late else data)
        return Cat(*parts)

    def ram_row(self, m, name, *, depth, width, enable, w_address, w_data, r_address, late):
        size, result = bits_of(depth), []
        together = max(1, size // width) if depth <= MASKED else 1  # banks in a block RAM
        for first in range(0, len(enable), together):
            banks, parts = enable[first : first + together], []
            for at in range(0, width, size):
                data = [word[at : at + size] for word in w_data[first : first + together]]
                word = self._block(
                    m, f"{name}_{first}_{at}", depth, r_address, len(data[0]),
                    enable=banks, w_address=w_address, w_data=data,
                )
                parts.append(registered(m, word, f"{name}_{first}_{at}_data") if late else word)
            result += [Cat(*parts)[n * width :][:width] for n in range(len(banks))]
        return result

    def store(self, m, name, *, depth, width, init, grain, address, write, mask, data):
        # no content from configuration on; init is for whoever loads it
        ports = {"at": address, "write": write, "mask": mask, "data": data}
        at, put, some, value = (
            x if isinstance(x, Const) else registered(m, x, f"{name}_{what}") for what, x in ports.items()
        )
        parts = []
        for n in range(width // WHOLE):
            nibbles = [some[(WHOLE * n + k) // grain] for k in range(0, WHOLE, 4)]
            parts.append(o := Signal(WHOLE, name=f"{name}_o{n}"))
            m.submodules[f"{name}_{n}"] = Instance(
                "SB_SPRAM256KA", i_CLOCK=ClockSignal(), i_CHIPSELECT=1, i_STANDBY=0, i_SLEEP=0, i_POWEROFF=1,
                i_ADDRESS=Cat(at, Const(0, DEEP))[:DEEP], i_WREN=put, i_MASKWREN=Cat(nibbles),
                i_DATAIN=value[WHOLE * n :][:WHOLE], o_DATAOUT=o,
            )
        return Cat(*parts)

    @staticmethod
    def _block(m, name, depth, r_address, width, *, words=(), enable=(), w_address=0, w_data=0):
        """A SB_RAM40_4K; the words of its banks, one for each bit of `enable`, one after the other."""
        mode, places = PLACES[mode_of(depth, MODES).bits]
        used = list(places)[: width * max(1, len(enable))]
        r_bus, w_bus, mask = (Signal(WHOLE, name=f"{name}_{port}") for port in ("rdata", "wdata", "mask"))
        for n, place in enumerate(used if enable else ()):
            m.d.comb += w_bus[place].eq(w_data[n // width][n % width])
            if len(enable) > 1:
                m.d.comb += mask[place].eq(~enable[n // width])
        rows = [0] * 256
        for n, word in enumerate(words):
            for bit in range(width):
                rows[n % 256] |= (word >> bit & 1) << (WHOLE // len(places) * bit + n // 256)
        content = [sum(row << WHOLE * k for k, row in enumerate(rows[at : at + 16])) for at in range(0, 256, 16)]
        m.submodules[name] = Instance(
            "SB_RAM40_4K", p_READ_MODE=mode, p_WRITE_MODE=mode,
            **{f"p_INIT_{n:X}": Const(value, 256) for n, value in enumerate(content)},
            i_RCLK=ClockSignal(), i_RCLKE=1, i_RE=1, i_RADDR=Cat(r_address, Const(0, 11))[:11], o_RDATA=r_bus,
            i_WCLK=ClockSignal(), i_WCLKE=1, i_WE=enable[0] if len(enable) == 1 else int(len(enable) > 1),
            i_WADDR=Cat(w_address, Const(0, 11))[:11], i_MASK=mask, i_WDATA=w_bus,
        )
        return Cat(r_bus[place] for place in used)

    def products_cost(self, count, x_width, w_width, *, lut=False, signed=True):
        if lut:
            return rows.cost(count, x_width, w_width)
        n = max(x_width, w_width)
        if n > WHOLE:
            return wide.cost(count, x_width + (not signed), w_width, WHOLE)
        return {"DSP": -(-count // 2) if n <= HALF else count}

    def small_rom_cost(self, depth, width):
        rows = -(-depth // TABLE)  # and the choice of one, two inputs a table
        return {"LUT": width * (rows + (rows * 2 - 1) // 3), "FF": width + (depth - 1).bit_length()}

    def small_ram_cost(self, depth, width, banks):
        registers = banks * width * (depth + 1) + (depth - 1).bit_length()
        return {"LUT": banks * (depth + width * (depth - 1)), "FF": registers}

    def store_cost(self, depth, width):
        return {}

    def rom_row_cost(self, depth, width, late):
        return {"RAM": -(-width // bits_of(depth)), "FF": width * late}

    def ram_row_cost(self, depth, width, banks, late):
        mode = mode_of(depth, MODES)
        masked = banks * (mode.grain < mode.bits and 2 * width <= mode.bits)
        return {"RAM": side_by_side(width, banks, mode), "LUT": masked, "FF": banks * width * late}


TECHNOLOGY = Ice40()
