"""Plots of what quantisation costs, as SVG, PNG or PDF; matplotlib is loaded when the first is drawn."""

import io
from pathlib import Path

import numpy as np

from . import files
from .golden import short_stage

COLOURS = ("#2d74b5", "#c98a1b", "#3b8f4a", "#7d4bab", "#8a8a8a")


def check_path(path):
    """The path of a plot; ValueError where its suffix names no kind of plot there is."""
    if Path(path).suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"{path}: a plot's name must end in .svg, .png or .pdf")
    return Path(path)


def pyplot():
    """matplotlib.pyplot, set to give the same file for the same figures; ImportError says what to install."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'bfthw[plots]'") from None
    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "bfthw", "svg.fonttype": "none", "font.size": 9, "axes.grid": True}
    matplotlib.rcParams |= {"grid.alpha": 0.3, "axes.axisbelow": True}
    from matplotlib import pyplot

    return pyplot


def save(figure, path):
    path, drawn = check_path(path), io.BytesIO()
    kind, metadata = path.suffix[1:], {"Date": None, "Creator": None} if path.suffix == ".svg" else None
    figure.tight_layout()
    figure.savefig(drawn, format=kind, dpi=120, metadata=metadata)
    pyplot().close(figure)
    data = drawn.getvalue()
    if kind == "svg":  # without the spaces that matplotlib leaves at line ends
        data = b"\n".join(map(bytes.rstrip, data.splitlines())) + b"\n"
    files.write(path, data)


def stages(axes, reports):
    """SQNR of the chain up to each stage, and of each stage alone. reports: of noise.report."""
    place, finite = np.arange(len(reports)), [r.own for r in reports if np.isfinite(r.own)]
    top = max(finite, default=0)
    # what is exact has no SQNR to draw
    axes.bar(place, [r.own if np.isfinite(r.own) else 0 for r in reports], color="#c9d8e8", label="the stage alone")
    shown = [(n, r.sqnr) for n, r in enumerate(reports) if np.isfinite(r.sqnr)]
    axes.plot(*zip(*shown), "o-", color=COLOURS[0], label="chain so far")
    for n, r in enumerate(reports):
        if r.own == np.inf:
            axes.text(n, 0.02 * top, "exact", ha="center", rotation=90)
    axes.set_xticks(place, [short_stage(r.name) for r in reports], rotation=45, ha="right")
    axes.set(ylabel="SQNR, dB")
    axes.set_ylim(top=1.3 * top or 1)
    axes.legend(fontsize=7, loc="upper right")


def against_bits(axes, lines, what, y="sqnr"):
    """lines: label -> [sweep.Point]. what: whose bits. y: sqnr or accuracy."""
    for n, (label, points) in enumerate(lines.items()):
        factor = 100 if y == "accuracy" else 1
        axes.plot(
            [p.bits for p in points],
            [factor * getattr(p, y) for p in points],
            "os^Dv"[n % 5] + "-",
            ms=4,
            label=label,
            color=COLOURS[n % len(COLOURS)],
        )
    axes.set_xticks(sorted({p.bits for points in lines.values() for p in points}))
    axes.set(xlabel=f"bits of {what}", ylabel="accuracy, %" if y == "accuracy" else "SQNR, dB")
    if len(lines) > 1:
        axes.legend(fontsize=7)


def report(path, reports, weights, activations):
    """The stages, and SQNR (with labels accuracy too) against bits. weights, activations: [sweep.Point]."""
    rows = 1 + (weights[0].accuracy is not None)
    figure, axes = pyplot().subplots(rows, 2, figsize=(9, 3.4 * rows), squeeze=False)
    stages(axes[0, 0], reports)
    lines = {"weights": weights, "activations": activations}
    against_bits(axes[0, 1], lines, "weights or activations")
    if rows == 2:
        against_bits(axes[1, 0], {"weights": weights}, "weights", "accuracy")
        against_bits(axes[1, 1], {"activations": activations}, "activations", "accuracy")
    save(figure, path)
