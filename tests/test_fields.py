"""What outputs need beside their dot products: each in its cycle, and passes that have one word not stored."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from rtl_bench import factor_of

from bfthw import chain
from rtl_gen.engines.fields import field_bits, field_roms, read_fields
from rtl_gen.engines.folded import Folded
from rtl_gen.engines.words import LEAD
from rtl_gen.tech import technology
from rtl_gen.tech.plain import Plain

SEED = 5


class Saves(Plain):
    """Any ROM takes a block RAM for each bit, so that every word less is one."""

    def rom_cost(self, depth, width):
        return {"RAM": depth * width, "LUT": 0, "FF": 0}


class SavesNear(Saves):
    free_registers = False


def folded(**rest):
    """Three passes of eight outputs; bias, ReLU and a scaled residual in the last alone."""
    patterns = chain.bft(8, 2)
    factors = [factor_of(pattern, n, **rest) for n, pattern in enumerate(patterns[:-1])]
    last = factor_of(patterns[-1], 2, bias=6, relu=True, **rest)
    return Folded(factors=(*factors, last))


def arithmetic(exponents=0):
    return folded(exponents=exponents).arithmetic


@pytest.mark.parametrize("tech", [technology("plain"), Saves(), SavesNear()], ids=["as they are", "far", "near"])
@pytest.mark.parametrize("lanes, exponents", [(1, 0), (2, 0), (1, 2)])
def test_each_field_is_there_in_its_cycle(tech, lanes, exponents):
    a, m, take = arithmetic(exponents), Module(), Signal()
    result = read_fields(m, a, tech, lanes, take)
    roms = field_roms(a, tech, lanes)
    cycles = {name: rom.cycle + LEAD for rom in roms for _, name, *_ in rom.slices}
    assert cycles.keys() == a.fields.keys() and {"bias", "end"} <= cycles.keys()
    shown = {(lane, name): Signal.like(value) for lane in range(lanes) for name, value in result[lane].items()}
    m.d.comb += [signal.eq(result[lane][name]) for (lane, name), signal in shown.items()]
    rng, takes, seen = np.random.default_rng(SEED), [], []
    total = len(a.in_order(a.fields["bias"][0])) // lanes

    async def bench(ctx):
        for _ in range(180):
            takes.append(int(rng.random() < 0.6))
            ctx.set(take, takes[-1])
            seen.append({key: ctx.get(signal) for key, signal in shown.items()})
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    turn, checked = 0, 0
    for cycle, taken in enumerate(takes):
        if taken:
            for (lane, name), values in ((key, a.in_order(a.fields[key[1]][0])) for key in shown):
                if cycle + cycles[name] < len(seen):
                    found = seen[cycle + cycles[name]][lane, name]
                    assert found == values[turn % total * lanes + lane], (name, lane, cycle)
                    checked += 1
            turn += 1
    assert turn > 2 * total and checked > 4 * total  # several times around


def test_a_pass_with_one_word_is_not_stored():
    """A bias of the last pass alone takes a third of the words, a flag of the pass none."""
    for tech, bias, end in ((technology("plain"), 24, 24), (Saves(), 8, 0)):
        a = arithmetic()
        stored = {name: rom.stored for rom in field_roms(a, tech, 1) for _, name, *_ in rom.slices}
        assert (stored["bias"], stored["end"]) == (bias, end)
        assert field_bits(a, tech, 1) == sum(stored[name] * field[1] for name, field in a.fields.items())


def test_shifts_of_all_passes_are_stored_beside_a_bias_of_the_last():
    """Each field goes its own way where that saves a block."""
    roms = field_roms(arithmetic(exponents=2), Saves(), 1)
    assert {name: rom.heads for rom in roms for _, name, *_ in rom.slices} == {"extra": 0, "bias": 2, "end": 3}
