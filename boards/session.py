"""A board to talk to, real or simulated, and its answers held against the golden model."""

import zlib
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rtl_gen import load_design
from rtl_gen.vectors import answers

from .generator import generated
from .host import Board
from .simulated import simulation


@contextmanager
def connect(port, manifest, *, baud=None, begin=None):
    """A Board on a port, or on a simulated board where the port is None; begin(title) is told what is compiled."""
    if port is not None:
        with Board(port, manifest, baud=baud) as board:
            yield board
        return
    # simulated time is slower than the line's own figures say
    with (
        simulation(load_design(manifest), begin=begin) as simulated,
        Board(simulated.port, manifest, baud=baud, timeout=10) as board,
    ):
        yield board


def compare(manifest, x, y, labels=False):
    """How many of a board's answers y to vectors x differ from the golden model's."""
    network = load_design(manifest).plan.network
    floats = np.asarray(x).dtype.kind == "f"
    wanted = answers(network, network.input.quantise(x) if floats else np.asarray(x))
    if labels:
        return int((wanted.argmax(axis=1) != y).sum())
    wanted = network.output.dequantise(wanted) if floats else wanted
    return int((wanted != y).any(axis=1).sum())


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a board did with frames at full rate: cycles from the first one's output to the last one's, and whether all
    outputs were the golden model's. interval: cycles a frame, as planned.
    """

    frames: int
    cycles: int
    clock_hz: int
    interval: int
    right: bool

    @property
    def cycles_per_frame(self):
        return self.cycles / (self.frames - 1)

    @property
    def frames_per_second(self):
        return self.clock_hz / self.cycles_per_frame


def measure(board, manifest, count, progress=None):
    """The Speed of a Board over `count` frames of docs/link.md's generator; progress(fraction): of the golden model."""
    measured, network, crc, done = board.measure(count), load_design(manifest).plan.network, 0, 0
    for x in generated(count, board.info.input):
        crc, done = zlib.crc32(board.info.output.pack(answers(network, x)), crc), done + len(x)
        if progress:
            progress(done / count)
    return Speed(
        frames=count, cycles=measured.cycles, clock_hz=board.info.clock_hz, interval=board.info.interval,
        right=crc == measured.crc,
    )
