"""Train a butterfly network on handwritten digits, quantise it, fine-tune it at its formats, save it.

    python examples/digits/train.py               train on all training images, score on the held-out ones, save
    python examples/digits/train.py --validate    train on 4/5 of the training images, score on the rest, save nothing

The hyper-parameters below were chosen with --validate alone (all five folds), never on the held-out images.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from data import INPUT, load
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

from bfthw import Settings, compile
from bfthw.checkpoint import save
from bfthw.nn import Butterfly, parameter_groups, to_network
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import prepare

SETTINGS = Settings(weight_bits=8, activation_bits=10, input_bits=INPUT.width, input_frac=INPUT.frac, percentile=100.0)
BATCH, SMOOTHING, DECAY = 32, 0.1, 0.001
ROTATION, SCALING, SHIFT = 8.0, 0.05, 0.5  # at most: degrees, share, pixels
FLOAT_RATE, FINE_RATE = 0.01, 0.001


@dataclass(frozen=True, kw_only=True)
class Result:
    """network: the fine-tuned float Network with its formats. The rest: accuracies on the scored images, 0 to 1."""

    network: object
    float_before: float
    integer_before: float
    float_after: float
    integer_after: float


def model():
    """64 -> BFT(64, k = 4) with residual, batch norm, ReLU -> 10 classes: 768 + 640 weights."""
    return nn.Sequential(
        OrderedDict(body=Butterfly(64), norm=nn.BatchNorm1d(64), relu=nn.ReLU(), head=nn.Linear(64, 10))
    )


def jitter(x, generator):
    """(N, 64) images, each rotated, scaled, sheared and shifted a little, with bilinear interpolation."""

    def uniform(*size):
        return torch.rand(*size, generator=generator) * 2 - 1

    n = len(x)
    angle = uniform(n) * np.deg2rad(ROTATION)
    stretch, shift = 1 + uniform(2, n) * SCALING, uniform(2, n) * SHIFT / 4  # the grid runs from -1 to 1 in 8 pixels
    sin, cos = torch.sin(angle), torch.cos(angle)
    maps = torch.stack([cos * stretch[0], -sin * stretch[0], shift[0], sin * stretch[1], cos * stretch[1], shift[1]], 1)
    grid = functional.affine_grid(maps.reshape(n, 2, 3), (n, 1, 8, 8), align_corners=False)
    return functional.grid_sample(x.reshape(n, 1, 8, 8), grid, align_corners=False).reshape(n, 64)


def fit(module, x, y, *, epochs, rate, seed, console, task):
    """AdamW with one cycle of the learning rate; factors are exempt from weight decay."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(parameter_groups(module, DECAY), lr=rate)
    batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches)
    for _ in track(range(epochs), description=f"{task:<12}", console=console):
        order = torch.randperm(len(x), generator=generator)
        for rows in order[: batches * BATCH].reshape(batches, BATCH):
            optimiser.zero_grad()
            logits = module(jitter(x[rows], generator))
            functional.cross_entropy(logits, y[rows], label_smoothing=SMOOTHING).backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def accuracies(network, x, y, **how):
    """(float, integer) accuracy of a Network."""
    integers = compile(network, **how)
    return float(np.mean(network(x).argmax(axis=1) == y)), float(np.mean(integers.classify(x) == y))


def train(x, y, x_score, y_score, *, seed=0, epochs=100, fine_epochs=30, console=None):
    """Train on (x, y), all of it; score on (x_score, y_score). The same numbers for the same seed on one machine."""
    console = console or Console(quiet=True)
    torch.manual_seed(seed)
    images, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    rest = {"seed": seed, "console": console}
    network = to_network(fit(model(), images, labels, epochs=epochs, rate=FLOAT_RATE, task="float", **rest))
    network, formats = prepare(network, settings=SETTINGS, calibration=x)
    before = accuracies(network, x_score, y_score, formats=formats)
    fine = QuantisedNetwork(network, formats)
    network = fit(fine, images, labels, epochs=fine_epochs, rate=FINE_RATE, task="at 8 bits", **rest).to_network()
    after = accuracies(network, x_score, y_score)
    return Result(
        network=network,
        float_before=before[0],
        integer_before=before[1],
        float_after=after[0],
        integer_after=after[1],
    )


def show(result, count, console):
    for text, value in (
        ("float, as trained", result.float_before),
        ("integers, formats from calibration", result.integer_before),
        ("float, fine-tuned", result.float_after),
        ("integers, fine-tuned", result.integer_after),
    ):
        console.print(f"{text:<36}{100 * value:6.2f} % of {count} images")


def main(
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")] = Path(__file__).with_name("digits.safetensors"),
    seed: int = 0,
    validate: Annotated[bool, typer.Option("--validate", help="Five folds of training images; no file.")] = False,
):
    console = Console()
    torch.set_num_threads(1)  # layers this small only lose by threads, and sums keep their order
    x, y, x_test, y_test = load()
    if not validate:
        result = train(x, y, x_test, y_test, seed=seed, console=console)
        show(result, len(y_test), console)
        save(result.network, out)
        console.print(f"saved {out}")
        return
    results = []
    for fold in range(5):
        mine = np.arange(len(y)) % 5 == fold
        results.append(train(x[~mine], y[~mine], x[mine], y[mine], seed=seed, console=console))
        show(results[-1], mine.sum(), console)
    for name in ("float_before", "integer_before", "float_after", "integer_after"):
        console.print(f"mean {name:<15} {100 * np.mean([getattr(r, name) for r in results]):6.2f} %")


if __name__ == "__main__":
    typer.run(main)
