"""The networks of the papers: made of what they should be, at the cost that the papers print."""

import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bfthw import Network, chain, models
from bfthw.cli.main import app
from bfthw.models import costs, pointnet
from bfthw.models.build import Build, square_blocks
from bfthw.nn import GraphModule
from bfthw.structures import padded

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = [
    ("mobilenetv1", 0.25, "dense"),
    ("mobilenetv1", 0.25, "bft"),
    ("mobilenetv1", 0.25, "monarch"),
    ("mobilenetv1", 0.25, "released"),
    ("shufflenetv2", 1.0, "released"),
    ("shufflenetv2", 0.5, "dense"),
    ("shufflenetv2", 0.5, "bft"),
    ("shufflenetv2", 1.25, "bft"),
    ("mobilenetv3-small", 0.35, "dense"),
    ("mobilenetv3-small", 0.5, "bft"),
    ("pointnet", 1, "dense"),
    ("pointnet", 1, "bft"),
    ("pointnet", 0.25, "bft"),
    ("pointnet", 1, "debut"),
    ("pointnet", 1, "debut-big"),
]


def count(name, width, resolution, fusion, convention):
    return costs.total(models.model(name, width=width, resolution=resolution, fusion=fusion), convention).operations


def butterflies(network):
    return [layer for layer in network.layers if len(layer.chain.factors) > 1]


# --- against the figures ---


@pytest.mark.parametrize(
    "convention, resolution, operations",
    [
        ("v1", 96, 14_096_896),
        ("v1", 128, 24_264_704),
        ("v1", 160, 37_337_600),
        ("stored", 128, 23_609_344),
        ("exact", 128, 22_331_392),
        ("exact + adds", 96, 13_507_072),
        ("exact + adds", 128, 23_216_128),
        ("exact + adds", 160, 35_699_200),
        ("exact + adds", 192, 50_956_288),
    ],
)
def test_mobilenetv1_with_butterflies(convention, resolution, operations):
    assert count("mobilenetv1", 1.0, resolution, "bft", convention) == operations


def test_mobilenetv1_fusions_have_the_weights_of_the_paper():
    layers = butterflies(models.model("mobilenetv1"))
    assert sum(costs.cost(layer).weights for layer in layers) == 104_832
    assert sum(costs.cost(layer, convention="stored").weights for layer in layers) == 112_896
    assert len(layers) == 13 and sum(map(costs.dense, layers)) == 3_139_584


@pytest.mark.parametrize("resolution, operations", [(128, 13_805_568), (160, 20_995_200), (224, 40_167_552)])
def test_shufflenetv2_with_butterflies(resolution, operations):
    assert count("shufflenetv2", 1.25, resolution, "bft", "stored + adds") == operations


@pytest.mark.parametrize("name, weights, percent", [("debut", 151_004, 4.38), ("debut-big", 203_484, 5.90)])
def test_pointnet_with_published_chains(name, weights, percent):
    dense, chains = (costs.total(models.model("pointnet", fusion=fusion)).weights for fusion in ("dense", name))
    assert (dense, chains) == (3_449_472, weights)
    assert round(100 * chains / dense, 2) == percent


@pytest.mark.parametrize(
    "name, width, resolution, operations",
    [
        ("mobilenetv1", 0.25, 128, 13_570_048),
        ("mobilenetv1", 0.25, 160, 21_059_200),
        ("mobilenetv1", 0.25, 192, 30_212_608),
        ("mobilenetv1", 0.25, 224, 41_030_272),
        ("mobilenetv1", 0.5, 128, 49_160_192),
        ("mobilenetv1", 0.5, 192, 109_970_432),
        ("mobilenetv1", 0.5, 224, 149_497_088),
        ("mobilenetv1", 1.0, 224, 568_740_352),  # 569 million in its own paper, table 4
        ("shufflenetv2", 0.5, 128, 13_906_432),
        ("shufflenetv2", 0.5, 160, 21_152_800),
        ("shufflenetv2", 0.5, 224, 40_476_448),  # 41 million in its own paper, table 8
        ("shufflenetv2", 1.0, 224, 144_907_992),  # 146
        ("mobilenetv3-small", 0.35, 224, 11_254_360),
        ("mobilenetv3-small", 1.0, 224, 56_510_400),  # 56 in its own paper, table 3
    ],
)
def test_dense_networks(name, width, resolution, operations):
    assert count(name, width, resolution, "dense", "exact") == operations


def test_which_published_figures_agree():
    """Those that do not are known, and marked so in docs/models.md."""
    found = {
        (row.name, row.width, row.resolution, row.fusion)
        for row in costs.PUBLISHED
        if not row.agrees(costs.total(row.model(), row.convention).operations)
    }
    assert found == {
        ("mobilenetv1", 0.25, 192, "dense"),
        ("mobilenetv1", 2.0, 128, "bft"),
        ("mobilenetv1", 2.0, 192, "bft"),
        ("mobilenetv1", 2.0, 224, "bft"),
        ("mobilenetv3-small", 0.35, 224, "dense"),
    }
    row = costs.PUBLISHED[0]
    assert row.agrees(row.millions * 1e6 + 999_999) and not row.agrees(row.millions * 1e6 + 1_000_000)


def test_tables_of_the_document_are_current():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    program = runpy.run_path(str(ROOT / "examples" / "model_costs.py"))
    written = text.split(program["BEGIN"])[1].split(program["END"])[0]
    assert written.strip() == program["tables"]().strip(), "python examples/model_costs.py docs/models.md"


def test_example_of_the_document(capsys):
    block, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "docs/models.md", "exec"), {})
    assert "Cost(weights=1174336, operations=23216128)" in capsys.readouterr().out


# --- what they are made of ---


@pytest.mark.parametrize("name, width, fusion", NETWORKS)
def test_counts_are_those_of_weights_that_learn(name, width, fusion):
    """And of what is multiplied; sums of blocks are additions."""
    network = models.model(name, width=width, resolution=64, classes=40, fusion=fusion)
    assert network.outputs == 40 and network.shape == ((64, 1, 3) if name == "pointnet" else (64, 64, 3))
    parameters = GraphModule(network, norm=True).named_parameters()
    total = costs.total(network)
    assert sum(p.numel() for key, p in parameters if "factors" in key and p.requires_grad) == total.weights
    places = {node: shape.positions for node, shape in zip(network.nodes, network.shapes)}
    products = {node: places[node] * sum(p.weights for p in node.chain.patterns) for node in network.layers}
    sums = set(network.layers) - {layer for layer, _ in costs.placed(network)}
    assert all(node.name.endswith((".blocks", ".joined")) for node in sums)
    assert sum(count for node, count in products.items() if node not in sums) == total.operations


def test_norm_and_activation_only_after_a_fusion():
    layers = butterflies(models.model("mobilenetv1"))
    assert layers[6].residual and layers[6].relu and len(layers[6].chain.factors) == 5
    assert all(layer.adds and layer.scale is not None for layer in layers)


def test_points_in_any_order_are_the_same():
    network = models.model("pointnet", resolution=50, classes=40, fusion="debut")
    x = np.random.default_rng(0).normal(size=(2, 50, 1, 3))
    assert np.allclose(network(x), network(x[:, np.random.default_rng(1).permutation(50)]), rtol=1e-12, atol=0)
    module = GraphModule(network)
    module(torch.from_numpy(x))
    turns, eye = module.matrices[1].float().reshape(2, 64, 64), torch.eye(64)
    assert torch.isclose(module.penalty(), torch.stack([(a @ a.T - eye).norm() for a in turns]).mean())


# --- fusions ---

SIZES = [(32, 64), (64, 32), (24, 58), (58, 24), (3, 64), (64, 3), (2, 9), (9, 2), (1, 5), (5, 1), (20, 48)]


def blockwise(whole, n, m, residual, x):
    """What the blocks mean, spelled out: square butterflies on slices, joined and cut, or filled up and summed."""
    joined, small = n <= m, min(n, m)
    q = -(-max(n, m) // small)
    x, outputs = np.pad(x, ((0, 0), (0, 0 if joined else q * m - n))), []
    for block in range(q):
        part = x if joined else x[:, block * m : block * m + m]
        y = part
        for factor in whole.factors:
            v, (a, b, c, _) = factor.values, factor.pattern
            # the slice of a factor that belongs to this block
            if joined:
                v = v[:, block * (b // q) : (block + 1) * (b // q)] if a == 1 else np.split(v, q)[block]
            else:
                v = v[:, :, block * (c // q) : (block + 1) * (c // q)] if a == 1 else np.split(v, q)[block]
            y = chain.apply(v, y)
        outputs.append(y + part if residual else y)
    return np.concatenate(outputs, 1)[:, :m] if joined else sum(outputs)


@pytest.mark.parametrize("residual", ["blocks", None])
@pytest.mark.parametrize("n, m", SIZES)
def test_blocks_are_square_butterflies(n, m, residual):
    """In a graph, and alone, as one chain that carries its inputs along."""
    build = Build(n, fusion="bft", residual=residual)
    build.conv("a", "input", m, fuse=True, act=None)
    *before, layer = build.network().nodes
    x = np.random.default_rng(0).normal(size=(3, n))
    small, large = sorted((n, m))
    if small > 1:
        sizes = (n, -(-m // n) * n) if n <= m else (-(-n // m) * m, m)
        whole = chain.Chain.random(square_blocks(*sizes), 0)
        layer = replace(layer, chain=whole if sizes == (n, m) else padded(whole, n, m))
        wanted = blockwise(whole, n, m, residual, x) * layer.scale + layer.bias
        assert np.allclose(Network([*before, layer], n)(x), wanted, rtol=0, atol=1e-12)
    # every output sees every input, as far as both are there
    assert (chain.Chain.random(layer.chain.patterns, 0).dense() != 0).all()
    network = Network([*before, layer], n)
    assert np.allclose(models.alone(network, layer)(x), network(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n, m, base", [(32, 64, 4), (64, 32, 2), (24, 72, 4), (128, 512, 4), (16, 16, 4)])
def test_square_blocks_where_sizes_divide(n, m, base):
    shape = square_blocks(n, m, base)
    assert (shape[0].inputs, shape[-1].outputs) == (n, m)
    square = chain.mixed_radix(chain.factorise(min(n, m), base))
    assert sum(p.weights for p in shape) == max(n, m) // min(n, m) * sum(p.weights for p in square)


def test_chains_that_are_not_fully_connected():
    """Those that docs/models.md names, and no others."""
    broken = set()
    for name in pointnet.CHAINS:
        for n, m in pointnet.CHAINS[name]:
            paths = chain.Chain(chain.Factor(np.ones(p)) for p in pointnet.chain(name, n, m)).dense()
            assert paths.shape == (m, n)
            if not (paths == 1).all():
                broken.add((name, n, m, paths.min(), paths.max()))
    assert broken == {("big", 128, 1024, 0, 1), ("small", 256, 4096, 0, 4)}


def test_a_rule_of_ones_own():
    def thirds(n, m, base):
        return chain.low_rank(m, n, max(1, min(n, m) // 3))

    model = models.model("mobilenetv1", width=0.25, resolution=32, fusion=thirds, residual=None)
    assert sum(p.weights for p in model.layers[2].chain.patterns) == 8 * 2 + 2 * 16


def test_residual_only_where_square():
    model = models.model("mobilenetv1", residual="square")
    assert all(layer.adds == (layer.chain.inputs == layer.chain.outputs) for layer in butterflies(model))
    none = models.model("mobilenetv1", residual=None)
    assert not any(layer.adds for layer in none.layers)
    assert costs.total(none, "exact + adds") == costs.total(none)


# --- errors, and without torch ---


@pytest.mark.parametrize(
    "how, message",
    [
        ({"name": "mobilenet"}, "unknown network 'mobilenet'; there are mobilenetv1, "),
        ({"name": "shufflenetv2", "width": 1.3}, "comes in the widths 0.5, 1.0, 1.25"),
        ({"name": "mobilenetv1", "width": 0.0}, "the width must be 0.05 to 8, got 0.0"),
        ({"name": "mobilenetv1", "width": float("nan")}, "the width must be"),
        ({"name": "pointnet", "width": 2.0, "fusion": "debut"}, "chains are of the width 1, not 2.0"),
        ({"name": "mobilenetv1", "resolution": 8}, "the resolution must be 32 to 1024 pixels a side, got 8"),
        ({"name": "pointnet", "resolution": 3}, "32 to 65536 points, got 3"),
        ({"name": "mobilenetv1", "fusion": "debut"}, "unknown fusion 'debut'; there are dense, bft, released"),
        ({"name": "pointnet", "fusion": "released"}, "unknown fusion 'released'; there are dense, bft, monarch, debut"),
        ({"name": "mobilenetv1", "fusion": "released", "residual": None}, "must be 'blocks' with the fusion released"),
        ({"name": "pointnet", "fusion": "debut", "classes": 10}, "classes, 256 -> 10 channels: .* 40 classes"),
        ({"name": "mobilenetv1", "classes": 1}, "classes must be 2"),
        ({"name": "mobilenetv1", "base": 1}, "base must be 2"),
        ({"name": "mobilenetv1", "residual": "some"}, "residual must be"),
        ({"name": "mobilenetv1", "base": 7, "fusion": "monarch"}, "pointwise1, 32 -> 64 channels: monarch needs"),
        ({"name": "mobilenetv1", "fusion": lambda n, m, base: chain.dense(m, m)}, "32 -> 64 channels, its chain 64"),
    ],
)
def test_what_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        models.model(**how)


def test_unknown_convention():
    with pytest.raises(ValueError, match="unknown convention 'v2'; there are v1, stored"):
        costs.total(models.model("mobilenetv1"), "v2")


def test_costs_need_no_torch():
    code = "import sys; sys.modules['torch'] = None\nfrom bfthw.models import model\nmodel('mobilenetv1').layers\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_at_the_command_line():
    text = CliRunner().invoke(app, ["inspect", "--model", "mobilenetv1", "--resolution", "128"]).output
    for part in ("mobilenetv1, width 1, 128 px, bft", "24.26 M  v1", "23.22 M  exact + adds", "published: CVPR"):
        assert part in text
    for wrong in (["inspect"], ["inspect", "a.npz", "--model", "mobilenetv1"], ["inspect", "a.npz", "--width", "2"]):
        assert "inspect takes a checkpoint, or --model NAME" in str(CliRunner().invoke(app, wrong).exception)
