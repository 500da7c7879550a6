"""MobileNetV1 (Howard et al., "MobileNets", 2017, table 1): depthwise 3x3, then pointwise, thirteen times."""

from .nodes import Conv, Pool, channels

# outputs and stride of each pair
BODY = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def nodes(width, resolution, classes, **fusion):
    size, n = -(-resolution // 2), channels(32, width)
    yield Conv(name="conv1", inputs=3, outputs=n, kernel=3, stride=2, size=size)
    for i, (count, stride) in enumerate(BODY, 1):
        m, size = channels(count, width), -(-size // stride)
        yield Conv(name=f"depthwise{i}", inputs=n, outputs=n, kernel=3, stride=stride, groups=n, size=size)
        yield Conv(name=f"pointwise{i}", inputs=n, outputs=m, size=size, **fusion)
        n = m
    yield Pool("average")
    yield Conv(name="classes", inputs=n, outputs=classes, norm=False, bias=True, act=None)
