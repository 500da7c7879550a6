"""A small specification of every engine, with as much in it as fits: what tests of all of them go through."""

from dataclasses import replace

import numpy as np
from rtl_bench import factor_of, plan_of

from bfthw import IntLayer, IntNetwork, QFormat, chain
from bfthw.chain import Indexed

W = QFormat(4, 3)
ALL = dict(skip=W, bias=9, relu=True, exponents=2)
INDEX = Indexed(np.random.default_rng(0).integers(6, size=(6, 2)), 6)
CYCLIC = Indexed((np.arange(5)[:, None] + [0, 2]) % 5, 5)
BFT4, BFT8 = [(1, 2, 2, 2), (2, 2, 2, 1)], [(1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1)]
# patterns, options of the last factor, choices
ENGINES = {
    "banked": ([(1, 2, 2, 4), (4, 2, 2, 1)], ALL, dict(simd=1)),
    "direct": ([(2, 2, 2, 1)], dict(bias=9), dict(lanes=2, vectors=2)),
    "gathered": ([(4, 3, 3, 1)], dict(skip="one"), dict(lanes=4)),
    "indexed": ([INDEX], dict(bias=9, relu=True), dict(lanes=2)),
    "cyclic": ([CYCLIC], {}, dict(vectors=2)),
    "folded": (BFT8, ALL, dict(engines="folded", vectors=2)),
    "paired": (BFT4, {}, dict(engines="folded", paired=True, vectors=2)),
    "spatial": (BFT8, ALL, dict(engines="spatial", vectors=2)),
    "tables": (BFT4, {}, dict(lut=True, lanes=2)),
}


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


def spec_of(shape, options=None, choices=None, target="plain"):
    """A Plan; a choice that is no tuple holds for all factors."""
    return plan_of(network_of(shape, **(options or {})), target=target, **(choices or {}))
