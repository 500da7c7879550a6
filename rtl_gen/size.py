"""How large a core would be, by the sizes in its plan alone; what is too large is refused before it is made.

Measured (2 cores, Python 3.11): Verilog of 8,000 parts, multipliers and elements of beats, is 8 MB and takes half a
minute and 1 GB, of 12,000 more than four minutes. A spatial block of 1,500 signed digits is solved in most of a
minute, one of 3,000 in more than two; smaller blocks go faster than in proportion.
"""

import numpy as np

from .manifest import MOST

PARTS = 8192  # multipliers, weights in logic, elements that enter or leave an engine in a cycle
PART_BYTES = 1100  # of Verilog
WORDS = 1 << 20  # of ROMs and buffers
WORK = 1500  # signed digits of spatial blocks, small blocks counted less
SMALL = 150  # digits of a block from which on the time is in proportion
CELLS, DIGIT_CELLS = 32_000, 8  # of a spatial engine's carry chains, in all and for each digit


def check_size(plan):
    """ValueError where a Plan is too large to be built in reasonable time: its size, and what would work."""
    if why := too_large(plan):
        raise ValueError(f"too large to be built in reasonable time: {why}")


def too_large(plan):
    """Its size and what would work instead, as text; empty where a Plan can be built."""
    if len(plan.stages) > MOST:
        return f"{len(plan.stages)} factors, {MOST} are the limit"
    return too_large_engines(plan.drafts, plan.vectors)  # engines in a row need the depth of their adders


def too_large_engines(engines, vectors):
    """The same of engines alone, without what is between them: more of them are never smaller."""
    parts = vectors * sum(engine.parts for engine in engines)
    spatial = [engine for engine in engines if len(engine.digits)]
    if parts > PARTS:
        one, megabytes = parts // vectors, parts * PART_BYTES / 1e6
        fewer = "--engine folded or pipelined is" if spatial else "fewer lanes are"
        cure = f"--vectors {PARTS // one} is the most that works" if one <= PARTS else f"{fewer} smaller"
        size = f"{parts} multipliers and elements of beats, {megabytes:.0f} MB of Verilog"
        return f"{size}, {PARTS} are the limit; {cure}"
    words = sum(engine.words for engine in engines)
    if words > WORDS:
        return f"{words} words of memories, {WORDS} are the limit; with more lanes, or a larger SIMD, they are fewer"
    counts = np.concatenate([engine.digits for engine in engines])
    cells = vectors * DIGIT_CELLS * int(counts.sum())
    if cells > CELLS or (counts * np.minimum(1, (counts / SMALL) ** 2)).sum() > WORK:
        weights = sum(engine.pattern.weights for engine in spatial)
        return (
            f"{weights} spatial weights of {int(counts.sum())} signed digits"
            f"{f' for each of {vectors} vectors' * (vectors > 1)}, some {cells} cells of adders; --engine "
            "folded or pipelined would work, as would weights of fewer bits"
        )
    return ""
