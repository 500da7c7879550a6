"""A board that is not there: the real shell in Verilator, its serial line behind a pseudo-terminal."""

import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bfthw import child
from bfthw.reading import owned
from rtl_gen import tech
from rtl_gen.yosys import verilog
from sim import simulators

from .shell import Shell
from .uart import cycles_a_bit

MAIN = Path(__file__).with_name("simulated.cpp")
FRAME_BITS = 10  # of a byte on the line
RESET_CYCLES = 16
MEASURED = 200  # frames, at most, that may be measured: time stands still when nothing has moved for longer
# lint is the business of `bfthw simulate`
ARGUMENTS = ("-O3", "-Wno-lint", "--x-assign", "fast", "--x-initial", "fast", *simulators.SPLIT)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A running board, whose line can be disturbed. port: path of its pseudo-terminal."""

    port: str
    process: subprocess.Popen

    def send_break(self, bits=20):
        """Hold the line to the board low for so many bits, between what was written before and what will be."""
        self._command(f"break {int(bits)}")

    def add_noise(self, rate, seed=0):
        """Invert each bit on the line, start and stop bits too, both ways, with this probability; 0 ends it."""
        if not 0 <= rate <= 1:
            raise ValueError(f"noise is a probability, 0 to 1, got {rate}")
        self._command(f"noise {round(1e6 * rate)} {int(seed)}")

    def _command(self, line):
        """Returns when it was taken, so that it has its place among the bytes of the port."""
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise RuntimeError("the simulated board has ended")


@contextmanager
def simulation(design, *, clock_hz=12_000_000, baud=1_000_000, begin=None):
    """The Simulation of a board that runs `design` (rtl_gen.Design), as long as the context lasts.

    Time on it goes by as fast as it can be simulated. begin(title) is told what begins, where something is compiled.
    ValueError where the clock does not make the baud rate, or where a tool is missing; RuntimeError, with the end of
    the log, where it cannot be built or started.
    """
    simulators.check_simulator("compiled")
    cycles = cycles_a_bit(clock_hz, baud)
    with running(build(Shell(design, clock_hz=clock_hz, baud=baud), begin), design, cycles) as board:
        yield board


@contextmanager
def running(program, design, cycles, reset_cycles=RESET_CYCLES):
    """The Simulation of a program that `compile_board` made, `cycles` a bit; for `reset_cycles` nothing is sent to
    it.
    """
    m = design.manifest
    # no line moves while a request is computed, so that long a silence says nothing
    idle = 2 * m.latency + MEASURED * m.interval + 100 * FRAME_BITS * cycles
    command, pipe = [program, str(cycles), str(idle), str(reset_cycles)], subprocess.PIPE
    with child.start(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            port = process.stdout.readline().decode().strip()
            if not port:
                said = process.stderr.read().decode(errors="replace").strip()
                raise RuntimeError(f"the simulated board did not start: {said}")
            yield Simulation(port=port, process=process)
        finally:  # the board ends with its standard input
            with suppress(OSError):  # it has ended already
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)


def build(shell, begin=None):
    """Path of the program that simulates a Shell, in the user's cache; built unless it is there."""
    manifest = shell.design.manifest
    models = {model.name: model.read_text(encoding="utf-8") for model in tech.models(manifest.target)}
    files = {"board.v": verilog(shell, "board")} | models
    return compile_board(manifest.name, files, ("--top-module", "board"), begin)


def compile_board(name, files, arguments, begin=None, level="-O2"):
    """Path of the program that simulates a board with clk, rst, rx and tx, in the user's cache; built unless there.

    name: of the core, for messages. files: name → Verilog text. arguments: for Verilator, the top module among them.
    level: as `simulators.compiled` takes it.
    """
    files = files | {MAIN.name: MAIN.read_text(encoding="utf-8")}
    with owned(f"verilator could not build the board of {name}", RuntimeError, RuntimeError):
        return simulators.compiled(files, "Vboard", "board", [*ARGUMENTS, *arguments], begin, level)
