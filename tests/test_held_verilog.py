"""That a core stays as it is, letter by letter, while the code that makes it changes."""

import json

import pytest
from held_verilog import CASES, HELD, digests, spec_named, tools

FILE = json.loads(HELD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name, target", CASES, ids=lambda part: part.replace(", ", " ").replace(" ", "-"))
def test_a_core_is_as_it_was(name, target):
    if tools() != FILE["tools"]:
        pytest.skip(f"hashes are of {FILE['tools']}, here is {tools()}")
    assert digests(spec_named(name, target)) == FILE["designs"][name][target]


def test_every_design_is_held():
    assert [(name, target) for name, held in FILE["designs"].items() for target in held] == CASES
