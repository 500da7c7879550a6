"""Every structure, from its checkpoint to its Verilog: the same integers in training, golden model and core."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import bfthw  # noqa: E402
import rtl_gen  # noqa: E402
from bfthw import Settings, chain, structures  # noqa: E402
from bfthw import nn as layers  # noqa: E402
from bfthw.cli.main import app  # noqa: E402
from bfthw.qat import QuantisedNetwork  # noqa: E402
from bfthw.quantize import choose_formats, quantise  # noqa: E402
from sim import simulate  # noqa: E402

# without a compiler run where there is one
QUICK = "icarus" if shutil.which("iverilog") else "compiled"


def padded(n, wide):
    return layers.Butterfly(structures.padded(chain.bft(wide), n, n))


def inverse(shape):
    torch.manual_seed(99)
    return layers.Invertible(shape, bias=True).inverse()


# each row takes what the row before gives, so that one core of each group is all of its rows
GROUPS = {
    "regular": {
        "BFT base 2": lambda: layers.Butterfly(16, base=2, relu=True),
        "BFT base 4": lambda: layers.Butterfly(16, bias=True),
        "deformable, bulging": lambda: layers.Deformable(16, 24, "bulging"),
        "mixed radix 4 * 3 * 2": lambda: layers.Butterfly(chain.mixed_radix((4, 3, 2))),
        "Monarch, rectangular": lambda: layers.Monarch(24, 64, 4),
        "BFT base 8": lambda: layers.Butterfly(64, base=8, relu=True),
        "deformable, monotonic": lambda: layers.Deformable(64, 12),
        "grouped": lambda: layers.Grouped(12, 16, 4),
        "Monarch, square": lambda: layers.Monarch(16, 16, 4, bias=True),
        "low rank": lambda: layers.LowRank(16, 9, 3),
        "dense": lambda: nn.Linear(9, 8),
    },
    "indexed": {
        "padded 58": lambda: padded(58, 64),
        "CSC 58, 4": lambda: layers.CyclicSupport(58, 4),
        "Monarch, padded": lambda: layers.Monarch(58, 12, 4),
        "fixed butterfly": lambda: layers.FixedButterfly(12, 9, 4, 3),
        "CSC 9, 3": lambda: layers.CyclicSupport(9, 3, bias=True),
        "circulant": lambda: layers.Circulant(9, 10),
        "CSC 10, 4": lambda: layers.CyclicSupport(10, 4),
        "invertible": lambda: layers.Invertible(chain.mixed_radix((5, 2)), bias=True),
        "its inverse": lambda: inverse(chain.mixed_radix((5, 2))),
    },
    "released": {
        "released, tied weights": lambda: layers.ReleasedBFT(24, 24),
        "released, blocks joined": lambda: layers.ReleasedBFT(24, 32),
        "released, odd power": lambda: layers.ReleasedBFT(32, 32),
        "released, blocks summed": lambda: layers.ReleasedBFT(32, 12),
    },
}
ROWS = {name: make for rows in GROUPS.values() for name, make in rows.items()}
LARGE = {
    "padded 232": lambda: padded(232, 256),
    "padded 116, mixed": lambda: layers.Butterfly(structures.padded(chain.mixed_radix((4, 4, 4, 2)), 116, 116)),
    "deformable 576 -> 128": lambda: layers.Deformable(576, 128, shrink=2, start=[(8, 9)]),
    "deformable, bulging 116": lambda: layers.Deformable(116, 232, "bulging"),
    "Monarch 232 -> 116": lambda: layers.Monarch(232, 116, 8),
    "fixed butterfly 232": lambda: layers.FixedButterfly(232, 232),
    "CSC 116, 4": lambda: layers.CyclicSupport(116, 4),
    "invertible 256": lambda: layers.Invertible(256, base=4),
}


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def saved(module, path):
    """A checkpoint as its trainer would write it: the state_dict, or the network where parameters are no factors."""
    ours = "factors", "index", "flags", "bias", "conv"
    if all(key.split(".")[1] in ours for key in module.state_dict()):
        torch.save(module.state_dict(), path.with_suffix(".pt"))
        return path.with_suffix(".pt")
    bfthw.save(layers.to_network(module), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("name", [*ROWS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_training_and_golden_model_agree(tmp_path, name):
    module = nn.Sequential(seeded((ROWS | LARGE)[name]))
    network = bfthw.load(saved(module, tmp_path / "w")).network
    x = np.random.default_rng(1).normal(size=(50, network.inputs))
    wanted = layers.to_network(module)
    assert network.layers[0].chain.patterns == wanted.layers[0].chain.patterns
    np.testing.assert_allclose(network(x), wanted(x), atol=1e-6)
    formats = choose_formats(wanted, Settings(weight_bits=6, row_exponents=2), x)
    q = formats.input.quantise(x)
    trained = QuantisedNetwork(module, formats)
    integers = quantise(trained.to_network(), formats)
    assert np.array_equal(trained.integers(torch.from_numpy(x)).numpy(), integers(q))
    assert len(np.unique(integers(q))) > 20
    other = QuantisedNetwork(network, formats)
    assert np.abs(other.integers(torch.from_numpy(x)).numpy() - integers(q)).max() <= 1 + 2 * (name == "circulant")


def call(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.parametrize("group", GROUPS)
def test_checkpoint_to_verilog(tmp_path, group):
    module = nn.Sequential(*(seeded(make, seed) for seed, make in enumerate(GROUPS[group].values())))
    n = module[0].inputs
    path, data = saved(module, tmp_path / "w"), tmp_path / "x.npy"
    np.save(data, np.random.default_rng(2).normal(size=(100, n)))
    call("generate", path, "-o", tmp_path, "--name", "core", "--calibration", data)
    integers = bfthw.load_integers(tmp_path / "core.npz")
    assert [layer.name.split(".")[0] for layer in integers.layers] == [str(m) for m in range(len(module))]
    # what goes wrong in any row must show at the end
    taps = integers.taps(integers.input.quantise(np.load(data)))
    assert all(len(np.unique(y)) > 20 for y in taps), [len(np.unique(y)) for y in taps]
    np.save(data, np.load(data)[:3])
    call("simulate", tmp_path / "core.json", "--simulator", QUICK, "--vectors", 2, "--input", data)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large(tmp_path, name):
    module = nn.Sequential(seeded(LARGE[name]))
    x = np.random.default_rng(3).normal(size=(20, module[0].inputs))
    integers = bfthw.compile(bfthw.load(saved(module, tmp_path / "w")).network, calibration=x)
    design = rtl_gen.write(integers, tmp_path, name="core", settings=Settings())
    result = simulate(design, inputs=x, vectors=4, simulator="compiled")
    assert result.ok and np.array_equal(result.outputs, integers(integers.input.quantise(x))), result.problems
