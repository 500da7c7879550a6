"""The pipelined factor stage: an input buffer, reads in the order of use, and a datapath for one factor."""

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .datapath import LEAD, Datapath, delay, ordered, to_bits
from .spec import StageSpec
from .stream import Link, beat, count, counter, credit, digits, gathered, turns
from .tech import READ, technology


class Buffer(wiring.Component):
    """The input buffer of a stage: `slots` blocks in `banks` memories, written in order, read in the order of
    `StageSpec`.

    `available`: the next read has its data. `issue` reads; the elements are in `seen` `ahead + READ` cycles later.
    `choice` says which of `StageSpec.select` the present read is for; `weights_address`, `ahead` cycles later, which of
    the vector's.
    """

    def __init__(self, spec: StageSpec):
        self.spec = spec
        self.shape = beat(spec.factor.input.width, spec.lanes * spec.vectors)
        super().__init__(
            {
                "i": In(Link(self.shape)),
                "issue": In(1),
                "available": Out(1),
                "choice": Out(range(max(2, len(spec.select)))),
                "weights_address": Out(range(max(2, spec.cycles))),
                "seen": Out(spec.elements_seen * spec.factor.input.width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.spec

        # a bank's address: word, row, slot, each in whole bits, so that no counter has to be multiplied
        (word, bank, row, slot), lasts = digits(m, (s.words, s.banks, s.rows, s.slots), self.i.valid, "wr")
        _, bank_end, row_end, _ = lasts
        w_address = self._address(word, row, slot)
        # with such a beat, a word of all rows is there
        arrived = delay(m, self.i.valid & bank_end & row_end, 1, "arrived", reset=True)

        top = max(s.slots, s.blocks) if s.powers_of_two else s.slots
        sizes = s.parts, s.rows, s.words, s.passes, top
        (part, row, word, pass_, block), lasts = digits(m, sizes, self.issue, "rd")
        slot = block[: (s.slots - 1).bit_length()] if s.powers_of_two else block
        if s.powers_of_two:
            order = Cat(part, row, word, pass_, block)[: len(self.weights_address)]
            m.d.comb += self.weights_address.eq(delay(m, order, 1, "rd_order"))
        else:
            # a vector's reads are in the order in which its weights lie
            issued = delay(m, self.issue, 1, "issued", reset=True)
            m.d.comb += self.weights_address.eq(counter(m, s.cycles, issued, "weights_address")[0])
        block_end = lasts[0] & lasts[1] & lasts[2] & lasts[3]
        begins = Signal(init=1)  # the next read begins a dot product of a block's first pass
        with m.If(self.issue):
            m.d.sync += begins.eq(lasts[0] & lasts[1] & Mux(lasts[2], lasts[3], pass_ == 0))
        ready = credit(m, s.slots * s.words, arrived, self.issue & begins, "words_here")
        m.d.comb += [self.available.eq(ready | ~begins), self.choice.eq(part if s.banked else pass_)]
        r_address = delay(m, self._address(word, row, slot), 1, "rd_address")

        self._grant(m, self.issue & block_end)
        kept, elements = s.kept_width, s.lanes * s.vectors
        words = technology(s.target).ram(
            m,
            "bank",
            depth=s.bank_depth,
            width=kept * elements,
            enable=[self.i.valid & (bank == n) for n in range(s.banks)],
            w_address=w_address,
            w_data=self._kept(),
            r_address=r_address,
        )
        m.d.comb += self.seen.eq(Cat(self._whole(word[n * kept :][:kept]) for word in words for n in range(elements)))
        return m

    def _kept(self):
        """A beat without the signs that are known."""
        s, payload = self.spec, self.i.payload.as_value()
        return Cat(payload[n * s.factor.input.width :][: s.kept_width] for n in range(s.lanes * s.vectors))

    def _whole(self, element):
        return Cat(element, Const(0, self.spec.factor.input.width - self.spec.kept_width))

    def _grant(self, m, block_end):
        """Room: a slot is taken by the first beat of a block and free again once its last read is under way."""
        s = self.spec
        freed = delay(m, block_end, 1, "freed", reset=True)
        _, block_full = counter(m, s.block_beats, self.i.take, "granted")
        starts = Signal(init=1)  # the next beat granted is a block's first
        with m.If(self.i.take):
            m.d.sync += starts.eq(block_full)
        # the next slot is not wanted before the next block, so there is time to count this one
        taken = delay(m, self.i.take & starts, int(s.block_beats > 1), "slot_taken", reset=True)
        spare = credit(m, s.slots, freed, taken, "slots_spare", init=s.slots)
        m.d.comb += self.i.ready.eq(spare | ~starts)

    @staticmethod
    def _address(*fields):
        address = Cat(*fields)
        return address if len(address) else Const(0, 1)


class IndexedBuffer(Buffer):
    """The input buffer of an indexed factor: a copy of the vectors for every operand, each read at its own addresses.

    `seen` has one element a copy. The addresses come out of a ROM, or out of counters where they go up one by one.
    """

    def elaborate(self, platform):
        m = Module()
        s, tech = self.spec, technology(self.spec.target)
        (word, slot), (word_end, _) = digits(m, (s.words, s.slots), self.i.valid, "wr")
        w_address = self._address(word, slot)
        arrived = delay(m, self.i.valid & word_end, 1, "arrived", reset=True)

        cycle, end = counter(m, s.cycles, self.issue, "rd")
        r_slot, _ = counter(m, s.slots, self.issue & end, "rd_slot")
        begins = Signal(init=1)  # the next read is a vector's first
        with m.If(self.issue):
            m.d.sync += begins.eq(end)
        ready = credit(m, s.slots, arrived, self.issue & begins, "vectors_here")
        m.d.comb += [self.available.eq(ready | ~begins), self.weights_address.eq(delay(m, cycle, s.ahead, "rd_cycle"))]
        self._grant(m, self.issue & end)

        r_slot, width = delay(m, r_slot, s.ahead, "rd_slot"), s.kept_width * s.vectors
        for n, (place, lane) in enumerate(self._places(m, cycle, end)):
            (beat_seen,) = tech.ram(
                m, f"copy{n}", depth=s.bank_depth, width=s.lanes * width, enable=[self.i.valid], w_address=w_address,
                w_data=self._kept(), r_address=self._address(place, r_slot),
            )
            elements = [beat_seen[at * width :][:width] for at in range(s.lanes)]
            chosen = elements[0] if s.lanes == 1 else Array(elements)[delay(m, lane, READ, f"lane{n}")]
            chosen = [self._whole(chosen[e * s.kept_width :][: s.kept_width]) for e in range(s.vectors)]
            size = len(chosen) * s.factor.input.width
            m.d.comb += self.seen[n * size :][:size].eq(Cat(*chosen))
        return m

    def _places(self, m, cycle, end):
        """For each copy the beat and the lane of the element that is read, `ahead` cycles after its issue."""
        s, places = self.spec, self.spec.places.reshape(self.spec.cycles, -1)
        if s.counted:
            for n, first in enumerate(places[0].tolist()):
                place = Signal(range(max(2, s.words)), name=f"place{n}", init=first)
                after = Mux(place == s.words - 1, 0, place + 1)
                with m.If(self.issue):
                    m.d.sync += place.eq(Mux(end, first, after))
                yield delay(m, place, s.ahead, f"place{n}"), Const(0, 0)
            return
        bits = (s.words - 1).bit_length()
        fields = np.concatenate([places // s.lanes, places % s.lanes], 1)
        widths = [bits] * s.banks + [(s.lanes - 1).bit_length()] * s.banks
        words, at, slices = [0] * s.cycles, 0, []
        for column, size in zip(fields.T.tolist(), widths):
            words = [word | value << at for word, value in zip(words, column)]
            slices.append(slice(at, at + size))
            at += size
        # one beat of one lane has no address: there is nothing to look up
        fixed = s.cycles == 1 or not at
        data = Const(words[0], at) if fixed else technology(s.target).rom(m, "places", words, at, cycle)
        yield from ((data[slices[n]], data[slices[s.banks + n]]) for n in range(s.banks))


class Stage(wiring.Component):
    """A factor: `i` and `o` are links of `lanes * vectors` elements a beat; with a residual, `skip` is the layer's
    input.

    Every register of the datapath runs free: a read is issued only when `o` has room for what it becomes. `saturated`
    counts the values of a beat that were clipped, some cycles after the beat was in `o`.
    """

    def __init__(self, spec: StageSpec):
        self.spec = spec
        f, elements = spec.factor, spec.lanes * spec.vectors
        ports = {
            "i": In(Link(beat(f.input.width, elements))),
            "o": Out(Link(beat(f.output.width, elements))),
            "saturated": Out(range(elements + 1)),
        }
        if f.skip_input:
            ports["skip"] = In(stream.Signature(beat(f.skip_input.width, elements)))
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        s, f = self.spec, self.spec.factor
        if s.direct:
            # who grants room for the output grants it for the input
            m.d.comb += [self.i.ready.eq(self.o.ready), self.o.take.eq(self.i.take)]
            issue, choice, seen = self._gather(m)
            take, step = issue, Const(0, 0)
            address = counter(m, s.cycles, issue, "weights_address")[0]
        else:
            m.submodules.buffer = buffer = IndexedBuffer(s) if s.indexed else Buffer(s)
            wiring.connect(m, wiring.flipped(self.i), buffer.i)
            # issue: a dot product's last read needs room at the output, and the residual's beat
            issue = Signal()
            (step,), (last,) = digits(m, (s.steps,), issue, "step")
            may_end = self.o.ready & self.skip.valid if f.skip_input else self.o.ready
            m.d.comb += [
                issue.eq(buffer.available & (may_end | ~last)),
                buffer.issue.eq(issue),
                self.o.take.eq(issue & last),
            ]
            if f.skip_input:
                m.d.comb += self.skip.ready.eq(self.o.take)
            issue = delay(m, issue, s.ahead, "issue", reset=True)
            take = delay(m, self.o.take, s.ahead, "take", reset=True)
            step, choice = delay(m, step, s.ahead, "step"), delay(m, buffer.choice, s.ahead, "choice")
            seen, address = buffer.seen, buffer.weights_address

        # from here on `issue` and `take` are LEAD cycles ahead of the operands
        w, words = f.weights.width, to_bits(s.in_order_of_use(), f.weights.width)
        weights = ordered(m, technology(s.target), "weights", words, s.word_bits, address)
        ws = [[weights[n * w :][:w].as_signed() for n in range(l * s.simd, (l + 1) * s.simd)] for l in range(s.lanes)]
        xs = self._operands(m, seen, delay(m, choice, READ, "choice_seen") if len(s.select) > 1 else choice)
        x0 = None
        if f.skip_input:
            x0 = [
                [delay(m, self.skip.payload[l * s.vectors + e], s.ahead, f"skip{l}v{e}") for e in range(s.vectors)]
                for l in range(s.lanes)
            ]
        path = Datapath(s.arithmetic, lanes=s.lanes, vectors=s.vectors, target=s.target, lut=s.lut)
        outputs, clips = path.build(
            m, xs, ws, take=take, busy=issue, first=step == 0, x0=x0
        )
        done = delay(m, take, LEAD + s.arithmetic.depth, "done", reset=True)
        m.d.comb += [self.o.valid.eq(done), self.o.payload.eq(Cat(*outputs))]
        clips = [clip & done for clip in clips]
        m.d.comb += self.saturated.eq(count(m, clips, "saturated", reset=True))
        return m

    def _gather(self, m):
        """A block in registers: (turn of an output beat, which of the block's, the block READ cycles after its
        turn).
        """
        s, i = self.spec, self.i
        _, complete = counter(m, s.block_beats, i.valid, "gathered")
        start = i.valid & complete
        turn, left = turns(m, start, s.block_beats - 1, s.block_beats - 1)
        choice = Signal(range(max(2, s.block_beats)))
        m.d.comb += choice.eq(Mux(start, 0, s.block_beats - left))
        arrives, payload = delay(m, i.valid, 1, "arrives", reset=True), delay(m, i.payload.as_value(), 1, "beat")
        block = gathered(m, payload, s.block_beats, arrives, delay(m, start, 1, "complete", reset=True), "block")
        return turn, choice if len(s.select) > 1 else Const(0, 0), block

    def _operands(self, m, seen, choice):
        """[lane][vector][q] of signals, a cycle after they are seen."""
        s, width = self.spec, self.spec.factor.input.width
        xs = []
        for lane in range(s.lanes):
            xs.append([])
            for e in range(s.vectors):
                xs[-1].append([])
                for q in range(s.simd):
                    places = [(n * s.vectors + e) * width for n in s.select[:, lane, q]]
                    sources = [seen[at : at + width].as_signed() for at in places]
                    x = sources[0] if len(set(places)) == 1 else Array(sources)[choice]
                    xs[-1][-1].append(delay(m, x, 1, f"x{lane}v{e}_{q}"))
        return xs
