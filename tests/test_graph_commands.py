"""A small convolutional network at the command line, from its file to its report; what stops a command is named."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from bfthw import (
    Chain, Factor, Layer, Max, Network, Product, Sum, Window, chain, load, load_integers, make_settings, save,
)
from bfthw.cli import recorded
from bfthw.cli.commands.project import _vectors
from bfthw.cli.console import console
from bfthw.cli.main import app
from bfthw.graph import Graph
from bfthw.project import layer_error, project_layer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """net.safetensors; x.npy and y.npy; turned.npy and turned_y.npy, as torch has them; labels.npy."""
    folder, rng = tmp_path_factory.mktemp("graph"), np.random.default_rng(7)
    conv, mean = Factor(rng.normal(size=(1, 8, 9, 1)) / 3), Factor(np.full((1, 1, 9, 8), 1 / 9))
    nodes = [
        Layer(name="conv", chain=Chain([conv]), window=Window(3, stride=2, padding=1), act="relu6"),
        Layer(name="square", chain=Chain.random(chain.dense(8, 8), 2), bias=rng.normal(size=8), relu=True),
        Layer(name="butterfly", chain=Chain.random(chain.bft(8, 2), 1), residual=True),
        Layer(name="joined", chain=Chain.random(chain.dense(8, 8), 3), add="conv", act="hswish"),
        Layer(name="mean", chain=Chain([mean]), window=Window(3, stride=3)),
        Max(name="pool", window=Window((1, 1))),
        Layer(name="classes", chain=Chain.random(chain.dense(4, 8), 3), bias=rng.normal(size=4)),
        Sum(name="last", window=Window(1)),
    ]
    network, x = Network(nodes, (6, 6, 1)), rng.uniform(size=(60, 6, 6, 1))
    save(network, folder / "net.safetensors")
    arrays = {"x": x, "y": network(x).astype(np.float32), "turned": np.moveaxis(x, 3, 1)}
    arrays["labels"] = network(x).argmax(1)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def run(monkeypatch, folder, line):
    """(whether it ended well, all that it printed, its error)."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(console, "_width", 200)  # whatever COLUMNS was when it was made
    result = CliRunner().invoke(app, line.split())
    error = str(result.exception) if result.exception and not isinstance(result.exception, SystemExit) else ""
    return result.exit_code == 0, re.sub(" +", " ", result.output), error


def test_inspect_shows_nodes_shapes_weights_and_products(monkeypatch, folder):
    done, text, _ = run(monkeypatch, folder, "inspect net.safetensors")
    assert done and "net.safetensors, float; products" in text
    for line in (
        "input 6x6x1", "conv window 3x3 / 2 padded 1, relu6, (1, 8, 9, 1) 3x3x8 72 648",
        "square relu, bias, (1, 8, 8, 1) 3x3x8 64 576", "add, hswish, (1, 8, 8, 1) butterfly, conv 3x3x8 64 576",
        "pool max of 1x1", "mean window 3x3 / 3, (1, 1, 9, 8) 8 values 72 72", "all 352 2336",
    ):
        assert line in text.replace("\n", " ") or line in text, (line, text)


def test_from_file_to_integers_and_report(monkeypatch, folder):
    done, text, _ = run(monkeypatch, folder, "quantize net.safetensors --calibration x.npy -o q.npz")
    assert done and "formats: from x.npy, 60 vectors" in text and "u: unsigned" in text
    assert "wrote q.npz; next: bfthw generate q.npz -o DIR --name NAME" in text
    integers, x, y = load_integers(folder / "q.npz"), np.load(folder / "x.npy"), np.load(folder / "y.npy")
    assert not integers.nodes[0].output.signed and np.mean((integers.predict(x) - y) ** 2) < 1e-3
    done, text, _ = run(monkeypatch, folder, "inspect q.npz")
    assert done and "q.npz, integers" in text and "conv:0" in text and "relu to" in text and "table" in text
    line = "report net.safetensors --calibration x.npy --labels labels.npy --plot p.svg"
    done, text, _ = run(monkeypatch, folder, line)
    assert done and "pool" in text and "last" in text and "first stage that hurts" in text and "wrote p.svg" in text
    assert b"<svg" in (folder / "p.svg").read_bytes()


def test_search_spends_bits_on_a_graph(monkeypatch, folder):
    line = "search net.safetensors --calibration x.npy --budget-rom-bits 1500 -o s.toml"
    done, text, _ = run(monkeypatch, folder, line)
    assert done and "mean:0" in text
    assert set(make_settings(folder / "s.toml").layers) == {"conv", "square", "butterfly", "joined", "mean", "classes"}
    done, text, _ = run(monkeypatch, folder, "quantize net.safetensors --settings s.toml --calibration x.npy -o s.npz")
    bits = sum(f.values.size * f.weights.width for f in load_integers(folder / "s.npz").factors)
    assert done and bits <= 1500


@pytest.mark.parametrize("line", ["", " --calibration x.npy"], ids=["weights", "outputs"])
def test_project_puts_chains_into_a_graph(monkeypatch, folder, line):
    how = "--chain square=bft2 --chain conv=lowrank:2 -o p.safetensors --residual --sweeps 3"
    done, text, _ = run(monkeypatch, folder, f"project net.safetensors {how}{line}")
    assert done and "still dense: joined, classes" in text
    old, new = (load(folder / name).network for name in ("net.safetensors", "p.safetensors"))
    wiring = [[node.inputs for node in own.nodes if node.name != "square"] for own in (old, new)]
    assert wiring[0] == wiring[1]
    assert new.nodes[1].residual and len(new.nodes[1].chain.factors) == 3 and new.nodes[0].window == old.nodes[0].window
    assert new.nodes[3].add_scale is None and not new.nodes[3].residual and new.shapes == old.shapes


def test_vectors_of_a_projection_are_what_the_chains_see(folder, monkeypatch):
    network = load(folder / "net.safetensors").network
    monkeypatch.setattr("bfthw.cli.commands.project.MOST", 100)
    monkeypatch.setattr(Graph, "batch", 7)
    vectors = _vectors(network, folder / "x.npy", 0)
    assert set(vectors) == {"conv", "square", "butterfly", "joined", "mean", "classes"}
    for name, size in (("conv", 9), ("square", 8), ("mean", 72), ("classes", 8)):
        fitted, held = vectors[name]
        assert fitted.shape[1] == held.shape[1] == size and 40 <= len(fitted) <= 100 and 12 <= len(held) <= 100, name
    # every vector of the first layer is a window of some image, of those that are fitted to or of those held out
    windows = network.nodes[0].vectors(np.load(folder / "x.npy")).reshape(60, 9, 9)
    image = {tuple(row): n for n, rows in enumerate(windows) for row in rows}
    fitted, held = ({image[tuple(row)] for row in rows} for rows in vectors["conv"])
    assert len(fitted) > 30 and len(held) > 10 and not fitted & held


def test_a_residual_is_put_where_nothing_else_is_added(folder):
    conv, square, _, joined, *_ = load(folder / "net.safetensors").network.nodes
    found, error = project_layer(square, chain.bft(8, 2), residual=True)
    assert found.residual and error == layer_error(square, found)
    for layer in (conv, joined):
        with pytest.raises(ValueError, match="no window and nothing else that is added, got . -> 8"):
            project_layer(layer, [(1, 8, layer.chain.inputs, 1)], residual=True)
    same, error = project_layer(joined, [(1, 8, 8, 1)])
    assert error < 1e-12 and same.inputs == joined.inputs and same.act == joined.act


def test_recorded_outputs_of_maps_are_compared(monkeypatch, folder):
    for x in ("x.npy", "turned.npy"):
        done, text, _ = run(monkeypatch, folder, f"inspect net.safetensors --check {x} y.npy")
        assert done and "check: right: 60 vectors" in text
    np.save(folder / "wrong.npy", np.load(folder / "y.npy") + 0.1)
    done, _, error = run(monkeypatch, folder, "inspect net.safetensors --check x.npy wrong.npy")
    assert not done and re.search("output . of vector .* is 0.1 off.*there is no other reading", error)
    np.save(folder / "wide.npy", np.zeros((60, 6, 7, 1)))
    done, _, error = run(monkeypatch, folder, "inspect net.safetensors --check wide.npy y.npy")
    assert not done and "it takes 6 x 6 x 1 and gives 4, recorded are 60 maps of 6 x 7 x 1 and 60 of 4" in error
    network = load(folder / "net.safetensors").network
    maps, x = Network(network.nodes[:4], network.shape), np.load(folder / "x.npy")
    assert recorded.difference(maps, x, np.moveaxis(maps(x), 3, 1)).right
    assert not recorded.difference(maps, x, maps(x) + 1e-3).right


def test_maps_with_the_channels_first_are_told_so(monkeypatch, folder):
    done, _, error = run(monkeypatch, folder, "quantize net.safetensors --calibration turned.npy -o t.npz")
    assert not done and error == (
        "calibration data must have shape (N, 6, 6, 1), got (60, 1, 6, 6); channels come last: numpy.moveaxis(x, 1, -1)"
    )
    with pytest.raises(ValueError, match=r"input maps must .* got \(60, 1, 6, 6\); channels come last"):
        load(folder / "net.safetensors").network(np.load(folder / "turned.npy"))


@pytest.mark.parametrize("way", ["", "--interval 200"])
def test_a_product_goes_to_the_chip(monkeypatch, folder, way):
    layer = Layer(name="conv", chain=Chain.random(chain.bft(4, 2), 0))
    nodes = [layer, Sum(name="sum", window=Window(3)), Product(name="turned", inputs=("conv", "sum"))]
    save(Network(nodes, (3, 3, 4)), folder / "turned.safetensors")
    done, text, _ = run(monkeypatch, folder, "quantize turned.safetensors -o q.npz")
    assert done and "next: bfthw generate q.npz" in text
    done, _, error = run(monkeypatch, folder, f"generate q.npz -o core{len(way)} --name net {way}")
    assert done, error
    done, text, error = run(monkeypatch, folder, f"simulate core{len(way)}/net.json --vectors 8 --simulator compiled")
    assert done and "equal" in text, text + error


def test_a_graph_to_a_core(monkeypatch, folder):
    """Whose layers add what others give: generated, simulated, equal."""
    run(monkeypatch, folder, "quantize net.safetensors --calibration x.npy -o net.npz")
    done, text, error = run(monkeypatch, folder, "generate net.npz -o core --name net")
    assert done, error
    done, text, error = run(monkeypatch, folder, "simulate core/net.json --vectors 4")
    assert done, error


def test_each_says_that_a_graph_is_a_whole(monkeypatch, folder):
    done, _, error = run(monkeypatch, folder, "inspect net.safetensors --each")
    assert not done and error == "net.safetensors: a graph is read as a whole, without --each"
