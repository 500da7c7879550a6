"""Networks whose pointwise layers become butterflies, and the butterflies of networks as checkpoints of their own."""

import copy
import re

import numpy as np
import pytest

import bfthw
from bfthw import chain
from bfthw.chain import Indexed

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from bfthw.nn import (  # noqa: E402
    Butterfly,
    ButterflyPointwise,
    Circulant,
    LowRank,
    Pointwise,
    ReleasedBFT,
    extract,
    replace,
    to_network,
)


class Net(nn.Module):
    """What networks do: functions and modules behind layers, in place or not, shortcuts, layers used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.wide, self.norm = nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.down = nn.Conv2d(24, 40, 1, stride=2, padding=1, groups=2)
        self.same = nn.Sequential(nn.Conv2d(40, 40, 1), nn.BatchNorm2d(40), nn.Dropout(0.5), nn.ReLU(inplace=True))
        self.shared, self.tiny = nn.Conv2d(40, 40, 1), nn.Conv2d(40, 2, 1)
        self.head = nn.Linear(40, 20)

    def forward(self, x):
        x = F.relu(self.norm(self.wide(self.stem(x))))
        x = self.down(x)
        x = x + self.same(x)
        x = self.shared(torch.relu(self.shared(x)))
        return self.head(x.mean((2, 3))), self.tiny(x)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    one = Net()
    for module in one.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return one.eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(20, 3, 7, 7, generator=torch.Generator().manual_seed(6))


def test_new_weights(net, x, capsys):
    before = copy.deepcopy(net.state_dict())
    new = replace(net, linear=True, leave=["stem", "wide"])
    told = {row.name: (row.inputs, row.outputs, row.dense, row.why) for row in new.replaced}
    assert told == {
        "wide": (16, 24, 384, "asked"),
        "down": (24, 40, 480, ""),
        "same.0": (40, 40, 1600, ""),
        "shared": (40, 40, 1600, ""),
        "tiny": (40, 2, 80, "no chain is cheaper"),
        "head": (40, 20, 800, ""),
    }
    out = capsys.readouterr().out
    assert "left as they are: wide (asked), tiny (no chain is cheaper)" in out
    parameters = [sum(p.numel() for p in one.parameters()) for one in (net, new)]
    assert all(str(number) in out for number in parameters) and parameters[1] < parameters[0]
    assert {type(new.same[0]), type(new.shared)} == {ButterflyPointwise} and new.same[0].residual
    assert type(new.head) is Butterfly and torch.equal(new.head.bias, net.head.bias) and not new.training
    assert [one.shape for one in new(x)] == [one.shape for one in net(x)]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())  # it is a copy
    sum(one.sum() for one in new(x)).backward()
    assert all(p.grad is not None for p in new.head.factors)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(12, 18, 1),
        nn.Conv2d(12, 18, 1, bias=False, groups=3),
        nn.Conv2d(12, 18, 1, stride=(2, 3), padding=(1, 2)),
        nn.Conv2d(12, 12, 1, padding="same", groups=2),
        nn.Conv2d(22, 26, 1, stride=2, groups=2).double(),
    ],
    ids=["plain", "groups", "stride and padding", "same", "primes"],
)
def test_everything_but_the_matrix_stays(conv):
    """On a matrix that is such a chain the projection is exact, so outputs are the convolution's own."""
    torch.manual_seed(7)
    g, m, n = conv.groups, conv.out_channels // conv.groups, conv.in_channels // conv.groups
    primes = n == 11
    shape = bfthw.project.named("bft4", m, n) if primes else chain.dense(m, n)
    if primes:  # a padded butterfly's own matrix, of which least squares find the most
        parts = [chain.Chain.random(shape, seed).dense() for seed in range(g)]
        conv.weight.data.copy_(torch.from_numpy(np.concatenate(parts))[..., None, None])
    new = replace(conv, chain=shape, project=True, method="als", show=False)
    x = torch.randn(5, conv.in_channels, 7, 8).to(conv.weight.dtype)
    (row,) = new.replaced
    assert new(x).dtype == conv(x).dtype and new(x).shape == conv(x).shape
    if primes:
        whole = torch.linalg.vector_norm(conv(x) - conv.bias[:, None, None])
        assert row.errors[0] < 0.5 and torch.linalg.vector_norm(new(x) - conv(x)) < 2 * row.errors[0] * whole
        assert any(isinstance(p, Indexed) for p in row.patterns)
    else:
        torch.testing.assert_close(new(x), conv(x))
    if conv.stride != (1, 1):
        assert isinstance(new, nn.Sequential)


def test_projected_to_outputs(net, x):
    """Both errors are those of the layer's outputs, on samples that were fitted and on those held out."""
    how = {"project": True, "method": "als", "sweeps": 4, "show": False}
    new = replace(net, x, leave=["stem", "shared"], chain={"wide": "lowrank:4"}, **how)
    rows = {row.name: row for row in new.replaced if not row.why}
    assert set(rows) == {"wide", "down", "same.0"}
    assert rows["wide"].patterns == chain.low_rank(24, 16, 4) and not new.same[0].residual
    fitted, held = bfthw.project.split(np.arange(20))
    found = {}
    for part in (fitted, held):
        inputs = net.stem(x[part])
        wanted, got = (one.wide(inputs).detach().double() for one in (net, new))
        found[len(part)] = float((wanted - got).norm() / wanted.norm())
    assert rows["wide"].errors == pytest.approx((found[16], found[4]), abs=1e-4)
    weights = replace(net, leave=["stem"], **how)
    assert all(len(row.errors) == 1 for row in weights.replaced if not row.why)


def test_shared_layers_and_wrappers():
    layer = nn.Conv2d(16, 16, 1)
    new = replace(nn.DataParallel(nn.Sequential(layer, nn.ReLU(), layer)), show=False)
    assert new[0] is new[2] and type(new[0]) is ButterflyPointwise and len(new.replaced) == 1
    attention = nn.Sequential(nn.MultiheadAttention(16, 2), nn.Linear(16, 16))
    new = replace(attention, linear=True, show=False)
    assert type(new[1]) is Butterfly and type(new[0].out_proj) is type(attention[0].out_proj)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1))
    new = replace(nn.Sequential(normed), project=True, method="als", chain=chain.dense(16, 16), show=False)
    x = torch.randn(2, 16, 3, 3)
    torch.testing.assert_close(new(x), normed(x))


class Own(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).tanh()


def hooked():
    layer = nn.Conv2d(16, 16, 1)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: replace(nn.Sequential(Own(16, 16, 1))), "layer '0': a Own has a forward of its own; leave=.'0'."),
        (lambda: replace(nn.Sequential(hooked())), "layer '0': a forward hook, .*; leave=.'0'. leaves it"),
        (
            lambda: replace(nn.Conv2d(16, 16, 1, padding=1, padding_mode="reflect")),
            "padding_mode='reflect', only zeros can be kept",
        ),
        (lambda: replace(nn.Conv2d(16, 16, 1, device="meta")), "layer '0': 'weight' has no values"),
        (lambda: replace(nn.Linear(16, 16)), "nothing to replace: no 1x1 convolution; linear=True takes Linear too"),
        (lambda: replace(nn.Conv2d(3, 4, 1)), "nothing to replace: all 1 layers stay; '0': no chain is cheaper"),
        (lambda: replace(nn.Conv1d(16, 16, 1)), "all 1 layers stay; '0': an nn.Conv1d"),
        (lambda: replace(Net(), leave=["wid"]), "leave: there is no 'wid'; did you mean 'wide'"),
        (lambda: replace(Net(), chain={"stem": "bft4"}), "chain: there is no 'stem'"),
        (lambda: replace(Net(), chain="monarch:999"), "layer 'wide': monarch:999: blocks must be 2 to 16"),
        (lambda: replace(Net(), chain=chain.dense(9, 16)), "'wide': the patterns map 16 -> 9, the layer 16 -> 24"),
        (lambda: replace(Net(), torch.zeros(1, 3, 7, 7)), "x goes with project=True"),
        (lambda: replace(Net(), sweeps=3), "sweeps goes with project=True"),
        (lambda: replace(Net(), torch.zeros(0, 3, 7, 7), project=True), "one at least, got .0."),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# extract


def expected(name, net, given):
    """What the network has where the layer's folded outputs are, from its own parts."""
    if name == "wide":
        return F.relu(net.norm(net.wide(given)))
    return {"same.0": net.same, "down.2": net.down[2], "shared": net.shared, "head": net.head}[name](given)


def test_extract(net, x, tmp_path):
    new = replace(net, linear=True, leave=["stem", "tiny"], show=False).train()
    modes = [module.training for module in new.modules()]
    found = extract(new, x, tmp_path, rows=100)
    assert [module.training for module in new.modules()] == modes
    assert {one.name: one.layer.parts for one in found} == {
        "wide": ["relu", "scale", "bias"],
        "down.2": ["bias"],
        "same.0": ["residual", "relu", "scale", "bias"],
        "shared": ["residual", "bias"],  # a ReLU is behind the first call alone
        "head": ["bias"],
    }
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{one.name}{end}" for one in found for end in (".safetensors", ".npy")}
    new.eval()
    for one in found:
        inputs = np.load(one.path.with_suffix(".npy"))
        network = bfthw.load(one.path).network
        assert inputs.shape == (20 if one.name == "head" else 100, network.inputs) and one.vectors == len(inputs)
        given = torch.from_numpy(inputs).float()
        given = given if one.name == "head" else given.T[None, :, :, None]
        with torch.no_grad():
            wanted = expected(one.name, new, given)
        wanted = wanted.double().numpy() if one.name == "head" else wanted[0, ..., 0].T.double().numpy()
        np.testing.assert_allclose(network(inputs), wanted, rtol=1e-4, atol=1e-4)


def test_extracted_inputs_are_what_the_layer_gets(tmp_path):
    """All of them where there is room, in order; others of the same pixels where there is not."""
    torch.manual_seed(8)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), ButterflyPointwise(16, 20)).eval()
    x = torch.randn(70, 3, 5, 5)  # more than a batch
    with torch.no_grad():
        every = model[0](x).movedim(1, -1).reshape(-1, 16).double().numpy()
    extract(model, x, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "1.npy"), every, atol=1e-6)
    extract(model, x, tmp_path, rows=50, seed=1)
    fewer = np.load(tmp_path / "1.npy")
    assert fewer.shape == (50, 16) and {len(np.flatnonzero(np.abs(every - row).max(1) < 1e-5)) for row in fewer} == {1}


class Odd(nn.Module):
    """Uses that look like a norm or a ReLU of the layer alone, and are not."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.norm, self.how = Butterfly(16, residual=False), nn.BatchNorm1d(16), how
        nn.init.uniform_(self.norm.running_mean, 0.5, 1)
        self.batch = nn.BatchNorm1d(16, track_running_stats=False)

    def forward(self, x):
        y = self.layer(x[:, None].expand(-1, 16, -1) if self.how == "other axis" else x)
        match self.how:
            case "shortcut":
                return self.norm(y) + y
            case "batch statistics":
                return self.batch(y)
            case "relu, norm":
                return self.norm(F.relu(y))
            case "other axis":
                return self.norm(y)
            case "dropout in eval":
                return F.relu(F.dropout(y, 0.9, training=True))
            case "arithmetic":
                return F.relu(y - 1)
            case "shape":
                return F.relu(self.norm(y) if y.shape[1] == 16 and y.dim() == 2 else y)


@pytest.mark.parametrize(
    "how, parts",
    [
        ("shortcut", []),
        ("batch statistics", []),
        ("relu, norm", ["relu"]),
        ("other axis", []),
        ("dropout in eval", []),
        ("arithmetic", []),
        ("shape", ["relu", "scale", "bias"]),
    ],
)
def test_only_what_alone_follows_is_folded(tmp_path, how, parts):
    (one,) = extract(Odd(how).eval(), torch.randn(4, 16), tmp_path)
    assert one.layer.parts == parts


def test_layers_of_all_kinds(tmp_path):
    model = nn.Sequential(ReleasedBFT(16, 32), Pointwise(LowRank(32, 8, 4)), Pointwise(Circulant(8)), nn.ReLU())
    found = extract(model, torch.randn(4, 16, 1, 1), tmp_path)
    assert [one.name for one in found] == ["0", "1", "2"]
    (single,) = extract(Butterfly(16), torch.randn(4, 16), tmp_path / "new")
    assert single.name == "" and single.path.name == "0.safetensors"
    assert str(single).endswith("0.safetensors: chain + residual, 16 -> 16, 4 inputs")


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.aside = Butterfly(16), Butterfly(16)

    def forward(self, x):
        return self.used(x)


def test_extract_refuses(tmp_path):
    x = torch.randn(4, 16)
    for make, message in (
        (lambda: extract(nn.Linear(16, 16), x, tmp_path), "has no butterflies; bfthw.nn.replace puts them in"),
        (lambda: extract(Unused(), x, tmp_path), "butterfly 'aside' sees nothing of x .*; leave=.'aside'."),
        (lambda: extract(Unused(), x, tmp_path, leave=["asid"]), "no butterfly 'asid'; did you mean 'aside'"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="x must be a tensor of samples, or a tuple of them, got ndarray"):
        extract(Unused(), x.numpy(), tmp_path)
    assert not list(tmp_path.iterdir())
    extract(Unused(), (x,), tmp_path, leave=["aside"])


def test_network_of_the_whole_equals_its_parts(tmp_path):
    """A Sequential has both ways: to_network, and layer by layer."""
    torch.manual_seed(9)
    model = nn.Sequential(Butterfly(16, 24), nn.BatchNorm1d(24), nn.ReLU(), Butterfly(24, 10, bias=True)).eval()
    nn.init.uniform_(model[1].running_mean, -1, 1)
    x = torch.randn(30, 16)
    y = x.double().numpy()
    for one in extract(model, x, tmp_path):
        y = bfthw.load(one.path).network(y)
    np.testing.assert_allclose(y, to_network(model)(x.double().numpy()), atol=1e-5)


def test_a_saved_state_dict_leads_to_the_end(net, tmp_path):
    """Whoever follows the messages gets the layer with its norm, as extract writes it; the module is not needed."""
    new = replace(net, leave=["stem", "tiny"], show=False)
    torch.save(new.state_dict(), tmp_path / "net.pt")
    listed = "--order takes single layers, of 'wide', .*extract"
    with pytest.raises(bfthw.checkpoint.CheckpointError, match=listed) as told:
        bfthw.load(tmp_path / "net.pt")
    name = re.search("of '([^']*)'", str(told.value))[1]
    (alone,) = bfthw.load(tmp_path / "net.pt", order=[name]).network.layers
    assert alone.chain.patterns == new.wide.patterns and alone.parts == []
    (folded,) = bfthw.load(tmp_path / "net.pt", order=[name, "norm"], options={"relu": "all"}).network.layers
    (wanted,) = (one.layer for one in extract(new, torch.randn(2, 3, 7, 7), tmp_path / "own") if one.name == name)
    np.testing.assert_allclose(folded.scale, wanted.scale, rtol=1e-6)
    np.testing.assert_allclose(folded.bias, wanted.bias, rtol=1e-5, atol=1e-7)
    assert folded.relu and np.array_equal(folded.chain.dense(), wanted.chain.dense())
