"""Commands on cores: Verilog and its simulation."""

import re
from pathlib import Path
from typing import Annotated

import typer

from ... import make_settings
from ...storage import read_vectors
from .. import options as given
from .. import tables
from ..console import console, progress, show_simulation
from ..each import each
from ..networks import to_integers


@given.takes(file=given.FOREIGN, hardware=given.HARDWARE, bits=given.FORMATS)
@each(name=lambda name, part: "_".join([name, re.sub(r"[^A-Za-z0-9_]", "_", part)]))
def generate(
    ckpt: given.Checkpoint,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files, made if missing")
    ],
    name: Annotated[
        str, typer.Option(help="Name of the Verilog module and of the files; with --each NAME_PART of every part")
    ],
    interval: given.Interval = None,
    rate: given.Rate = None,
    multipliers: given.Multipliers = None,
    fit: given.FitBoard = None,
    calibration: given.Calibration = None,
    allow_constant: given.AllowConstant = False,
    rtlil: Annotated[
        bool, typer.Option("--rtlil", help="Write NAME.il, Yosys' own format, beside the Verilog")
    ] = False,
    clock: Annotated[
        float,
        typer.Option(
            metavar="MHZ", help="Clock in the constraints NAME.xdc, NAME.sdc, NAME_nextpnr.py", show_default="100"
        ),
    ] = None,
    *,
    file,
    hardware,
    bits,
):
    """Generate a core with AXI4-Stream ports: NAME.v, the manifest NAME.json, the integers NAME.npz; beside them a
    testbench, an instance to copy, constraints, a C header and what else a design around it needs.
    """
    import rtl_gen
    from rtl_gen import handover

    rtl_gen.check_name(name)
    settings = make_settings(**bits, **hardware)
    room = None
    if fit:
        from boards.fit import on_board, roomier

        settings, room, board_clock = on_board(fit, settings)
        clock = clock or board_clock
    clock = clock or handover.MHZ
    if rate is not None:
        if interval is not None:
            raise ValueError("--interval and --images-per-second say the same; give one of them")
        interval = int(clock * 1e6 / rate)
        if not interval:
            cycles = f"{clock * 1e6:g} cycles a second"
            raise ValueError(f"--images-per-second {rate:g}: at {clock:g} MHz there are {cycles}")
    integers = to_integers(ckpt, settings, calibration, file, allow_constant, output=output / f"{name}.npz")
    with progress("choosing and writing Verilog"):
        if (interval, multipliers, fit) == (None, None, None):
            plan = rtl_gen.make_plan(integers, settings)
        else:
            try:
                choice = rtl_gen.choose_for(integers, settings, interval=interval, multipliers=multipliers, room=room)
            except rtl_gen.Impossible as error:
                if not (room and error.nearest) or error.nearest.fits(room):
                    raise
                raise ValueError(f"{error}; {roomier(error.nearest.plan)}") from None
            plan = choice.plan
            console.print(f"chosen: {choice.why}", markup=False, soft_wrap=True)
        design = rtl_gen.write_plan(plan, output, name=name, with_rtlil=rtlil, clock_mhz=clock)
    console.print(tables.hardware(design.plan))
    m = design.manifest
    maps = design.plan.over_maps
    frame = f"a frame of {m.vectors} vectors" if m.vectors > 1 else "an image" if maps else "a vector"
    console.print(
        f"latency {m.latency} cycles{' or more' * maps}, interval {m.interval} cycles {frame}, "
        f"{m.resources.multipliers} multipliers",
        soft_wrap=True,
    )
    if maps:
        console.print(f"at {clock:g} MHz {clock * 1e6 / m.interval:.6g} images a second", soft_wrap=True)
    if m.resources.estimated:
        needs = ", ".join(f"{n} {resource}" for resource, n in m.resources.estimated.model_dump().items())
        where = " of a Xilinx 7-series part, as Yosys maps it" if m.target == "plain" else ""
        console.print(f"estimated, without board and line: {needs}{where}", soft_wrap=True)
    stem = output / name
    console.print(
        f"wrote {stem}.v, .json, .npz{', .il' if rtlil else ''} and what goes with them: testbench {name}_tb.v, "
        f"{name}_inst.v, .vlt, .core, .xdc, .sdc{', .h' * (not maps)}; next: bfthw simulate {stem}.json",
        markup=False,
        soft_wrap=True,
    )


def simulate(
    manifest: given.Manifest,
    vectors: Annotated[int, typer.Option(help="Random vectors, corners of the range first")] = 64,
    input_: Annotated[
        Path, typer.Option("--input", metavar="X.npy", help="Vectors (N, n) for the unstalled run, floats or integers")
    ] = None,
    stall: Annotated[float, typer.Option(help="Probability of a stall, each side and cycle")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of vectors and stalls")] = 0,
    simulator: Annotated[
        str,
        typer.Option(
            help="compiled (fast, without waves), verilator or icarus",
            show_default="compiled; with --waves verilator",
        ),
    ] = None,
    waves: Annotated[
        bool, typer.Option("--waves", help="Write NAME.vcd (Icarus: NAME.fst): ports, and links between stages")
    ] = False,
    all_waves: Annotated[
        bool, typer.Option("--all-waves", help="Also what is in the stages, some ten times as much")
    ] = False,
):
    """Simulate a core and compare every integer with the golden model: back to back, stalled, wrong frames, a reset."""
    import sim

    inputs = read_vectors(input_) if input_ else None
    waves = "all" if all_waves else waves
    simulator = simulator or ("verilator" if waves else "compiled")
    with progress("reading the core") as step:
        result = sim.simulate(
            manifest,
            inputs=inputs,
            vectors=vectors,
            stall=stall,
            seed=seed,
            simulator=simulator,
            waves=waves,
            progress=step,
            begin=step.begin,
        )
    for check in result.checks:
        console.print(f"  played: {check}", markup=False)
    show_simulation(result)
    if not result.ok:
        raise ValueError(f"{len(result.problems)} differences from the golden model or the manifest (seed {seed})")
