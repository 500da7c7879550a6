"""Whole networks: the graph is torch's, integers of training are the golden model's, node by node."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from graphs import Made  # noqa: E402
from plain_networks import Plain  # noqa: E402

from bfthw import Act, Layer, Network, Settings, graph, models, report  # noqa: E402
from bfthw.nn import GraphModule, to_network  # noqa: E402
from bfthw.qat import QuantisedNetwork  # noqa: E402
from bfthw.quantize import choose_formats, quantise  # noqa: E402

SETTINGS = Settings(weight_bits=8, activation_bits=9)


def paper(name, **how):
    return lambda: models.model(name, **{"resolution": 32, "classes": 10} | how)


# by name: (network, the method of `Plain`)
SMALL = {
    "h": (models.net_h, "net_h"),
    "c": (models.net_c, "net_c"),
    "inverted28": (models.inverted28, "inverted28"),
    "resnet8": (models.resnet8, "resnet8"),
    "dscnn": (lambda: models.dscnn(fusion="bft"), "dscnn"),
    "dscnn-dense": (models.dscnn, "dscnn"),
    "csc1d": (models.csc1d, "csc1d"),
    "mobilenetv1": (paper("mobilenetv1", width=0.25), "mobilenetv1"),
    "mobilenetv1-dense": (paper("mobilenetv1", width=0.25, fusion="dense"), "mobilenetv1"),
    "shufflenetv2": (paper("shufflenetv2", width=0.5), "shufflenetv2"),
    "mobilenetv3": (paper("mobilenetv3-small", width=0.35), "mobilenetv3"),
    "pointnet": (paper("pointnet", classes=40, fusion="debut"), "pointnet"),
    "pointnet-bft": (paper("pointnet"), "pointnet"),
}
LARGE = {
    "mobilenetv1": (paper("mobilenetv1", resolution=96), "mobilenetv1"),
    "mobilenetv1-dense": (paper("mobilenetv1", resolution=96, fusion="dense"), "mobilenetv1"),
    "shufflenetv2": (paper("shufflenetv2", width=1.25, resolution=96), "shufflenetv2"),
    "mobilenetv3": (paper("mobilenetv3-small", resolution=96), "mobilenetv3"),
    "pointnet": (paper("pointnet", resolution=256, classes=40, fusion="debut"), "pointnet"),
    "pointnet-dense": (paper("pointnet", resolution=256, fusion="dense"), "pointnet"),
}
every = [pytest.param(*made, id=name) for name, made in SMALL.items()]
every += [pytest.param(*made, id=f"large-{name}", marks=pytest.mark.slow) for name, made in LARGE.items()]


def inputs(network, count, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, *network.shape))


def near(got, wanted):
    return np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("make, plain", every)
def test_torch_to_graph_to_integers(make, plain):
    """A module with batch norms to a graph, as torch computes it; a step of training, equal to the golden model."""
    x = inputs(made := make(), 2)
    module = GraphModule(made, norm=True)
    with torch.no_grad():  # statistics of its own
        for layer in module.layers.values():
            if layer.norm is not None:
                layer.norm.running_mean.uniform_(-0.2, 0.2)
                layer.norm.running_var.uniform_(0.5, 1.5)
    network = module.eval().to_network()
    wanted = network(x)
    assert near(module(torch.from_numpy(x)).detach().numpy(), wanted)
    first = torch.from_numpy(x).permute(0, 3, 1, 2)
    assert near(Plain(network, plain, butterflies=False)(first).detach().numpy(), wanted)
    spelled = to_network(Plain(network, plain), first.shape[1:])
    assert near(spelled(x.reshape(-1, *spelled.shape.dims)), wanted)

    formats = choose_formats(network, SETTINGS, x)
    assert formats.input.signed is False
    trained = QuantisedNetwork(network, formats)
    optimiser = torch.optim.SGD(trained.parameters(), lr=1e-3 / np.abs(wanted).max() ** 2)
    trained(torch.from_numpy(x)).square().mean().backward()
    optimiser.step()
    golden = quantise(trained.to_network(), formats)
    q = golden.input.quantise(x)
    taps = trained.taps(torch.from_numpy(x)).items()
    for (node, got), (name, found) in zip(golden.walk(q, lambda n, *xs: n(*xs)), taps, strict=True):
        assert node.name == name and np.array_equal(got, found.numpy()), name
    rows = report(network, quantise(network, formats), x)
    assert len(rows) == 1 + len(golden.stages) and np.isfinite([row.sqnr for row in rows[1:]]).all()


def test_every_part_learns():
    """Batch norms, factors and biases of all kinds of nodes get a gradient; what only adds stays as it is."""
    for make, _ in (SMALL["mobilenetv3"], SMALL["resnet8"], SMALL["pointnet-bft"]):
        module = GraphModule(network := make(), norm=True).train()
        (module(torch.from_numpy(inputs(network, 4))).square().mean() + module.penalty()).backward()
        for key, parameter in module.named_parameters():
            fixed = not parameter.requires_grad
            assert fixed or parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
            assert fixed == (key.endswith("blocks.chain.factors.0") or "joined.chain" in key or ".scale" in key), key


@pytest.mark.parametrize("fusion", ["bft", "dense"])
def test_long_sums_in_floats_are_exact(fusion, monkeypatch):
    """The same integers by sums of integers alone."""
    network = models.model("mobilenetv1", width=0.25, resolution=32, classes=10, fusion=fusion)
    integers = quantise(network, choose_formats(network, SETTINGS, x := inputs(network, 2)))
    found = integers.taps(q := integers.input.quantise(x))
    monkeypatch.setattr("bfthw.intfactor.LONG", 1 << 30)
    assert all(map(np.array_equal, found, integers.taps(q)))
    wide = Settings(weight_bits=24, activation_bits=24, input_bits=24)
    last = quantise(network, choose_formats(network, wide, x)).factors[-1]  # of more than 53 bits, at its largest
    rng = np.random.default_rng(0)
    values = last.weights.hi - rng.integers(0, 100, last.values.shape)
    monkeypatch.undo()
    one, ends = replace(last, values=values), last.input.hi - rng.integers(0, 100, (1, last.pattern.inputs))
    exact = values[0, :, :, 0].astype(object) @ ends[0].astype(object)
    assert max(exact) >= 1 << 53 and one.dots(ends)[0].tolist() == exact.tolist()


def test_memory_is_that_of_a_slice(monkeypatch):
    """Of a batch ten times as large no more is held than its inputs and outputs."""
    monkeypatch.setattr(graph, "SLICE", 1 << 19)
    network = models.net_h()
    integers = quantise(network, choose_formats(network, SETTINGS, inputs(network, 4)))
    peaks = []
    for count in (integers.batch, 10 * integers.batch):
        q = integers.input.quantise(inputs(network, count))
        tracemalloc.start()
        integers(q)
        peaks.append(tracemalloc.get_traced_memory()[1] - q.nbytes)
        tracemalloc.stop()
    assert peaks[0] < 8 * graph.SLICE and peaks[1] < peaks[0] + q.nbytes + graph.SLICE


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds(seed):
    x = inputs(models.net_h(), 1)
    first, again, other = (models.net_h(seed=s)(x) for s in (seed, seed, seed + 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("seed", [*range(3), 100, 101])
def test_any_graph_as_a_module(seed):
    """Both orders of taps, groups, padding with numbers, gates, products: tests/graphs.py."""
    made = Made(seed)
    module, x = GraphModule(made.network, norm=True).eval(), made.inputs()
    assert near(module(torch.from_numpy(x)).detach().numpy(), made.network(x))
    assert near(module.to_network()(x), made.network(x))
    odd = Layer(name="odd", chain=made.network.layers[0].chain, act=Act("own", np.square))
    with pytest.raises(ValueError, match="layer 'odd': torch has no activation 'own'"):
        GraphModule(Network(layers=[odd]))
