"""A core between two streams of bytes, and fed by itself to measure its speed."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import In, Out

from rtl_gen import AxiStream
from rtl_gen.signals import counter

from .generator import SEED, STATE, following

MEASURED_BITS = 16  # of the number of frames


class Feed(wiring.Component):
    """A core whose frames come as bytes, one after the other, and leave as bytes; elements as in TDATA.

    Parameters
    ----------
    design : Design

    Members
    -------
    i : In(stream.Signature(8)), o : Out(stream.Signature(8))
        bytes of frames.
    settled : Out(1)
        every frame that has come whole has left.
    busy : Out(1), saturated : Out
        a frame is inside; values clipped in this cycle.
    measure : In(1), frames : In(16)
        with it, from a reset on, the core takes so many frames of generator.generated, as fast as it can, and its
        outputs go nowhere.
    measured : Out(1), cycles : Out(32), crc : Out(32)
        all have left; cycles from the first frame's last beat out to the last one's; CRC-32 of the outputs' bytes.
    """

    def __init__(self, design):
        self.design = design
        self.core = AxiStream(design.plan, clock=False)
        super().__init__(
            {
                "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "settled": Out(1), "busy": Out(1),
                "saturated": Out(self.core.saturated.shape()),
                "measure": In(1), "frames": In(MEASURED_BITS),
                "measured": Out(1), "cycles": Out(32), "crc": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        source, sink = self.design.manifest.input, self.design.manifest.output
        enters, leaves = core.s_axis_tvalid & core.s_axis_tready, core.m_axis_tvalid & core.m_axis_tready
        _, last_in = counter(m, source.beats, enters, "beat")
        begun = Signal()  # a frame has entered in part
        inside = Signal(range(2 * self.design.plan.frames_in_flight + 2))  # frames of which a beat entered and not left
        with m.If(enters):
            m.d.sync += begun.eq(~last_in)
        m.d.sync += inside.eq(inside + (enters & ~begun) - (leaves & core.m_axis_tlast))
        have = self._enter(m, source.lanes * source.lane_bytes, enters, last_in)
        self._leave(m, sink.lanes * sink.lane_bytes, leaves, inside)
        m.d.comb += [
            core.s_axis_tlast.eq(last_in),
            self.settled.eq(~have & (inside == begun)),
            self.busy.eq((inside != 0) | enters),
            self.saturated.eq(core.saturated),
        ]
        return m

    def _enter(self, m, size, enters, last):
        """Bytes, or numbers of the generator, to beats of `size` bytes; returns whether one of bytes is whole."""
        core, bits = self.core, 8 * size
        # the next bits of the generator, from a reset on; a beat of bytes lies in the low ones
        state = Signal(max(STATE, bits), init=sum(bit << n for n, bit in enumerate(following(SEED, max(STATE, bits)))))
        have = Signal()
        fed = Signal(MEASURED_BITS)
        take = self.i.valid & self.i.ready
        _, whole = counter(m, size, take, "byte")
        m.d.comb += [
            self.i.ready.eq(~have),
            core.s_axis_tdata.eq(state),
            core.s_axis_tvalid.eq(have | (self.measure & (fed != self.frames))),
            self.measured.eq((fed == self.frames) & self.settled),
        ]
        with m.If(enters):
            m.d.sync += [have.eq(0), fed.eq(fed + last)]
        with m.If(take):
            m.d.sync += [have.eq(whole), state[:bits].eq(Cat(state[8:bits], self.i.payload))]
        with m.If(self.measure & enters):
            m.d.sync += state.eq(Cat(following([*state], bits + len(state))[bits:]))
        return have

    def _leave(self, m, size, leaves, inside):
        """Beats of `size` bytes to bytes; in a measurement to the CRC, and the cycles are counted."""
        core = self.core
        m.submodules.sum = crc = CRC32_ETHERNET(data_width=8 * size).create()
        part, whole = counter(m, size, self.o.valid & self.o.ready, "out_byte")
        timed = Signal()
        m.d.comb += [
            self.o.valid.eq(core.m_axis_tvalid & ~self.measure),
            self.o.payload.eq(core.m_axis_tdata.word_select(part, 8)),
            core.m_axis_tready.eq(self.measure | (self.o.ready & whole)),
            crc.data.eq(core.m_axis_tdata),
            crc.valid.eq(leaves & self.measure),
            self.crc.eq(crc.crc),
        ]
        with m.If(leaves & core.m_axis_tlast):
            m.d.sync += timed.eq(1)
        with m.If(timed & self.measure & ~self.measured):
            m.d.sync += self.cycles.eq(self.cycles + 1)
