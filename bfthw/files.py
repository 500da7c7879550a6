"""Files that appear whole: one by a rename, several by a journal that the next reader or writer finishes.

A set of files is made in a folder beside its place. Renaming that folder to JOURNAL is the one step that makes the new
set count; then each file in it moves to its place, and the empty folder goes. Whoever finds a JOURNAL with files in it
moves them first. Locks are flock's, on the folders themselves: they need no file, work where nothing may be written and
end with their process. On a file system without them, the hashes in manifest and report still tell a mixture.
"""

import errno
import hashlib
import os
import re
import shlex
import shutil
import stat
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path

from .reading import Read, words

try:
    import fcntl
except ImportError:  # Windows, where folders cannot be locked
    fcntl = None

JOURNAL = ".bfthw-journal"
WORK = ".bfthw-work-"  # of a folder that a living process holds locked
GONE = ".gone"  # NAME.gone in a journal: NAME was of the old set alone and is removed
WAIT = 10  # seconds for a lock that others hold for milliseconds
MOST = 2500  # files of a set: three ROMs of each of 512 stages may have one
# a journal may have come from elsewhere: it can place what sets are made of, and no hidden file, nor a script, but for
# the one whose name no other program would run
_NAME = re.compile(
    r"([A-Za-z]\w{0,79}"
    r"((\.(marked|netlist|yosys|nextpnr|pnr)){0,2}\.(asc|bin|bit|config|core|fs|h|il|json|log|npz|sdc|v|vlt|xdc)"
    r"|\.\w{1,99}\.mem|_nextpnr\.py)"
    r"|\w+(\.\w+)*\.(npy|safetensors))(\.gone)?",  # a layer, and what it is calibrated by
    re.ASCII,
)


def write(path, data):
    """Write bytes or text to a file, whole or not at all, also where the process or the machine dies in between."""
    path = Path(path)
    with replacing(path.parent) as (_, new):
        (new / path.name).write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(folder, *, gone=(), expected=None):
    """Paths of two new folders, (work, new): the files in `new` replace those of `folder` in the end, all or none.

    What is in `work` goes. gone: names that are removed in the same step, where they are there. expected: name → sha256
    of files in `folder` that the new ones are made from; ValueError where they have changed by then. What dead
    processes left in `folder` is finished or removed. OSError says in a line what keeps it from being written.
    """
    folder, owned = Path(folder), ExitStack()
    try:
        with _locked(folder):
            _finish(folder)
            _sweep(folder)
            place = Path(tempfile.mkdtemp(prefix=WORK, dir=folder))
            owned.enter_context(_locked(place))
    except FileNotFoundError:
        make = shlex.join(["mkdir", "-p", str(folder)])
        raise FileNotFoundError(f"{folder}: no such folder; make it: {make}") from None
    except OSError as error:
        raise _told(error, f"{folder}: nothing can be written here") from None
    work, new = place / "work", place / "new"
    try:
        work.mkdir()
        new.mkdir()
        yield work, new
        _commit(folder, new, gone, expected or {})
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _told(error, f"{folder}: its files are as they were") from None
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
        owned.close()


def check_place(path):
    """OSError, with what to do, unless a file can be written there: asked before minutes are spent on its content."""
    _check_free(Path(path))
    with replacing(Path(path).parent):
        pass


def _check_free(path):
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(f"{path}: a folder is in the place of the file to be written")


def settled(function: Read) -> Read:
    """Decorate a function whose first argument is the path of a file or folder: it runs while that is `undisturbed`."""

    @wraps(function)
    def read(path, *arguments, **options):
        with undisturbed(path):
            return function(path, *arguments, **options)

    return read


@contextmanager
def undisturbed(path):
    """Nobody changes the files of a folder, or of a file's folder, meanwhile; a writing cut off is finished first.

    OSError where it can't be, with what to do, or where another process does not come to an end. May be nested.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    with ExitStack() as stack:
        try:
            held = stack.enter_context(_locked(folder, shared=True))
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # whoever reads there will say so
            held = None
        while _pending(folder):
            _lock(held, folder)
            _finish(folder)
            _lock(held, folder, shared=True)
        yield


def finish(path):
    """Finish a writing that was cut off where it has a newer one of this very file; for readers of one file."""
    path = Path(path)
    if os.path.lexists(path.parent / JOURNAL / path.name):
        with undisturbed(path.parent):
            pass


def _commit(folder, new, gone, expected):
    for name in gone:
        if os.path.lexists(folder / name) and not (new / name).exists():
            (new / f"{name}{GONE}").touch()
    names = sorted(os.listdir(new))
    for name in names:
        _sync(new / name)
    _sync(new)
    with _locked(folder):
        _finish(folder)
        for name, digest in expected.items():
            if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{folder / name}: another process has changed it meanwhile; run the command again")
        for name in names:
            _check_free(folder / name)
        if len(names) == 1 and not names[0].endswith(GONE):
            os.replace(new / names[0], folder / names[0])
        elif names:
            _check(new, names)
            os.rename(new, folder / JOURNAL)
            _sync(folder)
            _finish(folder)
        _sync(folder)


def _pending(folder):
    """Whether a journal has files that are not in their places yet; also where it can't be seen into."""
    try:
        return os.path.lexists(folder / JOURNAL) and bool(os.listdir(folder / JOURNAL))
    except OSError:
        return True


def _finish(folder):
    """Move what is in the journal to its place, with the folder locked; OSError where that can't be."""
    journal = folder / JOURNAL
    try:
        found = os.lstat(journal)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(f"{journal}: not a folder that bfthw made; remove it")
        # in a folder for all, nobody's files are anybody else's to replace
        if fcntl and found.st_uid not in (os.geteuid(), os.stat(folder).st_uid):
            raise PermissionError(errno.EPERM, "it is another user's")
        names = sorted(os.listdir(journal))
        _check(journal, names)
        for name in names:
            # another one may be at it, where there are no locks
            with suppress(FileNotFoundError):
                if name.endswith(GONE):
                    (folder / name.removesuffix(GONE)).unlink(missing_ok=True)
                    (journal / name).unlink()
                else:
                    os.replace(journal / name, folder / name)
        journal.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        copy = shlex.join(["cp", "-r", str(folder), "COPY"])
        raise _told(
            error,
            f"{folder}: writing its files was cut off in the middle, and to finish it {JOURNAL} must be emptied into "
            f"this folder: let that be written and run any command on it again, or use a copy ({copy})",
        ) from None


def _check(journal, names):
    """OSError unless the files of a journal are such as bfthw writes; nothing else is ever moved."""
    wrong = [name for name in names if not _NAME.fullmatch(name) or not stat.S_ISREG(os.lstat(journal / name).st_mode)]
    if wrong or len(names) > MOST:
        what = f"{wrong[0]!r}, which is no file of a core or a build" if wrong else f"{len(names)} files"
        raise OSError(f"{journal}: holds {what}; bfthw did not write it: remove that folder")


def _sweep(folder):
    """Remove the work folders whose process is dead; that of a living one is locked, another user's can't be opened."""
    with os.scandir(folder) as entries:
        found = [e.path for e in entries if e.name.startswith(WORK) and e.is_dir(follow_symlinks=False)]
    for path in found:
        with suppress(OSError, AttributeError):  # without locks nobody can tell
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


@contextmanager
def _locked(folder, *, shared=False):
    """A locked file descriptor of a folder, None where there is no such thing."""
    if fcntl is None:
        yield None
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(fd, folder, shared=shared)
        yield fd
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # a fork that still has it open would keep it
        os.close(fd)


def _lock(fd, folder, *, shared=False):
    until = time.monotonic() + WAIT
    while fd is not None:
        try:
            return fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(f"{folder}: another process has had its files locked for {WAIT} s") from None
            time.sleep(0.005)
        except OSError:  # a file system without locks
            return


def _sync(path):
    """Wait until a file's content, or a folder's names, are on the disk."""
    if fcntl is None:
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _told(error, text):
    """An error of the system in words, in one line; one that is in words already as it is."""
    return error if error.errno is None else type(error)(f"{text}: {words(error)}")
