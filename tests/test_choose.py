"""Engines chosen by a wish: met, the cheapest or the fastest, and where they cannot be met the nearest that can."""

import re
from functools import cache
from itertools import product

import numpy as np
import pytest
from rtl_bench import random_network

from bfthw import Chain, Layer, Network, Settings, chain, compile
from rtl_gen import ENGINES, Impossible, Plan, choose, choose_for, estimate
from rtl_gen.choices import by_layer
from rtl_gen.stages import stages_of

AMPLE = {"LUT": 10**6, "FF": 10**6, "DSP": 10**4, "RAM": 10**4}


def network(*shapes):
    return compile(
        Network(layers=[Layer(chain=Chain.random(shape, n), name=f"l{n}") for n, shape in enumerate(shapes)])
    )


BFT64 = network(chain.bft(64))


# every plan that there is, the long way


def runs(start, stop):
    """Every way to cut start..stop into runs."""
    if start == stop:
        yield ()
    for end in range(start + 1, stop + 1):
        for rest in runs(end, stop):
            yield ((start, end), *rest)


def every_plan(network, **kept):
    """Plans of every menu of every engine but those of adders, for runs within a layer."""
    bounds = np.cumsum([0, *(len(layer.factors) for layer in network.layers)])
    found, stages = [], stages_of(network)
    owners = [stage.owner for stage in stages]
    for cuts in product(*(tuple(runs(a, b)) for a, b in zip(bounds, bounds[1:]))):
        spans = [span for cut in cuts for span in cut]
        menus = [
            [
                engine.chosen
                for cls in ENGINES.values()
                if not cls.last_resort and (cls.shares or stop == start + 1)
                and (served := cls.serves(stages[start:stop]))
                for engine in cls.menu(
                    **served,
                    whole=(start, stop) in zip(bounds, bounds[1:]),
                    target=kept.get("target", "plain"),
                )
            ]
            for start, stop in spans
        ]
        for chosen in product(*menus):
            each = [one for one, (start, stop) in zip(chosen, spans) for _ in range(start, stop)]
            plan = Plan(network=network, choices=by_layer(owners, each), **kept)
            # neighbours that share an engine by kind are one run
            if plan.spans == tuple(spans):
                found.append(plan)
    return found


SMALL = {
    "bft 8": lambda: network(chain.bft(8, 2)),
    "two layers": lambda: network(chain.bft(4, 2), chain.dense(3, 4)),
    "resizing": lambda: network(chain.monarch(4, 8, 2), chain.patterns([(1, 6, 4, 1)])),
    "random": lambda: random_network(34, largest=12, weights=30),
}


@cache
def brute(name, target):
    small = SMALL[name]()
    # without what counts wrong frames, which is no sum over engines; nor is a residual's FIFO
    plans = every_plan(small, target=target, vectors=1, count_beats=True)
    assert len(plans) > 10
    return small, [(plan, estimate(plan, "ecp5" if target == "plain" else target)) for plan in plans]


def rank(plan, needs):
    return plan.multipliers, needs["LUT"], needs["RAM"]


@pytest.mark.parametrize("target", ["plain", "ice40"])
@pytest.mark.parametrize("name", SMALL)
def test_the_best_of_all_plans_is_found(name, target):
    """Cheapest at every interval that some plan has, fastest with every number of multipliers, and in every room."""
    small, plans = brute(name, target)
    kept = dict(vectors=1, target=target, count_beats=True)
    for interval in sorted({plan.interval for plan, _ in plans}):
        best = min(rank(*pair) for pair in plans if pair[0].interval <= interval)
        choice = choose(small, interval=interval, **kept)
        assert rank(choice.plan, choice.needs) == best and choice.plan.interval <= interval
    for most in sorted({plan.multipliers for plan, _ in plans}):
        fastest = min((plan.interval, *rank(plan, needs)) for plan, needs in plans if plan.multipliers <= most)
        choice = choose(small, multipliers=most, **kept)
        assert (choice.plan.interval, *rank(choice.plan, choice.needs)) == fastest
    if target != "plain":
        for room in [needs for _, needs in plans][:: max(1, len(plans) // 24)]:
            fits = [pair for pair in plans if all(pair[1][key] <= room[key] for key in room)]
            fastest = min((plan.interval, *rank(plan, needs)) for plan, needs in fits)
            choice = choose(small, room=room, **kept)
            assert (choice.plan.interval, *rank(choice.plan, choice.needs)) == fastest


def test_both_wishes_and_a_room():
    best = choose(BFT64, interval=100, multipliers=12, room=AMPLE, target="ecp5")
    assert best.interval <= 100 and best.plan.multipliers <= 12
    for resource in ("LUT", "FF", "DSP"):
        tight = AMPLE | {resource: best.needs[resource] - 1}
        try:
            other = choose(BFT64, interval=100, multipliers=12, room=tight, target="ecp5")
        except Impossible:
            continue
        assert other.needs[resource] < best.needs[resource]
    fastest = choose(BFT64, room=AMPLE | {"DSP": 12}, target="ecp5")
    assert fastest.needs["DSP"] <= 12 and fastest.interval == 64


def test_only_what_can_be_folded_is():
    """A dense layer has a single factor: it stays a pipelined engine beside the folded one."""
    plan = choose(network(chain.bft(64), chain.dense(4, 64)), interval=100).plan
    assert [engine.kind for engine in plan.engines] == ["folded", "pipelined"] and plan.vectors == 2
    assert (plan.choices["l0"]["engine"], plan.choices["l1"]["engine"]) == ("folded", "pipelined")


def test_lanes_and_simd_may_differ_from_node_to_node():
    plan = choose(network(chain.bft(8, 2), chain.dense(24, 8)), interval=8).plan
    assert [(engine.lanes, engine.simd) for engine in plan.engines] == [(1, 2), (1, 2), (1, 2), (4, 8)]
    assert plan.interval == 8 and plan.multipliers == 38
    # with the same lanes everywhere, three times 8 multipliers would serve the butterfly, or those of 4 lanes
    same = min(
        Plan(network=plan.network, choices={"l0": {"lanes": n, "simd": v}, "l1": {"lanes": n, "simd": w}}).multipliers
        for n, v, w in ((4, 1, 8), (8, 1, 4))
    )
    assert plan.multipliers < same


def test_adders_are_the_last_resort():
    def kinds(network, **wishes):
        return {engine.kind for engine in choose(network, **wishes).plan.engines}

    tiny = network(chain.bft(16))
    assert "spatial" not in kinds(tiny, interval=1)
    assert kinds(tiny, interval=1, multipliers=100) == kinds(tiny, multipliers=0) == {"spatial"}
    with pytest.raises(Impossible, match="multipliers 0: the fewest are 3"):
        choose(BFT64, multipliers=0)


@pytest.mark.parametrize(
    "wishes, words",
    [
        (dict(), "nothing to choose by"),
        (dict(room=AMPLE), "'plain' has none, name ecp5"),
        (dict(multipliers=2), r"multipliers 2: the fewest are 3, pipelined \(lanes 1, simd 1, products dsp\): interval 256 "),
        (dict(interval=0.5), r"interval 0.5: the fastest that fits is 1, pipelined \(lanes 64, simd 4, products dsp\): interval 1 "),
        (dict(interval=10, multipliers=12), "interval 10: the fastest that fits is 64, "),
        (dict(interval=10, room=AMPLE | {"DSP": 24}, target="ecp5"), "interval 10: the fastest that fits is 32, "),
        (
            dict(room=AMPLE | {"DSP": 2}, target="ecp5"),
            r"nothing fits; the nearest, pipelined \(lanes 1, simd 1, .* needs 3 DSP of 2",
        ),
        (dict(room=AMPLE | {"LUT": 20}, target="ice40"), r"nothing fits; the nearest, .* needs \d+ LUT of 20"),
    ],
)
def test_what_is_impossible_names_the_nearest(wishes, words):
    with pytest.raises(ValueError, match=words):
        choose(BFT64, **wishes)


def test_the_nearest_can_be_had():
    with pytest.raises(Impossible) as error:
        choose(BFT64, interval=10, multipliers=12)
    nearest = error.value.nearest
    again = choose(BFT64, interval=nearest.interval, multipliers=12)
    assert again.interval == nearest.interval and again.plan.multipliers <= 12


def test_memories_deeper_than_a_block_ram_are_chosen():
    """Six passes over 4096 words are more than an iCE40's block RAMs are deep."""
    best = choose(network(chain.bft(4096)), interval=10**6, target="ice40")
    assert [engine.kind for engine in best.plan.engines] == ["folded"]
    assert best.needs["RAM"] > best.plan.rom_bits // 4096


def test_settings_give_the_rest():
    settings = Settings(target="ice40", vectors=3, products="lut")
    best = choose_for(BFT64, settings, interval=64)
    assert (best.plan.target, best.plan.vectors) == ("ice40", 3) and all(engine.lut for engine in best.plan.engines)
    assert best.plan.interval <= 192
    for wrong, words in (
        (Settings(lanes=2, engine="folded"), "chooses engine and lanes itself"),
        (Settings(layers={"l0": {"simd": 2}}), "chooses simd itself"),
        (Settings(products="lut"), "name ecp5, ice40 or gowin"),
        (Settings(layers={"x": {}}), "no layer 'x'"),
    ):
        with pytest.raises(ValueError, match=words):
            choose_for(BFT64, wrong, interval=64)


def test_a_sentence_says_why():
    why = choose(BFT64, room=AMPLE, target="ecp5").why
    assert re.match(r".*: interval \d+ cycles a vector, \d+ multipliers; estimated \d+ LUT, .*; the fastest that", why)
    assert re.search(r"; the cheapest that can be made of \d\d engines$", choose(BFT64, interval=64).why)
