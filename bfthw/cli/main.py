"""The command line: every command by its name, and what becomes of errors."""

import os
import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .. import __version__, packages
from ..reading import words
from .commands import boards, hardware, network, project, quantisation
from .console import console, message

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    network.doctor,
    network.inspect,
    network.quantize,
    quantisation.report,
    quantisation.search,
    project.project,
    hardware.generate,
    hardware.simulate,
    boards.boards,
    boards.build,
    boards.run,
    boards.measure,
    boards.fit,
    boards.flash,
    boards.patch,
    boards.demo,
):
    app.command()(command)


def _version(asked):
    if asked:
        print(f"bfthw {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and end")
    ] = False,
):
    """Trained butterfly networks to FPGA hardware: checkpoint, integers, Verilog, bit-exact simulation."""


def main():
    """Entry point: exit status 1 and one message for whatever a user can cause, 2 for wrong usage.

    With BFTHW_DEBUG=1 in the environment the traceback is shown as well.
    """
    packages.find(first=True)
    try:
        run()
    except Exception as error:  # of any kind: files and numbers come from elsewhere
        if os.environ.get("BFTHW_DEBUG") == "1":
            traceback.print_exc()
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(message(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def run():
    """All of a command, to the last of what it prints; OSError where somebody wanted that and has not got it."""
    try:
        app(prog_name="bfthw")
    finally:
        with console.survived():
            if sys.stdout:
                sys.stdout.flush()
        if console.failure and sys.exc_info()[0] in (None, SystemExit):
            why = words(console.failure)
            raise OSError(f"standard output: {why}; files that the command writes are written") from None
