"""NAME_tb.v: a self-checking testbench in plain Verilog; what it does stands in bench.v."""

from pathlib import Path

import numpy as np

from ..engines.tiled.code import FLASH
from ..memories import SUFFIX
from ..top import lane_bytes
from ..vectors import answers, interleave, pack, random_vectors
from .fill import fill
from .ports import declarations, instance, ports

TEMPLATE = Path(__file__).with_name("bench.v")
SEED = 0
MOST = 40_000  # elements of all frames, in and out, where five frames have no more
ROW = 256  # bits of a row of beats


def bench(plan, name, primitives):
    """Text of NAME_tb.v; primitives: whether NAME_models.v is needed too."""
    found, q, e = ports(plan), plan.network, plan.vectors
    frames = int(np.clip(MOST // (e * (q.inputs + q.outputs)), 5, 16))
    x = random_vectors(q, frames * e, SEED)
    # the fifth frame again, without what is missing where it is cut
    short = plan.beats_in // 2
    cut = x[4 * e : 5 * e].copy()
    cut[:, short * plan.lanes_in :] = 0
    y = answers(q, np.concatenate([x, cut]))
    wide_in, x_rows = rows(interleave(x, e), lane_bytes(q.input.width), plan.lanes_in * e)
    wide_out, y_rows = rows(interleave(y, e), lane_bytes(q.output.width), plan.lanes_out * e)
    parameters = {
        "FRAMES": (frames, "for which there are vectors"),
        "BEATS_IN": (plan.beats_in, "of a frame"),
        "BEATS_OUT": (plan.beats_out, ""),
        "WIDE_IN": (wide_in, "bits of a beat"),
        "WIDE_OUT": (wide_out, ""),
        "PER_IN": (max(1, ROW // wide_in), "beats of a row of vectors"),
        "PER_OUT": (max(1, ROW // wide_out), ""),
        "SHORT": (short, "beats of a frame that is cut short, 0: of one beat nothing can be cut"),
        "FRAMING": (int(not plan.count_beats), "whether TLAST ends a frame, and it may be wrong"),
        "LATENCY": (plan.latency, "cycles from the first beat in to the first beat out"),
        "EXACT": (int(not plan.over_maps), "whether that is the latency, or the least"),
        "INTERVAL": (plan.interval, "cycles from frame to frame"),
    }
    signals = declarations(found, lambda port: "reg " if port.is_input and port.name not in plan.outside else "wire")
    return fill(
        TEMPLATE,
        NAME=name,
        SEED=str(SEED),
        SOURCES=f"{name}_tb.v {name}.v{f' {name}_models.v' * primitives}",
        PARAMETERS="\n".join(
            f"    localparam {key} = {value};{f' // {said}' if said else ''}"
            for key, (value, said) in parameters.items()
        ),
        SIGNALS="\n".join(f"    {line}{' = 0' if line.startswith('reg') else ''};" for line in signals),
        CORE="\n".join(f"    {line}" for line in [*instance(name, found, "core"), *flash(plan, name)]),
        VECTORS="\n".join(
            f"        {memory}[{n}] = {row};"
            for memory, lines in (("x", x_rows), ("y", y_rows))
            for n, row in enumerate(lines)
        ),
    )


def flash(plan, name):
    """Lines of an instance of a flash, where the core has pins for one."""
    if not plan.outside:
        return []
    size = len(plan.engines[0].code.flash)
    return [
        f'spi_flash #(.FIRST({FLASH}), .BYTES({size}), .FILE("{name}.flash{SUFFIX}")) flash (',
        "    .select(flash_select), .clock(flash_clock), .in(flash_out), .out(flash_in)",
        ");",
    ]


def rows(values, size, lanes):
    """(bits of a beat, literals of the rows) of frames of elements, each in `size` bytes, `lanes` a beat."""
    wide = 8 * size * lanes
    beats = pack(values, size).reshape(-1, wide // 8)
    per = max(1, ROW // wide)
    padded = np.zeros((-(-len(beats) // per) * per, wide // 8), np.uint8)
    padded[: len(beats)] = beats
    return wide, [f"{per * wide}'h{row[::-1].tobytes().hex()}" for row in padded.reshape(-1, per * wide // 8)]
