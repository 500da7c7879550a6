"""The stages of a network: what rounds, one after the other, what each takes and where in the map it stands."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bfthw import IntFactor, IntNetwork, QFormat
from bfthw.chain import Indexed
from bfthw.golden import IntNode
from bfthw.nodes import Pick, Rearrange
from bfthw.window import Shape, Window

INPUT = -1  # among what a stage takes


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A factor, or a node without weights.

    name, owner: its own, and its node's. work: what it computes. shape, after: of the map that it takes, and of the one
    that it gives. window: in front of it, None for none. takes: numbers of the stages whose outputs it takes, INPUT for
    the network's input; the second one is added, or gates, or is a matrix. residual: whether that is its node's own
    input.
    """

    name: str
    owner: str
    work: IntFactor | IntNode
    shape: Shape
    after: Shape
    window: Window | None
    takes: tuple[int, ...]
    residual: bool

    @property
    def input(self) -> QFormat:
        return self.work.input if isinstance(self.work, IntFactor) else self.work.formats[0]

    @property
    def output(self) -> QFormat:
        return self.work.output

    def frames(self, engine: Any) -> int:
        """Of an Engine, or its class, in one of the network's: the map's vectors where it takes these one by one."""
        return 1 if engine.sees_map else self.after.size // self.work.pattern.outputs


def over_maps(stages: tuple[Stage, ...]) -> bool:
    """Whether any of them takes a map."""
    return any(stage.shape.positions > 1 for stage in stages)


@lru_cache(maxsize=4)
def stages_of(network: IntNetwork) -> tuple[Stage, ...]:
    """The stages of a network, in an order in which each stands behind what it takes."""
    found, last, shapes = [], [INPUT], (network.shape, *network.shapes)  # the last stage of what each source stands for
    for node, after, own in zip(network.layers, network.shapes, network.sources):
        inner = node.node if isinstance(node, IntNode) else node
        if isinstance(inner, Pick):
            found += _picked(node, [shapes[source] for source in own], [last[source] for source in own], len(found))
            last.append(len(found) - 1)
            continue
        if isinstance(inner, Rearrange):
            found.append(_rearranged(node, after, shapes[own[0]].size, last[own[0]]))
            last.append(len(found) - 1)
            continue
        source, *added = own
        window = getattr(inner, "window", None)
        shape, takes = shapes[source], last[source]
        for k, (name, work) in enumerate(node.stages, 1):
            joins = [last[other] for other in added] if k == len(node.stages) else []
            gives = after._replace(channels=work.pattern.outputs) if isinstance(work, IntFactor) else after
            own = {"name": name, "owner": node.name, "work": work, "shape": shape, "after": gives, "window": window}
            found.append(Stage(takes=(takes, *joins), residual=bool(joins) and added == [source], **own))
            takes, shape, window = len(found) - 1, gives, None
        last.append(takes)
    return tuple(found)


def _rearranged(node, after, size, takes):
    """The stage of a Rearrange: an indexed factor of ones on the whole map of so many numbers, as it comes."""
    factor = IntFactor(
        values=np.ones((after.size, 1, 1, 1), int), support=Indexed(node.node.index[:, None], size),
        input=node.formats[0], weights=QFormat(1, 0, signed=False), output=node.output,
    )
    return Stage(
        name=node.name, owner=node.name, work=factor, shape=Shape.of(size), after=after, window=None, takes=(takes,),
        residual=False,
    )


def _picked(node, shapes, takes, number):
    """The stages of a Pick, of so many of other nodes before them: of each input an indexed factor of ones puts its
    channels into their places, zeros between them, and adds what those behind it have put there. takes: the stage of
    each input.
    """
    rest = node.formats[1:]
    # exactly what all the others hold together
    frac, signed = max((fmt.frac for fmt in rest), default=0), any(fmt.signed for fmt in rest)
    width = max((fmt.width + frac - fmt.frac + (signed and not fmt.signed) for fmt in rest), default=1)
    together = rest[0] if len(rest) == 1 else QFormat(width, frac, signed)
    starts = np.cumsum([0, *(shape.channels for shape in shapes)])
    index = np.arange(starts[-1]) if node.node.index is None else node.node.index
    found = []
    for k in reversed(range(len(shapes))):
        here = (index >= starts[k]) & (index < starts[k + 1])
        places = Indexed(np.where(here, index - starts[k], 0)[:, None], shapes[k].channels)
        factor = IntFactor(
            values=here.astype(int).reshape(-1, 1, 1, 1), support=places, input=node.formats[k],
            weights=QFormat(1, 0, signed=False), output=together if k else node.output,
            skip_input=together if found else None,
        )
        joins = [number + len(found) - 1] if found else []
        name = f"{node.name}:{k}" if k else node.name
        found.append(
            Stage(
                name=name, owner=node.name, work=factor, shape=shapes[k], window=None, takes=(takes[k], *joins),
                after=shapes[k]._replace(channels=len(index)), residual=False,
            )
        )
    return found
