"""The component of a Sequential engine: reads, turns of lanes, a dot product a lane, writes.

A turn is a cycle in which a pass goes on. What follows from it comes a known number of cycles later: the word that says
what it reads after READ, its operands after TO_OPERANDS, the write of an output that it ends after TO_WRITE.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...signals import beat, count, delay
from ...stream import Link
from ...tech import MULTIPLY, READ, technology
from ..datapath import Datapath
from ..words import to_bits
from .control import loops, passes
from .entry import Entry
from .operands import operands
from .timing import GRANTED, TO_OPERANDS, TO_WRITE

HELD = "weight", "again", "shift", "shifts", "bias", "biased", "dot", "joined", "lift", "end", "gives", "largest"


class SequentialUnit(wiring.Component):
    """The component of a Sequential.

    Parameters
    ----------
    engine : Sequential

    Members
    -------
    i : In(Link), o : Out(Link)
        a number a beat, position by position, channels fastest.
    saturated : Out
        values of a word that were clipped, some cycles after it was written.
    """

    def __init__(self, engine):
        self.engine, self.code, self.tech = engine, engine.code, technology(engine.target)
        super().__init__(
            {
                "i": In(Link(beat(engine.takes, 1))),
                "o": Out(Link(beat(engine.gives, 1))),
                "saturated": Out(range(engine.lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.engine
        m.submodules.entry = self.entry = Entry(s)
        wiring.connect(m, wiring.flipped(self.i), self.entry.i)
        step, ends = Signal(name="step"), Signal(name="ends")
        new, self.now, begins, busy = passes(m, self.tech, self.code, s.lanes, self.entry, ends)
        m.d.comb += [step.eq(busy & (~self.now.gives | self.o.ready)), self.o.take.eq(step & self.now.gives)]
        read, address, output, self.output_ends = loops(m, self.code, new, self.now, begins, step, ends)
        self.write, self.result = Signal(name="write"), Signal(s.lanes * s.width, name="result")
        bank, written = (delay(m, x, TO_WRITE, "written") for x in (self.now.parity, output))
        entry, writes = self.entry, []
        for n in range(2):
            here = self.write & (bank == n) | entry.enable & (entry.bank == n)
            data = Mux(self.write, self.result, entry.data)
            writes.append([(here, Mux(self.write, written, entry.address), data)])
        sizes = {"lanes": s.lanes, "width": s.width, "depth": self.code.depth}
        xs, whole = operands(m, self.tech, self.code, **sizes, step=step, read=read, address=address, writes=writes)
        # of the pass, READ cycles after its turns
        self.held, started = {}, delay(m, begins, READ, "started", reset=True)
        for name in HELD:
            value = getattr(self.now, name)
            self.held[name] = Signal.like(value, name=f"read_{name}")
            with m.If(started):
                m.d.sync += self.held[name].eq(value)
        ended = delay(m, self.output_ends, READ, "output_ended")
        m.d.comb += [
            self.o.valid.eq(delay(m, whole & self.held["gives"], TO_OPERANDS - READ, "given", reset=True)),
            self.o.payload[0].eq(xs[0]),
        ]
        weight, bias = self._numbers(m, started, whole, ended)
        self._results(m, xs, weight, bias, whole, ended)
        return m

    def _numbers(self, m, started, whole, ended):
        """The weight of a turn's products, shifted, TO_OPERANDS cycles after it, and the bias of its output MULTIPLY
        cycles later.
        """
        a, held, at = self.code.arithmetic, self.held, {}
        numbers = dict(zip(("weight", "shift", "bias"), self.code.numbers))
        goes = {"weight": whole, "shift": whole & ended & held["shifts"], "bias": whole & ended & held["biased"]}
        for name, own in numbers.items():
            at[name] = Signal(range(max(2, len(own))), name=f"{name}_address")
            following = at[name] + 1
            if name == "weight":
                following = Mux(ended & held["again"], held["weight"], following)
            with m.If(started):
                m.d.sync += at[name].eq(getattr(self.now, name))
            with m.Elif(goes[name]):
                m.d.sync += at[name].eq(following)

        bits = dict(zip(numbers, self.code.number_bits))

        def kept(name, cycles):
            """A number out of its memory, so many cycles after READ."""
            address = delay(m, at[name], cycles - READ, f"{name}_at")
            return self.tech.rom(m, f"{name}s", to_bits(numbers[name][:, None], bits[name]), bits[name], address)

        joins = delay(m, self.now.joins & self.output_ends, READ, "joins")
        most = max(row["dot"] + row["joined"] for row in self.code.passes.rows) + int(numbers["shift"].max())
        amount = Signal(range(max(2, most + 1)), name="amount", reset_less=True)
        extra = Mux(delay(m, held["shifts"], READ, "shifts"), kept("shift", READ), 0)
        joined = delay(m, joins, READ, "joined"), delay(m, held["joined"], READ, "joined_by")
        m.d.sync += amount.eq(Mux(joined[0], joined[1], delay(m, held["dot"], READ, "dot") + extra))
        amount, half = delay(m, amount, 1, "amount"), len(amount) // 2
        near, weight = (Signal(signed(self.code.operand_bits), name=name, reset_less=True) for name in ("near", "w"))
        m.d.sync += [
            near.eq(delay(m, kept("weight", 3), 1, "weight").as_signed() << amount[:half]),
            weight.eq(near << (delay(m, amount[half:], 1, "far") << half)),
        ]
        bias = delay(m, kept("bias", 6), 1, "bias")
        shifted, lifted = (Signal(signed(a.acc_width), name=name, reset_less=True) for name in ("shifted", "lifted"))
        bias = Mux(delay(m, held["biased"], 7, "biased"), bias, 0).as_signed()
        m.d.sync += [shifted.eq(bias << delay(m, held["lift"], 7, "lift")), lifted.eq(shifted + a.half)]
        return weight, lifted

    def _results(self, m, xs, weight, bias, whole, ended):
        """Products, sums, and their ends, `write` and `result`."""
        s, a, now, lanes = self.engine, self.code.arithmetic, self.now, self.engine.lanes
        sign = Mux(now.joins & self.output_ends, now.joined_signed, now.signed)
        sign = delay(m, sign, TO_OPERANDS, "sign")
        operands = [Cat(x, x[-1] & sign).as_signed() for x in xs]
        products = self.tech.products(m, "product", operands, [weight] * lanes, lut=s.lut)
        to_product = TO_OPERANDS + MULTIPLY - READ
        first = Signal(name="first", init=1)
        with m.If(whole):
            m.d.sync += first.eq(ended)
        begins, adds = delay(m, first, to_product, "begins"), delay(m, whole, to_product, "adds", reset=True)
        largest = delay(m, self.held["largest"], to_product, "largest")
        done = whole & ended & ~self.held["gives"]
        soon = delay(m, done, TO_WRITE - READ - GRANTED, "soon", reset=True)
        end = delay(m, self.held["end"], TO_WRITE - 1 - READ, "end")
        tail = delay(m, now.tail, TO_WRITE, "tail")
        path, outputs, clips = Datapath(a, lanes=lanes, vectors=1, target=s.target, lut=s.lut), [], []
        for lane, product in enumerate(products):
            acc = Signal(signed(a.acc_width), name=f"acc{lane}", reset_less=True)
            term = Mux(begins | largest, bias, acc) + product
            with m.If(adds & (begins | ~largest | (term > acc)) if self.code.largest else adds):
                m.d.sync += acc.eq(term)
            total = Signal(signed(a.total_width), name=f"total{lane}", reset_less=True)
            m.d.sync += total.eq(acc >> a.shift if a.shift > 0 else acc << -a.shift)
            y, clipped = path.limited(m, f"{lane}", total, {"end": end})
            out = Signal(s.width, name=f"out{lane}")
            m.d.comb += out.eq(y)
            outputs.append(out)
            clips.append(clipped & self.write & (lane < tail))
        m.d.comb += [
            self.entry.busy.eq(soon), self.write.eq(delay(m, soon, GRANTED, "write", reset=True)),
            self.result.eq(Cat(outputs)), self.saturated.eq(count(m, clips, "saturated", reset=True)),
        ]
