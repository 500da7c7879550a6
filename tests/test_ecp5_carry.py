"""Products in the carry chains of the ECP5: exact, in the promised cycles, of the promised size."""

import json
import random

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import signed
from tech_bench import SHARE, Part, play, signed_fields, synthesise

from rtl_gen.tech import MULTIPLY, ecp5_carry, models

EXHAUSTIVE = [(10, 8), (8, 4), (9, 7), (12, 2), (2, 12), (4, 9), (7, 3), (5, 5), (8, 1), (1, 6), (1, 1), (2, 1), (6, 6)]
RANDOM = [(10, 8), (9, 7), (1, 1), (8, 1), (3, 5), (12, 10), (9, 16)]


def products(sizes, shared):
    """A Part of one multiplier of each size; shared: all take their operands from bit 0 on."""
    part = Part(18 if shared else sum(map(sum, sizes)))
    for n, (x, w) in enumerate(sizes):
        part.at = 0 if shared else part.at
        operands = [part.take(signed(x), f"x{n}")], [part.take(signed(w), f"w{n}")]
        part.outputs += ecp5_carry.products(part.m, f"p{n}", *operands)
    return part


def check(directory, sizes, vectors, shared, files=()):
    text, bits = products(sizes, shared).convert("top")
    (directory / "top.v").write_text(text, encoding="utf-8")
    width = 18 if shared else sum(map(sum, sizes))
    result = play(directory, "top", ["top.v", *(files or models("ecp5"))], vectors, (width, bits))
    found = signed_fields(result[MULTIPLY:], [x + w for x, w in sizes])
    at = 0
    for n, (x, w) in enumerate(sizes):
        a, b = signed_fields([vector >> at for vector in vectors[:-MULTIPLY]], (x, w))
        at += 0 if shared else x + w
        wrong = np.flatnonzero(found[n] != a * b)
        assert not len(wrong), f"{x}x{w} bits: {len(wrong)} wrong, the first {a[wrong[0]]} * {b[wrong[0]]}"


def corners(rng, width):
    return rng.choice([0, 1, (1 << width) - 1, 1 << width - 1, (1 << width - 1) - 1, *[rng.getrandbits(width)] * 4])


def test_random_operands(tmp_path, seed=1):
    print("seed", seed)
    rng = random.Random(seed)
    vectors = []
    for _ in range(5000):
        word = 0
        for width in [width for size in RANDOM for width in size][::-1]:
            word = word << width | corners(rng, width)
        vectors.append(word)
    check(tmp_path, RANDOM, vectors, shared=False)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ours", "Yosys"])
def test_all_operands(tmp_path, model):
    # Yosys' model of CCU2C against ours
    yosys = [SHARE / "lattice" / name for name in ("ccu2c_sim.vh", "common_sim.vh")]
    files = yosys if model == "Yosys" else ()
    check(tmp_path, EXHAUSTIVE, [*range(1 << 18), *[0] * MULTIPLY], shared=True, files=files)


def test_cost_is_what_yosys_and_nextpnr_make_of_it(tmp_path):
    sizes = [(10, 8), (9, 7), (10, 4), (6, 1), (16, 5)]
    text, _ = products(sizes, shared=False).convert("top", kind=rtlil)
    cells = synthesise(tmp_path, text, ["synth_ecp5 -top top"], "mapped")
    mapped = json.loads((tmp_path / "mapped.json").read_text(encoding="utf-8"))["modules"]["mapped"]["cells"]
    starts = [cell for cell in mapped.values() if cell["connections"].get("CIN", [2])[0] in ("0", "1")]
    costs = [ecp5_carry.cost(1, *size) for size in sizes]
    # nextpnr adds a cell of two tables at the start of a chain
    tables = 2 * cells["CCU2C"] + ecp5_carry.START * len(starts) + cells["LUT4"]
    assert tables == sum(cost["LUT"] for cost in costs)
    assert cells["TRELLIS_FF"] == sum(cost["FF"] for cost in costs)
    assert ecp5_carry.cost(7, 10, 8) == {"LUT": 7 * 97, "FF": 7 * 96}
