"""The AXI4-Stream top: bytes in and out, and one output frame of the right length for each input frame."""

from amaranth.hdl import Cat, ClockDomain, Module, Mux, ResetSignal, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .network import Network, NetworkSpec
from .stream import beat, counter

ERRORS_BITS = 16


def lane_bytes(width):
    """Bytes of an element in TDATA."""
    return (width + 7) // 8


class Framer(wiring.Component):
    """Frames to vectors: what is missing becomes zeros, what is too much is dropped up to the next TLAST.

    `wrong` says at `end`, once a vector, whether its frame had the wrong length.
    """

    def __init__(self, shape, beats):
        self.beats = beats
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "i_last": In(1),
                "o": Out(stream.Signature(shape)),
                "end": Out(1),
                "wrong": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        padding, dropping = Signal(), Signal()
        accepted, moved = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        _, full = counter(m, self.beats, moved, "beat")
        m.d.comb += [
            self.o.valid.eq((self.i.valid | padding) & ~dropping),
            self.o.payload.as_value().eq(Mux(padding, 0, self.i.payload.as_value())),
            self.i.ready.eq((self.o.ready & ~padding) | dropping),
            self.end.eq(moved & ~padding & (full | self.i_last)),
            self.wrong.eq(full != self.i_last),
        ]
        with m.If(padding):
            m.d.sync += padding.eq(~(moved & full))
        with m.Elif(dropping):
            m.d.sync += dropping.eq(~(accepted & self.i_last))
        with m.Elif(accepted):
            m.d.sync += [padding.eq(self.i_last & ~full), dropping.eq(full & ~self.i_last)]
        return m


class AxiStream(wiring.Component):
    """A network between `s_axis_*` and `m_axis_*` on `aclk`, with a synchronous active-low `aresetn`.

    Lane 0, the lowest index, is in the low bytes; each lane has whole bytes, its upper input bits ignored and its
    output sign-extended. TLAST ends a vector. An output frame whose input frame had the wrong length carries TUSER on its
    last beat. `frame_error` stays set after a wrong frame until reset, `frame_errors` counts them and stays at its
    largest value. `saturated` says in each cycle how many values some stage clipped; unused, it costs nothing.
    (AMBA AXI-Stream Protocol Specification, IHI 0051B, chapter 2.)

    clock=False: without `aclk` and `aresetn`, in the "sync" domain of the design around it.
    """

    def __init__(self, spec: NetworkSpec, *, clock=True):
        self.spec, self.clock = spec, clock
        q = spec.network
        self.bytes_in, self.bytes_out = lane_bytes(q.input.width), lane_bytes(q.output.width)
        super().__init__(
            ({"aclk": In(1), "aresetn": In(1)} if clock else {})
            | {
                "s_axis_tdata": In(8 * self.bytes_in * spec.lanes[0]),
                "s_axis_tlast": In(1),
                "s_axis_tvalid": In(1),
                "s_axis_tready": Out(1),
                "m_axis_tdata": Out(8 * self.bytes_out * spec.lanes[-1]),
                "m_axis_tlast": Out(1),
                "m_axis_tuser": Out(1),
                "m_axis_tvalid": Out(1),
                "m_axis_tready": In(1),
                "frame_error": Out(1),
                "frame_errors": Out(ERRORS_BITS),
                "saturated": Out(range(sum(spec.lanes) + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self.clock:
            m.domains.sync = domain = ClockDomain("sync", local=True)
            domain.clk = self.aclk
            m.d.comb += domain.rst.eq(~self.aresetn)
        q, spec = self.spec.network, self.spec

        m.submodules.framer = framer = Framer(beat(q.input.width, spec.lanes[0]), spec.beats_in)
        m.submodules.network = network = Network(spec)
        # a bit a vector, on its way beside it: whether its frame was wrong
        m.submodules.wrong = wrong = fifo.SyncFIFOBuffered(width=1, depth=spec.vectors_in_flight)
        # nothing is accepted in reset, so that nothing can be lost there
        go = (self.aresetn if self.clock else ~ResetSignal()) & wrong.w_rdy
        wiring.connect(m, framer.o, network.i)
        lanes_in = [self.s_axis_tdata.word_select(n, 8 * self.bytes_in) for n in range(spec.lanes[0])]
        m.d.comb += [
            framer.i.payload.as_value().eq(Cat(lane[: q.input.width] for lane in lanes_in)),
            framer.i_last.eq(self.s_axis_tlast),
            framer.i.valid.eq(self.s_axis_tvalid & go),
            self.s_axis_tready.eq(framer.i.ready & go),
            wrong.w_en.eq(framer.end),
            self.saturated.eq(network.saturated),
            wrong.w_data.eq(framer.wrong),
        ]
        with m.If(framer.end & framer.wrong):
            m.d.sync += self.frame_error.eq(1)
            with m.If(~self.frame_errors.all()):
                m.d.sync += self.frame_errors.eq(self.frame_errors + 1)

        moved = self.m_axis_tvalid & self.m_axis_tready
        _, last = counter(m, spec.beats_out, moved, "out_beat")
        lanes_out = [network.o.payload[n].as_signed() for n in range(spec.lanes[-1])]
        for n, lane in enumerate(lanes_out):
            m.d.comb += self.m_axis_tdata.word_select(n, 8 * self.bytes_out).eq(lane)
        m.d.comb += [
            self.m_axis_tvalid.eq(network.o.valid),
            network.o.ready.eq(self.m_axis_tready),
            self.m_axis_tlast.eq(last),
            self.m_axis_tuser.eq(last & wrong.r_data),
            wrong.r_en.eq(moved & last),
        ]
        return m
