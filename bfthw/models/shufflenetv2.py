"""ShuffleNetV2 (Ma et al., ECCV 2018, table 5 and figure 3), and the width 1.25 of the Butterfly Transform's paper.

That one has the channels 24 / 128 / 256 / 1024 and 1024 in conv5, so that all butterflies have powers of two; the
pointwise convolution on 24 channels stays dense (Alizadeh et al., CVPR 2020, section 4.1).
"""

import numpy as np

from ..graph import INPUT
from ..nodes import Max
from ..window import Window
from .build import Build

# outputs of stages 2, 3 and 4, then of conv5
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.25: (128, 256, 1024, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPEATS = 4, 8, 4


def network(width, resolution, classes, seed, **fusion):
    *stages, last = WIDTHS[width]
    b = Build((resolution, resolution, 3), seed, **fusion)
    x = b.conv("conv1", INPUT, 24, 3, stride=2)
    x = b.add(Max(name="pool", inputs=(x,), window=Window(3, 2, 1)))
    for s, (m, count) in enumerate(zip(stages, REPEATS), 2):
        h = m // 2
        for i in range(count):
            name, stride, fuse = f"stage{s}.{i}", 1 if i else 2, (s, i) != (2, 0)  # not on the 24 channels
            if i:
                left, right = b.pick(f"{name}.left", (x,), range(h)), b.pick(f"{name}.right", (x,), range(h, m))
            else:
                left, right = x, x
                left = b.conv(f"{name}.left.depthwise", left, b.channels(x), 3, stride=2, depthwise=True, act=None)
                left = b.conv(f"{name}.left.pointwise", left, h, fuse=fuse)
            right = b.conv(f"{name}.right.pointwise1", right, h, fuse=fuse)
            right = b.conv(f"{name}.right.depthwise", right, h, 3, stride=stride, depthwise=True, act=None)
            right = b.conv(f"{name}.right.pointwise2", right, h, fuse=True)
            # channel 0 of the one, of the other, channel 1 of the one, ...
            x = b.pick(f"{name}.shuffle", (left, right), np.arange(m).reshape(2, h).T.reshape(-1))
    x = b.conv("conv5", x, last, fuse=True)
    b.conv("classes", b.mean("average", x), classes, norm=False, act=None)
    return b.network()
