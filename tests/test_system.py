"""What must come from the system: looked for before anything is downloaded or built, and said in one command."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import find_libpython
import pytest
from rtl_bench import factor_of
from sim_bench import edit, needs_icarus, sign

from bfthw import IntLayer, IntNetwork, system
from bfthw.cli import doctor
from rtl_gen import write
from sim import simulate, simulators

ROOT = Path(__file__).resolve().parent.parent
LIBPYTHON = "libpython{}.{}".format(*sys.version_info)


def readme_packages():
    """The README's lines of packages, the demo's first."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line.split()[2:] for line in text.splitlines() if line.startswith("apt-get install ")]


def test_needs_nothing_but_an_old_python():
    path = ROOT / "bfthw" / "system.py"
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 5))
    # -S: the standard library alone
    done = subprocess.run([sys.executable, "-I", "-S", path, "demo"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_old_python_is_said(monkeypatch, capsys):
    monkeypatch.setattr(system, "OLDEST", (9, 0))
    assert system.main("demo") == 1
    what, command = capsys.readouterr().out.splitlines()
    assert "Python 9.0 or newer (this is 3." in what and command == "apt-get install python3"


def test_a_perl_without_modules_does_not_count(monkeypatch, tmp_path):
    (tmp_path / "perl").write_text("#!/bin/sh\nexit 2\n")
    (tmp_path / "perl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert system.missing("compiled") == ["perl"]


def test_packages_are_those_of_the_readme(monkeypatch):
    monkeypatch.setattr(system.sys, "executable", "/usr/bin/python3")  # names of Debian's own Python
    first, more = readme_packages()
    of = {name: system.install([name]).removeprefix("apt-get install ") for name in system.NEEDS["test"]}
    of["python"], of["libpython"] = "python3-venv", "libpython3-dev"  # they depend on these two
    for purpose, asked in (("demo", first), ("test", first + more)):
        assert set(asked) == {of[name] for name in system.NEEDS[purpose]}
    assert set(system.NEEDS["demo"]) > set(system.NEEDS["compiled"])
    assert set(system.NEEDS["test"]) >= set(system.NEEDS["verilator"])


def make(tmp_path, target, **environment):
    """(exit status, lines on stdout) of make in a copy of what it needs for its first step."""
    (tmp_path / "bfthw").mkdir()
    for name in ("Makefile", "README.md", "pyproject.toml", "bfthw/system.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    command = [shutil.which("make"), "-s", target, f"PYTHON={environment.pop('PYTHON', sys.executable)}"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    assert not (tmp_path / ".venv").exists()
    return done.returncode, done.stdout.splitlines()


def test_make_looks_before_it_downloads(tmp_path):
    (tmp_path / "bin").mkdir()
    status, (what, command) = make(tmp_path, "test", PATH=str(tmp_path / "bin"))
    assert status and what.startswith("make test needs g++, make, perl, git, iverilog")
    assert command.startswith("apt-get install g++ git iverilog ") and command.endswith(" make perl")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_without_any_python(tmp_path, target):
    first, more = readme_packages()
    status, (what, command) = make(tmp_path, target, PYTHON="no-python")
    assert status and "no-python" in what and command.split()[2:] == first + more


def test_make_keeps_another_pythons_variables_out(tmp_path):
    """As where PYTHONHOME or PYTHONPATH are set for another version: not even `import re` works with them."""
    tool = tmp_path / ".venv" / "bin" / "bfthw"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\nenv\n")
    tool.chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bfthw").symlink_to(ROOT / "bfthw")
    (tmp_path / ".venv" / "demo").touch()
    hostile = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path)}
    (tmp_path / "re.py").write_text("raise AssertionError('SRE module mismatch')")
    command = [shutil.which("make"), "-s", "demo", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | hostile, capture_output=True, text=True)
    assert done.returncode == 0 and "PATH=" in done.stdout, done.stderr
    assert not set(hostile) & {line.partition("=")[0] for line in done.stdout.splitlines()}


def test_libpython_is_the_one_that_cocotb_finds(monkeypatch):
    assert bool(system.libpython()) == bool(find_libpython.find_libpython())
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr(system.os.path, "exists", lambda path: False)
    assert not system.find("libpython")
    assert system.install(["libpython"]) == f"apt-get install {LIBPYTHON}"


@pytest.fixture
def core(tmp_path):
    """The manifest of a core of one small stage."""
    network = IntNetwork(layers=(IntLayer(factors=(factor_of((1, 2, 2, 1), 0),), name="body"),))
    return write(network, tmp_path, name="core").path


def test_cocotb_says_what_it_needs_before_it_builds(core, monkeypatch):
    monkeypatch.setattr(system, "libpython", lambda: None)
    monkeypatch.setattr(simulators, "build", lambda *arguments, **options: pytest.fail("it builds"))
    with pytest.raises(ValueError, match=f"verilator needs {LIBPYTHON}.*; on Debian: apt-get install {LIBPYTHON}$"):
        simulate(core, vectors=1, simulator="verilator")
    simulators.check_simulator("compiled")


@needs_icarus
def test_a_difference_is_told_without_libpython(core, monkeypatch):
    edit(core, ("assign m_axis_tdata = [^;]*;", "assign m_axis_tdata = 0;"))
    sign(core)
    monkeypatch.setattr(simulators, "check_simulator", lambda *arguments: None)
    monkeypatch.setattr(system, "libpython", lambda: None)
    problems = simulate(core, vectors=4, simulator="icarus").problems
    assert any(f"cocotb would name the first stage that differs: apt-get install {LIBPYTHON}" in p for p in problems)


def test_doctor_knows_all_of_it(monkeypatch):
    monkeypatch.setattr(system, "find", lambda name: None)
    cures = {tool.name: tool.cure for tool in doctor.tools() if not tool.found and tool.name in system.NEEDS["test"]}
    assert set(cures) == set(system.NEEDS["test"]) - {"python", "venv"}
    assert cures["libpython"] == f"apt-get install {LIBPYTHON}"


def test_ci_leaves_the_environment_behind(tmp_path):
    """.ci/run, with another Makefile: only what package clients need gets through."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text("needs-test:\n\ntest:\n\t@env\n")
    more = {"PYTHONPATH": "/x", "PIP_FIND_LINKS": "/wheels of mine", "https_proxy": "http://p:1", "CI": "true"}
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env=os.environ | more | {"PIPELINE": "3"}, capture_output=True, text=True
    )
    there = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert done.returncode == 0 and not {"PYTHONPATH", "PIPELINE", "VIRTUAL_ENV"} & set(there)
    assert [there[key] for key in ("PIP_FIND_LINKS", "https_proxy", "CI")] == ["/wheels of mine", "http://p:1", "true"]
    assert there["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
