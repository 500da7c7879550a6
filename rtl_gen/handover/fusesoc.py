"""NAME.core: the core for FuseSoC (CAPI2); what it offers stands in fusesoc.core."""

from pathlib import Path

from .fill import fill

TEMPLATE = Path(__file__).with_name("fusesoc.core")


def core(name, primitives, memories=()):
    """Text of NAME.core; primitives: whether models stand beside it; memories: files that the Verilog reads."""
    read = "".join(f"\n      - {file}: {{file_type: user, copyto: {file}}}" for file in memories)
    models = f"  models:\n    files: [{name}_models.v]\n    file_type: verilogSource-2005\n" * primitives
    return fill(TEMPLATE, NAME=name, MEMORIES=read, MODELS=models, AND=", models" * primitives)
