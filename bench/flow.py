"""Text of a design to clock and resources: Yosys, then nextpnr for each seed. What was done once is kept."""

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bfthw import child, files
from boards import synth, tools
from boards.floorplan import PLACER, place_engines
from boards.table import ECP5_5G_85F, ECP5_25F, ECP5_85F, GW1NR9, UP5K, Device

TOP = "core"  # every design's top module
CACHE = Path("build/bench")
MINUTES = 20  # for a place and route
TARGET_MHZ = 220  # asked of nextpnr; the seed matters more


@dataclass(frozen=True, kw_only=True)
class Part:
    """A device, package and speed grade.

    options: of nextpnr. used: resource → its names in nextpnr's report. constraints: text of TOP.cst.
    """

    key: str
    title: str
    device: Device
    pnr: str
    options: tuple
    used: dict
    constraints: str = ""
    timed_dsp: bool = True


_ECP5 = {"COMB": ("TRELLIS_COMB",), "FF": ("TRELLIS_FF",), "DSP": ("MULT18X18D",), "RAM": ("DP16KD",)}
_TRELLIS = ("--package", "CABGA756", "--router", "router1", "--lpf-allow-unconstrained", "--speed")
_SMALLER = ("--package", "CABGA381", *_TRELLIS[2:])
# nextpnr wants a place for every pin of a Gowin; these are free, and the first one is a clock's
_PINS = dict(
    zip(("aclk", *(f"data[{n}]" for n in range(8)), "aresetn", "last", "valid", "ready", "accepted", "folded"),
        (52, *range(25, 39)))
)
_PARTS = (
    Part(
        key="ecp5-85f", title="LFE5U-85F, CABGA756, speed 6", device=ECP5_85F, pnr="nextpnr-ecp5", used=_ECP5,
        options=("--85k", *_TRELLIS, "6"),
    ),
    Part(
        key="ecp5-25f", title="LFE5U-25F, CABGA381, speed 6", device=ECP5_25F, pnr="nextpnr-ecp5", used=_ECP5,
        options=("--25k", *_SMALLER, "6"),
    ),
    Part(
        key="ecp5-5g-85f", title="LFE5UM5G-85F, CABGA756, speed 8", device=ECP5_5G_85F, pnr="nextpnr-ecp5", used=_ECP5,
        options=("--um5g-85k", *_TRELLIS, "8"),
    ),
    Part(
        # nextpnr does not count the flip-flops of an iCE40, Yosys does
        key="up5k", title="iCE40UP5K, SG48", device=UP5K, pnr="nextpnr-ice40", options=("--up5k", "--package", "sg48"),
        used={"COMB": ("ICESTORM_LC",), "DSP": ("ICESTORM_DSP",), "RAM": ("ICESTORM_RAM",)},
    ),
    Part(
        key="gw1nr9", title="GW1NR-9C, QN88 (Tang Nano 9K)", device=GW1NR9, pnr="nextpnr-gowin", timed_dsp=False,
        options=("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C", "--vopt", f"cst={TOP}.cst"),
        used={"COMB": ("LUT4", "ALU"), "FF": ("DFF",), "DSP": ("MULT18X18", "MULT9X9"), "RAM": ("BSRAM",)},
        constraints="".join(f'IO_LOC "{name}" {pin};\n' for name, pin in _PINS.items()),
    ),
)
PARTS = {part.key: part for part in _PARTS}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the tools said of a design.

    fmax: seed → MHz, registers to registers, None where it did not route or not in time, which `failed` says. reports:
    nextpnr's of those that routed.
    limit: MHz of the primitives, which nextpnr does not know; None for none. used: COMB, FF, DSP, RAM, of the first
    seed that routed; of Yosys alone where none did.
    """

    name: str
    part: Part
    fmax: dict
    reports: dict
    used: dict
    limit: float | None = None
    failed: tuple = ()

    @property
    def found(self):
        return [mhz for mhz in self.fmax.values() if mhz is not None]

    @property
    def median(self):
        """MHz, of the seeds that routed; None for none."""
        return median(self.found) if self.found else None

    @property
    def mhz(self):
        """The clock to quote: the median, or the primitives' limit where that is less."""
        if not self.found:
            return None
        return self.median if self.limit is None else min(self.median, self.limit)


def versions(part):
    return {tool: tools.version(tool) for tool in ("yosys", part.pnr)}


def key(text, part, language):
    """Hash of everything that the result depends on, but the seed."""
    script = synth.mapping(part.device, TOP)
    what = [text, language, part.options, part.constraints, TARGET_MHZ, versions(part), script]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def build(
    name, text, part, *, language="rtlil", seeds=(1,), progress=print, cache=CACHE, minutes=MINUTES, floorplan=None
):
    """The Row of a design whose top module is TOP. language: rtlil or verilog (SystemVerilog too).

    floorplan: a Plan, for one of its core, see boards.floorplan. Results are kept under `cache`; a run cut short goes
    on with what is missing. Raises RuntimeError where Yosys fails; place and route may fail or run out of time, which
    the Row says.
    """
    directory = Path(cache) / key(text, part, language)
    made = synthesise(name, text, part, language, directory, progress)
    fmax, reports, failed, used, placer = {}, {}, [], None, ()
    if floorplan:
        directory, placer = floorplanned(part, floorplan, directory), ("--placer", PLACER)
    for seed in seeds:
        report = place(name, part, directory, seed, progress, minutes, placer)
        if "failed" in report:
            fmax[seed] = None
            failed.append(f"seed {seed}: {report['failed']}")
        else:
            fmax[seed], reports[seed] = clock(report), report
            used = used or utilisation(part, report)
    if used is None:
        used = {"COMB": made["LUT"]} | {resource: made[resource] for resource in ("FF", "DSP", "RAM")}
        failed.append("resources are those of Yosys")
    elif "FF" not in used:
        used["FF"] = made["FF"]
    limits = [mhz for resource, mhz, _ in part.device.limits if used[resource]]
    limit = min(limits, default=None)
    return Row(name=name, part=part, fmax=fmax, reports=reports, used=used, limit=limit, failed=tuple(failed))


def synthesise(name, text, part, language, directory, progress):
    """Resource → number, from TOP.json, which is made here."""
    stamp = directory / "synthesised.json"
    if stamp.exists():
        return json.loads(stamp.read_text(encoding="utf-8"))
    directory.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    (directory / f"{TOP}.cst").write_text(part.constraints, encoding="utf-8")
    if language == "rtlil":
        (directory / f"{TOP}.il").write_text(text, encoding="utf-8")
    else:
        (directory / f"{TOP}.sv").write_text(text, encoding="utf-8")
        script = f"read_verilog -sv {TOP}.sv; hierarchy -check -top {TOP}; proc; flatten; write_rtlil {TOP}.il"
        tools.run("yosys", ["-q", "-l", "read.log", "-p", script], directory=directory, log="read.log")
    made = synth.synthesise(part.device, TOP, directory)
    write(stamp, made)
    progress(f"{name}: synthesised, {time.monotonic() - begin:.0f} s")
    return made


def floorplanned(part, plan, directory):
    """The folder in `directory` of the netlist in TOP.json with its floorplan."""
    place_engines(part.device, plan, TOP, directory, part.options)
    netlist = directory / f"{TOP}.placed.json"
    where = directory / hashlib.sha256(netlist.read_bytes() + f"--placer {PLACER}".encode()).hexdigest()[:8]
    where.mkdir(exist_ok=True)
    netlist.replace(where / f"{TOP}.json")
    return where


def place(name, part, directory, seed, progress, minutes, placer=()):
    """nextpnr's report of a seed, or what went wrong under `failed`. placer: more arguments."""
    kept = directory / f"seed{seed}.json"
    if kept.exists():
        report = json.loads(kept.read_text(encoding="utf-8"))
        # more time may be given now
        if not minutes > report.get("minutes", minutes):
            return report
    log, begin = f"seed{seed}.log", time.monotonic()
    arguments = [*part.options, "--json", f"{TOP}.json", "--seed", str(seed), "--freq", str(TARGET_MHZ)]
    arguments += ["-q", "-l", log, "--report", f"seed{seed}.report", "--timing-allow-fail", *placer]
    with open(directory / f"{log}.out", "w", encoding="utf-8") as out:
        try:
            command = [tools.find(part.pnr), *arguments]
            done = child.run(command, cwd=directory, stdout=out, stderr=subprocess.STDOUT, timeout=60 * minutes)
            failed = f"nextpnr failed, see {log}" if done.returncode else None
        except subprocess.TimeoutExpired:
            failed = f"not routed in {minutes:g} minutes"
    if failed:
        report = {"failed": failed} | ({"minutes": minutes} if "minutes" in failed else {})
    else:
        report = json.loads((directory / f"seed{seed}.report").read_text(encoding="utf-8"))
        report = {kind: report[kind] for kind in ("fmax", "utilization", "critical_paths")}
    write(kept, report)
    said = failed or f"{clock(report):.1f} MHz"
    progress(f"{name}: seed {seed}, {said}, {time.monotonic() - begin:.0f} s")
    return report


def clock(report):
    """MHz of the one clock, rounded to 0.1."""
    return round(min(found["achieved"] for found in report["fmax"].values()), 1)


def utilisation(part, report):
    """Resource → number, from nextpnr."""
    usage = report["utilization"]
    return {
        resource: sum(usage[cell]["used"] for cell in cells if cell in usage) for resource, cells in part.used.items()
    }


def write(path, value):
    """JSON, whole or not at all."""
    files.write(path, json.dumps(value))
