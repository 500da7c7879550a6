"""A node that this file alone knows: said once, it is in files, integers, training, reports and tables."""

from __future__ import annotations  # also with types that are text

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from graphs import by_name

from bfthw import Layer, Network, Settings, Window, compile, load, load_integers, report, save, save_integers
from bfthw.chain import Chain, bft, dense
from bfthw.cli import tables
from bfthw.formats import formats_of
from bfthw.graph import Node
from bfthw.nodes import _same
from bfthw.qat import QuantisedNetwork
from bfthw.search import search
from bfthw.window import library


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Apart(Node):
    """y = |a[order] - b| * times: how far two maps are apart, channel by channel, a's channels in another order."""

    inputs: tuple
    order: np.ndarray
    times: int = 1
    window: Window | None = None  # says nothing here but that classes with fields may be among them

    kind = "apart"
    takes = 2, 2
    computes = True
    carries = 3  # times up to 4, and a difference's bit

    def shape(self, a, b):
        for axis in a._fields:
            _same(axis, getattr(a, axis), getattr(b, axis), "both agree")
        return a

    def bounds(self, a, b):
        (lo, hi), (low, high) = (end[..., self.order] for end in a), b
        return np.maximum(0, np.maximum(lo - high, low - hi)) * self.times, np.maximum(hi - low, high - lo) * self.times

    def __call__(self, a, b):
        return library(a).abs(a[..., self.order] - b) * self.times


def network(seed=0):
    rng = np.random.default_rng(seed)
    nodes = [
        Layer(name="left", chain=Chain.random(bft(8, 2), seed), relu=True),
        Layer(name="right", inputs="input", chain=Chain.random(bft(8, 2), seed + 1), act="relu6"),
        Apart(name="apart", inputs=("left", "right"), order=rng.permutation(8), times=3, window=Window(2)),
        Layer(name="head", chain=Chain.random(dense(5, 8), seed), bias=rng.normal(size=5)),
    ]
    return Network(nodes, (3, 3, 8)), rng.normal(size=(40, 3, 3, 8))


@pytest.fixture(scope="module", params=[True, False], ids=["calibrated", "bounds"])
def made(request):
    """(floats, integers, data), formats by calibration or by bounds."""
    floats, x = network()
    return floats, compile(floats, settings=Settings(activation_bits=12), calibration=x if request.param else None), x


def test_a_new_node_is_in_files_of_floats_and_integers(tmp_path, made):
    floats, integers, x = made
    for name in ("x.safetensors", "x.npz"):
        save(Network(floats.nodes, floats.shape, formats=formats_of(integers)), tmp_path / name)
        again = load(tmp_path / name).network
        node, own = again.nodes[2], floats.nodes[2]
        assert type(node) is Apart and (node.times, node.window, node.inputs) == (3, own.window, ("left", "right"))
        assert np.array_equal(node.order, own.order) and np.array_equal(again(x), floats(x))
        assert np.array_equal(compile(again).predict(x), integers.predict(x))
    save_integers(integers, tmp_path / "q.npz")
    q = integers.input.quantise(x)
    assert np.array_equal(load_integers(tmp_path / "q.npz")(q), integers(q))


def test_a_field_of_zero_is_no_default(tmp_path):
    floats, _ = network()
    zero = Apart(name="apart", inputs=("left", "right"), order=np.arange(8), times=0)
    save(Network([*floats.nodes[:2], zero], floats.shape), tmp_path / "x.npz")
    node = load(tmp_path / "x.npz").network.nodes[2]
    assert node.times == 0 and node.window is None


def test_its_integers_are_its_arithmetic(made):
    floats, integers, x = made
    q = by_name(integers, integers.input.quantise(x))
    left, right, whole = q["left"], q["right"], integers.nodes[2]
    (one, two), output = whole.formats, whole.output
    most = max(one.frac, two.frac)
    exact = 3 * np.abs((left << most - one.frac)[..., whole.node.order] - (right << most - two.frac))
    step = most - output.frac
    wanted = (exact + (1 << step >> 1)) >> step if step > 0 else exact << -step
    assert np.array_equal(q["apart"], np.minimum(wanted, output.hi))
    rows = {row.name: row for row in report(floats, integers, x)}
    assert rows["apart"].own > 60 and rows["apart"].peak == np.abs(by_name(floats, x)["apart"]).max()


def test_it_is_trained_through(made):
    floats, integers, x = made
    module = QuantisedNetwork(floats, formats_of(integers), learn_ranges=True)
    wanted = by_name(integers, integers.input.quantise(x))
    taps = module.taps(torch.from_numpy(x))
    assert all(np.array_equal(taps[name].numpy(), y) for name, y in wanted.items())
    module(torch.from_numpy(x)).square().sum().backward()
    assert all(factor.grad.abs().sum() > 0 for factor in module.layers[0].factors)


def test_it_is_searched_and_shown(made):
    floats, integers, x = made
    found = search(floats, x, rom_bits=500)
    assert found.rom_bits <= 500 and len(found.bits) == 7
    rows = [[cell.plain for cell in cells] for cells, _ in tables.graph("", integers).rows]
    assert ["apart", "apart", "left, right", "3x3x8", "", ""] in rows
    assert any(cells[0].plain == "apart" for cells, _ in tables.formats(integers).rows)


def test_a_misplaced_one_is_refused_by_name(tmp_path, made):
    floats, _, _ = made
    save(floats, tmp_path / "x.npz")
    kinds = dict(Node.KINDS)
    try:
        del Node.KINDS["apart"]
        with pytest.raises(ValueError, match="x.npz: node 'apart': kind: there is no kind of node 'apart'; there are"):
            load(tmp_path / "x.npz")
    finally:
        Node.KINDS.update(kinds)
    with pytest.raises(ValueError, match="node 'apart': .*in channels both agree: 8 would fit, not 4"):
        narrow = Layer(name="right", chain=Chain.random(dense(4, 8), 0))
        Network([floats.nodes[0], narrow, floats.nodes[2]], (3, 3, 8))
