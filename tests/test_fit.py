"""Estimates against what Yosys makes, and what they say of boards."""

import pytest
from test_cli import DIGITS, run

import bfthw
import rtl_gen
from bfthw.chain import bft, dense
from boards import synth
from boards.fit import block_rams, estimate, fit
from boards.roms import find_roms, marks, replace_roms
from boards.shell import Shell
from boards.table import BOARDS, UP5K, find_board


def network(pattern, **rest):
    layer = bfthw.Layer(chain=bfthw.Chain.random(pattern, seed=1), **rest)
    return bfthw.compile(bfthw.Network(layers=(layer,)))


@pytest.mark.parametrize(
    "words, bits, size, wanted",
    [
        (256, 16, 4096, 1),
        (257, 16, 4096, 2),
        (512, 8, 4096, 1),
        (640, 8, 4096, 2),
        (64, 25, 4096, 2),
        (2048, 2, 4096, 1),
        (1024, 18, 18432, 1),
        (512, 36, 18432, 1),
        (513, 36, 18432, 2),
        (16384, 1, 18432, 1),
        (4096, 32, 18432, 8),
    ],
)
def test_block_rams(words, bits, size, wanted):
    assert block_rams(words, bits, size) == wanted


@pytest.mark.parametrize(
    "pattern, lanes, simd",
    [
        (bft(16, 4), 1, 1),
        pytest.param(bft(64, 4), 1, 4, marks=pytest.mark.slow),
        pytest.param(bft(64, 4), 2, 2, marks=pytest.mark.slow),
        pytest.param(dense(10, 64), 1, 8, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_estimate_is_near_synthesis(tmp_path, pattern, lanes, simd):
    settings = bfthw.make_settings(lanes=lanes, simd=simd)
    design = rtl_gen.write(
        network(pattern, residual=pattern[0].inputs == pattern[-1].outputs), tmp_path, name="core", settings=settings
    )
    from amaranth.back import rtlil

    text = rtlil.convert(Shell(design, clock_hz=12_000_000, baud=1_000_000), name="top", emit_src=False)
    found = [rom for rom, _ in find_roms(text)]
    (tmp_path / "top.il").write_text(replace_roms(text, marks(found)))
    made, said = synth.synthesise(UP5K, "top", tmp_path), estimate(design.spec, UP5K)
    assert said["DSP"] == made["DSP"]
    assert abs(said["RAM"] - made["RAM"]) <= 1 + made["RAM"] // 8
    assert 0.7 < said["LUT"] / made["LUT"] < 1.4


def test_faster_choices_first_and_too_large_ones_refused():
    small = fit(network(bft(64, 4)), find_board("ulx3s-85f"))
    assert small.spec.interval < 64 and small.how.startswith("--lanes")
    large = fit(network(bft(4096, 4)), find_board("icebreaker"))
    assert large.spec is None and "RAM" in large.how and "of 30" in large.how


def test_command_lists_every_board():
    status, out, _ = run("fit", DIGITS)
    assert status == 0 and "Estimated" in out
    assert all(key[:9] in out for key in BOARDS)
