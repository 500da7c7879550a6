"""A chain in torch on this computer's CPU beside a dense layer, in CPU time of one thread: `python -m bench.cpu`.

What it measures is kept in FIGURES, from which docs/cpu.md and the processor's table of docs/benchmark.md are written.
"""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from statistics import median

from bfthw import chain, files
from bfthw.plots import COLOURS, pyplot, save

from .rivals import processor, torch_version

FIGURES = Path(__file__).with_name("cpu.json")
SIZES = (64, 256, 1024, 4096)
FORWARD, BOTH = "forward", "forward and backward"
CASES = ((FORWARD, 1), (FORWARD, 4096), (BOTH, 4096))  # what, batch
ROUNDS = 5
SHORTEST = 0.05  # seconds of CPU time that a figure is of, at least
OURS, DENSE, RIVAL = "bfthw.nn.Butterfly, k = 4", "nn.Linear", "torch_butterfly, pure torch"
PLAIN = "k = 4, an einsum a factor"


def table(head, rows):
    lines = [head, ["---" if n == 0 else "--:" for n in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


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


def spent(call, times=1):
    """Seconds of CPU time of a call, the mean of several; time that others have the processor does not count."""
    begin = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begin) / times


def times(n, what, batch, rounds):
    """Name → [seconds of CPU time], one a round; in each round all take their turn, so that all meet the same load."""
    import torch

    def call(layer, parameters):
        if what == BOTH:
            torch.autograd.grad(layer(x), [x, *parameters], grad)
        else:
            with torch.inference_mode():
                layer(x)

    x, grad = torch.randn(batch, n, requires_grad=what == BOTH), torch.randn(batch, n)
    calls = {name: lambda given=given: call(*given) for name, given in contestants(n).items()}
    for each in calls.values():
        each()  # warms up
    repeats = {name: math.ceil(SHORTEST / max(spent(each), 1e-6)) for name, each in calls.items()}
    found = {name: [] for name in calls}
    for _ in range(rounds):
        for name, each in calls.items():
            found[name].append(spent(each, repeats[name]))
    return found


def ratios(found, name):
    """(median, least, largest) of Linear's time over that of `name`, round by round."""
    each = [dense / own for dense, own in zip(found[DENSE], found[name])]
    return median(each), min(each), max(each)


def figures(path=FIGURES):
    """What was measured: conditions, and `cases` with n, what, batch and seconds, name → one a round."""
    return json.loads(path.read_text(encoding="utf-8"))


def cases_of(measured, what, batch):
    """n → name → seconds."""
    return {c["n"]: c["seconds"] for c in measured["cases"] if (c["what"], c["batch"]) == (what, batch)}


def vectors(measured, sizes):
    """n → batch → (vectors in a second of CPU time: ours, nn.Linear's; median ratio of the two), forward."""
    found = {n: {} for n in sizes}
    for case in measured["cases"]:
        if case["what"] == FORWARD and case["n"] in found:
            speeds = (case["batch"] / median(case["seconds"][name]) for name in (OURS, DENSE))
            found[case["n"]][case["batch"]] = (*speeds, ratios(case["seconds"], OURS)[0])
    return {n: each for n, each in found.items() if each}


def section(measured, what, batch):
    found = cases_of(measured, what, batch)
    names = list(next(iter(found.values())))
    compared = [name for name in names if name != DENSE]
    shown = "{:.2f} ({:.2f} to {:.2f})"
    ratio = [[n, *(shown.format(*ratios(s, name)) for name in compared)] for n, s in found.items()]
    taken = [[n, *(f"{float(format(1e3 * median(s[name]), '.3g')):g}" for name in names)] for n, s in found.items()]
    title = f"{what.capitalize()}, {f'{batch} vectors at a time' if batch > 1 else 'one vector at a time'}"
    return f"""## {title}

Times as fast as nn.Linear:

{table(["n", *compared], ratio)}

Milliseconds of CPU time, medians:

{table(["n", *names], taken)}
"""


def document(measured):
    """docs/cpu.md."""
    names = {name for case in measured["cases"] for name in case["seconds"]}
    rounds = {len(taken) for case in measured["cases"] for taken in case["seconds"].values()}
    rival = "" if RIVAL in names else f" {RIVAL} takes part where it is installed; here it was not."
    before, after = measured["load"]
    sections = "\n".join(section(measured, what, batch) for what, batch in CASES)
    return f"""# Speed on a CPU

Written by `{measured["command"]}`: one layer n -> n, float32, **CPU time of one thread**, so that time
in which other programs had the processor does not count. All take turns in one process, in {min(rounds)} rounds; a
ratio is the median of the rounds' ratios, with the least and the largest in brackets. Backward gives the gradients of
the input and of all weights.{rival}

{sections}
![Ratio to nn.Linear](bench-cpu.svg)

torch {measured["torch"]}, Python {measured["python"]}, {measured["processor"]}; load average {before:.1f}
before and {after:.1f} after on {measured["processors"]} processors. Above that number others were at work, who share
caches and memory: times are rough, ratios less so.

How: vectors stand in columns, so that every factor is a batch of matrix products without a permutation of its own;
neighbouring factors are fused into one of a larger radix where that is less work for so many vectors (never into the
dense matrix); large batches go through the chain in blocks that stay in the cache, and what is between the factors is
computed again for the gradient instead of being kept. See `bfthw/nn/multiply.py`.
"""


def plot(measured, path):
    figure, each = pyplot().subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, what in zip(each, (FORWARD, BOTH)):
        found = cases_of(measured, what, 4096)
        for colour, name in zip(COLOURS, (name for name in next(iter(found.values())) if name != DENSE)):
            n, middle, low, high = zip(*((n, *ratios(seconds, name)) for n, seconds in found.items()))
            axes.plot(n, middle, "o-", ms=4, color=colour, label=name)
            axes.fill_between(n, low, high, color=colour, alpha=0.15, lw=0)
        axes.axhline(1, color="#222222", lw=1, label=DENSE)
        axes.set(xlabel="n", title=f"{what}, 4096 vectors", xscale="log", yscale="log")
        axes.set_xticks(list(found), list(map(str, found)))
        ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
        axes.set_yticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
    each[0].set_ylabel("times as fast as nn.Linear")
    each[0].legend(fontsize=7)
    save(figure, path)


def main():
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="where they are kept (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of cpu.md and bench-cpu.svg")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases, before = [], os.getloadavg()[0]
    for n in options.sizes:
        for what, batch in CASES:
            seconds = times(n, what, batch, options.rounds)
            cases.append({"n": n, "what": what, "batch": batch, "seconds": seconds})
            said = {name: f"{1e3 * median(taken):.3g} ms" for name, taken in seconds.items()}
            print(f"n = {n}, {what}, {batch}: {said}", flush=True)
    measured = {
        "command": shlex.join(["python", "-m", "bench.cpu", *sys.argv[1:]]) if sys.argv[1:] else "make bench-cpu",
        "torch": torch_version(), "python": platform.python_version(), "processor": processor(),
        "processors": os.cpu_count(), "load": [before, os.getloadavg()[0]], "cases": cases,
    }
    files.write(options.figures, json.dumps(measured, indent=1) + "\n")
    options.out.mkdir(parents=True, exist_ok=True)
    plot(measured, options.out / "bench-cpu.svg")
    files.write(options.out / "cpu.md", document(measured))
    print(options.out / "cpu.md")


if __name__ == "__main__":
    main()
