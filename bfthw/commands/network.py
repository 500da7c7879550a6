"""Commands on networks: from a file to integers."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options as given
from ..console import console


def read(path, order=None):
    """(float Network or None, IntNetwork or None) of a file, its notes printed."""
    import bfthw

    if bfthw.checkpoint.is_integers(path):
        return None, bfthw.load_integers(path)
    loaded = bfthw.load(path, order=order.split(",") if order else None)
    for note in loaded.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    return loaded.network, None


def to_integers(path, order, settings, calibration):
    """The integer network of a file, quantised here if it is none yet; prints formats and what they cost."""
    from .. import quantize, tables
    from ..storage import read_vectors

    network, integers = read(path, order)
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


def doctor():
    """List every tool with its version, what is missing and what that disables."""
    from .. import doctor as checks
    from .. import tables

    with console.status("asking the tools ..."):
        found = checks.tools()
    console.print(tables.doctor(found))
    missing = [tool.name for tool in found if tool.required and not tool.found]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    console.print("[green]ok[/] everything that generate and simulate need is here")


def inspect(ckpt: given.Checkpoint, order: given.Order = None):
    """Show the layers of a checkpoint, their patterns and weights, against dense layers of the same sizes."""
    from .. import tables

    network, integers = read(ckpt, order)
    layers = tables.float_layers(network) if integers is None else tables.integer_layers(integers)
    kind = "float" if integers is None else "integers"
    console.print(tables.network(f"{ckpt.name}, {kind}; a weight is a multiplication a vector", layers))
    if integers is not None:
        console.print(tables.formats(integers))
    elif network.formats:
        console.print("it was trained for fixed-point formats, which `quantize` and `generate` will use")


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
    integers = to_integers(ckpt, order, settings, calibration)
    bfthw.save_integers(integers, output)
    console.print(f"wrote {output}", markup=False)
