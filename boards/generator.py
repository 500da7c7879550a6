"""Frames that board and host both make, to measure: bits of PRBS31 (ITU-T O.150, x^31 + x^28 + 1), not inverted."""

import numpy as np

from rtl_gen import vectors

STATE, NEAR = 31, 28  # s[n] = s[n - 31] ^ s[n - 28]
SEED = [0x42465421 >> n & 1 for n in range(STATE)]  # the first bits
AT_ONCE = 1 << 18  # bytes of a block of frames


def following(bits, count):
    """The first `count` bits of the sequence that begins with STATE of them; whatever has ^ will do as a bit."""
    bits = list(bits)
    while len(bits) < count:
        bits.append(bits[-STATE] ^ bits[-NEAR])
    return bits[:count]


def sequence(bits, count):
    """`following` as an array, uint8, in time that grows with `count` alone."""
    found, done, step = np.zeros(max(count, STATE), np.uint8), STATE, 1
    found[:STATE] = bits[:STATE]
    while done < count:
        # the square of a polynomial over GF(2) has every exponent doubled, so the sequence obeys that recurrence too
        while 2 * step * STATE <= done:
            step *= 2
        new = found[done : done + step * NEAR]
        far, near = (found[done - step * lag :][: len(new)] for lag in (STATE, NEAR))
        new[:] = far ^ near
        done += len(new)
    return found[:count]


def generated(count, side):
    """Yield the first `count` frames for a frames.Side in blocks, integers (some, elements).

    Each number has as many bytes of the sequence as on the line, the first bit the lowest; those of its width count.
    """
    bits, size = SEED, 8 * side.frame_bytes
    some = max(1, AT_ONCE // side.frame_bytes)
    for first in range(0, count, some):
        number = min(some, count - first)
        block = sequence(bits, number * size + STATE)
        bits = block[number * size :]
        raw = vectors.unpack(np.packbits(block[: number * size], bitorder="little"), side.lane_bytes, signed=False)
        low = raw & ((1 << side.width) - 1)
        negative = side.signed & (low >> (side.width - 1)).astype(bool)
        yield np.where(negative, low - (1 << side.width), low).reshape(number, side.elements)
