"""New weights into a bitstream that is there: no synthesis, no place and route."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import bfthw
import rtl_gen
from bfthw import quantize
from bfthw.files import replacing, undisturbed
from bfthw.reading import TEXT, sha256
from rtl_gen import handover, memories

from . import roms
from .build import gateware
from .contents import fill_products, pack
from .families import FAMILIES
from .flash import bitstream
from .report import MARKED, read_report
from .shell import Shell


def integers_like(old, path):
    """The IntNetwork of a checkpoint, float or integer, in the formats of the IntNetwork `old`.

    Raises ValueError where layers or patterns are others, or a number does not fit its old format.
    """
    if bfthw.checkpoint.is_integers(path):
        new = bfthw.load_integers(path)
        if quantize.formats_of(new) != quantize.formats_of(old):
            raise ValueError(f"{path}: its formats are not those of the bitstream; give float weights, or build anew")
    else:
        network = bfthw.load(path).network
        formats = quantize.formats_of(old)
        try:
            quantize.check_fits(network, formats)
            new = quantize.quantise(network, formats)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; build anew for other formats") from None
    shapes = [[(layer.name, [f.pattern for f in layer.factors]) for layer in n.weighted] for n in (old, new)]
    if shapes[0] != shapes[1]:
        for (name, was), (other, now) in zip(*shapes):
            if (name, was) != (other, now):
                raise ValueError(
                    f"{path}: layer {other!r} has patterns {_line(now)}, the bitstream's is {name!r} with {_line(was)}"
                )
        raise ValueError(f"{path}: {len(new.weighted)} layers, the bitstream has {len(old.weighted)}")
    return new


def _line(patterns):
    return ", ".join(map(str, patterns))


def in_logic(modules, manifest):
    """Words for an error: which factors' numbers are in the logic of modules of the RTLIL."""
    held = [e for e in manifest.engines if any(f".{e.instance}." in f"{module}." for module in modules)]
    if not held:
        return ""
    why = "no ROM holds them" if all(e.rom_bits == 0 for e in held) else "a ROM of few words is no block RAM"
    return f": numbers of {', '.join(stage for e in held for stage in e.stages)} are in its logic ({why})"


def check_marked(directory, marked):
    """ValueError unless the marked files (name → sha256) are in a directory as `build` left them."""
    if not marked:
        raise ValueError(f"{directory / 'report.json'}: names no marked files, which a patch starts from; build anew")
    for name, digest in marked.items():
        file = directory / Path(name).name
        if not file.exists():
            raise ValueError(f"{file} is missing, which a patch starts from; build anew")
        if sha256(file, MARKED) != digest:
            raise ValueError(f"{file} has changed since the build (its sha256 differs); build anew")


def patch(directory, weights, *, progress=None):
    """Put the weights of a checkpoint into the bitstream that `build` left in `directory`; returns the new Design.

    Bitstream, netlist, manifest, Verilog, integers, report.json, and testbench and C header where they are there, are
    replaced together, or not at all (bfthw.files). progress(step) is told what begins. Raises ValueError for weights of
    other shapes, that do not fit the old formats, for a bitstream that was built without marks, and for weights that
    are in its logic, naming the factors.
    """
    directory = Path(directory)
    with undisturbed(directory):
        _, board = bitstream(directory, None)
        report = read_report(directory / "report.json")
        name, family = report["name"], board.device.family
        if not report.get("structure"):
            raise ValueError(f"{directory / 'report.json'}: this bitstream was built without marks; build anew")
        check_marked(directory, report.get("marked"))
        old = rtl_gen.load_design(directory / f"{name}.json")
        built = {"report.json": sha256(directory / "report.json", TEXT)}
    say = progress or (lambda step: None)
    say("integers")
    new = integers_like(old.plan.network, weights)
    with replacing(directory, gone=[f"{name}.il"], expected=built) as (work, made):
        say("gateware")
        design = rtl_gen.write_plan(replace(old.plan, network=new), work, name=name)
        _, rtlil, _ = gateware(board, partial(Shell, design), name, report["clock_mhz"])
        if roms.structure(rtlil) != report["structure"]:
            _, before, _ = gateware(board, partial(Shell, old), name, report["clock_mhz"])
            where = in_logic(roms.differing(before, rtlil), design.manifest)
            raise ValueError(f"{weights}: these weights need other hardware than the bitstream has{where}; build anew")
        contents = {rom.name: rom.bits for rom, _ in roms.find_roms(rtlil)}
        say("bitstream")
        fill_products(directory, work, name, family, contents, report["tools"]["from"])
        pack(board, name, work, report["tools"]["from"])
        suffix = board.suffix
        report |= {
            "configuration": design.manifest.configuration,
            "sha256": sha256(work / f"{name}.{suffix}", MARKED),
            "patched": True,
            "netlist": "netlist not simulated since new weights were patched in",
        }
        (work / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        endings = suffix, FAMILIES[family].placed, "netlist.v", "v", "npz", "json"
        # a testbench beside the core here is of its weights
        beside = [file for file in handover.names(name, handover.OF_WEIGHTS) if (directory / file).exists()]
        beside += memories.left(work, name)
        for file in (*(f"{name}.{ending}" for ending in endings), *beside, "report.json"):
            (work / file).rename(made / file)
    return rtl_gen.load_design(directory / f"{name}.json")
