"""Train a small PointNet of butterflies, both T-nets in it, on clouds made on the spot, then in its integers.

    python examples/shapes/train.py

The same command goes on where a stopped run was, after its last whole epoch. docs/shapes.md has the figures.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from data import CLASSES, POINTS, load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from images import train

from bfthw import Settings, models

SETTINGS = Settings(weight_bits=8, activation_bits=9, input_bits=8, row_exponents=4, equalise=False)


def main(
    epochs: Annotated[int, typer.Option(min=1)] = 16,
    fine_epochs: Annotated[int, typer.Option(min=1, help="Epochs with rounding")] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder for what is trained")] = Path("build/shapes"),
):
    network = models.model(
        "pointnet", width=0.25, resolution=POINTS, classes=len(CLASSES), fusion="bft", residual="square", seed=seed
    )
    first = {"epochs": epochs, "batch": 64, "rate": 0.01, "jitter": {}, "plain": epochs}
    fine = {"epochs": fine_epochs, "batch": 64, "rate": 3e-4, "jitter": {}, "plain": fine_epochs}
    train("shapes", network, SETTINGS, load, seed=seed, out=out, first=first, fine=fine)


if __name__ == "__main__":
    typer.run(main)
