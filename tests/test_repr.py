"""What results show of themselves: a line each, with what counts."""

import re

import numpy as np

import bfthw
import rtl_gen
from bfthw import check, search
from bfthw.chain import bft
from boards.fit import fit
from boards.table import BOARDS


def test_a_layer_of_torch_in_a_line():
    shown = repr(bfthw.nn.ButterflyPointwise(24, 40))
    assert re.fullmatch(r"ButterflyPointwise\(24 -> 40, 264 weights = 27.5 % of dense, \[\(.*\], .*relu=False\)", shown)


def test_a_line_with_what_counts(tmp_path):
    """Of a network so large that its numbers would fill pages."""
    network = bfthw.Network(layers=(bfthw.Layer(chain=bfthw.Chain.random(bft(64, 4), seed=3), name="a"),))
    x = np.random.default_rng(3).normal(size=(50, 64))
    settings = bfthw.make_settings(weight_bits=7, lanes=2)
    integers = bfthw.compile(network, settings=settings, calibration=x)
    design = rtl_gen.write(integers, tmp_path, name="core", settings=settings)
    m = design.manifest
    choice = rtl_gen.choose_for(integers, bfthw.make_settings(), interval=64)
    shown = [
        (settings, r"Settings\(lanes=2, weight_bits=7\)"),
        (design, rf"<Design core: 3 stages, latency {m.latency}, interval {m.interval} cycles, \d+ multipliers; .*>"),
        (m, rf"<Manifest core: 3 stages, configuration {m.configuration[:12]}>"),
        (choice, rf"<Choice {re.escape(choice.what)}: interval \d+ cycles a vector, \d+ multipliers>"),
        (search.search(network, x, rom_bits=4000), r"<Found: weights of \d+, \d+, \d+ bits, \d+ in all, [\d.]+ dB>"),
        (check.check(network, integers, calibration=x), r"<Check: [\d.]+ dB; 0 warnings, \d notes>"),
        (BOARDS["icebreaker"], "<Board icebreaker: iCE40UP5K, core clock 12 MHz>"),
        (fit(integers, BOARDS["icebreaker"]), r"<Fit icebreaker: .*; \d+ LUT, .*>"),
    ]
    for one, line in shown:
        assert re.fullmatch(line, repr(one)), repr(one)
        assert len(repr(one)) < 160 + len(str(tmp_path))
