"""The tally of what a core takes of an FPGA: every part adds its own, by a formula that stands with the part.

RAM (block RAMs) and DSP are exact, LUT and FF estimates. A LUT is a table of four inputs; of an ECP5 it is nextpnr's
TRELLIS_COMB, of a Gowin a table or an ALU, of plain HDL, as Yosys maps it for a Xilinx 7-series part, a table of six
inputs. FF are the registers that the parts declare. The few constants in the formulas were fitted to what Yosys makes
(tests/test_resources.py holds other designs against them).
"""

from collections import Counter
from math import ceil, inf

from .tech.cut import mode_of

RESOURCES = "LUT", "FF", "DSP", "RAM"
# costs of memories: those of Yosys' memory_libmap, which finds a bit of logic worth 1 and 16×4 bits of tables 4
ENABLE = 8  # cost of a block RAM's read enable, found by trying
CHOICE = 0.25  # and of a bit that is chosen from another row of tables


class Tally:
    """A sum of resources in a Technology.

    Members: tech; sum, resource → number; total(), the same in whole numbers; empty(), a tally of the same technology.
    """

    def __init__(self, tech):
        self.tech, self.sum = tech, Counter()

    def empty(self):
        return Tally(self.tech)

    def total(self):
        return {resource: ceil(self.sum[resource]) for resource in RESOURCES}

    def add(self, lut=0, ff=0):
        """Tables of four inputs, and registers."""
        self.sum.update(LUT=lut * self.tech.logic, FF=ff)

    def take(self, needs, times=1):
        """What a dict of resource → number says, so many times."""
        self.sum.update({resource: times * number for resource, number in needs.items()})

    def adder(self, bits, ff=0, *, one=False):
        """A carry chain: its bits, in whole pairs, and its start.

        one: of a value and a bit, which needs no tables beside a chain that stands apart from them.
        """
        tech = self.tech
        bits = 0 if one and tech.apart else bits
        self.sum.update(LUT=-(-bits // tech.pair) * tech.pair + tech.chain, FF=ff)

    def memory(self, depth, width, *, in_registers=False):
        """A memory that synthesis infers, read by a clock with an enable, mapped as memory_libmap would; in_registers:
        never a block RAM.
        """
        tech = self.tech
        if tech.name == "plain":
            # without a register of its own behind it
            return self.sum.update(tech.ram_cost(depth, width, 1), FF=-width)
        mode = mode_of(min(depth, tech.modes[-1].words), tech.modes)
        blocks = -(-width // mode.bits) * -(-depth // mode.words)
        rows = -(-depth // tech.rows) if tech.rows else 0
        tables = -(-width // 4) * rows
        costs = {"logic": width * depth, "block": inf if in_registers else blocks * tech.block + ENABLE}
        if rows:
            costs["tables"] = tables * 4 + width * (rows - 1) * CHOICE
        cheapest = min(costs, key=costs.get)
        if cheapest == "block":
            self.sum["RAM"] += blocks
        elif cheapest == "tables":
            self.add(tables * tech.row + (width * (rows - 1) + rows if rows > 1 else 0), width)
        else:
            self.add(depth + width * (depth - 1) * 2 / 3, width * (depth + 1))
