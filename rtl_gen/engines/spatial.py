"""A factor as a pipeline of adders: a vector a cycle, every weight a constant, no multiplier and no memory."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..cost import Tally
from ..signals import beat, element
from ..stream import Link
from ..tech import READ, number, technology
from .adders import OVERHEAD, Graph, solve, width
from .datapath import looked_up
from .engine import Engine, figure
from .sharing import signed_digits

SKIP = 3  # cycles from a vector's arrival to that of its residual, at least
COUNTED = 8  # clipped values that are counted in a cycle


@dataclass(frozen=True, kw_only=True)
class Spatial(Engine):
    """A constant multiplier for each weight. A beat is whole vectors: element n of vector e is at n * vectors + e, and
    each vector has adders of its own.

    More members: graphs, inputs, outputs, shift, bounds, clips: see there; adder_depth, count_depth, cycles until every
    accumulator is complete, and that counting takes beyond it; adders; counted, values of a beat that can clip.
    """

    kind: ClassVar[str] = "spatial"
    last_resort: ClassVar[bool] = True
    beats_in = beats_out = interval = 1
    multipliers = buffer_bits = words = 0

    lanes_in = figure(int, lambda self: self.pattern.inputs)
    lanes_out = figure(int, lambda self: self.pattern.outputs)
    output_flight = figure(int, lambda self: self.flight + self.depth)

    def output_times(self, arrivals: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
        return np.asarray(arrivals) + self.depth

    def skip_times(self, arrivals: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(arrivals) + SKIP

    holds = figure(float, lambda self: self.depth + 1)

    @cached_property
    def graphs(self) -> dict[tuple[int, int], Graph]:
        """(i, l) -> the Graph of that block: its accumulators, rounding constant included.

        They are linear in the block's inputs and, with a residual, in x0 of its outputs. Row exponents and a negative
        shift of the requantisation are in the weights.
        """
        f = self.factor
        a, b, c, d = f.values.shape
        up = max(0, -f.shift)
        rows = f.values << np.broadcast_to(f.dot_shift, self.lanes_out).reshape(a, b, 1, d)
        constants = np.full(self.lanes_out, 1 << f.shift - 1 if f.shift > 0 else 0) + (0 if f.bias is None else f.bias)
        ranges, levels = [(f.input.lo, f.input.hi)] * c, [0] * c
        if f.skip_input:
            skip = np.broadcast_to(1 if f.skip is None else f.skip, self.lanes_out) << f.skip_shift
            skip = skip.reshape(a, b, d)
            ranges, levels = ranges + [(f.skip_input.lo, f.skip_input.hi)] * b, levels + [SKIP] * b
        constants = constants.reshape(a, b, d) << up
        result = {}
        for i, l in np.ndindex(a, d):
            matrix = rows[i, :, :, l]
            if f.skip_input:
                matrix = np.concatenate([matrix, np.diag(skip[i, :, l])], 1)
            result[i, l] = solve(matrix << up, ranges, constants[i, :, l], levels)
        return result

    def inputs(self, i: int, l: int) -> list[int]:
        """Elements that a block takes, as numbers of x."""
        if self.factor.support is not None:
            return self.factor.support.index[i].tolist()
        _, _, c, d = self.pattern
        return [(i * c + k) * d + l for k in range(c)]

    def outputs(self, i: int, l: int) -> list[int]:
        """Elements that a block gives, as numbers of y and of x0."""
        _, b, _, d = self.pattern
        return [(i * b + j) * d + l for j in range(b)]

    @property
    def shift(self) -> int:
        """Bits that are dropped from an accumulator of `graphs`."""
        return max(0, self.factor.shift)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """Exact (lo, hi) of each output before saturation."""
        ends = [None] * self.lanes_out
        for block, graph in self.graphs.items():
            for j, n in enumerate(self.outputs(*block)):
                ends[n] = tuple(end >> self.shift for end in graph.output_range(j))
        return ends

    def clips(self, n: int) -> tuple[bool, bool]:
        """Whether output n can be above what it is held to, and below the format, where no ReLU is."""
        (lo, hi), f = self.bounds[n], self.factor
        return hi > self.top, lo < f.rounded.lo and not f.relu

    @cached_property
    def counted(self) -> int:
        """Values of a beat that can clip at all; what a clamp takes away is nothing that was clipped."""
        clamps = self.top < self.factor.rounded.hi
        return 0 if clamps else sum(any(self.clips(n)) for n in range(self.lanes_out)) * self.vectors

    @property
    def top(self) -> int:
        """The most that a rounded sum can be."""
        return self.factor.rounded.hi if self.factor.top is None else self.factor.top

    # cycles

    @cached_property
    def adder_depth(self) -> int:
        """Cycles until every accumulator is complete."""
        return max(graph.depth for graph in self.graphs.values())

    @property
    def count_depth(self) -> int:
        """Cycles that counting the clipped values takes beyond its last additions."""
        levels, n = 0, self.counted
        while n > COUNTED:
            levels, n = levels + 1, -(-n // COUNTED)
        return levels

    @property
    def depth(self) -> int:
        """Cycles from `i.valid` to `o.valid`: adders, saturation, a table, counting."""
        return self.adder_depth + 1 + self.table_depth + self.count_depth

    @property
    def table_depth(self) -> int:
        return READ * (self.factor.table is not None)

    # size

    @property
    def rom_bits(self) -> int:
        table = self.factor.table
        return 0 if table is None else self.lanes_out * self.vectors * len(table.values) * self.factor.output.width

    adders = figure(int, lambda self: sum(len(graph.nodes) for graph in self.graphs.values()) * self.vectors)

    @property
    def tables(self) -> int:
        """Estimate of TRELLIS_COMB on ECP5: carry chains, in pairs of bits, with what nextpnr puts at their ends; a
        table a bit of each output; three for each value that can clip (its flag, its part of the count)."""
        cells = sum(2 * -(-node.cells // 2) + OVERHEAD for graph in self.graphs.values() for node in graph.nodes)
        return (cells + self.lanes_out * self.factor.output.width) * self.vectors + 3 * self.counted

    @property
    def registers(self) -> int:
        """Estimate of TRELLIS_FF: values for as long as they are needed, outputs, flags of values that clip."""
        bits = sum(graph.registers(self.adder_depth, self.shift) for graph in self.graphs.values()) * self.vectors
        outputs = self.lanes_out * self.vectors * self.factor.output.width * (1 + self.count_depth)
        return bits + outputs + 2 * self.counted + self.depth

    parts = figure(int, lambda self: self.pattern.weights + self.pattern.inputs + self.pattern.outputs)

    @property
    def digits(self) -> np.ndarray:
        a, _, _, d = self.factor.values.shape
        return signed_digits(self.factor.values).sum(axis=(1, 2)).reshape(a * d)

    def cost(self, tally: Tally) -> None:
        tally.add(self.tables, self.registers)
        if self.factor.table is not None:
            each = tally.tech.rom_cost(len(self.factor.table.values), self.factor.output.width)
            tally.take(each, self.lanes_out * self.vectors)

    def component(self) -> wiring.Component:
        return SpatialUnit(self)


class Late:
    """A value and its copies a number of cycles later, made where they are asked for; a reset is for control bits."""

    def __init__(self, m, value, name, cycle=0, reset=False):
        self.m, self.name, self.cycle, self.reset, self.copies = m, name, cycle, reset, [value]

    def at(self, cycle):
        while len(self.copies) <= cycle - self.cycle:
            name = f"{self.name}_s{self.cycle + len(self.copies)}"
            copy = Signal.like(self.copies[-1], name=name, reset_less=not self.reset)
            self.m.d.sync += copy.eq(self.copies[-1])
            self.copies.append(copy)
        return self.copies[cycle - self.cycle]


class SpatialUnit(wiring.Component):
    """The component of a Spatial engine. Nothing is ever held: room at `o` is room at `i`.

    Parameters
    ----------
    engine : Spatial

    Members
    -------
    i : In(Link), o : Out(Link)
        whole vectors.
    skip : In(stream), where a residual joins
        the layer's input; a beat is taken `SKIP` cycles after the `i.valid` it belongs to and has to be there by then.
    saturated : Out
        values of the beat in `o` that were clipped.
    """

    def __init__(self, engine):
        self.engine = engine
        f = engine.factor
        ports = {
            "i": In(Link(beat(f.input, engine.lanes_in * engine.vectors))),
            "o": Out(Link(beat(f.output, engine.lanes_out * engine.vectors))),
            "saturated": Out(range(engine.lanes_out * engine.vectors + 1)),
        }
        if f.skip_input:
            ports["skip"] = In(stream.Signature(beat(f.skip_input, engine.lanes_out * engine.vectors)))
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        s = self.engine
        valid = Late(m, self.i.valid, "valid", reset=True)
        m.d.comb += [
            self.i.ready.eq(self.o.ready),
            self.o.take.eq(self.i.take),
            self.o.valid.eq(valid.at(s.depth)),
        ]
        if s.factor.skip_input:
            m.d.comb += self.skip.ready.eq(valid.at(SKIP))
        done, flags = s.adder_depth + 1 + s.table_depth, []
        for (i, l), graph in s.graphs.items():
            for e in range(s.vectors):
                name = f"b{i}_{l}" if s.vectors == 1 else f"b{i}_{l}v{e}"
                sources = [self.i.payload[n * s.vectors + e] for n in s.inputs(i, l)]
                if s.factor.skip_input:
                    sources += [self.skip.payload[n * s.vectors + e] for n in s.outputs(i, l)]
                for n, total in zip(s.outputs(i, l), self._totals(m, graph, sources, name)):
                    y, clips = self._saturate(m, total, n, f"{name}_{n}")
                    m.d.comb += self.o.payload[n * s.vectors + e].eq(Late(m, y, f"y{n}v{e}", done).at(s.depth))
                    if clips is not None:
                        flags.append(clips & valid.at(done))
        while len(flags) > COUNTED:
            sums = [sum(flags[n + 1 : n + COUNTED], flags[n]) for n in range(0, len(flags), COUNTED)]
            flags = [Late(m, value, f"count{len(sums)}_{n}", reset=True).at(1) for n, value in enumerate(sums)]
        m.d.comb += self.saturated.eq(sum(flags[1:], flags[0]) if flags else 0)
        return m

    def _totals(self, m, graph, sources, name):
        """The accumulators of a block, all in cycle `adder_depth`."""
        values = [Late(m, x, f"{name}_x{n}", level) for n, (x, level) in enumerate(zip(sources, graph.levels))]
        for n, node in enumerate(graph.nodes):
            a, b = (None if v is None else number(values[v].at(node.level - 1)) for v in (node.a, node.b))
            value = Signal(signed(node.width), name=f"{name}_n{n}", reset_less=True)
            m.d.sync += value.eq(add(node, a, b))
            values.append(Late(m, value, f"{name}_n{n}", node.level))
        for n, out in enumerate(graph.outputs):
            total = Const(out.constant, signed(width(out.constant, out.constant)))
            if out.source is not None:
                source = number(values[out.source].at(self.engine.adder_depth))
                total = Cat(Const(out.constant, out.shift), source).as_signed() if out.shift else source
            yield ~total if out.invert else total

    def _saturate(self, m, total, n, name):
        """The requantisation's end, one register: the output and whether it was clipped, None where it cannot be."""
        f, (over, under) = self.engine.factor, self.engine.clips(n)
        form, y = element(f.rounded), Signal(signed(width(*self.engine.bounds[n])), name=f"{name}_total")
        m.d.comb += y.eq(total >> self.engine.shift)
        value, sign, clips, outside = y, y[-1], Const(0, 1), y[f.rounded.hi.bit_length() :]
        if under:
            below = sign & ~outside.all() if f.rounded.signed else sign
            value, clips = Mux(below, Const(f.rounded.lo, form), value), below
        if over:
            above = ~sign & (outside.any() if self.engine.top == f.rounded.hi else y > self.engine.top)
            value, clips = Mux(above, Const(self.engine.top, form), value), clips | above
        if f.relu:
            value = Mux(sign, 0, value)
        out = Signal(form, name=f"{name}_y", reset_less=True)
        m.d.sync += out.eq(value)
        if f.table is not None:
            out = looked_up(m, technology(self.engine.target), f"{name}_table", f, out)
        clipped = self.engine.counted and (over or under)
        return out, Late(m, clips, f"{name}_clips").at(1 + self.engine.table_depth) if clipped else None


def add(node, a, b):
    """The value of a Node, of its operands: bits of `a` that pass, and a carry chain of `node.cells` bits."""
    if node.a is None:
        constant = node.constant >> node.start
        low, left, right, carry = b, cut(b, node.start), Const(constant, signed(width(constant, constant))), 0
    elif node.minus and node.a_shift:
        low, left, right, carry = a, Cat(Const(max(0, node.constant), node.a_shift), a), b, node.constant < 0
    else:
        constant = -node.constant if node.minus else node.constant
        carry = constant == 1 << node.b_shift
        zeros = Const(0 if carry else constant >> node.start, node.b_shift - node.start)
        low, left, right = a, cut(a, node.start), Cat(zeros, b)
    left, right = left.as_signed(), right.as_signed()
    if carry:
        # a bit below makes the carry, or the borrow
        left, right = Cat(not node.minus, left).as_signed(), Cat(1, right).as_signed()
    total = left - right if node.minus else left + right
    return Cat(cut(low, 0, node.start), total[carry:]).as_signed()


def cut(value, start, size=None):
    """Bits `start` and on, sign-extended to `size` bits where that is given."""
    value = value[min(start, len(value) - 1) :]
    return value if size is None else Cat(value, value[-1].replicate(max(0, size - len(value))))[:size]
