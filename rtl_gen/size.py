"""How large a core would be, by the sizes in its specification alone; what is too large is refused before it is made.

Measured (2 cores, Python 3.11): Verilog of 8,000 parts, multipliers and elements of beats, is 8 MB and takes half a
minute and 1 GB, of 12,000 more than four minutes. A spatial block of 1,500 signed digits is solved in most of a
minute, one of 3,000 in more than two; smaller blocks go faster than in proportion.
"""

import numpy as np

from .manifest import MOST
from .sharing import digits

PARTS = 8192  # multipliers, weights in logic, elements that enter or leave an engine in a cycle
PART_BYTES = 1100  # of Verilog
WORDS = 1 << 20  # of ROMs and buffers
WORK = 1500  # signed digits of spatial blocks, small blocks counted less
SMALL = 150  # digits of a block from which on the time is in proportion
CELLS, DIGIT_CELLS = 32_000, 8  # of a spatial engine's carry chains, in all and for each digit


def check_size(spec):
    """ValueError where a NetworkSpec is too large to be built in reasonable time: its size, and what would work."""
    if why := too_large(spec):
        raise ValueError(f"too large to be built in reasonable time: {why}")


def too_large(spec):
    """Its size and what would work instead, as text; empty where a NetworkSpec can be built."""
    parts = words = 0
    if len(spec.network.factors) > MOST:
        return f"{len(spec.network.factors)} factors, {MOST} are the limit"
    for _, start, stop, _ in spec.groups:
        engine, shapes = spec.engines[start], [f.pattern for f in spec.network.factors[start:stop]]
        if engine == "spatial":
            products, elements = shapes[0].weights, shapes[0].inputs + shapes[0].outputs
        else:
            lanes = 1 if engine == "folded" else spec.lanes[start]
            products, elements = lanes * max(spec.simd[start:stop]), 2 * lanes
            words += sum(p.weights // products + p.inputs + p.outputs for p in shapes)
        parts += spec.vectors * (products + elements)
    spatial = [f for f, engine in zip(spec.network.factors, spec.engines) if engine == "spatial"]
    if parts > PARTS:
        one, megabytes = parts // spec.vectors, parts * PART_BYTES / 1e6
        fewer = "--engine folded or pipelined is" if spatial else "fewer lanes are"
        cure = f"--vectors {PARTS // one} is the most that works" if one <= PARTS else f"{fewer} smaller"
        size = f"{parts} multipliers and elements of beats, {megabytes:.0f} MB of Verilog"
        return f"{size}, {PARTS} are the limit; {cure}"
    if words > WORDS:
        return f"{words} words of memories, {WORDS} are the limit; with more lanes, or a larger SIMD, they are fewer"
    counts = np.concatenate([_digits(f) for f in spatial]) if spatial else np.zeros(0)
    cells = spec.vectors * DIGIT_CELLS * int(counts.sum())
    if cells > CELLS or (counts * np.minimum(1, (counts / SMALL) ** 2)).sum() > WORK:
        weights = sum(f.pattern.weights for f in spatial)
        return (
            f"{weights} spatial weights of {int(counts.sum())} signed digits"
            f"{f' for each of {spec.vectors} vectors' * (spec.vectors > 1)}, some {cells} cells of adders; --engine "
            "folded or pipelined would work, as would weights of fewer bits"
        )
    return ""


def _digits(factor):
    """Signed digits of each block of a factor."""
    a, _, _, d = factor.values.shape
    return digits(factor.values).sum(axis=(1, 2)).reshape(a * d)
