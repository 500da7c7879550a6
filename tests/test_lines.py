"""The line buffer: every operand of every window, the interval in closed form, stalls, resets; random geometries."""

import numpy as np
import pytest
from amaranth.hdl import Array, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from rtl_bench import beats_of, play, unpack

from bfthw import Pattern, QFormat
from bfthw.chain import divisors
from bfthw.window import Shape, Window
from rtl_gen.engines.readers.linebuffer import LineBuffer
from rtl_gen.engines.readers.lines import HANDOVER, Lines
from rtl_gen.fifo import FIFO_LATENCY, QUEUE, LinkFifo
from rtl_gen.signals import beat, delay
from rtl_gen.stream import ENTRY, FromStream
from rtl_gen.tech import READ


class Operands(wiring.Component):
    """The operands as a stream: lane for lane, each SIMD elements of all vectors."""

    def __init__(self, lines):
        self.lines = lines
        size = lines.lanes * lines.simd * lines.vectors
        super().__init__(
            {
                "i": In(stream.Signature(beat(lines.width, lines.lanes_in * lines.vectors))),
                "o": Out(stream.Signature(beat(lines.width, size))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s, shape = self.lines, self.o.payload.shape()
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        m.submodules.buffer = buffer = LineBuffer(s)
        way = s.ahead + READ
        m.submodules.exit = queue = LinkFifo(shape, way + QUEUE)
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        further = s.flight - ENTRY
        m.d.comb += [
            entry.o.ready.eq(buffer.i.ready),
            buffer.i.take.eq(entry.o.take),
            buffer.i.valid.eq(delay(m, entry.o.valid, further, "came", reset=True)),
            buffer.i.payload.eq(delay(m, entry.o.payload.as_value(), further, "beat")),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        issue = buffer.available & queue.i.ready
        choice = delay(m, buffer.choice, way, "choice")
        elements = [buffer.seen[n * s.width :][: s.width] for n in range(len(buffer.seen) // s.width)]
        operands = [
            Array([elements[n * s.vectors + e] for n in places])[choice]
            for places in s.select.reshape(len(s.select), -1).T.tolist()
            for e in range(s.vectors)
        ]
        m.d.comb += [
            buffer.issue.eq(issue),
            queue.i.take.eq(issue),
            queue.i.valid.eq(delay(m, issue, way, "valid", reset=True)),
            *(queue.i.payload[n].eq(operand) for n, operand in enumerate(operands)),
        ]
        return m


def held(lines, images=7, stall=0.0, seed=0, part=None, **rest):
    """Plays images and holds every operand against Window.gather; returns (latency, interval), measured."""
    rng = np.random.default_rng(seed)
    s, e = lines, lines.vectors
    q = QFormat(s.width, 0, signed=bool(np.max(s.outside) < 1 << s.width - 1))
    x = rng.integers(q.lo, q.hi + 1, (images * e, *s.shape))
    part = part or Operands(s)
    beats = beats_of(x.reshape(images * e, -1), s.lanes_in, e, s.width)
    per = int(np.prod(s.sizes))
    flow_in, flow_out = play(part, [(part.i, beats)], [(part.o, images * per)], stall=stall, seed=seed, **rest)
    got = unpack(flow_out.beats, q, s.lanes * s.simd * e).reshape(images, per, s.lanes * s.simd, e)
    want = s.compute(x).reshape(images, e, per, -1).transpose(0, 2, 3, 1)
    wrong = np.argwhere(got != want)
    assert not len(wrong), f"{s}: image, read, operand, vector {wrong[0]} of {len(wrong)} wrong"
    return figures(flow_in, flow_out, per)


def figures(came, left, beats):
    """(latency, interval) of images of so many beats."""
    firsts = left.seen[::beats]
    half = len(firsts) // 2
    return left.seen[0] - came.moved[0], (firsts[-1] - firsts[half]) / (len(firsts) - 1 - half)


def promised(lines):
    """The same of Operands: the first window's pixels come, then the way from the last of them to the operands."""
    pixels = int(lines.needed[0]) * lines.words - 1
    return pixels + lines.flight + HANDOVER + lines.ahead + READ + FIFO_LATENCY, lines.interval


def lines_of(shape, window, kind="depthwise", flight=ENTRY, **rest):
    """A Lines of a kind of convolution: m outputs of each group where it is not depthwise."""
    c, taps = shape[2], window.taps
    q = window.block or c
    pattern = Pattern(c // q, 1, taps, q) if kind == "depthwise" else Pattern(c // q, kind, taps * q, 1)
    return Lines(shape=Shape(*shape), window=window, pattern=pattern, flight=flight, **rest)


CASES = {
    "depthwise": lines_of((6, 6, 4), Window(3, 1, 1), simd=3),
    "one-row-a-cycle": lines_of((5, 6, 2), Window(3, 1, 1), lanes=2, lanes_in=2),
    "stride-2": lines_of((7, 5, 4), Window(3, 2, 1), lanes=2, lanes_in=2, simd=3),
    "all-taps": lines_of((6, 7, 2), Window(3, 1, 1), simd=9, lanes=2, lanes_in=2),
    "all-taps-stride-2": lines_of((8, 8, 1), Window(3, 2, 1), simd=9),
    "full": lines_of((6, 6, 4), Window(3, 1, 1), 6, lanes=2, lanes_in=2, simd=6),
    "tiny": lines_of((3, 3, 1), Window(3, 1, 1), simd=3),
    "one-pixel": lines_of((1, 1, 4), Window(1), lanes=1),
    "one-number": lines_of((1, 1, 1), Window(1)),
    "one-number-all-taps": lines_of((1, 1, 1), Window(3, 1, 1), simd=9),
    "kernel-larger-than-the-map": lines_of((3, 2, 2), Window(5, 1, 2), simd=5),
    "1-D": lines_of((1, 12, 2), Window((1, 5), 1, (0, 2)), simd=5),
    "1-D-down": lines_of((12, 1, 2), Window((5, 1), 1, (2, 0)), simd=5),
    "grouped": lines_of((4, 4, 6), Window(3, 1, 1, block=2), 4, lanes=2, lanes_in=1, simd=3),
    "taps-by-column": lines_of((4, 4, 1), Window((3, 2), 1, (1, 0, 1, 1), order="kx"), simd=2),
    "outside": lines_of((4, 4, 2), Window(3, 1, 1, outside=(3, 250)), simd=3),
    "columns-behind": lines_of((4, 2, 1), Window(1, 1, (0, 0, 0, 3)), 4),
    "padding-beyond": lines_of((4, 5, 2), Window(1, 1, 2)),
}


@pytest.mark.parametrize("lines", CASES.values(), ids=CASES)
def test_windows(lines):
    part = Operands(lines)
    assert held(lines, part=part) == promised(lines)
    held(lines, 3, 0.4, 1, part)


def random_lines(seed, largest=1500):
    """A Lines of any geometry, that reads so often at most."""
    rng = np.random.default_rng(seed)

    def one(*values):
        return int(rng.choice(values))

    while True:
        height, width, channels = one(1, 1, 2, 3, 4, 5, 7), one(1, 2, 3, 4, 5, 6, 9), one(1, 2, 3, 4, 6, 8)
        size = one(1, 2, 3, 3, 4, 5), one(1, 2, 3, 3, 4, 5)
        padding = tuple(int(rng.integers(k + (rng.random() < 0.2))) for k in (*size, *size))
        block = one(*divisors(channels))
        outside = tuple(rng.integers(-128, 128, channels).tolist()) if rng.random() < 0.2 else 0
        stride, order = (one(1, 1, 2, 3), one(1, 1, 2, 3)), str(rng.choice(["ky", "kx"]))
        window = Window(size, stride, padding, block=block, order=order, outside=outside)
        d, b = one(*divisors(block)), one(1, 1, 2, 3, 4)
        lanes_in, pattern = one(*divisors(channels)), Pattern(channels // block, b, window.taps * block // d, d)
        rest = dict(
            lanes_in=lanes_in, lanes=one(*divisors(pattern.outputs)), simd=one(*divisors(pattern.c)),
            vectors=one(1, 1, 1, 2), flight=one(ENTRY, ENTRY, 3, 9),
        )
        try:
            lines = Lines(shape=Shape(height, width, channels), window=window, pattern=pattern, **rest)
        except ValueError:
            continue
        # wider words than these the simulator does not compile
        if lines.interval <= largest and lines.lanes * lines.simd * lines.vectors <= 256:
            return lines


@pytest.mark.parametrize("seed", range(8))
def test_random_windows(seed):
    lines = random_lines(seed, 150)
    part = Operands(lines)
    assert held(lines, seed=seed, part=part) == promised(lines), lines
    held(lines, 3, 0.4, seed + 1, part)


def test_which_banks_turn():
    """Of four slots a stride of two leaves two to each row of a tile, where maps have an even number of rows."""
    even, odd = (lines_of((height, 28, 1), Window(3, 2, 1), 8, simd=3) for height in (28, 27))
    assert even.rows == odd.rows == 4 and (even.turns, odd.turns) == ((2, 1), (4, 1))
    assert lines_of((6, 7, 2), Window(3, 1, 1), simd=9).turns == (3, 3)
