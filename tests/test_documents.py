"""README and docs: what they show runs as it stands, what they name exists, figures that stand twice agree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import document_facts
import numpy as np
import pytest
from document_files import DIGITS, GIVEN
from documents import (
    COMMANDS,
    KINDS,
    PAGES,
    ROOT,
    Block,
    UsageError,
    blocks,
    check,
    check_span,
    commands,
    options_of,
    spans,
    stray,
)

import bfthw
import rtl_gen
from bfthw.chain import Indexed, bft, debut

# `make` says what it would do; what installs is held against pyproject.toml and the README by `check`
SHELL = """
bfthw() { "$PYTHON" -m bfthw "$@"; }
python() { "$PYTHON" "$@"; }
make() { command make -n -C "$ROOT" "$@"; }
pip() { :; }
apt-get() { :; }
"""
SLOW = [page for page in PAGES if any(block.kind.endswith("slow") for block in blocks(page))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The core that `make demo` leaves in build/digits, made without its simulation and bitstreams."""
    place = tmp_path_factory.mktemp("demo")
    shutil.copy(DIGITS, place)
    settings = bfthw.make_settings(DIGITS.with_name("hardware.toml"))
    rtl_gen.write(bfthw.compile(bfthw.load(DIGITS).network), place, name="digits", settings=settings)
    return place


@pytest.fixture(scope="module")
def whole_demo(tmp_path_factory):
    """All of it."""
    place = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, "-m", "bfthw", "demo", "digits", "-o", place], env=variables(), check=True)
    return place


def variables():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "ROOT": str(ROOT)}


def folder(page, place, demo):
    """A folder as a reader has it who has run `make demo`, with the files that the page takes for his own."""
    shutil.copytree(demo, place / "build" / "digits")
    shutil.copytree(ROOT / "docs", place / "docs")
    (place / "examples").symlink_to(ROOT / "examples")
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "activate").touch()
    if page in GIVEN:
        GIVEN[page](place)
    return place


def run(page, place, kinds):
    """Run the blocks of these kinds in order; what the Python ones have defined, by name."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind not in kinds:
            continue
        if block.kind.startswith("python"):
            exec(compile(block.text, str(block), "exec"), names)
        elif block.kind == "toml":
            (place / "settings.toml").write_text(block.text, encoding="utf-8")
            bfthw.make_settings(place / "settings.toml")
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", SHELL + block.text],
                cwd=place, env=variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout}"
    return names


@pytest.fixture
def as_it_was(monkeypatch, one_thread):
    """What a page's Python blocks may change is put back: the folder, where modules are found, torch's threads."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    return monkeypatch


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, demo, tmp_path, as_it_was):
    as_it_was.chdir(folder(page, tmp_path, demo))
    run(page, tmp_path, ("sh", "python", "toml"))


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_page_runs_with_what_takes_long(page, whole_demo, tmp_path, as_it_was):
    as_it_was.chdir(folder(page, tmp_path, whole_demo))
    run(page, tmp_path, ("sh", "python", "toml", "sh slow", "python slow"))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_out(page):
    """Each fence is of a kind that is run, parsed or no command, and no command stands outside of one."""
    unknown = [f"{block}: {block.kind!r}" for block in blocks(page) if block.kind not in KINDS]
    assert not unknown, f"kinds are {', '.join(KINDS)}"
    assert not stray(page), "commands stand in a fence, ```sh; other indented text in a fence, ```text"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page):
    """Commands in fences, those that need a board too, are what their programs take; those named in prose exist."""
    for block in blocks(page):
        if block.kind.startswith("sh"):
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
            for words in commands(block.text):
                try:
                    check(words[1:] if words[0] == "sudo" else words)
                except (AssertionError, UsageError) as error:
                    pytest.fail(f"{block}: {' '.join(words)}: {error}")
    for words in spans(page):
        check_span(words)


WRONG = {
    "bfthw simulat build/x.json": "no `bfthw simulat`",
    "bfthw generate x.npz --lane 2 -o d": "No such option",
    "bfthw generate x.npz --name a": "Missing parameter: output",
    "bfthw run a.json --input x.npy extra": "unexpected extra argument",
    "python examples/train.py --colour": "no --colour",
    "python -m bench.gpu": "no bench/gpu",
    "make demos": "No rule",
    "pip install bfthw[exemples]": "no extra",
    "apt-get install verilater": "verilater",
}


@pytest.mark.parametrize("line, text", WRONG.items())
def test_what_does_not_exist_is_found(line, text):
    (words,) = commands(f"{line} > out  # as it may stand there")
    with pytest.raises((AssertionError, UsageError)) as caught:
        check(words)
    assert text in f"{caught.value} {getattr(caught.value, 'message', '')}"


def test_shell_is_taken_apart():
    text = "a 'b\nc' '' | d \\\n  e && f >g  # h's\nX=1\n"
    assert commands(text) == [["a", "b\nc", ""], ["d", "e"], ["f"], ["X=1"]]
    assert Block("p.md", 3, "sh", text).line == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_options_that_exist(name):
    helps = [COMMANDS[name].help, *(p.help for p in COMMANDS[name].params if p.param_type_name == "option")]
    known = set().union(*map(options_of, COMMANDS.values()))
    for option in re.findall(r"--[a-z][\w-]*", " ".join(filter(None, helps))):
        assert option in known, f"{name}: there is no {option}"


@pytest.mark.parametrize("fact", document_facts.FACTS)
def test_figures_that_stand_twice_agree(fact):
    found = document_facts.found(fact)
    assert len(found) > 1 and len(set(found.values())) == 1, f"{fact}: {found}"


def test_manifest_and_integers_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("docs/manifest.md", tmp_path, ("python",))
    rng = np.random.default_rng(5)
    layers = (
        bfthw.Layer(
            chain=bfthw.Chain.random(bft(16, 4), seed=5),
            residual=True,
            scale=rng.uniform(-1, 1, 16),
            bias=rng.normal(size=16),
            relu=True,
            name="a",
        ),
        bfthw.Layer(chain=bfthw.Chain.random(bft(16, 2), seed=6), residual=True, name="b"),
        bfthw.Layer(
            chain=bfthw.Chain.random(debut((2, 4, 1), (4, 2, 2), inputs=16), seed=7), bias=rng.normal(size=16), name="c"
        ),
        bfthw.Layer(chain=bfthw.Chain.random([Indexed(rng.integers(16, size=(12, 3)), 16)], seed=8), name="d"),
    )
    x = rng.normal(size=(20, 16))
    settings = bfthw.make_settings(row_exponents=3, weight_bits=5)
    integers = bfthw.compile(bfthw.Network(layers=layers), settings=settings, calibration=x)
    assert any(f.max_exponent for f in integers.factors)
    design = rtl_gen.write(integers, tmp_path, name="core")
    manifest, arrays = names["load"](str(design.path.with_suffix("")))
    q = integers.input.quantise(x)
    assert [names["recompute"](manifest, arrays, row.tolist()) for row in q] == integers(q).tolist()


def test_worked_example():
    text = (ROOT / "docs" / "manifest.md").read_text()
    network = document_facts.worked_example()
    (factor,) = network.factors
    x = np.array([[10, 7]])
    assert (factor.acc_frac, factor.dot_shift, factor.skip_shift, factor.shift) == (6, 0, 2, 3)
    acc = factor.accumulate(x, x)[0].tolist()
    y = network(x)[0].tolist()
    assert f"= {acc}" in text and f"= {y} " in text and f"= {network.output.dequantise(y).tolist()} " in text
    assert str((np.array(acc) / 64).tolist()) in text


def test_picture_is_what_the_script_draws(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import picture

    drawn = picture.picture()
    assert (ROOT / "docs" / "butterfly.svg").read_text(encoding="utf-8") == drawn
    assert drawn.count("<line ") == 128 and drawn.count(">×<") == 8


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "digits" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_manifest_keys_are_documented():
    text = (ROOT / "docs" / "manifest.md").read_text()
    for model in (rtl_gen.Manifest, rtl_gen.manifest.Stage, rtl_gen.manifest.Port):
        for key in model.model_fields:
            assert f"`{key}`" in text, key


def test_demo_figures_of_the_readme():
    """The accuracies and cycles that the README quotes are those of the shipped network."""
    text = (ROOT / "README.md").read_text()
    integers = bfthw.compile(bfthw.load(ROOT / "examples/digits/digits.safetensors").network)
    spec = rtl_gen.make_plan(integers, bfthw.make_settings(ROOT / "examples/digits/hardware.toml"))
    assert f"{spec.multipliers} multipliers, latency {spec.latency}, interval {spec.interval} cycles an image" in text
