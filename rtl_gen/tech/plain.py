"""Plain HDL: registers around `*` and memories that any synthesiser can pull into its DSP blocks and block RAMs."""

from amaranth.hdl import Signal, signed, unsigned
from amaranth.lib import memory

from . import Technology


def registered(m, value, name, reset=False):
    """`value` a cycle later."""
    register = Signal.like(value, name=name, reset_less=not reset)
    m.d.sync += register.eq(value)
    return register


class Plain(Technology):
    """Inferred. What a synthesiser makes of it is its own affair, so the costs count bits and operators only."""

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

    def ram(self, m, name, *, depth, width, enable, w_address, w_data, r_address):
        words = []
        for n, write_enable in enumerate(enable):
            m.submodules[f"{name}_{n}"] = store = memory.Memory(shape=unsigned(width), depth=depth, init=[])
            write, read = store.write_port(), store.read_port(domain="sync")
            m.d.comb += [
                write.addr.eq(w_address), write.data.eq(w_data), write.en.eq(write_enable), read.addr.eq(r_address),
            ]
            words.append(registered(m, read.data, f"{name}_data{n}"))
        return words

    def products_cost(self, count, x_width, w_width, *, lut=False):
        return {"DSP": count}

    def rom_cost(self, depth, width):
        return {}

    def ram_cost(self, depth, width, banks):
        return {}


TECHNOLOGY = Plain()
