"""NAME.vlt: what `verilator -Wall` says of a core and why it is let through, for the core's files alone."""

from pathlib import Path

WAIVERS = Path(__file__).with_name("waivers.vlt")  # for cores of any name
PRIMITIVES = """
// A core leaves pins of primitives open that it does not use.
lint_off -rule PINMISSING -file "*@.v"
// So do models that are made of others.
lint_off -rule PINMISSING -file "*@_models.v"
// The models beside the core share one file too.
lint_off -rule DECLFILENAME -file "*@_models.v"
// They have all ports of the cells, those of modes too that they do not model.
lint_off -rule UNUSEDSIGNAL -file "*@_models.v"
// Adders and flags of a cell meet at the width of the result.
lint_off -rule WIDTHEXPAND -file "*@_models.v"
// Bits of a word are chosen by numbers of 32 bits.
lint_off -rule WIDTHTRUNC -file "*@_models.v"
"""


def waivers(name, primitives):
    """Text of NAME.vlt; primitives: whether the core instances some, whose models are in NAME_models.v."""
    models = f" {name}_models.v" * primitives
    text = WAIVERS.read_text(encoding="utf-8").replace('-file "*"', f'-file "*{name}.v"')
    head = f"// $ verilator -Wall --lint-only --top-module {name} {name}.vlt {name}.v{models}"
    return text.replace("\n", f"\n{head}\n", 1) + PRIMITIVES.replace("@", name) * primitives
