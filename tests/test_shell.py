"""The shell in Amaranth's simulator, bit by bit on its line: docs/link.md, and every way to break a frame."""

import random
import struct
import zlib

import numpy as np
import pytest
from amaranth.sim import Simulator
from cobs import cobs

import bfthw
import rtl_gen
from bfthw.chain import bft, dense, mixed_radix
from boards.shell import Shell

CLOCK, BAUD = 4_000_000, 1_000_000  # four cycles a bit
CYCLES = CLOCK // BAUD


def frame(kind, number, payload=b"", length=None, crc=0, offset=0, version=3):
    """A request as docs/link.md has it, written from the document alone; `length` and `crc` (xor) to damage it."""
    length = len(payload) if length is None else length
    body = struct.pack("<BBHII", kind, version, length, number, offset) + payload
    return seal(body, crc)


def short(kind, version=3, payload=b""):
    """A short request: number and offset left out."""
    return seal(struct.pack("<BBH", kind, version, len(payload)) + payload)


def seal(body, crc=0):
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body) ^ crc)) + b"\0"


def parse(raw):
    """(type, number, payload) of a reply's bytes without the zero, (type, (version,), payload) of a short one's;
    asserts length, CRC and offset.
    """
    body = cobs.decode(raw)
    kind, version, length = struct.unpack("<BBH", body[:4])
    assert struct.unpack("<I", body[-4:])[0] == zlib.crc32(body[:-4])
    if len(body) == 8 + length:
        return kind, (version,), body[4:-4]
    number, offset = struct.unpack("<II", body[4:12])
    assert (len(body), version, offset) == (16 + length, 3, 0)
    return kind, number, body[12:-4]


BREAK = object()


def talk(design, sent, replies, patience=6000):
    """Put bytes, breaks and pauses (ints: cycles) on the line, until so many replies came; returns them."""
    shell, got, current = Shell(design, clock_hz=CLOCK, baud=BAUD), [], bytearray()

    done = False

    async def host(ctx):
        nonlocal done
        for item in sent:
            if isinstance(item, int):
                await ctx.tick().repeat(item)
            elif item is BREAK:
                ctx.set(shell.rx, 0)
                await ctx.tick().repeat(25 * CYCLES)
                ctx.set(shell.rx, 1)
                await ctx.tick().repeat(3 * CYCLES)
            else:
                for byte in item:
                    for bit in (0, *((byte >> n) & 1 for n in range(8)), 1):
                        ctx.set(shell.rx, bit)
                        await ctx.tick().repeat(CYCLES)
        done = True

    async def listen(ctx):
        waited = 0
        while len(got) < replies and not (done and waited >= patience):
            if ctx.get(shell.tx):
                await ctx.tick()
                waited = waited + 1 if done else 0
                continue
            waited, byte = 0, 0
            await ctx.tick().repeat(CYCLES + CYCLES // 2)
            for n in range(8):
                byte |= ctx.get(shell.tx) << n
                await ctx.tick().repeat(CYCLES)
            assert ctx.get(shell.tx), "no stop bit"
            await ctx.tick().repeat(CYCLES // 2)
            if byte:
                current.append(byte)
            else:
                got.append(parse(bytes(current)))
                current.clear()

    sim = Simulator(shell)
    sim.add_clock(1 / CLOCK)
    sim.add_testbench(host)
    sim.add_testbench(listen)
    sim.run()
    assert not current
    return got


def make(tmp_path_factory, name, net, **settings):
    network = bfthw.Network(layers=net)
    x = np.random.default_rng(1).normal(size=(60, network.inputs))
    settings = bfthw.make_settings(**settings)
    integers = bfthw.compile(network, settings=settings, calibration=x)
    return rtl_gen.write(integers, tmp_path_factory.mktemp(name), name=name, settings=settings)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=3), residual=True, name="a")
    return make(tmp_path_factory, "tiny", (layer,))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Two lanes of two bytes in, one byte out in beats of one, two layers."""
    a = bfthw.Layer(chain=bfthw.Chain.random(mixed_radix([2, 3, 2]), seed=4), relu=True, name="a")
    b = bfthw.Layer(chain=bfthw.Chain.random(dense(5, 12), seed=5), name="b")
    layers = {"a": {"lanes": 2}, "b": {"lanes": 1, "activation_bits": 7}}
    return make(tmp_path_factory, "two_layers", (a, b), input_bits=11, layers=layers)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Three bytes in, 300 out."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(dense(300, 3), seed=6), name="a")
    return make(tmp_path_factory, "long", (layer,), layers={"a": {"activation_bits": 8}})


def vectors(design, count, seed):
    q = design.plan.network
    return np.random.default_rng(seed).integers(q.input.lo, q.input.hi + 1, (count, q.inputs))


def pack(x, size):
    """Integers to the bytes of TDATA: each element sign-extended, the lowest first."""
    return b"".join(int(v).to_bytes(size, "little", signed=True) for v in x.ravel())


def answer(design, x):
    return pack(design.plan.network(x), design.manifest.output.lane_bytes)


def part(number, data, offset=0):
    return frame(2, number, data, offset=offset)


def run(design, number, x):
    """A run of one part."""
    return part(number, pack(x, design.manifest.input.lane_bytes))


def answered(design, number, x):
    """Its reply: the outputs, and how many bytes of the part were taken."""
    return 0x82, number, answer(design, x) + bytes([x.size * design.manifest.input.lane_bytes])


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", ["small", "wide"])
def test_run(request, name, count):
    design = request.getfixturevalue(name)
    x = vectors(design, count, seed=count)
    assert talk(design, [run(design, 0x12345678, x)], 1) == [answered(design, 0x12345678, x)]


@pytest.mark.parametrize("sizes", [[3, 20, 1, 41, 7], [1, 1, 1, 1, 24, 44]], ids=str)
def test_run_in_parts(wide, sizes):
    """Wherever the cuts are: beats of four bytes, frames of 24; an output comes with the part that ends its frame."""
    data, places = pack(vectors(wide, 3, seed=1), 2), np.cumsum([0, *sizes])
    want, sent, wanted = answer(wide, vectors(wide, 3, seed=1)), [], []
    for n, (begin, end) in enumerate(zip(places, places[1:])):
        sent.append(part(2**32 - 2 + n & 2**32 - 1, data[begin:end], offset=int(begin)))
        wanted.append((0x82, 2**32 - 2 + n & 2**32 - 1, want[begin // 24 * 5 : end // 24 * 5] + bytes([end - begin])))
    assert talk(wide, sent, len(sizes)) == wanted


def test_a_part_is_taken_once_and_in_order(small):
    """Two without waiting for the first answer, both again, one too many ahead; then the rest."""
    x, places = vectors(small, 9, seed=2), ((7, 0, 2), (8, 2, 5), (9, 5, 9))
    a, b, c = (part(n, pack(x[first:last], 1), 4 * first) for n, first, last in places)
    replies = talk(small, [a, b, b, a, a, b, part(10, bytes(4), 36), c, c, b], 10)
    right = [answered(small, n, x[first:last]) for n, first, last in places]
    assert replies[:6] == [right[0], right[1], right[1], right[0], right[0], right[1]]
    assert replies[6] == (0xFE, 10, struct.pack("<I", 9))
    assert replies[7:] == [right[2], right[2], right[1]]


@pytest.mark.parametrize("name", ["small", "wide"])
def test_a_new_run_drops_an_unfinished_one(request, name):
    """Cut anywhere, in the middle of a beat and of an element too: nothing of it is left in the new one's outputs."""
    design = request.getfixturevalue(name)
    data, x = pack(vectors(design, 3, seed=3), design.manifest.input.lane_bytes), vectors(design, 2, seed=4)
    frame_bytes = len(data) // 3
    for cut in (1, frame_bytes + frame_bytes // 2 + 1):
        replies = talk(design, [part(5, data[:cut]), 3000, run(design, 90, x), 3000, part(6, data[cut:], cut)], 3)
        assert replies[1] == answered(design, 90, x), cut
        assert replies[0][1] == 5 and replies[0][2][-1] == cut
        assert replies[2] == (0xFE, 6, struct.pack("<I", 91))  # the old one cannot go on


def test_reset_ends_a_run(small):
    x = vectors(small, 4, seed=5)
    replies = talk(small, [run(small, 1, x), 5000, frame(4, 9), 4000, part(2, bytes(4), 16), 4000, run(small, 1, x)], 4)
    assert [r[:2] for r in replies] == [(0x82, 1), (0x84, 9), (0xFE, 2), (0x82, 1)]
    assert replies[0] == replies[3] == answered(small, 1, x)


def test_outputs_longer_than_a_reply(long):
    """What one reply has no room for comes with empty parts; meanwhile a part is taken only so far."""
    x = vectors(long, 40, seed=6)
    assert long.manifest.output.elements * long.manifest.output.lane_bytes == 300
    data, want = pack(x, 1), answer(long, x)
    replies = talk(long, [part(50 + n, b"" if n else data, n) for n in range(8)], 8)
    (taken, *rest), got = [payload[-1] for *_, payload in replies], b"".join(payload[:-1] for *_, payload in replies)
    assert [kind for kind, *_ in replies] == [0x82] * 8 and not any(rest)
    assert len(got) == min(8 * 127, taken // 3 * 300) and got == want[: len(got)] and 3 <= taken < len(data)


def test_measure(small, wide):
    """Frames of the document's generator at the full rate: the plan's interval, and the golden model's outputs."""
    for design in (small, wide):
        m, (count, number) = design.manifest, (6, 3)
        x = generated(count, m.input)
        sent = [part(5, bytes(3)), 3000, frame(5, number, struct.pack("<H", count)), 20_000, part(6, b"", 3)]
        _, measured, refused = talk(design, sent, 3)
        assert measured[:2] == (0x85, number) and refused[:2] == (0xFE, 6)
        cycles, crc = struct.unpack("<II", measured[2])
        assert cycles == (count - 1) * m.interval and crc == zlib.crc32(answer(design, x))


def generated(count, port):
    """The numbers of docs/link.md's generator, a bit at a time, written from the document alone."""
    bits = [0x42465421 >> n & 1 for n in range(31)]
    while len(bits) < 8 * count * port.elements * port.lane_bytes:
        bits.append(bits[-31] ^ bits[-28])
    size, q = 8 * port.lane_bytes, port.format.qformat()
    numbers = [sum(bit << n for n, bit in enumerate(bits[at : at + q.width])) for at in range(0, len(bits), size)]
    numbers = np.array(numbers[: count * port.elements])
    return np.where(numbers > q.hi, numbers - (1 << q.width), numbers).reshape(count, port.elements)


def test_info(small):
    # a short one is what hosts of every version ask and understand
    (kind, number, info), *others = talk(small, [frame(1, 9), 4000, short(1, 0x87)], 2)
    assert (kind, number) == (0x81, 9) and others == [(0x81, (0x87,), info)]
    m = small.manifest
    version, configuration, clock, baud = struct.unpack("<B32sII", info[:41])
    assert (version, configuration.hex(), clock, baud) == (3, m.configuration, CLOCK, BAUD)
    for port, raw in ((m.input, info[41:48]), (m.output, info[48:55])):
        wanted = port.elements, port.lane_bytes, port.format.width, port.format.frac
        assert struct.unpack("<IBBb", raw) == wanted
    assert struct.unpack("<I", info[55:59])[0] == m.interval
    assert info[59:] == bytes([len(m.name)]) + m.name.encode()


def test_requests_one_after_the_other(small):
    x = vectors(small, 3, seed=1)
    sent = [b"\0\0", frame(3, 1), 8000, run(small, 2, x), 9000, run(small, 2, x), 9000, frame(4, 3), 4000, frame(3, 4)]
    replies = talk(small, sent, 5)
    zero = struct.pack("<6I", *[0] * 6)
    assert [r[:2] for r in replies] == [(0x83, 1), (0x82, 2), (0x82, 2), (0x84, 3), (0x83, 4)]
    assert replies[1] == replies[2] == answered(small, 2, x)
    assert replies[3][2] == b"" and struct.unpack("<6I", replies[4][2])[0] == 1 and replies[4][2][4:] == zero[4:]


def test_counters_count(small):
    q = small.plan.network
    x = np.resize([q.input.hi, q.input.lo], (4, 4))
    saturated = sum(int(f.saturated(acc).sum()) for f, acc, _ in q.accumulators(x))
    assert saturated > 0, "vectors that saturate are needed here"
    bad = [frame(3, 1, crc=1), frame(3, 2, payload=bytes(600))]
    sent = [run(small, 1, x), 9000, bad[0], 4000, bad[1], 4000, BREAK, b"\0", 4000, frame(3, 7)]
    replies = talk(small, sent, 5)
    assert [(kind, payload) for kind, _, payload in replies[1:4]] == [(0xFF, b"\1"), (0xFF, b"\4"), (0xFF, b"\5")]
    answered, wrong_crc, framing, too_long, clipped, busy = struct.unpack("<6I", replies[4][2])
    assert (answered, wrong_crc, framing, too_long, clipped) == (2, 1, 1, 1, saturated)
    # the UART is what the core waits for: busy at least while a vector's bytes come out, less than all the while
    assert small.manifest.latency < busy < 9000 + 20 * 10 * CYCLES


DAMAGE = {
    "wrong CRC": (lambda f: frame(3, 5, crc=0x80000000), 1),
    "cut in a block": (lambda f: f[:5] + b"\0", 1),
    "nothing but a code": (lambda f: b"\x01\0", 1),
    "length too large": (lambda f: frame(3, 5, length=1), 2),
    "length too small": (lambda f: frame(2, 5, payload=bytes(8), length=4), 2),
    "payload where none belongs": (lambda f: frame(1, 5, payload=b"x"), 2),
    "no number of frames": (lambda f: frame(5, 5), 2),
    "too long a number of frames": (lambda f: frame(5, 5, payload=bytes(4)), 2),
    "unknown type": (lambda f: frame(9, 5), 3),
    "type zero": (lambda f: frame(0, 5), 3),
    "a reply's type": (lambda f: frame(0x82, 5), 3),
    "a byte too long": (lambda f: frame(2, 5, payload=bytes(129)), 4),
    "far too long": (lambda f: frame(2, 5, payload=bytes(1100)), 4),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_frames_are_refused_and_the_next_is_answered(small, name):
    make_bad, reason = DAMAGE[name]
    x = vectors(small, 2, seed=2)
    good = run(small, 6, x)
    replies = talk(small, [make_bad(good), 6000, good], 2)
    assert replies[0][0] == 0xFF and isinstance(replies[0][1], tuple) and replies[0][2] == bytes([reason])
    assert replies[1] == answered(small, 6, x)


def test_short_frames_and_offsets_are_refused(small):
    x = vectors(small, 1, seed=6)
    bad = [
        (short(3), 2),
        (short(1, payload=b"x"), 2),
        (short(1, payload=b"1234567"), 2),
        (short(3, payload=bytes(8)), 2),
        (frame(5, 5, payload=bytes(2), offset=1), 6),
        (frame(3, 5, offset=0x80000000), 6),
    ]
    sent = [item for request, _ in bad for item in (request, 700)]
    replies = talk(small, [*sent, run(small, 6, x)], len(bad) + 1)
    assert replies[:-1] == [(0xFF, (3,), bytes([reason])) for _, reason in bad]
    assert replies[-1] == answered(small, 6, x)


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 20))])
def test_random_damage_never_gives_a_wrong_answer(small, seed):
    rng = random.Random(seed)
    x = vectors(small, 2, seed)
    good, sent = run(small, 8, x), []
    for _ in range(6):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at, kind = rng.randrange(len(bad)), rng.randrange(4)
            if kind == 0:
                bad[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del bad[at]
            elif kind == 2:
                bad.insert(at, bad[at])
            else:
                bad = bad[: at + 1]
        sent += [bytes(bad), 5000] + ([BREAK] if rng.random() < 0.3 else [])
    replies = talk(small, [*sent, b"\0", 5000, frame(1, 99), 9000, good], 100)
    # whatever came before, the board is alive, and nothing but the right answer was ever given to a run
    assert replies[-1] == answered(small, 8, x) and replies[-2][:2] == (0x81, 99)
    for kind, _, payload in replies:
        assert kind in (0xFF, 0x81) or (kind, payload) == (0x82, answered(small, 8, x)[2])


@pytest.mark.parametrize("first, second", [(15, 1), (1, 15)], ids=["ends while busy", "ends after the reply"])
def test_a_request_while_the_board_answers_waits(small, first, second):
    x, y = vectors(small, first, seed=3), vectors(small, second, seed=4)
    replies = talk(small, [run(small, 1, x), run(small, 2, y), frame(3, 3)], 3)
    assert replies[:2] == [answered(small, 1, x), answered(small, 2, y)]
    assert replies[2][:2] == (0x83, 3) and struct.unpack("<6I", replies[2][2])[0] == 3
