"""The networks as torch modules. Everything is (N, channels, H, W): points are H = points and W = 1, vectors 1 x 1."""

import torch
from torch import nn
from torch.nn.functional import pad

from ..chain import Indexed
from ..nn import Butterfly, ButterflyPointwise, ReleasedBFT, Structured
from ..structures import index as inputs_of
from . import nodes as plan

ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish, "hsigmoid": nn.Hardsigmoid}


class Blocks(Structured):
    """Square butterflies side by side in the place of a pointwise convolution, see `nodes.square_blocks`.

    (N, inputs, H, W) -> (N, outputs, H, W). Where sizes do not divide, outputs are cut or inputs filled up with zeros.
    residual: the input of every block is added to its output, as the released code of the CVPR paper does.
    """

    over = "channels"

    def __init__(self, inputs, outputs, base=4, residual=True, bias=False):
        super().__init__()
        self.inputs, self.outputs, self.residual = inputs, outputs, residual
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.blocks = Butterfly(plan.square_blocks(inputs, outputs, base), residual=False)

    def _skips(self):
        """(q, outputs): what each output gets added, as numbers of inputs; from `inputs` on there is nothing."""
        joined = torch.arange(self.outputs)[None]
        if self.inputs < self.outputs:
            return joined % self.inputs
        return joined + self.outputs * torch.arange(self.blocks.inputs // self.outputs)[:, None]

    def forward(self, x):
        x = pad(x.movedim(-3, -1), (0, self.blocks.inputs - self.inputs))
        y = self.blocks(x)[..., : self.outputs]
        if self.residual:
            y = y + sum(x[..., row] for row in self._skips().to(x.device))
        if self.bias is not None:
            y = y + self.bias
        return y.movedim(-1, -3).contiguous()

    def to_butterfly(self):
        """One chain: the blocks' own, or, with a residual or sizes that do not divide, of indexed factors.

        A residual is carried along beside the values, one value more an input.
        """
        shapes, made = self.blocks.patterns, [v.detach().double().cpu() for v in self.blocks.factors]
        if self.residual or (self.blocks.inputs, self.blocks.outputs) != (self.inputs, self.outputs):
            shapes, made = self._indexed(shapes, made)
        return Butterfly.of(shapes, made, bias=self.bias)

    def _indexed(self, patterns, factors):
        """(Indexed patterns, values) of the whole layer but its bias."""
        carried, skips, shapes, made = 0, self._skips().T, [], []
        for m, (p, values) in enumerate(zip(patterns, factors)):
            index, rows = torch.from_numpy(inputs_of(p)), values.movedim(2, 3).reshape(p.outputs, p.c)
            size = self.inputs if m == 0 else p.inputs + carried
            if m == 0:  # inputs that are filled up are no inputs
                index, rows = index.where(index < size, 0), rows.where(index < size, 0)
            at = 0 if m == 0 else p.inputs  # where the carried inputs are
            last = m == len(patterns) - 1
            if last:
                index, rows = index[: self.outputs], rows[: self.outputs]
            if last and self.residual:
                real = skips < self.inputs
                index = torch.cat([index, (skips + at).where(real, 0)], 1)
                rows = torch.cat([rows, real.double()], 1)
            elif self.residual:
                carried = self.inputs
                index = torch.cat([index, (at + torch.arange(carried))[:, None].expand(-1, p.c)])
                rows = torch.cat([rows, torch.eye(p.c, dtype=rows.dtype)[:1].expand(carried, -1)])
            shapes.append(Indexed(index.numpy(), size))
            made.append(rows[:, None, :, None])
        return shapes, made


class Unit(nn.Sequential):
    """A `Conv` as layer, norm and activation, those that there are."""

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.add_module("layer", _layer(node))
        if node.norm:
            self.add_module("norm", nn.BatchNorm2d(node.outputs))
        if node.act:
            self.add_module("act", ACTIVATIONS[node.act]())


def _layer(node):
    n, m, kernel = node.inputs, node.outputs, node.kernel
    if node.chain is None:
        how = {"stride": node.stride, "padding": kernel // 2, "groups": node.groups, "bias": node.bias}
        return nn.Conv2d(n, m, kernel, **how)
    if node.chain == "released":
        return ReleasedBFT(n, m, node.base)
    if node.chain == "bft" and n != m:
        return Blocks(n, m, node.base, node.skip, node.bias)
    return ButterflyPointwise(n, m, patterns=node.patterns, residual=node.skip, bias=node.bias)


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Excite(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x * self.body(x.mean((2, 3), keepdim=True))


class Shuffle(nn.Module):
    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x):
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        # channel 0 of the one, of the other, channel 1 of the one, ...
        return torch.stack([left, self.right(right)], 2).flatten(1, 2)


class Transform(nn.Module):
    """(N, n, P, 1) points, each times a matrix of their own cloud, which is kept as `matrix` (N, n, n) for the loss."""

    def __init__(self, channels, body):
        super().__init__()
        self.channels, self.body, self.matrix = channels, body, None

    def forward(self, x):
        n = self.channels
        self.matrix = self.body(x).reshape(-1, n, n) + torch.eye(n, device=x.device)
        return torch.einsum("nip,nij->njp", x.squeeze(3), self.matrix)[..., None]


class MaxOverPoints(nn.Module):
    def forward(self, x):
        return x.amax(2, keepdim=True)


POOLS = {"max": lambda: nn.MaxPool2d(3, 2, 1), "average": lambda: nn.AdaptiveAvgPool2d(1), "points": MaxOverPoints}


def _module(node):
    match node:
        case plan.Conv():
            return Unit(node)
        case plan.Pool():
            return POOLS[node.kind]()
        case plan.Dropout():
            return nn.Dropout(node.share)
        case plan.Residual():
            return Residual(_sequence(node.body))
        case plan.Excite():
            return Excite(_sequence(node.body))
        case plan.Shuffle():
            return Shuffle(None if node.left is None else _sequence(node.left), _sequence(node.right))
        case plan.Transform():
            return Transform(node.channels, _sequence(node.body))


def _sequence(nodes):
    """Children are called as their layers are, without dots, or by kind and place."""
    result = nn.Sequential()
    for i, node in enumerate(nodes):
        name = getattr(node, "name", f"{type(node).__name__.lower()}{i}")
        result.add_module(name.replace(".", "_"), _module(node))
    return result


class Classifier(nn.Module):
    """(N, 3, H, W), or points (N, 3, P), -> (N, classes). `model`: what it was built from."""

    def __init__(self, model):
        super().__init__()
        self.model, self.body = model, _sequence(model.nodes)

    def forward(self, x):
        return self.body(x[..., None] if x.ndim == 3 else x).flatten(1)

    def units(self):
        """Every `Unit`, layer with norm and activation, in order of use."""
        return [module for module in self.modules() if isinstance(module, Unit)]

    def penalty(self):
        """Mean |A A^T - I| of the matrices that turned features in the last forward (PointNet, section 4.2); or 0."""
        found = [m.matrix.float() for m in self.modules() if isinstance(m, Transform) and m.channels > 3]
        return sum(((a @ a.mT - torch.eye(a.shape[1], device=a.device)).norm(dim=(1, 2)).mean() for a in found), 0)


def build(model):
    return Classifier(model)
