"""The whole board in gates: the mapped netlist that a bitstream was made of, simulated, and the real host before it."""

import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import rtl_gen
from bfthw import cache
from bfthw.files import undisturbed
from rtl_gen.vectors import answers, random_vectors
from sim import simulators
from sim.scenarios import to_integers
from sim.simulate import Played, check_plain

from .flash import bitstream
from .frames import Info
from .host import BITS, Board, BoardError
from .netlist import cell_models, two_state
from .report import MARKED, read_report
from .simulated import compile_board, running
from .table import find_board
from .top import RESET_SECONDS
from .uart import cycles_a_bit

# seconds of silence, then it is over: a simulated board is slow, and a request sent again would hide a fault
TIMEOUT = 60
LARGE = 8_000_000  # bytes of a netlist from which a cycle takes longer, so TIMEOUT does, and CYCLES are fewer
# of Yosys' models of pads: Verilator cannot ask whether a pin is open, nor let go of an input
UNKNOWN = " || CLOCK_ENABLE === 1'bz", "if (T === 1'bz) T_pd = 1'b0; else ", "assign B = 1'bz;"
PIN = re.compile(r"^  (?:input|output) (\w+__io;)$", re.MULTILINE)
CYCLES = 3_000_000  # in which the line brings the vectors of a check, at most: a minute or so
LONG = 1_000_000  # cycles, in which a program that took twice as long to compile makes up for it: three times as fast
WRAPPER = """\
module {module}(input clk, input rst, input rx, output tx);
  wire clock_pin = clk, rx_pin = rx, tx_pin;
  assign tx = tx_pin;
  {top} top(.{clock}(clock_pin), .{uart}__rx__io(rx_pin), .{uart}__tx__io(tx_pin));
endmodule
"""


@contextmanager
def simulation(design, board, netlist, *, clock_hz, tools="yowasp", vectors=0):
    """A running boards.simulated.Simulation of a board's mapped netlist, as long as the context lasts.

    design: rtl_gen.Design. board: key or Board. netlist: Verilog of the board's top, whose ports are the board's pins;
    its own reset after configuration is what starts it. vectors: that will come through its line, about; for many the
    program is optimised. Where it has a PLL, the clock's pin gets what that is to make, and its model checks its
    dividers: see families/pll.v. Raises ValueError for a netlist without the pins, RuntimeError where Verilator fails:
    for a cell, or a parameter of one, without model, and a PLL that makes another clock.
    """
    board, name = find_board(board), design.manifest.name
    models = two_state(cell_models(board.device.family, tools, pll=(board.clock_hz, clock_hz)))
    simulators.check_simulator("compiled")
    # pads of the ECP5 are inout whatever they do, and Verilator wants their pins to be so too
    text = PIN.sub(r"  inout \1", check_plain(Path(netlist), MARKED))
    module = f"pins_of_{name}"
    for words in UNKNOWN:
        models = models.replace(words, "")
    files = {"cells.v": models, "netlist.v": text, "pins.v": wrapper(text, name, board, module)}
    several = simulators.SEVERAL if len(text) > LARGE else ()  # for the compiler's memory
    level = simulators.NONE if vectors * line_cycles(design, clock_hz, board.baud) < LONG else simulators.SOME
    program = compile_board(name, files, ("--top-module", module, "-Wno-fatal", *several), level=level)
    cycles = cycles_a_bit(clock_hz, board.baud)
    with running(program, design, cycles, 2 * int(RESET_SECONDS * clock_hz)) as simulated:
        yield simulated


def wrapper(netlist, name, board, module):
    """Verilog of `module`, clk, rst (open), rx and tx, around the top `name` of a netlist with a board's pins.

    ValueError where a pin is missing.
    """
    header = re.search(rf"^module {re.escape(name)}\((.*?)\);", netlist, re.MULTILINE | re.DOTALL)
    ports = re.findall(r"\w+", header[1]) if header else []
    clock, uart = f"{board.clock}_0__io", f"{board.uart[0]}_{board.uart[1]}"
    for pin in (clock, f"{uart}__rx__io", f"{uart}__tx__io"):
        if pin not in ports:
            raise ValueError(
                f"the netlist of {name} on {board.key} has no pin {pin}; it has {', '.join(ports) or 'none'}"
            )
    return WRAPPER.format(module=module, top=name, clock=clock, uart=uart)


def vectors(design, clock_hz, baud, netlist, most=10):
    """How many vectors of a design a board's line brings in CYCLES, `most` at most; 0 where none comes in as many, of a
    large netlist one all the same.
    """
    whole = CYCLES // line_cycles(design, clock_hz, baud)
    return min(most, whole, max(1, int(whole / slowness(netlist))))


def line_cycles(design, clock_hz, baud):
    """In which a board's line brings a vector of a design."""
    m = design.manifest
    return m.input.elements * m.input.lane_bytes * BITS * cycles_a_bit(clock_hz, baud)


def slowness(netlist):
    """How many times as long a cycle of a netlist may take as one of LARGE bytes."""
    return max(1, Path(netlist).stat().st_size / LARGE)


def compare(design, board, netlist, *, clock_hz, inputs=None, count=10, tools="yowasp"):
    """Vectors through the netlist of a whole board, by the real host over its serial line, against the golden model.

    inputs: integers (N, inputs), or floats; without them `count` random vectors, corners first. Beside the outputs,
    what the board says about itself must be right and the line without error. Returns a sim.simulate.Played; raises as
    `simulation` does.
    """
    board, network, begin = find_board(board), design.plan.network, time.monotonic()
    x = random_vectors(network, count, 0) if inputs is None else to_integers(inputs, network.inputs, network.input)
    problems, y, silence = [], None, TIMEOUT * slowness(netlist)
    with simulation(design, board, netlist, clock_hz=clock_hz, tools=tools, vectors=len(x)) as simulated:
        try:
            with Board(simulated.port, design, baud=board.baud, timeout=silence, patience=silence) as host:
                wanted = Info.of(design, clock_hz=clock_hz, baud=board.baud)
                if host.info != wanted:
                    problems.append(f"the board says {host.info}, should say {wanted}")
                y = host.run(x)
                counted = host.counters()
                if counted.wrong_crc or counted.framing or counted.too_long:
                    problems.append(f"the board counts errors on a line that has none: {counted}")
                if host.repeated:
                    problems.append(f"requests had to be sent again: {host.repeated}")
        except BoardError as error:
            problems.append(str(error))
    if y is not None:
        wanted = answers(network, x)
        different = np.argwhere(y != wanted)
        if len(different):
            v, n = different[0]
            problems.append(f"vector {v}, output {n} is {y[v, n]}, should be {wanted[v, n]}")
    return Played(vectors=len(x), seconds=time.monotonic() - begin, outputs=y, problems=tuple(problems))


def check(directory, *, inputs=None, count=None):
    """`compare` for what `build` or `patch` left in a directory, with its own report and manifest; without a `count` as
    many vectors as a build takes, one at least.
    """
    directory = Path(directory)
    with cache.scratch() as folder:
        with undisturbed(directory):
            _, board = bitstream(directory, None)
            report = read_report(directory / "report.json")
            name = report["name"]
            design = rtl_gen.load_design(directory / f"{name}.json")
            netlist = shutil.copy(directory / f"{name}.netlist.v", folder)
        if report["configuration"] != (there := design.manifest.configuration):
            raise ValueError(
                f"{directory / 'report.json'}: configuration is {report['configuration'][:12]}, {name}.json has "
                f"{there[:12]}"
            )
        clock_hz = round(report["clock_mhz"] * 1e6)
        return compare(
            design, board, netlist, clock_hz=clock_hz, inputs=inputs, tools=report["tools"]["from"],
            count=count or max(1, vectors(design, clock_hz, board.baud, netlist)),
        )
