"""Train a 28x28 network with butterflies on the complete Fashion-MNIST, and see what its integers lose.

    python examples/fashion/train.py

The same command goes on where a stopped run was, after its last whole epoch. One thread; docs/fashion.md has the
figures.
"""

import io
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from data import FOLDER, SCALE, load
from rich.console import Console
from torch.nn.functional import cross_entropy

import bfthw
from bfthw import Settings, files, models
from bfthw.nn import GraphModule
from bfthw.quantize import choose_formats, quantise

# 9 bits between layers, without a sign behind a ReLU, and inside chains; a row of weights may be finer by 4 bits
SETTINGS = Settings(weight_bits=8, activation_bits=9, input_bits=8, row_exponents=4, equalise=False)
SAMPLES = 120
console = Console(highlight=False)


def epoch(module, optimiser, schedule, images, labels, batch, rng):
    """One pass over all images; returns the mean loss."""
    module.train()
    losses, order = [], rng.permutation(len(images))
    for at in range(0, len(order) - batch + 1, batch):
        own = np.sort(order[at : at + batch])
        x = torch.from_numpy(images[own].astype(np.float32) / SCALE)
        loss = cross_entropy(module(x).float(), torch.from_numpy(labels[own]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def fit(module, images, labels, *, epochs, batch, rate, seed, out):
    """Train to the end of the last epoch, each of which is kept in out/last.pt."""
    optimiser = torch.optim.AdamW(module.parameters(), weight_decay=1e-4)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.2)
    parts, done = {"module": module, "optimiser": optimiser, "schedule": schedule}, 0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", weights_only=True)
        done = state["epoch"]
        for key, part in parts.items():
            part.load_state_dict(state[key])
    for number in range(done + 1, epochs + 1):
        loss = epoch(module, optimiser, schedule, images, labels, batch, np.random.default_rng([seed, number]))
        buffer = io.BytesIO()
        torch.save({"epoch": number} | {key: part.state_dict() for key, part in parts.items()}, buffer)
        files.write(out / "last.pt", buffer.getvalue())
        console.print(f"epoch {number}/{epochs}  loss {loss:.4f}")


def accuracy(found, labels):
    """In per cent."""
    return 100 * float((found == labels).mean())


def main(
    data: Annotated[Path, typer.Option(help="Folder of the four IDX files")] = FOLDER,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    batch: Annotated[int, typer.Option(min=2)] = 128,
    rate: Annotated[float, typer.Option(min=0, help="Largest learning rate")] = 0.01,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of last.pt and fashion.safetensors")] = Path("build/fashion"),
):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    images, labels = load("train", data)
    module = GraphModule(models.net_h(seed=seed), norm=True).reset_parameters().float()
    fit(module, images, labels, epochs=epochs, batch=batch, rate=rate, seed=seed, out=out)
    network = module.eval().to_network()
    network = replace(network, formats=choose_formats(network, SETTINGS, images[:1000] / SCALE))
    bfthw.save(network, out / "fashion.safetensors")
    integers, (images, labels) = quantise(network, network.formats), load("t10k", data)
    console.print(f"float {accuracy(network(images / SCALE).argmax(1), labels):.2f} %")
    scores = integers(integers.input.quantise(images / SCALE))
    console.print(f"integers {accuracy(scores.argmax(1), labels):.2f} %")
    buffer = io.BytesIO()
    first = {"images": images[:SAMPLES], "labels": labels[:SAMPLES], "scores": scores[:SAMPLES]}
    np.savez_compressed(buffer, **first)
    files.write(out / "samples.npz", buffer.getvalue())


if __name__ == "__main__":
    typer.run(main)
