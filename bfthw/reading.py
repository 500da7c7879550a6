"""Files from elsewhere: regular ones alone, up to a limit, and whatever goes wrong with them names the file."""

import errno
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from itertools import accumulate, islice
from reprlib import repr as _short
from typing import TypeVar

StrPath = str | os.PathLike[str]
Read = TypeVar("Read", bound=Callable)

LIMIT = 4 << 30  # bytes of memory that a command takes to read files, in all
ROOM = 256 << 20  # bytes of memory beyond four times the file
OWN = 164 << 20  # of these: the program itself, with the libraries that readers import
TEXT = 4 << 20  # bytes of manifests, reports and other descriptions
DEEPEST, VALUES = 50, 1 << 18  # levels and values of a description
NOT_TAKEN = "not taken, as the order does not name them"  # a note, before names of layers
FAULTS = 1000  # of a description that are listed
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class CheckpointError(ValueError):
    """A file that cannot be read; the message names file, key, rule and value."""


@contextmanager
def owned(
    owner: object, kinds: type[Exception] | tuple[type[Exception], ...] = ValueError,
    error: type[Exception] = CheckpointError,
) -> Iterator[None]:
    """Errors of these kinds come out of the context as `error`, "owner: what they say"; a CheckpointError as it is."""
    try:
        yield
    except CheckpointError:
        raise
    except kinds as found:
        raise error(f"{owner}: {found}") from None


def room(size: int, limit: int = LIMIT) -> int:
    """Bytes that what is read from a file of `size` bytes may take: 4 × the file + 256 MiB, and `limit` in all."""
    return max(0, min(4 * size + ROOM, limit) - OWN)


_PLACE = "name another place, or have this one opened to you (chmod, chown)"
_ROOM = "make room (`df -h` shows where), or name a place on another disk"
# of the system: what it means for a file or folder, and what to do
_CURES = {
    errno.EACCES: f"permission denied; {_PLACE}",
    errno.EPERM: f"operation not permitted; {_PLACE}",
    errno.EROFS: "the file system is read-only; name another place",
    errno.ENOSPC: f"the disk is full; {_ROOM}",
    errno.EDQUOT: f"your quota of the disk is used up; {_ROOM}",
    errno.EFBIG: "file too large for this process or file system; `ulimit -f` shows the limit",
    errno.EEXIST: "is a file and no folder; name another place, or remove it",
    errno.EISDIR: "is a folder and no file; name a file in it, or another one",
    errno.ENOTDIR: "leads through a file as if that were a folder; name another place",
    errno.ENAMETOOLONG: "the name is too long; take a shorter one",
    errno.EMFILE: "too many files are open; `ulimit -n` shows and raises the limit",
    errno.EIO: "the device does not answer; is it plugged in, and healthy (`dmesg`)?",
}


def words(error):
    """An OSError as people say it, without a number, and what to do where that is known."""
    if error.errno in _CURES and error.strerror == os.strerror(error.errno):
        return _CURES[error.errno]
    text = (error.strerror or str(error) or type(error).__name__).lower()
    return text.removesuffix(" or directory")


def told(error):
    """What an exception says; one of the system with the names of its files, in words."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{files}: {words(error)}" if files else words(error)


def short(value):
    """A value in few characters, whatever it is."""
    try:
        return _short(value)
    except Exception:  # integers of more digits than Python prints, objects that cannot be shown
        return f"a {type(value).__name__} too long to print"


def some(values, show=short):
    """The first six of them in text, and how many more there are."""
    values = list(values)
    return ", ".join(map(show, values[:6])) + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def first_line(error):
    """Of what an exception says; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(name, names):
    """The name that is meant by a misspelt one, as "; did you mean ...?", or nothing. Few enough are tried."""
    found = get_close_matches(str(name)[:200], islice(names, 500), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def open_file(path, most, least=0):
    """A regular file of `least` to `most` bytes, opened for reading in binary; CheckpointError for everything else.

    Nothing that could wait or act is ever opened: no pipe, no device, no socket.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFREG:
            file = io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)))
            # another file may have come into its place since
            kind, size = stat.S_IFMT(os.fstat(file.fileno()).st_mode), os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        reason = words(error) if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{path}: {reason}") from None
    if kind != stat.S_IFREG:
        raise CheckpointError(f"{path}: is {_KINDS.get(kind, 'no regular file')}, not a file")
    if not least <= size <= most:
        file.close()
        raise CheckpointError(f"{path}: {least} to {most} bytes are read, this file has {size}")
    return file


def read_bytes(path, most, least=0):
    """The bytes of a regular file, `most` of them at most."""
    with open_file(path, most, least) as file:
        return take(file, os.fstat(file.fileno()).st_size)


def take(file, size):
    """The next `size` bytes of a file, or those that are left."""
    data = file.read(size) or b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def read_text(path, most=TEXT, what="text"):
    """The text of a regular file in UTF-8, a byte order mark left out. what: its kind, for the message."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: not a {what}: it is no text file, {error.reason} at byte {error.start}"
        ) from None


def check_shape(text, values=VALUES):
    """ValueError where JSON is nested deeper than any description, or has more values: each is an object of its own.

    Parsers go as deep as the recursion limit lets them, which any package may have raised.
    """
    for left_out in (r"\\.", r'"[^"]*"?', r"[^][{},]+"):  # escapes, strings, and what neither nests nor separates
        text = re.sub(left_out, "", text, flags=re.DOTALL)
    if sum(map(text.count, "[{,")) > values:
        raise ValueError(f"more than {values} values, the limit")
    text = text.replace(",", "")
    if (deepest := max(accumulate(map({"[": 1, "{": 1, "]": -1, "}": -1}.get, text)), default=0)) > DEEPEST:
        raise ValueError(f"nested {deepest} levels deep, {DEEPEST} are the limit")


def parse_json(text, pairs=None, values=VALUES):
    """What a JSON text says; ValueError for whatever is wrong with it. pairs: object_pairs_hook of json.loads."""
    text = text if isinstance(text, str) else bytes(text).decode("utf-8-sig")
    check_shape(text, values)
    return json.loads(text, object_pairs_hook=pairs)


def no_repetition(pairs):
    """object_pairs_hook that refuses a name that stands twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice in a table")
    return table


def read_json(path, most=TEXT, values=VALUES, what="JSON file"):
    """What a JSON file says. what: its kind, for the message."""
    text = read_text(path, most, what)
    with owned(f"{path}: not a {what}"):
        return parse_json(text, values=values)


def first_fault(error, key=None):
    """The first fault of a pydantic.ValidationError, or that of the smallest `key`; few of them are ever listed."""
    if error.error_count() > FAULTS:
        return {"type": "many", "loc": (), "msg": f"{error.error_count()} entries are wrong", "input": "..."}
    faults = error.errors(include_url=False)
    return faults[0] if key is None else min(faults, key=key)


def sha256(path, most):
    return hashlib.sha256(read_bytes(path, most)).hexdigest()


def reader(read: Read) -> Read:
    """A function of a path and more: whatever escapes from it comes out as a CheckpointError that names the file."""

    @wraps(read)
    def run(path, *args, **options):
        try:
            return read(path, *args, **options)
        except (CheckpointError, ImportError):
            raise
        except MemoryError:
            raise CheckpointError(f"{path}: needs more memory than there is") from None
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: {words(error)}") from error
        except Exception as error:
            text = first_line(error)
            text = text if isinstance(error, ValueError) else f"cannot be read: {type(error).__name__}: {text}"
            raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error

    return run
