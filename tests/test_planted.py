"""The planted bugs still apply, and name tests that are there; `make planted` sees that these catch them."""

import ast
import runpy
from pathlib import Path

import pytest

PLANTED = Path(__file__).with_name("planted")
run = runpy.run_path(str(PLANTED / "run.py"))


@pytest.mark.parametrize("patch", sorted(PLANTED.glob("*.patch")), ids=lambda patch: patch.stem)
def test_planted_bug_applies_and_names_tests(patch):
    taken, why = run["apply"](patch, run["ROOT"], "--check")
    assert taken, why
    for name in run["tests_of"](patch):
        file, _, rest = name.partition("::")
        tree = ast.parse((run["ROOT"] / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert rest.split("::")[-1].partition("[")[0] in functions | {""}, f"{file} has no test {rest}"
