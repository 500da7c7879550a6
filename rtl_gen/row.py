"""A network as a row of stages: what rounds, one after the other, and where in the map each of them stands."""

from dataclasses import dataclass

from bfthw import IntFactor, IntNetwork, QFormat
from bfthw.golden import IntNode
from bfthw.window import Shape, Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A factor, or a node without weights.

    name, owner: its own, and its node's. work: what it computes. shape: of the map that it takes. window: in front of
    it, None for none. whole: it is all of its node. last: it is its node's last.
    """

    name: str
    owner: str
    work: IntFactor | IntNode
    shape: Shape
    window: Window | None
    last: bool

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


def stages_of(network: IntNetwork) -> tuple[Stage, ...]:
    """The stages of a network in a row, in order; ValueError names the node that stands in none."""
    found, shape = [], network.shape
    for node, given in zip(network.layers, network.shapes):
        window = node.node.window if isinstance(node, IntNode) else node.window
        for n, (name, work) in enumerate(node.stages):
            last = n == len(node.stages) - 1
            found.append(Stage(name=name, owner=node.name, work=work, shape=shape, window=window, last=last))
            outputs = found[-1].positions
            if isinstance(work, IntFactor):
                shape, window = (window.shape(shape) if window else shape)._replace(channels=work.pattern.outputs), None
            assert outputs == given.positions
        shape = given
    return tuple(found)
