"""From operands to outputs: products, adder tree, accumulator, what joins them, requantisation; all of it
free-running.
"""

import numpy as np
from amaranth.hdl import Array, Cat, Const, Mux, Signal, signed

from ..signals import count, count_cost, delay, element, numbers
from ..tech import MULTIPLY, READ, technology
from .fields import fields_cost, read_fields
from .words import LEAD, to_bits


def looked_up(m, tech, name, factor, y):
    """What the table of a factor gives for `y`, READ cycles later."""
    fmt, output = factor.table.input, factor.output
    words = to_bits(np.roll(factor.table.values, fmt.lo)[:, None], output.width)  # by the bits of y, the sign above
    return numbers(tech.rom(m, name, words, output.width, y[: fmt.width]), element(output), 1)[0]


def picked(m, name, x, bit):
    """x where a weight of 0 or 1 is 1, a signed signal, MULTIPLY cycles later."""
    x = x if x.shape().signed else Cat(x, Const(0, 1)).as_signed()
    chosen = Signal(x.shape(), name=f"{name}_chosen")
    m.d.comb += chosen.eq(Mux(bit[0], x, 0))
    return delay(m, chosen, MULTIPLY, name)


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
        if a.bits:
            products = [picked(m, f"product{n}", x, w) for n, (x, w) in enumerate(pairs)]
        else:
            products = self.tech.products(m, "product", *zip(*pairs), lut=self.lut)
        if self.paired:
            # what is below is exact by itself; it has borrowed from what is above where it is negative
            products = [p[: self.paired].as_signed() for p in products] + [
                (p >> self.paired) + p[self.paired - 1] for p in products
            ]
        per_output = read_fields(m, a, self.tech, self.lanes, take)
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
                total = self._rounded(m, name, dot, rest, per_output[lane])
                y, clipped = self.limited(m, name, total, per_output[lane])
                if a.table is not None:
                    y = self._looked_up(m, name, y, per_output[lane])
                    clipped = delay(m, clipped, READ, f"clips{name}")
                outputs.append(y)
                clips.append(clipped)
        return outputs, clips

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

    def _rounded(self, m, name, dot, rest, fields):
        """The aligned sum, rounded, `shift` bits dropped; a cycle."""
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
        total = Signal(signed(a.total_width), name=f"total{name}", reset_less=True)
        m.d.sync += total.eq(value)
        return total

    def limited(self, m, name, total, fields):
        """The rounded sum saturated, clamped by ReLU and whatever else; two cycles.

        Returns the output and whether it was clipped; what a ReLU or a clamp removes anyway was not.
        """
        a = self.a
        kept = Signal(a.rounded_shape, name=f"kept{name}", reset_less=True)
        m.d.sync += kept.eq(total)
        limits = {}  # lo, hi, top → whether the sum is beyond, what it becomes below and above
        for end in a.ends:
            if (limit := (end.lo, end.hi, end.top)) not in limits:
                over = Signal(name=f"over{name}" + f"_{len(limits)}" * bool(limits), reset_less=True)
                m.d.sync += over.eq(end.beyond(total))
                limits[limit] = over, end.lo, end.hi if end.top is None else end.top
        sign = Signal(name=f"sign{name}", reset_less=True)
        m.d.sync += sign.eq(total[-1])

        def own(values):
            """Of values for each way to end, that of the output."""
            return Array(values)[fields["end"]] if len(values) > 1 else values[0]

        # where all ends are beyond alike there is nothing to choose
        alike = a.ends[:1] if len(limits) == 1 else a.ends
        over, least, most = map(own, zip(*(limits[end.lo, end.hi, end.top] for end in alike)))
        relus = [end.relu for end in a.ends]
        relu = fields["end"] if relus == [False, True] else own([Const(relu) for relu in relus])
        y = Signal(a.rounded_shape, name=f"y{name}", reset_less=True)
        clips = Signal(name=f"clips{name}", reset_less=True)
        clipped = over & ~(sign & relu)
        if any(end.top is not None for end in a.ends):
            clipped = clipped & own([Const(end.top is None) for end in a.ends])  # what a clamp removes was wanted
        m.d.sync += [y.eq(Mux(over, Mux(sign, least, most), kept)), clips.eq(clipped)]
        with m.If(sign & relu):
            m.d.sync += y.eq(0)
        return y, clips

    def requantised(self, m, name, dot):
        """What becomes of a sum that nothing joins, of one factor: (output, whether it was clipped), 3 cycles later."""
        return self.limited(m, name, self._rounded(m, name, dot, None, {}), {})

    def _looked_up(self, m, name, y, fields):
        """What the table gives, READ cycles later; other factors' outputs as they are."""
        a, f = self.a, self.a.factors[-1]
        found = looked_up(m, self.tech, f"table{name}", f, y)
        if len(a.ends) == 1:
            return found
        which = delay(m, fields["end"], READ + 1, f"end{name}")
        result = Signal(a.output_shape, name=f"out{name}")
        is_table = Array([Const(end.table) for end in a.ends])[which]
        m.d.comb += result.eq(Mux(is_table, found, delay(m, y, READ, f"untold{name}")))
        return result

    @staticmethod
    def cost(tally, a, *, lanes, vectors, lut, wait, paired=False):
        """Products, and for each lane and vector adder tree, accumulator, residual, requantisation.

        wait: cycles of the residual beyond those of the arithmetic. paired: two lanes share each multiplier.
        """
        each, tech = lanes * vectors, tally.tech
        if paired:
            tally.take(tech.products_cost(vectors * a.simd, a.x_width, tech.operand, lut=lut, signed=a.x_shape.signed))
            for _ in range(vectors * a.simd):
                tally.adder(a.x_width + a.w_width)  # the upper product, less what the lower one has borrowed
        elif a.bits:
            tally.add(each * a.simd * a.x_width, each * a.simd * a.x_width * MULTIPLY)
        else:
            tally.take(tech.products_cost(each * a.simd, a.x_width, a.w_width, lut=lut, signed=a.x_shape.signed))
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
        total, f = a.total_width, a.skip_factor
        joins = f is not None or "bias" in a.fields
        if joins or a.shift > 0:
            one.adder(a.acc_width if joins else total, one=not joins)
        if f is not None:
            taken = MULTIPLY if f.skip is not None else 0
            one.add(0, (wait + a.to_total - taken) * f.skip_input.width)
            if taken:
                x0 = f.skip_input
                one.take(tech.products_cost(1, x0.width, f.skip_weights.operand, lut=lut, signed=x0.signed))
            one.adder(a.acc_width)
        if "extra" in a.fields:
            one.add(a.acc_width * a.fields["extra"][1])
        width = a.rounded_shape.width
        # saturation: whether the upper bits agree, then the choice of what leaves
        one.add((total - width + 1) / 2 + width + 2, total + 2 * width + 3)
        for end in a.ends:
            if end.top is not None:
                one.adder(total)  # compares
        if a.table is not None:
            one.take(tech.rom_cost(len(a.table.values), a.factors[-1].output.width))
            others = len(a.ends) > 1
            one.add(others * a.output_width, READ * (1 + others * width))
        tally.take(one.sum, each)
        count_cost(tally, each)
        fields_cost(tally, a, lanes)
        tally.add(0, LEAD + a.depth)
