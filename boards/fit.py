"""Which boards a network fits, and how: estimates, from the specification alone, nothing is built.

Multipliers are exact. Block RAMs follow from the memories and the shapes a block RAM can have. Tables (LUT) are

    900 + sum over stages of (150 + 1.7 * lanes * (acc_width + output width + (simd - 1) * dot_width [+ dot_width]))

the last term where a dot product takes several cycles, 900 for the shell; where the device has no multipliers, 1.4
tables for each product of two bits beside. The factors were fitted to what Yosys makes of cores for iCE40 (see
tests/test_fit.py).
"""

from dataclasses import dataclass

from rtl_gen import NetworkSpec, fitting_lanes

SHELL_LUT, STAGE_LUT, BIT_LUT, PRODUCT_LUT = 900, 150, 1.7, 1.4
SHELL_MEMORIES = ((512, 8), (256, 8), (64, 8))  # payload, COBS block, info
# (words, bits) that a block RAM can be
SHAPES = {
    4096: ((256, 16), (512, 8), (1024, 4), (2048, 2)),
    18432: ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
}
SMALL = 64  # bits; smaller memories become flip-flops


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A board and the fastest parallelism of those tried that it has room for, or None. needs: resource → estimate."""

    board: object
    spec: NetworkSpec | None
    needs: dict
    how: str

    @property
    def vectors_per_second(self):
        """Of the core at the board's clock; the serial line is slower."""
        return self.board.clock_mhz * 1e6 / self.spec.interval


def memories(spec):
    """(words, bits) of every memory of a core."""
    for s in spec.stages:
        f = s.factor
        yield s.blocks * s.issues, s.lanes * s.simd * f.weights.width
        extra = s.rom_bits - s.pattern.weights * f.weights.width
        if extra:
            yield s.beats_out, extra // s.beats_out
        for _ in range(s.banks):
            yield s.slots * s.words * s.rows, s.lanes * f.input.width
    for layer, depth in zip(spec.layers, spec.skip_depths):
        if depth:
            yield depth, max(layer[0].lanes, layer[-1].lanes) * layer[0].factor.input.width
    last = spec.stages[-1]
    yield last.depth + 4, last.lanes * last.factor.output.width


def block_rams(words, bits, size):
    """Block RAMs of `size` bits that a memory takes, in the shape that takes fewest."""
    return min(-(-words // depth) * -(-bits // width) for depth, width in SHAPES[size])


def estimate(spec, device):
    """Resource → estimated number, the shell included."""
    datapath = sum(
        s.lanes * (s.factor.acc_width + s.factor.output.width + (s.simd - 1 + (s.steps > 1)) * s.factor.dot_width)
        for s in spec.stages
    )
    lut = SHELL_LUT + STAGE_LUT * len(spec.stages) + BIT_LUT * datapath
    if not device.dsp:
        lut += PRODUCT_LUT * sum(s.multipliers * s.factor.input.width * s.factor.weights.width for s in spec.stages)
    found = [*memories(spec), *SHELL_MEMORIES]
    ram = sum(block_rams(words, bits, device.ram_bits) for words, bits in found if words * bits >= SMALL)
    return {"LUT": round(lut), "DSP": spec.multipliers if device.dsp else 0, "RAM": ram}


def choices(network):
    """(how, NetworkSpec), the fastest first: all lanes that every factor can have, then fewer products a cycle."""
    common = set.intersection(*(set(fitting_lanes(f.pattern)) for f in network.factors))
    for lanes in sorted(common, reverse=True):
        if lanes <= 64:
            yield f"--lanes {lanes}", NetworkSpec(network=network, lanes=(lanes,) * len(network.factors))
    divides_all = [simd for simd in (4, 2, 1) if all(f.pattern.c % simd == 0 for f in network.factors)]
    for simd in divides_all:
        yield f"--simd {simd}", NetworkSpec(network=network, simd=(simd,) * len(network.factors))


def fit(network, board):
    """The Fit of an IntNetwork to a Board of the table; where nothing fits, the needs of the smallest choice."""
    for how, spec in sorted(choices(network), key=lambda choice: choice[1].interval):
        needs = estimate(spec, board.device)
        if all(number <= board.device.available[resource] for resource, number in needs.items()):
            return Fit(board=board, spec=spec, needs=needs, how=how)
    short = ", ".join(
        f"{r} {n} of {board.device.available[r]}" for r, n in needs.items() if n > board.device.available[r]
    )
    return Fit(board=board, spec=None, needs=needs, how=f"does not fit: {short}")
