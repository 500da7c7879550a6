"""The table of boards against amaranth-boards, and what stands between pins and shell."""

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Fragment, Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from boards import pll
from boards.families import FAMILIES
from boards.table import BOARDS, Board, Device, find_board
from boards.top import Top

KEYS = list(BOARDS)
# a Top is made here to be asked for its clock
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
ROOT = Path(__file__).resolve().parent.parent


class Echo(wiring.Component):
    """A shell that is a register."""

    def __init__(self, clock_hz, baud):
        self.clock_hz, self.baud = clock_hz, baud
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


def constraints(board, **options):
    """(RTLIL, constraint file) of the echo on a board."""
    plan = board.make_platform().prepare(Top(board, Echo, **options), "echo")
    texts = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    return texts["echo.il"], texts[f"echo.{FAMILIES[board.device.family].constraints}"]


@pytest.mark.parametrize("key", KEYS)
def test_platform_has_what_the_table_says(key):
    board = BOARDS[key]
    platform = board.make_platform()
    resources = {(name, number): resource for (name, number), resource in platform.resources.items()}
    clock = resources[board.clock, 0]
    assert platform.default_clk == board.clock and clock.clock.frequency == board.clock_hz
    pins = {part.name: part.ios[0] for part in resources[board.uart].ios}
    assert (pins["rx"].dir, pins["tx"].dir) == ("i", "o")
    if board.led:
        (led,) = resources[board.led].ios
        # a light whose pin is the UART's (Colorlight) would make a build fail
        assert not set(led.names) & {name for pin in pins.values() for name in pin.names}
    name = platform.part if board.device.name.startswith("GW") else platform.device
    # GW1NR-9C is a GW1NR-LV9...
    assert name.startswith(re.sub(r"^(GW\w+)-(\d+)\w$", r"\1-LV\2", board.device.name))


@pytest.mark.parametrize("key", KEYS)
def test_pins_and_clock_of_the_echo(key):
    rtlil, pins = constraints(BOARDS[key])
    for pin in ("uart_0__rx", "uart_0__tx", f"{BOARDS[key].clock}_0"):
        assert pin in pins
    primitive = {"ice40": "SB_PLL40", "ecp5": "EHXPLLL", "gowin": "rPLL", "gw5a": "PLLA"}[BOARDS[key].device.family]
    runs_at_oscillator = BOARDS[key].clock_mhz * 1e6 == BOARDS[key].clock_hz
    assert (primitive in rtlil) == (not runs_at_oscillator)


@pytest.mark.parametrize("key", KEYS)
def test_shell_is_told_the_real_clock(key):
    board = BOARDS[key]
    top = Top(board, Echo)
    assert top.shell.clock_hz == top.clock_hz and top.shell.baud == board.baud
    assert abs(top.clock_hz / 1e6 - board.clock_mhz) < 0.005 * board.clock_mhz
    double = Top(board, Echo, clock_mhz=2 * board.clock_hz / 1e6)
    assert double.clock_hz == 2 * board.clock_hz and double.pll


def test_baud_can_be_made_from_the_clock():
    from boards.uart import cycles_a_bit

    for board in BOARDS.values():
        cycles_a_bit(Top(board, Echo).clock_hz, board.baud)


def test_an_icebreaker_feeds_its_pll_from_the_pad():
    rtlil, _ = constraints(BOARDS["icebreaker"], clock_mhz=24)
    assert "SB_PLL40_PAD" in rtlil and "SB_GB_IO" not in rtlil
    assert "SB_PLL40_CORE" in constraints(BOARDS["hx8k-b-evn"], clock_mhz=24)[0]


@pytest.mark.parametrize("key, clock, rx, tx", [
    # schematics of Sipeed; the edge connector of the bitsy (P1, P0); printed beside the pins of the UPduino
    ("tang-nano-20k", "4", "70", "69"), ("tang-primer-25k", "E2", "B3", "C3"),
    ("icebreaker-bitsy", "35", "44", "47"), ("upduino-3", "20", "38", "28"),
])
def test_uart_pins_of_our_own_platforms(key, clock, rx, tx):
    _, text = constraints(BOARDS[key])
    for pin, name in ((clock, f"{BOARDS[key].clock}_0__io"), (rx, "uart_0__rx__io"), (tx, "uart_0__tx__io")):
        assert re.search(rf'"?{name}"? {pin};?$', text, re.MULTILINE), name


def test_a_gw5a_has_a_pll_of_its_own():
    """That of UG306; rPLL, which the other Gowin boards have, is not in it."""
    rtlil, _ = constraints(BOARDS["tang-primer-25k"], clock_mhz=25)
    assert "cell \\PLLA " in rtlil and "rPLL" not in rtlil
    found = pll.plan("gw5a", 50e6, 25e6)
    p = found.parameters
    assert found.vco_hz == 50e6 / p["IDIV_SEL"] * p["FBDIV_SEL"] * p["MDIV_SEL"] == 25e6 * p["ODIV0_SEL"]


@pytest.mark.parametrize("family, f, out, wanted", [
    # what icepll, ecppll and gowin_pll give for the same question
    ("ice40", 12, 48, {"DIVR": 0, "DIVF": 63, "DIVQ": 4, "FILTER_RANGE": 1}),
    ("ice40", 100, 25, {"DIVR": 0, "DIVF": 7, "DIVQ": 5, "FILTER_RANGE": 5}),
    ("ecp5", 25, 50, {"CLKI_DIV": 1, "CLKFB_DIV": 2}),
    ("gowin", 27, 54, {"IDIV_SEL": 0, "FBDIV_SEL": 1}),
])
def test_pll_against_the_vendors_programs(family, f, out, wanted):
    found = pll.plan(family, f * 1e6, out * 1e6)
    assert found.output_hz == out * 1e6
    assert {key: found.parameters[key] for key in wanted} == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_pll_stays_in_its_ranges(family):
    ranges, made = FAMILIES[family].pll, 0
    for f in (f for f in (12, 25, 27, 100) if f >= ranges.input[0]):
        for out in range(16, 200, 21):
            try:
                found = pll.plan(family, f * 1e6, out * 1e6)
            except ValueError as error:
                # the frequency that it names instead can be had
                out = float(re.search(r"the nearest is ([\d.]+) MHz", str(error))[1])
                found = pll.plan(family, f * 1e6, out * 1e6)
            else:
                made += 1
            assert ranges.vco[0] <= found.vco_hz / 1e6 <= ranges.vco[1]
            assert abs(found.output_hz - out * 1e6) <= 0.005 * out * 1e6
    assert made >= 5


@pytest.mark.parametrize("clock", [0, -12, math.nan, math.inf])
def test_a_clock_is_a_positive_number(clock):
    with pytest.raises(ValueError, match="icebreaker: its clock must be a positive number of MHz, got"):
        Top(BOARDS["icebreaker"], Echo, clock_mhz=clock)


def test_pll_says_what_it_can():
    with pytest.raises(ValueError, match="cannot make 300 MHz of 12 MHz; the nearest is 27"):
        pll.plan("ice40", 12e6, 300e6)
    with pytest.raises(ValueError, match="takes 8 to 400 MHz, got 5"):
        pll.plan("ecp5", 5e6, 50e6)
    with pytest.raises(ValueError, match="icebreaker has no PLL: its clock is 12 MHz, got 20"):
        Top(replace(BOARDS["icebreaker"], pll=None), Echo, clock_mhz=20)


@pytest.mark.parametrize("key, says", [
    ("icebraker", "nearest is 'icebreaker'"), ("ULX3S", "nearest is 'ulx3s-85f'"), ("orangecrab", "not yet supported"),
    ("fomu-pvt", "not yet supported"), ("tang-nano", "nearest is 'tang-nano-9k'"), ("???", "there are icebreaker, "),
])
def test_unknown_boards(key, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        find_board(key)


def test_a_board_is_checked_at_birth():
    with pytest.raises(ValueError, match="baud of icebreaker must be 115200 to 3000000, got 9600"):
        replace(BOARDS["icebreaker"], baud=9600)
    with pytest.raises(ValueError, match="family must be one of ice40, ecp5, gowin, gw5a, got 'xc7'"):
        Device(name="A7", family="xc7", lut=1, ff=1, dsp=1, ram=1)
    with pytest.raises(ValueError, match="programmers of icebreaker must be sram or flash, got eeprom"):
        replace(BOARDS["icebreaker"], programmers={"eeprom": None})


def test_the_table_of_the_document_is_the_code():
    text = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text.split("\n## ")[0], re.MULTILINE))
    assert list(rows) == KEYS
    for key, board in BOARDS.items():
        assert rows[key] == row(board), key
    for title in ("OrangeCrab", "Fomu"):
        assert title in text


def row(board: Board):
    d = board.device
    program = next(iter(board.programmers.values())).command[0]
    cells = board.title, d.name, f"{board.clock_hz / 1e6:g}", f"{board.clock_mhz:g}", board.baud, d.lut, d.ff, d.dsp
    return " | ".join(map(str, [*cells, f"{d.ram} × {d.ram_bits}", " or ".join(board.programmers), program]))


def test_reset_lasts_until_the_memories_are_ready():
    """20 µs after configuration, no less and no more."""
    board, clock, uart = BOARDS["icebreaker"], io.SimulationPort("i", 1), SimpleNamespace(i=Signal(init=1), o=Signal())

    class Pins:
        """A platform whose pins are signals."""

        def request(self, name, number=0, dir=None):
            return clock if name == board.clock else SimpleNamespace(rx=uart, tx=uart, o=Signal())

    class Counter(wiring.Component):
        """Counts the cycles of "sync" without a reset."""

        def __init__(self, clock_hz, baud):
            super().__init__({"rx": In(1), "tx": Out(1), "count": Out(16)})

        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.count.eq(self.count + 1)
            return m

    top = Top(board, Counter)

    async def bench(ctx):
        for _ in range(400):
            for level in (0, 1):
                ctx.set(clock.i, level)
                await ctx.delay(1e-9)
        waited = 400 - ctx.get(top.shell.count)
        assert 20e-6 <= waited / board.clock_hz <= 21e-6

    simulator = Simulator(Fragment.get(top, Pins()))
    simulator.add_testbench(bench)
    simulator.run()
