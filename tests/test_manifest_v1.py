"""Manifests of version 1 are read as before: what each stage said of its engine is a table of choices by layer.

manifests_v1.json has some that version 1 wrote, without hashes, tools and estimates, and the settings they were made by.
"""

import copy
import json
from pathlib import Path

import pytest

from bfthw import Chain, Layer, Network, Settings, chain, compile
from rtl_gen import load_design, read_manifest, write
from sim import simulate

WRITTEN = json.loads(Path(__file__).with_name("manifests_v1.json").read_text(encoding="utf-8"))
CHOICES = {
    "pipelined": {
        "a.0": {"engine": "pipelined", "lanes": [2, 4], "simd": [2, 1], "products": "dsp"},
        "b": {"engine": "pipelined", "lanes": [2, 4], "simd": [1, 2], "products": "dsp"},
    },
    "paired": dict.fromkeys(("a.0", "b"), {"engine": "folded", "products": "dsp", "paired": True}),
    "mixed": {
        "a.0": {
            "engine": ["pipelined", "folded", "folded"], "lanes": [1, None, None], "simd": [1, None, None],
            "products": "dsp", "paired": [None, True, True],
        },
        "b": {
            "engine": ["pipelined", "spatial", "pipelined"], "lanes": [1, None, 1], "simd": [1, None, 1],
            "products": ["lut", None, "dsp"],
        },
    },
    "spatial": dict.fromkeys(("a.0", "b"), {"engine": "spatial"}),
}


def design_of(n, settings, folder, name):
    layers = [
        Layer(chain=Chain.random(chain.bft(n, 2), seed), name=layer, relu=True) for seed, layer in enumerate(("a.0", "b"))
    ]
    network = compile(Network(layers=layers), settings=Settings(weight_bits=4, activation_bits=6))
    return write(network, folder, name=name, settings=Settings(**settings))


def as_version_1(name, folder):
    """A core as it is written today, and the manifest of version 1 in the place of its own; (its path, Design, table)."""
    case = WRITTEN[name]
    design = design_of(case["n"], case["settings"], folder, name)
    table, today = copy.deepcopy(case["manifest"]), json.loads(design.path.read_text(encoding="utf-8"))
    table |= {key: today[key] for key in ("configuration", "files", "tools")}
    table["resources"]["estimated"] = today["resources"]["estimated"]
    design.path.write_text(json.dumps(table), encoding="utf-8")
    return design.path, design, table


def test_keys_that_came_later_may_be_missing(tmp_path):
    path, design, table = as_version_1("mixed", tmp_path)
    del table["roms"], table["count_beats"], table["files"]["memories"]
    path.write_text(json.dumps(table), encoding="utf-8")
    again = load_design(path)
    assert (again.plan.roms, again.plan.count_beats, again.manifest) == ("initial", False, design.manifest)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_manifest_of_version_1_says_what_version_2_says(tmp_path, name):
    path, design, table = as_version_1(name, tmp_path)
    assert table["version"] == 1 and "choices" not in table
    assert read_manifest(path) == design.manifest and design.manifest.version == 2
    assert design.manifest.choices == CHOICES[name]
    again = load_design(path)
    assert again.plan.choices == design.plan.choices and again.manifest == design.manifest
    # what a stage says of itself is still held against the integers
    table["stages"][0]["shift"] += 1
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}.json: stages.0.shift is "):
        load_design(path)


def test_wrong_manifests_of_version_1_are_refused(tmp_path):
    path, _, good = as_version_1("pipelined", tmp_path)
    assert simulate(path, vectors=2).ok
    for keys, words in (
        ({"paired": True}, "pipelined.json: not a manifest of version 2: "),
        ({"paired": None}, "pipelined.json: not a manifest of version 2: "),
        ({"choices": {}}, "pipelined.json: not a manifest of version 2: "),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"stages": [{**good["stages"][0], "engine": "systolic"}]}, "pipelined.json: not a manifest of version 2: "),
        ({"stages": [{**good["stages"][0], "lanes": "2"}, *good["stages"][1:]]}, "pipelined.json: "),
        ({"stages": [{**good["stages"][0], "lanes": 4}, *good["stages"][1:]]}, r"pipelined.json: \w+.* is .*, but"),
        ({"stages": [{"name": 3}]}, "pipelined.json: not a manifest of version 2: "),
        ({"stages": []}, "pipelined.json: input.lanes is 2, but"),
    ):
        table = {key: value for key, value in (good | keys).items() if value is not None}
        path.write_text(json.dumps(table), encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            load_design(path)
