"""Commands on networks: from a file to integers."""

from pathlib import Path
from typing import Annotated

import typer

from ... import checkpoint, make_settings, save_integers, save_onnx, system
from ...files import check_place
from .. import doctor as checks
from .. import options as given
from .. import recorded, tables
from ..console import console, progress
from ..each import each
from ..networks import as_given, read, to_integers
from . import models


def doctor():
    """List every tool with its version, what is missing and what that disables."""
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
    title = f"{ckpt.name}, {'float' if integers is None else 'integers'}"
    if (found := network or integers).beyond_row is not None:
        console.print(tables.graph(f"{title}; products: multiplications for one input", found))
    else:
        layers = tables.float_layers(found) if integers is None else tables.integer_layers(found)
        console.print(tables.network(f"{title}; a weight is a multiplication a vector", layers))
    if integers is not None:
        console.print(tables.formats(integers))
    elif network.formats:
        console.print("it was trained for fixed-point formats, which `quantize` and `generate` will use")
    if check:
        console.print(_checked(ckpt, network, None, check, **file), markup=False, soft_wrap=True)


def _checked(path, network, failed, check, **file):
    """What `recorded.check` says of a file's reading, or of one that failed."""
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
        typer.Option(
            "-o", "--output", metavar="OUT.npz", help="Where to write the integers, .npz or .onnx; with --each a folder"
        ),
    ],
    calibration: given.Calibration = None,
    allow_constant: given.AllowConstant = False,
    qonnx: Annotated[bool, typer.Option("--qonnx", help="With -o OUT.onnx: as QONNX, for FINN and hls4ml")] = False,
    *,
    file,
    bits,
):
    """Turn float weights into integers and write them as .npz, which `generate` takes as well.

    With -o OUT.onnx: as operators of ONNX on integers, which onnxruntime computes to the same numbers; with --qonnx as
    floats between Quant nodes, exact too.
    """
    check_place(output)
    if qonnx and output.suffix != ".onnx":
        raise ValueError(f"--qonnx goes with -o OUT.onnx, not {output.name}")
    integers = to_integers(ckpt, make_settings(**bits), calibration, file, allow_constant, output=output)
    if output.suffix == ".onnx":
        save_onnx(integers, output, qonnx)
        what = "floats that are the integers" if qonnx else "integers to integers"
        return console.print(f"wrote {output}, {what}", markup=False, soft_wrap=True)
    save_integers(integers, output)
    console.print(
        f"wrote {output}; next: bfthw generate {output} -o DIR --name NAME", markup=False, soft_wrap=True
    )
