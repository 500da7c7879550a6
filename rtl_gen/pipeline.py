"""A whole integer network as a pipeline of engines: what a Plan says, as a component."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .fifo import QUEUE, LinkFifo, Queue
from .plan import Plan, costed
from .signals import beat, count
from .stream import ENTRY, Fork, FromStream, Gearbox, Link


class Pipeline(wiring.Component):
    """The engines in a row, each vector in natural order, in the network's formats.

    Parameters
    ----------
    plan : Plan

    Members
    -------
    i : In(stream.Signature(beat)), o : Out(Link(beat))
        `lanes_in * vectors` elements of the input's format a beat; `lanes_out * vectors` of the output's.
    saturated : Out
        values that some stage clipped, some cycles ago.
    """

    def __init__(self, plan):
        self.plan, self.target = plan, costed(plan.target, plan.roms)
        q = plan.network
        super().__init__(
            {
                "i": In(stream.Signature(beat(q.input, plan.lanes_in * plan.vectors))),
                "o": Out(Link(beat(q.output, plan.lanes_out * plan.vectors))),
                "saturated": Out(range(sum(engine.lanes_out for engine in plan.engines) * plan.vectors + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clipped = []
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        at, flight, number = entry.o, ENTRY, 0
        for l, layer in enumerate(self.plan.layers):
            for engine in layer:
                queue = self.plan.queues[number]
                at, flight = self._convert(m, at, engine.lanes_in, flight, f"convert_{number}", queue)
                if engine is layer[0] and self.plan.skip_depths[l]:
                    m.submodules[f"fork_{l}"] = fork = Fork(at.payload.shape())
                    wiring.connect(m, at, fork.i)
                    at, skip_flight, skip = fork.a, flight, fork.b
                m.submodules[f"stage_{number}"] = part = engine.component()
                wiring.connect(m, at, part.i)
                if engine.takes_skip:
                    wide = max(layer[0].lanes_in, engine.lanes_out)
                    skip, _ = self._convert(m, skip, wide, skip_flight, f"skip_convert_{l}")
                    m.submodules[f"skip_{l}"] = queue = LinkFifo(
                        skip.payload.shape(), self.plan.skip_depths[l], self.target
                    )
                    wiring.connect(m, skip, queue.i)
                    wiring.connect(m, self._gear(m, queue.o, wide, engine.lanes_out, f"skip_gear_{l}"), part.skip)
                clipped.append(part.saturated)
                at, flight, number = part.o, engine.output_flight, number + 1
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
        before = link.payload.shape().length // self.plan.vectors
        if before == lanes and queue is None:
            return link, flight
        depth = flight + QUEUE + (queue or 0)
        m.submodules[f"{name}_fifo"] = queue = LinkFifo(link.payload.shape(), depth, self.target)
        wiring.connect(m, link, queue.i)
        source = self._gear(m, queue.o, before, lanes, f"{name}_gear")
        elements = lanes * self.plan.vectors
        shape = beat(len(source.payload.as_value()) // elements, elements)
        m.submodules[name] = entry = FromStream(shape)
        wiring.connect(m, source, entry.i)
        return entry.o, ENTRY


class Network(wiring.Component):
    """The pipeline between two streams.

    Parameters
    ----------
    plan : Plan

    Members
    -------
    i : In(stream.Signature(beat)), o : Out(stream.Signature(beat)), saturated : Out
        as of a Pipeline; `o` may stall.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipeline = Pipeline(plan)
        ports = {name: port for name, port in self.pipeline.signature.members.items() if name != "o"}
        super().__init__(ports | {"o": Out(stream.Signature(self.pipeline.o.payload.shape()))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pipeline = pipeline = self.pipeline
        m.submodules.exit = queue = LinkFifo(self.o.payload.shape(), self.plan.exit_depth)
        wiring.connect(m, wiring.flipped(self.i), pipeline.i)
        wiring.connect(m, pipeline.o, queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.comb += self.saturated.eq(pipeline.saturated)
        return m


def cost(tally, plan):
    """Of a Pipeline, without what its last link ends in."""
    width = plan.network.input.width * plan.lanes_in * plan.vectors
    FromStream.cost(tally, width)
    lanes, flight = plan.lanes_in, ENTRY
    for engine, queue in zip(plan.engines, plan.queues):
        engine_cost(tally, engine, lanes, flight, queue)
        lanes, flight = engine.lanes_out, engine.output_flight
    for layer, depth in zip(plan.layers, plan.skip_depths):
        if depth:
            first, out = layer[0], layer[-1].lanes_out
            lanes, bits = max(first.lanes_in, out), first.takes.width * plan.vectors
            if first.lanes_in != lanes:
                Queue.cost(tally, first.flight + QUEUE, first.lanes_in * bits, may_be_deep=True)
                Gearbox.cost(tally, bits, first.lanes_in, lanes)
                FromStream.cost(tally, lanes * bits)
            Queue.cost(tally, depth, lanes * bits, may_be_deep=True)
            if lanes != out:
                Gearbox.cost(tally, bits, lanes, out)


def engine_cost(tally, engine, lanes, flight, queue):
    """An Engine and what is in front of it, behind an engine of so many lanes and cycles from grant to arrival."""
    between_cost(tally, engine, lanes, flight, queue)
    own_cost(tally, engine)


def between_cost(tally, engine, lanes, flight, queue):
    """A queue, a gearbox, a FromStream, where lanes change or beats must wait."""
    bits = engine.takes.width * engine.vectors
    if lanes != engine.lanes_in or queue is not None:
        Queue.cost(tally, flight + QUEUE + (queue or 0), lanes * bits, may_be_deep=True)
        if lanes != engine.lanes_in:
            Gearbox.cost(tally, bits, lanes, engine.lanes_in)
        FromStream.cost(tally, engine.lanes_in * bits)


def own_cost(tally, engine):
    """An Engine, and its part of the count of clipped values."""
    engine.cost(tally)
    clipped = (engine.lanes_out * engine.vectors).bit_length()
    tally.add(clipped * 1.5, clipped * 1.5)
