"""Forward and backward of a chain in torch on this computer's CPU, beside a dense layer: `python -m bench.cpu`."""

import argparse
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from statistics import median, quantiles

from bfthw import chain, files
from bfthw.plots import COLOURS, pyplot, save

from .rivals import processor, torch_version
from .table import table

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
OURS, DENSE, RIVAL = "bfthw.nn.Butterfly, k = 4", "nn.Linear", "torch_butterfly, pure torch"
PLAIN = "k = 4, an einsum a factor"


def contestants(n):
    """Name → (function of x, parameters), all n -> n without bias, float32. The rival only where it is installed."""
    import torch

    from bfthw.nn import Butterfly

    def plain(x):
        for values in factors:
            a, b, c, d = values.shape
            x = torch.einsum("ijkl,nikl->nijl", values, x.reshape(-1, a, c, d)).reshape(-1, a * b * d)
        return x

    patterns = chain.mixed_radix(chain.factorise(n, 4))
    ours, dense = Butterfly(patterns, residual=False), torch.nn.Linear(n, n, bias=False)
    factors = [torch.randn(tuple(p), requires_grad=True) for p in patterns]
    found = {
        OURS: (ours, list(ours.parameters())),
        DENSE: (dense, list(dense.parameters())),
        PLAIN: (plain, factors),
    }
    try:
        from torch_butterfly.multiply import butterfly_multiply_torch
    except (ImportError, OSError, AttributeError, RuntimeError):  # its __init__ loads a library that may not be there
        return found
    stages = n.bit_length() - 1
    twiddle = torch.randn(1, 1, stages, n // 2, 2, 2, requires_grad=True)
    found[RIVAL] = (lambda x: butterfly_multiply_torch(twiddle, x[:, None], increasing_stride=False)[:, 0], [twiddle])
    return found


def times(n, batch, seconds, rounds):
    """Name → [seconds of forward and backward], taken in turn: at least `rounds` each, more within `seconds`."""
    import torch

    x, grad = torch.randn(batch, n, requires_grad=True), torch.randn(batch, n)
    runs = contestants(n)
    found = {name: [] for name in runs}
    end = None
    while end is None or time.monotonic() < end or len(found[OURS]) <= rounds:
        end = end or time.monotonic() + seconds
        for name, (layer, parameters) in runs.items():
            begin = time.perf_counter()
            torch.autograd.grad(layer(x), [x, *parameters], grad)
            found[name].append(time.perf_counter() - begin)
    return {name: taken[1:] for name, taken in found.items()}  # the first warms up


def ratios(found):
    """Name → (median, lower and upper quartile) of Linear's time over its own, round by round."""
    result = {}
    for name, taken in found.items():
        each = [dense / own for dense, own in zip(found[DENSE], taken)]
        low, middle, high = quantiles(each, n=4) if len(each) > 1 else each * 3
        result[name] = (middle, low, high)
    return result


def document(measured, *, batch, threads, load, command):
    """docs/cpu.md. measured: n → `times`; load: averages before and after."""
    names = list(next(iter(measured.values())))
    taken = [[n, *(f"{1e3 * median(found[name]):.1f}" for name in names)] for n, found in measured.items()]
    compared = [name for name in names if name != DENSE]
    ratio = [
        [n, *("{:.2f} ({:.2f} to {:.2f})".format(*ratios(found)[name]) for name in compared)]
        for n, found in measured.items()
    ]
    rounds = min(len(found[OURS]) for found in measured.values())
    others = {name for found in measured.values() for name in found} - {OURS}
    best = {n: min(others, key=lambda name: median(found[name])) for n, found in measured.items()}
    fastest = "; ".join(
        f"{name} at n = {', '.join(str(n) for n in best if best[n] == name)}" for name in sorted(set(best.values()))
    )
    rival = "" if RIVAL in names else f" {RIVAL} takes part where it is installed; here it was not."
    return f"""# Speed on a CPU

Written by `{command}`: forward and backward of one layer n -> n, float32, batch {batch}, {threads} threads, gradients
of the input and of all weights. The contestants take turns in one process, {rounds} rounds or more of each size.

Times as fast as nn.Linear, the median of the rounds' ratios, quartiles in brackets:

{table(["n", *compared], ratio)}

Milliseconds, medians:

{table(["n", *names], taken)}

Fastest other: {fastest}.{rival}

![Ratio to nn.Linear](bench-cpu.svg)

torch {torch_version()}, Python {platform.python_version()}, {processor()}, {os.cpu_count()} processors,
OMP_WAIT_POLICY={os.environ.get("OMP_WAIT_POLICY")}; load average {load[0]:.1f} before, {load[1]:.1f} after. Above the
number of processors, other work was going on, and figures are rough.

How: vectors stand in columns, so that every factor is a batch of matrix products without a permutation of its own;
neighbouring factors are fused into one of a larger radix where that is less work for so many vectors (never into the
dense matrix); large batches go through the chain in blocks that stay in the cache, and what is between the factors is
computed again for the gradient instead of being kept. See `bfthw/nn/multiply.py`.
"""


def plot(measured, path):
    figure, axes = pyplot().subplots(figsize=(7, 3.6))
    for colour, name in zip(COLOURS, (name for name in next(iter(measured.values())) if name != DENSE)):
        points = [(n, *ratios(found)[name]) for n, found in measured.items()]
        n, middle, low, high = zip(*points)
        axes.plot(n, middle, "o-", ms=4, color=colour, label=name)
        axes.fill_between(n, low, high, color=colour, alpha=0.15, lw=0)
    axes.axhline(1, color="#222222", lw=1, label=DENSE)
    axes.set(xlabel="n", ylabel="times as fast as nn.Linear", xscale="log", yscale="log")
    axes.set_xticks(list(measured), list(map(str, measured)))
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
    axes.set_yticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.legend(fontsize=7)
    save(figure, path)


def main():
    # read once, when torch is loaded; threads that spin at a barrier measure the scheduler where others are at work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="of every size")
    parser.add_argument("--rounds", type=int, default=5, help="at least, of every size")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of cpu.md and bench-cpu.svg")
    options = parser.parse_args()
    command = shlex.join(["python", "-m", "bench.cpu", *sys.argv[1:]]) if sys.argv[1:] else "make bench-cpu"
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    measured, before = {}, os.getloadavg()[0]
    for n in options.sizes:
        print(f"n = {n} ...", flush=True)
        measured[n] = times(n, options.batch, options.seconds, options.rounds)
        print({name: f"{1e3 * median(taken):.1f} ms" for name, taken in measured[n].items()}, flush=True)
    load = (before, os.getloadavg()[0])
    options.out.mkdir(parents=True, exist_ok=True)
    text = document(measured, batch=options.batch, threads=options.threads, load=load, command=command)
    plot(measured, options.out / "bench-cpu.svg")
    files.write(options.out / "cpu.md", text)
    print(options.out / "cpu.md")


if __name__ == "__main__":
    main()
