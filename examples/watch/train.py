"""Train one-dimensional networks for exercises that a smart watch sees, cyclic, butterfly and dense, and compare them.

    python examples/watch/train.py

Of each structure three seeds; of as many weights, so of as many multiplications too, as each weight of these layers is
used at every step. A stopped run goes on with the same command.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from data import load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from images import train

from bfthw import Settings, files, models

SETTINGS = Settings(weight_bits=8, activation_bits=8, input_bits=8, equalise=False)
# channels with which each has some 5,600 weights
WIDTHS = {"csc": 64, "bft": 64, "dense": 35}


def network(structure, seed=0):
    return models.csc1d(width=WIDTHS[structure], fusion=structure, seed=seed)


def main(
    data: Annotated[Path | None, typer.Option(help="watch_dataset.npy; without, that of an installed seglearn")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 16,
    fine_epochs: Annotated[int, typer.Option(min=1, help="Epochs with rounding")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each structure")] = 3,
    structure: Annotated[list[str], typer.Option(help="csc, bft, dense; all, without")] = [*WIDTHS],
    out: Annotated[Path, typer.Option(help="Folder for what is trained")] = Path("build/watch"),
):
    if unknown := {*structure} - {*WIDTHS}:
        raise typer.BadParameter(f"structure is one of {', '.join(WIDTHS)}, got {', '.join(sorted(unknown))}")
    found = out / "results.json"
    for seed in range(seeds):
        for name in structure:
            results = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
            if f"{name}-{seed}" in results:
                continue
            own = network(name, seed)
            first = {"epochs": epochs, "batch": 64, "rate": 0.01, "jitter": {}, "plain": epochs}
            fine = {"epochs": fine_epochs, "batch": 64, "rate": 3e-4, "jitter": {}, "plain": fine_epochs}
            given = {"seed": seed, "out": out / f"{name}-{seed}", "first": first, "fine": fine}
            floats, integers = train(name, own, SETTINGS, partial(load, path=data), **given, eps=1e-3)
            weights = sum(layer.weights for layer in own.layers)
            results[f"{name}-{seed}"] = {"weights": weights, "float": round(floats, 2), "integers": round(integers, 2)}
            files.write(found, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
