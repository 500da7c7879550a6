"""Convolutions as factors: the weights of a convolution in the order of the window vectors that it takes."""

import numpy as np

from .chain import Factor, Indexed
from .window import Window


def spans(kernel: tuple, dilation: tuple) -> tuple:
    """(height, width) that the taps of a kernel (kh, kw) reach over, with a step between them for each axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation))


def convolution(
    weight: np.ndarray, groups: int = 1, stride: tuple = (1, 1), padding: tuple = (0, 0, 0, 0), dilation: tuple = (1, 1)
) -> tuple[Factor, Window | None]:
    """The factor and the window of weights (m, C / groups, kh, kw), as torch and ONNX have them.

    The window is None where it would change nothing. The factor is depthwise (1, 1, K, m), or (groups, m / groups,
    K * C / groups, 1), channels of a group staying together; where dilation leaves places out, its inputs are by index.
    groups must divide m.
    """
    m, q, kh, kw = weight.shape
    depthwise, taps, size = groups > 1 and q == 1 and m == groups, kh * kw, spans((kh, kw), dilation)
    window = Window(size, stride, padding, None if depthwise or groups == 1 else q)
    if window == Window(1, block=window.block):
        window = None
    rows = weight.transpose(0, 2, 3, 1)
    if size == (kh, kw):
        if depthwise:
            return Factor(rows.reshape(m, taps).T[None, None]), window
        return Factor(rows.reshape(groups, m // groups, taps * q, 1)), window
    # of the window's numbers those that the weights stand on
    reached, tap = size[0] * size[1], np.arange(kh)[:, None] * dilation[0] * size[1] + np.arange(kw) * dilation[1]
    tap = tap.reshape(-1, 1)
    if depthwise:
        index = np.arange(m)[:, None] + m * tap.T
    else:
        group = np.arange(m)[:, None] // (m // groups)
        index = group * reached * q + (tap * q + np.arange(q)).reshape(1, -1)
    return Factor(rows.reshape(m, 1, -1, 1), Indexed(index, reached * q * groups)), window
