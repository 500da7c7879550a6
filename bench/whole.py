"""Whole networks on one LFE5U-85F or another, from integers to a routed clock: `python -m bench.whole KEYS`.

What was found is kept in FIGURES, a row a network, written after each step; bench.whole_table writes docs/benchmark.md
from it. A step that was done for the same core is not done again.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

import boards.netlist
import sim
from bfthw import Settings, chain, files, load, load_integers, models, save_integers
from bfthw.quantize import choose_formats, quantise
from bfthw.structures import fixed_butterfly
from boards.table import UP5K
from rtl_gen import AxiStream, Plan, choose, estimate, write_plan

from . import flow
from .designs import Narrow, in_plain
from .flow import CACHE, PARTS, TOP

FIGURES = Path(__file__).with_name("whole.json")
PART = "ecp5-85f"
ROOM = PARTS[PART].device.available
SETTINGS = Settings(weight_bits=8, activation_bits=9, input_bits=8, row_exponents=4, equalise=False)
CALIBRATION, IMAGES, MINUTES = 50, 6, 60
FASHION = Path(__file__).resolve().parent.parent / "examples/fashion"
SMALL_CYCLES = 100_000  # an image, at most, on a UP5K


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A network and its plan on a part. make: a Network, with random weights but for where `pixels` are: those that it
    was trained for. interval: cycles an image, at most; None for as few as the part allows.

    roms: as in Plan. part: of flow.PARTS; room: what it may take of it, where that is not all. minimum, aim: images a
    second that are required and hoped for. beside: what stands beside it in others' tables. seeds: of place and route,
    0 for none. netlist: images through the mapped netlist. floorplan: whether it is built with one. signed: inputs from
    -1 to 1, not from 0. bits: of numbers between layers. engine: that spans the network, None where plans are chosen.
    pixels: gives those of some images, of 8 bits, to choose formats by.
    """

    key: str
    title: str
    make: object
    interval: int | None
    minimum: int | None = None
    aim: int | None = None
    roms: str = "initial"
    room: dict = field(default_factory=dict)
    beside: str = ""
    seeds: int = 1
    netlist: int = 0
    floorplan: bool = False
    signed: bool = False
    part: str = PART
    bits: int = SETTINGS.activation_bits
    engine: str | None = None
    pixels: object = None

    @property
    def available(self):
        """Resource → number, of the part."""
        return PARTS[self.part].device.available

    @property
    def target(self):
        """Of the Verilog that is for its part."""
        return PARTS[self.part].device.family


def _person(**fusion):
    return lambda: models.model("mobilenetv1", width=0.25, resolution=96, classes=2, **fusion)


ANY = dict.fromkeys(ROOM, inf)  # room of a device that is not there
BFT = {"fusion": "bft", "residual": "square"}
TILED = {"interval": None, "part": "up5k", "bits": 8, "engine": "tiled"}
CFU = "CFU-Playground on the same part, trained: 25.2 million cycles"
NETWORKS = (
    Whole(
        key="mobilenet-bft", title="MobileNetV1-1.0 + BFT, 96×96, 10 classes", interval=73728, roms="tables",
        room={"RAM": 200},
        make=lambda: models.model("mobilenetv1", resolution=96, classes=10, **BFT), minimum=1300, aim=1600,
        beside="FINN's MobileNetV1 for ImageNet on a U250: about 1,600", seeds=5, netlist=1,
        floorplan=True,
    ),
    Whole(
        key="person-dense", title="MobileNetV1-0.25, 96×96, 2 classes (person detection)", interval=20736,
        make=_person(fusion="dense"), minimum=2700, aim=4700,
        beside="MLPerf Tiny: VCU128 4,625, ZCU106 2,684, ZC706 1,388",
    ),
    Whole(
        key="person-bft", title="MobileNetV1-0.25 + BFT, 96×96, 2 classes", interval=9216,
        make=_person(**BFT), minimum=5000, aim=9500,
    ),
    Whole(
        key="person-bft-25f", title="MobileNetV1-0.25 + BFT, layers in turn on an LFE5U-25F", interval=None,
        roms="tables", make=_person(**BFT), minimum=700, aim=900, seeds=3, part="ecp5-25f",
    ),
    Whole(
        key="person-bft-up5k", title="MobileNetV1-0.25 + BFT, tile by tile on an iCE40UP5K",
        make=_person(**BFT), minimum=100, aim=130, seeds=3, **TILED,
    ),
    Whole(
        key="resnet8", title="ResNet8, 32×32, 10 classes (image classification)", interval=36864, roms="tables",
        make=models.resnet8, minimum=2500, aim=6790, beside="MLPerf Tiny: ZC706 6,790, ZedBoard 2,431",
    ),
    Whole(
        key="shufflenetv2", title="ShuffleNetV2-0.5 + BFT, 32×32, 10 classes", interval=41472, roms="tables", room=ANY,
        make=lambda: models.model("shufflenetv2", width=0.5, resolution=32, classes=10, **BFT), seeds=0,
    ),
    Whole(
        key="mobilenetv3", title="MobileNetV3-Small-0.5 + BFT, 32×32, 10 classes", interval=49152, roms="tables",
        make=lambda: models.model("mobilenetv3-small", width=0.5, resolution=32, classes=10, **BFT), seeds=0,
    ),
    Whole(
        key="pointnet", title="PointNet of All-DeBut, 1,024 points, both T-nets, 40 classes", interval=262144,
        roms="tables", make=lambda: models.model("pointnet", fusion="debut"), seeds=0, signed=True,
    ),
    Whole(
        key="fabnet", title="FABNet's FBfly block, 128 steps of 256 channels, a sequence for an image", interval=65540,
        make=models.fbfly, minimum=1000, aim=1500, signed=True,
    ),
    Whole(
        key="keywords-fixed", title="DS-CNN + fixed butterflies, 49×10, 12 classes", interval=8000, seeds=0,
        make=lambda: models.dscnn(fusion=lambda inputs, outputs, _: fixed_butterfly(outputs, inputs).patterns),
    ),
    Whole(
        key="keywords-invertible", title="DS-CNN + invertible butterflies, 49×10, 12 classes", interval=8000, seeds=0,
        make=lambda: models.dscnn(fusion=lambda inputs, outputs, _: chain.bft(inputs, 2), residual=None),
    ),
    Whole(
        key="keywords-dense-up5k", title="DS-CNN, 49×10, 12 classes, tile by tile on an iCE40UP5K",
        make=lambda: models.dscnn(fusion="dense"), beside=CFU, **TILED,
    ),
    Whole(
        key="keywords-bft-up5k", title="DS-CNN + BFT, 49×10, 12 classes, tile by tile on an iCE40UP5K",
        make=lambda: models.dscnn(**BFT), **TILED,
    ),
    Whole(
        key="clothes-up5k", title="Fashion-MNIST of examples/fashion, 28×28, trained, tile by tile on an iCE40UP5K",
        make=lambda: load(FASHION / "fashion.safetensors").network,
        pixels=lambda: np.load(FASHION / "samples.npz")["images"][:100], **TILED,
    ),
    Whole(
        key="keywords-dense", title="DS-CNN, 49×10, 12 classes (keyword spotting)", interval=8000,
        make=lambda: models.dscnn(fusion="dense"), minimum=5000, aim=9000, beside="MLPerf Tiny: ZedBoard 3,088",
    ),
    Whole(
        key="keywords-bft", title="DS-CNN + BFT, 49×10, 12 classes", interval=4000,
        make=lambda: models.dscnn(**BFT), minimum=7000, aim=20000,
    ),
)


def integers(entry):
    """Its IntNetwork, formats chosen from random pixels; made once, then kept in CACHE."""
    kept = CACHE / "whole" / f"{entry.key}.npz"
    if not kept.exists():
        network = entry.make()
        pixels = entry.pixels or (lambda: np.random.default_rng(0).integers(0, 256, (CALIBRATION, *network.shape)))
        x = pixels().reshape(-1, *network.shape) / 256
        x = 2 * x - 1 if entry.signed else x
        kept.parent.mkdir(parents=True, exist_ok=True)
        settings = SETTINGS.model_copy(update={"activation_bits": entry.bits})
        save_integers(quantise(network, choose_formats(network, settings, x)), kept)
    return load_integers(kept)


def alone(function, *arguments):
    """What a function returns, with the seconds of CPU and the GB that it took in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, function, *arguments).result()


def _measured(function, *arguments):
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    before = [resource.getrusage(n) for n in who]
    found = function(*arguments)
    after = [resource.getrusage(n) for n in who]
    spent = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after))
    return found, {"seconds": round(spent, 1), "gigabytes": round(max(a.ru_maxrss for a in after) / 1e6, 2)}


def planned(key):
    """The choices of an entry's plan."""
    entry = find(key)
    if entry.engine:
        return {layer.name: {"engine": entry.engine} for layer in integers(entry).layers}
    room = entry.available | entry.room
    wish = {"interval": entry.interval, "target": entry.target, "roms": entry.roms, "room": room}
    return choose(integers(entry), **wish).plan.choices


def plan_of(entry, choices, target=None):
    """The Plan of choices; for plain HDL without what it leaves to synthesis."""
    target = target or entry.target
    if target != "plain":
        return Plan(network=integers(entry), choices=choices, target=target, roms=entry.roms)
    return Plan(network=integers(entry), choices=in_plain(choices), target=target)


def written(key, choices, target, directory):
    return write_plan(plan_of(find(key), choices, target), directory, name=TOP).path


def simulated(path, images, netlist=None, part=PART):
    """A sim.Result of images through a core, or through its mapped netlist."""
    how = {"vectors": images, "simulator": "compiled", "begin": print}
    if netlist is None:
        return sim.simulate(path, **how)
    return boards.netlist.simulate(path, device=PARTS[part].device, netlist=netlist, **how)


def find(key):
    return next(entry for entry in NETWORKS if entry.key == key)


class Bench:
    """Steps of a row; `row` is what is kept of it. seeds: of place and route, None for the entry's own, 0 for none and
    no synthesis either.
    """

    def __init__(self, entry, *, seeds=None, minutes=MINUTES, images=IMAGES, progress=print):
        self.entry, self.minutes, self.images, self.say = entry, minutes, images, progress
        self.seeds = range(1, (entry.seeds if seeds is None else seeds) + 1)
        self.row = figures().get(entry.key, {})

    def keep(self, step, found):
        self.row = figures().get(self.entry.key, {}) | {step: found}
        keep(self.entry.key, self.row)

    def run(self):
        self.planned()
        for target in ("plain", self.entry.target):
            self.simulate(target)
        if self.seeds:
            self.build()

    def planned(self):
        self.choices, spent = alone(planned, self.entry.key)
        self.plan = plan = plan_of(self.entry, self.choices)
        own = {key: getattr(plan, key) for key in ("interval", "latency", "multipliers", "rom_bits", "buffer_bits")}
        weights = sum(factor.values.size for factor in plan.network.factors)
        self.keep("plan", own | {"weights": weights, "estimate": estimate(plan), "spent": spent})

    def simulate(self, target, netlist=None):
        """Images through the core's Verilog, or a netlist, all that comes out equal to the golden model, as often as
        promised.
        """
        step = "netlist" if netlist else target
        key, images = self.entry.key, self.entry.netlist if netlist else self.images
        path, spent = alone(written, key, self.choices, target, CACHE / "whole" / f"{key}-{target}")
        verilog = Path(netlist or path.with_suffix(".v")).read_bytes()
        seen, kept = hashlib.sha256(verilog).hexdigest(), self.row.get(step, {})
        if kept.get("verilog") == seen and kept["images"] >= images:
            return
        begin = time.monotonic()
        result, simulator = alone(simulated, path, images, netlist, self.entry.part)
        problems = list(result.problems)
        if result.interval not in (None, self.plan.interval):  # of few images there is none
            problems.append(f"interval {result.interval}, promised were {self.plan.interval}")
        if problems:
            raise RuntimeError(f"{key}, {step}: {problems[0]}")
        found = {"verilog": seen, "megabytes": round(len(verilog) / 1e6, 1), "spent": spent, "images": result.vectors}
        found |= {"interval": result.interval, "latency": result.latency, "cycles": result.cycles}
        whole = time.monotonic() - begin
        found |= {"simulated": round(result.seconds, 1), "simulator": round(whole - result.seconds, 1)}
        self.keep(step, found | {"gigabytes": simulator["gigabytes"]})
        self.say(f"{key}, {step}: {result.vectors} images equal the golden model")

    def build(self):
        """Synthesis of the core alone, the netlist in simulation, and place and route for each seed."""
        top = Narrow if self.entry.part == "up5k" else AxiStream
        text = rtlil.convert(top(self.plan), name=TOP, emit_src=False)
        part, how = PARTS[self.entry.part], {"progress": self.say, "minutes": self.minutes}
        how["floorplan"] = self.plan if self.entry.floorplan else None
        directory = CACHE / flow.key(text, part, "rtlil")
        for n in range(len(self.seeds) + 1):
            row = flow.build(self.entry.key, text, part, seeds=self.seeds[:n], **how)
            made = json.loads((directory / "synthesised.json").read_text(encoding="utf-8"))
            paths = {seed: critical(report) for seed, report in row.reports.items()}
            self.keep("build", {
                "yosys": made, "used": row.used, "mhz": row.fmax, "limit": row.limit, "failed": row.failed,
                "critical": paths, "estimate": estimate(self.plan), "floorplan": self.entry.floorplan,
            })
        if self.entry.netlist:
            self.simulate("ecp5", directory / f"{TOP}.netlist.v")


def every(wanted, **how):
    """Steps of the networks whose keys are wanted, the smallest first; one that fails is said to, the others go on."""
    for entry in reversed(NETWORKS):
        if wanted(entry.key):
            bench = Bench(entry, **how)
            try:
                bench.run()
            except Exception as error:
                bench.say(f"{entry.key}: {error!r}")
    small()


def critical(report):
    """The longest path of nextpnr's report: its ends, and nanoseconds of logic and of wires."""
    path = max(
        (path["path"] for path in report["critical_paths"] if path["from"] == path["to"] != "<async>"),
        key=lambda path: sum(part["delay"] for part in path),
    )
    sums = {kind: sum(part["delay"] for part in path if part["type"] == kind) for kind in ("logic", "routing")}
    cells = [path[0]["from"]["cell"], *(part["to"]["cell"] for part in path if part["type"] == "routing")]
    return {"cells": cells} | {kind: round(ns, 1) for kind, ns in sums.items()}


def small():
    """Keep what keyword spotting would take of an iCE40UP5K if that had multipliers and block RAMs enough."""
    room = UP5K.available | dict.fromkeys(("DSP", "RAM"), inf)
    found = choose(integers(find("keywords-bft")), interval=SMALL_CYCLES, target="ice40", room=room)
    keep("up5k", {"interval": int(found.interval), "needs": found.needs})


def keep(key, row):
    files.write(FIGURES, json.dumps(figures() | {key: row}, indent=1, ensure_ascii=False) + "\n")


def figures():
    """What was found, key of an entry → step → figures."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def main():
    from . import whole_table

    parser = argparse.ArgumentParser(prog="python -m bench.whole", description=__doc__)
    parser.add_argument("keys", nargs="*", help=f"of {', '.join(entry.key for entry in NETWORKS)}; all, without")
    parser.add_argument("--seeds", type=int, help="place and route runs of each, 0 for no synthesis")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for one of them, at most (%(default)g)")
    options = parser.parse_args()
    every(lambda key: not options.keys or key in options.keys, seeds=options.seeds, minutes=options.minutes)
    whole_table.rewrite()


if __name__ == "__main__":
    main()
