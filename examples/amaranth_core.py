"""A core in an Amaranth design: with a clock of its own, between streams of another."""

from amaranth.hdl import DomainRenamer, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

import rtl_gen

DEPTH = 16  # words of a FIFO between clocks: what it takes to pass one a cycle, and some


class OwnClock(wiring.Component):
    """A core in the domain "core", between streams in "sync", with an asynchronous FIFO on either side.

    plan: the Plan, of `rtl_gen.make_plan` or `rtl_gen.load_design(...).plan`. A word has `data` (TDATA) and
    `last`; one that leaves has `wrong` (TUSER) too. Both domains must be reset together.
    """

    def __init__(self, plan):
        self.core = core = rtl_gen.AxiStream(plan, clock=False)
        word_in = data.StructLayout({"data": len(core.s_axis_tdata), "last": 1})
        word_out = data.StructLayout({"data": len(core.m_axis_tdata), "last": 1, "wrong": 1})
        super().__init__({"i": In(stream.Signature(word_in)), "o": Out(stream.Signature(word_out))})

    def elaborate(self, platform):
        m = Module()
        core = self.core
        m.submodules.core = DomainRenamer("core")(core)
        widths = (len(side.payload.as_value()) for side in (self.i, self.o))
        m.submodules.entry = entry = AsyncFIFO(width=next(widths), depth=DEPTH, w_domain="sync", r_domain="core")
        m.submodules.exit = leave = AsyncFIFO(width=next(widths), depth=DEPTH, w_domain="core", r_domain="sync")
        word_in, word_out = self.i.payload.shape()(entry.r_data), self.o.payload.shape()(leave.w_data)
        m.d.comb += [
            entry.w_data.eq(self.i.payload),
            entry.w_en.eq(self.i.valid),
            self.i.ready.eq(entry.w_rdy),
            core.s_axis_tdata.eq(word_in.data),
            core.s_axis_tlast.eq(word_in.last),
            core.s_axis_tvalid.eq(entry.r_rdy),
            entry.r_en.eq(core.s_axis_tready),
            word_out.data.eq(core.m_axis_tdata),
            word_out.last.eq(core.m_axis_tlast),
            word_out.wrong.eq(core.m_axis_tuser),
            leave.w_en.eq(core.m_axis_tvalid),
            core.m_axis_tready.eq(leave.w_rdy),
            self.o.payload.eq(leave.r_data),
            self.o.valid.eq(leave.r_rdy),
            leave.r_en.eq(self.o.ready),
        ]
        return m
