"""How few bits the digits, and random butterflies, can do with: the tables and plots of docs/quantisation.md.

    python examples/digits/quantisation.py                  all of it, some minutes; plots go to build/quantisation
    python examples/digits/quantisation.py --out docs       the plots of the documentation again
    python examples/digits/quantisation.py --quick          the same steps on next to nothing; the figures mean nothing

The recipe (epochs, rate, least squares) was chosen on three folds of the training images, not on the held-out ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from data import INPUT, load
from rich.console import Console
from train import FLOAT_RATE, accuracies, fit, model

from bfthw import Chain, Factor, Layer, Network, Settings, plots, report
from bfthw.chain import bft, initial_range
from bfthw.nn import to_network
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import prepare, quantise
from bfthw.sweep import Point

RATE = 0.003  # of weights and of learned fraction bits
METHODS = {"percentile": {"percentile": 100.0}, "least-squares": {"calibration_method": "least-squares"}}
TRAINED = {
    "trained, formats fixed": {},
    "trained, ranges learned": {"learn_ranges": True},
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    seeds: tuple = (0, 1, 2)
    weights: tuple = (2, 3, 4, 5, 8)
    activations: tuple = (3, 4, 5, 6, 7, 8, 10)
    epochs: int = 100
    fine_epochs: int = 15
    sizes: tuple = ((64, 4), (256, 4), (1024, 4), (256, 2))
    vectors: int = 128


QUICK = Plan(seeds=(0,), weights=(3, 8), activations=(4, 8), epochs=3, fine_epochs=1, sizes=((16, 4),), vectors=20)


def settings(**own):
    return Settings(input_bits=INPUT.width, input_frac=INPUT.frac, **own)


def measure(network, images, bits, seed, plan, ways=TRAINED):
    """Accuracies on the held-out images, name -> 0 to 1, of one float network at given bits; ways: to train it."""
    x, y, x_test, y_test = images
    found = {}
    for name, method in METHODS.items():
        prepared, formats = prepare(network, settings=settings(**bits, **method), calibration=x)
        found[name] = accuracies(prepared, x_test, y_test, formats=formats)[1]
    # training starts from the formats of least squares, the last ones
    for name, how in ways.items():
        module = QuantisedNetwork(prepared, formats, **how)
        given = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
        fit(module, *given, epochs=plan.fine_epochs, rate=RATE, seed=seed, console=Console(quiet=True), task=name)
        found[name] = accuracies(module.to_network(), x_test, y_test)[1]
    return found


def digits(plan, console):
    """(float accuracies, key -> name -> bits -> accuracies of all seeds, reports of the first seed's stages)."""
    images, exact = load(), []
    sweeps = {"weight_bits": (plan.weights, TRAINED), "activation_bits": (plan.activations, {})}
    found = {key: {name: {} for name in (*METHODS, *ways)} for key, (_, ways) in sweeps.items()}
    for seed in plan.seeds:
        torch.manual_seed(seed)
        given = torch.tensor(images[0], dtype=torch.float32), torch.tensor(images[1])
        trained = fit(model(), *given, epochs=plan.epochs, rate=FLOAT_RATE, seed=seed, console=console, task="float")
        network = to_network(trained)
        exact.append(float(np.mean(network(images[2]).argmax(axis=1) == images[3])))
        for key, (widths, ways) in sweeps.items():
            for bits in widths:
                with console.status(f"seed {seed}, {key} = {bits} ..."):
                    for name, accuracy in measure(network, images, {key: bits}, seed, plan, ways).items():
                        found[key][name].setdefault(bits, []).append(accuracy)
        if seed == plan.seeds[0]:
            prepared, formats = prepare(network, settings=settings(**METHODS["least-squares"]), calibration=images[0])
            stages = report(prepared, quantise(prepared, formats), images[2])
    return exact, found, stages


def random_layer(n, base, kind, plan):
    """SQNR in dB of a random butterfly with residual on the positive half of normal inputs, setting -> dB."""
    rng, shape = np.random.default_rng(n + base), bft(n, base)
    y = initial_range(shape)
    draw = {"uniform": lambda p: rng.uniform(-y, y, p), "laplace": lambda p: rng.laplace(0, y / 6**0.5, p)}[kind]
    network = Network(layers=[Layer(chain=Chain(Factor(draw(tuple(p))) for p in shape), residual=True)])
    x = np.maximum(rng.normal(size=(plan.vectors, n)), 0)
    fine = {"activation_bits": 20, "input_bits": 16}
    ways = {
        "W8": {"weight_bits": 8, **fine},
        "W8 rows": {"weight_bits": 8, "row_exponents": 8, **fine},
        "W6 rows": {"weight_bits": 6, "row_exponents": 8, **fine},
        "W4 rows": {"weight_bits": 4, "row_exponents": 8, **fine},
        "W8 equalised": {"weight_bits": 8, "equalise": True, **fine},
    }
    ways |= {f"W8 A{bits}": {"weight_bits": 8, "activation_bits": bits} for bits in (8, 10, 12, 16)}
    found = {}
    for name, own in ways.items():
        own = Settings(**{"equalise": False, "calibration_method": "least-squares", **own})
        prepared, formats = prepare(network, settings=own, calibration=x)
        found[name] = report(prepared, quantise(prepared, formats), x)[-1].sqnr
    return found


def table(console, heads, rows):
    """Markdown."""
    for row in (heads, ["---"] * len(heads), *rows):
        console.print("| " + " | ".join(row) + " |", markup=False, soft_wrap=True)
    console.print()


def percent(values):
    """Mean, and the least of all seeds."""
    return f"{100 * np.mean(values):.2f} ({100 * min(values):.2f})"


def draw(exact, found, stages, out):
    for key, what in (("weight_bits", "weights"), ("activation_bits", "activations")):
        figure, axes = plots.pyplot().subplots(figsize=(6, 3.6))
        lines = {
            name: [Point(bits=bits, sqnr=0.0, accuracy=float(np.mean(values))) for bits, values in by_bits.items()]
            for name, by_bits in found[key].items()
        }
        plots.against_bits(axes, lines, what, "accuracy")
        axes.axhline(100 * np.mean(exact), color="#888888", lw=1, ls="--", label="float")
        axes.set_ylim(88, 100)
        axes.legend(fontsize=7, loc="lower right")
        plots.save(figure, out / f"quantisation-{what}.svg")
    figure, axes = plots.pyplot().subplots(figsize=(6, 3.6))
    plots.stages(axes, stages)
    plots.save(figure, out / "quantisation-stages.svg")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the plots.")] = Path("build/quantisation"),
    quick: Annotated[bool, typer.Option("--quick", help="Next to nothing, to see that it runs.")] = False,
):
    console, plan = Console(highlight=False), QUICK if quick else Plan()
    plots.pyplot()
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    with console.status("random layers ..."):
        rows = []
        for n, base in plan.sizes:
            for kind in ("uniform", "laplace"):
                sqnr = random_layer(n, base, kind, plan)
                rows.append([f"{kind} {n}, k = {base}", *(f"{value:.1f}" for value in sqnr.values())])
    console.print("SQNR of random layers, dB")
    table(console, ["layer", *sqnr], rows)
    exact, found, stages = digits(plan, console)
    console.print(
        f"accuracy on the held-out digits, %: mean of {len(exact)} seeds (the least); float {percent(exact)}",
        soft_wrap=True,
    )
    for key, by_name in found.items():
        rows = [
            [str(bits), *(percent(by_name[name][bits]) for name in by_name)] for bits in next(iter(by_name.values()))
        ]
        table(console, [key.replace("_bits", " bits"), *by_name], rows)
    draw(exact, found, stages, out)
    console.print(f"wrote {out}/quantisation-weights.svg, -activations.svg, -stages.svg", markup=False)


if __name__ == "__main__":
    typer.run(main)
