"""Graphs for tests: made by seeds, beside the same in torch and in direct integer arithmetic."""

from fractions import Fraction
from math import floor

import numpy as np
import torch
from torch.nn import functional as F

from bfthw import Chain, Factor, Gate, Layer, Max, Network, Pick, Product, Rearrange, Settings, Shape, Sum, Window
from bfthw.quantize import choose_formats, quantise

WILD = 100  # seeds from here on have their wiring by chance, too


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
        self.rearrange("elsewhere", "some")
        self.whole("last", "elsewhere", 3)

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
            name=name,
            inputs=(source,) if add is None else (source, add),
            chain=Chain([Factor(values)]),
            window=window,
            scale=scale,
            bias=bias,
            add_scale=s if add_scale else None,
            act=act,
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

        self.add(
            Layer(name=name, inputs=(source,), chain=chain, residual=True, scale=scale, bias=bias, relu=True), step
        )

    def maximum(self, name, source):
        self.add(Max(name=name, inputs=(source,), window=Window(3, 2, 1)), lambda x: F.max_pool2d(x, 3, 2, 1))

    def pick(self, name, sources, index):
        self.add(
            Pick(name=name, inputs=sources, index=index),
            lambda *xs: torch.cat(xs, 1)[:, slice(None) if index is None else index],
        )

    def rearrange(self, name, source):
        """All numbers of a map but some, anywhere, as a map of another shape and as many channels."""
        height, width, channels = self.shapes[source]
        size = width, max(1, height - 1)
        index = self.rng.permutation(height * width * channels)[: size[0] * size[1] * channels]

        def step(x):
            y = x.permute(0, 2, 3, 1).reshape(len(x), -1)[:, index]
            return y.reshape(len(x), *size, channels).permute(0, 3, 1, 2)

        self.add(Rearrange(name=name, inputs=(source,), index=index, size=size), step)

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
    elif kind == "Rearrange":
        flat = xs[0].reshape(len(xs[0]), -1)
        (height, width), frac = inner.size, max(fracs)
        y = np.array([[one[at] for at in inner.index] for one in flat]).reshape(len(flat), height, width, -1)
    else:
        frac = max(fracs)
        if kind == "Sum":
            x = np.pad(xs[0], ((0, 0), (1, 0), (0, 1), (0, 0)))
            xs = [x[:, :-1, :-1] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, 1:, 1:]]
        xs = [x * 2 ** (frac - own) for x, own in zip(xs, fracs)]
        y = (
            np.concatenate(xs, 3)[..., slice(None) if inner.index is None else inner.index]
            if kind == "Pick"
            else maxima(xs[0])
            if kind == "Max"
            else xs[0]
        )
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
        y[:, v, u, (c // q * kh * kw + tap) * q + c % q] = (
            x[:, i, j, c] if inside else np.broadcast_to(window.outside, channels)[c]
        )
    return y


def maxima(x):
    """3 x 3, stride 2, padding 1, of Python's own numbers."""
    n, height, width, channels = x.shape
    y = np.zeros((n, (height - 1) // 2 + 1, (width - 1) // 2 + 1, channels), object)
    for k, v, u, c in np.ndindex(y.shape):
        y[k, v, u, c] = x[k, max(0, 2 * v - 1) : 2 * v + 2, max(0, 2 * u - 1) : 2 * u + 2, c].max()
    return y


def dense(n, m, name, **rest):
    return Layer(name=name, chain=Chain([Factor(np.ones((1, m, n, 1)))]), **rest)


def made_integers(seed):
    """(Made, its data, its IntNetwork), with calibration data for even seeds."""
    made = Made(seed)
    x = made.inputs(6)
    rows, bits = int(made.rng.integers(3)), int(made.rng.integers(6, 12))
    settings = Settings(weight_bits=8, activation_bits=bits, row_exponents=rows)
    if seed % 4 == 2:
        settings = settings.model_copy(update={"calibration_method": "least-squares", "unsigned": False})
    formats = choose_formats(made.network, settings, x if seed % 2 == 0 else None)
    return made, x, quantise(made.network, formats)
