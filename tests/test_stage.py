"""A stage alone, between streams: every geometry, every part of the arithmetic, with both saturations at work."""

import numpy as np
import pytest
from rtl_bench import Bench, factor_of, measured, pack, play, random_spec

from bfthw import IntFactor, QFormat
from rtl_gen import Stage, StageSpec
from rtl_gen.stream import FIFO_LATENCY

W = QFormat(5, 2)

# options of factor_of, lanes, SIMD
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
        signs = (factor.values[:, j] > 0) ^ bool(n % 2)
        x[n] = np.where(signs, factor.input.hi, factor.input.lo).ravel()
        x0[n] = skip.lo if n % 2 else skip.hi
        if factor.skip is not None:
            x0[n] = np.where((factor.skip > 0) ^ bool(n % 2), skip.hi, skip.lo)
    return x, x0


def play_stage(spec, x, x0, **rest):
    f, bench = spec.factor, Bench(Stage(spec), spec.depth + 4)
    sources = [(bench.i, pack(x.reshape(-1, spec.lanes), f.input.width))]
    if f.skip_input:
        sources.append((bench.skip, pack(x0.reshape(-1, spec.lanes), f.skip_input.width)))
    flows = play(bench, sources, [(bench.o, len(x) * spec.beats_out)], **rest)
    return measured(flows[0], flows[-1], f.output.width, spec.lanes, f.pattern.outputs)


@pytest.mark.parametrize("name", CASES)
def test_stage(name):
    options, lanes, simd = CASES[name]
    spec = StageSpec(factor=factor_of(seed=len(name), **{"drop": 3} | options), lanes=lanes, simd=simd)
    factor = spec.factor
    x, x0 = vectors_for(factor, 12, 1)
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
    free = play_stage(spec, x, x0)
    assert np.array_equal(free.outputs, wanted)
    assert free.latency == spec.reads(np.arange(spec.beats_in))[spec.steps - 1] + spec.depth + FIFO_LATENCY
    assert free.interval == spec.interval
    for stall in (0.4, (0.7, 0), (0, 0.7)):
        assert np.array_equal(play_stage(spec, x, x0, stall=stall, seed=2).outputs, wanted), stall
    for reset_after in (1, spec.beats_in + 1, free.latency + spec.interval // 2 + 3):
        again = play_stage(spec, x[:4], x0[:4], reset_after=reset_after)
        assert np.array_equal(again.outputs, wanted[:4]) and again.latency == free.latency, reset_after


def test_cases_cover_the_geometry():
    """Every way of reading the buffer has a case."""
    specs = [StageSpec(factor=factor_of(**options), lanes=n, simd=s) for options, n, s in CASES.values()]
    assert any(not s.banked and s.group > 1 for s in specs) and any(not s.banked and s.group == 1 for s in specs)
    banked = [s for s in specs if s.banked]
    for key in ("words", "rows", "parts", "banks", "passes", "steps", "blocks"):
        assert any(getattr(s, key) > 1 for s in banked) and any(getattr(s, key) == 1 for s in banked), key
    assert any(s.rows_a_beat > s.simd for s in banked) and any(1 < s.rows_a_beat < s.simd for s in banked)
    shifts = {int(np.sign(s.factor.shift)) for s in specs}
    assert shifts == {-1, 0, 1}


@pytest.mark.parametrize("seed", range(40), ids="seed-{}".format)
def test_random_stage(seed):
    """Any pattern, lanes, SIMD and formats, with stalls, against the golden factor."""
    for spec in random_spec(seed, largest=48).stages:
        factor = spec.factor
        x, x0 = vectors_for(factor, 8, seed)
        wanted = factor(x, x0)
        free = play_stage(spec, x, x0)
        assert np.array_equal(free.outputs, wanted) and free.interval == spec.interval
        assert np.array_equal(play_stage(spec, x, x0, stall=0.4, seed=seed).outputs, wanted)


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
        spec = StageSpec(factor=draft, lanes=2, simd=2)
        assert np.array_equal(play_stage(spec, vectors, x0).outputs, draft(vectors, x0))
