"""ROM contents in RTLIL and in placed bitstreams, so that new weights need no new placement.

A design is synthesised and placed with *marks* in its ROMs, random contents in which every column of bits differs.
Where a mark's column turns up in a block RAM of the result is where that column of the ROM went, and the real contents,
or later ones, are written there. (The idea of icestorm's icebram; this one takes many ROMs at once and three families.)
A ROM is a memory that nothing writes, or any block RAM that the gateware instances itself: the cell keeps its name and
its whole content. So what is patched follows from the kind of cell alone, not from anybody's names.
"""

import hashlib
import json
import re
from dataclasses import dataclass

import numpy as np

from .families import FAMILIES
from .families.family import Ram, bit_text

SHALLOWEST = 8  # words: a shallower ROM has too few different columns to be told apart, and stays as it is
SHORTEST = 16  # words of a column that a narrow block RAM spreads over several of its own

_MODULE = re.compile(r"^module (\S+)\n(.*?)^end$", re.DOTALL | re.MULTILINE)
_MEMORY = re.compile(r"^  memory width (\d+) size (\d+) (\S+)$", re.MULTILINE)
_MEMID = r'parameter \\MEMID "\\{}"\n'
_INIT = re.compile(
    r'^  cell \$meminit_v2 \S+\n(    parameter \\MEMID "\\(\S+?)"\n.*?)^    connect \\DATA \d+\'([01]+)$',
    re.DOTALL | re.MULTILINE,
)
_INSTANCE = re.compile(r"^  cell \\(\w+) (\\\S+)\n(?:    parameter .*\n)*", re.MULTILINE)
_PARAMETER = re.compile(r"^    parameter \\(\w+) \d+'([01]+)\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Rom:
    """name: module and memory, or cell, in the RTLIL. bits: bool (words, width), column n is bit n of a word; of a
    block RAM that is instanced its whole content, and `ram` says of which family.
    """

    name: str
    bits: np.ndarray
    ram: Ram | None = None

    def text(self, bits):
        """Other contents, as RTLIL has them in the place of these."""
        return self.ram.lines(bits) if self.ram else bit_text(bits)


def _stride(width):
    """Into how many pieces the narrowest block RAM of any family that holds words of `width` bits cuts a column."""
    return next((16 // bits for bits in (1, 2, 4) if width <= bits), 2 if width <= 9 else 1)


def find_roms(rtlil):
    """The memories of an RTLIL text that nothing writes, deep enough to be marked, and the block RAMs that it
    instances: [(Rom, slice of its contents in the text)].
    """
    found = []
    for module in _MODULE.finditer(rtlil):
        body, start = module[2], module.start(2)
        sizes = {name: (int(size), int(width)) for width, size, name in _MEMORY.findall(body)}
        written = {m[1] for m in re.finditer(r'cell \$memwr_v2 \S+\n    parameter \\MEMID "\\(\S+?)"', body)}
        for cell in _INIT.finditer(body):
            memory = cell[2]
            words, width = sizes[memory]
            stride = _stride(width)
            if memory in written or words < (SHALLOWEST if stride == 1 else SHORTEST * stride):
                continue
            bits = np.frombuffer(cell[3].encode(), np.uint8)[::-1] == ord("1")
            rom = Rom(name=f"{module[1]}{memory}", bits=bits.reshape(words, width))
            found.append((rom, slice(start + cell.start(3), start + cell.end(3))))
        for cell in _INSTANCE.finditer(body):
            ram = next((f.ram for f in FAMILIES.values() if cell[1].startswith(f.ram.cells)), None)
            if ram is None:
                continue
            parameters = [p for p in _PARAMETER.finditer(cell[0]) if p[1] in ram.parameters]
            if len(parameters) < len(ram.parameters):
                continue  # of somebody's own shell; ours give all
            rom = Rom(name=f"{module[1]}{cell[2]}", bits=ram.read({p[1]: p[2] for p in parameters}), ram=ram)
            place = slice(start + cell.start() + parameters[0].start(), start + cell.start() + parameters[-1].end())
            assert rtlil[place] == rom.text(rom.bits), rom.name
            found.append((rom, place))
    return found


def replace_roms(rtlil, contents):
    """The RTLIL with other contents, name → bits, and the request that these memories be block RAMs."""
    text = _filled(rtlil, lambda rom: rom.text(contents[rom.name]))
    names = {tuple(name.rsplit("\\", 1)) for name in contents}

    def ask(module):
        def one(memory):
            asked = (module[1], memory[3].removeprefix("\\")) in names
            return ('  attribute \\rom_style "block"\n' if asked else "") + memory[0]

        return f"module {module[1]}\n{_MEMORY.sub(one, module[2])}end"

    return _MODULE.sub(ask, text)


def _filled(rtlil, text_of=lambda rom: ""):
    """An RTLIL text with text_of(rom) in the place of the contents of each ROM, or without any."""
    parts, at = [], 0
    for rom, place in sorted(find_roms(rtlil), key=lambda item: item[1].start):
        parts += [rtlil[at : place.start], text_of(rom)]
        at = place.stop
    return "".join([*parts, rtlil[at:]])


def structure(rtlil):
    """A hash of an RTLIL text without the contents of its ROMs: equal for designs that differ in those alone."""
    return hashlib.sha256(_filled(rtlil).encode()).hexdigest()


def differing(one, other):
    """Names of the modules of two RTLIL texts that differ in more than the contents of ROMs."""
    texts = [{module[1]: module[2] for module in _MODULE.finditer(_filled(rtlil))} for rtlil in (one, other)]
    return [name for name in {**texts[0], **texts[1]} if texts[0].get(name) != texts[1].get(name)]


def marks(roms):
    """Name → random bits of the shape of each ROM, the same every time, no two columns of a ROM alike and none a
    constant, which would be in no block RAM. So are the pieces into which a narrow one cuts them.
    """
    contents = {}
    for rom in roms:
        rng = np.random.default_rng(list(hashlib.sha256(rom.name.encode()).digest()))
        stride, columns = _stride(rom.bits.shape[1]), []
        seen = {bytes([bit]) * len(range(n, len(rom.bits), stride)) for n in range(stride) for bit in (0, 1)}
        while len(columns) < rom.bits.shape[1]:
            if len(seen) >= 1 << min(len(rom.bits) // stride, 62):
                raise ValueError(f"{rom.name}: {len(rom.bits)} words are too few to mark {rom.bits.shape[1]} columns")
            column = rng.random(len(rom.bits)) < 0.5
            pieces = {column[n::stride].tobytes() for n in range(stride)}
            if len(pieces) == stride and not pieces & seen:
                seen |= pieces
                columns.append(column)
        contents[rom.name] = np.stack(columns, axis=1)
    return contents


def read_rams(netlist, ram):
    """{cell: bool (rows, bits)} of the block RAMs of a mapped netlist (the table of Yosys' JSON)."""
    return {name: ram.read(cell["parameters"]) for name, cell in _cells(netlist, ram)}


def _cells(netlist, ram):
    (top,) = (m for m in netlist["modules"].values() if int(m["attributes"].get("top", "0"), 2))
    # a placer may call them otherwise, their contents it does not
    first = ram.parameters[0]
    return [(name, cell) for name, cell in top["cells"].items() if first in cell.get("parameters", ())]


def locate(rams, contents, ram, top):
    """Where the bits of marked ROMs went: {cell: (ROM, int (rows, bits))}, an index into the ROM's bits or -1.

    Raises ValueError where a bit of a ROM is in no block RAM.
    """
    places, left = {}, {name: np.ones(bits.shape, bool) for name, bits in contents.items()}
    for name, bits in contents.items():
        path = name.removeprefix(f"\\{top}.").replace("\\", ".")
        for cell, content in rams.items():
            if cell == path and np.array_equal(content, bits):
                index = np.arange(bits.size).reshape(bits.shape)
            elif re.fullmatch(re.escape(path) + r"\.\d+\.\d+", cell):
                index = _match(content, bits, ram)
            else:
                continue
            places[cell] = name, index
            left[name].ravel()[index[index >= 0]] = False
    lost = [name for name, missing in left.items() if missing.any()]
    if lost:
        raise ValueError(f"the contents of {lost[0]} were not found in any block RAM; build without marks")
    return places


def _match(content, bits, ram):
    """Index into `bits` of each bit of a block RAM's content, -1 for those that belong to nobody; all -1 where none
    fits.
    """
    for spread, stride in ram.layouts:
        rows = len(content) // spread
        keys = {}
        for block in range(0, len(bits), rows * stride):
            for offset in range(min(stride, len(bits) - block)):
                words = np.arange(block + offset, min(len(bits), block + rows * stride), stride)
                for column in range(bits.shape[1]):
                    keys.setdefault(_key(bits[words, column], rows), []).append((words, column))
        index, fits = np.full(content.shape, -1), True
        for column in range(content.shape[1]):
            for first in range(spread):
                piece = content[first::spread, column]
                found = keys.get(piece.tobytes(), [])
                if piece.any() and len(found) == 1:
                    words, source = found[0]
                    index[first : first + spread * len(words) : spread, column] = words * bits.shape[1] + source
                fits &= len(found) == 1 or not piece.any()
        if fits and (index >= 0).any():
            return index
    return np.full(content.shape, -1)


def _key(bits, rows):
    padded = np.zeros(rows, bool)
    padded[: len(bits)] = bits
    return padded.tobytes()


def fill(rams, places, contents):
    """Contents of the block RAMs with the ROMs' bits in their places."""
    parts = ((cell, contents[name].ravel()[index], index) for cell, (name, index) in places.items())
    return {cell: np.where(index >= 0, bits, rams[cell]) for cell, bits, index in parts}


def fill_netlist(netlist, filled, ram):
    """Write contents into the cells of a mapped netlist (the table of Yosys' JSON), in place."""
    for name, cell in _cells(netlist, ram):
        if name in filled:
            cell["parameters"] |= ram.write(filled[name])


def fill_text(text, family, before, after):
    """Replace contents in a placed design's text: cell → contents before and after.

    That is icestorm's .asc, prjtrellis' .config, or nextpnr's JSON for Gowin.
    Raises ValueError unless each content of `before` stands there exactly once.
    """
    wanted = {before[cell].tobytes(): cell for cell in after}
    found = []

    def other(content):
        """What takes its place, or None."""
        cell = wanted.get(content.tobytes())
        if cell is not None:
            found.append(cell)
        return after.get(cell)

    if FAMILIES[family].blocks is None:
        design, ram = json.loads(text), FAMILIES[family].ram
        for _, cell in _cells(design, ram):
            new = other(ram.read(cell["parameters"]))
            if new is not None:
                cell["parameters"] |= ram.write(new)
        text = json.dumps(design)
    else:
        pattern, read, write = FAMILIES[family].blocks

        def one(block):
            new = other(read(block[2]))
            return block[0] if new is None else block[1] + write(new)

        text = pattern.sub(one, text)
    if sorted(found) != sorted(after):
        raise ValueError(f"{len(found)} of {len(after)} block RAMs with ROMs were found in the placed design")
    return text
