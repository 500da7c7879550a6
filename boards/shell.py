"""The board's side of docs/link.md: a serial line around a core."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import In, Out

from rtl_gen import AxiStream
from rtl_gen.signals import counter

from . import frames
from .cobs import CobsDecoder, CobsEncoder
from .uart import UartRx, UartTx, cycles_a_bit

HEAD, REST, CRC = (part.size for part in (frames.HEAD, frames.REST, frames.CRC))  # bytes
HEADER = HEAD + REST
SMALLEST_BUFFER = 512  # bytes: a block RAM of the smallest devices


def buffer_bytes(manifest):
    """Largest payload of a request: a power of two that holds a vector; ValueError where a length cannot say so."""
    vector = manifest.input.elements * manifest.input.lane_bytes
    reply = manifest.output.elements * manifest.output.lane_bytes
    size = max(SMALLEST_BUFFER, 1 << (vector - 1).bit_length())
    if max(size, size // vector * reply) > 0xFFFF:
        raise ValueError(f"{manifest.name}: vectors of {vector} and {reply} bytes are too long for the link's frames")
    return size


class Receiver(wiring.Component):
    """Bytes of the line to requests.

    Parameters
    ----------
    buffer : int
        bytes of the largest payload.

    Members
    -------
    i_valid : In(1), i_data : In(8), i_error : In(1)
        of a UartRx.
    busy : In(1)
        what comes is dropped, up to the end of the frame that it belongs to.
    done : Out(1), reason : Out(8), short : Out(1)
        for a cycle: a request has arrived, `reason` 0, or was damaged, `reason` as in docs/link.md; with it, whether it
        is the short one.
    type : Out(8), version : Out(8), length : Out(16), number : Out(32)
        of the request, until the next byte.
    address : In(range(buffer)), data : Out(8)
        the payload's byte there, a cycle later.
    """

    def __init__(self, buffer):
        self.buffer = buffer
        super().__init__(
            {
                "i_valid": In(1), "i_data": In(8), "i_error": In(1), "busy": In(1),
                "done": Out(1), "reason": Out(8), "short": Out(1),
                "type": Out(8), "version": Out(8), "length": Out(16), "number": Out(32),
                "address": In(range(buffer)), "data": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cobs = cobs = CobsDecoder()
        m.submodules.crc = crc = CRC32_ETHERNET(data_width=8).create()
        m.submodules.payload = payload = memory.Memory(shape=unsigned(8), depth=self.buffer, init=[])
        write = payload.write_port()
        read = payload.read_port(domain="sync")
        count = Signal(range(self.buffer + HEADER + CRC + 2))  # decoded bytes; stays one above what is allowed
        limit = self.buffer + HEADER + CRC
        broken = Signal()
        drop = Signal()
        offset = Signal()  # offset: it is not zero
        head = Cat(self.type, self.version, self.length)
        m.d.comb += [
            cobs.i_valid.eq(self.i_valid),
            cobs.i_data.eq(self.i_data),
            crc.valid.eq(cobs.o_valid),
            crc.data.eq(cobs.o_data),
            crc.start.eq(cobs.end),
            write.addr.eq(count - HEADER),
            write.data.eq(cobs.o_data),
            write.en.eq(cobs.o_valid & (count >= HEADER) & (count < self.buffer + HEADER) & ~drop & ~self.busy),
            read.addr.eq(self.address),
            self.data.eq(read.data),
        ]
        with m.If(cobs.o_valid):
            with m.If(count <= limit):
                m.d.sync += count.eq(count + 1)
            with m.If(~drop & ~self.busy):
                with m.If(count < HEAD):
                    m.d.sync += head.eq(Cat(head[8:], cobs.o_data))
                with m.Elif(count < HEAD + 4):
                    m.d.sync += self.number.eq(Cat(self.number[8:], cobs.o_data))
                with m.Elif((count < HEADER) & (cobs.o_data != 0)):
                    m.d.sync += offset.eq(1)
        with m.If(self.i_error):
            m.d.sync += broken.eq(1)
        with m.If((self.i_valid | self.i_error) & self.busy):
            m.d.sync += drop.eq(1)
        with m.If(broken):
            m.d.comb += self.reason.eq(frames.FRAMING)
        with m.Elif(count > limit):
            m.d.comb += self.reason.eq(frames.TOO_LONG)
        with m.Elif(cobs.cut | (count < HEAD + CRC) | ~crc.match_detected):
            m.d.comb += self.reason.eq(frames.WRONG_CRC)
        with m.Elif((count == HEAD + CRC) & (self.type == frames.INFO) & (self.length == 0)):
            m.d.comb += self.short.eq(1)
        with m.Elif(count != self.length + (HEADER + CRC)):
            m.d.comb += self.reason.eq(frames.WRONG_LENGTH)
        with m.Elif(offset):
            m.d.comb += self.reason.eq(frames.WRONG_OFFSET)
        m.d.comb += self.done.eq(cobs.end & ~(cobs.empty & ~broken) & ~drop & ~self.busy)
        with m.If(cobs.end):
            m.d.sync += [count.eq(0), broken.eq(0), drop.eq(0), offset.eq(0)]
        return m


class Shell(wiring.Component):
    """A core behind a serial line, in docs/link.md's words.

    Raises ValueError where the baud rate cannot be made from the clock, or a vector is too long.

    Parameters
    ----------
    design : Design
    clock_hz, baud : int

    Members
    -------
    rx : In(1), tx : Out(1)
        the line, high when idle.
    """

    def __init__(self, design, *, clock_hz, baud):
        self.design = design
        self.cycles = cycles_a_bit(clock_hz, baud)
        self.buffer = buffer_bytes(design.manifest)
        self.info = frames.Info.of(design, clock_hz=clock_hz, baud=baud, buffer=self.buffer).to_bytes()
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart_rx = rx = UartRx(self.cycles)
        m.submodules.uart_tx = tx = UartTx(self.cycles)
        m.submodules.receiver = request = Receiver(self.buffer)
        m.submodules.cobs = cobs = CobsEncoder()
        m.d.comb += [
            rx.rx.eq(self.rx),
            self.tx.eq(tx.tx),
            request.i_valid.eq(rx.valid),
            request.i_data.eq(rx.data),
            request.i_error.eq(rx.error),
        ]
        wiring.connect(m, cobs.o, tx.i)
        clear = Signal()
        m.submodules.core = core = ResetInserter(clear)(AxiStream(self.design.plan, clock=False))
        feeding = Signal()
        self._feed(m, core, request, feeding)
        events = self._events(m, core, rx, request)
        self._reply(m, core, request, cobs.i, events, feeding, clear)
        return m

    def _feed(self, m, core, request, feeding):
        """While `feeding`: the payload's bytes to beats of the core, the last one of each vector marked."""
        port = self.design.manifest.input
        size = port.lanes * port.lane_bytes
        beat = Signal(8 * size, reset_less=True)
        have = Signal()  # a whole beat
        fresh = Signal()  # the memory shows the byte at `address`
        address = Signal(range(self.buffer + 1))
        gone = core.s_axis_tvalid & core.s_axis_tready
        take = feeding & fresh & ~have
        _, byte_last = counter(m, size, take, "feed_byte")
        _, beat_last = counter(m, port.beats, gone, "feed_beat")
        m.d.comb += [
            request.address.eq(address),
            core.s_axis_tvalid.eq(have),
            core.s_axis_tdata.eq(beat),
            core.s_axis_tlast.eq(beat_last),
        ]
        with m.If(gone):
            m.d.sync += have.eq(0)
        with m.If(~feeding):
            m.d.sync += [address.eq(0), fresh.eq(0)]
        with m.Elif(take):
            m.d.sync += [beat.eq(Cat(beat, request.data)[8:]), address.eq(address + 1), fresh.eq(0), have.eq(byte_last)]
        with m.Elif(~fresh & (address != request.length)):
            m.d.sync += fresh.eq(1)

    def _events(self, m, core, rx, request):
        """The counters of docs/link.md, in its order, each staying at its largest value."""
        inside = Signal(16)  # vectors entered and not left
        entered, _ = counter(
            m, self.design.manifest.input.beats, core.s_axis_tvalid & core.s_axis_tready, "entered_beat"
        )
        enters = core.s_axis_tvalid & core.s_axis_tready & (entered == 0)
        leaves = core.m_axis_tvalid & core.m_axis_tready & core.m_axis_tlast
        m.d.sync += inside.eq(inside + enters - leaves)
        good = request.done & (request.reason == 0)
        steps = {
            "answered": good,
            "wrong_crc": request.done & (request.reason == frames.WRONG_CRC),
            "framing": rx.error,
            "too_long": request.done & (request.reason == frames.TOO_LONG),
            "saturated": core.saturated,
            "busy": (inside != 0) | enters,
        }
        values = {}
        for name, step in steps.items():
            values[name] = value = Signal(32, name=f"count_{name}")
            following = Signal(33, name=f"count_{name}_next")
            m.d.comb += following.eq(value + step)
            m.d.sync += value.eq(Mux(following[32], 0xFFFFFFFF, following))
        return inside, values

    def _reply(self, m, core, request, out, events, feeding, clear):
        """From a request to its reply: check, header, payload, CRC; then a byte at a time to the encoder."""
        manifest = self.design.manifest
        inside, counts = events
        vector = manifest.input.elements * manifest.input.lane_bytes
        result = manifest.output.elements * manifest.output.lane_bytes
        beat_bytes = manifest.output.lanes * manifest.output.lane_bytes
        kind = Signal(8)
        length = Signal(16)
        rest = Signal(16)
        reason = Signal(8)
        index = Signal(16)
        short = Signal()
        m.submodules.crc = crc = CRC32_ETHERNET(data_width=8).create()
        m.submodules.info = info = memory.Memory(shape=unsigned(8), depth=len(self.info), init=self.info)
        info_port = info.read_port(domain="sync")
        byte = Signal(8)
        sent = Signal()
        m.d.comb += [
            info_port.addr.eq(index),
            out.payload.data.eq(byte),
            sent.eq(out.valid & out.ready),
            crc.data.eq(byte),
            request.busy.eq(1),
        ]
        part, _ = counter(m, beat_bytes, core.m_axis_tvalid & sent & (kind == frames.RUN), "out_byte")
        part_last = part == beat_bytes - 1 if beat_bytes > 1 else 1
        with m.FSM():
            with m.State("idle"):
                m.d.comb += request.busy.eq(0)
                m.d.sync += [
                    index.eq(0),
                    reason.eq(request.reason),
                    short.eq(request.short),
                    kind.eq(request.type),
                    rest.eq(request.length),
                    length.eq(0),
                ]
                with m.If(request.done):
                    m.next = "check"
            with m.State("check"):
                m.d.comb += crc.start.eq(1)
                m.next = "header"
                with m.If(reason != 0):
                    m.d.sync += [kind.eq(frames.DAMAGED), length.eq(1), short.eq(1)]
                with m.Elif(kind == frames.RUN):
                    # vectors in the payload, and the bytes of their results, one after the other
                    with m.If((rest != 0) & (rest < vector) | (rest == 0) & (length == 0)):
                        m.d.sync += reason.eq(frames.WRONG_LENGTH)
                        m.next = "check"
                    with m.Elif(rest != 0):
                        m.d.sync += [rest.eq(rest - vector), length.eq(length + result)]
                        m.next = "check"
                with m.Elif((kind == frames.INFO) | (kind == frames.COUNTERS) | (kind == frames.RESET)):
                    with m.If(rest != 0):
                        m.d.sync += reason.eq(frames.WRONG_LENGTH)
                        m.next = "check"
                    with m.Elif(kind == frames.INFO):
                        m.d.sync += length.eq(len(self.info))
                    with m.Elif(kind == frames.COUNTERS):
                        m.d.sync += length.eq(4 * len(counts))
                    with m.Else():
                        m.d.comb += clear.eq(1)
                        m.d.sync += [inside.eq(0), *(value.eq(0) for value in counts.values())]
                with m.Else():
                    m.d.sync += reason.eq(frames.UNKNOWN_TYPE)
                    m.next = "check"
            with m.State("header"):
                reply = Mux(kind == frames.DAMAGED, kind, kind | frames.REPLY)
                head = Cat(reply, request.version, length, request.number)  # then zeros, the offset
                m.d.comb += [out.valid.eq(1), crc.valid.eq(sent)]
                with m.If(~index[3]):
                    m.d.comb += byte.eq(head.word_select(index[:3], 8))
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == Mux(short, HEAD - 1, HEADER - 1)):
                        m.d.sync += index.eq(0)
                        m.d.sync += feeding.eq(kind == frames.RUN)
                        m.next = "fetch"
            with m.State("fetch"):  # a cycle for the info memory
                m.next = "payload"
                with m.If(index == length):
                    m.d.sync += [index.eq(0), feeding.eq(0)]
                    m.next = "crc"
            with m.State("payload"):
                m.d.comb += [out.valid.eq(1), crc.valid.eq(sent)]
                with m.If(kind == frames.RUN):
                    m.d.comb += [
                        byte.eq(core.m_axis_tdata.word_select(part, 8)),
                        out.valid.eq(core.m_axis_tvalid),
                        core.m_axis_tready.eq(sent & part_last),
                    ]
                with m.Elif(kind == frames.INFO):
                    m.d.comb += byte.eq(info_port.data)
                with m.Elif(kind == frames.COUNTERS):
                    m.d.comb += byte.eq(Cat(counts.values()).word_select(index[:5], 8))
                with m.Else():
                    m.d.comb += byte.eq(reason)
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    m.next = "fetch"
            with m.State("crc"):
                m.d.comb += [
                    byte.eq(crc.crc.word_select(index[:2], 8)),
                    out.valid.eq(1),
                    out.payload.last.eq(index == CRC - 1),
                ]
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == CRC - 1):
                        m.next = "idle"
