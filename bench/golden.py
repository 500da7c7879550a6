"""Whole networks in integers on this computer's CPU, an image at a time, beside torch's floats: `python -m bench.golden`.

The table stands in docs/models.md.
"""

import time
from statistics import median

import numpy as np
import torch

from bfthw import Settings, models
from bfthw.nn import GraphModule
from bfthw.quantize import choose_formats, quantise

from .cpu import table

ROUNDS = 5
NETWORKS = {
    f"MobileNetV1-1.0, 96×96, {fusion}": lambda fusion=fusion: models.model("mobilenetv1", resolution=96, fusion=fusion)
    for fusion in ("bft", "dense")
}
NETWORKS |= {"net_h, 28×28": models.net_h, "ResNet8, 32×32": models.resnet8}


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def row(name, network):
    """Of rounds in which both take their turn: medians, and the least and largest ratio of a round."""
    x = np.random.default_rng(0).uniform(0, 1, (1, *network.shape))
    integers = quantise(network, choose_formats(network, Settings(weight_bits=8, activation_bits=9), x))
    module, q, single = GraphModule(network).float().eval(), integers.input.quantise(x), torch.from_numpy(x).float()
    with torch.inference_mode():
        calls = lambda: integers(q), lambda: module(single)  # noqa: E731
        rounds = [[seconds(call) for call in calls] for _ in range(ROUNDS + 1)][1:]
    ours, floats = (median(column) for column in zip(*rounds))
    ratios = [own / other for own, other in rounds]
    share = f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    return name, f"{1000 * ours:.0f}", f"{1000 * floats:.1f}", share


def main():
    rows = [row(name, make()) for name, make in NETWORKS.items()]
    print(table(["an image of", "golden model, ms", "torch, float32, ms", "ratio"], rows))


if __name__ == "__main__":
    main()
