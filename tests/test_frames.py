"""Frames of docs/link.md: there and back, the document's own example, and damage that is never taken for a frame."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from document_facts import worked_example
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bfthw import QFormat
from boards import frames, generator
from boards.frames import Counters, Damage, Frame, Info, Side, Splitter
from boards.parts import MORE, SMALLEST
from boards.receiver import WAITING

LINK = (Path(__file__).resolve().parent.parent / "docs" / "link.md").read_text(encoding="utf-8")
INFO = Info(
    configuration="0123456789abcdef" * 4,
    clock_hz=12_000_000,
    baud=1_000_000,
    interval=640,
    name="digits",
    input=Side(elements=64, lane_bytes=1, width=8, frac=6),
    output=Side(elements=10, lane_bytes=2, width=10, frac=-5),
)
NUMBER = 0xC0FFEE2A  # of the document's example
payloads = st.one_of(
    st.binary(max_size=600), st.integers(0, 520).map(bytes), st.integers(0, 520).map(lambda n: b"\xff" * n)
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 255), st.integers(0, 2**32 - 1), payloads, st.integers(0, 2**32 - 1))
@example(2, 0x01010101, b"\x01" * 238, 0x01010101)  # a body of 254 bytes without a zero, the longest block
def test_round_trip(type, number, payload, offset):
    wire = frames.encode(type, number, payload, offset=offset)
    assert wire.endswith(b"\0") and wire.count(0) == 1 and len(wire) <= frames.wire_bytes(len(payload))
    frame = Frame(type=type, number=number, payload=payload, offset=offset)
    assert frames.decode(wire) == frames.decode(wire[:-1]) == frame
    wire = frames.encode(type, None, payload)
    assert wire.endswith(b"\0") and wire.count(0) == 1 and len(wire) <= frames.wire_bytes(len(payload)) - 7
    frame = Frame(type=type, number=None, payload=payload)
    assert frames.decode(wire) == frames.decode(wire[:-1]) == frame


def test_example_of_the_document():
    """The bytes that docs/link.md shows are those of the core that docs/manifest.md works out."""
    rows = dict(re.findall(r"^ +(request, body|reply, body|on the wire) +((?:[0-9a-f]{2} ?)+)$", LINK, re.MULTILINE))
    wires = [bytes.fromhex(row) for row in re.findall(r"^ +on the wire +((?:[0-9a-f]{2} ?)+)$", LINK, re.MULTILINE)]
    x = np.array([[10, 7], [-10, 7]])
    y = worked_example()(x)
    assert all(str(v.tolist()) in LINK for v in (*x, *y))
    side = Side(elements=2, lane_bytes=1, width=8, frac=4)
    for wire, body, type, q, taken in zip(
        wires, ("request, body", "reply, body"), (frames.RUN, frames.RUN | frames.REPLY), (x, y), (b"", b"\4")
    ):
        assert frames.encode(type, NUMBER, side.pack(q) + taken) == wire
        frame = frames.decode(wire)
        assert (frame.type, frame.number, frame.offset) == (type, NUMBER, 0)
        assert np.array_equal(side.unpack(frame.payload[:4]), q)
        head, crc = bytes.fromhex(rows[body])[:-4], bytes.fromhex(rows[body])[-4:]
        number = NUMBER.to_bytes(4, "little")
        assert head == bytes([type, 3, len(frame.payload), 0, *number, 0, 0, 0, 0]) + frame.payload
        assert crc == frames.zlib.crc32(head).to_bytes(4, "little")
    assert len(wires) == 2 and f"number 0x{NUMBER:08X}" in LINK


def test_constants_of_the_document():
    for number, name in (
        (frames.INFO, "info"),
        (frames.RUN, "run"),
        (frames.COUNTERS, "counters"),
        (frames.RESET, "reset"),
        (frames.MEASURE, "measure"),
    ):
        assert f"| `{number:02x}` {name} |" in LINK
    for number, word in (
        (1, "CRC is wrong"),
        (2, "length"),
        (3, "unknown type"),
        (4, "longer than"),
        (5, "framing error"),
        (6, "offset that is not zero"),
    ):
        assert re.search(rf"\b{number} [^,]*{word}", LINK.replace("\n", " "))
        assert word.split()[0].lower() in frames.REASONS[number].lower()
    assert frames.REASONS.keys() == {1, 2, 3, 4, 5, 6}
    assert f"reply `{frames.REFUSED:02x}`" in LINK and f"reply `{frames.DAMAGED:02x}`" in LINK
    for text in ("0 to 128 bytes", "0 to 127 bytes", "latest two parts", "512 bytes wait", "16 bytes at least"):
        assert text in LINK.replace("\n", " ")
    assert (frames.PART, frames.OUTPUTS, frames.WINDOW, WAITING, SMALLEST, MORE) == (128, 127, 2, 512, 16, 8)


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_never_taken_for_a_frame(seed):
    rng = np.random.default_rng(seed)
    for n in range(1500):
        wire = frames.encode(
            2, int(rng.integers(1 << 32)), rng.integers(0, 256 if n % 2 else 3, rng.integers(1, 80)).astype(np.uint8)
        )
        damaged = bytearray(wire[:-1])
        at, kind = int(rng.integers(len(damaged))), n % 5
        if kind == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del damaged[at]
        elif kind == 2:
            damaged.insert(at, damaged[at])
        elif kind == 3:
            del damaged[at:]
        else:
            damaged[at] = int(rng.integers(256))
        found = list(Splitter().feed(bytes(damaged) + b"\0"))
        # bytes may be swapped for their equals: then nothing was damaged
        assert bytes(damaged) == wire[:-1] or not any(isinstance(item, Frame) for item in found)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_noise_raises_nothing_else(noise):
    items = list(Splitter(40).feed(noise))
    assert all(isinstance(item, Damage) for item in items) and len(items) <= noise.count(0)
    with pytest.raises(ValueError):
        frames.decode(noise)


def test_reasons_of_damage():
    wire = frames.encode(1, 2, b"abc")
    for data, reason in (
        (b"", "8 bytes or more, got 0"),
        (b"\x05ab\0", "no COBS"),
        (b"\x04abc\0", "got 3"),
        (wire[:-3] + b"x" + wire[-2:], "wrong CRC"),
    ):
        with pytest.raises(ValueError, match=reason):
            frames.decode(data)
    rest = b"\x09\0\0\0\0\0\0\0"
    for body, reason in (
        (b"\x01\x03\x05\0" + rest + b"abc", "length is 5, the payload has 3 bytes"),
        (b"\x01\x03\x05\0abc", "length is 5, the payload has 0 bytes"),
        (b"\x01\x04\x03\0" + rest + b"abc", "a frame of version 4, this host speaks 3"),
    ):
        with pytest.raises(ValueError, match=reason):
            frames.decode(sealed(body))
    # a short frame, whose version nobody looks at
    assert frames.decode(sealed(b"\x01\x77\x03\0abc")) == Frame(type=1, number=None, payload=b"abc")


def sealed(body):
    return frames.cobs.encode(body + frames.zlib.crc32(body).to_bytes(4, "little")) + b"\0"


def test_what_no_frame_holds():
    for arguments, reason in (
        ((256, 0), "type must be 0 to 255"),
        ((1, -1), "number"),
        ((1, 1 << 32), "number must be 0 to 4294967295"),
        ((1, 1, bytes(65536)), "65535 bytes"),
    ):
        with pytest.raises(ValueError, match=reason):
            frames.encode(*arguments)
    for number, offset, reason in ((1, -1, "offset"), (1, 1 << 32, "offset"), (None, 1, "offset must be 0 to 0")):
        with pytest.raises(ValueError, match=reason):
            frames.encode(1, number, offset=offset)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_splitter_in_any_chunks(size):
    wanted = [Frame(type=1, number=n << 27, payload=bytes([n, 0, 1] * n)) for n in range(30)]
    stream = b"\0".join(frames.encode(f.type, f.number, f.payload) for f in wanted) + b"\0\0"
    splitter = Splitter()
    got = [item for at in range(0, len(stream), size) for item in splitter.feed(stream[at : at + size])]
    assert got == wanted


def test_splitter_keeps_little_and_goes_on():
    splitter = Splitter(longest=16)
    for _ in range(200):
        assert not list(splitter.feed(b"\x55" * 1000)) and len(splitter._held) <= frames.wire_bytes(16)
    fitting = frames.encode(3, 9, bytes(16))
    assert [type(item) for item in splitter.feed(b"\0" + fitting)] == [Damage, Frame]
    assert [type(item) for item in splitter.feed(frames.encode(3, 9, bytes(17 + 1)) + fitting)] == [Damage, Frame]


def test_info_there_and_back():
    assert Info.parse(INFO.to_bytes()) == INFO
    longest = replace(INFO, name="n" * 64)
    assert Info.parse(longest.to_bytes()) == longest and len(longest.to_bytes()) == frames.LONGEST_INFO
    large = replace(INFO, input=replace(INFO.input, elements=96 * 96 * 3 << 8))
    assert Info.parse(large.to_bytes()) == large


def test_info_of_strangers():
    good = INFO.to_bytes()
    name_at = len(good) - len("digits")
    for payload, reason in (
        (b"", "version missing"),
        (b"\x01" + good[1:], "version 1 of the link, this host speaks 3"),
        (good[:40], "60 bytes and a name, got 40"),
        (good[:-1], "must have 66 bytes, got 65"),
        (good + b"x", "got 67"),
        (good[:name_at] + b"dig\nts", "printable"),
        (good[:name_at] + b"dig\xe9ts", "printable"),
        (good[: name_at - 1] + b"\0", "1 to 64 printable"),
        (good[:33] + bytes(4) + good[37:], "clock_hz must be 100000"),
        (good[:33] + b"\x01\0\0\0" + good[37:], "clock_hz must be 100000 to 1000000000, got 1$"),
        (good[:33] + b"\xff" * 4 + good[37:], "clock_hz must be 100000 to 1000000000, got 4294967295"),
        (good[:37] + b"\x01\0\0\0" + good[41:], "baud must be 1200"),
        (good[:41] + bytes(4) + good[45:], "elements"),
        (good[:45] + b"\x02" + good[46:], "lane_bytes must be 1 for 8 bits"),
        (good[:46] + b"\x3f" + good[47:], "width must be 1 to 62"),
    ):
        with pytest.raises(ValueError, match=reason):
            Info.parse(payload)
    for n in range(len(good)):
        with pytest.raises(ValueError):
            Info.parse(good[:n])


def test_info_that_the_link_cannot_say():
    for change, reason in (
        ({"configuration": "12"}, "64 hexadecimal"),
        ({"name": ""}, "name"),
        ({"clock_hz": 1 << 32}, "clock_hz"),
        ({"baud": 0}, "baud"),
    ):
        with pytest.raises(ValueError, match=reason):
            replace(INFO, **change)
    with pytest.raises(ValueError, match="frac must be -128 to 127, got 200"):
        replace(INFO.input, frac=200)


@pytest.mark.parametrize("signed", [True, False])
def test_measured_frames_are_the_documents(signed, monkeypatch):
    """In blocks of any size the same, a bit at a time; 12 bits of two bytes."""
    assert "s[n] = s[n-31] xor s[n-28]" in LINK and "31 low bits of 0x42465421" in LINK
    side, count = Side(elements=5, lane_bytes=2, width=12, frac=0, signed=signed), 300
    bits = [0x42465421 >> n & 1 for n in range(31)]
    while len(bits) < count * 5 * 16:
        bits.append(bits[-31] ^ bits[-28])
    x = (np.array(bits[: count * 80]).reshape(-1, 16)[:, :12] << np.arange(12)).sum(axis=1)
    x = (x - (x >= 2048) * 4096 if signed else x).reshape(count, 5)
    for room in (1, 37, 1 << 18):
        monkeypatch.setattr(generator, "AT_ONCE", room)
        assert np.array_equal(np.concatenate([*generator.generated(count, side)]), x)


def test_counters():
    counters = Counters(answered=1, wrong_crc=2, framing=3, too_long=4, saturated=5, busy=0xFFFFFFFF)
    assert Counters.parse(counters.to_bytes()) == counters and len(counters.to_bytes()) == 24
    with pytest.raises(ValueError, match="24 bytes, got 23"):
        Counters.parse(counters.to_bytes()[1:])


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 16, 17, 24, 33, 62])
@pytest.mark.parametrize("signed", [True, False])
def test_elements_as_in_tdata(width, signed):
    """Each element extended to whole bytes, little-endian; a number that the format does not hold is refused."""
    q = QFormat(width, 0, signed)
    side = Side(elements=3, lane_bytes=(width + 7) // 8, width=width, frac=0, signed=signed)
    assert Side.of_numbers(*side.to_numbers()) == side
    x = np.array([[q.lo, q.hi, 0], [-1 if signed else 1, q.lo // 2, q.hi // 2]])
    data = side.pack(x)
    assert data == b"".join(int(v).to_bytes(side.lane_bytes, "little", signed=signed) for v in x.ravel())
    assert np.array_equal(side.unpack(data), x) and side.unpack(data).dtype == np.int64
    if width % 8:
        with pytest.raises(ValueError, match=f"numbers of {width} bits"):
            side.unpack((q.hi + 1).to_bytes(side.lane_bytes, "little") * 3)
