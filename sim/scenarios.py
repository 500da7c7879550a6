"""What is played to a core: vectors, frames of right and wrong length, stalls, resets."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Frames to play, the vectors that the core should see in them, and which of the frames are marked as wrong.

    Where E vectors share a frame, zeros fill the last one: `vectors` has them too, `count` is without them.
    """

    name: str
    frames: list
    vectors: np.ndarray
    count: int
    wrong: np.ndarray
    stall: float = 0.0
    seed: int = 0
    reset: bool = True
    cut: int | None = None  # stop after so many cycles, outputs unchecked
    check_time: bool = False
    tlast: float | None = None  # probability of TLAST on any beat, for cores that count them; None: at frames' ends

    def beats(self, elements):
        """Data (beats, elements) and TLAST (beats,)."""
        data = np.concatenate(self.frames).reshape(-1, elements)
        if self.tlast is not None:
            return data, (np.random.default_rng(self.seed).random(len(data)) < self.tlast).astype(np.uint8)
        last = [np.arange(len(frame) // elements) == len(frame) // elements - 1 for frame in self.frames]
        return data, np.concatenate(last).astype(np.uint8)


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


def whole(vectors, together, **rest):
    """A scenario of right frames, so many vectors together in each."""
    frames = interleave(vectors, together)
    wrong = np.zeros(len(frames), bool)
    return Scenario(frames=list(frames), vectors=separate(frames, together), count=len(vectors), wrong=wrong, **rest)


def wrong_frames(vectors, together, lanes, rng, **rest):
    """A scenario in which every other frame is too short or too long, by any number of beats."""
    frames, seen, wrong, width = [], [], [], lanes * together
    for n, frame in enumerate(interleave(vectors, together)):
        beats = len(frame) // width
        kind = rng.integers(3) if n % 2 else 0
        sent = arrived = frame
        if kind == 1 and beats > 1:
            sent = frame[: int(rng.integers(1, beats)) * width]
            arrived = np.where(np.arange(len(frame)) < len(sent), frame, 0)
        elif kind:
            extra = int(rng.integers(1, beats + 2)) * width
            sent = np.concatenate([frame, rng.permutation(np.resize(frame, extra))])
        frames.append(sent)
        seen.append(arrived)
        wrong.append(bool(kind))
    vectors_seen = separate(np.array(seen), together)
    return Scenario(frames=frames, vectors=vectors_seen, count=len(vectors), wrong=np.array(wrong), **rest)


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
