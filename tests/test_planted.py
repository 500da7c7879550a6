"""The planted bugs still apply, and name tests that are there; `make planted` sees that these catch them."""

import runpy
from pathlib import Path

import pytest

PLANTED = Path(__file__).with_name("planted")
run = runpy.run_path(str(PLANTED / "run.py"))


@pytest.mark.parametrize("patch", sorted(PLANTED.glob("*.patch")), ids=lambda patch: patch.stem)
def test_planted_bug_applies_and_names_tests(patch):
    taken, why = run["apply"](patch, run["ROOT"], "--check")
    assert taken, why
    assert not run["absent"](run["tests_of"](patch))
