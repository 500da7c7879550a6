"""What the documents say is run as it stands there."""

import re
import shutil
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
from bfthw import IntFactor, IntLayer, IntNetwork, QFormat
from bfthw.chain import Indexed, bft, debut

ROOT = Path(__file__).resolve().parent.parent


def code(document):
    """The Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_python_way_of_the_readme(tmp_path, monkeypatch):
    (block,) = code("README.md")
    (tmp_path / "build" / "digits").mkdir(parents=True)  # where the demo leaves it
    shutil.copy(ROOT / "examples" / "digits" / "digits.safetensors", tmp_path / "build" / "digits")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "build" / "py" / "py.v").exists()


def test_manifest_and_integers_are_enough(tmp_path):
    (block,) = code("docs/manifest.md")
    names = {}
    exec(compile(block, "docs/manifest.md", "exec"), names)
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
    factor = IntFactor(
        values=np.array([[[[3], [-2]], [[1], [4]]]]),
        input=QFormat(8, 4),
        weights=QFormat(4, 2),
        output=QFormat(8, 3),
        skip_input=QFormat(8, 4),
        bias=np.array([5, -40]),
        bias_width=8,
        relu=True,
    )
    network = IntNetwork(layers=(IntLayer(factors=(factor,)),))
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
    spec = rtl_gen.make_spec(integers, bfthw.make_settings(ROOT / "examples/digits/hardware.toml"))
    assert f"{spec.multipliers} multipliers, latency {spec.latency}, interval {spec.interval} cycles an image" in text
