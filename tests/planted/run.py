"""Plants each bug of this folder in a copy of the tree and sees its tests fail: `make planted PLANTED="name ..."`.

NAME.patch is a diff behind lines that say what the bug is and, after `test:`, which tests must catch it.
"""

import argparse
import ast
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNUSED = ".git", ".venv", ".hypothesis", ".*_cache", "build", "*.egg-info", "__pycache__"  # of a copy
FAILED = 1  # pytest's status where tests ran and some failed; others say that they did not run


def tests_of(patch):
    """Test ids of a patch; ValueError where its header names none."""
    head = patch.read_text(encoding="utf-8").partition("diff --git ")[0]
    named = [word for line in head.splitlines() if line.startswith("test:") for word in line.split()[1:]]
    if not named:
        raise ValueError(f"{patch.name}: the lines before the diff must say `test: tests/test_x.py::test_y`")
    return named


def absent(named):
    """Those of test ids, or of files of tests, that name none of this tree."""
    return [test for test in named if test.split("::")[-1].partition("[")[0] not in _functions(test.partition("::")[0])]


@functools.cache
def _functions(file):
    """A file's functions, and its own name."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {file} | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def apply(patch, tree, *options):
    """Whether `git apply` takes the patch there, and what it says."""
    # the copy may lie in a repository of somebody else's, whose rules must not count
    done = subprocess.run(
        ["git", "apply", *options, patch], cwd=tree, capture_output=True, text=True, check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(Path(tree).resolve().parent)},
    )
    return done.returncode == 0, done.stderr.strip()


def copy(tree):
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    return tree


def test(tree, named, *options):
    """(pytest's status, its output) of tests in a tree."""
    # no bytecode: a patch of the same size within a second would go unseen
    own = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *named]
    done = subprocess.run(command, cwd=tree, env=os.environ | own, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def plant(patch, trees):
    """What became of one patch: None where its tests caught it, else a line."""
    tree = trees.get()
    try:
        taken, why = apply(patch, tree)
        if not taken:
            return f"does not apply: {why}"
        status, output = test(tree, tests_of(patch), "-x")
        apply(patch, tree, "--reverse")
        if status == FAILED:
            return None
        return "LIVES: its tests pass" if status == 0 else f"its tests do not run:\n{output[-2000:]}"
    finally:
        trees.put(tree)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="patches, without .patch; all where none is named")
    names = parser.parse_args().names
    patches = [HERE / f"{name}.patch" for name in names] or sorted(HERE.glob("*.patch"))
    if missing := [patch.stem for patch in patches if not patch.exists()]:
        there = ", ".join(patch.stem for patch in sorted(HERE.glob("*.patch")))
        sys.exit(f"no patch {missing[0]!r}; there are {there}")
    workers, left = os.cpu_count() or 1, []
    with tempfile.TemporaryDirectory(prefix="bfthw-planted-") as place, ThreadPoolExecutor(workers) as pool:
        trees = Queue()
        for n in range(workers):
            trees.put(copy(Path(place, f"{n}")))
        every = sorted({name for patch in patches for name in tests_of(patch)})
        print(f"{len(every)} tests without a bug ...", flush=True)
        status, output = test(Path(place, "0"), every, "-n", str(workers))
        if status:
            sys.exit(f"they do not pass:\n{output[-4000:]}")
        for patch, wrong in zip(patches, pool.map(lambda patch: plant(patch, trees), patches)):
            print(f"caught      {patch.stem}" if wrong is None else f"NOT CAUGHT  {patch.stem}: {wrong}", flush=True)
            left += [patch.stem] * (wrong is not None)
    print(f"{len(patches) - len(left)} of {len(patches)} planted bugs caught")
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
