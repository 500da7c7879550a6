"""The golden model: the integers every other level has to equal, in int64 numpy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from .chain import patterns
from .graph import BEFORE, Ends, Graph, Node
from .intfactor import IntFactor
from .network import Layer, layer_shape, sized
from .qformat import QFormat, product_bits, rescale
from .window import Array, Shape, Window, to_map, to_value

__all__ = ["IntFactor", "IntLayer", "IntNetwork", "IntNode", "short_stage"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntLayer(Node):
    """A window and integer factors in order; where the last one has a `skip_input`, the second input joins it there.

    inputs: those of a `Layer`; None: the node before, twice where the last factor has a skip_input (a residual).
    """

    factors: tuple[IntFactor, ...]
    inputs: tuple | None = None
    window: Window | None = None

    kind = "integer layer"
    takes = 1, 2

    def __post_init__(self):
        factors = tuple(self.factors)
        object.__setattr__(self, "factors", factors)
        adds = bool(factors) and factors[-1].skip_input is not None
        if self.inputs is None:
            object.__setattr__(self, "inputs", (BEFORE,) * (1 + adds))
        super().__post_init__()
        patterns(f.pattern for f in factors)
        for m, (before, after) in enumerate(zip(factors, factors[1:])):
            owner = f"factor {m} of layer {self.name!r}"
            if before.output != after.input:
                raise ValueError(f"{owner} gives {before.output}, the next takes {after.input}")
            if before.skip_input or before.bias is not None or before.relu or before.table is not None:
                raise ValueError(f"{owner}: residual, bias and ReLU belong to the last factor")
        if adds != (len(self.inputs) == 2):
            raise ValueError(f"layer {self.name!r}: a second input goes with the last factor's skip_input")
        if self.residual and (factors[-1].skip_input != factors[0].input):
            raise ValueError(f"layer {self.name!r}: the residual must have the format of the layer's input")
        if self.residual and self.window is None and factors[-1].pattern.outputs != factors[0].pattern.inputs:
            raise ValueError(f"layer {self.name!r}: a residual needs as many outputs as inputs")
        if self.window is not None and self.window.outside:
            factors[0].input.check(self.window.outside, f"Window.outside of layer {self.name!r}")

    def __repr__(self):
        return f"<IntLayer {self.name}: {' '.join(str(factor.pattern) for factor in self.factors)}>"

    @property
    def weights(self) -> int:
        return sum(factor.values.size for factor in self.factors)

    def products(self, shape: Shape, add: Shape | None = None) -> int:
        return self.weights * self.shape(shape, add).positions

    @property
    def parts(self) -> list[str]:
        last, kind = self.factors[-1], "residual" if self.residual else "add"
        flags = [f"window {self.window}"] * (self.window is not None) + [kind] * (last.skip_input is not None)
        flags += ["table"] * (last.table is not None) + ["relu"] * last.relu
        flags[-1:] = [f"relu to {last.output.dequantise(last.top):g}"] if last.top is not None else flags[-1:]
        return flags + ["bias"] * (last.bias is not None)

    @property
    def plain(self) -> bool:
        """Whether it has no activation but ReLU."""
        return self.factors[-1].top is None and self.factors[-1].table is None

    @property
    def residual(self) -> bool:
        """Whether its own input is added."""
        return len(self.inputs) == 2 and self.inputs[0] == self.inputs[1]

    @property
    def formats(self) -> tuple[QFormat, ...]:
        """Of the inputs."""
        added = self.factors[-1].skip_input
        return (self.factors[0].input,) if added is None else (self.factors[0].input, added)

    @property
    def output(self) -> QFormat:
        return self.factors[-1].output

    @property
    def stages(self) -> tuple[tuple[str, IntFactor], ...]:
        """(name, factor) of each factor."""
        return tuple((f"{self.name}.factors.{m}", factor) for m, factor in enumerate(self.factors))

    def beyond_row(self) -> str | None:
        if self.window is not None:
            return "has a window"
        return "adds another node" if len(self.inputs) == 2 and not self.residual else None

    def shape(self, shape: Shape, add: Shape | None = None) -> Shape:
        return layer_shape(self, self.factors[0].pattern.inputs, self.factors[-1].pattern.outputs, shape, add)

    def room(self, shape: Shape, add: Shape | None = None) -> int:
        positions = self.shape(shape, add).positions
        return positions * max(max(f.pattern.inputs, f.pattern.outputs) for f in self.factors)

    def vectors(self, x: Array) -> Array:
        """What the factors see of the layer's input."""
        return x if self.window is None else to_value(self.window.gather(to_map(x)))

    def accumulators(
        self, x: np.ndarray, add: np.ndarray | None = None
    ) -> Iterator[tuple[IntFactor, np.ndarray, np.ndarray]]:
        """Yield (factor, accumulators, outputs) of each factor for integers (N, *dims)."""
        x = self.vectors(x)
        for factor in self.factors:
            acc = factor.accumulate(x, add if factor.skip_input else None)
            x = factor.requantise(acc)
            yield factor, acc, x

    def __call__(self, x: np.ndarray, add: np.ndarray | None = None) -> np.ndarray:
        for _, _, y in self.accumulators(x, add):
            pass
        return y


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntNode(Node):
    """A node without weights in integers: y = saturate(round(node(inputs) * 2**-shift)).

    formats: of its inputs, which are aligned by left shifts where the node multiplies nothing. output: its format.
    """

    node: Node
    formats: tuple[QFormat, ...]
    output: QFormat
    name: str = field(init=False, default=None)
    inputs: tuple = field(init=False, default=None)

    kind = "rounded"
    takes = 1, 1000
    relu, skip, bias, table = False, None, None, None  # as of an IntFactor

    def __post_init__(self):
        if isinstance(self.node, Layer | IntLayer | IntNode):
            raise ValueError(f"node {self.node.name!r}: a node without weights is rounded, not a {self.node.kind}")
        for key in ("name", "inputs"):
            object.__setattr__(self, key, getattr(self.node, key))
        object.__setattr__(self, "formats", tuple(self.formats))
        if len(self.formats) != len(self.inputs):
            raise ValueError(f"node {self.name!r}: {len(self.inputs)} inputs, formats of {len(self.formats)}")
        if self.acc_width > 62 or abs(self.shift) > 62:
            raise ValueError(
                f"node {self.name!r}: integer overflow: its sums need {self.acc_width} bits and a shift of "
                f"{self.shift}, 62 are the limit; take narrower formats or formats nearer to each other"
            )

    def __repr__(self):
        return f"<IntNode {self.node!r}: {', '.join(map(str, self.formats))} -> {self.output}>"

    @property
    def stages(self) -> tuple[tuple[str, Self], ...]:
        return ((self.name, self),)

    @property
    def acc_frac(self) -> int:
        fracs = [fmt.frac for fmt in self.formats]
        return sum(fracs) if self.node.multiplies else max(fracs)

    @property
    def acc_width(self) -> int:
        """Bits of the aligned inputs, or of their products, or of the sums of those, with the rounding constant."""
        if self.node.multiplies:
            width = product_bits(*self.formats)
        else:
            width = max(fmt.operand + self.acc_frac - fmt.frac for fmt in self.formats)
        width = max(width + self.node.carries, self.shift + 1) + (self.shift > 0)
        return max(width, self.output.operand) + max(0, -self.shift)

    @property
    def shift(self) -> int:
        return self.acc_frac - self.output.frac

    @property
    def parts(self) -> list[str]:
        return self.node.parts

    def products(self, *shapes: Shape) -> int:
        return self.node.products(*shapes)

    def beyond_row(self) -> str | None:
        return self.node.beyond_row()

    def shape(self, *shapes: Shape) -> Shape:
        return self.node.shape(*shapes)

    def room(self, *shapes: Shape) -> int:
        return self.node.room(*shapes)

    def _aligned(self, xs):
        return xs if self.node.multiplies else [x * (1 << self.acc_frac - fmt.frac) for x, fmt in zip(xs, self.formats)]

    def accumulate(self, *xs: Array) -> Array:
        return self.node(*self._aligned(xs))

    def reach(self, *ends: Ends) -> Ends:
        """(lo, hi) of each input's channels, integers (1, C) -> (lo, hi) of what is rounded."""
        return self.node.bounds(*zip(*(self._aligned(side) for side in zip(*ends))))

    def bounds(self, *ends: Ends) -> Ends:
        """(lo, hi) of each input's channels, integers (1, C) -> (lo, hi) of the outputs."""
        return tuple(map(self.requantise, self.reach(*ends)))

    def requantise(self, acc: np.ndarray) -> np.ndarray:
        return self.output.saturate(rescale(acc, self.shift))

    def saturated(self, acc: np.ndarray) -> np.ndarray:
        y = rescale(acc, self.shift)
        return (y > self.output.hi) | (y < self.output.lo)

    def accumulators(self, *xs: np.ndarray) -> Iterator[tuple[Self, np.ndarray, np.ndarray]]:
        acc = self.accumulate(*xs)
        yield self, acc, self.requantise(acc)

    def __call__(self, *xs: np.ndarray) -> np.ndarray:
        return self.requantise(self.accumulate(*xs))


Stage = IntFactor | IntNode  # what rounds


def short_stage(name: str) -> str:
    """A stage's short name, for tables and messages: body:0 of body.factors.0."""
    return name.replace(".factors.", ":")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False, init=False)
class IntNetwork(Graph):
    """The integer network: integers in `input`, integers out in `output`; `layers` alone: a row of them over vectors.

    input: None means: that of the first node.
    """

    nodes: tuple
    shape: Shape
    input: QFormat

    def __init__(
        self, nodes: Iterable[IntLayer | IntNode] | None = None, shape: Iterable[int] | int | None = None, *,
        input: QFormat | None = None, layers: Iterable[IntLayer] | None = None,
    ) -> None:
        if layers is not None:
            nodes, shape, input = tuple(layers), None, None
        elif nodes is None:
            raise TypeError("an IntNetwork needs nodes and a shape, or layers")
        nodes = tuple(nodes)
        vars(self)["input"] = nodes[0].formats[0] if input is None and nodes else input
        self._wire(*sized(nodes, shape, lambda layer: layer.factors[0].pattern.inputs))
        for place, node in zip(self.sources, self.nodes):
            for source, fmt in zip(place, node.formats):
                given = self.nodes[source - 1].output if source else self.input
                if given != fmt:
                    what = f"layer {self._name(source)!r} gives another format than {node.name!r} takes"
                    raise ValueError(f"{what}: {given}, not {fmt}")

    def __repr__(self):
        names = ", ".join(node.name for node in self.nodes)
        return f"<IntNetwork {self.inputs} -> {self.outputs}, {self.input} -> {self.output}: {names}>"

    @property
    def layers(self) -> tuple[IntLayer | IntNode, ...]:
        """The nodes, with weights or without."""
        return self.nodes

    @property
    def weighted(self) -> tuple[IntLayer, ...]:
        """The nodes with weights."""
        return tuple(node for node in self.nodes if isinstance(node, IntLayer))

    @cached_property
    def factors(self) -> tuple[IntFactor, ...]:
        """Of all layers, in order."""
        return tuple(f for layer in self.weighted for f in layer.factors)

    @property
    def work(self) -> int:
        """Multiplications by weights, for one input."""
        return sum(node.weights * shape.positions for node, shape in zip(self.nodes, self.shapes))

    @cached_property
    def stages(self) -> tuple[tuple[str, Stage], ...]:
        """(name, IntFactor or IntNode) of all that rounds, in order: `<layer>.factors.<m>`, or a node's name."""
        return tuple(stage for node in self.nodes for stage in node.stages)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.stages)

    @property
    def output(self) -> QFormat:
        return self.nodes[-1].output

    def check(self, x: ArrayLike) -> np.ndarray:
        return self.check_input(self.input.check(x, "input vectors"))

    def accumulators(self, x: ArrayLike) -> Iterator[tuple[Stage, np.ndarray, np.ndarray]]:
        """Yield (stage, accumulators, outputs) of each stage, arrays (N, *dims), for integers x (N, *dims)."""
        found = []

        def step(node, *xs):
            found[:] = node.accumulators(*xs)
            return found[-1][2]

        for _ in self.walk(self.check(x), step):
            yield from found

    def taps(self, x: ArrayLike) -> list[np.ndarray]:
        """The outputs of every stage, in order."""
        return [y for _, _, y in self.accumulators(x)]

    def __call__(self, x: ArrayLike) -> np.ndarray:
        return self.last(self.check(x))

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Floats (N, *dims) -> floats (N, outputs): input quantised with saturation, then exact."""
        return self.output.dequantise(self(self.input.quantise(x)))

    def classify(self, x: ArrayLike) -> np.ndarray:
        """Floats (N, *dims) -> the index of the largest output, ties to the lowest index."""
        return self(self.input.quantise(x)).argmax(axis=1)
