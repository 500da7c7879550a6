"""The networks of the papers: their modules do what their plans say, and cost what the papers print."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bfthw import chain, models
from bfthw.cli.main import app
from bfthw.models import costs, pointnet
from bfthw.models.modules import Blocks, Transform, Unit
from bfthw.models.nodes import square_blocks
from bfthw.nn import Butterfly, ReleasedBFT, fold, to_network

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
    ("pointnet", 1, "debut"),
    ("pointnet", 1, "debut-big"),
]


def count(name, width, resolution, fusion, convention):
    return costs.total(models.model(name, width=width, resolution=resolution, fusion=fusion), convention).operations


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
    layers = [layer for layer in models.model("mobilenetv1").layers if layer.chain]
    assert sum(costs.cost(layer).weights for layer in layers) == 104_832
    assert sum(costs.cost(layer, "stored").weights for layer in layers) == 112_896
    assert len(layers) == 13 and sum(layer.dense_weights for layer in layers) == 3_139_584


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
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "docs/models.md", "exec"), {})
    assert "Cost(weights=1174336, operations=23216128)" in capsys.readouterr().out


# --- plans and modules ---


@pytest.mark.parametrize("name, width, fusion", NETWORKS)
def test_module_is_what_the_plan_says(name, width, fusion):
    """Sizes, weights and multiplications that really take place, counted by hooks on every convolution and factor."""
    points = name == "pointnet"
    model = models.model(name, width=width, resolution=64, classes=40, fusion=fusion)
    module, found = model.build().eval(), {}
    for unit in module.units():

        def see(layer, given, y, unit=unit):
            n = unit.node
            if isinstance(layer, nn.Conv2d):
                weights = [layer.weight]
            elif isinstance(layer, ReleasedBFT):
                weights = [w for key, w in layer.named_parameters() if "weight1" in key]
            else:
                weights = list((layer.blocks if isinstance(layer, Blocks) else layer).factors)
                assert all(tuple(p) == tuple(v.shape) for p, v in zip(n.patterns, weights))
            assert (given[0].shape[1], y.shape[1]) == (n.inputs, n.outputs), n.name
            positions = y.shape[2] * y.shape[3]
            used = sum(w.numel() for w in weights)
            assert n.name not in found, "used twice"
            found[n.name] = used, used * positions

        unit.layer.register_forward_hook(see)
    x = torch.randn(2, 3, 64) if points else torch.randn(2, 3, 64, 64)
    assert module(x).shape == (2, 40)
    planned = {layer.name: costs.cost(layer) for layer in model.layers}
    assert found == {name: (cost.weights, cost.operations) for name, cost in planned.items()}
    matrices = sum(p.numel() for key, p in module.named_parameters() if p.ndim > 1 or "weight1" in key)
    assert matrices == costs.total(model).weights


@pytest.mark.parametrize("name, width, fusion", [n for n in NETWORKS if n[2] != "monarch"])
def test_everything_learns(name, width, fusion):
    torch.manual_seed(0)
    module = models.model(name, width=width, resolution=32, classes=40, fusion=fusion).build()
    y = module(torch.randn(4, 3, 32) if name == "pointnet" else torch.randn(4, 3, 32, 32))
    (y.square().mean() + module.penalty()).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


def test_norm_and_activation_only_after_a_fusion():
    module = models.model("mobilenetv1").build()
    unit = module.body.pointwise7
    assert [type(part) for part in unit.children()][1:] == [nn.BatchNorm2d, nn.ReLU]
    assert unit.layer.residual and not unit.layer.relu and unit.layer.bias is None and unit.layer.scale is None
    assert all(unit.layer.residual for unit in module.units() if isinstance(unit.layer, (Blocks, Butterfly)))


def test_shuffle_mixes_both_halves():
    module = models.model("shufflenetv2", width=0.5, resolution=32, classes=4).build()
    shuffle = module.body.shuffle3
    assert shuffle.left is None
    x = torch.randn(1, 48, 4, 4)
    shuffle.right = nn.Identity()
    assert torch.equal(shuffle(x), x.reshape(1, 2, 24, 4, 4).transpose(1, 2).reshape(1, 48, 4, 4))


def test_points_in_any_order_are_the_same():
    torch.manual_seed(0)
    module = models.model("pointnet", resolution=50, classes=40, fusion="debut").build().double().eval()
    x = torch.randn(2, 3, 50, dtype=torch.float64)
    assert torch.allclose(module(x), module(x[:, :, torch.randperm(50)]), rtol=1e-12, atol=0)
    turn = module.body.features.matrix
    assert turn.shape == (2, 64, 64)
    eye = torch.eye(64)
    assert torch.isclose(module.penalty(), torch.stack([(a @ a.T - eye).norm() for a in turn.float()]).mean())


def test_points_are_rows_times_the_matrix():
    """A point is a row, as in the original: x (A + I)."""
    matrix = torch.randn(2, 3, 3)
    turn = Transform(3, lambda x: matrix.reshape(2, 9, 1, 1))
    x = torch.randn(2, 5, 3)
    y = turn(x.mT[..., None])
    assert torch.allclose(y[..., 0].mT, x @ (matrix + torch.eye(3)), atol=1e-6)


# --- fusions ---

SIZES = [(32, 64), (64, 32), (24, 58), (58, 24), (3, 64), (64, 3), (2, 9), (9, 2), (1, 5), (5, 1), (20, 48)]


def blockwise(module, x):
    """What the blocks mean, spelled out: square butterflies on slices, joined and cut, or filled up and summed."""
    n, m = module.inputs, module.outputs
    joined, small = n <= m, min(n, m)
    q = -(-max(n, m) // small)
    x, outputs = np.pad(x, ((0, 0), (0, 0 if joined else q * m - n))), []
    for block in range(q):
        part = x if joined else x[:, block * m : block * m + m]
        y = part
        for p, values in zip(module.blocks.patterns, module.blocks.factors):
            v = values.detach().numpy()
            a, b, c, d = p
            # the slice of a factor that belongs to this block
            if joined:
                v = v[:, block * (b // q) : (block + 1) * (b // q)] if a == 1 else np.split(v, q)[block]
            else:
                v = v[:, :, block * (c // q) : (block + 1) * (c // q)] if a == 1 else np.split(v, q)[block]
            y = chain.apply(v, y)
        outputs.append(y + part if module.residual else y)
    return np.concatenate(outputs, 1)[:, :m] if joined else sum(outputs)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("n, m", SIZES)
def test_blocks_are_square_butterflies(n, m, residual):
    torch.manual_seed(0)
    module = Blocks(n, m, residual=residual).double()
    x = torch.randn(3, n, dtype=torch.float64)
    y = module(x[..., None, None])[..., 0, 0].detach().numpy()
    if min(n, m) > 1:
        assert np.allclose(y, blockwise(module, x.numpy()), rtol=0, atol=1e-12)
    # every output sees every input, as far as both are there
    assert (chain.Chain.random(module.blocks.patterns, 0).dense() != 0).all()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("n, m", SIZES)
def test_blocks_as_one_chain(n, m, residual):
    torch.manual_seed(0)
    module = Blocks(n, m, residual=residual, bias=True).double()
    nn.init.normal_(module.bias)
    x = torch.randn(3, n, 2, 2, dtype=torch.float64)
    y = module.to_butterfly()(x.movedim(1, -1)).movedim(-1, 1)
    assert torch.allclose(y, module(x), rtol=0, atol=1e-12)
    norm = nn.BatchNorm2d(m).double()
    norm(torch.randn(8, m, 3, 3, dtype=torch.float64) * 3 + 1)
    network = to_network(nn.Sequential(module, norm, nn.ReLU()).eval())
    want = torch.relu(norm.eval()(module(x))).movedim(1, -1).reshape(-1, m).detach().numpy()
    assert np.allclose(network(x.movedim(1, -1).reshape(-1, n).numpy()), want, rtol=0, atol=1e-10)


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
    assert model.build()(torch.randn(2, 3, 32, 32)).shape == (2, 1000)
    assert sum(p.weights for p in model.layers[2].patterns) == 8 * 2 + 2 * 16


def test_residual_only_where_square():
    model = models.model("mobilenetv1", residual="square")
    assert all(layer.skip == (layer.chain is not None and layer.inputs == layer.outputs) for layer in model.layers)
    none = models.model("mobilenetv1", residual=None)
    assert not any(layer.skip for layer in none.layers)
    assert costs.total(none, "exact + adds") == costs.total(none)


# --- errors, and without torch ---


@pytest.mark.parametrize(
    "how, message",
    [
        ({"name": "mobilenet"}, "unknown network 'mobilenet'; there are mobilenetv1, "),
        ({"name": "shufflenetv2", "width": 1.3}, "comes in the widths 0.5, 1.0, 1.25"),
        ({"name": "mobilenetv1", "width": 0.0}, "the width must be 0.05 to 8, got 0.0"),
        ({"name": "mobilenetv1", "width": float("nan")}, "the width must be"),
        ({"name": "pointnet", "width": 2.0}, "the width 1 alone"),
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
    code += "model('mobilenetv1').build()"
    failing = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert b"pip install 'bfthw[torch]'" in failing.stderr


def test_at_the_command_line():
    text = CliRunner().invoke(app, ["inspect", "--model", "mobilenetv1", "--resolution", "128"]).output
    for part in ("mobilenetv1, width 1, 128 px, bft", "24.26 M  v1", "23.22 M  exact + adds", "published: CVPR"):
        assert part in text
    for wrong in (["inspect"], ["inspect", "a.npz", "--model", "mobilenetv1"], ["inspect", "a.npz", "--width", "2"]):
        assert "inspect takes a checkpoint, or --model NAME" in str(CliRunner().invoke(app, wrong).exception)


def test_fold_takes_what_blocks_become():
    module, norm = Blocks(8, 16).double(), nn.BatchNorm2d(16).double().eval()
    nn.init.uniform_(norm.weight)
    x = torch.randn(5, 8, 1, 1, dtype=torch.float64)
    folded = fold(module.to_butterfly(), norm)
    assert torch.allclose(folded(x[..., 0, 0]), norm(module(x))[..., 0, 0])
    assert isinstance(models.model("mobilenetv1").build().body.pointwise1, Unit)
