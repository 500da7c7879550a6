"""Writes slow.txt: tests that `make test` leaves to `make test-all`, by what each takes.

Give it the JUnit XML of all tests:

    .venv/bin/python -m pytest -n auto -o junit_duration_report=call --junitxml=all.xml
    .venv/bin/python tests/slow.py all.xml

What a planted bug names stays, and PAGES, the way of a newcomer; of a test with several cases the quickest stays too.
Of all others those go that take longer than CASE, or ALONE where a test has one case, in seconds. What is marked slow
where it stands is slow beside.
"""

import runpy
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

CASE, ALONE = 0.6, 1.5
HERE = Path(__file__).resolve().parent
planted = runpy.run_path(str(HERE / "planted/run.py"))
PAGES = tuple(f"tests/test_documents.py::test_page_runs[{page}" for page in ("README", "docs/first-", "docs/your-"))


def guards():
    """What planted bugs name: tests, cases of them and whole files."""
    return {test for patch in HERE.glob("planted/*.patch") for test in planted["tests_of"](patch)}


def kept(test, named):
    """Whether a test stays whatever it takes."""
    file, _, _ = test.partition("::")
    return test.startswith(PAGES) or not named.isdisjoint({test, test.partition("[")[0], file})


def slow(seconds, named):
    """The tests that go, of test → seconds."""
    cases = defaultdict(list)
    for test in sorted(seconds, key=seconds.get):
        cases[test.partition("[")[0]].append(test)
    for several in cases.values():
        free = [test for test in several if not kept(test, named)]
        if len(several) == 1:
            yield from (test for test in free if seconds[test] > ALONE)
        else:
            stays = free[: len(free) == len(several)]  # the quickest, unless others stay
            yield from (test for test in free if seconds[test] > CASE and test not in stays)


def durations(path):
    """Test → seconds, of a JUnit XML."""
    found = ElementTree.parse(path).iter("testcase")
    names = ((f"{case.get('classname').replace('.', '/')}.py", case.get("name"), case.get("time")) for case in found)
    return {f"{file}::{name}": float(time) for file, name, time in names}


if __name__ == "__main__":
    (HERE / "slow.txt").write_text("\n".join(sorted(slow(durations(sys.argv[1]), guards()))) + "\n", encoding="utf-8")
