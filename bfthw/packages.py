"""The packages `sim` and `boards`, names that others use too: found where there is no other, told apart where there is.

A wheel has them in bfthw/_packages. Beside bfthw they would stand before anybody's own folder `sim` that has no
__init__.py, and overwrite another distribution's files.
"""

import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

NAMES = "boards", "sim"
_INSTALLED = Path(__file__).resolve().with_name("_packages")
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1]  # the source tree has them beside bfthw


class _Ours:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [str(FOLDER)]) if name in NAMES else None


def find(*, first=False):
    """`import sim` and `import boards` find ours: behind all others, or before them, where the process is our own."""
    if _Ours in sys.meta_path:
        sys.meta_path.remove(_Ours)
    sys.meta_path.insert(0 if first else len(sys.meta_path), _Ours)


def installed(name):
    """The version of a distribution, None where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def folder(name):
    """Of a package that need not be imported; None where it is missing."""
    spec = find_spec(name)
    return spec and Path(spec.submodule_search_locations[0])


def check():
    """ImportError, in a line, where one of the names is somebody else's."""
    for name in NAMES:
        spec = find_spec(name)
        place = next(iter(spec.submodule_search_locations or [spec.origin]))
        if Path(place).resolve() != FOLDER / name:
            raise ImportError(
                f"`import {name}` finds {place}, not bfthw's own package, which is needed: rename that, run the script "
                "from elsewhere, or take the command line (`bfthw`, `python -m bfthw`), which always finds its own"
            )
