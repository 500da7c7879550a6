"""New weights into a bitstream: what the whole netlist then computes, and the way back."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kills import ended_well, forked, hidden, states, visible

import bfthw
import rtl_gen
from bfthw import Chain, Factor, files
from bfthw.chain import bft
from boards import gatelevel, roms
from boards.build import build
from boards.families import FAMILIES
from boards.flash import bitstream
from boards.patch import patch
from rtl_gen import handover

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "digits"


def network(seed=0, *, n=8, name="layers.0", scale=1.0, layers=1, backwards=False):
    """Butterflies whose ROMs are just deep enough to be marked; seed 0 has the largest weights."""
    chain, rng = Chain.random(bft(n, 2)[:: -1 if backwards else 1], seed=0), np.random.default_rng(seed)
    if seed:
        chain = Chain(Factor(factor.values * rng.uniform(-0.99, 0.99, factor.values.shape)) for factor in chain.factors)
    if scale != 1:
        chain = Chain(Factor(factor.values * scale) for factor in chain.factors)
    layer = bfthw.Layer(chain=chain, relu=True, bias=np.linspace(-0.5, 0.5, n) * (0.9 if seed else 1), name=name)
    return bfthw.Network(layers=(layer, *(replace(layer, name=f"more.{m}") for m in range(1, layers))))


def saved(path, *arguments, **options):
    bfthw.save(network(*arguments, **options), path)
    return path


def made(tmp_path, board, check=False):
    core, directory = tmp_path / "core", tmp_path / board
    design = rtl_gen.write(bfthw.compile(network()), core, name="tiny")
    return design, build(design, board, directory, check=check), directory


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder of a build, what was there before, what a kill at each step leaves); of the folder an earlier build for
    another board was killed in the middle.
    """
    place = tmp_path_factory.mktemp("patch with $ and space")
    (journal := place / "icebreaker" / ".bfthw-journal").mkdir(parents=True)
    rtl_gen.write(bfthw.compile(network(7)), place / "icebreaker", name="tiny", with_rtlil=True)
    report = {"board": "ulx3s-85f", "bitstream": "tiny.bit", "sha256": hashlib.sha256(b"bits").hexdigest()}
    report["configuration"] = rtl_gen.read_manifest(place / "icebreaker" / "tiny.json").configuration
    files = {f"tiny.{ending}": b"bits" for ending in ("bit", "config", "marked.config", "marked.json")}
    files |= {"report.json": json.dumps(report).encode()}
    for file, content in files.items():
        (place / "icebreaker" / file).write_bytes(content)
    before = visible(place / "icebreaker")
    journal.mkdir()
    for file in ("tiny.v", "tiny.json", "tiny.bit"):
        (place / "icebreaker" / file).rename(journal / file)
    (place / "icebreaker" / "tiny.v").write_bytes(b"an older one")
    dead = place / "icebreaker" / ".bfthw-work-abcd1234" / "work"
    dead.mkdir(parents=True)
    (dead / "yosys.log").write_bytes(b"not finished")
    with states(place / "icebreaker", place / "copy", read_build) as found:
        folder = made(place, "icebreaker")[2]
    return folder, before, found


def read_build(folder):
    """What a user sees of a build's folder, once every reader has been there."""
    bitstream(folder)
    design = rtl_gen.load_design(folder / "tiny.json")
    assert json.loads((folder / "report.json").read_text())["configuration"] == design.manifest.configuration
    return visible(folder)


@pytest.fixture
def icebreaker(built):
    """The folder of a build; not to be changed."""
    return built[0]


def check_states(found, old, new):
    """Old or new at every step, and once new always new."""
    assert all(state in (old, new) for state in found), [s if isinstance(s, Exception) else sorted(s) for s in found]
    news = [state == new for state in found]
    assert news == sorted(news) and set(news) == {False, True} and old != new


def test_a_build_killed_at_any_step(built):
    folder, before, found = built
    check_states(found, before, visible(folder))
    assert not hidden(folder)
    gone = {"tiny.bit", "tiny.config", "tiny.marked.config", "tiny.il", "tiny_tb.v", "tiny.h", "tiny.core"}
    assert gone <= set(before) and not gone & set(visible(folder))


@pytest.fixture
def folder(icebreaker, tmp_path):
    return shutil.copytree(icebreaker, tmp_path / "build")


def content(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def verilog_rams(text):
    """Contents of the block RAMs of a mapped netlist for iCE40, read from its Verilog."""
    found = []
    for cell in re.findall(r"^  SB_RAM40_4K\w* #\((.*?)^  \) ", text, re.DOTALL | re.MULTILINE):
        words = dict(re.findall(r"\.(INIT_\w)\(256'h([0-9a-fx]+)\)", cell))
        # what is left out or x is zero
        ram = FAMILIES["ice40"].ram
        bits = {name: f"{int(words.get(name, '0').replace('x', '0'), 16):0256b}" for name in ram.parameters}
        found.append(ram.read(bits).tobytes())
    return sorted(found)


def asc_rams(text):
    pattern, rows, _ = FAMILIES["ice40"].blocks
    return sorted(rows(block[2]).tobytes() for block in pattern.finditer(text))


def test_there_and_back(folder, tmp_path):
    """The whole netlist computes the new weights, the bitstream has the netlist's contents, and back all is as
    before.
    """
    handover.write(rtl_gen.load_design(folder / "tiny.json").plan, folder, "tiny")
    before = content(folder)
    (folder / "tiny.il").write_bytes(b"of the old weights")
    old, cut = visible(folder), tmp_path / "cut off"

    def look(copy):
        if (copy / ".bfthw-journal" / "tiny.json").exists():
            shutil.copytree(copy, cut, dirs_exist_ok=True)
        return read_build(copy)

    with states(folder, tmp_path / "copy", look) as found:
        design = patch(folder, saved(tmp_path / "new.safetensors", 1))
    now = content(folder)
    check_states(found, old, now)
    assert set(now) == set(before)
    same = {name for name in now if now[name] == before[name]}
    of_weights = handover.names("tiny", handover.OF_WEIGHTS)
    beside = set(handover.names("tiny")) - {"tiny_models.v", *of_weights}
    assert same == {"tiny.marked.asc", "tiny.marked.json", "tiny.nextpnr.log", "tiny.yosys.log"} | beside
    handover.write(design.plan, folder, "tiny")
    assert all((folder / name).read_bytes() == now[name] != before[name] for name in of_weights)
    report = json.loads(now["report.json"])
    assert report["netlist"] == "netlist not simulated since new weights were patched in" and report["patched"]
    assert report["configuration"] == design.manifest.configuration

    x = np.random.default_rng(0).integers(-128, 128, (6, 8))
    result = gatelevel.check(folder, inputs=x)
    assert result.ok, result.problems
    # the golden model of the new weights, made without the patch
    fmt = bfthw.quantize.formats_of(bfthw.compile(network()))
    new = bfthw.quantize.quantise(network(1), fmt)
    assert np.array_equal(result.outputs, new(x)) and (new(x) != bfthw.compile(network())(x)).any()

    rams = verilog_rams(now["tiny.netlist.v"].decode())
    assert len(rams) > 4 and rams == asc_rams(now["tiny.asc"].decode())
    assert rams != asc_rams(before["tiny.asc"].decode())

    # in what a kill left
    assert (cut / ".bfthw-journal" / "tiny.json").exists() and hidden(cut)
    patch(cut, saved(tmp_path / "old.safetensors"))
    back = content(cut)
    for name in set(before) - {"report.json", "tiny.netlist.v"}:
        assert back[name] == before[name], name
    assert verilog_rams(back["tiny.netlist.v"].decode()) == verilog_rams(before["tiny.netlist.v"].decode())


@pytest.mark.parametrize(
    "weights, told",
    [
        (dict(scale=50), r"layers\.0\.factors\.0: \S+ does not fit .*build anew"),
        (dict(n=16), "formats for 3 factors, layer 'layers.0' has 4"),
        (dict(backwards=True), r"layer 'layers\.0' has patterns .*, the bitstream's is 'layers\.0' with"),
        (dict(name="other"), "layer 'other' has patterns .* the bitstream's is 'layers.0'"),
        (dict(layers=2), "formats for 1 layers, the network has 2"),
    ],
    ids=["too large", "more factors", "other patterns", "other name", "more layers"],
)
def test_other_networks_are_refused(weights, told, folder, tmp_path):
    before = content(folder)
    with pytest.raises(ValueError, match=told) as caught:
        patch(folder, saved(tmp_path / "new.safetensors", 1, **weights))
    assert "new.safetensors" in str(caught.value) and content(folder) == before


def test_files_that_are_not_as_they_were_left(folder, tmp_path):
    weights, before = saved(tmp_path / "new.safetensors", 1), content(folder)
    with pytest.raises(ValueError, match="none.safetensors: no such file"):
        patch(folder, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="report.json is missing"):
        patch(tmp_path, weights)
    assert content(folder) == before
    for name in ("tiny.marked.asc", "tiny.marked.json"):
        (folder / name).write_bytes(before[name].replace(b"1", b"0", 1))
        with pytest.raises(ValueError, match=f"{name} has changed since the build"):
            patch(folder, weights)
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f"{name} is missing"):
            patch(folder, weights)
        assert content(folder) == {key: value for key, value in before.items() if key != name}
        (folder / name).write_bytes(before[name])
    (folder / "tiny.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match="not the bitstream of report.json"):
        patch(folder, weights)


@pytest.mark.parametrize("reads", ["patch", "check"])
def test_report_and_core_are_read_as_one(reads, folder, tmp_path, monkeypatch):
    """No writer comes between the two."""
    monkeypatch.setattr(files, "WAIT", 0.1)
    before, kept_out = content(folder), []

    def between(path):
        kept_out.append(not ended_well(forked(lambda: files.write(path, b"another one"))))
        raise InterruptedError("seen")

    monkeypatch.setattr(rtl_gen, "load_design", between)
    with pytest.raises(InterruptedError, match="seen"):
        patch(folder, tmp_path / "new.safetensors") if reads == "patch" else gatelevel.check(folder)
    assert kept_out == [True] and content(folder) == before


def test_a_build_that_ends_meanwhile(folder, tmp_path, monkeypatch):
    """What a patch began with is no longer there when it ends: nothing is mixed."""
    def fill(source, target, name, *_):  # tools take seconds
        for ending in ("asc", "netlist.v", "bin"):
            (target / f"{name}.{ending}").write_bytes(b"patched")

    monkeypatch.setattr("boards.patch.fill_products", fill)
    monkeypatch.setattr("boards.patch.pack", lambda *_: None)
    report = folder / "report.json"
    before = content(folder) | {"report.json": report.read_bytes() + b"\n"}
    changed = "report.json: another process has changed it meanwhile; run the command again"
    with pytest.raises(ValueError, match=changed):
        patch(folder, saved(tmp_path / "new.safetensors", 1),
              progress=lambda step: step == "bitstream" and report.write_bytes(before["report.json"]))
    assert content(folder) == before


@pytest.mark.parametrize(
    "change", [dict(board="tang-nano-9k"), dict(structure=None), dict(structure="0"), dict(marked={})]
)
def test_builds_that_cannot_be_patched(change, folder, tmp_path):
    """Another board's, without marks, another hardware: by what report.json says."""
    report = json.loads((folder / "report.json").read_text()) | change
    (folder / "report.json").write_text(json.dumps(report))
    before = content(folder)
    with pytest.raises(ValueError, match="built without marks|need other hardware|names no marked files"):
        patch(folder, saved(tmp_path / "new.safetensors", 1))
    assert content(folder) == before


def test_a_report_of_another_manifest(folder):
    report = json.loads((folder / "report.json").read_text()) | {"configuration": 64 * "0"}
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="report.json: configuration is 000000000000, tiny.json has "):
        gatelevel.check(folder)


def test_netlists_without_pins(folder):
    from boards.table import BOARDS

    text = (folder / "tiny.netlist.v").read_text()
    board = BOARDS["icebreaker"]
    with pytest.raises(ValueError, match=r"tiny on icebreaker has no pin clk12_0__io; it has uart_0__rx__io"):
        gatelevel.wrapper(text.replace("clk12_0__io", "clock"), "tiny", board, "w")
    with pytest.raises(ValueError, match="has no pin clk12_0__io; it has none"):
        gatelevel.wrapper(text, "other", board, "w")


@pytest.mark.slow
def test_faults_of_a_netlist_are_found(folder, tmp_path):
    """A bit of a weight's ROM, and the ROM that holds what the board says of itself."""
    text = (folder / "tiny.netlist.v").read_text()
    table = re.compile(
        r"(INIT_0\(256'h[0-9a-fx]*)([0-9a-f])(\),(?:(?!SB_RAM).)*?stage_0\.weights\.0\.0)", re.DOTALL
    )
    damaged, count = table.subn(lambda m: f"{m[1]}{int(m[2], 16) ^ 4:x}{m[3]}", text, count=1)
    assert count == 1
    (folder / "tiny.netlist.v").write_text(damaged)
    result = gatelevel.check(folder)
    assert not result.ok and "should be" in result.problems[0]
    # the netlist of the old weights beside the new manifest
    patch(folder, saved(tmp_path / "new.safetensors", 1))
    (folder / "tiny.netlist.v").write_text(text)
    result = gatelevel.check(folder)
    assert not result.ok and "the board runs 'tiny' (configuration" in result.problems[0] and result.outputs is None


def located(directory, family):
    """Name → bits of the ROMs of a patched build, read from its text where the marks stood in the marked one."""
    ram, text = FAMILIES[family].ram, FAMILIES[family].placed
    pattern, read, _ = FAMILIES[family].blocks
    before, after = ((directory / f"tiny.{name}{text}").read_text() for name in ("marked.", ""))
    pairs = {
        read(b[2]).tobytes(): read(a[2]) for b, a in zip(pattern.finditer(before), pattern.finditer(after), strict=True)
    }
    rams = roms.read_rams(json.loads((directory / "tiny.marked.json").read_text()), ram)
    return rams, pairs


@pytest.mark.slow
def test_ecp5_has_the_new_contents(tmp_path):
    """By text: every ROM read back from the .config holds the new integers."""
    from functools import partial

    from boards.build import gateware
    from boards.shell import Shell
    from boards.table import BOARDS

    _, _, folder = made(tmp_path, "ulx3s-85f")
    before = content(folder)
    design = patch(folder, saved(tmp_path / "new.safetensors", 1))
    _, rtlil, _ = gateware(BOARDS["ulx3s-85f"], partial(Shell, design), "tiny")
    found = [rom for rom, _ in roms.find_roms(rtlil)]
    rams, pairs = located(folder, "ecp5")
    places = roms.locate(rams, roms.marks(found), FAMILIES["ecp5"].ram, "tiny")
    got = {rom.name: np.zeros(rom.bits.size, bool) for rom in found}
    for cell, (name, index) in places.items():
        now = pairs[rams[cell].tobytes()]
        got[name][index[index >= 0]] = now[index >= 0]
    for rom in found:
        assert np.array_equal(got[rom.name].reshape(rom.bits.shape), rom.bits), rom.name
    # the integers themselves, two of 8 bits a word
    (store,) = (rom for rom in found if "stage_0\\weights" in rom.name)
    words = np.packbits(got[store.name].reshape(store.bits.shape), axis=1, bitorder="little").view(np.int8)
    assert sorted(words.ravel()) == sorted(design.plan.network.layers[0].factors[0].values.ravel())
    patch(folder, saved(tmp_path / "old.safetensors"))
    back = content(folder)
    assert back["tiny.bit"] == before["tiny.bit"] and back["tiny.config"] == before["tiny.config"]
