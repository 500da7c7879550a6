"""The emitted text in a simulator's SystemVerilog mode, every engine on every target, reset low from time 0."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from plain_bench import play_all
from rtl_bench import extremes, factor_of

from bfthw import IntLayer, IntNetwork, QFormat, chain, structures
from bfthw.chain import Indexed
from rtl_gen import NetworkSpec, to_verilog
from rtl_gen.foldspec import FoldSpec
from rtl_gen.spatial import SpatialSpec
from rtl_gen.spec import StageSpec

pytestmark = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
W = QFormat(4, 3)


def network_of(shape, x=QFormat(6, 3), w=W, **last):
    """A layer of random factors, the last with the given options; no weight is the most negative number."""
    factors, q = [], x
    if last.get("skip"):
        last["skip_input"] = x
    for m, pattern in enumerate(chain.patterns(shape)):
        rest = last if m == len(shape) - 1 else {}
        factor = factor_of(pattern, m, x=q, w=w, drop=3, **rest)
        factors.append(replace(factor, values=np.maximum(factor.values, -w.hi)))
        q = factor.output
    return IntNetwork(layers=(IntLayer(factors=tuple(factors), name="l"),))


def spec_of(shape, options=None, **choices):
    network = network_of(shape, **(options or {}))
    many = {"engine": "engines", "lanes": "lanes", "simd": "simd", "lut": "lut"}
    given = {many[key]: (choices.pop(key),) * len(network.factors) for key in many if key in choices}
    return NetworkSpec(network=network, **given, **choices)


ALL = dict(skip=W, bias=9, relu=True, exponents=2)
INDEX = Indexed(np.random.default_rng(0).integers(6, size=(6, 2)), 6)
CYCLIC = Indexed((np.arange(5)[:, None] + [0, 2]) % 5, 5)
TARGETS = ("plain", "ecp5", "ice40", "gowin")
# what each engine is made of, for every target
ENGINES = {
    "banked": ([(1, 2, 2, 4), (4, 2, 2, 1)], ALL, dict(simd=1)),
    "direct": ([(2, 2, 2, 1)], dict(bias=9), dict(lanes=2, vectors=2)),
    "gathered": ([(4, 3, 3, 1)], dict(skip="one"), dict(lanes=4)),
    "indexed": ([INDEX], dict(bias=9, relu=True), dict(lanes=2)),
    "cyclic": ([CYCLIC], {}, {}),
    "folded": ([(1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1)], ALL, dict(engine="folded")),
    "paired": ([(1, 2, 2, 2), (2, 2, 2, 1)], {}, dict(engine="folded", paired=True, vectors=2)),
    "tables": ([(1, 2, 2, 2), (2, 2, 2, 1)], {}, dict(lut=True)),
    "spatial": ([(1, 2, 2, 2), (2, 2, 2, 1)], ALL, dict(engine="spatial")),
    "lanes change": ([(1, 2, 2, 2), (2, 2, 2, 1)], {}, dict(lanes=None)),
}


def cases():
    """name → NetworkSpec: every engine on every target."""
    for target in TARGETS:
        for name, (shape, options, choices) in ENGINES.items():
            if not (target == "plain" and choices.get("lut")):
                choices = choices if "lanes" not in choices or choices["lanes"] else {"lanes": 1}
                yield f"{name.replace(' ', '_')}_{target}", spec_of(shape, options, target=target, **choices)
