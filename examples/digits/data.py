"""The handwritten digits that scikit-learn brings along, split into training and held-out images. Needs no torch."""

import numpy as np
from sklearn.datasets import load_digits

from bfthw import QFormat

# Pixels are sixteenths: 0, 1/16 .. 1, every one of them exact in this format.
INPUT = QFormat(8, 6)


def load():
    """(x_train, y_train, x_test, y_test): 1442 and 355 real 8x8 images.

    x: float64 (N, 64), row by row, 0 (paper) to 1 (ink). y: int64 (N,), 0 to 9. Held out is every fifth image of each
    digit in the data set's own order, so the split needs no random numbers and is the same everywhere.
    """
    digits = load_digits()
    x, y = digits.data / 16, digits.target.astype(np.int64)
    held_out = np.zeros(len(y), bool)
    for digit in range(10):
        held_out[np.flatnonzero(y == digit)[4::5]] = True
    return x[~held_out], y[~held_out], x[held_out], y[held_out]
