"""What is in the text of a core beside its circuit: names, header, files that it reads."""

import re
from dataclasses import replace

import numpy as np
import pytest
from engine_cases import ENGINES, spec_of
from sim_bench import needs_icarus, play_as_signed, sign
from test_emit import example
from test_verilog_2012 import looked_at

import bfthw
from bfthw import IntLayer, IntNetwork, Settings
from boards.build import _Flow
from rtl_gen import load_design, to_verilog, write
from rtl_gen.header import header
from rtl_gen.memories import to_files
from rtl_gen.names import check_name, plain_names
from sim import simulate
from sim.simulate import check_plain

# names


def test_every_name_stays_another():
    """Keywords, names that meet once they are plain, and those that are there already."""
    text = (
        "module \\core.a.b (x);\n  wire \\a.b ;\n  wire \\a$b ;\n  wire a_b;\n  wire [3:0] \\end ;\n"
        "  wire \\$1 , \\$1_0 ;\n"
        "  reg \\$flatten\\a.\\b.$12  [3:0];\n  assign \\a.b  = \\end [2] & (\\$flatten\\a.\\b.$12 [\\$1 ]);\n"
        "  initial \\$auto$x.cc:1:f$7  = 0;\nendmodule\n"
    )
    assert plain_names(text) == (
        "module core__a__b(x);\n  wire a_b_2;\n  wire a_b_3;\n  wire a_b;\n  wire [3:0] end_2;\n  wire n1, n1_0;\n"
        "  reg a_b_n12 [3:0];\n  assign a_b_2 = end_2[2] & (a_b_n12[n1]);\n"
        "  initial start_7 = 0;\nendmodule\n"
    )


def test_no_name_is_a_keyword_of_systemverilog():
    """Verilator reads .v files as that: `inside` of a board's shell is no name there."""
    words = ("inside", "checker", "cover", "unique0", "soft")
    text = plain_names("".join(f"wire \\{word} ;\n" for word in words))
    assert text == "".join(f"wire {word}_2;\n" for word in words)
    for word in words:
        with pytest.raises(ValueError, match=f"{word}_core would do"):
            check_name(word)


def test_signals_have_the_names_of_their_engines():
    text = looked_at(to_verilog(spec_of(*ENGINES["banked"], target="ecp5"), "core"))
    named = to_verilog(spec_of(*ENGINES["direct"], target="ecp5"), "network")
    assert re.search(r"^  (wire|reg) network_stage_0_o__valid\b", named, re.M)  # whatever the core is called
    for name in ("network_stage_0_o__valid", "network_stage_1_buffer_wr_0", "exit_queue_store", "network_stage_0_n1"):
        assert re.search(rf"^  (wire|reg) (\[\d+:0\] )?{name}\b", text, re.M), name
    text = looked_at(to_verilog(spec_of(*ENGINES["banked"]), "core"))
    assert "\n  core__network network (" in text and "\nmodule core__network__stage_0__buffer(" in text


@needs_icarus
def test_a_stage_is_named_in_flat_verilog_too(tmp_path):
    """The first stage that differs, by names alone: one weight of a table is another."""
    design = write(example(4), tmp_path, name="core", settings=Settings(target="ice40"))
    text = design.path.with_suffix(".v").read_text()
    changed, count = re.subn(r"(network_stage_0_o__payload <= )", r"\g<1>1 ^ ", text)
    assert count == 1
    design.path.with_suffix(".v").write_text(changed)
    sign(design.path)
    result = play_as_signed(design.path, vectors=4, simulator="icarus")
    assert re.search(r"the first stage that differs is body.0:0 \(network\.stage_0\), vector \d", result.problems[0])


# the header


def test_header_says_what_the_specification_says():
    spec = spec_of(*ENGINES["banked"])
    text = header(spec, "core")
    for words in (
        f"core: a butterfly network with AXI4-Stream ports, made by bfthw {bfthw.__version__}",
        "SPDX-License-Identifier: 0BSD", "l:0: (1, 2, 2, 4), weights 4 bits, 2^-3, out", "residual, bias, ReLU,",
        f"latency        {spec.latency} cycles", f"interval       {spec.interval} cycles a frame\n",
        "vectors in: 8 elements in 8 beats, two's complement, 6 bits, 2^-3;", "TLAST ends a vector;", "--roms case",
    ):
        assert words in text, words
    assert "case statements" in header(replace(spec, roms="case"), "core")
    assert ".mem files beside" in header(replace(spec, roms="readmemh"), "core")
    counted = header(replace(spec, count_beats=True), "core")
    assert "s_axis_tlast is ignored" in counted and "TLAST ends" not in counted
    assert "ecp5: primitives" in header(replace(spec, target="ecp5"), "core")


@pytest.mark.parametrize("name", ["import", "a.verilator.b", "x" * 200])
def test_names_of_strangers_do_no_harm(tmp_path, name):
    """A layer's name stands in a comment; no reader of comments takes it for more, and the core is simulated."""
    spec = spec_of(*ENGINES["direct"])
    network = IntNetwork(layers=tuple(IntLayer(factors=layer.factors, name=name) for layer in spec.network.layers))
    text = header(replace(spec, network=network, choices={name: spec.choices["l"]}), "core")
    assert all(line.startswith("//") and line.isascii() and len(line) < 120 for line in text.splitlines())
    (tmp_path / "core.v").write_text(text)
    check_plain(tmp_path / "core.v")


# files of ROMs


def test_files_of_roms(tmp_path):
    """They are beside the Verilog and in the manifest, are what is simulated, and go when nobody reads them."""
    settings = Settings(roms="readmemh", count_beats=True)
    design = write(example(), tmp_path, name="core", settings=settings)
    names = [file.name for file in design.manifest.files.memories]
    assert names == sorted(path.name for path in tmp_path.glob("*.mem")) and "core.network_stage_0_weights.mem" in names
    assert (design.manifest.roms, design.manifest.count_beats) == ("readmemh", True)
    again = load_design(design.path).plan
    assert (again.roms, again.count_beats) == ("readmemh", True)
    # words are those of the specification, the first weight in the low bits
    stage = design.plan.engines[1]
    words = [int(line, 16) for line in (tmp_path / "core.network_stage_1_weights.mem").read_text().split()]
    w = stage.factor.weights.width
    weights = np.array([[word >> n * w & (1 << w) - 1 for n in range(stage.lanes * stage.simd)] for word in words])
    assert np.array_equal(weights, stage.in_order_of_use().reshape(weights.shape) & (1 << w) - 1)
    result = simulate(design, vectors=7, stall=0.2, simulator="compiled")
    assert result.ok and result.checks[2] == "TLAST on any beat", result.problems
    # a build takes them along
    (tmp_path / "work").mkdir()
    flow = _Flow(board=None, design=design, work=tmp_path / "work", kind="yowasp", progress=None, check=False)
    flow.bring_core()
    assert {f"core.{name}" for name in names} <= {path.name for path in flow.work.iterdir()} == flow.products.keys()
    file = tmp_path / names[0]
    before = file.read_text()
    file.write_text(before.replace("1", "2", 1))
    with pytest.raises(ValueError, match=re.escape(f"{file.name}: not the file that core.json was made with")):
        load_design(design.path)
    file.write_text(before)
    (tmp_path / "core2.x.mem").write_text("0\n")  # another core's
    write(example(), tmp_path, name="core")
    assert sorted(path.name for path in tmp_path.glob("*.mem")) == ["core2.x.mem"]


@needs_icarus
def test_a_core_that_minds_tlast_is_no_core_that_counts_beats(tmp_path):
    design = write(example(4), tmp_path, name="core")
    sign(design.path, count_beats=True)
    result = play_as_signed(design.path, vectors=4, simulator="icarus")
    assert any(problem.startswith("TLAST on any beat: ") for problem in result.problems), result.problems
    assert any(problem.startswith("back to back: ") for problem in result.problems)


def test_words_in_decimal_are_read_and_buffers_stay():
    """Yosys writes 32 bits in decimal. A memory that is written has no file."""
    body = "  initial begin\n    {0}[0] = 32'd255;\n    {0}[1] = 32'd4294967295;\n  end\n"
    text = f"module core__a(x);\n{body.format('m')}{body.format('w')}    w[x] <= 0;\nendmodule\n"
    made, files = to_files(text, "core")
    assert files == {"core.a_m.mem": "000000ff\nffffffff\n"}
    read = '  initial $readmemh("core.a_m.mem", m, 0, 1);\n'
    assert made == f"module core__a(x);\n{read}{body.format('w')}    w[x] <= 0;\nendmodule\n"


@pytest.mark.parametrize(
    "line, found",
    [
        ('initial $readmemh("core.b.mem", m, 0, 3);', "$readmemh"),
        ('initial $readmemh("/etc/passwd", m, 0, 3);', "$readmemh"),
        ('initial $readmemb("core.a.mem", m, 0, 3);', "$readmemb"),
        ('initial $readmemh("core.a.mem", m, 0, $system("x"));', "$readmemh"),
        ('wire \\m$readmemh("core.a.mem", m, 0, 3);$system("x");', "$system"),
    ],
)
def test_only_files_of_the_manifest_are_read(tmp_path, line, found):
    path = tmp_path / "core.v"
    path.write_text('initial $readmemh("core.a.mem", m, 0, 3);\n')
    check_plain(path, reads=["core.a.mem"])
    path.write_text(f'initial $readmemh("core.a.mem", m, 0, 3);\n{line}\n')
    with pytest.raises(ValueError, match=re.escape(f"has '{found}', which no generated core has")):
        check_plain(path, reads=["core.a.mem"])


def test_a_file_of_a_rom_has_words_alone(tmp_path):
    design = write(example(4), tmp_path, name="core", settings=Settings(roms="readmemh"))
    file = tmp_path / design.manifest.files.memories[0].name
    file.write_text("@1000000000\n0\n")
    sign(design.path)
    with pytest.raises(ValueError, match="not the contents of a ROM, words in hex"):
        play_as_signed(design.path)


def test_roms_of_other_targets_are_primitives(tmp_path):
    with pytest.raises(ValueError, match="roms = 'case': of target 'plain' alone; ROMs of ecp5 are primitives"):
        write(example(4), tmp_path, name="core", settings=Settings(roms="case", target="ecp5"))
    with pytest.raises(ValueError, match="roms must be one of initial, case, readmemh, tables, blocks, got 'flash'"):
        replace(spec_of(*ENGINES["direct"]), roms="flash")
    with pytest.raises(ValueError, match="target must be one of plain, ecp5, ice40, gowin, got 'cases'"):
        replace(spec_of(*ENGINES["direct"]), target="cases")
