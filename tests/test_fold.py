"""The folded engine: values, latency, interval and use of its multipliers, alone and beside other engines."""

from dataclasses import replace

import numpy as np
import pytest
from rtl_bench import factor_of, pack, plan_of, play, unpack
from test_spec import is_rom, memories, multiplications

from bfthw import IntLayer, IntNetwork, QFormat
from rtl_gen import Folded, Network, write_plan
from rtl_gen.engines.folded import check_fold
from sim import simulate

W = QFormat(8, 5)


def layer_of(radices, n=None, *, seed=0, x=10, x_in=None, name="l", first=None, **last):
    """A layer of square factors with falling strides; shifts differ from factor to factor. last: options of the
    last.
    """
    n, a, d, factors = n or int(np.prod(radices)), 1, n or int(np.prod(radices)), []
    q = first = first or QFormat(x_in or x, 5)
    for m, k in enumerate(radices):
        d //= k
        rest = {"out": x} | (last if m == len(radices) - 1 else {})
        if rest.get("skip"):
            rest["skip_input"] = first
        exponents = rest.pop("exponents", 0) if m == len(radices) - 1 else last.get("exponents", 0)
        factor = factor_of((a, k, k, d), seed + m, x=q, w=W, drop=7 + m % 2, exponents=exponents, **rest)
        factors.append(factor)
        q, a = factor.output, a * k
    return IntLayer(factors=tuple(factors), name=name)


def network_of(*layers):
    return IntNetwork(layers=layers)


def run(spec, frames=8, stall=0.0, seed=1):
    """Frames through a Network: (values agree, latency, interval)."""
    q, e = spec.network, spec.vectors
    x = np.random.default_rng(seed).integers(q.input.lo, q.input.hi + 1, (frames * e, q.inputs))
    beats = x.reshape(frames, e, -1).transpose(0, 2, 1).reshape(-1, spec.lanes_in * e)
    network = Network(spec)
    sources, sinks = [(network.i, pack(beats, q.input.width))], [(network.o, frames * spec.beats_out)]
    flow_in, flow_out = play(network, sources, sinks, stall=stall, seed=seed, limit=100_000)
    y = unpack(flow_out.beats, q.output, spec.lanes_out * e)
    y = y.reshape(frames, -1, e).transpose(0, 2, 1).reshape(frames * e, -1)
    firsts = flow_out.seen[:: spec.beats_out][frames // 2 :]
    interval = (firsts[-1] - firsts[0]) / (len(firsts) - 1)
    return (y == q(x)).all(), flow_out.seen[0] - flow_in.moved[0], interval


def check(spec, **rest):
    agree, latency, interval = run(spec, **rest)
    assert agree
    assert latency == spec.pipeline_latency
    assert interval == spec.interval


def folded(layer, vectors=1, **rest):
    network = network_of(layer)
    return plan_of(network, engines=("folded",) * len(network.factors), vectors=vectors, **rest)


CASES = {
    "16 = 4·4": (layer_of((4, 4)), 1),
    "64 = 4·4·4": (layer_of((4, 4, 4)), 2),
    "64 = 8·8": (layer_of((8, 8)), 1),
    "8 = 2·2·2": (layer_of((2, 2, 2)), 3),
    "36 = 6·6": (layer_of((6, 6)), 1),
    "32 = 4·4·2": (layer_of((4, 4, 2)), 2),
    "24 = 2·3·4": (layer_of((2, 3, 4)), 1),
    "24 = 4·3·2": (layer_of((4, 3, 2)), 1),
    "256 = 4·4·4·4": (layer_of((4, 4, 4, 4)), 1),
    "narrow input": (layer_of((4, 4, 4), x_in=6), 1),
    "residual": (layer_of((4, 4, 4), x_in=6, skip="one"), 2),
    "all parts": (layer_of((4, 4, 4), skip=QFormat(5, 2), bias=12, relu=True, exponents=2), 2),
    "ReLU alone": (layer_of((4, 4), relu=True), 1),
    "narrow output": (layer_of((4, 4, 4), out=7, relu=True), 1),
    "wide output": (layer_of((4, 4), out=13), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_fold(case):
    """Equal to the golden model, and latency and interval as the specification says."""
    layer, vectors = CASES[case]
    check(folded(layer, vectors), frames=6)


@pytest.mark.parametrize("case", ["16 = 4·4", "24 = 2·3·4", "24 = 4·3·2", "residual", "all parts"])
@pytest.mark.parametrize("stall", [(0.5, 0.0), (0.0, 0.5), (0.4, 0.4)])
def test_stalls(case, stall):
    layer, vectors = CASES[case]
    for seed in range(3):
        agree, *_ = run(folded(layer, vectors), frames=4, stall=stall, seed=seed)
        assert agree, seed


def test_folded_beside_others():
    """A fold in front of, behind and between engines that are faster or slower than it."""
    one = layer_of((4, 4, 4), name="one")
    two = layer_of((4, 4, 4), seed=9, name="two", first=one.factors[-1].output)
    network = network_of(one, two)
    fold, pipe = ("folded",) * 3, ("pipelined",) * 3
    for engines, simd in (
        (fold + pipe, None),
        (pipe + fold, None),
        (fold + fold, None),
        (pipe[:1] + fold[:2] + pipe, None),
        (pipe + fold, (1, None, None, None, None, None)),
        (fold + pipe, (None, None, None, None, 1, None)),
    ):
        spec = plan_of(network, engines=engines, simd=simd)
        check(spec, frames=10)
        agree, *_ = run(spec, frames=5, stall=0.4)
        assert agree, engines


def test_every_multiplier_is_busy():
    """Equal radices, n >= 256: all products are needed ones; a smaller radix leaves the part that it cannot use."""
    for radices in ((4,) * 4, (2,) * 8, (8,) * 3):
        spec = folded(layer_of(radices))
        products = sum(f.pattern.weights for f in spec.network.factors)
        assert products == spec.multipliers * spec.interval, radices
    # two passes of a large radix: the next vector is loaded too late for its first group, by c + depth + 2 - d cycles
    spec = folded(layer_of((16, 16)))
    assert spec.interval == 512 + 16 + spec.engines[0].depth + 2 - 16
    spec = folded(layer_of((4, 4, 4, 4, 2)))
    products = sum(f.pattern.weights for f in spec.network.factors)
    stage = spec.engines[0]
    assert spec.interval == 5 * 512 + sum(stage.gaps) and sum(stage.gaps) == 2
    assert products / (spec.multipliers * spec.interval) == (4 * 4 + 2) * 512 / (4 * (5 * 512 + 2))


@pytest.mark.parametrize(
    "case",
    [
        dict(radices=(4, 4, 4), skip=W, bias=9, exponents=2, relu=True),
        dict(radices=(2, 3, 4), bias=12, vectors=2),
        dict(radices=(4, 2), x_in=6, skip="one"),
        dict(radices=(2, 2, 2), x=7, paired=True),
    ],
    ids=str,
)
def test_bits_are_those_of_the_memories(case):
    """What a fold says of its ROMs, its memories and its multipliers is what is built."""
    case = dict(case)
    spec = folded(layer_of(**{k: v for k, v in case.items() if k not in ("vectors", "paired")}), case.pop("vectors", 1))
    if case.pop("paired", False):
        factors = [replace(f, weights=QFormat(4, 3), values=np.clip(f.values, -7, 7)) for f in spec.network.factors]
        spec = folded(IntLayer(factors=tuple(factors), name="l"), spec.vectors, paired=True)
    (fold,) = spec.engines
    bits = memories(fold.component())
    assert sum(n for name, n in bits.items() if is_rom(name)) == fold.rom_bits == spec.rom_bits
    assert sum(n for name, n in bits.items() if not is_rom(name)) == fold.buffer_bits == spec.buffer_bits
    assert multiplications(fold.component()) == fold.multipliers


def test_refusals():
    square = layer_of((4, 4)).factors
    with pytest.raises(ValueError, match="two neighbouring factors"):
        check_fold(square[:1])
    with pytest.raises(ValueError, match=r"d = 1"):
        check_fold(square[::-1])
    with pytest.raises(ValueError, match="b = c"):
        Folded(factors=(factor_of((1, 2, 4, 4)), factor_of((2, 4, 4, 1))))
    residual = layer_of((4, 4, 4), skip="one")
    with pytest.raises(ValueError, match="all factors of its layer"):
        plan_of(network_of(residual), engines=("pipelined", "folded", "folded"))
    with pytest.raises(ValueError, match="engine must be one of"):
        plan_of(network_of(residual), engines=("folded", "folded", "magic"))


def test_memory_is_one_vector():
    """Words of the memory: one vector, and another for its residual; nothing twice."""
    assert folded(layer_of((4, 4, 4), skip="one"), 3).buffer_bits == 2 * 64 * 10 * 3
    assert folded(layer_of((4, 4, 4)), 2).buffer_bits == 64 * 10 * 2


def symmetric(layer, bits=4):
    """A layer whose weights are cut to `bits` bits without the most negative number."""
    limit = (1 << (bits - 1)) - 1
    cut = [replace(f, weights=QFormat(bits, 5), values=np.clip(f.values, -limit, limit)) for f in layer.factors]
    return IntLayer(factors=tuple(cut), name=layer.name)


PAIRED = {
    "64, 4 bits": (symmetric(layer_of((4, 4, 4))), 2),
    "64, 5 bits, 9-bit inputs": (symmetric(layer_of((4, 4, 4), x=9), 5), 1),
    "32 = 4·4·2": (symmetric(layer_of((4, 4, 2))), 1),
    "48 = 2·6·4": (symmetric(layer_of((2, 6, 4))), 1),
    "all parts": (symmetric(layer_of((4, 4, 4), skip=QFormat(5, 2), bias=12, relu=True, exponents=2)), 2),
}


@pytest.mark.parametrize("case", PAIRED)
def test_two_products_a_multiplier(case):
    layer, vectors = PAIRED[case]
    spec = folded(layer, vectors, paired=True)
    check(spec, frames=6)
    agree, *_ = run(spec, frames=4, stall=0.4)
    assert agree
    skip = layer.factors[-1].skip is not None
    radix = max(f.pattern.c for f in layer.factors)
    assert spec.multipliers == vectors * (radix // 2 + skip)
    assert folded(layer, vectors).multipliers == vectors * (radix + skip)


def test_two_products_at_the_ends():
    """Largest and smallest inputs and weights in every combination of neighbouring rows."""
    layer = symmetric(layer_of((4, 4), x=11))
    factors = [
        replace(f, values=np.random.default_rng(3).choice([-7, 7, -1, 0], f.values.shape)) for f in layer.factors
    ]
    spec = folded(IntLayer(factors=tuple(factors)), paired=True)
    x = np.random.default_rng(4).choice([-1024, 1023], (20, 16))
    network = Network(spec)
    *_, flow = play(network, [(network.i, pack(x.reshape(-1, 1), 11))], [(network.o, 20 * 16)])
    assert (unpack(flow.beats, 11, 1).reshape(20, 16) == spec.network(x)).all()


def test_two_products_refused():
    with pytest.raises(ValueError, match="weights of 4 bits would"):
        folded(layer_of((4, 4)), paired=True)
    told = r"^stage l:0: .* need factors of even radix, .*; \(4, 3, 3, 2\) has radix 3; "
    with pytest.raises(ValueError, match=told):
        folded(symmetric(layer_of((4, 3, 2))), paired=True)
    layer = symmetric(layer_of((4, 4)))
    values = layer.factors[0].values.copy()
    values.flat[3] = -8
    layer = IntLayer(factors=(replace(layer.factors[0], values=values), layer.factors[1]))
    with pytest.raises(ValueError, match="symmetric, found -8"):
        folded(layer, paired=True)


@pytest.mark.parametrize("paired", [False, True])
def test_clipped_values_are_counted(paired):
    layer = symmetric(layer_of((4, 4, 4), x=10, exponents=0))
    layer = IntLayer(
        factors=tuple(
            replace(f, output=QFormat(10, f.output.frac + 11)) if n == 2 else f for n, f in enumerate(layer.factors)
        )
    )
    spec = folded(layer, 2, paired=paired)
    x = np.random.default_rng(5).integers(-512, 512, (8, 64))
    beats = x.reshape(4, 2, 64).transpose(0, 2, 1).reshape(-1, 2)
    network = Network(spec)
    *_, counts = play(network, [(network.i, pack(beats, 10))], [(network.o, 4 * 64)], watch=(network.saturated,))
    wanted = sum(int(f.saturated(acc).sum()) for f, acc, _ in spec.network.accumulators(x))
    assert sum(counts) == wanted > 0


@pytest.mark.slow
def test_a_rom_deeper_than_a_block_ram(tmp_path):
    """n = 4096 folded on ECP5: 24,576 words of weights, one block RAM behind the other."""
    layer = layer_of((4,) * 6)
    spec = folded(layer, target="ecp5")
    result = simulate(write_plan(spec, tmp_path, name="deep"), vectors=8, simulator="compiled")
    assert result.ok, result.problems
