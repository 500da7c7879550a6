"""The rival that matters: a dense matrix-vector engine at the speed limit of the ECP5's primitives.

A row of cells, each with a multiplier, an accumulator and a ROM of the weights of its matrix rows. Element and weight
address wander from cell to cell, a cycle each, so that no wire is long; sums wander back to one requantiser.
"""

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from bfthw import IntFactor
from rtl_gen.engines.words import to_bits
from rtl_gen.signals import counter, credit, delay
from rtl_gen.tech import MULTIPLY, READ, technology

PIPELINE = 16  # cycles from the last sum of a group to its output, at most


@dataclass(frozen=True, kw_only=True)
class DenseSpec:
    """A dense layer without bias, residual or ReLU, and its parallelism.

    factor: of the pattern (1, n, n, 1), n a power of two. multipliers: as many matrix rows at a time; where they do
    not divide n, the last rows are padded. rom_words: weights of a cell, at most; more are addressed as if the address
    had no more bits, so the result is wrong and clock and cycles alone are of use.
    Raises ValueError for other factors, and for multipliers so many that sums would wait for each other.
    """

    factor: IntFactor
    multipliers: int
    target: str = "plain"
    rom_words: int | None = None

    def __post_init__(self):
        f, (a, b, n, d) = self.factor, self.factor.pattern
        if (a, d) != (1, 1) or b != n or n & (n - 1):
            raise ValueError(f"DenseSpec.factor must be of a pattern (1, n, n, 1), n a power of two, got {f.pattern}")
        if f.bias is not None or f.skip_input or f.relu or f.table or f.shift <= 0 or f.dot_shift:
            raise ValueError("DenseSpec.factor must have neither bias, residual nor activation, and drop bits")
        if not all(q.signed for q in (f.input, f.weights, f.output)):
            raise ValueError("DenseSpec.factor must have formats with a sign")
        if not 1 <= self.multipliers or 2 * self.multipliers + PIPELINE > n:
            raise ValueError(f"DenseSpec.multipliers must be 1 to {(n - PIPELINE) // 2}, got {self.multipliers}")

    @property
    def n(self):
        return self.factor.pattern.inputs

    @property
    def groups(self):
        """Times that the vector passes the cells."""
        return -(-self.n // self.multipliers)

    @property
    def interval(self):
        """Cycles a vector."""
        return self.groups * self.n

    @property
    def latency(self):
        """Cycles from the first accepted element to the first valid output: a vector in, a group, the pipeline."""
        return 2 * self.n + READ + MULTIPLY + 12

    @property
    def words(self):
        """Weights in the ROM of a cell."""
        return min(self.interval, self.rom_words or self.interval)

    @property
    def fits(self):
        return self.words == self.interval

    @cached_property
    def acc_width(self):
        return self.factor.input.width + self.factor.weights.width + (self.n - 1).bit_length()

    def weights(self, cell):
        """Unsigned words of a cell's ROM, in the order of use; rows beyond the matrix are zeros."""
        rows = self.factor.values[0, :, :, 0]
        mine = rows[cell :: self.multipliers].reshape(-1)[: self.words]
        return (to_bits(mine[:, None], self.factor.weights.width) + [0] * self.n)[: self.words]


class Dense(wiring.Component):
    """Streams of one element a beat, in natural order, with back-pressure at both ends; `o_last`: the vector's last."""

    def __init__(self, spec: DenseSpec):
        self.spec = spec
        super().__init__(
            {
                "i": In(stream.Signature(signed(spec.factor.input.width))),
                "o": Out(stream.Signature(signed(spec.factor.output.width))),
                "o_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s, tech = self.spec, technology(self.spec.target)
        width, n, cells = s.factor.input.width, s.n, s.multipliers
        group_left = Signal()

        # two vectors in a buffer: one comes in while the other is used
        came = Signal()
        data, w_address = Signal(width, reset_less=True), Signal((2 * n - 1).bit_length())
        free, running = Signal(), Signal()
        m.d.comb += self.i.ready.eq(free)
        m.d.sync += [came.eq(self.i.valid & free), data.eq(self.i.payload)]
        with m.If(came):
            m.d.sync += w_address.eq(w_address + 1)
        at, at_last = counter(m, n, self.i.valid & free, "taken")
        k, k_last = counter(m, n, running, "element")
        address, last = counter(m, s.interval, running, "address")
        slot = Signal()
        with m.If(running & last):
            m.d.sync += slot.eq(~slot)
        # a vector is granted room as a whole
        begins = Signal(init=1)
        with m.If(self.i.valid & free):
            m.d.sync += begins.eq(at_last)
        freed = delay(m, running & last, 1, "freed", reset=True)
        room = credit(m, 2, freed, self.i.valid & free & begins, "room", init=2)
        m.d.comb += free.eq(room | ~begins)
        # a vector begins when it is there, each group of it when there is room for its outputs; both begin so rarely
        # that they can be counted a cycle later
        vector, group = Signal(init=1), Signal(init=1)
        with m.If(running):
            m.d.sync += [vector.eq(last), group.eq(k_last)]
        filled = delay(m, self.i.valid & free & at_last, 2, "filled", reset=True)
        vectors = credit(m, 2, filled, delay(m, running & vector, 1, "vector_begun", reset=True), "vectors")
        spare = credit(m, 2, group_left, delay(m, running & group, 1, "group_begun", reset=True), "groups", init=2)
        m.d.comb += running.eq(~group | ((vectors | ~vector) & spare))

        (x,) = tech.ram(
            m, "x", depth=2 * n, width=width, enable=[came], w_address=w_address, w_data=data,
            r_address=Cat(k, slot),
        )
        # outside of a vector's elements the first cell sees zeros, and so does every other
        zero = ~delay(m, running, READ, "running", reset=True)
        head = Signal(signed(width), reset_less=True)
        m.d.sync += head.eq(Mux(zero, 0, x.as_signed()))
        # a register more, as the weights have
        total, given = self._cells(m, tech, delay(m, head, 1, "head"), address, running & k_last)

        dot, given = self._difference(m, total, given)
        y, valid, (ends, group_ends) = self._requantise(m, dot, *self._kept(m, given))
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(width=len(y) + 2, depth=2 * cells)
        m.d.comb += [
            queue.w_data.eq(Cat(y, ends, group_ends)),
            queue.w_en.eq(valid),
            self.o.payload.eq(queue.r_data[: len(y)].as_signed()),
            self.o_last.eq(queue.r_data[-2]),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        m.d.sync += group_left.eq(queue.r_rdy & queue.r_en & queue.r_data[-1])
        return m

    def _cells(self, m, tech, x, address, ends):
        """Running totals, and when they are there: a group's, from the first cell to the last, every other cycle."""
        s = self.spec
        w, bits = s.factor.weights.width, (s.words - 1).bit_length()
        address = delay(m, address[:bits], 1, "first")
        # a group's last product is in the accumulator so many cycles after its address
        ends = delay(m, ends, 1 + READ + 1 + MULTIPLY + 1, "ends", reset=True)
        totals = [Signal(signed(s.acc_width), name=f"total_{n}", reset_less=True) for n in range(s.multipliers)]
        valids = [Signal(name=f"given_{n}") for n in range(s.multipliers)]
        for n in range(s.multipliers):
            word = tech.rom(m, f"weights_{n}", s.weights(n), w, address)
            weight = delay(m, word, 1, f"weight_{n}").as_signed()
            (product,) = tech.products(m, f"cell{n}", [x], [weight])
            acc = Signal(signed(s.acc_width), name=f"acc_{n}")
            # never cleared: what came before is subtracted at the end, modulo 2^width
            m.d.sync += [acc.eq(acc + product), valids[n].eq(ends)]
            m.d.sync += totals[n].eq(acc)
            if n + 1 < s.multipliers:
                m.d.sync += [totals[n].eq(Mux(ends, acc, totals[n + 1])), valids[n].eq(ends | valids[n + 1])]
                x, address = delay(m, x, 1, f"x_{n}"), delay(m, address, 1, f"address_{n}")
                ends = delay(m, ends, 1, f"ends_{n}", reset=True)
        return totals[0], valids[0]

    def _difference(self, m, total, given):
        """Each total less the one that the same cell gave before."""
        s = self.spec
        m.submodules.before = store = memory.Memory(shape=signed(s.acc_width), depth=s.multipliers, init=[])
        write = store.write_port()
        read = store.read_port(domain="comb")
        cell, last = counter(m, s.multipliers, given, "cell")
        first = Signal(init=1)
        with m.If(given & last):
            m.d.sync += first.eq(0)
        before = Signal(signed(s.acc_width), reset_less=True)
        dot = Signal(signed(s.acc_width), reset_less=True)
        now = delay(m, total, 1, "now")
        m.d.comb += [write.addr.eq(cell), read.addr.eq(cell), write.data.eq(total), write.en.eq(given)]
        m.d.sync += [before.eq(Mux(first, 0, read.data)), dot.eq(now - before)]
        return dot, delay(m, given, 2, "dot_valid", reset=True)

    def _kept(self, m, given):
        """Whether a row is one of the matrix, and whether it is the last of all or of its group."""
        s = self.spec
        row, _ = counter(m, s.groups * s.multipliers, given, "row")
        _, last = counter(m, s.multipliers, given, "of_group")
        ends = row == s.n - 1
        return given & (row < s.n), (ends, ends | last)

    def _requantise(self, m, dot, valid, marks):
        """Half up, saturated, in three cycles, as `rtl_gen.engines.datapath` does it."""
        shift, width = self.spec.factor.shift, self.spec.factor.output.width
        value = (dot >> shift) + dot[shift - 1]
        rounded = Signal(signed(max(len(value), width)), reset_less=True)
        kept = Signal(signed(width), reset_less=True)
        over, sign = Signal(reset_less=True), Signal(reset_less=True)
        y = Signal(signed(width), reset_less=True)
        above, hi = rounded[width - 1 :], (1 << (width - 1)) - 1
        m.d.sync += [
            rounded.eq(value),
            kept.eq(rounded), over.eq(above.any() & ~above.all()), sign.eq(rounded[-1]),
            y.eq(Mux(over, Mux(sign, ~hi, hi), kept)),
        ]
        marks = [delay(m, mark, 3, f"mark{n}") for n, mark in enumerate(marks)]
        return y, delay(m, valid, 3, "y_valid", reset=True), marks
