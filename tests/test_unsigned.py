"""Numbers without a sign, clamps and tables, from the port to the port: every engine, reader and target."""

import json
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from engine_cases import ENGINES, network_of, spec_of
from fake_board import FakeBoard
from rtl_bench import ACTS, beats_of, extremes, factor_of, plan_of, play, play_network, random_spec, without_sign
from sim_bench import needs_icarus
from test_handover import MIXED, TARGETS, played
from test_handover import spec_of as mixed_of

import bfthw
from bfthw import Chain, IntLayer, IntNetwork, Layer, QFormat, Settings, chain
from bfthw.act import Table
from boards import netlist
from boards.host import Board
from boards.link import BoardError
from rtl_gen import Network, Pipelined, Spatial, estimate, load_design, write, write_plan
from rtl_gen.engines.pairs import pair_bits
from sim import simulate

NEITHER, TOP = QFormat(8, 4, signed=False), 200


def check(spec, seed, stall=0.4):
    """Golden outputs, cycles as promised, every clipped value counted, at full speed and stalled."""
    q, e, network = spec.network, spec.vectors, Network(spec)
    said = (f"{f.pattern} {f.input} -> {f.output} {f.relu} {f.top} {f.table}" for f in q.factors)
    print(f"seed {seed}, vectors {e}:", *said, sep="\n")
    x = extremes(np.random.default_rng(seed), q.input, (8 * e, q.inputs))
    free = play_network(network, x)
    assert np.array_equal(free.outputs, q(x)) and free.latency == spec.pipeline_latency
    words = beats_of(x, spec.lanes_in, e, q.input.width)
    streams = [(network.i, words)], [(network.o, 8 * spec.beats_out)]
    counted = play(network, *streams, stall=stall, seed=seed, watch=[network.saturated])[-1]
    assert sum(counted) == sum(int(f.saturated(acc).sum()) for f, acc, _ in q.accumulators(x))


def unsigned_at_both_ends(network, act=None, seed=0):
    """The first of `without_sign`, from a seed on, with ports of numbers without a sign."""
    networks = (without_sign(network, n, act) for n in range(seed, seed + 100))
    return next(q for q in networks if not (q.input.signed or q.output.signed))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("act", ACTS)
def test_every_engine(name, act):
    spec, seed = spec_of(*ENGINES[name]), len(name) + ACTS.index(act)
    check(replace(spec, network=unsigned_at_both_ends(spec.network, act, seed)), seed)


@pytest.mark.parametrize("seed", range(6), ids="seed-{}".format)
def test_random_networks(seed):
    spec = random_spec(seed, largest=32, weights=150)
    check(replace(spec, network=without_sign(spec.network, seed)), seed)


@needs_icarus
@pytest.mark.parametrize("target", TARGETS)
def test_in_verilog(tmp_path, target):
    """Four engines with the family's models and the testbench beside the core; ports extend with zeros."""
    spec = mixed_of(*MIXED, target=target)
    write_plan(replace(spec, network=unsigned_at_both_ends(spec.network)), tmp_path, name=target)
    assert f"PASS: {target}" in played(tmp_path, target)
    head = (tmp_path / f"{target}.v").read_text().split("module")[0]
    assert head.count("without a sign") == 2 and "zeros above" in head


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    """A layer with ports of 8 bits, whole bytes of TDATA, that uses all of them, up to a clamp."""
    (layer,) = unsigned_at_both_ends(network_of(chain.bft(4, 2), x=NEITHER, w=QFormat(6, 4)), "clamp").layers
    *head, last = layer.factors
    network = IntNetwork(layers=(replace(layer, factors=(*head, replace(last, top=TOP))),))
    plan = plan_of(network, engines=("pipelined", "spatial"), target="ice40")
    return write_plan(plan, tmp_path_factory.mktemp("core"), name="core")


@needs_icarus
def test_simulated(design):
    """Outputs are read as the port gives them."""
    result = simulate(design, vectors=10, simulator="icarus")
    assert result.ok, result.problems
    assert (result.outputs == TOP).any() and (result.outputs < TOP).any()


@pytest.mark.slow
def test_netlist(design):
    """What Yosys maps it to, with Yosys' own models of multipliers without a sign."""
    result = netlist.simulate(design, vectors=30, simulator="compiled")
    assert result.ok, result.problems


def test_over_the_link(design):
    """A byte an element, above 127 as well; a board whose numbers have a sign is another."""
    q, rng = design.plan.network, np.random.default_rng(0)
    x, floats = extremes(rng, q.input, (40, q.inputs)), rng.normal(size=(40, q.inputs)) * 9
    port = FakeBoard(design)
    with Board(port, design.path, timeout=0.05) as board:
        y = board.run(x)
        assert np.array_equal(y, q(x)) and y.max() > 127
        assert np.array_equal(board.run(floats), q.predict(floats))
    other = replace(port.info, output=replace(port.info.output, signed=True))
    with pytest.raises(BoardError, match="output is .*signed=True.* on the board, .*signed=False.* in"):
        Board(FakeBoard(design, info=other), design.path, timeout=0.05)


def test_manifest_says_so(design, tmp_path):
    """What has no sign says so, all else is written as ever; a flag that is lost is noticed."""
    text = design.path.read_text()
    table, last = json.loads(text), design.plan.network.factors[-1]
    assert load_design(design.path).manifest == design.manifest
    assert table["output"]["format"] == {"width": 8, "frac": last.output.frac, "signed": False}
    assert table["stages"][-1]["top"] == last.top and "top" not in table["stages"][0]
    assert "two's complement" not in table["saturation"]
    own = spec_of(*ENGINES["banked"])
    signed = write_plan(own, tmp_path, name="own").path.read_text()
    assert "top" not in (stages := json.loads(signed))["stages"][0] and '"signed"' not in signed
    assert "two's complement" in stages["saturation"]
    told = r"stages\.1\.output is .*, but core\.npz and .* give .*False"
    for keys, words in ((("input", "format"), "configuration: the hash"), (("stages", -1, "output"), told)):
        wrong = json.loads(text)
        del reduce(lambda at, key: at[key], keys, wrong)["signed"]
        design.path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=words):
            load_design(design.path)
    design.path.write_text(text)


@pytest.mark.parametrize("act", ["relu6", "hswish", "sigmoid"])
def test_rows_with_other_activations(tmp_path, act):
    """From a float network through files to a design that is loaded again."""
    layers = [Layer(chain=Chain.random(chain.bft(16), n), name=f"l{n}", act=act, residual=True) for n in range(2)]
    network, x = bfthw.Network(layers=layers), np.random.default_rng(1).random((50, 16)) * 4
    bfthw.save(network, tmp_path / "net.npz")
    again = bfthw.load(tmp_path / "net.npz").network
    assert np.array_equal(again(x), network(x))
    settings = Settings(unsigned=True)
    integers = bfthw.compile(again, settings=settings, calibration=x)
    assert not integers.input.signed and integers.output.signed == (act == "hswish")
    loaded = load_design(write(integers, tmp_path, name="core", settings=settings).path)
    q = integers.input.quantise(x)
    assert np.array_equal(loaded.plan.network(q), integers(q))
    assert np.array_equal(play_network(Network(loaded.plan), q[:4]).outputs, integers(q[:4]))


@pytest.mark.parametrize(
    "target, width, blocks", [("ice40", 8, (16, 32)), ("gowin", 9, (16, 32)), ("ecp5", 18, (32, 32))]
)
def test_an_operand_without_sign_fills_a_multiplier(target, width, blocks):
    """As wide as a block's operand; with a sign the same numbers take one bit, and a wider block or more, beyond it."""

    def taken(q):
        factor = factor_of((1, 4, 8, 4), x=q, w=QFormat(8, 4), out=12)
        network = IntNetwork(layers=(IntLayer(factors=(factor,), name="l"),))
        return estimate(plan_of(network, target=target, lanes=4, simd=8))

    without, with_sign = taken(QFormat(width, 0, signed=False)), taken(QFormat(width + 1, 0))
    assert (without["DSP"], with_sign["DSP"]) == blocks
    # beyond an ECP5's blocks the rest is tables
    assert (with_sign["LUT"] > without["LUT"] + 500) == (target == "ecp5")


def test_pairs_count_the_missing_sign():
    """Two products of an input and weights of w bits: without a sign the input is one bit wider."""
    one, two = spec_of(*ENGINES["paired"], target="ice40").network.factors

    def planned(width):
        q = QFormat(width, 0, signed=False)
        factors = replace(one, input=q, output=q), replace(two, input=q)
        network = IntNetwork(layers=(IntLayer(factors=factors, name="l"),))
        return plan_of(network, engines="folded", paired=True, target="ice40")

    assert pair_bits("ice40", 9) == 4 and planned(8)
    with pytest.raises(ValueError, match="inputs of 10 and weights of 4 bits do not fit an operand of 16; weights of"):
        planned(9)


def test_tables_may_be_deeper_than_a_block_ram():
    """4096 words of 6 bits, where a block RAM of an iCE40 has 2048 of 2."""
    factor = factor_of((2, 2, 2, 1))
    table = Table(input=QFormat(12, 4), values=np.zeros(1 << 12, int))
    network = IntNetwork(layers=(IntLayer(factors=(replace(factor, table=table),), name="l"),))
    without = IntNetwork(layers=(IntLayer(factors=(factor,), name="l"),))
    for target, blocks in {"ecp5": 2, "ice40": 6, "gowin": 2}.items():
        with_table, alone = (estimate(plan_of(one, target=target))["RAM"] for one in (network, without))
        assert with_table - alone == blocks, target


def test_bits_of_tables_are_told():
    factor = factor_of((2, 2, 2, 1), out=7)
    factor = replace(factor, table=Table(input=QFormat(5, 2), values=np.arange(32)))
    few = Pipelined(factors=(replace(factor, table=None),), lanes=2, vectors=3).rom_bits
    assert Pipelined(factors=(factor,), lanes=2, vectors=3).rom_bits == few + 2 * 3 * 32 * 7
    assert Spatial(factors=(factor,), vectors=3).rom_bits == 4 * 3 * 32 * 7
