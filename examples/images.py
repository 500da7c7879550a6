"""What mnist/, fashion/, watch/ and shapes/ share: a network of pixels or the like, trained, then with its rounding.

A run keeps its state after every epoch and goes on from there. One thread; what is random is drawn on the CPU for any
device.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

import bfthw
from bfthw import files
from bfthw.nn import GraphModule, parameter_groups
from bfthw.qat import QuantisedNetwork
from bfthw.quantize import prepare, quantise

# pixels to numbers that a network takes: 0 to 255 as 0 to 255/256, so that integers of 8 bits are the pixels themselves
SCALE = 256
DECAY = 1e-3  # of weights that are no butterfly's
CALIBRATION = 1000  # images that formats follow, evenly spread
SAMPLES = 1000  # test images whose scores come along
console = Console(highlight=False)


def moved(x, chance, *, turn=0.0, zoom=0.0, shift=0.0, flip=False):
    """Images (N, H, W, 1), each moved at random, with bilinear interpolation, zeros outside.

    turn: degrees, zoom: share, shift: pixels, at most, either way; flip: every other one from left to right.
    """

    def uniform(most):
        return ((torch.rand(len(x), generator=chance) * 2 - 1) * most).to(x.device)

    n, height, width, _ = x.shape
    angle, right, down = uniform(np.deg2rad(turn)), 1 + uniform(zoom), 1 + uniform(zoom)
    right = right * torch.where(uniform(float(flip)) < 0, -1, 1)
    sin, cos = torch.sin(angle), torch.cos(angle)
    # the grid runs from -1 to 1
    rows = [cos * right, -sin * down, uniform(2 * shift / width), sin * right, cos * down, uniform(2 * shift / height)]
    grid = affine_grid(torch.stack(rows, 1).reshape(n, 2, 3), (n, 1, height, width), align_corners=False)
    return grid_sample(x.reshape(n, 1, height, width), grid, align_corners=False).reshape(x.shape)


def fit(module, images, labels, *, epochs, batch, rate, jitter, plain, seed, path, decay=0.0, device="cpu"):
    """Train to the end of the last epoch, with one cycle of the learning rate; each epoch's state is kept in `path`.

    jitter: as `moved` takes it, for all but the last `plain` epochs. decay: of butterflies' factors. device: of
    torch's. Returns the module, there, in eval mode.
    """
    module, images, labels = (part.to(device) for part in (module, images, labels))
    groups = parameter_groups(module, DECAY)
    if decay:
        factors = [p for p in groups[1]["params"] if p.ndim > 1]
        groups[1]["params"] = [p for p in groups[1]["params"] if p.ndim == 1]
        groups.append({"params": factors, "weight_decay": decay})
    optimiser, per_epoch = torch.optim.AdamW(groups, lr=rate), len(images) // batch
    parts, done = {"module": module, "optimiser": optimiser}, 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        done = state["epoch"]
        for key, part in parts.items():
            part.load_state_dict(state[key])
    steps = {"total_steps": epochs * per_epoch + 1, "last_epoch": done * per_epoch - 1}
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, pct_start=0.2, **steps)
    for number in range(done + 1, epochs + 1):
        chance, losses = torch.Generator().manual_seed(1000 * seed + number), []
        module.train()
        for own in torch.randperm(len(images), generator=chance)[: per_epoch * batch].reshape(-1, batch):
            x = images[own].float() / SCALE
            loss = cross_entropy(module(moved(x, chance, **jitter) if number <= epochs - plain else x), labels[own])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())  # to read it would wait for the device
        buffer = io.BytesIO()
        torch.save({"epoch": number} | {key: part.state_dict() for key, part in parts.items()}, buffer)
        files.write(path, buffer.getvalue())
        console.print(f"{path.stem}: epoch {number}/{epochs}  loss {torch.stack(losses).mean():.4f}")
    return module.eval()


def accuracy(found, labels):
    """In per cent."""
    return 100 * float((found == labels).mean())


def scores(network, images):
    """The integers that a network with formats gives for pixels (N, H, W, 1), which are its integers too."""
    integers = quantise(network, network.formats)
    return np.concatenate([integers(part.astype(np.int64)) for part in _parts(images)])


def _parts(images):
    return np.array_split(images, max(1, len(images) // 500))


def train(name, network, settings, load, *, seed, out, first, fine, eps=1e-5, free=True):
    """network, a float `Network`, trained on load("train"), judged on load("test"); both give (pixels, labels).

    eps: what batch norms add to a variance, so that no channel is enlarged by more than eps**-0.5 times its weight.

    first, fine: what `fit` takes, in floats and then with rounding at the formats of `settings`. Writes
    out/NAME.safetensors and out/samples.npz: of the first test images labels, scores, and where they are `free`, pixels.
    Returns what `told` does of the end.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    images, labels = load("train")
    given = torch.tensor(images), torch.tensor(labels)
    module = GraphModule(network, norm=True).reset_parameters().float()
    for layer in module.layers.values():
        if layer.norm is not None:
            layer.norm.eps = eps
    network = fit(module, *given, **first, seed=seed, path=out / "float.pt").to_network()
    some = images[:: max(1, len(images) // CALIBRATION)]
    network, formats = prepare(network, settings=settings, calibration=some / SCALE)
    tests = load("test")
    told(name, replace(network, formats=formats), *tests)
    fine = fit(QuantisedNetwork(network, formats), *given, **fine, seed=seed, path=out / "fine.pt")
    network = fine.to_network()
    bfthw.save(network, out / f"{name}.safetensors")
    right = told(name, network, *tests)
    images, labels = (part[:SAMPLES] for part in tests)
    buffer = io.BytesIO()
    pixels = {"images": images} if free else {}
    np.savez_compressed(buffer, labels=labels, scores=scores(network, images).astype(np.int16), **pixels)
    files.write(out / "samples.npz", buffer.getvalue())
    return right


def told(name, network, images, labels):
    """Prints, and returns, what a network with formats gets right, in floats and in integers, in per cent."""
    floats = np.concatenate([network(part / SCALE).argmax(1) for part in _parts(images)])
    integers = scores(network, images).argmax(1)
    right = accuracy(floats, labels), accuracy(integers, labels)
    console.print(f"{name}: float {right[0]:.2f} %, integers {right[1]:.2f} %")
    return right
