"""Train a network of the papers on images or points that lie on this disk, and hand its butterflies over.

    python examples/train.py --data IMAGENET --model mobilenetv1 --resolution 128
    python examples/train.py --data CIFAR --dataset cifar10 --model mobilenetv1 --width 0.5
    python examples/train.py --data MODELNET40 --dataset modelnet40 --model pointnet --fusion debut

The same command goes on where a killed run was, exactly. --export DIR writes each butterfly as a checkpoint of its own
that `bfthw inspect`, `quantize` and `generate` take. What is the papers' and what is ours: docs/models.md.
"""

import csv
import io
import math
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress, track
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from train_data import LAYOUTS, load

from bfthw import files, models
from bfthw.checkpoint import save as save_network
from bfthw.nn import GraphModule, parameter_groups
from bfthw.storage import write_array

# epochs, rate and decay of images: Alizadeh et al., CVPR 2020, section 4 and appendix; of points, with the batch: the
# released script of the All-DeBut paper, without its distillation. The batch of images, momentum, warm-up and the
# cosine are ours
EPOCHS = {"mobilenetv1": 170, "shufflenetv2": 300, "mobilenetv3-small": 200, "pointnet": 240}
DEFAULTS = {
    "imagenet": {"resolution": 128, "batch": 256, "rate": 0.5, "decay": 1e-5, "warmup": 5},
    "cifar10": {"resolution": 32, "batch": 128, "rate": 0.5, "decay": 1e-5, "warmup": 5},
    "modelnet40": {"resolution": 1024, "batch": 64, "rate": 0.001, "decay": 5e-4, "warmup": 0},
}
MOMENTUM = 0.9
PENALTY = 0.001  # of feature transforms that are not orthogonal (PointNet, section 4.2 and supplement C)
DROPOUT = {"pointnet": {"head2": 0.3}}
VECTORS = 1024  # inputs of a layer that --export keeps for calibration
console = Console(highlight=False)


def progress(items, what):
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def rate_at(step, *, rate, warmup, steps):
    """The learning rate of a step: up in a straight line for `warmup` steps, then down along a cosine to zero."""
    if step < warmup:
        return rate * (step + 1) / warmup
    return rate * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def batches(data, epoch, size, workers, *, order, first=0):
    """Batches of an epoch from number `first` on; the last, incomplete one is for held-out data alone."""
    keys = [[(epoch, int(i)) for i in order[at : at + size]] for at in range(first * size, len(order), size)]
    keys = [key for key in keys if len(key) == size or not data.train]
    # a generator of its own, or the loader would draw from the one that dropout uses
    return DataLoader(data, batch_sampler=keys, num_workers=workers, generator=torch.Generator())


def channels_last(x):
    """Images (N, 3, H, W), or points (N, 3, P), to (N, H, W, 3) or (N, P, 1, 3)."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x.mT[:, :, None]


class Run:
    """A network in training. `state` is all there is to go on from; settings: what must be the same then."""

    def __init__(self, module, settings, *, device, precision):
        self.module, self.settings, self.device, self.precision = module.to(device), settings, device, precision
        self.optimiser = torch.optim.SGD(parameter_groups(module, settings["decay"]), lr=0.0, momentum=MOMENTUM)
        self.scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
        self.epoch, self.step, self.loss, self.right, self.history = 0, 0, 0.0, 0, []

    def state(self):
        cuda = torch.cuda.get_rng_state() if self.device == "cuda" else None
        kept = {key: getattr(self, key) for key in ("settings", "epoch", "step", "loss", "right", "history")}
        parts = {key: getattr(self, key).state_dict() for key in ("module", "optimiser", "scaler")}
        return {**kept, **parts, "chance": torch.get_rng_state(), "chance_cuda": cuda}

    def go_on(self, path):
        """Take over what a run left. ValueError where the file is none of ours, or of other settings."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            theirs = state["settings"]
        except Exception as error:  # torch has no error of its own for a file of another kind
            raise ValueError(f"{path}: no checkpoint of a run: {type(error).__name__}: {error}") from None
        for key, value in self.settings.items():
            if theirs.get(key) != value:
                raise ValueError(f"{path}: was made with {key} {theirs.get(key)}, not {value}; name another --out")
        for key in ("module", "optimiser", "scaler"):
            getattr(self, key).load_state_dict(state[key])
        for key in ("epoch", "step", "loss", "right", "history"):
            setattr(self, key, state[key])
        torch.set_rng_state(state["chance"])
        if state["chance_cuda"] is not None and self.device == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])

    def save(self, path):
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        files.write(path, buffer.getvalue())

    def forward(self, x):
        with torch.autocast(self.device, dtype=self.precision, enabled=self.precision != torch.float32):
            return self.module(channels_last(x.to(self.device, non_blocking=True))).float()

    def train(self, x, y, rate):
        """One step of SGD."""
        self.module.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        y = y.to(self.device)
        scores = self.forward(x)
        loss = cross_entropy(scores, y) + PENALTY * self.module.penalty()
        if not torch.isfinite(loss):
            where = f"epoch {self.epoch + 1}, step {self.step + 1}"
            raise ValueError(f"{where}: the loss is {loss.item()}; try a lower --rate")
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.loss += loss.item()
        self.right += int((scores.argmax(1) == y).sum())
        self.step += 1

    @torch.no_grad()
    def accuracy(self, loader):
        """Share of held-out items that the network gets right, in %."""
        self.module.eval()
        found = [(self.forward(x).argmax(1).cpu() == y) for x, y in loader]
        return 100 * torch.cat(found).double().mean().item()


def fit(run, train, held, *, out, every, workers):
    """Train to the end of the last epoch, saving every so many steps and after every epoch; writes out/log.csv too."""
    s = run.settings
    per_epoch = len(train) // s["batch"]
    steps, warmup = s["epochs"] * per_epoch, s["warmup"] * per_epoch
    if not per_epoch:
        raise ValueError(f"--batch {s['batch']} is more than there is to train on; {len(train)} at most")
    while run.epoch < s["epochs"]:
        order = np.random.default_rng([s["seed"], run.epoch]).permutation(len(train))
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"epoch {run.epoch + 1}/{s['epochs']}", total=per_epoch, completed=run.step)
            for x, y in batches(train, run.epoch, s["batch"], workers, order=order, first=run.step):
                rate = rate_at(run.epoch * per_epoch + run.step, rate=s["rate"], warmup=warmup, steps=steps)
                run.train(x, y, rate)
                bar.update(task, completed=run.step)
                if run.step % every == 0 and run.step < per_epoch:
                    run.save(out / "last.pt")
            bar.update(task, description="held out")
            score = run.accuracy(batches(held, 0, s["batch"], workers, order=range(len(held))))
        right = 100 * run.right / (per_epoch * s["batch"])
        run.history.append([run.epoch + 1, run.loss / per_epoch, right, score])
        run.epoch, run.step, run.loss, run.right = run.epoch + 1, 0, 0.0, 0
        run.save(out / "last.pt")
        text = io.StringIO()
        csv.writer(text).writerows([["epoch", "loss", "training %", "held out %"], *run.history])
        files.write(out / "log.csv", text.getvalue())
        number, loss, right, score = run.history[-1]
        console.print(f"epoch {number:3d}  loss {loss:.4f}  training {right:6.2f} %  held out {score:6.2f} %")


def build(name, **how):
    """The module to train: a network of the papers, as training starts."""
    network = models.model(name, **how)
    return GraphModule(network, norm=True, dropout=DROPOUT.get(name)).reset_parameters().float()


def export(module, x, folder):
    """Every butterfly with its batch norm, and ReLU, as folder/<layer>.safetensors, its inputs for x as .npy."""
    network, inputs = module.cpu().eval().to_network(), {}
    layers = [layer for layer in network.layers if len(layer.chain.factors) > 1]
    if not layers:
        raise ValueError("--export: the network has no butterflies; its fusion is dense")

    def keep(node, *given):
        vectors = given[0].reshape(-1, given[0].shape[-1])
        inputs[node.name] = vectors[:: max(1, len(vectors) // VECTORS)][:VECTORS]
        return node(*given)

    for _ in network.walk(channels_last(x).double().numpy().reshape(-1, *network.shape.dims), keep):
        pass
    folder.mkdir(parents=True, exist_ok=True)
    for layer in progress(layers, "exporting"):
        save_network(models.alone(network, layer), folder / f"{layer.name}.safetensors")
        write_array(folder / f"{layer.name}.npy", inputs[layer.name])
    console.print(f"wrote {len(layers)} butterflies and their inputs to {folder}", markup=False)
    if any(layer.act is not None and layer.act.name == "hswish" for layer in layers):
        console.print("note: h-swish is none of a layer's parts; it has to follow where a layer is used")


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data set")],
    dataset: Annotated[str, typer.Option(help=f"{', '.join(LAYOUTS)}")] = "imagenet",
    model: Annotated[str, typer.Option(help=", ".join(models.NETWORKS))] = None,
    width: float = 1.0,
    resolution: Annotated[int, typer.Option(help="Pixels a side, or points")] = None,
    fusion: Annotated[str, typer.Option(help="dense, bft, released, monarch; for PointNet debut, debut-big")] = "bft",
    base: Annotated[int, typer.Option(help="Radix of the butterflies")] = 4,
    residual: Annotated[str, typer.Option(help="Where butterflies have one: blocks, square or none")] = "blocks",
    epochs: Annotated[int, typer.Option(min=1)] = None,
    batch: Annotated[int, typer.Option(min=2)] = None,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate, after warm-up")] = None,
    decay: Annotated[float, typer.Option(min=0, help="Weight decay; butterflies and norms have none")] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Epochs")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of last.pt and log.csv")] = Path("build/train"),
    every: Annotated[int, typer.Option(min=1, help="Steps from one checkpoint to the next")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read data")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Items of each set, for a try")] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16", show_default="by device")] = None,
    export_to: Annotated[Path, typer.Option("--export", metavar="DIR", help="Where butterflies go at the end")] = None,
):
    if dataset not in LAYOUTS:
        raise ValueError(f"unknown --dataset {dataset!r}; there are {', '.join(LAYOUTS)}")
    points = dataset == "modelnet40"
    model = model or ("pointnet" if points else "mobilenetv1")
    if model in models.NETWORKS and (model == "pointnet") != points:
        raise ValueError(f"--model {model} goes with {'points, --dataset modelnet40' if not points else 'images'}")
    given = {"resolution": resolution, "batch": batch, "rate": rate, "decay": decay, "warmup": warmup}
    chosen = DEFAULTS[dataset] | {key: value for key, value in given.items() if value is not None}
    how = {"width": width, "resolution": chosen["resolution"], "fusion": fusion, "base": base}
    how["residual"] = None if residual == "none" else residual
    models.model(model, **how)  # complains before data are read
    train, held = load(
        dataset,
        data,
        size=chosen["resolution"],
        seed=seed,
        limit=limit,
        track=lambda items: progress(items, "drawing points"),
    )
    least = 40 if "debut" in fusion else 2  # the published chains have 40 outputs
    classes = max(least, len(train.classes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision is None:
        half = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float16"
        precision = half if device == "cuda" else "float32"
    if precision not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--precision must be float32, bfloat16 or float16, got {precision!r}")
    kept = {"dataset": dataset, "model": model, **how, **chosen, "seed": seed, "precision": precision}
    kept |= {"epochs": epochs or EPOCHS[model], "classes": train.classes, "items": [len(train), len(held)]}
    torch.manual_seed(seed)
    module = build(model, classes=classes, seed=seed, **how)
    run = Run(module, kept, device=device, precision=getattr(torch, precision))
    out.mkdir(parents=True, exist_ok=True)
    weights = sum(p.numel() for p in run.module.parameters())
    about = f"{model}, {len(train)} to train on, {len(held)} held out, {weights} parameters, {device}, {precision}"
    console.print(about, markup=False)
    if (out / "last.pt").exists():
        run.go_on(out / "last.pt")
        console.print(f"going on after epoch {run.epoch}, step {run.step}")
    fit(run, train, held, out=out, every=every, workers=workers)
    if export_to is not None:
        x = torch.stack([held[0, i][0] for i in range(min(len(held), 16))])
        export(run.module, x, export_to)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=__doc__.replace("\n    python", "\n\n    python"))(main)
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        # of a worker's error, only what went wrong
        message = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        Console(stderr=True, soft_wrap=True).print(f"error: {message}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
