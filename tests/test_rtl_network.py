"""Whole networks: every integer, latency and interval, any stalls, a reset in flight."""

import numpy as np
import pytest
from rtl_bench import extremes, factor_of, pack, play, play_network, random_spec

from bfthw import IntLayer, IntNetwork, QFormat, chain
from rtl_gen import Network, NetworkSpec, fitting_lanes

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
    """Equal to golden, latency and interval as promised, stalls, clean after a reset in flight."""
    rng = np.random.default_rng(seed)
    x = extremes(rng, spec.network.input, (count, spec.network.inputs))
    wanted = spec.network(x)
    free = play_network(spec, x)
    assert np.array_equal(free.outputs, wanted)
    assert free.latency == spec.latency
    if free.interval is not None:
        assert free.interval == spec.interval
    for stall in stalls:
        assert np.array_equal(play_network(spec, x, stall=stall, seed=seed).outputs, wanted), stall
    for _ in range(resets):
        cycles = int(rng.integers(1, spec.latency + 3 * spec.interval))
        again = play_network(spec, x[:4], stall=0.2, seed=seed, reset_after=cycles)
        assert np.array_equal(again.outputs, wanted[:4]), f"reset after {cycles} cycles"


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
    check(NetworkSpec(network=network_of((CHAINS[name], {})), lanes=lanes))


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
    check(NetworkSpec(network=network, lanes=lanes), count=12, seed=seed, stalls=(0.4, (0.8, 0), (0, 0.8)))


@pytest.mark.parametrize("lanes", [(1, 16), (16, 1), (4, 1), (1, 4), (2, 8), (16, 16), (8, 2)])
def test_residual_across_any_two_lanes(lanes):
    check(NetworkSpec(network=network_of((chain.bft(16), {"skip": W, "bias": 8})), lanes=lanes), count=16)


@pytest.mark.parametrize("after, before", [(4, 6), (6, 4), (6, 12), (12, 8), (3, 8)])
def test_lanes_that_do_not_divide_each_other(after, before):
    shape = chain.patterns([(1, 2, 2, 24), (1, 2, 2, 24)])
    check(NetworkSpec(network=network_of((shape, {"skip": "one"})), lanes=(before, after)), count=16)


def test_every_reset_of_a_small_network():
    spec = NetworkSpec(network=network_of((chain.bft(16), {"skip": W})), lanes=(2, 4))
    x = extremes(np.random.default_rng(0), Q, (3, 16))
    for cycles in range(1, spec.latency + 2 * spec.interval):
        again = play_network(spec, x, reset_after=cycles)
        assert np.array_equal(again.outputs, spec.network(x)) and again.latency == spec.latency, cycles


def test_a_sink_that_waits_long_loses_nothing():
    """Everything inside fills up, then drains."""
    spec = NetworkSpec(network=network_of((chain.bft(16), {"skip": W}), (chain.bft(16), {})), lanes=(1, 4, 2, 2))
    x = extremes(np.random.default_rng(0), Q, (20, 16))
    for stall in ((0, 0.97), (0.97, 0), (0.3, 0.97)):
        assert np.array_equal(play_network(spec, x, stall=stall, seed=1).outputs, spec.network(x))


@pytest.mark.parametrize("seed", range(10), ids="seed-{}".format)
def test_saturations_are_counted(seed):
    """Every value that some stage clips is counted once, under stalls too."""
    spec, counts = random_spec(seed, largest=48, weights=200), []
    x = extremes(np.random.default_rng(seed), spec.network.input, (6, spec.network.inputs))
    wanted = sum(int(factor.saturated(acc).sum()) for factor, acc, _ in spec.network.accumulators(x))
    for stall in (0, 0.4):
        network = Network(spec)
        words = pack(x.reshape(-1, spec.lanes[0]), spec.network.input.width)
        sink = network.o, len(x) * spec.beats_out
        counts.append(play(network, [(network.i, words)], [sink], stall=stall, tally=[network.saturated])[-1])
    assert counts == [wanted, wanted]


@pytest.mark.parametrize("seed", range(60), ids="seed-{}".format)
def test_random_network(seed):
    check(random_spec(seed, largest=64, weights=300), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 400, 20), ids="seeds-from-{}".format)
def test_many_random_networks(start):
    for seed in range(start, start + 20):
        spec = random_spec(seed + 1000)
        try:
            check(spec, count=12, seed=seed, stalls=(0.4, (0.8, 0), (0, 0.8)), resets=2)
        except AssertionError as error:
            shown = [(str(s.pattern), s.lanes, s.simd) for s in spec.stages]
            raise AssertionError(f"seed {seed + 1000}: {shown}") from error
