"""The component of a Tiled engine: a store with one port, two banks of words, and what instructions do with these."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...signals import beat, delay, through
from ...stream import Link
from ...tech import READ, technology
from ..sequential.operands import operands
from ..words import to_bits
from .boot import Boot
from .code import BEAT_BITS, FLASH, STORE, STORE_BITS, WIDTH
from .control import control, loops
from .program import BEAT, LANES, ROWS
from .results import UNITS, results
from .timing import STORED, TO_OPERANDS
from .walks import walks


class TiledUnit(wiring.Component):
    """The component of a Tiled.

    Parameters
    ----------
    engine : Tiled

    Members
    -------
    i : In(Link), o : Out(Link)
        a number a beat, position by position, channels fastest.
    saturated : Out
        values that were clipped, some cycles later.
    flash_select : Out(1), flash_clock : Out(1), flash_out : Out(1), flash_in : In(1), where memories have to be filled
        those of a Boot.
    """

    def __init__(self, engine):
        self.engine, self.code, self.tech = engine, engine.code, technology(engine.target)
        super().__init__(
            {
                "i": In(Link(beat(engine.takes, 1))), "o": Out(Link(beat(engine.gives, 1))),
                "saturated": Out(range(UNITS + 1)),
            }
            | engine.outside
        )

    def elaborate(self, platform):
        m = Module()
        code, tech = self.code, self.tech
        # what is asked of the store: one thing a cycle
        port = SimpleNamespace(
            address=Signal(STORE_BITS, name="store_address"), write=Signal(name="store_write"),
            mask=Signal(BEAT, name="store_mask"), data=Signal(BEAT_BITS, name="store_data"),
        )
        stored = tech.store(m, "store", depth=STORE, width=BEAT_BITS, init=code.store, grain=WIDTH, **vars(port))
        boot = self._boot(m)
        run = control(m, code, boot.done, stored)
        walk = walks(m, run, self.i, self.o, code.layers[0].shape.size, stored)
        turn = loops(m, tech, code, run, walk)
        result = SimpleNamespace(
            keeps=Signal(name="bank_write"), row=Signal(range(ROWS), name="bank_row"),
            word=Signal(LANES * WIDTH, name="bank_word"),
        )
        row = Mux(run.now.loads, walk.row, result.row)
        halves = [Mux(run.now.loads, stored, result.word[at : at + BEAT_BITS]) for at in (0, BEAT_BITS)]
        writes = [
            [(load | result.keeps & (run.now.bank != n), row, half) for load, half in zip(loads, halves)]
            for n, loads in enumerate(walk.loads)
        ]
        xs, whole = operands(
            m, tech, code, lanes=LANES, width=WIDTH, depth=ROWS, step=turn.step, read=turn.read, address=turn.address,
            writes=writes, late=False,
        )
        whole = whole & delay(m, turn.active, READ, "active")
        own = results(
            m, tech, code, run, turn, xs=xs, weight=self._weights(m, boot, run, turn, whole), adds=whole, stored=stored,
            start=walk.start,
        )
        m.d.comb += [getattr(result, name).eq(getattr(own, name)) for name in ("keeps", "row", "word")]
        m.d.comb += self.saturated.eq(own.clips)
        everything = (1 << BEAT) - 1
        for enable, address, *written in (
            (run.fetching, run.fetch_at), (walk.reads, walk.at), (walk.writes, walk.at, walk.data, walk.mask),
            (own.reads, own.read_at), (own.stores, own.place, own.data, everything),
            (boot.stores, boot.address, boot.word.replicate(BEAT // 2), boot.mask),
        ):
            with m.If(enable):
                m.d.comb += port.address.eq(address)
                if written:
                    m.d.comb += [port.write.eq(1), port.data.eq(written[0]), port.mask.eq(written[1])]
        return m

    def _boot(self, m):
        """Weights, then what stands behind the maps, out of a flash: `done`; `stores` and `weighs`, whether `word` goes
        to `address` of the store, its part `mask`, or of the weights.
        """
        if not self.engine.outside:
            nothing = dict.fromkeys(("stores", "weighs", "address", "mask"), Const(0, 1))
            return SimpleNamespace(done=Const(1, 1), word=Const(0, 2 * WIDTH), **nothing)
        m.submodules.boot = boot = Boot(len(self.code.flash) // 2, FLASH)
        through(m, self, boot, self.engine.outside)
        at = Signal(STORE_BITS, name="boot_address", reset_less=True)
        part = Signal(BEAT // 2, name="boot_part", init=1, reset_less=True)
        stores = Signal(name="boot_stores", reset_less=True)
        with m.If(boot.write):
            with m.If(stores):
                m.d.sync += [part.eq(part.rotate_left(1)), at.eq(at + part[-1])]
            with m.Else():
                m.d.sync += at.eq(at + 1)
                with m.If(at == len(self.code.pairs) - 1):
                    m.d.sync += [stores.eq(1), at.eq(self.code.first_row)]
        return SimpleNamespace(
            done=boot.done, word=boot.word, stores=boot.write & stores, weighs=boot.write & ~stores, address=at,
            mask=Cat(part[n // 2] for n in range(BEAT)),
        )

    def _weights(self, m, boot, run, turn, whole):
        """The weight of a turn's products, TO_OPERANDS cycles after it. whole: whether it has any, READ after it."""
        now, lag = run.now, TO_OPERANDS - 1 - STORED
        takes = delay(m, whole, lag - READ, "weight_taken", reset=True)
        ends, group_ends = (
            delay(m, x, lag, f"weight_{name}", reset=True)
            for x, name in ((turn.output_ends, "ended"), (turn.group_ends, "group"))
        )
        pointer, first = (Signal(range(2 * STORE), name=f"weight_{name}") for name in ("address", "first"))
        m.d.comb += first.eq(now.weight + run.off["weight"])
        with m.If(run.begins | group_ends | (ends & now.again)):
            m.d.sync += pointer.eq(first)
        with m.Elif(takes):
            m.d.sync += pointer.eq(pointer + 1)
        pair = self.tech.store(
            m, "weights", depth=STORE, width=2 * WIDTH, init=to_bits(self.code.pairs, WIDTH), grain=WIDTH,
            address=Mux(boot.done, pointer[1:], boot.address), write=boot.weighs, mask=Const(3, 2), data=boot.word,
        )
        weight = Signal(signed(WIDTH), name="weight", reset_less=True)
        m.d.sync += weight.eq(Mux(delay(m, pointer[0], STORED, "weight_upper"), pair[WIDTH:], pair[:WIDTH]))
        return weight
