"""Nothing idles: the cycles in which multipliers get operands of some output, held against the specification.

A stage reads the operands of all its multipliers at once, so that a read is a cycle of work for each of them; those of
the residual's scale work with the last read of an output.
"""

import numpy as np
import pytest
from rtl_bench import beats_of, extremes, factor_of, plan_of, play

from bfthw import IntLayer, IntNetwork, QFormat, chain
from rtl_gen import Network, Pipelined, fitting_lanes
from rtl_gen.engines.pipelined import PipelinedUnit
from rtl_gen.engines.readers.direct import Direct

Q = QFormat(6, 3)


def network_of(shape, skip=None):
    factors, q = [], Q
    for n, pattern in enumerate(shape):
        rest = {"skip": skip, "skip_input": Q} if skip and n == len(shape) - 1 else {}
        factors.append(factor_of(pattern, n, x=q, out=6, **rest))
        q = factors[-1].output
    return IntNetwork(layers=(IntLayer(factors=tuple(factors)),))


def reads_of(monkeypatch, spec, frames):
    """Per stage, cycle by cycle, whether it reads operands and whether an output's last ones; and the output's Flow."""
    watch = []

    class Watched(PipelinedUnit):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            # without a buffer, what comes out was read a fixed time ago
            direct = isinstance(self.engine.reader, Direct)
            watch.extend([self.o.valid] * 2 if direct else [m.submodules.buffer.issue, self.o.take])
            return m

    monkeypatch.setattr(Pipelined, "component", lambda engine: Watched(engine))
    dut, q = Network(spec), spec.network
    x = extremes(np.random.default_rng(1), q.input, (frames * spec.vectors, q.inputs))
    words = beats_of(x, spec.lanes_in, spec.vectors, q.input.width)
    _, out, *seen = play(dut, [(dut.i, words)], [(dut.o, frames * spec.beats_out)], watch=watch)
    wanted = beats_of(q(x), spec.lanes_out, spec.vectors, q.output.width)
    assert out.beats == wanted
    assert len(seen) == 2 * len(spec.engines)
    return [(np.array(a, bool), np.array(b, bool)) for a, b in zip(seen[::2], seen[1::2])], out


def check(monkeypatch, spec, always=False):
    """The share of the multipliers' cycles that serve an output, in steady state.

    Each stage reads what its outputs need and nothing else; the slowest ones so much in every interval, the others on
    average. always: they read in every cycle from their first read to their last.
    """
    frames = max(10, 3 * spec.pipeline_latency // spec.interval)
    counts, out = reads_of(monkeypatch, spec, frames)
    useful, half = 0, frames // 2
    for stage, (reads, ends) in zip(spec.engines, counts):
        assert reads.sum() == frames * stage.beats_out * stage.steps and ends.sum() == frames * stage.beats_out
        at = np.flatnonzero(reads)
        if always:
            assert np.array_equal(at, np.arange(at[0], at[0] + len(at))), f"{stage.pattern}: a bubble"
        # some intervals in which everything is full, well before the last vectors come in
        start = at[half * stage.cycles]
        stop = start + max(1, half // 3) * spec.interval
        scales = stage.lanes * spec.vectors * (stage.factor.skip is not None)
        products = reads[start:stop].sum() * (stage.multipliers - scales) + ends[start:stop].sum() * scales
        weights = stage.pattern.weights + (stage.pattern.outputs if scales else 0)
        if stage.interval == spec.interval:
            assert products == max(1, half // 3) * weights * spec.vectors
        useful += weights * spec.vectors
    firsts = np.array(out.seen[:: spec.beats_out])[half:]
    assert (np.diff(firsts) == spec.interval).all()
    return useful / (spec.multipliers * spec.interval)


SQUARE = {
    "bft 16": (chain.bft(16), None),
    "bft 16 with a scaled residual": (chain.bft(16), QFormat(5, 2)),
    "bft 16 of base 2": (chain.bft(16, 2), None),
    "mixed radix 3 4": (chain.mixed_radix((3, 4)), "one"),
    "mixed radix 3 5": (chain.mixed_radix((3, 5)), None),
}


@pytest.mark.parametrize("name", SQUARE)
def test_every_multiplier_works_in_every_cycle(name, monkeypatch):
    """b = c and SIMD c: from a stage's first read to its last there is no cycle without, whatever lanes and vectors."""
    shape, skip = SQUARE[name]
    common = set.intersection(*(set(fitting_lanes(p)) for p in shape))
    for n, lanes in enumerate(sorted(common)):
        simd = tuple(p.c for p in shape)
        spec = plan_of(network_of(shape, skip), lanes=(lanes,) * len(shape), simd=simd, vectors=1 + n % 3)
        assert spec.interval == spec.network.inputs // lanes
        assert check(monkeypatch, spec, always=True) == 1


# pattern, lanes, SIMD, share of a multiplier's cycles that its stage can use at best
SINGLE = [
    ((2, 2, 8, 4), 2, 8, 1 / 4),  # 4 beats in for each beat out
    ((2, 2, 8, 4), 2, 4, 1 / 2),
    ((2, 2, 8, 4), 2, 2, 1),
    ((4, 2, 3, 2), 4, 3, 2 / 3),
    ((2, 8, 2, 4), 4, 2, 1),
    ((2, 8, 2, 4), 1, 1, 1),
    ((1, 5, 15, 1), 5, 5, 1),
    ((4, 4, 4, 1), 4, 2, 1),
    ((1, 1, 6, 2), 2, 3, 1 / 3),
    ((12, 3, 3, 1), 1, 1, 1),
]


@pytest.mark.parametrize("pattern, lanes, simd, best", SINGLE)
def test_other_factors_reach_what_their_interval_allows(pattern, lanes, simd, best, monkeypatch):
    """Beats in or cycles of dot products, whichever are more: the multipliers' share is that of the latter."""
    spec = plan_of(network_of([chain.patterns([pattern])[0]]), lanes=(lanes,), simd=(simd,), vectors=2)
    (stage,) = spec.engines
    assert spec.interval == max(stage.beats_in, stage.beats_out * stage.steps)
    assert check(monkeypatch, spec, always=best == 1) == best == stage.beats_out * stage.steps / spec.interval


def test_the_slowest_stage_of_a_chain_never_waits(monkeypatch):
    """Stages of unlike intervals, lanes between them changed: the slowest reads in every cycle of the steady state."""
    shape = chain.patterns([(1, 8, 4, 8), (8, 4, 8, 1), (1, 4, 4, 8)])
    spec = plan_of(network_of(shape), lanes=(2, 8, 1), simd=(4, 2, 2))
    assert [stage.interval for stage in spec.engines] == [32, 16, 64]
    share = check(monkeypatch, spec)
    assert share == sum(p.weights for p in shape) / (spec.multipliers * 64)
