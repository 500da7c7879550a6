"""Geometry, cycles and bits of a stage and a network, before anything is built and against what is built."""

import re
from itertools import product

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.lib import wiring
from rtl_bench import factor_of, plan_of, random_spec

from bfthw import Chain, IntFactor, IntLayer, IntNetwork, Layer, QFormat, chain, compile
from bfthw import Network as FloatNetwork
from bfthw.chain import divisors
from rtl_gen import Network, Pipelined, fitting_lanes
from rtl_gen.engines.readers.banked import Banked
from rtl_gen.engines.readers.direct import Direct
from rtl_gen.fifo import ENTER
from rtl_gen.stream import ENTRY

Q = QFormat(8, 0)


def counted(pattern):
    """A factor whose weights are all different: the weight's place in v."""
    values = np.arange(np.prod(pattern)).reshape(pattern)
    return IntFactor(values=values, input=Q, weights=QFormat(24, 0), output=Q)


def every_spec(pattern):
    for lanes, simd in product(fitting_lanes(counted(pattern).pattern), divisors(pattern[2])):
        yield Pipelined(factors=(counted(pattern),), lanes=lanes, simd=simd)


def grid(a=(1, 2, 3, 6), b=(1, 2, 3, 4), c=(1, 2, 3, 4, 6), d=(1, 2, 3, 4, 8)):
    return product(a, b, c, d)


def terms(spec):
    """The (output, weight, input) triples of a vector, as the engine meets them: from the order of its reads alone.

    Follows the beats through the buffer: a block's beats fill a row of `words` words, then the next bank's row; a read
    sees the word at one address in all banks.
    """
    weights = spec.in_order_of_use()
    assert weights.shape == (spec.beats_out * spec.steps, spec.lanes, spec.simd)
    r = spec.reader
    cycles = product(*map(range, (r.blocks, r.passes, r.words, r.rows, r.parts)))
    result = []
    for cycle, (block, pass_, word, row, part) in enumerate(cycles):
        beats = block * r.block_beats + (row * r.banks + np.arange(r.banks)) * r.words + word
        seen = (beats[:, None] * spec.lanes + np.arange(spec.lanes)).ravel()
        select = part if isinstance(r, Banked) else pass_
        choice = r.select[select if len(r.select) > 1 else 0]
        outputs = cycle // spec.steps * spec.lanes + np.arange(spec.lanes)
        result.append(np.stack([np.broadcast_to(outputs[:, None], choice.shape), weights[cycle], seen[choice]], -1))
    assert len(result) == len(weights)
    return np.concatenate([r.reshape(-1, 3) for r in result])


def wanted_terms(pattern):
    """The same from y[i, j, l] = sum_k v[i, j, k, l] * x[i, k, l]."""
    a, b, c, d = pattern
    return sorted(
        ((i * b + j) * d + l, ((i * b + j) * c + k) * d + l, (i * c + k) * d + l)
        for i, j, k, l in product(range(a), range(b), range(c), range(d))
    )


@pytest.mark.parametrize("b, c", [*product((1, 2, 3, 4), (1, 2, 3, 4, 6))])
def test_every_weight_meets_its_input_once(b, c):
    for pattern in grid(b=[b], c=[c]):
        wanted = wanted_terms(pattern)
        for spec in every_spec(pattern):
            got = sorted(map(tuple, terms(spec).tolist()))
            assert got == wanted, f"{pattern}, {spec.lanes} lanes, SIMD {spec.simd}"


def test_lanes_that_fit():
    """L divides both widths, and L divides d or d divides L."""
    for pattern in grid():
        a, b, c, d = pattern
        wanted = [
            n
            for n in range(1, a * d * max(b, c) + 1)
            if a * c * d % n == 0 and a * b * d % n == 0 and (d % n == 0 or n % d == 0)
        ]
        assert list(fitting_lanes(counted(pattern).pattern)) == wanted, pattern


def test_interval_multipliers_and_beats():
    for pattern in grid():
        a, b, c, d = pattern
        for spec in every_spec(pattern):
            n, s = spec.lanes, spec.simd
            assert spec.interval == max(a * c * d // n, a * b * d // n * (c // s))
            assert spec.multipliers == n * s
            assert (spec.beats_in, spec.beats_out, spec.steps) == (a * c * d // n, a * b * d // n, c // s)
            assert spec.reader.blocks * spec.reader.block_beats == spec.beats_in
            assert spec.reader.blocks * spec.reader.issues == spec.beats_out * spec.steps


def test_square_factors_keep_every_multiplier_busy():
    for a, b, d in product((1, 2, 4), (2, 3, 4), (1, 2, 4)):
        for lanes in fitting_lanes(counted((a, b, b, d)).pattern):
            spec = Pipelined(factors=(counted((a, b, b, d)),), lanes=lanes)
            assert spec.interval * spec.multipliers == spec.pattern.weights


def test_reads_come_after_their_operands():
    """`reads` against the beats that hold the operands, for beats that arrive at random times."""
    for pattern in grid(a=(1, 4), b=(1, 2, 4), c=(1, 2, 4), d=(1, 2, 4)):
        for spec in every_spec(pattern):
            arrivals = np.cumsum(np.random.default_rng(1).integers(1, 4, spec.beats_in))
            table = terms(spec).reshape(spec.beats_out * spec.steps, -1, 3)
            latest = arrivals[table[:, :, 2].max(axis=1) // spec.lanes]
            reads, block_beats = spec.reader.reads(arrivals), spec.reader.block_beats
            if isinstance(spec.reader, Direct):
                # nothing but the block's last beat and the block before is waited for
                begin = -1
                for n, complete in enumerate(arrivals[block_beats - 1 :: block_beats]):
                    begin = max(begin, complete)
                    turns = reads[n * block_beats :][:block_beats]
                    assert turns.tolist() == list(range(begin, begin + block_beats))
                    begin += block_beats
                continue
            assert (reads > latest + 1).all() and (np.diff(reads) > 0).all()
            if isinstance(spec.reader, Banked):
                # nothing but a dot product's operands and the read before is waited for
                cycle, whole = -1, latest.reshape(-1, spec.steps).max(axis=1).repeat(spec.steps)
                for time, there in zip(reads, whole):
                    cycle = max(cycle + 1, there + 2)
                    assert time == cycle


def test_direct_is_what_gives_a_beat_for_each_beat_of_a_block_seen_at_once():
    """A stage without a buffer: a block's beats are in registers, and as many outputs are made of them, one a cycle."""
    for pattern in grid(a=(1, 6), b=(1, 2, 3, 4), c=(1, 2, 3, 4), d=(1, 2, 3)):
        for spec in every_spec(pattern):
            reader, direct = spec.reader, isinstance(spec.reader, Direct)
            seen_at_once = reader.banks == reader.block_beats
            even = reader.issues == reader.block_beats and spec.steps == 1
            assert direct == (seen_at_once and even), f"{pattern}, {spec.lanes} lanes, SIMD {spec.simd}"
            assert (spec.buffer_bits == 0) == direct
    residual = factor_of((4, 4, 4, 1), skip="one")
    assert not isinstance(Pipelined(factors=(residual,), lanes=4).reader, Direct)
    assert isinstance(Pipelined(factors=(counted((4, 4, 4, 1)),), lanes=4).reader, Direct)


def test_slots_hold_a_block_from_grant_to_its_last_read():
    """Blocks that are granted while the first one is still held, at the promised interval."""
    for pattern, flight in product(grid(a=(1, 6, 8), c=(1, 3, 4), d=(1, 2, 6)), (1, 30)):
        for lanes in fitting_lanes(counted(pattern).pattern):
            spec = Pipelined(factors=(counted(pattern),), lanes=lanes, flight=flight)
            r = spec.reader
            time = spec.interval / r.blocks
            assert time == spec.interval // r.blocks and r.slots >= 2
            # arrivals at an even pace, seen two cycles on; the slot may be granted anew two cycles after the last read
            arrivals = np.arange(spec.beats_in) * spec.interval // spec.beats_in + flight
            held = r.reads(arrivals)[r.issues - 1] + 2 + 1
            assert isinstance(r, Direct) or r.slots * time >= held
            sizes = (r.parts, r.rows, r.words, r.passes, r.blocks)
            assert r.powers_of_two == all(size in (1, 2, 4, 8, 16, 32, 64) for size in sizes)
            assert not r.powers_of_two or r.slots.bit_count() == 1


# what is built


def memories(component):
    """Bits of the memories of a component, by RTLIL module and name."""
    bits, module = {}, None
    for line in rtlil.convert(component, emit_src=False, name="top").splitlines():
        if match := re.match(r"module (\S+)", line):
            module = match[1].lstrip("\\")
        elif match := re.match(r"\s*memory width (\d+) size (\d+) \\(\S+)", line):
            bits[f"{module}.{match[3]}"] = int(match[1]) * int(match[2])
    return bits


def multiplications(component):
    return rtlil.convert(component, emit_src=False, name="top").count("cell $mul ")


STAGES = [
    (dict(pattern=(1, 4, 4, 16)), 4, 4),
    (dict(pattern=(1, 4, 4, 16)), 1, 2),
    (dict(pattern=(4, 2, 4, 1)), 1, 4),
    (dict(pattern=(4, 2, 4, 1)), 8, 2),
    (dict(pattern=(2, 3, 2, 2), exponents=3), 4, 1),
    (dict(pattern=(2, 3, 2, 2), bias=7), 2, 2),
    (dict(pattern=(2, 4, 4, 2), skip="one"), 2, 4),
    (dict(pattern=(2, 4, 4, 2), skip=QFormat(5, 2), bias=9, exponents=2), 4, 4),
    (dict(pattern=(4, 4, 4, 2), skip=QFormat(5, 2), bias=3, drop=-2), 16, 2),
    (dict(pattern=(1, 1, 1, 24), bias=20, drop=12), 8, 1),
    (dict(pattern=(4, 3, 3, 2), skip=QFormat(5, 2), bias=9, exponents=2), 4, 3, 2),
    (dict(pattern=(2, 6, 3, 4)), 2, 1, 3),
    (dict(pattern=(4, 4, 4, 1), bias=9, exponents=3), 4, 4, 2),
]


def is_rom(name):
    return re.fullmatch(r"weights|places|fields\d+(_\d+)?", name.rsplit(".", 1)[-1])


@pytest.mark.parametrize("number", range(len(STAGES)))
def test_bits_are_those_of_the_memories(number):
    options, lanes, simd, *vectors = STAGES[number]
    vectors = vectors[0] if vectors else 1
    spec = Pipelined(factors=(factor_of(**options),), lanes=lanes, simd=simd, vectors=vectors, flight=ENTRY)
    bits = memories(spec.component())
    assert sum(n for name, n in bits.items() if re.search(r"\.buffer\.(bank_|copy)", name)) == spec.buffer_bits
    assert sum(n for name, n in bits.items() if is_rom(name)) == spec.rom_bits
    assert all(".buffer.bank_" in name or is_rom(name) for name in bits)
    wanted = lanes * vectors * (simd + (spec.factor.skip is not None))
    assert multiplications(spec.component()) == spec.multipliers == wanted


@pytest.mark.parametrize("seed", range(6), ids="seed-{}".format)
def test_resources_of_networks_are_those_built(seed):
    spec = random_spec(seed)
    print(f"seed {seed}, vectors {spec.vectors}:", [(str(s.pattern), s.lanes, s.simd) for s in spec.engines])
    network = Network(spec)
    bits = memories(network)
    buffers = sum(n for name, n in bits.items() if re.search(r"\.buffer\.(bank_|copy)", name))
    assert buffers == sum(s.buffer_bits for s in spec.engines)
    # a one-word ROM is a constant
    constants = 0
    for s in spec.engines:
        weights = s.pattern.weights * s.factor.weights.width + s.cycles * s.reader.address_bits
        constants += weights * (s.beats_out * s.steps == 1) + (s.rom_bits - weights) * (s.beats_out == 1)
    assert sum(n for name, n in bits.items() if is_rom(name)) + constants == spec.rom_bits
    assert multiplications(network) == spec.multipliers
    skips = [(spec.skip(n), depth) for n, depth in enumerate(spec.skip_depths) if depth]
    held = sum(n for name, n in bits.items() if re.search(r"\.skip_\d+\.", name))
    # the memory of a FIFO is a power of two deep, and a deep one has four words more behind it
    fifos = [(1 << (depth - 1).bit_length(), skip.wide * skip.bits) for skip, depth in skips]
    deep = [places >= 64 and places * -(-bits // 4) * 4 >= 2048 for places, bits in fifos]
    assert held == sum(bits * (places + 4 * more) for (places, bits), more in zip(fifos, deep))
    assert spec.buffer_bits == buffers + held


# networks


def network_of(*shape, width=8):
    """One layer of counted factors, all in the same format."""
    q, factors = QFormat(width, 0), []
    for n, p in enumerate(shape):
        factors.append(factor_of(p, n, x=q, w=QFormat(4, 0), drop=0, out=width))
    return IntNetwork(layers=(IntLayer(factors=tuple(factors)),))


@pytest.mark.parametrize(
    "shape",
    [
        chain.bft(64),
        chain.mixed_radix((4, 3, 2)),
        chain.low_rank(16, 16, 2),
        chain.dense(12, 18),
        chain.monarch(8, 32),
        chain.grouped(8, 16, 4),
        chain.patterns(((1, 8, 4, 16), (8, 4, 8, 2))),
    ],
    ids=str,
)
def test_default_simd_is_the_smallest_that_does_not_slow_the_pipeline(shape):
    network = network_of(*shape)
    rng = np.random.default_rng(len(shape))
    for _ in range(6):
        lanes = tuple(int(rng.choice(fitting_lanes(p))) for p in shape)
        spec = plan_of(network, lanes=lanes)
        fastest = plan_of(network, lanes=lanes, simd=tuple(p.c for p in shape))
        assert spec.interval == fastest.interval
        for n, f in enumerate(network.factors):
            simd = [engine.simd for engine in spec.engines]
            for smaller in (v for v in divisors(f.pattern.c) if v < simd[n]):
                slower = plan_of(network, lanes=lanes, simd=(*simd[:n], smaller, *simd[n + 1 :]))
                assert slower.interval > spec.interval, f"factor {n} could have SIMD {smaller}"


def test_mixed_lanes_and_given_simd():
    spec = plan_of(network_of(*chain.bft(16)), lanes=(2, 8), simd=(4, None))
    assert [(s.lanes, s.simd) for s in spec.engines] == [(2, 4), (8, 1)]
    assert (spec.beats_in, spec.beats_out, spec.interval) == (8, 2, 8)
    assert [s.lanes for s in plan_of(network_of(*chain.bft(16))).engines] == [1, 1]


def test_errors_name_what_fits():
    factor = counted((2, 4, 4, 6))
    for lanes, simd, words in (
        (5, None, r"^pattern \(2, 4, 4, 6\) cannot have 5 lanes; lanes that fit: 1, 2, 3, 6, 12, 24, 48"),
        (4, None, r"cannot have 4 lanes"),
        (0, None, r"cannot have 0 lanes"),
        (6, 3, r"^pattern \(2, 4, 4, 6\) cannot have SIMD 3, it must divide c; SIMD that fits: 1, 2, 4"),
    ):
        with pytest.raises(ValueError, match=words):
            Pipelined(factors=(factor,), lanes=lanes, simd=simd)
    for simd in (0, -2):
        with pytest.raises(ValueError, match="cannot have SIMD"):
            Pipelined(factors=(factor,), simd=simd)
    with pytest.raises(TypeError, match="must be IntFactors, got ndarray"):
        Pipelined(factors=(factor.values,))
    network = network_of(*chain.bft(16))
    with pytest.raises(
        ValueError, match=r"stage 0:1: pattern \(4, 4, 4, 1\) cannot have 3 lanes; lanes that fit: 1, 2"
    ):
        plan_of(network, lanes=(1, 3))
    with pytest.raises(ValueError, match="stage 0:0: .*SIMD 3"):
        plan_of(network, simd=(3, 4))
    with pytest.raises(ValueError, match="lanes of layer '0' needs an entry for each of 2 factors, got 3"):
        plan_of(network, lanes=(1, 1, 1))
    with pytest.raises(ValueError, match="simd of layer '0' needs an entry for each of 2 factors, got 1"):
        plan_of(network, simd=(4,))
    with pytest.raises(ValueError, match="vectors must be 1 or more, got 0"):
        plan_of(network, vectors=0)


def test_large_network_is_known_without_building(monkeypatch):
    float_network = FloatNetwork(layers=[Layer(chain=Chain.random(chain.bft(4096), 0), residual=True)])
    network = compile(float_network)

    def never(*args, **kwargs):
        raise AssertionError("a specification builds nothing")

    monkeypatch.setattr(wiring.Component, "__init__", never)
    spec = plan_of(network)
    assert spec.interval == 4096
    assert spec.latency == ENTER + spec.pipeline_latency
    # a block's last row has to arrive before its first read: three quarters of every stage's stride
    assert spec.latency > 3 * (4096 // 4 + 1024 // 4 + 256 // 4 + 64 // 4 + 16 // 4 + 1)
    assert spec.multipliers == 6 * 4
    assert spec.rom_bits == 6 * 4 * 4096 * 8
    assert spec.buffer_bits > 0 and spec.frames_in_flight > 0
