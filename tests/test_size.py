"""What is too large to be built is refused by its size, before time is spent; what was built before is not."""

import json
import time

import pytest

import rtl_gen
from bench.designs import OURS, SMALL, network
from bfthw import Chain, Layer, Network, Settings, chain, compile
from rtl_gen import Impossible, choose
from rtl_gen.menu import Menu
from rtl_gen.manifest import configuration, read_manifest
from rtl_gen.size import check_size, too_large

BFT = compile(Network(layers=(Layer(chain=Chain.random(chain.bft(16, 4), seed=1)),)))
DENSE = compile(Network(layers=(Layer(chain=Chain.random(chain.dense(16, 128), seed=1)),)))


@pytest.mark.parametrize("entry", [*OURS, SMALL], ids=lambda entry: entry.key)
def test_what_is_built_elsewhere_is_not_refused(entry):
    check_size(entry.plan())


@pytest.mark.parametrize(
    "integers, settings, words",
    [
        (BFT, dict(vectors=4096), "49152 multipliers .* 54 MB of Verilog, 8192 .*--vectors 682 is the most"),
        (BFT, dict(vectors=4096, engine="folded"), "24576 multipliers and elements .*--vectors 1365 is the most"),
        (BFT, dict(vectors=4096, lanes=16), "786432 multipliers.*--vectors 42 is the most"),
        (DENSE, dict(engine="spatial"), r"2048 spatial weights of \d+ signed digits, some \d+ cells .*--engine"),
        (BFT, dict(engine="spatial", vectors=40), "128 spatial weights .* for each of 40 vectors, some"),
        (network(1024, (4,) * 5), dict(lanes=1024), "30720 multipliers and elements.*fewer lanes are smaller"),
        (network(65536, (4,) * 8), dict(simd=1), r"\d+ words of memories, 1048576 are the limit"),
    ],
)
def test_too_large(integers, settings, words):
    with pytest.raises(ValueError, match=f"too large to be built in reasonable time: {words}"):
        check_size(rtl_gen.make_plan(integers, Settings(**settings)))


def test_nothing_is_begun(tmp_path):
    begin = time.process_time()
    with pytest.raises(ValueError, match="too large to be built in reasonable time"):
        rtl_gen.write(BFT, tmp_path / "out", name="core", settings=Settings(vectors=4096))
    assert time.process_time() - begin < 5 and not (tmp_path / "out").exists()


def test_the_nearest_that_works_works():
    spec = rtl_gen.make_plan(BFT, Settings(vectors=682))
    assert not too_large(spec) and too_large(rtl_gen.make_plan(BFT, Settings(vectors=683)))


def test_many_factors():
    layers = tuple(Layer(chain=Chain.random(chain.dense(1, 1), seed=n), name=str(n)) for n in range(513))
    assert "513 factors, 512 are the limit" in too_large(rtl_gen.make_plan(compile(Network(layers=layers))))


def test_a_manifest_from_elsewhere_asks_for_too_much(tmp_path):
    path = rtl_gen.write(BFT, tmp_path, name="core").path
    table = json.loads(path.read_text()) | {"vectors": 4096}
    manifest = read_manifest(path)
    digest = manifest.files.integers.sha256
    table["configuration"] = configuration(digest, manifest.input, manifest.output, 4096)
    path.write_text(json.dumps(table))
    begin = time.process_time()
    with pytest.raises(ValueError, match="core.json: too large to be built in reasonable time: 49152 multipliers"):
        rtl_gen.load_design(path)
    assert time.process_time() - begin < 5


def test_no_spatial_engine_is_tried_that_takes_minutes():
    dense = Network(layers=(Layer(chain=Chain.random(chain.dense(16, 16), seed=1)),))
    networks = {bits: compile(dense, settings=Settings(weight_bits=bits)) for bits in (3, 24)}
    menus = {bits: Menu(network, 1, rtl_gen.ENGINES.values()) for bits, network in networks.items()}
    found = {bits: [engine.kind for _, engine in menu.segments[0]] for bits, menu in menus.items()}
    assert ["spatial" in kinds for kinds in found.values()] == [True, False]
    begin = time.process_time()
    with pytest.raises(Impossible, match="multipliers 0: the fewest are 1"):
        choose(networks[24], multipliers=0)
    assert time.process_time() - begin < 5
