"""Any torch module as a network: the corpus, taken and equal or refused in so many words, and the rules one by one."""

import re
import warnings

import graph_corpus as corpus
import numpy as np
import pytest
import torch
from plain_networks import Plain
from torch import nn
from torch.nn import functional as F

import bfthw.models
from bfthw import Layer, Max, Pick, Settings
from bfthw.nn import Butterfly, to_network

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = pytest.mark.parametrize("case", corpus.NETWORKS.values(), ids=lambda case: case.name)
SETTINGS = Settings(weight_bits=10, activation_bits=12, input_bits=12, equalise=False)


def samples(shape, count=4, seed=7):
    return torch.randn((count, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def check_equal(module, shape, network):
    """Within 1e-10 of the largest output."""
    for scale in (1, 20):
        x = samples(shape) * scale
        with torch.no_grad():
            wanted = corpus.outputs(module(x), network)
        given = network(corpus.inputs(x, network))
        assert np.abs(given - wanted).max() <= 1e-10 * np.abs(wanted).max()


def taken(module, shape, **own):
    """(network, notes, {name: node}) of a module, equal to it."""
    module, notes = corpus.shaken(module).double().eval(), []
    network = to_network(module, shape, notes)
    check_equal(module, shape, network)
    return network, notes, {node.name: node for node in network.nodes}


@CASES
def test_the_corpus(case):
    module, shape, network, notes = corpus.read(case.name)
    if case.refused:
        assert isinstance(network, Exception) and re.search(case.refused, str(network)), network
        assert "\n" not in str(network) and str(network).startswith("to_network: ")
        return
    assert isinstance(network, bfthw.Network), network
    assert sum("layer of its own" in note for note in notes) == case.own, notes
    if any("left out at the end" in note for note in notes):  # the numbers in front of a log_softmax are others
        x = samples(shape)
        wanted = Relative()(module(x)).detach().numpy()
        assert np.allclose(Relative()(torch.from_numpy(network(corpus.inputs(x, network)))).numpy(), wanted)
    else:
        check_equal(module, shape, network)
    x = corpus.inputs(samples(shape, 8), network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        integers = bfthw.compile(network, settings=SETTINGS, calibration=x, allow_constant=True)
    q = integers(integers.input.quantise(x))
    assert q.shape == (8, *network.shapes[-1].dims) and q.dtype == np.int64
    error, wanted = integers.output.dequantise(q) - network(x), network(x)
    assert (error**2).mean() < 0.05 * (wanted**2).mean()


def test_the_models():
    """The networks of `bfthw.models` that the corpus has not, dense ones and PointNet's with its published chains."""
    for name, how, shape in (
        ("pointnet", {"fusion": "debut", "resolution": 32}, (3, 32)),
        ("mobilenetv1", {"fusion": "dense", "width": 0.25, "resolution": 32, "classes": 4}, (3, 32, 32)),
    ):
        torch.manual_seed(0)
        taken(Plain(bfthw.models.model(name, **how), name), shape)


class Relative(nn.Module):
    """Numbers less their largest: what a log_softmax leaves of them."""

    def forward(self, x):
        return x - x.amax(1, keepdim=True)


def test_the_corpus_is_large_enough():
    cases = corpus.NETWORKS.values()
    assert sum(not case.refused for case in cases) >= 50 and sum(bool(case.refused) for case in cases) >= 15
    assert len({case.group for case in cases}) == 7


def test_the_page_of_the_corpus_is_what_is_written():
    assert corpus.PAGE.read_text(encoding="utf-8") == corpus.page()


# layouts, names and reports


def test_an_input_is_a_vector_or_a_map():
    flat, _, _ = taken(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4))
    assert flat.shape == (1, 1, 48)
    image, _, nodes = taken(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 5)), (3, 4, 4))
    assert image.shape == (4, 4, 3) and nodes["2"].window.size == (2, 2)
    sequence, _, _ = taken(nn.Sequential(nn.Conv1d(3, 2, 3)), (3, 9))
    assert sequence.shape == (9, 1, 3) and sequence.shapes[-1] == (7, 1, 2)
    rows, _, _ = taken(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (9, 3))
    assert rows.shape == (9, 1, 3)
    assert to_network(nn.Linear(4, 3), 4).shape == (1, 1, 4)


def test_a_sequential_of_vector_layers_is_as_before():
    torch.manual_seed(1)
    module = nn.Sequential(Butterfly(16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5), nn.BatchNorm1d(5))
    module = corpus.shaken(module).eval()
    for before, now in zip(to_network(module).layers, to_network(module, 16).layers, strict=True):
        assert (before.name, before.parts, before.chain.patterns) == (now.name, now.parts, now.chain.patterns)
        for key in ("scale", "bias", "add_scale"):
            one, other = getattr(before, key), getattr(now, key)
            assert (one is None and other is None) or np.allclose(one, other, rtol=0, atol=1e-12)


def test_a_module_stays_as_it_is():
    module = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Dropout(), Butterfly(4)).train()
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError):
        to_network(module, (3, 4, 4))
    to_network(module[:3], (3, 4, 4))
    now = module.state_dict()
    assert all(torch.equal(now[key], value) and now[key].dtype == value.dtype for key, value in before.items())
    assert [one.training for one in module] == [True, False, True, True]
    assert not any(one._forward_hooks or "forward" in vars(one) for one in module.modules())


def test_names():
    parts = {"input": nn.Conv2d(2, 4, 1), "tail": nn.Sequential(nn.Linear(4, 4), nn.GELU())}
    network, _, nodes = taken(
        corpus.Does(lambda self, x: self.tail(torch.cat([self.input(x), x.abs()], 1)[:, 1:5].amax((2, 3))), **parts), (2, 3, 3)
    )
    assert [*nodes] == ["input_2", "abs", "pick", "amax", "tail.0"]
    assert [type(node) for node in network.nodes] == [Layer, Layer, Pick, Max, Layer]


def test_notes_say_what_went_where():
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1)
    notes = []
    to_network(nn.Sequential(*layers).eval(), (2, 5, 5), notes)
    assert notes == [
        "6: left out at the end, the order of the outputs is the same without",
        "1: in '0'",
        "2: in '0'",
        "3_2: in '5' behind it",
    ]


# refusals


def with_two_vectors(self, x):
    """Numbers of two vectors at each position."""
    return x + torch.cat([x.mean((2, 3), keepdim=True)[:, :1], x.amax((2, 3), keepdim=True)[:, 1:]], 1)


def strange(module, x):
    raise KeyError("nothing")


@pytest.mark.parametrize(
    "module, shape, message",
    [
        (nn.Linear(4, 4), (2, 2, 2, 2), r"a shape is \(n,\), \(C, L\) or \(C, H, W\), positive integers"),
        (nn.Linear(4, 4), (-4,), "a shape is"),
        (nn.Linear(4, 4, device="meta"), (4,), "module '0': 'weight' has no values"),
        (nn.Linear(4, 4).to(torch.complex64), (4,), "module '0': 'weight' must be real numbers"),
        (corpus.Does(lambda self, x: torch.zeros(len(x), 3)), (4,), "the output does not depend on the input"),
        (nn.Identity(), (4,), "the module computes nothing"),
        (corpus.Does(lambda self, x: x.long()), (4,), "long.* is not taken"),
        (corpus.Does(lambda self, x: x.to(torch.int32)), (4,), "makes torch.int32 of real numbers"),
        (corpus.Does(lambda self, x: x.sum()), (4,), "not an output for each"),
        (corpus.Does(lambda self, x: x - x.mean()), (4,), "goes over the samples too"),
        (corpus.Does(lambda self, x: x - x.mean(1, keepdim=True)), (4, 3, 3), "goes over channels"),
        (corpus.Does(lambda self, x: torch.cat([x, torch.ones(len(x), 1)], 1)), (4,), "puts constants among the data"),
        (corpus.Does(lambda self, x: x / (1 + x.abs())), (4,), "divides by data"),
        (corpus.Does(lambda self, x: x @ x.mT), (4, 3), r"multiplies two maps \(attention\)"),
        (corpus.Does(lambda self, x: torch.softmax(x, 1) * 2), (4,), "'softmax', in front of 'mul', is taken at the end"),
        (corpus.Does(strange), (4,), "takes no input .N, 4.: KeyError: 'nothing'"),
        (corpus.Does(lambda self, x: x * (2 if type(x) is torch.Tensor else {}["a"])), (4,), "its forward says KeyError"),
        (corpus.Does(lambda self, x: F.max_pool2d(x, 2, dilation=2)), (2, 5, 5), "with indices or dilation"),
        (corpus.Does(with_two_vectors), (2, 5, 5), "cannot be added as maps of one size"),
        (corpus.Does(lambda self, x: torch.einsum("ncl,ncm->nlm", x, x)), (2, 5), "multiplies two maps"),
        (corpus.Does(lambda self, x: torch.einsum("ncl->nc", x)), (2, 5), "of anything but two tensors"),
        (corpus.Does(lambda self, x: F.conv2d(x, x[:2])), (2, 3, 3), "conv2d .*weights that are no data"),
        (corpus.Does(lambda self, x: torch.vmap(torch.abs)(x)), (4,), "the output does not depend on the input"),
    ],
)
def test_refusals(module, shape, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        to_network(module, shape)
    assert str(caught.value).startswith("to_network: ") and "\n" not in str(caught.value)


def test_a_refusal_names_the_line_and_torch_is_as_before():
    module = nn.Sequential(nn.Linear(4, 4), corpus.Does(lambda self, x: torch.erfinv(x)))
    with pytest.raises(TypeError) as caught:
        to_network(module, (4,))
    line = test_a_refusal_names_the_line_and_torch_is_as_before.__code__.co_firstlineno + 1
    assert re.search(rf"module '1' \(Does\), erfinv at test_trace.py:{line}: is not taken", str(caught.value))
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert module(torch.zeros(2, 4)).dtype == torch.float32
