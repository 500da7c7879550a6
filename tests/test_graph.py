"""Graphs: every node against torch, in floats; their integers against direct integer arithmetic; training."""

from functools import cache

import numpy as np
import pytest
import torch
from graphs import WILD, Made, by_name, dense, direct, made_integers
from torch.nn import functional as F

from bfthw import (
    Chain,
    Factor,
    Gate,
    IntNetwork,
    IntNode,
    Layer,
    Max,
    Network,
    Pick,
    QFormat,
    Settings,
    Sum,
    Window,
    report,
)
from bfthw.calibrate import Calibration
from bfthw.check import check
from bfthw.formats import FactorFormats, Formats, LayerFormats, formats_of
from bfthw.line import behind
from bfthw.network import equalise
from bfthw.noise import output_sqnr
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import choose_formats, prepare, quantise
from bfthw.search import search

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = pytest.mark.parametrize("seed", [*range(8), *range(WILD, WILD + 8)], ids="seed-{}".format)


@SEEDS
def test_floats_are_torchs(seed):
    made = Made(seed)
    x = made.inputs()
    wanted, found = made.torch(x), by_name(made.network, x)
    for node, shape in zip(made.network.nodes, made.network.shapes):
        value = wanted[node.name]
        assert found[node.name].shape == (3, *shape.dims) and value.shape[1:] == shape
        np.testing.assert_allclose(found[node.name].reshape(value.shape), value, atol=1e-11, err_msg=node.name)
    assert np.array_equal(made.network(x), found["last"]) and made.network.outputs == 3
    assert made.network.inputs == np.prod(made.shape)
    even = equalise(made.network)
    np.testing.assert_allclose(even(x), made.network(x), rtol=1e-9)


@pytest.fixture(scope="module")
def quantised():
    """seed -> `made_integers`, made once."""
    return cache(made_integers)


@SEEDS
def test_integers_are_direct_arithmetic(seed, quantised):
    made, x, integers = quantised(seed)
    assert [node.name for node in integers.nodes] == [node.name for node in made.nodes]
    q = integers.input.quantise(x[:2])
    q[0].flat[::3] = integers.input.hi
    values, names = {"input": q}, iter(integers.shapes)
    for node, y in integers.walk(q, lambda node, *xs: node(*xs)):
        shape = next(names)
        values[node.name] = wanted = direct(node, [values[name] for name in node.inputs]).reshape(2, *shape)
        assert np.array_equal(y.reshape(wanted.shape), wanted), node.name
        assert node.output.lo <= wanted.min() and wanted.max() <= node.output.hi
    assert np.array_equal(integers(q), integers.taps(q)[-1])
    assert np.array_equal(integers.predict(x[:1]), integers.output.dequantise(integers(integers.input.quantise(x[:1]))))


@SEEDS
def test_formats_hold_and_come_back(seed, quantised):
    """Without data nothing saturates, whatever the inputs; formats as plain data are the same formats."""
    made, _, integers = quantised(seed)
    formats = formats_of(integers)
    again = Formats.from_dict(formats.to_dict())
    assert again == formats and formats_of(quantise(made.network, again)) == formats
    unsigned = [name for name, stage in integers.stages if not stage.output.signed]
    positive = [node for node in made.network.layers if node.act and node.act.name in ("relu", "relu6", "hsigmoid")]
    wanted = {f"{node.name}.factors.{len(node.chain.factors) - 1}" for node in positive if seed % 4 != 2}
    assert {name for name in unsigned if ".factors." in name} == wanted
    if seed % 2:
        extreme = made.rng.choice([integers.input.lo, integers.input.hi], (20, *made.shape))
        for stage, acc, _ in integers.accumulators(extreme):
            assert not stage.saturated(acc).any(), stage


@SEEDS
def test_reports_and_checks_take_graphs(seed, quantised):
    made, x, integers = quantised(seed)
    rows = report(made.network, integers, x)
    assert [row.name for row in rows] == ["input", *integers.names]
    floats, ints = made.network.taps(x), integers.taps(integers.input.quantise(x))
    for row, (_, stage), wanted, q in zip(rows[1:], integers.stages, floats, ints):
        noise = np.square(wanted - stage.output.dequantise(q)).sum()
        assert row.sqnr == pytest.approx(10 * np.log10(np.square(wanted).sum() / noise)) and row.values == wanted.size
    assert check(made.network, integers, calibration=x).outputs.each.shape == (3,)


def test_relu6_ends_at_six():
    """12 times 0.5 is 6, 11 are 5.5, and 13 are cut; in a format that ends at 4, what is beyond saturates."""
    layer, x = Layer(chain=Chain([Factor([[[[0.5]]]])]), act="relu6"), np.array([[11], [12], [13], [-3]])
    for output, wanted, saturated in (
        (QFormat(9, 5), [5.5, 6, 6, 0], 0), (QFormat(9, 5, signed=False), [5.5, 6, 6, 0], 0),
        (QFormat(8, 5), [127 / 32] * 3 + [0], 3),
    ):  # fmt: skip
        own = LayerFormats(factors=(FactorFormats(weights=QFormat(4, 1), output=output),))
        integers = quantise(Network(layers=[layer]), Formats(input=QFormat(8, 0), layers=(own,)))
        assert integers.predict(x).ravel().tolist() == wanted
        ((stage, acc, _),) = integers.accumulators(x)
        assert stage.saturated(acc).sum() == saturated


def test_bits_of_nodes_hold_the_most_that_there_is():
    eight = QFormat(8, 3, signed=False)
    most = np.full((1, 4, 4, 2), eight.hi)
    for node, formats, inputs, width in (
        (Sum(window=Window(4)), (eight,), (most,), 13),
        (Max(window=Window(4)), (eight,), (most,), 9),
        (Pick(inputs=("a", "b")), (eight, QFormat(8, 5)), (most, most // 2), 11),
        (Gate(inputs=("a", "b")), (eight, eight), (most, most[:, 0, 0]), 17),
    ):
        whole = IntNode(node=node, formats=formats, output=QFormat(8, max(f.frac for f in formats)))
        acc = whole.accumulate(*inputs)
        bits = int(acc.max()).bit_length() + 1
        assert whole.acc_width == width + max(0, whole.shift > 0) and bits <= width, node


# training


@pytest.mark.parametrize("seed", range(6), ids="seed-{}".format)
def test_training_is_golden_node_by_node(seed, quantised):
    made, x, integers = quantised(seed)
    formats = formats_of(integers)
    module = QuantisedNetwork(made.network, formats, learn_ranges=seed % 3 == 0)
    x = np.concatenate([x, 5 * x])  # beyond the range, too
    for _ in range(2):  # as given, then with weights that training has moved
        golden = quantise(module.to_network(), module.formats)
        q = golden.input.quantise(x)
        assert np.array_equal(module.integers(torch.from_numpy(x)).numpy(), golden(q))
        found = module.taps(torch.from_numpy(x))
        for (name, y), node in zip(found.items(), golden.nodes):
            wanted = by_name(golden, q)[node.name]
            assert name == node.name and np.array_equal(y.long().numpy(), wanted), name
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.from_numpy(made.rng.normal(scale=0.1, size=p.shape)))
    module(torch.from_numpy(x)).square().sum().backward()
    for name, p in module.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and (seed % 2 or p.grad.any()), name


def test_the_gradient_through_a_table_is_its_slope():
    layer = Layer(chain=Chain([Factor([[[[1.0]]]])]), act="silu")
    formats = Formats(
        input=QFormat(10, 6),
        layers=(
            LayerFormats(factors=(FactorFormats(weights=QFormat(8, 6), output=QFormat(12, 8), table=QFormat(10, 6)),)),
        ),
    )
    module = QuantisedNetwork(Network(layers=[layer]), formats)
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None].requires_grad_()
    module(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    F.silu(y).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=0.2) and torch.allclose(
        module(x).detach(), F.silu(y).detach(), atol=0.02
    )


def test_batches_are_worked_through_in_slices(monkeypatch):
    """The same numbers for one slice and for many, and never more memory than a slice needs."""
    made = Made(1)
    x = made.inputs(9)
    integers = quantise(made.network, choose_formats(made.network, Settings(), x))
    q = integers.input.quantise(x)
    wanted, rows = (made.network(x), integers(q)), report(made.network, integers, x)
    monkeypatch.setattr("bfthw.graph.SLICE", 8 * 2 * made.nodes[1].room(made.network.shapes[0]))
    few, narrow = Network(made.nodes, made.shape), IntNetwork(integers.nodes, made.shape)
    assert few.batch < 9 and narrow.batch < 9
    seen = []
    monkeypatch.setattr(Max, "__call__", lambda self, x, call=Max.__call__: seen.append(len(x)) or call(self, x))
    assert np.allclose(few(x), wanted[0], rtol=1e-12) and np.array_equal(narrow(q), wanted[1])
    assert max(seen) == few.batch and sum(seen) == 18
    for a, b in zip(report(few, narrow, x), rows):
        assert a.sqnr == pytest.approx(b.sqnr) and (a.saturated, a.values, a.cause) == (b.saturated, b.values, b.cause)
    assert choose_formats(few, Settings(), x) == choose_formats(made.network, Settings(), x)
    monkeypatch.setattr("bfthw.calibrate.VALUES", 4000)
    data = Calibration(few, x)
    assert max(len(tap.ravel()) for tap in data.taps) < 4000 and np.allclose(data.wanted, wanted[0], rtol=1e-12)
    assert all(np.isclose(a.max(), b.max(), rtol=1e-12) for a, b in zip(data.taps[1:], made.network.taps(x)))


def test_a_norm_behind_an_addition_scales_it():
    """g * (conv x + skip) + s: both parts get the gain, and a residual stays one."""
    rng = np.random.default_rng(3)
    gain, shift, x = rng.uniform(1, 2, 4), rng.normal(size=4), rng.normal(size=(5, 4))
    for layer in (
        dense(4, 4, "b", add="a"), dense(4, 4, "b", add="a", add_scale=shift),
        dense(4, 4, "b", residual=True), dense(4, 4, "b", residual=True, scale=gain),
    ):  # fmt: skip
        first, after = dense(4, 4, "a", act="tanh"), behind(layer, gain, shift)
        wanted = Network(layers=[first, layer])(x) * gain + shift
        np.testing.assert_allclose(Network(layers=[first, after])(x), wanted, rtol=1e-12)
        assert after.residual == layer.residual


def test_bounds_count_what_stands_outside():
    """A map of up to 2.05 in a format that ends at 4, with 3.9 outside: 9 * 0.86 * 2.05 < 16, a corner has 23.8."""
    first = Layer(name="a", chain=Chain([Factor(np.full((1, 1, 1, 2), 0.256))]))
    window = Window(3, padding=1, outside=(3.9, 3.9))
    second = Layer(name="b", chain=Chain([Factor(np.full((1, 1, 9, 2), 0.86))]), window=window)
    integers = quantise(network := Network([first, second], (3, 3, 2)), choose_formats(network, Settings(input_frac=4)))
    for stage, acc, y in integers.accumulators(np.full((1, 3, 3, 2), integers.input.hi)):
        assert not stage.saturated(acc).any() and stage.output.dequantise(y).max() > 2
    assert stage.output.frac == integers.nodes[0].output.frac - 3


def test_what_an_activation_removes_is_no_noise():
    """Sums of up to 8 in a format that ends at 2, and as many of down to -8, which a ReLU removes."""
    layer = dense(4, 4, "a", relu=True)
    own = LayerFormats(factors=(FactorFormats(weights=QFormat(2, 0), output=QFormat(9, 7, signed=False)),))
    network, x = Network(layers=[layer]), np.random.default_rng(0).integers(-64, 64, (50, 4)) / 32
    integers = quantise(network, Formats(input=QFormat(8, 5), layers=(own,)))
    assert report(network, integers, x)[1].cause == "saturation"


@pytest.mark.parametrize("act", ["relu6", "hswish", None])
def test_own_noise_is_that_of_the_stage(act):
    """With weights, bias and inputs that are exact, all the noise there is comes from one rounding, and is no weights'."""
    layer = dense(4, 4, "a", act=act, bias=np.full(4, 0.25))
    x = np.random.default_rng(0).integers(-64, 64, (50, 4)) / 32
    network = Network(layers=[layer])
    integers = quantise(network, choose_formats(network, Settings(activation_bits=5, unsigned=True), x))
    first, row = report(network, integers, x)
    got, wanted = integers.predict(x), network(x)
    assert first.sqnr == np.inf and row.cause == "rounding"
    assert row.own == pytest.approx(row.sqnr) == 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())


def test_a_search_spends_its_bits_on_a_graph():
    rng = np.random.default_rng(5)
    conv = Chain([Factor(rng.normal(size=(1, 4, 9, 1)))])
    nodes = [
        Layer(name="conv", chain=conv, window=Window(3, padding=1), act="relu6"),
        Layer(name="mixed", chain=Chain([Factor(rng.normal(size=(1, 4, 4, 1)))]), add="conv", act="hswish"),
        Sum(name="sum", window=Window(5)),
        dense(4, 3, "last"),
    ]
    network, x = Network(nodes, (5, 5, 1)), rng.uniform(size=(20, 5, 5, 1))
    found = search(network, x, rom_bits=300)
    assert len(found.bits) == 3 and found.rom_bits <= 300 and found.sqnr >= found.uniform[1]
    prepared, formats = prepare(network, settings=found.settings, calibration=x)
    assert tuple(f.weights.width for own in formats.layers for f in own.factors) == found.bits
    assert output_sqnr(quantise(prepared, formats), x, prepared(x)) == pytest.approx(found.sqnr)
