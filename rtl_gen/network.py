"""A whole integer network as a pipeline of engines."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .fold import Fold
from .foldspec import FoldSpec
from .netspec import NetworkSpec
from .spatial import Spatial, SpatialSpec
from .spec import StageSpec
from .stage import Stage
from .stream import ENTRY, QUEUE, Fork, FromStream, Gearbox, Link, LinkFifo, beat, count

_COMPONENTS = {StageSpec: Stage, FoldSpec: Fold, SpatialSpec: Spatial}


class Pipeline(wiring.Component):
    """The engines: a stream of beats `i` and a link `o`, in natural order, in the network's formats.

    `saturated`: values that some stage clipped, some cycles ago.
    """

    def __init__(self, spec: NetworkSpec):
        self.spec = spec
        q = spec.network
        super().__init__(
            {
                "i": In(stream.Signature(beat(q.input.width, spec.lanes_in * spec.vectors))),
                "o": Out(Link(beat(q.output.width, spec.lanes_out * spec.vectors))),
                "saturated": Out(range(sum(stage.lanes_out for stage in spec.stages) * spec.vectors + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clipped = []
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        at, flight, number = entry.o, ENTRY, 0
        for l, layer in enumerate(self.spec.layers):
            for stage in layer:
                queue = self.spec.queues[number]
                at, flight = self._convert(m, at, stage.lanes_in, flight, f"convert_{number}", queue)
                if stage is layer[0] and self.spec.skip_depths[l]:
                    m.submodules[f"fork_{l}"] = fork = Fork(at.payload.shape())
                    wiring.connect(m, at, fork.i)
                    at, skip_flight, skip = fork.a, flight, fork.b
                m.submodules[f"stage_{number}"] = part = _COMPONENTS[type(stage)](stage)
                wiring.connect(m, at, part.i)
                if stage.takes_skip:
                    wide = max(layer[0].lanes_in, stage.lanes_out)
                    skip, _ = self._convert(m, skip, wide, skip_flight, f"skip_convert_{l}")
                    m.submodules[f"skip_{l}"] = queue = LinkFifo(skip.payload.shape(), self.spec.skip_depths[l])
                    wiring.connect(m, skip, queue.i)
                    wiring.connect(m, self._gear(m, queue.o, wide, stage.lanes_out, f"skip_gear_{l}"), part.skip)
                clipped.append(part.saturated)
                at, flight, number = part.o, stage.output_flight, number + 1
        m.d.comb += self.saturated.eq(count(m, clipped, "saturated", reset=True))
        wiring.connect(m, at, wiring.flipped(self.o))
        return m

    def _gear(self, m, source, before, after, name):
        """A stream of `before` lanes to one of `after` lanes."""
        if before == after:
            return source
        # an element is that of all vectors
        m.submodules[name] = gearbox = Gearbox(len(source.payload.as_value()) // before, before, after)
        wiring.connect(m, source, gearbox.i)
        return gearbox.o

    def _convert(self, m, link, lanes, flight, name, queue=None):
        """A link to one of other lanes, and the cycles between grant and arrival there."""
        before = link.payload.shape().length // self.spec.vectors
        if before == lanes and queue is None:
            return link, flight
        m.submodules[f"{name}_fifo"] = queue = LinkFifo(link.payload.shape(), flight + QUEUE + (queue or 0))
        wiring.connect(m, link, queue.i)
        source = self._gear(m, queue.o, before, lanes, f"{name}_gear")
        elements = lanes * self.spec.vectors
        shape = beat(len(source.payload.as_value()) // elements, elements)
        m.submodules[name] = entry = FromStream(shape)
        wiring.connect(m, source, entry.i)
        return entry.o, ENTRY


class Network(wiring.Component):
    """The pipeline between two streams."""

    def __init__(self, spec: NetworkSpec):
        self.spec = spec
        self.pipeline = Pipeline(spec)
        ports = {name: port for name, port in self.pipeline.signature.members.items() if name != "o"}
        super().__init__(ports | {"o": Out(stream.Signature(self.pipeline.o.payload.shape()))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pipeline = pipeline = self.pipeline
        m.submodules.exit = queue = LinkFifo(self.o.payload.shape(), self.spec.exit_depth)
        wiring.connect(m, wiring.flipped(self.i), pipeline.i)
        wiring.connect(m, pipeline.o, queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.comb += self.saturated.eq(pipeline.saturated)
        return m
