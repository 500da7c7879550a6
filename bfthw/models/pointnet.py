"""PointNet for classification (Qi et al., CVPR 2017, section 4.2 and supplement C), and its published DeBut chains.

The chains are the integers of rshapes/pointnet_modelnet40_{big,small}.txt of https://github.com/jasonli0707/All-DeBut
(MIT; the code of "Lite It Fly: An All-Deformable-Butterfly Network", TNNLS 36(1), 2025), as (r, s, t), first applied
first. Two are not fully connected, in the files already: in "big" 128 -> 1024 and "small" 256 -> 4096, t is not the
product of all r before it, and some outputs do not see some inputs.
"""

from dataclasses import replace

from .. import chain as chains
from .nodes import Conv, Dropout, Pool, Transform

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


def nodes(width, resolution, classes, **fusion):
    """resolution: the number of points."""
    if (which := {"debut": "small", "debut-big": "big"}.get(fusion.get("chain"))) is not None:
        fusion |= {"chain": lambda n, m, base: chain(which, n, m), "residual": None}

    def layer(name, n, m, *, points=1, last=False):
        act = {"norm": False, "bias": True, "act": None} if last else {}
        return Conv(name=name, inputs=n, outputs=m, points=points, **(fusion | act))

    def body(name, n):
        """Of a T-net: points of n channels to the n * n numbers of a matrix."""
        widths = n, 64, 128, 1024
        yield from (layer(f"{name}.{i}", *w, points=resolution) for i, w in enumerate(zip(widths, widths[1:]), 1))
        yield Pool("points")
        yield layer(f"{name}.4", 1024, 512)
        yield layer(f"{name}.5", 512, 256)
        yield layer(f"{name}.6", 256, n * n, last=True)

    yield Transform("input", 3, tuple(body("input", 3)))
    yield layer("points1", 3, 64, points=resolution)
    yield Transform("features", 64, tuple(body("features", 64)))
    yield layer("points2", 64, 128, points=resolution)
    yield replace(layer("points3", 128, 1024, points=resolution), act=None)
    yield Pool("points")
    yield layer("head1", 1024, 512)
    yield layer("head2", 512, 256)
    yield Dropout(0.3)
    yield layer("classes", 256, classes, last=True)
