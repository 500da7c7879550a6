"""How memories are cut so that they fill block RAMs: in words, in bits, and in the bits that a write enable is for.

A block RAM has several modes, from few wide words to many narrow ones. One mode for a whole memory wastes what lies
beyond its depth: 3072 words of 27 bits are 9 block RAMs of 4096 × 4, or 3 of 2048 × 9 and 2 of 1024 × 18.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

PRICE = 128  # bits chosen of two, a table each, that one block RAM less is worth; devices have 170 to 400 for each


class Mode(NamedTuple):
    """A block RAM of so many words of so many bits; grain: bits that a write enable is for."""

    words: int
    bits: int
    grain: int


@dataclass(frozen=True, kw_only=True)
class Cut:
    """`banks` memories of depth × width with common addresses, each with an enable to write; and what they become.

    Members
    -------
    into
        "blocks": side by side, in `mode`, each bank in its own, or whole banks together in one.
        "tables": no block RAM, as it is too short for one.
        "words": `chunks` of 2^`low` words, side by side in one memory (written: each a bank for each bank), and another
        with what is left, if anything is. The address has the chunk above `low` bits for its words.
        "bits": two memories, the lower bits and those above.
        "grains": a memory with a bank for each grain, so that banks may share block RAMs in part; the uppermost grain
        of a bank may have bits that nobody uses.
    parts
        the Cuts of those.
    blocks, chosen
        block RAMs; bits that are chosen of two behind them, three of two where it is of four.
    """

    depth: int
    width: int
    banks: int
    into: str
    parts: tuple = ()
    mode: Mode | None = None
    chunks: int = 1
    blocks: int = 0
    chosen: int = 0

    @property
    def low(self):
        return self.parts[0].depth.bit_length() - 1

    def leaves(self):
        """All "blocks" and "tables" that it becomes."""
        return [leaf for part in self.parts for leaf in part.leaves()] or [self]


@cache
def cut(depth, width, banks, modes, *, written, short=0, price=PRICE):
    """The Cut with the fewest block RAMs, where one less is not dearer than `price` bits chosen.

    modes: of the family, a tuple, those with the fewest words first; words are powers of two. written: a RAM, whose
    banks have enables; else a ROM of one bank. short: words up to which what is left behind a chunk, or all, goes into
    tables.
    """
    if depth <= short:
        return Cut(depth=depth, width=width, banks=banks, into="tables")
    least = -(-max(0, depth - short) * width * banks // max(mode.words * mode.bits for mode in modes))
    found = []
    for one in _ways(depth, width, banks, modes, {"written": written, "short": short, "price": price}):
        found.append(one)
        if (one.blocks, one.chosen) <= (least, 0):
            break
    return min(found, key=lambda one: one.blocks * price + one.chosen)


def _ways(depth, width, banks, modes, how):
    shape = {"depth": depth, "width": width, "banks": banks}
    if depth <= modes[-1].words:
        mode = mode_of(depth, modes)
        yield Cut(**shape, into="blocks", mode=mode, blocks=side_by_side(width, banks, mode))
        if banks > 1 and mode.grain < mode.bits:
            grains = banks * -(-width // mode.grain)
            blocks = side_by_side(mode.grain, grains, mode)
            part = Cut(depth=depth, width=mode.grain, banks=grains, into="blocks", mode=mode, blocks=blocks)
            yield _of("grains", shape, part)
    size = modes[0].words
    while size < depth:
        for chunks in {depth // size, -(-depth // size)}:
            beside = (width, banks * chunks) if how["written"] else (width * chunks, 1)
            parts = [cut(size, *beside, modes, **how)]
            if depth > chunks * size:
                parts.append(cut(depth - chunks * size, width, banks, modes, **how))
            yield _of("words", shape, *parts, chunks=chunks)
        size *= 2
    for bits in _widths(width, modes):
        yield _of("bits", shape, *(cut(depth, side, banks, modes, **how) for side in (bits, width - bits)))


def mode_of(depth, modes):
    """The Mode with the widest words that has so many of them."""
    return next(mode for mode in modes if depth <= mode.words)


def side_by_side(width, banks, mode):
    """Block RAMs in one mode, where each has whole banks or a part of one."""
    together = mode.bits // (-(-width // mode.grain) * mode.grain)
    return -(-banks // together) if together > 1 else banks * -(-width // mode.bits)


def _of(into, shape, *parts, chunks=1):
    choices = chunks + len(parts) - 2 if into == "words" else 0
    chosen = choices * shape["width"] * shape["banks"] + sum(part.chosen for part in parts)
    return Cut(**shape, into=into, parts=parts, chunks=chunks, blocks=sum(p.blocks for p in parts), chosen=chosen)


def _widths(width, modes):
    """Bits of a first part worth a try: those of a mode; of wide words as many of the widest as leave one and a rest.
    """
    widest = max(mode.bits for mode in modes)
    if width > 2 * widest:
        return (width - widest - width % widest,) if width % widest else ()
    return [mode.bits for mode in modes if mode.bits < width]
