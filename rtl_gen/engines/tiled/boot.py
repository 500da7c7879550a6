"""What fills memories without content of their own: words of 16 bits from a SPI flash, once after configuration."""

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

WORD = 16
WAKE, READ = 0xAB, 0x03  # JEDEC's release from power-down, in which configuration may leave it; read
PAUSE = 128  # bits of silence between the two: 3 us are asked for, at up to 80 MHz
PINS = {"flash_select": Out(1), "flash_clock": Out(1), "flash_out": Out(1), "flash_in": In(1)}


class Boot(wiring.Component):
    """Words from an address of a flash on, at half the clock (mode 0). Nothing of it is reset: what is loaded stays.

    Parameters
    ----------
    count, address
        of words; of the first one's first byte.

    Members
    -------
    flash_select : Out(1), flash_clock : Out(1), flash_out : Out(1), flash_in : In(1)
        the flash's CS (low: selected), CLK, which runs on while it is not, DI, and DO.
    write : Out(1), word : Out(16)
        the next word, its first byte in the low bits.
    done : Out(1)
        all have come.
    """

    def __init__(self, count, address):
        self.count, self.address = count, address
        super().__init__(PINS | {"write": Out(1), "word": Out(WORD), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pause, asks = 8 + PAUSE, 8 + PAUSE + 32
        sent = WAKE << PAUSE + 32 | READ << 24 | self.address
        bits = Array(Const(sent >> (asks - 1 - n) & 1, 1) for n in range(asks))
        high, selected = Signal(name="high", reset_less=True), Signal(name="selected", reset_less=True, init=1)
        n, asked = Signal(range(asks), name="bit", reset_less=True), Signal(name="asked", reset_less=True)
        left = Signal(range(self.count), name="left", reset_less=True, init=self.count - 1)
        done, whole = Signal(name="finished", reset_less=True), Signal(name="whole", reset_less=True)
        word = Signal(WORD, name="taken", reset_less=True)
        m.d.sync += whole.eq(high & asked & (n == WORD - 1) & ~done)
        with m.If(~done):
            m.d.sync += high.eq(~high)
            with m.If(high):  # its next bit follows the falling edge
                m.d.sync += n.eq(n + 1)
                with m.If(asked):
                    m.d.sync += word.eq(Cat(self.flash_in, word))
                    with m.If(n == WORD - 1):
                        m.d.sync += [n.eq(0), left.eq(left - 1), done.eq(left == 0)]
                with m.Elif(n == asks - 1):
                    m.d.sync += [n.eq(0), asked.eq(1)]
                m.d.sync += selected.eq((n < 7) | (n >= pause - 1) | asked)
        m.d.comb += [
            self.flash_select.eq(~selected | done), self.flash_clock.eq(high),
            self.flash_out.eq(bits[n] & ~asked),
            # bytes come with their highest bit first
            self.word.eq(word.rotate_left(WORD // 2)), self.write.eq(whole), self.done.eq(done & ~whole),
        ]
        return m
