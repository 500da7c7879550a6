"""Memories of few words, in plain HDL: tables, and RAM read without a clock, between a register of the address and one
of the data.
"""

from amaranth.hdl import Signal, unsigned
from amaranth.lib import memory

from .plain import registered


def rom(m, name, words, width, address):
    """`words[address]` two cycles later, out of tables; beyond the last word, the last."""
    data = Signal(width, name=f"{name}_data", reset_less=True)
    with m.Switch(registered(m, address, f"{name}_address")):
        for n, word in enumerate(words[:-1]):
            with m.Case(n):
                m.d.sync += data.eq(word)
        with m.Default():
            m.d.sync += data.eq(words[-1])
    return data


def ram(m, name, style, *, depth, width, enable, w_address, w_data, r_address):
    """Technology.ram; style: Yosys' ram_style, "distributed" or "registers"; w_data: a list, for each bank."""
    address, words = registered(m, r_address, f"{name}_address"), []
    for n, (bank, data) in enumerate(zip(enable, w_data)):
        store = memory.Memory(shape=unsigned(width), depth=max(2, depth), init=[], attrs={"ram_style": style})
        m.submodules[f"{name}_{n}"] = store
        write = store.write_port()
        read = store.read_port(domain="comb")
        m.d.comb += [write.addr.eq(w_address), write.data.eq(data), write.en.eq(bank), read.addr.eq(address)]
        words.append(registered(m, read.data, f"{name}_data{n}"))
    return words
