"""What the open flow has to know of a family, from Yosys' cells to the bitstream. rtl_gen.tech has what cores need."""

from dataclasses import dataclass

import numpy as np

ROWS = 16  # of a block RAM's content in one of its parameters, in every family

# Amaranth names the values of an array p[0], p[1], ...; Yosys 0.70, in the names that it gives to ABC9, the bits of a
# wire p. Where both are at its border it stops, joins the two, or takes one for the other without a word.
NAMES_APART = r"rename -hide */w:*\[*"


@dataclass(frozen=True, kw_only=True)
class Ram:
    """Block RAMs of a family as Yosys and nextpnr write them, seen as rows of bits.

    cells: types, or their beginnings. parameters: names of those with ROWS rows of the content each. bits: of a row, at
    most; pitch: how far rows are apart in a parameter, None where there is nothing between them. layouts: (spread,
    stride) in which a column of a ROM may lie in a column of the block RAM: every `spread`-th row holds every
    `stride`-th word.
    """

    cells: tuple
    parameters: tuple
    bits: int
    pitch: int | None
    layouts: tuple

    @property
    def size(self):
        """Bits of a block RAM."""
        return len(self.parameters) * ROWS * self.bits

    def read(self, parameters):
        """Cell parameters → bool (rows, bits)."""
        texts = (np.frombuffer(parameters[name].encode(), np.uint8)[::-1] == ord("1") for name in self.parameters)
        return np.concatenate([text.reshape(ROWS, -1)[:, : self.bits] for text in texts])

    def write(self, content):
        """The inverse of `read`: name → text of bits."""
        padded = np.zeros((len(content), self.pitch or content.shape[1]), bool)
        padded[:, : content.shape[1]] = content
        groups = padded.reshape(len(self.parameters), -1)
        return {name: bit_text(group) for name, group in zip(self.parameters, groups)}

    def lines(self, content):
        """The content as RTLIL has it in a cell."""
        written = self.write(content).items()
        return "".join(f"    parameter \\{name} {len(bits)}'{bits}\n" for name, bits in written)


def bit_text(bits):
    """Bits, the lowest first, as RTLIL and Yosys' JSON have them."""
    return "".join("01"[int(bit)] for bit in bits.reshape(-1)[::-1])


@dataclass(frozen=True, kw_only=True)
class Range:
    """Limits of a device's PLL in MHz, both ends included."""

    input: tuple
    pfd: tuple
    vco: tuple
    output: tuple


def within(hz, limits):
    return limits[0] <= hz / 1e6 <= limits[1]


class Family:
    """A family; each module here has an object of one, with these attributes and methods.

    target: of cores made of its primitives, "plain" where rtl_gen.tech has none. library: Yosys' folder of its cells;
    the target and the .v file here, if there is one, whose models of cells stand in for those it has not. toolchain:
    Amaranth's name. pnr, packer: tools of boards.tools. constraints, placed, bitstream: suffixes of what nextpnr takes
    and writes, and of the end. cells: resource → what each of Yosys' cells takes of it; used: the same of cells in
    nextpnr's report. ram: its Ram. pll: its Range. blocks: (pattern, read, write) of a block RAM's content in the
    placed text; None: that is JSON with Yosys' cells. spread: cells of which boards.floorplan knows, type → resource;
    part(platform): arguments that tell nextpnr the device, where there are any. placers: names of nextpnr's, each for a
    clock that the one before misses; "" is its own choice.
    synthesis(device, top): the lines of Yosys' script that map a design. place(platform, name, seed, options), of the
    packer's options, and pack(platform, options, source, target): arguments of nextpnr and of the packer.
    pll_candidates(f): (Hz of the phase comparison, of the oscillator, of the output, parameters) of all that the PLL
    makes of f Hz. pll_instance(pll, *, source, clock, locked, pad, device): its primitive, see boards.pll.instance.
    """

    variants = ()  # beginnings of cells that carry their variant in the name
    blocks = None
    placers = ("",)
    spread = {}
    writes_json = False  # whether `synthesis` writes TOP.json as well

    def mapped(self, path):
        """What is done to the netlist in TOP.json before nextpnr reads it."""

    def notes(self, device):
        """What to know of a build's figures, a line each."""
        return ()
