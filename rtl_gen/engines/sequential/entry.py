"""How the next input comes into the memory of a Sequential engine, while the last one is still worked on."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...signals import beat, counter, delay
from ...stream import Link
from .timing import GRANTED


class Entry(wiring.Component):
    """Beats of a number to words of `lanes` numbers.

    Parameters
    ----------
    engine : Sequential

    Members
    -------
    i : In(Link)
        a number a beat.
    busy : In
        a word of the program's own is written in GRANTED cycles.
    opens : In, ends : In, starts : In
        the program is where the next input may come in part; at its end; at the beginning of the next frame.
    loaded : Out, whole : Out, fresh : Out
        groups of the input that are here; whether all are; whether they are not those of the frame before.
    enable : Out, bank : Out, address : Out, data : Out
        a word to be written.
    """

    def __init__(self, engine):
        self.engine = engine
        code = engine.code
        super().__init__(
            {
                "i": In(Link(beat(engine.takes, 1))), "busy": In(1), "opens": In(1), "ends": In(1), "starts": In(1),
                "loaded": Out(range(code.timing.groups_in + 1)), "whole": Out(1), "fresh": Out(1), "enable": Out(1),
                "bank": Out(1), "address": Out(code.address), "data": Out(engine.lanes * engine.width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s, shape = self.engine, self.engine.code.layers[0].shape
        (_, some), groups = s.code.timing.opens, s.code.timing.groups_in
        tail = shape.positions - (groups - 1) * s.lanes
        go, opened, limited = Signal(name="go"), Signal(name="opened", init=1), Signal(name="limited")
        stale = Signal(name="stale")
        channel, channel_ends = counter(m, shape.channels, go, "channel")
        lane, lane_ends = counter(m, s.lanes, go & channel_ends, "lane")
        group, group_ends = counter(m, groups, go & channel_ends & lane_ends, "group")
        pads, blocked = Signal(name="pads"), Signal(name="blocked")
        group_done, done = Signal(name="group_done"), Signal(name="done")
        m.d.comb += [
            # behind the last position a group is filled up
            pads.eq(group_ends & (lane >= tail)),
            blocked.eq(~opened | (limited & (group >= some)) | (lane_ends & self.busy)),
            self.i.ready.eq(~blocked & ~pads),
            go.eq(self.i.take | (pads & ~blocked)),
            group_done.eq(go & channel_ends & lane_ends),
            done.eq(group_done & group_ends),
        ]
        # each word is seen in a shift register as its last number comes
        taps = [Signal(s.width, name=f"tap{n}", reset_less=True) for n in range((s.lanes - 1) * shape.channels + 1)]
        number = Signal(s.width, name="number")
        m.d.comb += number.eq(self.i.payload[0])
        with m.If(delay(m, go, 1, "came", reset=True)):
            m.d.sync += [after.eq(before) for after, before in zip(taps, [*taps[1:], number])]
        row = Signal(len(self.address), name="row")
        m.d.comb += [
            self.enable.eq(delay(m, go & lane_ends, GRANTED, "enable", reset=True)),
            self.bank.eq(delay(m, group[0] if len(group) else Const(0, 1), GRANTED, "bank")),
            self.address.eq(row + delay(m, channel, GRANTED, "word")),
            self.data.eq(Cat(taps[lane * shape.channels] for lane in range(s.lanes))),
            self.fresh.eq(~stale),
        ]
        with m.If(delay(m, group_done, GRANTED, "group_done", reset=True)):
            m.d.sync += self.loaded.eq(self.loaded + 1)
            with m.If(self.bank):
                m.d.sync += row.eq(row + shape.channels)
        with m.If(delay(m, done, GRANTED, "done", reset=True)):
            m.d.sync += [self.whole.eq(1), self.loaded.eq(0), row.eq(0)]
        with m.If(done):
            m.d.sync += opened.eq(0)
        with m.If(self.opens | (self.ends & stale)):
            m.d.sync += [opened.eq(1), limited.eq(self.opens), self.whole.eq(0), stale.eq(0)]
        with m.Elif(self.ends):
            m.d.sync += limited.eq(0)
        with m.If(self.starts):
            m.d.sync += stale.eq(1)
        return m
