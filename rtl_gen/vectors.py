"""Vectors to play to a core, how they lie in frames, and elements in the bytes of TDATA."""

import numpy as np


def random_vectors(network, count, seed):
    """Integers (count, inputs) over the whole input range: its corners first, then random ones."""
    rng = np.random.default_rng(seed)
    lo, hi, n = network.input.lo, network.input.hi, network.inputs
    corners = np.array([np.full(n, hi), np.full(n, lo), np.zeros(n, int), np.resize([lo, hi], n)])
    return np.concatenate([corners, rng.integers(lo, hi + 1, (count, n))])[:count]


def answers(network, vectors):
    """What a network gives for frames (N, elements), an image's elements in one row: (N, outputs), likewise."""
    return network(vectors.reshape(len(vectors), *network.shape.dims)).reshape(len(vectors), -1)


def interleave(vectors, together):
    """Vectors (N, n) to frames (ceil(N/E), n * E), E = `together`: element i of vector e of a frame is i * E + e.

    Zeros fill the last frame.
    """
    count, size = vectors.shape
    padded = np.zeros((-(-count // together) * together, size), vectors.dtype)
    padded[:count] = vectors
    return padded.reshape(-1, together, size).swapaxes(1, 2).reshape(-1, size * together)


def separate(frames, together):
    """The inverse: vectors (N, n), those that filled the last frame among them."""
    count, size = frames.shape
    return frames.reshape(count, size // together, together).swapaxes(1, 2).reshape(-1, size // together)


def pack(values, lane_bytes):
    """int64 to the low `lane_bytes` bytes of each, uint8 (values, lane_bytes)."""
    return np.ascontiguousarray(values, "<i8").view(np.uint8).reshape(-1, 8)[:, :lane_bytes]


def unpack(raw, lane_bytes, signed=True):
    """The inverse of `pack`, of bytes in one dimension: extended to int64, with the sign, or zeros where there is none.
    """
    wide = np.zeros((len(raw) // lane_bytes, 8), np.uint8)
    wide[:, :lane_bytes] = raw.reshape(-1, lane_bytes)
    shift = 64 - 8 * lane_bytes
    return wide.view("<i8").ravel() << shift >> shift if signed else wide.view("<i8").ravel()
