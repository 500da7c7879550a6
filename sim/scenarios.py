"""What is played to a core: vectors, frames of right and wrong length, stalls, resets."""

from dataclasses import dataclass
from math import prod

import numpy as np

from rtl_gen.vectors import interleave, separate


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


def to_integers(x, inputs, q_format, what="input vectors"):
    """Vectors (N, inputs), or maps of as many elements, to vectors: integers as they are, floats through the input
    format; ValueError for anything else.
    """
    x = np.asarray(x)
    if x.ndim < 2 or not len(x) or prod(x.shape[1:]) != inputs:
        raise ValueError(f"{what} must have shape (N, {inputs}), got {x.shape}")
    x = x.reshape(len(x), inputs)
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise ValueError(f"{what} must be finite, found NaN or infinity")
        return q_format.quantise(x)
    return q_format.check(x, what)
