"""From operands to outputs: products, adder tree, accumulator, what joins them, requantisation; all of it
free-running.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from amaranth.hdl import Array, Const, Mux, Signal, signed

from ..stream import SMALL, count, count_cost, counter, counter_cost, delay
from ..tech import MULTIPLY, READ, technology

LEAD = READ + 1  # cycles from the addresses of buffer and weights to operands


def to_bits(values, width):
    """Integers (words, ...) -> unsigned Python ints, one a word, the first element in the low bits."""
    values = np.asarray(values)
    if values.size == 0 or width == 0:
        return [0] * len(values)
    bits = (values.reshape(len(values), -1)[..., None] >> np.arange(width)) & 1
    packed = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def ordered(m, tech, name, words, width, address):
    """`words[address]`, LEAD cycles later, on its way through one register more than a ROM has."""
    if len(words) == 1 or width == 0:
        return Const(words[0], width)
    if tech.free_registers:
        return delay(m, tech.rom(m, name, words, width, address), 1, f"{name}_far")
    return tech.rom(m, name, words, width, delay(m, address, 1, f"{name}_near"))


def ordered_cost(tally, words, width):
    """The ROM, and the register behind it or that of the address before it.

    Of a few words, columns that are equal become one: so many of 2^words are expected to be there.
    """
    if words > 1:
        if words <= SMALL:
            width = 2**words * (1 - (1 - 0.5**words) ** width)
        tally.take(tally.tech.rom_cost(words, ceil(width)))
        tally.add(0, width if tally.tech.free_registers else (words - 1).bit_length())


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """What a datapath that serves some factors computes; for one factor, exactly IntFactor's rule.

    Where the factors' shifts differ, sums are shifted left by the difference, so that one requantisation serves all.
    order: indices of the outputs of all factors in a row, in the order in which they are computed; None: as they are.
    """

    factors: tuple
    simd: int
    steps: int
    order: np.ndarray | None = None

    @cached_property
    def x_width(self):
        return max(f.input.width for f in self.factors)

    @cached_property
    def w_width(self):
        return max(f.weights.width for f in self.factors)

    @cached_property
    def output_width(self):
        return self.factors[0].output.width

    @cached_property
    def shift(self):
        return max(f.shift for f in self.factors)

    @cached_property
    def lifts(self):
        """Left shifts that bring each factor's sums to the common shift."""
        return tuple(self.shift - f.shift for f in self.factors)

    @cached_property
    def dot_width(self):
        return self.x_width + self.w_width + (self.simd * self.steps - 1).bit_length()

    @cached_property
    def acc_width(self):
        return max(f.acc_width + lift for f, lift in zip(self.factors, self.lifts))

    @cached_property
    def dot_shifts(self):
        """Left shift of each output's dot product, int64, all factors in a row."""
        per_factor = ((f.dot_shift + lift, f.pattern.outputs) for f, lift in zip(self.factors, self.lifts))
        return np.concatenate([np.broadcast_to(shift, outputs) for shift, outputs in per_factor])

    @cached_property
    def half(self):
        return 1 << (self.shift - 1) if self.shift > 0 else 0

    @property
    def skip_factor(self):
        """The factor that a residual joins, which is the last, or None."""
        return self.factors[-1] if self.factors[-1].skip_input else None

    @cached_property
    def fields(self):
        """What an output needs beside its dot product: name → (values (outputs,), bits, signed); `bias` with the half
        in it.
        """
        fields, f = {}, self.factors[-1]
        outputs = [f.pattern.outputs for f in self.factors]
        before = sum(outputs) - outputs[-1]
        if f.skip is not None:
            fields["skip"] = np.concatenate([np.zeros(before, int), f.skip]), f.skip_weights.width, True
        if any(f.bias is not None for f in self.factors):
            parts, bits = [], []
            for f, lift in zip(self.factors, self.lifts):
                bias = np.zeros(f.pattern.outputs, int) if f.bias is None else f.bias
                parts.append((bias << lift) + self.half)
                bits.append((f.bias_width or 0) + lift)
            fields["bias"] = np.concatenate(parts), max(*bits, self.half.bit_length()) + 1, True
        if np.ptp(self.dot_shifts):
            extra = self.dot_shifts - self.dot_shifts.min()
            fields["extra"] = extra, int(extra.max()).bit_length(), False
        relu = [f.relu for f in self.factors]
        if len(set(relu)) > 1:
            fields["relu"] = np.repeat(relu, outputs).astype(int), 1, False
        return fields

    def in_order(self, values):
        return values if self.order is None else values[self.order]

    @property
    def field_bits(self):
        """Bits of all fields of an output."""
        return sum(bits for _, bits, _ in self.fields.values())

    tree = property(lambda self: (self.simd - 1).bit_length())

    @property
    def to_total(self):
        """Cycles from operands to the sum that is rounded."""
        return MULTIPLY + self.tree + (self.steps > 1)

    @property
    def depth(self):
        """Cycles from a dot product's last operands to its output: to the sum, the rounded sum, its overflow, the
        output.
        """
        return self.to_total + 3


class Datapath:
    """`lanes` dot products and what follows, for `vectors` vectors side by side; weights and fields serve all of those.

    target, lut: see Technology. paired: bits between two weights that share a multiplier, 0 where none do. Signals are
    made in `build`.
    """

    def __init__(self, arithmetic, *, lanes, vectors, target, lut, paired=0):
        self.a, self.lanes, self.vectors, self.lut, self.paired = arithmetic, lanes, vectors, lut, paired
        self.tech = technology(target)

    def build(self, m, xs, ws, *, take, busy=None, first=None, x0=None, x0_lead=LEAD):
        """Outputs and whether each was clipped, lane by lane, `depth` cycles after the operands.

        xs: [lane][vector][q], ws: [lane][q], operands. The rest comes LEAD cycles before its operands: take:
        they are an output's last; busy, first: they are some output's, its first ones; and `x0_lead` cycles before them
        x0: [lane][vector], the residual. Paired: one row of operands for two lanes, each w two weights `paired` bits
        apart.
        """
        a = self.a
        pairs = [(x, w) for row, weights in zip(xs, ws) for operands in row for x, w in zip(operands, weights)]
        products = self.tech.products(m, "product", *zip(*pairs), lut=self.lut)
        if self.paired:
            # what is below is exact by itself; it has borrowed from what is above where it is negative
            products = [p[: self.paired].as_signed() for p in products] + [
                (p >> self.paired) + p[self.paired - 1] for p in products
            ]
        per_output = self._fields(m, take)
        if a.steps > 1:
            busy = delay(m, busy, LEAD + a.to_total - 1, "busy", reset=True)
            first = delay(m, first, LEAD + a.to_total - 1, "first")
        outputs, clips = [], []
        for lane in range(self.lanes):
            for vector in range(self.vectors):
                name = f"{lane}" if self.vectors == 1 else f"{lane}v{vector}"
                n = (lane * self.vectors + vector) * a.simd
                dot = self._sum(m, name, products[n : n + a.simd], busy, first)
                rest = self._rest(m, name, per_output[lane], x0 and x0[lane][vector], x0_lead)
                y, clipped = self._requantise(m, name, dot, rest, per_output[lane])
                outputs.append(y)
                clips.append(clipped)
        return outputs, clips

    def _fields(self, m, take):
        """[lane] of name → signal, each in the cycle in which it is needed."""
        a, result, cycles = self.a, [{} for _ in range(self.lanes)], {}
        needed = {"skip": a.to_total - MULTIPLY, "relu": a.depth - 1}
        for name, field in a.fields.items():
            cycles.setdefault(needed.get(name, a.to_total), []).append((name, *field))
        for cycle, fields in cycles.items():
            words, at, slices = [0] * (len(fields[0][1]) // self.lanes), 0, []
            for name, values, width, is_signed in fields:
                for lane in range(self.lanes):
                    bits = to_bits(a.in_order(values)[lane :: self.lanes, None], width)
                    words = [word | value << at for word, value in zip(words, bits)]
                    slices.append((lane, name, at, width, is_signed))
                    at += width
            step = delay(m, take, cycle, f"take{cycle}", reset=True)
            address, _ = counter(m, len(words), step, f"fields{cycle}_address")
            data = ordered(m, self.tech, f"fields{cycle}", words, at, address)
            for lane, name, at, width, is_signed in slices:
                value = data[at : at + width]
                result[lane][name] = value.as_signed() if is_signed else value
        return result

    def _sum(self, m, name, terms, busy, first):
        """The exact dot product, in the cycle of the sum that is rounded."""
        a = self.a
        total = count(m, terms, f"sum{name}")
        if a.steps == 1:
            return total
        acc = Signal(signed(a.dot_width), name=f"acc{name}", reset_less=True)
        with m.If(busy):
            m.d.sync += acc.eq(Mux(first, 0, acc) + total)
        return acc

    def _rest(self, m, name, fields, x0, lead):
        """What joins the dot product, when it is rounded: residual, bias and half; None for the half alone."""
        a, f = self.a, self.a.skip_factor
        if f is None:
            return fields.get("bias")
        wait = lead + a.to_total - (MULTIPLY if f.skip is not None else 0)
        x0 = delay(m, x0, wait, f"residual{name}")
        if f.skip is not None:
            (x0,) = self.tech.products(m, f"residual{name}_product", [x0], [fields["skip"]], lut=self.lut)
        return (x0 << (f.skip_shift + a.lifts[-1])) + fields.get("bias", a.half)

    def _requantise(self, m, name, dot, rest, fields):
        """The aligned sum, rounded, `shift` bits dropped, saturated, clamped by ReLU; three cycles.

        Returns the output and whether it was clipped; what a ReLU removes anyway was not.
        """
        a = self.a
        aligned = dot << int(a.dot_shifts.min())
        if "extra" in fields:
            # one of a few constant shifts, chosen by the output
            shifts = [aligned << n for n in range(int(np.ptp(a.dot_shifts)) + 1)]
            aligned = Signal(shifts[-1].shape(), name=f"aligned{name}")
            m.d.comb += aligned.eq(Array(shifts)[fields["extra"]])
        if rest is not None:
            value = aligned + rest
            value = value >> a.shift if a.shift > 0 else value << -a.shift
        elif a.shift > 0:
            # the half only carries into what is kept
            carry = aligned[a.shift - 1] if a.shift <= len(aligned) else aligned[-1]
            value = (aligned >> a.shift) + carry
        else:
            value = aligned << -a.shift
        width = max(a.acc_width - a.shift, a.output_width) if a.shift > 0 else a.acc_width
        total = Signal(signed(width), name=f"total{name}", reset_less=True)
        m.d.sync += total.eq(value)

        hi = (1 << (a.output_width - 1)) - 1
        kept = Signal(signed(a.output_width), name=f"kept{name}", reset_less=True)
        over, sign = Signal(name=f"over{name}", reset_less=True), Signal(name=f"sign{name}", reset_less=True)
        above = total[a.output_width - 1 :]
        m.d.sync += [kept.eq(total), over.eq(above.any() & ~above.all()), sign.eq(total[-1])]
        y = Signal(signed(a.output_width), name=f"y{name}", reset_less=True)
        clips = Signal(name=f"clips{name}", reset_less=True)
        relu = fields.get("relu", Const(int(a.factors[-1].relu), 1))
        m.d.sync += [
            y.eq(Mux(over, Mux(sign, ~hi, hi), kept)),
            clips.eq(over & ~(sign & relu)),
        ]
        with m.If(sign & relu):
            m.d.sync += y.eq(0)
        return y, clips

    @staticmethod
    def cost(tally, a, *, lanes, vectors, lut, wait, paired=False):
        """Products, and for each lane and vector adder tree, accumulator, residual, requantisation.

        wait: cycles of the residual beyond those of the arithmetic. paired: two lanes share each multiplier.
        """
        each, tech = lanes * vectors, tally.tech
        if paired:
            tally.take(tech.products_cost(vectors * a.simd, a.x_width, tech.operand, lut=lut))
            for _ in range(vectors * a.simd):
                tally.adder(a.x_width + a.w_width)  # the upper product, less what the lower one has borrowed
        else:
            tally.take(tech.products_cost(each * a.simd, a.x_width, a.w_width, lut=lut))
        one = tally.empty()
        width, terms = a.x_width + a.w_width, a.simd
        while terms > 1:
            for _ in range(terms // 2):
                one.adder(width + 1, width + 1)
            width, odd, terms = width + 1, terms % 2, -(-terms // 2)
            one.add(0, odd * (width - 1))
        if a.steps > 1:
            one.adder(a.dot_width, a.dot_width)
            one.add(a.dot_width)  # the first term replaces the sum
        total = max(a.acc_width - a.shift, a.output_width) if a.shift > 0 else a.acc_width
        f = a.skip_factor
        joins = f is not None or "bias" in a.fields
        if joins or a.shift > 0:
            one.adder(a.acc_width if joins else total, one=not joins)
        if f is not None:
            taken = MULTIPLY if f.skip is not None else 0
            one.add(0, (wait + a.to_total - taken) * f.skip_input.width)
            if taken:
                one.take(tech.products_cost(1, f.skip_input.width, f.skip_weights.width, lut=lut))
            one.adder(a.acc_width)
        if "extra" in a.fields:
            one.add(a.acc_width * a.fields["extra"][1])
        above = total - a.output_width + 1
        # saturation: whether the upper bits agree, then the choice of what leaves
        one.add(above / 2 + a.output_width + 2, total + 2 * a.output_width + 3)
        tally.take(one.sum, each)
        count_cost(tally, each)
        # fields that are needed in the same cycle share a ROM
        needed, roms = {"skip": 1, "relu": 2}, Counter()
        for name, (_, bits, _) in a.fields.items():
            roms[needed.get(name, 0)] += bits
        for bits in roms.values():
            words = sum(f.pattern.outputs for f in a.factors) // lanes
            counter_cost(tally, words)
            ordered_cost(tally, words, bits * lanes)
        tally.add(0, LEAD + a.depth)
