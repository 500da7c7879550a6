"""Weights and multiplications of a network by the counting conventions of the papers, beside what these print."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..chain import Factor
from ..network import Layer, Network
from ..window import Shape
from . import model

ADDS = " + adds"
CONVENTIONS = {
    "v1": "n = max(inputs, outputs) and k n ceil(log_k n) for every butterfly",
    "stored": "square blocks of n = min(inputs, outputs), k n ceil(log_k n) each: what the released code keeps",
    "exact": "the same blocks with exactly the weights of the chains here: radices k, then what is left (4, 4, ..., 2)",
}
CONVENTIONS |= {name + ADDS: f"{name}, and one for each addition of a residual" for name in ("stored", "exact")}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a layer, or of a whole network. weights: of matrices and kernels, without norms and biases."""

    weights: int
    operations: int

    def __add__(self, other: Self) -> Self:
        return Cost(weights=self.weights + other.weights, operations=self.operations + other.operations)


def cost(layer: Layer, positions: int = 1, convention: str = "exact", base: int = 4) -> Cost:
    """The Cost of a `Layer` at so many positions; what only adds up costs nothing.

    Chains of several factors are butterflies, of radix `base` by the conventions "v1" and "stored".
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; there are {', '.join(CONVENTIONS)}")
    rule, chain = convention.removesuffix(ADDS), layer.chain
    small, large = sorted((chain.inputs, chain.outputs))
    n, number = small, -(-large // small)  # the square blocks, and how many
    if len(chain.factors) == 1 or rule == "exact":
        weights = sum(f.values.size for f in chain.factors if multiplies(f))
    else:
        n, number = (large, 1) if rule == "v1" else (n, number)
        weights = number * base * n * stages(n, base)
    adds = n * number if convention.endswith(ADDS) and layer.adds and len(chain.factors) > 1 else 0
    return Cost(weights=weights, operations=(weights + adds) * positions)


def multiplies(factor: Factor) -> bool:
    """Whether its weights are any other than 0 and 1."""
    return not np.isin(factor.values, (0, 1)).all()


def dense(layer: Layer) -> int:
    """Weights of a dense matrix in the place of a chain; of one factor, its own."""
    chain = layer.chain
    return cost(layer).weights if len(chain.factors) == 1 else chain.inputs * chain.outputs


def stages(n: int, base: int) -> int:
    """ceil(log_base n), in whole numbers; 1 for n = 1."""
    count = 1
    while base**count < n:
        count += 1
    return count


def total(network: Network, convention: str = "exact", base: int = 4) -> Cost:
    """The Cost of a Network: convolutions, butterflies and fully connected layers; other nodes cost nothing."""
    found = (cost(layer, shape.positions, convention, base) for layer, shape in placed(network))
    return sum(found, Cost(weights=0, operations=0))


def placed(network: Network) -> list[tuple[Layer, Shape]]:
    """(layer, the Shape that it gives) of each layer that multiplies."""
    pairs = [pair for pair in zip(network.nodes, network.shapes) if isinstance(pair[0], Layer)]
    return [(layer, shape) for layer, shape in pairs if any(map(multiplies, layer.chain.factors))]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published figure. millions: of operations. accuracy: ImageNet top 1, %. convention: that comes nearest."""

    name: str
    width: float
    resolution: int
    fusion: str
    millions: int
    accuracy: str
    source: str
    convention: str = "exact"

    def model(self) -> Network:
        return model(self.name, **self.how())

    def how(self) -> dict:
        """What `model` takes, up to the number of classes."""
        return {key: getattr(self, key) for key in ("width", "resolution", "fusion")}

    def agrees(self, operations: float) -> bool:
        """Whether a count is less than one off in the last printed digit, so the same cut or rounded."""
        return abs(operations / 1e6 - self.millions) < 1


def _rows(name, fusion, source, convention, *figures):
    """Rows of figures (width, resolution, millions, accuracy)."""
    told = {"name": name, "fusion": fusion, "source": source, "convention": convention}
    keys = "width", "resolution", "millions", "accuracy"
    return [Row(**told, **dict(zip(keys, figure))) for figure in figures]


# Alizadeh et al., "Butterfly Transform": CVPR 2020, tables 1, 2 and 4 to 6; v1 is the first version, arXiv 1906.02256v1
PUBLISHED = [
    *_rows(
        "mobilenetv1", "dense", "CVPR", "exact",
        (0.25, 128, 14, "41.50"), (0.25, 160, 21, "45.50"), (0.25, 192, 34, "47.70"), (0.25, 224, 41, "50.60"),
        (0.5, 128, 49, "56.30"), (0.5, 192, 110, "61.70"), (0.5, 224, 150, "63.30"),
    ),
    *_rows("mobilenetv1", "bft", "v1", "v1", (1.0, 96, 14, ""), (1.0, 128, 24, "49.88"), (1.0, 160, 37, "53.62")),
    *_rows(
        "mobilenetv1", "bft", "CVPR", "exact + adds",
        (1.0, 96, 14, "46.58"), (1.0, 128, 23, "52.26"), (1.0, 160, 35, "54.30"), (1.0, 192, 51, "57.56"),
        (2.0, 128, 52, "58.35"), (2.0, 192, 112, "63.03"), (2.0, 224, 150, "64.32"),
    ),
    *_rows(
        "shufflenetv2", "dense", "CVPR", "exact",
        (0.5, 128, 14, "50.86"), (0.5, 160, 21, "55.21"), (0.5, 224, 41, "59.70"),
    ),
    *_rows("shufflenetv2", "bft", "v1", "stored + adds", (1.25, 128, 14, "54.9")),
    *_rows(
        "shufflenetv2", "bft", "CVPR", "stored + adds",
        (1.25, 128, 14, "55.26"), (1.25, 160, 21, "57.83"), (1.25, 224, 41, "61.33"),
    ),
    *_rows("mobilenetv3-small", "dense", "CVPR", "exact", (0.35, 224, 13, "49.8")),
    *_rows("mobilenetv3-small", "bft", "CVPR", "v1", (0.5, 224, 15, "55.21")),
]
