"""Whole networks: every integer, latency and interval, any stalls, a reset in flight."""

import numpy as np
import pytest
from engine_cases import ENGINES, spec_of
from rtl_bench import beats_of, extremes, factor_of, plan_of, play, play_network, random_spec

from bfthw import IntLayer, IntNetwork, QFormat, chain
from rtl_gen import Network, fitting_lanes

Q, W = QFormat(7, 4), QFormat(5, 3)


def layer(shape, name="0", x=Q, skip=None, **last):
    """An IntLayer of random factors, the last one with the given options."""
    first, factors = x, []
    for m, pattern in enumerate(shape):
        rest = dict(last, skip=skip, skip_input=first if skip else None) if m == len(shape) - 1 else {}
        factors.append(factor_of(pattern, m, x=x, w=W, drop=4, out=8, **rest))
        x = factors[-1].output
    return IntLayer(factors=tuple(factors), name=name)


def network_of(*layers):
    """Layers given as (shape, options), each one taking what the one before gives."""
    result, x = [], Q
    for n, (shape, options) in enumerate(layers):
        result.append(layer(shape, f"l{n}", x, **options))
        x = result[-1].factors[-1].output
    return IntNetwork(layers=tuple(result))


def check(spec, count=8, seed=0, stalls=((0.4, 0.4),), resets=1):
    """Equal to golden, latency and interval as promised, stalls, clean after a reset in flight; prints the case."""
    print(f"seed {seed}, vectors {spec.vectors}:", [(str(s.pattern), s.lanes, s.simd) for s in spec.engines])
    rng, few = np.random.default_rng(seed), count * spec.vectors
    # full for half of the run, so that the interval is that of the steady state
    many = spec.vectors * max(count, 2 * spec.pipeline_latency // spec.interval)
    x = extremes(rng, spec.network.input, (many, spec.network.inputs))
    wanted = spec.network(x)
    network = Network(spec)
    free = play_network(network, x)
    assert np.array_equal(free.outputs, wanted)
    assert free.latency == spec.pipeline_latency
    assert free.interval == spec.interval
    for stall in stalls:
        stalled = play_network(network, x[:few], stall=stall, seed=seed).outputs
        assert np.array_equal(stalled, wanted[:few]), stall
    few = 4 * spec.vectors
    for _ in range(resets):
        cycles = int(rng.integers(1, spec.pipeline_latency + 3 * spec.interval))
        again = play_network(network, x[:few], stall=0.2, seed=seed, reset_after=cycles)
        assert np.array_equal(again.outputs, wanted[:few]), f"reset after {cycles} cycles"


CHAINS = {
    "bft 4": chain.bft(4),
    "bft 16": chain.bft(16),
    "bft 64": chain.bft(64),
    "bft 32 of base 2": chain.bft(32, 2),
    "mixed 4 4 2 3": chain.mixed_radix((4, 4, 2, 3)),
    "mixed 3 5": chain.mixed_radix((3, 5)),
    "bulging": chain.patterns([(1, 8, 4, 8), (8, 4, 8, 1)]),
    "debut": chain.debut((4, 2, 8), (2, 4, 4), (2, 4, 2), inputs=16),
    "monarch": chain.monarch(8, 16, 4),
    "low rank": chain.low_rank(12, 18, 3),
    "dense": chain.dense(10, 15),
    "grouped": chain.grouped(12, 8, 4),
    "grouped, then dense": chain.patterns([*chain.grouped(12, 8, 4), (1, 6, 12, 1)]),
    "rising stride": chain.patterns([(8, 2, 2, 1), (4, 2, 2, 2), (2, 2, 2, 4), (1, 2, 2, 8)]),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    "wish", [1, 4, pytest.param(2, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)]
)
def test_chains(name, wish):
    """Each chain at about the same lanes everywhere: the nearest that fit."""
    lanes = tuple(min(fitting_lanes(p), key=lambda n: (abs(n - wish), n)) for p in CHAINS[name])
    check(plan_of(network_of((CHAINS[name], {})), lanes=lanes))


LAYERS = {
    "two layers": [(chain.bft(16), {}), (chain.bft(16, 2), {"relu": True})],
    "residual": [(chain.bft(16), {"skip": "one"})],
    "residual with all": [(chain.bft(16), {"skip": W, "bias": 10, "relu": True, "exponents": 2})],
    "residuals in a row": [
        (chain.bft(16), {"skip": "one"}),
        (chain.bft(16), {"skip": W}),
        (chain.bft(16, 2), {"skip": W}),
    ],
    "residual over one factor": [(chain.dense(12, 12), {"skip": W})],
    "residual around a bottleneck": [(chain.low_rank(16, 16, 2), {"skip": "one", "bias": 6})],
    "residual around a bulge": [(chain.patterns([(1, 8, 4, 8), (8, 4, 8, 1), (1, 2, 2, 16)]), {"skip": W})],
    "resizing": [
        (chain.monarch(8, 16, 4), {"relu": True}),
        (chain.bft(8, 2), {"skip": "one"}),
        (chain.dense(3, 8), {}),
    ],
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
def test_layers_across_mixed_lanes(name, seed):
    network, rng = network_of(*LAYERS[name]), np.random.default_rng(seed)
    lanes = tuple(int(rng.choice(fitting_lanes(f.pattern))) for f in network.factors)
    spec = plan_of(network, lanes=lanes, vectors=1 + seed % 2)
    check(spec, count=12, seed=seed, stalls=(0.4, (0.8, 0), (0, 0.8)))


@pytest.mark.parametrize("lanes", [(1, 16), (16, 1), (4, 1), (1, 4), (2, 8), (16, 16), (8, 2)])
def test_residual_across_any_two_lanes(lanes):
    check(plan_of(network_of((chain.bft(16), {"skip": W, "bias": 8})), lanes=lanes), count=16)


@pytest.mark.parametrize("after, before", [(4, 6), (6, 4), (6, 12), (12, 8), (3, 8)])
def test_lanes_that_do_not_divide_each_other(after, before):
    shape = chain.patterns([(1, 2, 2, 24), (1, 2, 2, 24)])
    check(plan_of(network_of((shape, {"skip": "one"})), lanes=(before, after)), count=16)


def test_every_reset_of_a_small_network():
    spec = plan_of(network_of((chain.bft(16), {"skip": W})), lanes=(2, 4))
    network, x = Network(spec), extremes(np.random.default_rng(0), Q, (3, 16))
    for cycles in range(1, spec.pipeline_latency + 2 * spec.interval):
        again = play_network(network, x, reset_after=cycles)
        assert np.array_equal(again.outputs, spec.network(x)) and again.latency == spec.pipeline_latency, cycles


def test_a_sink_that_waits_long_loses_nothing():
    """Everything inside fills up, then drains."""
    spec = plan_of(network_of((chain.bft(16), {"skip": W}), (chain.bft(16), {})), lanes=(1, 4, 2, 2))
    network, x = Network(spec), extremes(np.random.default_rng(0), Q, (20, 16))
    for stall in ((0, 0.97), (0.97, 0), (0.3, 0.97)):
        assert np.array_equal(play_network(network, x, stall=stall, seed=1).outputs, spec.network(x))


@pytest.mark.parametrize("seed", range(10), ids="seed-{}".format)
def test_saturations_are_counted(seed):
    """Every value that some stage clips is counted once, under stalls too."""
    spec, counts = random_spec(seed, largest=48, weights=200), []
    print(f"seed {seed}, vectors {spec.vectors}:", [(str(s.pattern), s.lanes, s.simd) for s in spec.engines])
    network = Network(spec)
    x = extremes(np.random.default_rng(seed), spec.network.input, (6, spec.network.inputs))
    wanted = sum(int(factor.saturated(acc).sum()) for factor, acc, _ in spec.network.accumulators(x))
    for stall in (0, 0.4):
        words = beats_of(x, spec.lanes_in, spec.vectors, spec.network.input.width)
        sink = network.o, 6 // spec.vectors * spec.beats_out
        counts.append(sum(play(network, [(network.i, words)], [sink], stall=stall, watch=[network.saturated])[-1]))
    assert counts == [wanted, wanted]


@pytest.mark.parametrize("name", ENGINES)
def test_saturations_in_flight_are_forgotten_in_reset(name):
    """Whatever a reset finds on its way through any engine, and through the counting, is not counted afterwards."""
    spec = spec_of(*ENGINES[name])
    network, q = Network(spec), spec.network
    x = extremes(np.random.default_rng(0), q.input, (40 * spec.vectors, q.inputs))
    clips = sum(factor.saturated(acc).reshape(len(x), -1).sum(1) for factor, acc, _ in q.accumulators(x))
    # vectors that clip most, again and again, so that a reset meets them; then few
    x = np.repeat(x[np.argsort(clips)[-spec.vectors :]], 5, 0)
    wanted = sum(int(factor.saturated(acc).sum()) for factor, acc, _ in q.accumulators(x))
    assert wanted >= len(x)
    words = beats_of(x, spec.lanes_in, spec.vectors, q.input.width)
    streams = [(network.i, words)], [(network.o, 5 * spec.beats_out)]
    counted = play(network, *streams, watch=[network.saturated])[-1]
    assert sum(counted) == wanted
    seen = np.flatnonzero(counted)[len(np.flatnonzero(counted)) // 2]
    for cycles in range(seen - 3, seen + 1):
        assert sum(play(network, *streams, reset_after=cycles, watch=[network.saturated])[-1]) == wanted, cycles


@pytest.mark.parametrize("seed", range(40), ids="seed-{}".format)
def test_random_network(seed):
    check(random_spec(seed, largest=64, weights=300), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 400, 20), ids="seeds-from-{}".format)
def test_many_random_networks(start):
    for seed in range(start, start + 20):
        check(random_spec(seed + 1000), count=12, seed=seed, stalls=(0.4, (0.8, 0), (0, 0.8)), resets=2)


def test_outputs_of_a_relu_are_kept_without_their_sign():
    """Behind a ReLU a buffer holds one bit less of each input, and all values still agree."""
    one = factor_of((1, 4, 4, 4), 1, x=QFormat(6, 3), drop=1, out=10, relu=True)
    two = factor_of((1, 4, 4, 4), 2, x=one.output, out=10)
    network = IntNetwork(layers=(IntLayer(factors=(one,), name="one"), IntLayer(factors=(two,), name="two")))
    spec = plan_of(network)
    first, second = spec.engines
    assert (first.kept_width, second.kept_width) == (6, 9)
    assert second.buffer_bits == 9 * second.reader.banks * second.reader.bank_depth
    x = np.random.default_rng(3).integers(-32, 32, (20, 16))
    outputs = network.taps(x)[0]
    assert outputs.max() > 255  # that the bit below the sign is used
    assert (play_network(Network(spec), x).outputs == network(x)).all()
