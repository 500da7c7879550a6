"""The benchmark's own parts: the dense rival against the golden model, and the flow's reading of what the tools say."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator

from bench import cpu, flow, rivals, table, whole, whole_table
from bench.dense import Dense, DenseSpec
from bfthw import IntFactor, QFormat


def dense_factor(n, seed=0):
    rng = np.random.default_rng(seed)
    return IntFactor(
        values=rng.integers(-128, 128, (1, n, n, 1)), input=QFormat(10, 8), weights=QFormat(8, 9), output=QFormat(10, 8)
    )


def play(spec, vectors, stall):
    """Outputs of the engine, the cycle of each, and that of the first element accepted."""
    dut, rng = Dense(spec), np.random.default_rng(1)
    got, cycles, lasts, accepted = [], [], [], []
    x = vectors.ravel().tolist()
    go = rng.random((2, 40 * len(x) * spec.groups)) >= stall

    async def source(ctx):
        at = cycle = 0
        while at < len(x):
            ctx.set(dut.i.valid, int(go[0, cycle]))
            ctx.set(dut.i.payload, x[at])
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            if go[0, cycle] and ready:
                accepted.append(cycle)
                at += 1
            cycle += 1
        ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        cycle = 0
        while len(got) < len(x):
            ctx.set(dut.o.ready, int(go[1, cycle]))
            _, _, valid, value, last = await ctx.tick().sample(dut.o.valid, dut.o.payload, dut.o_last)
            if valid and go[1, cycle]:
                got.append(value)
                cycles.append(cycle)
                lasts.append(last)
            cycle += 1
            assert cycle < len(go[1]), "the engine hangs"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    ends = np.arange(1, len(x) + 1) % spec.n == 0
    assert np.array_equal(np.array(lasts, bool), ends)
    return np.array(got).reshape(vectors.shape), np.array(cycles), accepted[0]


@pytest.mark.parametrize("n, multipliers, stall", [(32, 8, 0), (32, 4, 0.4), (64, 20, 0), (64, 20, 0.7)])
def test_dense_engine_equals_numpy(n, multipliers, stall):
    spec = DenseSpec(factor=dense_factor(n), multipliers=multipliers)
    x = np.random.default_rng(2).integers(-512, 512, (4, n))
    y, cycles, accepted = play(spec, x, stall)
    exact = x @ spec.factor.values[0, :, :, 0].T
    shift = spec.factor.shift
    wanted = np.clip((exact + (1 << shift - 1)) >> shift, -512, 511)
    assert np.array_equal(y, wanted) and np.ptp(wanted) == 1023
    assert spec.interval == -(-n // multipliers) * n
    if not stall:
        firsts = cycles[::n]
        assert firsts[0] - accepted == spec.latency
        assert (np.diff(firsts) == spec.interval).all()


def test_dense_engine_refuses():
    with pytest.raises(ValueError, match="multipliers must be 1 to 8"):
        DenseSpec(factor=dense_factor(32), multipliers=9)


DOCS = Path(__file__).resolve().parent.parent / "docs"
PART = flow.PARTS["ecp5-85f"]
USED = {"TRELLIS_COMB": 900, "TRELLIS_FF": 1200, "MULT18X18D": 16, "DP16KD": 7, "TRELLIS_IO": 61}


def report(mhz):
    return {"fmax": {"clk": {"achieved": mhz}}, "utilization": {cell: {"used": n} for cell, n in USED.items()}}


def keep(cache, text, **files):
    """What a run that was cut short has left."""
    directory = cache / flow.key(text, PART, "rtlil")
    directory.mkdir(parents=True)
    files = {"synthesised": {"LUT": 850, "FF": 1200, "DSP": 16, "RAM": 7}} | files
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value))


def test_a_result_is_kept_for_the_same_text_part_and_language():
    key = flow.key("text", PART, "rtlil")
    assert key == flow.key("text", PART, "rtlil")
    others = flow.key("other", PART, "rtlil"), flow.key("text", PART, "verilog")
    assert len({key, *others, flow.key("text", flow.PARTS["ecp5-5g-85f"], "rtlil")}) == 4


def test_row_of_what_was_kept(tmp_path):
    keep(tmp_path, "a", seed1=report(231.26), seed2=report(205.0), seed3={"failed": "nextpnr failed"})
    row = flow.build("a", "a", PART, seeds=(1, 2, 3), cache=tmp_path)
    assert row.fmax == {1: 231.3, 2: 205.0, 3: None} and row.failed == ("seed 3: nextpnr failed",)
    assert row.used == {"COMB": 900, "FF": 1200, "DSP": 16, "RAM": 7}
    assert (row.median, row.limit, row.mhz) == (218.15, 212.0, 212.0)
    keep(tmp_path, "b", seed1={"failed": "nextpnr failed"})
    row = flow.build("b", "b", PART, cache=tmp_path)
    assert row.mhz is None and row.used["COMB"] == 850 and row.failed[-1] == "resources are those of Yosys"


def test_place_and_route_has_a_time_limit(tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(flow.tools, "find", lambda tool: str(slow))
    keep(tmp_path, "a")
    said = []
    for minutes in (0.005, 0.005, 0.01):
        row = flow.build("a", "a", PART, cache=tmp_path, minutes=minutes, progress=said.append)
        assert row.failed[0] == f"seed 1: not routed in {minutes:g} minutes"
    assert len(said) == 2  # the second time it was known


def test_figures_are_judged():
    said = [table.judged(mhz, 200, 212) for mhz in (None, 199, 200, 212)]
    assert said == ["not measured", "**missed**", "as required", "as hoped"]
    assert [table.judged(comb, 60, 40, less=True) for comb in (61, 60, 40)] == ["**missed**", "as required", "as hoped"]


def test_weights_of_a_dense_layer_of_1024_do_not_fit():
    spec = rivals.dense(1024, 20)
    assert not spec.fits and spec.interval == 52 * 1024 and rivals.dense(256, 16).fits


def test_pages_of_the_processor_have_one_source():
    """docs/cpu.md and the processor's table of docs/benchmark.md are what bench/cpu.json gives."""
    measured = cpu.figures()
    assert {len(taken) for case in measured["cases"] for taken in case["seconds"].values()} == {cpu.ROUNDS}
    assert (DOCS / "cpu.md").read_text(encoding="utf-8") == cpu.document(measured)
    text = (DOCS / "benchmark.md").read_text(encoding="utf-8")
    lines = []
    for n in table.PROCESSOR:
        rows = text.split("## Speed")[1].splitlines()
        row = next(row for row in rows if row.startswith(f"| n = {n}, k = 4, 1 lane;"))
        lines.append(SimpleNamespace(key=f"n{n}", vectors=float(row.split("|")[5].replace(",", ""))))
    assert table.on_processor(measured, lines) in text
    assert all(measured[key] in text for key in ("torch", "processor"))


def test_processor_is_measured_in_its_own_time():
    """All contestants, forward and with gradients; sleep costs nothing."""
    found = cpu.times(16, cpu.BOTH, 4, rounds=2)
    assert {cpu.OURS, cpu.DENSE, cpu.PLAIN} <= set(found) and all(len(taken) == 2 for taken in found.values())
    assert cpu.spent(lambda: time.sleep(0.2)) < 0.1
    assert cpu.ratios({cpu.DENSE: [2.0, 9.0, 4.0], "x": [1.0, 3.0, 4.0]}, "x") == (2.0, 1.0, 3.0)


def test_the_document_is_written():
    """With every section, of designs that were not built too."""
    lines = [table.Line(key=key, title=key, note="not installed") for key in ("n256", "da4ml")]
    text = table.document(
        lines, cpu.figures(), whole=whole_table.HEADING, command="make bench", seeds=5, parts=[PART], rom_words=8,
        target=220,
    )
    there = (DOCS / "benchmark.md").read_text(encoding="utf-8")
    written, wanted = ([line for line in one.splitlines() if line.startswith("## ")] for one in (text, there))
    assert written == wanted and "not installed" in text


def test_whole_networks_of_the_document():
    assert whole_table.section(whole.figures()) in (DOCS / "benchmark.md").read_text(encoding="utf-8")


def test_images_a_second():
    """By the median of the seeds that routed, and by what the primitives allow."""
    entry, plan = whole.find("keywords-bft"), {"interval": 4000, "weights": 8704}
    for mhz, said, verdict in (
        ({"1": 90.0, "2": None, "3": 60.0, "4": 80.0}, "80.0 | 3 | 20,000", "as hoped"),
        ({"1": 250.0}, "212.0 | 1 | 53,000", "as hoped"),
        ({"1": 30.0}, "30.0 | 1 | 7,500", "as required"),
        ({"1": 27.0}, "27.0 | 1 | 6,750", "**missed**"),
        ({"1": None}, " |  | ", "not measured"),
    ):
        found = {entry.key: {"plan": plan, "build": {"mhz": mhz, "limit": 212.0}}}
        assert f"| 8,704 | 4,000 | {said} | 7,000 / 20,000 | {verdict} |" in whole_table.rates(found)


def test_a_longest_path():
    """Of those from registers to registers: its cells in order, nanoseconds of logic and of wires."""
    def path(*parts, ends="posedge aclk"):
        made = [{"type": kind, "delay": d, "from": {"cell": a}, "to": {"cell": b}} for kind, d, a, b in parts]
        return {"from": ends, "to": "posedge aclk", "path": made}

    short = path(("logic", 0.5, "a", "a"), ("routing", 1.0, "a", "b"))
    long = path(
        ("logic", 0.5, "c", "c"), ("routing", 2.0, "c", "d"), ("logic", 0.2, "d", "d"), ("routing", 1.5, "d", "e")
    )
    pin = path(("routing", 9.0, "pin", "f"), ends="<async>") | {"to": "<async>"}
    wanted = {"cells": ["c", "d", "e"], "logic": 0.7, "routing": 3.5}
    assert whole.critical({"critical_paths": [short, long, pin]}) == wanted


def test_the_section_alone_is_written_anew(tmp_path):
    path = tmp_path / "benchmark.md"
    before, after = "# A\n\nbefore\n\n", f"\n## After\n\n{whole_table.HEADING[3:]}\n"
    path.write_text(f"{before}{whole_table.HEADING}\n\nold\n{after}", encoding="utf-8")
    whole_table.rewrite(path)
    assert path.read_text(encoding="utf-8") == before + whole_table.section(whole.figures()) + after
