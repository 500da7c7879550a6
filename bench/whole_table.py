"""The section on whole networks of docs/benchmark.md, from what bench.whole found."""

from math import inf
from pathlib import Path
from statistics import median

from bfthw import files
from boards.table import UP5K

from . import flow, whole
from .flow import PARTS
from .table import figure, judged, table
from .whole import NETWORKS, PART, ROOM

DOCUMENT = Path("docs/benchmark.md")
HEADING = "## Whole networks"
STEPS = {"plain": "plain Verilog", "ecp5": "Verilog for ECP5", "ice40": "Verilog for iCE40"}
STEPS |= {"netlist": "its mapped netlist"}


def rates(found):
    """The table of images a second beside what was asked for."""
    rows = []
    for entry in NETWORKS:
        row = found.get(entry.key, {})
        plan, mhz = row.get("plan"), clock(row)
        wanted = f"{entry.minimum:,} / {entry.aim:,}" if entry.minimum else ""
        if plan is None:
            rows.append([entry.title, *[""] * 5, wanted, "not measured", entry.beside])
            continue
        per_second = mhz and mhz * 1e6 / plan["interval"]
        rows.append(
            [entry.title, figure(plan["weights"]), figure(plan["interval"]), figure(mhz, 1), len(routed(row)) or "",
             figure(per_second), wanted, wanted and judged(per_second, entry.minimum, entry.aim), entry.beside]
        )
    head = ["network", "weights", "cycles an image", "MHz", "seeds", "**images a second**", "required / hoped for"]
    return table([*head, "found", "beside it, images a second"], rows)


def clock(row):
    """MHz to quote: the median of the seeds or, where that is less, the limit of the primitives; None for none."""
    found = routed(row)
    return min(median(found), row["build"]["limit"] or inf) if found else None


def routed(row):
    """MHz of the seeds that routed."""
    return [mhz for mhz in row.get("build", {}).get("mhz", {}).values() if mhz is not None]


def sizes(found):
    """The table of what was estimated of each core, and what Yosys made of it."""
    rows = []
    for entry in NETWORKS:
        row = found.get(entry.key, {})
        if "plan" not in row:
            continue
        build = row.get("build", {})
        estimated, made = build.get("estimate", row["plan"]["estimate"]), build.get("yosys", {})
        pairs = [f"{estimated[name]:,} : {made[name]:,}" if made else f"{estimated[name]:,}" for name in estimated]
        share = f"{estimated['LUT'] / made['LUT']:.2f}" if made else ""
        rows.append([entry.title, row["plan"]["multipliers"], *pairs, share])
    head = ["network", "multipliers", *(f"{name}, estimated : made" for name in ROOM)]
    return table([*head, "LUT, estimated : made"], rows)


def steps(found):
    """The table of what was simulated, and of what our own tools took."""
    rows = []
    for entry in NETWORKS:
        row = found.get(entry.key, {})
        for step, title in STEPS.items():
            if done := row.get(step):
                spent, each = done["spent"], done["simulated"] / done["cycles"] * row["plan"]["interval"]
                rows.append(
                    [entry.title, title, done["images"], figure(done["interval"]), figure(done["latency"]),
                     row["plan"]["spent"]["seconds"], spent["seconds"], spent["gigabytes"], done["megabytes"],
                     figure(done["simulator"]), done.get("gigabytes", ""), figure(each, 1)]
                )
    head = ["network", "simulated", "images equal to the golden model", "cycles an image", "latency, cycles"]
    head += ["plan, s", "Verilog, s", "GB", "MB of it", "compiling the simulation, s", "GB"]
    return table([*head, "an image's cycles simulated, s"], rows)


def fitting(entry, plan):
    """What of its part is too little for a plan."""
    room = entry.available
    short = [f"{n:,} {name} of {room[name]:,}" for name, n in plan.get("estimate", {}).items() if n > room[name]]
    return f"does not fit, by estimate: {', '.join(short)}" if short else "not routed"


def notes(found):
    """Lines of what did not come to an end, and of what binds the clocks."""
    lines = []
    for entry in NETWORKS:
        build, plan = (found.get(entry.key, {}).get(step, {}) for step in ("build", "plan"))
        told = build["failed"] if build.get("mhz") else ["not routed yet" if entry.seeds else fitting(entry, plan)]
        if build.get("estimate", plan.get("estimate")) != plan.get("estimate"):
            told = [*told, "built as an earlier core, of another size"]
        if build.get("floorplan"):
            told = [*told, "built with a [floorplan](boards.md#large-cores)"]
        lines += [f"- {entry.title}: {text}" for text in told]
        for seed, path in build.get("critical", {}).items():
            first, last = path["cells"][0], path["cells"][-1]
            lines.append(
                f"- {entry.title}, seed {seed}: the longest path, {path['logic']} ns of logic and {path['routing']} ns "
                f"of wires, goes from `{first}` to `{last}`"
            )
    return "\n".join(lines)


_TEXT = """\
{heading}

Written by `python -m bench.whole`, which `make bench` runs too; figures are kept in
[bench/whole.json](../bench/whole.json) as they come. Each network is whole on one {part},
where its name does not say another, [layers in turn](turns.md) where it says so:
pixels (or points) in, numbers of the classes out, weights and line buffers on the chip, 8-bit weights, 9 bits between layers
(8 on the iCE40UP5K, whose weights come from a SPI flash once after configuration), biases and (with BFT)
residuals in. What is larger than that part, by estimate, was simulated alone. **Weights are
random** but where a network is called trained: a core's size and speed hardly depend on them, and no accuracy is claimed.
Place and route is of the core alone, no board, no shell, pins anywhere, without a floorplan unless one is named
below; {target} MHz were asked for, and the median of the seeds that routed counts. *Beside it* are whole systems
measured with trained weights, those of MLPerf Tiny on boards, in its closed division, where ours would be in the open
one: what devices of which size reach, not who would win.

{rates}

Images a second are the clock by the cycles of an image. What was simulated took as many as planned, and all outputs of
all images were equal to the golden model's: without stalls, with stalls on both sides, with frames of wrong length
among them, and after a reset in flight.

{steps}

Seconds of plan and Verilog are of CPU time, of the simulation of wall time on two busy cores, and what was compiled
before is not compiled again; memory is the largest of a process. Estimates of DSP and RAM should be exact, those of LUT
within a quarter of what Yosys makes:

{sizes}

{notes}

Streamed on an iCE40UP5K, the DS-CNN + BFT would take {small}
"""


def section(found):
    """HEADING and what is below it in DOCUMENT."""
    return _TEXT.format(
        heading=HEADING, part=PARTS[PART].title, target=flow.TARGET_MHZ,
        rates=rates(found), steps=steps(found), sizes=sizes(found), notes=notes(found), small=small(found),
    )


def small(found):
    """A sentence on the network that an iCE40UP5K is short of room for."""
    if "up5k" not in found:
        return "not planned"
    needs, has = found["up5k"]["needs"], UP5K.available
    needed = ", ".join(f"{n:,} {name}" for name, n in needs.items())
    return (
        f"{found['up5k']['interval']:,} cycles an image and {needed}, "
        f"by estimate. It does not fit: there are {', '.join(f'{has[n]:,} {n}' for n in needs if needs[n] > has[n])}. "
        f"[Tile by tile](turns.md#tile-by-tile) it fits, in {found['keywords-bft-up5k']['plan']['interval']:,} cycles; "
        f"{whole.SMALL_CYCLES:,} were hoped for."
    )


def rewrite(path=DOCUMENT):
    """The section, in the document that is there."""
    before, _, rest = path.read_text(encoding="utf-8").partition(HEADING)
    after = rest[rest.index("\n## ") + 1 :]
    files.write(path, f"{before}{section(whole.figures())}\n{after}")
