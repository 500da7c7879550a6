"""From a dense network to a butterfly of integers: project, distil, train at the formats, save.

    python examples/digits/distill.py                   five seeds; files of the first in the current folder
    python examples/digits/distill.py --folder DIR      or there
    python examples/digits/distill.py --plot FILE.svg   draws the accuracies too (docs/projection.md)
    python examples/digits/distill.py --quick           a few epochs of one seed, to see it run

Images and split are those of train.py, and so are learning rates, smoothing and decay; nothing here was tuned on the
held-out images.
"""

from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from data import load
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn
from torch.nn import functional
from train import BATCH, DECAY, FINE_RATE, FLOAT_RATE, SETTINGS, SMOOTHING, jitter

from bfthw import compile
from bfthw.chain import bft
from bfthw.checkpoint import save
from bfthw.nn import Butterfly, parameter_groups, to_network
from bfthw.project import project
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import prepare
from bfthw.storage import write_array

N, CLASSES, CHAIN = 64, 10, bft(64, 4)
TEMPERATURE, SHARE = 2.0, 0.5  # of distillation: softness of the answers, share of the dense network's in the loss

STEPS = {
    "dense": "dense, trained",
    "nearest": "nearest weights",
    "outputs": "nearest outputs",
    "nearest, distilled": "  nearest weights, distilled",
    "outputs, distilled": "  nearest outputs, distilled",
    "random, distilled": "  random start, distilled",
    "random, labels": "  random start, labels alone",
    "integers": "nearest outputs, as integers",
    "integers, trained": "  integers, fine-tuned",
}
CURVES = "nearest, distilled", "outputs, distilled", "random, distilled", "random, labels"


def model(layer):
    """64 -> 64 -> 64 -> 10 with batch norms and ReLUs; `layer` makes the two square ones."""
    parts = {}
    for n in range(2):
        parts |= {f"body{n}": layer(), f"norm{n}": nn.BatchNorm1d(N), f"relu{n}": nn.ReLU()}
    return nn.Sequential(OrderedDict(parts, head=nn.Linear(N, CLASSES)))


def projected(dense, images):
    """A copy of the dense model, its square layers replaced by chains; images: what is to stay, None for the weights.

    Returns (model, [relative error of each layer]).
    """
    result, errors, x = deepcopy(dense).eval(), [], images
    for name, module in dense.eval().named_children():
        if name.startswith("body"):
            matrix = module.weight.detach().double().numpy()
            # the plain ends of the range: the SVD alone, and the outputs alone, which 1442 images show well enough
            how = {"sweeps": 0} if x is None else {"inputs": x.numpy(), "ridge": 0}
            chain, error = project(matrix, CHAIN, **how)
            butterfly = Butterfly(CHAIN, residual=False)
            butterfly.load_state_dict(
                {f"factors.{m}": torch.tensor(factor.values) for m, factor in enumerate(chain.factors)}, strict=False
            )
            setattr(result, name, butterfly)
            errors.append(error)
        if x is not None:
            with torch.no_grad():
                x = module(x)
    return result, errors


def distilled(logits, labels, teacher):
    """Cross entropy with the labels and, softened, with the dense network's answers (Hinton et al., 2015)."""
    hard = functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    if teacher is None:
        return hard
    soft = functional.cross_entropy(logits / TEMPERATURE, (teacher / TEMPERATURE).softmax(1))
    return (1 - SHARE) * hard + SHARE * TEMPERATURE**2 * soft


def fit(module, x, y, *, epochs, rate, seed, teacher=None, score=None, step=lambda: None):
    """AdamW with one cycle of the learning rate, as in train.py. Returns `score` of it, before and after each epoch."""
    generator, found = torch.Generator().manual_seed(seed), [score(module.eval())] if score else []
    optimiser = torch.optim.AdamW(parameter_groups(module, DECAY), lr=rate)
    batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches)
    for _ in range(epochs):
        module.train()
        for rows in torch.randperm(len(x), generator=generator)[: batches * BATCH].reshape(batches, BATCH):
            images = jitter(x[rows], generator)
            with torch.no_grad():
                answers = None if teacher is None else teacher(images)
            optimiser.zero_grad()
            distilled(module(images), y[rows], answers).backward()
            optimiser.step()
            schedule.step()
        step()
        if score:
            found.append(score(module.eval()))
    module.eval()
    return found


def train(images, *, seed, dense_epochs, epochs, fine_epochs, step=lambda: None):
    """All steps for one seed.

    Returns ({step: accuracy 0 to 1}, {step: [accuracy by epoch]}, [errors], dense network, network with formats).
    """
    x, y, x_score, y_score = (torch.tensor(part, dtype=None if part.ndim == 1 else torch.float32) for part in images)

    def accuracy(module):
        with torch.no_grad():
            return float((module(x_score).argmax(1) == y_score).double().mean())

    torch.manual_seed(seed)
    dense = model(lambda: nn.Linear(N, N, bias=False))
    fit(dense, x, y, epochs=dense_epochs, rate=FLOAT_RATE, seed=seed, step=step)
    nearest, of_weights = projected(dense, None)
    outputs, of_outputs = projected(dense, x)
    accuracies = {"dense": accuracy(dense), "nearest": accuracy(nearest), "outputs": accuracy(outputs)}

    random = model(lambda: Butterfly(CHAIN, residual=False))
    students = dict(zip(CURVES, (nearest, outputs, random, deepcopy(random))))
    curves, how = {}, {"epochs": epochs, "rate": FLOAT_RATE, "seed": seed, "score": accuracy, "step": step}
    for name, student in students.items():
        curves[name] = fit(student, x, y, teacher=None if name == "random, labels" else dense, **how)
        accuracies[name] = accuracy(student)

    network, formats = prepare(to_network(outputs), settings=SETTINGS, calibration=images[0])
    correct = compile(network, formats=formats).classify(images[2]) == images[3]
    accuracies["integers"] = float(correct.mean())
    fine = QuantisedNetwork(network, formats)
    fit(fine, x, y, epochs=fine_epochs, rate=FINE_RATE, seed=seed, teacher=dense, step=step)
    network = fine.to_network()
    accuracies["integers, trained"] = float((compile(network).classify(images[2]) == images[3]).mean())
    return accuracies, curves, [of_weights, of_outputs], to_network(dense), network


def show(results, count, console):
    """The table of means and spreads."""
    large, small = 2 * N * N + N * CLASSES, 2 * sum(p.weights for p in CHAIN) + N * CLASSES
    table = Table("step", *map(lambda h: f"{h:>8}", ("weights", "mean %", "lowest", "highest")))
    for key, text in STEPS.items():
        found = [100 * result[0][key] for result in results]
        weights = large if key == "dense" else small
        table.add_row(text, f"{weights:8}", *(f"{v:8.2f}" for v in (np.mean(found), min(found), max(found))))
    console.print(table)
    console.print(f"accuracy on {count} held-out images, seeds 0 to {len(results) - 1}")
    errors = np.mean([result[2] for result in results], axis=0)
    console.print("relative error of the two projected layers, mean over the seeds")
    for text, row in zip(("nearest weights, of the weights", "nearest outputs, of the outputs"), errors):
        console.print(f"  {text}: {row[0]:.3f} and {row[1]:.3f}")


def plot(results, path):
    """Accuracy by epoch for every start, mean and range over the seeds, with the dense network's as a line."""
    from bfthw import plots

    figure, (whole, close) = plots.pyplot().subplots(1, 2, figsize=(9, 3.6))
    for colour, key in zip(("#c98a1b", "#2d74b5", "#7d4bab", "#888888"), CURVES):
        curves = 100 * np.array([result[1][key] for result in results])
        epochs = np.arange(curves.shape[1])
        for axes in (whole, close):
            axes.plot(epochs, curves.mean(axis=0), "o-", ms=2.5, color=colour, label=STEPS[key].strip())
            axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, lw=0)
    dense = 100 * np.mean([result[0]["dense"] for result in results])
    for axes in (whole, close):
        axes.axhline(dense, color="#222222", lw=1, ls="--", label="dense network")
        axes.set(xlabel="epochs of training after the projection", ylabel="% of held-out images")
    close.set_ylim(90, 100)
    whole.legend(fontsize=7, loc="lower right")
    plots.save(figure, path)


def main(
    folder: Annotated[Path, typer.Option(help="Where to write both networks and the training images.")] = Path("."),
    seeds: Annotated[int, typer.Option(min=1, help="How many; 0, 1, ...")] = 5,
    dense_epochs: Annotated[int, typer.Option(min=1, help="Of the dense network.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, help="Of each butterfly.")] = 15,
    fine_epochs: Annotated[int, typer.Option(min=1, help="At the integers' formats.")] = 8,
    drawing: Annotated[Path, typer.Option("--plot", metavar="FILE.svg", help="Draw the accuracies.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, 3 epochs and 1.")] = False,
):
    console = Console()
    if drawing is not None:
        from bfthw import plots

        plots.check_path(drawing)
        plots.pyplot()  # says now what is missing
    torch.set_num_threads(1)  # layers this small only lose by threads, and sums keep their order
    if quick:
        seeds, dense_epochs, epochs, fine_epochs = 1, 3, 3, 1
    how = {"dense_epochs": dense_epochs, "epochs": epochs, "fine_epochs": fine_epochs}
    images, results = load(), []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("training", total=seeds * (dense_epochs + len(CURVES) * epochs + fine_epochs))
        for seed in range(seeds):
            results.append(train(images, seed=seed, step=lambda: bar.advance(task), **how))
    show(results, len(images[3]), console)
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"digits-{name}" for name in ("dense.safetensors", "distilled.safetensors", "images.npy")]
    save(results[0][-2], names[0])
    save(results[0][-1], names[1])
    write_array(names[2], images[0])
    console.print(f"saved {', '.join(map(str, names))}", soft_wrap=True)
    console.print(f"next: bfthw generate {names[1]} -o build --name digits", soft_wrap=True)
    if drawing is not None:
        plot(results, drawing)
        console.print(f"saved {drawing}")


if __name__ == "__main__":
    typer.run(main)
