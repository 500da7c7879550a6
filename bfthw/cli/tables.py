"""Tables that the command line prints. They take what is there and compute nothing but sums and ratios."""

from rich.text import Text

from ..golden import IntFactor, short_stage
from ..graph import INPUT
from ..network import Layer
from ..table import Table


def _format(q):
    return "" if q is None else f"{'' if q.signed else 'u'}{q.width}.{q.frac}"


def doctor(tools):
    table = Table("Tools", "tool", ">version", "for (disabled without it)", "what to do")
    for tool in tools:
        missing = Text("missing", "bold red") if tool.required else Text("not installed", "yellow")
        state = tool.found or missing
        table.add_row(tool.name, state, tool.use, "" if tool.found else tool.cure)
    return table


def network(title, layers):
    """Layers, float or integer, as (name, patterns, what else it does); weights and multiplications against dense."""
    table = Table(title, "stage", ">(a, b, c, d)", ">in", ">out", ">weights", ">dense", ">ratio")
    total = full = 0
    for name, patterns, rest in layers:
        dense = patterns[0].inputs * patterns[-1].outputs
        weights = sum(p.weights for p in patterns)
        total, full = total + weights, full + dense
        for m, p in enumerate(patterns):
            table.add_row(f"{name}:{m}", str(p), str(p.inputs), str(p.outputs), str(p.weights), "", "")
        figures = str(weights), str(dense), f"{dense / weights:.2f}"
        table.add_row(" + ".join([name, *rest]), "", "", "", *figures, total=True)
    table.add_section()
    table.add_row("all", "", "", "", str(total), str(full), f"{full / total:.2f}", total=True)
    return table


def float_layers(network):
    for layer in network.layers:
        yield layer.name, layer.chain.patterns, layer.parts


def integer_layers(network):
    for layer in network.layers:
        yield layer.name, [f.pattern for f in layer.factors], layer.parts


def graph(title, network):
    """The nodes of a graph, float or integer: what they take and give, their weights and multiplications a map."""
    table = Table(title, "node", "does", "takes", ">gives", ">weights", ">products")
    shapes, weights, products = (network.shape, *network.shapes), 0, 0
    names = (INPUT, *(node.name for node in network.nodes))
    table.add_row(INPUT, "", "", str(network.shape), "", "")
    for place, (node, shape, own) in enumerate(zip(network.nodes, network.shapes, network.sources)):
        factors = node.chain.factors if isinstance(node, Layer) else getattr(node, "factors", ())
        does = ", ".join([*node.parts, *(str(factor.pattern) for factor in factors)])
        takes = "" if set(own) == {place} else ", ".join(names[k] for k in dict.fromkeys(own))
        count = node.products(*(shapes[k] for k in own))
        table.add_row(node.name, does, takes, str(shape), *(str(n) if n else "" for n in (node.weights, count)))
        weights, products = weights + node.weights, products + count
    table.add_section()
    table.add_row("all", "", "", "", str(weights), str(products), total=True)
    return table


def projections(title, rows):
    """Chains near dense layers. rows: (dense layer, chain's name, patterns, relative errors).

    errors: (one,), or (on the rows that were fitted, on those held out); the energy is that of the last.
    """
    errors = [">error"] if all(len(row[-1]) == 1 for row in rows) else [">fitted", ">held out"]
    table = Table(title, "layer", ">in", ">out", "chain", ">factors", *errors, ">energy", ">weights", ">of dense")
    for layer, name, shape, found in rows:
        first = layer.name, str(layer.chain.inputs), str(layer.chain.outputs)
        weights = sum(p.weights for p in shape)
        energy, share = f"{100 * max(0, 1 - found[-1] ** 2):.1f} %", f"{100 * weights / layer.chain.weights:.1f} %"
        figures = *(f"{error:.3f}" for error in found), energy, str(weights), share
        table.add_row(*first, name, str(len(shape)), *figures)
    return table


def formats(network, reports=()):
    """Formats of an IntNetwork's stages, width.fraction bits; SQNR and saturation where there are reports of them."""
    by_name = {row.name: row for row in reports}
    extra = (">SQNR dB", ">own dB", ">saturated") if reports else ()
    columns = "stage", ">weights", ">output", ">shift", *extra
    stages = [("input", None), *network.stages]
    unsigned = not all((f.output if f else network.input).signed for _, f in stages)
    table = Table(f"Formats (bits.fraction bits{', u: unsigned' * unsigned})", *columns)
    for name, f in stages:
        factor = isinstance(f, IntFactor)
        row = [
            short_stage(name),
            _format(f.weights) if factor else "",
            _format(f.output if f else network.input),
            str(f.shift) if f else "",
        ]
        if factor and f.max_exponent:
            row[1] += f" +{f.max_exponent}"
        if reports:
            r = by_name[name]
            row += [f"{r.sqnr:.1f}", f"{r.own:.1f}", f"{r.saturated} of {r.values}"]
        table.add_row(*row)
    return table


def hardware(plan):
    """The engines of a Plan, with what was chosen for each factor; over maps, the map and how busy each is."""
    maps = (">map", ">busy") if plan.over_maps else ()
    table = Table(
        f"Hardware, {plan.target} (ROM and buffer in bits)",
        *("stage", *maps[:1], ">(a, b, c, d)", "engine", ">lanes", ">SIMD", ">interval", *maps[1:]),
        *(">mult", ">ROM", ">buffer"),
    )
    for engine, positions, (start, stop) in zip(plan.engines, plan.positions, plan.spans):
        cycles = engine.interval * positions
        busy = (f"{100 * cycles / plan.interval:.0f} %",) if maps else ()
        figures = cycles, *busy, engine.multipliers, engine.rom_bits, engine.buffer_bits
        for n in range(start, stop):
            stage = plan.stages[n]
            pattern, *chosen = engine.shown(stage)
            over = (str(stage.shape),) if maps else ()
            row = short_stage(stage.name), *over, str(pattern), engine.kind + ", LUT" * engine.lut, *map(str, chosen)
            table.add_row(*row, *(map(str, figures) if n == start else ["″"] * len(figures)))
    table.add_section()
    empty = [""] * len(maps[1:])
    figures = plan.interval, *empty, plan.multipliers, plan.rom_bits, plan.buffer_bits
    table.add_row("all", "", "", "", "", *empty, *map(str, figures), total=True)
    return table


def build(report):
    """What a build took of its device, and its clocks."""
    table = Table(f"{report.name} on {report.board}", "resource", ">synthesised", ">routed", ">available", ">share")
    for name, r in report.resources.items():
        taken = r.synthesised if r.routed is None else r.routed
        share = f"{100 * taken / r.available:.0f} %" if r.available else ""
        table.add_row(name, str(r.synthesised), "" if r.routed is None else str(r.routed), str(r.available), share)
    table.add_section()
    for name, clock in report.clocks.items():
        table.add_row(f"{name}, MHz", "", f"{clock.maximum:.1f}", f"{clock.used:.2f} used", "")
    table.caption = f"seed {report.seed}; Fmax set by {_reasons(report)}"
    return table


def _reasons(report):
    return "; ".join(dict.fromkeys(clock.reason for clock in report.clocks.values()))


def boards(table):
    """The boards of boards.table, with what is on each."""
    rows = Table("Boards", "board", "name", "device", ">LUT", ">mult", ">RAM", ">MHz", ">baud", "programmers")
    for board in table:
        d, programs = board.device, dict.fromkeys(p.command[0] for p in board.programmers.values())
        figures = d.lut, d.dsp, d.ram, f"{board.clock_mhz:g}", board.baud
        rows.add_row(board.key, board.title, d.name, *map(str, figures), ", ".join(programs))
    return rows


def fits(found):
    """Boards, and how a network fits them."""
    table = Table("Estimated", "board", ">LUT", ">mult", ">RAM", ">MHz", ">interval", ">vectors/s", "how")
    for fit in found:
        device = fit.board.device
        needs = fit.needs or {"LUT": 0, "DSP": 0, "RAM": 0}
        shares = [
            f"{100 * needs['LUT'] / device.lut:.0f} %",
            f"{needs['DSP']}/{device.dsp}",
            f"{needs['RAM']}/{device.ram}",
        ]
        speed = ["", ""]
        if fit.plan is not None:
            speed = [str(fit.plan.interval), f"{float(f'{fit.vectors_per_second:.3g}'):.0f}"]  # 46900, not 4.69e+04
        table.add_row(fit.board.key, *shares, f"{fit.board.clock_mhz:g}", *speed, fit.how)
    return table


def sweeps(weights, activations):
    """SQNR, and accuracy where it is known, at other bits. Both: [sweep.Point]."""
    accuracy = weights[0].accuracy is not None
    title = "Other bits, formats from the calibration data"
    table = Table(title, "bits of", ">bits", ">SQNR dB", *([">accuracy"] if accuracy else []))
    for name, points in (("weights", weights), ("activations", activations)):
        for p in points:
            row = [name, str(p.bits), f"{p.sqnr:.1f}"]
            table.add_row(*row, *([f"{100 * p.accuracy:.2f} %"] if accuracy else []))
        table.add_section()
    return table


def searched(network, found):
    """Bits of each factor's weights as `search` found them."""
    table = Table("Mixed precision", "stage", ">weights", ">bits", ">ROM bits")
    names = [(f"{layer.name}:{m}", p) for layer in network.layers for m, p in enumerate(layer.chain.patterns)]
    for (name, pattern), bits in zip(names, found.bits):
        table.add_row(name, str(pattern.weights), str(bits), str(pattern.weights * bits))
    table.add_section()
    table.add_row("all", str(sum(p.weights for _, p in names)), "", str(found.rom_bits), total=True)
    share = f"{found.multipliers:g} multipliers for a product a cycle in every factor"
    uniform = "no uniform width fits" if found.uniform is None else "uniform {} bits: {:.1f} dB".format(*found.uniform)
    table.caption = f"SQNR {found.sqnr:.1f} dB ({uniform}); {share}"
    return table
