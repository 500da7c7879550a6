"""Bytes of the line to requests, in docs/link.md's words."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from . import frames
from .cobs import CobsDecoder

HEAD, REST, CRC = (part.size for part in (frames.HEAD, frames.REST, frames.CRC))  # bytes
HEADER = HEAD + REST
WAITING = 512  # bytes that wait for the board: a block RAM of the smallest devices, and more than frames.WINDOW parts


class Waiting(wiring.Component):
    """What came while the board had something else to do; more than there is room for is lost.

    Members
    -------
    i_valid : In(1), i_data : In(8)
        of a UartRx.
    o : Out(stream.Signature(8))
        the same bytes.
    """

    def __init__(self):
        super().__init__({"i_valid": In(1), "i_data": In(8), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bytes = ring = memory.Memory(shape=unsigned(8), depth=WAITING, init=[])
        write, read = ring.write_port(), ring.read_port(domain="sync")
        fetch = Signal()
        m.d.comb += [
            write.en.eq(self.i_valid),
            write.data.eq(self.i_data),
            fetch.eq((write.addr != read.addr) & (~self.o.valid | self.o.ready)),
            read.en.eq(fetch),
            self.o.payload.eq(read.data),
        ]
        first, behind = Signal(range(WAITING)), Signal(range(WAITING))
        m.d.comb += [read.addr.eq(first), write.addr.eq(behind)]
        m.d.sync += [behind.eq(behind + self.i_valid), first.eq(first + fetch)]
        with m.If(fetch | self.o.ready):
            m.d.sync += self.o.valid.eq(fetch)
        return m


class Receiver(wiring.Component):
    """Bytes of the line to requests.

    Members
    -------
    i_valid : In(1), i_data : In(8)
        a byte.
    i_error : In(1)
        of a UartRx.
    i_matched : In(1)
        whether the bytes of the message, its CRC among them, are right.
    done : Out(1), reason : Out(8), short : Out(1)
        with a byte: a request has arrived, `reason` 0, or was damaged, `reason` as in docs/link.md; with it, whether it
        is the short one.
    type : Out(8), version : Out(8), length : Out(16), number : Out(32), begins : Out(1)
        of the request, until the next byte; `begins` for the offset zero.
    o_valid : Out(1), o_data : Out(8), end : Out(1)
        a byte of the message; its end.
    in_payload : Out(1), address : Out(range(frames.PART))
        whether the byte is of the payload, or the CRC behind it, and where.
    """

    def __init__(self):
        super().__init__(
            {
                "i_valid": In(1), "i_data": In(8), "i_error": In(1), "i_matched": In(1),
                "done": Out(1), "reason": Out(8), "short": Out(1),
                "type": Out(8), "version": Out(8), "length": Out(16), "number": Out(32), "begins": Out(1),
                "o_valid": Out(1), "o_data": Out(8), "end": Out(1),
                "in_payload": Out(1), "address": Out(range(frames.PART)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cobs = cobs = CobsDecoder()
        limit = frames.PART + HEADER + CRC
        count = Signal(range(limit + 2))  # decoded bytes; stays one above what is allowed
        broken = Signal()
        head = Cat(self.type, self.version, self.length)
        m.d.comb += [
            cobs.i_valid.eq(self.i_valid),
            cobs.i_data.eq(self.i_data),
            self.o_valid.eq(cobs.o_valid),
            self.o_data.eq(cobs.o_data),
            self.end.eq(cobs.end),
            self.in_payload.eq((count >= HEADER) & (count < frames.PART + HEADER)),
            self.address.eq(count - HEADER),
        ]
        with m.If(cobs.o_valid):
            with m.If(count <= limit):
                m.d.sync += count.eq(count + 1)
            with m.If(count == 0):
                m.d.sync += self.begins.eq(1)
            with m.If(count < HEAD):
                m.d.sync += head.eq(Cat(head[8:], cobs.o_data))
            with m.Elif(count < HEAD + 4):
                m.d.sync += self.number.eq(Cat(self.number[8:], cobs.o_data))
            with m.Elif((count < HEADER) & (cobs.o_data != 0)):
                m.d.sync += self.begins.eq(0)
        with m.If(self.i_error):
            m.d.sync += broken.eq(1)
        with m.If(broken):
            m.d.comb += self.reason.eq(frames.FRAMING)
        with m.Elif(count > limit):
            m.d.comb += self.reason.eq(frames.TOO_LONG)
        with m.Elif(cobs.cut | (count < HEAD + CRC) | ~self.i_matched):
            m.d.comb += self.reason.eq(frames.WRONG_CRC)
        with m.Elif((count == HEAD + CRC) & (self.type == frames.INFO) & (self.length == 0)):
            m.d.comb += self.short.eq(1)
        with m.Elif(count != self.length + (HEADER + CRC)):
            m.d.comb += self.reason.eq(frames.WRONG_LENGTH)
        with m.Elif((self.type != frames.RUN) & ~self.begins):
            m.d.comb += self.reason.eq(frames.WRONG_OFFSET)
        m.d.comb += self.done.eq(cobs.end & ~(cobs.empty & ~broken))
        with m.If(cobs.end):
            m.d.sync += [count.eq(0), broken.eq(0)]
        return m
