"""The picture of docs/integration.md: the ports of a small core, cycle by cycle, recorded in a simulation of it."""

import numpy as np
from amaranth.sim import Simulator

import bfthw
import rtl_gen
from bfthw.chain import bft

PORTS = "aresetn s_axis_tvalid s_axis_tready s_axis_tdata s_axis_tlast".split()
PORTS += "m_axis_tvalid m_axis_tready m_axis_tdata m_axis_tlast m_axis_tuser frame_error".split()
RESET, WAIT = 2, range(50, 56)  # cycles in reset at first; cycles in which nothing is taken
PANELS = range(46), range(46, 92)
CELL, ROW, LEFT, TOP = 20, 24, 128, 60  # pixels: a cycle, a port, where the cycles begin, above the first port


def example():
    """(Plan, frames of TDATA) of the core in the picture: four inputs, one a beat; two frames are wrong."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(4, 4), seed=0))
    x = np.random.default_rng(0).uniform(-1, 1, (16, 4))
    settings = bfthw.make_settings(activation_bits=8, simd=1)
    integers = bfthw.compile(bfthw.Network(layers=(layer,)), settings=settings, calibration=x)
    frames = (integers.input.quantise(x) & 0xFF).tolist()
    frames[1], frames[3] = frames[1][:2], frames[3] + frames[0][:1]
    return rtl_gen.make_plan(integers, settings), frames


def record(plan, frames, cycles=PANELS[-1].stop):
    """Play frames without a pause; name of a port → its values, one a cycle."""
    top = rtl_gen.AxiStream(plan)
    beats = [(word, n == len(frame) - 1) for frame in frames for n, word in enumerate(frame)]
    seen, place = {name: [] for name in PORTS}, 0

    async def bench(ctx):
        nonlocal place
        for cycle in range(cycles):
            running = cycle >= RESET
            ctx.set(top.aresetn, running)
            ctx.set(top.s_axis_tvalid, running)
            ctx.set(top.s_axis_tdata, beats[place][0])
            ctx.set(top.s_axis_tlast, beats[place][1])
            ctx.set(top.m_axis_tready, running and cycle not in WAIT)
            for name, values in seen.items():
                values.append(int(ctx.get(getattr(top, name))))
            place += seen["s_axis_tvalid"][-1] & seen["s_axis_tready"][-1]
            for level in (1, 0):
                ctx.set(top.aclk, level)
                await ctx.delay(1e-6)

    simulator = Simulator(top)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def runs(values):
    """(value, first, after) of neighbours that are equal."""
    edges = [0, *(n for n in range(1, len(values)) if values[n] != values[n - 1]), len(values)]
    return [(values[a], a, b) for a, b in zip(edges, edges[1:])]


def moved(seen, side):
    """Cycles in which a beat passed at s_axis or m_axis."""
    return [n for n, both in enumerate(zip(seen[f"{side}_tvalid"], seen[f"{side}_tready"])) if all(both)]


def bit(values, y):
    """The line of a port of one bit."""
    steps = [f"{'L' if a else 'M'}{LEFT + a * CELL} {y + 16 - 12 * v}H{LEFT + b * CELL}" for v, a, b in runs(values)]
    return f'<path d="{"".join(steps)}" fill="none" stroke="#1f4e79" stroke-width="1.5"/>'


def words(seen, side, panel, y):
    """TDATA where it is valid, a box a beat however long it waits."""
    valid, passed, beats, beat = seen[f"{side}_tvalid"], set(moved(seen, side)), [], 0
    for cycle in range(panel.stop):
        beats.append((beat, seen[f"{side}_tdata"][cycle]) if valid[cycle] else None)
        beat += cycle in passed
    for found, a, b in runs(beats[panel.start :]):
        if found:
            x, width = LEFT + a * CELL, (b - a) * CELL
            box = f'x="{x + 0.5}" y="{y + 3}" width="{width - 1}" height="14" rx="3"'
            yield f'<rect {box} fill="#e6f1fb" stroke="#2d74b5"/>'
            yield f'<text x="{x + width / 2}" y="{y + 14}" text-anchor="middle">{found[1]:02x}</text>'


def notes(seen):
    """(port or "", first cycle, after the last, words) of what is pointed at, found in the record."""
    entered, left = moved(seen, "s_axis"), moved(seen, "m_axis")
    first, full = seen["m_axis_tvalid"].index(1), seen["s_axis_tready"].index(0, entered[0])
    yield "", entered[0], first, f"latency: {first - entered[0]} cycles"
    yield "s_axis_tready", full, seen["s_axis_tready"].index(1, full), "the core is full"
    short, long = (n for n in left if seen["m_axis_tuser"][n])
    yield "m_axis_tuser", short, short + 1, "its input was too short"
    yield "m_axis_tuser", long, long + 1, "its input was too long"
    early = next(n for place, n in enumerate(entered) if seen["s_axis_tlast"][n] and place % 4 != 3)
    yield "s_axis_tlast", early, early + 1, "too early"
    yield "m_axis_tready", WAIT[0], WAIT[-1] + 1, "the beat waits"


def pointed(a, b, y, text):
    """A box around a place of a port, the words beside it where there is room."""
    x, anchor = (b + 4, "start") if b < LEFT + CELL * len(PANELS[0]) - 130 else (a - 4, "end")
    yield f'<rect x="{a + 1}" y="{y + 1}" width="{b - a - 2}" height="18" rx="3" fill="none" stroke="#b5472d"/>'
    for look in ('stroke="#fff" stroke-width="3"', 'fill="#b5472d"'):  # what lies beneath is pushed aside
        yield f'<text x="{x}" y="{y + 14}" text-anchor="{anchor}" {look}>{text}</text>'


def draw_panel(seen, panel, bottom):
    """The lines of SVG of some cycles."""

    def x(cycle):
        return LEFT + (cycle - panel.start) * CELL

    for n in panel:
        yield f'<path d="M{x(n)} {TOP - 12}V{bottom}" stroke="#e3e3e3"/>'
        if n % 5 == 0:
            yield f'<text x="{x(n) + CELL / 2}" y="{TOP - 16}" text-anchor="middle" fill="#777">{n}</text>'
    rows = {name: TOP + row * ROW for row, name in enumerate(PORTS)}
    for name, y in rows.items():
        yield f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" font-size="12">{name}</text>'
        if name.endswith("tdata"):
            yield from words(seen, name[:6], panel, y)
        else:
            yield bit(seen[name][panel.start : panel.stop], y)
    for name, a, b, text in notes(seen):
        if a in panel and name:
            yield from pointed(x(a), x(b), rows[name], text)
        elif a in panel:
            yield f'<path d="M{x(a)} 34V20H{x(b)}V34" fill="none" stroke="#b5472d"/>'
            yield f'<text x="{(x(a) + x(b)) / 2}" y="15" text-anchor="middle" fill="#b5472d">{text}</text>'


def picture():
    """The SVG: the record's panels, one above the other."""
    seen, height, width = record(*example()), TOP + ROW * len(PORTS) + 8, LEFT + CELL * len(PANELS[0]) + 16
    size, font = f"{width} {height * len(PANELS)}", 'font-family="Helvetica, Arial, sans-serif" font-size="11"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {font} fill="#222">']
    lines.append(f'<rect width="{width}" height="{height * len(PANELS)}" fill="#fff"/>')
    for n, panel in enumerate(PANELS):
        lines += [f'<g transform="translate(0 {n * height})">', *draw_panel(seen, panel, height - 12), "</g>"]
    return "\n".join([*lines, "</svg>", ""])
