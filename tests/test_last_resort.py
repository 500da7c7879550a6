"""Whatever escapes: one line for the user, a traceback for those who ask for it."""

import errno
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import FACTORS, npz
from typer.testing import CliRunner

from bfthw.cli import main as cli

SURPRISES = {
    "attribute": (AttributeError("'NoneType' object has no attribute 'get'"), "AttributeError: 'NoneType' object"),
    "key": (KeyError("shape"), "KeyError: 'shape'"),
    "index": (IndexError("list index out of range"), "IndexError: list index out of range"),
    "assertion": (AssertionError(), "AssertionError"),
    "recursion": (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth"),
    "overflow": (OverflowError("int too large"), "OverflowError: int too large"),
    "struct": (struct.error("unpack requires 4 bytes"), "error: unpack requires 4 bytes"),
    "nothing said": (ValueError(), "ValueError"),
}


def main(monkeypatch, capsys, error, *arguments):
    """(exit status, stderr) of a command that raises."""

    def app(**options):
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["bfthw", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", SURPRISES)
def test_any_exception_is_one_line_that_names_the_file(monkeypatch, capsys, name):
    error, words = SURPRISES[name]
    status, err = main(monkeypatch, capsys, error, "inspect", "my net.npz")
    assert status == 1 and err.startswith("error: ") and words in err and err.count("\n") == 1
    assert "bfthw inspect 'my net.npz'" in err and "BFTHW_DEBUG=1 shows where" in err and "Traceback" not in err


def test_the_traceback_is_there_for_those_who_ask(monkeypatch, capsys):
    monkeypatch.setenv("BFTHW_DEBUG", "1")
    status, err = main(monkeypatch, capsys, KeyError("shape"), "inspect", "x.npz")
    assert status == 1 and "Traceback" in err and "error: KeyError: 'shape'" in err


def test_system_errors_in_words(monkeypatch, capsys):
    for error, words in (
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/x.npz"), "error: a/x.npz: no such file\n"),
        (OSError(errno.EBUSY, "Device or resource busy", "x"), "error: x: device or resource busy\n"),
        (
            OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"),
            "error: a -> b: invalid cross-device link\n",
        ),
        (MemoryError(), "error: out of memory\n"),
    ):
        assert main(monkeypatch, capsys, error, "x") == (1, words)


SYSTEM = {
    "EACCES": "x: permission denied; name another place, or have this one opened to you (chmod, chown)",
    "EROFS": "x: the file system is read-only; name another place",
    "ENOSPC": "x: the disk is full; make room (`df -h` shows where), or name a place on another disk",
    "EEXIST": "x: is a file and no folder; name another place, or remove it",
    "EISDIR": "x: is a folder and no file; name a file in it, or another one",
    "ENOTDIR": "x: leads through a file as if that were a folder; name another place",
}


@pytest.mark.parametrize("name", SYSTEM)
def test_system_errors_say_what_to_do(monkeypatch, capsys, name):
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number), "x")
    assert main(monkeypatch, capsys, error, "x") == (1, f"error: {SYSTEM[name]}\n")


def test_no_message_moves_the_cursor_or_never_ends(monkeypatch, capsys):
    status, err = main(monkeypatch, capsys, ValueError("x.npz: '\x1b[2J\x07' " + "y" * 10_000))
    assert status == 1 and err.startswith("error: x.npz: '" + r"\x1b[2J\x07' yyy")
    assert len(err) < 5000 and "\x1b" not in err


CODE = "import sys; sys.argv[0] = 'bfthw'; from bfthw.cli.main import main; main()"


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    path = npz(tmp_path / "w.npz", {f"{n}.factors.0": np.ones((1, 1, 1, 1)) for n in range(2000)})
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "inspect", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode in (0, 1, -13) and not err


def test_limit_option(tmp_path):
    path = npz(tmp_path / "w.npz", FACTORS)
    for limit, status in (("4", 0), ("0.1", 2), ("many", 2)):
        assert CliRunner().invoke(cli.app, ["inspect", str(path), "--limit", limit]).exit_code == status
    big = npz(tmp_path / "big.npz", {"factors.0": np.zeros((1, 1, 1 << 24, 1))})
    error = CliRunner().invoke(cli.app, ["inspect", str(big), "--limit", "0.25"]).exception
    assert "big.npz: 1 to 67108864 bytes are read, this file has" in str(error)
