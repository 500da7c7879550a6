"""Networks over images: dense, depthwise, with residuals. Each function gives (module, shape of one input)."""

import torch
from corpus_cases import Does, classified, conv, taken
from torch import nn
from torch.nn import functional as F

# dense


@taken("dense")
def perceptron():
    """Three dense layers with ReLU"""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), (12,)


@taken("dense")
def flattened_image():
    """An image flattened first, dense layers with batch norms and dropout"""
    layers = nn.Linear(3 * 4 * 4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5)
    return nn.Sequential(nn.Flatten(), *layers), (3, 4, 4)


@taken("dense")
def lenet():
    """Convolutions of 5x5, average pools, tanh, a flattened map"""
    layers = nn.Conv2d(1, 4, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 5), nn.Tanh(), nn.AvgPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 5)), (1, 16, 16)


@taken("dense")
def vgg():
    """Pairs of 3x3 convolutions and maximum pools"""
    parts = conv(3, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 8), conv(8, 8), nn.MaxPool2d(2)
    return classified(*parts, channels=8), (3, 8, 8)


@taken("dense")
def strides_and_paddings():
    """Kernels, strides and paddings that differ along H and W; padding "same" and "valid", too"""
    layers = nn.Conv2d(2, 4, (3, 5), (2, 1), (1, 2)), nn.ReLU(), nn.Conv2d(4, 4, (2, 4), padding="same")
    return nn.Sequential(*layers, nn.ReLU6(), nn.Conv2d(4, 3, (3, 1), padding="valid")), (2, 9, 7)


@taken("dense")
def dilated():
    """Dilated convolutions, full, grouped and depthwise"""
    layers = nn.Conv2d(4, 6, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=(1, 2), dilation=(1, 2), groups=3)
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(6, 6, 3, padding=3, dilation=3, groups=6)), (4, 8, 8)


@taken("dense")
def overlapping_pools():
    """Maximum pools with padding and ceil_mode, an average pool that counts its padding"""
    layers = nn.MaxPool2d(3, 2, 1), conv(4, 6), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, 1)
    return nn.Sequential(conv(2, 4), *layers, nn.Conv2d(6, 3, 1)), (2, 9, 11)


@taken("dense")
def adaptive_pools():
    """Adaptive pools to a grid and to one position"""
    layers = conv(2, 4), nn.AdaptiveMaxPool2d(4), conv(4, 4), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 3)), (2, 8, 8)


@taken("dense")
def softmax_at_the_end():
    """A last log_softmax, which is left out"""
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.LogSoftmax(dim=1)), (2, 2, 2)


@taken("dense")
def map_out():
    """A network whose output is a map"""
    return nn.Sequential(conv(2, 4), nn.Conv2d(4, 3, 1), nn.Sigmoid()), (2, 5, 6)


@taken("dense", own=1)
def norm_in_front():
    """A batch norm of the input, in front of zero padding"""
    return nn.Sequential(nn.BatchNorm2d(3), conv(3, 4)), (3, 6, 6)


@taken("dense")
def pixels_scaled():
    """Pixels less a mean, by a deviation of each channel, into a convolution without padding"""

    def forward(self, x):
        mean, deviation = (torch.tensor(v, dtype=x.dtype).view(3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
        return self.body((x / 255 - mean) / deviation)

    return Does(forward, body=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (3, 6, 6)


@taken("dense")
def weight_norms():
    """Weights made by weight_norm, spectral_norm and a parametrization"""
    layers = nn.utils.weight_norm(nn.Conv2d(2, 4, 3)), nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))
    return nn.Sequential(*layers, nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3))), (2, 7, 7)


# depthwise


@taken("depthwise")
def mobilenet_v1():
    """Depthwise and pointwise convolutions in turn"""
    parts = (part for n, m, s in ((4, 8, 1), (8, 16, 2)) for part in (conv(n, n, 3, s, n), conv(n, m, 1)))
    return classified(conv(3, 4, 3, 2), *parts, channels=16), (3, 16, 16)


class Inverted(nn.Module):
    def __init__(self, n, m, stride, act=nn.ReLU6):
        super().__init__()
        self.add = stride == 1 and n == m
        self.body = nn.Sequential(
            conv(n, 2 * n, 1, act=act), conv(2 * n, 2 * n, 3, stride, 2 * n, act=act), conv(2 * n, m, 1, act=None)
        )

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


@taken("depthwise")
def mobilenet_v2():
    """Inverted residuals with ReLU6"""
    blocks = Inverted(4, 6, 2), Inverted(6, 6, 1), Inverted(6, 8, 2)
    return classified(conv(3, 4, 3, 2, act=nn.ReLU6), *blocks, channels=8), (3, 16, 16)


def excite(n, act=nn.Hardsigmoid):
    """Squeeze and excite."""
    reduce, gate = nn.Conv2d(n, n // 2, 1), nn.Conv2d(n // 2, n, 1)

    def forward(self, x):
        return x * self.act(self.gate(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))

    return Does(forward, reduce=reduce, gate=gate, act=act())


@taken("depthwise")
def mobilenet_v3():
    """Inverted residuals with squeeze and excite and h-swish"""
    blocks = Inverted(4, 4, 1, nn.Hardswish), excite(4), Inverted(4, 6, 2, nn.Hardswish), excite(6)
    return classified(conv(3, 4, act=nn.Hardswish), *blocks, channels=6), (3, 8, 8)


@taken("depthwise")
def efficientnet():
    """SiLU, a gate by sigmoid from linear layers on vectors"""

    def gate(self, x):
        n, c = x.shape[:2]
        return x * torch.sigmoid(self.two(F.silu(self.one(x.mean([2, 3]))))).view(n, c, 1, 1)

    parts = conv(3, 8, act=nn.SiLU), Does(gate, one=nn.Linear(8, 2), two=nn.Linear(2, 8)), conv(8, 6, 1, act=None)
    return classified(*parts, channels=6), (3, 6, 6)


@taken("depthwise")
def hswish_by_hand():
    """x * relu6(x + 3) / 6, x * sigmoid(x) and relu6(x + 3) / 6 as formulas"""

    def forward(self, x):
        x = self.one(x)
        x = self.two(x * F.relu6(x + 3) / 6)
        x = self.three(x * torch.sigmoid(x))
        return F.relu6(x + 3) / 6

    return Does(forward, one=conv(2, 4, act=None), two=conv(4, 4, act=None), three=conv(4, 3, 1, act=None)), (2, 6, 6)


@taken("depthwise")
def multiplier():
    """Depthwise convolutions with a multiplier, grouped ones and a grouped pointwise one"""
    layers = nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 9, 3, padding=1, groups=3), nn.Conv2d(9, 6, 1, groups=3)
    return nn.Sequential(*layers), (3, 7, 7)


@taken("depthwise")
def ds_cnn():
    """DS-CNN for keywords, 49x10, a first convolution of 10x4"""
    layers = [nn.Conv2d(1, 8, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    for _ in range(2):
        layers += [conv(8, 8, 3, 1, 8), conv(8, 8, 1)]
    return classified(*layers, nn.Dropout(0.4), channels=8, classes=12), (1, 49, 10)


# residual


class Basic(nn.Module):
    def __init__(self, n, m, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n, m, 3, stride, 1, bias=False), nn.BatchNorm2d(m)
        self.conv2, self.bn2 = nn.Conv2d(m, m, 3, 1, 1, bias=False), nn.BatchNorm2d(m)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv(n, m, 1, stride, act=None) if stride > 1 or n != m else None

    def forward(self, x):
        identity = x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


@taken("residual")
def resnet8():
    """ResNet8 of MLPerf Tiny, shortcuts of 1x1 and stride 2, written into as torchvision does"""
    return classified(conv(3, 4), Basic(4, 4), Basic(4, 8, 2), Basic(8, 16, 2), channels=16, classes=10), (3, 16, 16)


@taken("residual", own=1)
def preactivated():
    """Norm and ReLU in front of convolutions and of the addition"""

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))

    parts = {"conv1": nn.Conv2d(4, 4, 3, padding=1), "conv2": nn.Conv2d(4, 4, 3, padding=1)}
    block = Does(forward, bn1=nn.BatchNorm2d(4), bn2=nn.BatchNorm2d(4), **parts)
    return nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.BatchNorm2d(4), nn.ReLU()), (3, 8, 8)


@taken("residual")
def shortcut_without_weights():
    """A shortcut that takes every other position and fills channels up with zeros"""

    def forward(self, x):
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return F.relu(self.body(x) + short)

    return Does(forward, body=nn.Sequential(conv(4, 8, 3, 2), conv(8, 8, act=None))), (4, 7, 8)


@taken("residual", own=1)
def scaled_branch():
    """A branch with a factor of its own, and a subtraction"""
    return Does(lambda self, x: x + 0.25 * self.one(x) - self.two(x), one=conv(4, 4, act=None), two=conv(4, 4)), (4, 5, 5)


@taken("residual", own=1)
def dense_blocks():
    """Layers that see all before them, concatenated, with a norm of all of it"""

    def forward(self, x):
        for layer in (self.one, self.two):
            x = torch.cat([x, layer(x)], 1)
        return self.last(F.relu(self.norm(x)))

    parts = {"one": conv(4, 3), "two": conv(7, 3), "norm": nn.BatchNorm2d(10), "last": nn.Conv2d(10, 4, 1)}
    return Does(forward, **parts), (4, 5, 5)


@taken("residual")
def squeezed():
    """SqueezeNet's fire: 1x1 and 3x3 side by side"""

    def fire(n, s, e):
        parts = {"squeeze": nn.Conv2d(n, s, 1), "one": nn.Conv2d(s, e, 1), "three": nn.Conv2d(s, e, 3, padding=1)}

        def forward(self, x):
            x = F.relu(self.squeeze(x))
            return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], dim=1)

        return Does(forward, **parts)

    return nn.Sequential(conv(3, 4), fire(4, 2, 3), nn.MaxPool2d(2), fire(6, 2, 4), nn.Conv2d(8, 5, 1)), (3, 8, 8)


@taken("residual")
def inception():
    """Four branches of other kernels, one behind a pool"""
    pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(4, 2, 1))
    branches = nn.ModuleList([conv(4, 2, 1), conv(4, 3, 3), conv(4, 2, 5), pooled])
    return Does(lambda self, x: torch.cat([branch(x) for branch in self.branches], 1), branches=branches), (4, 6, 6)


class Unit(nn.Module):
    """ShuffleNetV2's, of stride 1 or 2, with the shuffle as in torchvision."""

    def __init__(self, n, stride):
        super().__init__()
        h, m = (n // 2, n // 2) if stride == 1 else (n, n)
        self.stride = stride
        self.left = nn.Sequential(conv(n, n, 3, 2, n, act=None), conv(n, m, 1)) if stride == 2 else None
        self.right = nn.Sequential(conv(h, m, 1), conv(m, m, 3, stride, m, act=None), conv(m, m, 1))

    def forward(self, x):
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            out = torch.cat((left, self.right(right)), dim=1)
        else:
            out = torch.cat((self.left(x), self.right(x)), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


@taken("residual")
def shufflenet():
    """ShuffleNetV2's units of stride 2 and 1"""
    return classified(conv(3, 4, 3, 2), Unit(4, 2), Unit(8, 1), channels=8), (3, 12, 12)


@taken("residual")
def grouped_shuffle():
    """Grouped pointwise convolutions with nn.ChannelShuffle between them"""
    layers = conv(4, 8, 1, groups=2), nn.ChannelShuffle(2), conv(8, 8, 3, 1, 8), conv(8, 4, 1, groups=2)
    return nn.Sequential(*layers), (4, 6, 6)
