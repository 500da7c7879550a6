"""New weights into bitstreams of cores with a target's own block RAMs: the same as a build with those weights."""

import json
import shutil
from functools import cache

import numpy as np
import pytest
from test_patch import asc_rams, content, verilog_rams

import bfthw
import rtl_gen
from bfthw import Chain, Factor
from bfthw.chain import bft
from boards import gatelevel, roms
from boards.build import build
from boards.families import FAMILIES
from boards.patch import in_logic, patch

# weights of 64 words in block RAMs of each target; 16 biases are in tables, those of the first layer's 32 in block RAMs
# of an iCE40
PATTERNS = [*bft(32, 2)[:1]], [(8, 2, 4, 1)]
TARGETS = {"icebreaker": "ice40", "ulx3s-25f": "ecp5", "tang-nano-9k": "gowin"}


def network(seed=0, bias=0.5):
    """Two layers; seed 0 has the largest weights, and biases that the others have too."""
    rng, layers = np.random.default_rng(seed), []
    for n, patterns in enumerate(PATTERNS):
        chain = Chain.random(patterns, seed=n)
        if seed:
            chain = Chain(Factor(f.values * rng.uniform(-0.99, 0.99, f.values.shape)) for f in chain.factors)
        outputs = chain.factors[-1].pattern.outputs
        layers.append(bfthw.Layer(chain=chain, relu=n == 0, bias=np.linspace(-bias, bias, outputs), name=f"fc{n}"))
    return bfthw.Network(layers=tuple(layers))


def saved(path, *arguments, **options):
    bfthw.save(network(*arguments, **options), path)
    return path


def made(place, board, integers=None, **options):
    """The folder of a build of a core for a board's target."""
    settings = bfthw.make_settings(target=TARGETS[board], lanes=1, simd=1)
    design = rtl_gen.write(integers or old_integers(), place / "core", name="tiny", settings=settings)
    build(design, board, place / board, **options)
    return place / board


@cache
def old_integers():
    return bfthw.compile(network())


@cache
def new_integers():
    """Of the new weights, in the formats of the old ones: made without a patch."""
    return bfthw.quantize.quantise(network(1), bfthw.quantize.formats_of(old_integers()))


@pytest.fixture(scope="module")
def icebreaker(tmp_path_factory):
    return made(tmp_path_factory.mktemp("ice40"), "icebreaker", check=False)


def test_the_netlist_computes_the_new_weights(icebreaker, tmp_path):
    """And the bitstream has the netlist's contents."""
    folder = shutil.copytree(icebreaker, tmp_path / "build")
    before = content(folder)
    patch(folder, saved(tmp_path / "new.safetensors", 1))
    now = content(folder)
    x = np.random.default_rng(0).integers(-128, 128, (3, 32))
    result = gatelevel.check(folder, inputs=x)
    assert result.ok, result.problems
    assert np.array_equal(result.outputs, new_integers()(x)) and (result.outputs != old_integers()(x)).any()
    rams = verilog_rams(now["tiny.netlist.v"].decode())
    assert rams == asc_rams(now["tiny.asc"].decode()) != asc_rams(before["tiny.asc"].decode())


def test_numbers_in_tables_are_refused_by_name(icebreaker, tmp_path):
    """The second layer's biases; nothing is changed."""
    folder, before = shutil.copytree(icebreaker, tmp_path / "build"), content(icebreaker)
    told = r"new.safetensors: .* other hardware .*: numbers of fc1\.factors\.0 are in its logic \(a ROM of few words"
    with pytest.raises(ValueError, match=told):
        patch(folder, saved(tmp_path / "new.safetensors", 1, bias=0.4))
    assert content(folder) == before


def test_only_what_is_in_block_rams_is_passed_over():
    """Two designs that differ in weights are the same hardware, and every weight is in some ROM's contents."""
    for target in TARGETS.values():
        settings, texts = bfthw.make_settings(target=target, lanes=1, simd=1), []
        for integers in (old_integers(), new_integers()):
            texts.append(rtl_gen.to_rtlil(rtl_gen.make_plan(integers, settings), "tiny"))
        assert texts[0] != texts[1] and roms.structure(texts[0]) == roms.structure(texts[1])
        assert roms.differing(*texts) == []
        own = [rom for rom, _ in roms.find_roms(texts[0]) if rom.ram]
        assert {rom.ram for rom in own} == {FAMILIES[target].ram}
        for n in (0, 1):
            assert any(rom.name.endswith(f"stage_{n}\\weights_0") for rom in own), target


@pytest.mark.parametrize("target, named", [
    # 32 words of biases are tables of an ECP5 and a Gowin, and a block RAM of an iCE40
    ("ice40", "fc1.factors.0"), ("ecp5", "fc0.factors.0, fc1.factors.0"), ("gowin", "fc0.factors.0, fc1.factors.0"),
])
def test_factors_with_numbers_in_tables_are_named(target, named, tmp_path):
    settings, texts = bfthw.make_settings(target=target, lanes=1, simd=1), []
    formats = bfthw.quantize.formats_of(old_integers())
    for integers in (old_integers(), bfthw.quantize.quantise(network(1, bias=0.4), formats)):
        design = rtl_gen.write(integers, tmp_path, name="tiny", settings=settings)
        texts.append(rtl_gen.to_rtlil(design.plan, "tiny"))
    told = in_logic(roms.differing(*texts), design.manifest)
    assert told == f": numbers of {named} are in its logic (a ROM of few words is no block RAM)"


@pytest.mark.slow
@pytest.mark.parametrize("board", TARGETS)
def test_a_patch_is_a_build(board, tmp_path):
    """Byte for byte what place and route make of the new weights; and back it is as before."""
    folder = made(tmp_path / "a", board, check=False)
    before = content(folder)
    patch(folder, saved(tmp_path / "new.safetensors", 1))
    other = made(tmp_path / "b", board, new_integers(), check=False)
    now, wanted = content(folder), content(other)
    bitstream, text = json.loads(now["report.json"])["bitstream"], f"tiny.{FAMILIES[TARGETS[board]].placed}"
    assert now[bitstream] == wanted[bitstream] != before[bitstream] and now[text] == wanted[text]
    patch(folder, saved(tmp_path / "old.safetensors"))
    back = content(folder)
    assert all(back[name] == before[name] for name in set(before) - {"report.json", "tiny.netlist.v"})
