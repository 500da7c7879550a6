"""The models of primitives, each against what Yosys maps plain Verilog to, or against Yosys' own model."""

import random

import numpy as np
import pytest
from amaranth.hdl import signed
from tech_bench import SHARE, Part, play, run, signed_fields, synthesise

from boards.netlist import cell_models
from rtl_gen.tech import MULTIPLY, models, technology

SEED = 1
PRODUCTS = [(18, True), (18, False), (12, True)]  # bits, signed


def memory(name, depth, width, enables):
    """Verilog of a memory that starts with NAME.hex: a port to write, with enables of parts of a word, one to read."""
    bits, part = (depth - 1).bit_length(), width // max(1, enables)
    writes = "".join(f" if (we[{k}]) m[wa][{part * k} +: {part}] <= d[{part * k} +: {part}];" for k in range(enables))
    return f"""
module {name} (input clk, input [{bits - 1}:0] wa, ra, input [{width - 1}:0] d, input [3:0] we,
               output reg [{width - 1}:0] q);
    (* no_rw_check, ram_style = "block" *) reg [{width - 1}:0] m [0:{depth - 1}];
    initial $readmemh("{name}.hex", m);
    always @(posedge clk) q <= m[ra];
    always @(posedge clk) begin{writes} end
endmodule
"""


def gold(directory, memories, products):
    """A module `gold` of memories (depth, width, enables) and of products (bits, signed), and the bits of its o."""
    text, parts, total, rng = "", [], 0, random.Random(SEED)
    for n, (depth, width, enables) in enumerate(memories):
        text += memory(f"memory{n}", depth, width, enables)
        words = "".join(f"{rng.getrandbits(width):x}\n" for _ in range(depth))
        (directory / f"memory{n}.hex").write_text(words, encoding="utf-8")
        bits = (depth - 1).bit_length()
        parts.append(
            f"memory{n} part{n} (.clk(clk), .wa(i[0 +: {bits}]), .ra(i[14 +: {bits}]), .d(i[28 +: {width}]), "
            f".we(i[67:64]), .q(o[{total} +: {width}]));"
        )
        total += width
    for bits, sign in products:
        x, w = f"i[0 +: {bits}]", f"i[18 +: {bits}]"
        product = f"$signed({x}) * $signed({w})" if sign else f"{x} * {w}"
        parts.append(f"assign o[{total} +: {2 * bits}] = {product};")
        total += 2 * bits
    lines = "\n    ".join(parts)
    return f"{text}module gold (input clk, input [67:0] i, output [{total - 1}:0] o);\n    {lines}\nendmodule\n", total


def traffic(count, seed=SEED):
    """Words of gold's i: all addresses equally, more often the same low bits; never a read of what is written."""
    rng = random.Random(seed)
    print("seed", seed)
    words = []
    while len(words) < count:
        wide = rng.random() < 0.5
        write, read = (rng.getrandbits(14) & (0x3FFF if wide else 0x3F) for _ in range(2))
        enables = rng.choice([0, 0, 15, rng.getrandbits(4)])
        # a write of the words of one memory may share the low bits with a read of another's
        if all((write ^ read) & ((1 << bits) - 1) for bits in range(8, 15)):
            words.append(write | read << 14 | rng.getrandbits(36) << 28 | enables << 64)
    return words


def compare(directory, text, total, files, vectors):
    """The mapped netlist does what its source does, from the third cycle on."""
    both = f"""
module both (input clk, input [67:0] i, output [{2 * total - 1}:0] o);
    gold gold (.clk(clk), .i(i), .o(o[{total - 1}:0]));
    mapped mapped (.clk(clk), .i(i), .o(o[{2 * total - 1}:{total}]));
endmodule
"""
    (directory / "both.v").write_text(text + both, encoding="utf-8")
    words = play(directory, "both", ["both.v", "mapped.v", *files], vectors, (68, 2 * total))[2:]
    differ = [(n, word >> total ^ word & (1 << total) - 1) for n, word in enumerate(words)]
    differ = [(n, bits) for n, bits in differ if bits]
    assert not differ, f"{len(differ)} cycles, the first {differ[0][0]}: {differ[0][1]:x}"


MEMORIES = [(16384, 1, 1), (8192, 2, 1), (4096, 4, 1), (2048, 9, 1)]
MEMORIES += [(1024, 18, 1), (1024, 18, 2), (512, 36, 1), (512, 36, 4)]
ROMS = [(8192, 2, 0), (4096, 4, 0), (2048, 9, 0), (1024, 18, 0), (512, 36, 0)]
GOWIN = "synth_gowin -family gw1n -top gold -noiopads -run"
CELLS = {
    "ecp5": (["synth_ecp5 -top gold"], SHARE / "lattice/common_sim.vh", "DP16KD", "MULT18X18D"),
    # of all block RAMs only the one with a port to write and one to read, which Yosys else takes for 36 bits alone
    "gowin": (
        [
            f"{GOWIN} begin:map_ram", "memory_libmap -lib sdp.txt", "techmap -map +/gowin/brams_map.v",
            f"{GOWIN} map_ffram:",
        ],
        SHARE / "gowin/cells_sim.v", "SDP", "MULT",
    ),
}


@pytest.mark.parametrize("target", ["ecp5", pytest.param("gowin", marks=pytest.mark.slow)])
def test_models_are_what_yosys_maps_to(tmp_path, target):
    script, rest, blocks, multipliers = CELLS[target]
    text, total = gold(tmp_path, MEMORIES + ROMS, PRODUCTS)
    blocks_of_gowin = (SHARE / "gowin/brams.txt").read_text(encoding="utf-8")
    sdp = blocks_of_gowin[blocks_of_gowin.index("ram block $__GOWIN_SDP_") :]
    (tmp_path / "sdp.txt").write_text(sdp, encoding="utf-8")
    cells = synthesise(tmp_path, text, script, "mapped")
    print(cells)
    used = [sum(n for cell, n in cells.items() if cell.startswith(kind)) for kind in (blocks, multipliers)]
    # blocks as they are, and little beside them
    assert used == [len(MEMORIES + ROMS), len(PRODUCTS)]
    assert sum(n for cell, n in cells.items() if cell.startswith("LUT")) < 100
    compare(tmp_path, text, total, [*models(target), rest], traffic(10_000))


# what a port shows of what it writes: nothing new, what is written, what was there
SHOWN = ["if (!{we}) {q} <= m[{a}];", "{q} <= {we} ? {d} : m[{a}];", "{q} <= m[{a}];"]
PORT = "always @(posedge clk) begin if ({we}) m[{a}] <= {d}; {shown} {reset} end"
# depth, width, ports, which of SHOWN, whether there is a reset
PORTED = [(2048, 9, 1, 0, True), (2048, 9, 1, 1, False), (1024, 18, 2, 0, False), (2048, 9, 2, 1, True)]
PORTED += [(4096, 4, 2, 0, False), (8192, 2, 1, 2, False)]


def ported(memories):
    """As `gold`, of memories whose ports each write and read, the second one's words beside the first one's."""
    text, parts, total = "", [], 0
    for n, (depth, width, ports, shown, reset) in enumerate(memories):
        bits, body = (depth - 1).bit_length(), ""
        for k in range(ports):
            at = f"i[{14 * k} +: {bits}]", f"i[{28 + 18 * k} +: {width}]"
            names = {"we": f"i[{64 + k}]", "a": at[0], "d": at[1], "q": f"q{k}"}
            cleared = f"if (i[67]) q{k} <= 0;" if reset else ""
            body += f"    reg [{width - 1}:0] q{k};\n    " + PORT.format(
                **names, shown=SHOWN[shown].format(**names), reset=cleared) + "\n"
        size = width * ports
        text += f"""module memory{n} (input clk, input [67:0] i, output [{size - 1}:0] o);
    (* no_rw_check, ram_style = "block" *) reg [{width - 1}:0] m [0:{depth - 1}];
    integer n;
    initial for (n = 0; n < {depth}; n = n + 1) m[n] = n * 7 + n / 64;
{body}    assign o = {{{", ".join(f"q{k}" for k in range(ports))}}};
endmodule
"""
        parts.append(f"memory{n} part{n} (.clk(clk), .i(i), .o(o[{total} +: {size}]));")
        total += size
    lines = "\n    ".join(parts)
    return f"{text}module gold (input clk, input [67:0] i, output [{total - 1}:0] o);\n    {lines}\nendmodule\n", total


@pytest.mark.parametrize("target, script, modes", [
    ("ecp5", "synth_ecp5 -top gold", {'WRITEMODE_A("NORMAL")', 'WRITEMODE_B("WRITETHROUGH")'}),
    pytest.param(
        "gowin", "synth_gowin -family gw1n -top gold -noiopads", {"SPX9 #(", "DPX9B #(", "DPB #("},
        marks=pytest.mark.slow,
    ),
], ids=["ecp5", "gowin"])
def test_ports_that_write_and_read(tmp_path, target, script, modes):
    """What only Yosys' own mapping uses: two ports that write, what they show meanwhile, resets."""
    text, total = ported(PORTED)
    cells = synthesise(tmp_path, text, [script], "mapped")
    print(cells)
    mapped = (tmp_path / "mapped.v").read_text(encoding="utf-8")
    assert not [mode for mode in modes if mode not in mapped]
    (tmp_path / "cells.v").write_text(cell_models(target), encoding="utf-8")
    compare(tmp_path, text, total, ["cells.v"], traffic(4000))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ours", "Yosys"])
def test_both_halves_of_sb_mac16(tmp_path, model):
    """All pairs of 8 bits in each half, another pair in the other half; 16 bits at random and at the ends."""
    rng = np.random.default_rng(SEED)
    print("seed", SEED)
    pairs = np.arange(1 << 16)
    other = (pairs * 40503 + 12345) % (1 << 16)
    wide = rng.integers(0, 1 << 16, (2, 1 << 16))
    ends = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    wide[0, :36], wide[1, :36] = np.repeat(ends, 6), np.tile(ends, 6)
    fields = np.stack([pairs & 255, other & 255, pairs >> 8, other >> 8, *wide])
    widths = [8, 8, 8, 8, 16, 16]
    part = Part(64)
    x0, x1, w0, w1, x, w = (part.take(signed(width), f"f{n}") for n, width in enumerate(widths))
    for name, xs, ws in (("half", [x0, x1], [w0, w1]), ("whole", [x], [w])):
        part.outputs += technology("ice40").products(part.m, name, xs, ws)
    text, size = part.convert("top")
    (tmp_path / "top.v").write_text(text, encoding="utf-8")
    shifts = np.cumsum([0, *widths[:-1]])
    vectors = [sum(int(v) << int(at) for v, at in zip(column, shifts)) for column in fields.T]
    files = [SHARE / "ice40/cells_sim.v"] if model == "Yosys" else models("ice40")
    result = play(tmp_path, "top", ["top.v", *files], vectors + [0] * MULTIPLY, (64, size))
    found = signed_fields(result[MULTIPLY:], [16, 16, 32])
    a0, a1, b0, b1, a, b = signed_fields(vectors, widths)
    for got, expected in zip(found, (a0 * b0, a1 * b1, a * b)):
        assert (got == expected).all(), np.flatnonzero(got != expected)[:10]


@pytest.mark.parametrize("target, instance", [
    ("ecp5", 'DP16KD #(.DATA_WIDTH_A(7))'), ("ecp5", 'MULT18X18D #(.REG_OUTPUT_CLK("CLK1"))'),
    ("ice40", "SB_MAC16 #(.A_REG(0))"), ("ice40", "SB_RAM40_4K #(.WRITE_MODE(1))"),
    ("gowin", 'MULT9X9 #(.MULT_RESET_MODE("ASYNC"))'), ("gowin", "SDPB #(.BIT_WIDTH_0(9))"),
])
def test_a_parameter_without_model_is_refused(tmp_path, target, instance):
    (tmp_path / "top.v").write_text(f"module top; {instance} part(); endmodule\n", encoding="utf-8")
    flags = ["--lint-only", "-Wno-fatal", "-Wno-lint", "--top-module", "top"]
    with pytest.raises(AssertionError, match="without_model"):
        run(["verilator", *flags, "top.v", *map(str, models(target))], tmp_path)
