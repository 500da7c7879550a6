"""Two products a multiplier: of one input and the weights of two neighbouring rows, exactly."""

from amaranth.hdl import Cat, Mux, Signal

from ..signals import delay
from ..tech import technology
from .datapath import Datapath
from .words import LEAD


def pair_bits(target, x_width):
    """The most bits of weights with which two products of one input of `x_width` bits, its sign among them, fit a
    multiplier of a target.

    Two fit where one does not reach into the other: w_x + 2·w_w <= w + 1 on an operand of w bits.
    """
    return (technology(target).operand + 1 - x_width) // 2


def check_pairs(factors, arithmetic, target):
    """ValueError that says why two products do not fit a multiplier, and what would."""
    a = arithmetic
    odd = next((f.pattern for f in factors if f.pattern.c % 2), None)
    if odd:
        raise ValueError(
            f"two products a multiplier (paired) need factors of even radix, whose rows are taken in pairs; {odd} has "
            f"radix {odd.c}; without paired they can be folded, and a settings file can make a layer pipelined"
        )
    x_width = a.x_width + (not a.x_shape.signed)
    if a.w_width > (widest := pair_bits(target, x_width)):
        raise ValueError(
            f"two products a multiplier: inputs of {x_width} and weights of {a.w_width} bits do not fit an operand "
            f"of {technology(target).operand}; weights of {widest} bits would"
            + ("" if widest > 1 else ", with narrower inputs")
        )
    for f in factors:
        if f.values.min() == -(1 << (a.w_width - 1)):
            raise ValueError(
                f"two products a multiplier: weights must be symmetric, found {f.values.min()} in {a.w_width} bits; "
                f"{f.values.min() + 1} is the least that fits"
            )


def in_pairs(table):
    """Weights int64 (rows, radix) of a row a turn, in pairs: of rows 2r and 2r+1 first one half of the operands, then
    the other, the lower of two weights first; the upper one is less by one where the lower is negative, which borrows
    from it.
    """
    radix = table.shape[1]
    pairs = table.reshape(-1, 2, 2, radix // 2).transpose(0, 2, 3, 1).copy()  # (pair of rows, half, q, row)
    pairs[..., 1] -= pairs[..., 0] < 0
    return pairs.reshape(-1, radix)


def build_pairs(m, engine, operands, word, half, turn, x0):
    """[vector] of outputs and whether they were clipped, `depth` cycles after their turn.

    operands: [vector][q], as they are without pairs; word: weights of a turn; half: which half, LEAD cycles ahead of
    the operands, as is turn; x0: [vector] of the residual, or None.
    """
    s, a = engine, engine.arithmetic
    w, apart = a.w_width, technology(s.target).operand - a.w_width
    ws = [[]]
    for q in range(s.simd):
        low, high = word[2 * q * w :][:w], word[(2 * q + 1) * w :][:w]
        ws[0].append(Cat(low, low[-1].replicate(apart - w), high).as_signed())
    second = delay(m, half, LEAD, "half")
    operands = [[Mux(second, row[s.simd + q], row[q]) for q in range(s.simd)] for row in operands]
    operands = [[_shaped(m, value, a.x_shape) for value in row] for row in operands]
    path = Datapath(a, lanes=2, paired=apart, vectors=s.vectors, target=s.target, lut=s.lut)
    if x0:
        # the first of two rows waits for its neighbour
        x0 = [[delay(m, value, 1, f"residual_first{e}") for e, value in enumerate(x0)], x0]
    outputs, clips = path.build(m, [operands], ws, take=turn & half, busy=turn, first=~half, x0=x0, x0_lead=0)
    # both leave the datapath together, the second row's output a cycle later
    odd = delay(m, half, s.depth, "odd")
    one, two = outputs[: s.vectors], outputs[s.vectors :]
    kept = [delay(m, value, 1, f"second{e}") for e, value in enumerate(two)]
    late = [delay(m, clip, 1, f"second_clips{e}") for e, clip in enumerate(clips[s.vectors :])]
    clips = [Mux(odd, b, a) for a, b in zip(clips, late)]
    return [Mux(odd, b, a) for a, b in zip(one, kept)], clips


def _shaped(m, value, shape):
    result = Signal(shape)
    m.d.comb += result.eq(value)
    return result


def pairs_cost(tally, engine):
    """Operands of one half or the other, and two outputs that leave one after the other."""
    bits = engine.vectors * engine.factor.output.width
    tally.add(engine.simd * engine.vectors * engine.arithmetic.x_width + bits, bits + LEAD + engine.depth)
