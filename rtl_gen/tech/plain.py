"""Plain HDL: registers around `*` and memories that any synthesiser can pull into its DSP blocks and block RAMs."""

from amaranth.hdl import Mux, Signal, signed, unsigned
from amaranth.lib import memory

from .technology import Technology


def registered(m, value, name, reset=False):
    """`value` a cycle later."""
    register = Signal.like(value, name=name, reset_less=not reset)
    m.d.sync += register.eq(value)
    return register


PRODUCT = 9  # bits of a product from which on Yosys takes a DSP48E1
OPERANDS = 25, 18  # bits of its operands, signed
TABLES = 8192  # bits of a ROM up to which Yosys makes tables of it
CELLS = 18  # RAM64M, 64 words of 3 bits in 4 tables each, that Yosys takes rather than another block RAM
SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # words, bits of a RAMB18E1


class Plain(Technology):
    """Inferred. What a synthesiser makes of it is its own affair; the costs are those of Yosys 0.70 for a 7-series
    part, tables of six inputs, DSP48E1 and RAMB18E1, as it was seen to map parts of all sizes.
    """

    operand = OPERANDS[1]
    absorbs = True
    logic, chain, apart = 0.8, 0, True
    rows, row = 32, 4

    def products(self, m, name, xs, ws, *, lut=False):
        result = []
        for n, (x, w) in enumerate(zip(xs, ws)):
            product = Signal(signed(len(x) + len(w)), name=f"{name}_m{n}", reset_less=True)
            m.d.sync += product.eq(registered(m, x, f"{name}_a{n}") * registered(m, w, f"{name}_b{n}"))
            result.append(registered(m, product, f"{name}_p{n}"))
        return result

    def rom(self, m, name, words, width, address):
        store = memory.Memory(shape=unsigned(width), depth=len(words), init=words)
        m.submodules[name] = store
        port = store.read_port(domain="sync")
        m.d.comb += port.addr.eq(address)
        return registered(m, port.data, f"{name}_data")

    def ram(self, m, name, *, depth, width, enable, w_address, w_data, r_address, late=True):
        words = []
        for n, write_enable in enumerate(enable):
            m.submodules[f"{name}_{n}"] = store = memory.Memory(shape=unsigned(width), depth=max(2, depth), init=[])
            write = store.write_port()
            read = store.read_port(domain="sync")
            m.d.comb += [
                write.addr.eq(w_address), write.data.eq(w_data), write.en.eq(write_enable), read.addr.eq(r_address),
            ]
            words.append(registered(m, read.data, f"{name}_data{n}") if late else read.data)
        return words

    def store(self, m, name, *, depth, width, init, grain, address, write, mask, data):
        kept = memory.Memory(shape=unsigned(width), depth=depth, init=init)
        m.submodules[name] = kept
        put, read = kept.write_port(granularity=grain), kept.read_port(domain="sync")
        at = registered(m, address, f"{name}_at")
        m.d.comb += [read.addr.eq(at), put.addr.eq(at)]
        m.d.sync += [put.en.eq(Mux(write, mask, 0)), put.data.eq(data)]
        return read.data

    def products_cost(self, count, x_width, w_width, *, lut=False, signed=True):
        narrow, wide = sorted((x_width + (not signed), w_width))
        if narrow + wide < PRODUCT:
            return {"LUT": count * narrow * wide, "FF": 3 * count * (narrow + wide)}
        most, least = OPERANDS
        return {"DSP": count * -(-max(1, wide - 1) // (most - 1)) * -(-max(1, narrow - 1) // (least - 1))}

    def rom_cost(self, depth, width):
        if depth * width <= TABLES:
            return {"LUT": width * -(-depth // 64), "FF": 2 * width}
        return {"RAM": blocks(depth, width), "FF": width}

    def store_cost(self, depth, width):
        return {"RAM": blocks(depth, width)}

    def ram_cost(self, depth, width, banks):
        cells = -(-depth // 64) * -(-width // 3)
        if cells > CELLS * blocks(depth, width):
            return {"RAM": banks * blocks(depth, width), "FF": banks * width}
        tables = 4 * (-(-width // 6) if depth <= 32 else cells) + (width if depth > 64 else 0)
        return {"LUT": banks * tables, "FF": 2 * banks * width}


def blocks(depth, width):
    """RAMB18E1 of a memory; a RAMB36E1 is two."""
    bits = next((bits for words, bits in SHAPES if depth <= words), 1)
    return -(-width // bits) * -(-depth // SHAPES[-1][0])


TECHNOLOGY = Plain()
