"""The reader of windows over maps: a ring of rows, in which the next image's follow those of the image before.

A pixel's place in its map is counted along the rows, y·W + x, and runs on over images. The window of the next output
(v, u) reaches from `before` places before v·sh·W + u·sw, its base, to `lag` places behind it; nothing is compared but
base and the number of pixels here.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd, prod

import numpy as np

from bfthw import Pattern
from bfthw.window import Shape, Window

COUNTERS = "part", "down", "across", "word", "lane", "pass", "group", "column", "row"
HANDOVER = 2  # cycles from a pixel's arrival to a read of it, and from a last read to the room that it leaves


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Which operands a factor on window vectors takes, in which order, and what holds the rows meanwhile.

    shape: of the map. window: whose blocks of q channels are the pattern's: (C/q, b, K·q/d, d), d a divisor of q: (1,
    1, K, C) for a depthwise convolution, (1, m, K·C, 1) for a full one. lanes_in: channels of a beat, all beats of a
    pixel in a row. lanes, simd: outputs of a beat, and operands of each in a cycle. width, kept_width: bits of an
    element, and those that are kept, without a sign that is known. outside: a number, or one a channel; None for the
    window's. late: cycles that a read may wait for what joins it. vectors, flight, target: as of an Engine.
    Raises ValueError, which says what would fit.

    Members
    -------
    out
        (height, width) of the positions of windows.
    tile
        (channels, rows, columns) of a cycle's operands.
    sizes
        of the nested counters that read, COUNTERS, the first one fastest: parts of a word, tiles down and across, words
        of a dot product; beats of outputs, of a word each, of the same words, and of other groups; positions.
    order, select
        inputs of a dot product in their order of use, (c,); places of operands among the elements that are seen at
        once, tile for tile: (parts, lanes, simd).
    reads, interval
        cycles of a position, and of an image.
    ring, rows
        places of the ring, the fewest that keep the interval where pixels come evenly; in rows.
    compute(x)
        maps (N, H, W, C) -> operands (N, H', W', outputs/lanes, steps, lanes, simd).
    """

    shape: Shape
    window: Window
    pattern: Pattern
    lanes_in: int = 1
    lanes: int = 1
    simd: int = 1
    width: int = 8
    kept_width: int | None = None
    outside: tuple | int | None = None
    vectors: int = 1
    flight: int = 0
    late: int = 0
    target: str = "plain"

    def __post_init__(self):
        object.__setattr__(self, "kept_width", self.kept_width or self.width)
        object.__setattr__(self, "outside", self.window.outside if self.outside is None else self.outside)
        (_, _, channels), (a, b, c, d), q = self.shape, self.pattern, self.block
        taps, lanes_in = self.window.taps, self.lanes_in
        self.out  # noqa: B018  the window says what does not fit
        if q % d or (a, c) != (channels // q, taps * q // d):
            fits = f"({channels // q}, b, {taps * q}, 1) or ({channels // q}, b, {taps}, {q})"
            raise ValueError(f"windows of {taps} taps, blocks of {q}, take patterns {fits}, got {self.pattern}")
        if channels % lanes_in or d % lanes_in * (lanes_in % d) or q % lanes_in * (lanes_in % q):
            raise ValueError(f"lanes_in must divide {channels} and fit blocks of {q} and of {d}, got {lanes_in}")
        if lanes_in <= q:
            fits = self.lanes == lanes_in if lanes_in < d else self.lanes % d == 0 and b * d % self.lanes == 0
            wanted = lanes_in if lanes_in < d else f"{d} or more, a divisor of {b * d}"
        else:
            wanted = lanes_in // q * b * d
            fits = self.lanes == wanted
        if not fits:
            raise ValueError(f"lanes must be {wanted} where {lanes_in} channels come a beat, got {self.lanes}")
        if self.simd < 1 or self.together * taps % self.simd:
            raise ValueError(f"SIMD must divide {self.together * taps}, the operands of a word's rows, got {self.simd}")

    @property
    def block(self):
        return self.window.block or self.shape.channels

    @cached_property
    def out(self):
        return self.window.shape(self.shape)[:2]

    @property
    def words(self):
        """Beats of a pixel."""
        return self.shape.channels // self.lanes_in

    @property
    def together(self):
        """Inputs of a dot product that a word has from each pixel."""
        return max(1, min(self.lanes_in, self.block) // self.pattern.d)

    @cached_property
    def tile(self):
        channels = gcd(self.simd, self.together)
        rows = gcd(self.simd // channels, self.window.size[0])
        return channels, rows, self.simd // channels // rows

    @cached_property
    def sizes(self):
        (channels, rows, columns), (kh, kw), (_, b, _, d) = self.tile, self.window.size, self.pattern
        height, width = self.out
        summed, across = max(1, self.block // max(self.lanes_in, d)), max(1, d // self.lanes_in)
        passes, groups = max(1, b * d // (self.lanes * across)), self.words // (summed * across)
        dot = self.together // channels, kh // rows, kw // columns, summed
        return *dot, across, passes, groups, width, height

    @cached_property
    def order(self):
        (channels, rows, columns), (kh, kw), (parts, down, along, words, *_) = self.tile, self.window.size, self.sizes
        at = np.indices((words, along, down, parts, rows, columns, channels)).reshape(7, -1)
        word, u, v, part, row, column, channel = at
        ky, kx = v * rows + row, u * columns + column
        tap = ky * kw + kx if self.window.order == "ky" else kx * kh + ky
        return tap * (self.block // self.pattern.d) + (word * parts + part) * channels + channel

    @cached_property
    def select(self):
        (channels, rows, columns), (_, b, _, d), (parts, *_) = self.tile, self.pattern, self.sizes
        part, lane, place, channel = np.ogrid[:parts, : self.lanes, : rows * columns, :channels]
        at = lane // (b * d) * self.block + (part * channels + channel) * d + lane % d
        return (place * self.lanes_in + at % self.lanes_in).reshape(parts, self.lanes, self.simd)

    reads = property(lambda self: prod(self.sizes[:-2]))
    beats = property(lambda self: self.shape.positions * self.words)

    @property
    def interval(self):
        """The beats of the map or the cycles of all windows, whichever are more."""
        return max(self.beats, prod(self.sizes))

    # places, along the rows

    @property
    def before(self):
        top, left, _, _ = self.window.padding
        return top * self.shape.width + left

    @property
    def lag(self):
        """At least one pixel is here before an output, even where its window sees none."""
        (kh, kw), (top, left, _, _) = self.window.size, self.window.padding
        return max(0, (kh - 1 - top) * self.shape.width + kw - 1 - left)

    @cached_property
    def strides(self):
        """Of the base: places from output to output across, and down."""
        return self.window.stride[1], self.window.stride[0] * self.shape.width

    @cached_property
    def kept(self):
        """Likewise of the base that room is counted from: slower where windows at an edge are behind the map, so that
        no pixel of a row or an image that follows counts as past.
        """
        (across, down), (height, width), all_of_it = self.strides, self.out, self.shape.positions + self.before
        last = all_of_it if height == 1 else min(all_of_it, down + self.window.padding[1])
        across = min(across, last // max(1, width - 1))
        return across, min(down, (all_of_it - (width - 1) * across) // max(1, height - 1))

    def places(self, strides):
        """Bases of an image's outputs, in order."""
        height, width = self.out
        return (np.arange(height)[:, None] * strides[1] + np.arange(width) * strides[0]).ravel()

    @cached_property
    def needed(self):
        """The number of an image's pixels that each output waits for: all those before its window's end."""
        return np.minimum(self.places(self.strides) + self.lag + 1, self.shape.positions)

    @property
    def bonus(self):
        """Places that an image's end counts for, so that no output of it waits for more."""
        return max(0, int(self.places(self.strides)[-1]) + self.lag + 1 - self.shape.positions)

    @cached_property
    def ring(self):
        """In the schedule in which pixels come evenly and windows are read as soon as they are here, each as slowly as
        what takes them evenly may ask for, places between a pixel that is granted and the oldest that may still be read,
        at most.
        """
        pixels, time, beats = self.shape.positions, self.interval, self.beats
        pace = time // prod(self.out)
        # of the last image, all before it is as it will be for ever
        images = 3 + (self.flight + pace + 2 * HANDOVER + self.late) // time
        image, pixel = np.arange(images)[:, None], np.arange(images * pixels)
        come = ((image * pixels + self.needed) * time // pixels).ravel()
        turn = np.arange(len(come)) * pace
        read = np.maximum.accumulate(come + HANDOVER + self.late - turn) + turn + pace - 1
        granted = (pixel * self.words + 1) * time // beats - self.flight
        bases = np.append((image * pixels + self.places(self.kept)).ravel(), images * pixels)
        base = bases[np.searchsorted(read, granted - HANDOVER, side="right")]
        most = max(self.lag, int((pixel - base)[-pixels:].max())) + self.before + 1
        width = self.shape.width
        return most if self.whole else -(-most // width) * width

    @property
    def whole(self):
        """Whether the ring is one memory, which needs no whole rows: a read sees one row, and one column, of it."""
        return self.tile[1:] == (1, 1)

    @property
    def rows(self):
        return -(-self.ring // self.shape.width)

    # otherwise memories for each row where several are read at once, for each column likewise

    @property
    def banks(self):
        """(of rows, of columns)."""
        _, rows, columns = self.tile
        return (1 if rows == 1 else self.rows), columns

    @property
    def turns(self):
        """(of rows, of columns): banks that an operand may come from."""
        (rows, columns), (_, down, _), (sh, sw) = self.banks, self.tile, self.window.stride
        steps = sh, self.shape.height, down if down < self.window.size[0] else 0
        return rows // gcd(rows, *steps), columns // gcd(columns, sw)

    @property
    def groups(self):
        """(n, of so many): slots of rows, so that an operand comes from one slot of a group; alike in all groups."""
        groups = self.turns[0] if self.banks[0] > 1 else self.rows
        return groups, self.rows // groups

    @property
    def way(self):
        """Cycles from a place to what is seen, less READ: its address at the memories; one more between the choice of a
        row's bank and that of a column's, where there are both.
        """
        return 1 + (min(self.turns) > 1)

    @property
    def ahead(self):
        """Cycles from a read's issue to its operands, less READ: to its place, on its way, and the register behind."""
        return self.way + 2

    @property
    def pitch(self):
        """Words of a row in a bank."""
        return -(-self.shape.width // self.tile[2]) * self.words

    @property
    def depth(self):
        return self.ring * self.words if self.whole else self.pitch * self.rows // self.banks[0]

    @property
    def bits(self):
        return prod(self.banks) * self.depth * self.lanes_in * self.vectors * self.kept_width

    @property
    def word_strides(self):
        """Words that the counters of words go on by in a pixel."""
        _, _, _, summed, across, *_ = self.sizes
        return {"word": across, "lane": 1, "group": summed * across}

    @property
    def balance_bits(self):
        """Of a signed number of places between the two ends."""
        images = self.ring // self.shape.positions + 2
        return (self.ring + sum(self.strides) + self.bonus * images).bit_length() + 1

    @cached_property
    def reach(self):
        """Rows, and columns, that windows see: (positions, taps) each."""
        w = self.window
        return [
            np.arange(out)[:, None] * stride - pad + np.arange(k)
            for out, stride, pad, k in zip(self.out, w.stride, w.padding, w.size)
        ]

    @property
    def edges(self):
        """For each row, and each column, of a tile whether some window has it outside."""
        outside = [((at < 0) | (at >= size)).any(0) for at, size in zip(self.reach, self.shape)]
        return [axis.reshape(-1, tile).any(0).tolist() for axis, tile in zip(outside, self.tile[1:])]

    @cached_property
    def around(self):
        """What stands outside, int64 (words, lanes_in); one word where all are equal."""
        values = np.broadcast_to(self.outside, self.shape.channels).astype(np.int64).reshape(-1, self.lanes_in)
        return values[:1] if (values == values[:1]).all() else values

    @property
    def around_bits(self):
        return self.around.size * self.width if len(self.around) > 1 else 0

    def compute(self, x):
        v = self.window.gather(x, outside=np.asarray(self.outside) if np.ndim(self.outside) else self.outside)
        _, b, c, d = self.pattern
        o = np.arange(self.pattern.outputs).reshape(-1, 1, self.lanes, 1)
        k = self.order.reshape(1, -1, 1, self.simd)
        return v[..., o // (b * d) * c * d + k * d + o % d]
