"""Commands on boards: bitstreams, and vectors over the line."""

import runpy
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ... import make_settings, quantize
from ...check import of_inputs
from ...files import check_place
from ...reading import read_text
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
    check: Annotated[bool, typer.Option(help="Simulate the mapped netlist, a minute or more")] = True,
    floorplan: Annotated[
        bool, typer.Option("--floorplan", help="Block RAMs and multipliers engine by engine: a large core on an ECP5")
    ] = False,
):
    """Make a bitstream: synthesis, place and route, packing, each with its time. Needs no board and no programmer."""
    from boards.build import build as build_bitstream
    from boards.table import find_board

    key = find_board(board).key
    if tools == "yowasp":
        console.print(f"{key}: a tool's first run here takes longer, its WebAssembly is compiled", style="dim")
    with steps() as step:
        report = build_bitstream(
            manifest, board, output, clock_mhz=clock, seed=seed, seeds=seeds, tools=tools, check=check, progress=step,
            floorplan=floorplan,
        )
    show_build(report)
    console.print(
        f"wrote {output / report.bitstream} and report.json; next: bfthw flash {output}", markup=False, soft_wrap=True
    )


def run(
    manifest: given.Manifest,
    input_: Annotated[
        Path, typer.Option("--input", metavar="X", help="A .npy of vectors or maps (N, ...); a PNG, JPEG, folder of them")
    ],
    port: Annotated[str, typer.Option(help="Serial port of the board, /dev/ttyUSB0 for example")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="A simulated board instead of a port")] = False,
    output: Annotated[Path, typer.Option("--output", metavar="Y.npy", help="Where to write the outputs (N, m)")] = None,
    classify: Annotated[
        bool, typer.Option("--classify", help="Print and write the largest output's index instead")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Hold every output against the golden model")] = False,
    baud: Annotated[int, typer.Option(help="Baud rate", show_default="the usual ones are tried")] = None,
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="Names of the classes, a line each; printed for the largest output")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Make pictures of another size fit")] = False,
):
    """Send vectors, images or pictures to a board and get its answers."""
    from boards import pictures
    from boards.session import compare as count_wrong
    from boards.session import connect
    from rtl_gen import load_design, read_manifest

    _one_board(port, simulate, baud)
    if output is not None:  # before the board is asked
        check_suffix(output, (".npy",))
        check_place(output)
    paths, notes = None, []
    if pictures.is_picture(input_):
        network = load_design(manifest).plan.network
        paths = pictures.found(input_)
        x, notes = pictures.read(paths, network.shape, network.input, resize=resize)
    elif resize:
        raise ValueError(f"{input_}: --resize is for pictures")
    else:
        x = read_vectors(input_)
    names = None if labels is None else _names(labels, read_manifest(manifest, check=()).output.elements)
    what = "vectors" if paths is None else "pictures"
    with progress("connecting") as step, connect(port, manifest, baud=baud, begin=step.begin) as board:
        step.begin(f"{len(x)} {what}")
        y = board.run(x, label=classify, progress=step)
        repeated, fmt = board.repeated, board.manifest.input.format.qformat()
    say(notes, of_inputs(fmt, x, "inputs") if x.dtype.kind == "f" else ())
    if output:
        write_array(output, y)
        console.print(f"wrote {output}", markup=False)
    _show_classes(y if classify else y.argmax(axis=1), paths, names, classify)
    console.print(f"{len(x)} {what}, {board.vectors_per_second:.1f} a second, {repeated} requests sent again")
    _say_simulated(simulate)
    if compare:
        wrong = count_wrong(manifest, x, y, classify)
        if wrong:
            raise ValueError(f"{wrong} of {len(x)} answers differ from the golden model")
        console.print("[green]ok[/] every answer equals the golden model's")


def _one_board(port, simulate, baud):
    if (port is None) != simulate:
        raise ValueError("either --port PORT, or --simulate a board")
    if simulate and baud is not None:
        raise ValueError("--baud is of a real line; a simulated board has its own")


def _say_simulated(simulate):
    if simulate:
        console.print("(a simulated board: its time is not a real one's)")


def _names(path, count):
    """The names of `count` classes; ValueError for another number of lines."""
    if path.suffix == ".npy":
        raise ValueError(f"{path}: --labels names a text file of names; true classes go to `bfthw report`")
    names = read_text(path, what="list of names").rstrip().splitlines()
    if len(names) != count:
        raise ValueError(f"{path}: {len(names)} names, a line each, for {count} outputs")
    return names


def _show_classes(classes, paths, names, asked):
    """The class of each, with its name where that is known; for a picture a line."""
    shown = [f"{n} {names[n]}" if names else str(n) for n in classes]
    if paths is not None:
        for path, text in zip(paths, shown):
            console.print(f"{path.name}: {text}", markup=False, soft_wrap=True)
    elif asked or names:
        separator = ", " if names else " "
        text = separator.join([*shown[:40], *["..."] * (len(shown) > 40)])
        console.print(f"classes: {text}", markup=False, soft_wrap=True)


def measure(
    manifest: given.Manifest,
    frames: Annotated[int, typer.Option(metavar="N", help="Vectors or images, 2 to 65535")] = 100,
    port: Annotated[str, typer.Option(help="Serial port of the board, /dev/ttyUSB0 for example")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="A simulated board instead of a port")] = False,
    baud: Annotated[int, typer.Option(help="Baud rate", show_default="the usual ones are tried")] = None,
):
    """Let a board run at its core's full speed, without the line, and hold its answers against the golden model."""
    from boards.session import connect
    from boards.session import measure as measure_board
    from boards.simulated import MEASURED

    _one_board(port, simulate, baud)
    if simulate and frames > MEASURED:
        raise ValueError(f"a simulated board measures {MEASURED} frames at most, got {frames}")
    with progress("connecting") as step, connect(port, manifest, baud=baud, begin=step.begin) as board:
        step.begin(f"{frames} frames")
        speed = measure_board(board, manifest, frames, step)
    if not speed.right:
        raise ValueError(f"{frames} frames: the CRC of their outputs is not the golden model's")
    console.print(f"[green]ok[/] the outputs of {frames} frames equal the golden model's (CRC-32)")
    console.print(
        f"{speed.cycles_per_frame:g} cycles a frame, {speed.interval} planned; at {speed.clock_hz / 1e6:g} MHz "
        f"{speed.frames_per_second:.1f} a second"
    )
    _say_simulated(simulate)


@given.takes(file=given.FOREIGN)
@each()
def fit(ckpt: given.Checkpoint, settings_file: given.SettingsFile = None, *, file):
    """Estimate which boards a network fits, and how; nothing is built."""
    from boards.fit import fit as fit_board
    from boards.table import BOARDS

    network, integers = read(ckpt, **file)
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
    check: Annotated[bool, typer.Option("--check", help="Simulate the patched netlist as well")] = False,
):
    """Put new weights into a bitstream (iCE40, ECP5, Gowin) in seconds, without place and route."""
    from boards.patch import patch as patch_bitstream

    if check:
        from boards import gatelevel
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
    network: Annotated[str, typer.Argument(help="mnist, pixels to digits, or digits, vectors")] = "mnist",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files", show_default="build/NETWORK")
    ] = None,
    simulator: Annotated[str, typer.Option(help="compiled, verilator or icarus")] = "compiled",
    bitstreams: Annotated[bool, typer.Option(help="Build for boards as well")] = True,
):
    """Take a shipped network the whole way: integers, Verilog, simulation of all test images, bitstreams."""
    if network not in (known := ("mnist", "digits")):
        raise ValueError(f"there is no demo {network!r}; there are {' and '.join(known)}")
    output = output or Path("build", network)
    # in the source tree, or in the package that was made of it
    places = Path("examples", network), Path("bfthw", network)
    scripts = [Path(__file__).resolve().parents[3] / place / "demo.py" for place in places]
    script = next(filter(Path.exists, scripts), scripts[0])
    run_demo = runpy.run_path(str(script))["run"]
    if not run_demo(output, simulator=simulator, console=console, progress=progress, bitstreams=bitstreams):
        raise ValueError("the demo did not agree; see above")
