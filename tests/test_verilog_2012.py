"""The emitted text in a simulator's SystemVerilog mode, every engine on every target, reset low from time 0."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from engine_cases import ENGINES, spec_of
from plain_bench import play_all
from rtl_bench import extremes

from bfthw import chain, structures
from bfthw.chain import Indexed
from rtl_gen import to_verilog, yosys

needs_icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
# what no part but those of a target is made of
OF_A_TARGET = {"ecp5": ("banked", "folded", "tables"), "ice40": ("indexed", "paired", "tables", "spatial")}
OF_A_TARGET |= {"gowin": ("gathered", "folded", "tables")}
ONE = [
    structures.padded(chain.bft(2, 2), 1, 1),
    structures.padded(chain.bft(4, 2), 1, 4),
    structures.fixed_butterfly(2, 5).patterns,
    [Indexed(np.zeros((4, 2), int), 1)],
    [Indexed([[1]], 2)],
    [(1, 4, 1, 1), (1, 1, 4, 1)],
]


PORTS = """aclk aresetn s_axis_tdata s_axis_tlast s_axis_tvalid s_axis_tready m_axis_tdata m_axis_tlast m_axis_tuser
    m_axis_tvalid m_axis_tready frame_error frame_errors saturated""".split()


def looked_at(text):
    """The Verilog of a core: no name in it is escaped, its ports are in order, and it begins with what it is."""
    assert "\\" not in text
    name, ports = re.search(r"^module (\w+)\(\n([^)]*)\);", text, re.M).groups()
    assert re.findall(r"\w+", ports) == PORTS
    declared = re.findall(r"^  (?:in|out)put (?:\[\d+:0\] )?(\w+);", text, re.M)
    assert declared[: len(PORTS)] == PORTS
    assert text.startswith(f"// {name}: ") and max(map(len, text[: text.index("/*")].splitlines())) < 120
    return text


def played(directory, specs, seed=0, change=lambda text: text, **rest):
    """Every core of name → Plan must give the golden model's integers, its text changed or not."""
    cores = {}
    for name, spec in specs.items():
        x = extremes(np.random.default_rng(seed), spec.network.input, (5 * spec.vectors, spec.network.inputs))
        cores[name] = spec, x
    for name, (y, wrong) in play_all(directory, cores, change=lambda text: change(looked_at(text)), **rest).items():
        spec, x = cores[name]
        assert not wrong, f"{name}: {wrong}"
        assert np.array_equal(y, spec.network(x)), name


@needs_icarus
def test_every_engine_on_every_target(tmp_path):
    specs = {name: spec_of(*case) for name, case in ENGINES.items() if name != "tables"}
    for target, names in OF_A_TARGET.items():
        specs |= {f"{name}_{target}": spec_of(*ENGINES[name], target=target) for name in names}
    played(tmp_path, specs)


@needs_icarus
def test_one_input_or_one_output(tmp_path):
    """Nothing has to be named where there is one of it: no address, no bit of one."""
    specs = {f"one{n}": spec_of(shape) for n, shape in enumerate(ONE)}
    specs["vectors"] = spec_of(ONE[1], {}, dict(vectors=3))
    specs["ecp5"] = spec_of(ONE[1], dict(bias=9), target="ecp5")
    played(tmp_path, specs)


def without_contents(text, instead=""):
    """As synthesis reads it that ignores what memories hold at first, what `initial` says; instead: of each word."""
    text = re.sub(r"^  initial \$readmemh.*\n", "", text, flags=re.M)
    return re.sub(r"^(    \w+\[\d+\] = )\d+'\w+;\n", rf"\g<1>{instead};\n" if instead else "", text, flags=re.M)


@needs_icarus
@pytest.mark.parametrize("roms", ["case", "readmemh"])
def test_weights_outside_initial_blocks(tmp_path, roms):
    """Every engine; cases do not care for what memories hold at first."""
    specs = {name: spec_of(*case) for name, case in ENGINES.items() if name != "tables"}
    specs = {name: replace(spec, roms=roms, count_beats=name in ("banked", "folded")) for name, spec in specs.items()}
    played(tmp_path, specs, change=without_contents if roms == "case" else lambda text: text)


@needs_icarus
def test_synthesis_without_contents_takes_all_weights_away(tmp_path):
    """What the cases are for: memories of zeros, and frames that look right."""
    spec = spec_of(*ENGINES["banked"])
    x = extremes(np.random.default_rng(0), spec.network.input, (5, spec.network.inputs))
    ((y, wrong),) = play_all(tmp_path, {"core": (spec, x)}, change=lambda text: without_contents(text, "0")).values()
    assert not wrong and not np.array_equal(y, spec.network(x))


def test_guards_get_their_value_in_an_initial_block():
    """In both kinds of text: none is left in a declaration, where SystemVerilog makes no event of it."""
    for target in ("plain", "ecp5"):
        text = to_verilog(spec_of(*ENGINES["direct"], target=target), "core")
        guards = re.findall(r"if \((\S+) ?\) begin end", text)
        assert guards
        for guard in set(guards):
            assert f"reg {guard};" in text and f"initial {guard} = 0;" in text
        assert not re.search(r"reg start_\d+ *=", text)


@pytest.mark.parametrize(
    "text, found",
    [
        ("  reg x = 1'h0;\n  always @* begin\n    if (x ) begin end\n", "x"),
        ("  always @* begin\n    if (\\a$1 ) begin end\n", r"\a$1"),
        ("  always @* begin\n    y = 1;\n", "none found"),
    ],
)
def test_guards_of_another_form_are_refused(text, found):
    with pytest.raises(RuntimeError, match=re.escape(f"in an unknown form: {found}")):
        yosys.with_first_events(text)
