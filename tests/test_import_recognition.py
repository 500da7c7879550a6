"""Which layout a file has, what is said of files that have none, options, and the way through the command line."""

import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import WRITERS, formats, refused, safetensors

import bfthw
from bfthw import importers

RNG = np.random.default_rng(0)
LINEAR = {"weight": RNG.normal(size=(16, 16)), "bias": np.zeros(16)}
TWIDDLE = {"twiddle": RNG.normal(size=(1, 1, 4, 8, 2, 2)), "bias": np.zeros(16)}
RELEASED = {"weight": np.zeros((16, 16, 1, 1)), "balanced_bfts.0.weight1": RNG.normal(size=128)}
MONARCH = {"blkdiag1": RNG.normal(size=(4, 4, 4)), "blkdiag2": RNG.normal(size=(4, 4, 4))}
NORM = {"weight": np.ones(16), "bias": np.zeros(16), "running_mean": np.ones(16), "running_var": np.ones(16)}
NORM |= {"num_batches_tracked": np.array(3)}


def under(**layers):
    return {
        f"{name.replace('_', '.')}.{part}": array for name, parts in layers.items() for part, array in parts.items()
    }


MIXED = under(f_0=LINEAR, f_1=NORM, f_2=TWIDDLE, f_3=RELEASED, f_4=MONARCH, f_5=NORM, f_6=LINEAR)


@formats
def test_layers_of_several_kinds_in_a_file(tmp_path, name):
    checkpoint = bfthw.load(WRITERS[name](tmp_path / name, MIXED), options={"f.3.base": 2, "relu": "hidden"})
    network = checkpoint.network
    assert [layer.name for layer in network.layers] == ["f.0", "f.2", "f.3", "f.4", "f.6"]
    assert [layer.relu for layer in network.layers] == [True, True, True, True, False]
    assert [layer.scale is not None for layer in network.layers] == [True, False, False, True, False]
    assert [layer.residual for layer in network.layers] == [False, False, True, False, False]
    assert (
        checkpoint.notes[-1] != ""
        and "format recognised: dense, torch_butterfly, released, monarch" in checkpoint.notes
    )


@formats
def test_single_layers_by_order(tmp_path, name):
    """The way into a file of which the most is no layer: name those that are wanted."""
    arrays = MIXED | {"f.7.weight": np.ones((16, 16, 3, 3)), "f.8.alpha": np.ones(3)}
    path = WRITERS[name](tmp_path / name, arrays)
    refused(
        path,
        "2 arrays belong to no layer",
        r"'f\.7\.weight' \(16, 16, 3, 3\)",
        r"'f\.8\.alpha' \(3,\)",
        "--order takes single layers",
    )
    checkpoint = bfthw.load(path, order=["f.2", "f.0", "f.1"])
    assert [layer.name for layer in checkpoint.network.layers] == ["f.2", "f.0"]
    assert [layer.scale is not None for layer in checkpoint.network.layers] == [False, True]
    assert any("not taken, as the order does not name them: 'f.5', 'f.3'" in note for note in checkpoint.notes)
    refused(path, "there is no layer 'f.9' among", order=["f.9"])
    refused(path, r"'f\.7\.weight'", order=["f.0", "f.7"])
    refused(path, "each layer of the file once", order=["f.0", "f.0"])


def test_another_architecture(tmp_path):
    """A ResNet: one message, with what was looked for and what was found."""
    torch = pytest.importorskip("torch")

    def block(n, m):
        return torch.nn.Sequential(
            torch.nn.Conv2d(n, m, 3), torch.nn.BatchNorm2d(m), torch.nn.Conv2d(m, m, 3), torch.nn.BatchNorm2d(m)
        )

    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7), torch.nn.BatchNorm2d(8), block(8, 8), block(8, 16), torch.nn.Linear(16, 10)
    )
    torch.save(body.state_dict(), tmp_path / "resnet.pth")
    refused(
        tmp_path / "resnet.pth",
        "10 arrays belong to no layer that is read here: '0.weight' .8, 3, 7, 7.",
        "'2.0.weight'",
        "and 4 more",
        r"native: factors\.<m>",
        "released: balanced_bfts",
        "torch_butterfly: twiddle",
        "debut: ",
        "monarch: blkdiag1",
        "dense: weight",
    )


@formats
def test_nothing_known(tmp_path, name):
    refused(
        WRITERS[name](tmp_path / name, {"a.b": np.ones(3)}),
        r"no layer that is read here; found 'a\.b' \(3,\)",
        "native: ",
        "debut: ",
    )


@pytest.mark.parametrize("parts", [LINEAR, TWIDDLE, RELEASED, MONARCH])
def test_a_layer_without_a_name(tmp_path, parts):
    np.savez(tmp_path / "w.npz", **parts)
    assert bfthw.load(tmp_path / "w.npz").network.layers[0].name == "0"


def test_two_layers_of_one_name(tmp_path):
    np.savez(tmp_path / "w.npz", **{"weight": np.ones((4, 4)), "0.bias": np.ones(4)})
    refused(tmp_path / "w.npz", "'weight' and '0.bias' would be of one layer")


@pytest.mark.parametrize("bad", ["..", "a b", "../x", "é", "x" * 250])
def test_names_that_are_none(tmp_path, bad):
    np.savez(tmp_path / "w.npz", **{f"{bad}.{part}": array for part, array in LINEAR.items()})
    refused(tmp_path / "w.npz", "a layer's name must be words")


def test_the_order_of_safetensors(tmp_path):
    path = safetensors(tmp_path / "w.safetensors", under(fc=LINEAR, norm=NORM, head=MONARCH))
    refused(path, "keeps no order", "'norm'")
    layers = bfthw.load(path, order=["fc", "norm", "head"]).network.layers
    assert [(layer.name, layer.scale is not None) for layer in layers] == [("fc", True), ("head", False)]


def test_a_given_format(tmp_path):
    np.savez(tmp_path / "w.npz", **under(a_0=LINEAR, a_1=TWIDDLE))
    assert bfthw.load(tmp_path / "w.npz", format="torch_butterfly").notes[-1] != ""
    assert "format: dense, torch_butterfly" in bfthw.load(tmp_path / "w.npz", format="torch_butterfly").notes
    refused(tmp_path / "w.npz", r"'a\.1\.twiddle'", format="monarch")
    refused(tmp_path / "w.npz", "unexpected key", format="native")
    refused(tmp_path / "w.npz", "format must be one of native, released", "did you mean 'monarch'", format="monarc")
    refused(tmp_path / "w.npz", "that of .onnx files", format="onnx")
    np.savez(tmp_path / "w.npz", **under(a_0=LINEAR))
    refused(tmp_path / "w.npz", "no layer of the format 'monarch'", format="monarch")


def test_options_that_say_nothing(tmp_path):
    np.savez(tmp_path / "w.npz", **under(a_0=LINEAR, a_1=TWIDDLE))
    for key in ("strid", "base", "a.0.stride", "b.relu", "eps"):
        refused(tmp_path / "w.npz", f"the option '{key}' says nothing here", "'a.1.stride'", options={key: "2"})
    of_layers = {"base", "stride", "param", "fast", "shuffle", "b2", "line", "inputs", "outputs"}
    assert set(importers.OPTIONS) == {*of_layers, "relu", "norm", "eps"}
    np.savez(tmp_path / "own.npz", **{"factors.0": np.ones((1, 2, 2, 1))})
    for foreign in ({"options": {"stride": "decreasing"}}, {"shapes": "s.txt"}, {"format": "dense"}):
        refused(tmp_path / "own.npz", "bfthw's own format|no layer that is read", **foreign)
    assert bfthw.load(tmp_path / "own.npz", format="native").network.outputs == 2


def test_without_torch(tmp_path):
    np.savez(tmp_path / "w.npz", **MIXED)
    code = (
        "import sys; sys.modules['torch'] = None; import bfthw; "
        "print(bfthw.load(sys.argv[1], options={'f.3.base': 4}).network.outputs)"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "w.npz"], capture_output=True, text=True)
    assert run.stdout == "16\n", run.stderr


# the command line


def run(*arguments):
    from typer.testing import CliRunner

    from bfthw.cli.main import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output, str(result.exception)


def test_inspect_and_quantize(tmp_path):
    path, out = tmp_path / "w.npz", tmp_path / "q.npz"
    np.savez(path, **under(a=TWIDDLE, b=RELEASED))
    options = "--import", "stride=decreasing", "--import", "b.base=2"
    status, output, _ = run("inspect", path, *options)
    assert (
        status == 0 and "format recognised: torch_butterfly, released" in output and "b" in output and "256" in output
    )
    assert run("quantize", path, "-o", out, *options, "--import", "relu=hidden")[0] == 0
    network = bfthw.load(path, options={"stride": "decreasing", "b.base": 2, "relu": "hidden"}).network
    x = np.random.default_rng(1).uniform(-1, 1, (20, 16))
    golden = bfthw.load_integers(out)
    assert np.array_equal(golden(golden.input.quantise(x)), bfthw.compile(network)(golden.input.quantise(x)))
    assert np.abs(golden.predict(x) - network(x)).max() < 0.1 * np.abs(network(x)).max()
    assert "holds integers already" in run("inspect", out, *options)[2]
    assert "must be KEY=VALUE" in run("inspect", path, "--import", "stride")[2]
    assert "there is no layer" in run("inspect", path, "--order", "c")[2]


def test_fit_and_generate_take_them(tmp_path):
    path, shapes = tmp_path / "w.npz", tmp_path / "s.txt"
    np.savez(path, twiddle=RNG.normal(size=32))
    shapes.write_text("4 8 2 4 1 8 4 4 2 2")
    status, output, error = run("fit", path, "--format", "debut", "--shapes", shapes)
    assert status == 0 and "icebreaker" in output, error
    status, output, error = run(
        "generate", path, "--shapes", shapes, "-o", tmp_path / "out", "--name", "core", "--import", "relu=all"
    )
    assert status == 0 and (tmp_path / "out" / "core.v").exists(), error
