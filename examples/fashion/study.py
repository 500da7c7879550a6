"""What the choices of a Butterfly Transform are worth in a row of layers, on the complete Fashion-MNIST.

    python examples/fashion/study.py            every variant, seed by seed; goes on where it was stopped
    python examples/fashion/study.py --write    docs/structure.md and its plot, of the runs there are

28x28 -> 3x3 of stride 2 to 32 channels -> four times depthwise 3x3 and what is compared -> mean, 10 classes. One choice
at a time from base 4, residual first to last, no ReLU inside, no decay of factors; and other structures of as many
multiplications and weights. A run takes some minutes of one core; with `--seeds 1` first, rows can be read early, and
`--seeds 5` adds to what is there.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from data import FOLDER, load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import images
from compare import difference, error

import rtl_gen
from bfthw import Settings, chain, files, models, plots
from bfthw.graph import INPUT
from bfthw.models.build import square_blocks
from bfthw.models.costs import total
from bfthw.nn import GraphModule
from bfthw.quantize import prepare, quantise

SETTINGS = Settings(weight_bits=8, activation_bits=10, input_bits=8, row_exponents=4, equalise=False, target="ecp5")
INTERVAL = 12544  # cycles an image at most, of the cores that are compared
FIRST, STRIDES, BATCH, RATE = 32, (2, 1, 1, 1), 128, 0.01
FOUND, DOCS = Path(__file__).with_name("study.json"), Path(__file__).resolve().parents[2] / "docs"


def butterfly(outputs, inputs, base):
    return square_blocks(inputs, outputs, base)


def dense(outputs, inputs, _):
    return chain.dense(outputs, inputs)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """rule: (outputs, inputs, number) -> patterns; number: base, rank, groups or blocks. residual: as `Build` takes it,
    of the whole chain, or of every two factors with `pairs`. relu: between these. decay: of factors, as AdamW takes it.
    tied: all matrices circulant.
    """

    name: str
    group: str
    rule: object = butterfly
    number: int = 4
    width: int = 128
    residual: str | None = "square"
    pairs: bool = False
    relu: bool = False
    decay: float = 0.0
    tied: bool = False

    def network(self, seed=0):
        b = models.Build((28, 28, 1), seed, residual=self.residual)
        x = b.conv("conv1", INPUT, FIRST, 3, stride=2)
        for i, stride in enumerate(STRIDES, 1):
            x = b.conv(f"depthwise{i}", x, b.channels(x), 3, stride=stride, depthwise=True)
            patterns = chain.patterns(self.rule(self.width, b.channels(x), self.number))
            step = 2 if self.pairs else len(patterns)
            for m in range(0, len(patterns), step):
                own = patterns[m : m + step]
                b.fusion, last = (lambda *_, own=own: own), m + step >= len(patterns)
                how = {} if last else {"norm": False, "act": "relu" if self.relu else None}
                x = b.conv(f"pointwise{i}" if last else f"pointwise{i}.{m}", x, own[-1].outputs, fuse=True, **how)
        b.conv("classes", b.mean("average", x), 10, norm=False, act=None)
        return b.network()


PLAIN = Variant(name="BFT", group="structure")
VARIANTS = (
    PLAIN,
    Variant(name="dense, 50 channels", group="structure", rule=dense, width=50),
    Variant(name="dense, 50 channels, no residual", group="structure", rule=dense, width=50, residual=None),
    Variant(name="circulant, 50 channels", group="structure", rule=dense, width=50, tied=True),
    Variant(name="low rank, 7", group="structure", rule=chain.low_rank, number=7),
    Variant(name="8 groups", group="structure", rule=chain.grouped, number=8),
    Variant(name="Monarch, 16 blocks", group="structure", rule=chain.monarch, number=16),
    Variant(name="dense, 128 channels", group="width", rule=dense),
    Variant(name="BFT, base 2", group="base", number=2),
    Variant(name="BFT, base 8", group="base", number=8),
    Variant(name="BFT, no residual", group="residual", residual=None),
    Variant(name="BFT, residual every other factor", group="residual", pairs=True),
    Variant(name="BFT, no residual, ReLU inside", group="inside", residual=None, pairs=True, relu=True),
    Variant(name="BFT, residual every other, ReLU inside", group="inside", pairs=True, relu=True),
    Variant(name="BFT, decay", group="decay", decay=0.1),
)


def circulant(values):
    """(1, n, m, 1): each number of a matrix becomes the mean of its diagonal, which goes on around the edge."""
    n, m = values.shape[1:3]
    diagonal = ((torch.arange(m) - torch.arange(n)[:, None]) % max(n, m)).to(values.device)
    sums, counts = (
        values.new_zeros(max(n, m)).index_add(0, diagonal.ravel(), part.ravel())
        for part in (values, torch.ones_like(values))
    )
    return (sums / counts)[diagonal].reshape(values.shape)


def trained(variant, data, seed, epochs, folder, device="cpu"):
    """The float `Network` after so many epochs."""
    torch.manual_seed(seed)
    module = GraphModule(variant.network(seed), norm=True).reset_parameters().float()
    for name, layer in module.layers.items():
        if variant.tied and name.startswith("pointwise"):
            (own,) = layer.chain.factors
            own.data = circulant(own.data)
            own.register_hook(circulant)
    given = [torch.tensor(part) for part in data]
    how = {"batch": BATCH, "rate": RATE, "jitter": {"flip": True}, "plain": max(1, epochs // 5), "decay": variant.decay}
    how |= {"device": device, "path": folder / "run.pt"}
    return images.fit(module, *given, epochs=epochs, seed=seed, **how).to_network()


def judged(name, network, data, tests):
    """({"float": ..., "integers": ...} of the tests, in per cent, by formats of calibration; the integers)."""
    some = data[0][:: max(1, len(data[0]) // images.CALIBRATION)]
    network, formats = prepare(network, settings=SETTINGS, calibration=some / images.SCALE)
    rights = images.told(name, replace(network, formats=formats), *tests)
    rights = (round(float(right), 2) for right in rights)
    return dict(zip(("float", "integers"), rights)), quantise(network, formats)


def costs(network, integers):
    """Of an image, and of the cheapest core of ECP5 that takes at most INTERVAL cycles for it."""
    plan = rtl_gen.choose_for(integers, SETTINGS, interval=INTERVAL).plan
    counted, need = total(network), rtl_gen.estimate(plan)
    own = {"multiplications": counted.operations, "weights": counted.weights, "ROM bits": plan.rom_bits}
    return own | {key: int(need[key]) for key in ("LUT", "DSP", "RAM")}


def run(variant, seed, epochs, data, tests, folder, device):
    """What is kept of a run."""
    network = trained(variant, data, seed, epochs, folder, device)
    result, integers = judged(variant.name, network, data, tests)
    return result | {"epochs": epochs, "device": device} | (costs(network, integers) if seed == 0 else {})


# the paper's (Alizadeh et al., CVPR 2020: MobileNetV1 on CIFAR-10 and ImageNet), and the two that it is about
CLAIMS = (
    ("k = 4 over k = n, dense, at equal cost: 54.3 to 50.6", "BFT", "dense, 50 channels"),
    ("the same, the dense one without residual", "BFT", "dense, 50 channels, no residual"),
    ("BFT over circulant: 54.3 to 35.68", "BFT", "circulant, 50 channels"),
    ("BFT over low rank: 54.3 to 43.78", "BFT", "low rank, 7"),
    ("nothing of groups alone", "BFT", "8 groups"),
    ("nothing of Monarch", "BFT", "Monarch, 16 blocks"),
    ("k = 4 over k = 2", "BFT", "BFT, base 2"),
    ("k = 4 over k = 8", "BFT", "BFT, base 8"),
    ("residual first to last over none: 81.75 to 79.2", "BFT", "BFT, no residual"),
    ("residual first to last over every other: 81.75 to 81.12", "BFT", "BFT, residual every other factor"),
    ("no ReLU between the factors", "BFT, no residual", "BFT, no residual, ReLU inside"),
    ("no ReLU between the factors", "BFT, residual every other factor", "BFT, residual every other, ReLU inside"),
    ("little or no weight decay", "BFT", "BFT, decay"),
)


def kept(path):
    """The runs of a file, "NAME/SEED" -> what is kept of it; none where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def runs_of(found, name):
    """Its runs in the order of their seeds."""
    return [found[key] for key in sorted(found) if key.rpartition("/")[0] == name]


def spread(runs, key):
    values = np.array([one[key] for one in runs])
    return f"{values.mean():.2f}" + (f" ± {error(values):.2f}" if len(values) > 1 else "")


def claim(found, first, second):
    """A difference, seed by seed; None while there are not two seeds of both."""
    pairs = [[one["float"] / 100 for one in runs_of(found, name)] for name in (first, second)]
    count = min(map(len, pairs))
    return difference(*(one[:count] for one in pairs)) if count > 1 else None


PAGE = """\
# What the structure is worth

Is a butterfly better than a dense layer of equal cost? At equal multiplications and weights, floats, per cent of 10,000
test images that are right:
{order}.
On the digits nothing could be told apart
([ablations.md](ablations.md)). Here layers stand in a row, on the complete Fashion-MNIST: 28×28 pixels → 3×3 of
stride 2 to 32 channels → four times depthwise 3×3 (the first of stride 2, so to maps of 7×7) and the layer that is
compared, 128 channels unless its name says more → mean, 10 classes. One choice at a time differs from the first row:
base 4, residual from the first to the last factor, no ReLU inside, no decay of factors. Other structures have as many
multiplications an image and as many weights within 4 %, so as many bits in ROM, and every one of them, the dense one
too, has the residual where it fits (as many outputs as inputs), as an addition costs no multiplication; one dense row
goes without. All are trained alike, 8 epochs of AdamW with one cycle of the rate, every other image flipped but in
the last epoch; nothing was tuned. A circulant matrix has its diagonals tied; hardware gets it as a dense one.

```sh slow
pip install 'bfthw[torch]'
python examples/fashion/study.py            # goes on where it was stopped
python examples/fashion/study.py --write    # this page
```

Each run takes some minutes of one core, or with `--device cuda` of a GPU that fifteen share; what is random is drawn
alike on both. Runs are kept in `examples/fashion/study.json` with the device that trained them, and those that are
there are not made again: `--results FILE` for a file of your own. Accuracy is of the 10,000 test images, mean and
standard error of the seeds; integers have 8-bit weights and 10 bits between layers, formats from calibration, no
training with rounding. LUT, DSP and RAM are those of the cheapest core of ECP5 that takes an image in 12,544 cycles, by
estimate; a LFE5U-85F has 83,640, 156 and 208.

![Accuracy in integers against multiplications, bits in ROM, LUT, DSP and block RAM.](structure.svg)

What makes a multiplication of every weight at every position, as alkaid does at one image a cycle, has no room for
any of these: its 16 values through 128 weights take 5,714 LUT ([benchmark.md](benchmark.md)), 45 a multiplication, so
the 583,110 of the dense network some 26 million, by that rule, where the part has 83,640.

A row of one seed has no error. Differences, below the table where there are two seeds of both ends, are of floats, seed
by seed, mean and standard error; "not to be told apart" is less than two standard errors. Of so few seeds an error is
itself a guess: were there no difference, chance alone would pass two of it three times in ten with two seeds, and still
once in seven with four.

{table}
"""


def document(found, there):
    """The page of the runs there are. there: variants that have one of seed 0."""
    keys = "multiplications", "weights", "ROM bits", "LUT", "DSP", "RAM"
    head = ["structure", "seeds", "floats, %", "integers, %", *keys]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 1)]
    for variant in there:
        runs = runs_of(found, variant.name)
        cells = [variant.name, len(runs), spread(runs, "float"), spread(runs, "integers")]
        lines.append("| " + " | ".join(map(str, [*cells, *(f"{runs[0][key]:,}" for key in keys)])) + " |")
    told = [(text, first, second, claim(found, first, second)) for text, first, second in CLAIMS]
    if claims := [f"| {text} | {first} less {second}: {own} |" for text, first, second, own in told if own]:
        lines += ["", "| the paper | here, in points of accuracy, floats |", "| --- | --- |", *claims]
    equal = [(variant.name, runs_of(found, variant.name)) for variant in there if variant.group == "structure"]
    order = sorted(equal, key=lambda own: -np.mean([one["float"] for one in own[1]]))
    order = "; ".join(f"{name} ({spread(runs, 'float')})" for name, runs in order)
    return PAGE.format(table="\n".join(lines), order=order)


def plot(found, there, path):
    """Accuracy in integers against what it costs, a dot for each variant, its error upright."""
    axes = {
        "thousand multiplications": ("multiplications", 1000), "kbit in ROM": ("ROM bits", 1000), "LUT": ("LUT", 1),
        "DSP": ("DSP", 1), "block RAM": ("RAM", 1),
    }
    figure, (*panels, beside) = plots.pyplot().subplots(1, len(axes) + 1, figsize=(15, 3.8), sharey=True)
    for panel, (label, (key, unit)) in zip(panels, axes.items()):
        for n, variant in enumerate(there):
            runs = runs_of(found, variant.name)
            values, colour = np.array([one["integers"] for one in runs]), plots.COLOURS[n % len(plots.COLOURS)]
            how = {"yerr": error(values) if len(values) > 1 else None, "color": colour, "label": variant.name}
            panel.errorbar(runs[0][key] / unit, values.mean(), fmt="os^Dv"[n // len(plots.COLOURS)], ms=5, **how)
        panel.set(xlabel=label)
        panel.set_xlim(left=0)
    panels[0].set_ylabel("right of 10,000, integers, %")
    beside.axis("off")
    beside.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="center left")
    plots.save(figure, path)


def write(found):
    """docs/structure.md and its plot."""
    there = [variant for variant in VARIANTS if f"{variant.name}/0" in found]
    if not there:
        raise typer.BadParameter("there are no runs yet; without --write they are made")
    files.write(DOCS / "structure.md", document(found, there))
    plot(found, there, DOCS / "structure.svg")


def main(
    data: Annotated[Path, typer.Option(help="Folder of the four IDX files")] = FOLDER,
    epochs: Annotated[int, typer.Option(min=1, max=10)] = 8,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Names of variants; all, without")] = None,
    results: Annotated[Path, typer.Option(help="JSON of the runs; those that are in it are not made again")] = FOUND,
    out: Annotated[Path, typer.Option(help="Folder for the state of a run")] = Path("build/study"),
    device: Annotated[str, typer.Option(help="torch's, to train on: cpu, cuda")] = "cpu",
    tell: Annotated[bool, typer.Option("--write", help="Write docs/structure.md of what there is")] = False,
):
    names = [variant.name for variant in VARIANTS]
    if unknown := {*(only or ())} - {*names}:
        raise typer.BadParameter(f"no variant {', '.join(sorted(unknown))}; there are {'; '.join(names)}")
    if tell:
        return write(kept(results))
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as reason:
        raise typer.BadParameter(f"torch has no device {device} here: {str(reason).splitlines()[0]}") from None
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # all structures in float32, on any device
    data, tests = load("train", data), load("test", data)
    for seed in range(seeds):
        for variant in VARIANTS:
            key = f"{variant.name}/{seed}"
            if key in kept(results) or only and variant.name not in only:
                continue
            images.console.print(key)
            folder = out / key.replace(", ", "-").replace(" ", "-").replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            own = run(variant, seed, epochs, data, tests, folder, device)
            files.write(results, json.dumps(kept(results) | {key: own}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
