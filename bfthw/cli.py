"""The command line: parse, call, print."""

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from . import options as given
from .console import console, progress, show_build, show_simulation, steps

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Trained butterfly networks to FPGA hardware: checkpoint, integers, Verilog, bit-exact simulation.",
)


def _read(path, order=None):
    """(float Network or None, IntNetwork or None) of a file, its notes printed."""
    import bfthw

    if bfthw.checkpoint.is_integers(path):
        return None, bfthw.load_integers(path)
    loaded = bfthw.load(path, order=order.split(",") if order else None)
    for note in loaded.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    return loaded.network, None


def _integers(path, order, settings, calibration):
    """The integer network of a file, quantised here if it is none yet; prints formats and what they cost."""
    from . import quantize, tables
    from .storage import read_vectors

    network, integers = _read(path, order)
    if integers is not None:
        if settings.chooses_formats or calibration:
            raise ValueError(f"{path}: holds integers already; bits and calibration data belong to `bfthw quantize`")
        console.print(tables.formats(integers))
        return integers
    vectors = read_vectors(calibration) if calibration else None
    chosen = settings if settings.chooses_formats else None
    prepared, formats = quantize.prepare(network, settings=chosen, calibration=vectors)
    integers = quantize.quantise(prepared, formats)
    if formats is network.formats:
        console.print("formats: those of the checkpoint, which it was trained for")
    elif calibration:
        console.print(f"formats: from {calibration}, {len(vectors)} vectors", markup=False)
    else:
        console.print("formats: chosen so that nothing can overflow; with --calibration X.npy they are usually finer")
    reports = [] if vectors is None else quantize.report(prepared, integers, vectors)
    console.print(tables.formats(integers, reports))
    return integers


@app.command()
def doctor():
    """List every tool with its version, what is missing and what that disables."""
    from . import doctor as checks
    from . import tables

    with console.status("asking the tools ..."):
        found = checks.tools()
    console.print(tables.doctor(found))
    missing = [tool.name for tool in found if tool.required and not tool.found]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    console.print("[green]ok[/] everything that generate and simulate need is here")


@app.command()
def inspect(ckpt: given.Checkpoint, order: given.Order = None):
    """Show the layers of a checkpoint, their patterns and weights, against dense layers of the same sizes."""
    from . import tables

    network, integers = _read(ckpt, order)
    layers = tables.float_layers(network) if integers is None else tables.integer_layers(integers)
    kind = "float" if integers is None else "integers"
    console.print(tables.network(f"{ckpt.name}, {kind}; a weight is a multiplication a vector", layers))
    if integers is not None:
        console.print(tables.formats(integers))
    elif network.formats:
        console.print("it was trained for fixed-point formats, which `quantize` and `generate` will use")


@app.command()
def quantize(
    ckpt: given.Checkpoint,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.npz", help="Where to write the integers")],
    order: given.Order = None,
    weight_bits: given.WeightBits = None,
    activation_bits: given.ActivationBits = None,
    input_bits: given.InputBits = None,
    input_frac: given.InputFrac = None,
    row_exponents: given.RowExponents = None,
    calibration: given.Calibration = None,
    settings_file: given.SettingsFile = None,
):
    """Turn float weights into integers and write them as .npz, which `generate` takes as well."""
    import bfthw

    settings = bfthw.make_settings(
        settings_file,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        input_bits=input_bits,
        input_frac=input_frac,
        row_exponents=row_exponents,
    )
    integers = _integers(ckpt, order, settings, calibration)
    bfthw.save_integers(integers, output)
    console.print(f"wrote {output}", markup=False)


@app.command()
def generate(
    ckpt: given.Checkpoint,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files, made if missing")
    ],
    name: Annotated[str, typer.Option(help="Name of the Verilog module and of the files")],
    order: given.Order = None,
    lanes: given.Lanes = None,
    simd: given.Simd = None,
    engine: given.Engine = None,
    vectors: given.Vectors = None,
    paired: given.Paired = None,
    products: given.Products = None,
    target: given.Target = None,
    interval: given.Interval = None,
    multipliers: given.Multipliers = None,
    fit: given.FitBoard = None,
    weight_bits: given.WeightBits = None,
    activation_bits: given.ActivationBits = None,
    input_bits: given.InputBits = None,
    input_frac: given.InputFrac = None,
    row_exponents: given.RowExponents = None,
    calibration: given.Calibration = None,
    settings_file: given.SettingsFile = None,
    rtlil: Annotated[
        bool, typer.Option("--rtlil", help="Write NAME.il, Yosys' own format, beside the Verilog")
    ] = False,
):
    """Generate a core with AXI4-Stream ports: NAME.v, the manifest NAME.json and the integers NAME.npz."""
    import bfthw
    import rtl_gen

    from . import tables

    rtl_gen.check_name(name)
    settings = bfthw.make_settings(
        settings_file,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        input_bits=input_bits,
        input_frac=input_frac,
        row_exponents=row_exponents,
        lanes=lanes,
        simd=simd,
        engine=engine,
        vectors=vectors,
        paired=paired,
        products=products,
        target=target,
    )
    room = None
    if fit:
        from boards.fit import on_board

        settings, room = on_board(fit, settings)
    integers = _integers(ckpt, order, settings, calibration)
    with console.status("choosing and writing Verilog ..."):
        if (interval, multipliers, fit) == (None, None, None):
            spec = rtl_gen.make_spec(integers, settings)
        else:
            choice = rtl_gen.choose_for(integers, settings, interval=interval, multipliers=multipliers, room=room)
            spec = choice.spec
            console.print(f"chosen: {choice.why}", markup=False, soft_wrap=True)
        design = rtl_gen.write_spec(spec, output, name=name, with_rtlil=rtlil)
    console.print(tables.hardware(design.spec))
    m = design.manifest
    frame = "vector" if m.vectors == 1 else f"frame of {m.vectors} vectors"
    console.print(
        f"latency {m.latency} cycles, interval {m.interval} cycles a {frame}, {m.resources.multipliers} multipliers",
        soft_wrap=True,
    )
    if m.resources.estimated:
        needs = ", ".join(f"{n} {resource}" for resource, n in m.resources.estimated.model_dump().items())
        console.print(f"estimated, without board and line: {needs}")
    console.print(f"wrote {output / name}.v, .json, .npz{', .il' if rtlil else ''}", markup=False)


@app.command()
def simulate(
    manifest: given.Manifest,
    vectors: Annotated[int, typer.Option(help="Random vectors, corners of the range first")] = 64,
    input_: Annotated[
        Path, typer.Option("--input", metavar="X.npy", help="Vectors (N, n) for the unstalled run, floats or integers")
    ] = None,
    stall: Annotated[float, typer.Option(help="Probability of a stall, each side and cycle")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of vectors and stalls")] = 0,
    simulator: Annotated[str, typer.Option(help="verilator, icarus, or compiled: fast, without waves")] = "verilator",
    waves: Annotated[
        bool, typer.Option("--waves", help="Write NAME.vcd (Icarus: NAME.fst) beside the manifest")
    ] = False,
):
    """Simulate a core and compare every integer with the golden model: back to back, stalled, wrong frames, a reset."""
    import sim

    from .storage import read_vectors

    inputs = read_vectors(input_) if input_ else None
    with progress(f"{simulator}: building and running ...") as step:
        result = sim.simulate(
            manifest,
            inputs=inputs,
            vectors=vectors,
            stall=stall,
            seed=seed,
            simulator=simulator,
            waves=waves,
            progress=step,
        )
    for check in result.checks:
        console.print(f"  played: {check}", markup=False)
    show_simulation(result)
    if not result.ok:
        raise ValueError(f"{len(result.problems)} differences from the golden model or the manifest (seed {seed})")


@app.command()
def build(
    manifest: given.Manifest,
    board: Annotated[str, typer.Option(help="Board, as `bfthw boards` names it")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files, made if missing")
    ],
    clock: Annotated[float, typer.Option(metavar="MHZ", help="Clock of the core", show_default="the board's")] = None,
    seed: Annotated[int, typer.Option(help="First seed of place and route")] = 1,
    seeds: Annotated[int, typer.Option(help="Seeds to try, the fastest is taken")] = 1,
    tools: Annotated[str, typer.Option(help="yowasp (from PyPI) or system (what is installed)")] = "yowasp",
    check: Annotated[bool, typer.Option(help="Simulate the mapped netlist (iCE40), half a minute")] = True,
):
    """Make a bitstream: synthesis, place and route, packing, each with its time. Needs no board and no programmer."""
    from boards.build import build as build_bitstream

    console.print(f"{board}: a tool's first run here takes longer, its WebAssembly is compiled", style="dim")
    with steps() as step:
        report = build_bitstream(
            manifest, board, output, clock_mhz=clock, seed=seed, seeds=seeds, tools=tools, check=check, progress=step
        )
    show_build(report)
    console.print(
        f"wrote {output / report.bitstream} and report.json; next: bfthw flash {output}", markup=False, soft_wrap=True
    )


@app.command()
def run(
    manifest: given.Manifest,
    input_: Annotated[Path, typer.Option("--input", metavar="X.npy", help="Vectors (N, n), floats or integers")],
    port: Annotated[str, typer.Option(help="Serial port of the board, /dev/ttyUSB0 for example")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="A simulated board instead of a port")] = False,
    output: Annotated[Path, typer.Option("--output", metavar="Y.npy", help="Where to write the outputs (N, m)")] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Print and write the largest output's index instead")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Hold every output against the golden model")] = False,
    baud: Annotated[int, typer.Option(help="Baud rate", show_default="the usual ones are tried")] = None,
):
    """Send vectors to a board and get its answers."""
    from boards.session import compare as count_wrong
    from boards.session import connect

    from .storage import read_vectors, write_array

    if (port is None) != simulate:
        raise ValueError("name a --port, or --simulate a board")
    x = read_vectors(input_)
    with connect(port, manifest, baud=baud) as board, progress(f"{len(x)} vectors") as step:
        y = board.run(x, label=labels, progress=step)
        repeated = board.repeated
    if labels:
        console.print("labels:", " ".join(map(str, y[:40])), "..." if len(y) > 40 else "", soft_wrap=True)
    console.print(f"{len(x)} vectors, {board.vectors_per_second:.1f} a second, {repeated} requests sent again")
    if simulate:
        console.print("(a simulated board: its time is not a real one's)")
    if compare:
        wrong = count_wrong(manifest, x, y, labels)
        if wrong:
            raise ValueError(f"{wrong} of {len(x)} answers differ from the golden model")
        console.print("[green]ok[/] every answer equals the golden model's")
    if output:
        write_array(output, y)
        console.print(f"wrote {output}", markup=False)


@app.command()
def fit(ckpt: given.Checkpoint, order: given.Order = None, settings_file: given.SettingsFile = None):
    """Estimate which boards a network fits, and how; nothing is built."""
    import bfthw
    from boards.fit import fit as fit_board
    from boards.table import BOARDS

    from . import tables

    network, integers = _read(ckpt, order)
    if integers is None:
        settings = bfthw.make_settings(settings_file)
        integers = bfthw.compile(network, settings=settings if settings.chooses_formats else None)
    console.print(tables.fits([fit_board(integers, board) for board in BOARDS.values()]))
    console.print(
        "estimates, see docs/hardware.md; the serial line may be slower than the core", style="dim"
    )


@app.command()
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


@app.command()
def patch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `bfthw build`", show_default=False)],
    weights: Annotated[Path, typer.Option(metavar="CKPT", help="Weights of the same shapes, for the same formats")],
    check: Annotated[bool, typer.Option("--check", help="Simulate the patched netlist as well (iCE40)")] = False,
):
    """Put new weights into a bitstream (iCE40, ECP5) in seconds, without place and route."""
    from boards.patch import patch as patch_bitstream

    with steps() as step:
        design = patch_bitstream(directory, weights, progress=step)
        if check:
            from boards import gatelevel

            step("netlist against golden model (Verilator)")
            problems = gatelevel.check(directory).problems
            if problems:
                raise ValueError(f"{directory}: the patched netlist differs from the golden model: {problems[0]}")
    console.print(f"[green]ok[/] {directory} holds {weights.name}; configuration {design.manifest.configuration[:12]}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files")] = Path(
        "build/digits"
    ),
    simulator: Annotated[str, typer.Option(help="verilator or icarus")] = "verilator",
    bitstreams: Annotated[bool, typer.Option(help="Build for three boards as well")] = True,
):
    """The whole way with the shipped digits network: integers, Verilog, simulation of every held-out image, bitstreams."""
    script = Path(__file__).resolve().parent.parent / "examples" / "digits" / "demo.py"
    if not script.exists():
        raise ValueError(
            f"{script} is missing: the demo is part of the source tree, run it from a clone of the project"
        )
    run_demo = runpy.run_path(str(script))["run"]
    if not run_demo(
        output, simulator=simulator, console=console, progress=progress, steps=steps, bitstreams=bitstreams
    ):
        raise ValueError("the demo did not agree; see above")


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
