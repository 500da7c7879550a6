"""What stands between a board's pins and the shell: clock, reset, serial line."""

import math

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from . import pll as plls

# iCE40 block RAMs read zeros for some microseconds after configuration; Amaranth's own platform waits 15 µs
RESET_SECONDS = 20e-6


class Top(Elaboratable):
    """A shell on a board. `clock_hz` is what it will really run at, the oscillator's or the nearest the PLL makes.

    shell: called with clock_hz and baud, returns a component with `rx` and `tx` in the domain "sync".
    Raises ValueError where the PLL cannot make the clock.
    """

    def __init__(self, board, shell, *, clock_mhz=None):
        asked = (board.clock_mhz if clock_mhz is None else clock_mhz) * 1e6
        if not 0 < asked < math.inf:
            raise ValueError(f"{board.key}: its clock must be a positive number of MHz, got {clock_mhz}")
        self.board = board
        self.pll = None
        if round(asked) != board.clock_hz:
            if not board.pll:
                own = f"{board.clock_hz / 1e6:g} MHz"
                raise ValueError(f"{board.key} has no PLL: its clock is {own}, got {asked / 1e6:g} MHz")
            self.pll = plls.plan(board.device.family, board.clock_hz, asked)
        self.clock_hz = round(self.pll.output_hz) if self.pll else board.clock_hz
        self.shell = shell(clock_hz=self.clock_hz, baud=board.baud)

    def elaborate(self, platform):
        m = Module()
        released = self._clock(m, platform)
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal("sync").eq(ClockSignal("start")), ResetSignal("sync").eq(~released)]
        m.submodules.shell = shell = self.shell
        uart = platform.request(*self.board.uart)
        m.d.comb += [shell.rx.eq(uart.rx.i), uart.tx.o.eq(shell.tx)]
        if self.board.led:
            m.d.comb += platform.request(*self.board.led).o.eq(~shell.tx | ~uart.rx.i)
        return m

    def _clock(self, m, platform):
        """The domain "start", which has no reset; returns the signal that ends the reset of "sync"."""
        m.domains.start = ClockDomain(reset_less=True)
        port = platform.request(self.board.clock, dir="-")
        clock, stable = Signal(), 1
        if self.pll and self.board.pll == "pad":
            source = port.io
        else:
            m.submodules.clock_pin = pin = io.Buffer("i", port)
            source = pin.i
        if self.pll:
            locked = Signal()
            stable = Signal()
            m.submodules.pll = plls.instance(
                self.pll, source=source, clock=clock, locked=locked, pad=self.board.pll == "pad",
                device=self.board.device.name,
            )
            m.submodules.locked = FFSynchronizer(locked, stable, o_domain="start")
        else:
            m.d.comb += clock.eq(source)
        m.d.comb += ClockSignal("start").eq(clock)
        cycles = int(RESET_SECONDS * self.clock_hz) + 1
        count = Signal(range(cycles + 1))
        released = Signal()
        with m.If(~stable if self.pll else 0):
            m.d.start += [count.eq(0), released.eq(0)]
        with m.Elif(count == cycles):
            m.d.start += released.eq(1)
        with m.Else():
            m.d.start += count.eq(count + 1)
        return released
