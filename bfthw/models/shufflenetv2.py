"""ShuffleNetV2 (Ma et al., ECCV 2018, table 5 and figure 3), and the width 1.25 of the Butterfly Transform's paper.

That one has the channels 24 / 128 / 256 / 1024 and 1024 in conv5, so that all butterflies have powers of two; the
pointwise convolution on 24 channels stays dense (Alizadeh et al., CVPR 2020, section 4.1).
"""

from .nodes import Conv, Pool, Shuffle

# outputs of stages 2, 3 and 4, then of conv5
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.25: (128, 256, 1024, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPEATS = 4, 8, 4


def nodes(width, resolution, classes, **fusion):
    *stages, last = WIDTHS[width]
    size, n = -(-resolution // 4), 24
    yield Conv(name="conv1", inputs=3, outputs=n, kernel=3, stride=2, size=-(-resolution // 2))
    yield Pool("max")
    for s, (m, count) in enumerate(zip(stages, REPEATS), 2):
        for i in range(count):
            stride, h, before = 1 if i else 2, m // 2, size
            size = -(-size // stride)
            name, x = f"stage{s}.{i}", n if i == 0 else h
            first = {} if (s, i) == (2, 0) else fusion  # on the 24 channels
            left = (
                depthwise(f"{name}.left.depthwise", x, 2, size),
                Conv(name=f"{name}.left.pointwise", inputs=x, outputs=h, size=size, **first),
            )
            right = (
                Conv(name=f"{name}.right.pointwise1", inputs=x, outputs=h, size=before, **first),
                depthwise(f"{name}.right.depthwise", h, stride, size),
                Conv(name=f"{name}.right.pointwise2", inputs=h, outputs=h, size=size, **fusion),
            )
            yield Shuffle(None if i else left, right)
        n = m
    yield Conv(name="conv5", inputs=n, outputs=last, size=size, **fusion)
    yield Pool("average")
    yield Conv(name="classes", inputs=last, outputs=classes, norm=False, bias=True, act=None)


def depthwise(name, n, stride, size):
    return Conv(name=name, inputs=n, outputs=n, kernel=3, stride=stride, groups=n, size=size, act=None)
