"""slow.txt has no test that must stay, nor one that is gone."""

from slow import HERE, guards, kept, planted, slow


def test_what_is_left_to_test_all():
    named, lines = guards(), (HERE / "slow.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(set(lines)) and not [test for test in lines if kept(test, named)]
    assert not planted["absent"](lines)


def test_what_stays():
    """Tests of planted bugs and pages, and the quickest of several cases, unless others of them do."""
    several = {"f.py::a[x]": 5, "f.py::a[y]": 9, "f.py::a[z]": 0.5}
    alone = {"f.py::b": 1.4, "f.py::c": 1.6, "f.py::d": 99, "tests/test_documents.py::test_page_runs[README.md]": 99}
    assert set(slow(several | alone, {"f.py::d"})) == {"f.py::a[x]", "f.py::a[y]", "f.py::c"}
    long = {test: 10 + seconds for test, seconds in several.items()}
    assert set(slow(long, {"g.py"})) == {"f.py::a[x]", "f.py::a[y]"}
    assert set(slow(long, {"f.py::a[y]"})) == {"f.py::a[x]", "f.py::a[z]"}
    assert not set(slow(long, {"f.py::a"})) and not set(slow(long, {"f.py"}))
