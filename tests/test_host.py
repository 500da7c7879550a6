"""The host against a board in Python: right answers, and every way in which board, line or user can be wrong."""

import errno
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import serial
from fake_board import FakeBoard, behind_terminal
from serial.tools import list_ports

import bfthw
import rtl_gen
from bfthw.chain import bft
from boards import frames, host
from boards.host import Board, BoardError, NoAnswer


def make(directory, name, seed, outputs_bits=10):
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(16, 4), seed=seed), residual=True, name="a")
    settings = bfthw.make_settings(activation_bits=outputs_bits)
    network = bfthw.compile(bfthw.Network(layers=(layer,)), settings=settings)
    return rtl_gen.write(network, directory, name=name)


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    return make(tmp_path_factory.mktemp("host"), "core", 1)


@pytest.fixture
def x(design):
    q = design.spec.network.input
    return np.random.default_rng(3).integers(q.lo, q.hi + 1, (100, 16))


def open_board(design, port, **rest):
    return Board(port, design, **{"timeout": 0.05, "baud": 1_000_000} | rest)


def test_integers_floats_labels(design, x):
    network, port, seen = design.spec.network, FakeBoard(design), []
    with open_board(design, port) as board:
        y = board.run(x, progress=seen.append)
        assert y.dtype == np.int64 and np.array_equal(y, network(x))
        # 512 bytes hold 32 vectors
        assert [len(r.payload) for r in port.requests if r.type == frames.RUN] == [512, 512, 512, 64]
        assert len(seen) == 4 and seen[-1] == 1 and seen == sorted(seen)
        assert board.vectors_per_second > 0 and board.repeated == 0
        floats = np.random.default_rng(4).normal(size=(50, 16)) * 2  # some saturate
        assert np.array_equal(board.run(floats), network.predict(floats))
        assert np.array_equal(board.run(floats, label=True), network.classify(floats))
        assert np.array_equal(board.classify(x), network(x).argmax(axis=1))
        assert board.run(x[:1].astype(np.int8)).shape == (1, 16)
        assert board.counters().saturated == 7 and board.reset() is None
    assert not port.closed


def test_manifest_alone_is_enough(design, x, tmp_path):
    """The host needs neither Verilog nor integers."""
    path = tmp_path / "core.json"
    path.write_bytes(design.path.read_bytes())
    board = Board(FakeBoard(design), path)
    assert np.array_equal(board.run(x[:3]), design.spec.network(x[:3]))


def test_what_is_no_vector(design, x):
    board = open_board(design, FakeBoard(design))
    for wrong, error, reason in (
        (x[0], ValueError, r"\(N, 16\), got \(16,\)"),
        (x[:, :8], ValueError, "got "),
        (x[:0], ValueError, r"got \(0, 16\)"),
        (x + 1000, ValueError, "must fit"),
        (x * np.nan, ValueError, "NaN"),
        (x > 0, TypeError, "integers"),
        (np.full((1, 16), np.inf), ValueError, "finite"),
        (np.array([["a"] * 16]), TypeError, "integers"),
    ):
        with pytest.raises(error, match=reason):
            board.run(wrong)
    for rest in ({"timeout": 0}, {"retries": -1}, {"baud": -5}):
        with pytest.raises(ValueError, match="timeout > 0, retries >= 0 and baud > 0"):
            open_board(design, FakeBoard(design), **rest)


def test_other_firmware_is_refused(design, tmp_path):
    other = make(tmp_path, "other", 2)
    with pytest.raises(BoardError) as caught:
        open_board(design, FakeBoard(other))
    text = str(caught.value)
    for part in (
        "'other'",
        "'core'",
        other.manifest.configuration[:12],
        design.manifest.configuration[:12],
        "bfthw flash",
    ):
        assert part in text


def test_other_sizes_are_refused(design):
    info = FakeBoard(design).info
    for change in (
        {"input": replace(info.input, elements=17)},
        {"output": replace(info.output, frac=1)},
        {"input": replace(info.input, width=7)},
    ):
        with pytest.raises(BoardError, match=f"{next(iter(change))} is Side"):
            open_board(design, FakeBoard(design, info=replace(info, **change)))


def test_info_that_is_none(design):
    for payload, reason in ((b"", "version missing"), (b"\x07" + bytes(63), "version 7"), (b"\x01", "58 bytes")):
        with pytest.raises(BoardError, match=f"not a board that this host knows: info: .*{reason}"):
            open_board(design, FakeBoard(design, info=payload))


def alter(position, value):
    """A reply with one byte of its body changed, and a CRC that is right again."""

    def mangle(reply):
        body = bytearray(frames.cobs.decode(reply[:-1])[:-4])
        body[position] = (body[position] + value) & 0xFF
        return seal(body)

    return mangle


def resize(change):
    """A reply with another payload, and length and CRC that fit it."""

    def mangle(reply):
        frame = frames.decode(reply)
        return frames.encode(frame.type, frame.sequence, change(frame.payload))

    return mangle


def seal(body):
    return frames.cobs.encode(bytes(body) + frames.zlib.crc32(body).to_bytes(4, "little")) + b"\0"


WRONG = {
    "nothing": (lambda reply: b"", "no reply in time"),
    "no end": (lambda reply: reply[:-1], "no reply in time"),
    "wrong CRC": (lambda reply: reply[:-2] + bytes([reply[-2] % 255 + 1, 0]), "wrong CRC|no COBS"),
    "cut": (lambda reply: reply[:-20] + b"\0", "no COBS|wrong CRC"),
    "half": (lambda reply: reply[: len(reply) // 2], "no reply in time"),
    "type": (alter(0, 1), "no reply in time"),
    "a request's type": (alter(0, 0x80), "no reply in time"),
    "sequence": (alter(1, 1), "no reply in time"),
    "earlier sequence": (alter(1, -1), "no reply in time"),
    "length": (alter(2, 1), "length is"),
    "shorter": (resize(lambda payload: payload[:-2]), "a reply of 62 bytes for 64"),
    "longer": (resize(lambda payload: payload + b"\0"), "a reply of 65 bytes for 64"),
    "empty": (resize(lambda payload: b""), "a reply of 0 bytes for 64"),
    "damaged request": (lambda reply: frames.encode(0xFF, 3, b"\x05"), "the board got framing error"),
    "damaged, reason unknown": (lambda reply: frames.encode(0xFF, 3, b"\x63"), "damage of unknown kind"),
    "damaged, no reason": (lambda reply: frames.encode(0xFF, 3, b""), "damage of unknown kind"),
    "noise": (lambda reply: bytes(range(255, -1, -1)) * 3, "no COBS|wrong CRC|8 bytes or more"),
    "flood": (lambda reply: b"\x55" * 400_000, "no reply in time"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_replies(design, x, kind):
    """Never taken for right; after as many as there are retries the next right one is, after one more an error."""
    mangle, reason = WRONG[kind]
    for count in (3, 4):
        wrong = [count]

        def sometimes(request, reply, wrong=wrong):
            if request and request.type == frames.RUN and wrong[0]:
                wrong[0] -= 1
                return mangle(reply)
            return reply

        port = FakeBoard(design, mangle=sometimes)
        # a floor of zero for lines without a fault, so that the test does not wait
        board = open_board(design, port, retries=3, timeout=0.03)
        if count == 3:
            assert np.array_equal(board.run(x[:2]), design.spec.network(x[:2])), kind
            assert board.repeated >= 3
        else:
            with pytest.raises(BoardError, match="no valid reply to run, tries: 4 ") as caught:
                board.run(x[:2])
            assert re.search(reason, str(caught.value)) and "0 of 2 vectors" in str(caught.value)
            assert len([r for r in port.requests if r.type == frames.RUN]) == 4
            assert np.array_equal(board.run(x[:5]), design.spec.network(x[:5]))  # and the next request is answered


def test_late_and_repeated_replies_are_passed_over(design, x):
    """Each reply comes behind the two before it, and twice."""
    late = []

    def mangle(request, reply):
        late.append(reply)
        return b"".join(late[-3:]) + reply

    with open_board(design, FakeBoard(design, mangle=mangle)) as board:
        for n in range(300):  # around the sequence numbers
            assert np.array_equal(board.run(x[n % 90 : n % 90 + 2]), design.spec.network(x[n % 90 : n % 90 + 2]))
        assert board.repeated == 0


def test_a_reply_in_drops(design, x):
    """Slower than the time-out all in all, but never silent for so long; one that never ends is given up."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.1, retries=0)
    whole = port.read

    def drop(size=1):
        time.sleep(0.06)
        return whole(12)

    port.read = drop
    assert np.array_equal(board.run(x[:4]), design.spec.network(x[:4]))
    port.mangle = lambda request, reply: reply[:-1] * 20
    begin = time.monotonic()
    with pytest.raises(BoardError, match="1 x no reply in time"):
        board.run(x[:4])
    assert time.monotonic() - begin < host.PATIENCE * 0.11 + 0.5


def test_a_reply_after_a_long_read(design, x):
    """A read that takes as long as the time-out, and brings the beginning of the reply: its rest is waited for."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.03, retries=0)
    whole, sizes = port.read, [5, 1000]

    def read(size=1):
        time.sleep(0.035)
        return whole(sizes.pop(0))

    port.read = read
    assert np.array_equal(board.run(x[:4]), design.spec.network(x[:4]))


def test_half_a_frame_of_an_earlier_host(design, x):
    """The first thing sent is a zero, which ends it."""
    port = FakeBoard(design)
    port.write(frames.encode(frames.RUN, 1, bytes(64))[:30])
    with open_board(design, port) as board:
        assert np.array_equal(board.run(x), design.spec.network(x)) and board.repeated == 0


def test_numbers_that_the_core_cannot_give(design, x):
    port = FakeBoard(design)
    board = open_board(design, port)
    port.answer = lambda request: b"\xff\x7f" * 16
    with pytest.raises(BoardError, match="an answer that the core cannot give: numbers of 10 bits"):
        board.run(x[:1])


@pytest.mark.parametrize(
    "out, said", [(b"", "silent"), (b"\x12\x34\0" * 5, "bytes came, but no answer .*wrong baud rate")]
)
def test_no_answer_at_all(design, out, said):
    with pytest.raises(BoardError, match=f"the port: 115200 baud: {said}"):
        open_board(design, FakeBoard(design, mangle=lambda *_: out), timeout=0.02, baud=115_200)


def test_line_that_never_stops_talking(design):
    port = FakeBoard(design)
    port.read = lambda size=1: b"\x01"
    with pytest.raises(BoardError, match="bytes came, but no answer"):
        open_board(design, port, timeout=0.01, retries=0)


def test_through_a_terminal(design, x):
    port = FakeBoard(design)
    with behind_terminal(port) as path:
        with Board(path, design, timeout=0.2) as board:
            assert board.port == path and board.baud == 1_000_000
            assert np.array_equal(board.run(x), design.spec.network(x))
            with pytest.raises(BoardError, match="in use by another program"):
                Board(path, design)
        with Board(path, design, timeout=0.2) as board:  # closed, so that it can be opened again
            assert np.array_equal(board.classify(x), design.spec.network(x).argmax(axis=1))


def test_usual_rates_are_tried(design, x, monkeypatch):
    """A board that understands one rate only."""
    rates = []

    def mangle(request, reply):
        rates.append(board_port[0].baudrate)
        return reply if board_port[0].baudrate == 3_000_000 else b"\xf0\x0f\0"

    board_port, real = [], host.open_port
    monkeypatch.setattr(host, "open_port", lambda *a: board_port.append(real(*a)) or board_port[0])
    with behind_terminal(FakeBoard(design, mangle=mangle)) as path, Board(path, design, timeout=0.2) as board:
        assert board.baud == 3_000_000 and list(dict.fromkeys(rates)) == [1_000_000, 115_200, 3_000_000]


def test_unplugged_in_mid_run(design, x):
    with behind_terminal(FakeBoard(design), gone_after=4) as path, Board(path, design, timeout=0.2) as board:
        with pytest.raises(BoardError, match=r"lost; was the board unplugged\?.*; 64 of 100 vectors were answered"):
            board.run(x)
        with pytest.raises(BoardError, match="unplugged"):
            board.counters()


def test_ports_that_cannot_be_opened(design, tmp_path, monkeypatch):
    class Found:
        device, description = "/dev/ttyUSB7", "iCEBreaker"

    monkeypatch.setattr(list_ports, "comports", lambda: [Found])
    with pytest.raises(FileNotFoundError, match=r"ttyUSB9: no such port; there are: /dev/ttyUSB7 \(iCEBreaker\)"):
        Board("/dev/ttyUSB9", design)
    monkeypatch.setattr(list_ports, "comports", list)
    with pytest.raises(FileNotFoundError, match="none; is the board plugged in"):
        Board("/dev/ttyUSB9", design)
    (tmp_path / "file").write_text("no port")
    with pytest.raises(BoardError, match="not a serial port"):
        Board(tmp_path / "file", design)

    def refuse(*args, **rest):
        raise serial.SerialException(errno.EACCES, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(PermissionError, match=r"no permission; usual cure: `sudo usermod -a -G \w+ \$USER`.*udev"):
        Board(tmp_path / "file", design)


def test_a_full_port_is_a_time_out(design):
    """A port that takes nothing: the write ends, and so do the tries."""
    master, slave = os.openpty()
    try:
        with serial.Serial(os.ttyname(slave), timeout=0.01, write_timeout=0.05) as port:
            with pytest.raises(NoAnswer, match=r"run, tries: 2 \(2 x the port took no bytes"):
                host.Link(port, "p").ask(frames.RUN, bytes(60_000), length=None, seconds=0.05, retries=1)
            with pytest.raises(BoardError, match="silent"):
                Board(port, design, timeout=0.05, retries=1)
    finally:
        os.close(master)
        os.close(slave)
