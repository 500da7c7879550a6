"""What several commands do first: a file to floats or integers, and what is said of them."""

from .. import checkpoint, quantize
from ..golden import short_stage
from ..noise import first_hurt
from ..reading import LIMIT
from ..storage import read_vectors
from . import tables
from .console import console, progress, say


def read(path, part=None, **file):
    """(float Network or None, IntNetwork or None) of a file, its notes printed.

    file: options as the command line has them. part: an `each.Part` of the file, of which that alone is taken.
    """
    if part is not None:
        loaded = part.read()
        say(loaded.notes)
        return loaded.network, None
    file = as_given(**file)
    if checkpoint.is_integers(path, file["limit"]):
        if any(file[name] for name in ("key", "format", "shapes", "options")):
            raise ValueError(
                f"{path}: holds integers already; --key, --format, --shapes and --import are for foreign files"
            )
        return None, checkpoint.load_integers(path, file["limit"])
    with progress(f"reading {path.name}"):
        loaded = checkpoint.load(path, **file)
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

    output: the .npz that they will be written to. ValueError where that would replace the floats, where every output is
    constant in integers alone, unless allow_constant.
    """
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
    row, lost = first_hurt(reports)
    if row is not None:
        name = short_stage(row.name)
        if lost is None:
            line = f"first stage that hurts: none by 6 dB; {name} has most noise of its own, mostly by {row.cause}"
        else:
            line = f"first stage that hurts: {name} loses {lost:.1f} dB, mostly by {row.cause}"
        console.print(line, markup=False, soft_wrap=True)
