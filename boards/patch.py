"""New weights into a bitstream that is there: no synthesis, no place and route."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import bfthw
import rtl_gen
from bfthw import quantize
from bfthw.files import replacing, undisturbed
from bfthw.reading import TEXT, sha256
from rtl_gen import memories

from . import roms
from .build import fill_products, gateware, pack
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
    shapes = [[(layer.name, [f.pattern for f in layer.factors]) for layer in n.layers] for n in (old, new)]
    if shapes[0] != shapes[1]:
        for (name, was), (other, now) in zip(*shapes):
            if (name, was) != (other, now):
                raise ValueError(
                    f"{path}: layer {other!r} has patterns {_line(now)}, the bitstream's is {name!r} with {_line(was)}"
                )
        raise ValueError(f"{path}: {len(new.layers)} layers, the bitstream has {len(old.layers)}")
    return new


def _line(patterns):
    return ", ".join(map(str, patterns))


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

    Bitstream, netlist, manifest, Verilog, integers and report.json are replaced together, or not at all (bfthw.files).
    progress(step) is told what begins. Raises ValueError for weights of other shapes, that do not fit the old formats,
    or for a bitstream that was built without marks (Gowin).
    """
    directory = Path(directory)
    with undisturbed(directory):
        _, board = bitstream(directory, None)
        report = read_report(directory / "report.json")
        name, family = report["name"], board.device.family
        if family not in roms.RAMS or not report.get("structure"):
            raise ValueError(f"{directory}: a bitstream for {board.key} cannot be patched; only iCE40 and ECP5 can")
        check_marked(directory, report.get("marked"))
        old = rtl_gen.load_design(directory / f"{name}.json")
        built = {"report.json": sha256(directory / "report.json", TEXT)}
    say = progress or (lambda step: None)
    say("integers")
    new = integers_like(old.spec.network, weights)
    with replacing(directory, gone=[f"{name}.il"], expected=built) as (work, made):
        say("gateware")
        design = rtl_gen.write_spec(replace(old.spec, network=new), work, name=name)
        _, rtlil, _ = gateware(board, partial(Shell, design), name, report["clock_mhz"])
        if roms.structure(rtlil) != report["structure"]:
            target = old.spec.target
            why = "" if target == "plain" else f" (with --target {target} its weights are part of it)"
            raise ValueError(f"{weights}: these weights need other hardware than the bitstream has{why}; build anew")
        contents = {rom.name: rom.bits for rom, _ in roms.find_roms(rtlil)}
        say("bitstream")
        fill_products(directory, work, name, family, contents, report["tools"]["from"])
        pack(board, name, work, report["tools"]["from"])
        suffix = board.suffix
        report |= {
            "configuration": design.manifest.configuration,
            "sha256": hashlib.sha256((work / f"{name}.{suffix}").read_bytes()).hexdigest(),
            "patched": True,
            "netlist": "netlist not simulated since new weights were patched in",
        }
        (work / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        endings = suffix, roms.TEXT_SUFFIX[family], "netlist.v", "v", "npz", "json"
        for file in (*(f"{name}.{ending}" for ending in endings), *memories.left(work, name), "report.json"):
            (work / file).rename(made / file)
    return rtl_gen.load_design(directory / f"{name}.json")
