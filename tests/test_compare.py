"""Two structures compared: errors of paired differences, figures that are the core's, and what is refused."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")

import rtl_gen  # noqa: E402
from bfthw.chain import Chain, bft  # noqa: E402
from bfthw.nn import Butterfly, LowRank, Structured, to_network  # noqa: E402

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def compare():
    sys.path.insert(0, str(EXAMPLES))
    try:
        return import_module("compare")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def results(compare, one_thread):
    bodies = {"bft": lambda: Butterfly(64, base=4), "narrow": lambda: LowRank(64, 40, 4)}
    return compare.compare(bodies, seeds=3, epochs=1, target="ecp5")


class Transposed(Structured):
    """Its chain is not what it computes."""

    over = "the last axis"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64))

    def forward(self, x):
        return x @ self.weight

    def to_butterfly(self):
        result = Butterfly([(1, 64, 64, 1)], residual=False).double()
        with torch.no_grad():
            result.factors[0].copy_(self.weight[None, ..., None])
        return result


def test_difference_is_paired(compare):
    """By hand: 2, 1 and 3 points have the mean 2, the deviation 1 and so the standard error 1/sqrt(3)."""
    second = np.array([0.5, 0.9, 0.7])
    assert compare.difference(second + [0.02, 0.01, 0.03], second) == "+2.00 ± 0.58"
    assert compare.difference(second, second + [0.02, 0.01, 0.03]) == "-2.00 ± 0.58"
    # 0, 1 and 2 points: the mean is below two standard errors, 1.15; of one seed there is none
    assert compare.difference(second + [0, 0.01, 0.02], second) == "+1.00 ± 0.58, not to be told apart"
    assert compare.difference([0.9], [0.5]) == "+40.00 ± nan, not to be told apart"


def test_a_seed_starts_and_trains_all_alike(compare, results, one_thread):
    """Each accuracy is that of a training by itself, whatever was trained before; heads of a width start alike."""
    data, heads = compare.load(), []
    for body in (lambda: Butterfly(64, base=4), lambda: LowRank(64, 64, 4)):
        torch.manual_seed(2)
        heads.append(compare.make_model(body, 64)[-1].weight)
    assert torch.equal(*heads)
    for result, body, width in zip(results, (lambda: Butterfly(64, base=4), lambda: LowRank(64, 40, 4)), (64, 40)):
        curve, _, integers = compare.train(lambda: compare.make_model(body, width), data, seed=2, epochs=1)
        right = integers.predict(data[2]).argmax(axis=1) == data[3]
        assert (result.floats[2], result.integers[2]) == (curve[-1], right.mean())
        assert len(set(result.floats)) > 1


def test_no_structure_decays(compare, one_thread):
    """A matrix of one's own neither, where images of zeros give it no gradient; with decay it does."""
    x, *rest = compare.load()
    moved = []
    for decay in (False, True):
        torch.manual_seed(3)
        before = compare.make_model(Transposed, 64)[0].weight.detach()
        _, model, _ = compare.train(
            lambda: compare.make_model(Transposed, 64), (np.zeros_like(x), *rest), seed=3, epochs=1, decay=decay
        )
        moved.append(float((model[0].weight.detach() - before).abs().max()))
    assert moved[0] == 0 < moved[1]


def test_figures_are_those_of_the_core(compare, results, tmp_path):
    first, second = results
    assert (first.work, second.work) == (3 * 4 * 64 + 640, 4 * 104 + 400) == (first.weights, second.weights)
    manifest = rtl_gen.write_plan(first.plan, tmp_path, name="first").manifest
    column = first.columns()
    assert column["latency, cycles"] == manifest.latency and column["interval, cycles"] == manifest.interval
    assert column["multipliers"] == manifest.resources.multipliers
    assert column["weights in ROM, bits"] == manifest.resources.rom_bits
    for name in ("LUT", "DSP", "RAM"):
        assert column[f"{name} of ecp5, estimated"] == getattr(manifest.resources.estimated, name) > 0


def test_table(compare, results):
    text = compare.table(results)
    percent = 100 * np.array(results[0].floats)
    mean = f"{percent.mean():.2f} ± {np.sqrt(percent.var(ddof=1) / 3):.2f}"
    assert f"| float accuracy, % | {mean} |" in text and "| multiplications an image | 1408 | 816 |" in text
    assert f"| bft less narrow | {compare.difference(results[0].floats, results[1].floats)} | " in text
    assert "Unequal: narrow takes 0.58 times the multiplications of bft." in text
    assert "Unequal" not in compare.table(results[:1] * 2)


def test_interval_chooses(compare, one_thread):
    (result,) = compare.compare({"bft": lambda: Butterfly(64, base=4)}, seeds=1, epochs=1, interval=200)
    assert 64 < result.plan.interval <= 200 and result.plan.multipliers < 29


WRONG = {
    "Butterfy(64)": "name 'Butterfy' is not defined",
    "LowRank(64, 64)": "missing 1 required",
    "LowRank(32, 64, 6)": "LowRank takes (..., 32), got (2, 64)",
    "Transposed()": "its to_butterfly is not what its forward computes",
    "nn.Sigmoid()": "nn.Sigmoid(): ",
    "nn.Linear(64, ": "no layer of 64 inputs",
}


@pytest.mark.parametrize("text, reason", WRONG.items())
def test_what_is_no_structure_is_named_before_training(compare, text, reason, monkeypatch):
    monkeypatch.setattr(compare, "train", None)
    names = vars(sys.modules["bfthw.nn"]) | {"nn": nn, "Transposed": Transposed}
    with pytest.raises(ValueError) as caught:
        compare.compare({text: lambda: eval(text, names)})
    assert str(caught.value).startswith(f"{text}: ") and reason in str(caught.value)


def test_command(compare, tmp_path, capsys, one_thread):
    """Layers of a file; one line for what is wrong."""
    mine = tmp_path / "mine.py"
    mine.write_text("from bfthw.nn import LowRank\n\n\ndef thin(rank):\n    return LowRank(64, 64, rank)\n")
    compare.main(["thin(2)", "nn.Linear(64, 4)"], seeds=2, epochs=1, file=mine)
    assert "| | thin(2) | nn.Linear(64, 4) |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^error: two different structures are compared, got thin\(2\)$"):
        compare.main(["thin(2)", "thin(2)"], file=mine)


def test_chains_of_patterns_are_read():
    """The page's two factors of 8 and 4: the cost of base 4, and half of the inputs for each output."""
    network = to_network(Butterfly([(1, 8, 8, 8), (16, 4, 4, 1)], residual=False))
    (layer,) = network.layers
    assert layer.chain.weights == Chain.random(bft(64, 4), seed=0).weights == 768
    assert set((layer.chain.dense() != 0).sum(axis=1)) == {32}
