"""The mapped netlist against the golden model, and the miscompilation that makes this check necessary."""

import re
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from sim_bench import small_core
from tech_bench import play

import bfthw
import rtl_gen
from bfthw import IntFactor, IntLayer, IntNetwork, QFormat
from bfthw.chain import bft
from boards import gatelevel, netlist, synth, tools
from boards.families.ice40 import Ice40
from boards.table import ECP5_85F, GW1NR9, UP5K

ROOT = Path(__file__).resolve().parent.parent


class Product(wiring.Component):
    """A product and so many registers behind it, none with reset or enable."""

    def __init__(self, registers):
        self.registers = registers
        super().__init__({"a": In(signed(10)), "b": In(signed(8)), "y": Out(signed(18))})

    def elaborate(self, platform):
        m = Module()
        value = self.a * self.b
        for n in range(self.registers):
            register = Signal(signed(18), name=f"p{n}", reset_less=True)
            m.d.sync += register.eq(value)
            value = register
        m.d.comb += self.y.eq(value)
        return m


def synthesise(directory, registers):
    (directory / "product.il").write_text(rtlil.convert(Product(registers), name="product", emit_src=False))
    return synth.synthesise(UP5K, "product", directory)


def test_names_that_abc9_takes_for_one_are_kept_apart(tmp_path, monkeypatch):
    """Whether any are depends on all names of a large design; here Yosys is kept from one unless they are apart."""
    run = tools.run

    def faulty(tool, arguments, *, directory, **rest):
        if synth.APART[1] not in (directory / "product.ys").read_text():
            raise RuntimeError(f"yosys failed: {synth.ABC9} ...\nERROR: Assert `count_id(wire->name) == 0' failed")
        return run(tool, arguments, directory=directory, **rest)

    (tmp_path / "product.il").write_text(rtlil.convert(Product(2), name="product", emit_src=False))
    usual = synth.synthesise(ECP5_85F, "product", tmp_path)
    monkeypatch.setattr(tools, "run", faulty)
    assert synth.synthesise(ECP5_85F, "product", tmp_path) == usual


class Alike(wiring.Component):
    """A register p of eight bits, and one with the name that an array p would give to its value 6, of so many bits."""

    def __init__(self, bits):
        self.bits = bits
        super().__init__({"a": In(8), "y": Out(8)})

    def elaborate(self, platform):
        m = Module()
        p, other = Signal(8, name="p"), Signal(self.bits, name="p[6]")
        m.d.sync += [p.eq(self.a + other), other.eq(self.a & ~p)]
        m.d.comb += self.y.eq(p ^ other.replicate(8 // self.bits))
        return m


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("device", [ECP5_85F, GW1NR9], ids=lambda device: device.family)
def test_a_value_of_an_array_is_no_bit_of_another_signal(device, bits, tmp_path):
    """With one bit ABC9 takes both for one register and says nothing, with 8 Yosys stops."""
    (tmp_path / "alike.il").write_text(rtlil.convert(Alike(bits), name="alike", emit_src=False))
    assert synth.synthesise(device, "alike", tmp_path)["FF"] == 8 + bits


BOTH = """
module \\both
  wire input 1 \\clk
  wire input 2 \\a
  wire input 3 \\b
  wire output 4 \\y
  cell $dff \\first
    parameter \\WIDTH 1
    parameter \\CLK_POLARITY 1
    connect \\CLK \\clk
    connect \\D \\a
    connect \\Q \\y
  end
  cell $dff \\second
    parameter \\WIDTH 1
    parameter \\CLK_POLARITY 1
    connect \\CLK \\clk
    connect \\D \\b
    connect \\Q \\y
  end
end
"""


def test_two_registers_of_a_net_stop_a_build(tmp_path):
    (tmp_path / "both.il").write_text(BOTH)
    with pytest.raises(RuntimeError, match="two drivers of a net, 3 times, .* both"):
        synth.synthesise(ECP5_85F, "both", tmp_path)


@pytest.fixture
def packed(monkeypatch):
    """The usual synthesis, which packs registers and adders into multipliers and gets some of them wrong."""
    monkeypatch.setattr(Ice40, "synthesis", lambda self, device, top: [f"synth_ice40 -dsp -top {top}"])


@pytest.mark.parametrize("registers", [1, 2, 3])
def test_registers_behind_a_product(registers, tmp_path):
    made = synthesise(tmp_path, registers)
    assert made["DSP"] == 1 and made["FF"] >= 18 * registers


@pytest.mark.usefixtures("packed")
def test_two_registers_behind_a_product_stop_a_build(tmp_path):
    """Yosys makes a constant of them and says so in its log alone. Should this fail, Yosys has been repaired."""
    with pytest.raises(RuntimeError, match="two drivers of a net, 18 times, .* synth_ice40 -dsp"):
        synthesise(tmp_path, 2)


@pytest.fixture(scope="module")
def scale(tmp_path_factory):
    """A per-channel scale whose rounding drops nothing: product, register, register, saturation."""
    factor = IntFactor(
        values=np.array([3, -2, 7, -8]).reshape(1, 1, 1, 4), input=QFormat(8, 4), weights=QFormat(4, 2),
        output=QFormat(10, 6),
    )
    network = IntNetwork(layers=(IntLayer(factors=(factor,)),))
    return rtl_gen.write(network, tmp_path_factory.mktemp("scale"), name="scale")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A butterfly that adds two products at a time."""
    bias = np.array([0.5, 0.0, -0.25, 0.1])
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 2), seed=1), residual=True, bias=bias)
    network = bfthw.compile(bfthw.Network(layers=(layer,)))
    return rtl_gen.write(network, tmp_path_factory.mktemp("pairs"), name="pairs")


def test_a_netlist_equals_the_golden_model(pairs):
    result = netlist.simulate(pairs, vectors=40)
    assert result.ok, result.problems
    assert (result.latency, result.interval) == (pairs.manifest.latency, pairs.manifest.interval)


@pytest.mark.usefixtures("packed")
def test_a_lost_product_is_found(pairs):
    """Of two registered products that are added, the usual synthesis loses one, without a warning in its log."""
    result = netlist.simulate(pairs, vectors=8)
    assert "vector 0, output 0 is" in result.problems[0]


def test_a_bit_of_a_table_is_found(scale, tmp_path):
    """ECP5: tables, carries and flip-flops have Yosys' models, the multiplier ours. One wrong bit of a table shows."""
    (tmp_path / "scale.il").write_text(rtl_gen.to_rtlil(scale.plan, "scale"))
    synth.synthesise(ECP5_85F, "scale", tmp_path)
    there = tmp_path / "scale.netlist.v"
    result = netlist.simulate(scale, device=ECP5_85F, netlist=there, vectors=20, simulator="compiled")
    assert result.ok, result.problems
    assert (result.latency, result.interval) == (scale.manifest.latency, scale.manifest.interval)
    text = there.read_text()
    assert netlist.with_our_models("ecp5", text) == ["MULT18X18D"]
    table = r"(INIT\(16'h[0-9a-f]{3})([0-9a-f])(\)\n  \) \\exit\.queue\.payload_)"
    wrong, count = re.subn(table, lambda found: f"{found[1]}{int(found[2], 16) ^ 1:x}{found[3]}", text, count=1)
    assert count == 1
    there.write_text(wrong)
    result = netlist.simulate(scale, device=ECP5_85F, netlist=there, vectors=20, simulator="compiled")
    assert "should be" in result.problems[0]


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_ports_begin_as_they_are_driven(simulator, tmp_path):
    """Not with a default value of the cell's: of an enable that is 1, and Verilator has it on the way to the port."""
    (tmp_path / "cells.v").write_text(netlist.cell_models("ice40"), encoding="utf-8")
    cell = "SB_DFFE once(.C(clk), .E(i), .D(1'b1), .Q(o));"
    (tmp_path / "top.v").write_text(f"module top(input clk, input i, output o); {cell} endmodule\n", encoding="utf-8")
    given = [0, 0, 1, 0, 0]
    assert play(tmp_path, "top", ["top.v", "cells.v"], given, (1, 1), simulator=simulator)[1:] == [0, 0, 1, 1]


@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
def test_tables_that_are_looked_up_say_what_yosys_models_say(family, tmp_path):
    """All inputs of the 16 tables with one bit set, of which every other table is made."""
    models = netlist.cell_models(family)
    (module,) = (found for found in netlist.MODULE.finditer(models) if netlist.TABLE.search(found[0]))
    high, table, *middle, out, low = netlist.TABLE.search(module[0]).groups()
    text, cells = "", ""
    for kind, model in (("theirs", module[0]), ("ours", netlist.two_state(module[0]))):
        text += model.replace(module[1], kind, 1)
        pins = ", ".join(f".{pin}(i[{bit}])" for bit, pin in zip((3, 2, 1, 0), (high, *middle, low)))
        for n in range(16):
            cells += f"{kind} #(.{table}(16'd{1 << n})) {kind}{n}({pins}, .{out}(o[{n + 16 * (kind == 'ours')}]));\n"
    (tmp_path / "top.v").write_text(f"{text}module top(input clk, input [3:0] i, output [31:0] o);\n{cells}endmodule\n")
    answers = play(tmp_path, "top", ["top.v"], list(range(16)), (4, 32), simulator="icarus")
    assert [hex(answer) for answer in answers] == [hex((1 << n) * 0x10001) for n in range(16)]


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_digits_are_classified_by_the_netlist(simulator, tmp_path, monkeypatch):
    """Every held-out image, the netlist's integers equal to the golden model's."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "digits"))
    from data import load

    *_, images, labels = load()
    integers = bfthw.compile(bfthw.load(ROOT / "examples/digits/digits.safetensors").network)
    settings = bfthw.make_settings(ROOT / "examples/digits/hardware.toml")
    design = rtl_gen.write(integers, tmp_path, name="digits", settings=settings)
    x = integers.input.quantise(images)
    if simulator == "icarus":
        x, labels = x[:40], labels[:40]
    result = netlist.simulate(design, inputs=x, vectors=8, simulator=simulator)
    assert result.ok, result.problems
    assert np.array_equal(result.outputs, integers(x))
    assert (result.outputs.argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.slow
def test_the_shells_netlist_answers_the_host(tmp_path, monkeypatch):
    """Line, frames, CRC and core, all mapped for the iCE40, in the place of the simulated board's Verilog."""
    from boards import simulated
    from boards.host import Board

    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(8, 2), seed=2), relu=True)
    design = rtl_gen.write(bfthw.compile(bfthw.Network(layers=(layer,))), tmp_path, name="eight")

    def mapped(shell, name):
        (tmp_path / "board.il").write_text(rtlil.convert(shell, name=name, emit_src=False))
        assert synth.synthesise(UP5K, "board", tmp_path)["DSP"]
        return (tmp_path / "board.netlist.v").read_text() + netlist.cell_models("ice40")

    monkeypatch.setattr(simulated, "verilog", mapped)
    monkeypatch.setattr(simulated, "ARGUMENTS", (*simulated.ARGUMENTS, "-Wno-fatal"))
    x = np.random.default_rng(3).uniform(-1, 1, (50, 8))
    with simulated.simulation(design) as running, Board(running.port, design.path) as board:
        assert np.array_equal(board.run(x), design.plan.network.predict(x))
        assert board.counters().answered and not board.counters().wrong_crc


def test_a_netlist_that_would_do_more_is_not_simulated(tmp_path):
    """A folder of `build` may come from elsewhere."""
    design = small_core(tmp_path)
    text = "module core(); initial $system(\"touch was_run\"); endmodule\n"
    (tmp_path / "core.netlist.v").write_text(text)
    there = tmp_path / "core.netlist.v"
    with (
        pytest.raises(ValueError, match=r"core.netlist.v: has '\$system', which no generated core has"),
        gatelevel.simulation(design, "icebreaker", there, clock_hz=12_000_000),
    ):
        pass
