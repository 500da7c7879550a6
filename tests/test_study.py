"""The study of structures in a row: what is compared costs alike, ties hold while it learns, runs are made once."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import typer  # noqa: E402

from bfthw.models.costs import total  # noqa: E402


@pytest.fixture
def study(example):
    found = example("fashion/study")
    found.images.console.quiet = True
    return found


def test_structures_cost_alike(study):
    """Multiplications and weights within 4 %, so ROM bits too; what is no such comparison says so by its group."""
    wanted = total(study.PLAIN.network())
    for variant in study.VARIANTS:
        found = total(variant.network())
        near = [abs(getattr(found, key) / getattr(wanted, key) - 1) <= 0.04 for key in ("weights", "operations")]
        assert all(near) == (variant.group != "width" and variant.name != "BFT, base 8"), variant.name
    assert len({variant.name for variant in study.VARIANTS}) == len(study.VARIANTS)


def test_ends_of_claims_are_variants(study):
    names = {variant.name for variant in study.VARIANTS}
    assert all({first, second} <= names for _, first, second in study.CLAIMS)
    assert names == {name for _, *ends in study.CLAIMS for name in ends} | {"dense, 128 channels"}


@pytest.mark.parametrize("residual, relu", [(False, False), (True, False), (False, True), (True, True)])
def test_pairs_of_factors(study, residual, relu):
    """Four factors as two layers of two; only between them is there a ReLU, only with equal sizes a residual."""
    given = {"residual": "square" if residual else None, "pairs": True, "relu": relu}
    nodes = {n.name: n for n in study.Variant(name="x", group="y", **given).network().layers if "point" in n.name}
    inner, last = nodes["pointwise2.0"], nodes["pointwise2"]
    assert len(inner.chain.factors) == len(last.chain.factors) == 2
    assert (inner.act is not None) == relu and last.act.name == "relu" and inner.scale is None
    assert (inner.adds, last.adds, nodes["pointwise1.0"].adds) == (residual, residual, False)


def test_circulant(study):
    values = torch.arange(12.0).reshape(1, 3, 4, 1)
    tied = study.circulant(values)[0, :, :, 0]
    for shift in range(4):
        own = [float(values[0, i, (i + shift) % 4, 0]) for i in range(3)]
        assert all(tied[i, (i + shift) % 4] == pytest.approx(np.mean(own)) for i in range(3))


def some(part, folder=None):
    rng = np.random.default_rng(len(part))
    return rng.integers(0, 256, (256, 28, 28, 1)).astype(np.uint8), np.arange(256) % 10


def test_ties_hold(study, tmp_path):
    (variant,) = (one for one in study.VARIANTS if one.tied)
    network = study.trained(variant, some("train"), 0, 1, tmp_path)
    for layer in network.layers:
        if layer.name.startswith("pointwise"):
            values = torch.from_numpy(layer.chain.factors[0].values)
            assert torch.allclose(study.circulant(values), values, atol=1e-6) and values.std() > 0.01


def test_runs_are_made_once(study, tmp_path, monkeypatch):
    """A stopped study goes on with the runs that are missing; the page has what there is."""
    made, run = [], study.run
    monkeypatch.setattr(study, "load", some)

    def noted(variant, seed, *rest):
        made.append((variant.name, seed))
        return run(variant, seed, *rest)

    monkeypatch.setattr(study, "run", noted)
    monkeypatch.setattr(study, "DOCS", tmp_path)
    app, results = typer.Typer(), tmp_path / "found.json"
    app.command()(study.main)
    names = "8 groups", "dense, 50 channels"
    base = ["--epochs", "1", "--results", str(results), "--out", str(tmp_path / "state")]
    for seeds in (1, 2):
        asked = [word for name in names for word in ("--only", name)]
        done = CliRunner().invoke(app, [*base, "--seeds", str(seeds), *asked], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert made == [("dense, 50 channels", 0), ("8 groups", 0), ("dense, 50 channels", 1), ("8 groups", 1)]
    assert {"multiplications", "ROM bits", "DSP"} <= json.loads(results.read_text())["8 groups/0"].keys()
    done = CliRunner().invoke(app, [*base, "--write"], catch_exceptions=False)
    page = (tmp_path / "structure.md").read_text()
    assert done.exit_code == 0 and page.startswith("# What the structure is worth\n") and "\n\n| structure |" in page
    assert "| 8 groups | 2 |" in page and (tmp_path / "structure.svg").stat().st_size > 5000
    refused = CliRunner().invoke(app, ["--results", str(tmp_path / "none"), "--write"])
    assert refused.exit_code == 2 and "there are no runs yet" in refused.output
    refused = CliRunner().invoke(app, [*base, "--only", "8 grups"])
    assert refused.exit_code == 2 and "no variant 8 grups" in refused.output
    refused = CliRunner().invoke(app, [*base, "--device", "gpu"])
    assert refused.exit_code == 2 and "torch has no device gpu here" in refused.output


def test_differences_are_those_of_the_same_seeds(study):
    rights = {"BFT": (90, 91, 92), "x": (89, 90.5)}
    found = {f"{name}/{n}": {"float": value} for name, own in rights.items() for n, value in enumerate(own)}
    assert study.claim(found, "BFT", "x").startswith("+0.75 ± 0.25")
    assert study.claim(found, "BFT", "y") is None
