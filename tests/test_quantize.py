"""From floats to integers: formats, the error they cost, the report."""

from dataclasses import replace

import numpy as np
import pytest

from bfthw import Chain, Factor, Layer, Network, QFormat, Settings, chain, compile, report
from bfthw.network import equalise
from bfthw.quantize import FactorFormats, Formats, LayerFormats, choose_formats, prepare, quantise, row_exponents

seeds = pytest.mark.parametrize("seed", range(12), ids="seed-{}".format)


def random_network(seed, widths=(16, 16, 12)):
    """Layers with every part present or absent by chance, weights of very different size."""
    rng, layers = np.random.default_rng(seed), []
    for i, (n, m) in enumerate(zip(widths, widths[1:])):
        shape = (
            chain.mixed_radix(tuple(rng.permutation([4, 2, 2]).tolist())) if n == m == 16 else chain.monarch(m, n, 4)
        )
        factors = [Factor(f.values * rng.gamma(0.5, 1, f.values.shape)) for f in Chain.random(shape, seed + i).factors]
        layers.append(
            Layer(
                chain=Chain(factors),
                residual=n == m and bool(rng.integers(2)),
                scale=rng.normal(size=m) if rng.integers(2) else None,
                bias=rng.normal(size=m) if rng.integers(2) else None,
                relu=bool(rng.integers(2)),
                name=f"layer.{i}",
            )
        )
    return Network(layers=layers)


def random_settings(seed):
    rng = np.random.default_rng(seed + 500)
    return Settings(
        weight_bits=int(rng.integers(3, 13)),
        activation_bits=int(rng.integers(5, 15)),
        input_bits=int(rng.integers(3, 11)),
        row_exponents=int(rng.integers(0, 5)),
    )


def worst_inputs(integers, seed):
    """Extremes by chance, and for each output the inputs that reach its largest and smallest linear value."""
    rng, fmt = np.random.default_rng(seed), integers.input
    matrix = np.eye(integers.inputs)
    for factor in integers.factors:
        matrix = chain.apply(factor.values.astype(float), matrix)
    signs = np.where(matrix.T > 0, fmt.hi, fmt.lo)
    corners = rng.choice([fmt.lo, fmt.hi], (200, integers.inputs))
    return np.concatenate(
        [signs, fmt.hi + fmt.lo - signs, corners, [[fmt.lo] * integers.inputs, [fmt.hi] * integers.inputs]]
    )


@seeds
def test_formats_without_calibration_never_overflow(seed):
    network = random_network(seed)
    integers = compile(network, settings=random_settings(seed))
    for factor, acc, _ in integers.accumulators(worst_inputs(integers, seed)):
        assert not factor.saturated(acc).any()


@seeds
def test_formats_without_calibration_are_the_finest(seed):
    # with one factor the bounds are exact: one more fraction bit saturates the worst input
    network = Network(layers=[Layer(chain=Chain.random([(2, 3, 4, 2)], seed))])
    settings = random_settings(seed)
    formats = choose_formats(network, settings)
    integers = quantise(network, formats)
    worst = worst_inputs(integers, seed)
    assert not any(f.saturated(acc).any() for f, acc, _ in integers.accumulators(worst))
    own = formats.layers[0].factors[0]
    finer = replace(own, output=QFormat(own.output.width, own.output.frac + 1))
    integers = quantise(network, replace(formats, layers=(LayerFormats(factors=(finer,)),)))
    assert any(f.saturated(acc).any() for f, acc, _ in integers.accumulators(worst))


@seeds
def test_input_residual_and_bias_cannot_overflow_together(seed):
    rng = np.random.default_rng(seed)
    layer = Layer(
        chain=Chain.random(chain.dense(4, 4), seed), residual=True, scale=rng.normal(size=4), bias=rng.normal(size=4)
    )
    integers = compile(Network(layers=[layer]))
    (factor,), fmt = integers.factors, integers.input
    matrix = factor.values[0, :, :, 0] << factor.dot_shift
    matrix = matrix + np.diag(factor.skip << factor.skip_shift)
    high = np.where(matrix > 0, fmt.hi, fmt.lo)
    for x in (high, fmt.hi + fmt.lo - high):
        assert not factor.saturated(factor.accumulate(x, x)).any()


@seeds
def test_error_against_float_stays_in_its_bound(seed):
    """Interval arithmetic from the formats alone: weights are off by half a step, so is each rounding."""
    network, settings = random_network(seed), random_settings(seed)
    rng = np.random.default_rng(seed)
    formats = choose_formats(network, settings)
    integers = quantise(network, formats)
    x = rng.uniform(-0.99, 0.99, (64, network.inputs))
    x = x[:, :] * (1 - 2.0 ** -(formats.input.width - 1))  # nothing saturates at the input
    got = integers.taps(integers.input.quantise(x))
    size, error = np.abs(x), np.full_like(x, 2.0 ** -(formats.input.frac + 1))
    wanted, stage = network.taps(x), 0
    for layer, own in zip(network.layers, formats.layers):
        size0, error0 = size, error
        for m, (factor, f) in enumerate(zip(layer.scaled, own.factors)):
            step = 2.0 ** -(f.weights.frac + 1)
            absolute, ones = np.abs(factor.values), np.ones_like(factor.values)
            # |w x - w' x'| <= |w| e_x + e_w (|x| + e_x)
            error = chain.apply(absolute, error) + step * chain.apply(ones, size + error)
            if m == len(layer.scaled) - 1:
                if layer.residual:
                    s = np.ones(factor.pattern.outputs) if layer.scale is None else np.abs(layer.scale)
                    e = 0 if own.skip is None else 2.0 ** -(own.skip.frac + 1)
                    error = error + s * error0 + e * (size0 + error0)
                if layer.bias is not None:
                    error = error + 2.0 ** -(integers.factors[stage].acc_frac + 1)
            error = error + 2.0 ** -(f.output.frac + 1)
            size = np.abs(wanted[stage])
            off = np.abs(f.output.dequantise(got[stage]) - wanted[stage])
            assert np.all(off <= error * (1 + 1e-12)), f"stage {stage}"
            stage += 1


@seeds
def test_to_dict_and_back(seed):
    formats = choose_formats(random_network(seed), random_settings(seed))
    assert Formats.from_dict(formats.to_dict()) == formats


def test_quantise_repeats_the_same_integers():
    network = random_network(3)
    formats = choose_formats(network, Settings(row_exponents=2))
    first, second = quantise(network, formats), quantise(network, Formats.from_dict(formats.to_dict()))
    for a, b in zip(first.factors, second.factors):
        assert np.array_equal(a.values, b.values) and (a.output, a.acc_frac) == (b.output, b.acc_frac)


def good():
    return choose_formats(random_network(1), Settings()).to_dict()


def changed(path, value):
    table = target = good()
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return table


@pytest.mark.parametrize(
    "table",
    [
        None,
        [],
        {},
        {"input": [8, 7]},
        changed(["input"], None),
        changed(["input"], [8]),
        changed(["input"], [8.0, 7]),
        changed(["input"], [8, True]),
        changed(["input"], [63, 7]),
        changed(["input"], "87"),
        changed(["layers"], None),
        changed(["layers"], "ab"),
        changed(["layers", 0, "factors"], 3),
        changed(["layers", 0, "factors", 0, "rows"], 10**9),
        changed(["layers", 0, "factors", 0, "rows"], float("inf")),
        changed(["layers", 0, "factors", 0, "rows"], "1"),
        changed(["layers", 0, "factors", 0, "weights"], {"8": 7}),
        changed(["layers", 0, "extra"], 1),
        changed(["extra"], 1),
    ],
    ids=lambda t: repr(t)[:40],
)
def test_malformed_formats(table):
    with pytest.raises(ValueError, match="formats are malformed|FactorFormats.rows"):
        Formats.from_dict(table)


def test_formats_must_fit_the_network():
    network = Network(layers=[Layer(chain=Chain.random(chain.bft(16), 0), residual=True, scale=np.ones(16), name="a")])
    formats = choose_formats(network)
    own = formats.layers[0]
    for layers, text in (
        ((), "formats for 0 layers, the network has 1"),
        ((replace(own, factors=own.factors[:1]),), "formats for 1 factors, layer 'a' has 2"),
        ((replace(own, skip=None),), "layer 'a': skip is missing"),
        ((replace(own, bias_width=4),), "layer 'a': bias_width has no use here"),
    ):
        with pytest.raises(ValueError, match=text):
            quantise(network, replace(formats, layers=layers))


@pytest.mark.parametrize("size", [1e-25, 1e-9, 1.0, 1e9, 1e25], ids=str)
def test_weights_of_any_size(size):
    network = Network(layers=[Layer(chain=Chain([Factor(np.full((1, 2, 2, 1), size))]))])
    integers = compile(network)
    np.testing.assert_allclose(integers.predict([[0.5, 0.25]]), np.full((1, 2), 0.75 * size), rtol=0.01)


def test_weights_beyond_their_format_saturate():
    network = Network(layers=[Layer(chain=Chain([Factor([[[[100.0]], [[-100.0]]]])]))])
    formats = Formats(
        input=QFormat(8, 7),
        layers=(LayerFormats(factors=(FactorFormats(weights=QFormat(4, 0), output=QFormat(8, 4)),)),),
    )
    assert quantise(network, formats).factors[0].values.ravel().tolist() == [7, -8]


def test_row_exponents_use_the_whole_format():
    values = np.array([[[[1.0], [0.3]], [[0.2], [0.1]], [[0.001], [0.0]]]])  # (1, 3, 2, 1)
    weights = QFormat(8, 6)
    assert row_exponents(values, weights, 4).ravel().tolist() == [0, 3, 4]
    assert row_exponents(values, weights, 0) is None
    plain = Network(layers=[Layer(chain=Chain([Factor(values)]))])
    finer = compile(plain, settings=Settings(row_exponents=4)).factors[0]
    assert finer.exponents.ravel().tolist() == [0, 3, 4]
    np.testing.assert_array_equal(finer.values, weights.quantise(values * np.exp2(finer.exponents)[:, :, None, :]))


def test_calibration_sets_the_formats():
    network = Network(layers=[Layer(chain=Chain([Factor(np.ones((1, 1, 2, 1)))]))])
    x = np.array([[3.0, 3.0], [-1.0, 0.5]])
    formats = choose_formats(network, Settings(percentile=100.0), x)
    assert formats.input == QFormat(8, 5)  # 3.0 needs 2 bits before the point
    assert formats.layers[0].factors[0].output == QFormat(10, 6)  # 6.0 needs 3
    mirrored = choose_formats(network, Settings(percentile=100.0), -x)
    assert (mirrored.input, mirrored.layers[0].factors[0].output) == (QFormat(8, 5), QFormat(10, 6))
    fixed = choose_formats(network, Settings(percentile=100.0, input_frac=2), x)
    assert fixed.input == QFormat(8, 2)
    # an outlier that the percentile leaves out does not cost a bit
    many = np.concatenate([np.full((999, 2), 0.9), [[100.0, 0.0]]])
    assert choose_formats(network, Settings(percentile=99.0), many).input == QFormat(8, 7)


def test_settings_of_one_layer():
    network = random_network(0)
    settings = Settings(
        weight_bits=6, layers={"layer.1": {"weight_bits": 11, "activation_bits": 13, "row_exponents": 2}}
    )
    first, second = choose_formats(network, settings).layers
    assert {f.weights.width for f in first.factors} == {6} and {f.weights.width for f in second.factors} == {11}
    assert {f.output.width for f in second.factors} == {13} and {f.rows for f in second.factors} == {2}
    with pytest.raises(ValueError, match="no layer 'nine'; its layers are 'layer.0', 'layer.1'"):
        choose_formats(network, Settings(layers={"nine": {}}))


@pytest.mark.parametrize(
    "x, kind, text",
    [
        (np.zeros((3, 5)), ValueError, r"calibration data must have shape \(N, 16\), got \(3, 5\)"),
        (np.zeros(16), ValueError, "must have shape"),
        (np.zeros((0, 16)), ValueError, "must have shape"),
        (np.full((1, 16), np.nan), ValueError, "calibration data must be finite"),
        (np.zeros((1, 16), complex), TypeError, "calibration data must be real numbers"),
    ],
    ids=["width", "1-D", "empty", "nan", "complex"],
)
def test_calibration_refused(x, kind, text):
    with pytest.raises(kind, match=text):
        choose_formats(random_network(0), Settings(), x)


def test_prepare_prefers_given_then_trained_then_chosen():
    network = random_network(2)
    trained, given = choose_formats(network, Settings(weight_bits=5)), choose_formats(network, Settings(weight_bits=6))
    network = replace(network, formats=trained)
    assert prepare(network) == (network, trained)
    assert prepare(network, formats=given, settings=Settings()) == (network, given)
    assert prepare(network, settings=Settings())[1] == choose_formats(network, Settings())
    even, formats = prepare(network, settings=Settings(equalise=True))
    assert even is not network and formats == choose_formats(equalise(network), Settings())


def test_equalise_is_taken_where_it_helps():
    # a middle value far smaller than the others: lost without equalisation
    first, second = np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1))
    first[0, 0] *= 2.0**-8
    second[0, :, 0] *= 2.0**8
    network = Network(layers=[Layer(chain=Chain([Factor(first), Factor(second)]))])
    x = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    chosen, _ = prepare(network, calibration=x)
    assert chosen is not network
    even = Network(layers=[Layer(chain=Chain.random(chain.dense(2, 2), 0))])  # one factor: nothing to equalise
    rows = [
        report(*(lambda n, f: (n, quantise(n, f)))(*prepare(n, calibration=x)), x)[-1].sqnr for n in (network, even)
    ]
    assert min(rows) > 25
    off = prepare(network, settings=Settings(equalise=False), calibration=x)
    assert off[0] is network and report(network, quantise(*off), x)[-1].sqnr < rows[0] - 10


def test_report_counts_and_measures():
    network = Network(layers=[Layer(chain=Chain([Factor([[[[2.0]]]])]))])
    formats = Formats(
        input=QFormat(4, 2),
        layers=(LayerFormats(factors=(FactorFormats(weights=QFormat(4, 0), output=QFormat(4, 1)),)),),
    )
    x = np.array([[0.25], [-5.0], [1.6], [2.0]])  # -5 and 2 clip to -2 and 1.75, 1.6 becomes 1.5
    first, last = report(network, quantise(network, formats), x)
    assert (first.name, first.factor, first.saturated, first.values, first.peak) == ("input", None, 2, 4, 5.0)
    assert first.sqnr == pytest.approx(10 * np.log10((x**2).sum() / (9 + 0.01 + 0.25**2)))
    assert (last.name, last.saturated, last.peak) == ("0.factors.0", 0, 10.0)
    formats = replace(
        formats, layers=(LayerFormats(factors=(replace(formats.layers[0].factors[0], output=QFormat(4, 2)),)),)
    )
    assert report(network, quantise(network, formats), x)[-1].saturated == 3
    assert report(network, quantise(network, formats), np.zeros((1, 1)))[-1].sqnr == np.inf
