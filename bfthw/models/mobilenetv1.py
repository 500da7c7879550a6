"""MobileNetV1 (Howard et al., "MobileNets", 2017, table 1): depthwise 3x3, then pointwise, thirteen times."""

from ..graph import INPUT
from .build import Build, channels

# outputs and stride of each pair
BODY = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def network(width, resolution, classes, seed, **fusion):
    b = Build((resolution, resolution, 3), seed, **fusion)
    x = b.conv("conv1", INPUT, channels(32, width), 3, stride=2)
    for i, (count, stride) in enumerate(BODY, 1):
        x = b.conv(f"depthwise{i}", x, b.channels(x), 3, stride=stride, depthwise=True)
        x = b.conv(f"pointwise{i}", x, channels(count, width), fuse=True)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()
