"""Networks of the papers at the command line: what they would cost, before anything is trained."""

from ... import models
from ...models import costs
from ...table import Table
from ..console import console


def show(name, **how):
    """Print the layers of a network, its cost by every convention, and what was published of it; see `models.model`."""
    model = models.model(name, **{key: value for key, value in how.items() if value is not None})
    console.print(_table(model))
    for convention, meaning in costs.CONVENTIONS.items() if model.fusion in models.BLOCKS else ():
        millions = costs.total(model, convention).operations / 1e6
        console.print(f"{millions:9.2f} M  {convention}: {meaning}", soft_wrap=True)
    for row in costs.PUBLISHED:
        if row.of(model):
            console.print(f"{row.millions:6d}    M  published: {row.source}", markup=False)


def _table(model):
    size = f"{model.resolution} points" if model.name == "pointnet" else f"{model.resolution} px"
    title = f"{model.name}, width {model.width:g}, {size}, {model.fusion}"
    table = Table(title, "layer", "made of", ">in", ">out", ">places", ">dense", ">weights", ">mult")
    dense = 0
    for layer in model.layers:
        kind = f"{layer.kernel}x{layer.kernel}" + " depthwise" * (layer.groups > 1)
        if layer.chain is not None:
            kind = f"{len(layer.patterns)} factors" + " + x" * layer.skip
        cost = costs.cost(layer)
        figures = layer.inputs, layer.outputs, layer.positions, layer.dense_weights, cost.weights, cost.operations
        table.add_row(layer.name, kind, *map(str, figures))
        dense += layer.dense_weights
    table.add_section()
    total = costs.total(model)
    share = f"{100 * total.weights / dense:.2f} %" if model.fusion != "dense" else ""
    table.add_row("all", share, "", "", "", str(dense), str(total.weights), str(total.operations), total=True)
    return table
