"""Ten thousand vectors, a thousand images over a line that damages one byte in a thousand both ways: real host,
simulated board.
"""

import numpy as np
import pytest
import serial
from fake_board import Damaged

import bfthw
import rtl_gen
from bfthw.chain import bft, dense
from boards.host import Board
from boards.simulated import simulation

COUNT, RATE = 10_000, 1e-3
FASTEST = {"clock_hz": 4_000_000, "baud": 1_000_000}  # as few cycles a bit as there may be


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=3), residual=True, name="a")
    return rtl_gen.write(
        bfthw.compile(bfthw.Network(layers=(layer,))), tmp_path_factory.mktemp("noisy"), name="tiny"
    )


@pytest.fixture(scope="module")
def simulated(design):
    with simulation(design, **FASTEST) as board:
        yield board


def check(design, board, seed, count=COUNT):
    q = design.plan.network
    x = np.random.default_rng(seed).integers(q.input.lo, q.input.hi + 1, (count, q.inputs))
    assert np.array_equal(board.run(x), design.plan.network(x))
    print(f"{board.vectors_per_second:.0f} vectors a second, {board.repeated} requests sent again")
    assert board.repeated > 20


@pytest.mark.parametrize(
    "seed, kinds",
    [(1, ["flipped"]), pytest.param(2, ["flipped", "zeroed", "lost", "repeated"], marks=pytest.mark.slow)],
    ids=["flipped", "of four kinds"],
)
def test_every_vector_arrives(design, simulated, seed, kinds):
    """With the default settings, opening included."""
    with serial.Serial(simulated.port, FASTEST["baud"], timeout=0.05) as line:
        damaged = Damaged(line, kinds, seed, RATE)
        check(design, Board(damaged, design), seed)
        assert damaged.done > 50


@pytest.mark.slow
def test_every_vector_arrives_over_noisy_wires(design, simulated):
    """One bit in ten thousand, start and stop bits and an idle line's too: as many bytes, and what they begin."""
    with Board(simulated.port, design) as board:
        simulated.add_noise(RATE / 10, seed=1)
        try:
            check(design, board, seed=3)
        finally:
            simulated.add_noise(0)


def test_every_image_arrives(tmp_path):
    """Each in two parts and more, as many as the line leaves whole."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(dense(10, 144), seed=4), name="a")
    design = rtl_gen.write(bfthw.compile(bfthw.Network(layers=(layer,))), tmp_path, name="images")
    with simulation(design, **FASTEST) as board, serial.Serial(board.port, FASTEST["baud"], timeout=0.05) as line:
        check(design, Board(Damaged(line, ["flipped", "zeroed", "lost", "repeated"], 5, RATE), design), 5, 1000)
