"""What several commands print: progress, steps with their times, results."""

from contextlib import contextmanager

from rich.console import Console, ConsoleDimensions
from rich.markup import escape


class _Console(Console):
    """A console as wide as the terminal, or as COLUMNS says; a file or a pipe gets whole lines."""

    @property
    def size(self):
        return super().size if self.is_terminal or "COLUMNS" in self._environ else ConsoleDimensions(1 << 16, 25)


console = _Console(highlight=False)


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
        console.print(f"waveforms: {result.waves}", markup=False)
    for problem in result.problems:
        console.print(f"[red]differs[/] {escape(problem)}")
    if result.ok:
        console.print(f"[green]ok[/] {result.vectors} vectors equal the golden model bit for bit ({result.simulator})")


@contextmanager
def progress(title):
    """A progress bar; yields what takes the fraction done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn()
    # in a file or a pipe even a bar that goes leaves an empty line
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


def show_build(report):
    from . import tables

    console.print(tables.build(report))
    say(report.notes)


@contextmanager
def steps():
    """Lines of the steps of a build, each with its time; yields what takes (title, seconds or None)."""
    with console.status("") as status:

        def step(title, seconds=None):
            status.update(f"{title} ...")
            if seconds is not None:
                console.print(f"  {seconds:6.1f} s  {title}", markup=False)

        yield step
