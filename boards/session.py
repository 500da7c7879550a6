"""A board to talk to, real or simulated, and its answers held against the golden model."""

from contextlib import contextmanager

import numpy as np

from rtl_gen import load_design

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
    wanted = network(network.input.quantise(x) if floats else x)
    if labels:
        return int((wanted.argmax(axis=1) != y).sum())
    wanted = network.output.dequantise(wanted) if floats else wanted
    return int((wanted != y).any(axis=1).sum())
