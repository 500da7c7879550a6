"""A network as a row of stages: what rounds, one after the other, and where in the map each of them stands."""

from dataclasses import dataclass
from typing import Any

from bfthw import IntFactor, IntNetwork, QFormat
from bfthw.golden import IntNode
from bfthw.window import Shape, Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A factor, or a node without weights.

    name, owner: its own, and its node's. work: what it computes. shape: of the map that it takes. window: in front of
    it, None for none.
    """

    name: str
    owner: str
    work: IntFactor | IntNode
    shape: Shape
    window: Window | None

    @property
    def input(self) -> QFormat:
        return self.work.input if isinstance(self.work, IntFactor) else self.work.formats[0]

    @property
    def output(self) -> QFormat:
        return self.work.output

    @property
    def positions(self) -> int:
        """Of the map that it gives."""
        return (self.shape if self.window is None else self.window.shape(self.shape)).positions

    def frames(self, engine: Any) -> int:
        """Of an Engine, or its class, in one of the network's: those of the map where it takes vectors."""
        return 1 if engine.sees_map else self.positions


def over_maps(stages: tuple[Stage, ...]) -> bool:
    """Whether any of them takes a map."""
    return any(stage.shape.positions > 1 for stage in stages)


def stages_of(network: IntNetwork) -> tuple[Stage, ...]:
    """The stages of a network in a row, in order; ValueError names the node that stands in none."""
    found, shape = [], network.shape
    for node, after in zip(network.layers, network.shapes):
        window = node.node.window if isinstance(node, IntNode) else node.window
        for name, work in node.stages:
            found.append(Stage(name=name, owner=node.name, work=work, shape=shape, window=window))
            if isinstance(work, IntFactor):  # those behind the first see its outputs, where the node gives its own
                shape, window = after._replace(channels=work.pattern.outputs), None
        shape = after
    return tuple(found)
