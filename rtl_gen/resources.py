"""What a core will take of an FPGA, from its specification alone: block RAMs and multipliers exact, LUT and FF
estimates.

A LUT is a table of four inputs; of an ECP5 it is nextpnr's TRELLIS_COMB, of a Gowin a table or an ALU, of plain HDL, as
Yosys maps it for a Xilinx 7-series part, a table of six inputs. FF are the
registers that the parts below declare. Each part says by which formula its tables are estimated; the few constants in
them were fitted to what Yosys makes (tests/test_resources.py holds other designs against them).
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from .datapath import LEAD
from .foldspec import FoldSpec
from .spatial import SpatialSpec
from .stream import ENTER, FIFO_LATENCY, QUEUE, SMALL, Gearbox, Pad
from .tech import MULTIPLY, READ, technology
from .top import ERRORS_BITS


def estimate(spec, target=None):
    """Dict of LUT, FF (estimates), DSP and RAM (exact) of the core of a NetworkSpec; target: another than the spec's.

    What plain HDL takes is up to synthesis: for "plain" all four are estimates, of what Yosys makes for a Xilinx
    7-series part, RAM in RAMB18E1. Raises ValueError for memories that are too deep.
    """
    tech = technology(target or spec.target)
    need = _Need(_FAMILIES[tech.name], tech)
    need.network(spec)
    return {resource: ceil(need.sum[resource]) for resource in ("LUT", "FF", "DSP", "RAM")}


@dataclass(frozen=True)
class _Family:
    """chain: tables that a carry chain takes beyond its bits, and `pair` the bits that it grows by. block: the cost of
    a block RAM in the measure by which synthesis maps memories; rows: words of distributed RAM, 0 for none, and row:
    tables of each 4 bits of it. tables: of six inputs, say, for each of four that logic takes. apart: carry chains are
    no part of the tables."""

    chain: int
    pair: int
    block: int
    rows: int
    row: int
    tables: float = 1
    apart: bool = False


# costs of memories: those of Yosys' memory_libmap, which finds a bit of logic worth 1 and 16×4 bits of tables 4
_FAMILIES = {
    "ecp5": _Family(chain=2, pair=2, block=128, rows=16, row=6),
    "ice40": _Family(chain=1, pair=1, block=64, rows=0, row=0),
    "gowin": _Family(chain=1, pair=1, block=128, rows=16, row=8),
    "plain": _Family(chain=0, pair=1, block=0, rows=32, row=4, tables=0.8, apart=True),
}
ENABLE = 8  # cost of a block RAM's read enable, found by trying
CHOICE = 0.25  # and of a bit that is chosen from another row of tables
DEEP = 64  # words: deeper ROMs are block RAMs on every family


class _Need:
    """A sum of resources, to which every part of a core adds its own."""

    def __init__(self, family, tech):
        self.family, self.tech, self.sum = family, tech, Counter()

    def add(self, lut=0, ff=0):
        self.sum.update(LUT=lut * self.family.tables, FF=ff)

    # parts that occur everywhere

    def adder(self, bits, ff=0, *, one=False):
        """A carry chain: its bits, in whole pairs, and its start.

        one: of a value and a bit, which needs no tables beside a chain that stands apart from them.
        """
        f = self.family
        bits = 0 if one and f.apart else bits
        self.sum.update(LUT=-(-bits // f.pair) * f.pair + f.chain, FF=ff)

    def counter(self, size, count=1):
        """stream.counter: a table a bit for a small one, else an adder, its comparison and the flag of its last
        value.
        """
        if size > 1:
            bits = (size - 1).bit_length()
            for _ in range(count):
                if size > SMALL:
                    self.adder(bits, bits, one=True)
                    # what makes the flag, and the way back to zero where the adder does not wrap
                    self.add(bits / 3 + 1 + (bits if size & (size - 1) else 0), 1)
                else:
                    self.add(bits, bits)

    def digits(self, *sizes):
        """stream.digits: neighbours that are powers of two share a counter."""
        together = 1
        for size in (*sizes, 0):
            if size & (size - 1) == 0 and size:
                together *= size
                continue
            self.counter(together)
            together = 1
            self.counter(size)

    def credit(self, size):
        """stream.credit: a bit a place for few, else an adder."""
        if size <= SMALL // 2:
            self.add(size, size)
        else:
            self.adder(size.bit_length() + 1, size.bit_length() + 1)

    def memory(self, depth, width):
        """A memory that synthesis infers, read by a clock with an enable, mapped as memory_libmap would."""
        f = self.family
        if self.tech.name == "plain":
            # without a register of its own behind it
            return self.sum.update(self.tech.ram_cost(depth, width, 1), FF=-width)
        blocks = self.tech.rom_cost(max(depth, DEEP), width)["RAM"]
        rows = -(-depth // f.rows) if f.rows else 0
        tables = -(-width // 4) * rows
        costs = {"logic": width * depth, "block": blocks * f.block + ENABLE}
        if rows:
            costs["tables"] = tables * 4 + width * (rows - 1) * CHOICE
        cheapest = min(costs, key=costs.get)
        if cheapest == "block":
            self.sum["RAM"] += blocks
        elif cheapest == "tables":
            self.add(tables * f.row + (width * (rows - 1) + rows if rows > 1 else 0), width)
        else:
            self.add(depth + width * (depth - 1) * 2 / 3, width * (depth + 1))

    def queue(self, depth, width):
        """stream.Queue and whoever counts its places: two counters, what it holds, what is free, a memory."""
        places = 1 << (depth - 1).bit_length()
        self.counter(places, 2)
        self.credit(places)
        self.credit(places)
        self.memory(places, width)
        self.add(3, 1)

    def count(self, values):
        """stream.count of bits: a level of sums, each a few bits wide."""
        bits = 1
        while values > 1:
            values, bits = values // 2, bits + 1
            self.add(values * (bits if bits < 3 else bits + 1), values * bits)

    # the network

    def network(self, spec):
        width = spec.network.input.width * spec.lanes_in * spec.vectors
        # Pad: the wires' registers, a queue
        last = not spec.count_beats
        self.add(4, (ENTER - FIFO_LATENCY) * (width + 1 + last) + 1)
        self.queue(Pad.DEPTH, width + last)
        self.counter(spec.beats_out)
        if last:
            self.frames(spec, width)
        # FromStream, the engines, what is between and beside them
        self.add(2, width + 1)
        clipped = 0
        for n, (engine, queue) in enumerate(zip(spec.stages, spec.queues)):
            self.converter(spec, n, queue)
            kind = {FoldSpec: self.fold, SpatialSpec: self.spatial}.get(type(engine), self.stage)
            kind(engine)
            clipped += (engine.lanes_out * spec.vectors).bit_length()
        self.add(clipped * 1.5, clipped * 1.5)
        for layer, depth in zip(spec.layers, spec.skip_depths):
            if depth:
                lanes, out = max(layer[0].lanes_in, layer[-1].lanes_out), layer[-1].lanes_out
                bits = layer[0].factors[0].input.width * spec.vectors
                if layer[0].lanes_in != lanes:
                    self.queue(layer[0].flight + QUEUE, layer[0].lanes_in * bits)
                    self.gearbox(layer[0].lanes_in, lanes, bits)
                    self.add(2, lanes * bits + 1)
                self.queue(depth, lanes * bits)
                if lanes != out:
                    self.gearbox(lanes, out, bits)
        self.queue(spec.exit_depth, spec.network.output.width * spec.lanes_out * spec.vectors + 1 + last)

    def frames(self, spec, width):
        """Framer: its payload's AND, its counter, the states; wrong frames: a bit a frame, two counters of frames, the
        counter of errors.
        """
        self.add(width + 10, 2)
        self.counter(spec.beats_in)
        depth = 1 << (2 * spec.frames_in_flight - 1).bit_length()
        self.counter(depth, 2)
        self.adder(ERRORS_BITS, ERRORS_BITS + 4, one=True)
        self.add(8 + (self.family.row if self.family.rows else depth * 2), 0 if self.family.rows else depth)

    def converter(self, spec, n, queue):
        """What is in front of an engine, where lanes change or beats must wait: a queue, a gearbox, a FromStream."""
        if n == 0:
            return
        before, after = spec.stages[n - 1].lanes_out, spec.stages[n].lanes_in
        if before == after and queue is None:
            return
        bits = spec.stages[n].factors[0].input.width * spec.vectors
        self.queue(spec.stages[n - 1].output_flight + QUEUE + (queue or 0), before * bits)
        if before != after:
            self.gearbox(before, after, bits)
        self.add(2, after * bits + 1)

    def gearbox(self, before, after, bits):
        """stream.Gearbox: each place chooses between what stays, what moves and what comes."""
        places = Gearbox.capacity(before, after)
        self.add(places * bits * 2.5 + 12, places * bits + places.bit_length())

    # the engines

    def stage(self, s):
        """Stage: buffer, operands, weights, datapath."""
        bits = s.lanes * s.vectors * s.factor.input.width  # of a beat
        if s.direct:
            # two copies of a block, and the beat in front of them
            self.add(6, (2 * s.block_beats) * bits + READ + 4)
            self.counter(s.block_beats)
        elif s.indexed:
            self.copies(s)
        else:
            self.digits(s.words, s.banks, s.rows, s.slots)
            self.digits(s.parts, s.rows, s.words, s.passes, max(s.slots, s.blocks) if s.powers_of_two else s.slots)
            if not s.powers_of_two:
                self.counter(s.cycles)
            self.counter(s.block_beats)
            self.counter(s.steps)
            self.credit(s.slots * s.words)
            self.credit(s.slots)
            address = (s.bank_depth - 1).bit_length() + (s.cycles - 1).bit_length()
            self.add(14 + s.banks, address + 10)
            self.sum.update(self.tech.ram_cost(s.bank_depth, s.lanes * s.vectors * s.kept_width, s.banks))
        if s.direct:
            self.counter(s.cycles)
        self.weights(s.cycles, s.word_bits)
        # operands: registers, and a choice of so many places
        operands = s.lanes * s.simd * s.factor.input.width * s.vectors
        self.add(operands * (len(s.select) - 1) * 0.7, operands)
        if self.tech.products_cost(1, s.factor.input.width, s.factor.weights.width).get("DSP"):
            # into the blocks' second registers go operands, and weights that no vectors share
            self.add(0, -self.tech.absorbs * (operands + (s.word_bits if s.vectors == 1 and s.cycles > 1 else 0)))
        self.datapath(s.arithmetic, s.lanes, s.vectors, s.lut, wait=LEAD)

    def copies(self, s):
        """IndexedBuffer: a memory for each operand, with its counter or its column of a ROM, and the choice of a
        lane.
        """
        self.digits(s.words, s.slots)
        for size in (s.cycles, s.slots, s.block_beats, s.steps):
            self.counter(size)
        self.credit(s.slots)
        self.credit(s.slots)
        width, bits = s.vectors * s.kept_width, (s.words - 1).bit_length()
        if s.counted:
            self.counter(s.words, s.banks)
            self.add(s.banks * bits, READ * s.banks * bits)
        elif s.address_bits and s.cycles > 1:
            self.sum.update(self.tech.rom_cost(s.cycles, s.address_bits))
        for _ in range(s.banks):
            self.sum.update(self.tech.ram_cost(s.bank_depth, s.lanes * width, 1))
        self.add(s.banks * width * (s.lanes - 1) * 0.7, READ * s.banks * (s.lanes - 1).bit_length())
        self.add(14, READ * (s.cycles.bit_length() + s.slots.bit_length()) + 12)

    def fold(self, s):
        """Fold: walks over the addresses, the memory with what may be written to it, the group of words."""
        word = s.width * s.vectors
        for passes in (s.passes, s.passes - 1):
            self.walk(s.size, passes)
        self.counter(s.size, 2)
        self.digits(s.factors[0].pattern.d, s.factors[0].pattern.c)
        self.credit(s.size)
        self.credit(s.size // s.factors[0].pattern.c)
        self.counter(s.passes * s.size)
        self.add(word + (s.size - 1).bit_length() + 30, s.depth * 2 + 16)
        self.sum.update(self.tech.ram_cost(s.size, word, 1))
        self.add(0, (2 * s.radix - 1) * word)
        if s.factor.skip_input:
            self.counter(s.size)
            bits = s.vectors * s.factors[0].input.width
            self.sum.update(self.tech.ram_cost(s.size, bits, 1))
            self.add(2, bits + READ)
        self.weights(s.passes * s.size, s.radix * s.arithmetic.w_width)
        if s.paired:
            # operands of one half or the other, and two outputs that leave one after the other
            bits = s.vectors * s.factor.output.width
            self.add(s.simd * s.vectors * s.arithmetic.x_width + bits, bits + LEAD + s.depth)
        self.datapath(s.arithmetic, 2 if s.paired else 1, s.vectors, s.lut, wait=0, paired=s.paired)

    def walk(self, size, passes):
        """fold.walk: an address by adding, a counter of the pass, and the tables of what comes next."""
        bits = (size - 1).bit_length()
        self.adder(bits, 2 * bits)
        self.counter(size)
        self.add(3 * bits + 12, bits + 10)

    def spatial(self, s):
        """Spatial has its own estimate."""
        self.add(s.lut, s.ff)

    def weights(self, words, bits):
        """The ROM, and the register behind it or that of the address before it.

        Of a few words, columns that are equal become one: so many of 2^words are expected to be there.
        """
        if words > 1:
            if words <= SMALL:
                bits = 2**words * (1 - (1 - 0.5**words) ** bits)
            cost = self.tech.rom_cost(words, ceil(bits))
            self.sum.update(cost)
            self.add(0, bits if self.tech.free_registers else (words - 1).bit_length())

    def datapath(self, a, lanes, vectors, lut, wait, paired=False):
        """Datapath: products, and for each lane and vector adder tree, accumulator, residual, requantisation.

        wait: cycles of the residual beyond those of the arithmetic. paired: two lanes share each multiplier.
        """
        each = lanes * vectors
        if paired:
            self.sum.update(self.tech.products_cost(vectors * a.simd, a.x_width, self.tech.operand, lut=lut))
            for _ in range(vectors * a.simd):
                self.adder(a.x_width + a.w_width)  # the upper product, less what the lower one has borrowed
        else:
            self.sum.update(self.tech.products_cost(each * a.simd, a.x_width, a.w_width, lut=lut))
        before = self.sum.copy()
        self.sum.clear()
        width, terms = a.x_width + a.w_width, a.simd
        while terms > 1:
            for _ in range(terms // 2):
                self.adder(width + 1, width + 1)
            width, odd, terms = width + 1, terms % 2, -(-terms // 2)
            self.add(0, odd * (width - 1))
        if a.steps > 1:
            self.adder(a.dot_width, a.dot_width)
            self.add(a.dot_width)  # the first term replaces the sum
        total = max(a.acc_width - a.shift, a.output_width) if a.shift > 0 else a.acc_width
        joins = a.skip_factor is not None or "bias" in a.fields
        if joins or a.shift > 0:
            self.adder(a.acc_width if joins else total, one=not joins)
        f = a.skip_factor
        if f is not None:
            taken = MULTIPLY if f.skip is not None else 0
            self.add(0, (wait + a.to_total - taken) * f.skip_input.width)
            if taken:
                self.sum.update(self.tech.products_cost(1, f.skip_input.width, f.skip_weights.width, lut=lut))
            self.adder(a.acc_width)
        if "extra" in a.fields:
            self.add(a.acc_width * a.fields["extra"][1])
        above = total - a.output_width + 1
        # saturation: whether the upper bits agree, then the choice of what leaves
        self.add(above / 2 + a.output_width + 2, total + 2 * a.output_width + 3)
        one, self.sum = self.sum, before
        self.sum.update({resource: each * n for resource, n in one.items()})
        self.count(each)
        for cycle_bits in self.field_words(a):
            words = sum(f.pattern.outputs for f in a.factors) // lanes
            self.counter(words)
            self.weights(words, cycle_bits * lanes)
        self.add(0, LEAD + a.depth)

    @staticmethod
    def field_words(a):
        """Bits a lane of each ROM of fields: those that are needed in the same cycle share one."""
        needed = {"skip": 1, "relu": 2}
        words = Counter()
        for name, (_, bits, _) in a.fields.items():
            words[needed.get(name, 0)] += bits
        return words.values()
