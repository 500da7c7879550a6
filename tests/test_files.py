"""Sets of files: whole or as before, for readers and writers at once, in others' folders, with strangers' journals."""

import errno
import os
import resource
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pytest
from kills import before_each_step, ended_well, forked, hidden, visible

from bfthw import files
from bfthw.files import JOURNAL, finish, replacing, undisturbed, write

OLD = {"core.v": b"old", "core.npz": b"old", "core.json": b"old"}
NEW = dict.fromkeys(OLD, b"new")


@pytest.fixture
def folder(tmp_path):
    """A folder with an old set, in another one where nothing may change."""
    (folder := tmp_path / "my $dir").mkdir()
    put(folder, OLD)
    return folder


def put(folder, table):
    for name, data in table.items():
        (folder / name).write_bytes(data)


def replace(folder, table=NEW, **options):
    with replacing(folder, **options) as (_, new):
        put(new, table)


def test_a_set_replaces_another(folder):
    replace(folder, NEW | {"core.il": b"new"}, gone=["core.v"])
    assert visible(folder) == NEW | {"core.il": b"new"} and not hidden(folder)
    replace(folder, OLD, gone=["core.il", "core.v", "never.there"])
    assert visible(folder) == OLD and not hidden(folder)
    replace(folder, {}, gone=["core.v"])
    assert set(visible(folder)) == {"core.json", "core.npz"} and not hidden(folder)
    (folder / "note").symlink_to("core.json")
    write(folder / "note", "no suffix, and text: é")
    assert (folder / "note").read_text(encoding="utf-8") == "no suffix, and text: é"
    assert not (folder / "note").is_symlink() and (folder / "core.json").read_bytes() == b"old"
    # as any file that is made here
    (plain := folder / "plain").touch()
    assert stat.S_IMODE((folder / "note").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_set_counts_when_it_is_on_the_disk(folder, monkeypatch):
    """Content and names are waited for before the journal gets its name, that name before the first file moves."""
    happened = []

    def sync(fd, really=os.fsync):
        happened.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        really(fd)

    monkeypatch.setattr(os, "fsync", sync)
    with before_each_step(lambda event, arguments: event == "os.rename" and happened.append(arguments)):
        replace(folder)
    renamed = [n for n, step in enumerate(happened) if isinstance(step, tuple)]
    assert happened[: renamed[0]] == [*sorted(NEW), "new"] and len(renamed) == 1 + len(NEW)
    assert happened[renamed[0] + 1 : renamed[1]] == [folder.name] == happened[renamed[-1] + 1 :]


def test_errors_leave_what_was_there(folder):
    with pytest.raises(ZeroDivisionError), replacing(folder) as (work, new):
        put(new, NEW)
        put(work, NEW)
        1 / 0
    (folder / "core.il").mkdir()
    with pytest.raises(IsADirectoryError, match=r"core\.il: a folder is in the place of the file to be written"):
        replace(folder, NEW | {"core.il": b"new"})
    (folder / "core.il").rmdir()
    digest = "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"  # sha256 of "old"
    for name, data in (("core.v", b"changed"), ("core.json", None)):
        with pytest.raises(ValueError, match=f"{name}: another process has changed it meanwhile"):
            with replacing(folder, expected={name: digest}) as (_, new):
                put(new, NEW)
                (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
        put(folder, OLD)
    assert visible(folder) == OLD and not hidden(folder)
    replace(folder, expected={"core.v": digest})
    assert visible(folder) == NEW
    with pytest.raises(OSError, match=r"none: no such folder; make it: mkdir -p '.*/none'$"):
        write(folder / "none" / "x.npz", b"")


@pytest.mark.parametrize("place", ["set", "file"])
def test_a_full_disk(place, folder):
    """The system refuses a write in the middle (here by a limit of files' size): a line, and the old set."""

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        told = r"my \$dir: its files are as they were: file too large for .*`ulimit -f` shows the limit$"
        with pytest.raises(OSError, match=told):
            replace(folder, NEW | {"core.npz": bytes(2000)}) if place == "set" else write(folder / "a.npz", bytes(2000))

    assert ended_well(forked(full)) and visible(folder) == OLD and not hidden(folder)


def in_the_middle(folder, pause, ready):
    """Write NEW, pausing before the second of its files moves to its place; `ready` (a file descriptor) tells of it."""
    moved = []

    def act(event, arguments):
        if event == "os.rename" and JOURNAL in str(arguments[0]):
            moved.append(arguments)
            if len(moved) == 2:
                os.write(ready, b".")
                time.sleep(pause)

    with before_each_step(act):
        replace(folder)


@pytest.mark.parametrize("other", ["reader", "writer"])
def test_while_another_process_moves_its_files(other, folder):
    """A reader sees all of the new set, a writer's set comes whole after it."""
    told, ready = os.pipe()
    pid = forked(lambda: in_the_middle(folder, 0.3, ready))
    assert os.read(told, 1) and set(visible(folder).values()) == {b"old", b"new"} or os.waitpid(pid, 0)
    if other == "reader":
        with undisturbed(folder / "core.json"):
            assert visible(folder) == NEW
    else:
        replace(folder, third := dict.fromkeys(OLD, b"third"))
        assert visible(folder) == third
    assert ended_well(pid) and not hidden(folder)


def test_a_process_that_does_not_end(folder, monkeypatch):
    monkeypatch.setattr(files, "WAIT", 0.1)
    told, ready = os.pipe()
    pid = forked(lambda: in_the_middle(folder, 60, ready))
    assert os.read(told, 1)
    for action in (lambda: undisturbed(folder).__enter__(), lambda: replace(folder)):
        with pytest.raises(TimeoutError, match=r"my \$dir: another process has had its files locked for 0.1 s"):
            action()
    os.kill(pid, 9)
    assert not ended_well(pid)
    with undisturbed(folder):
        assert visible(folder) == NEW


def test_readers_keep_writers_waiting(folder):
    """Two files that belong together are read as one, by as many readers as there are."""
    with undisturbed(folder), undisturbed(folder / "core.json"):
        pid = forked(lambda: replace(folder))
        time.sleep(0.1)
        assert visible(folder) == OLD
    assert ended_well(pid) and visible(folder) == NEW


def test_living_and_dead_writers_side_by_side(folder):
    """A writer's folder is its own as long as it lives, whoever else comes; what a dead one left goes."""
    told, ready = os.pipe()

    def killed_while_writing():
        with replacing(folder) as (work, new):
            put(new, NEW)
            put(work, NEW)
            os.write(ready, b".")
            time.sleep(60)

    pid = forked(killed_while_writing)
    assert os.read(told, 1)
    with replacing(folder) as (_, new):
        replace(folder, third := dict.fromkeys(OLD, b"third"))
        assert visible(folder) == third and len(hidden(folder)) == 2
        put(new, OLD)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        write(folder / "x.npz", b"x")
        assert len(hidden(folder)) == 1
    assert visible(folder) == OLD | {"x.npz": b"x"} and not hidden(folder)


def cut_off(folder, table=NEW, moved=1):
    """As a kill in the middle leaves it."""
    (folder / JOURNAL).mkdir()
    put(folder / JOURNAL, table)
    for name in sorted(table)[:moved]:
        (folder / JOURNAL / name).replace(folder / name)


def test_what_was_cut_off_is_finished(folder):
    for moved in range(4):
        put(folder, OLD)
        cut_off(folder, moved=moved)
        with undisturbed(folder / "any"):
            assert visible(folder) == NEW and moved == 3 or not hidden(folder)
        replace(folder, OLD)
        assert visible(folder) == OLD and not hidden(folder)
    cut_off(folder)
    finish(folder / "core.json")  # moved already
    assert hidden(folder)
    finish(folder / "core.v")
    assert visible(folder) == NEW and not hidden(folder)


def test_folders_that_may_not_be_changed(tmp_path):
    """Readers see whole sets; a set cut off is refused, with what to do; so says a writer."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own is closed to other users
        os.chmod(place, 0o755)
        whole, cut, done = (Path(place, name) for name in ("whole", "it's cut", "done"))
        for folder in (whole, cut, done):
            folder.mkdir()
            put(folder, OLD)
        cut_off(cut)
        cut_off(done, moved=3)
        for folder in (whole, cut, done):
            folder.chmod(0o555)

        def look():
            if os.getuid() == 0:
                os.setresuid(65534, 65534, 65534)
            for folder in (whole, done):
                with undisturbed(folder):
                    assert len(set(visible(folder).values())) == 1
            for folder, action in ((cut, lambda: undisturbed(cut).__enter__()), (whole, lambda: replace(whole))):
                with pytest.raises(PermissionError) as caught:
                    action()
                told = str(caught.value)
                assert told.startswith(f"{folder}: ") and "\n" not in told
                assert "permission denied; name another place" in told
                assert folder == whole or f"use a copy (cp -r '{place}/it'\"'\"'s cut' COPY)" in told

        assert ended_well(forked(look))
        # as told
        copy = Path(shutil.copytree(cut, tmp_path / "copy"))
        copy.chmod(0o755)
        with undisturbed(copy):
            assert visible(copy) == NEW
        for folder in (whole, cut, done):
            folder.chmod(0o755)


def test_journals_of_other_users(folder, monkeypatch):
    """Not in a folder of whoever likes; that of the folder's owner, or one's own, is finished."""
    cut_off(folder)
    there = visible(folder)

    def lstat(path, really=os.lstat):  # only root can give a folder away
        found = really(path)
        return os.stat_result((*found[:4], 54321, *found[5:10])) if Path(path).name == JOURNAL else found

    monkeypatch.setattr(os, "lstat", lstat)
    for action in (lambda: undisturbed(folder).__enter__(), lambda: write(folder / "x.npz", b"")):
        with pytest.raises(PermissionError, match=r"my \$dir: .* use a copy \(cp .* it is another user's$"):
            action()
        assert visible(folder) == there
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with undisturbed(folder):
        assert visible(folder) == NEW


STRANGERS = {
    "hidden file": lambda j, away: (j / ".bashrc").write_text("x"),
    "script": lambda j, away: (j / "conftest.py").write_text("x"),
    "Makefile": lambda j, away: (j / "Makefile").write_text("x"),
    "removal of a script": lambda j, away: (j / "run.sh.gone").write_text("x"),
    "link": lambda j, away: (j / "core.npz").symlink_to(away / "kept.v"),
    "FIFO": lambda j, away: os.mkfifo(j / "core.npz"),
    "folder": lambda j, away: (j / "core.npz").mkdir(),
    "newline": lambda j, away: (j / "core.v\n").write_text("x"),
    "too many": lambda j, away: [(j / f"c{n}.v").write_text("x") for n in range(files.MOST + 1)],
    "link to a folder": lambda j, away: (shutil.rmtree(j), j.symlink_to(away)),
    "file": lambda j, away: (shutil.rmtree(j), j.write_text("x")),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_journals_of_strangers(kind, folder, tmp_path):
    """They move nothing but files of a core or build within the folder; else it is said who has to go."""
    (away := tmp_path / "away").mkdir()
    put(away, {"kept.v": b"kept"})
    put(folder, {"run.sh": b"mine"})
    cut_off(folder, {"core.v": b"new"}, moved=0)
    STRANGERS[kind](folder / JOURNAL, away)
    for action in (lambda: undisturbed(folder).__enter__(), lambda: replace(folder)):
        told = r"my \$dir/\.bfthw-journal: .* remove|not a folder that bfthw made"
        with pytest.raises(OSError, match=told) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert visible(folder) == OLD | {"run.sh": b"mine"} and visible(away) == {"kept.v": b"kept"}


def test_links_are_not_followed(folder, tmp_path):
    (away := tmp_path / "away").mkdir()
    put(away, OLD)
    for name in OLD:
        (folder / name).unlink()
        (folder / name).symlink_to(away / name)
    cut_off(folder, {"core.v": b"new", "core.npz.gone": b""}, moved=0)
    (folder / ".bfthw-work-abcd1234").symlink_to(away)
    (left := folder / ".bfthw-work-abcd5678").mkdir()
    (left / "new").symlink_to(away)
    replace(folder, {"core.json": b"new"})
    assert visible(folder) == {"core.v": b"new", "core.json": b"new"} and visible(away) == OLD
    assert hidden(folder) == [".bfthw-work-abcd1234"]  # a link is nothing that bfthw leaves


def test_file_systems_without_locks(folder, monkeypatch):
    def none(fd, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with replacing(folder) as (_, new):
        put(new, OLD)
        replace(folder)
        assert visible(folder) == NEW
    assert visible(folder) == OLD and not hidden(folder)
    cut_off(folder)
    with undisturbed(folder):
        assert visible(folder) == NEW


def test_it_costs_milliseconds(folder):
    """The processor's time of a set, and of a reader's look; the disk's is its own."""
    begin = time.process_time()
    for _ in range(20):
        replace(folder)
    assert time.process_time() - begin < 20 * 0.02
    begin = time.process_time()
    for _ in range(100):
        with undisturbed(folder):
            pass
    assert time.process_time() - begin < 100 * 0.002
