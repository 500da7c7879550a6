"""Float layers and networks of them: the nodes with weights, and the graph they stand in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .act import RELU, Act
from .chain import Chain, Factor, column_peaks, scale_columns
from .graph import BEFORE, Graph, Node
from .window import Array, Shape, Window, to_map, to_value


@dataclass(frozen=True, kw_only=True, eq=False, repr=False, init=False)
class Layer(Node):
    """y = act(scale * chain(window(x)) + add_scale * add + bias) at each position, each part but the chain optional.

    inputs: (x,), or (x, add), names of earlier nodes. scale, bias: shape (outputs,); a batch norm is scale = gamma /
    sqrt(var + eps), bias = beta - mean * scale. add_scale: likewise, None for 1. act: an `Act`, or a name of act.KNOWN.
    Also by other words: add="NODE" makes it the second input; residual=True adds the layer's own input, with the
    layer's scale, scale * (chain(x) + x) (CVPR 2020, section 3.3); relu=True or False is act="relu" or none.
    """

    chain: Chain
    window: Window | None = None
    scale: np.ndarray | None = None
    add_scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    act: Act | None = None

    kind = "layer"
    takes = 1, 2

    def __init__(
        self, *, chain: Chain, name: str = "0", inputs: Iterable[str | None] | str | None = (BEFORE,),
        window: Window | None = None, scale: ArrayLike | None = None, add_scale: ArrayLike | None = None,
        bias: ArrayLike | None = None, act: Act | str | None = None, add: str | None = None,
        residual: bool | None = None, relu: bool | None = None,
    ) -> None:
        if relu is not None:
            act = RELU if relu else None
        if add is not None:
            if residual:
                raise ValueError(
                    f"layer {name!r}: a residual adds the layer's own input, not {add!r}: one or the other"
                )
            inputs = (*_tuple(inputs)[:1], add)
        if residual is not None:
            inputs, add_scale = _tuple(inputs)[:1] * (1 + bool(residual)), scale if residual else None
        vars(self).update(name=name, inputs=inputs, chain=chain, window=window, scale=scale, add_scale=add_scale)
        vars(self).update(bias=bias, act=Act.of(act))
        self.__post_init__()

    def __post_init__(self):
        super().__post_init__()
        for key in ("scale", "add_scale", "bias"):
            if (value := getattr(self, key)) is not None:
                value = np.asarray(value)
                if value.shape != (self.chain.outputs,):
                    raise ValueError(f"Layer.{key} must have shape ({self.chain.outputs},), got {value.shape}")
                if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
                    raise ValueError(f"Layer.{key} must be finite real numbers")
                object.__setattr__(self, key, value.astype(np.float64))
        if self.add_scale is not None and not self.adds:
            raise ValueError("Layer.add_scale goes with a second input, which is added")
        if self.residual and self.window is None and self.chain.inputs != self.chain.outputs:
            raise ValueError(
                f"a residual needs as many outputs as inputs, got {self.chain.inputs} -> {self.chain.outputs}"
            )

    def __repr__(self):
        return f"<Layer {' + '.join([self.name, *self.parts])}: {self.chain!r}>"

    @property
    def adds(self) -> bool:
        """Whether the output of another node, or its own input, is added."""
        return len(self.inputs) == 2

    @property
    def residual(self) -> bool:
        """Whether its own input is added, with the same scale: scale * (chain(x) + x)."""
        return self.adds and self.inputs[0] == self.inputs[1] and _equal(self.scale, self.add_scale)

    @property
    def relu(self) -> bool:
        return self.act == RELU

    @property
    def plain(self) -> bool:
        """Whether it has no activation but ReLU."""
        return self.act in (None, RELU)

    @property
    def parts(self) -> list[str]:
        """Names of what it does beside its chain, in order."""
        kind = "residual" if self.residual else "add"
        flags = [f"window {self.window}"] * (self.window is not None) + [kind] * self.adds
        flags += [self.act.name] if self.act else []
        return flags + [key for key in ("scale", "bias") if getattr(self, key) is not None]

    @property
    def weights(self) -> int:
        return self.chain.weights

    def products(self, shape: Shape, add: Shape | None = None) -> int:
        return self.weights * self.shape(shape, add).positions

    def beyond_row(self) -> str | None:
        if self.window is not None:
            return "has a window"
        return "adds another node, or with a scale of its own" if self.adds and not self.residual else None

    def shape(self, shape: Shape, add: Shape | None = None) -> Shape:
        return layer_shape(self, self.chain.inputs, self.chain.outputs, shape, add)

    def room(self, shape: Shape, add: Shape | None = None) -> int:
        positions = self.shape(shape, add).positions
        return positions * max(max(p.inputs, p.outputs) for p in self.chain.patterns)

    @property
    def scaled(self) -> tuple[Factor, ...]:
        """The factors with the scale multiplied into the rows of the last one."""
        *head, last = self.chain.factors
        if self.scale is None:
            return (*head, last)
        a, b, c, d = last.values.shape
        return (*head, replace(last, values=last.values * self.scale.reshape(a, b, 1, d)))

    def vectors(self, x: Array) -> Array:
        """What the chain sees of the layer's input."""
        return x if self.window is None else to_value(self.window.gather(to_map(x)))

    def sums(self, x: np.ndarray, add: np.ndarray | None = None) -> list[np.ndarray]:
        """The output of every factor; the last one with what is added, before the activation. add: x if left out."""
        outputs, y = [], self.vectors(x)
        for factor in self.scaled:
            outputs.append(y := factor(y))
        return [*outputs[:-1], self.joined(y, x if add is None else add)]

    def taps(self, x: np.ndarray, add: np.ndarray | None = None) -> list[np.ndarray]:
        """The output of every factor, the last one finished with what is added, scale, bias and activation."""
        *head, y = self.sums(x, add)
        return [*head, y if self.act is None else self.act(y)]

    def joined(self, y: np.ndarray, add: np.ndarray | None) -> np.ndarray:
        """The output of the last folded factor, and what is added, to what the activation takes."""
        if self.adds:
            y = y + (add if self.add_scale is None else add * self.add_scale)
        return y if self.bias is None else y + self.bias

    def finish(self, y: np.ndarray, add: np.ndarray | None) -> np.ndarray:
        """`joined`, and the activation."""
        y = self.joined(y, add)
        return y if self.act is None else self.act(y)

    def __call__(self, x: np.ndarray, add: np.ndarray | None = None) -> np.ndarray:
        return self.taps(x, add)[-1]


def layer_shape(layer: Node, inputs: int, outputs: int, shape: Shape, add: Shape | None) -> Shape:
    """The Shape that a layer gives, float or integer, whose chain maps inputs -> outputs."""
    window, channels = layer.window, shape.channels
    own = shape if window is None else window.shape(shape)
    if own.channels != inputs:
        hint = ""
        if window is not None:
            fits = f"{inputs // window.taps} channels" if inputs % window.taps == 0 else f"a chain of {own.channels}"
            hint = f" in channels, a window of {window.taps} has {own.channels} of {channels}; {fits} would fit"
        raise ValueError(f"{layer.name!r} takes {inputs}{hint or ' in channels'}")
    own = own._replace(channels=outputs)
    if add is not None and add != own:
        axis = next(axis for axis in Shape._fields if getattr(add, axis) != getattr(own, axis))
        raise ValueError(f"in {axis} what is added must be as {layer.name!r} gives it: {own} would fit, not {add}")
    return own


def _tuple(inputs):
    return (inputs,) if inputs is None or isinstance(inputs, str) else tuple(inputs)


def _equal(a, b):
    return (a is None) == (b is None) and (a is None or np.array_equal(a, b))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False, init=False)
class Network(Graph):
    """Nodes over maps of `shape`; the last one gives the output. `layers` alone: a row of layers over vectors.

    formats: the fixed-point formats it was trained for, if it was (quantize.Formats).
    """

    nodes: tuple
    shape: Shape
    formats: Any = None

    def __init__(
        self, nodes: Iterable[Node] | None = None, shape: Iterable[int] | int | None = None, *,
        layers: Iterable[Layer] | None = None, formats: Any = None,
    ) -> None:
        if layers is not None:
            nodes, shape = tuple(layers), None
        elif nodes is None:
            raise TypeError("a Network needs nodes and a shape, or layers")
        vars(self)["formats"] = formats
        self._wire(*sized(nodes, shape, lambda layer: layer.chain.inputs))

    def __repr__(self):
        sizes = f"{self.shape if self.shape.positions > 1 else self.inputs} -> {self.outputs}"
        return f"<Network {sizes}: {', '.join(node.name for node in self.nodes)}>"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The nodes with weights."""
        return tuple(node for node in self.nodes if isinstance(node, Layer))

    def check(self, x: ArrayLike) -> np.ndarray:
        return self.check_input(np.asarray(x, np.float64))

    def taps(self, x: ArrayLike) -> list[np.ndarray]:
        """(N, *dims) -> the output of every stage of every layer, and of every other node, in order."""
        outputs = []

        def step(node, *xs):
            outputs.extend(node.taps(*xs) if isinstance(node, Layer) else [node(*xs)])
            return outputs[-1]

        for _ in self.walk(self.check(x), step):
            pass
        return outputs

    def __call__(self, x: ArrayLike) -> np.ndarray:
        return self.last(self.check(x))


def sized(nodes, shape, inputs):
    """(nodes, shape); without one, that of a first layer over vectors, whose inputs a function tells."""
    nodes = tuple(nodes)
    if shape is None and nodes:
        if getattr(nodes[0], "window", None) is not None:
            raise ValueError(f"a network over maps needs a shape=(height, width, channels), node {nodes[0].name!r}")
        shape = inputs(nodes[0])
    return nodes, shape or 1


def equalise(network: Network, passes: int = 8) -> Network:
    """Rescale between neighbouring factors so that rows and columns that meet have the same largest weight.

    The product of the factors, so the network's function, is unchanged. For a middle value with row peak r in the
    factor before and column peak c in the factor after, the row is multiplied by sqrt(c / r) and the column divided by
    it (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, eq. 11).
    """
    nodes = (_equalise_layer(node, passes) if isinstance(node, Layer) else node for node in network.nodes)
    return Network(nodes, network.shape)


def _equalise_layer(layer, passes):
    # the last factor takes part with the scale folded in, and gets it divided out again at the end
    values, supports = [f.values.copy() for f in layer.scaled], [f.support for f in layer.scaled]
    for _ in range(passes if len(values) > 1 else 0):
        for m, (before, after) in enumerate(zip(values, values[1:]), 1):
            a, b, _, d = before.shape
            rows = np.abs(before).max(axis=2).ravel()
            columns = column_peaks(after, supports[m])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                s = np.sqrt(columns / rows)
            s = np.where(np.isfinite(s) & (s > 0), s, 1.0)  # a dead row or column stays as it is
            before *= s.reshape(a, b, 1, d)
            values[m] = scale_columns(after, 1 / s, supports[m])
    scale = layer.scale
    if scale is not None:
        if np.any(scale == 0):  # nothing to divide by: leave the layer alone
            return layer
        a, b, _, d = values[-1].shape
        values[-1] = values[-1] / scale.reshape(a, b, 1, d)
    return replace(layer, chain=Chain(map(Factor, values, supports)))
