"""Options that several commands share, one by one and in groups, and those of the hardware."""

from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT", help="Checkpoint: .safetensors, .npz, .onnx, or torch's .pt, .pth, .ckpt, .bin, .pth.tar",
        show_default=False,
    ),
]
Order = Annotated[str, typer.Option(metavar="A,B,...", help="Order of the layers, where the file does not tell")]
Key = Annotated[str, typer.Option(metavar="KEY", help="Of the state dict in a file that has several: model_ema ...")]
Format = Annotated[
    str, typer.Option(help="Whose layout: released, torch_butterfly, debut ...", show_default="recognised by its keys")
]
Shapes = Annotated[
    Path, typer.Option(metavar="FILE", help="Sizes of DeBut layers: a line each, out in r s t for each factor")
]
Import = Annotated[
    list[str],
    typer.Option(
        "--import",
        metavar="[LAYER.]KEY=VALUE",
        help="What a foreign file does not say, may be repeated: stride=decreasing, base=2, inputs=N, outputs=N, "
        "relu=hidden or gaps, norm=behind, eps=1e-3",
    ),
]
Limit = Annotated[
    float,
    typer.Option(
        metavar="GIB", min=0.25, max=1024, help="Memory that reading the file may take", show_default="4"
    ),
]
Manifest = Annotated[
    Path, typer.Argument(metavar="DIR/NAME.json", help="Manifest that `generate` wrote", show_default=False)
]


def _number(key, help, default=None):
    """An option that takes one number for all factors; where it gets a list, its error says where that goes."""

    def parse(text):
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError:
            raise typer.BadParameter(f"must be a number, got {text!r}") from None
        if len(numbers) > 1:
            raise typer.BadParameter(
                f"takes one number, for all factors, got {text}; one for each goes into a settings file: "
                f"--settings FILE.toml, in it `{key} = {numbers}`"
            )
        return numbers[0]

    return Annotated[int, typer.Option(parser=parse, metavar="N", help=help, show_default=default or True)]


WeightBits = _number("weight_bits", "Bits of a weight", "8")
ActivationBits = _number("activation_bits", "Bits between stages", "10")
InputBits = Annotated[int, typer.Option(help="Bits of an input value", show_default="8")]
InputFrac = Annotated[int, typer.Option(help="Fraction bits of an input value", show_default="input bits - 1")]
RowExponents = _number("row_exponents", "Fraction bits, at most, that a row of weights has of its own")
Calibration = Annotated[
    Path, typer.Option(metavar="X.npy", help="Inputs (N, n), float, as the network was trained on; formats follow them")
]
AllowConstant = Annotated[
    bool, typer.Option("--allow-constant", help="Take integers whose every output is constant, the float's not")
]
Method = Annotated[
    str, typer.Option("--calibration-method", help="percentile or least-squares", show_default="percentile")
]
Labels = Annotated[
    Path, typer.Option(metavar="Y.npy", help="Classes (N,) of the calibration vectors; accuracy is shown too")
]
SettingsFile = Annotated[
    Path, typer.Option("--settings", metavar="FILE.toml", help="All settings, also for each layer")
]

# of generate
Lanes = _number("lanes", "Elements a beat, outputs a cycle (PE) of every factor", "1")
Simd = _number("simd", "Inputs of a dot product a cycle", "the fewest that slow nothing down")
Engine = Annotated[
    str, typer.Option(help="pipelined, folded (factors take turns) or spatial (adders)", show_default="pipelined")
]
Vectors = Annotated[int, typer.Option(help="Whole vectors side by side in a beat", show_default="1")]
Paired = Annotated[
    bool,
    typer.Option(
        "--paired",
        help="Folded: two products a multiplier; even radices only",
        show_default="one product a multiplier",
    ),
]
Products = Annotated[str, typer.Option(help="dsp or lut: what multipliers are made of", show_default="dsp")]
Target = Annotated[
    str, typer.Option(help="plain, or ecp5, ice40, gowin: with its primitives", show_default="plain")
]
Roms = Annotated[
    str,
    typer.Option(
        help="Weights of a plain core: initial, or case, readmemh, for synthesis that ignores initial contents; of "
        "others tables: small memories in tables where block RAMs run out, or blocks: all numbers can be patched",
        show_default="initial",
    ),
]
CountBeats = Annotated[
    bool,
    typer.Option("--count-beats", help="A frame ends after its beats, TLAST is ignored", show_default="TLAST ends it"),
]
Interval = Annotated[
    int,
    typer.Option(metavar="CYCLES", min=1, help="Choose the cheapest folding so fast: cycles a vector or image at most"),
]
Rate = Annotated[
    float,
    typer.Option("--images-per-second", metavar="N", min=0.001, help="The same, at the clock of --clock or --fit"),
]
Multipliers = Annotated[
    int, typer.Option(metavar="N", min=0, help="Choose the fastest folding with so many, at most")
]
FitBoard = Annotated[
    str, typer.Option("--fit", metavar="BOARD", help="Choose the fastest folding that fits a board, by estimate")
]

Each = Annotated[
    bool,
    typer.Option("--each", help="CKPT is a folder of files, or a file of layers that are no chain: each on its own"),
]

# groups: parameter → option; those of settings have the names that `make_settings` has
FOREIGN = {"key": Key, "order": Order, "format": Format, "shapes": Shapes, "options": Import, "limit": Limit}
FORMATS = {
    "weight_bits": WeightBits,
    "activation_bits": ActivationBits,
    "input_bits": InputBits,
    "input_frac": InputFrac,
    "row_exponents": RowExponents,
    "calibration_method": Method,
    "path": SettingsFile,
}
HARDWARE = {
    "lanes": Lanes,
    "simd": Simd,
    "engine": Engine,
    "vectors": Vectors,
    "paired": Paired,
    "products": Products,
    "target": Target,
    "roms": Roms,
    "count_beats": CountBeats,
}


def takes(**groups):
    """A command with the options of whole groups, each None unless given: as a dict, under the parameter's name."""

    def decorate(command):
        own = [p for p in signature(command).parameters.values() if p.name not in groups]
        more = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for options in groups.values()
            for name, option in options.items()
        ]

        @wraps(command)
        def run(**given):
            found = {name: {key: given.pop(key) for key in options} for name, options in groups.items()}
            return command(**found, **given)

        run.__signature__ = signature(command).replace(parameters=[*own, *more])
        run.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
        return run

    return decorate
