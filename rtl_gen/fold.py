"""The folded engine: factors that take turns on one memory and one datapath, in place, for some vectors at a time.

A pass is a factor: it reads a group of c words, one a cycle, keeps them while its c outputs are computed, one a cycle,
and writes these to the places of the words they were made of. The last pass leaves in natural order instead, and the
next vectors are loaded into the places that it has read. So the memory holds each vector once, every multiplier is busy
in every cycle, and n words in, n·passes cycles, n words out are one vector's share (with `vectors`, of each of them).
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .datapath import LEAD, Datapath, delay, ordered, to_bits
from .foldspec import FoldSpec
from .stream import Link, beat, count, counter, credit, digits, gathered, turns
from .tech import READ, technology


def walk(m, patterns, step, name):
    """Addresses in which the passes read their groups, one a step: address, and by name what is true of the read.

    A group's words are d apart; the next group is one further; a block's last word is followed by the next block's
    first. So the address is a sum; what is added next, and all flags, are a step ahead in registers of their own.
    """
    size, passes = patterns[0].inputs, len(patterns)
    address = Signal(range(size), name=f"{name}_address")
    added = Signal(len(address), name=f"{name}_added", init=patterns[0].d)
    now = {
        "opens": Signal(name=f"{name}_opens", init=1),  # a group of the first pass
        "last": Signal(name=f"{name}_last"),  # of a group
        "end": Signal(name=f"{name}_end"),  # of a pass
        "last_pass": Signal(name=f"{name}_last_pass", init=passes == 1),
        "pass": Signal(range(max(passes, 2)), name=f"{name}_pass"),
    }
    # the next read: its pass, its place in group, block and pass
    pass_ = Signal(range(max(passes, 2)), name=f"{name}_next_pass")
    k = Signal(range(max(p.c for p in patterns)), name=f"{name}_next_k", init=1)
    l = Signal(range(max(2, *(p.d for p in patterns))), name=f"{name}_next_l")
    block_end = Signal(name=f"{name}_next_block_end", init=patterns[0].d == 1)
    last = Signal()
    with m.Switch(pass_):
        for n, p in enumerate(patterns):
            with m.Case(n):
                m.d.comb += last.eq(k == p.c - 1)
    _, end = counter(m, size, step, f"{name}_next", init=1)
    with m.If(step):
        m.d.sync += [address.eq(address + added), k.eq(Mux(last, 0, k + 1))]
        m.d.sync += [now["opens"].eq(now["last"] & (pass_ == 0)), now["last"].eq(last), now["end"].eq(end)]
        m.d.sync += [now["pass"].eq(pass_), now["last_pass"].eq(pass_ == passes - 1)]
        with m.If(last):
            m.d.sync += l.eq(Mux(block_end, 0, l + 1))
        with m.Switch(pass_):
            for n, p in enumerate(patterns):
                after = (n + 1) % passes
                with m.Case(n):
                    m.d.sync += added.eq(Mux(last, Mux(end, 1 - size, Mux(block_end, 1, 1 - (p.c - 1) * p.d)), p.d))
                    with m.If(last):
                        again = Mux(end, patterns[after].d == 1, p.d == 1)
                        m.d.sync += block_end.eq(Mux(block_end, again, l == p.d - 2))
                    with m.If(end):
                        m.d.sync += pass_.eq(after)
    return address, now


class Fold(wiring.Component):
    """Factors in turn: links `i` and `o` of `vectors` elements a beat; `saturated` as in `Stage`."""

    def __init__(self, spec: FoldSpec):
        self.spec = spec
        super().__init__(
            {
                "i": In(Link(beat(spec.factors[0].input.width, spec.vectors))),
                "o": Out(Link(beat(spec.factor.output.width, spec.vectors))),
                "saturated": Out(range(spec.vectors + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s, tech = self.spec, technology(self.spec.target)
        patterns, depth = [f.pattern for f in s.factors], s.depth

        # reads: one word a cycle; in the last pass each needs room for the output that takes its place
        issue = Signal()
        address, now = walk(m, patterns, issue, "read")
        opens, last, end, last_pass, pass_ = (now[key] for key in ("opens", "last", "end", "last_pass", "pass"))
        fresh = Signal(init=1)  # the next read is a vector's first
        idle = Signal()  # between passes
        fresh_next = Signal()
        may_open = Signal()
        group_here = self._groups(m, issue & opens)
        loaded = self._loaded(m, issue & fresh)
        m.d.comb += [
            issue.eq(Mux(opens, may_open, self.o.ready | ~last_pass) & ~idle),
            self.o.take.eq(issue & last_pass),
            fresh_next.eq(Mux(issue, end & last_pass, fresh)),
        ]
        # groups open two cycles apart or more, so this may be a cycle old
        m.d.sync += [fresh.eq(fresh_next), may_open.eq(group_here & (loaded | ~fresh_next))]
        if any(s.gaps):
            waiting = Signal(range(max(s.gaps) + 1))
            with m.If(issue & end):
                m.d.sync += waiting.eq(Array(s.gaps)[pass_])
            with m.Elif(waiting != 0):
                m.d.sync += waiting.eq(waiting - 1)
            m.d.comb += idle.eq(waiting != 0)

        # turns: with a group's last read begins the first of as many outputs
        start = issue & last
        leaving = Signal()
        turn, _ = turns(m, start, Array(p.c - 1 for p in patterns)[pass_], s.radix - 1)
        out = Mux(start, last_pass, leaving)
        with m.If(start):
            m.d.sync += leaving.eq(last_pass)

        # the memory's only way in: results, which are never late, and new words where there is a place for them
        returns = delay(m, turn & ~out, depth - 1, "returns", reset=True)  # a cycle ahead of the result
        writes = delay(m, returns, 1, "writes", reset=True)
        space = credit(m, s.size, delay(m, turn & out, 1, "freed", reset=True), self.i.take, "space", init=s.size)
        m.d.comb += self.i.ready.eq(space & ~returns)
        load_address, _ = counter(m, s.size, self.i.valid, "load_address")
        write_address, _ = walk(m, patterns[:-1], writes, "write")

        # operands: READ cycles after its read a word joins its group; a complete group stays for its outputs
        y = Signal(s.vectors * s.factor.output.width)
        words = self._extend(self.i.payload.as_value(), s.factors[0].input.width)
        results = self._extend(y, s.factor.output.width)
        (seen,) = tech.ram(
            m, "words", depth=s.size, width=s.width * s.vectors, enable=[self.i.valid | writes],
            w_address=Mux(writes, write_address, load_address), w_data=Mux(writes, results, words), r_address=address,
        )
        arrives, complete = delay(m, issue, READ, "arrives", reset=True), delay(m, start, READ, "complete", reset=True)
        group = gathered(m, seen, s.radix, arrives, complete, "group")

        outputs, clips = self._compute(m, group, turn, turn & out, load_address)
        done = delay(m, turn, depth, "done", reset=True)
        m.d.comb += [y.eq(Cat(*outputs)), self.o.payload.eq(y), self.o.valid.eq(done & ~writes)]
        m.d.comb += self.saturated.eq(count(m, [clip & done for clip in clips], "saturated", reset=True))
        return m

    def _compute(self, m, group, turn, leaves, load_address):
        """[vector] of outputs and whether they were clipped, `depth` cycles after their turn."""
        s, a, tech = self.spec, self.spec.arithmetic, technology(self.spec.target)
        w, x = a.w_width, a.x_width
        table = to_bits(s.in_order_of_use(), w)
        address, _ = counter(m, len(table), turn, "weights_address")
        word = ordered(m, tech, "weights", table, s.radix * w, address)
        half = address[0]  # of the operands, where two rows are paired
        operands = [
            [group[(q * s.vectors + e) * s.width :][:x].as_signed() for q in range(s.radix)] for e in range(s.vectors)
        ]
        common = {"vectors": s.vectors, "target": s.target, "lut": s.lut}
        x0 = self._residual(m, leaves, load_address)
        if not s.paired:
            ws = [[word[n * w :][:w].as_signed() for n in range(s.radix)]]
            path = Datapath(a, lanes=1, **common)
            return path.build(m, [operands], ws, take=turn, x0=x0 and [x0], x0_lead=0)
        apart = tech.operand - w
        ws = [[]]
        for q in range(s.simd):
            low, high = word[2 * q * w :][:w], word[(2 * q + 1) * w :][:w]
            ws[0].append(Cat(low, low[-1].replicate(apart - w), high).as_signed())
        second = delay(m, half, LEAD, "half")
        operands = [[Mux(second, row[s.simd + q], row[q]) for q in range(s.simd)] for row in operands]
        operands = [[self._signed(m, value, x) for value in row] for row in operands]
        path = Datapath(a, lanes=2, paired=apart, **common)
        if x0:
            # the first of two rows waits for its neighbour
            x0 = [[delay(m, value, 1, f"residual_first{e}") for e, value in enumerate(x0)], x0]
        outputs, clips = path.build(
            m, [operands], ws, take=turn & half, busy=turn, first=~half, x0=x0, x0_lead=0
        )
        # both leave the datapath together, the second row's output a cycle later
        odd = delay(m, half, s.depth, "odd")
        one, two = outputs[: s.vectors], outputs[s.vectors :]
        kept = [delay(m, value, 1, f"second{e}") for e, value in enumerate(two)]
        late = [delay(m, clip, 1, f"second_clips{e}") for e, clip in enumerate(clips[s.vectors :])]
        clips = [Mux(odd, b, a) for a, b in zip(clips, late)]
        return [Mux(odd, b, a) for a, b in zip(one, kept)], clips

    @staticmethod
    def _signed(m, value, width):
        result = Signal(signed(width))
        m.d.comb += result.eq(value)
        return result

    def _extend(self, bits, width):
        """Elements of `width` bits to those of a word in memory."""
        elements = [bits[e * width :][:width] for e in range(self.spec.vectors)]
        return Cat(Cat(x, x[-1].replicate(self.spec.width - width)) for x in elements)

    def _groups(self, m, taken):
        """Whether the next group of the first pass is in memory."""
        s = self.spec
        _, _, c, d = s.factors[0].pattern
        _, (_, row_end) = digits(m, (d, c), self.i.valid, "load")
        arrived = delay(m, self.i.valid & row_end, 1, "group_here", reset=True)
        return credit(m, s.size // c, arrived, taken, "groups")

    def _loaded(self, m, begins):
        """Whether all but `early` words of the vector that comes next are granted."""
        s, loaded = self.spec, Signal(name="loaded")
        granted, _ = counter(m, s.size, self.i.take, "granted")
        enough = delay(m, self.i.take & (granted == s.size - s.early - 1), 1, "enough", reset=True)
        with m.If(enough):
            m.d.sync += loaded.eq(1)
        with m.Elif(begins):
            m.d.sync += loaded.eq(0)
        return loaded

    def _residual(self, m, leaves, load_address):
        """[vector] of the layer's input at the outputs' places, LEAD cycles after their turn, zero in other passes."""
        s = self.spec
        if not s.factor.skip_input:
            return None
        address, _ = counter(m, s.size, leaves, "residual_address")
        width = s.factors[0].input.width
        (seen,) = technology(s.target).ram(
            m, "residual", depth=s.size, width=s.vectors * width, enable=[self.i.valid],
            w_address=load_address, w_data=self.i.payload.as_value(), r_address=address,
        )
        kept = Signal.like(seen, name="residual_kept", reset_less=True)
        m.d.sync += kept.eq(seen)
        with m.If(~delay(m, leaves, READ, "residual_seen", reset=True)):
            m.d.sync += kept.eq(0)
        return [kept[e * width :][:width].as_signed() for e in range(s.vectors)]
