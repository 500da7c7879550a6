"""What is built: our designs with the clocks required of them and hoped for, and the same layers as rivals do them."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import sim
from bfthw import IntFactor, IntLayer, IntNetwork, QFormat
from rtl_gen import AxiStream, Plan, write_plan
from rtl_gen.signals import through

from . import flow

SIMULATED = 16  # vectors a scenario


def network(n, radices, *, weights=8, activations=10, seed=0):
    """An IntNetwork of one layer, random weights over their whole range: factors (a, k, k, d), one for each radix k.

    Shifts keep the activations' spread, so that some values are clipped and most are not.
    """
    rng, factors, a, d = np.random.default_rng(seed), [], 1, n
    x = QFormat(activations, activations - 2)
    for k in radices:
        d //= k
        values = rng.integers(-(1 << weights - 1), 1 << weights - 1, (a, k, k, d))
        factors.append(IntFactor(values=values, input=x, weights=QFormat(weights, weights - 1), output=x))
        a *= k
    return IntNetwork(layers=(IntLayer(factors=tuple(factors), name="layer"),))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of ours. part: of flow.PARTS. plan: makes the Plan. narrow: in `Narrow`, for want of pins.

    minimum, aim: MHz that are required and hoped for. products: useful ones a second, in millions, required. tables:
    whether few COMB a multiplier are.
    simulate: targets whose Verilog is simulated, "own" that of the plan.
    """

    key: str
    title: str
    part: str
    plan: object
    minimum: float | None = None
    aim: float | None = None
    narrow: bool = False
    tables: bool = True
    products: float | None = None
    simulate: tuple = ("plain", "own")


def _ours(n, radices, part="ecp5-85f", target="ecp5", activations=10, **options):
    """A function that makes the Plan of one layer. options: of the plan or, for all of its factors, of the engines."""
    chosen = {key: options.pop(key) for key in ("engine", "lanes", "simd", "products") if key in options}
    made = {"choices": {"layer": chosen}, "target": target, **options}
    return lambda: Plan(network=network(n, radices, activations=activations), **made)


FOUR = (4,) * 4
OURS = (
    Entry(key="n256", title="n = 256, k = 4, 1 lane", part="ecp5-85f", plan=_ours(256, FOUR), minimum=200, aim=212),
    Entry(
        key="n1024", title="n = 1024, k = 4, 1 lane", part="ecp5-85f", plan=_ours(1024, (4,) * 5), minimum=200, aim=212
    ),
    Entry(
        key="n1024x4", title="n = 1024, k = 4, 4 lanes", part="ecp5-85f",
        plan=_ours(1024, (4,) * 5, lanes=4), minimum=180, aim=200,
    ),
    Entry(
        key="n512x8", title="n = 512 = 4·4·4·4·2, 8 lanes", part="ecp5-85f",
        plan=_ours(512, (*FOUR, 2), lanes=8), minimum=165, aim=195,
    ),
    Entry(
        key="n256-folded", title="n = 256, k = 4, folded, 4 vectors at a time", part="ecp5-85f",
        plan=_ours(256, FOUR, engine="folded", vectors=4), minimum=200, aim=212,
    ),
    Entry(
        key="n256-tables", title="n = 256, k = 4, 4 lanes, 64 products a cycle in tables, no DSP", part="ecp5-85f",
        plan=_ours(256, FOUR, lanes=4, products="lut"), minimum=180, aim=212, tables=False,
    ),
    Entry(
        key="n256-5g", title="n = 256, k = 4, 1 lane", part="ecp5-5g-85f", plan=_ours(256, FOUR),
        minimum=240, aim=271,
    ),
    Entry(
        key="n64-up5k", title="n = 64, k = 4, folded, 4 vectors at a time, 8-bit activations", part="up5k",
        plan=_ours(64, (4,) * 3, target="ice40", activations=8, engine="folded", vectors=4),
        minimum=40, aim=48, narrow=True, tables=False, products=500,
    ),
    Entry(
        key="n64-tang", title="n = 64, k = 4, 1 lane", part="gw1nr9", plan=_ours(64, (4,) * 3, target="gowin"),
        minimum=90, aim=120, narrow=True, tables=False,
    ),
)
INFERRED = Entry(
    key="n256-plain", title="ours in plain Verilog, multipliers and memories inferred: n = 256, k = 4, 1 lane",
    part="ecp5-85f", plan=_ours(256, FOUR, target="plain"), simulate=("own",),
)
SMALL = Entry(
    key="n16-spatial", title="ours, a vector a cycle: n = 16 = 4·4, weights as constants in logic", part="ecp5-85f",
    plan=_ours(16, (4, 4), engine="spatial"), narrow=True,
    tables=False,
)
QUICK = ("n256", "n256-5g", "n64-tang", "n64-up5k")


class Narrow(wiring.Component):
    """A core on few pins: bytes are shifted into its TDATA, what it gives is folded with XOR into one bit.

    All of it in registers, four bits folded a level. Error and saturation outputs are left open. flow.PARTS has pins
    for these names where nextpnr asks for them.
    """

    def __init__(self, plan):
        self.plan = plan
        super().__init__(
            {"aclk": In(1), "aresetn": In(1), "data": In(8), "last": In(1), "valid": In(1), "ready": In(1)}
            | {"accepted": Out(1), "folded": Out(1)} | plan.outside
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = AxiStream(self.plan, clock=False)
        m.domains.sync = domain = ClockDomain("sync", local=True)
        m.d.comb += [domain.clk.eq(self.aclk), domain.rst.eq(~self.aresetn)]
        shifted = Signal.like(core.s_axis_tdata, reset_less=True)
        last, valid, ready = (Signal(name=f"{name}_in", reset_less=True) for name in ("last", "valid", "ready"))
        m.d.sync += [shifted.eq(Cat(self.data, shifted)), ready.eq(self.ready)]
        m.d.sync += [last.eq(self.last), valid.eq(self.valid)]
        m.d.comb += [
            core.s_axis_tdata.eq(shifted), core.s_axis_tlast.eq(last), core.s_axis_tvalid.eq(valid),
            core.m_axis_tready.eq(ready), self.accepted.eq(core.s_axis_tready),
        ]
        through(m, self, core, self.plan.outside)
        bits = Cat(core.m_axis_tdata, core.m_axis_tlast, core.m_axis_tuser, core.m_axis_tvalid)
        while len(bits) > 1:
            level = Signal(-(-len(bits) // 4), name=f"folded{len(bits)}", reset_less=True)
            m.d.sync += level.eq(Cat(bits[n : n + 4].xor() for n in range(0, len(bits), 4)))
            bits = level
        m.d.comb += self.folded.eq(bits)
        return m


def text(entry):
    """RTLIL of an entry's top."""
    top = Narrow if entry.narrow else AxiStream
    return rtlil.convert(top(entry.plan()), name=flow.TOP, emit_src=False)


def in_plain(choices):
    """Choices of a Plan without those that plain HDL leaves to synthesis."""
    return {layer: {key: value for key, value in own.items() if key != "products"} for layer, own in choices.items()}


def simulate(entry, progress=print, cache=flow.CACHE):
    """Simulate the Verilog of an entry for its targets and compare with the golden model; targets → vectors compared.

    Raises RuntimeError where it differs.
    """
    own, found = entry.plan(), {}
    for target in entry.simulate:
        given = {"choices": in_plain(own.choices)} if target == "plain" else {}
        plan = own if target == "own" else replace(own, target=target, **given)
        design = write_plan(plan, Path(cache) / "sim" / f"{entry.key}-{plan.target}", name=flow.TOP)
        stamp = design.path.with_name("simulated.json")
        seen = hashlib.sha256(design.path.with_name(f"{flow.TOP}.v").read_bytes()).hexdigest()
        kept = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
        if kept.get("verilog") != seen:
            result = sim.simulate(design, vectors=SIMULATED, simulator="compiled")
            if not result.ok:
                raise RuntimeError(f"{entry.key} for {plan.target}: {result.problems[0]}")
            kept = {"verilog": seen, "vectors": result.vectors}
            flow.write(stamp, kept)
            progress(f"{entry.key}: {result.vectors} vectors for {plan.target} equal the golden model")
        found[plan.target] = kept["vectors"]
    return found
