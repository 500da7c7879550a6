"""What several commands print: progress, steps with their times, results."""

import os
import shlex
import sys
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleDimensions
from rich.markup import escape

from ..reading import told
from . import tables


class _Console(Console):
    """A console as wide as the terminal, or as COLUMNS says; a file or a pipe gets whole lines.

    Whoever reads may go away: files that a command writes are written all the same. failure: the OSError that kept
    something from being printed, where it was another one.
    """

    failure = None

    @property
    def size(self):
        return super().size if self.is_terminal or "COLUMNS" in self._environ else ConsoleDimensions(1 << 16, 25)

    def print(self, *objects, **options):
        with self.survived():
            super().print(*objects, **options)

    def on_broken_pipe(self):
        raise  # for `survived`

    @contextmanager
    def survived(self):
        """What cannot be printed goes nowhere, from then on, and what is left to do is done."""
        try:
            yield
        except OSError as error:
            self.quiet = True
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            with suppress(OSError, AttributeError):  # no file, or none of the system's
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.close(nowhere)


console = _Console(highlight=False)
TOLD = (ValueError, TypeError, OSError, RuntimeError, ImportError)  # what messages are made for
LONGEST = 4000  # characters of a message; logs of tools have many lines


def message(error):
    """What a person is told of an exception, without signs that would move the cursor, and never without an end."""
    if isinstance(error, MemoryError):
        text = "out of memory"
    elif isinstance(error, TOLD) and not isinstance(error, RecursionError) and str(error):
        text = told(error)
    else:
        command = shlex.join(["bfthw", *sys.argv[1:]])
        text = f"{type(error).__name__}: {error}, in `{command}`: a fault of bfthw; BFTHW_DEBUG=1 shows where"
    text = "".join(sign if sign.isprintable() or sign == "\n" else f"\\x{ord(sign):02x}" for sign in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def say(notes, warnings=()):
    """A line each."""
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for line in warnings:
        console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True)


def show_simulation(result):
    interval = (
        "not measured (6 vectors are needed)" if result.interval is None else f"{result.interval:g} cycles a vector"
    )
    console.print(f"latency {result.latency} cycles, interval {interval}")
    console.print(f"{result.cycles} cycles in {result.seconds:.1f} s, {result.cycles / result.seconds:.0f} a second")
    if result.waves:
        console.print(f"waveforms: {result.waves}, {result.waves.stat().st_size / 1e6:.3g} MB", markup=False)
    for problem in result.problems:
        console.print(f"[red]differs[/] {escape(problem)}")
    if result.ok:
        console.print(f"[green]ok[/] {result.vectors} vectors equal the golden model bit for bit ({result.simulator})")


class _Progress:
    """Of a running `progress`: called with the fraction done; `begin` names what begins, its time counts from then."""

    def __init__(self, bar, title):
        self.bar, self.task = bar, bar.add_task(escape(title), total=None)

    def __call__(self, fraction):
        self.bar.update(self.task, total=1.0, completed=fraction)

    def begin(self, title):
        self.bar.reset(self.task, description=escape(title), total=None)


@contextmanager
def progress(title):
    """A line with what is going on and for how long, and a bar as soon as somebody knows how much; yields a _Progress.

    For all that may take longer than two seconds; not within another one.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    # in a file or a pipe even a bar that goes leaves an empty line
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _Progress(bar, title)


def show_build(report):
    console.print(tables.build(report))
    say(report.notes)


@contextmanager
def steps():
    """Lines of the steps of a build, each with its time; yields what takes (title, seconds or None)."""
    with progress("reading the design") as bar:

        def step(title, seconds=None):
            if seconds is None:
                bar.begin(title)
            else:
                console.print(f"  {seconds:6.1f} s  {title}", markup=False)

        yield step
