"""Networks over sequences, of butterflies, and mixed ones. Each function gives (module, shape of one input)."""

import foreign_modules as theirs
import torch
from corpus_cases import Does, classified, conv, conv1, taken
from plain_networks import Plain
from torch import nn
from torch.nn import functional as F

from bfthw import models
from bfthw.nn import (
    Butterfly,
    ButterflyPointwise,
    Circulant,
    CyclicSupport,
    Deformable,
    FixedButterfly,
    Grouped,
    LowRank,
    Monarch,
    Pointwise,
    ReleasedBFT,
)

# one-dimensional


@taken("one-dimensional")
def sequences():
    """Convolutions over a sequence, pools, a mean over time"""
    layers = conv1(6, 8, 5), nn.MaxPool1d(2), conv1(8, 8, 3, 2), nn.AvgPool1d(2), conv1(8, 12)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4)), (6, 32)


@taken("one-dimensional")
def separable_sequences():
    """Depthwise convolutions over a sequence, pointwise ones between them"""
    layers = conv1(6, 8), conv1(8, 8, 3, 1, 8), conv1(8, 8, 1), conv1(8, 8, 3, 2, 8), conv1(8, 6, 1)
    return Does(lambda self, x: self.last(self.body(x).mean(-1)), body=nn.Sequential(*layers), last=nn.Linear(6, 3)), (6, 20)


@taken("one-dimensional", own=3)
def temporal():
    """A temporal network: dilated causal convolutions, padded on the left, with residuals"""

    def forward(self, x):
        for layer, dilation in zip(self.layers, (1, 2, 4)):
            x = x + F.relu(layer(F.pad(x, (2 * dilation, 0))))
        return self.last(x[:, :, -1])

    layers = nn.ModuleList(nn.Conv1d(4, 4, 3, dilation=d) for d in (1, 2, 4))
    return Does(forward, layers=layers, last=nn.Linear(4, 3)), (4, 16)


@taken("one-dimensional")
def positions_first():
    """A sequence (L, C) with linear layers on each position, a mean over positions"""
    return Does(lambda self, x: self.two(F.gelu(self.one(x)).mean(1)), one=nn.Linear(5, 8), two=nn.Linear(8, 3)), (7, 5)


class Transform(nn.Module):
    """PointNet's T-net, as it is written most often."""

    def __init__(self, k):
        super().__init__()
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(k, 8, 1), nn.Conv1d(8, 16, 1)
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, k * k)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(8), nn.BatchNorm1d(16), nn.BatchNorm1d(8)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 16)
        x = self.fc2(F.relu(self.bn3(self.fc1(x))))
        identity = torch.eye(self.k, dtype=x.dtype).flatten().repeat(x.shape[0], 1)
        return (x + identity).view(-1, self.k, self.k)


@taken("one-dimensional")
def pointnet():
    """PointNet with two T-nets"""

    def forward(self, x):
        x = torch.bmm(x.transpose(2, 1), self.input(x)).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = torch.bmm(x.transpose(2, 1), self.features(x)).transpose(2, 1)
        x = self.bn2(self.conv2(x)).max(2)[0]
        return F.log_softmax(self.fc(x), dim=1)

    parts = {"conv1": nn.Conv1d(3, 8, 1), "conv2": nn.Conv1d(8, 16, 1), "bn1": nn.BatchNorm1d(8), "bn2": nn.BatchNorm1d(16)}
    return Does(forward, input=Transform(3), features=Transform(8), fc=nn.Linear(16, 4), **parts), (3, 24)


@taken("one-dimensional")
def points_as_rows():
    """A cloud (P, 3), turned by einsum with a matrix that it makes itself"""

    def forward(self, x):
        matrix = self.matrix(self.body(x).amax(dim=1)).reshape(-1, 3, 3)
        return self.last(torch.einsum("npi,nij->npj", x, matrix).amax(dim=1))

    return Does(forward, body=nn.Linear(3, 8), matrix=nn.Linear(8, 9), last=nn.Linear(3, 4)), (12, 3)


# butterflies


@taken("butterflies")
def butterfly_classifier():
    """Butterflies on vectors: the Butterfly Transform, Monarch, DeBut, low rank"""
    layers = Butterfly(16, bias=True), nn.BatchNorm1d(16), nn.ReLU(), Monarch(16, 24, 4), nn.ReLU(), Deformable(24, 16)
    return nn.Sequential(*layers, nn.ReLU(), LowRank(16, 12, 3, bias=True), nn.Tanh(), Grouped(12, 8, 4)), (16,)


@taken("butterflies")
def mobile_butterflies():
    """Depthwise convolutions, pointwise butterflies with residuals"""
    parts = []
    for n in (16, 16):
        parts += [conv(n, n, 3, 1, n), ButterflyPointwise(n), nn.BatchNorm2d(n), nn.ReLU()]
    return classified(conv(3, 16, 3, 2), *parts, channels=16), (3, 8, 8)


@taken("butterflies")
def rectangular_butterflies():
    """Pointwise butterflies of other channels in than out"""
    layers = ButterflyPointwise(6, 16, bias=True), nn.ReLU(), Pointwise(LowRank(16, 8, 2)), nn.ReLU6(), ReleasedBFT(8, 16, 2)
    return nn.Sequential(conv(3, 6), *layers), (3, 6, 6)


@taken("butterflies")
def other_structures():
    """Circulant, cyclic support and fixed butterflies on vectors, and on a flattened map"""
    layers = FixedButterfly(36, 16), nn.ReLU(), CyclicSupport(16, 4), nn.ReLU(), Circulant(16, 8, bias=True)
    return nn.Sequential(conv(2, 4), nn.Flatten(), *layers), (2, 3, 3)


@taken("butterflies")
def of_other_projects():
    """Modules of other projects: torch_butterfly, Monarch, BLAST"""
    layers = theirs.torch_butterfly()(16, 16), nn.ReLU(), theirs.MonarchLinear(16, 16), nn.BatchNorm1d(16), nn.ReLU()
    return nn.Sequential(*layers, theirs.BlastLinear(2, 4, 3, 4, 2)), (16,)


@taken("butterflies")
def of_other_projects_over_maps():
    """Their modules in the place of pointwise convolutions: the Butterfly Transform's own code, a DeBut of 1x1"""
    layers = theirs.ButterflyTransform(8, 16, 2), nn.BatchNorm2d(16), nn.ReLU(), theirs.Fusion(16, 8, "butterfly")
    return nn.Sequential(conv(3, 8), *layers, nn.ReLU()), (3, 5, 5)


@taken("butterflies")
def butterflies_of_sequences():
    """A Butterfly on each position of a sequence (L, C)"""
    return nn.Sequential(Butterfly(8, bias=True), nn.ReLU(), Monarch(8, 8, 2), nn.Hardswish()), (6, 8)


def of_models(name, method=None, **how):
    return Plain(models.model(name, resolution=32, classes=4, **how), method or name), (3, 32, 32)


@taken("butterflies")
def models_mobilenetv1():
    """MobileNetV1 with BFT"""
    return of_models("mobilenetv1", width=0.25)


@taken("butterflies")
def models_mobilenetv1_released():
    """MobileNetV1 with the chains of the released code's BFT"""
    return of_models("mobilenetv1", width=0.25, fusion="released")


@taken("butterflies")
def models_mobilenetv3():
    """MobileNetV3-Small with Monarch"""
    return of_models("mobilenetv3-small", "mobilenetv3", width=0.25, fusion="monarch")


@taken("butterflies")
def models_shufflenetv2():
    """ShuffleNetV2 with BFT"""
    return of_models("shufflenetv2", width=0.5)


# mixed


@taken("mixed", own=1)
def written_in_place():
    """Activations written into their input, in front of a residual that sees them too"""

    def forward(self, x):
        x = self.one(x)
        y = F.relu(x, inplace=True)  # x is changed as well
        return x + self.two(y)

    return Does(forward, one=conv(2, 4, act=None), two=conv(4, 4)), (2, 5, 5)


@taken("mixed")
def joined_then_padded():
    """Channels of two convolutions, mixed, with zeros put around them in front of the next"""

    def forward(self, x):
        y = torch.stack([self.left(x), self.right(x)], 2).flatten(1, 2)
        return self.last(F.pad(y, (1, 2, 0, 1)))

    return Does(forward, left=conv(2, 4), right=conv(2, 4), last=nn.Conv2d(8, 3, 3, stride=2)), (2, 6, 6)


@taken("mixed")
def shape_dependent():
    """Python that asks for shapes, loops over parts and writes into them"""

    def forward(self, x):
        if x.ndim == 4 and x.shape[2] > 3:
            x = self.pool(x)
        out = torch.zeros_like(x)
        for k, part in enumerate(x.split(2, dim=1)):
            out[:, 2 * k : 2 * k + 2] = part if k % 2 else part.flip(1)
        return self.last(out).flatten(1)

    return Does(forward, pool=nn.AvgPool2d(2), last=nn.Conv2d(6, 3, 3)), (6, 8, 8)


@taken("mixed")
def pixel_shuffled():
    """Channels that become positions"""
    return nn.Sequential(conv(2, 8), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1)), (2, 4, 4)


@taken("mixed", own=1)
def context():
    """The mean over all positions, through a dense layer, added at each"""

    def forward(self, x):
        x = self.one(x)
        return self.last(x + self.dense(x.mean((2, 3)))[:, :, None, None])

    return Does(forward, one=conv(2, 4), dense=nn.Linear(4, 4), last=nn.Conv2d(4, 3, 1)), (2, 5, 4)


@taken("mixed", own=4)
def mixer():
    """Dense layers over the positions of patches, and over their channels, twice, with batch norms (MLP-Mixer)"""

    def forward(self, x):
        x = self.patches(x).flatten(2)  # (N, channels, positions)
        for across, along, first, second in zip(self.across, self.along, self.first, self.second):
            x = x + across(first(x))
            x = x + along(second(x).transpose(1, 2)).transpose(1, 2)
        return self.last(x.mean(2))

    def mlp(n, wide):
        return nn.Sequential(nn.Linear(n, wide), nn.GELU(), nn.Linear(wide, n))

    parts = {"across": [mlp(9, 12) for _ in "12"], "along": [mlp(8, 16) for _ in "12"]}
    parts |= {key: [nn.BatchNorm1d(8) for _ in "12"] for key in ("first", "second")}
    parts = {key: nn.ModuleList(own) for key, own in parts.items()}
    return Does(forward, patches=nn.Conv2d(1, 8, 4, 4), last=nn.Linear(8, 5), **parts), (1, 12, 12)


@taken("mixed")
def shared_layer():
    """A convolution that is used twice"""
    return Does(lambda self, x: self.conv(F.relu(self.conv(x))), conv=nn.Conv2d(3, 3, 3, padding=1)), (3, 5, 5)


@taken("mixed")
def tables():
    """Functions of one number, all as tables"""
    acts = nn.GELU(), nn.Mish(), nn.ELU(), nn.SELU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.Softsign(), nn.Hardtanh(-2, 2)
    layers = [part for act in (*acts, nn.PReLU(), nn.CELU(), nn.Tanhshrink(), nn.LogSigmoid()) for part in (nn.Linear(6, 6), act)]
    return nn.Sequential(*layers), (6,)


@taken("mixed")
def two_heads_joined():
    """Maps of two branches flattened and joined for one dense layer"""

    def forward(self, x):
        a, b = self.one(x), self.two(x)
        return self.last(torch.cat([a.flatten(1), b.mean((2, 3))], 1))

    return Does(forward, one=conv(2, 3, 3, 2), two=conv(2, 4), last=nn.Linear(3 * 9 + 4, 5)), (2, 6, 6)


@taken("mixed")
def cut_and_filled():
    """A map cut on all sides, another padded on two, added"""

    def forward(self, x):
        return self.last(self.one(x)[:, :, 1:-1, 1:-1] + F.pad(self.two(x), (1, 0, 0, 1)))

    return Does(forward, one=conv(2, 3), two=nn.Conv2d(2, 3, 4), last=nn.Conv2d(3, 2, 1)), (2, 6, 6)


@taken("mixed")
def flattened_norm():
    """A batch norm and an activation of a flattened map"""
    layers = nn.Flatten(), nn.BatchNorm1d(18), nn.ReLU(), nn.Linear(18, 4)
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), *layers), (2, 3, 3)


@taken("mixed")
def constant_matrix():
    """A product with a matrix that is no data, on either side"""
    a, b = torch.linspace(-1, 1, 12).reshape(3, 4).double(), torch.linspace(1, 2, 18).reshape(3, 6).double()
    return Does(lambda self, x: torch.matmul(b, self.one(x)).mT @ a, one=nn.Conv1d(2, 6, 1)), (2, 6)
