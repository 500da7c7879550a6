"""The benchmark's plots, SVG: parallelism, clocks, growth."""

from bfthw.plots import COLOURS, pyplot, save
from boards.table import ECP5_85F
from rtl_gen import Plan, Spatial

from . import designs


def choices(n=256):
    """Series → [(multipliers, cycles a vector)] of all parallelism that a layer of n can have, from specifications."""
    found = {}
    for k, length in ((2, 8), (4, 4), (16, 2)):
        layer = designs.network(n, (k,) * length)
        points = set()
        for lanes in (1 << bit for bit in range(n.bit_length())):
            for simd in (1 << bit for bit in range(k.bit_length())):
                plan = Plan(network=layer, choices={"layer": {"lanes": lanes, "simd": simd}})
                points.add((plan.multipliers, plan.interval))
        found[f"pipelined, k = {k}"] = sorted(points)
    layer = designs.network(n, designs.FOUR)
    folded = (Plan(network=layer, choices={"layer": {"engine": "folded"}}, vectors=v) for v in (1, 2, 4, 8, 16, 32))
    found["folded, k = 4"] = [(plan.multipliers, plan.interval / plan.vectors) for plan in folded]
    return found


def parallelism(lines, path):
    """Cycles a vector against multipliers, and against tables, n = 256. lines: key → table.Line."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.6), sharey=True)
    series = choices()
    for colour, mark, size, (name, points) in zip(COLOURS, "osD.", (9, 6, 3, 5), series.items()):
        left.plot(*zip(*points), mark, ms=size, mfc="none", color=colour, label=name)
    left.set(xlabel="multipliers (specification)", ylabel="cycles a vector", xscale="log", yscale="log")
    left.set_title("n = 256: all parallelism there is")
    if "n256" in lines:
        each = lines["n256"].row.used["COMB"] / lines["n256"].multipliers
        points = series["pipelined, k = 4"]
        right.plot([m * each for m, _ in points], [cycles for _, cycles in points], "o", ms=3, color="#aaaaaa",
                   label=f"estimate: {each:.0f} COMB × multipliers")
    estimate = sum(Spatial(factors=(f,)).tables for f in designs.network(256, designs.FOUR).factors)
    right.plot([estimate], [1], "s", ms=5, color="#aaaaaa", label="estimate: weights in logic (Spatial.tables)")
    for colour, key in zip(COLOURS, ("n256", "n256-folded", "n256-tables")):
        if key in lines:
            used, cycles = lines[key].row.used["COMB"], lines[key].cycles
            right.plot([used], [cycles], "D", ms=5, color=colour, label=f"routed: {key}")
    right.axvline(ECP5_85F.lut, color="#c0392b", lw=1)
    right.set(xlabel="tables (TRELLIS_COMB; line: what an 85F has)", xscale="log")
    for axes in (left, right):
        axes.legend(fontsize=7)
    save(figure, path)


def clocks(lines, path):
    """MHz of every seed. lines: of table.Line, routed ones."""
    figure, axes = pyplot().subplots(figsize=(9, 0.9 + 0.34 * len(lines)))
    for n, line in enumerate(lines):
        row, minimum, aim = line.row, line.entry and line.entry.minimum, line.entry and line.entry.aim
        axes.plot(row.found, [n] * len(row.found), "o", ms=4, color=COLOURS[0], label="a seed, nextpnr")
        for value, mark, colour, label in (
            (minimum, "|", "#888888", "required"), (aim, "|", "#222222", "hoped for"),
            (row.limit, 7, "#c0392b", "primitives' limit"),
        ):
            if value:
                axes.plot([value], [n], marker=mark, ls="", ms=12 if mark == "|" else 5, color=colour, label=label)
    axes.set_yticks(range(len(lines)), [line.key for line in lines])
    axes.invert_yaxis()
    axes.set(xlabel="MHz, register to register")
    axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
    unique = dict(zip(*reversed(axes.get_legend_handles_labels())))
    axes.legend(unique.values(), unique.keys(), fontsize=7, loc="lower left")
    save(figure, path)


def growth(path):
    """Cycles and bits of weights as n grows, ours with one lane and k = 4, dense with as many multipliers."""
    sizes = {64: 3, 256: 4, 1024: 5, 4096: 6}
    ours = [Plan(network=designs.network(n, (4,) * length)) for n, length in sizes.items()]
    dense = [-(-n // plan.multipliers) * n for n, plan in zip(sizes, ours)]
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.4))
    left.plot(list(sizes), [plan.interval for plan in ours], "o-", color=COLOURS[0], label="butterfly: n")
    left.plot(list(sizes), dense, "s-", color=COLOURS[1], label="dense, as many multipliers (12 to 24): ⌈n/P⌉·n")
    for n, plan, cycles in zip(sizes, ours, dense):
        place = {"xytext": (-6, 6), "textcoords": "offset points"}
        left.annotate(f"{cycles / plan.interval:.0f}×", (n, cycles), fontsize=8, **place)
    left.set(xlabel="n", ylabel="cycles a vector", xscale="log", yscale="log")
    right.plot(list(sizes), [plan.rom_bits for plan in ours], "o-", color=COLOURS[0], label="butterfly: 8·4·n·log₄ n")
    right.plot(list(sizes), [8 * n * n for n in sizes], "s-", color=COLOURS[1], label="dense: 8·n²")
    right.axhline(ECP5_85F.ram * ECP5_85F.ram_bits, color="#c0392b", lw=1, label="all block RAM of an 85F")
    right.set(xlabel="n", ylabel="bits of weights", xscale="log", yscale="log")
    for axes in (left, right):
        axes.set_xticks(list(sizes), list(map(str, sizes)))
        axes.minorticks_off()
        axes.legend(fontsize=7)
    save(figure, path)
