"""Graphs: every node against torch, in floats; their integers against direct integer arithmetic; what is refused."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bfthw import (
    Act,
    Chain,
    Factor,
    Gate,
    IntNetwork,
    Layer,
    Max,
    Network,
    Pick,
    Product,
    QFormat,
    Settings,
    Sum,
    Window,
    report,
)
from bfthw.calibrate import Calibration
from bfthw.check import check
from bfthw.formats import Formats, formats_of
from bfthw.network import equalise
from bfthw.quantize import choose_formats, quantise

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = pytest.mark.parametrize("seed", range(12), ids="seed-{}".format)


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
        self.nodes, self.steps = [], []
        a = self.conv("a", "input", self.shape[2], 8, 3, stride=1, act="relu6")
        self.conv("b", a, 8, 8, 3, groups=8, act="hswish")
        self.conv("c", "b", 8, 8, 1, add="a", add_scale=bool(rng.integers(2)), act=rng.choice(["relu", "silu", None]))
        self.butterfly("d", "c", 8)
        self.maximum("pool", "d")
        self.pick("shuffle", ("pool", "pool"), rng.permutation(16)[:12])
        self.conv("e", "shuffle", 12, 8, 1, act=None)
        self.whole("mean", "e", 8)
        self.conv("squeeze", "mean", 8, 8, 1, act="hsigmoid")
        self.gate("gated", "e", "squeeze")
        self.conv("turn", "mean", 8, 24, 1, act="tanh")
        self.product("turned", "gated", "turn")
        self.add(Sum(name="some", inputs=("turned",), window=Window(2, 1, (1, 0, 0, 1))), some)
        self.whole("last", "some", 3)
        self.network = Network(self.nodes, self.shape)

    def inputs(self, n=3):
        return self.rng.normal(size=(n, *self.shape))

    def add(self, node, step):
        self.nodes.append(node)
        self.steps.append((node, step))
        return node.name

    def conv(self, name, source, n, m, k, *, stride=1, groups=1, act=None, add=None, add_scale=False):
        """A convolution with batch norm, as torch has it: bn(conv x) + s * add, then the activation."""
        rng, act = self.rng, act and str(act)
        w = rng.normal(size=(m, n // groups, k, k)) / np.sqrt(n * k * k / groups)
        scale, bias, s = rng.uniform(0.5, 2, m), rng.normal(size=m), rng.normal(size=m)
        order, block = str(rng.choice(["ky", "kx"])), n // groups if groups < n else n
        taps = (w if order == "ky" else w.swapaxes(2, 3)).reshape(m, n // groups, k * k)
        if groups == n > 1:
            values = taps[:, 0].T.reshape(1, 1, k * k, n)
        else:
            values = taps.transpose(0, 2, 1).reshape(groups, m // groups, -1, 1)
        window = Window(k, stride, k // 2, block=block, order=order) if k > 1 else None
        layer = Layer(
            name=name, inputs=(source,) if add is None else (source, add), chain=Chain([Factor(values)]), window=window,
            scale=scale, bias=bias, add_scale=s if add_scale else None, act=act,
        )
        column = {key: torch.from_numpy(v)[:, None, None] for key, v in (("scale", scale), ("bias", bias), ("s", s))}
        acts = {"relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, "silu": F.silu}
        acts |= {"tanh": torch.tanh, None: lambda y: y}

        def step(x, *added):
            y = F.conv2d(x, torch.from_numpy(w), stride=stride, padding=k // 2, groups=groups)
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
        self.add(Pick(name=name, inputs=sources, index=index), lambda *xs: torch.cat(xs, 1)[:, index])

    def whole(self, name, source, channels):
        """The mean over all positions: a layer whose window is the map."""
        shape = Network(self.nodes, self.shape).shapes[-1]
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
        y = np.concatenate(xs, 3)[..., inner.index] if kind == "Pick" else maxima(xs[0]) if kind == "Max" else xs[0]
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
    assert bool(unsigned) == (seed % 4 != 2) and set(unsigned) <= {"a.factors.0", "c.factors.0", "d.factors.1", "squeeze.factors.0", "pool", "shuffle"}
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
