"""Networks of the papers at the command line: what they would cost, before anything is trained."""

from ... import models
from ...models import costs
from ...table import Table
from ..console import console


def show(name, **how):
    """Print the layers of a network, its cost by every convention, and what was published of it; see `models.model`."""
    how = {"width": 1.0, "fusion": "bft", "base": 4} | {key: value for key, value in how.items() if value is not None}
    network = models.model(name, **how)
    how["resolution"] = network.shape.height
    size = f"{how['resolution']} {'points' if name == 'pointnet' else 'px'}"
    console.print(_table(network, f"{name}, width {how['width']:g}, {size}, {how['fusion']}"))
    for convention, meaning in costs.CONVENTIONS.items() if how["fusion"] in models.BLOCKS else ():
        millions = costs.total(network, convention, how["base"]).operations / 1e6
        console.print(f"{millions:9.2f} M  {convention}: {meaning}", soft_wrap=True)
    for row in costs.PUBLISHED:
        if (row.name, row.how()) == (name, {key: how[key] for key in row.how()}):
            console.print(f"{row.millions:6d}    M  published: {row.source}", markup=False)


def _table(network, title):
    table = Table(title, "layer", "made of", ">in", ">out", ">places", ">dense", ">weights", ">mult")
    dense = 0
    for layer, shape in costs.placed(network):
        kernel, chain = (1, 1) if layer.window is None else layer.window.size, layer.chain
        inputs, matrix, cost = chain.inputs // (kernel[0] * kernel[1]), costs.dense(layer), costs.cost(layer)
        kind = "x".join(map(str, kernel)) + " depthwise" * (matrix < chain.inputs * chain.outputs)
        if len(chain.factors) > 1:
            kind = f"{len(chain.factors)} factors" + " + x" * layer.adds
        figures = inputs, chain.outputs, shape.positions, matrix, cost.weights, cost.weights * shape.positions
        table.add_row(layer.name, kind, *map(str, figures))
        dense += matrix
    table.add_section()
    total = costs.total(network)
    share = f"{100 * total.weights / dense:.2f} %" if total.weights != dense else ""
    table.add_row("all", share, "", "", "", str(dense), str(total.weights), str(total.operations), total=True)
    return table
