"""Folders of this program's own: a cache for what it compiles, in the user's cache folder, and scratch to work in.

Nothing that is run ever lies beside data, where anybody could have put it.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import platformdirs

from .files import fcntl  # None on Windows, where scratch of dead programs stays

LIMIT = 2**30  # bytes kept in the cache, the newest ones
PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)  # a path that make, sh and a compiler take in any place
LOCK = ".bfthw-lock"  # in a scratch folder: locked as long as its program lives
FRESH = 60  # seconds before which a scratch folder may not have been locked yet


def folder():
    """The cache's folder, nobody else's; where there can be none, one that lasts as long as this program."""
    place = Path(platformdirs.user_cache_dir("bfthw", appauthor=False))
    return place if is_own(place) else _temporary()


def is_own(place):
    """Whether a folder, made where it is missing, is this user's and can be written by nobody else."""
    if not place.is_absolute():
        return False
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.stat()
    except OSError:
        return False
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        return False
    return os.access(place, os.W_OK | os.X_OK)


@functools.cache
def _temporary():
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch())


def made(key, make):
    """The cache's folder of what `make(folder)` puts into it, made unless it is there.

    key: all that the outcome follows from, of values with a repr. It appears at once and whole; of two programs that
    make it at the same time, the later one takes what the other made.
    """
    cache = folder()
    entry = cache / hashlib.sha256(repr(key).encode()).hexdigest()[:40]
    if not entry.is_dir():
        with scratch(cache) as place:
            new = place / entry.name
            new.mkdir()
            make(new)
            try:
                new.rename(entry)
            except OSError:
                if not entry.is_dir():
                    raise
        _forget(cache, entry)
    os.utime(entry)
    return entry


def _forget(cache, new):
    """Remove what was not used for the longest time, until LIMIT holds; never the new entry."""
    entries = [entry for entry in os.scandir(cache) if re.fullmatch("[0-9a-f]{40}", entry.name)]
    left = LIMIT
    for entry in sorted(entries, key=lambda entry: (entry.name == new.name, entry.stat().st_mtime), reverse=True):
        with contextlib.suppress(OSError):  # another program removes as well
            left -= sum(file.stat().st_size for file in os.scandir(entry))
        if left < 0 and entry.name != new.name:
            shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def scratch(parent=None, *, plain=False):
    """A new folder, as long as the context lasts; those that dead programs left beside it are removed.

    parent: TMPDIR unless given. plain: in a folder whose path every tool takes; ValueError where there is none.
    """
    parent = Path(parent or (_plain_parent() if plain else tempfile.gettempdir()))
    for old in parent.glob(f"bfthw-*/{LOCK}"):
        _remove_dead(old)
    with tempfile.TemporaryDirectory(prefix="bfthw-", dir=parent, ignore_cleanup_errors=True) as place:
        with open(Path(place, LOCK), "wb") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(place)


def _plain_parent():
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if PLAIN.fullmatch(place) and os.access(place, os.W_OK | os.X_OK):
            return place
    raise ValueError(
        f"{tempfile.gettempdir()}: compilers cannot work in a folder with spaces or other special characters, nor can "
        "/tmp be written; set TMPDIR to a folder without"
    )


def _remove_dead(lock):
    """Remove a scratch folder of this user whose program is gone."""
    with contextlib.suppress(OSError):
        if not fcntl or lock.parent.lstat().st_uid != os.geteuid() or time.time() - lock.lstat().st_mtime < FRESH:
            return
        with open(lock, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def plain(path, place):
    """A path that every tool takes: this one, or a link to it in a plain scratch folder."""
    if PLAIN.fullmatch(str(path)):
        return path
    link = place / f"link-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if not link.is_symlink():
        link.symlink_to(path)
    return link
