"""A manifest is held against what its integers and choices give, key by key, by every reader of a core."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pytest
from test_emit import example
from test_manifest import changed, hash_of

from bfthw import QFormat, Settings
from boards.build import build
from boards.host import Board
from boards.session import compare, connect
from rtl_gen import load_design, write
from rtl_gen.manifest import Format, Port
from rtl_gen.top import lane_bytes
from sim import simulate


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A core with two kinds of engines, an estimate and everything in its layer; its folder."""
    settings = Settings(target="ecp5", engine=["pipelined", "spatial"], lanes=[2, 1], vectors=2)
    return write(example(4, 2), tmp_path_factory.mktemp("whole"), name="core", settings=settings).path.parent


def leaves(tree, key=()):
    """(path, value) of all that is in nested dicts and lists."""
    if isinstance(tree, (dict, list)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*key, name))
    else:
        yield key, tree


def another(key, value):
    """A value in the place of one that is as good by itself."""
    choices = {
        "engine": ["folded", "pipelined", "spatial"], "products": ["lut", "dsp"],
        "target": ["plain", "ecp5", "ice40", "gowin"], "prefix": ["s_axis", "m_axis"],
        "roms": ["initial", "case", "readmemh"],
    }
    name = key[2] if key[0] == "choices" else key[-1]
    if name in choices and value is not None:
        return next(v for v in choices[name] if v != value)
    if value is None:
        return {"width": 3, "frac": 1} if key[-1] == "residual_weights" else 3
    if isinstance(value, (bool, int)):
        return not value if isinstance(value, bool) else value + 1
    first = "x" if len(value) < 64 else "0" if value[0] != "0" else "1"  # a name, or a hash
    return first + value[1:]


FIXED = ("format", "version", "clock", "reset", "rounding", "saturation")  # there is one value alone


def test_every_key_is_held_against_the_integers(whole):
    """Each value changed alone, the hash of the configuration made to fit: no result or port can say otherwise."""
    path = whole / "core.json"
    text = path.read_text(encoding="utf-8")
    good, free, tried = json.loads(text), set(), 0
    try:
        for key, value in leaves(good):
            if key[0] in FIXED:
                continue
            table = json.loads(text)
            place = table
            for name in key[:-1]:
                place = place[name]
            place[key[-1]] = another(key, value)
            assert place[key[-1]] != value, key
            if key != ("configuration",):
                table["configuration"] = hash_of(table)
            path.write_text(json.dumps(table), encoding="utf-8")
            tried += 1
            try:
                load_design(path)
                free.add(key)
            except ValueError as error:
                assert str(error).startswith(str(path.parent)), (key, error)
    finally:
        path.write_text(text, encoding="utf-8")
    # tools, estimates, and choices from which nothing follows but the Verilog, whose hash is there
    choices = {("target",), ("count_beats",), ("choices", "body.0", "products", 0)}
    assert free == {key for key, _ in leaves(good) if key[0] == "tools" or "estimated" in key} | choices and tried > 90


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"stages__0__shift": 1}, r"stages.0.shift is 1, but core.npz and the manifest's choices give \d+; run `bfthw"),
        ({"stages__1__pattern": [4, 1, 1, 1]}, r"stages.1.pattern.0 is 4, but core.npz and"),
        ({"stages__0__output__width": 62}, "stages.0.output.width is 62, but"),
        ({"engines__0__stages": ["x"]}, "engines.0.stages.0 is 'x', but"),
        ({"latency": 7}, "latency is 7, but"),
        ({"engines__1__interval": 99}, "engines.1.interval is 99, but"),
        ({"stages": []}, "stages is \\[\\], but"),
        ({"choices__body.0__engine": ["pipelined"]}, "engine of layer 'body.0' needs an entry for each of 2 factors"),
        ({"choices__body.0__engine": "systolic"}, "stage body.0:0: engine must be one of folded, .*, got 'systolic'"),
        ({"choices__body.0__products": None}, "choices.body.0 is .*, but core.npz and the manifest's choices give"),
        ({"choices__body.0__products": "x"}, "stage body.0:0: products must be one of dsp, lut, got 'x'"),
        ({"choices__body.0__lanes": ["x", None]}, "stage body.0:0: lanes must be of type int, got "),
        ({"choices__body.0__lanes": [True, None]}, "stage body.0:0: lanes must be of type int, got "),
        ({"choices__body.0__simd": ["x", None]}, "stage body.0:0: simd must be of type int \\| None, got 'x'"),
        ({"choices__body.0__simd": 3}, "stage body.0:0: pattern .* cannot have SIMD 3"),
        ({"choices__body.0__paired": True}, "choices.body.0 is .*, but"),
        ({"choices__body.0__depth": 3}, "layer 'body.0': no engine has an option 'depth'; there are engine, lanes"),
        ({"choices__tail": {}}, "the network has no layer 'tail'; its layers are 'body.0'"),
        ({"choices": {}}, "input.lanes is 2, but core.npz and the manifest's choices give 1"),
        ({"target": "xc7"}, "target must be one of plain, ecp5, ice40, gowin, got 'xc7'"),
        ({"roms": "flash"}, "roms must be one of initial, case, readmemh, tables, blocks, got 'flash'"),
    ],
)
def test_every_reader_of_a_core_refuses_it(whole, tmp_path, keys, words):
    """In load_design, simulate, build, patch's start, a simulated board, and a host that has the core's files."""
    path = shutil.copytree(whole, tmp_path / "core") / "core.json"
    changed(path, **keys)
    readers = (
        load_design, partial(simulate, vectors=1), lambda path: build(path, "ulx3s-85f", tmp_path),
        lambda path: Board(Nobody(), path), lambda path: compare(path, np.zeros((1, 4)), np.zeros((1, 4))),
        lambda path: connect(None, path).__enter__(),
    )
    for read in readers:
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*(" + words + ")"):
            read(path)


class Nobody:
    """A line on which no byte may be written before the manifest is held to be good."""

    def read(self, size):
        raise AssertionError("read")

    write = read


def test_a_host_needs_the_manifest_alone(whole, tmp_path):
    """Without the core's files nothing can be regenerated: a host asks the board, which must be configured alike."""
    path = tmp_path / "core.json"
    path.write_text((whole / "core.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssertionError, match="read"):
        Board(Nobody(), path)
    shutil.copy(whole / "core.npz", tmp_path)
    with pytest.raises(AssertionError, match="read"):
        Board(Nobody(), path)
    (tmp_path / "core.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="core.npz: not the file that core.json was made with"):
        Board(Nobody(), path)


def test_widths_of_a_manifest_are_those_of_formats():
    """As wide as a QFormat can be, and no wider: readers compute with 64 bits."""
    assert Format(width=62, frac=0).qformat() == QFormat(62, 0)
    for width in (0, 63):
        with pytest.raises(ValueError, match="width"):
            Format(width=width, frac=0)
        with pytest.raises(ValueError, match="width must be 1 to 62 bits"):
            QFormat(width, 0)
    for width in (1, 8, 9, 62):
        assert 1 <= lane_bytes(width) <= 8
        q = QFormat(width, 0)
        port = Port(prefix="s_axis", elements=1, format=Format.of(q), lanes=1, lane_bytes=lane_bytes(width), beats=1)
        assert port.format.qformat() == q
