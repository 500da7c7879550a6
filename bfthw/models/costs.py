"""Weights and multiplications of a network by the counting conventions of the papers, beside what these print."""

from dataclasses import dataclass

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

    def __add__(self, other):
        return Cost(weights=self.weights + other.weights, operations=self.operations + other.operations)


def cost(layer, convention="exact"):
    """The Cost of a `Conv`; "v1" and "stored" are for square blocks, other chains count as they are.

    Of the fusion "released", "exact" are the stored weights, those that it ties once.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; there are {', '.join(CONVENTIONS)}")
    rule = convention.removesuffix(ADDS)
    if layer.chain is None:
        weights = layer.dense_weights
    elif layer.chain == "released" or layer.chain == "bft" and rule != "exact":
        n, number = (max(layer.inputs, layer.outputs), 1) if rule == "v1" else layer.blocks
        weights = number * layer.base * n * stages(n, layer.base)
    else:
        weights = sum(p.weights for p in layer.patterns)
    adds = 0
    if convention.endswith(ADDS) and layer.skip:
        n, number = layer.blocks
        adds = n * number
    return Cost(weights=weights, operations=(weights + adds) * layer.positions)


def stages(n, base):
    """ceil(log_base n), in whole numbers; 1 for n = 1."""
    count = 1
    while base**count < n:
        count += 1
    return count


def total(model, convention="exact"):
    """The Cost of a Model: convolutions, butterflies and fully connected layers, whose share of pooling is nothing."""
    return sum((cost(layer, convention) for layer in model.layers), Cost(weights=0, operations=0))


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

    def model(self):
        return model(self.name, width=self.width, resolution=self.resolution, fusion=self.fusion)

    def of(self, model):
        """Whether the figure is of this Model, up to the number of classes."""
        same = ("name", "width", "resolution", "fusion")
        return all(getattr(self, key) == getattr(model, key) for key in same)

    def agrees(self, operations):
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
