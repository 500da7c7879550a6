"""A serial line, 8 data bits, no parity, one stop bit (8N1)."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

TOLERANCE = 0.02  # of the baud rate: half a bit in the ten of a byte is 5 %, shared by both ends
FEWEST = 4  # cycles a bit, so that a bit is sampled within an eighth of its middle


def cycles_a_bit(clock_hz, baud):
    """Clock cycles of a bit; ValueError where no whole number comes near enough, with the rates that do."""
    cycles = max(1, round(clock_hz / baud))
    error = clock_hz / cycles / baud - 1
    if cycles < FEWEST or abs(error) > TOLERANCE:
        best = clock_hz // max(FEWEST, cycles)
        raise ValueError(
            f"{baud} baud cannot be made from {clock_hz} Hz: {cycles} cycles a bit, {100 * error:+.1f} %; "
            f"{FEWEST} cycles or more and {100 * TOLERANCE:g} % or less are needed, {best} baud would be exact"
        )
    return cycles


class UartRx(wiring.Component):
    """The line to bytes.

    Parameters
    ----------
    cycles : int
        of a bit.

    Members
    -------
    rx : In(1)
        the line, high when idle, of any clock.
    data : Out(8), valid : Out(1)
        a byte, for a cycle.
    error : Out(1)
        for a cycle in its place: the stop bit was low. Then there is nothing until the line is high again.
    """

    def __init__(self, cycles):
        self.cycles = cycles
        super().__init__({"rx": In(1, init=1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self.cycles + self.cycles // 2))
        left = Signal(range(10))
        m.d.sync += [self.valid.eq(0), self.error.eq(0)]
        with m.FSM():
            with m.State("idle"):
                with m.If(~line):
                    # to the middle of the start bit; the edge was seen up to a cycle late
                    m.d.sync += [timer.eq(self.cycles // 2 - 1), left.eq(9)]
                    m.next = "bits"
            with m.State("bits"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self.cycles - 1), left.eq(left - 1)]
                    with m.If((left == 9) & line):
                        m.next = "idle"  # a glitch, no start bit
                    with m.Elif(left == 0):
                        m.d.sync += [self.valid.eq(line), self.error.eq(~line)]
                        m.next = "high"
                    with m.Elif(left != 9):
                        m.d.sync += self.data.eq(Cat(self.data[1:], line))
            with m.State("high"):
                with m.If(line):
                    m.next = "idle"
        return m


class UartTx(wiring.Component):
    """Bytes to the line.

    Parameters
    ----------
    cycles : int
        of a bit.

    Members
    -------
    i : In(stream.Signature(8))
        the bytes.
    tx : Out(1)
        the line, high when idle.
    """

    def __init__(self, cycles):
        self.cycles = cycles
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self.cycles))
        left = Signal(range(11))
        bits = Signal(9, init=0x1FF)
        m.d.comb += [self.i.ready.eq(left == 0), self.tx.eq(bits[0])]
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(0, self.i.payload)), left.eq(10), timer.eq(self.cycles - 1)]
        with m.Elif(timer == 0):
            m.d.sync += [timer.eq(self.cycles - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], 1))]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
        return m
