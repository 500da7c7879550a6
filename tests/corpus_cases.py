"""What the networks of the corpus are made with: their registry, `NETWORKS`, and modules that several of them have."""

from dataclasses import dataclass

import torch
from torch import nn

NETWORKS = {}


@dataclass(frozen=True)
class Case:
    """group: what kind of network. refused: words of the refusal, or nothing. own: layers that norms and others need."""

    name: str
    group: str
    make: object
    refused: str = ""
    own: int = 0

    @property
    def what(self):
        return self.make.__doc__

    def build(self):
        """(module in float64 and eval mode, its norms and biases shaken; shape)."""
        torch.manual_seed(5)
        module, shape = self.make()
        return shaken(module).double().eval(), shape


def shaken(module):
    with torch.no_grad():
        for one in module.modules():
            if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d) and one.running_mean is not None:
                one.running_mean.normal_()
                one.running_var.uniform_(0.5, 2)
                if one.affine:
                    one.weight.uniform_(0.5, 1.5)
                    one.bias.normal_()
            elif isinstance(getattr(one, "bias", None), nn.Parameter):
                one.bias.normal_()
    return module


def taken(group, own=0):
    return lambda make: NETWORKS.setdefault(make.__name__, Case(make.__name__, group, make, own=own)).make


def refused(group, words):
    return lambda make: NETWORKS.setdefault(make.__name__, Case(make.__name__, group, make, words)).make


class Does(nn.Module):
    """A module whose forward is a function of itself and x; parts: its modules."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def conv(n, m, kernel=3, stride=1, groups=1, act=nn.ReLU):
    """Convolution, norm and activation."""
    parts = [nn.Conv2d(n, m, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(m)]
    return nn.Sequential(*parts, *([act()] if act else []))


def conv1(n, m, kernel=3, stride=1, groups=1):
    return nn.Sequential(nn.Conv1d(n, m, kernel, stride, kernel // 2, groups=groups), nn.BatchNorm1d(m), nn.ReLU())


def classified(*parts, channels, classes=5):
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
