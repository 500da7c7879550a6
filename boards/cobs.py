"""Consistent overhead byte stuffing in hardware: a byte a cycle in, no zero inside a frame, a zero at its end.

(Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999.)
"""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

LONGEST = 254  # bytes of a block

Byte = data.StructLayout({"data": unsigned(8), "last": unsigned(1)})


class CobsDecoder(wiring.Component):
    """Bytes from the line to bytes of a frame; never waits.

    Members
    -------
    i_valid : In(1), i_data : In(8)
        a byte of the line.
    o_valid : Out(1), o_data : Out(8)
        a decoded byte.
    end : Out(1), cut : Out(1), empty : Out(1)
        the frame's zero came; with it, whether in the middle of a block, and whether nothing was in the frame.
    """

    def __init__(self):
        flags = dict.fromkeys(("end", "cut", "empty"), Out(1))
        super().__init__({"i_valid": In(1), "i_data": In(8), "o_valid": Out(1), "o_data": Out(8), **flags})

    def elaborate(self, platform):
        m = Module()
        left = Signal(8)
        first = Signal(init=1)
        long = Signal()
        zero = self.i_data == 0
        m.d.comb += [
            self.end.eq(self.i_valid & zero),
            self.cut.eq(left != 0),
            self.empty.eq(first),
            # a code stands for the zero before its block, but for the first and behind one of the longest
            self.o_valid.eq(self.i_valid & ~zero & ((left != 0) | ~(first | long))),
        ]
        with m.If(left != 0):
            m.d.comb += self.o_data.eq(self.i_data)
        with m.If(self.i_valid):
            with m.If(zero):
                m.d.sync += [left.eq(0), first.eq(1), long.eq(0)]
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            with m.Else():
                m.d.sync += [left.eq(self.i_data - 1), first.eq(0), long.eq(self.i_data == LONGEST + 1)]
        return m


class CobsEncoder(wiring.Component):
    """Bytes of a frame to bytes for the line; a block is gathered, then sent.

    Members
    -------
    i : In(stream.Signature(Byte))
        the frame's bytes, the last one marked.
    o : Out(stream.Signature(8))
        the line's bytes, with the zero at the end.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(Byte)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = memory.Memory(shape=unsigned(8), depth=256, init=[])
        write = block.write_port()
        read = block.read_port(domain="sync")
        held = Signal(8)
        sent = Signal(8)
        finish = Signal()  # after this block: the end
        again = Signal()  # before the end, an empty block for a last zero
        took = Signal()
        m.d.comb += [
            took.eq(self.i.valid & self.i.ready),
            write.addr.eq(held),
            write.data.eq(self.i.payload.data),
            write.en.eq(took & (self.i.payload.data != 0)),
            read.addr.eq(sent),
        ]
        with m.FSM() as fsm:
            with m.State("gather"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += sent.eq(0)
                with m.If(took):
                    m.d.sync += finish.eq(self.i.payload.last)
                    with m.If(self.i.payload.data == 0):
                        m.d.sync += again.eq(self.i.payload.last)
                        m.next = "code"
                    with m.Else():
                        m.d.sync += [held.eq(held + 1), again.eq(0)]
                        with m.If(self.i.payload.last | (held == LONGEST - 1)):
                            m.next = "code"
            with m.State("code"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(held + 1)]
                with m.If(self.o.ready):
                    m.next = "fetch"
            with m.State("fetch"):
                with m.If(sent == held):
                    m.d.sync += held.eq(0)
                    with m.If(again):
                        m.d.sync += [again.eq(0), sent.eq(0)]
                        m.next = "code"
                    with m.Elif(finish):
                        m.next = "end"
                    with m.Else():
                        m.next = "gather"
                with m.Else():
                    m.d.sync += sent.eq(sent + 1)
                    m.next = "send"
            with m.State("send"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(read.data)]
                with m.If(self.o.ready):
                    m.next = "fetch"
            with m.State("end"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "gather"
        m.d.comb += read.en.eq(fsm.ongoing("fetch"))  # what was read stays while it is sent
        return m
