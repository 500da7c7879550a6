"""Sums and maxima over all positions of a map, against the golden node: values, latency, interval, stalls, targets."""

import numpy as np
import pytest
from rtl_bench import beats_of, extremes, one_by_one, play, unpack
from test_lines import figures
from test_windowed import bench_of, promised

from bfthw import QFormat
from bfthw.golden import IntNode
from bfthw.nodes import Max, Sum
from bfthw.window import Shape, Window
from rtl_gen.engines import Reduction
from rtl_gen.stream import ENTRY

PIXELS = QFormat(8, 8, signed=False)
CASES = {
    "mean": dict(shape=Shape(3, 2, 6), input=PIXELS, output=QFormat(7, 6, signed=False)),
    "mean-of-both-signs": dict(shape=Shape(3, 2, 6), output=QFormat(7, 0)),
    "exact": dict(shape=Shape(4, 4, 8), output=QFormat(11, 3), lanes=2),
    "one-beat": dict(shape=Shape(3, 3, 2), output=QFormat(6, 1), lanes=2, vectors=2),
    "three-beats": dict(shape=Shape(5, 1, 3), output=QFormat(9, 3)),
    "one-pixel": dict(shape=Shape(1, 1, 4), output=QFormat(5, 2)),
    "rounded-to-zero": dict(shape=Shape(2, 2, 2), input=QFormat(3, 9, signed=False), output=QFormat(4, 2)),
    "largest": dict(shape=Shape(3, 3, 5), input=PIXELS, output=PIXELS, largest=True),
    "largest-rounded": dict(shape=Shape(2, 3, 2), output=QFormat(4, 1, signed=False), largest=True, lanes=2),
}


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_reductions(fields):
    engine = Reduction(**{"input": QFormat(7, 3), "flight": ENTRY} | fields)
    part = bench_of(engine)
    assert held(engine, 7, part) == promised(engine)
    held(engine, 4, part, stall=0.4, seed=1)
    held(engine, 8, part, stall=(0, 0.8), seed=2, reset_after=30)


def held(engine, images, part, **rest):
    s, e = engine, engine.vectors
    kind = Max if s.largest else Sum
    node = IntNode(node=kind(window=Window.whole(s.shape), name="n"), formats=(s.input,), output=s.output)
    x = extremes(np.random.default_rng(images), s.input, (images * e, *s.shape))
    beats = beats_of(x.reshape(images * e, -1), s.lanes, e, s.input.width)
    ends, watch = ([(part.i, beats)], [(part.o, images * s.beats_out)]), [part.part.saturated]
    came, left, counted = play(part, *ends, watch=watch, **rest)
    got = one_by_one(unpack(left.beats, s.output, s.lanes * e).reshape(images, -1), e)
    assert np.array_equal(got, node(x).reshape(images * e, -1))
    assert sum(counted) == node.saturated(node.accumulate(x)).sum()
    return figures(came, left, s.beats_out)


def test_lanes_divide_channels():
    with pytest.raises(ValueError, match="lanes must divide 6 channels, got 4"):
        Reduction(input=QFormat(7, 3), output=QFormat(7, 3), shape=Shape(2, 2, 6), lanes=4)
