"""Train a 28x28 network with butterflies on the complete Fashion-MNIST, in floats and then in its integers.

    python examples/fashion/train.py
    python examples/fashion/train.py --network inverted

The same command goes on where a stopped run was, after its last whole epoch. docs/images.md has the figures.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from data import FOLDER, load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from images import train

from bfthw import Settings, models

# 9 bits between layers, without a sign behind a ReLU, and inside chains; a row of weights may be finer by 4 bits
SETTINGS = Settings(weight_bits=8, activation_bits=9, input_bits=8, row_exponents=4, equalise=False)
NETWORKS = {"row": partial(models.net_c, residual="square"), "inverted": models.inverted28}


def main(
    network: Annotated[str, typer.Option(help="row, or inverted: inverted residuals, as in MobileNetV2")] = "row",
    data: Annotated[Path, typer.Option(help="Folder of the four IDX files")] = FOLDER,
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    fine_epochs: Annotated[int, typer.Option(min=1, help="Epochs with rounding")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for what is trained; build/NAME, without")] = None,
):
    if network not in NETWORKS:
        raise typer.BadParameter(f"network is one of {', '.join(NETWORKS)}, got {network}")
    name = "fashion" if network == "row" else network
    first = {"epochs": epochs, "batch": 128, "rate": 0.01, "jitter": {"flip": True}, "plain": max(1, epochs // 5)}
    fine = {"epochs": fine_epochs, "batch": 64, "rate": 3e-4, "jitter": {}, "plain": fine_epochs}
    given = {"seed": seed, "out": out or Path("build") / name, "first": first, "fine": fine}
    train(name, NETWORKS[network](seed=seed), SETTINGS, partial(load, folder=data), **given)


if __name__ == "__main__":
    typer.run(main)
