"""The link against a board in Python: every way in which line or board can be wrong, and what it costs."""

import os
import random
import re
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import serial
from fake_board import FakeBoard
from test_host import make, open_board, seal

import bfthw
import rtl_gen
from bfthw.chain import bft
from boards import frames
from boards.host import Board, BoardError
from boards.link import Link, NoAnswer, Request


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    return make(tmp_path_factory.mktemp("link"), "core", 1)


@pytest.fixture
def x(design):
    q = design.plan.network.input
    return np.random.default_rng(3).integers(q.lo, q.hi + 1, (100, 16))


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


WRONG = {
    "nothing": (lambda reply: b"", "no reply in time"),
    "no end": (lambda reply: reply[:-1], "no reply in time"),
    "wrong CRC": (lambda reply: reply[:-2] + bytes([reply[-2] % 255 + 1, 0]), "wrong CRC|no COBS"),
    "cut": (lambda reply: reply[:-20] + b"\0", "no COBS|wrong CRC"),
    "half": (lambda reply: reply[: len(reply) // 2], "no reply in time"),
    "type": (alter(0, 1), "no reply in time"),
    "a request's type": (alter(0, 0x80), "no reply in time"),
    "version": (alter(1, 1), "a frame of version 4"),
    "number": (alter(4, 1), "no reply in time"),
    "earlier number": (alter(4, -1), "no reply in time"),
    "number, second byte": (alter(5, 1), "no reply in time"),
    "number, last byte": (alter(7, 0x80), "no reply in time"),
    "offset": (alter(8, 1), "no reply in time"),
    "short": (lambda reply: frames.encode(frames.RUN | frames.REPLY, None, bytes(32)), "no reply in time"),
    "length": (alter(2, 1), "length is"),
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
    assert np.array_equal(board.run(x[:1]), design.plan.network(x[:1])) and board.repeated == 3 and not left[0]
    board.patience, left[0], begin = 0.04, -1, time.monotonic()
    with pytest.raises(BoardError, match=r"no valid reply to run for 0\.\d+ s, tries: \d+ \(") as caught:
        board.run(x[:1])
    assert time.monotonic() - begin < 1
    assert re.search(reason, str(caught.value)) and "0 of 1 vectors" in str(caught.value)
    left[0] = 0
    assert np.array_equal(board.run(x[:5]), design.plan.network(x[:5]))  # and the next request is answered


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda payload: payload[2:], "30 bytes of outputs, 32 to 32 are possible"),
        (lambda payload: b"\0" + payload, "33 bytes of outputs"),
        (lambda payload: b"", "a reply of 0 bytes that took 0 of 16"),
        (lambda payload: payload[:-1] + b"\x0f", "a reply of 33 bytes that took 15 of 16"),
        (lambda payload: payload[:-1] + b"\x11", "a reply of 33 bytes that took 17 of 16"),
        (lambda payload: b"\0", "a reply of 1 bytes that took 0 of 16"),
    ],
    ids=["shorter", "longer", "empty", "less taken", "more taken", "nothing"],
)
def test_replies_that_no_core_gives(design, x, change, reason):
    """Whole, with a CRC that is right, and impossible: said at once."""
    def mangle(request, reply):
        return resize(change)(reply) if request and request.type == frames.RUN else reply

    with pytest.raises(BoardError, match=f"an answer that the core cannot give: {reason}"):
        open_board(design, FakeBoard(design, mangle=mangle)).run(x[:1])


def test_lengths_of_other_replies(design):
    board = open_board(design, FakeBoard(design, mangle=None), timeout=0.01, patience=0.05)
    board._line.mangle = lambda request, reply: resize(lambda payload: payload + b"\0")(reply)
    with pytest.raises(BoardError, match="to counters .* a reply of 25 bytes for 24"):
        board.counters()


@pytest.mark.parametrize("bits", range(0, 11))
def test_old_replies_are_refused(design, x, bits):
    """Before each reply comes one that is 2^bits requests older, to a question of the same kind."""
    replies, age, network = [], 1 << bits, design.plan.network

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
        assert np.array_equal(board.run(x[n : n + 1]), design.plan.network(x[n : n + 1]))
    assert [r.number for r in port.requests[-3:]] == [2**32 - 1, 0, 1]
    for bit in range(32):
        port.mangle = lambda request, reply, bit=bit: old(reply, bit) + reply
        assert np.array_equal(board.run(x[bit : bit + 1]), design.plan.network(x[bit : bit + 1]))
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
            assert np.array_equal(board.run(x[n % 90 : n % 90 + 2]), design.plan.network(x[n % 90 : n % 90 + 2]))
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
    assert np.array_equal(board.run(x[:4]), design.plan.network(x[:4])) and board.repeated == 0
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
    assert np.array_equal(board.run(x[:4]), design.plan.network(x[:4])) and board.repeated == 0


def test_a_lost_end_costs_no_silence(design, x):
    """Behind the zero that ends a request is another."""
    port = FakeBoard(design)
    board = open_board(design, port, timeout=5)
    whole, begin = port.write, time.monotonic()

    def write(data):
        port.write, end = whole, len(data.rstrip(b"\0"))
        whole(data[:end] + b"\1" + data[end + 1 :])

    port.write = write
    assert np.array_equal(board.run(x[:4]), design.plan.network(x[:4]))
    assert board.repeated == 1 and time.monotonic() - begin < 2


def test_half_a_frame_of_an_earlier_host(design, x):
    """The first thing sent is a zero, which ends it."""
    port = FakeBoard(design)
    port.write(frames.encode(frames.RUN, 1, bytes(64))[:30])
    with open_board(design, port) as board:
        assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0


def test_line_that_never_stops_talking(design):
    port = FakeBoard(design)
    port.read = lambda size=1: b"\x01"
    with pytest.raises(BoardError, match="bytes came, but no answer"):
        open_board(design, port, timeout=0.01, patience=0.1)


def test_a_full_port_is_a_time_out(design):
    """A port that takes nothing: the write ends, and so do the tries."""
    master, slave = os.openpty()
    try:
        with serial.Serial(os.ttyname(slave), timeout=0.01, write_timeout=0.05) as port:
            request = Request(type=frames.RUN, payload=bytes(60_000), seconds=0.05)
            with pytest.raises(NoAnswer, match=r"run for 0\.\d+ s, tries: \d \(\d x the port took no bytes"):
                Link(port, "p").ask(request, timeout=0.05, patience=0.1)
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
    rng, wanted, errors = random.Random(seed), design.plan.network(x), 0
    port = FakeBoard(design)
    board = open_board(design, port, timeout=0.005, patience=0.05)
    port.mangle = lambda request, reply: hostile(rng, request, reply) if rng.random() < 0.8 else reply
    tracemalloc.start()
    try:
        for n in range(60):
            begin = time.process_time()
            try:
                assert np.array_equal(board.run(x[n : n + 1]), wanted[n : n + 1])
            except BoardError as error:
                errors += 1
                assert len(str(error)) < 500
            assert time.process_time() - begin < 3
        assert errors < 60 and tracemalloc.get_traced_memory()[1] < 4 << 20
        # a flood that never ends, whatever the line says that it holds
        board = open_board(design, Flood(design), timeout=0.005, patience=0.05)
        board._line.flooding, begin = True, time.process_time()
        with pytest.raises(BoardError, match="no valid reply to run"):
            board.run(x)
        assert time.process_time() - begin < 3 and tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_line_that_dies(design, x):
    """How many vectors were answered; all that waits is sent again, after twice as long a silence each time."""
    port, times = FakeBoard(design), []
    port.mangle = lambda request, reply: times.append(time.monotonic()) or (b"" if len(port.requests) > 4 else reply)
    board = open_board(design, port, timeout=0.02, patience=0.5)
    with pytest.raises(BoardError, match=r"run for 0\.\d+ s, tries: \d+ \(\d+ x no reply in time\); 6 of 100 vectors"):
        board.run(x)
    numbers = [r.number for r in port.requests if r.type == frames.RUN]
    first = numbers[0]
    assert [n - first for n in numbers[:10]] == [0, 1, 2, 3, 2, 3, 2, 3, 2, 3] and len(numbers) < 15
    gaps = np.diff(times[-len(numbers) :])[3::2]
    assert all(0.019 * 2**n < gap < 0.1 + 0.02 * 2**n for n, gap in enumerate(gaps[:3]))


def test_parts_shrink_and_grow_again(design, x):
    """Half as long after each that failed, eight bytes longer after each other."""
    port, seen = FakeBoard(design), []

    def mangle(request, reply):
        new = request and request.number not in seen
        seen.append(request and request.number)
        return b"\5" + reply if new and 3 < len({*seen}) < 9 else reply

    port.mangle = mangle
    board = open_board(design, port, timeout=0.01)
    assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated >= 3
    sizes = [len(r.payload) for n, r in enumerate(port.requests) if r not in port.requests[:n] and r.type == frames.RUN]
    assert sizes[0] == max(sizes[-5:]) == 48 and min(sizes[:-1]) == 16, sizes


def test_two_parts_are_on_their_way(design, x):
    """The third goes when the first is answered."""
    port, out = FakeBoard(design), []
    port.mangle = lambda request, reply: out.append(len(port.requests)) or reply
    board, whole, held = open_board(design, port), port.read, []
    port.read = lambda size=1: held.append(len([r for r in port.requests if r.type == frames.RUN])) or whole(50)
    board.run(x[:12])  # three vectors a part
    assert [*dict.fromkeys(held)] == [2, 3, 4]


@pytest.mark.parametrize("seed", range(4))
def test_a_board_that_loses_its_runs(design, x, seed):
    """Reset in the middle, now and then: the host begins again where answers end. One that always does is given up."""
    rng, port = random.Random(seed), FakeBoard(design)
    board, part = open_board(design, port), port.part

    def forgets(request):
        if rng.random() < rate:
            port.reset()
        return part(request)

    port.part, rate = forgets, 0.3
    assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0
    begun = [r for r in port.requests if r.type == frames.RUN and r.offset == 0]
    assert len(begun) > 3 and len({r.number for r in begun}) == len(begun)
    board._part = lambda payload, offset, inside: replace(Board._part(board, payload, offset, inside), offset=1)
    rate = 1
    with pytest.raises(BoardError, match=r"the board has lost what it was sent; was it reset\?; 0 of 100 vectors"):
        board.run(x)


def test_an_older_part_is_never_taken_for_the_next(design, x):
    """Every frame goes over the line twice, and each pair as well."""
    port = FakeBoard(design)
    board, whole, port.fed = open_board(design, port), port.write, 0
    port.write = lambda data: [whole(data) for _ in range(2)] + [whole(data)]
    assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0


def test_outputs_longer_than_a_reply(tmp_path):
    """One part on its way; empty ones get the rest, and a board that takes a part in part gets its rest again."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(256, 4), seed=1), name="a")
    design = rtl_gen.write(bfthw.compile(bfthw.Network(layers=(layer,))), tmp_path, name="long")
    x = np.random.default_rng(1).integers(-128, 128, (3, 256))
    port = FakeBoard(design)
    part, port.part = port.part, lambda request: part(replace(request, payload=request.payload[:100]))
    with open_board(design, port) as board:
        assert np.array_equal(board.run(x), design.plan.network(x)) and board.repeated == 0
    sizes = [len(r.payload) for r in port.requests if r.type == frames.RUN]
    fetched = -(-design.manifest.output.elements * design.manifest.output.lane_bytes // frames.OUTPUTS) - 1
    assert sizes == ([128, 128, 56] + [0] * fetched) * 3
