"""Commands on networks: from a file to integers."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options as given
from ..console import console, progress, say
from ..files import check_place
from ..reading import LIMIT
from .each import each


def read(path, part=None, **file):
    """(float Network or None, IntNetwork or None) of a file, its notes printed.

    file: options as the command line has them. part: an `each.Part` of the file, of which that alone is taken.
    """
    import bfthw

    if part is not None:
        loaded = part.read()
        say(loaded.notes)
        return loaded.network, None
    file = as_given(**file)
    if bfthw.checkpoint.is_integers(path, file["limit"]):
        if any(file[name] for name in ("key", "format", "shapes", "options")):
            raise ValueError(
                f"{path}: holds integers already; --key, --format, --shapes and --import are for foreign files"
            )
        return None, bfthw.load_integers(path, file["limit"])
    with progress(f"reading {path.name}"):
        loaded = bfthw.load(path, **file)
    say(loaded.notes)
    return loaded.network, None


def as_given(key=None, order=None, format=None, shapes=None, options=None, limit=None):
    """Options of the command line as `bfthw.load` takes them, by name. options: KEY=VALUE, of --import; limit: GiB."""
    for option in options or ():
        if "=" not in option:
            raise ValueError(f"--import {option}: must be KEY=VALUE, stride=decreasing for example")
    order, options = order.split(",") if order else None, dict(option.split("=", 1) for option in options or ())
    limit = LIMIT if limit is None else int(limit * (1 << 30))
    return {"key": key, "order": order, "format": format, "shapes": shapes, "options": options, "limit": limit}


def to_integers(path, settings, calibration, file, allow_constant=False, *, output):
    """The integer network of a file, quantised here if it is none yet; prints formats and what they cost.

    output: the .npz that they will be written to. ValueError where that would replace the floats, and where every
    output is constant in integers alone, unless allow_constant.
    """
    from .. import quantize, tables
    from ..storage import read_vectors

    network, integers = read(path, **file)
    if integers is not None:
        if settings.chooses_formats or calibration:
            raise ValueError(f"{path}: holds integers already; bits and calibration data go with the float checkpoint")
        console.print(tables.formats(integers))
        return integers
    if output.exists() and output.samefile(path):
        raise ValueError(f"{path}: its floats would be replaced by integers, which are no way back; name another file")
    vectors = read_vectors(calibration) if calibration else None
    # of a network without formats, those of the hardware count as well: paired products want symmetric weights
    chosen = settings if settings.chooses_formats or network.formats is None else None
    with progress("choosing formats"):
        prepared, formats, integers, found = quantize.checked(network, settings=chosen, calibration=vectors)
        reports = [] if vectors is None else quantize.report(prepared, integers, vectors)
    show_origin(formats is network.formats, calibration, vectors)
    console.print(tables.formats(integers, reports))
    show_first_hurt(reports)
    show_check(found, allow_constant)
    return integers


def show_origin(trained, calibration, vectors):
    """Where formats come from: training, or a file of vectors, or None."""
    if trained:
        console.print("formats: those of the checkpoint, which it was trained for")
    elif calibration:
        console.print(f"formats: from {calibration}, {len(vectors)} vectors", markup=False, soft_wrap=True)
    else:
        console.print("formats: chosen so that nothing can overflow; with --calibration X.npy they are usually finer")


def show_check(found, allow_constant):
    """The lines of a Check; ValueError where it refuses."""
    say(found.notes, found.warnings)
    if found.refusal and not allow_constant:
        raise ValueError(found.refusal)


def show_first_hurt(reports):
    """One line that names the stage to look at first, where there are reports."""
    from ..golden import short_stage
    from ..noise import first_hurt

    row, lost = first_hurt(reports)
    if row is not None:
        name = short_stage(row.name)
        if lost is None:
            line = f"first stage that hurts: none by 6 dB; {name} has most noise of its own, mostly by {row.cause}"
        else:
            line = f"first stage that hurts: {name} loses {lost:.1f} dB, mostly by {row.cause}"
        console.print(line, markup=False, soft_wrap=True)


def doctor():
    """List every tool with its version, what is missing and what that disables."""
    from .. import doctor as checks
    from .. import system, tables

    with progress("asking the tools"):
        found = checks.tools()
    console.print(tables.doctor(found))
    absent = system.missing("test")
    if absent:
        console.print(f"from the system, for everything: {system.install(absent)}", markup=False, soft_wrap=True)
    missing = [tool.name for tool in found if tool.required and not tool.found]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    console.print("[green]ok[/] everything that generate and simulate need is here")


@given.takes(file=given.FOREIGN)
@each()
def inspect(
    ckpt: given.Checkpoint = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Instead of a file: mobilenetv1, pointnet ...")] = None,
    width: Annotated[float, typer.Option(help="With --model: of its channels", show_default="1")] = None,
    resolution: Annotated[int, typer.Option(help="With --model: pixels a side, or points", show_default="224")] = None,
    fusion: Annotated[str, typer.Option(help="With --model: dense, bft, monarch ...", show_default="bft")] = None,
    base: Annotated[int, typer.Option(help="With --model: the radix of its butterflies", show_default="4")] = None,
    check: Annotated[
        tuple[Path, Path],
        typer.Option(metavar="X.npy Y.npy", help="Recorded inputs and outputs of the original: is the reading right?"),
    ] = None,
    *,
    file,
):
    """Show the layers of a checkpoint, their patterns and weights, against dense layers of the same sizes.

    With --model: those of a network of the papers, and its cost as the papers count it.

    With --check: whether the reading gives the recorded outputs, else exit status 1 and the options that would.
    """
    from .. import checkpoint, tables
    from . import models

    how = {"width": width, "resolution": resolution, "fusion": fusion, "base": base}
    if check and "part" in file:
        raise ValueError("--check compares one network, --each has several")
    if (ckpt is None) == (model is None) or model is None and any(value is not None for value in how.values()):
        raise ValueError("inspect takes a checkpoint, or --model NAME with --width, --resolution, --fusion, --base")
    if model is not None:
        if check:
            raise ValueError("--check is for checkpoints; a --model has no weights")
        return models.show(model, **how)
    network, integers, failed = None, None, None
    try:
        network, integers = read(ckpt, **file)
    except checkpoint.CheckpointError as error:
        if not check:
            raise
        failed = str(error)
    if check and integers is not None:
        raise ValueError(f"{ckpt}: holds integers; --check and `bfthw report` take the float checkpoint they are from")
    if failed is not None:
        return _checked(ckpt, network, failed, check, **file)  # never returns: it says what reads the file
    layers = tables.float_layers(network) if integers is None else tables.integer_layers(integers)
    kind = "float" if integers is None else "integers"
    console.print(tables.network(f"{ckpt.name}, {kind}; a weight is a multiplication a vector", layers))
    if integers is not None:
        console.print(tables.formats(integers))
    elif network.formats:
        console.print("it was trained for fixed-point formats, which `quantize` and `generate` will use")
    if check:
        console.print(_checked(ckpt, network, None, check, **file), markup=False, soft_wrap=True)


def _checked(path, network, failed, check, **file):
    """What `recorded.check` says of a file's reading, or of one that failed."""
    from .. import checkpoint, recorded

    file = as_given(**file)
    order, options = file.pop("order"), file.pop("options")
    read = checkpoint.File(path, **file)
    with progress("comparing with the recorded outputs"):
        return recorded.check(read, network, failed, *check, order=order, options=options)


@given.takes(file=given.FOREIGN, bits=given.FORMATS)
@each(output=lambda output, name: output / f"{name}.npz")
def quantize(
    ckpt: given.Checkpoint,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.npz", help="Where to write the integers; with --each a folder"),
    ],
    calibration: given.Calibration = None,
    allow_constant: given.AllowConstant = False,
    *,
    file,
    bits,
):
    """Turn float weights into integers and write them as .npz, which `generate` takes as well."""
    import bfthw

    check_place(output)
    integers = to_integers(ckpt, bfthw.make_settings(**bits), calibration, file, allow_constant, output=output)
    bfthw.save_integers(integers, output)
    console.print(f"wrote {output}; next: bfthw generate {output} -o DIR --name NAME", markup=False, soft_wrap=True)
