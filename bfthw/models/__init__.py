"""The networks of the papers, and small ones, as functions that return graphs with random weights; and their costs."""

from ..network import Network
from ..reading import owned
from . import mobilenetv1, mobilenetv3, pointnet, shufflenetv2
from .build import FUSIONS, Build, Rule, alone
from .fabnet import fbfly
from .small import csc1d, dscnn, inverted28, net_c, net_h, resnet8, separable28

NETWORKS = {"mobilenetv1": mobilenetv1, "shufflenetv2": shufflenetv2, "mobilenetv3-small": mobilenetv3}
NETWORKS |= {"pointnet": pointnet}
BLOCKS = ("bft", "released")  # fusions that are square blocks, of the papers' counts


def fusions(name: str) -> tuple[str, ...]:
    """The fusions by name that a network comes in."""
    if name == "pointnet":
        return "dense", "bft", "monarch", "debut", "debut-big"  # released ones have no bias, its last layers need one
    return "dense", *(name for name in FUSIONS if name != "csc")


def model(
    name: str, *, width: float = 1.0, resolution: int | None = None, classes: int | None = None,
    fusion: str | Rule = "bft", base: int = 4, residual: str | None = "blocks", seed: int = 0,
) -> Network:
    """A network of the papers, a `Network` with random weights: over (resolution, resolution, 3), or (points, 1, 3).

    fusion: what the pointwise convolutions are: "dense", "bft" (square Butterfly Transforms of radix `base`, joined or
    summed where channels differ), "released" (as the CVPR paper's code has them, without what it ties), "monarch"
    (`base` blocks), for PointNet "debut" or "debut-big" (the published chains), or a function (inputs, outputs, base)
    -> patterns. residual: "blocks", "square" or None, see `Build`.
    Raises ValueError for an unknown name, and for a width, resolution or fusion that the network does not come in.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    points = name == "pointnet"
    resolution = resolution or (1024 if points else 224)
    least, most, what = (32, 65536, "points") if points else (32, 1024, "pixels a side")
    if type(resolution) is not int or not least <= resolution <= most:
        raise ValueError(f"{name}: the resolution must be {least} to {most} {what}, got {resolution!r}")
    _check_width(name, width)
    if type(classes) not in (int, type(None)) or classes is not None and not 2 <= classes <= 100000:
        raise ValueError(f"{name}: classes must be 2 to 100000, got {classes!r}")
    classes = classes or (40 if points else 1000)
    if not callable(fusion) and fusion not in fusions(name):
        raise ValueError(f"{name}: unknown fusion {fusion!r}; there are {', '.join(fusions(name))}")
    if type(base) is not int or not 2 <= base <= 64:
        raise ValueError(f"{name}: the base must be 2 to 64, got {base!r}")
    if residual not in ("blocks", "square", None) or fusion == "released" and residual != "blocks":
        rule = "'blocks' with the fusion released" if fusion == "released" else "'blocks', 'square' or None"
        raise ValueError(f"{name}: residual must be {rule}, got {residual!r}")
    how = {"fusion": fusion, "base": base, "residual": residual}
    with owned(name, ValueError, ValueError):
        return NETWORKS[name].network(width, resolution, classes, seed, **how)


def _check_width(name, width):
    if name == "shufflenetv2":
        if width not in shufflenetv2.WIDTHS:
            raise ValueError(f"{name} comes in the widths {', '.join(map(str, shufflenetv2.WIDTHS))}, not {width!r}")
    elif not isinstance(width, (int, float)) or not 0.05 <= width <= 8:
        raise ValueError(f"{name}: the width must be 0.05 to 8, got {width!r}")


__all__ = [
    "FUSIONS", "NETWORKS", "Build", "alone", "csc1d", "dscnn", "fbfly", "fusions", "inverted28", "model", "net_c",
    "net_h", "resnet8", "separable28",
]
