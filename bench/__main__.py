"""python -m bench: build and measure everything, write docs/benchmark.md and its plots."""

import argparse
import time
from pathlib import Path

from bfthw import files

from . import cpu, designs, flow, plots, rivals, table, whole, whole_table
from .table import Line


def arguments():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 seed, n up to 256, little of it; into build/bench")
    parser.add_argument("--only", help="keys of rows, with commas between; into build/bench")
    parser.add_argument("--seeds", type=int, default=5, help="place and route runs of each design (5)")
    parser.add_argument("--minutes", type=float, default=flow.MINUTES, help="for one of them, at most (%(default)g)")
    parser.add_argument("--no-simulate", action="store_true", help="leave out the simulation of our cores")
    return parser.parse_args()


class Bench:
    def __init__(self, options):
        self.options, self.begin = options, time.monotonic()
        self.seeds = range(1, 2 if options.quick else options.seeds + 1)
        self.only = options.only.split(",") if options.only else designs.QUICK if options.quick else None

    def say(self, text):
        print(f"{time.monotonic() - self.begin:7.0f} s  {text}", flush=True)

    def wanted(self, key):
        return self.only is None or key in self.only

    def build(self, key, text, part="ecp5-85f", language="rtlil"):
        return flow.build(
            key, text, flow.PARTS[part], language=language, seeds=self.seeds, progress=self.say,
            minutes=self.options.minutes,
        )

    def ours(self, entry):
        """A Line; a design that fails is a line that says so, and the others go on."""
        simulated, notes = None, []
        if not self.options.no_simulate:
            try:
                simulated = designs.simulate(entry, self.say)
            except Exception as error:
                notes.append(self.failed(entry, "simulation failed", error))
        try:
            plan = entry.plan()
            row = self.build(entry.key, designs.text(entry), entry.part)
        except Exception as error:
            notes.append(self.failed(entry, "not built", error))
            return Line(key=entry.key, title=entry.title, entry=entry, note="; ".join(notes))
        if entry.narrow:
            notes.append("on few pins: shift registers and XOR are counted, error and saturation outputs left open")
        products = sum(f.values.size for f in plan.network.factors)
        return Line(
            key=entry.key, title=entry.title, entry=entry, row=row, multipliers=plan.multipliers, note="; ".join(notes),
            cycles=plan.interval / plan.vectors, products=products, latency=plan.latency, simulated=simulated,
        )

    def failed(self, entry, what, error):
        """The note of a failure, in one line; the whole of it is printed."""
        self.say(f"{entry.key}: {what}: {error!r}")
        return f"**{what}**: {(str(error) or repr(error)).splitlines()[0]}"

    def dense(self, n, multipliers):
        spec = rivals.dense(n, multipliers)
        row = self.build(f"dense{n}", rivals.dense_text(spec))
        return Line(
            key=f"dense{n}", title=f"dense engine, n = {n}", row=row, multipliers=multipliers, cycles=spec.interval,
            products=n * n, latency=spec.latency,
            note="" if spec.fits else "weights do not fit on the chip; clock and cycles only",
        )

    def adders(self, key):
        """A rival that makes a pipeline of adders, da4ml or alkaid."""
        title, layer = f"{key}, n = 16 = 4·4", designs.SMALL.plan().network
        made = getattr(rivals, key)(layer)
        if made is None:
            return Line(key=key, title=title, note="not installed")
        text, latency = made
        row = self.build(key, text, language="verilog")
        products = sum(f.values.size for f in layer.factors)
        return Line(key=key, title=title, row=row, cycles=1, products=products, latency=latency)

    def lines(self):
        ours = (*designs.OURS, designs.INFERRED, designs.SMALL)
        found = [self.ours(entry) for entry in ours if self.wanted(entry.key)]
        found += [self.dense(n, p) for n, p in ((256, 16), (1024, 20)) if self.wanted(f"dense{n}") or n == 256]
        return found + [self.adders(key) for key in ("da4ml", "alkaid") if self.wanted(key)]

    def run(self):
        lines = self.lines()
        whole.every(self.wanted, progress=self.say)
        where = Path("docs") if self.only is None else flow.CACHE / "docs"
        where.mkdir(parents=True, exist_ok=True)
        self.say("plots")
        built = {line.key: line for line in lines if line.row}
        routed = [line for line in built.values() if line.row.found]
        plots.clocks(routed, where / "benchmark-clocks.svg")
        plots.parallelism({line.key: line for line in routed}, where / "benchmark-parallelism.svg")
        plots.growth(where / "benchmark-growth.svg")
        parts = {line.row.part.key: line.row.part for line in built.values()}
        command = "python -m bench" if self.only else "make bench"
        text = table.document(
            lines, cpu.figures(), whole=whole_table.section(whole.figures()), command=command, seeds=len(self.seeds),
            parts=list(parts.values()), rom_words=rivals.ROM_WORDS, target=flow.TARGET_MHZ,
        )
        files.write(where / "benchmark.md", text)
        self.say(f"{where}/benchmark.md")


if __name__ == "__main__":
    Bench(arguments()).run()
