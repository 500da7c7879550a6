"""Commands on boards: bitstreams, and vectors over the line."""

import runpy
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ... import make_settings, quantize
from ...check import of_inputs
from ...files import check_place
from ...storage import check_suffix, read_vectors, write_array
from .. import options as given
from .. import tables
from ..console import console, progress, say, show_build, steps
from ..each import each
from ..networks import read


def boards():
    """List the boards: key, device, what is on it, core clock, and the programs that load a bitstream."""
    from boards.table import BOARDS

    console.print(tables.boards(BOARDS.values()))
    console.print("docs/boards.md says what each needs, and how to add one", style="dim")


def build(
    manifest: given.Manifest,
    board: Annotated[str, typer.Option(help="Board, as `bfthw boards` names it")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files, made if missing")
    ],
    clock: Annotated[float, typer.Option(metavar="MHZ", help="Core clock", show_default="the board's")] = None,
    seed: Annotated[int, typer.Option(help="First seed of place and route")] = 1,
    seeds: Annotated[int, typer.Option(help="Seeds to try, the fastest is taken")] = 1,
    tools: Annotated[str, typer.Option(help="yowasp (from PyPI) or system (what is installed)")] = "yowasp",
    check: Annotated[bool, typer.Option(help="Simulate the mapped netlist (iCE40), half a minute")] = True,
):
    """Make a bitstream: synthesis, place and route, packing, each with its time. Needs no board and no programmer."""
    from boards.build import build as build_bitstream
    from boards.table import find_board

    key = find_board(board).key
    if tools == "yowasp":
        console.print(f"{key}: a tool's first run here takes longer, its WebAssembly is compiled", style="dim")
    with steps() as step:
        report = build_bitstream(
            manifest, board, output, clock_mhz=clock, seed=seed, seeds=seeds, tools=tools, check=check, progress=step
        )
    show_build(report)
    console.print(
        f"wrote {output / report.bitstream} and report.json; next: bfthw flash {output}", markup=False, soft_wrap=True
    )


def run(
    manifest: given.Manifest,
    input_: Annotated[Path, typer.Option("--input", metavar="X.npy", help="Vectors (N, n), floats or integers")],
    port: Annotated[str, typer.Option(help="Serial port of the board, /dev/ttyUSB0 for example")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="A simulated board instead of a port")] = False,
    output: Annotated[Path, typer.Option("--output", metavar="Y.npy", help="Where to write the outputs (N, m)")] = None,
    classify: Annotated[
        bool, typer.Option("--classify", help="Print and write the largest output's index instead")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Hold every output against the golden model")] = False,
    baud: Annotated[int, typer.Option(help="Baud rate", show_default="the usual ones are tried")] = None,
    labels: Annotated[bool, typer.Option("--labels", hidden=True)] = False,
):
    """Send vectors to a board and get its answers."""
    from boards.session import compare as count_wrong
    from boards.session import connect

    if labels:
        raise ValueError("--labels names a file of true classes, in `bfthw report`; here it is --classify")
    if (port is None) != simulate:
        raise ValueError("either --port PORT, or --simulate a board")
    if simulate and baud is not None:
        raise ValueError("--baud is of a real line; a simulated board has its own")
    if output is not None:  # before the board is asked
        check_suffix(output, (".npy",))
        check_place(output)
    x = read_vectors(input_)
    with progress("connecting") as step, connect(port, manifest, baud=baud, begin=step.begin) as board:
        step.begin(f"{len(x)} vectors")
        y = board.run(x, label=classify, progress=step)
        repeated, fmt = board.repeated, board.manifest.input.format.qformat()
    if x.dtype.kind == "f":
        say([], of_inputs(fmt, x, "inputs"))
    if output:
        write_array(output, y)
        console.print(f"wrote {output}", markup=False)
    if classify:
        console.print("classes:", *y[:40], *["..."] * (len(y) > 40), soft_wrap=True)
    console.print(f"{len(x)} vectors, {board.vectors_per_second:.1f} a second, {repeated} requests sent again")
    if simulate:
        console.print("(a simulated board: its time is not a real one's)")
    if compare:
        wrong = count_wrong(manifest, x, y, classify)
        if wrong:
            raise ValueError(f"{wrong} of {len(x)} answers differ from the golden model")
        console.print("[green]ok[/] every answer equals the golden model's")


@given.takes(file=given.FOREIGN)
@each()
def fit(ckpt: given.Checkpoint, settings_file: given.SettingsFile = None, *, file):
    """Estimate which boards a network fits, and how; nothing is built."""
    from boards.fit import fit as fit_board
    from boards.table import BOARDS

    network, integers = read(ckpt, **file)
    (network or integers).row(f"{ckpt}: fit")
    with progress("fitting") as step:
        if integers is None:
            settings = make_settings(settings_file)
            chosen = settings if settings.chooses_formats else None
            integers = quantize.quantise(*quantize.prepare(network, settings=chosen))
        found = []
        for board in BOARDS.values():
            found.append(fit_board(integers, board))
            step(len(found) / len(BOARDS))
    console.print(tables.fits(found))
    console.print(
        "estimates, see docs/hardware.md; the serial line may be slower than the core", style="dim"
    )


def flash(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `bfthw build`", show_default=False)],
    board: Annotated[str, typer.Option(help="Board; must be the one it was built for")] = None,
    sram: Annotated[bool, typer.Option("--sram", help="Until power goes")] = False,
    to_flash: Annotated[bool, typer.Option("--flash", help="For good")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command, run nothing")] = False,
):
    """Load a bitstream into a board with its usual programmer; prints the exact command."""
    from boards import flash as programming

    if sram and to_flash:
        raise ValueError("--sram or --flash, not both")
    target = "sram" if sram else "flash" if to_flash else None
    file, built_for = programming.bitstream(directory, board)
    console.print(programming.flash(built_for, file, target, dry_run=True), markup=False, soft_wrap=True)
    if not dry_run:
        programming.flash(built_for, file, target)
        console.print("[green]ok[/]")


def patch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `bfthw build`", show_default=False)],
    weights: Annotated[Path, typer.Option(metavar="CKPT", help="Weights of the same shapes, for the same formats")],
    check: Annotated[bool, typer.Option("--check", help="Simulate the patched netlist as well (iCE40)")] = False,
):
    """Put new weights into a bitstream (iCE40, ECP5, Gowin) in seconds, without place and route."""
    from boards.patch import patch as patch_bitstream

    if check:
        from boards import flash, gatelevel, netlist

        netlist.check_simulated(flash.bitstream(directory)[1].device.family)  # before anything is changed
    with steps() as step:
        design = patch_bitstream(directory, weights, progress=step)
        if check:
            step("netlist against golden model (Verilator)")
            problems = gatelevel.check(directory).problems
            if problems:
                raise ValueError(f"{directory}: the patched netlist differs from the golden model: {problems[0]}")
    console.print(
        f"[green]ok[/] {escape(f'{directory} holds {weights.name}')}; configuration "
        f"{design.manifest.configuration[:12]}; next: {escape(f'bfthw flash {directory}')}",
        soft_wrap=True,
    )


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files")] = Path(
        "build/digits"
    ),
    simulator: Annotated[str, typer.Option(help="compiled, verilator or icarus")] = "compiled",
    bitstreams: Annotated[bool, typer.Option(help="Build for three boards as well")] = True,
):
    """Take the shipped digits network the whole way: integers, Verilog, simulation of all test images, bitstreams."""
    # in the source tree, or in the package that was made of it
    places = Path("examples", "digits"), Path("bfthw", "digits")
    scripts = [Path(__file__).resolve().parents[3] / place / "demo.py" for place in places]
    script = next(filter(Path.exists, scripts), scripts[0])
    run_demo = runpy.run_path(str(script))["run"]
    if not run_demo(
        output, simulator=simulator, console=console, progress=progress, steps=steps, bitstreams=bitstreams
    ):
        raise ValueError("the demo did not agree; see above")
