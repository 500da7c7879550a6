"""The corpus: small torch networks as code, of all kinds, that `to_network` takes or refuses, and the page about them."""

import re
from functools import cache
from pathlib import Path

import corpus_maps
import corpus_more
import corpus_refused
import numpy as np
import torch
from corpus_cases import NETWORKS, Does, conv, shaken

from bfthw.nn import to_network

__all__ = ["NETWORKS", "Does", "conv", "corpus_maps", "corpus_more", "corpus_refused", "shaken"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "corpus.md"


@cache
def read(name):
    """(module, shape, its Network or the error, notes) of a network of the corpus."""
    module, shape = NETWORKS[name].build()
    notes = []
    try:
        return module, shape, to_network(module, shape, notes), notes
    except (TypeError, ValueError) as error:
        return module, shape, error, notes


def inputs(x, network):
    """Samples (N, *dims) of a module as its network takes them, numpy."""
    return _arranged(x.numpy(), network.shape)


def outputs(y, network):
    """What a module makes of them, as its network gives it."""
    return _arranged(y.detach().numpy(), network.shapes[-1])


def _arranged(x, shape):
    first = shape.channels, *(size for size in shape[:2] if size > 1)
    if x.shape[1:] in (first, (*first, 1), (shape.channels, *shape[:2])):
        x = np.moveaxis(x, 1, -1)
    return x.reshape(len(x), *shape.dims)


def page():
    """docs/corpus.md, with what `to_network` says of each network."""
    rows, no = {}, []
    for case in NETWORKS.values():
        _, shape, network, notes = read(case.name)
        size = "×".join(map(str, shape))
        if isinstance(network, Exception):
            text = re.sub(r" at \w+\.py:\d+", "", str(network)).removeprefix("to_network: ")
            no.append(f"| `{case.name}` | {case.what} | {size} | {text} |")
            continue
        weights = sum(layer.chain.weights for layer in network.layers)
        own = sum("layer of its own" in note for note in notes)
        row = f"| `{case.name}` | {case.what} | {size} | {len(network.nodes)} | {weights:,} | {own or ''} |"
        rows.setdefault(case.group, []).append(row)
    count = sum(map(len, rows.values()))
    lines = [
        "# Networks that are taken, and those that are not",
        "",
        f"{count + len(no)} small torch networks as code, `tests/graph_corpus.py`, go through `bfthw.nn.to_network`: {count} are",
        f"taken, {len(no)} are refused. A test walks them all: what is taken equals its module in float64, within 1e-10 of the",
        "largest output, and goes on to integers, which run; a refusal says these words. This page is written by",
        "`python tests/graph_corpus.py`. Input: as the module takes it, without the samples. Weights count the ones of layers",
        "that batch norms, additions and others need of their own, see [graph.md](graph.md).",
    ]
    for group, found in rows.items():
        head = "| network | what it is | input | nodes | weights | layers of their own |"
        lines += ["", f"## Taken: {group}", "", head, "| --- | --- | --- | --- | --- | --- |", *found]
    lines += ["", "## Refused", "", "| network | what it is | input | the refusal |", "| --- | --- | --- | --- |", *no]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
