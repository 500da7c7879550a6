"""The host against a board in Python: right answers, and every way in which board, line or user can be wrong."""

import errno
import os
import random
import re
import time
import tracemalloc
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
from boards.host import Board, BoardError
from boards.link import Link, NoAnswer, Request


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
    for rest in ({"timeout": 0}, {"patience": 0}, {"baud": -5}):
        with pytest.raises(ValueError, match="timeout, patience and baud > 0"):
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
        {"interval": 2**32 - 1},
    ):
        with pytest.raises(BoardError, match=f"{next(iter(change))} is (Side|4294967295).* on the board"):
            open_board(design, FakeBoard(design, info=replace(info, **change)))


def test_info_that_is_none(design):
    for payload, reason in ((b"", "version missing"), (b"\x02", "58 bytes")):
        with pytest.raises(BoardError, match=f"not a board that this host knows: info: .*{reason}"):
            open_board(design, FakeBoard(design, info=payload))


class OldBoard(FakeBoard):
    """What a board of version 1 answers, written from its document: info, and `ff` to what it does not understand."""

    def write(self, data):
        for raw in data.split(b"\0"):
            body = frames.cobs.decode(raw)
            if not body:
                continue
            self.requests.append(body)
            assert frames.zlib.crc32(body[:-4]).to_bytes(4, "little") == body[-4:]
            good = body[0] == frames.INFO and body[2:-4] == b"\0\0"
            reply = b"\x01" + self.info.to_bytes()[1:] if good else b"\x02"
            head = bytes([0x81 if good else 0xFF, body[1]]) + len(reply).to_bytes(2, "little")
            self.out += seal(head + reply)


def test_boards_of_other_versions(design):
    """Plainly said, at once, and with the cure."""
    begin = time.monotonic()
    strange = FakeBoard(design, info=b"\x07" + bytes(63))
    for port, version in ((OldBoard(design), 1), (strange, 7)):
        with pytest.raises(BoardError, match=f"speaks version {version} of the link.*`bfthw build`, `bfthw flash`"):
            open_board(design, port)
        assert len(port.requests) == 1
    assert time.monotonic() - begin < 1


def test_no_claim_stretches_a_time_out(design, x):
    """A clock of 1 Hz is refused; the slowest that is not, and the slowest manifest, are waited for a minute."""
    good = FakeBoard(design).info.to_bytes()
    for at, field in ((33, "clock_hz"), (37, "baud")):
        with pytest.raises(BoardError, match=f"not a board that this host knows: info: Info.{field} must be 1"):
            open_board(design, FakeBoard(design, info=good[:at] + b"\x01\0\0\0" + good[at + 4 :]))
    port = FakeBoard(design)
    port.info = replace(port.info, clock_hz=100_000)
    board = open_board(design, port)
    assert board._request(x).seconds < 1
    board.manifest = board.manifest.model_copy(update={"interval": 1 << 40})
    assert board._request(x).seconds < host.LONGEST_WORK + 1
    # and no more than a vector at a time
    assert np.array_equal(board.run(x[:3]), design.spec.network(x[:3]))
    assert [len(r.payload) for r in port.requests if r.type == frames.RUN] == [16] * 3


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
        return frames.encode(frame.type, frame.number, change(frame.payload))

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
    "version": (alter(1, 1), "a frame of version 3"),
    "number": (alter(4, 1), "no reply in time"),
    "earlier number": (alter(4, -1), "no reply in time"),
    "number, second byte": (alter(5, 1), "no reply in time"),
    "number, last byte": (alter(7, 0x80), "no reply in time"),
    "offset": (alter(8, 1), "no reply in time"),
    "short": (lambda reply: frames.encode(frames.RUN | frames.REPLY, None, bytes(32)), "no reply in time"),
    "length": (alter(2, 1), "length is"),
    "shorter": (resize(lambda payload: payload[:-2]), "a reply of 30 bytes for 32"),
    "longer": (resize(lambda payload: payload + b"\0"), "a reply of 33 bytes for 32"),
    "empty": (resize(lambda payload: b""), "a reply of 0 bytes for 32"),
    "damaged request": (lambda reply: frames.encode(0xFF, None, b"\x05"), "the board got framing error"),
    "damaged, reason unknown": (lambda reply: frames.encode(0xFF, None, b"\x63"), "damage of unknown kind"),
    "damaged, no reason": (lambda reply: frames.encode(0xFF, None, b""), "damage of unknown kind"),
    "noise": (lambda reply: bytes(range(255, -1, -1)) * 3, "no COBS|wrong CRC|bytes or more"),
    "flood": (lambda reply: b"\x55" * 400_000, "no reply in time"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_replies(design, x, kind):
    """Never taken for right; the next right one is, and where none comes there is an error in time."""
    mangle, reason = WRONG[kind]
    left = [3]

    def sometimes(request, reply):
        if request and request.type == frames.RUN and left[0]:
            left[0] -= 1
            return mangle(reply)
        return reply

    port = FakeBoard(design, mangle=sometimes)
    board = open_board(design, port, timeout=0.01)
    assert np.array_equal(board.run(x[:1]), design.spec.network(x[:1])) and board.repeated == 3 and not left[0]
    board.patience, left[0], begin = 0.04, -1, time.monotonic()
    with pytest.raises(BoardError, match=r"no valid reply to run for 0\.\d+ s, tries: \d+ \(") as caught:
        board.run(x[:1])
    assert time.monotonic() - begin < 1
    assert re.search(reason, str(caught.value)) and "0 of 1 vectors" in str(caught.value)
    left[0] = 0
    assert np.array_equal(board.run(x[:5]), design.spec.network(x[:5]))  # and the next request is answered


@pytest.mark.parametrize("bits", range(0, 11))
def test_old_replies_are_refused(design, x, bits):
    """Before each reply comes one that is 2^bits requests older, to a question of the same kind."""
    replies, age, network = [], 1 << bits, design.spec.network

    def mangle(request, reply):
        replies.append(reply)
        return b"".join(replies[-1 - age : -age]) + reply

    board = open_board(design, FakeBoard(design, mangle=mangle))
    for n in range(age + 3):
        vector = x[n % 97 : n % 97 + 1]
        assert np.array_equal(board.run(vector), network(vector)), n
    assert board.repeated == 0


def test_numbers_start_anywhere_and_go_round(design, x):
    """Every bit counts, and two hosts do not start alike."""
    first = [FakeBoard(design) for _ in range(2)]
    for port in first:
        open_board(design, port)
    assert first[0].requests[-1].number != first[1].requests[-1].number
    port = FakeBoard(design)
    board = open_board(design, port)
    board._link._number = 2**32 - 2
    for n in range(3):
        assert np.array_equal(board.run(x[n : n + 1]), design.spec.network(x[n : n + 1]))
    assert [r.number for r in port.requests[-3:]] == [2**32 - 1, 0, 1]
    for bit in range(32):
        port.mangle = lambda request, reply, bit=bit: old(reply, bit) + reply
        assert np.array_equal(board.run(x[bit : bit + 1]), design.spec.network(x[bit : bit + 1]))
    assert board.repeated == 0


def old(reply, bit):
    """A reply that is wrong, under a number that differs in a bit."""
    frame = frames.decode(reply)
    return frames.encode(frame.type, frame.number ^ 1 << bit, bytes(len(frame.payload)))


def test_late_and_repeated_replies_are_passed_over(design, x):
    """Each reply comes behind the two before it, and twice."""
    late = []

    def mangle(request, reply):
        late.append(reply)
        return b"".join(late[-3:]) + reply

    with open_board(design, FakeBoard(design, mangle=mangle)) as board:
        for n in range(90):
            assert np.array_equal(board.run(x[n % 90 : n % 90 + 2]), design.spec.network(x[n % 90 : n % 90 + 2]))
        assert board.repeated == 0


def test_a_reply_in_drops(design, x):
    """Slower than the time-out all in all, but never silent for so long; one that never ends is given up."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.1)
    whole = port.read

    def drop(size=1):
        time.sleep(0.06)
        return whole(12)

    port.read = drop
    assert np.array_equal(board.run(x[:4]), design.spec.network(x[:4])) and board.repeated == 0
    port.mangle, board.patience = lambda request, reply: reply[:-1] * 20, 0.8
    begin = time.monotonic()
    with pytest.raises(BoardError, match=r"\d x no reply in time"):
        board.run(x[:4])
    assert 0.7 < time.monotonic() - begin < 1.8


def test_a_reply_after_a_long_read(design, x):
    """Reads that take as long as the time-out: what waits then is read, and the rest of the reply is waited for."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.03)
    whole, sizes = port.read, [0, 5, 1000]

    def read(size=1):
        time.sleep(0.035)
        return whole(sizes.pop(0))

    port.read = read
    assert np.array_equal(board.run(x[:4]), design.spec.network(x[:4])) and board.repeated == 0


def test_a_lost_end_costs_no_silence(design, x):
    """Behind the zero that ends a request is another."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=5)
    whole, begin = port.write, time.monotonic()

    def write(data):
        port.write, end = whole, len(data.rstrip(b"\0"))
        whole(data[:end] + b"\1" + data[end + 1 :])

    port.write = write
    assert np.array_equal(board.run(x[:4]), design.spec.network(x[:4]))
    assert board.repeated == 1 and time.monotonic() - begin < 2


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
        open_board(design, FakeBoard(design, mangle=lambda *_: out), timeout=0.02, patience=0.1, baud=115_200)


def test_line_that_never_stops_talking(design):
    port = FakeBoard(design)
    port.read = lambda size=1: b"\x01"
    with pytest.raises(BoardError, match="bytes came, but no answer"):
        open_board(design, port, timeout=0.01, patience=0.1)


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
    with behind_terminal(FakeBoard(design, mangle=mangle)) as path, Board(path, design, patience=0.3) as board:
        assert board.baud == 3_000_000 and list(dict.fromkeys(rates)) == [1_000_000, 115_200, 3_000_000]


def test_unplugged_in_mid_run(design, x):
    with behind_terminal(FakeBoard(design), gone_after=5) as path, Board(path, design, timeout=0.2) as board:
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
            request = Request(type=frames.RUN, payload=bytes(60_000), length=None, seconds=0.05)
            with pytest.raises(NoAnswer, match=r"run for 0\.\d+ s, tries: \d \(\d x the port took no bytes"):
                Link(port, "p").ask(lambda _: request, timeout=0.05, patience=0.1)
            with pytest.raises(BoardError, match="silent"):
                Board(port, design, timeout=0.05, patience=0.1)
    finally:
        os.close(master)
        os.close(slave)


def hostile(rng, request, reply):
    """What a board that means harm, or a broken one, may say."""
    number, sort = request.number if request else 0, rng.randrange(9)
    if sort == 0:
        return rng.randbytes(rng.randrange(3000))
    if sort == 1:
        return b"\0" * rng.randrange(3000)
    if sort == 2:
        return rng.randbytes(1) * rng.randrange(100_000)
    if sort == 3:
        return frames.encode(rng.randrange(256), number, rng.randbytes(rng.randrange(100)))
    if sort == 4:
        return frames.encode(frames.DAMAGED, None, rng.randbytes(rng.randrange(3))) * rng.randrange(1, 50)
    if sort == 5:
        return frames.encode(reply[1] if reply else 1, None, rng.randbytes(rng.randrange(100)))
    if sort == 6:
        return seal(rng.randbytes(rng.randrange(40)))
    if sort == 7:
        return frames.encode(frames.RUN | frames.REPLY, rng.randrange(1 << 32), bytes(32)) * 20
    return reply[: rng.randrange(len(reply))]


class Flood(FakeBoard):
    flooding = False

    @property
    def in_waiting(self):
        return 1 << 40 if self.flooding else len(self.out)

    def read(self, size=1):
        assert size <= 1 << 16
        return bytes([5, 1, 1, 1, 1, 0]) * (size // 6 + 1) if self.flooding else super().read(size)


@pytest.mark.parametrize("seed", range(3))
def test_hostile_replies(design, x, seed):
    """The right answer or an error, in time, and within little memory."""
    rng, wanted, errors = random.Random(seed), design.spec.network(x), 0
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.005, patience=0.05)
    port.mangle = lambda request, reply: hostile(rng, request, reply) if rng.random() < 0.8 else reply
    tracemalloc.start()
    try:
        for n in range(60):
            begin = time.monotonic()
            try:
                assert np.array_equal(board.run(x[n : n + 1]), wanted[n : n + 1])
            except BoardError as error:
                errors += 1
                assert len(str(error)) < 500
            assert time.monotonic() - begin < 3
        assert errors < 60 and tracemalloc.get_traced_memory()[1] < 4 << 20
        # a flood that never ends, whatever the line says that it holds
        board = open_board(design, Flood(design), timeout=0.005, patience=0.05)
        board._line.flooding, begin = True, time.monotonic()
        with pytest.raises(BoardError, match="no valid reply to run"):
            board.run(x)
        assert time.monotonic() - begin < 3 and tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_line_that_dies(design, x):
    """How many vectors were answered; twice as long a silence after each, and half as many vectors a request."""
    port = FakeBoard(design)
    port.mangle = lambda request, reply: b"" if len(port.requests) > 4 else reply
    board = open_board(design, port, timeout=0.02, patience=0.5)
    with pytest.raises(BoardError, match=r"run for 0\.\d+ s, tries: \d+ \(\d+ x no reply in time\); 64 of 100 vectors"):
        board.run(x)
    sizes = [len(r.payload) // 16 for r in port.requests if r.type == frames.RUN]
    assert sizes[:5] == [32, 32, 32, 16, 8] and len(sizes) < 9
    # each with a number of its own
    assert len({r.number for r in port.requests}) == len(port.requests)


def test_requests_grow_again(design, x):
    """After one that failed, one vector more with each."""
    port = FakeBoard(design)
    port.mangle = lambda request, reply: b"\5" + reply if len(port.requests) in (3, 4) else reply
    board = open_board(design, port, timeout=0.01)
    assert np.array_equal(board.run(x), design.spec.network(x)) and board.repeated == 2
    sizes = [len(r.payload) // 16 for r in port.requests if r.type == frames.RUN]
    assert sizes == [32, 16, 8, 8, 9, 10, 11, 12, 13, 14, 15]
