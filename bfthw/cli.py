"""The command line: every command by its name, and what becomes of errors."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from .commands import boards, hardware, network, project, quantisation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Trained butterfly networks to FPGA hardware: checkpoint, integers, Verilog, bit-exact simulation.",
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
    boards.build,
    boards.run,
    boards.fit,
    boards.flash,
    boards.patch,
    boards.demo,
):
    app.command()(command)


def main():
    """Entry point: exit status 1 and one message for whatever a user can cause, 2 for wrong usage."""
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)
    except MemoryError:
        Console(stderr=True).print("[bold red]error:[/] out of memory")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
