"""Budgets of small designs, tests/budgets.toml: what they may take of a device at most, and the clock they must reach.

`python tests/test_budgets.py` builds them and prints the table anew, where more is wanted on purpose.
"""

import sys
import tempfile
import tomllib
from functools import partial
from pathlib import Path

import pytest
from amaranth.back import rtlil

from bench import flow
from bench.designs import Narrow, network
from rtl_gen import AxiStream, Plan

TABLE = Path(__file__).with_name("budgets.toml")
SEEDS = 1, 2, 3
FLOOR = 0.85  # of the median of the seeds
# name → part, top, specification
DESIGNS = {
    "n16-ecp5": ("ecp5-85f", AxiStream, partial(Plan, network=network(16, (4, 4)), target="ecp5")),
    "n64-folded-ecp5": (
        "ecp5-85f", AxiStream,
        partial(
            Plan, network=network(64, (4,) * 3), choices={"layer": {"engine": "folded"}}, target="ecp5", vectors=2,
        ),
    ),
    "n16-ice40": ("up5k", Narrow, partial(Plan, network=network(16, (4, 4)), target="ice40")),
}


def build(name, directory):
    """LUT, FF, DSP, RAM and the median clock in MHz, of the seeds."""
    part, top, spec = DESIGNS[name]
    text = rtlil.convert(top(spec()), name=flow.TOP, emit_src=False)
    row = flow.build(name, text, flow.PARTS[part], seeds=SEEDS, cache=directory, progress=lambda line: None, minutes=5)
    assert len(row.found) == len(SEEDS), f"{name}: {row.failed}"
    return {"LUT": row.used["COMB"], "FF": row.used["FF"], "DSP": row.used["DSP"], "RAM": row.used["RAM"]}, row.median


def table(results):
    """Text of the table, of name → what `build` found."""
    lines = [
        "# At most so many, at least so many MHz (85 % of the median of three seeds); python tests/test_budgets.py"
    ]
    for name, (used, mhz) in results.items():
        lines += ["", f"[{name}]", *(f"{key} = {number}" for key, number in used.items()), f"MHz = {FLOOR * mhz:.1f}"]
    return "\n".join(lines) + "\n"


def over(name, used, mhz, budget):
    """What is beyond a budget, as text, or None."""
    beyond = [f"{number} {key}, {budget[key]} are allowed" for key, number in used.items() if number > budget[key]]
    if mhz < budget["MHz"]:
        beyond.append(f"{mhz:.1f} MHz, {budget['MHz']} are needed")
    if beyond:
        return (
            f"{name}: {'; '.join(beyond)}. If that is wanted, edit {TABLE.name} in the same change "
            "(`python tests/test_budgets.py` prints it anew)"
        )
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_within_budget(tmp_path, name):
    beyond = over(name, *build(name, tmp_path), tomllib.loads(TABLE.read_text())[name])
    assert not beyond, beyond


def test_what_is_over_is_named():
    budget = {"LUT": 100, "FF": 50, "DSP": 2, "RAM": 0, "MHz": 85.0}
    used = {key: budget[key] for key in ("LUT", "FF", "DSP", "RAM")}
    assert over("core", used, 85.0, budget) is None
    assert over("core", used | {"LUT": 101}, 85.0, budget).startswith(
        "core: 101 LUT, 100 are allowed. If that is wanted"
    )
    assert "1 RAM, 0 are allowed; 84.9 MHz, 85.0 are needed" in over("core", used | {"RAM": 1}, 84.9, budget)


def test_the_table_has_every_design_and_reads_back():
    budgets = tomllib.loads(TABLE.read_text())
    assert set(budgets) == set(DESIGNS) and all(set(b) == {"LUT", "FF", "DSP", "RAM", "MHz"} for b in budgets.values())
    used = {"LUT": 3, "FF": 2, "DSP": 1, "RAM": 0}
    assert tomllib.loads(table({"a": (used, 100.0)})) == {"a": used | {"MHz": 85.0}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write(table({name: build(name, Path(made)) for name in DESIGNS}))
