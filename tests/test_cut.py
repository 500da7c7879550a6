"""Memories cut into block RAMs: as few as can be, and every bit in one place."""

import time
from functools import cache

import pytest

from rtl_gen.tech import technology
from rtl_gen.tech.cut import Mode, cut

FAMILIES = {target: technology(target).modes for target in ("ecp5", "ice40", "gowin")}
# of a few bits each, so that all covers can be tried: a square, one whose wide modes have more bits, one between
TOYS = {
    "square": (Mode(2, 4, 4), Mode(4, 2, 2), Mode(8, 1, 1)),
    "more bits in wide words": (Mode(2, 6, 6), Mode(4, 3, 3), Mode(8, 1, 1)),
    "odd": (Mode(2, 5, 5), Mode(4, 2, 2), Mode(8, 1, 1)),
}
ANY = 1 << 30  # a price at which only block RAMs count
# RAMs of depth, width, banks, and ROMs of depth, width → block RAMs
KNOWN = {
    "ecp5": {
        (3072, 9, 3): 5, (5120, 32, 1): 10, (4096, 13, 1): 3, (1024, 20, 2): 3, (512, 27, 4): 3, (16384, 9, 1): 8,
        (20000, 1, 1): 2, (528, 36, 1): 1, (529, 36, 1): 2, (3072, 27): 5, (5120, 32): 9, (4096, 13): 3,
    },
    "ice40": {
        (768, 16, 1): 3, (1536, 6, 1): 3, (256, 12, 4): 3, (5120, 2, 1): 3, (300, 20): 3, (4096, 13): 13, (530, 9): 2,
    },
    "gowin": {(3072, 9, 3): 5, (5120, 32, 1): 10, (4096, 13, 1): 3, (520, 36, 2): 2, (5120, 32): 9},
}


def fewest(depth, width, chunk, modes):
    """Rectangles, each within a mode, that cover a memory whose chunks of words lie side by side, found by trying all
    covers.

    The first bit in order that is not covered, row by row, is in some rectangle; with all rows above covered, that one
    may begin in its row.
    """
    wide, rows = -(-depth // chunk) * width, min(depth, chunk)
    places = [(row, column) for row in range(rows) for column in range(wide) if row + column // width * chunk < depth]
    bit = {place: 1 << n for n, place in enumerate(places)}

    def rectangles(row, column):
        found = set()
        for words, bits, _ in modes:
            for left in range(column - bits + 1, column + 1):
                inside = ((r, c) for r in range(row, row + words) for c in range(left, left + bits))
                found.add(sum(bit.get(place, 0) for place in inside))
        return [one for one in found if not any(one != more and one | more == more for more in found)]

    at = [rectangles(*place) for place in places]

    def covered_by(count):
        @cache
        def rest(covered, left):
            first = (~covered & -~covered).bit_length() - 1
            if first == len(places):
                return True
            return left > 0 and any(rest(covered | one, left - 1) for one in at[first])

        return rest(0, count)

    count = capacity(depth, width, modes)
    while not covered_by(count):
        count += 1
    return count


def capacity(depth, width, modes):
    return -(-depth * width // max(words * bits for words, bits, _ in modes))


@pytest.mark.parametrize("toy", TOYS)
def test_no_cover_has_fewer(toy):
    """Whatever the chunks that lie side by side, of a power of two of words."""
    modes, as_few = TOYS[toy], 0
    for depth in range(1, 10):
        for width in range(1, 5):
            found = cut(depth, width, 1, modes, written=False, price=ANY).blocks
            tried = min(fewest(depth, width, chunk, modes) for chunk in (2, 4, 8, 16))
            assert capacity(depth, width, modes) <= found <= tried, (depth, width)
            as_few += found == tried
    assert as_few >= 34  # chunks of several sizes in one memory save more


@pytest.mark.parametrize("target", FAMILIES)
def test_no_other_cuts_have_fewer(target):
    """Cuts behind any whole mode, into any chunks, and in bits without a limit, save no block that these do not."""
    modes = FAMILIES[target]
    least = modes[0].words

    @cache
    def free(depth, width):
        found = [-(-width // mode.bits) for mode in modes if depth <= mode.words]
        found += [free(mode.words, width) + free(depth - mode.words, width) for mode in modes if mode.words < depth]
        for size in (least << n for n in range(4)):
            for chunks in range(2, -(-depth // size) + 1):
                rest = depth - chunks * size
                found.append(free(size, width * chunks) + (free(rest, width) if rest > 0 else 0))
        found += [free(depth, mode.bits) + free(depth, width - mode.bits) for mode in modes if mode.bits < width]
        return min(found)

    for rows in range(1, 14):
        for width in range(1, 45, 2):
            depth = rows * least - rows % 3  # a word or two less change nothing
            found = cut(depth, width, 1, modes, written=False, price=ANY).blocks
            assert found == free(depth, width), (depth, width)


@pytest.mark.parametrize("target", KNOWN)
def test_known_counts(target):
    short = technology(target).short
    rams = [shape for shape in KNOWN[target] if len(shape) == 3]
    found = {ram: cut(*ram, FAMILIES[target], written=True, short=short).blocks for ram in rams}
    roms = KNOWN[target].keys() - found
    found |= {rom: cut(*rom, 1, FAMILIES[target], written=False).blocks for rom in roms}
    assert found == KNOWN[target]


@pytest.mark.parametrize("target", FAMILIES)
def test_parts_are_the_whole(target):
    """Every part has its place, at an address that is the low bits of the whole's, and blocks are those of the
    leaves.
    """
    for depth in (5, 300, 528, 1536, 5000, 40_000):
        for width, banks, written in ((1, 1, True), (13, 1, False), (20, 3, True), (27, 4, True), (300, 1, False)):
            whole = cut(depth, width, banks, FAMILIES[target], written=written, short=16 * written)
            check(whole, written)
            assert whole.blocks == sum(leaf.blocks for leaf in whole.leaves())


def check(one, written):
    for part in one.parts:
        check(part, written)
    if one.into == "words":
        beside, *rest = one.parts
        assert beside.depth == 1 << one.low and beside.width * beside.banks == one.chunks * one.width * one.banks
        assert beside.width == one.width if written else beside.banks == 1
        assert [(part.width, part.banks) for part in rest] == [(one.width, one.banks)] * len(rest)
        left = one.depth - one.chunks * beside.depth
        assert [part.depth for part in rest] == ([left] if left > 0 else []) and left > -beside.depth
    elif one.into == "bits":
        assert sum(part.width for part in one.parts) == one.width
        assert {(part.depth, part.banks) for part in one.parts} == {(one.depth, one.banks)}
    elif one.into == "grains":
        (part,) = one.parts
        assert part.depth == one.depth and part.width * part.banks >= one.width * one.banks
        assert part.banks % one.banks == 0 and part.width == part.mode.grain
    else:
        assert not one.parts and (one.into == "tables") == (one.mode is None)
        assert one.mode is None or one.depth <= one.mode.words


def test_cutting_takes_no_time():
    begin = time.process_time()
    for depth in range(3001, 3101):
        cut(depth, 299, 1, FAMILIES["ecp5"], written=False)
    assert time.process_time() - begin < 3
