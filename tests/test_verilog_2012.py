"""The emitted text in a simulator's SystemVerilog mode, every engine on every target, reset low from time 0."""

import re
import shutil

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


def played(directory, specs, seed=0, **rest):
    """Every core of name → NetworkSpec must give the golden model's integers."""
    cores = {}
    for name, spec in specs.items():
        x = extremes(np.random.default_rng(seed), spec.network.input, (5 * spec.vectors, spec.network.inputs))
        cores[name] = spec, x
    for name, (y, wrong) in play_all(directory, cores, **rest).items():
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
