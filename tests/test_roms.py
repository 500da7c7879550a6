"""Contents of ROMs through the real Yosys: marked, found in block RAMs, filled."""

import json

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from boards import roms, synth
from boards.families import FAMILIES
from boards.table import ECP5_85F, GW2A18, UP5K
from rtl_gen.tech import technology

DEVICES = {device.family: device for device in (UP5K, ECP5_85F, GW2A18)}


class Roms(wiring.Component):
    """ROMs {name: bits (words, width)} side by side, and a memory that is written; with a target, both also of the
    target's own block RAMs.
    """

    def __init__(self, contents, written=True, target=None):
        self.contents, self.written, self.target = contents, written, target
        ports = {"data": In(8), "we": In(1), "q": Out(8)}
        for name, bits in contents.items():
            ports |= {f"at_{name}": In(range(len(bits))), f"y_{name}": Out(bits.shape[1])}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        for name, bits in self.contents.items():
            words = [int("".join("01"[b] for b in word[::-1]), 2) for word in bits.astype(int)]
            m.submodules[name] = rom = memory.Memory(shape=unsigned(bits.shape[1]), depth=len(bits), init=words)
            port = rom.read_port(domain="sync")
            y = port.data
            m.d.comb += port.addr.eq(getattr(self, f"at_{name}"))
            if self.target and len(bits) > 32:
                y = y ^ technology(self.target).rom(m, f"own_{name}", words, bits.shape[1], getattr(self, f"at_{name}"))
            m.d.comb += getattr(self, f"y_{name}").eq(y)
        if self.written:
            m.submodules.ram = ram = memory.Memory(shape=unsigned(8), depth=64, init=[1, 2, 3])
            write, read = ram.write_port(), ram.read_port(domain="sync")
            m.d.comb += [write.addr.eq(self.data), read.addr.eq(self.data), write.data.eq(self.data)]
            q = read.data
            if self.target:
                (own,) = technology(self.target).ram(
                    m, "own", depth=64, width=8, enable=[self.we], w_address=self.data[:6], w_data=self.data,
                    r_address=self.data[:6],
                )
                q = q ^ own
            m.d.comb += [write.en.eq(self.we), self.q.eq(q)]
        return m


class Top(wiring.Component):
    """What ROMs stand in is never the top itself."""

    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        wiring.connect(m, wiring.flipped(self), self.inner)
        return m


def contents(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {f"r{words}x{width}": rng.random((words, width)) < 0.5 for words, width in shapes}


def text(parts, **options):
    return rtlil.convert(Top(Roms(parts, **options)), name="top", emit_src=False)


def mapped(family, source, directory):
    """Yosys' netlist, as a table."""
    (directory / "top.il").write_text(source)
    synth.synthesise(DEVICES[family], "top", directory)
    return json.loads((directory / "top.json").read_text())


SMALL = contents((256, 1), (9, 16), (100, 8))


def test_roms_are_found_in_the_text():
    found = {rom.name: rom.bits for rom, _ in roms.find_roms(text(SMALL))}
    # not the memory that is written
    assert {name: bits.tobytes() for name, bits in found.items()} == {
        f"\\top.inner\\{name}": bits.tobytes() for name, bits in SMALL.items()
    }


def test_shallow_roms_are_left_alone():
    """Whose columns, or the pieces into which a narrow block RAM cuts them, have too few bits to be told apart."""
    parts = contents((7, 16), (31, 9), (31, 5), (63, 4), (127, 2), (255, 1))
    assert not roms.find_roms(text(parts, written=False))
    parts = contents((8, 10), (32, 9), (32, 5), (64, 4), (128, 2), (256, 1))
    assert len(roms.find_roms(text(parts, written=False))) == len(parts)


def test_contents_are_replaced_and_nothing_else():
    source, new = text(SMALL), contents((256, 1), (9, 16), (100, 8), seed=1)
    names = {rom.name: next(new[n] for n in new if n in rom.name) for rom, _ in roms.find_roms(source)}
    replaced = roms.replace_roms(source, names)
    assert {rom.name: rom.bits.tobytes() for rom, _ in roms.find_roms(replaced)} == {
        name: bits.tobytes() for name, bits in names.items()
    }
    # but for the wish for block RAMs, it is what Amaranth makes of the new contents
    assert replaced.replace('  attribute \\rom_style "block"\n', "") == text(new)
    assert replaced.count("rom_style") == len(SMALL)


def test_structure_is_all_but_the_contents():
    one = roms.structure(text(SMALL))
    assert one == roms.structure(text(contents((256, 1), (9, 16), (100, 8), seed=1)))
    assert one != roms.structure(text(contents((256, 1), (9, 16), (101, 8))))
    assert one != roms.structure(text(contents((256, 1), (9, 15), (100, 8))))
    assert one != roms.structure(text(SMALL, written=False))
    # what is too shallow to be marked is hardware
    assert roms.structure(text(contents((7, 4)))) != roms.structure(text(contents((7, 4), seed=1)))


@pytest.mark.parametrize("words, width", [(256, 1), (32, 9), (8, 64), (9, 64), (3000, 64)])
def test_marks_differ_in_every_column_and_stay_the_same(words, width):
    rom = roms.Rom(name="\\top.r\\store", bits=np.zeros((words, width), bool))
    marks = roms.marks([rom])[rom.name]
    columns = {column.tobytes() for column in marks.T}
    assert len(columns) == width and bytes(words) not in columns and marks.shape == (words, width)
    assert np.array_equal(marks, roms.marks([rom])[rom.name])


def test_no_mark_is_a_constant():
    """Yosys would take the column out of its block RAM; of short ROMs one mark of 256 would be full."""
    for n in range(100):
        (bits,) = roms.marks([roms.Rom(name=f"weights{n}", bits=np.zeros((8, 40), bool))]).values()
        assert bits.any(axis=0).all() and not bits.all(axis=0).any()


def test_more_columns_than_marks():
    rom = roms.Rom(name="\\top.r\\store", bits=np.zeros((8, 256), bool))
    with pytest.raises(ValueError, match="8 words are too few to mark 256 columns"):
        roms.marks([rom])


@pytest.mark.parametrize("family", DEVICES)
def test_rams_are_read_and_written(family):
    ram = FAMILIES[family].ram
    rows = len(ram.parameters) * 16
    content = np.random.default_rng(0).random((rows, ram.bits)) < 0.5
    assert np.array_equal(ram.read(ram.write(content)), content)
    if FAMILIES[family].blocks:
        _, read, write = FAMILIES[family].blocks
        assert np.array_equal(read(write(content)), content)
    else:
        # 16 bits a row in the cells without a ninth bit a byte
        content = content[:, :16]
        assert np.array_equal(ram.read(ram.write(content)), content)


def there(family, marked, netlist):
    ram = FAMILIES[family].ram
    rams = roms.read_rams(netlist, ram)
    return rams, roms.locate(rams, marked, ram, "top")


def through_yosys(family, parts, directory):
    """Filling a marked netlist makes what Yosys makes of the contents themselves, block RAM by block RAM."""
    source = text(parts, target=family)
    found = [rom for rom, _ in roms.find_roms(source)]
    marked, real = roms.marks(found), {rom.name: rom.bits for rom in found}
    netlists = {}
    for name, bits in (("marked", marked), ("real", real)):
        (directory / name).mkdir()
        netlists[name] = mapped(family, roms.replace_roms(source, bits), directory / name)
    rams, places = there(family, marked, netlists["marked"])
    filled = roms.fill(rams, places, real)
    assert {name for name, _ in places.values()} == set(real)
    wanted = roms.read_rams(netlists["real"], FAMILIES[family].ram)
    assert set(wanted) == set(rams)
    for cell, content in filled.items():
        assert np.array_equal(content, wanted[cell]), cell
    # and the netlist that is written back says the same
    roms.fill_netlist(netlists["marked"], filled, FAMILIES[family].ram)
    after = roms.read_rams(netlists["marked"], FAMILIES[family].ram)
    assert all(np.array_equal(after[cell], wanted[cell]) for cell in filled)
    return netlists["real"], marked


@pytest.mark.parametrize("family", DEVICES)
def test_marks_are_found_where_contents_go(family, tmp_path):
    """Few words and many, narrow and wide, one block RAM and several."""
    shapes = (256, 1), (8, 16), (9, 17), (59, 8), (32, 5), (257, 3), (600, 9), (1024, 2)
    real, marked = through_yosys(family, contents(*shapes), tmp_path)
    # contents that are not the marks are found nowhere: so it is said, and which
    with pytest.raises(ValueError, match=r"the contents of \S+ were not found in any block RAM"):
        there(family, marked, real)


@pytest.mark.slow
@pytest.mark.parametrize("family", DEVICES)
@pytest.mark.parametrize("width", [1, 5, 8, 16, 18, 33, 64])
def test_every_depth_and_width(family, width, tmp_path):
    # of fewer random words some columns would be alike, which Yosys then keeps once
    depths = (16, 31, 64, 128, 255, 256, 511, 512, 1024, 2048)
    through_yosys(family, contents(*((words, width) for words in depths)), tmp_path)


@pytest.mark.parametrize("family", DEVICES)
def test_a_rom_in_logic_is_an_error(family, tmp_path):
    """A ROM that nobody wished into a block RAM, and so became tables."""
    parts = contents((64, 8), (300, 8))
    found = roms.find_roms(text(parts))
    marked = roms.marks([rom for rom, _ in found])
    source = roms.replace_roms(text(parts), marked).replace('rom_style "block"', 'rom_style "logic"', 1)
    netlist = mapped(family, source, tmp_path)
    with pytest.raises(ValueError, match="were not found in any block RAM; build without marks"):
        there(family, marked, netlist)


def placed(family, *contents):
    """A placed design's text with block RAMs of these contents, and something between them."""
    if family == "gowin":
        ram = FAMILIES[family].ram
        cells = {f"c{n}": {"type": "BSRAM", "parameters": ram.write(content)} for n, content in enumerate(contents)}
        cells["other"] = {"type": "LUT4", "parameters": {"INIT": "0" * 16}}
        return json.dumps({"modules": {"top": {"attributes": {"top": "1"}, "cells": cells}}})
    _, _, write = FAMILIES[family].blocks
    head = {"ice40": ".ram_data 6 {}\n", "ecp5": ".bram_init {}\n"}[family]
    return "begin\n" + "\n".join(head.format(n) + write(content) for n, content in enumerate(contents)) + "\nend\n"


@pytest.mark.parametrize("family", DEVICES)
def test_placed_text(family):
    """Contents are replaced where they stand; missing ones and twins are refused."""
    ram = FAMILIES[family].ram
    shape = len(ram.parameters) * 16, ram.bits
    one, two, three = np.random.default_rng(0).random((3, *shape)) < 0.5
    source = placed(family, one, two)
    assert roms.fill_text(source, family, {"a": one, "b": two}, {"b": three}) == placed(family, one, three)
    with pytest.raises(ValueError, match="0 of 1 block RAMs with ROMs were found"):
        roms.fill_text(source, family, {"a": three}, {"a": one})
    with pytest.raises(ValueError, match="2 of 1 block RAMs"):
        roms.fill_text(placed(family, one, one), family, {"a": one, "b": two}, {"a": two})
