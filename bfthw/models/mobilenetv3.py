"""MobileNetV3-Small (Howard et al., ICCV 2019, table 2): inverted residuals with squeeze and excite and h-swish."""

from ..graph import INPUT
from ..nodes import Gate
from .build import Build, divisible

# kernel, expanded channels, outputs, squeeze and excite, activation, stride
BODY = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)


def network(width, resolution, classes, seed, **fusion):
    b, last = Build((resolution, resolution, 3), seed, **fusion), divisible(1024 * width)
    x = b.conv("conv1", INPUT, divisible(16 * width), 3, stride=2, act="hswish")
    for i, (kernel, expanded, outputs, excite, act, stride) in enumerate(BODY, 1):
        e, m, name, y = divisible(expanded * width), divisible(outputs * width), f"block{i}", x
        if expanded != 16:  # the first block does not expand
            y = b.conv(f"{name}.expand", y, e, act=act, fuse=True)
        y = b.conv(f"{name}.depthwise", y, e, kernel, stride=stride, depthwise=True, act=act)
        if excite:
            gate = b.conv(f"{name}.reduce", b.mean(f"{name}.mean", y), divisible(e / 4), norm=False)
            gate = b.conv(f"{name}.gate", gate, e, norm=False, act="hsigmoid")
            y = b.add(Gate(name=f"{name}.excite", inputs=(y, gate)))
        add = x if stride == 1 and b.channels(x) == m else None
        x = b.conv(f"{name}.project", y, m, act=None, fuse=True, add=add)
    x = b.conv("conv2", x, divisible(576 * width), act="hswish", fuse=True)
    x = b.conv("head", b.mean("average", x), last, norm=False, act="hswish")
    b.conv("classes", x, classes, norm=False, act=None)
    return b.network()
