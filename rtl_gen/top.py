"""The AXI4-Stream top: bytes in and out, and one output frame of the right length for each input frame."""

from amaranth.hdl import Cat, ClockDomain, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from . import pipeline
from .cost import Tally
from .fifo import LinkFifo, Pad, Queue
from .pipeline import Pipeline
from .plan import Plan, costed
from .signals import beat, counter, counter_cost, delay, through
from .stream import Skid
from .tech import technology

ERRORS_BITS = 16


def lane_bytes(width):
    """Bytes of an element in TDATA."""
    return (width + 7) // 8


class Framer(wiring.Component):
    """Frames to vectors: what is missing becomes zeros, what is too much is dropped up to the next TLAST.

    Parameters
    ----------
    shape, beats
        of a beat; of a vector.

    Members
    -------
    i : In(stream.Signature(shape)), i_last : In(1)
        beats, and whether one is its frame's last.
    o : Out(stream.Signature(shape))
        vectors, each of so many beats.
    done : Out(1), wrong : Out(1)
        once a vector; with it, whether its frame had the wrong length.
    """

    def __init__(self, shape, beats):
        self.beats = beats
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "i_last": In(1),
                "o": Out(stream.Signature(shape)),
                "done": Out(1),
                "wrong": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        padding = Signal()
        dropping = Signal()
        accepted, moved = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        _, full = counter(m, self.beats, moved, "beat")
        m.d.comb += [
            self.o.valid.eq((self.i.valid | padding) & ~dropping),
            self.o.payload.as_value().eq(Mux(padding, 0, self.i.payload.as_value())),
            self.i.ready.eq((self.o.ready & ~padding) | dropping),
            self.done.eq(moved & ~padding & (full | self.i_last)),
            self.wrong.eq(full != self.i_last),
        ]
        with m.If(padding):
            m.d.sync += padding.eq(~(moved & full))
        with m.Elif(dropping):
            m.d.sync += dropping.eq(~(accepted & self.i_last))
        with m.Elif(accepted):
            m.d.sync += [padding.eq(self.i_last & ~full), dropping.eq(full & ~self.i_last)]
        return m


def ports(plan, *, clock=True):
    """The ports of an AxiStream, in order."""
    q = plan.network
    return ({"aclk": In(1), "aresetn": In(1)} if clock else {}) | {
        "s_axis_tdata": In(8 * lane_bytes(q.input.width) * plan.lanes_in * plan.vectors),
        "s_axis_tlast": In(1),
        "s_axis_tvalid": In(1),
        "s_axis_tready": Out(1),
        "m_axis_tdata": Out(8 * lane_bytes(q.output.width) * plan.lanes_out * plan.vectors),
        "m_axis_tlast": Out(1),
        "m_axis_tuser": Out(1),
        "m_axis_tvalid": Out(1),
        "m_axis_tready": In(1),
        "frame_error": Out(1),
        "frame_errors": Out(ERRORS_BITS),
        "saturated": Out(range(sum(engine.rounds for engine in plan.engines) + 1)),
    } | plan.outside


class AxiStream(wiring.Component):
    """A network between two streams of bytes. (AMBA AXI-Stream Protocol Specification, IHI 0051B, chapter 2.)

    Parameters
    ----------
    plan : Plan
    clock : bool
        False: without `aclk` and `aresetn`, in the "sync" domain of the design around it.

    Members
    -------
    aclk : In(1), aresetn : In(1), where they are asked for
        the clock, and a synchronous reset, active low.
    s_axis_tdata : In(8 * bytes_in * lanes_in * vectors), m_axis_tdata : Out(8 * bytes_out * lanes_out * vectors)
        a beat; lane 0, the lowest index, in the low bytes. Each lane has whole bytes, its upper input bits ignored and
        its output extended, with its sign or, in a format without, with zeros.
    s_axis_tlast : In(1), m_axis_tlast : Out(1)
        the beat ends its vector. Where the plan counts beats, it is ignored on the way in: a vector ends after its
        beats, and no frame can be wrong.
    m_axis_tuser : Out(1)
        with a vector's last beat: its input frame had the wrong length.
    s_axis_tvalid : In(1), s_axis_tready : Out(1), m_axis_tvalid : Out(1), m_axis_tready : In(1)
        a beat moves where both are high; ready is low in reset.
    frame_error : Out(1), frame_errors : Out(16)
        there was a wrong frame since the reset; how many, which stays at its largest value.
    saturated : Out
        how many values some stage clipped in this cycle; unused, it costs nothing.
    """

    def __init__(self, plan: Plan, *, clock: bool = True) -> None:
        self.plan, self.clock = plan, clock
        self.bytes_in, self.bytes_out = (lane_bytes(q.width) for q in (plan.network.input, plan.network.output))
        super().__init__(ports(plan, clock=clock))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.clock:
            m.domains.sync = domain = ClockDomain("sync", local=True)
            domain.clk = self.aclk
            m.d.comb += domain.rst.eq(~self.aresetn)
        q, plan = self.plan.network, self.plan

        shape = beat(q.input, plan.lanes_in * plan.vectors)
        entry_shape = data.StructLayout({"beat": shape} | ({} if plan.count_beats else {"last": 1}))
        m.submodules.entry = entry = Pad(entry_shape)
        m.submodules.network = network = Pipeline(plan)
        through(m, self, network, plan.outside)
        vectors = network.i
        if technology(plan.target).free_registers:
            m.submodules.skid = skid = Skid(shape)
            wiring.connect(m, skid.o, network.i)
            vectors = skid.i
        lanes_in = [self.s_axis_tdata.word_select(n, 8 * self.bytes_in) for n in range(plan.lanes_in * plan.vectors)]
        m.d.comb += [
            entry.i.payload.beat.as_value().eq(Cat(lane[: q.input.width] for lane in lanes_in)),
            entry.i.valid.eq(self.s_axis_tvalid),
            # nothing is accepted in reset, so that nothing can be lost there
            self.s_axis_tready.eq(entry.i.ready & (self.aresetn if self.clock else ~ResetSignal())),
            self.saturated.eq(network.saturated),
        ]
        _, last = counter(m, plan.beats_out, network.o.valid, "out_beat")
        if plan.count_beats:
            user = 0
            m.d.comb += [
                vectors.payload.eq(entry.o.payload.beat),
                vectors.valid.eq(entry.o.valid),
                entry.o.ready.eq(vectors.ready),
            ]
        else:
            m.d.comb += entry.i.payload.last.eq(self.s_axis_tlast)
            user = last & self._frames(m, entry.o, vectors, network.o.valid & last)

        exit_shape = data.StructLayout({"beat": network.o.payload.shape(), "last": 1, "user": 1})
        m.submodules.exit = leave = LinkFifo(exit_shape, plan.exit_depth)
        m.d.comb += [
            network.o.ready.eq(leave.i.ready),
            leave.i.take.eq(network.o.take),
            leave.i.valid.eq(network.o.valid),
            leave.i.payload.beat.eq(network.o.payload),
            leave.i.payload.last.eq(last),
            leave.i.payload.user.eq(user),
        ]
        for n in range(plan.lanes_out * plan.vectors):
            # as it is extended: with its sign, or with zeros
            m.d.comb += self.m_axis_tdata.word_select(n, 8 * self.bytes_out).eq(leave.o.payload.beat[n])
        m.d.comb += [
            self.m_axis_tvalid.eq(leave.o.valid),
            self.m_axis_tlast.eq(leave.o.payload.last),
            self.m_axis_tuser.eq(leave.o.payload.user),
            leave.o.ready.eq(self.m_axis_tready),
        ]
        return m

    def _frames(self, m, source, vectors, ends):
        """Frames to vectors; returns whether the frame of the vector that leaves was wrong.

        source: the stream of beats with their TLAST. ends: the last beat of a vector leaves.
        """
        m.submodules.framer = framer = Framer(vectors.payload.shape(), self.plan.beats_in)
        wiring.connect(m, framer.o, vectors)
        # beside each frame goes a bit, whether it was wrong; there is room for twice what can be inside at once
        depth = 1 << (2 * self.plan.frames_in_flight - 1).bit_length()
        m.submodules.wrong = wrong = memory.Memory(shape=1, depth=depth, init=[])
        write = wrong.write_port()
        read = wrong.read_port(domain="comb")
        ended, was_wrong = delay(m, framer.done, 1, "ended", reset=True), delay(m, framer.wrong, 1, "was_wrong")
        m.d.comb += [
            write.addr.eq(counter(m, depth, ended, "wrong_write")[0]),
            write.en.eq(ended),
            write.data.eq(was_wrong),
            read.addr.eq(counter(m, depth, ends, "wrong_read")[0]),
            framer.i.payload.eq(source.payload.beat),
            framer.i_last.eq(source.payload.last),
            framer.i.valid.eq(source.valid),
            source.ready.eq(framer.i.ready),
        ]
        with m.If(delay(m, ended & was_wrong, 1, "error", reset=True)):
            m.d.sync += self.frame_error.eq(1)
            with m.If(~self.frame_errors.all()):
                m.d.sync += self.frame_errors.eq(self.frame_errors + 1)
        # a cycle later, where no other frame can end in it
        late = self.plan.beats_out > 1 and technology(self.plan.target).free_registers
        return delay(m, read.data, 1, "frame_wrong") if late else read.data


def estimate(plan: Plan, target: str | None = None) -> dict[str, int]:
    """Dict of LUT, FF (estimates), DSP and RAM (exact) of the core of a Plan; target: another than the plan's.

    What plain HDL takes is up to synthesis: for "plain" all four are estimates, of what Yosys makes for a Xilinx
    7-series part, RAM in RAMB18E1.
    """
    tally, q = Tally(technology(costed(target or plan.target, plan.roms))), plan.network
    entry_cost(tally, q.input.width * plan.lanes_in * plan.vectors, plan.count_beats)
    pipeline.cost(tally, plan)
    if not plan.count_beats:
        frames_cost(tally, plan)
    exit_cost(
        tally, q.output.width * plan.lanes_out * plan.vectors, plan.exit_depth, plan.beats_out,
        plan.count_beats,
    )
    return tally.total()


def entry_cost(tally, width, count_beats):
    """Pad, Skid, and the AND of a Framer's payload; width: bits of a beat."""
    Pad.cost(tally, width + (not count_beats))
    if tally.tech.free_registers:
        Skid.cost(tally, width)
    tally.add(0 if count_beats else width)


def exit_cost(tally, width, depth, beats, count_beats):
    """The counter of beats that leave, and the FIFO they leave by."""
    counter_cost(tally, beats)
    Queue.cost(tally, depth, width + 1 + (not count_beats))


def frames_cost(tally, plan):
    """Framer: its counter, the states; wrong frames: a bit a frame, two counters of frames, the
    counter of errors.
    """
    tally.add(10, 2)
    counter_cost(tally, plan.beats_in)
    depth = 1 << (2 * plan.frames_in_flight - 1).bit_length()
    counter_cost(tally, depth, 2)
    tally.adder(ERRORS_BITS, ERRORS_BITS + 4, one=True)
    rows = tally.tech.rows
    tally.add(0, plan.beats_out > 1 and tally.tech.free_registers)
    tally.add(8 + (tally.tech.row if rows else depth * 2), 0 if rows else depth)
