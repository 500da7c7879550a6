"""Estimates against what Yosys makes, and what they say of boards."""

import re
from pathlib import Path

import pytest
from amaranth.back import rtlil
from test_cli import DIGITS, run

import bfthw
import rtl_gen
from bfthw.chain import bft
from boards import roms, synth
from boards.fit import fit, needs, on_board, room, roomier
from boards.shell import Shell
from boards.table import BOARDS, find_board

ROOT = Path(__file__).parents[1]


def network(pattern, **rest):
    layer = bfthw.Layer(chain=bfthw.Chain.random(pattern, seed=1), **rest)
    return bfthw.compile(bfthw.Network(layers=(layer,)))


@pytest.mark.parametrize(
    "pattern, key, settings",
    [
        (bft(16, 4), "icebreaker", dict(target="ice40", simd=2)),
        pytest.param(bft(64, 4), "ulx3s-85f", dict(target="ecp5", lanes=2), marks=pytest.mark.slow),
        pytest.param(bft(64, 4), "tang-nano-9k", dict(target="gowin", engine="folded"), marks=pytest.mark.slow),
        pytest.param(bft(64, 4), "hx8k-b-evn", dict(target="ice40", products="lut", simd=1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_needs_with_the_shell_are_near_synthesis(tmp_path, pattern, key, settings):
    own = network(pattern, residual=True)
    design = rtl_gen.write(own, tmp_path, name="core", settings=bfthw.make_settings(**settings))
    board = find_board(key)
    text = rtlil.convert(Shell(design, clock_hz=12_000_000, baud=1_000_000), name="top", emit_src=False)
    text = roms.replace_roms(text, roms.marks([rom for rom, _ in roms.find_roms(text)]))  # as a build does
    (tmp_path / "top.il").write_text(text)
    made, said = synth.synthesise(board.device, "top", tmp_path), needs(rtl_gen.estimate(design.plan), board)
    print({key: (said[key], made[key]) for key in said})
    assert (said["DSP"], said["RAM"]) == (made["DSP"], made["RAM"])
    assert 0.75 < said["LUT"] / made["LUT"] < 1.25 and 0.75 < said["FF"] / made["FF"] < 1.25


def test_a_board_gives_its_target_and_its_room():
    settings, room, _ = on_board("hx8k-b-evn", bfthw.make_settings(weight_bits=6))
    assert (settings.target, settings.vectors, settings.products, settings.weight_bits) == ("ice40", 1, "lut", 6)
    assert room["RAM"] == 28 and room["DSP"] == 0 and 5000 < room["LUT"] < 7000
    choice = rtl_gen.choose_for(network(bft(16)), settings, room=room)
    assert choice.needs["DSP"] == 0 and all(engine.lut for engine in choice.plan.engines) and not choice.short(room)
    for wrong, words in (
        (dict(target="gowin"), "target = 'gowin': on iCEBreaker it is 'ice40'"),
        (dict(vectors=2), "vectors = 2: on iCEBreaker it is 1"),
    ):
        with pytest.raises(ValueError, match=words):
            on_board("icebreaker", bfthw.make_settings(**wrong))


def test_faster_choices_first_and_too_large_ones_refused():
    small = fit(network(bft(64, 4)), find_board("ulx3s-85f"))
    assert small.plan.interval < 64 and small.how.startswith("pipelined (lanes 8, ")
    for board in BOARDS.values():
        found = fit(network(bft(64, 4)), board)
        assert all(n <= board.device.available[resource] for resource, n in found.needs.items()) or not found.plan
    # no cores of its own parts, so nothing to add up
    plain = fit(network(bft(16, 4)), find_board("tang-primer-25k"))
    assert plain.plan is None and "takes cores without a target, whose needs are not estimated" in plain.how
    with pytest.raises(ValueError, match="Tang Primer 25K with dock takes cores without a target"):
        on_board("tang-primer-25k", bfthw.make_settings())
    large = fit(network(bft(4096, 4)), find_board("icebreaker"))
    assert large.plan is None and "RAM" in large.how and " of 30" in large.how


def test_command_lists_every_board():
    status, out, _ = run("fit", DIGITS)
    assert status == 0 and "Estimated" in out
    assert all(key[:9] in out for key in BOARDS)


def test_what_binds_and_what_would_hold_it_are_named(tmp_path):
    """A network too large for a board: the resource, the stage that takes most of it, and a board that has room."""
    clothes = ROOT / "examples" / "fashion" / "fashion.safetensors"
    status, _, said = run("generate", clothes, "-o", tmp_path, "--name", "clothes", "--fit", "icebreaker")
    words = r"nothing fits; .* needs .* of 26: of RAM depthwise2:0 takes most, \d+; (\S+) has room for it"
    named = re.search(words, " ".join(said.split()))
    assert status == 1 and named and not [*tmp_path.iterdir()], said
    board = find_board(named[1])
    network = bfthw.compile(bfthw.load(clothes).network)
    assert rtl_gen.choose(network, target=board.device.target, room=room(board)).plan.interval
    largest = rtl_gen.choose(network, interval=10**9, target="ecp5", roms="blocks").plan
    assert roomier(largest) == "ulx3s-45f has room for it"
    assert "no board has room" in roomier(rtl_gen.choose(network, interval=2000, target="ecp5").plan)
