"""The real shell, simulated behind a pseudo-terminal, against the real host: digits, damage, a killed host."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import serial
from fake_board import Damaged
from sim_bench import files_of

import bfthw
import rtl_gen
from boards import frames
from boards.frames import Counters, Frame, Info, Splitter
from boards.host import Board
from boards.session import connect
from boards.shell import Shell
from boards.simulated import build, simulation

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    network = bfthw.compile(bfthw.load(EXAMPLE / "digits.safetensors").network)
    settings = bfthw.make_settings(EXAMPLE / "hardware.toml")
    return rtl_gen.write(network, tmp_path_factory.mktemp("simulated"), name="digits", settings=settings)


@pytest.fixture(scope="module")
def simulated(design):
    """One board for all: whatever is done to it, the next test finds it well."""
    with simulation(design) as board:
        yield board


@pytest.fixture
def x(design):
    """Integers over the whole range: with images of digits alone many an error would not show."""
    return np.random.default_rng(5).integers(-128, 128, (30, 64))


def saturated(network, x):
    return sum(int(np.sum(factor.saturated(acc))) for factor, acc, _ in network.accumulators(x))


@contextmanager
def raw(port):
    with serial.Serial(port, 1_000_000, timeout=0.5) as line:
        yield line


def ask(line, data, seconds=20):
    """Write, and read the frame that comes back; None where none comes."""
    line.write(data)
    splitter, end = Splitter(), time.monotonic() + seconds
    while time.monotonic() < end:
        for item in splitter.feed(line.read(max(1, line.in_waiting))):
            assert isinstance(item, Frame)
            return item
    return None


def reason(line, data):
    """Why the board refuses it; None where it does not."""
    reply = ask(line, data)
    return reply.payload[0] if reply and reply.type == frames.DAMAGED else None


def test_digits(design):
    """Ten held-out images: labels and outputs of the golden model."""
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(EXAMPLE))
    try:
        from data import load
    finally:
        sys.path.remove(str(EXAMPLE))
        sys.modules.pop("data", None)
    *_, images, labels = load()
    network = design.plan.network
    with simulation(design) as simulated, Board(simulated.port, design, timeout=5) as board:
        assert np.array_equal(
            board.run(network.input.quantise(images[:10])), network(network.input.quantise(images[:10]))
        )
        assert np.array_equal(board.run(images[:10]), network.predict(images[:10]))
        found = board.classify(images[:10])
        assert np.array_equal(found, network.classify(images[:10])) and np.mean(found == labels[:10]) >= 0.9
        assert board.repeated == 0


def test_info_and_counters_add_up(design, simulated, x):
    m, network = design.manifest, design.plan.network
    with Board(simulated.port, design, timeout=5) as board:
        assert board.info == Info.of(design, clock_hz=12_000_000, baud=1_000_000)
        board.reset()
        assert board.counters() == Counters(answered=1, wrong_crc=0, framing=0, too_long=0, saturated=0, busy=0)
        assert np.array_equal(board.run(x), network(x))
        counted = board.counters()
        # 15 parts of two vectors, and the two questions themselves
        assert counted.answered == 17 and counted.wrong_crc == counted.framing == counted.too_long == 0
        assert counted.saturated == saturated(network, x) > 0
        seconds = 10 * frames.wire_bytes(len(x) * board.info.input.frame_bytes) / 1e6
        assert len(x) // 2 * m.latency < counted.busy < len(x) * (m.latency + m.interval) + 12e6 * 2 * seconds
        board.reset()
        assert board.counters().answered == 1


def test_damaged_requests_are_refused_and_counted(design, simulated, x):
    """Each kind once, by hand: the reason is told, the counters rise, and the next request is answered."""
    with Board(simulated.port, design) as board:
        board.reset()
    good = frames.encode(frames.RUN, 9, bytes(64))
    wrong = bytearray(good)
    wrong[5] ^= 0x81
    body = bytes([frames.INFO, frames.VERSION, 5, 0]) + bytes(8) + b"abc"
    lying = frames.cobs.encode(body + frames.zlib.crc32(body).to_bytes(4, "little")) + b"\0"
    with raw(simulated.port) as line:
        assert reason(line, bytes(wrong)) == frames.WRONG_CRC
        assert reason(line, good[:40] + b"\0") == frames.WRONG_CRC
        assert reason(line, b"\x01\0") == frames.WRONG_CRC
        assert reason(line, lying) == frames.WRONG_LENGTH
        assert reason(line, frames.encode(frames.MEASURE, 1, b"")) == frames.WRONG_LENGTH
        assert reason(line, frames.encode(frames.RESET, 1, b"x")) == frames.WRONG_LENGTH
        assert reason(line, frames.encode(0x55, 1)) == frames.UNKNOWN_TYPE
        assert reason(line, frames.encode(frames.RESET, 1, offset=64)) == frames.WRONG_OFFSET
        assert reason(line, frames.encode(frames.RUN, 1, bytes(129))) == frames.TOO_LONG
        assert reason(line, frames.encode(frames.RUN, 1, b"\x07" * 20_000)) == frames.TOO_LONG
        assert ask(line, bytes(50), 0.3) is None  # empty frames
        assert ask(line, good[:40], 0.3) is None  # no end
        simulated.send_break()
        assert reason(line, good[40:]) == frames.FRAMING
        assert ask(line, good).number == 9
    with Board(simulated.port, design, timeout=5) as board:
        counted = board.counters()
        assert (counted.wrong_crc, counted.framing, counted.too_long) == (3, 1, 2)
        assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0


def test_breaks_between_requests(design, simulated, x):
    with Board(simulated.port, design, timeout=0.1) as board:
        board.reset()
        for bits in (1, 5, 9, 10, 11, 12, 50, 1000):
            simulated.send_break(bits)
            assert np.array_equal(board.run(x), design.plan.network(x)), bits
        # nothing is left of them
        before, board.timeout = board.repeated, 5
        assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == before
        assert 1 <= board.counters().framing <= 7


@pytest.mark.parametrize("kind", ["flipped", "lost", "repeated", "cut", "zeroed", "twice"])
def test_damage_on_the_way(design, simulated, x, kind):
    """Single vectors over a bad line, both ways: every one is answered, and right."""
    wanted = design.plan.network(x)
    with raw(simulated.port) as line:
        line.timeout = 0.01
        damaged = Damaged(line, [kind], seed=1)
        with Board(damaged, design, timeout=0.05) as board:
            damaged.rate = 0.006
            for n in range(len(x)):
                assert np.array_equal(board.run(x[n : n + 1]), wanted[n : n + 1])
            assert damaged.done > 5 and board.repeated > 0
            damaged.rate, board.timeout = 0, 0.5
            assert np.array_equal(board.run(x), wanted)


@pytest.mark.parametrize("seed", range(2))
def test_noise_on_the_wires(design, simulated, x, seed):
    """Bits inverted at random, start and stop bits too, which loses bytes and shifts them."""
    wanted = design.plan.network(x)
    with Board(simulated.port, design, timeout=0.05) as board:
        board.reset()
        simulated.add_noise(5e-4, seed)
        for n in range(len(x)):
            assert np.array_equal(board.run(x[n : n + 1]), wanted[n : n + 1])
        simulated.add_noise(0)
        board.timeout = 0.5
        assert board.repeated > 3
        assert np.array_equal(board.run(x), wanted)
        counted = board.counters()
        assert counted.wrong_crc + counted.framing > 0


HOST = """
import sys, time, numpy as np, serial
from boards import frames
from boards.host import Board
from boards.session import connect
port, path, kind = sys.argv[1:]
x = np.ones((8, 64), int)
if kind == "half":
    line = serial.Serial(port, 1_000_000)
    line.write(frames.encode(frames.RUN, 1, bytes(128))[:100])
    print("ready", flush=True)
    time.sleep(60)
board = Board(port, path)
print("ready", flush=True)
while True:
    board.run(x)
"""


@pytest.mark.parametrize("kind", ["half", "running", "running later"])
def test_host_killed(design, simulated, x, kind):
    """A host that dies in mid-frame leaves nothing behind that a new one would notice, but for a repeated request."""
    for n in range(1 if kind == "half" else 4):
        killed = subprocess.Popen(
            [sys.executable, "-c", HOST, simulated.port, str(design.path), kind], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert killed.stdout.readline() == b"ready\n"
        time.sleep(0.01 * n + (0.1 if kind == "running later" else 0))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
        with Board(simulated.port, design, timeout=0.2) as board:
            assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated <= 2


def gone(pid):
    """Whether a process has ended, though maybe nobody asked yet how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_nothing_is_left(design):
    with simulation(design) as board:
        pid = board.process.pid
        assert not gone(pid)
    assert gone(pid) and board.process.returncode == 0 and not os.path.exists(board.port)
    with pytest.raises(ZeroDivisionError), simulation(design) as board:
        raise ZeroDivisionError
    assert board.process.returncode == 0
    # nor where the program that started it was killed
    code = (
        "import sys, time, rtl_gen\nfrom boards.simulated import simulation\n"
        "with simulation(rtl_gen.load_design(sys.argv[1])) as board:\n    print(board.process.pid, flush=True)\n"
        "    time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(design.path)], stdout=subprocess.PIPE, cwd=ROOT)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: gone(pid))


def test_it_sleeps_when_nothing_moves(design, simulated, x):
    def ticks():
        user, system = Path(f"/proc/{simulated.process.pid}/stat").read_text().rsplit(")")[-1].split()[11:13]
        return int(user) + int(system)

    with Board(simulated.port, design, timeout=5) as board:
        board.run(x)
        time.sleep(0.5)
        before = ticks()
        time.sleep(0.5)
        assert ticks() == before
        assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0


def test_built_once(design, simulated, children):
    shell = Shell(design, clock_hz=12_000_000, baud=1_000_000)
    program = build(shell)
    assert os.access(program, os.X_OK) and children == [Path(sys.executable).name]  # Yosys, for the Verilog
    assert files_of(design.path.parent, "digits") == {"digits.json", "digits.npz", "digits.v"}


def test_a_core_with_primitives(tmp_path):
    """`bfthw run --simulate` on a core of a --target: the simulation needs the models of its primitives."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bfthw.chain.bft(16, 4), seed=7), name="body")
    network = bfthw.compile(bfthw.Network(layers=(layer,)))
    design = rtl_gen.write(network, tmp_path, name="core", settings=bfthw.make_settings(target="ecp5"))
    x = np.random.default_rng(7).integers(-128, 128, (5, 16))
    with connect(None, tmp_path / "core.json") as board:
        assert np.array_equal(board.run(x), design.plan.network(x))


def test_wrong_arguments(design, monkeypatch):
    with pytest.raises(ValueError, match="baud cannot be made"), simulation(design, baud=5_000_000):
        pass
    with simulation(design) as board, pytest.raises(ValueError, match="probability"):
        board.add_noise(1.5)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="compiled needs .*apt-get install"), simulation(design):
        pass


def test_a_board_that_cannot_be_built(design, monkeypatch, tmp_path):
    from boards import simulated as module

    (tmp_path / "simulated.cpp").write_text("no C++")
    monkeypatch.setattr(module, "MAIN", tmp_path / "simulated.cpp")
    with (
        pytest.raises(RuntimeError, match="could not build the board of digits: exit status 2\n(.|\n)*error"),
        simulation(design),
    ):
        pass
