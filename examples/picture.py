"""A butterfly and the core it becomes, docs/butterfly.svg: all lines and figures are those of a real chain and core."""

from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
from bfthw.chain import bft

WIDTH, HEIGHT = 960, 496
COLUMNS = 110, 480, 850  # of values: before, between and behind the factors
TOP, STEP = 62, 15  # of rows of values
COLOURS = "#2d74b5", "#c98a1b", "#3b8f4a", "#7d4bab"  # of blocks
MEMORY, LOGIC = 'fill="#fdf3e1" stroke="#c98a1b"', 'fill="#e6f1fb" stroke="#2d74b5"'
HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif">
  <rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>
  <defs>
    <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
      <path d="M0 0 L8 4 L0 8 z" fill="#444"/>
    </marker>
  </defs>
"""


def text(x, y, words, size=13, anchor="middle", more='fill="#222"'):
    return f'  <text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" {more}>{words}</text>\n'


def box(x, y, width, height, style):
    return f'  <rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" stroke-width="1.3" {style}/>\n'


def arrow(*points):
    way = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'  <path d="M{way}" fill="none" stroke="#444" stroke-width="1.4" marker-end="url(#tip)"/>\n'


def factor(f, left, right):
    """The lines of a factor, one for each weight; those that share inputs have a colour."""
    a, b, c, d = f.pattern.a, f.pattern.b, f.pattern.c, f.pattern.d
    weights = np.argwhere(f.dense())
    lines = ""
    for y, x in weights.tolist():
        block = (x // (c * d)) * d + x % d
        ends = f'x1="{left + 5}" y1="{TOP + STEP * x}" x2="{right - 5}" y2="{TOP + STEP * y}"'
        lines += f'  <line {ends} stroke="{COLOURS[block % len(COLOURS)]}" stroke-width="1" stroke-opacity="0.65"/>\n'
    title = f"{a * d} blocks of {b} × {c}: pattern ({a}, {b}, {c}, {d}), {len(weights)} weights"
    return lines + text((left + right) / 2, TOP - 22, title)


def engine(stage, middle, top):
    """An engine: the memory of its inputs, that of its weights, multipliers, their sum, rounding."""
    left = middle - 150
    drawn = box(left, top, 300, 128, 'fill="#f7f8fa" stroke="#9aa3ad"')
    drawn += box(left + 14, top + 14, 72, 52, MEMORY if stage.buffer_bits else LOGIC)
    drawn += text(left + 50, top + 36, "inputs", 12)
    drawn += text(left + 50, top + 54, f"{stage.buffer_bits} bits" if stage.buffer_bits else "registers", 11)
    drawn += box(left + 14, top + 80, 72, 38, MEMORY) + text(left + 50, top + 96, "weights", 12)
    drawn += text(left + 50, top + 111, f"{stage.rom_bits} bits", 11)
    for n in range(stage.multipliers):
        x, y = left + 134, top + 24 + 90 * n / max(1, stage.multipliers - 1) - 5
        drawn += arrow((left + 87, top + 40), (x - 13, y)) + arrow((left + 87, top + 99), (x - 13, y + 3))
        drawn += f'  <circle cx="{x}" cy="{y:g}" r="11" stroke-width="1.3" {LOGIC}/>\n' + text(x, y + 5, "×", 15)
        drawn += arrow((x + 12, y), (left + 183, top + 64))
    drawn += f'  <circle cx="{left + 196}" cy="{top + 64}" r="13" stroke-width="1.3" {LOGIC}/>\n'
    drawn += text(left + 196, top + 69, "Σ", 15) + arrow((left + 210, top + 64), (left + 225, top + 64))
    drawn += box(left + 227, top + 42, 62, 44, LOGIC) + text(left + 258, top + 61, "round,", 12)
    return drawn + text(left + 258, top + 77, "saturate", 12)


def picture():
    """The SVG's text."""
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(16, 4), seed=0), name="layer")
    network = bfthw.Network(layers=(layer,))
    plan = rtl_gen.make_plan(bfthw.compile(network), bfthw.make_settings())
    n, factors, grey = layer.chain.inputs, layer.chain.factors, 'fill="#555"'
    drawn = HEAD
    for f, left, right in zip(factors, COLUMNS, COLUMNS[1:]):
        drawn += factor(f, left, right)
    for column in COLUMNS:
        for row in range(n):
            drawn += f'  <circle cx="{column}" cy="{TOP + STEP * row}" r="4" fill="#444"/>\n'
    for row in range(n):
        drawn += text(COLUMNS[0] - 12, TOP + STEP * row + 4, f"x{row}", 11, "end", grey)
        drawn += text(COLUMNS[2] + 12, TOP + STEP * row + 4, f"y{row}", 11, "start", grey)
    top, ends = TOP + STEP * n + 16, []
    for stage, left, right in zip(plan.engines, COLUMNS, COLUMNS[1:]):
        drawn += engine(stage, (left + right) / 2, top)
        ends += (left + right) / 2 - 150, (left + right) / 2 + 150
    middle = top + 64
    drawn += arrow((ends[0] - 90, middle), (ends[0] - 2, middle)) + text(ends[0] - 50, middle - 10, "AXI4-Stream", 12)
    drawn += arrow((ends[1] + 2, middle), (ends[2] - 2, middle)) + arrow((ends[3] + 2, middle), (ends[3] + 90, middle))
    weights = layer.chain.weights
    line = (
        f"{n} channels: {weights} weights instead of {n * n}; an engine for each factor: "
        f"{plan.multipliers} multipliers, a vector every {plan.interval} cycles, the first out after {plan.latency}"
    )
    drawn += text(WIDTH / 2, top + 156, line, 13, more=grey)
    return drawn + "</svg>\n"


def write(path):
    Path(path).write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1] / "docs" / "butterfly.svg")
