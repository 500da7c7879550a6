"""Memories cut into block RAMs: each answers as one memory would, and takes the blocks that are predicted."""

import json
import random
from collections import Counter

import pytest
from amaranth.back import rtlil
from amaranth.hdl import unsigned
from tech_bench import Part, play, synthesise

from boards import synth
from boards.table import ECP5_85F, GW1NR9, UP5K
from rtl_gen.tech import READ, models, technology

SEED = 3
DEVICES = {"ecp5": ECP5_85F, "ice40": UP5K, "gowin": GW1NR9}
# words, bits; the second is a weight ROM of a whole network, the last is made of tables where they are cheap
ROMS = [(1536, 27), (5120, 32), (4096, 13), (300, 20), (530, 9), (200, 18)]
# words, bits, banks; a ring of three rows is the first
RAMS = [(3072, 9, 3), (528, 20, 2), (520, 12, 3), (256, 12, 4), (1100, 13, 1), (4500, 2, 2), (2049, 4, 1)]


def bits(depth):
    return (depth - 1).bit_length()


WIDTH = sum(bits(depth) for depth, _ in ROMS)
WIDTH += sum(banks + width + 2 * bits(depth) for depth, width, banks in RAMS)


def words_of(n):
    depth, width = ROMS[n]
    rng = random.Random(f"{SEED} {n}")
    return [rng.getrandbits(width) for _ in range(depth)]


def fill(part, tech):
    """All memories; each takes its ports from i in this order."""
    for n, (depth, width) in enumerate(ROMS):
        at = part.take(unsigned(bits(depth)), f"rom{n}_at")
        part.outputs.append(tech.rom(part.m, f"rom{n}", words_of(n), width, at))
    for n, (depth, width, banks) in enumerate(RAMS):
        part.outputs += tech.ram(
            part.m, f"ram{n}", depth=depth, width=width, enable=part.take(unsigned(banks), f"ram{n}_enable"),
            w_address=part.take(unsigned(bits(depth)), f"ram{n}_to"), w_data=part.take(unsigned(width), f"ram{n}_in"),
            r_address=part.take(unsigned(bits(depth)), f"ram{n}_from"),
        )


def traffic(count):
    """(word of i, [(bits, value or None) of the READ cycles later]) of so many cycles; addresses are few, most of them
    beside a cut.
    """
    rng = random.Random(SEED)
    print("seed", SEED)

    def places(depth):
        edges = {edge + d for edge in (256, 512, 1024, 2048, 4096) for d in (-1, 0, 1)} | {0, depth - 1}
        return sorted({at for at in edges if at < depth} | {rng.randrange(depth) for _ in range(4)})

    roms, rams = ([places(shape[0]) for shape in shapes] for shapes in (ROMS, RAMS))
    contents = [words_of(n) for n in range(len(ROMS))]
    stores = [[{} for _ in range(banks)] for *_, banks in RAMS]
    for _ in range(count):
        fields, out = [], []
        for (depth, width), words, at in zip(ROMS, contents, roms):
            at = rng.choice(at)
            fields.append((at, bits(depth)))
            out.append((width, words[at]))
        for (depth, width, banks), store, at in zip(RAMS, stores, rams):
            enable, data, (to, frm) = rng.getrandbits(banks), rng.getrandbits(width), rng.sample(at, 2)
            fields += [(enable, banks), (to, bits(depth)), (data, width), (frm, bits(depth))]
            out += [(width, bank.get(frm)) for bank in store]
            for k, bank in enumerate(store):
                if enable >> k & 1:
                    bank[to] = data
        word = at = 0
        for value, size in fields:
            word, at = word | value << at, at + size
        yield word, out


def parts(target, tech=None, **kind):
    part = Part(WIDTH)
    fill(part, technology(tech or target))
    return part.convert(f"parts_{target}", **kind)


def check(directory, sources, files, count):
    """Verilog of targets side by side, each output in each cycle against integers; sources: target → text."""
    lines, total = [], 0
    for target, (_, size) in sources.items():
        lines.append(f"parts_{target} {target} (.clk(clk), .i(i), .o(o[{total} +: {size}]));")
        total += size
    top = [f"module top (input clk, input [{WIDTH - 1}:0] i, output [{total - 1}:0] o);", *lines, "endmodule"]
    (directory / "top.v").write_text("\n".join([*(text for text, _ in sources.values()), *top]), encoding="utf-8")
    vectors, expected = zip(*traffic(count))
    result = play(directory, "top", ["top.v", *files], vectors, (WIDTH, total))
    known = 0
    for word, out in zip(result[READ:], expected):
        for target in sources:
            for n, (size, value) in enumerate(out):
                found, word = word & (1 << size) - 1, word >> size
                assert value is None or found == value, f"{target}, output {n}"
                known += value is not None
    assert known > count * len(sources) * len(expected[0]) / 2


def test_cut_memories_are_memories(tmp_path):
    files = [file for target in DEVICES for file in models(target)]
    check(tmp_path, {target: parts(target) for target in DEVICES}, files, 3000)


@pytest.mark.parametrize("kind", ["", "-tables"])
@pytest.mark.parametrize("target", DEVICES)
def test_they_take_the_blocks_that_are_predicted(tmp_path, target, kind):
    """Memory by memory, in the mapped netlist, and in all."""
    tech = technology(target + kind)
    script = synth.mapping(DEVICES[target], f"parts_{target}")
    synthesise(tmp_path, parts(target, target + kind, kind=rtlil)[0], script, "top")
    cells = json.loads((tmp_path / "top.json").read_text(encoding="utf-8"))["modules"]["top"]["cells"]
    costs = {f"rom{n}": tech.rom_cost(*shape) for n, shape in enumerate(ROMS)}
    costs |= {f"ram{n}": tech.ram_cost(*shape) for n, shape in enumerate(RAMS)}
    for name, cost in costs.items():
        used = synth.count(target, Counter(cell["type"] for path, cell in cells.items() if path.startswith(f"{name}_")))
        print(target, name, cost, used)
        assert cost.get("RAM", 0) == used["RAM"], name
    made = synth.count(target, Counter(cell["type"] for cell in cells.values()))
    total = {key: sum(cost.get(key, 0) for cost in costs.values()) for key in made}
    print(target, "in all", total, made)
    assert total["RAM"] == made["RAM"]
    for key in ("LUT", "FF"):
        assert total[key] == pytest.approx(made[key], rel=0.25), key


@pytest.mark.parametrize("name", ["ecp5-table", "plain-tables"])
def test_a_technology_that_is_none(name):
    with pytest.raises(ValueError, match=f"'{name}' is no technology; ecp5, ice40, gowin have -tables and -blocks"):
        technology(name)
