"""The streaming factor stage: buffer, reads in order, dot products, requantisation."""

import numpy as np
from amaranth.hdl import Array, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .spec import StageSpec
from .stream import Link, beat, counter, room


def delay(m, value, cycles, name, reset=False):
    """`value` registered `cycles` times, as `name_s1`, `name_s2`, ...; only control bits are reset."""
    for n in range(cycles):
        register = Signal.like(value, name=f"{name}_s{n + 1}", reset_less=not reset)
        m.d.sync += register.eq(value)
        value = register
    return value


def to_bits(values, width):
    """Integers (words, ...) -> unsigned Python ints, one a word, the first element in the low bits."""
    words = []
    for row in values.reshape(len(values), -1):
        word = 0
        for n, value in enumerate(row):
            word |= (int(value) & ((1 << width) - 1)) << (n * width)
        words.append(word)
    return words


class Rom(wiring.Component):
    """Words read in order, the first after reset: `data` follows `next` by one cycle."""

    def __init__(self, words, width):
        self.words, self.width = words, width
        super().__init__({"next": In(1), "data": Out(unsigned(width))})

    def elaborate(self, platform):
        m = Module()
        if len(self.words) == 1:
            m.d.comb += self.data.eq(self.words[0])
            return m
        address, _ = counter(m, len(self.words), self.next, "address")
        m.submodules.store = store = memory.Memory(shape=unsigned(self.width), depth=len(self.words), init=self.words)
        port = store.read_port(domain="sync")
        m.d.comb += [port.addr.eq(address), self.data.eq(port.data)]
        return m


class Buffer(wiring.Component):
    """The input buffer of a stage: `slots` blocks in `banks` memories, written in order, read in the order of `StageSpec`.

    `available`: the next read has its data. `issue` reads; the elements are in `seen` one cycle later. `choice` says which
    of `StageSpec.select` the present read is for.
    """

    def __init__(self, spec: StageSpec):
        self.spec = spec
        self.shape = beat(spec.factor.input.width, spec.lanes)
        super().__init__(
            {
                "i": In(Link(self.shape)),
                "issue": In(1),
                "available": Out(1),
                "choice": Out(range(max(2, len(spec.select)))),
                "seen": Out(spec.banks * self.shape.size),
            }
        )

    def elaborate(self, platform):
        m = Module()
        s = self.spec
        block_words = s.words * s.rows  # addresses of a block in each bank
        depth = s.slots * block_words

        # write: words of a row, then the next bank, then the next row of all banks; word l of row r at l * rows + r
        wr, wr_row = Signal(range(depth)), Signal(range(depth))
        _, word_end = counter(m, s.words, self.i.valid, "wr_word")
        bank, bank_end = counter(m, s.banks, self.i.valid & word_end, "wr_bank")
        _, row_end = counter(m, s.rows, self.i.valid & word_end & bank_end, "wr_row_count")
        next_row = Signal(range(depth))
        m.d.comb += next_row.eq(
            Mux(
                row_end,
                Mux(wr_row == depth - block_words + s.rows - 1, 0, wr_row + block_words - s.rows + 1),
                wr_row + 1,
            )
        )
        with m.If(self.i.valid):
            m.d.sync += wr.eq(wr + s.rows)
            with m.If(word_end):
                m.d.sync += wr.eq(wr_row)
                with m.If(bank_end):
                    m.d.sync += [wr.eq(next_row), wr_row.eq(next_row)]

        # read: the parts of a read, then the block's addresses in order, once a pass
        rd, rd_block = Signal(range(depth)), Signal(range(depth))
        part, part_end = counter(m, s.parts, self.issue, "rd_part")
        advance = self.issue & part_end
        _, rd_row_end = counter(m, s.rows, advance, "rd_row")
        _, rd_word_end = counter(m, s.words, advance & rd_row_end, "rd_word")
        pass_, pass_end = counter(m, s.passes, advance & rd_row_end & rd_word_end, "rd_pass")
        block_end = rd_row_end & rd_word_end & pass_end
        freed = Signal()
        m.d.comb += [freed.eq(advance & block_end), self.choice.eq(part if s.banked else pass_)]
        next_block = Mux(rd_block == depth - block_words, 0, rd_block + block_words)
        with m.If(advance):
            m.d.sync += rd.eq(rd + 1)
            with m.If(rd_row_end & rd_word_end):
                m.d.sync += rd.eq(Mux(pass_end, next_block, rd_block))
                with m.If(pass_end):
                    m.d.sync += rd_block.eq(next_block)

        # room is given back a block at a time
        m.d.comb += self.i.ready.eq(room(m, s.slots * s.block_beats, self.i.take, freed, by=s.block_beats))

        # ahead = beats here - beats that the next read needs; in the first pass a read needs the rows of its dot
        # product up to its word, later ones nothing more
        ahead = Signal(signed((s.slots * s.block_beats + 1).bit_length() + 1), init=-s.first_need)
        row_beats = s.banks * s.words
        used = Mux(
            rd_row_end,
            Mux(rd_word_end, Mux(pass_end, s.first_need, 0), Mux(pass_ == 0, 1 - (s.rows - 1) * row_beats, 0)),
            Mux(pass_ == 0, row_beats, 0),
        )
        m.d.sync += ahead.eq(ahead + self.i.valid - Mux(advance, used, 0))
        m.d.comb += self.available.eq(ahead >= 0)

        for n in range(s.banks):
            m.submodules[f"bank_{n}"] = store = memory.Memory(shape=unsigned(self.shape.size), depth=depth, init=[])
            write, read = store.write_port(), store.read_port(domain="sync")
            m.d.comb += [
                write.addr.eq(wr),
                write.data.eq(self.i.payload),
                write.en.eq(self.i.valid & (bank == n)),
                read.addr.eq(rd),
                self.seen[n * self.shape.size :][: self.shape.size].eq(read.data),
            ]
        return m


class Stage(wiring.Component):
    """A factor: `i` and `o` are links of `lanes` elements a beat; with a residual, `skip` is the layer's input.

    Every register of the datapath runs free: a read is issued only when `o` has room for what it becomes. `saturated`
    counts the values of the beat in `o` that were clipped.
    """

    def __init__(self, spec: StageSpec):
        self.spec = spec
        f = spec.factor
        ports = {
            "i": In(Link(beat(f.input.width, spec.lanes))),
            "o": Out(Link(beat(f.output.width, spec.lanes))),
            "saturated": Out(range(spec.lanes + 1)),
        }
        if f.skip_input:
            ports["skip"] = In(stream.Signature(beat(f.skip_input.width, spec.lanes)))
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        s, f = self.spec, self.spec.factor
        m.submodules.buffer = buffer = Buffer(s)
        wiring.connect(m, wiring.flipped(self.i), buffer.i)

        # issue: a dot product's last read needs room at the output, and the residual's beat
        issue = Signal()
        step, last = counter(m, s.steps, issue, "step")
        may_end = self.o.ready & self.skip.valid if f.skip_input else self.o.ready
        m.d.comb += [
            issue.eq(buffer.available & (may_end | ~last)),
            buffer.issue.eq(issue),
            self.o.take.eq(issue & last),
        ]
        if f.skip_input:
            m.d.comb += self.skip.ready.eq(self.o.take)
        done = delay(m, self.o.take, s.depth, "done", reset=True)
        m.d.comb += self.o.valid.eq(done)

        # s1: memory and ROM outputs
        m.submodules.weights = weights = Rom(
            to_bits(s.in_order_of_use(), f.weights.width), s.lanes * s.simd * f.weights.width
        )
        m.d.comb += weights.next.eq(issue)
        choice = delay(m, buffer.choice, 1, "choice") if len(s.select) > 1 else Const(0, 0)
        seen = [buffer.seen[n * f.input.width :][: f.input.width] for n in range(s.banks * s.lanes)]
        per_output = self._per_output(m)

        clipped = []
        for lane in range(s.lanes):
            dot = self._dot(m, lane, seen, choice, weights.data, issue, step)
            total = self._total(m, lane, dot, per_output)
            y, clips = self._saturate(m, total, lane)
            m.d.comb += self.o.payload[lane].eq(y)
            clipped.append(clips & done)
        m.d.comb += self.saturated.eq(sum(clipped[1:], clipped[0]))
        return m

    def _per_output(self, m):
        """Per lane a dict of what an output needs beside its dot product, at s1; the rounding constant is in `bias`."""
        s, f = self.spec, self.spec.factor
        half = 1 << (f.shift - 1) if f.shift > 0 else 0
        fields = {}
        if f.skip is not None:
            fields["skip"] = f.skip, f.skip_weights.width, True
        if f.bias is not None:
            fields["bias"] = f.bias + half, s.bias_bits, True
        if f.max_exponent:
            fields["extra"] = f.max_exponent - f.exponents.reshape(-1), f.max_exponent.bit_length(), False
        if not fields:
            return [{"bias": Const(half, signed(half.bit_length() + 1))}] * s.lanes
        words = [0] * s.beats_out
        slices, at = [{} for _ in range(s.lanes)], 0
        for lane in range(s.lanes):
            for name, (values, width, is_signed) in fields.items():
                column = to_bits(values.reshape(s.beats_out, s.lanes)[:, lane : lane + 1], width)
                words = [word | bits << at for word, bits in zip(words, column)]
                slices[lane][name] = at, width, is_signed
                at += width
        m.submodules.per_output = rom = Rom(words, at)
        m.d.comb += rom.next.eq(self.o.take)
        result = []
        for lane in slices:
            lane = {
                n: (v := rom.data[at:][:w]).as_signed() if sign else rom.data[at:][:w]
                for n, (at, w, sign) in lane.items()
            }
            lane.setdefault("bias", Const(half, signed(half.bit_length() + 1)))
            result.append(lane)
        return result

    def _dot(self, m, lane, seen, choice, weights, issue, step):
        """The exact dot product of a lane, valid `depth - 2` cycles after its last read."""
        s, f = self.spec, self.spec.factor
        terms = []
        for q in range(s.simd):
            sources = s.select[:, lane, q]
            if (sources == sources[0]).all():
                operand = seen[sources[0]]
            else:
                operand = Array(seen[n] for n in sources)[choice]
            # s2: operands
            x, w = Signal(signed(f.input.width), name=f"x{lane}_{q}_s2", reset_less=True), None
            m.d.sync += x.eq(operand)
            at = (lane * s.simd + q) * f.weights.width
            w = delay(m, weights[at:][: f.weights.width].as_signed(), 1, f"w{lane}_{q}")
            # s3: product
            p = Signal(signed(f.input.width + f.weights.width), name=f"p{lane}_{q}_s3", reset_less=True)
            m.d.sync += p.eq(x * w)
            terms.append(p)
        # s4 and on: adder tree, a register a level
        for level in range(s.tree):
            sums = []
            for n in range(0, len(terms), 2):
                pair = terms[n : n + 2]
                value = sum(pair[1:], pair[0])
                total = Signal(value.shape(), name=f"sum{lane}_{n // 2}_s{4 + level}", reset_less=True)
                m.d.sync += total.eq(value)
                sums.append(total)
            terms = sums
        dot = terms[0]
        if s.steps > 1:
            cycles = 3 + s.tree
            busy = delay(m, issue, cycles, f"busy{lane}", reset=True)
            first = delay(m, step == 0, cycles, f"first{lane}")
            acc = Signal(signed(f.dot_width), name=f"acc{lane}", reset_less=True)
            with m.If(busy):
                m.d.sync += acc.eq(Mux(first, 0, acc) + dot)
            dot = acc
        return dot

    def _total(self, m, lane, dot, per_output):
        """Everything that meets in an output, aligned and summed, the rounding constant included; one register."""
        s, f = self.spec, self.spec.factor
        wait = s.depth - 5  # cycles between the product and the dot product
        values = per_output[lane]
        rest = delay(m, values["bias"], 2, f"bias{lane}") if not isinstance(values["bias"], Const) else values["bias"]
        if f.skip_input:
            x0 = Signal(signed(f.skip_input.width), name=f"skip{lane}_s1", reset_less=True)
            m.d.sync += x0.eq(self.skip.payload[lane])
            x0 = delay(m, x0, 1, f"skip{lane}_x")
            if f.skip is not None:
                x0 = x0 * delay(m, values["skip"], 1, f"skip{lane}_w")
            rest = rest + (delay(m, x0, 1, f"skip{lane}_p") << f.skip_shift)
        if not isinstance(rest, Const):
            rest = delay(m, rest, wait, f"rest{lane}")
        aligned = dot << int(np.min(f.dot_shift))
        if "extra" in values:
            # one of a few constant shifts, chosen by the row
            extra = delay(m, values["extra"], 2 + wait, f"extra{lane}")
            aligned = Array(aligned << n for n in range(f.max_exponent + 1))[extra]
        total = Signal(signed(f.acc_width), name=f"total{lane}", reset_less=True)
        m.d.sync += total.eq(aligned + rest)
        return total

    def _saturate(self, m, total, lane):
        """The requantisation's end: drop `shift` bits, saturate, clamp by ReLU; one register.

        Returns the output and whether it was clipped; what a ReLU removes anyway was not.
        """
        f = self.spec.factor
        y = total >> f.shift if f.shift > 0 else total << -f.shift
        sign, fits, clipped = y[-1], Const(1, 1), y
        if len(y) > f.output.width:
            above = y[f.output.width - 1 :]
            fits = (above == 0) | above.all()
            clipped = Mux(fits, y[: f.output.width].as_signed(), Mux(sign, f.output.lo, f.output.hi))
        out = Signal(signed(f.output.width), name=f"y{lane}", reset_less=True)
        clips = Signal(name=f"clips{lane}", reset_less=True)
        m.d.sync += [
            out.eq(Mux(sign, 0, clipped) if f.relu else clipped),
            clips.eq(~(fits | sign) if f.relu else ~fits),
        ]
        return out, clips
