"""Graphs: every node against torch, in floats; their integers against direct integer arithmetic; what is refused."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import bfthw
from bfthw import (
    Act,
    Chain,
    Factor,
    Gate,
    IntNetwork,
    IntNode,
    Layer,
    Max,
    Network,
    Pick,
    Product,
    QFormat,
    Settings,
    Shape,
    Sum,
    Window,
    report,
)
from bfthw.act import Table
from bfthw.calibrate import Calibration
from bfthw.check import check
from bfthw.formats import FactorFormats, Formats, LayerFormats, formats_of
from bfthw.line import behind
from bfthw.network import equalise
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import choose_formats, quantise

pytestmark = pytest.mark.usefixtures("one_thread")
WILD = 100  # seeds from here on have their wiring by chance, too
SEEDS = pytest.mark.parametrize("seed", [*range(8), *range(WILD, WILD + 8)], ids="seed-{}".format)


def t(x):
    """(N, H, W, C) -> torch's (N, C, H, W)."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def some(x):
    """2 x 2, a row of zeros above and a column on the right."""
    return F.avg_pool2d(F.pad(x, (0, 1, 1, 0)), 2, 1, divisor_override=1)


class Made:
    """A random graph of all nodes, and beside it the same in torch, word by word."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.shape = (int(rng.integers(5, 9)), int(rng.integers(5, 9)), int(rng.choice([2, 4])))
        self.nodes, self.steps, self.shapes = [], [], {"input": Shape(*self.shape)}
        (self.tame if seed < WILD else self.wild)()
        self.network = Network(self.nodes, self.shape)

    def tame(self):
        rng = self.rng
        a = self.conv("a", "input", self.shape[2], 8, 3, stride=1, act="relu6")
        self.conv("b", a, 8, 8, 3, groups=8, act="hswish", outside=rng.uniform(-3, 3, 8))
        self.conv("c", "b", 8, 8, 1, add="a", add_scale=bool(rng.integers(2)), act=rng.choice(["relu", "silu", None]))
        self.butterfly("d", "c", 8)
        self.pick("beside", ("c", "d", "b"), None)
        self.maximum("pool", "beside")
        self.pick("shuffle", ("pool",), rng.permutation(24)[:12])
        self.conv("e", "shuffle", 12, 8, 1, act=None)
        self.whole("mean", "e", 8)
        self.conv("squeeze", "mean", 8, 8, 1, act="hsigmoid")
        self.gate("gated", "e", "squeeze")
        self.conv("turn", "mean", 8, 24, 1, act="tanh")
        self.product("turned", "gated", "turn")
        self.add(Sum(name="some", inputs=("turned",), window=Window(2, 1, (1, 0, 0, 1))), some)
        self.whole("last", "some", 3)

    def wild(self):
        """Eight nodes that take any ones before them that fit, then the means of all that is left, side by side."""
        rng, acts = self.rng, [None, "relu", "relu6", "hswish", "hsigmoid", "tanh"]
        self.conv("n0", "input", self.shape[2], 8, 3, act="relu")
        for k in range(1, 9):
            name, source = f"n{k}", str(rng.choice([own for own, shape in self.shapes.items() if shape.channels == 8]))
            like = [own for own, shape in self.shapes.items() if shape == self.shapes[source]]
            lines = [own for own, shape in self.shapes.items() if shape == (1, 1, 8)]
            match rng.choice(["conv", "depthwise", "groups", "add", "chain", "max", "shuffle", "gate"]):
                case "conv":
                    self.conv(name, source, 8, 8, 3, stride=int(rng.integers(1, 3)), act=rng.choice(acts))
                case "depthwise":
                    self.conv(name, source, 8, 8, 3, groups=8, act=rng.choice(acts), outside=rng.uniform(-1, 1, 8))
                case "groups":
                    self.conv(name, source, 8, 8, 3, groups=2, act=rng.choice(acts))
                case "add":
                    self.conv(name, source, 8, 8, 1, add=str(rng.choice(like)), add_scale=bool(rng.integers(2)))
                case "chain":
                    self.butterfly(name, source, 8)
                case "max":
                    self.maximum(name, source)
                case "shuffle":
                    self.pick(name, (source, str(rng.choice(like))), rng.permutation(16)[:8])
                case "gate" if lines:
                    self.gate(name, source, str(rng.choice(lines)))
                case "gate":
                    self.whole(name, source, 8)
        taken = {source for node in self.nodes for source in node.inputs}
        left = [node.name for node in self.nodes if node.name not in taken]
        for name in left:
            self.whole(f"{name}.mean", name, 8)
        self.pick("all", tuple(f"{name}.mean" for name in left), None)
        self.conv("last", "all", 8 * len(left), 3, 1)

    def inputs(self, n=3):
        return self.rng.normal(size=(n, *self.shape))

    def add(self, node, step):
        self.nodes.append(node)
        self.steps.append((node, step))
        self.shapes[node.name] = node.shape(*(self.shapes[name] for name in node.inputs))
        return node.name

    def conv(self, name, source, n, m, k, *, stride=1, groups=1, act=None, add=None, add_scale=False, outside=0):
        """A convolution with batch norm, as torch has it: bn(conv x) + s * add, then the activation."""
        rng, act = self.rng, None if act is None else str(act)
        w = rng.normal(size=(m, n // groups, k, k)) / np.sqrt(n * k * k / groups)
        scale, bias, s = rng.uniform(0.5, 2, m), rng.normal(size=m), rng.normal(size=m)
        order, block = str(rng.choice(["ky", "kx"])), n // groups if groups < n else n
        taps = (w if order == "ky" else w.swapaxes(2, 3)).reshape(m, n // groups, k * k)
        if groups == n > 1:
            values = taps[:, 0].T.reshape(1, 1, k * k, n)
        else:
            values = taps.transpose(0, 2, 1).reshape(groups, m // groups, -1, 1)
        window = Window(k, stride, k // 2, block=block, order=order, outside=outside) if k > 1 else None
        layer = Layer(
            name=name, inputs=(source,) if add is None else (source, add), chain=Chain([Factor(values)]), window=window,
            scale=scale, bias=bias, add_scale=s if add_scale else None, act=act,
        )
        column = {key: torch.from_numpy(v)[:, None, None] for key, v in (("scale", scale), ("bias", bias), ("s", s))}
        acts = {"relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, "silu": F.silu}
        acts |= {"tanh": torch.tanh, None: lambda y: y}

        def step(x, *added):
            edge = torch.from_numpy(np.broadcast_to(outside, n).copy())[:, None, None]
            x = F.pad(x - edge, [k // 2] * 4) + edge
            y = F.conv2d(x, torch.from_numpy(w), stride=stride, groups=groups)
            y = y * column["scale"] + column["bias"]
            for other in added:
                y = y + other * (column["s"] if add_scale else 1)
            return acts[act](y)

        return self.add(layer, step)

    def butterfly(self, name, source, n):
        """BFT's own kind of residual: bn(B x + x), two factors."""
        rng = self.rng
        chain = Chain(Factor(rng.normal(size=p) / 2) for p in ((1, 2, 2, 4), (2, 4, 4, 1)))
        scale, bias = rng.uniform(0.5, 2, n), rng.normal(size=n)
        dense = torch.from_numpy(chain.dense())

        def step(x, _same):
            y = torch.einsum("oc,nchw->nohw", dense, x) + x
            return F.relu(y * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(bias)[:, None, None])

        self.add(Layer(name=name, inputs=(source,), chain=chain, residual=True, scale=scale, bias=bias, relu=True), step)

    def maximum(self, name, source):
        self.add(Max(name=name, inputs=(source,), window=Window(3, 2, 1)), lambda x: F.max_pool2d(x, 3, 2, 1))

    def pick(self, name, sources, index):
        self.add(Pick(name=name, inputs=sources, index=index), lambda *xs: torch.cat(xs, 1)[:, slice(None) if index is None else index])

    def whole(self, name, source, channels):
        """The mean over all positions: a layer whose window is the map."""
        shape = self.shapes[source]
        values = np.full((1, 1, shape.positions, channels), 1 / shape.positions)
        layer = Layer(name=name, inputs=(source,), chain=Chain([Factor(values)]), window=Window.whole(shape))
        self.add(layer, lambda x: torch.mean(x, (2, 3), keepdim=True))

    def gate(self, name, *sources):
        self.add(Gate(name=name, inputs=sources), lambda x, g: x * g)

    def product(self, name, *sources):
        def step(x, m):
            return torch.einsum("nkhw,nkm->nmhw", x, m.reshape(len(x), x.shape[1], -1))

        self.add(Product(name=name, inputs=sources), step)

    def torch(self, x):
        """Every node's output, as (N, H, W, C), by torch."""
        values = {"input": t(x)}
        for node, step in self.steps:
            values[node.name] = step(*(values[name] for name in node.inputs))
        return {name: value.permute(0, 2, 3, 1).numpy() for name, value in values.items()}


def by_name(network, x):
    """{node: what it gives}, by the walk."""
    return {node.name: y for node, y in network.walk(x, lambda node, *xs: node(*xs))}


@SEEDS
def test_floats_are_torchs(seed):
    made = Made(seed)
    x = made.inputs()
    wanted, found = made.torch(x), by_name(made.network, x)
    for node, shape in zip(made.network.nodes, made.network.shapes):
        value = wanted[node.name]
        assert found[node.name].shape == (3, *shape.dims) and value.shape[1:] == shape
        np.testing.assert_allclose(found[node.name].reshape(value.shape), value, atol=1e-11, err_msg=node.name)
    assert np.array_equal(made.network(x), found["last"]) and made.network.outputs == 3
    assert made.network.inputs == np.prod(made.shape)
    even = equalise(made.network)
    np.testing.assert_allclose(even(x), made.network(x), rtol=1e-9)


# integers


def exact(q, shift, fmt):
    """A number times 2**-shift, halves up, saturated: one rounding of one exact number."""
    return min(max(floor(Fraction(int(q)) / Fraction(2) ** shift + Fraction(1, 2)), fmt.lo), fmt.hi)


def direct(node, xs):
    """What a node's integers have to be, from integer inputs (N, H, W, C), by loops and torch's integers alone."""
    if hasattr(node, "factors"):
        x, y = xs[0], None
        for m, f in enumerate(node.factors):
            x = x if m else direct_windows(node.window, x)
            dense = np.zeros((f.pattern.outputs, f.pattern.inputs), object)
            a, b, c, d = f.values.shape
            for i, j, k, l in np.ndindex(a, b, c, d):
                e = 0 if f.exponents is None else int(f.exponents[i, j, l])
                weight = int(f.values[i, j, k, l]) << f.max_exponent - e
                dense[(i * b + j) * d + l, (i * c + k) * d + l] = weight
            frac = f.input.frac + f.weights.frac + f.max_exponent
            acc, parts = x.astype(object) @ dense.T, []
            if f.skip_input is not None:
                parts.append((xs[1].astype(object) * (1 if f.skip is None else f.skip), f.skip_frac))
            top = max([frac, *(one for _, one in parts)])
            acc = acc * 2 ** (top - frac)
            for part, one in parts:
                acc = acc + part * 2 ** (top - one)
            if f.bias is not None:
                acc = acc + f.bias
            goal = f.output if f.table is None else f.table.input
            y = np.vectorize(lambda q, top=top, goal=goal: exact(q, top - goal.frac, goal), otypes=[np.int64])(acc)
            if f.table is not None:
                y = f.table.values[y - f.table.input.lo]
            if f.relu:
                y = np.clip(y, 0, f.top)
            x = y
        return y
    fracs = [fmt.frac for fmt in node.formats]
    kind, inner = type(node.node).__name__, node.node
    xs = [x.astype(object) for x in xs]
    if kind == "Gate":
        y, frac = xs[0] * xs[1], sum(fracs)
    elif kind == "Product":
        n, k = len(xs[0]), xs[0].shape[3]
        y, frac = np.stack([x @ m.reshape(k, -1) for x, m in zip(xs[0], xs[1].reshape(n, -1))]), sum(fracs)
    else:
        frac = max(fracs)
        if kind == "Sum":
            x = np.pad(xs[0], ((0, 0), (1, 0), (0, 1), (0, 0)))
            xs = [x[:, :-1, :-1] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, 1:, 1:]]
        xs = [x * 2 ** (frac - own) for x, own in zip(xs, fracs)]
        y = np.concatenate(xs, 3)[..., slice(None) if inner.index is None else inner.index] if kind == "Pick" else maxima(xs[0]) if kind == "Max" else xs[0]
    return np.vectorize(lambda q: exact(q, frac - node.output.frac, node.output), otypes=[np.int64])(y)


def direct_windows(window, x):
    """Window vectors by the formula in bfthw.window, place by place."""
    if window is None:
        return x
    n, height, width, channels = x.shape
    (kh, kw), (sh, sw), (top, left, bottom, right) = window.size, window.stride, window.padding
    rows, columns = (height + top + bottom - kh) // sh + 1, (width + left + right - kw) // sw + 1
    q = window.block or channels
    y = np.zeros((n, rows, columns, kh * kw * channels), np.int64)
    for v, u, c, ky, kx in np.ndindex(rows, columns, channels, kh, kw):
        tap = ky * kw + kx if window.order == "ky" else kx * kh + ky
        i, j = v * sh - top + ky, u * sw - left + kx
        inside = 0 <= i < height and 0 <= j < width
        y[:, v, u, (c // q * kh * kw + tap) * q + c % q] = x[:, i, j, c] if inside else np.broadcast_to(window.outside, channels)[c]
    return y


def maxima(x):
    """3 x 3, stride 2, padding 1, of Python's own numbers."""
    n, height, width, channels = x.shape
    y = np.zeros((n, (height - 1) // 2 + 1, (width - 1) // 2 + 1, channels), object)
    for k, v, u, c in np.ndindex(y.shape):
        y[k, v, u, c] = x[k, max(0, 2 * v - 1) : 2 * v + 2, max(0, 2 * u - 1) : 2 * u + 2, c].max()
    return y


@pytest.fixture(scope="module")
def quantised():
    """seed -> (Made, its data, IntNetwork), with calibration for even seeds, made once."""
    found = {}

    def make(seed):
        if seed not in found:
            made = Made(seed)
            x = made.inputs(6)
            rows, bits = int(made.rng.integers(3)), int(made.rng.integers(6, 12))
            settings = Settings(weight_bits=8, activation_bits=bits, row_exponents=rows)
            if seed % 4 == 2:
                settings = settings.model_copy(update={"calibration_method": "least-squares", "unsigned": False})
            formats = choose_formats(made.network, settings, x if seed % 2 == 0 else None)
            found[seed] = made, x, quantise(made.network, formats)
        return found[seed]

    return make


@SEEDS
def test_integers_are_direct_arithmetic(seed, quantised):
    made, x, integers = quantised(seed)
    assert [node.name for node in integers.nodes] == [node.name for node in made.nodes]
    q = integers.input.quantise(x[:2])
    q[0].flat[::3] = integers.input.hi
    values, names = {"input": q}, iter(integers.shapes)
    for node, y in integers.walk(q, lambda node, *xs: node(*xs)):
        shape = next(names)
        values[node.name] = wanted = direct(node, [values[name] for name in node.inputs]).reshape(2, *shape)
        assert np.array_equal(y.reshape(wanted.shape), wanted), node.name
        assert node.output.lo <= wanted.min() and wanted.max() <= node.output.hi
    assert np.array_equal(integers(q), integers.taps(q)[-1])
    assert np.array_equal(integers.predict(x[:1]), integers.output.dequantise(integers(integers.input.quantise(x[:1]))))


@SEEDS
def test_formats_hold_and_come_back(seed, quantised):
    """Without data nothing saturates, whatever the inputs; formats as plain data are the same formats."""
    made, x, integers = quantised(seed)
    formats = formats_of(integers)
    again = Formats.from_dict(formats.to_dict())
    assert again == formats and formats_of(quantise(made.network, again)) == formats
    unsigned = [name for name, stage in integers.stages if not stage.output.signed]
    positive = [node for node in made.network.layers if node.act and node.act.name in ("relu", "relu6", "hsigmoid")]
    wanted = {f"{node.name}.factors.{len(node.chain.factors) - 1}" for node in positive if seed % 4 != 2}
    assert {name for name in unsigned if ".factors." in name} == wanted
    if seed % 2:
        extreme = made.rng.choice([integers.input.lo, integers.input.hi], (20, *made.shape))
        for stage, acc, _ in integers.accumulators(extreme):
            assert not stage.saturated(acc).any(), stage


@SEEDS
def test_reports_and_checks_take_graphs(seed, quantised):
    made, x, integers = quantised(seed)
    rows = report(made.network, integers, x)
    assert [row.name for row in rows] == ["input", *integers.names]
    floats, ints = made.network.taps(x), integers.taps(integers.input.quantise(x))
    for row, (_, stage), wanted, q in zip(rows[1:], integers.stages, floats, ints):
        noise = np.square(wanted - stage.output.dequantise(q)).sum()
        assert row.sqnr == pytest.approx(10 * np.log10(np.square(wanted).sum() / noise)) and row.values == wanted.size
    assert check(made.network, integers, calibration=x).outputs.each.shape == (3,)


def test_relu6_ends_at_six():
    """12 times 0.5 is 6, 11 are 5.5, and 13 are cut; in a format that ends at 4, what is beyond saturates."""
    layer, x = Layer(chain=Chain([Factor([[[[0.5]]]])]), act="relu6"), np.array([[11], [12], [13], [-3]])
    for output, wanted, saturated in (
        (QFormat(9, 5), [5.5, 6, 6, 0], 0), (QFormat(9, 5, signed=False), [5.5, 6, 6, 0], 0),
        (QFormat(8, 5), [127 / 32] * 3 + [0], 3),
    ):  # fmt: skip
        own = LayerFormats(factors=(FactorFormats(weights=QFormat(4, 1), output=output),))
        integers = quantise(Network(layers=[layer]), Formats(input=QFormat(8, 0), layers=(own,)))
        assert integers.predict(x).ravel().tolist() == wanted
        (stage, acc, _), = integers.accumulators(x)
        assert stage.saturated(acc).sum() == saturated


def test_bits_of_nodes_hold_the_most_that_there_is():
    eight = QFormat(8, 3, signed=False)
    most = np.full((1, 4, 4, 2), eight.hi)
    for node, formats, inputs, width in (
        (Sum(window=Window(4)), (eight,), (most,), 13),
        (Max(window=Window(4)), (eight,), (most,), 9),
        (Pick(inputs=("a", "b")), (eight, QFormat(8, 5)), (most, most // 2), 11),
        (Gate(inputs=("a", "b")), (eight, eight), (most, most[:, 0, 0]), 17),
    ):
        whole = IntNode(node=node, formats=formats, output=QFormat(8, max(f.frac for f in formats)))
        acc = whole.accumulate(*inputs)
        bits = int(acc.max()).bit_length() + 1
        assert whole.acc_width == width + max(0, whole.shift > 0) and bits <= width, node


# training


@pytest.mark.parametrize("seed", range(6), ids="seed-{}".format)
def test_training_is_golden_node_by_node(seed, quantised):
    made, x, integers = quantised(seed)
    formats = formats_of(integers)
    module = QuantisedNetwork(made.network, formats, learn_ranges=seed % 3 == 0)
    x = np.concatenate([x, 5 * x])  # beyond the range, too
    for _ in range(2):  # as given, then with weights that training has moved
        golden = quantise(module.to_network(), module.formats)
        q = golden.input.quantise(x)
        assert np.array_equal(module.integers(torch.from_numpy(x)).numpy(), golden(q))
        found = module.taps(torch.from_numpy(x))
        for (name, y), node in zip(found.items(), golden.nodes):
            wanted = by_name(golden, q)[node.name]
            assert name == node.name and np.array_equal(y.long().numpy(), wanted), name
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.from_numpy(made.rng.normal(scale=0.1, size=p.shape)))
    module(torch.from_numpy(x)).square().sum().backward()
    for name, p in module.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and (seed % 2 or p.grad.any()), name


def test_the_gradient_through_a_table_is_its_slope():
    layer = Layer(chain=Chain([Factor([[[[1.0]]]])]), act="silu")
    formats = Formats(
        input=QFormat(10, 6),
        layers=(
            LayerFormats(factors=(FactorFormats(weights=QFormat(8, 6), output=QFormat(12, 8), table=QFormat(10, 6)),)),
        ),
    )
    module = QuantisedNetwork(Network(layers=[layer]), formats)
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None].requires_grad_()
    module(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    F.silu(y).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=0.2) and torch.allclose(module(x).detach(), F.silu(y).detach(), atol=0.02)


# what is refused


def dense(n, m, name, **rest):
    return Layer(name=name, chain=Chain([Factor(np.ones((1, m, n, 1)))]), **rest)


A = dense(4, 4, "a")
MAP = (6, 5, 4)


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
        ([A, dense(28, 4, "b", window=Window((7, 1)))], "node 'b': 'a' gives 6x5x4, in height a window of 7 does not fit"),
        ([A, Max(name="b", window=Window((2, 6)))], "node 'b': .*in width a window of 6 does not fit into 5 with 0 of"),
        ([A, dense(4, 4, "b", inputs="c")], "node 'b': there is no node 'c'"),
        ([dense(4, 4, "first"), dense(4, 4, "b", inputs="frist")], "no node 'frist'; did you mean 'first'?"),
        ([A, dense(4, 4, "b", inputs="b")], "node 'b' takes itself: a circle"),
        ([A, dense(4, 4, "b", add="c"), dense(4, 4, "c")], "node 'b' takes 'c', which stands behind it: a circle; a node"),
        ([A, dense(4, 4, "a")], "names must differ, 'a' stands twice"),
        ([A, dense(4, 4, "b", inputs="input")], "node 'a': no node takes what it gives; leave it out, or name it"),
        ([A, Pick(name="b", index=[4])], "node 'b': .*in channels the index must be 0 to 3, the inputs' channels, got 4"),
        (
            [A, Max(name="b", window=Window(2)), Pick(name="c", inputs=("a", "b"))],
            "node 'c': 'a' gives 6x5x4, 'b' gives 5x4x4, in height inputs side by side agree: 6 would fit, not 5",
        ),
        ([A, Gate(name="b", inputs=("input", "a"))], "in height a gate is a vector of 4, the map's channels: 1 would fit"),
        (
            [A, Sum(name="s", window=Window((6, 5))), dense(4, 3, "t"), Gate(name="b", inputs=("a", "t"))],
            "node 'b': 'a' gives 6x5x4, 't' gives 3 values, in channels a gate is a vector of 4, .*: 4 would fit, not 3",
        ),
        ([A, Product(name="b", inputs=("input", "a"))], "node 'b': .*in height a matrix is a vector: 1 would fit, not 6"),
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
        (lambda: dense(1, 1, "a", inputs=("a", "b", "c")), r"node 'a' \(Layer\) takes 1 or 2 inputs, got 3"),
        (lambda: Max(window=Window(2, padding=2)), "each window must see the map, so padding is less than its size"),
        (lambda: Sum(window=Window(2, outside=(1,))), "nothing stands outside, and channels need no blocks"),
        (lambda: Max(name="../x", window=Window(2)), "name must be words"),
        (lambda: Pick(index=[[0]]), "index must be integers of 0 or more"),
        (lambda: Pick(index=[-1]), "index must be integers of 0 or more"),
        (lambda: dense(2, 2, "a", add_scale=np.ones(2)), "Layer.add_scale goes with a second input"),
        (lambda: dense(2, 2, "a", add="b", add_scale=np.ones(3)), r"Layer.add_scale must have shape \(2,\), got \(3,\)"),
        (lambda: dense(2, 2, "a", act="rellu"), "unknown activation 'rellu'; did you mean 'relu'.; there are relu, relu6"),
        (lambda: Act("relu", np.sin), "an activation with a function of its own needs a name of its own, got 'relu'"),
        (lambda: Network([dense(4, 4, "a", window=Window(1))]), "a network over maps needs a shape=.*, node 'a'"),
        (lambda: Network([A], (2, 2, 4))(np.zeros((1, 4, 2, 2))), r"maps must have shape \(N, 2, 2, 4\), got \(1, 4, 2, 2\)"),
        (lambda: choose_formats(Network([A], MAP), calibration=np.zeros((3, 4))), r"\(N, 6, 5, 4\), got \(3, 4\)"),
        (lambda: Network([A], MAP).row("this"), "this takes rows of layers over vectors; node 'a' works on a map, 6x5x4"),
        (lambda: Act("sine", np.sin).table(QFormat(13, 3), QFormat(8, 3)), "a table for 'sine' has inputs of at most 12 bi"),
        (lambda: Act("log", np.log).table(QFormat(4, 0), QFormat(8, 3)), "activation 'log' gives no finite number at -8"),
        (lambda: Table(input=QFormat(13, 0), values=np.zeros(8192, int)), "a table's input has at most 12 bits, got 13"),
        (lambda: Table(input=QFormat(3, 0), values=np.zeros(4, int)), r"has 8 integers, got \(4,\)"),
    ],
)
def test_what_is_refused_says_why(make, text):
    with pytest.raises(ValueError, match=text), np.errstate(all="ignore"):
        make()


def test_formats_that_do_not_fit_a_graph_are_refused(quantised):
    made, _, integers = quantised(0)
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
    with pytest.raises(ValueError, match="layer 'some' gives another format than 'last' takes: .*, not 20 bits, 2.-3"):
        IntNetwork(nodes, made.shape)
    with pytest.raises(ValueError, match="node 'gated': integer overflow: its sums need 10[0-9] bits and a shift of -"):
        replace(next(node for node in nodes if node.name == "gated"), formats=(QFormat(50, 0),) * 2)


def test_files_refuse_graphs_for_now(quantised, tmp_path):
    made, _, integers = quantised(0)
    for write, what in ((bfthw.save, made.network), (bfthw.save_integers, integers)):
        with pytest.raises(ValueError, match=r"x.npz: a .* takes rows of layers over vectors; node 'a' has a window"):
            write(what, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layer, reason",
    [
        (dense(4, 4, "a", act="relu6"), "has the activation relu6"),
        (dense(4, 4, "a", residual=True, scale=np.ones(4)), None),
        (dense(4, 4, "a", inputs=(None, None), scale=np.ones(4)), "adds another node, or with a scale of its own"),
    ],
)
def test_rows_are_what_vector_files_hold(layer, reason):
    network = Network(layers=[layer])
    if reason is None:
        assert network.row("x") == (layer,)
    else:
        with pytest.raises(ValueError, match=f"node 'a' {reason}"):
            network.row("x")


def test_batches_are_worked_through_in_slices(monkeypatch):
    """The same numbers for one slice and for many, and never more memory than a slice needs."""
    made = Made(1)
    x = made.inputs(9)
    integers = quantise(made.network, choose_formats(made.network, Settings(), x))
    q = integers.input.quantise(x)
    wanted, rows = (made.network(x), integers(q)), report(made.network, integers, x)
    monkeypatch.setattr("bfthw.graph.SLICE", 8 * 2 * made.nodes[1].room(made.network.shapes[0]))
    few, narrow = Network(made.nodes, made.shape), IntNetwork(integers.nodes, made.shape)
    assert few.batch < 9 and narrow.batch < 9
    seen = []
    monkeypatch.setattr(Max, "__call__", lambda self, x, call=Max.__call__: seen.append(len(x)) or call(self, x))
    assert np.allclose(few(x), wanted[0], rtol=1e-12) and np.array_equal(narrow(q), wanted[1])
    assert max(seen) == few.batch and sum(seen) == 18
    for a, b in zip(report(few, narrow, x), rows):
        assert a.sqnr == pytest.approx(b.sqnr) and (a.saturated, a.values, a.cause) == (b.saturated, b.values, b.cause)
    assert choose_formats(few, Settings(), x) == choose_formats(made.network, Settings(), x)
    monkeypatch.setattr("bfthw.calibrate.VALUES", 4000)
    data = Calibration(few, x)
    assert max(len(tap.ravel()) for tap in data.taps) < 4000 and np.allclose(data.wanted, wanted[0], rtol=1e-12)
    assert all(np.isclose(a.max(), b.max(), rtol=1e-12) for a, b in zip(data.taps[1:], made.network.taps(x)))


def test_a_norm_behind_an_addition_scales_it():
    """g * (conv x + skip) + s: both parts get the gain, and a residual stays one."""
    rng = np.random.default_rng(3)
    gain, shift, x = rng.uniform(1, 2, 4), rng.normal(size=4), rng.normal(size=(5, 4))
    for layer in (
        dense(4, 4, "b", add="a"), dense(4, 4, "b", add="a", add_scale=shift),
        dense(4, 4, "b", residual=True), dense(4, 4, "b", residual=True, scale=gain),
    ):  # fmt: skip
        first, after = dense(4, 4, "a", act="tanh"), behind(layer, gain, shift)
        wanted = Network(layers=[first, layer])(x) * gain + shift
        np.testing.assert_allclose(Network(layers=[first, after])(x), wanted, rtol=1e-12)
        assert after.residual == layer.residual


def test_bounds_count_what_stands_outside():
    """A map of up to 2.05 in a format that ends at 4, with 3.9 outside: 9 * 0.86 * 2.05 < 16, a corner has 23.8."""
    first = Layer(name="a", chain=Chain([Factor(np.full((1, 1, 1, 2), 0.256))]))
    window = Window(3, padding=1, outside=(3.9, 3.9))
    second = Layer(name="b", chain=Chain([Factor(np.full((1, 1, 9, 2), 0.86))]), window=window)
    integers = quantise(network := Network([first, second], (3, 3, 2)), choose_formats(network, Settings(input_frac=4)))
    for stage, acc, y in integers.accumulators(np.full((1, 3, 3, 2), integers.input.hi)):
        assert not stage.saturated(acc).any() and stage.output.dequantise(y).max() > 2
    assert stage.output.frac == integers.nodes[0].output.frac - 3


def test_what_an_activation_removes_is_no_noise():
    """Sums of up to 8 in a format that ends at 2, and as many of down to -8, which a ReLU removes."""
    layer = dense(4, 4, "a", relu=True)
    own = LayerFormats(factors=(FactorFormats(weights=QFormat(2, 0), output=QFormat(9, 7, signed=False)),))
    network, x = Network(layers=[layer]), np.random.default_rng(0).integers(-64, 64, (50, 4)) / 32
    integers = quantise(network, Formats(input=QFormat(8, 5), layers=(own,)))
    assert report(network, integers, x)[1].cause == "saturation"


@pytest.mark.parametrize("act", ["relu6", "hswish", None])
def test_own_noise_is_that_of_the_stage(act):
    """With weights, bias and inputs that are exact, all the noise there is comes from one rounding, and is no weights'."""
    layer = dense(4, 4, "a", act=act, bias=np.full(4, 0.25))
    x = np.random.default_rng(0).integers(-64, 64, (50, 4)) / 32
    network = Network(layers=[layer])
    integers = quantise(network, choose_formats(network, Settings(activation_bits=5, unsigned=True), x))
    first, row = report(network, integers, x)
    got, wanted = integers.predict(x), network(x)
    assert first.sqnr == np.inf and row.cause == "rounding"
    assert row.own == pytest.approx(row.sqnr) == 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())
