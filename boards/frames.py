"""Frames between host and board, as docs/link.md has them: bytes of the wire to checked values and back.

What comes from a line comes from strangers: nothing here trusts a length or keeps more than it was told to.
"""

import struct
import zlib
from dataclasses import astuple, dataclass, fields
from typing import ClassVar

import numpy as np
from cobs import cobs

from bfthw import QFormat
from bfthw.reading import owned
from rtl_gen import vectors

VERSION = 3

# requests
INFO, RUN, COUNTERS, RESET, MEASURE = 0x01, 0x02, 0x03, 0x04, 0x05
REPLY = 0x80  # bit of a reply's type
UNSIGNED = 0x80  # bit beside a width: there is no sign
DAMAGED = 0xFF  # type of the reply to a damaged request
REFUSED = 0xFE  # to a part that is not the next one
# its payload, the reason
WRONG_CRC, WRONG_LENGTH, UNKNOWN_TYPE, TOO_LONG, FRAMING, WRONG_OFFSET = 1, 2, 3, 4, 5, 6
REASONS = {
    WRONG_CRC: "wrong CRC", WRONG_LENGTH: "wrong length", UNKNOWN_TYPE: "unknown type",
    TOO_LONG: "longer than a part", FRAMING: "framing error on the line", WRONG_OFFSET: "offset that is not zero",
}

END = b"\0"
HEAD = struct.Struct("<BBH")  # type, version, length; all there is of a short frame
REST = struct.Struct("<II")  # number, offset
CRC = struct.Struct("<I")
SHORT = HEAD.size + CRC.size  # bytes of a short frame's body beside the payload
OVERHEAD = SHORT + REST.size  # of any other's
NUMBERS = 1 << 32  # of requests, then they come again
PART = 128  # bytes of a part, at most, and of a reply
OUTPUTS = PART - 1  # of those, outputs; the last one says how much of the part was taken
WINDOW = 2  # parts whose replies a board keeps
LONGEST_PAYLOAD = 0xFFFF
LONGEST_INFO = 60 + 64  # bytes: its numbers and the longest name


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame that arrived whole, or is to be sent. number: of the request, None in a short frame.

    ValueError for what its fields cannot hold.
    """

    type: int
    number: int | None
    payload: bytes = b""
    offset: int = 0

    _LIMITS: ClassVar = {"type": (0, 0xFF), "number": (0, NUMBERS - 1), "offset": (0, NUMBERS - 1)}

    def __post_init__(self):
        short = self.number is None
        _check_limits(self, {"type": (0, 0xFF), "offset": (0, 0)} if short else self._LIMITS)
        if len(self.payload) > LONGEST_PAYLOAD:
            raise ValueError(f"Frame.payload must have {LONGEST_PAYLOAD} bytes or less, got {len(self.payload)}")


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that came instead of a frame."""

    reason: str


def encode(type, number, payload=b"", *, offset=0):
    """The bytes of a frame on the wire, its ending zero included; ValueError for what its fields cannot hold."""
    frame = Frame(type=type, number=number, payload=bytes(payload), offset=offset)
    rest = b"" if frame.number is None else REST.pack(frame.number, frame.offset)
    body = HEAD.pack(frame.type, VERSION, len(frame.payload)) + rest + frame.payload
    return cobs.encode(body + CRC.pack(zlib.crc32(body))) + END


def decode(data):
    """The Frame that the bytes between two zeros of the wire stand for; the zero that ends them may be there or not.

    ValueError, with the reason, for anything that `encode` would not have made, but for a short frame's version.
    """
    with owned("no COBS", cobs.DecodeError, ValueError):
        body = cobs.decode(bytes(data).removesuffix(END))
    if len(body) < SHORT:
        raise ValueError(f"a frame has {SHORT} bytes or more, got {len(body)}")
    (crc,) = CRC.unpack(body[-CRC.size :])
    if crc != zlib.crc32(body[: -CRC.size]):
        raise ValueError("wrong CRC")
    type, version, length = HEAD.unpack_from(body)
    if length == len(body) - SHORT:
        return Frame(type=type, number=None, payload=body[HEAD.size : -CRC.size])
    if length != len(body) - OVERHEAD:
        raise ValueError(f"length is {length}, the payload has {max(0, len(body) - OVERHEAD)} bytes")
    if version != VERSION:
        raise ValueError(f"a frame of version {version}, this host speaks {VERSION}")
    number, offset = REST.unpack_from(body, HEAD.size)
    return Frame(type=type, number=number, payload=body[HEAD.size + REST.size : -CRC.size], offset=offset)


def wire_bytes(payload):
    """Bytes on the wire, at most, of a frame with so many bytes of payload."""
    body = OVERHEAD + payload
    return body + -(-body // 254) + 1


class Splitter:
    """Cuts a stream of bytes at its zeros. It keeps one frame of up to `longest` bytes of payload, and no more."""

    def __init__(self, longest=LONGEST_PAYLOAD):
        self._room = wire_bytes(longest) - 1
        self._held = bytearray()
        self._too_long = False

    def feed(self, chunk):
        """Yield a Frame or a Damage for each zero in the chunk that ends something."""
        *ended, rest = bytes(chunk).split(END)
        for part in ended:
            self._hold(part)
            held, too_long = bytes(self._held), self._too_long
            self._held.clear()
            self._too_long = False
            if too_long:
                yield Damage(reason=f"longer than {self._room} bytes")
            elif held:
                yield _decoded(held)
        self._hold(rest)

    def _hold(self, part):
        if self._too_long or len(self._held) + len(part) > self._room:
            self._held.clear()
            self._too_long = True
        else:
            self._held += part


def _decoded(data):
    try:
        return decode(data)
    except ValueError as error:
        return Damage(reason=str(error))


@dataclass(frozen=True, kw_only=True)
class Side:
    """Frames on one side: elements, bytes of an element, its format; ValueError out of the link's range.

    On the line it is four numbers, UNSIGNED beside the width where there is no sign.
    """

    elements: int
    lane_bytes: int
    width: int
    frac: int
    signed: bool = True

    _LIMITS: ClassVar = {"elements": (1, 0xFFFFFFFF), "lane_bytes": (1, 8), "width": (1, 62), "frac": (-128, 127)}

    def __post_init__(self):
        _check_limits(self, self._LIMITS)
        if self.lane_bytes != (needed := (self.width + 7) // 8):
            raise ValueError(f"Side.lane_bytes must be {needed} for {self.width} bits, got {self.lane_bytes}")

    @classmethod
    def of(cls, port):
        """The side that a manifest's Port describes."""
        form = {key: getattr(port.format, key) for key in ("width", "frac", "signed")}
        return cls(elements=port.elements, lane_bytes=port.lane_bytes, **form)

    def to_numbers(self):
        return self.elements, self.lane_bytes, self.width | UNSIGNED * (not self.signed), self.frac

    @classmethod
    def of_numbers(cls, elements, lane_bytes, width, frac):
        signed = not width & UNSIGNED
        return cls(elements=elements, lane_bytes=lane_bytes, width=width & ~UNSIGNED, frac=frac, signed=signed)

    @property
    def frame_bytes(self):
        return self.elements * self.lane_bytes

    def pack(self, q):
        """Integers (N, elements) that fit the format to bytes: each little-endian, extended with its sign or zeros."""
        return vectors.pack(q, self.lane_bytes).tobytes()

    def unpack(self, data):
        """Bytes of whole frames to int64 (N, elements); ValueError for a number that the format does not hold."""
        q = vectors.unpack(np.frombuffer(data, np.uint8), self.lane_bytes, self.signed).astype(np.int64)
        form = QFormat(self.width, self.frac, self.signed)
        if q.size and not form.lo <= q.min() <= q.max() <= form.hi:
            raise ValueError(f"numbers of {self.width} bits are {form.lo} to {form.hi}, got {q.min()} to {q.max()}")
        return q.reshape(-1, self.elements)


def _check_limits(value, limits):
    for name, (low, high) in limits.items():
        number = getattr(value, name)
        if not low <= number <= high:
            raise ValueError(f"{type(value).__name__}.{name} must be {low} to {high}, got {number}")


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a board says of itself; ValueError for what the link cannot say or no board would.

    clock_hz: of the core. interval: cycles a frame.
    """

    configuration: str
    clock_hz: int
    baud: int
    input: Side
    output: Side
    interval: int
    name: str

    # a time-out follows from what a board claims: none may be without end
    _LIMITS: ClassVar = {
        "clock_hz": (100_000, 1_000_000_000), "baud": (1_200, 100_000_000), "interval": (1, 0xFFFFFFFF),
    }
    # version, configuration, clock, baud, both sides, interval, length of the name behind it
    _LAYOUT = struct.Struct("<B32sIIIBBbIBBbIB")

    def __post_init__(self):
        _check_limits(self, self._LIMITS)
        if len(self.configuration) != 64 or set(self.configuration) - set("0123456789abcdef"):
            raise ValueError(f"Info.configuration must be 64 hexadecimal digits, got {self.configuration!r}")
        if not 1 <= len(self.name) <= 64 or not (self.name.isascii() and self.name.isprintable()):
            raise ValueError(f"Info.name must be 1 to 64 printable ASCII characters, got {self.name[:80]!r}")

    @classmethod
    def of(cls, design, *, clock_hz, baud):
        """What a board with this design (rtl_gen.Design) has to say."""
        m = design.manifest
        return cls(
            configuration=m.configuration, clock_hz=clock_hz, baud=baud, input=Side.of(m.input),
            output=Side.of(m.output), interval=m.interval, name=m.name,
        )

    def to_bytes(self):
        """The payload of the reply to an info request."""
        name = self.name.encode("ascii")
        head = VERSION, bytes.fromhex(self.configuration), self.clock_hz, self.baud
        sides = *self.input.to_numbers(), *self.output.to_numbers()
        return self._LAYOUT.pack(*head, *sides, self.interval, len(name)) + name

    @classmethod
    def parse(cls, payload):
        """The Info of a reply's payload; ValueError names what is wrong with it."""
        if not payload or payload[0] != VERSION:
            raise ValueError(
                f"info: version {payload[0] if payload else 'missing'} of the link, this host speaks {VERSION}"
            )
        size = cls._LAYOUT.size
        if len(payload) < size or len(payload) != size + payload[size - 1]:
            wanted = f"{size} bytes and a name" if len(payload) < size else f"{size + payload[size - 1]} bytes"
            raise ValueError(f"info: must have {wanted}, got {len(payload)} bytes")
        _, configuration, clock_hz, baud, *numbers, interval, _ = cls._LAYOUT.unpack_from(payload)
        with owned("info", error=ValueError):
            return cls(
                configuration=configuration.hex(), clock_hz=clock_hz, baud=baud,
                input=Side.of_numbers(*numbers[:4]), output=Side.of_numbers(*numbers[4:]), interval=interval,
                name=payload[size:].decode("latin-1"),
            )


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Since reset: requests answered, wrong CRCs, framing errors, requests too long, saturated values, busy cycles."""

    answered: int
    wrong_crc: int
    framing: int
    too_long: int
    saturated: int
    busy: int

    _LAYOUT = struct.Struct("<6I")
    BYTES = _LAYOUT.size

    def to_bytes(self):
        return self._LAYOUT.pack(*astuple(self))

    @classmethod
    def parse(cls, payload):
        """The Counters of a reply's payload; ValueError for one of another length."""
        if len(payload) != cls.BYTES:
            raise ValueError(f"counters: must have {cls.BYTES} bytes, got {len(payload)}")
        return cls(**dict(zip((field.name for field in fields(cls)), cls._LAYOUT.unpack(payload))))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Cycles from the first frame's last beat out of the core to the last one's; CRC-32 of the bytes of all outputs."""

    cycles: int
    crc: int

    _LAYOUT = struct.Struct("<II")
    BYTES = _LAYOUT.size
    REQUEST = struct.Struct("<H")  # the number of frames

    def to_bytes(self):
        return self._LAYOUT.pack(*astuple(self))

    @classmethod
    def parse(cls, payload):
        """The Measured of a reply's payload."""
        return cls(**dict(zip((field.name for field in fields(cls)), cls._LAYOUT.unpack(payload))))
