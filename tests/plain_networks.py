"""The networks of bfthw.models once more, written as anyone writes them in torch, with the weights of a graph."""

import torch
from torch import nn
from torch.nn import functional as F

from bfthw.models import mobilenetv1, mobilenetv3, shufflenetv2
from bfthw.nn import ButterflyPointwise

ACTS = {"relu": F.relu, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, None: lambda x: x}


class Plain(nn.Module):
    """(N, C, H, W), of points (N, 3, P), float64 -> (N, classes). method: that of the forward; butterflies: as such, or
    as the dense matrices that they are."""

    def __init__(self, network, method, butterflies=True):
        super().__init__()
        self.body, self.nodes = getattr(self, method), {layer.name: layer for layer in network.layers}
        self.butterflies, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for layer in network.layers:
            key, outputs = layer.name.replace(".", "_"), layer.chain.outputs
            if butterflies and len(layer.chain.factors) > 1:
                chain = ButterflyPointwise(layer.chain.inputs, outputs, patterns=layer.chain.patterns, residual=False).double()
                chain.fill([torch.from_numpy(factor.values) for factor in layer.chain.factors])
                self.butterflies[key] = chain
            self.norms[key] = norm = nn.BatchNorm2d(outputs, eps=0).double().eval()
            for own, value in ((norm.weight, layer.scale), (norm.bias, layer.bias)):
                if value is not None:
                    own.data.copy_(torch.from_numpy(value))

    def forward(self, x):
        return self.body(x[..., None] if x.ndim == 3 else x).flatten(1)

    def run(self, name, x, size=1, stride=1, padding=None, depthwise=False, act="relu", add=None):
        layer, n, (kh, kw) = self.nodes[name], x.shape[1], (size, size) if isinstance(size, int) else size
        key, values = name.replace(".", "_"), torch.from_numpy(layer.chain.factors[0].values)
        inside = layer.adds and layer.inputs[1] in (layer.inputs[0], f"{name}.blocks")  # in front of the norm
        blocks = self.blocks(x, layer.chain.outputs) if inside else None
        if key in self.butterflies:
            y = self.butterflies[key](x)
        else:
            if len(layer.chain.factors) > 1 or blocks is not None:  # a butterfly, some of one factor
                weight = torch.from_numpy(layer.chain.dense())[:, :, None, None]
            elif depthwise:
                weight = values.reshape(kh, kw, n).permute(2, 0, 1)[:, None]
            else:
                weight = values.reshape(-1, kh, kw, n).permute(0, 3, 1, 2)
            top, left, bottom, right = padding or (kh // 2, kw // 2) * 2
            x = F.pad(x, (left, right, top, bottom))
            y = F.conv2d(x, weight, None, stride, groups=n if depthwise else 1)
        y = self.norms[key](y if blocks is None else y + blocks)
        return ACTS[act](y if add is None else y + add)

    @staticmethod
    def blocks(x, m):
        """The input of every square block: side by side and cut, or filled up and summed."""
        n = x.shape[1]
        if n <= m:
            return torch.cat([x] * -(-m // n), 1)[:, :m]
        return sum(F.pad(x, (0, 0, 0, 0, 0, -n % m)).split(m, 1))

    def mean(self, name, x, act=None):
        """The layer `name` on the mean over all positions; its scale holds the mean's divisor."""
        return self.run(name, x.sum((2, 3), keepdim=True), act=act)

    def mobilenetv1(self, x):
        x = self.run("conv1", x, 3, 2)
        for i, (_, stride) in enumerate(mobilenetv1.BODY, 1):
            x = self.run(f"pointwise{i}", self.run(f"depthwise{i}", x, 3, stride, depthwise=True))
        return self.mean("classes", x)

    def mobilenetv3(self, x):
        x = self.run("conv1", x, 3, 2, act="hswish")
        for i, (kernel, expanded, outputs, excite, act, stride) in enumerate(mobilenetv3.BODY, 1):
            y, name = x, f"block{i}"
            if i > 1:
                y = self.run(f"{name}.expand", y, act=act)
            y = self.run(f"{name}.depthwise", y, kernel, stride, depthwise=True, act=act)
            if excite:
                y = y * self.run(f"{name}.gate", self.mean(f"{name}.reduce", y, "relu"), act="hsigmoid")
            y = self.run(f"{name}.project", y, act=None)
            x = x + y if stride == 1 and x.shape == y.shape else y
        return self.run("classes", self.mean("head", self.run("conv2", x, act="hswish"), "hswish"), act=None)

    def shufflenetv2(self, x):
        x = F.max_pool2d(self.run("conv1", x, 3, 2), 3, 2, 1)
        for s, count in enumerate(shufflenetv2.REPEATS, 2):
            for i in range(count):
                name = f"stage{s}.{i}"
                left, right = x.chunk(2, 1) if i else (x, x)
                if not i:
                    left = self.run(f"{name}.left.depthwise", left, 3, 2, depthwise=True, act=None)
                    left = self.run(f"{name}.left.pointwise", left)
                right = self.run(f"{name}.right.pointwise1", right)
                right = self.run(f"{name}.right.depthwise", right, 3, 1 if i else 2, depthwise=True, act=None)
                right = self.run(f"{name}.right.pointwise2", right)
                x = torch.stack([left, right], 2).flatten(1, 2)
        return self.mean("classes", self.run("conv5", x))

    def pointnet(self, x):
        def turned(name, x):
            y, n = x, x.shape[1]
            for i in range(1, 4):
                y = self.run(f"{name}.{i}", y)
            y = self.run(f"{name}.5", self.run(f"{name}.4", y.amax((2, 3), keepdim=True)))
            matrix = self.run(f"{name}.6", y, act=None).reshape(-1, n, n)
            return torch.einsum("nip,nij->njp", x.squeeze(3), matrix)[..., None]

        x = turned("features", self.run("points1", turned("input", x)))
        x = self.run("points3", self.run("points2", x), act=None).amax((2, 3), keepdim=True)
        return self.run("classes", self.run("head2", self.run("head1", x)), act=None)

    def resnet8(self, x):
        x = self.run("conv1", x, 3)
        for i in (1, 2, 3):
            y, stride = x, 1 if i == 1 else 2
            y = self.run(f"stack{i}.conv1", y, 3, stride)
            skip = x if i == 1 else self.run(f"stack{i}.skip", x, 1, stride, act=None)
            x = self.run(f"stack{i}.conv2", y, 3, add=skip)
        return self.mean("classes", x)

    def dscnn(self, x):
        return self._separable(self.run("conv1", x, (10, 4), 2, (4, 1, 5, 1)), [(3, 1)] * 4)

    def net_h(self, x):
        return self._separable(self.run("conv1", x, 3, 2), [(3, 2), (3, 1)])

    def net_c(self, x):
        return self._separable(self.run("conv1", x, 3), [(3, 1), (3, 2), (3, 1), (3, 1)])

    def inverted28(self, x):
        x = self.run("conv1", x, 3, 2)
        for i, stride in enumerate((1, 1, 2, 1), 1):
            y = self.run(f"depthwise{i}", self.run(f"widen{i}", x), 3, stride, depthwise=True)
            x = self.run(f"narrow{i}", y, act=None, add=x if i in (2, 4) else None)
        return self.mean("classes", self.run("last", x))

    def csc1d(self, x):
        return self._separable(self.run("conv1", x, (1, 5), (1, 2)), [((1, 5), 1)] * 3)

    def _separable(self, x, depthwise):
        for i, (size, stride) in enumerate(depthwise, 1):
            x = self.run(f"pointwise{i}", self.run(f"depthwise{i}", x, size, stride, depthwise=True))
        return self.mean("classes", x)
