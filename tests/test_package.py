"""Wheel and sdist hold all that is needed: installed away from the source, the README's first ten minutes pass."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from documents import blocks, commands, read

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "bfthw/", "boards/", "rtl_gen/", "sim/"
MOVED = {"boards/": "bfthw/_packages/boards/", "sim/": "bfthw/_packages/sim/"}  # in a wheel
BESIDE = "bench/", "docs/", "examples/", "tests/"
JUNK = shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__", "*.egg-info", "*.sim")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
DIGITS = ROOT / "examples" / "digits" / "digits.safetensors"
QUICK = "inspect", "generate", "fit"


def ten_minutes():
    """The README's commands, in order, the first ones in front."""
    text = read("README.md")
    first, end = (text.count("\n", 0, text.index(heading)) for heading in ("## The first ten minutes", "## In Python"))
    lines = [line for block in blocks("README.md") if first < block.line < end for line in commands(block.text)]
    lines = [line for line in lines if line[0] in ("bfthw", "python")]
    assert len(lines) >= 11
    return lines


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """(tree that was copied, unpacked sdist, wheel that was made of that)."""
    place = tmp_path_factory.mktemp("package")
    tree = shutil.copytree(ROOT, place / "tree", ignore=JUNK)
    subprocess.run([sys.executable, "-c", BUILD.format("sdist"), place], cwd=tree, check=True, capture_output=True)
    (archive,) = place.glob("*.tar.gz")
    shutil.unpack_archive(archive, place)
    unpacked = place / archive.name.removesuffix(".tar.gz")
    before = files(unpacked)
    subprocess.run([sys.executable, "-c", BUILD.format("wheel"), place], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    return files(tree), before, wheel


@pytest.fixture(scope="module")
def installed(packages, tmp_path_factory):
    """run(command) in an environment of its own, with the packages of this one but not its bfthw, in an empty place."""
    place = tmp_path_factory.mktemp("elsewhere")
    venv.create(place / "venv", symlinks=True)
    python = place / "venv" / "bin" / "python"
    install = "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", packages[2]
    variables = os.environ | {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
    # a bfthw on PYTHONPATH would count as installed
    subprocess.run([sys.executable, *install], env=variables, check=True)
    own = sysconfig.get_path("purelib", "venv", {"base": str(place / "venv")})
    Path(own, "others.pth").write_text(sysconfig.get_path("purelib"))
    # whatever is in front on PATH: children take this environment's python
    (place / "hostile").mkdir()
    (place / "hostile" / "python").write_text("#!/bin/sh\necho SRE module mismatch >&2; exit 1\n")
    (place / "hostile" / "python").chmod(0o755)
    variables["PATH"] = os.pathsep.join([str(place / "hostile"), str(Path(sys.executable).parent), variables["PATH"]])
    (place / "work").mkdir()

    def run(command, status=0, **more):
        done = subprocess.run(
            [place / "venv" / "bin" / command[0], *command[1:]],
            cwd=place / "work", env=variables | more, capture_output=True, text=True, errors="replace",
        )
        assert done.returncode == status, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    assert str(place) in run(["python", "-c", "import bfthw, boards, rtl_gen, sim; print(bfthw, boards, rtl_gen, sim)"])
    return run


def test_all_files_are_in_the_packages(packages):
    """The sdist holds all that make needs, the wheel all of the packages, what is no Python too."""
    tree, sdist, wheel = packages
    needed = {name for name in tree if name.startswith(PACKAGES + BESIDE)}
    assert needed | {"Makefile", "README.md", "LICENSE", "CHANGELOG.md", ".ci/run"} <= sdist
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
    demo = {f"bfthw/digits/{name}" for name in ("demo.py", "data.py", "digits.safetensors", "hardware.toml")}
    demo |= {f"bfthw/mnist/{name}" for name in ("demo.py", "data.py", "mnist.safetensors")}
    for folder, place in MOVED.items():
        needed = {name.replace(folder, place, 1) if name.startswith(folder) else name for name in needed}
    assert {name for name in needed if name.startswith(PACKAGES)} | demo <= held
    top = {name.partition("/")[0] for name in held}
    assert sorted(name for name in top if not name.endswith(".dist-info")) == ["bfthw", "rtl_gen"]


def test_demo_and_first_commands_of_an_installed_wheel(installed):
    """With a foreign python in front on PATH; without the bitstreams."""
    out = installed(["bfthw", "demo", "digits", "--no-bitstreams"])
    assert "bit-exact  ok" in out
    for command in ten_minutes():
        if command[1] in QUICK:
            installed(command)


def test_others_called_sim_and_boards(installed, tmp_path):
    """Somebody's folder `sim`, a package of theirs or none, and their `boards`: theirs stay theirs, ours say so, and
    the command line does its work.
    """
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim" / "mine.py").write_text("x = 1")
    (tmp_path / "boards.py").write_text("y = 2")
    there = {"PYTHONPATH": str(tmp_path)}
    theirs = "import sim.mine, bfthw, boards, sys; print(sim.mine.x + boards.y, *sys.meta_path[-1:])"
    assert installed(["python", "-c", theirs], **there).startswith("3 ")
    said = installed(["python", "-c", "import bfthw; from boards import Board"], status=1, **there)
    assert f"cannot import name 'Board' from 'boards' ({tmp_path / 'boards.py'})" in said
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "sim.py").write_text("x = 1")
    said = installed(["python", "-c", "import bfthw, boards"], status=1, PYTHONPATH=str(tmp_path / "one"))
    assert f"ImportError: `import sim` finds {tmp_path / 'one' / 'sim.py'}, not bfthw's own package" in said
    assert "iCEBreaker" in installed(["python", "-m", "bfthw", "boards"], **there)
    installed(["bfthw", "generate", DIGITS, "-o", "own", "--name", "own"], **there)
    for name in ("sim/__init__.py", "bench.py"):
        (tmp_path / name).write_text("raise ImportError('not this one')")
    # in the simulator's own Python as well
    simulate = ["python", "-m", "bfthw", "simulate", "own/own.json", "--vectors", "2", "--simulator", "icarus"]
    assert "equal the golden model" in installed(simulate, **there)


@pytest.mark.slow
def test_ten_minutes_of_an_installed_wheel(installed):
    installed(["bfthw", "demo", "digits", "--no-bitstreams"])
    for command in ten_minutes():
        installed(command)
