"""python examples/model_costs.py docs/models.md: write the tables of costs into a document, between its two marks."""

import sys
from pathlib import Path

from bfthw import files
from bfthw.models import costs, model

BEGIN, END = "<!-- costs -->\n", "<!-- end of costs -->\n"


def millions(value):
    return f"{value / 1e6:.2f}"


def published():
    """Every published figure of the CVPR paper and of its first version, beside our counts; * where they agree."""
    yield "| network | width | px | published M | " + " | ".join(costs.CONVENTIONS) + " | compared | deviation |"
    yield "| --- |" + " ---: |" * (len(costs.CONVENTIONS) + 3) + " --- | ---: |"
    for row in costs.PUBLISHED:
        made = row.model()
        counts = {name: costs.total(made, name).operations for name in costs.CONVENTIONS}
        if row.fusion == "dense":
            cells = [millions(counts["exact"]) + "*" * row.agrees(counts["exact"])] * len(counts)
            cells = ["" if name != "exact" else cell for name, cell in zip(counts, cells)]
        else:
            cells = [millions(count) + "*" * row.agrees(count) for count in counts.values()]
        count = counts[row.convention]
        deviation = f"{100 * (count / 1e6 / row.millions - 1):+.1f} %" + " **no**" * (not row.agrees(count))
        name = row.name + (" + BFT" if row.fusion == "bft" else "")
        compared = row.convention if row.fusion == "bft" else ""
        about = name, f"{row.width:g}", str(row.resolution), f"{row.millions} ({row.source})"
        yield f"| {' | '.join([*about, *cells, compared, deviation])} |"


def weights():
    """Weights of matrices and kernels; those of the fusions apart from the rest."""
    yield "| network | weights, dense | weights, chains | share | mult M, dense | mult M, chains |"
    yield "| --- |" + " ---: |" * 5
    for name, width, fusion in (
        ("mobilenetv1", 1.0, "bft"),
        ("shufflenetv2", 1.25, "bft"),
        ("mobilenetv3-small", 0.5, "bft"),
        ("pointnet", 1, "debut"),
        ("pointnet", 1, "debut-big"),
        ("pointnet", 1, "bft"),
    ):
        dense, chains = (costs.total(model(name, width=width, fusion=how)) for how in ("dense", fusion))
        share = f"{100 * chains.weights / dense.weights:.2f} %"
        figures = f"{dense.weights:,}", f"{chains.weights:,}", share
        figures += millions(dense.operations), millions(chains.operations)
        yield f"| {' | '.join([f'{name} {width:g}, {fusion}', *figures])} |"


def tables():
    return "\n".join([*published(), "", *weights()]) + "\n"


def main(path):
    text = Path(path).read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{path}: needs the lines {BEGIN.strip()!r} and {END.strip()!r}, once each")
    head, rest = text.split(BEGIN)
    files.write(path, head + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
