"""docs/benchmark.md, from what was measured."""

from dataclasses import dataclass

from boards import tools

from . import cpu
from .cpu import table

TABLES_MAXIMUM, TABLES_AIM = 60, 40  # COMB a multiplier, where those are DSP blocks
PROCESSOR = (256, 1024)  # n of the layers that a processor is compared on
RATIO = 45  # times a dense engine's vectors a second, n = 1024, as many multipliers


@dataclass(frozen=True, kw_only=True)
class Line:
    """A design of the tables. row: None where it was not built, which `note` then says.

    multipliers: DSP blocks or their like; 0 for none. cycles: a vector's. products: useful ones of a vector.
    latency: cycles. entry: of `designs`, for ours.
    """

    key: str
    title: str
    row: object = None
    multipliers: int = 0
    cycles: float | None = None
    products: int = 0
    latency: int | None = None
    entry: object = None
    simulated: dict | None = None
    note: str = ""

    @property
    def mhz(self):
        return self.row.mhz if self.row else None

    @property
    def vectors(self):
        """Vectors a second at the clock to quote; None without one."""
        return None if self.mhz is None else self.mhz * 1e6 / self.cycles

    @property
    def full_title(self):
        return f"{self.title}; {self.entry.part}" if self.entry else self.title

    @property
    def notes(self):
        failed = self.row.failed if self.row else ()
        return "; ".join(filter(None, (self.note, *failed)))


def figure(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def judged(found, minimum, aim=None, *, less=False):
    """Whether a figure is as it should be: at least the minimum, or at most with `less`."""
    if found is None:
        return "not measured"
    sign = -1 if less else 1
    if aim is not None and sign * found >= sign * aim:
        return "as hoped"
    return "as required" if sign * found >= sign * minimum else "**missed**"


def clocks(lines):
    rows = []
    for line in lines:
        e, row, title = line.entry, line.row, line.full_title
        if row is None:
            rows.append([title, *[""] * 10, line.note])
            continue
        used, found = row.used, row.found
        wanted = verdict = ""
        if e and e.minimum:
            wanted = f"{e.minimum:g} / {e.aim:g}"
            verdict = judged(line.mhz, e.minimum, e.aim)
        each = used["COMB"] / line.multipliers if line.multipliers else None
        if e and e.minimum and e.tables and each:
            verdict += f"; COMB {judged(each, TABLES_MAXIMUM, TABLES_AIM, less=True)}"
        spread = f"{min(found):.0f}–{max(found):.0f}" if found else ""
        rows.append(
            [title, used["DSP"], figure(used["COMB"]), figure(each), figure(used["FF"]), used["RAM"],
             figure(row.median, 1), spread, figure(row.limit), figure(line.mhz), wanted, verdict]
        )
    head = ["design", "DSP", "COMB", "COMB per multiplier", "FF", "RAM", "MHz, median", "all seeds", "limit"]
    return table([*head, "**MHz**", "required / hoped for", "found"], rows)


def speeds(lines):
    rows = []
    for line in lines:
        if line.cycles is None:
            continue
        micro = None if line.mhz is None or line.latency is None else line.latency / line.mhz
        millions = None if line.vectors is None else line.vectors * line.products / 1e6
        wanted, products = line.entry and line.entry.products, figure(millions)
        if wanted:
            products += f" ({judged(millions, wanted)}, {wanted:g})"
        rows.append(
            [line.full_title, line.multipliers, figure(line.mhz), f"{line.cycles:g}", figure(line.vectors),
             products, figure(line.latency), figure(micro, 2)]
        )
    head = ["design", "multipliers", "MHz", "cycles a vector", "**vectors a second**", "useful products, M/s"]
    return table([*head, "latency, cycles", "µs"], rows)


def ratios(lines):
    """Ours against each rival that does a layer of the same size."""
    by, rows = {line.key: line for line in lines}, []
    pairs = [
        ("n256", "dense256", None), ("n256-folded", "dense256", None), ("n1024", "dense1024", RATIO),
        ("n256", "n256-plain", None), ("n16-spatial", "da4ml", None), ("n16-spatial", "alkaid", None),
    ]
    for ours, rival, wanted in pairs:
        a, b = by.get(ours), by.get(rival)
        if a is None or b is None or a.vectors is None or b.vectors is None:
            continue
        ratio, comb = a.vectors / b.vectors, a.row.used["COMB"] / b.row.used["COMB"]
        verdict = "" if wanted is None else f"{judged(ratio, wanted)}, {wanted}"
        names, multipliers = f"{a.title} : {b.title}", f"{a.multipliers} : {b.multipliers}"
        rows.append([names, multipliers, f"{ratio:.2f}", f"{comb:.2f}", verdict])
    return table(["ours : rival", "multipliers", "vectors a second", "COMB", ""], rows)


def on_processor(measured, lines):
    """The table of a processor, from what bench.cpu measured; cores of `lines` named n<size> stand beside it."""
    by, rows = {line.key: line for line in lines}, []
    for n, each in cpu.vectors(measured, PROCESSOR).items():
        ours = by.get(f"n{n}")
        for batch, (butterfly, dense, times) in each.items():
            ratio = "" if ours is None or ours.vectors is None else f"{ours.vectors / max(butterfly, dense):.1f}"
            rows.append([n, batch, figure(butterfly), figure(dense), f"{times:.2f}", ratio])
    head = ["n", "vectors at a time", "bfthw.nn.Butterfly, vectors a second", "nn.Linear", "Butterfly : Linear"]
    return table([*head, "core, 1 lane : the faster"], rows)


_TEXT = """\
# Benchmark

Written by `{command}`; every figure is of that run unless it is called an estimate or of another page. Tools: {tools}.

Weights have 8 bits, random over their whole range, activations 10 (8 on the UP5K). Each of our rows is a whole core
with AXI4-Stream and back-pressure at both ends; the notes say which were simulated against the golden model. Place and
route: {seeds}, {target} MHz asked for. **MHz**, which all else is computed from, is the median of the seeds or,
where that is less, the limit of the primitives, which nextpnr does not check (ECP5 block RAM: 212 MHz at speed grade 6,
271 at 8). Frequencies are between registers, without the pins. COMB is what nextpnr counts: TRELLIS_COMB; logic cells
of an iCE40; LUT4 and ALU of a Gowin.

*Required / hoped for* are the clocks in MHz that were set before these designs were made; of COMB per multiplier
{tables} are required at most, {tables_aim} hoped for.

Parts: {parts}.

## Clock and size

{clocks}

![Clock of every seed](benchmark-clocks.svg)

{notes}

## Speed

{speeds}

## Ours against rivals

{ratios}

The dense engine ([bench/dense.py](../bench/dense.py)) holds its weights in block RAM and uses every multiplier in every
cycle. Weights of n = 1024 are 8.4 Mbit, an LFE5U-85F has 3.8 Mbit: they do not fit on the chip. There its cells have
ROMs of {rom_words} weights, so that memory does not hold the clock back; clock and cycles count, the results do not.
20 multipliers take the 1024 rows in ⌈1024/20⌉ = 52 groups of 1024 cycles.

da4ml, and alkaid, its successor, make a pipeline with a register after every adder and neither handshake nor frames;
ours in logic has both. All stand between shift registers that need few pins, and these are counted too. alkaid is asked
for adders of two values: those of three, which it makes by default, fit tables of six inputs and cost more here.

{whole}
## A processor on the same layer

{processor}

From the figures of [cpu.md](cpu.md): forward, float32, **CPU time of one thread**, of torch {torch} on {name}. A
core's clock is that of the table above.

## Parallelism

![Cycles against multipliers and tables](benchmark-parallelism.svg)

Multipliers and cycles come from specifications (exact). Grey points are estimates by the formula in the legend.

## Growth

![Cycles and weights as n grows](benchmark-growth.svg)

From specifications and formulas: ours has one lane and k = 4; the clocks are left out.
"""


def document(lines, measured, *, whole, command, seeds, parts, rom_words, target):
    """The text of docs/benchmark.md. measured: figures of bench.cpu. whole: the section of bench.whole_table. parts:
    those of the rows.
    """
    notes = [f"- {line.full_title}: {line.notes}" for line in lines if line.notes]
    simulated = [line for line in lines if line.simulated]
    done = [f"{line.key} ({', '.join(f'{t}: {n}' for t, n in line.simulated.items())})" for line in simulated]
    if done:
        notes.append(f"- Vectors equal to the golden model, target: number: {'; '.join(done)}")
    if any(not part.timed_dsp for part in parts):
        notes.append("- nextpnr has no timing of Gowin's multipliers: the clock there is an upper bound")
    names = ["yosys", *sorted({part.pnr for part in parts})]
    return _TEXT.format(
        command=command, tools=", ".join(f"{tool} {tools.version(tool)}" for tool in names),
        seeds="seed 1" if seeds == 1 else f"seeds 1 to {seeds}", target=target, whole=whole,
        parts="; ".join(f"{part.key}: {part.title}" for part in parts),
        clocks=clocks(lines), notes="\n".join(notes), speeds=speeds(lines), ratios=ratios(lines),
        processor=on_processor(measured, lines), torch=measured["torch"], name=measured["processor"],
        rom_words=rom_words, tables=TABLES_MAXIMUM, tables_aim=TABLES_AIM,
    )
