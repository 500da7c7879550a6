"""Structures of one layer on real handwritten digits: accuracy with its errors, and what a core of each takes.

    python examples/compare.py "Butterfly(64, base=4)" "LowRank(64, 64, 6)" --seeds 10 --target ecp5
    python examples/compare.py "Butterfly(64, base=4)" "Mine(64)" --file mine.py

A structure is Python, with the names of bfthw.nn, `chain`, `structures`, `nn`, `torch` and those of --file, and makes
a layer of 64 inputs. 64 pixels -> layer -> batch norm, ReLU -> 10 classes, all trained alike: a seed has the same order
of batches for all, and the same start of the head. In Python: `print(table(compare({name: function, ...})))`.
"""

import runpy
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from digits.data import INPUT, load
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

import bfthw.nn
from bfthw import chain, compile, make_settings, structures
from bfthw.nn import to_network
from rtl_gen import Plan, choose_for, estimate, make_plan

N, CLASSES, BATCH, EPOCHS, SEEDS, RATE = 64, 10, 64, 20, 5, 0.01
DECAY = 0.1  # of AdamW, on the head's matrix alone unless more is asked for
SETTINGS = {"weight_bits": 8, "activation_bits": 10, "input_bits": INPUT.width, "input_frac": INPUT.frac}


def make_model(body, width):
    """body: makes the layers 64 -> width. The head is made first: it starts alike for all bodies of a width."""
    head = nn.Linear(width, CLASSES)
    return nn.Sequential(body(), nn.BatchNorm1d(width), nn.ReLU(), head)


def accuracy(scores, y):
    return float((np.asarray(scores).argmax(axis=1) == y).mean())


def train(make, data, *, seed, epochs, decay=False):
    """Train what make() gives, a `make_model`, on data (x, y, x_test, y_test); decay: of all, not of the head alone.

    (accuracy on the held-out images after each epoch, the trained model in eval mode, its integers).
    """
    x, y, x_test, y_test = data
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)
    head = model[-1].weight
    rest = [p for p in model.parameters() if p is not head]
    groups = [{"params": [head]}, {"params": rest, "weight_decay": DECAY if decay else 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    images, labels, held_out = torch.tensor(x, dtype=torch.float32), torch.tensor(y), torch.tensor(x_test).float()
    batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * batches)
    curve = []
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x), generator=generator)[: batches * BATCH].reshape(batches, BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            curve.append(accuracy(model.eval()(held_out), y_test))
    return curve, model, compile(to_network(model), settings=make_settings(**SETTINGS), calibration=x)


def weights(model):
    """Trained numbers of the body, its biases too, and the head's weights."""
    body, *_, head = model
    return sum(p.numel() for p in body.parameters()) + head.weight.numel()


def error(values):
    """Standard error of the mean; nan for a single value."""
    return np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def difference(first, second):
    """Of two series of accuracies over the same seeds: the mean difference and its standard error in points."""
    values = 100 * (np.asarray(first) - np.asarray(second))
    clear = abs(values.mean()) > 2 * error(values)
    return f"{values.mean():+.2f} ± {error(values):.2f}{'' if clear else ', not to be told apart'}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """floats, integers: accuracies on the held-out images, a seed each. plan: of the core of the first seed."""

    name: str
    weights: int
    floats: tuple
    integers: tuple
    plan: Plan

    @property
    def work(self):
        """Multiplications of an image in hardware, the head's too."""
        return sum(f.pattern.weights for f in self.plan.network.factors)

    def columns(self):
        """Quantity → text, the rows of `table`."""
        need, plan = estimate(self.plan), self.plan
        share = {name: 100 * np.array(getattr(self, name)) for name in ("floats", "integers")}
        mean = {name: f"{values.mean():.2f} ± {error(values):.2f}" for name, values in share.items()}
        return {
            "float accuracy, %": mean["floats"],
            "integer accuracy, %": mean["integers"],
            "multiplications an image": self.work,
            "trained weights": self.weights,
            "weights in ROM, bits": plan.rom_bits,
            "latency, cycles": plan.latency,
            "interval, cycles": plan.interval,
            "multipliers": plan.multipliers,
        } | {f"{name} of {plan.target}, estimated": need[name] for name in ("LUT", "DSP", "RAM")}


def compare(bodies, *, seeds=SEEDS, epochs=EPOCHS, target="plain", interval=None, console=None):
    """A Result for each of bodies, name → function that makes a layer of 64 inputs.

    target: family of the core. interval: of the core, at most, by the cheapest parallelism; one product a cycle in each
    engine where not given. Raises ValueError, with the name, for a body that is no layer of 64 inputs, that
    `to_network` does not read or reads otherwise than it computes.
    """
    data, settings = load(), make_settings(**SETTINGS, target=target)
    makers = {name: partial(make_model, body, _width(name, body)) for name, body in bodies.items()}
    for name, make in makers.items():
        _check(name, make().eval(), data[2])
    found = {name: [] for name in bodies}
    runs = [(seed, name) for seed in range(seeds) for name in bodies]
    for seed, name in track(runs, "training", console=console or Console(stderr=True)):
        curve, model, integers = train(makers[name], data, seed=seed, epochs=epochs)
        _check(name, model, data[2])
        found[name].append((curve[-1], accuracy(integers.predict(data[2]), data[3])))
        if seed == 0:
            plan = make_plan(integers, settings)
            if interval is not None:
                plan = choose_for(integers, settings, interval=interval).plan
            found[name].insert(0, (weights(model), plan))
    results = []
    for name, ((count, plan), *accuracies) in found.items():
        floats, integers = zip(*accuracies)
        results.append(Result(name=name, weights=count, floats=floats, integers=integers, plan=plan))
    return results


def _width(name, body):
    try:
        with torch.no_grad():
            return body().eval()(torch.zeros(2, N)).shape[-1]
    except (AttributeError, NameError, RuntimeError, SyntaxError, TypeError, ValueError) as reason:
        raise ValueError(f"{name}: no layer of {N} inputs: {reason}") from None


def _check(name, model, x):
    """ValueError unless what goes to hardware is what is trained."""
    try:
        network = to_network(model)
    except (TypeError, ValueError) as reason:
        raise ValueError(f"{name}: {reason}") from None
    with torch.no_grad():
        wanted = model(torch.tensor(x).float()).numpy()
    off = np.abs(network(x) - wanted).max() / np.abs(wanted).max()
    if off > 1e-3:
        raise ValueError(f"{name}: its to_butterfly is not what its forward computes: {off:.2g} of the largest output")


def table(results):
    """Markdown: a column for each Result; beneath, the differences of the first from the others, seed by seed."""
    columns = [result.columns() for result in results]
    first, *others = results
    lines = [
        "| | " + " | ".join(result.name for result in results) + " |",
        "| --- |" + " --: |" * len(results),
        *(f"| {key} | " + " | ".join(str(column[key]) for column in columns) + " |" for key in columns[0]),
        "",
        f"| difference over the same {len(first.floats)} seeds, points | float | integers |",
        "| --- | --- | --- |",
    ]
    for other in others:
        points = difference(first.floats, other.floats), difference(first.integers, other.integers)
        lines.append(f"| {first.name} less {other.name} | {' | '.join(points)} |")
    for other in others:
        if other.work != first.work:
            ratio = other.work / first.work
            lines += ["", f"Unequal: {other.name} takes {ratio:.3g} times the multiplications of {first.name}."]
    return "\n".join(lines)


def main(
    structure: Annotated[list[str], typer.Argument(help="Two or more, e.g. 'Butterfly(64, base=4)'")],
    seeds: Annotated[int, typer.Option(min=2)] = SEEDS,
    epochs: Annotated[int, typer.Option(min=1)] = EPOCHS,
    target: Annotated[str, typer.Option(help="plain, ecp5, ice40 or gowin")] = "plain",
    interval: Annotated[int | None, typer.Option(min=1, help="Cycles an image, at most")] = None,
    file: Annotated[Path | None, typer.Option(exists=True, help="Python that defines layers of your own")] = None,
):
    torch.set_num_threads(1)  # layers this small only lose by threads
    names = vars(bfthw.nn) | {"chain": chain, "structures": structures, "nn": nn, "torch": torch}
    names |= runpy.run_path(str(file)) if file else {}
    bodies = {text: partial(eval, text, names) for text in structure}
    try:
        if len(bodies) < 2:
            raise ValueError(f"two different structures are compared, got {structure[0]}")
        print(table(compare(bodies, seeds=seeds, epochs=epochs, target=target, interval=interval)))
    except ValueError as reason:
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    typer.run(main)
