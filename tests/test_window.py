"""Windows: every convolution is a factor on what they gather; numpy and torch alike."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d, pad

from bfthw import Chain, Factor, Layer, Max, Network, Window
from bfthw.window import Shape

torch.set_num_threads(1)  # a thread more costs more than these sizes win
SEEDS = pytest.mark.parametrize("seed", range(20), ids="seed-{}".format)


def nchw(x):
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1).numpy()


def geometry(rng):
    """(map (N, H, W, C), Window's size, stride, padding), the window inside the padded map."""
    shape = rng.integers(1, 9, 2)
    padding = rng.integers(0, 3, 4)
    most = shape + padding[:2] + padding[2:]
    size = [int(rng.integers(1, min(5, m) + 1)) for m in most]
    x = rng.normal(size=(2, *shape, int(rng.choice([2, 4, 6]))))
    return x, {"size": tuple(size), "stride": tuple(rng.integers(1, 4, 2).tolist()), "padding": tuple(padding.tolist())}


def reference(x, weights, how, groups=1):
    top, left, bottom, right = how["padding"]
    x = pad(nchw(x), (left, right, top, bottom))
    return nhwc(conv2d(x, torch.from_numpy(weights), stride=how["stride"], groups=groups))


def taps(weights, order):
    """(..., kh, kw) -> (..., K), the window's order of the taps."""
    weights = weights if order == "ky" else weights.swapaxes(-1, -2)
    return weights.reshape(*weights.shape[:-2], -1)


def result(x, how, values, **rest):
    layer = Layer(chain=Chain([Factor(values)]), window=Window(**how, **rest))
    network = Network([layer], x.shape[1:])
    y = network(x)
    assert y.shape[1:] == network.shapes[-1].dims
    return y.reshape(len(x), *network.shapes[-1])


@pytest.mark.parametrize("block", [None, 2], ids=["", "blocks"])
@pytest.mark.parametrize("order", ["ky", "kx"])
def test_whole_map(order, block):
    """One window: all positions in the order of the taps, block by block."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    y = x if order == "ky" else x.swapaxes(1, 2)
    wanted = y.reshape(2, 15, -1, block or 6).swapaxes(1, 2).reshape(2, 1, 1, -1)
    window = Window.whole(x.shape[1:], order=order, block=block)
    assert np.array_equal(window.gather(x), wanted)
    assert np.array_equal(window.gather(torch.from_numpy(x)).numpy(), wanted)


@pytest.mark.parametrize("order", ["ky", "kx"])
@SEEDS
def test_every_convolution_is_a_factor(seed, order):
    """Full, grouped, depthwise, depthwise with a multiplier, sums: 20 x 6 geometries x 2 orders."""
    rng = np.random.default_rng(seed)
    for _ in range(6):
        x, how = geometry(rng)
        c, size = x.shape[3], how["size"]
        k, say = size[0] * size[1], {"err_msg": f"{x.shape} {how}", "atol": 1e-12, "rtol": 1e-12}
        w = rng.normal(size=(3, c, *size))
        full = reference(x, w, how)
        values = taps(w, order).transpose(0, 2, 1).reshape(1, 3, k * c, 1)
        np.testing.assert_allclose(result(x, how, values, order=order), full, **say)
        values = taps(w, order).reshape(1, 3, c * k, 1)  # torch's own order of weights, blocks of one channel
        np.testing.assert_allclose(result(x, how, values, order=order, block=1), full, **say)
        g, w = 2, rng.normal(size=(4, c // 2, *size))
        values = taps(w, order).transpose(0, 2, 1).reshape(g, 2, k * c // g, 1)
        np.testing.assert_allclose(
            result(x, how, values, order=order, block=c // g), reference(x, w, how, groups=g), **say
        )
        w = rng.normal(size=(c, 1, *size))
        values = taps(w, order)[:, 0].T.reshape(1, 1, k, c)
        np.testing.assert_allclose(result(x, how, values, order=order), reference(x, w, how, groups=c), **say)
        w = rng.normal(size=(2 * c, 1, *size))
        values = taps(w, order).reshape(c, 2, k, 1)
        np.testing.assert_allclose(result(x, how, values, order=order, block=1), reference(x, w, how, groups=c), **say)
        w = np.ones((c, 1, *size))
        np.testing.assert_allclose(
            result(x, how, np.ones((1, 1, k, c)), order=order), reference(x, w, how, groups=c), **say
        )


@SEEDS
def test_outside_stands_where_a_window_leaves_the_map(seed):
    """A batch norm in front of zero padding: the padding has to hold what the norm would make zero."""
    rng = np.random.default_rng(seed)
    x, how = geometry(rng)
    c, size = x.shape[3], how["size"]
    gain, shift, w = rng.uniform(0.5, 2, c), rng.normal(size=c), rng.normal(size=(3, c, *size))
    wanted = reference(x * gain + shift, w, how)
    values = taps(w, "ky").transpose(0, 2, 1).reshape(1, 3, -1, c)
    moved = (values * gain).reshape(1, 3, -1, 1)
    bias = (values @ shift).sum(2).ravel()
    layer = Layer(chain=Chain([Factor(moved)]), window=Window(**how, outside=-shift / gain), bias=bias)
    y = Network([layer], x.shape[1:])(x).reshape(wanted.shape)
    np.testing.assert_allclose(y, wanted, atol=1e-11)


@SEEDS
def test_a_maximum_is_torchs(seed):
    rng = np.random.default_rng(seed)
    shape, size = rng.integers(2, 9, 2), rng.integers(1, 3, 2)
    p = [int(rng.integers(0, k // 2 + 1)) for k in size]
    how = {"size": tuple(size.tolist()), "stride": tuple(rng.integers(1, 4, 2).tolist()), "padding": tuple(p)}
    x = rng.normal(size=(2, *shape, 3)) - 5  # so that a zero outside would win
    wanted = nhwc(max_pool2d(nchw(x), how["size"], how["stride"], how["padding"]))
    assert np.array_equal(Network([Max(window=Window(**how))], x.shape[1:])(x).reshape(wanted.shape), wanted)


@pytest.mark.parametrize("block, order", [(None, "ky"), (None, "kx"), (1, "ky"), (2, "kx")])
def test_the_index_rule_word_by_word(block, order):
    """The formula of the module, element by element, on numpy and torch; `spread` numbers elements alike."""
    window = Window((2, 3), (2, 1), (1, 0, 0, 1), block=block, order=order, outside=(7, 8, 9, 10))
    x = np.arange(2 * 5 * 6 * 4).reshape(2, 5, 6, 4)
    found, q, k = window.gather(x), block or 4, 6
    assert found.dtype == x.dtype and found.shape == (2, *window.shape(Shape(5, 6, 4)))
    for n, v, u, e in np.ndindex(found.shape):
        g, t, j = e // q // k, e // q % k, e % q
        ky, kx = (t // 3, t % 3) if order == "ky" else (t % 2, t // 2)
        y, z, c = v * 2 - 1 + ky, u + kx, g * q + j
        assert found[n, v, u, e] == (x[n, y, z, c] if 0 <= y < 5 and 0 <= z < 6 else 7 + c)
    assert np.array_equal(window.gather(torch.from_numpy(x)).numpy(), found)
    pixel = np.arange(4)
    plain = Window((2, 3), block=block, order=order)
    assert np.array_equal(plain.spread(pixel), plain.gather(np.broadcast_to(pixel, (1, 2, 3, 4)))[0, 0, 0])


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Window(0), r"Window.size must be 2 integers of 1 or more, got 0"),
        (lambda: Window(3, stride=(1, 0)), "Window.stride must be 2 integers of 1 or more"),
        (lambda: Window(3, padding=(1, 1, 1)), "Window.padding must be 4 integers of 0 or more"),
        (lambda: Window(3, padding=-1), "Window.padding must be 4 integers of 0 or more, got -1"),
        (lambda: Window(3, block=0), "Window.block must be a positive number of channels or None, got 0"),
        (lambda: Window(3, order="xy"), "Window.order must be 'ky' or 'kx', got 'xy'"),
        (lambda: Window(3, outside=1), "Window.outside must be 0 or a number for each channel, got 1"),
        (lambda: Window(3, outside=(1, np.nan)), "Window.outside must be 0 or a finite number for each channel"),
        (lambda: Window(3, outside="0"), "Window.outside must be 0 or a finite number"),
        (
            lambda: Window(5).shape(Shape(4, 9, 1)),
            "in height a window of 5 does not fit into 4 with 0 of padding; one of 4",
        ),
        (
            lambda: Window(5, padding=(9, 0)).shape(Shape(1, 2, 1)),
            "in width .* one of 2 at most would, or 3 of padding",
        ),
        (
            lambda: Window(1, block=4).shape(Shape(1, 1, 6)),
            "in channels a block of 4 does not divide 6; one of 2 would",
        ),
        (lambda: Window(1, outside=(1, 2)).shape(Shape(1, 1, 3)), "Window.outside has 2 numbers, the map 3 channels"),
        (lambda: Shape.of((1, 2)), r"a shape is \(height, width, channels\), positive integers, got \(1, 2\)"),
        (lambda: Shape.of((1, 2, 0.5)), "a shape is .* positive integers"),
    ],
)
def test_wrong_windows_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
