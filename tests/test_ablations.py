"""The ablations' variants: their size as claimed, the same numbers in torch, numpy and integers, and a quick run."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from bfthw import compile, make_settings  # noqa: E402
from bfthw.nn import to_network  # noqa: E402

EXAMPLES = Path(__file__).parent.parent / "examples"


def examples():
    sys.path.insert(0, str(EXAMPLES))
    try:
        return import_module("ablations")
    finally:
        sys.path.remove(str(EXAMPLES))


ablations = examples()
SETTINGS = sys.modules["compare"].SETTINGS


@pytest.fixture(scope="module")
def data():
    return ablations.load()


@pytest.fixture(params=ablations.VARIANTS, ids=lambda v: v.name.replace(" ", "_"))
def variant(request):
    return request.param


def test_work_is_equal(variant):
    """Multiplications are those of the network, but for the FFT's; all within 4 % of 1408, the FFT within 10 %."""
    network = to_network(variant.model())
    if variant.name == "circulant, FFT":
        assert network.layers[0].chain.weights == 64 * 64 and abs(variant.work / 1408 - 1) < 0.1
    else:
        assert sum(layer.chain.weights for layer in network.layers) == variant.work
        assert ablations.weights(variant.model()) == variant.work
        assert abs(variant.work / 1408 - 1) < 0.04


def test_network_is_the_module_and_quantises(variant, data):
    """Weights, statistics and gains as after training: random."""
    torch.manual_seed(0)
    model, x = variant.model().double(), torch.tensor(data[0][:200])
    for _ in range(20):
        model(x)
    torch.nn.init.uniform_(model[1].weight, 0.5, 1.5)
    torch.nn.init.normal_(model[1].bias)
    network = to_network(model.eval())
    wanted = model(x).detach().numpy()
    assert np.allclose(network(data[0][:200]), wanted, rtol=1e-9, atol=1e-9)
    integers = compile(network, settings=make_settings(**SETTINGS), calibration=data[0])
    error = integers.predict(data[0][:200]) - wanted
    assert np.square(error).mean() < 0.02 * np.square(wanted).mean()


def test_residuals_and_relus():
    layers = {v.name: to_network(v.model()).layers[:-1] for v in ablations.VARIANTS if v.name.startswith("k = 2")}
    shapes = {name: [(len(x.chain.factors), x.residual, x.relu) for x in found] for name, found in layers.items()}
    assert shapes["k = 2, none"] == [(6, False, True)]
    assert shapes["k = 2, first to last"] == [(6, True, True)]
    assert shapes["k = 2, every other"] == [(2, True, False), (2, True, False), (2, True, True)]
    assert shapes["k = 2, every other, ReLU inside"] == [(2, True, True)] * 3
    assert shapes["k = 2, none, ReLU inside"] == [(2, False, True)] * 3


def test_decay_reaches_the_factors_where_it_is_said(data):
    """With no gradient from the task, decay alone moves weights."""
    by_name = {v.name: v for v in ablations.VARIANTS}
    zeros = (np.zeros_like(data[0]), *data[1:])
    moved = []
    for name in ("BFT, k = 4", "k = 4, first to last, decay"):
        torch.manual_seed(3)
        before = by_name[name].model()[0].factors[0].detach()
        _, model, _ = ablations.train(by_name[name].model, zeros, seed=3, epochs=1, decay=by_name[name].decay)
        moved.append(float((model[0].factors[0].detach() - before).abs().max()))
    assert moved[0] == 0 and moved[1] > 0


def test_page_is_what_is_written():
    """But for its tables, whose figures take the whole run."""
    results = {v.name: ([[0.9], [0.8]], [0.9, 0.8]) for v in ablations.VARIANTS}
    page = (EXAMPLES.parent / "docs" / "ablations.md").read_text(encoding="utf-8")
    written = ablations.document(results, seeds=5, epochs=20)
    prose = [[line for line in text.splitlines() if line[:1] != "|"] for text in (page, written)]
    assert prose[0] == prose[1]


@pytest.mark.slow
def test_quick_run(tmp_path, capsys):
    ablations.main(quick=True, out=tmp_path)
    text = (tmp_path / "ablations.md").read_text(encoding="utf-8")
    assert all(f"| {v.name} | {v.work} |" in text for v in ablations.VARIANTS) and "svg" in text
    assert (tmp_path / "ablations.svg").read_text(encoding="utf-8").startswith("<?xml")
    printed = capsys.readouterr().out
    assert all(v.name in printed for v in ablations.VARIANTS)
