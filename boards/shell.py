"""The board's side of docs/link.md: a serial line around a core."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import In, Out

from . import frames
from .cobs import CobsEncoder
from .feed import Feed
from .receiver import CRC, HEAD, HEADER, Receiver, Waiting
from .uart import UartRx, UartTx, cycles_a_bit

EVENTS = 16  # bits of the counters of events on the line


def check_pins(design):
    """ValueError for a core with pins of its own."""
    if pins := design.plan.outside:
        raise ValueError(
            f"{design.manifest.name} has pins of its own, {', '.join(pins)}, which no board's shell connects; its "
            "Verilog is for a design of yours, or take another engine"
        )


class Shell(wiring.Component):
    """A core behind a serial line, in docs/link.md's words.

    Raises ValueError where the baud rate cannot be made from the clock, or for what the link cannot say of the core.

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
        check_pins(design)
        self.design = design
        self.cycles = cycles_a_bit(clock_hz, baud)
        self.info = frames.Info.of(design, clock_hz=clock_hz, baud=baud).to_bytes()
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart_rx = rx = UartRx(self.cycles)
        m.submodules.uart_tx = tx = UartTx(self.cycles)
        m.submodules.waiting = waiting = Waiting()
        m.submodules.receiver = request = Receiver()
        m.submodules.cobs = cobs = CobsEncoder()
        m.d.comb += [
            rx.rx.eq(self.rx),
            self.tx.eq(tx.tx),
            waiting.i_valid.eq(rx.valid),
            waiting.i_data.eq(rx.data),
            request.i_valid.eq(waiting.o.valid & waiting.o.ready),
            request.i_data.eq(waiting.o.payload),
            request.i_error.eq(rx.error),
        ]
        wiring.connect(m, cobs.o, tx.i)
        clear = Signal()
        m.submodules.feed = feed = ResetInserter(clear)(Feed(self.design))
        counts = self._counts(m, rx, request, feed, zero=clear & (request.type == frames.RESET))
        self._reply(m, feed, request, waiting.o.ready, cobs.i, counts, clear)
        return m

    def _counts(self, m, rx, request, feed, zero):
        """The counters of docs/link.md, in its order, each staying at its largest value."""
        events = {
            "answered": request.done & (request.reason == 0),
            "wrong_crc": request.done & (request.reason == frames.WRONG_CRC),
            "framing": rx.error,
            "too_long": request.done & (request.reason == frames.TOO_LONG),
        }
        values = []
        for name, step in (*events.items(), ("saturated", feed.saturated), ("busy", feed.busy)):
            value = Signal(EVENTS if name in events else 32, name=f"count_{name}")
            if len(step) == 1:
                m.d.sync += value.eq(value + (step & ~value.all()))
            else:
                after = Signal(len(value) + 1, name=f"count_{name}_next")
                m.d.comb += after.eq(value + step)
                m.d.sync += value.eq(after[:-1] | after[-1].replicate(len(value)))
            with m.If(zero):
                m.d.sync += value.eq(0)
            values.append(Cat(value, Const(0, 32 - len(value))))
        return values

    def _reply(self, m, feed, request, ready, out, counts, clear):
        """From a request to its reply: check, header, payload, CRC; then a byte at a time to the encoder."""
        kind, length, reason, short = Signal(8), Signal(8), Signal(8), Signal()
        index = Signal(8)
        m.submodules.crc = crc = CRC32_ETHERNET(data_width=8).create()
        m.submodules.info = info = memory.Memory(shape=unsigned(8), depth=len(self.info), init=self.info)
        info_port = info.read_port(domain="sync")
        # payloads: of the request, and of the replies to the latest two parts
        m.submodules.payloads = payloads = memory.Memory(shape=unsigned(8), depth=4 * frames.PART, init=[])
        write, read = payloads.write_port(), payloads.read_port(domain="sync")
        kept = Cat(index[:7], request.number[0], 1)
        lengths = [Signal(8, name=f"length_{n}") for n in range(2)]
        byte = Signal(8)
        sent = Signal()
        # the number of the next part; how far back the request's is; whether there is a run
        following, back, running = Signal(32), Signal(32), Signal()
        m.d.comb += [
            back.eq(following - request.number),
            info_port.addr.eq(index),
            read.addr.eq(kept),
            out.payload.data.eq(byte),
            sent.eq(out.valid & out.ready),
            crc.data.eq(byte),
            request.i_matched.eq(crc.match_detected),
        ]
        with m.FSM():
            with m.State("idle"):
                m.d.comb += [
                    ready.eq(1),
                    write.addr.eq(request.address),
                    write.data.eq(request.o_data),
                    write.en.eq(request.o_valid & request.in_payload),
                    byte.eq(request.o_data),
                    crc.valid.eq(request.o_valid),
                    crc.start.eq(request.end),
                ]
                with m.If(write.en & (write.addr[1:] == 0)):
                    m.d.sync += feed.frames.word_select(write.addr[0], 8).eq(write.data)
                m.d.sync += [
                    index.eq(0),
                    length.eq(0),
                    kind.eq(request.type),
                    reason.eq(request.reason),
                    short.eq(request.short),
                ]
                with m.If(request.done):
                    m.next = "check"
            with m.State("check"):
                m.d.comb += crc.start.eq(1)
                m.next = "header"
                with m.If(reason != 0):
                    m.d.sync += [kind.eq(frames.DAMAGED), length.eq(1), short.eq(1)]
                with m.Elif(kind == frames.RUN):
                    with m.If(running & ((back == 1) | (back == 2))):  # the same answer again
                        m.d.sync += length.eq(Mux(request.number[0], *reversed(lengths)))
                    with m.Elif(request.begins | (running & (back == 0))):
                        m.d.comb += clear.eq(request.begins)
                        m.d.sync += [following.eq(request.number + 1), running.eq(1)]
                        m.next = "part"
                    with m.Else():
                        m.d.sync += [kind.eq(frames.REFUSED), length.eq(4)]
                with m.Elif(request.length != Mux(kind == frames.MEASURE, 2, 0)):
                    m.d.sync += reason.eq(frames.WRONG_LENGTH)
                    m.next = "check"
                with m.Elif(kind == frames.INFO):
                    m.d.sync += length.eq(len(self.info))
                with m.Elif(kind == frames.COUNTERS):
                    m.d.sync += length.eq(4 * len(counts))
                with m.Elif((kind == frames.RESET) | (kind == frames.MEASURE)):
                    m.d.comb += clear.eq(1)
                    m.d.sync += running.eq(0)
                    with m.If(kind == frames.MEASURE):
                        m.d.sync += length.eq(8)
                        m.next = "measure"
                with m.Else():
                    m.d.sync += reason.eq(frames.UNKNOWN_TYPE)
                    m.next = "check"
            with m.State("part"):
                done = self._part(m, feed, request.length, index, write, read, kept)
                with m.If(done):
                    m.d.sync += [length.eq(index + 1), index.eq(0)]
                    for n, kept_length in enumerate(lengths):
                        with m.If(request.number[0] == n):
                            m.d.sync += kept_length.eq(index + 1)
                    m.next = "header"
            with m.State("measure"):
                m.d.comb += feed.measure.eq(1)
                with m.If(feed.measured):
                    m.next = "header"
            with m.State("header"):
                reply = Mux((kind == frames.DAMAGED) | (kind == frames.REFUSED), kind, kind | frames.REPLY)
                head = Cat(reply, request.version, length, Const(0, 8), request.number)  # then zeros, the offset
                m.d.comb += [out.valid.eq(1), crc.valid.eq(sent)]
                with m.If(~index[3]):
                    m.d.comb += byte.eq(head.word_select(index[:3], 8))
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == Mux(short, HEAD - 1, HEADER - 1)):
                        m.d.sync += index.eq(0)
                        m.next = "fetch"
            with m.State("fetch"):  # a cycle for the memories
                m.next = "payload"
                with m.If(index == length):
                    m.d.sync += index.eq(0)
                    m.next = "crc"
            with m.State("payload"):
                m.d.comb += [out.valid.eq(1), crc.valid.eq(sent)]
                with m.Switch(kind):
                    with m.Case(frames.RUN):
                        m.d.comb += byte.eq(read.data)
                    with m.Case(frames.INFO):
                        m.d.comb += byte.eq(info_port.data)
                    with m.Case(frames.COUNTERS):
                        m.d.comb += byte.eq(Cat(counts).word_select(index[:5], 8))
                    with m.Case(frames.MEASURE):
                        m.d.comb += byte.eq(Cat(feed.cycles, feed.crc).word_select(index[:3], 8))
                    with m.Case(frames.REFUSED):
                        m.d.comb += byte.eq(following.word_select(index[:2], 8))
                    with m.Default():
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
                        m.d.comb += crc.start.eq(1)
                        m.next = "idle"

    def _part(self, m, feed, length, index, write, read, kept):
        """Bytes of a part to the core, and those that leave it, `index` of them, to where they are kept, and behind
        them how many were taken; returns whether that is done.

        It is when whatever has come whole has left, or as many bytes as one reply holds.
        """
        address = Signal(range(frames.PART + 1))
        fresh = Signal()  # the memory shows the byte at `address`
        full, done = index == frames.OUTPUTS, Signal()
        m.d.comb += [
            done.eq(full | ((address == length) & feed.settled)),
            read.addr.eq(address[:7]),
            feed.i.valid.eq(fresh & ~full),
            feed.i.payload.eq(read.data),
            feed.o.ready.eq(~done),
            write.en.eq(feed.o.valid | done),
            write.addr.eq(kept),
            write.data.eq(Mux(done, address, feed.o.payload)),
        ]
        m.d.sync += fresh.eq(~fresh & (address != length) & ~done)
        with m.If(feed.i.valid & ~feed.i.ready):
            m.d.sync += fresh.eq(1)
        with m.If(feed.i.valid & feed.i.ready):
            m.d.sync += address.eq(address + 1)
        with m.If(feed.o.valid & feed.o.ready):
            m.d.sync += index.eq(index + 1)
        with m.If(done):
            m.d.sync += [address.eq(0), fresh.eq(0)]
        return done
