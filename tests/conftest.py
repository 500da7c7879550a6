"""Before any test: a cache of simulations for this run alone, that its workers share."""

import atexit
import contextlib
import os
import sys
from importlib import import_module
from pathlib import Path

import hypothesis
import platformdirs
import pytest

from bfthw import cache, child

# other programs may have the processor
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

if "PYTEST_XDIST_WORKER" not in os.environ:
    user = platformdirs.user_cache_path()
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    made = stack.enter_context(cache.scratch()) / "a cache $"
    made.mkdir()
    # what other programs keep takes them long to make again
    for name in ("YoWASP", "wasmtime", "matplotlib"):
        (user / name).mkdir(parents=True, exist_ok=True)
        (made / name).symlink_to(user / name)
    os.environ["XDG_CACHE_HOME"] = str(made)


@pytest.hookimpl(tryfirst=True)  # before -m is seen to
def pytest_collection_modifyitems(items):
    named = set(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in named:
            item.add_marker("slow")


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports a module by its path below examples/, "digits/data"; its plain name is forgotten again afterwards."""

    def load(path):
        folder, _, name = path.rpartition("/")
        monkeypatch.syspath_prepend(str(EXAMPLES / folder))
        return import_module(name)

    yield load
    for name, module in [*sys.modules.items()]:
        if Path(getattr(module, "__file__", None) or "").is_relative_to(EXAMPLES):
            del sys.modules[name]


@pytest.fixture
def children(monkeypatch):
    """The names of the programs that are started, in a list."""
    names, start = [], child.start
    monkeypatch.setattr(
        child, "start", lambda command, **rest: names.append(Path(command[0]).name) or start(command, **rest)
    )
    return names


@pytest.fixture
def recursion_limit():
    """Put back afterwards: lazylinop raises it when it is first imported."""
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


@pytest.fixture(scope="module")
def one_thread():
    """For tensors so small that threads of torch would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
