"""PointNet for classification (Qi et al., CVPR 2017, section 4.2 and supplement C), and its published DeBut chains.

The chains are the integers of rshapes/pointnet_modelnet40_{big,small}.txt of https://github.com/jasonli0707/All-DeBut
(MIT; the code of "Lite It Fly: An All-Deformable-Butterfly Network", TNNLS 36(1), 2025), as (r, s, t), first applied
first. Two are not fully connected, in the files already: in "big" 128 -> 1024 and "small" 256 -> 4096, t is not the
product of all r before it, and some outputs do not see some inputs.
"""

import numpy as np

from .. import chain as chains
from ..graph import INPUT
from ..nodes import Max, Product
from ..window import Window
from .build import Build, channels

# by (inputs, outputs): what both files share
_BOTH = {
    (3, 64): ((4, 3, 1), (2, 1, 4), (2, 1, 4), (2, 1, 16), (2, 1, 32)),
    (64, 128): ((2, 2, 1), (2, 2, 2), (4, 2, 4), (2, 2, 16), (4, 4, 32)),
    (1024, 512): ((16, 16, 1), (4, 4, 16), (2, 4, 64), (2, 2, 128), (2, 2, 256)),
    (512, 256): ((8, 8, 1), (4, 4, 8), (2, 4, 32), (2, 2, 64), (2, 2, 128)),
    (256, 40): ((2, 2, 1), (1, 2, 2), (2, 2, 2), (2, 4, 4), (5, 8, 8)),
    (256, 9): ((1, 2, 1), (1, 2, 1), (3, 4, 1), (1, 4, 3), (3, 4, 3)),
    (64, 64): ((4, 4, 1), (2, 2, 4), (2, 2, 8), (2, 2, 16), (2, 2, 32)),
}
CHAINS = {
    "small": {
        **_BOTH,
        (128, 1024): ((16, 8, 1), (2, 2, 16), (4, 2, 32), (4, 2, 128), (2, 2, 512)),
        (256, 4096): ((16, 8, 1), (4, 2, 16), (4, 4, 16), (4, 2, 256), (4, 2, 1024)),
    },
    "big": {
        **_BOTH,
        (128, 1024): ((2, 1, 4), (2, 1, 8), (2, 1, 16), (4, 4, 32), (8, 8, 128)),
        (256, 4096): ((2, 1, 1), (4, 2, 2), (4, 2, 8), (4, 4, 32), (4, 2, 128), (8, 8, 512)),
    },
}


def chain(name, inputs, outputs):
    """The published patterns of a layer; name: "small" or "big". ValueError for sizes that have none."""
    found = CHAINS[name].get((inputs, outputs))
    if found is None:
        raise ValueError(
            f"PointNet's published DeBut chains have none for {inputs} -> {outputs}; they were made for 40 classes, "
            "the fusions dense and bft go with any number"
        )
    return chains.debut(*found, inputs=inputs)


def network(width, resolution, classes, seed, fusion=None, **how):
    """resolution: the number of points, a column (points, 1, 3). ValueError for published chains of another width."""
    if (which := {"debut": "small", "debut-big": "big"}.get(fusion)) is not None:
        if width != 1:
            raise ValueError(f"the published DeBut chains are of the width 1, not {width!r}")
        fusion, how = (lambda n, m, base: chain(which, n, m)), how | {"residual": None}
    b = Build((resolution, 1, 3), seed, fusion=fusion, **how)
    first, second, third, fourth, fifth = (channels(n, width) for n in (64, 128, 1024, 512, 256))

    def over_points(name, x):
        return b.add(Max(name=name, inputs=(x,), window=Window.whole(b.shapes[x])))

    def turned(name, x):
        """Points turned by a matrix that a T-net makes of them, near the identity: rows times (A + I)."""
        n, y = b.channels(x), x
        for i, m in enumerate((first, second, third), 1):
            y = b.conv(f"{name}.{i}", y, m, fuse=True)
        y = b.conv(f"{name}.4", over_points(f"{name}.max", y), fourth, fuse=True)
        y = b.conv(f"{name}.5", y, fifth, fuse=True)
        matrix = b.conv(f"{name}.6", y, n * n, fuse=True, norm=False, act=None, bias=np.eye(n).reshape(-1))
        return b.add(Product(name=f"{name}.turned", inputs=(x, matrix)))

    x = b.conv("points1", turned("input", INPUT), first, fuse=True)
    x = b.conv("points2", turned("features", x), second, fuse=True)
    x = b.conv("points3", x, third, fuse=True, act=None)
    x = b.conv("head1", over_points("max", x), fourth, fuse=True)
    x = b.conv("head2", x, fifth, fuse=True)
    b.conv("classes", x, classes, fuse=True, norm=False, act=None)
    return b.network()
