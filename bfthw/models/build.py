"""What the networks here are written in: layers by kernel, channels and fusion, with random weights of a seed."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from .. import chain as chains
from ..chain import Chain, Factor, support
from ..graph import BEFORE, INPUT, Node
from ..network import Layer, Network
from ..nodes import Pick, Sum
from ..reading import owned
from ..structures import csc, index, padded, places
from ..window import Shape, Window

Rule = Callable[[int, int, int], chains.Patterns]  # inputs, outputs, base -> a chain
BLOCKS = "blocks", "bft"  # the residual and the fusion that have one of each block


class Build:
    """Nodes of a network over maps of `shape`, one after the other. Each method adds one and returns its name.

    fusion: what stands for the dense matrix of a pointwise convolution with `fuse`: None, a name of `FUSIONS`, or such
    a rule (inputs, outputs, base) -> patterns. residual: of a chain; "blocks", first-to-last in every square block of
    "bft" (else as "square"); "square", where there are as many outputs as inputs; or None.
    """

    def __init__(
        self, shape: Iterable[int] | int, seed: int = 0, *, fusion: str | Rule | None = None, base: int = 4,
        residual: str | None = "blocks",
    ) -> None:
        self.rng, self.nodes, self.shapes = np.random.default_rng(seed), [], {INPUT: Shape.of(shape)}
        self.fusion, self.base, self.residual = None if fusion == "dense" else fusion, base, residual

    def network(self) -> Network:
        return Network(self.nodes, self.shapes[INPUT])

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        self.shapes[node.name] = node.shape(*(self.shapes[name] for name in node.inputs))
        return node.name

    def channels(self, name: str) -> int:
        return self.shapes[name].channels

    def conv(
        self, name: str, x: str, outputs: int, kernel: int | tuple[int, int] = 1, *, stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, ...] | None = None, depthwise: bool = False, fuse: bool = False, norm: bool = True,
        bias: ArrayLike = 0, act: str | None = "relu", add: str | None = None,
    ) -> str:
        """A convolution, its batch norm (or, without, a bias) and its activation; of a vector, a linear layer.

        kernel, stride, padding: as of a `Window`; padding None: that which keeps a map of stride 1 as large as it is.
        bias: what the random one is around. add: what is added behind the batch norm; None for nothing.
        """
        n, rng = self.channels(x), self.rng
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        taps, scale, blocks = size[0] * size[1], rng.uniform(0.5, 1.5, outputs) if norm else None, None
        if fuse and self.fusion is not None:
            chain = self._fused(name, n, outputs)
            blocks = self._blocks(name, x, outputs)
            scale = scale if scale is None else scale / gain_of(chain, blocks is not None)
        else:
            fan, gain = taps * (1 if depthwise else n), 1 if act is None else 2  # a ReLU removes half of the energy
            pattern = (1, 1, taps, n) if depthwise else (1, outputs, fan, 1)
            chain = Chain([Factor(rng.normal(0, np.sqrt(gain / fan), pattern))])
        if isinstance(self._node(x), Sum):  # a mean: its divisor is the scale of the layer behind it
            scale = np.full(outputs, 1 / self._node(x).window.taps)
        padding = tuple(k // 2 for k in size) if padding is None else padding
        window = None if taps == 1 and stride == 1 else Window(size, stride, padding)
        own = {"chain": chain, "window": window, "scale": scale, "bias": bias + rng.normal(0, 0.1, outputs)}
        if blocks is None:
            return self._layer(name, x, add, act=act, **own)
        y = self._layer(name, x, blocks, act=act if add is None else None, add_scale=scale, **own)
        return y if add is None else self._layer(f"{name}.joined", y, add, act=act, chain=ones(outputs))

    def _layer(self, name, x, add, **rest):
        return self.add(Layer(name=name, inputs=(x,) if add is None else (x, add), **rest))

    def mean(self, name: str, x: str) -> str:
        """The sum over all positions; 1 / positions is the scale of the layer behind it."""
        return self.add(Sum(name=name, inputs=(x,), window=Window.whole(self.shapes[x])))

    def pick(self, name: str, inputs: Iterable[str], index: ArrayLike | None = None) -> str:
        return self.add(Pick(name=name, inputs=inputs, index=index))

    def _node(self, name):
        return next((node for node in self.nodes if node.name == name), None)

    def _fused(self, name, inputs, outputs):
        rule = FUSIONS[self.fusion] if isinstance(self.fusion, str) else self.fusion
        with owned(f"{name}, {inputs} -> {outputs} channels", (ValueError, TypeError), ValueError):
            patterns = chains.patterns(rule(inputs, outputs, self.base))
        sizes = patterns[0].inputs, patterns[-1].outputs
        if sizes != (inputs, outputs):
            raise ValueError(f"{name} has {inputs} -> {outputs} channels, its chain {sizes[0]} -> {sizes[1]}")
        y = chains.initial_range(patterns)
        return Chain(Factor(self.rng.uniform(-y, y, tuple(p)), support(p)) for p in patterns)

    def _blocks(self, name, x, outputs):
        """What is added in front of the batch norm: of each square block its input, so the sum over summed ones; or
        None."""
        n = self.channels(x)
        if self.residual is None or self.fusion == "released":
            return None
        if n != outputs and (self.residual, self.fusion) != BLOCKS:
            return None
        if n == outputs:
            return x
        if n < outputs:
            return self.pick(f"{name}.blocks", (x,), np.arange(outputs) % n)
        return self._layer(f"{name}.blocks", x, None, chain=ones(n, outputs))


def gain_of(chain, blocks):
    """About the factor by which a chain, and what is added to it, enlarge numbers that are not below zero."""
    y = chain(np.random.default_rng(0).normal(size=(64, chain.inputs)))
    return float(np.sqrt((np.square(y).mean() + blocks * max(1, chain.inputs / chain.outputs)) / 2))


def ones(inputs, outputs=None):
    """The chain that adds up inputs j, j + outputs, j + 2 outputs, ... to output j; without `outputs`, of one each."""
    outputs = outputs or inputs
    (pattern,) = padded([(1, 1, ceil(inputs / outputs), outputs)], inputs, outputs)
    there = np.arange(outputs)[:, None] + outputs * np.arange(pattern.c) < inputs  # the last block is no whole one
    shaped = there[:, None, :, None] if support(pattern) is not None else there.T[None, None]
    return Chain([Factor(shaped.astype(float), support(pattern))])


def alone(network: Network, layer: Layer) -> Network:
    """A `Network` over vectors of one butterfly of a graph, what `Build` adds from its own input included, so that the
    hardware takes it: chains that carry their inputs along where blocks are not square. Activations but ReLU stay out.
    """
    act = layer.act if layer.relu else None
    if not layer.adds or layer.residual:
        return Network(layers=[replace(layer, inputs=(BEFORE,) * len(layer.inputs), act=act)])
    add = next(node for node in network.nodes if node.name == layer.inputs[1])
    if isinstance(add, Pick):
        skips = add.index[:, None]
    else:
        (factor,) = add.chain.factors
        skips = np.where(factor.values.ravel()[places(factor.pattern)] > 0, index(factor.pattern), -1)
    chain = carrying(layer.chain, skips)
    return Network(layers=[replace(layer, inputs=(BEFORE,), chain=chain, add_scale=None, act=act)])


def carrying(chain, skips):
    """B x and inputs added to each output, `skips` (outputs, number), -1 for none, as one chain of Indexed factors.

    The inputs are carried along beside the values, one value more an input.
    """
    result, n, last = [], chain.inputs, len(chain.factors) - 1
    for m, factor in enumerate(chain.factors):
        p = factor.pattern
        table, rows = index(p), factor.values.ravel()[places(p)]
        before = p.inputs if m else 0  # where the carried inputs are
        if m < last:
            table = np.concatenate([table, np.repeat(before + np.arange(n)[:, None], p.c, 1)])
            rows = np.concatenate([rows, np.repeat(np.eye(1, p.c), n, 0)])
        else:
            table = np.concatenate([table, np.where(skips < 0, 0, skips + before)], 1)
            rows = np.concatenate([rows, (skips >= 0).astype(float)], 1)
        result.append(Factor(rows[:, None, :, None], chains.Indexed(table, before + n)))
    return Chain(result)


def square_blocks(inputs, outputs, base=4):
    """Square butterflies side by side, their outputs joined, or summed where there are fewer: q = ceil(larger/smaller).

    Where sizes do not divide, what is too much is cut off, what is missing is zero; see `structures.padded`.
    Joined: the first stage is (1, q*k, k, n/k), the next ones q times what they were. Summed: the mirror image,
    smallest stride first, so that the last stage adds up all blocks.
    """
    n, q = min(inputs, outputs), ceil(max(inputs, outputs) / min(inputs, outputs))
    if n == 1:
        return chains.dense(outputs, inputs)
    (_, b, c, d), *rest = chains.mixed_radix(chains.factorise(n, base))
    found = [(1, q * b, c, d)] + [(q * p.a, p.b, p.c, p.d) for p in rest]
    if inputs > outputs:
        # transposed: the order and each pattern's b and c change places; strides of a block lie inside it
        found = [(a, c, b, d) for a, b, c, d in reversed(found)]
    return padded(found, inputs, outputs) if q * n != max(inputs, outputs) else chains.patterns(found)


def released(inputs, outputs, base=4):
    """The chain that the CVPR paper's released code computes, tied weights and residuals of rectangles included."""
    from ..importers.released import plan_layer

    return plan_layer(inputs, outputs, base).patterns


def cyclic(inputs, outputs, base=4):
    """The cyclic support layers of as many outputs as inputs, of a fan of `base`."""
    if inputs != outputs:
        raise ValueError("csc needs as many outputs as inputs")
    return csc(inputs, base)


# by name: (inputs, outputs, base) -> patterns; "bft" adds the input of every square block to its output
FUSIONS: dict[str, Rule] = {
    "bft": square_blocks,
    "released": released,
    "monarch": lambda inputs, outputs, base: chains.monarch(outputs, inputs, blocks=base),
    "csc": cyclic,
}


def channels(count, width, least=8):
    """count * width channels, in whole numbers and at least `least` (MobileNetV1's rule)."""
    return max(least, int(count * width))


def divisible(count, by=8):
    """The multiple of `by` nearest to count, but never more than a tenth below it (MobileNetV3's rule)."""
    result = max(by, int(count + by / 2) // by * by)
    return result + by if result < 0.9 * count else result
