"""What torch's functions become as nodes, one by one, and where norms and additions go."""

import re

import graph_corpus as corpus
import numpy as np
import pytest
import torch
from test_trace import samples, taken
from torch import nn
from torch.nn import functional as F

import bfthw
from bfthw import Gate, Layer, Max, Product, Settings, Sum, Window
from bfthw.nn import Butterfly, to_network
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import choose_formats, quantise

pytestmark = pytest.mark.usefixtures("one_thread")


# norms


def of_norms(*parts, shape=(3, 6, 6)):
    network, notes, _ = taken(nn.Sequential(*parts), shape)
    return [node.name for node in network.nodes], [note for note in notes if re.match("[012]:", note)]


NORM, OWN = nn.BatchNorm2d, "0: a layer of its own, "
PADDED = OWN + "it cannot be folded into layer '1' behind it, which has zeros around its map"
TWICE = OWN + "in front of more than one, or of a residual"
bft = bfthw.nn.ButterflyPointwise


@pytest.mark.parametrize(
    "parts, names, note",
    [
        ((nn.Conv2d(3, 4, 3), NORM(4)), ["0"], "1: in '0'"),
        ((nn.Conv2d(3, 4, 3, padding=1), NORM(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), ["0", "3"], "1: in '0'"),
        ((NORM(3), nn.Conv2d(3, 4, 3)), ["1"], "0: in '1' behind it"),
        ((NORM(3), nn.Conv2d(3, 6, 3, groups=3)), ["1"], "0: in '1' behind it"),
        ((NORM(3), nn.Conv2d(3, 3, 3, stride=2, groups=3)), ["1"], "0: in '1' behind it"),
        ((NORM(3), nn.Conv2d(3, 3, 2, dilation=2)), ["1"], "0: in '1' behind it"),
        ((NORM(3), nn.Conv2d(3, 4, 3, padding=1)), ["0", "1"], PADDED),
        ((NORM(3), nn.Conv2d(3, 4, 1, padding=1)), ["0", "1"], PADDED),
        ((NORM(3), nn.MaxPool2d(2)), ["0", "1"], OWN + "in front of '1', which has no weights"),
        ((NORM(3), nn.AvgPool2d(2)), ["0", "1"], OWN + "in front of '1', which has no weights"),
        ((nn.AvgPool2d(2), NORM(3)), ["0"], "1: in '0_2'"),
        ((nn.MaxPool2d(2), NORM(3)), ["0", "1"], "1: a layer of its own, behind '0', which has no weights"),
        ((nn.Conv2d(3, 4, 1), nn.ReLU(), NORM(4)), ["0", "2"], "2: a layer of its own, behind the activation relu of '0'"),
        ((nn.Conv2d(3, 4, 1), nn.ReLU(), NORM(4), nn.Conv2d(4, 3, 3)), ["0", "3"], "2: in '3' behind it"),
        ((NORM(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), ["0", "2"], "1: in '0'"),
        ((NORM(3), bft(3, base=3, residual=True)), ["0", "1"], TWICE),
        ((NORM(3), bft(3, residual=False)), ["1"], "0: in '1' behind it"),
        ((NORM(3), NORM(3), nn.Conv2d(3, 4, 1)), ["2"], "1: in '0'"),
        ((nn.Conv2d(3, 4, 1), nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 2)), ["0", "2.pick", "3"], "2: in '2.pick'"),
    ],
)
def test_norms_wherever_they_stand(parts, names, note):
    found, notes = of_norms(*parts)
    assert found == names and note in notes, notes


def test_norms_behind_and_in_front_of_additions():
    """Behind an addition that a convolution took in, both of its parts get the norm's scale."""
    parts = {"conv": nn.Conv2d(4, 4, 3, padding=1), "norm": NORM(4)}
    _, notes, nodes = taken(corpus.Does(lambda self, x: self.norm(self.conv(x) + x), **parts), (4, 5, 5))
    assert [*nodes] == ["conv"] and nodes["conv"].add_scale is not None and nodes["conv"].inputs == ("input", "input")
    parts = {"conv": nn.Conv2d(4, 4, 3, padding=1), "norm": NORM(4)}
    _, notes, nodes = taken(corpus.Does(lambda self, x: self.conv(x) + self.norm(x), **parts), (4, 5, 5))
    assert [*nodes] == ["conv"] and "norm: in 'conv' behind it" in notes


def test_additions():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    add = {
        "+": lambda self, x: self.a(x) + self.b(x),
        "torch.add": lambda self, x: torch.add(self.a(x), self.b(x), alpha=-0.5),
        "+=": lambda self, x: self.a(x).__iadd__(self.b(x)),
        "-": lambda self, x: self.a(x) - self.b(x),
        "3 -": lambda self, x: 3 - self.a(x) - 2 * self.b(x),
        "out +=": lambda self, x: torch.zeros(len(x), 4, 5, 5, dtype=x.dtype).add_(self.a(x)).add_(self.b(x)),
        "rsub": lambda self, x: torch.rsub(self.a(x), self.b(x), alpha=2),
    }
    for forward in add.values():
        module = Twice()
        network, _, nodes = taken(corpus.Does(forward, a=module.a, b=module.b), (4, 5, 5))
        assert all(isinstance(node, Layer) for node in network.nodes) and len(nodes) <= 2


# rules


def test_activations_are_clamps_or_tables():
    layers = []
    acts = {
        "relu": [nn.ReLU(), nn.Threshold(0, 0), nn.LeakyReLU(0.0)],
        "relu6": [nn.ReLU6(), nn.Hardtanh(0, 6)],
        "hswish": [nn.Hardswish()],
        "hsigmoid": [nn.Hardsigmoid()],
        "silu": [nn.SiLU()],
        "sigmoid": [nn.Sigmoid()],
        "tanh": [nn.Tanh()],
        "gelu": [nn.GELU(), nn.GELU(approximate="tanh")],
        "hardtanh": [nn.Hardtanh(-1, 2), nn.Hardtanh(0, 20)],
        "leaky_relu": [nn.LeakyReLU()],
    }
    for modules in acts.values():
        layers += [part for act in modules for part in (nn.Linear(5, 5), act)]
    network, _, _ = taken(nn.Sequential(*layers), (5,))
    assert [layer.act.name for layer in network.layers] == [name for name, modules in acts.items() for _ in modules]


def test_functions_and_methods():
    def forward(self, x):
        x = self.one(x).relu()
        x = torch.clamp(self.two(x), 0, 6)
        return torch.tanh(self.three(x).clamp(min=0.25).sqrt().mul(2).sigmoid().pow(2) ** 2)

    parts = {"one": nn.Linear(4, 4), "two": nn.Linear(4, 4), "three": nn.Linear(4, 4)}
    network, _, _ = taken(corpus.Does(forward, **parts), (4,))
    assert [layer.act.name for layer in network.layers][:2] == ["relu", "relu6"] and len(network.nodes) == 3


def test_pools_and_means():
    """Of each kind, with windows, over one axis and over all."""
    pools = {
        lambda x: F.max_pool2d(x, (2, 3), (1, 2), 1): Max,
        lambda x: F.max_pool2d(x, 2, ceil_mode=True): Max,
        lambda x: F.avg_pool2d(x, 3, 2): Layer,
        lambda x: F.avg_pool2d(x, 3, 1, 1): Layer,
        lambda x: F.avg_pool2d(x, 2, divisor_override=1): Sum,
        lambda x: x.mean(3): Layer,
        lambda x: x.mean((-1, -2), keepdim=True): Layer,
        lambda x: x.sum((2, 3)): Sum,
        lambda x: x.flatten(2).mean(-1): Layer,
        lambda x: x.max(2).values: Max,
        lambda x: x.amax((2, 3)): Max,
        lambda x: F.adaptive_max_pool2d(x, (1, None)): Max,
    }
    for pool, kind in pools.items():
        _, _, nodes = taken(corpus.Does(lambda self, x, pool=pool: pool(self.one(x)), one=nn.Conv2d(2, 3, 1)), (2, 5, 7))
        assert isinstance([*nodes.values()][-1], kind)


def test_gates_and_products():
    gates = [
        lambda self, x: x * self.gate(x.mean((2, 3)))[:, :, None, None],
        lambda self, x: self.gate(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1).expand_as(x) * x,
        lambda self, x: x.permute(0, 2, 3, 1) * self.gate(x.mean((2, 3)))[:, None, None],
    ]
    for forward in gates:
        gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())
        body = corpus.Does(forward, gate=gate)
        assert any(isinstance(node, Gate) for node in taken(body, (3, 4, 5))[0].nodes)
    products = [
        lambda self, x: torch.bmm(x, self.matrix(x.amax(1)).view(-1, 4, 2)),
        lambda self, x: self.matrix(x.amax(1)).view(-1, 2, 4) @ x.mT,
        lambda self, x: torch.einsum("bpi,bji->bjp", x, self.matrix(x.amax(1)).view(-1, 2, 4)),
    ]
    for forward in products:
        network, _, _ = taken(corpus.Does(forward, matrix=nn.Linear(4, 8)), (9, 4))
        assert isinstance(network.nodes[-1], Product)


def test_moves_are_picks():
    """Splits, joins and shuffles of channels are one index, however they are written."""

    def forward(self, x):
        a, b, c = self.one(x).split([1, 4, 3], dim=1)
        x = torch.cat([c.flip(1), torch.stack([a, a], 2).flatten(1, 2), b.roll(1, 1)], 1)
        return self.two(x.unflatten(1, (3, 3)).transpose(1, 2).reshape(x.shape))

    _, _, nodes = taken(corpus.Does(forward, one=nn.Conv2d(2, 8, 1), two=nn.Conv2d(9, 3, 3)), (2, 4, 4))
    scale = nn.Parameter(torch.tensor([2.0, 3])[:, None, None])
    network, _, _ = taken(corpus.Does(lambda self, x: x.view_as(self.k.expand_as(x)) * self.k.expand_as(x), k=scale), (2, 3, 3))
    assert len(network.nodes) == 1
    assert [*nodes] == ["one", "two.pick", "two"]
    assert nodes["two.pick"].index.tolist() == [7, 0, 1, 6, 0, 2, 5, 4, 3]


def test_writing_into_a_tensor_changes_what_others_see():
    def forward(self, x):
        x = self.one(x)
        view = x[:, :2]
        view.relu_()
        view *= 2
        x[:, 3] = 0
        return self.two(x) + x

    taken(corpus.Does(forward, one=nn.Conv2d(2, 4, 1), two=nn.Conv2d(4, 4, 3, padding=1)), (2, 5, 5))


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d"])
@pytest.mark.parametrize("seed", range(10), ids="seed-{}".format)
def test_convolutions_of_all_kinds(kind, seed):
    rng = np.random.default_rng(seed)
    rank = int(kind[4])
    groups = int(rng.choice([1, 2, 4]))

    def some(low, high):
        return tuple(int(v) for v in rng.integers(low, high, rank))

    how = {"groups": groups, "stride": some(1, 4), "dilation": some(1, 3), "bias": bool(rng.integers(2))}
    how["padding"] = some(0, 3)
    if rng.integers(4) == 0:
        how |= {"padding": "same", "stride": 1}
    module = getattr(nn, kind)(4, 4 * int(rng.integers(1, 3)), some(1, 4), **how)
    network, _, _ = taken(module, (4, *(int(v) for v in rng.integers(7, 11, rank))))
    (layer,) = network.layers
    assert layer.chain.weights == module.weight.numel(), "no product more than the convolution has"


def test_a_butterfly_takes_a_flattened_map():
    butterfly = Butterfly(16, residual=False)
    _, _, nodes = taken(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), butterfly, nn.ReLU()), (1, 2, 2))
    assert [*nodes] == ["0", "2"] and nodes["2"].window == Window(2, block=1)
    assert nodes["2"].chain.patterns == butterfly.patterns
    parts = {"conv": nn.Conv2d(1, 4, 1), "last": Butterfly(12, residual=False)}
    forward = corpus.Does(lambda self, x: self.last(self.conv(x).flatten(1)[:, 2:14].flip(1)), **parts)
    _, _, nodes = taken(forward, (1, 2, 2))
    assert [*nodes] == ["conv", "last"] and nodes["last"].chain.patterns[0].inputs == 16
    module = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), Butterfly(16, residual=True))
    _, _, nodes = taken(module, (1, 2, 2))
    assert [*nodes] == ["0", "2.pick", "2"] and nodes["2"].residual


def test_rows_that_become_columns():
    """A map turned, or its one row a sequence: the window is turned, no number moves."""

    def forward(self, x):
        x = self.two(self.one(x).transpose(2, 3)).relu()  # (5, 5, 1) of a map (1, 5)
        x = self.three(x.squeeze(3))
        return F.max_pool2d(self.four(x.unsqueeze(2)), (1, 2), 1, (0, 1))

    parts = {"one": nn.Conv2d(2, 4, (4, 2), padding=(1, 0)), "two": nn.Conv2d(4, 5, (3, 3), (1, 2), (1, 0))}
    parts |= {"three": nn.Conv1d(5, 4, 2, groups=1), "four": nn.Conv2d(4, 4, (1, 3), padding=(0, 2), groups=4)}
    network, _, nodes = taken(corpus.Does(forward, **parts), (2, 4, 6))
    assert len(network.nodes) == 5 and nodes["two"].window.order == "kx"


def test_hooks_do_what_they_do():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    module[0].register_forward_hook(lambda module, args, y: y * 2 + 1)
    module.register_forward_pre_hook(lambda module, args: (args[0].flip(1),))
    taken(module, (4,))
    module.append(Butterfly(4))
    module[2].register_forward_hook(lambda module, args, y: y)
    with pytest.raises(ValueError, match="module '2': a forward hook, .* may change what it computes"):
        to_network(module, (4,))


def test_training_follows_the_same_graph():
    """What is taken trains: the integers of the network that is trained are the golden ones."""
    module, shape = corpus.NETWORKS["mobilenet_v3"].build()
    network = to_network(module, shape)
    x = corpus.inputs(samples(shape, 8), network)
    formats = choose_formats(network, Settings(activation_bits=9), x)
    trained = QuantisedNetwork(network, formats)
    golden = quantise(trained.to_network(), formats)
    assert np.array_equal(trained.integers(torch.from_numpy(x)).numpy(), golden(golden.input.quantise(x)))


@pytest.mark.parametrize("kind, windows", [("conv", [Layer]), ("average", [Layer]), ("max", [Layer, Max])])
def test_zeros_in_front_of_windows(kind, windows):
    """They are the window's own padding, but of a maximum, which takes all around a map for the least value."""
    behind = {"conv": nn.Conv2d(2, 3, 3), "average": nn.AvgPool2d(3), "max": nn.MaxPool2d(3)}[kind]
    forward = corpus.Does(lambda self, x: self.behind(F.pad(-x.abs(), (1, 2, 0, 1))), behind=behind)
    network, _, _ = taken(forward, (2, 6, 6))
    assert [type(node) for node in network.nodes if node.window is not None] == windows
