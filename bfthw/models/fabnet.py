"""The FBfly block of FABNet (Fan et al., MICRO 2022, section III): a Fourier transform in the place of attention."""

from typing import Any

import numpy as np

from ..fourier import fourier, reversed_digits
from ..graph import INPUT
from ..network import Layer, Network
from ..nodes import Rearrange
from .build import Build, ones


def fbfly(
    channels: int = 256, steps: int = 128, *, widening: int = 4, act: str = "relu", seed: int = 0, **fusion: Any
) -> Network:
    """A sequence (steps, 1, channels): plus the real part of its transform over channels and steps (FNet: Lee-Thorp et
    al., 2022), then plus a butterfly to `widening` times the channels and one back. The transforms are divided by the
    root of their length; batch norms, folded, stand where the paper has layer norms.
    """
    b = Build((steps, 1, channels), seed, **{"fusion": "bft", "residual": None, **fusion})
    y = b.add(Layer(name="hidden", inputs=(INPUT,), chain=fourier(channels, b.base)))
    pairs = np.arange(steps * channels * 2).reshape(steps, channels, 2)
    y = b.add(Rearrange(name="across", inputs=(y,), index=pairs.transpose(1, 2, 0).ravel(), size=(channels, 1)))
    y = b.add(Layer(name="sequence", inputs=(y,), chain=fourier(steps, b.base, real_in=False, real_out=True)))
    # back to steps and channels, both in the order of their frequencies
    back, places = np.empty((steps, channels), np.int64), np.arange(steps * channels).reshape(channels, -1).T
    back[np.ix_(reversed_digits(steps, b.base), reversed_digits(channels, b.base))] = places
    y = b.add(Rearrange(name="back", inputs=(y,), index=back.ravel(), size=(steps, 1)))
    scale, bias = b.rng.uniform(0.5, 1.5, channels), b.rng.normal(0, 0.1, channels)
    norm = {"scale": scale, "add_scale": scale, "bias": bias}
    x = b.add(Layer(name="mixed", inputs=(y, INPUT), chain=ones(channels), **norm))
    b.conv("narrow", b.conv("wide", x, widening * channels, fuse=True, act=act), channels, fuse=True, act=None, add=x)
    return b.network()
