"""The parts of every target: the same results in the same cycles, of the promised size."""

import json
import random
import shutil
from collections import Counter
from math import ceil

import numpy as np
import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import Shape, signed, unsigned
from tech_bench import SHARE, Part, play, synthesise

from boards import synth
from boards.families import FAMILIES
from boards.table import ECP5_85F, GW1NR9, UP5K
from rtl_gen.tech import MULTIPLY, READ, models, technology

SEED = 1
TARGETS = ("plain", "ice40", "ecp5", "gowin")
# count, bits of x and w, lut
PRODUCTS = [(3, 8, 8, False), (1, 9, 5, False), (2, 16, 16, False), (1, 18, 10, False), (1, 1, 2, False)]
PRODUCTS += [(2, 10, 8, True), (1, 5, 3, True), (1, 1, 4, True), (1, 1, 1, True), (1, 6, 6, True), (1, 9, 10, True)]
# wider than a block
PRODUCTS += [(2, 19, 8, False), (1, 17, 9, False), (1, 20, 20, False), (1, 9, 36, False), (1, 40, 2, False)]
# xs without a sign, as wide as a block takes them and wider
PRODUCTS += [(3, unsigned(8), 8, False), (1, unsigned(9), 9, False), (1, unsigned(16), 15, False)]
PRODUCTS += [(1, unsigned(18), 18, False), (1, unsigned(19), 8, False), (1, unsigned(20), 20, False)]
PRODUCTS += [(2, unsigned(9), 8, True), (1, unsigned(4), 6, True), (1, unsigned(1), 1, True)]
PRODUCTS = [(count, x if isinstance(x, Shape) else signed(x), w, lut) for count, x, w, lut in PRODUCTS]
# words, bits
ROMS = [(5, 7), (16, 9), (40, 3), (300, 20), (600, 8), (1500, 5)]
WORDS = [np.random.default_rng(SEED).integers(0, 1 << width, depth).tolist() for depth, width in ROMS]
# words, bits, banks
RAMS = [(3, 5, 2), (8, 9, 3), (20, 4, 4), (64, 8, 5), (256, 10, 2), (300, 9, 2), (512, 18, 2), (1100, 3, 1)]
RAMS += [(2048, 9, 1), (4, 8, 1)]


def bits(depth):
    """Bits of an address."""
    return (depth - 1).bit_length()


WIDTH = sum(count * (x.width + w) for count, x, w, _ in PRODUCTS) + sum(bits(depth) for depth, _ in ROMS)
WIDTH += sum(banks + width + 2 * bits(depth) for depth, width, banks in RAMS)


def fill(part, target):
    """All parts of a target; each takes its inputs from i in this order."""
    tech, m = technology(target), part.m
    for n, (count, x, w, lut) in enumerate(PRODUCTS):
        xs = [part.take(x, f"x{n}_{k}") for k in range(count)]
        ws = [part.take(signed(w), f"w{n}_{k}") for k in range(count)]
        part.outputs += tech.products(m, f"product{n}", xs, ws, lut=lut)
    for n, (depth, width) in enumerate(ROMS):
        at = part.take(unsigned(bits(depth)), f"rom{n}_at")
        part.outputs.append(tech.rom(m, f"rom{n}", WORDS[n], width, at))
    for n, (depth, width, banks) in enumerate(RAMS):
        part.outputs += tech.ram(
            m, f"ram{n}", depth=depth, width=width, enable=part.take(unsigned(banks), f"ram{n}_enable"),
            w_address=part.take(unsigned(bits(depth)), f"ram{n}_to"), w_data=part.take(unsigned(width), f"ram{n}_in"),
            r_address=part.take(unsigned(bits(depth)), f"ram{n}_from"),
        )


def traffic(count):
    """Vectors for `fill`, and the outputs that must follow: (bits, cycles later, value or None where none is known)."""
    rng = random.Random(SEED)
    print("seed", SEED)
    stores = [[[None] * depth for _ in range(banks)] for depth, _, banks in RAMS]
    vectors, expected = [], []
    for _ in range(count):
        fields, out = [], []
        for n, x, w, _ in PRODUCTS:
            xs, ws = ([corner(rng, shape) for _ in range(n)] for shape in (x, signed(w)))
            fields += [(v, x.width) for v in xs] + [(v, w) for v in ws]
            out += [(x.width + w, MULTIPLY, a * b) for a, b in zip(xs, ws)]
        for (depth, width), words in zip(ROMS, WORDS):
            at = rng.randrange(depth)
            fields.append((at, bits(depth)))
            out.append((width, READ, words[at]))
        for (depth, width, banks), store in zip(RAMS, stores):
            enable, data = rng.getrandbits(banks), rng.getrandbits(width)
            to, frm = rng.sample(range(depth), 2)
            fields += [(enable, banks), (to, bits(depth)), (data, width), (frm, bits(depth))]
            out += [(width, READ, bank[frm]) for bank in store]
            for k, bank in enumerate(store):
                if enable >> k & 1:
                    bank[to] = data
        vectors.append(joined(fields))
        expected.append(out)
    return vectors, expected


def corner(rng, shape):
    low, high = (-(1 << shape.width - 1), 0)[not shape.signed], (1 << shape.width - shape.signed) - 1
    return rng.choice([low, high, *[rng.randint(low, high)] * 3])


def joined(fields):
    word, at = 0, 0
    for value, width in fields:
        word |= (value & (1 << width) - 1) << at
        at += width
    return word


def check(directory, sources, files, count, simulator="verilator"):
    """Parts of targets side by side, each output in each cycle against integers.

    sources: target → Verilog, None for what Amaranth writes.
    """
    text, lines, total = "", [], 0
    for target, source in sources.items():
        verilog, size = parts(target)
        text += source or verilog
        lines.append(f"parts_{target} {target} (.clk(clk), .i(i), .o(o[{total} +: {size}]));")
        total += size
    top = [f"module top (input clk, input [{WIDTH - 1}:0] i, output [{total - 1}:0] o);", *lines, "endmodule"]
    (directory / "top.v").write_text("\n".join([text, *top]), encoding="utf-8")
    vectors, expected = traffic(count)
    result = play(directory, "top", ["top.v", *files], vectors, (WIDTH, total), simulator=simulator)
    for cycle in range(MULTIPLY, count):
        word = result[cycle]
        for target in sources:
            for n, (size, later, _) in enumerate(expected[0]):
                value = expected[cycle - later][n][2]
                found, word = word & (1 << size) - 1, word >> size
                assert value is None or found == value & (1 << size) - 1, f"{target}, output {n}, cycle {cycle}"


def parts(target, kind=verilog):
    part = Part(WIDTH)
    fill(part, target)
    return part.convert(f"parts_{target}", kind=kind)


def test_all_targets_alike(tmp_path):
    check(tmp_path, dict.fromkeys(TARGETS), [file for target in TARGETS for file in models(target)], 1500)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus is not installed")
def test_all_targets_alike_in_icarus(tmp_path):
    check(tmp_path, dict.fromkeys(TARGETS), [file for target in TARGETS for file in models(target)], 500, "icarus")


MAPPED = {
    "ice40": (UP5K, [SHARE / "ice40/cells_sim.v"]),  # with Yosys' own models of everything
    "ecp5": (ECP5_85F, [*models("ecp5"), SHARE / "lattice/common_sim.vh"]),
    "gowin": (GW1NR9, [*models("gowin"), SHARE / "gowin/cells_sim.v"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", MAPPED)
def test_what_yosys_makes_of_the_parts(tmp_path, target):
    device, files = MAPPED[target]
    name = f"parts_{target}"
    cells = synthesise(tmp_path, parts(target, rtlil)[0], FAMILIES[device.family].synthesis(device, name), name)
    used, tech = synth.count(target, cells), technology(target)
    costs = [tech.products_cost(count, x.width, w, lut=lut, signed=x.signed) for count, x, w, lut in PRODUCTS]
    costs += [tech.rom_cost(*rom) for rom in ROMS] + [tech.ram_cost(*ram) for ram in RAMS]
    for resource in ("DSP", "RAM"):
        assert ceil(sum(cost.get(resource, 0) for cost in costs)) == used[resource], resource
    for resource in ("LUT", "FF"):
        assert sum(cost.get(resource, 0) for cost in costs) == pytest.approx(used[resource], rel=0.15), resource
    check(tmp_path, {target: (tmp_path / f"{name}.v").read_text(encoding="utf-8")}, files, 1500)


def test_plain_parts_in_a_xilinx_dsp_and_block_ram(tmp_path):
    """Yosys pulls all registers of a plain product into the DSP48E1 and makes memories of block RAM alone."""
    part = Part(400)
    tech = technology("plain")
    part.outputs += tech.products(part.m, "product", [part.take(signed(16), "x")], [part.take(signed(10), "w")])
    words = np.random.default_rng(SEED).integers(0, 1 << 18, 1024).tolist()
    part.outputs.append(tech.rom(part.m, "rom", words, 18, part.take(unsigned(10), "at")))
    part.outputs += tech.ram(
        part.m, "ram", depth=1024, width=16, enable=part.take(unsigned(1), "enable"),
        w_address=part.take(unsigned(10), "to"), w_data=part.take(unsigned(16), "data"),
        r_address=part.take(unsigned(10), "from"),
    )
    cells = synthesise(tmp_path, part.convert("top", kind=rtlil)[0], ["synth_xilinx -family xc7 -top top"], "mapped")
    print(cells)
    netlist = json.loads((tmp_path / "mapped.json").read_text(encoding="utf-8"))["modules"]["mapped"]["cells"]
    (dsp,) = [cell for cell in netlist.values() if cell["type"] == "DSP48E1"]
    assert [int(dsp["parameters"][f"{register}REG"], 2) for register in "ABMP"] == [1, 1, 1, 1]
    assert sum(n for cell, n in cells.items() if cell.startswith("RAMB")) == 2
    assert sum(n for cell, n in cells.items() if cell.startswith("FD")) == 34  # behind the memories


@pytest.mark.parametrize("target", ("ecp5", "ice40", "gowin"))
def test_two_weights_share_one_block(target):
    """The operand in which a paired engine puts two weights is as wide as one DSP block takes, and no wider."""
    tech = technology(target)
    alone, more = (tech.products_cost(1, 8, tech.operand + more) for more in (0, 1))
    assert (alone["DSP"], alone.get("LUT", 0)) == (1, 0) and more["LUT"] > 0


# bits of operands, blocks of each family: one where the rest is narrow enough for tables
WIDE = {(19, 8): (1, 1, 1), (17, 9): (1, 1, 1), (20, 20): (1, 4, 1), (9, 23): (2, 2, 2), (36, 18): (2, 3, 2)}


@pytest.mark.parametrize("n, target", [(0, "ecp5"), (1, "ice40"), (2, "gowin")])
def test_blocks_of_wide_products_are_exact(tmp_path, n, target):
    """What is predicted of operands wider than a block is what Yosys makes, width by width."""
    tech, part = technology(target), Part(sum(map(sum, WIDE)))
    for k, (x, w) in enumerate(WIDE):
        xs, ws = [part.take(signed(x), f"x{k}")], [part.take(signed(w), f"w{k}")]
        part.outputs += tech.products(part.m, f"wide{k}", xs, ws)
    script = FAMILIES[target].synthesis(MAPPED[target][0], "top")
    synthesise(tmp_path, part.convert("top", kind=rtlil)[0], script, "top")
    cells = json.loads((tmp_path / "top.json").read_text(encoding="utf-8"))["modules"]["top"]["cells"]
    for k, (widths, blocks) in enumerate(WIDE.items()):
        used = Counter(cell["type"] for name, cell in cells.items() if f"wide{k}_" in name)
        assert tech.products_cost(1, *widths)["DSP"] == blocks[n] == synth.count(target, used)["DSP"], widths
    # and none that has lost its name
    made = synth.count(target, Counter(cell["type"] for cell in cells.values()))
    assert made["DSP"] == sum(b[n] for b in WIDE.values())
