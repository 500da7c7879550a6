"""The ring of rows of a Lines, and the reader that has it."""

from math import ceil, prod

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...climb import changes, climb, climb_cost
from ...signals import beat, counter, counter_cost, delay, digits, digits_cost
from ...stream import Link
from ...tech import READ, technology
from ..engine import figure
from ..words import to_bits
from .lines import COUNTERS, Lines
from .reader import Buffered


class LineBuffer(wiring.Component):
    """The component of Lines.

    Parameters
    ----------
    lines : Lines

    Members
    -------
    i : In(Link)
        the pixels; a beat comes a cycle after its grant at the earliest.
    issue : In(1), available : Out(1)
        read; the next read has its data.
    choice : Out
        which of `Lines.select` the present read is for.
    weights_address : Out
        which of a position's reads it is, `lines.ahead` cycles later.
    seen : Out
        the elements, `lines.ahead + READ` cycles later, with their signs.
    """

    def __init__(self, lines):
        self.lines = s = lines
        self.elements = s.lanes_in * s.vectors
        super().__init__(
            {
                "i": In(Link(beat(s.width, self.elements))),
                "issue": In(1),
                "available": Out(1),
                "choice": Out(range(max(2, len(s.select)))),
                "weights_address": Out(range(max(2, s.reads))),
                "seen": Out(s.tile[1] * s.tile[2] * self.elements * s.width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.lines
        (part, *_), self.lasts = digits(m, s.sizes, self.issue, "rd")
        # places follow the counters a cycle later
        self.issued = delay(m, self.issue, 1, "issued", reset=True)
        self.were_last = [delay(m, last, 1, f"last_{name}") for name, last in zip(COUNTERS, self.lasts)]
        cycle, _ = counter(m, s.reads, self.issue, "cycle")
        m.d.comb += [self.choice.eq(part), self.weights_address.eq(delay(m, cycle, self.lines.ahead, "cycle"))]
        ends = Signal()  # a position's last read
        m.d.comb += ends.eq(self.issue & Cat(self.lasts[:-2]).all())
        begins = Signal(init=1)
        with m.If(self.issue):
            m.d.sync += begins.eq(ends)
        m.d.comb += self.available.eq(self._here(m, self.issue & begins) | ~begins)
        self._grant(m, ends)
        self._see(m, self._memories(m))
        return m

    # room and pixels

    def _here(self, m, begun):
        """Whether the next output's window is here: pixels that are, less its base, are more than its lag."""
        s = self.lines
        # the base moves on as soon as an output begins, so there is a cycle for that where it takes more than one
        later = s.reads > 1
        begun = delay(m, begun, int(later), "begun", reset=True)
        lasts = (self.were_last if later else self.lasts)[-2:]
        _, pixel_end = counter(m, s.words, self.i.valid, "pixel")
        arrived = delay(m, self.i.valid & pixel_end, 1, "arrived", reset=True)
        _, image_end = counter(m, s.shape.positions, arrived, "image")
        back = [-change for change in changes(s.out[::-1], s.strides, s.shape.positions + s.bonus)]
        came = [(arrived & image_end, 1 + s.bonus), (arrived, 1)]
        return self._balance(m, "lead", -s.lag - 1, outermost(begun, lasts, back), came)

    def _grant(self, m, ends):
        """Room for a pixel's first beat where its place is free: pixels that were granted, less the base of room."""
        s = self.lines
        _, pixel_end = counter(m, s.words, self.i.take, "granted")
        starts = Signal(init=1)
        with m.If(self.i.take):
            m.d.sync += starts.eq(pixel_end)
        # the next pixel's room is not wanted before its first beat
        taken = delay(m, self.i.take & starts, int(s.words > 1), "pixel_taken", reset=True)
        freed = delay(m, ends, 1, "freed", reset=True)
        moves = outermost(freed, self.were_last[-2:], changes(s.out[::-1], s.kept, s.shape.positions))
        spare = self._balance(m, "spare", s.ring - s.before - 1, moves, [(taken, -1)])
        m.d.comb += self.i.ready.eq(spare | ~starts)

    def _balance(self, m, name, init, *moves):
        """Whether a number of places is 0 or more; moves: of each the first (condition, change) that is true."""
        value = Signal(signed(self.lines.balance_bits), name=name, init=init)
        m.d.sync += value.eq(value + summed(moves))
        return ~value[-1]

    # memories

    def _memories(self, m):
        """[column bank][row bank] of what is seen."""
        s = self.lines
        (rows, columns), kept, payload = s.banks, s.kept_width, self.i.payload.as_value()
        data = Cat(payload[n * s.width :][:kept] for n in range(self.elements))
        write, slot, bank = self._write(m)
        read, self.slot, self.bank = self._read(m)
        beats = []
        for c in range(columns):
            address = Signal(range(max(2, s.depth)), name=f"rd_address{c}", reset_less=True)
            # columns before the first one's bank are in the next word; no bank is behind the last
            m.d.sync += address.eq(read + (Mux(c < self.bank, s.words, 0) if c < columns - 1 else 0))
            here = self.i.valid & (bank == c)
            beats.append(
                technology(s.target).ram(
                    m, f"column{c}", depth=s.depth, width=len(data), w_address=write, w_data=data, r_address=address,
                    enable=[here & (slot == r) if rows > 1 else here for r in range(rows)],
                )
            )
        return beats

    def _write(self, m):
        """Address, slot of the row and bank of the column of a beat that comes."""
        s = self.lines
        if s.whole:
            return counter(m, s.depth, self.i.valid, "wr_address")[0], None, Const(0, 0)
        (rows, columns), sizes = s.banks, (s.words, s.shape.width, s.rows)
        (_, _, slot), lasts = digits(m, sizes, self.i.valid, "wr")
        bank = climb(m, self.i.valid, lasts, changes(sizes, (0, 1, 0)), "wr_bank", range(columns), ring=columns)
        back = 1 - s.words
        to_row = back - (s.shape.width - 1) // columns * s.words
        ring = s.pitch if rows == 1 else 0
        moves = 1, back + Mux(bank == columns - 1, s.words, 0), to_row + ring, to_row - (s.rows - 1) * ring
        return climb(m, self.i.valid, lasts, moves, "wr_address", range(max(2, s.depth))), slot, bank

    def _along(self, m, name, shape, init, turn=0, ring=None, **strides):
        moves = changes(self.lines.sizes, [strides.get(name, 0) for name in COUNTERS], turn)
        return climb(m, self.issued, self.were_last, moves, name, shape, init, ring)

    def _read(self, m):
        """Of a tile's first operand: its address, the slot of its row, the bank of its column."""
        s = self.lines
        (rows, columns), (_, down, _), (sh, sw) = s.banks, s.tile, s.window.stride
        (height, width, _), (top, left, _, _), words = s.shape, s.window.padding, s.words
        if s.whole:
            strides = dict(down=width * words, across=words, column=sw * words, row=sh * width * words)
            init, turn = -s.before * words % s.depth, s.beats
            strides |= s.word_strides
            place = self._along(m, "place", range(s.depth), init, turn, s.depth, **strides)
            return place, None, Const(0, 0)
        # where each operand comes from some slots only, one of `groups`, every `each`-th: which group
        groups, each = s.groups
        steps = {"turn": height // each, "down": down // each, "row": sh // each}
        slot = self._along(m, "slot", range(groups), -top % s.rows // each, ring=groups, **steps)
        bank = self._along(m, "bank", range(columns), -left % columns, ring=columns, column=sw)
        *inner, back = changes(s.sizes[:-2], [{"across": words, **s.word_strides}.get(n, 0) for n in COUNTERS[:-2]])
        carry = bank + sw % columns >= columns
        to_row = back - ((s.out[1] - 1) * sw - left) // columns * words + -left // columns * words
        moves = *inner, back + sw // columns * words + Mux(carry, words, 0), to_row, to_row
        first, last = (int(at) // columns * words for at in (s.reach[1].min(), s.reach[1].max() + columns))
        place = climb(m, self.issued, self.were_last, moves, "place", signed(bits_between(first, last)), first)
        return place if rows > 1 else place + Array(n * s.pitch for n in range(s.rows))[slot], slot, bank

    # what is seen

    def _see(self, m, beats):
        s = self.lines
        (rows, columns), (_, down, across), (sh, sw) = s.banks, s.tile, s.window.stride
        inside = self._inside(m, "y", 0, down=down, row=sh), self._inside(m, "x", 1, across=across, column=sw)
        around, seen, (groups, each) = self._around(m), [], s.groups
        where = [delay(m, turned(self.bank, c, columns), s.way + READ, f"bank{c}") for c in range(across)]
        for r in range(down):
            words = [banks[0] for banks in beats]
            if rows > 1:
                at = -s.window.padding[0] % s.rows % each + r
                row = delay(m, turned(self.slot, at // each % groups, groups), 1 + READ, f"slot{r}")
                words = [Array(banks[at % each :: each])[row] for banks in beats]
                words = [delay(m, word, s.way - 1, f"row{r}_{c}") for c, word in enumerate(words)]
            for c in range(across):
                word = Array(words)[where[c]] if columns > 1 else words[0]
                elements = [word[n * s.kept_width :][: s.kept_width] for n in range(self.elements)]
                whole = Cat(Cat(x, Const(0, s.width - s.kept_width)) for x in elements)
                shown = Mux(inside[0][r] & inside[1][c], whole, around)
                seen.append(delay(m, shown, 1, f"seen{r}_{c}"))
        m.d.comb += self.seen.eq(Cat(seen))

    def _inside(self, m, name, axis, **strides):
        """For each row, or column, of a tile whether it is inside the map, when it comes out of the memories."""
        s = self.lines
        size, first, last = s.shape[axis], int(s.reach[axis].min()), int(s.reach[axis].max())
        place = self._along(m, name, signed(bits_between(first, last)), first, **strides)
        return [
            delay(m, (place >= -n) & (place < size - n), s.way + READ, f"{name}{n}_inside") if edge else Const(1, 1)
            for n, edge in enumerate(s.edges[axis])
        ]

    def _around(self, m):
        """What stands outside, for all elements of a beat, when the memories' words come."""
        s = self.lines
        words, width = to_bits(np.repeat(s.around, s.vectors, axis=1), s.width), s.width * self.elements
        if len(words) == 1:
            return Const(words[0], width)
        word = self._along(m, "word", range(s.words), 0, **s.word_strides)
        return technology(s.target).rom(m, "around", words, width, delay(m, word, s.way, "word"))


class LineReader(Buffered):
    """Windows over a map, as the engine's `lines` has them.

    What a contract says of a vector holds for a position, of its arrivals and reads for an image.
    """

    blocks = 1

    lines = figure(Lines, lambda self: self.engine.lines)
    ahead = figure(int, lambda self: self.lines.ahead)
    block_beats = figure(int, lambda self: self.lines.beats)
    issues = figure(int, lambda self: self.lines.reads)
    select = figure(np.ndarray, lambda self: self.lines.select)
    order = figure(np.ndarray, lambda self: self.lines.order)
    elements_seen = figure(int, lambda self: prod(self.lines.tile[1:]) * self.lines.lanes_in * self.lines.vectors)
    buffer_bits = figure(int, lambda self: self.lines.bits)
    holds = figure(float, lambda self: self.lines.ring / self.lines.shape.positions)

    def needed(self):
        return np.repeat(self.lines.needed * self.lines.words - 1, self.lines.reads)

    def buffer(self):
        return LineBuffer(self.lines)

    def cost(self, tally):
        s = self.lines
        (rows, columns), (_, down, across), elements = s.banks, s.tile, s.lanes_in * s.vectors
        seen, kept = down * across * elements * s.width, elements * s.kept_width
        levels = sum(size > 1 for size in s.sizes)
        # who reads and who writes, pixels and images, lead and spare
        digits_cost(tally, *s.sizes)
        for size in (s.reads, s.words, s.words, s.shape.positions if s.bonus else 1, self.engine.steps):
            counter_cost(tally, size)
        for _ in range(2):
            tally.adder(s.balance_bits, s.balance_bits)
            tally.add(s.balance_bits)
        tally.add(6, 8 + levels + self.ahead * ((s.reads - 1).bit_length() + 2) + (len(self.select) > 1) * self.ahead)
        # addresses, to write and to read, slots and banks in their rings, places in the map
        bits = (s.depth - 1).bit_length()
        if s.whole:
            counter_cost(tally, s.depth)
            climb_cost(tally, bits, levels, ring=True)
        else:
            digits_cost(tally, s.words, s.shape.width, s.rows)
            if s.words * columns > 1 or rows == 1:
                climb_cost(tally, bits, 3)
            climb_cost(tally, (s.pitch - 1).bit_length() + 2, levels)
        slots, places = s.turns
        turns = (s.groups[0] * (not s.whole), down if rows > 1 else 0, 1), (places, across, s.way)
        for ring, ways, late in turns:
            if ring > 1:
                climb_cost(tally, (ring - 1).bit_length(), 3, ring=ring & (ring - 1) > 0)
                tally.add(0, ways * (late + READ) * (ring - 1).bit_length())
        for axis, edges in enumerate(s.edges):
            if any(edges):
                climb_cost(tally, bits_between(int(s.reach[axis].min()), int(s.reach[axis].max())), 3)
            tally.add(sum(edges) * s.shape[axis].bit_length() / 2, sum(edges) * (s.way + READ))
        for _ in range(columns):
            tally.adder(bits if places > 1 else 0, bits)
            tally.take(tally.tech.ram_cost(s.depth, kept, rows))
        # the choice of a slot, and of a bank; a number that always stands outside is a register's reset
        choices = down * columns * ceil((slots - 1) * 2 / 3) + down * across * ceil((places - 1) * 2 / 3)
        tally.add(choices * kept, seen + (s.way - 1) * down * columns * kept)
        if len(s.around) > 1:
            climb_cost(tally, (s.words - 1).bit_length(), 5)
            tally.take(tally.tech.rom_cost(len(s.around), elements * s.width))
            tally.add(seen)


def bits_between(first, last):
    """Of a signed number of that range."""
    return max(last.bit_length(), (~first).bit_length()) + 1


def outermost(step, lasts, changes):
    """[(condition, change)] of nested counters that go on with `step`, as `changes` has them."""
    conditions = [step & Cat(lasts[:n]).all() if n else step for n in range(len(lasts) + 1)]
    return [*zip(conditions, changes)][::-1]


def summed(moves, total=0):
    """The sum of what is true in each group of (condition, change), the first that is, as a choice of constants."""
    if not moves:
        return Const(total)
    result = summed(moves[1:], total)
    for condition, change in reversed(moves[0]):
        result = Mux(condition, summed(moves[1:], total + change), result)
    return result


def turned(value, by, ring):
    """(value + by) mod ring, of a value and a constant below it."""
    further = value + by
    return Mux(further >= ring, further - ring, further) if by else value
