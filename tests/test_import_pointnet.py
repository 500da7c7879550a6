"""All-DeBut's PointNet with its own shapes file: 18 layers that share 9 lines; and each part of a file on its own."""

import re

import foreign_modules as theirs
import numpy as np
import pytest
import torch
from checkpoint_files import refused
from torch import nn
from typer.testing import CliRunner

import bfthw
from bfthw.cli.main import app
from bfthw.each import parts
from bfthw.models.pointnet import CHAINS

# (inputs, outputs) of each line, as their files have them, and the line of each layer
LINES = [(3, 64), (64, 128), (128, 1024), (1024, 512), (512, 256), (256, 40), (256, 9), (64, 64), (256, 4096)]
BODY = {"conv2": 2, "conv3": 3, "fc1": 4, "fc2": 5}
LAYERS = {f"stn.{name}": line for name, line in {"conv1": 1, **BODY, "fc3": 7}.items()}
LAYERS |= {f"fstn.{name}": line for name, line in {"conv1": 8, **BODY, "fc3": 9}.items()}
LAYERS |= {"block0.0": 1, "block1.0": 2, "block1.3": 3, "block2.0": 4, "block2.3": 5, "classifier": 6}


def factors(which, inputs, outputs):
    """[[out, in, r, s, t], ...] of a line."""
    found = []
    for r, s, t in CHAINS[which][inputs, outputs]:
        found.append([inputs // s * r, inputs, r, s, t])
        inputs = found[-1][0]
    return found


def one(which, line):
    n, m = LINES[line - 1]
    kind = theirs.DeBut_1dConv if line in (1, 2, 3, 8) else theirs.DeBut
    return kind(n, m, *([1] if kind is theirs.DeBut_1dConv else []), R_shapes=factors(which, n, m))


def pointnet(which):
    """A module with all of its arrays, in the names and the order that the original has; only layers are used."""
    torch.manual_seed(6)
    model = nn.Module()
    for name, line in LAYERS.items():
        *place, last = name.split(".")
        at = model
        for step in place:
            if not hasattr(at, step):
                at.add_module(step, nn.Module())
            at = at.get_submodule(step)
        at.add_module(last, one(which, line))
    for place, sizes in (("stn.bn", (64, 128, 1024, 512, 256)), ("fstn.bn", (64, 128, 1024, 512, 256))):
        for k, size in enumerate(sizes, 1):
            model.get_submodule(place.split(".")[0]).add_module(f"bn{k}", nn.BatchNorm1d(size))
    for name, size in (("block0.1", 64), ("block1.1", 128), ("block1.4", 1024), ("block2.1", 512), ("block2.5", 256)):
        model.get_submodule(name.split(".")[0]).add_module(name.split(".")[1], nn.BatchNorm1d(size))
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return model


def shapes_of(tmp_path, which, lines=LINES):
    text = "\n".join(" ".join(str(v) for one in factors(which, *size) for v in one) for size in lines)
    (tmp_path / "rshapes.txt").write_text(text + "\n")
    return tmp_path / "rshapes.txt"


@pytest.fixture(scope="module", params=["big", "small"])
def saved(request, tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("pointnet"), pointnet(request.param)
    torch.save({"model": model.state_dict(), "epoch": 3, "accuracy": 0.88}, folder / "pointnet.pth")
    return folder / "pointnet.pth", shapes_of(folder, request.param), model


def test_all_layers(saved):
    """Lines are found by their numbers of weights, and each layer computes what its module does."""
    path, shapes, model = saved
    found, _ = parts(path, shapes=shapes)
    assert {part.name for part in found} == LAYERS.keys()
    rng = np.random.default_rng(2)
    for part in found:
        loaded = part.read()
        (layer,) = loaded.network.layers
        assert any(f"shapes of line {LAYERS[part.name]};" in note for note in loaded.notes)
        module = model.get_submodule(part.name).double()
        x = rng.normal(size=(2, layer.chain.inputs))
        with torch.no_grad():
            wanted = module.linear(torch.from_numpy(x)).numpy()
        assert np.allclose(layer(x), wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


def test_the_head_as_a_network(saved):
    """Five layers and their norms out of 18, by --order."""
    path, shapes, model = saved
    order = ["block2.0", "block2.1", "block2.3", "block2.5", "classifier"]
    options = {"relu": "hidden"}
    # a dropout stood between layer and norm, a ReLU behind it: the numbers tell neither
    refused(path, "'block2.5' may stand before the ReLU", shapes=shapes, order=order, options=options)
    loaded = bfthw.load(path, shapes=shapes, order=order, options=options | {"block2.5.norm": "before"})
    x = torch.randn(3, 1024).double()
    y = x
    with torch.no_grad():
        for name in order:
            y = model.get_submodule(name).double().eval()(y)
            y = torch.relu(y) if name in ("block2.1", "block2.5") else y
    assert np.allclose(loaded.network(x.numpy()), y.numpy(), rtol=1e-9, atol=1e-9 * float(y.abs().max()))


def test_a_whole_pointnet_is_no_chain(saved):
    path, shapes, _ = saved
    refused(path, "'stn.bn1', .* the norm has 64 features, layer 'stn.fc3' before it 9 outputs", shapes=shapes)
    order = ["stn.fc1", "fstn.fc1"]
    refused(path, "do not chain: 'stn.fc1' .*; --each takes every layer on its own", shapes=shapes, order=order)


# lines by name


TWO = [[(32, 48, 2, 3, 1)], [(32, 48, 4, 6, 1)], [(16, 32, 2, 4, 2)]]  # 96, 192 and 64 weights
SAME = [[(16, 16, 4, 4, 1)], [(16, 16, 4, 4, 4)], [(16, 16, 2, 2, 1), (16, 16, 2, 2, 2)]]  # all of 64 weights


def text(chains):
    return "\n".join(" ".join(str(v) for one in chain for v in one) for chain in chains)


def written(tmp_path, chains, names):
    """A file with layers of the shapes, by name, and a shapes file of `chains`."""
    torch.manual_seed(1)
    made = {name: theirs.DeBut(shapes[0][1], shapes[-1][0], shapes) for name, shapes in names.items()}
    arrays = {f"{name}.{key}": v.numpy() for name, one in made.items() for key, v in one.state_dict().items()}
    np.savez(tmp_path / "w.npz", **arrays)
    (tmp_path / "s.txt").write_text(text(chains))
    return {name: one.double() for name, one in made.items()}


def right(loaded, model, x):
    with torch.no_grad():
        return np.allclose(loaded.network(x), model(torch.from_numpy(x)).numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_line_is_named(tmp_path, line):
    model = written(tmp_path, SAME, {"a": SAME[line - 1]})["a"]
    path, x = tmp_path / "w.npz", np.random.default_rng(0).normal(size=(4, 16))
    refused(path, "for 64 weights and 16 outputs, lines 1, 2, 3 have: a.line=N says which", shapes=tmp_path / "s.txt")
    loaded = bfthw.load(path, shapes=tmp_path / "s.txt", options={"a.line": line})
    assert right(loaded, model, x) and any(f"shapes of line {line};" in note for note in loaded.notes)
    wrong = bfthw.load(path, shapes=tmp_path / "s.txt", options={"a.line": line % 3 + 1})
    assert not right(wrong, model, x)
    refused(path, "line = 4: .*s.txt has shapes in the lines 1, 2, 3", shapes=tmp_path / "s.txt", options={"a.line": 4})


def test_a_recorded_output_tells_the_line(tmp_path):
    model = written(tmp_path, SAME, {"a": SAME[1]})["a"]
    x = torch.randn(30, 16).double()
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", model(x).detach().numpy())
    command = ["inspect", str(tmp_path / "w.npz"), "--shapes", str(tmp_path / "s.txt"), "--check"]
    command += [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code and "what gives it: --import a.line=2" in str(done.exception)
    assert not CliRunner().invoke(app, [*command, "--import", "a.line=2"]).exit_code


def test_lines_by_weights(tmp_path):
    names = {"a": TWO[1], "b": TWO[2]}
    models = written(tmp_path, TWO, names)
    loaded = bfthw.load(tmp_path / "w.npz", shapes=tmp_path / "s.txt", order=["a", "b"])
    x = np.random.default_rng(0).normal(size=(4, 48))
    assert right(loaded, nn.Sequential(*models.values()), x)
    # as many lines as layers that are taken, but in another order, and one that no line fits
    path, shapes = tmp_path / "w.npz", tmp_path / "s.txt"
    models = written(tmp_path, [TWO[2], TWO[1]], names | {"c": TWO[0]})
    assert right(bfthw.load(path, shapes=shapes, order=["a", "b"]), nn.Sequential(models["a"], models["b"]), x)
    words = "'c', read as debut: of .*s.txt, for 96 weights and 32 outputs, none of 2 lines has"
    refused(path, words, shapes=shapes, order=["c"])
    # as many weights, told by the bias; and the same shapes twice
    outputs = [[(32, 48, 2, 3, 1)], [(48, 96, 1, 2, 1)], [(32, 48, 2, 3, 1)]]
    model = written(tmp_path, outputs, {"a": outputs[0]})["a"]
    assert right(bfthw.load(path, shapes=shapes), model, x)


# each part of a file, and each file of a folder


def run(*command):
    done = CliRunner().invoke(app, [str(word) for word in command])
    return done.exit_code, f"{done.output}{done.exception or ''}"


def test_each_layer_of_a_file(saved, tmp_path):
    path, shapes, _ = saved
    code, shown = run("inspect", path, "--shapes", shapes, "--each")
    assert not code and "note: 18 layers, each on its own, without batch norms" in shown
    assert len(re.findall("^pointnet.pth, float;", shown, re.MULTILINE)) == 18
    assert shown.count("note: taken for granted: ") == 1 and "note: not taken" not in shown  # said once
    assert shown.count("note: format recognised: debut") == 18
    order = ["--order", "classifier,stn.fc3"]
    code, shown = run("quantize", path, "--shapes", shapes, "--each", *order, "-o", tmp_path / "q")
    assert not code and sorted(p.name for p in (tmp_path / "q").iterdir()) == ["classifier.npz", "stn.fc3.npz"]
    assert bfthw.load_integers(tmp_path / "q" / "stn.fc3.npz").outputs == 9


def test_a_layer_of_a_file_that_is_not_read(tmp_path):
    """It is named beside those that are, without the list of all that was looked for."""
    np.savez(tmp_path / "w.npz", **{"stem.weight": np.ones((4, 3, 3, 3)), "head.weight": np.ones((2, 4))})
    code, shown = run("inspect", tmp_path / "w.npz", "--each")
    line = "no layer that is read here; found 'stem.weight' (4, 3, 3, 3); layers of the file that are read: 'head'\n"
    assert code == 1 and line in shown and "1 of 2 failed: 'stem'" in shown


@pytest.fixture
def folder(tmp_path):
    """Two networks, one that is none, one in two files, integers, and what is no network."""
    rng, folder = np.random.default_rng(0), tmp_path / "layers"
    folder.mkdir()
    for name in ("one", "two-2"):
        np.savez(folder / f"{name}.npz", **{"0.weight": rng.normal(size=(2, 2)), "0.bias": rng.normal(size=2)})
    (folder / "bad.pt").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("x")
    np.save(folder / "x.npy", rng.normal(size=(40, 2)))
    (folder / "inner.npz").mkdir()
    (folder / "odd\x1b[31m\n.npz").write_bytes(b"nothing")
    return folder


def test_each_file_of_a_folder(folder, tmp_path):
    code, shown = run("inspect", folder, "--each")
    assert code == 1 and "3 files, each on its own" in shown
    assert r"passed over: 'inner.npz', 'notes.txt', 'odd\x1b[31m\n.npz', 'x.npy'" in shown
    assert shown.count(", float;") == 2 and f"{folder}: 1 of 3 failed: 'bad'" in shown
    assert f"error: {folder / 'bad.pt'}: not a valid file of weights" in shown
    code, shown = run("inspect", folder)
    assert code == 1 and "it is a directory, --each takes the files in it" in shown
    (folder / "bad.pt").unlink()
    out = tmp_path / "out"
    code, shown = run("quantize", folder, "--each", "-o", out)
    assert not code and sorted(p.name for p in out.iterdir()) == ["one.npz", "two-2.npz"]
    for name in ("one", "two-2"):
        assert bfthw.load_integers(out / f"{name}.npz") is not None
    code, shown = run("generate", folder, "--each", "-o", tmp_path / "cores", "--name", "core")
    assert not code and {p.name for p in (tmp_path / "cores").glob("*.v")} >= {"core_one.v", "core_two_2.v"}
    code, shown = run("fit", out, "--each")  # of integers too
    assert not code and shown.count("ulx3s-85f") == 2


def test_calibration_of_each(folder, tmp_path):
    (folder / "bad.pt").unlink()
    x = tmp_path / "x"
    x.mkdir()
    rng = np.random.default_rng(1)
    for k, name in enumerate(("one", "two-2")):
        np.save(x / f"{name}.npy", rng.normal(size=(60, 2)) * 10.0**k)
    code, shown = run("quantize", folder, "--each", "-o", tmp_path / "q", "--calibration", x)
    assert not code, shown
    one, two = (bfthw.load_integers(tmp_path / "q" / f"{name}.npz") for name in ("one", "two-2"))
    assert one.input.frac > two.input.frac
    (x / "one.npy").unlink()
    code, shown = run("quantize", folder, "--each", "-o", tmp_path / "q", "--calibration", x)
    assert code == 1 and f"{x / 'one.npy'}: no such file" in shown and "1 of 2 failed: 'one'" in shown
    assert not run("quantize", folder, "--each", "-o", tmp_path / "q", "--calibration", folder / "x.npy")[0]


def test_each_refused(folder, tmp_path):
    (folder / "one.pt").write_bytes(b"nothing")
    assert "one.npz and one.pt would both be 'one'" in run("inspect", folder, "--each")[1]
    (folder / "one.pt").unlink()
    np.savez(folder / "two_2.npz", **{"0.weight": np.ones((8, 8))})
    code, shown = run("generate", folder, "--each", "-o", tmp_path / "cores", "--name", "core")
    assert code == 1 and "'two-2' and 'two_2' would write the same files, core_two_2" in shown
    assert not (tmp_path / "cores").exists()
    assert "an order is of layers in one file" in run("inspect", folder, "--each", "--order", "a")[1]
    assert "this folder has 0" in run("inspect", folder / "inner.npz", "--each")[1]
    assert "--each takes a folder" in run("inspect", "--model", "pointnet", "--each")[1]
    x = folder / "x.npy"
    np.savez(tmp_path / "w.npz", **{"a.weight": np.ones((4, 4)), "b.twiddle": np.ones((1, 1, 3, 4, 2, 2))})
    assert "--check compares one network" in run("inspect", tmp_path / "w.npz", "--each", "--check", x, x)[1]
    assert "there is no layer 'c' among 'a', 'b'" in run("inspect", tmp_path / "w.npz", "--each", "--order", "c")[1]
    code, shown = run("inspect", tmp_path / "w.npz", "--each", "--import", "base=2")
    assert code == 1 and "the option 'base' says nothing of any layer; there are 'a', 'b'" in shown


def test_options_go_to_the_layers_that_ask_for_them(tmp_path):
    arrays = {"a.weight": np.ones((4, 4)), "b.twiddle": np.ones((1, 1, 3, 4, 2, 2)), "c.x": np.ones(3)}
    np.savez(tmp_path / "w.npz", **{f"model.{key}": value for key, value in arrays.items()})
    options = ["--import", "stride=decreasing", "--import", "model.b.outputs=6", "--import", "relu=all"]
    code, shown = run("inspect", tmp_path / "w.npz", "--each", *options)
    assert code == 1 and "1 of 3 failed: 'c'" in shown and "increasing stride assumed" not in shown
    assert not run("inspect", tmp_path / "w.npz", "--each", "--order", "model.a,b", *options)[0]
    found, _ = parts(tmp_path / "w.npz", options={"stride": "decreasing", "b.outputs": 6}, order=["b"])
    assert found[0].read().network.outputs == 6


def test_each_layer_of_our_own(tmp_path):
    layers = [bfthw.Layer(chain=bfthw.Chain.random(bfthw.chain.bft(n, 2), n), name=name, relu=True) for n, name in
              ((8, "a"), (8, "b.0"))]
    bfthw.save(bfthw.Network(layers=layers), tmp_path / "w.safetensors")
    found, _ = parts(tmp_path / "w.safetensors")
    assert [part.name for part in found] == ["a", "b.0"]
    for part, layer in zip(found, layers):
        (read,) = part.read().network.layers
        assert read.relu and np.array_equal(read.chain.dense(), layer.chain.dense())


def test_a_network_in_several_files_is_one(tmp_path):
    import json

    from safetensors.numpy import save_file

    folder = tmp_path / "sharded"
    folder.mkdir()
    arrays = {"0.weight": np.ones((4, 4)), "1.weight": np.ones((2, 4))}
    names = {key: f"model-0000{k}-of-00002.safetensors" for k, key in enumerate(arrays, 1)}
    for key, name in names.items():
        save_file({key: arrays[key]}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    torch.save({"0.weight": torch.ones(3, 4)}, folder / "other.pth.tar")
    found, _ = parts(folder)
    assert [(part.name, part.path.name) for part in found] == [
        ("model", "model.safetensors.index.json"), ("other", "other.pth.tar"),
    ]
    assert not run("inspect", folder, "--each")[0]
