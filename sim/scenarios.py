"""What is played to a core: vectors, frames of right and wrong length, stalls, resets."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Frames to play, the vectors that the core should see in them, and which of those are marked as wrong."""

    name: str
    frames: list
    vectors: np.ndarray
    wrong: np.ndarray
    stall: float = 0.0
    seed: int = 0
    reset: bool = True
    cut: int | None = None  # stop after so many cycles, outputs unchecked
    watch: bool = False
    check_time: bool = False

    def beats(self, lanes):
        data = np.concatenate([frame.reshape(-1, lanes) for frame in self.frames])
        last = np.concatenate([np.arange(len(frame) // lanes) == len(frame) // lanes - 1 for frame in self.frames])
        return data, last.astype(np.uint8)


def whole(vectors, **rest):
    """A scenario of one right frame a vector."""
    return Scenario(frames=list(vectors), vectors=vectors, wrong=np.zeros(len(vectors), bool), **rest)


def wrong_frames(vectors, lanes, rng, **rest):
    """A scenario in which every other frame is too short or too long, by any number of beats."""
    frames, seen, wrong = [], [], []
    for n, vector in enumerate(vectors):
        beats = len(vector) // lanes
        kind = rng.integers(3) if n % 2 else 0
        if kind == 1 and beats > 1:
            cut = int(rng.integers(1, beats)) * lanes
            frames.append(vector[:cut])
            seen.append(np.where(np.arange(len(vector)) < cut, vector, 0))
        elif kind:
            extra = int(rng.integers(1, beats + 2)) * lanes
            frames.append(np.concatenate([vector, rng.permutation(np.resize(vector, extra))]))
            seen.append(vector)
        else:
            frames.append(vector)
            seen.append(vector)
        wrong.append(bool(kind))
    return Scenario(frames=frames, vectors=np.array(seen), wrong=np.array(wrong), **rest)


def random_vectors(network, count, seed):
    """Integers (count, inputs) over the whole input range: its corners first, then random ones."""
    rng = np.random.default_rng(seed)
    lo, hi, n = network.input.lo, network.input.hi, network.inputs
    corners = np.array([np.full(n, hi), np.full(n, lo), np.zeros(n, int), np.resize([lo, hi], n)])
    return np.concatenate([corners, rng.integers(lo, hi + 1, (count, n))])[:count]


def to_integers(network, x):
    """Vectors (N, inputs): integers as they are, floats through the input format; ValueError for anything else."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != network.inputs or not len(x):
        raise ValueError(f"input vectors must have shape (N, {network.inputs}), got {x.shape}")
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise ValueError("input vectors must be finite, found NaN or infinity")
        return network.input.quantise(x)
    return network.input.check(x, "input vectors")
