"""Maps whose numbers are rearranged, in place where their places' bits are; Fourier transforms, and FABNet's block."""

import graph_corpus as corpus
import numpy as np
import pytest
from rtl_bench import extremes, play_network
from test_branches import Tree
from test_maps import check

from bfthw import IntNetwork, Network, QFormat, Rearrange, Shape, compile, make_settings
from bfthw.chain import Indexed, Pattern
from bfthw.fourier import fourier, reversed_digits
from bfthw.models import fbfly
from rtl_gen import Network as Core
from rtl_gen import Plan, fifo, write_plan
from rtl_gen.engines.readers import inplace
from rtl_gen.engines.readers.inplace import InPlace, bits_of, turns_of
from sim import simulate


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    """Maps that are small enough to be simulated are kept in place too, but where a test has `large`."""
    if "large" not in request.fixturenames:
        monkeypatch.setattr(inplace, "LEAST", 2)


@pytest.fixture
def large():
    pass


def indexed(index, inputs=None):
    index = np.asarray(index)
    return Indexed(index[:, None], inputs or len(index))


def test_orders_of_bits():
    """Found where a permutation is one, and nowhere else."""
    rng = np.random.default_rng(0)
    for n in range(1, 8):
        bits = rng.permutation(n)
        places = np.arange(1 << n)
        index = sum((places >> k & 1) << int(to) for k, to in enumerate(bits))
        assert bits_of(indexed(index)) == tuple(bits)
        again, turns = index, 1
        while not np.array_equal(again, places):
            again, turns = index[again], turns + 1
        assert turns_of(tuple(map(int, bits))) == turns
    assert bits_of(indexed(Rearrange.transposed(Shape(4, 1, 8), 2).index)) == (0, 3, 4, 1, 2)
    for other in ([1, 0, 3, 2], [0, 2, 1], [0, 1, 2, 2], [0, 2, 1, 3, 4, 6, 7, 5], [0]):
        assert bits_of(indexed(other)) is None
    assert bits_of(indexed([0, 1], 4)) is None and bits_of(Pattern(1, 2, 2, 1)) is None
    assert bits_of(Indexed(np.array([[0, 1], [1, 0]]), 2)) is None


def test_ranges_are_those_of_all_positions():
    index = np.random.default_rng(1).permutation(24)[:20]
    node, lo = Rearrange(name="r", index=index, size=(2, 2)), np.array([[-5.0, -1, 0]])
    wanted = [min(lo[0, at % 3] for at in index[n::5]) for n in range(5)]
    found = node.bounds((lo, -lo))
    assert np.array_equal(found[0], [wanted]) and np.array_equal(found[1], [[-w for w in wanted]])


def mixed(steps, channels, block=1, seed=0):
    """Channels mixed, then steps, then channels, what went in added."""
    t = Tree((steps, 1, channels), seed).layer("a", [(1, channels * block, channels, 1)], of="input")
    t.rearranged("across", Rearrange.transposed(Shape(steps, 1, channels * block), block).index, (channels, 1))
    t.layer("b", [(1, steps, steps * block, 1)])
    t.rearranged("back", Rearrange.transposed(Shape(channels, 1, steps)).index, (steps, 1))
    return t.layer("c", [(1, channels, channels, 1)], add="input").network


@pytest.mark.parametrize("simd", [1, 2])
@pytest.mark.parametrize("steps, channels, block", [(8, 4, 2), (8, 8, 1), (4, 16, 2)])
def test_neighbours_keep_their_pace(steps, channels, block, simd):
    """What waits between two maps is hidden from engines on both sides that are always busy; each map is kept once."""
    choices = {"a": {"simd": simd}, "b": {"simd": simd * block}, "c": {"simd": simd}, "across": {"lanes": block}}
    plan = Plan(network=mixed(steps, channels, block), choices=choices)
    across, back = (plan.engines[n] for n in (1, 3))
    assert {type(engine.reader) for engine in (across, back)} == {InPlace}
    assert across.buffer_bits == steps * channels * block * across.takes.width
    check(plan)


@pytest.mark.parametrize("less, cycles", [(0, 72), (1, 73)])
def test_fifo_behind_is_the_least(less, cycles, monkeypatch):
    """64 beats, and 72 cycles for them in front and behind: with a place less it is slower."""
    monkeypatch.setattr(fifo, "places_of", lambda depth: depth)  # not the next power of two
    places = InPlace.places.fget
    monkeypatch.setattr(InPlace, "places", property(lambda self: (places(self)[0], places(self)[1] - less)))
    t = Tree((8, 1, 9)).layer("a", [(1, 8, 9, 1)], of="input")
    t.rearranged("across", Rearrange.transposed(Shape(8, 1, 8)).index, (8, 1)).layer("b", [(1, 9, 8, 1)])
    plan = Plan(network=t.network)
    assert [engine.interval * n for engine, n in zip(plan.engines, plan.positions)] == [72, 68, 72]
    x = extremes(np.random.default_rng(0), plan.network.input, (10, plan.network.inputs))
    assert play_network(Core(plan), x, limit=4000).interval == cycles


def test_alone_it_is_four_cycles_slower():
    """A place is written when it has been read, and read when all are written."""
    t = Tree((8, 1, 8)).rearranged("r", Rearrange.transposed(Shape(8, 1, 8)).index, (8, 1))
    plan = Plan(network=t.network)
    assert plan.interval == 68
    check(plan)
    x = extremes(np.random.default_rng(1), plan.network.input, (9, 64))  # past all turns of its order
    assert play_network(Core(plan), x, limit=4000).interval == 68


@pytest.mark.parametrize("steps, channels", [(3, 5), (8, 8)])
def test_other_orders_are_looked_up(steps, channels, large):
    """And short ones."""
    plan = Plan(network=mixed(steps, channels))
    assert InPlace not in {type(engine.reader) for engine in plan.engines}
    check(plan)


def test_large_maps_are_kept_in_place(large):
    plan = Plan(network=mixed(16, 16), target="ecp5")
    assert sum(type(engine.reader) is InPlace for engine in plan.engines) == 2
    lanes = Plan(network=mixed(16, 16, 4), choices={"across": {"lanes": 4}})
    assert type(lanes.engines[1].reader) is InPlace and lanes.engines[1].interval == 256 + 4


@pytest.mark.parametrize("target", ["plain", "ecp5"])
def test_verilog(target, tmp_path):
    path = write_plan(Plan(network=mixed(8, 8), target=target), tmp_path, name="core").path
    result = simulate(path, vectors=12, simulator="compiled")
    assert result.ok and result.interval == 68, result.problems


def test_no_rom_holds_ones():
    plan = Plan(network=mixed(8, 8), target="ecp5")
    assert plan.engines[1].rom_bits == 0 and plan.engines[1].multipliers == 0


@pytest.mark.parametrize("name, times", [("mixer", 4), ("context", 1), ("pixel_shuffled", 1)])
def test_modules_of_torch_that_rearrange(name, times):
    """Layers over positions and channels in turn; a vector repeated at each position; channels that become positions."""
    _, _, network, _ = corpus.read(name)
    x = np.random.default_rng(0).normal(size=(30, *network.shape.dims))
    settings = make_settings(weight_bits=8, activation_bits=8, equalise=False)
    integers = compile(network, settings=settings, calibration=x, allow_constant=True)
    assert sum(isinstance(node, Rearrange) for node in network.nodes) == times
    check(Plan(network=integers))


# --- Fourier transforms ---


@pytest.mark.parametrize("base", [2, 4, 8])
@pytest.mark.parametrize("n", [2, 4, 12, 30, 64, 128])
def test_transforms_are_numpys(n, base):
    rng, order = np.random.default_rng(n), reversed_digits(n, base)
    x, y = rng.normal(size=(2, 3, n))
    wanted = np.fft.fft(x, norm="ortho")[:, order]
    found = fourier(n, base)(x).reshape(3, n, 2)
    assert np.allclose(found[..., 0] + 1j * found[..., 1], wanted)
    found = fourier(n, base, real_in=False, real_out=True)(np.concatenate([x, y], 1))
    assert np.allclose(found, np.fft.fft(x + 1j * y, norm="ortho")[:, order].real)


def block(channels, steps):
    network = fbfly(channels, steps, widening=2)
    x = np.random.default_rng(3).normal(size=(20, *network.shape.dims))
    return network, x


@pytest.mark.parametrize("channels, steps", [(16, 8), (8, 32), (12, 6)])
def test_fourier_mixing_is_numpys(channels, steps):
    """As FNet has it: the real part of the transform over both, plus what went in."""
    network, x = block(channels, steps)
    first = Network(network.nodes[:5], network.shape)
    m = first.nodes[-1]
    wanted = np.fft.fft2(x[:, :, 0], axes=(1, 2), norm="ortho").real + x[:, :, 0]
    assert m.name == "mixed" and np.allclose(first(x)[:, :, 0], m.scale * wanted + m.bias)


def test_block_is_a_core(tmp_path):
    network, x = block(16, 8)
    settings = make_settings(weight_bits=8, activation_bits=9, input_bits=8, equalise=False)
    integers = compile(network, settings=settings, calibration=x)
    assert isinstance(integers, IntNetwork) and integers.input == QFormat(8, integers.input.frac)
    plan = Plan(network=integers)
    assert sum(isinstance(getattr(engine, "reader", None), InPlace) for engine in plan.engines) == 2
    result = simulate(write_plan(plan, tmp_path, name="core").path, vectors=8, simulator="compiled")
    assert result.ok and result.interval == plan.interval, result.problems
