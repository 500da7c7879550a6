"""The host against a board in Python: right answers, and every way in which board or user can be wrong."""

import errno
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
from boards.host import Board, BoardError
from boards.session import measure


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
    q = design.plan.network.input
    return np.random.default_rng(3).integers(q.lo, q.hi + 1, (100, 16))


def open_board(design, port, **rest):
    return Board(port, design, **{"timeout": 0.05, "baud": 1_000_000} | rest)


def test_integers_floats_labels(design, x):
    network, port, seen = design.plan.network, FakeBoard(design), []
    with open_board(design, port) as board:
        y = board.run(x, progress=seen.append)
        assert y.dtype == np.int64 and np.array_equal(y, network(x))
        # 127 bytes of outputs hold 3 vectors
        parts = [r for r in port.requests if r.type == frames.RUN]
        assert [len(r.payload) for r in parts] == [48] * 33 + [16]
        assert [r.offset for r in parts] == [48 * n for n in range(34)]
        assert [r.number - parts[0].number for r in parts] == [*range(34)]
        assert len(seen) == 34 and seen[-1] == 1 and seen == sorted(seen)
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
    assert np.array_equal(board.run(x[:3]), design.plan.network(x[:3]))


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
    for payload, reason in ((b"", "version missing"), (b"\x03", "60 bytes")):
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
    assert board._part(bytes(128), 0, 8).seconds < 1
    board.manifest = board.manifest.model_copy(update={"interval": 1 << 40})
    assert board._part(bytes(128), 0, 8).seconds < host.LONGEST_WORK + 1


def seal(body):
    return frames.cobs.encode(bytes(body) + frames.zlib.crc32(body).to_bytes(4, "little")) + b"\0"


def test_maps_and_measure(design, x):
    """Maps with channels fastest; what is measured, against the golden model; a board that is wrong is found."""
    port = FakeBoard(design)
    with open_board(design, port) as board:
        assert np.array_equal(board.run(x.reshape(100, 1, 1, 16)), design.plan.network(x))
        with pytest.raises(ValueError, match=r"maps must have shape \(N, 1, 1, 16\), got \(100, 4, 2, 2\)"):
            board.run(x.reshape(100, 4, 2, 2))
        seen = []
        speed = measure(board, design.path, 30, seen.append)
        assert speed.right and seen[-1] == 1 and speed.cycles_per_frame == design.manifest.interval
        assert speed.frames_per_second == 12e6 / design.manifest.interval
        for count in (1, 65_536):
            with pytest.raises(ValueError, match=f"core: 2 to 65535 frames can be measured, got {count}"):
                board.measure(count)
        port.network = lambda x: design.plan.network(x) ^ 1
        assert not measure(board, design.path, 30).right
        board.manifest = board.manifest.model_copy(update={"interval": 60_000_000})
        with pytest.raises(ValueError, match="2 to 12 frames can be measured, got 13"):
            board.measure(13)


def test_numbers_that_the_core_cannot_give(design, x):
    port = FakeBoard(design)
    board = open_board(design, port)
    port.part = lambda request: b"\xff\x7f" * 16 + b"\x10"
    with pytest.raises(BoardError, match="an answer that the core cannot give: numbers of 10 bits"):
        board.run(x[:1])


@pytest.mark.parametrize(
    "out, said", [(b"", "silent"), (b"\x12\x34\0" * 5, "bytes came, but no answer .*wrong baud rate")]
)
def test_no_answer_at_all(design, out, said):
    with pytest.raises(BoardError, match=f"the port: 115200 baud: {said}"):
        open_board(design, FakeBoard(design, mangle=lambda *_: out), timeout=0.02, patience=0.1, baud=115_200)


def test_through_a_terminal(design, x):
    port = FakeBoard(design)
    with behind_terminal(port) as path:
        with Board(path, design, timeout=0.2) as board:
            assert board.port == path and board.baud == 1_000_000
            assert np.array_equal(board.run(x), design.plan.network(x))
            with pytest.raises(BoardError, match="in use by another program"):
                Board(path, design)
        with Board(path, design, timeout=0.2) as board:  # closed, so that it can be opened again
            assert np.array_equal(board.classify(x), design.plan.network(x).argmax(axis=1))


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
        with pytest.raises(BoardError, match=r"lost; was the board unplugged\?.*; 6 of 100 vectors were answered"):
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
