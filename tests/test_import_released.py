"""The released Butterfly Transform: chain against its matrix, entry by entry, and the torch layer."""

import numpy as np
import pytest
import torch
from checkpoint_files import WRITERS, refused
from torch import nn

import bfthw
from bfthw.importers.released import plan_layer
from bfthw.nn import ReleasedBFT, to_network

SIZES = [
    (2, 2),
    (3, 3),
    (4, 4),
    (5, 5),
    (16, 16),
    (24, 24),
    (32, 32),
    (58, 58),
    (64, 64),
    (72, 72),
    (116, 116),
    (128, 128),
]
SIZES += [(24, 58), (58, 24), (3, 8), (8, 3), (16, 96), (96, 16), (32, 64), (64, 24), (5, 41), (41, 5)]


def length(n, base):
    """K n L, where K^L >= n for the first time."""
    depth = 1
    while base**depth < n:
        depth += 1
    return base * n * depth


def block(w, n, base):
    """(matrix, entries): a square block's, by its definition: entry (j, i) is the product over l of
    w[l, j mod K, the low L - l digits of i and above them those of j], without its residual."""
    depth = len(w) // (base * n)
    entries = np.zeros((depth, n, n), int)
    for j in range(n):
        for i in range(n):
            for m in range(depth):
                digits = [(i if place < depth - m else j) // base**place % base for place in range(depth)]
                mixture = sum(digit * base**place for place, digit in enumerate(digits))
                entries[m, j, i] = m * base * n + j % base * n + mixture
    return np.prod(w[entries], axis=0), entries


def whole(weights, cin, cout, base):
    n = min(cin, cout)
    matrices = [block(w, n, base)[0] + np.eye(n) for w in weights]
    return np.concatenate(matrices)[:cout] if cin <= cout else np.concatenate(matrices, axis=1)[:, :cin]


def state(cin, cout, base, seed=0, prefix="pw.conv."):
    rng, n = np.random.default_rng(seed), min(cin, cout)
    weights = [rng.uniform(-1, 1, length(n, base)) for _ in range(-(-max(cin, cout) // n))]
    arrays = {f"{prefix}weight": np.full((cout, cin, 1, 1), 7.0)}
    return arrays | {f"{prefix}balanced_bfts.{t}.weight1": w for t, w in enumerate(weights)}, weights


@pytest.mark.parametrize("base", [2, 4, 8])
@pytest.mark.parametrize("cin, cout", SIZES)
def test_equals_its_matrix(cin, cout, base, tmp_path):
    arrays, weights = state(cin, cout, base)
    np.savez(tmp_path / "w.npz", **arrays)
    layer = bfthw.load(tmp_path / "w.npz", options={"base": base}).network.layers[0]
    got = layer.chain.dense() + (np.eye(cin) if layer.residual else 0)
    assert layer.residual == (cin == cout) and layer.name == "pw.conv"
    assert np.allclose(got, whole(weights, cin, cout, base), rtol=0, atol=1e-13)


def test_what_it_costs():
    """MACs of a vector, the residual not counted: as many as weights where n is a multiple of K^(L-1)."""
    assert [plan_layer(n, n).weights for n in (64, 32, 128, 58, 24)] == [768, 384, 2048, 744, 352]
    # a block more and its ones: of 64 -> 128 each of 128 outputs takes one value more
    assert plan_layer(64, 128).weights == 3 * 256 + 3 * 256 + 128 * 5


@pytest.mark.parametrize("n, base", [(58, 4), (24, 2), (72, 4), (20, 8)])
def test_zero_where_no_path_leads(n, base):
    """Inputs of padding and outputs that are cut have no weights, so that no format has to hold them: as many as edges,
    which are the digits of i that are left, those of j that are there, and j mod K."""
    plan, depth = plan_layer(n, n, base), length(n, base) // (base * n)
    for m, sources in enumerate(plan.sources):
        above = base ** (depth - m)
        edges = {(j % base, j // above, i % above) for i in range(n) for j in range(n)}
        assert (sources >= 0).sum() == len(edges) and sources.max() < length(n, base)


@pytest.mark.parametrize("name", WRITERS)
def test_notes_and_base(tmp_path, name):
    arrays, weights = state(16, 16, 2)
    WRITERS[name](tmp_path / name, arrays)
    four, two = bfthw.load(tmp_path / name), bfthw.load(tmp_path / name, options={"pw.conv.base": "2"})
    assert four.notes[0] == "format recognised: released"
    assert any("base 4 assumed" in note and "base=2" in note for note in four.notes)
    assert not any("assumed" in note for note in two.notes)
    assert np.allclose(two.network(np.eye(16)).T, whole(weights, 16, 16, 2))
    assert not np.allclose(four.network(np.eye(16)).T, whole(weights, 16, 16, 2))


def changed(**parts):
    arrays = state(24, 58, 4)[0]
    return {k: v for k, v in (arrays | {f"pw.conv.{k}": v for k, v in parts.items()}).items() if v is not None}


@pytest.mark.parametrize(
    "parts, texts",
    [
        ({"balanced_bfts.2.weight1": None}, ["24 -> 58 channels are 3 blocks of 24, found 2"]),
        ({"balanced_bfts.1.weight1": None}, [r"blocks must be balanced_bfts\.0 to 1"]),
        ({"balanced_bfts.1.weight1": np.ones(287)}, ["288 .base 4.", "240 .base 2.", r"got \[287, 288\]"]),
        ({"balanced_bfts.1.weight1": np.ones((12, 24))}, ["each weight1 a vector"]),
        ({"weight": None}, ["pw.conv.inputs=N"]),
        ({"weight": np.ones((58, 24))}, [r"must have shape \(cout, cin, 1, 1\), got \(58, 24\)"]),
        ({"bias": np.ones(58)}, ["'bias' is not known here"]),
        ({"balanced_bfts.1.weight1": np.full(288, np.nan)}, ["must be finite"]),
    ],
)
def test_refused(tmp_path, parts, texts):
    np.savez(tmp_path / "w.npz", **changed(**parts))
    refused(tmp_path / "w.npz", *texts)


def test_another_base_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", **state(24, 24, 4)[0])
    refused(tmp_path / "w.npz", "240 .base 2.", options={"base": 2})
    refused(tmp_path / "w.npz", "base must be 2 or 4 or 8, got '16'", options={"base": "16"})


def test_without_placeholder_and_with_dead_weights(tmp_path):
    arrays = changed(weight=None, **{"balanced_bfts.0.weight": np.ones((24, 24, 1, 1))})
    np.savez(tmp_path / "w.npz", **arrays)
    network = bfthw.load(tmp_path / "w.npz", options={"pw.conv.inputs": 24, "pw.conv.outputs": "58"}).network
    assert np.allclose(network(np.eye(24)).T, whole(state(24, 58, 4)[1], 24, 58, 4))


def test_a_plan_of_no_reasonable_size():
    with pytest.raises(ValueError, match="needs a factor of .* weights, 134217728 are the limit"):
        plan_layer(5 * 6000, 5)


# the torch layer


class Theirs(nn.Module):
    """The rule again, in torch: the matrix from its entries, so that gradients reach the flat weights."""

    def __init__(self, cin, cout, base):
        super().__init__()
        self.cin, self.cout, n = cin, cout, min(cin, cout)
        arrays, weights = state(cin, cout, base, seed=3)
        self.arrays = {k.removeprefix("pw."): torch.from_numpy(v) for k, v in arrays.items()}
        self.weights = nn.ParameterList(torch.from_numpy(w) for w in weights)
        self.entries = torch.from_numpy(block(weights[0], n, base)[1])

    def forward(self, x):
        n = min(self.cin, self.cout)
        matrices = [torch.prod(w[self.entries], dim=0) + torch.eye(n) for w in self.weights]
        if self.cin <= self.cout:
            matrix = torch.cat(matrices)[: self.cout]
        else:
            matrix = torch.cat(matrices, dim=1)[:, : self.cin]
        return nn.functional.conv2d(x, matrix[..., None, None])


@pytest.mark.parametrize(
    "cin, cout, base", [(24, 24, 4), (32, 32, 4), (24, 58, 4), (58, 24, 2), (12, 30, 8), (3, 8, 4)]
)
def test_layer_trains_as_theirs(cin, cout, base):
    theirs, ours = Theirs(cin, cout, base), ReleasedBFT(cin, cout, base).double()
    ours.load_state_dict(theirs.arrays)
    torch.manual_seed(4)
    x, goal = torch.randn(5, cin, 2, 3).double(), torch.randn(5, cout, 2, 3).double()
    for module in (theirs, ours):
        ((module(x) - goal) ** 2).sum().backward()
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-12)
    for a, b in zip(theirs.weights, ours.conv.balanced_bfts):
        assert torch.allclose(a.grad, b.weight1.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cin, cout", [(24, 24), (24, 58), (41, 5)])
def test_layer_to_file_and_to_chain(tmp_path, cin, cout):
    module = nn.Sequential(ReleasedBFT(cin, cout), nn.BatchNorm2d(cout), nn.ReLU()).double().eval()
    with torch.no_grad():
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
    x = torch.randn(6, cin, 1, 1).double()
    wanted = module(x)[..., 0, 0].detach().numpy()
    assert np.allclose(to_network(module)(x[..., 0, 0].numpy()), wanted)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    loaded = bfthw.load(tmp_path / "w.pt", options={"relu": "all"})
    assert np.allclose(loaded.network(x[..., 0, 0].numpy()), wanted)
    assert "batch norm '1' folded into layer '0.conv', with eps = 1e-05" in loaded.notes


def test_layer_has_their_start_and_keys():
    torch.manual_seed(0)
    module = ReleasedBFT(64, 128)
    keys = ["conv.weight", "conv.balanced_bfts.0.weight1", "conv.balanced_bfts.1.weight1"]
    assert list(module.state_dict()) == keys and len(list(module.parameters())) == 2
    weights, y = module.conv.balanced_bfts[0].weight1, 2 ** (2 / 3) * (2 / 128) ** (1 / 6)
    assert 0.98 * y < weights.max() <= y and -y <= weights.min() < -0.98 * y
    bare = {key.removeprefix("conv."): value for key, value in module.state_dict().items()}
    bare |= {"balanced_bfts.0.weight": torch.ones(64, 64, 1, 1)}
    other = ReleasedBFT(64, 128)
    other.load_state_dict(bare)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), module.parameters()))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({key: value for key, value in bare.items() if "1.weight1" not in key})
    with pytest.raises(ValueError, match="takes .N, 64, H, W."):
        module(torch.ones(2, 128, 3, 3))
    for wrong in [(64, 64, 16), (1, 4, 4)]:
        with pytest.raises(ValueError, match="base must be|2 channels"):
            ReleasedBFT(*wrong)
