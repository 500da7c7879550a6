"""Small networks: those of MLPerf Tiny, and ones for 28x28 pixels and for series."""

from collections.abc import Iterable
from typing import Any

from ..graph import INPUT
from ..network import Network
from .build import Build, Rule, channels


def resnet8(classes: int = 10, *, width: float = 1.0, seed: int = 0, **fusion: Any) -> Network:
    """ResNet8 of MLPerf Tiny (Banbury et al., 2021): 32x32x3, three stacks of two 3x3 convolutions, 16, 32, 64."""
    b = Build((32, 32, 3), seed, **fusion)
    n = channels(16, width)
    x = b.conv("conv1", INPUT, n, 3)
    for i, stride in enumerate((1, 2, 2), 1):
        m, skip = n * 2 ** (i - 1), x
        y = b.conv(f"stack{i}.conv1", x, m, 3, stride=stride)
        if stride > 1:
            skip = b.conv(f"stack{i}.skip", x, m, 1, stride=stride, padding=0, norm=False, act=None)
        x = b.conv(f"stack{i}.conv2", y, m, 3, add=skip)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()


def dscnn(classes: int = 12, *, width: float = 1.0, seed: int = 0, **fusion: Any) -> Network:
    """DS-CNN of MLPerf Tiny: 49x10 numbers of a second of speech, 10x4 s2, four depthwise-separable layers of 64."""
    b = Build((49, 10, 1), seed, **fusion)
    n = channels(64, width)
    x = b.conv("conv1", INPUT, n, (10, 4), stride=2, padding=(4, 1, 5, 1))
    for i in range(1, 5):
        x = b.conv(f"depthwise{i}", x, n, 3, depthwise=True)
        x = b.conv(f"pointwise{i}", x, n, fuse=True)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()


def separable28(
    first: int = 16, stride: int = 2, blocks: Iterable[tuple[int, int]] = ((64, 2), (64, 1)), classes: int = 10, *,
    seed: int = 0, **fusion: Any,
) -> Network:
    """28x28x1: a 3x3 convolution of `first` channels and a stride, then depthwise-separable (channels, stride)."""
    b = Build((28, 28, 1), seed, **fusion)
    x = b.conv("conv1", INPUT, first, 3, stride=stride)
    for i, (m, stride) in enumerate(blocks, 1):
        x = b.conv(f"depthwise{i}", x, b.channels(x), 3, stride=stride, depthwise=True)
        x = b.conv(f"pointwise{i}", x, m, fuse=True)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()


def inverted28(
    first: int = 16, stride: int = 2, blocks: Iterable[tuple[int, int]] = ((32, 1), (32, 1), (64, 2), (64, 1)),
    last: int = 256, classes: int = 10, *, widening: int = 4, seed: int = 0, **fusion: Any,
) -> Network:
    """28x28x1: a 3x3 convolution, then inverted residuals as in MobileNetV2 (Sandler et al., CVPR 2018, figure 3).

    first, stride: of that convolution. blocks: (channels, stride) of each: `widening` times as many channels, depthwise
    3x3, as many as said, without an activation, and where the map stays what it was, plus what went in. last: channels
    of the layer before the mean.
    """
    b = Build((28, 28, 1), seed, **{"fusion": "bft", "residual": None, **fusion})
    x = b.conv("conv1", INPUT, first, 3, stride=stride)
    for i, (m, stride) in enumerate(blocks, 1):
        n = b.channels(x)
        y = b.conv(f"widen{i}", x, widening * n, fuse=True)
        y = b.conv(f"depthwise{i}", y, widening * n, 3, stride=stride, depthwise=True)
        x = b.conv(f"narrow{i}", y, m, fuse=True, act=None, add=x if (n, 1) == (m, stride) else None)
    b.conv("classes", b.mean("average", b.conv("last", x, last, fuse=True)), classes, norm=False, act=None)
    return b.network()


def net_h(**how: Any) -> Network:
    """16 channels of stride 2, then 64 of stride 2 and 64: 0.127 M products with butterflies."""
    return separable28(**{"fusion": "bft", **how})


def net_c(**how: Any) -> Network:
    """32 channels of stride 1, then 64, 128 of stride 2, 128 and 128: 2.52 M products with butterflies."""
    return separable28(32, 1, ((64, 1), (128, 2), (128, 1), (128, 1)), **{"fusion": "bft", **how})


def csc1d(
    classes: int = 7, *, steps: int = 100, axes: int = 6, width: int = 64, blocks: int = 3, seed: int = 0,
    fusion: str | Rule | None = "csc", **how: Any,
) -> Network:
    """A series of `steps` x `axes`: a convolution of 5 steps, stride 2, then depthwise ones and cyclic layers."""
    b = Build((1, steps, axes), seed, fusion=fusion, **how)
    x = b.conv("conv1", INPUT, width, (1, 5), stride=(1, 2))
    for i in range(1, blocks + 1):
        x = b.conv(f"depthwise{i}", x, width, (1, 5), depthwise=True)
        x = b.conv(f"pointwise{i}", x, width, fuse=True)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()
