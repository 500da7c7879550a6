"""Commands on the bits themselves: what they cost, and where they are best spent."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ... import files, make_settings, noise, plots, quantize
from ... import search as mixed
from ...storage import read_vectors
from ...sweep import ACTIVATIONS, WEIGHTS, sweep
from .. import options as given
from .. import tables
from ..console import console, progress
from ..networks import read, show_check, show_first_hurt, show_origin

Vectors = Annotated[
    Path,
    typer.Option(
        "--calibration", metavar="X.npy", help="Inputs (N, n), float: formats follow them, SQNR is measured on them"
    ),
]


def _floats(path, file):
    network, _ = read(path, **file)
    if network is None:
        raise ValueError(f"{path}: holds integers, whose bits are chosen already; name the float checkpoint")
    return network


@given.takes(file=given.FOREIGN, bits=given.FORMATS)
def report(
    ckpt: given.Checkpoint,
    calibration: Vectors,
    plot: Annotated[
        Path, typer.Option(metavar="OUT.svg", help="Draw the stages, and SQNR against bits: .svg, .png or .pdf")
    ] = None,
    labels: given.Labels = None,
    allow_constant: given.AllowConstant = False,
    *,
    file,
    bits,
):
    """Show what quantisation costs at each stage, the stage that hurts first, and what other bits would give."""
    settings = make_settings(**bits)
    if plot is not None:
        plots.check_path(plot)
        plots.pyplot()  # before minutes are spent
        files.check_place(plot)
    network = _floats(ckpt, file)
    x = read_vectors(calibration)
    classes = None if labels is None else read_vectors(labels)
    trained = None if settings.chooses_formats else network.formats
    with progress("choosing formats"):
        prepared, _, integers, found = quantize.checked(network, settings=settings, calibration=x, formats=trained)
        reports = noise.report(prepared, integers, x)
    show_origin(trained is not None, calibration, x)
    console.print(tables.formats(integers, reports))
    show_first_hurt(reports)
    show_check(found, allow_constant)
    common = {"settings": settings, "labels": classes}
    with progress("other bits") as step:
        weights = sweep(network, x, "weight_bits", WEIGHTS, progress=lambda done: step(done / 2), **common)
        activations = sweep(
            network, x, "activation_bits", ACTIVATIONS, progress=lambda done: step((1 + done) / 2), **common
        )
    console.print(tables.sweeps(weights, activations))
    if plot is not None:
        plots.report(plot, reports, weights, activations)
        console.print(f"wrote {plot}", markup=False)


@given.takes(file=given.FOREIGN, bits={key: option for key, option in given.FORMATS.items() if key != "weight_bits"})
def search(
    ckpt: given.Checkpoint,
    calibration: Vectors,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.toml", help="Where to write the settings")
    ] = None,
    budget_rom_bits: Annotated[int, typer.Option(metavar="N", help="Bits of all weights together, at most")] = None,
    budget_multipliers: Annotated[
        float,
        typer.Option(
            metavar="N", help="One a factor, half a one where weights are so narrow that two share it; at most"
        ),
    ] = None,
    min_sqnr: Annotated[float, typer.Option(metavar="DB", help="Reach this SQNR with the fewest ROM bits")] = None,
    *,
    file,
    bits,
):
    """Choose the bits of each factor's weights within a budget; writes settings that quantize and generate take."""
    from rtl_gen.engines.pairs import pair_bits

    if output is not None:
        files.check_place(output)
    settings = make_settings(**bits)
    network = _floats(ckpt, file)
    x = read_vectors(calibration)
    with progress("measuring") as step:
        found = mixed.search(
            network,
            x,
            rom_bits=budget_rom_bits,
            multipliers=budget_multipliers,
            min_sqnr=min_sqnr,
            settings=settings,
            pairs=partial(pair_bits, settings.target),
            progress=step,
        )
    console.print(tables.searched(network, found))
    text = found.settings.to_toml()
    if output is None:
        console.print(text, markup=False, highlight=False)
    else:
        files.write(output, text)
        console.print(
            f"wrote {output}; next: bfthw quantize CKPT --settings {output} --calibration {calibration} -o OUT.npz",
            markup=False,
            soft_wrap=True,
        )
