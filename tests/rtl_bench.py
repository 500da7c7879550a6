"""The bench of the hardware tests: random integer networks, and components played in Amaranth's simulator.

A beat is one int, lane 0 in the low bits. All cycle numbers are of the same clock, from the start of the run.
"""

import random
from dataclasses import dataclass, field, replace

import numpy as np
from amaranth.hdl import ClockDomain, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from bfthw import IntFactor, IntLayer, IntNetwork, QFormat
from bfthw.act import Table
from bfthw.chain import Indexed, divisors, patterns, support
from rtl_gen import Plan, fitting_lanes
from rtl_gen.fifo import LinkFifo
from rtl_gen.stream import FromStream


def pack(rows, width):
    """Integers (beats, lanes) -> a list of ints, `width` bits of two's complement a lane."""
    mask = (1 << width) - 1
    return [sum((int(v) & mask) << (n * width) for n, v in enumerate(row)) for row in np.asarray(rows)]


def unpack(words, number, lanes):
    """The inverse of `pack`: int64 (beats, lanes). number: bits of a lane, or its QFormat."""
    q = QFormat(number, 0) if isinstance(number, int) else number
    half, mask = (1 << (q.width - 1)) * q.signed, (1 << q.width) - 1
    return np.array([[((w >> n * q.width & mask) ^ half) - half for n in range(lanes)] for w in words], np.int64)


def side_by_side(x, vectors):
    """Vectors (N, size), so many at a time, as (N / vectors, size * vectors): beats have all their elements 0 first."""
    return x.reshape(-1, vectors, x.shape[-1]).swapaxes(1, 2).reshape(len(x) // vectors, -1)


def one_by_one(rows, vectors):
    """The inverse of `side_by_side`."""
    return rows.reshape(len(rows), -1, vectors).swapaxes(1, 2).reshape(len(rows) * vectors, -1)


# random numbers of every kind


def extremes(rng, fmt, shape):
    """Integers of a format, its ends and zero well represented."""
    q = rng.integers(fmt.lo, fmt.hi + 1, shape)
    return np.where(rng.random(shape) < 0.25, rng.choice([fmt.lo, fmt.hi, 0], shape), q)


def factor_of(
    pattern,
    seed=0,
    *,
    x=QFormat(6, 3),
    w=QFormat(5, 4),
    drop=5,
    exponents=0,
    skip=None,
    bias=None,
    relu=False,
    out=None,
    skip_input=None,
):
    """A random IntFactor. drop: bits that the requantisation drops. skip: None, "one" or a QFormat of its weights."""
    rng = np.random.default_rng(seed)
    a, b, c, d = pattern
    rest = {"exponents": rng.integers(0, exponents + 1, (a, b, d))} if exponents else {}
    if skip:
        rest["skip_input"] = skip_input or x
    if isinstance(skip, QFormat):
        rest |= {"skip_weights": skip, "skip": extremes(rng, skip, a * b * d)}
    if bias:
        rest |= {"bias_width": bias, "bias": extremes(rng, QFormat(bias, 0), a * b * d)}
    values = extremes(rng, w, (a, b, c, d))
    rest["support"] = support(pattern)
    draft = IntFactor(values=values, input=x, weights=w, output=x, relu=relu, **rest)
    output = QFormat(out or x.width, draft.acc_frac - drop)
    return IntFactor(values=values, input=x, weights=w, output=output, relu=relu, **rest)


def random_index(rng, inputs, outputs, fan):
    """An Indexed pattern: cyclic, or by chance."""
    index = rng.integers(inputs, size=(outputs, fan))
    if rng.random() < 0.5:
        index = np.arange(outputs)[:, None] + index[0]
    return Indexed(index % inputs, inputs)


def random_patterns(rng, size=None, count=3, largest=96, weights=600):
    """A chain of random patterns, the first of `size` inputs if given."""
    result = []
    while len(result) < count:
        if size is None:
            a, c, d = map(int, rng.choice([1, 1, 2, 2, 3, 4, 8], 3))
        else:
            a = int(rng.choice(divisors(size)))
            c = int(rng.choice(divisors(size // a)))
            d = size // a // c
        b = int(rng.choice([1, 2, 2, 3, 4, 4, c]))
        if rng.random() < 0.15:
            inputs, outputs, fan = a * c * d, int(rng.choice([a * b * d, a * c * d])), int(rng.integers(1, 7))
            if 2 <= inputs <= largest and 2 <= outputs <= largest and outputs * fan <= weights:
                result.append(random_index(rng, inputs, outputs, fan))
                size = outputs
            continue
        if 2 <= a * c * d <= largest and 2 <= a * b * d <= largest and a * b * c * d <= weights:
            result.append((a, b, c, d))
            size = a * b * d
    return result


def random_network(seed, **limits):
    """An IntNetwork in which every part and every format is there by chance."""
    rng = np.random.default_rng(seed)
    x, size, layers = QFormat(int(rng.integers(2, 10)), int(rng.integers(-3, 9))), None, []
    for number in range(int(rng.integers(1, 4))):
        chain = patterns(random_patterns(rng, size, int(rng.integers(1, 4)), **limits))
        first, factors = x, []
        for m, pattern in enumerate(chain):
            rest = {}
            if m == len(chain) - 1:
                rest = {"relu": bool(rng.integers(2)), "bias": int(rng.integers(2, 14)) if rng.random() < 0.5 else None}
                if (
                    pattern.outputs == chain[0].inputs
                    and rng.random() < 0.7
                ):
                    rest["skip"] = (
                        QFormat(int(rng.integers(2, 8)), int(rng.integers(-2, 7))) if rng.integers(2) else "one"
                    )
                    rest["skip_input"] = first
            factors.append(
                factor_of(
                    pattern,
                    int(rng.integers(1 << 30)),
                    x=x,
                    w=QFormat(int(rng.integers(2, 9)), int(rng.integers(-4, 9))),
                    drop=int(rng.integers(-2, 10)),
                    exponents=int(rng.choice([0, 0, 3])),
                    out=int(rng.integers(2, 13)),
                    **rest,
                )
            )
            x = factors[-1].output
        size = factors[-1].pattern.outputs
        layers.append(IntLayer(factors=tuple(factors), name=f"l{number}"))
    return IntNetwork(layers=tuple(layers))


ACTS = "none", "relu", "clamp", "table"


def without_sign(network, seed, act=None):
    """The same network with formats that have a sign or none by chance; act: of ACTS, behind each layer; None: any."""
    rng = np.random.default_rng(seed)

    def given(q):
        return replace(q, signed=bool(rng.integers(2)))

    x, layers = given(network.input), []
    for layer in network.layers:
        factors, first = [], x
        for f in layer.factors:
            w, output = given(f.weights), given(f.output)
            new = {"input": x, "weights": w, "values": w.saturate(abs(f.values)) if not w.signed else f.values}
            if f.skip_input:
                new["skip_input"] = first
            if f.skip is not None and rng.integers(2):
                new |= {"skip": abs(f.skip), "skip_weights": replace(f.skip_weights, signed=False)}
            own = (act or ACTS[rng.integers(4)]) if f is layer.factors[-1] else "none"
            new["relu"] = own in ("relu", "clamp")
            if own == "clamp":
                new["top"] = int(rng.integers(output.hi + 1))
            if own == "table":
                way = given(QFormat(int(rng.integers(1, 9)), output.frac - 1))
                new["table"] = Table(input=way, values=extremes(rng, output, 1 << way.width))
            factors.append(replace(f, **new, output=output))
            x = output
        layers.append(replace(layer, factors=tuple(factors)))
    return IntNetwork(layers=tuple(layers))


def plan_of(network, *, engines=None, lanes=None, simd=None, lut=None, paired=None, **rest):
    """A Plan whose choices are given for the whole network: a value, or a tuple with an entry for each factor."""
    if lut is not None:
        lut = tuple("lut" if one else "dsp" for one in lut) if isinstance(lut, tuple) else "lut" if lut else "dsp"
    given = {"engine": engines, "lanes": lanes, "simd": simd, "products": lut, "paired": paired}
    table, first = {}, 0
    for layer in network.layers:
        after = first + len(layer.factors)
        own = {
            key: value[first:after] if isinstance(value, tuple) and len(value) == len(network.factors) else value
            for key, value in given.items()
        }
        table[layer.name] = {key: value for key, value in own.items() if value is not None}
        first = after
    return Plan(network=network, choices=table, **rest)


def random_spec(seed, target="plain", **limits):
    """A Plan of a random network with any lanes, SIMD and vectors; now and then the same lanes throughout."""
    network, rng = random_network(seed, **limits), np.random.default_rng(seed + 10_000)
    lanes = [int(rng.choice(fitting_lanes(f.pattern))) for f in network.factors]
    if rng.random() < 0.3:
        lanes = [lanes[0] if lanes[0] in fitting_lanes(f.pattern) else n for n, f in zip(lanes, network.factors)]
    simd = [int(rng.choice(divisors(f.pattern.c))) if rng.random() < 0.8 else None for f in network.factors]
    vectors = int(rng.choice([1, 1, 2, 3]))
    return plan_of(network, lanes=tuple(lanes), simd=tuple(simd), vectors=vectors, target=target)


# the simulator


class Bench(wiring.Component):
    """A part with links at both ends, between streams; `skip` of the part is passed on where it has one."""

    def __init__(self, part, depth, target=None):
        self.part, self.depth, self.target = part, depth, target
        ports = {"i": In(stream.Signature(part.i.payload.shape())), "o": Out(stream.Signature(part.o.payload.shape()))}
        if hasattr(part, "skip"):
            ports["skip"] = In(stream.Signature(part.skip.payload.shape()))
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        m.submodules.part = self.part
        m.submodules.exit = queue = LinkFifo(self.o.payload.shape(), self.depth, self.target)
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        wiring.connect(m, entry.o, self.part.i)
        wiring.connect(m, self.part.o, queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        if hasattr(self.part, "skip"):
            wiring.connect(m, wiring.flipped(self.skip), self.part.skip)
        return m


@dataclass
class Flow:
    """What passed at a port: beats, cycles of their transfers, cycles at which each was first seen valid."""

    beats: list = field(default_factory=list)
    moved: list = field(default_factory=list)
    seen: list = field(default_factory=list)


def simulate(dut, testbench):
    """Run testbench(ctx, domain) on a part as it is when switched on; the simulator is made once for each.

    The clock "sync" has a period of 1 µs; `clocks` of the part, name → period in s, are those it wants beside it.
    """
    if hasattr(dut, "simulator"):
        dut.simulator.reset()
    else:
        m = Module()
        m.domains.sync = domain = ClockDomain("sync")
        m.submodules.dut = dut
        clocks = getattr(dut, "clocks", {})
        m.domains += [ClockDomain(name) for name in clocks]
        dut.simulator, dut.bench = Simulator(m), []

        async def run(ctx):
            await dut.bench[-1](ctx, domain)

        dut.simulator.add_clock(1e-6)
        for name, period in clocks.items():
            dut.simulator.add_clock(period, domain=name)
        dut.simulator.add_testbench(run)
    dut.bench.append(testbench)
    dut.simulator.run()


LINGER = 24  # cycles that are played on after the last beat where signals are watched


def play(dut, sources, sinks, *, stall=0.0, seed=0, reset_after=None, limit=20_000, watch=()):
    """Play streams: sources are (port, beats), sinks (port, number of beats). Returns a Flow for each, sources first.

    stall: probability that a source does not offer, or a sink not take, in a cycle; a pair for the two kinds.
    reset_after: cycles of play before a reset of one cycle, after which everything starts anew and is recorded.
    watch: signals; a list of each one's values, cycle by cycle and some cycles on, follows the flows. May be a list
    that `dut` fills as it is built.
    The stream law is held against every sink: a beat that is not taken stays as it is.
    """
    rng = random.Random(seed)
    hold, refuse = stall if isinstance(stall, tuple) else (stall, stall)
    flows, watched = [Flow() for _ in (*sources, *sinks)], []

    async def run(ctx, cycles=None):
        """Until every sink has what it waits for, or for so many cycles."""
        watched[:] = [[] for _ in watch]
        places, offered = [0] * len(sources), [False] * len(sources)
        waiting = [None] * len(sinks)
        ports = [port for port, _ in (*sources, *sinks)]
        values = [v for port in ports for v in (port.valid, port.ready, port.payload.as_value())]
        tick = ctx.tick().sample(*values, *watch)
        wanted = [*zip(flows[len(sources) :], (count for _, count in sinks))]
        cycle = 0
        while cycle != cycles and any(len(flow.beats) < count for flow, count in wanted):
            assert cycle < limit, f"hangs: {[len(flow.beats) for flow in flows]} beats after {cycle} cycles"
            for n, (port, beats) in enumerate(sources):
                if not offered[n]:
                    offered[n] = places[n] < len(beats) and rng.random() >= hold
                    ctx.set(port.valid, offered[n])
                    if offered[n]:
                        ctx.set(port.payload.as_value(), beats[places[n]])
            for port, _ in sinks:
                ctx.set(port.ready, rng.random() >= refuse)
            _, _, *sampled = await tick
            for shown, value in zip(watched, sampled[len(values) :]):
                shown.append(value)
            for n, flow in enumerate(flows):
                valid, ready, payload = sampled[3 * n : 3 * n + 3]
                sink = n - len(sources)
                if sink >= 0:
                    assert waiting[sink] in (None, payload) and valid >= (waiting[sink] is not None), (
                        "a beat did not hold"
                    )
                    waiting[sink] = payload if valid and not ready else None
                if valid and len(flow.seen) == len(flow.beats):
                    flow.seen.append(cycle)
                if valid and ready:
                    flow.beats.append(payload)
                    flow.moved.append(cycle)
                    if sink < 0:
                        places[n] += 1
                        offered[n] = False
            cycle += 1
        for port, _ in sources:
            ctx.set(port.valid, 0)
        for port, _ in sinks:
            ctx.set(port.ready, 0)
        for _ in range(LINGER if watch and cycle != cycles else 0):
            _, _, *sampled = await tick
            for shown, value in zip(watched, sampled[len(values) :]):
                shown.append(value)

    async def testbench(ctx, domain):
        if reset_after is not None:
            await run(ctx, reset_after)
            ctx.set(domain.rst, 1)
            await ctx.tick()
            ctx.set(domain.rst, 0)
            for flow in flows:
                flow.beats, flow.moved, flow.seen = [], [], []
        await run(ctx)

    simulate(dut, testbench)
    return [*flows, *watched]


@dataclass(frozen=True)
class Played:
    """Outputs (N, outputs) and the measured figures; interval is None for less than 6 in a row."""

    outputs: np.ndarray
    latency: int
    interval: float | None


def measured(flow_in, flow_out, number, lanes, vectors, outputs):
    """A Played from the flows of a component with one input and one output."""
    firsts = flow_out.seen[:: outputs // lanes]
    interval = None
    if len(firsts) >= 6:
        # filled up by the middle of the run
        half = firsts[len(firsts) // 2 :]
        interval = (half[-1] - half[0]) / (len(half) - 1)
    y = one_by_one(unpack(flow_out.beats, number, lanes * vectors).reshape(len(firsts), -1), vectors)
    return Played(y, flow_out.seen[0] - flow_in.moved[0], interval)


def beats_of(x, lanes, vectors, width):
    """Vectors (N, size), N a multiple of `vectors`, as beats."""
    return pack(side_by_side(x, vectors).reshape(-1, lanes * vectors), width)


def play_network(network, x, **rest):
    """Vectors (N, inputs) through a Network."""
    spec, q = network.plan, network.plan.network
    words = beats_of(x, spec.lanes_in, spec.vectors, q.input.width)
    wanted = len(x) // spec.vectors * spec.beats_out
    flow_in, flow_out = play(network, [(network.i, words)], [(network.o, wanted)], **rest)
    return measured(flow_in, flow_out, q.output, spec.lanes_out, spec.vectors, q.outputs)
