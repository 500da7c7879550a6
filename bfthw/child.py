"""Other programs as children of this one: with this environment's tools before all others, and never outliving it."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from . import cache

LOG_LINES = 25  # that an error shows
FULL = 1 << 16  # bytes: a disk with fewer left has no room for anything
# sh ends its process group, itself too, as soon as nobody holds the other end of its input any more
KEEPER = ["/bin/sh", "-c", "trap '' HUP INT TERM; read line; kill -9 0"]
_own = threading.local()  # stops: _Stops of the children of a thread of `beside`


def scripts():
    """The folders with this environment's scripts and a `python`, which make rules call and many systems lack."""
    beside = Path(sys.executable).parent
    if shutil.which("python", path=str(beside)):
        return str(beside)

    def make(folder):
        script = folder / "python"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)

    return os.pathsep.join([str(cache.made(("python", sys.executable), make)), str(beside)])


def environment(*folders, **more):
    """This program's environment for a child, as a dict: PATH begins with `folders` and this environment's own.

    No Python of a child takes modules from the folder it runs in, nor its library from another Python's PYTHONHOME;
    and where there is no user's cache, other programs have one in ours.
    """
    variables = os.environ | {"PYTHONSAFEPATH": "1"} | more
    variables.pop("PYTHONHOME", None)
    place = cache.folder()
    if not cache.is_own(Path(platformdirs.user_cache_dir("YoWASP", appauthor=False))):
        variables["XDG_CACHE_HOME"] = str(place)
    path = [*map(str, folders), scripts(), variables.get("PATH", os.defpath)]
    return variables | {"PATH": os.pathsep.join(path)}


@contextmanager
def start(command, *, env=None, **options):
    """A running subprocess.Popen; at the end of the context it is killed with all that it started.

    So it is at the end of this program, even by SIGKILL (where there are no process groups: only itself, and only at
    the end of the context). env: `environment()` unless given; other options as of Popen.
    """
    options = {"env": environment() if env is None else env, "stdin": subprocess.DEVNULL} | options
    if not hasattr(os, "setpgid"):
        with subprocess.Popen(command, **options) as process, _stopped_by(process.kill):
            yield process
        return
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen(KEEPER, stdin=subprocess.PIPE, process_group=0, **silent) as keeper,
        subprocess.Popen(command, process_group=keeper.pid, **options) as process,
        _stopped_by(keeper.stdin.close),
    ):
        yield process


@contextmanager
def _stopped_by(stop):
    """stop() ends a child at the end of the context, or of that of `beside` in whose thread it was started."""
    ours = getattr(_own, "stops", _Stops())
    try:
        ours.add(stop)
        yield
    finally:
        ours.discard(stop)
        stop()


class _Stops(set):
    """Of the children of a thread; `all` ends them, and those that are still started."""

    over = False

    def add(self, stop):
        super().add(stop)
        if self.over:
            stop()

    def all(self):
        self.over = True
        for stop in self.copy():
            stop()


@contextmanager
def beside(action):
    """A concurrent.futures.Future of action(), which runs meanwhile in a thread of its own.

    Where the context ends before it, so do its children, and those that it still starts.
    """
    stops = _Stops()

    def work():
        _own.stops = stops
        return action()

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(work)
        finally:
            stops.all()


def run(command, *, input=None, timeout=None, tick=None, **options):
    """Run a program as `start` does, to its end; a subprocess.CompletedProcess, whatever its status.

    input: for its standard input, which is empty without it. tick() is called now and then. Raises
    subprocess.TimeoutExpired after `timeout` seconds, OSError where it cannot be started.
    """
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with start(command, **options) as process:
        while True:
            try:
                out, errors = process.communicate(input, timeout if tick is None else 0.2)
                break
            except subprocess.TimeoutExpired:
                if tick is None:
                    raise
                input = None  # it is kept
                tick()
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def log_end(path):
    """The last lines of a program's log, empty where it wrote none; and whether the disk it writes to is full."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if path.exists() else []
    if path.parent.exists() and shutil.disk_usage(path.parent).free < FULL:
        lines.append(f"{path.parent}: the disk is full; make room there, or set TMPDIR to a folder on another disk")
    return "\n".join(lines)
