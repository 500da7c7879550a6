"""A stage alone, between streams: every geometry, every part of the arithmetic, with both saturations at work."""

from dataclasses import replace

import numpy as np
import pytest
from rtl_bench import Bench, beats_of, factor_of, measured, play, random_spec

from bfthw import IntFactor, QFormat
from bfthw.chain import Indexed
from rtl_gen import Pipelined
from rtl_gen.engines.readers.banked import Banked
from rtl_gen.engines.readers.direct import Direct
from rtl_gen.engines.readers.indexed import Copies
from rtl_gen.fifo import FIFO_LATENCY, QUEUE
from rtl_gen.stream import ENTRY

W = QFormat(5, 2)
RNG = np.random.default_rng(0)

# options of factor_of, lanes, SIMD, vectors if more than one
CASES = {
    "lanes < d": (dict(pattern=(2, 4, 4, 8)), 2, 4),
    "lanes < d, one lane": (dict(pattern=(1, 2, 2, 8)), 1, 2),
    "lanes < d, SIMD 1": (dict(pattern=(1, 4, 4, 8)), 4, 1),
    "lanes < d, SIMD 2": (dict(pattern=(2, 4, 4, 4)), 2, 2),
    "lanes < d, no power of two": (dict(pattern=(2, 3, 3, 6)), 3, 3),
    "lanes = d": (dict(pattern=(4, 4, 4, 4)), 4, 4),
    "lanes = d, SIMD 1": (dict(pattern=(3, 3, 3, 2)), 2, 1),
    "lanes = d = 1": (dict(pattern=(8, 4, 4, 1)), 1, 4),
    "lanes = d = 1, SIMD 2": (dict(pattern=(4, 4, 4, 1)), 1, 2),
    "lanes > d": (dict(pattern=(4, 4, 4, 2)), 4, 4),
    "lanes > d, SIMD 1": (dict(pattern=(4, 4, 4, 2)), 4, 1),
    "lanes > d, SIMD = rows of a beat": (dict(pattern=(4, 4, 4, 2)), 4, 2),
    "lanes > d, SIMD of several beats": (dict(pattern=(2, 8, 4, 2)), 4, 4),
    "a block a beat": (dict(pattern=(4, 4, 4, 1)), 4, 4),
    "a block a beat, SIMD 1": (dict(pattern=(4, 4, 4, 1)), 4, 1),
    "blocks a beat": (dict(pattern=(8, 2, 2, 1)), 8, 2),
    "blocks a beat, SIMD 1": (dict(pattern=(8, 2, 2, 2)), 8, 1),
    "a vector a beat": (dict(pattern=(4, 2, 2, 1)), 8, 2),
    "gathered, 4 of 6": (dict(pattern=(4, 3, 3, 2)), 4, 3),
    "gathered, 4 of 6, SIMD 1": (dict(pattern=(4, 3, 3, 2)), 4, 1),
    "gathered, b and c": (dict(pattern=(6, 3, 2, 2)), 4, 2),
    "gathered, one block": (dict(pattern=(1, 2, 6, 1)), 2, 3),
    "gathered, c = 5, SIMD 5": (dict(pattern=(2, 5, 5, 1)), 2, 5),
    "gathered, c = 5, SIMD 1": (dict(pattern=(2, 5, 5, 1)), 2, 1),
    "b < c": (dict(pattern=(2, 2, 8, 4)), 2, 8),
    "b < c, small SIMD costs nothing": (dict(pattern=(2, 2, 8, 4)), 2, 2),
    "b > c": (dict(pattern=(2, 8, 2, 4)), 2, 2),
    "b > c, SIMD 1": (dict(pattern=(2, 8, 2, 4)), 4, 1),
    "b = 1": (dict(pattern=(2, 1, 6, 2)), 2, 3),
    "c = 1": (dict(pattern=(2, 6, 1, 2)), 1, 1),
    "indexed, one lane": (dict(pattern=Indexed(RNG.integers(11, size=(7, 3)), 11)), 1, 3),
    "indexed, SIMD 1": (dict(pattern=Indexed(RNG.integers(6, size=(10, 4)), 6)), 1, 1),
    "indexed, lanes, SIMD 2": (dict(pattern=Indexed(RNG.integers(12, size=(8, 4)), 12)), 4, 2),
    "indexed, a vector a beat": (dict(pattern=Indexed(RNG.integers(6, size=(6, 2)), 6)), 6, 2),
    "indexed, one output": (dict(pattern=Indexed([[3, 1]], 4), drop=1), 1, 2),
    "indexed, one input": (dict(pattern=Indexed(np.zeros((4, 2), int), 1), drop=1), 1, 2),
    "cyclic": (dict(pattern=Indexed((np.arange(9)[:, None] + [0, 3, 6]) % 9, 9)), 1, 3),
    "cyclic, SIMD 1": (dict(pattern=Indexed((np.arange(9)[:, None] + [0, 3, 6]) % 9, 9)), 1, 1),
    "cyclic, more outputs": (dict(pattern=Indexed((np.arange(13)[:, None] + [0, 2]) % 5, 5)), 1, 2),
    "permuted": (dict(pattern=Indexed(RNG.permutation(16)[:, None], 16)), 2, 1),
    "indexed, all parts": (
        dict(pattern=Indexed(RNG.integers(9, size=(12, 4)), 9), skip=W, bias=12, exponents=3, relu=True), 3, 2,
    ),
    "indexed, all parts, 2 vectors": (
        dict(pattern=Indexed(RNG.integers(12, size=(12, 4)), 12), skip="one", bias=12, exponents=3), 2, 4, 2,
    ),
    "scale only": (dict(pattern=(1, 1, 1, 24)), 4, 1),
    "scale only, a vector a beat": (dict(pattern=(1, 1, 1, 4)), 4, 1),
    "one element": (dict(pattern=(1, 1, 1, 1)), 1, 1),
    "dense": (dict(pattern=(1, 9, 15, 1)), 3, 5),
    "dense, serial": (dict(pattern=(1, 9, 15, 1)), 1, 1),
    "dense to one": (dict(pattern=(1, 1, 12, 1)), 1, 4),
    "dense from one": (dict(pattern=(1, 12, 1, 1)), 1, 1),
    "nothing dropped": (dict(pattern=(2, 4, 4, 2), drop=0), 2, 4),
    "negative shift": (dict(pattern=(2, 4, 4, 2), drop=-3, out=8), 2, 4),
    "negative shift, all fits": (dict(pattern=(2, 4, 4, 2), drop=-3, out=24), 2, 4),
    "wide output": (dict(pattern=(2, 4, 4, 2), drop=2, out=30), 2, 4),
    "one bit": (dict(pattern=(2, 4, 4, 2), x=QFormat(1, 0), w=QFormat(1, 0), drop=0, out=1), 2, 2),
    "shift beyond the sum": (dict(pattern=(2, 2, 2, 2), drop=20), 2, 2),
    "row exponents": (dict(pattern=(2, 4, 4, 4), exponents=4), 2, 4),
    "row exponents, SIMD 1": (dict(pattern=(2, 4, 4, 4), exponents=1), 8, 1),
    "bias": (dict(pattern=(2, 4, 4, 4), bias=10), 2, 4),
    "bias far above the sum": (dict(pattern=(2, 4, 4, 4), bias=24, drop=7), 4, 2),
    "bias, negative shift": (dict(pattern=(2, 4, 4, 4), bias=9, drop=-2), 4, 4),
    "bias below the rounding": (dict(pattern=(2, 4, 4, 4), bias=2, drop=9, out=2), 4, 4),
    "ReLU": (dict(pattern=(2, 4, 4, 4), relu=True), 2, 4),
    "ReLU, all fits": (dict(pattern=(2, 4, 4, 4), relu=True, out=24), 2, 4),
    "residual": (dict(pattern=(2, 4, 4, 4), skip="one"), 2, 4),
    "residual, SIMD 1": (dict(pattern=(4, 4, 4, 1), skip="one"), 4, 1),
    "residual finer than the sum": (dict(pattern=(2, 4, 4, 4), skip="one", skip_input=QFormat(9, 12)), 2, 2),
    "residual with scale": (dict(pattern=(2, 4, 4, 4), skip=W), 2, 4),
    "residual, coarse scale": (dict(pattern=(2, 4, 4, 4), skip=QFormat(4, -3), w=QFormat(5, 6)), 2, 4),
    "residual, all parts": (dict(pattern=(2, 4, 4, 4), skip=W, bias=12, exponents=3, relu=True), 4, 2),
    "residual, all parts, gathered": (dict(pattern=(4, 3, 3, 2), skip=W, bias=12, exponents=3), 4, 3),
    "residual, all parts, a vector a beat": (dict(pattern=(4, 2, 2, 1), skip=W, bias=12, exponents=3), 8, 1),
    "direct, all parts": (dict(pattern=(4, 4, 4, 1), bias=12, exponents=3, relu=True), 4, 4),
    "direct, a vector a beat, all parts": (dict(pattern=(4, 2, 2, 1), bias=12, exponents=3, relu=True), 8, 2),
    "scale only with residual": (dict(pattern=(1, 1, 1, 24), skip=W), 4, 1),
    "many blocks": (dict(pattern=(16, 1, 2, 1), bias=9), 1, 2),
    "no power of two, many blocks": (dict(pattern=(9, 2, 3, 1), bias=9), 1, 3),
    "2 vectors": (dict(pattern=(2, 4, 4, 8)), 2, 2, 2),
    "2 vectors, lanes > d": (dict(pattern=(4, 4, 4, 2)), 4, 1, 2),
    "2 vectors, gathered, all parts": (dict(pattern=(4, 3, 3, 2), skip=W, bias=12, exponents=3), 4, 3, 2),
    "2 vectors, direct, all parts": (dict(pattern=(4, 3, 3, 2), bias=12, exponents=3, relu=True), 4, 3, 2),
    "3 vectors, b > c, no power of two": (dict(pattern=(2, 6, 3, 4), skip="one"), 2, 1, 3),
}
FITS = {"negative shift, all fits", "wide output", "ReLU, all fits", "shift beyond the sum"}


def vectors_for(factor, count, seed):
    """Vectors (count, inputs) and x0: the ends of the range in the signs of each of a few rows, then random ones."""
    rng = np.random.default_rng(seed)
    x = rng.integers(factor.input.lo, factor.input.hi + 1, (count, factor.pattern.inputs))
    skip = factor.skip_input or factor.input
    x0 = rng.integers(skip.lo, skip.hi + 1, (count, factor.pattern.outputs))
    for n in range(count // 2):
        j = int(rng.integers(factor.pattern.b))
        if factor.support is None:
            signs = (factor.values[:, j] > 0) ^ bool(n % 2)
            x[n] = np.where(signs, factor.input.hi, factor.input.lo).ravel()
        else:
            j = int(rng.integers(factor.pattern.outputs))
            signs = (factor.values[j, 0, :, 0] > 0) ^ bool(n % 2)
            x[n, factor.support.index[j]] = np.where(signs, factor.input.hi, factor.input.lo)
        x0[n] = skip.lo if n % 2 else skip.hi
        if factor.skip is not None:
            x0[n] = np.where((factor.skip > 0) ^ bool(n % 2), skip.hi, skip.lo)
    return x, x0


def spec_of(options, lanes, simd, vectors=1, seed=0):
    factor = factor_of(seed=seed, **{"drop": 3} | options)
    return Pipelined(factors=(factor,), lanes=lanes, simd=simd, vectors=vectors, flight=ENTRY)


def bench_of(spec):
    return Bench(spec.component(), spec.output_flight + QUEUE)


def play_stage(bench, x, x0, **rest):
    spec, f = bench.part.engine, bench.part.engine.factor
    sources = [(bench.i, beats_of(x, spec.lanes, spec.vectors, f.input.width))]
    if f.skip_input:
        sources.append((bench.skip, beats_of(x0, spec.lanes, spec.vectors, f.skip_input.width)))
    flows = play(bench, sources, [(bench.o, len(x) // spec.vectors * spec.beats_out)], **rest)
    return measured(flows[0], flows[-1], f.output, spec.lanes, spec.vectors, f.pattern.outputs)


@pytest.mark.parametrize("name", CASES)
def test_stage(name):
    spec = spec_of(*CASES[name], seed=len(name))
    factor, few, least = spec.factor, 12, 4 * spec.vectors
    latency = spec.reader.reads(np.arange(spec.beats_in) + ENTRY)[spec.steps - 1] + spec.depth + FIFO_LATENCY
    # full for half of the run
    x, x0 = vectors_for(factor, spec.vectors * max(12, int(2 * latency) // spec.interval), 1)
    acc = factor.accumulate(x, x0)
    wanted = factor.requantise(acc)
    # the corners are really met
    above, below = (acc > 0) & factor.saturated(acc), (acc < 0) & factor.saturated(acc)
    if name in FITS:
        assert not above.any() and not below.any()
    elif name != "one bit":
        assert above.any() and (factor.relu or below.any())
    if factor.relu:
        assert (acc < 0).any()
    bench = bench_of(spec)
    free = play_stage(bench, x, x0)
    assert np.array_equal(free.outputs, wanted)
    assert free.latency == latency
    assert free.interval == spec.interval
    for stall in (0.4, (0.7, 0), (0, 0.7)):
        stalled = play_stage(bench, x[:few], x0[:few], stall=stall, seed=2).outputs
        assert np.array_equal(stalled, wanted[:few]), stall
    for reset_after in (1, spec.beats_in + 1, free.latency + spec.interval // 2 + 3):
        again = play_stage(bench, x[:least], x0[:least], reset_after=reset_after)
        assert np.array_equal(again.outputs, wanted[:least]) and again.latency == latency, reset_after


def figure(engine, key):
    """Of an engine's reader, or of the engine."""
    return getattr(engine.reader if hasattr(engine.reader, key) else engine, key)


def test_cases_cover_the_geometry():
    """Every way of reading the buffer, and of having none, has a case."""
    specs = [spec_of(*case) for case in CASES.values()]
    groups = [s.reader.group for s in specs if not isinstance(s.reader, Banked)]
    assert any(group > 1 for group in groups) and any(group == 1 for group in groups)
    banked = [s for s in specs if isinstance(s.reader, Banked)]
    for key in ("words", "rows", "parts", "banks", "passes", "steps", "blocks"):
        assert any(figure(s, key) > 1 for s in banked) and any(figure(s, key) == 1 for s in banked), key
    rows = [(s.reader.rows_a_beat, s.simd) for s in banked]
    assert any(n > simd for n, simd in rows) and any(1 < n < simd for n, simd in rows)
    every = {(m, n) for m in (False, True) for n in (False, True)}
    # a beat at a time or blocks of several; with one choice of operands or several
    direct = [s for s in specs if isinstance(s.reader, Direct)]
    for key in ("cycles", "block_beats"):
        assert {(figure(s, key) > 1, s.factor.bias is None) for s in direct} == every, key
    assert {(s.reader.block_beats > 1, len(s.reader.select) > 1) for s in direct} == {(0, 0), (1, 0), (1, 1)}
    assert {(s in direct, s.vectors > 1) for s in specs} == every
    others = [s for s in specs if s not in direct]
    assert {(s in banked, s.vectors > 1) for s in others} == every
    # counters: one for all of the address, or several; more blocks than slots, or fewer
    buffered = {(s.reader.powers_of_two, s.reader.blocks > s.reader.slots, s.vectors > 1) for s in others}
    assert {case[:2] for case in buffered} == {case[::2] for case in buffered} == every
    # a row in whole bits leaves words of a bank unused
    readers = [s.reader for s in banked]
    assert any(r.bank_depth > r.slots * r.words * r.rows for r in readers)
    readers = [s.reader for s in others]
    assert any(r.slots & (r.slots - 1) for r in readers) and any(r.block_beats == 1 for r in readers)
    indexed = [s for s in specs if isinstance(s.reader, Copies)]
    for key in ("counted", "steps", "lanes", "words"):
        assert len({figure(s, key) > 1 or figure(s, key) is True for s in indexed}) == 2, key
    shifts = {int(np.sign(s.factor.shift)) for s in specs}
    assert shifts == {-1, 0, 1}


@pytest.mark.parametrize("seed", range(30), ids="seed-{}".format)
def test_random_stage(seed):
    """Any pattern, lanes, SIMD and formats, with stalls, against the golden factor."""
    for spec in random_spec(seed, largest=48).engines:
        spec = replace(spec, flight=ENTRY)
        factor = spec.factor
        print(f"seed {seed}, vectors {spec.vectors}: {factor.pattern}, {spec.lanes} lanes, SIMD {spec.simd}")
        x, x0 = vectors_for(factor, 8 * spec.vectors, seed)
        if spec.positive:
            x = np.maximum(x, 0)  # as a ReLU leaves them
        wanted = factor(x, x0)
        bench = bench_of(spec)
        free = play_stage(bench, x, x0)
        assert np.array_equal(free.outputs, wanted) and free.interval == spec.interval
        assert np.array_equal(play_stage(bench, x, x0, stall=0.4, seed=seed).outputs, wanted)


def test_largest_values_meet():
    """All inputs, weights, biases and residuals at the end of their range at once: no bit is missing anywhere."""
    for corner, drop in ((0, 0), (1, 0), (0, 3), (1, -2)):
        x, w, s = QFormat(7, 0), QFormat(6, 0), QFormat(5, 0)
        ends = [(x.lo, w.lo, s.lo), (x.hi, w.lo, s.lo)][corner]
        shape = (1, 2, 4, 2)
        draft = IntFactor(
            values=np.full(shape, ends[1]),
            input=x,
            weights=w,
            output=QFormat(24, -drop),
            skip_input=x,
            skip_weights=s,
            skip=np.full(4, ends[2]),
            bias=np.full(4, [QFormat(10, 0).hi, QFormat(10, 0).lo][corner]),
            bias_width=10,
        )
        vectors, x0 = np.full((3, 8), ends[0]), np.full((3, 4), ends[0])
        spec = Pipelined(factors=(draft,), lanes=2, simd=2, flight=ENTRY)
        assert np.array_equal(play_stage(bench_of(spec), vectors, x0).outputs, draft(vectors, x0))
