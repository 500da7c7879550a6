"""Programming a board: its usual programmer, run on the bitstream that `build` made."""

import shlex
import shutil
import subprocess
from pathlib import Path

from bfthw import child
from bfthw.files import settled
from bfthw.reading import reader, sha256
from rtl_gen.manifest import FILE

from .report import read_report
from .table import find_board


@reader
@settled
def bitstream(directory, board=None):
    """(path, Board) of the bitstream that report.json in `directory` tells of.

    Raises ValueError where there is none, where it was built for another board than `board`, or has changed since.
    """
    path = Path(directory) / "report.json"
    if Path(directory).is_file():
        raise ValueError(f"{directory}: is a file; name the folder of `bfthw build`")
    if not path.exists():
        raise ValueError(f"{path} is missing: there is no bitstream here; run `bfthw build` first")
    report = read_report(path, ("board", "bitstream", "sha256"))
    built, name, digest = report["board"], report["bitstream"], report["sha256"]
    if board is not None and find_board(board).key != built:
        raise ValueError(f"{path}: the bitstream is for {built}, not for {find_board(board).key}")
    file = path.parent / Path(str(name)).name
    if not file.exists():
        raise ValueError(f"{file} is missing; run `bfthw build` again")
    if sha256(file, FILE) != digest:
        raise ValueError(f"{file}: not the bitstream of report.json (its sha256 differs); run `bfthw build` again")
    return file, find_board(built)


def programmer(board, target=None):
    """The (target, Programmer) of a board; target: "sram" (lost without power), "flash", or None for the usual one."""
    board = find_board(board)
    target = target or next(iter(board.programmers))
    if target not in board.programmers:
        raise ValueError(f"{board.title} cannot be programmed to {target!r}; there is {', '.join(board.programmers)}")
    return target, board.programmers[target]


def command(board, file, target=None):
    """The programmer's command as a list of words; needs neither the programmer nor the file."""
    _, chosen = programmer(board, target)
    # a name that begins with a dash would be taken for an option
    name = str(file) if not str(file).startswith("-") else f"./{file}"
    return [word.format(file=name) if word == "{file}" else word for word in chosen.command]


def flash(board, file, target=None, *, dry_run=False):
    """Program a board; returns the command as a line for a shell. `dry_run` returns it without running anything.

    Raises ValueError where the programmer is missing, with the way to get it, or the file; RuntimeError where it fails.
    """
    words = command(board, file, target)
    line = shlex.join(words)
    if dry_run:
        return line
    _, chosen = programmer(board, target)
    if not Path(file).is_file():
        raise ValueError(f"{file}: no such file")
    if not shutil.which(words[0]):
        raise ValueError(f"{chosen.cure}; then run: {line}")
    # no child as others are: killed in the middle it would leave a board half written
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, env=child.environment())
    if done.returncode:
        hint = f"; {chosen.note}" if chosen.note else ""
        ask = "is the board plugged in, and may this user open it (udev rules)?"
        raise RuntimeError(f"{words[0]} failed, exit status {done.returncode}: {line}; {ask}{hint}")
    return line
