"""A whole integer network as a pipeline of engines: what a Plan says, as a component."""

from collections import Counter

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .fifo import QUEUE, LinkFifo, Queue
from .plan import Plan, costed
from .signals import beat, count, through
from .stages import INPUT
from .stream import Fork, FromStream, Gearbox, Link, Skid
from .tech import technology
from .timetable import Join


class Pipeline(wiring.Component):
    """The engines, each behind what it takes, each vector in natural order, in the network's formats.

    Parameters
    ----------
    plan : Plan

    Members
    -------
    i : In(stream.Signature(beat)), o : Out(Link(beat))
        `lanes_in * vectors` elements of the input's format a beat; `lanes_out * vectors` of the output's.
    saturated : Out
        values that some stage clipped, some cycles ago.

    And what engines have `outside`.
    """

    def __init__(self, plan):
        self.plan, self.target = plan, costed(plan.target, plan.roms)
        q = plan.network
        super().__init__(
            {
                "i": In(stream.Signature(beat(q.input, plan.lanes_in * plan.vectors))),
                "o": Out(Link(beat(q.output, plan.lanes_out * plan.vectors))),
                "saturated": Out(range(sum(engine.rounds for engine in plan.engines) + 1)),
            }
            | plan.outside
        )

    def elaborate(self, platform):
        m = Module()
        plan, clipped = self.plan, []
        m.submodules.entry = entry = FromStream(self.i.payload.shape())
        wiring.connect(m, wiring.flipped(self.i), entry.i)
        # what is there to be taken, where an engine gives it or where it goes into one, and how often it is
        links = {Join(INPUT, False): entry.o}
        wanted = Counter([*(Join(source, False) for source in plan.sources), *filter(None, plan.joins)])

        def taken(where, name):
            wanted[where] -= 1
            if not wanted[where]:
                return links.pop(where)
            m.submodules[name] = fork = Fork(links[where].payload.shape())
            wiring.connect(m, links[where], fork.i)
            links[where] = fork.b
            return fork.a

        for number, (engine, source, join) in enumerate(zip(plan.engines, plan.sources, plan.joins)):
            at, layer, here = taken(Join(source, False), f"to_{number}"), plan.layer(number), Join(number, True)
            at = self._convert(
                m, at, engine.lanes_in, plan.end(source)[1], f"convert_{number}", plan.queues[number]
            )
            if wanted[here]:
                links[here], wanted[here] = at, wanted[here] + 1
                at = taken(here, f"fork_{layer}")
            m.submodules[f"stage_{number}"] = part = engine.component()
            wiring.connect(m, at, part.i)
            if join is not None:
                skip, depth = plan.skip(number), plan.skip_depths[number]
                own, n = ("skip", layer) if join.inside else ("join", number)
                what = self._convert(m, taken(join, f"{own}_to_{n}"), skip.wide, skip.flight, f"{own}_convert_{n}")
                m.submodules[f"{own}_{n}"] = queue = LinkFifo(what.payload.shape(), depth, self.target)
                wiring.connect(m, what, queue.i)
                wiring.connect(m, self._gear(m, queue.o, skip.wide, engine.lanes_out, f"{own}_gear_{n}"), part.skip)
            links[Join(number, False)] = part.o
            clipped.append(part.saturated)
            through(m, self, part, engine.outside)
        m.d.comb += self.saturated.eq(count(m, clipped, "saturated", reset=True))
        wiring.connect(m, part.o, wiring.flipped(self.o))
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
        """A link to one of other lanes, of which ENTRY cycles pass between grant and arrival."""
        before = link.payload.shape().length // self.plan.vectors
        if before == lanes and queue is None:
            return link
        depth = flight + QUEUE + (queue or 0)
        m.submodules[f"{name}_fifo"] = queue = LinkFifo(link.payload.shape(), depth, self.target)
        wiring.connect(m, link, queue.i)
        source = self._gear(m, queue.o, before, lanes, f"{name}_gear")
        elements = lanes * self.plan.vectors
        shape = beat(len(source.payload.as_value()) // elements, elements)
        if before == lanes and technology(self.target).free_registers:  # a gearbox answers from its registers
            m.submodules[f"{name}_skid"] = skid = Skid(shape)
            wiring.connect(m, source, skid.i)
            source = skid.o
        m.submodules[name] = entry = FromStream(shape)
        wiring.connect(m, source, entry.i)
        return entry.o


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
        through(m, self, pipeline, self.plan.outside)
        return m


def cost(tally, plan):
    """Of a Pipeline, without what its last link ends in."""
    width = plan.network.input.width * plan.lanes_in * plan.vectors
    FromStream.cost(tally, width)
    for number, (engine, source, queue) in enumerate(zip(plan.engines, plan.sources, plan.queues)):
        engine_cost(tally, engine, *plan.end(source), queue)
        if plan.joins[number] is not None:
            skip_cost(tally, plan.skip(number), plan.skip_depths[number], engine.lanes_out)


def skip_cost(tally, skip, depth, lanes):
    """What a Skip takes, up to an engine of so many lanes."""
    if skip.lanes != skip.wide:
        Queue.cost(tally, skip.flight + QUEUE, skip.lanes * skip.bits, may_be_deep=True)
        Gearbox.cost(tally, skip.bits, skip.lanes, skip.wide)
        FromStream.cost(tally, skip.wide * skip.bits)
    Queue.cost(tally, depth, skip.wide * skip.bits, may_be_deep=True)
    if skip.wide != lanes:
        Gearbox.cost(tally, skip.bits, skip.wide, lanes)


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
        elif tally.tech.free_registers:
            Skid.cost(tally, lanes * bits)
        FromStream.cost(tally, engine.lanes_in * bits)


def own_cost(tally, engine):
    """An Engine, and its part of the count of clipped values."""
    engine.cost(tally)
    clipped = engine.rounds.bit_length()
    tally.add(clipped * 1.5, clipped * 1.5)
