"""What a network is made of, before it is made: named layers and how they are wired. Plain data, without torch."""

from dataclasses import dataclass
from math import ceil

from .. import chain as chains


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, with batch norm and activation after it; kernel 1 on one position is a fully connected layer.

    chain: what stands for the dense (outputs, inputs) matrix: a name of `FUSIONS`, or such a rule itself; None for
    dense. residual: of a chain; "blocks", first-to-last in every square block of "bft" (else as "square"); "square",
    where there are as many outputs as inputs; or None. kernel: 1 for pointwise. groups: `inputs` for depthwise.
    size: of the outputs, positions a side; points: positions, where they form no square. norm, bias: whether there is
    one. act: "relu", "hswish", "hsigmoid" or None.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    size: int = 1
    points: int | None = None
    chain: object = None
    base: int = 4
    residual: str | None = "blocks"
    norm: bool = True
    bias: bool = False
    act: str | None = "relu"

    @property
    def positions(self):
        return self.size**2 if self.points is None else self.points

    @property
    def dense_weights(self):
        return self.outputs * self.inputs // self.groups * self.kernel**2

    @property
    def patterns(self):
        """The chain of a fusion, or None where the layer is dense."""
        rule = FUSIONS[self.chain] if isinstance(self.chain, str) else self.chain
        return rule and rule(self.inputs, self.outputs, self.base)

    @property
    def blocks(self):
        """(size, number) of the square blocks of a fusion "bft" or "released"."""
        small, large = sorted((self.inputs, self.outputs))
        return small, ceil(large / small)

    @property
    def skip(self):
        """Whether a chain's input is added to its output, block by block where they are of unequal size."""
        if self.chain is None or self.residual is None:
            return False
        blocks = self.residual == "blocks" and self.chain == "bft" or self.chain == "released"
        return self.inputs == self.outputs or blocks


@dataclass(frozen=True)
class Pool:
    """kind: "max", 3x3 of stride 2; "average", over all positions; "points", the maximum over all points."""

    kind: str


@dataclass(frozen=True)
class Dropout:
    share: float


@dataclass(frozen=True)
class Residual:
    """x + body(x)."""

    body: tuple


@dataclass(frozen=True)
class Excite:
    """x * body(mean of x over all positions): squeeze and excite."""

    body: tuple


@dataclass(frozen=True)
class Shuffle:
    """Two branches, joined and their channels shuffled; both see all of x, or (no left) the right one half of it."""

    left: tuple | None
    right: tuple


@dataclass(frozen=True)
class Transform:
    """Points (N, channels, P) turned by a matrix (channels, channels) that body makes of them, near the identity."""

    name: str
    channels: int
    body: tuple


def layers(nodes):
    """Every Conv, in order of use."""
    for node in nodes:
        if isinstance(node, Conv):
            yield node
        elif isinstance(node, Shuffle):
            yield from layers((node.left or ()) + node.right)
        else:
            yield from layers(getattr(node, "body", ()))


def channels(count, width, least=8):
    """count * width channels, in whole numbers and at least `least` (MobileNetV1's rule)."""
    return max(least, int(count * width))


def divisible(count, by=8):
    """The multiple of `by` nearest to count, but never more than a tenth below it (MobileNetV3's rule)."""
    result = max(by, int(count + by / 2) // by * by)
    return result + by if result < 0.9 * count else result


def square_blocks(inputs, outputs, base=4):
    """Square butterflies side by side, their outputs joined, or summed where there are fewer: q = ceil(larger/smaller).

    (inputs, outputs) -> patterns of inputs -> q * inputs values, or q * outputs -> outputs: what is too much is cut
    off, what is missing is zero. Joined: the first stage is (1, q*k, k, n/k), the next ones q times what they were.
    Summed: the mirror image, smallest stride first, so that the last stage adds up all blocks.
    """
    n, q = min(inputs, outputs), ceil(max(inputs, outputs) / min(inputs, outputs))
    if n == 1:
        return chains.dense(outputs, inputs)
    (_, b, c, d), *rest = chains.mixed_radix(chains.factorise(n, base))
    joined = [(1, q * b, c, d)] + [(q * p.a, p.b, p.c, p.d) for p in rest]
    if inputs <= outputs:
        return chains.patterns(joined)
    # transposed: the order and each pattern's b and c change places; strides of a block lie inside it
    return chains.patterns((a, c, b, d) for a, b, c, d in reversed(joined))


def monarch(inputs, outputs, base=4):
    """Two block-diagonal factors, with as many blocks as `base` says."""
    return chains.monarch(outputs, inputs, blocks=base)


def released(inputs, outputs, base=4):
    """The chain that the CVPR paper's released code computes, tied weights and residuals of rectangles included."""
    from ..importers.released import plan_layer

    return plan_layer(inputs, outputs, base).patterns


# by name: (inputs, outputs, base) -> patterns; "bft" and "released" add the input of every square block to its output
FUSIONS = {"bft": square_blocks, "released": released, "monarch": monarch}
