"""Foldings chosen by a wish: met, the cheapest or the fastest, and where they cannot be met the nearest that can."""

import re

import pytest

from bfthw import Chain, Layer, Network, Settings, chain, compile
from rtl_gen import Impossible, NetworkSpec, choose, choose_for
from rtl_gen.choose import foldings

AMPLE = {"LUT": 10**6, "FF": 10**6, "DSP": 10**4, "RAM": 10**4}


def network(*shapes):
    return compile(
        Network(layers=[Layer(chain=Chain.random(shape, n), name=f"l{n}") for n, shape in enumerate(shapes)])
    )


BFT64 = network(chain.bft(64))
MIXED = network(chain.bft(16), chain.dense(4, 16))


@pytest.mark.parametrize("target", ["plain", "ecp5", "ice40", "gowin"])
@pytest.mark.parametrize("interval", [1, 2, 7, 16, 64, 100, 192, 500])
def test_the_cheapest_at_an_interval(interval, target):
    best = choose(BFT64, interval=interval, target=target)
    assert best.spec.interval <= interval * best.spec.vectors and best.spec.target == target
    enough = [c for c in foldings(BFT64, target=target) if c.interval <= interval and c.possible]
    assert best.spec.multipliers == min(c.spec.multipliers for c in enough)
    alike = [c for c in enough if c.spec.multipliers == best.spec.multipliers]
    assert best.needs["LUT"] == min(c.needs["LUT"] for c in alike)


@pytest.mark.parametrize("multipliers", [3, 4, 8, 11, 12, 48, 1000])
def test_the_fastest_with_so_many_multipliers(multipliers):
    best = choose(BFT64, multipliers=multipliers)
    assert best.spec.multipliers <= multipliers
    assert best.interval == min(c.interval for c in foldings(BFT64) if c.spec.multipliers <= multipliers)


def test_both_wishes_and_a_room():
    best = choose(BFT64, interval=100, multipliers=12, room=AMPLE, target="ecp5")
    assert best.interval <= 100 and best.spec.multipliers <= 12
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
    folded = [c.spec for c in foldings(MIXED) if "folded" in c.spec.engines]
    assert folded and all(spec.engines == ("folded", "folded", "pipelined") for spec in folded)
    assert [len(spec.stages) for spec in folded] == [2] * len(folded)


def test_adders_are_the_last_resort():
    tiny = network(chain.bft(16))
    assert "spatial" not in choose(tiny, interval=1).spec.engines
    assert set(choose(tiny, interval=1, multipliers=100).spec.engines) == {"spatial"}
    assert set(choose(tiny, multipliers=0).spec.engines) == {"spatial"}
    assert not any(c.spatial for c in foldings(BFT64))


@pytest.mark.parametrize(
    "wishes, words",
    [
        (dict(), "nothing to choose by"),
        (dict(room=AMPLE), "'plain' has none, name ecp5"),
        (dict(multipliers=2), "multipliers 2: the fewest are 3, pipelined, 1 lane, SIMD 1: interval 256 "),
        (dict(interval=0.5), "interval 0.5: the fastest that fits is 1, pipelined, 64 lanes, SIMD 4: interval 1 "),
        (dict(interval=10, multipliers=12), "interval 10: the fastest that fits is 64, "),
        (dict(interval=10, room=AMPLE | {"DSP": 24}, target="ecp5"), "interval 10: the fastest that fits is 32, "),
        (
            dict(room=AMPLE | {"DSP": 2}, target="ecp5"),
            "nothing fits; the nearest, pipelined, 1 lane, SIMD 1: .* needs 3 DSP of 2",
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
    assert again.interval == nearest.interval and again.spec.multipliers <= 12


def test_memories_too_deep_are_not_chosen():
    """Six passes over 4096 words are more than an iCE40's block RAMs are deep; so are 4096 reads of a stage."""
    large = network(chain.bft(4096))
    best = choose(large, interval=10**6, target="ice40")
    assert best.spec.engines[0] == "pipelined" and max(s.cycles for s in best.spec.stages) <= 2048
    assert choose(large, interval=10**6).spec.engines[0] == "folded"


def test_settings_give_the_rest():
    settings = Settings(target="ice40", vectors=3, products="lut")
    best = choose_for(BFT64, settings, interval=64)
    assert (best.spec.target, best.spec.vectors, set(best.spec.lut)) == ("ice40", 3, {True})
    assert best.spec.interval <= 192
    for wrong, words in (
        (Settings(lanes=2, engine="folded"), "chooses engine and lanes itself"),
        (Settings(layers={"l0": {"simd": 2}}), "chooses simd itself"),
        (Settings(products="lut"), "name ecp5, ice40 or gowin"),
        (Settings(layers={"x": {}}), "no layer 'x'"),
    ):
        with pytest.raises(ValueError, match=words):
            choose_for(BFT64, wrong, interval=64)


def test_a_sentence_says_why():
    why = choose(BFT64, interval=64, target="ecp5").why
    assert re.match(r".*: interval \d+ cycles a vector, \d+ multipliers; estimated \d+ LUT, .*the cheapest of \d+", why)


def test_every_folding_is_a_specification_of_its_own():
    for q in (BFT64, MIXED):
        found = list(foldings(q))
        shown = {(c.spec.engines, c.spec.lanes, c.spec.simd, c.spec.vectors) for c in found}
        assert len(shown) == len(found) > 10 and all(isinstance(c.spec, NetworkSpec) for c in found)
