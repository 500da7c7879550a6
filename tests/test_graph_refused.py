"""Graphs that do not fit, and what does not fit a graph: each named, with what would."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import dense, made_integers

from bfthw import Act, Gate, IntNetwork, Max, Network, Pick, Product, QFormat, Rearrange, Shape, Sum, Window
from bfthw.act import Table
from bfthw.formats import formats_of
from bfthw.quantize import choose_formats, quantise

A = dense(4, 4, "a")
MAP = (6, 5, 4)
TOTAL = Sum(name="total", window=Window(MAP[:2]))


@pytest.mark.parametrize(
    "nodes, text",
    [
        ([A, dense(8, 4, "b")], "layers do not chain: 'a' gives 6x5x4, 'b' takes 8 in channels"),
        (
            [A, dense(32, 4, "b", window=Window(3))],
            "'a' gives 6x5x4, 'b' takes 32 in channels, a window of 9 has 36 of 4; a chain of 36 would fit",
        ),
        (
            [A, dense(27, 4, "b", window=Window(3))],
            "'b' takes 27 in channels, a window of 9 has 36 of 4; 3 channels would fit",
        ),
        (
            [A, dense(4, 8, "b"), dense(8, 4, "c", add="b")],
            "node 'c': 'b' gives 6x5x8, 'b' gives 6x5x8, in channels what is added must be as 'c' gives it: 6x5x4 would",
        ),
        (
            [A, dense(36, 4, "b", window=Window(3, padding=(1, 0))), dense(4, 4, "c", add="a")],
            "in width what is added must be as 'c' gives it: 6x3x4 would fit, not 6x5x4",
        ),
        (
            [A, dense(28, 4, "b", window=Window((7, 1)))],
            "node 'b': 'a' gives 6x5x4, in height a window of 7 does not fit",
        ),
        ([A, Max(name="b", window=Window((2, 6)))], "node 'b': .*in width a window of 6 does not fit into 5 with 0 of"),
        ([A, dense(4, 4, "b", inputs="c")], "node 'b': there is no node 'c'"),
        ([dense(4, 4, "first"), dense(4, 4, "b", inputs="frist")], "no node 'frist'; did you mean 'first'?"),
        ([A, dense(4, 4, "b", inputs="b")], "node 'b' takes itself: a circle"),
        (
            [A, dense(4, 4, "b", add="c"), dense(4, 4, "c")],
            "node 'b' takes 'c', which stands behind it: a circle; a node",
        ),
        ([A, dense(4, 4, "a")], "names must differ, 'a' stands twice"),
        ([A, dense(4, 4, "b", inputs="input")], "node 'a': no node takes what it gives; leave it out, or name it"),
        (
            [A, Pick(name="b", index=[4])],
            "node 'b': .*in channels the index must be 0 to 3, the inputs' channels, got 4",
        ),
        (
            [A, Rearrange(name="b", index=[120])],
            "node 'b': 'a' gives 6x5x4, the index must be 0 to 119, the map's numbers, got 120",
        ),
        (
            [A, Max(name="b", window=Window(2)), Pick(name="c", inputs=("a", "b"))],
            "node 'c': 'a' gives 6x5x4, 'b' gives 5x4x4, in height inputs side by side agree: 6 would fit, not 5",
        ),
        (
            [A, Gate(name="b", inputs=("input", "a"))],
            "in height a gate is a vector of 4, the map's channels: 1 would fit",
        ),
        (
            [A, Sum(name="s", window=Window((6, 5))), dense(4, 3, "t"), Gate(name="b", inputs=("a", "t"))],
            "node 'b': 'a' gives 6x5x4, 't' gives 3 values, in channels a gate is a vector of 4, .*: 4 would fit, not 3",
        ),
        (
            [A, Product(name="b", inputs=("input", "a"))],
            "node 'b': .*in height a matrix is a vector: 1 would fit, not 6",
        ),
        (
            [A, Sum(name="s", window=Window((6, 5))), dense(4, 6, "t"), Product(name="b", inputs=("a", "t"))],
            "in channels a matrix of 6 numbers has no rows for 4 channels; a multiple of 4 would fit",
        ),
        ([], "at least one layer"),
    ],
)
def test_graphs_that_do_not_fit_name_node_axis_and_what_would(nodes, text):
    with pytest.raises(ValueError, match=text):
        Network(nodes, MAP)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Gate(name="g", inputs=("a",)), r"node 'g' \(Gate\) takes 2 inputs, got 1"),
        (lambda: Max(name="m", inputs=("a", "b"), window=Window(2)), r"node 'm' \(Max\) takes 1 input, got 2"),
        (lambda: Pick(name="p", inputs=()), r"node 'p' \(Pick\) takes 1 or more inputs, got 0"),
        (lambda: Rearrange(name="r", index=[0, -1]), r"node 'r' \(Rearrange\): index must be integers of 0 or more"),
        (lambda: Rearrange(name="r", index=[0], size=(1, 0)), r"\(Rearrange\): size must be \(height, width\), positive"),
        (lambda: Rearrange(name="r", index=range(5), size=(2, 1)), r"\(Rearrange\): 5 numbers are no map of 2x1"),
        (lambda: Rearrange.transposed(Shape(2, 2, 3), 2, name="r"), "3 channels are no blocks of 2"),
        (lambda: dense(1, 1, "a", inputs=("a", "b", "c")), r"node 'a' \(Layer\) takes 1 or 2 inputs, got 3"),
        (lambda: Max(window=Window(2, padding=2)), "each window must see the map, so padding is less than its size"),
        (lambda: Sum(window=Window(2, outside=(1,))), "nothing stands outside, and channels need no blocks"),
        (lambda: Max(name="../x", window=Window(2)), "name must be words"),
        (lambda: Pick(index=[[0]]), "index must be integers of 0 or more"),
        (lambda: Pick(index=[-1]), "index must be integers of 0 or more"),
        (lambda: dense(2, 2, "a", add="b", residual=True), "adds the layer's own input, not 'b': one or the other"),
        (lambda: dense(2, 2, "a", add_scale=np.ones(2)), "Layer.add_scale goes with a second input"),
        (
            lambda: dense(2, 2, "a", add="b", add_scale=np.ones(3)),
            r"Layer.add_scale must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: dense(2, 2, "a", act="rellu"),
            "unknown activation 'rellu'; did you mean 'relu'.; there are relu, relu6",
        ),
        (lambda: Act("relu", np.sin), "an activation with a function of its own needs a name of its own, got 'relu'"),
        (lambda: Network([dense(4, 4, "a", window=Window(1))]), "a network over maps needs a shape=.*, node 'a'"),
        (
            lambda: Network([A], (2, 2, 4))(np.zeros((1, 4, 2, 2))),
            r"maps must have shape \(N, 2, 2, 4\), got \(1, 4, 2, 2\)",
        ),
        (lambda: choose_formats(Network([A], MAP), calibration=np.zeros((3, 4))), r"\(N, 6, 5, 4\), got \(3, 4\)"),
        (
            lambda: Act("sine", np.sin).table(QFormat(13, 3), QFormat(8, 3)),
            "a table for 'sine' has inputs of at most 12 bi",
        ),
        (
            lambda: Act("log", np.log).table(QFormat(4, 0), QFormat(8, 3)),
            "activation 'log' gives no finite number at -8",
        ),
        (
            lambda: Table(input=QFormat(13, 0), values=np.zeros(8192, int)),
            "a table's input has at most 12 bits, got 13",
        ),
        (lambda: Table(input=QFormat(3, 0), values=np.zeros(4, int)), r"has 8 integers, got \(4,\)"),
    ],
)
def test_what_is_refused_says_why(make, text):
    with pytest.raises(ValueError, match=text), np.errstate(all="ignore"):
        make()


def test_formats_that_do_not_fit_a_graph_are_refused():
    made, _, integers = made_integers(0)
    formats = formats_of(integers)
    joins = {name: fmt for name, fmt in formats.joins.items() if name != "gated"}
    with pytest.raises(ValueError, match="node 'gated' needs one of its own among the joins"):
        quantise(made.network, replace(formats, joins=joins))
    own = replace(formats.layers[1].factors[0], table=None)
    layers = (formats.layers[0], replace(formats.layers[1], factors=(own,)), *formats.layers[2:])
    with pytest.raises(ValueError, match="formats of layer 'b': table is missing"):
        quantise(made.network, replace(formats, layers=layers))
    nodes = list(integers.nodes)
    nodes[-1] = replace(nodes[-1], factors=(replace(nodes[-1].factors[0], input=QFormat(20, 3)),))
    with pytest.raises(ValueError, match="layer 'elsewhere' gives another format than 'last' takes: .*, not 20 bits, 2.-3"):
        IntNetwork(nodes, made.shape)
    with pytest.raises(ValueError, match="node 'gated': integer overflow: its sums need 10[0-9] bits and a shift of -"):
        replace(next(node for node in nodes if node.name == "gated"), formats=(QFormat(50, 0),) * 2)
