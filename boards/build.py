"""From a design to a bitstream: Yosys, nextpnr, packer, each in the open flow of the board's family."""

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path

from bfthw import child
from bfthw.files import replacing, undisturbed
from bfthw.reading import sha256
from rtl_gen import handover, load_design, memories, read_manifest
from rtl_gen.manifest import FILES

from . import roms, synth, tools
from .contents import fill_netlist, fill_placed, pack
from .families import FAMILIES
from .floorplan import PLACER, check_floorplan, place_engines
from .report import CORE_CLOCK, MARKED, Clock, Report, Resource
from .table import BOARDS, find_board
from .tools import find as find_tool
from .top import Top


def build(
    design, board, directory, *, clock_mhz=None, seed=1, seeds=1, tools="yowasp", progress=None, check=True, shell=None,
    floorplan=False,
):
    """Build a bitstream for a board; returns the Report.

    design: rtl_gen.Design, or the path of its manifest. board: key or Board. clock_mhz: the board's own choice where
    not given. seeds: so many place and route runs, from `seed` up; the fastest is taken. tools: "yowasp" (PyPI) or
    "system". progress(step, seconds): called with None when a step begins. check: simulate the whole mapped netlist,
    or the core's alone where another shell is in the way or vectors are too long for the line (gatelevel.CYCLES), and
    compare it with the golden model (needs a C++ compiler); the report says which. shell: called with clock_hz and
    baud, makes what stands between line and core; boards.shell.Shell. floorplan: see boards.floorplan.
    Writes into `directory` NAME.bin, .bit or .fs, NAME.asc, .config or .pnr.json, NAME.netlist.v, the logs, the core's
    own files and report.json; they replace those of an earlier build together, or not at all (bfthw.files). ROMs are
    placed with marks in them and filled afterwards; NAME.marked.* are kept for boards.patch.
    Raises ValueError for what does not fit (before place and route), a clock that cannot be made or misses its timing,
    and missing tools; RuntimeError with the end of its log for a tool that fails, or where the netlist differs.
    """
    board = find_board(board)
    design = design if hasattr(design, "manifest") else load_design(design)
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}")
    check_design(design, board)
    if floorplan:
        check_floorplan(board.device)
    if shell is None:
        from .shell import Shell

        def shell(**line):
            return Shell(design, **line)

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    name = design.manifest.name
    earlier = [f"{name}.{ending}" for ending in _endings()]
    with undisturbed(directory):
        if (directory / f"{name}.json").exists() and not directory.samefile(design.path.parent):
            # of the core that was here
            earlier += [f"{name}.il", *memories.left(directory, name), *handover.names(name)]
    with replacing(directory, gone=earlier) as (work, new):
        how = {"kind": tools, "progress": progress, "check": check, "floorplan": floorplan}
        flow = _Flow(board=board, design=design, work=work, **how)
        for tool in flow.needed:  # all of them at once, before any time is spent
            find_tool(tool, tools)
        flow.bring_core()
        report = flow.run(shell, clock_mhz, range(seed, seed + seeds))
        for made, final in flow.products.items():
            os.replace(work / made, new / final)
    return report


def _endings():
    """Of a bitstream's files, of all families."""
    texts = {family.placed for family in FAMILIES.values()}
    return "marked.json", *{f.bitstream for f in FAMILIES.values()}, *texts, *(f"marked.{text}" for text in texts)


def check_design(design, board):
    """ValueError for a core that was made for another family, has pins of its own, or that the link cannot feed."""
    from .shell import check_pins

    check_pins(design)
    manifest, device = design.manifest, board.device
    if manifest.target not in ("plain", device.target):
        cure = "without a target" if device.target == "plain" else f"with --target {device.target}, or without"
        raise ValueError(
            f"{manifest.name} was generated with --target {manifest.target}; {board.key} is of the family "
            f"{device.family}: generate it {cure}"
        )
    if manifest.vectors > 1:
        raise ValueError(
            f"{manifest.name} takes {manifest.vectors} vectors side by side; the boards' serial link carries one at a "
            "time: generate it with --vectors 1"
        )


@dataclass
class _Flow:
    board: object
    design: object
    work: Path
    kind: str
    progress: object
    check: bool
    floorplan: bool = False
    steps: list = field(default_factory=list)
    products: dict = field(default_factory=dict)
    contents: dict | None = None  # of the marked ROMs
    structure: str | None = None

    @property
    def name(self):
        return self.design.manifest.name

    @property
    def device(self):
        return self.board.device

    @property
    def family(self):
        return FAMILIES[self.device.family]

    @property
    def needed(self):
        return "yosys", self.family.pnr, self.family.packer

    def step(self, title, action, *arguments):
        if self.progress:
            self.progress(title, None)
        begin = time.monotonic()
        result = action(*arguments)
        self.steps.append((title, round(time.monotonic() - begin, 2)))
        if self.progress:
            self.progress(*self.steps[-1])
        return result

    def run(self, shell, clock_mhz, seeds):
        from . import gatelevel

        board, name = self.board, self.name
        top = self.step("gateware", self.generate, shell, clock_mhz)
        synthesise = partial(synth.synthesise, self.device, name, self.work, kind=self.kind)
        made = self.step("synthesis (Yosys)", synthesise)
        check_fit(board, made, self.design.plan)
        placers = self.family.placers
        if self.floorplan:
            placers = (PLACER,)
            place = partial(place_engines, self.device, self.design.plan, name, self.work, kind=self.kind)
            self.step("floorplan", place, self.family.part(board.make_platform()))
        os.replace(self.work / f"{name}.json", self.work / f"{name}.marked.json")
        where = self.work, self.work, name, self.device.family
        filled = self.step("netlist with contents of ROMs (Yosys)", fill_netlist, *where, self.contents, self.kind)
        simulated = partial(self.simulate, top)
        with ExitStack() as stack:
            # while nextpnr runs; a large netlist afterwards, for their memory
            if self.check and (self.work / f"{name}.netlist.v").stat().st_size <= gatelevel.LARGE:
                simulated = stack.enter_context(child.beside(simulated)).result
            runs, found, best = self.route(placers, seeds, made, top.clock_hz / 1e6)
            text = self.family.placed
            os.replace(self.work / f"{best}.{text}", self.work / f"{name}.marked.{text}")
            self.step("contents of ROMs", fill_placed, *where, *filled)
            self.keep(f"{name}.marked.{text}", f"{name}.marked.json", f"{name}.{text}")
            self.step(f"bitstream ({self.family.packer})", pack, board, name, self.work, self.kind)
            netlist = "netlist not simulated: not asked for"
            if self.check:
                netlist = self.step("netlist against golden model (Verilator)", simulated)
        self.keep(f"{name}.{board.suffix}", f"{name}.netlist.v")
        self.products |= {"yosys.log": f"{name}.yosys.log", f"{best}.log": f"{name}.nextpnr.log"}
        report = self.report(top, made, runs[best], found, best, seeds, netlist)
        (self.work / "report.json").write_text(report.to_json(), encoding="utf-8")
        self.products["report.json"] = "report.json"
        return report

    def keep(self, *files):
        self.products |= {file: file for file in files}

    def bring_core(self):
        """Manifest, Verilog and integers go with the bitstream, as they are now; ValueError where another design's are
        there.
        """
        path, manifest = self.design.path, self.design.manifest
        with undisturbed(path):
            if read_manifest(path) != manifest:
                raise ValueError(f"{path}: another process has changed it meanwhile; run the command again")
            for file in (*(file.name for file in manifest.files.of_kinds(FILES)), path.name):
                target = file if file != path.name else f"{self.name}.json"
                (self.work / f"core.{target}").write_bytes((path.parent / file).read_bytes())
                self.products[f"core.{target}"] = target

    def generate(self, shell, clock_mhz):
        """NAME.il, its ROMs marked, and the constraints."""
        top, rtlil, constraints = gateware(self.board, shell, self.name, clock_mhz)
        found = [rom for rom, _ in roms.find_roms(rtlil)]
        self.contents = {rom.name: rom.bits for rom in found}
        self.structure = roms.structure(rtlil)
        rtlil = roms.replace_roms(rtlil, roms.marks(found))
        (self.work / f"{self.name}.il").write_text(rtlil, encoding="utf-8")
        (self.work / f"{self.name}.{self.family.constraints}").write_text(constraints, encoding="utf-8")
        return top

    def route(self, placers, seeds, made, mhz):
        """(seed → nextpnr's report, seed → its clocks, the best seed), by the first placer that makes the clock;
        ValueError where none does.
        """
        for placer in placers:
            try:
                runs = self.try_seeds(seeds, mhz, placer)
            except RuntimeError:
                if placer == placers[-1]:
                    raise
                continue
            found = {seed: self.clocks(report, made, mhz) for seed, report in runs.items()}
            # the slowest clock against what it has to run at
            best = max(found, key=lambda seed: min(c.maximum / c.used for c in found[seed].values()))
            if not too_slow(found[best]):
                break
        self.check_timing(found[best], found)
        return runs, found, best

    def try_seeds(self, seeds, mhz, placer):
        """Seed → nextpnr's report, of those that routed; RuntimeError where none did."""
        runs, failure = {}, None
        by = f", placer {placer}" if placer else ""
        for seed in seeds:
            try:
                title = f"place and route, seed {seed}{by} (nextpnr)"
                runs[seed] = self.step(title, self.place_and_route, seed, mhz, placer)
            except RuntimeError as error:
                failure = error  # another seed may route
        if not runs:
            raise failure
        return runs

    def place_and_route(self, seed, mhz, placer):
        """nextpnr's report of a seed. Timing is judged here and not by nextpnr, so that the report gets written."""
        name, platform = self.name, self.board.make_platform()
        netlist = f"{name}.placed.json" if self.floorplan else f"{name}.marked.json"
        arguments = ["-q", "-l", f"{seed}.log", "--json", netlist, "--report", f"{seed}.report.json"]
        arguments += ["--seed", str(seed), "--freq", f"{mhz:.6f}", "--timing-allow-fail"]
        arguments += self.family.place(platform, name, seed, self.board.pack)
        arguments += ["--placer", placer] if placer else []
        tools.run(self.family.pnr, arguments, directory=self.work, log=f"{seed}.log", kind=self.kind)
        return json.loads((self.work / f"{seed}.report.json").read_text(encoding="utf-8"))

    def simulate(self, top):
        """Simulate the netlist that the bitstream was made of; what was done, in words."""
        from . import gatelevel, netlist
        from .shell import Shell

        placed = self.work / f"{self.name}.netlist.v"
        # the host only knows how to talk to one shell, and vectors come one by one through its line
        whole = isinstance(top.shell, Shell)
        count = gatelevel.vectors(self.design, top.clock_hz, self.board.baud, placed) if whole else 0
        if count:
            clocks = {"clock_hz": top.clock_hz, "count": count}
            result = gatelevel.compare(self.design, self.board, placed, **clocks, tools=self.kind)
        else:
            few = max(1, min(64, gatelevel.CYCLES // self.design.manifest.interval // 4))
            result = netlist.simulate(
                self.design, device=self.device, vectors=few, tools=self.kind, simulator="compiled",
            )
        pll = " and the PLL's dividers" if top.pll else ""
        what = f"whole netlist, shell, reset{pll} included," if count else "core's netlist, mapped alike,"
        if not result.ok:
            raise RuntimeError(f"the {what.split(',')[0]} differs from the golden model: {result.problems[0]}")
        text = placed.read_text(encoding="utf-8")
        ours = netlist.with_our_models(self.device.family, text, self.kind)
        models = f"; models of {', '.join(ours)} are ours, the others Yosys'" if ours else ""
        return f"{what} simulated: {result.vectors} vectors equal the golden model{models}"

    def clocks(self, report, made, mhz):
        """Clock name → Clock, from nextpnr's report and the primitives' limits.

        The one that runs at `mhz` is CORE_CLOCK, whatever net nextpnr found it on; others have their nets' names.
        """
        limits = [(limit, why) for resource, limit, why in self.device.limits if made[resource]]
        limit, why = min(limits, default=(None, ""))
        clocks = {}
        for net, found in report["fmax"].items():
            routed, used = found["achieved"], found["constraint"] or mhz
            # nextpnr keeps periods in whole picoseconds
            used = mhz if abs(used - mhz) < 0.005 * mhz else used
            slower = limit is not None and limit < routed
            name = CORE_CLOCK if CORE_CLOCK not in clocks and abs(used - mhz) < 0.01 * mhz else net
            clocks[name] = Clock(
                used=round(used, 3), routed=round(routed, 2), limit=limit,
                maximum=limit if slower else round(routed, 2), reason=why if slower else "nextpnr",
            )
        if CORE_CLOCK not in clocks:
            others = ", ".join(f"{net} of {clock.used:g} MHz" for net, clock in clocks.items()) or "none"
            raise RuntimeError(f"nextpnr reports no clock of {mhz:g} MHz; there is {others}")
        return clocks

    def check_timing(self, clocks, found):
        if slow := too_slow(clocks):
            name, clock = min(slow.items(), key=lambda item: item[1].maximum / item[1].used)
            tried = f"the best of {len(found)} seeds" if len(found) > 1 else "another seed may differ by some percent"
            safe = int(clock.maximum * 0.95 * 10) / 10
            raise ValueError(
                f"timing is missed: the {name} is to run at {clock.used:g} MHz and reaches {clock.maximum:g} MHz, "
                f"routed ({clock.reason}; {tried}); ask for --clock {safe:g} or less"
            )

    def report(self, top, made, routed, found, best, seeds, netlist):
        board, m = self.board, self.design.manifest
        usage, resources = routed["utilization"], {}
        for resource, number in made.items():
            worth = self.family.used[resource]
            # a device without multipliers has no line for them
            used = sum(usage[cell]["used"] * w for cell, w in worth.items() if cell in usage)
            taken = ceil(used) if worth else None
            resources[resource] = Resource(synthesised=number, routed=taken, available=self.device.available[resource])
        notes = [note for note in (board.note, *self.family.notes(self.device)) if note]
        if top.pll:
            notes.append(f"PLL: {top.pll.output_hz / 1e6:.6g} MHz of {top.pll.input_hz / 1e6:g} MHz")
        bitstream = f"{self.name}.{board.suffix}"
        starts = [file for file in self.products if file.startswith(f"{self.name}.marked.")]  # what boards.patch needs
        hashes = {file: sha256(self.work / file, most=MARKED) for file in (bitstream, *starts)}
        return Report(
            name=self.name, configuration=m.configuration, board=board.key, bitstream=bitstream,
            sha256=hashes.pop(bitstream), clock_mhz=top.clock_hz / 1e6, baud=board.baud, resources=resources,
            clocks=found[best], seed=best, structure=self.structure, marked=hashes, notes=tuple(notes),
            seeds={seed: min(c.routed for c in found[seed].values()) if seed in found else None for seed in seeds},
            tools={tool: tools.version(tool, self.kind) for tool in self.needed} | {"from": self.kind},
            netlist=netlist, steps=tuple(self.steps),
        )


def too_slow(clocks):
    """Of a table name → Clock those that do not reach what they are to run at."""
    return {name: clock for name, clock in clocks.items() if clock.maximum < clock.used}


def gateware(board, shell, name, clock_mhz=None):
    """(Top, RTLIL, constraints) of a shell on a board, by the platform of amaranth-boards; its own scripts are not
    used.
    """
    top = Top(board, shell, clock_mhz=clock_mhz)
    plan = board.make_platform().prepare(top, name)
    files = (plan.files[f"{name}.{suffix}"] for suffix in ("il", FAMILIES[board.device.family].constraints))
    return top, *(content.decode() if isinstance(content, bytes) else content for content in files)


def check_fit(board, made, plan=None):
    """ValueError, with what would fit, where synthesis made more than the board has."""
    short = {r: n for r, n in made.items() if n > board.device.available[r]}
    if not short:
        return
    needs = ", ".join(f"{n} {r} of {board.device.available[r]}" for r, n in short.items())
    cures = [f"it would fit {', '.join(others)}"] if (others := others_that_fit(board, made)) else []
    most = {key: max([1, *(e.chosen.get(key, 1) for e in plan.engines)] if plan else [1]) for key in ("lanes", "simd")}
    if most["lanes"] > 1:
        cures.append(f"fewer lanes than {most['lanes']} need less of everything")
    elif most["simd"] > 1 and ("DSP" in short or "LUT" in short):
        cures.append(f"--simd 1 instead of {most['simd']} needs fewer multipliers and takes more cycles a vector")
    hint = "; ".join(cures) or "no board of the table has that much; a narrower or smaller network is needed"
    raise ValueError(f"it does not fit {board.title} (synthesised): {needs}. {hint[0].upper()}{hint[1:]}")


def others_that_fit(board, made):
    """Keys of the boards that have what was synthesised, block RAMs counted by their bits."""

    def by_bits(numbers, device):
        return {**numbers, "RAM": numbers["RAM"] * device.ram_bits}

    needed = by_bits(made, board.device)
    there = {key: by_bits(other.device.available, other.device) for key, other in BOARDS.items() if key != board.key}
    return [key for key, has in there.items() if all(needed[r] <= has[r] for r in needed)]
