"""The comment at the top of a core's Verilog: what a stranger needs to put it into a design."""

import re
import textwrap

import bfthw
from bfthw.golden import IntNode, short_stage

from .top import lane_bytes

WIDTH = 116  # of a line, without its slashes
INDENT = " " * 15  # of what is said of a port or figure
LICENCE = (
    "This file was made by a program and belongs to whoever ran it. The authors of bfthw set no conditions on it, not "
    "even that they be named, and claim nothing in it, their own text in it included; nor is there any warranty. Where "
    "a licence is to be named: 0BSD."
)
ROMS = {
    "initial": "weights are in memories that initial blocks fill; for synthesis that ignores those: --roms case",
    "case": "weights are in case statements, not in the initial contents of memories",
    "readmemh": "weights are in .mem files beside this one, read by name from the folder where synthesis runs",
}


def header(plan, name):
    """Comment lines for the Verilog of a Plan: equal for equal plans, without dates and paths."""
    q, e = plan.network, plan.vectors
    sides = [("s_axis", "in", q.inputs, q.input, plan.lanes_in), ("m_axis", "out", q.outputs, q.output, plan.lanes_out)]
    lines = [
        f"{name}: a butterfly network with AXI4-Stream ports, made by bfthw {bfthw.__version__}",
        "SPDX-License-Identifier: 0BSD",
        "",
        *textwrap.wrap(LICENCE, WIDTH),
        "",
        "Stages, with patterns (a, b, c, d):",
        *_stages(plan),
        "",
        *_item("target", _target(plan, name)),
        *_item("latency", f"{plan.latency} cycles from the first beat in to the first beat out, empty and unstalled"),
        *_item("interval", f"{plan.interval} cycles a frame" + (f" of {e} vectors" if e > 1 else "")),
        "",
        *_item("aclk, aresetn", "clock, its rising edge; synchronous reset, active low"),
    ]
    for prefix, way, elements, form, lanes in sides:
        each = f"{lanes} element{'s' * (lanes > 1)}" + (f" of each of {e} vectors" if e > 1 else "")
        size = lane_bytes(form.width)
        text = (
            f"vectors {way}: {elements} elements in {elements // lanes} beats, {code(form)}, {form}; "
            f"a beat: {each}, the lowest index in the low bits, {size} byte{'s' * (size > 1)} an element, "
        )
        extended = "sign-extended" if form.signed else "zeros above"
        lines += _item(f"{prefix}_*", text + ("upper bits ignored" if way == "in" else extended))
    lines += [*_frames(plan), *_item("saturated", "values that some stage clipped, some cycles ago; may stay open")]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def code(form):
    """How the bits of a number stand for it."""
    return "two's complement" if form.signed else "without a sign"


def _item(name, text):
    """Lines of a port or a figure, and what is said of it."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:<{len(INDENT)}}", subsequent_indent=INDENT)


def _stages(plan):
    """A line for each factor: its numbers, the engine and that one's place."""
    for n, (engine, (start, stop)) in enumerate(zip(plan.engines, plan.spans)):
        chosen = [f"{option} {value}" for option, value in engine.chosen.items() if option != "engine"]
        for m in range(start, stop):
            stage, f = plan.stages[m], plan.stages[m].work
            if isinstance(f, IntNode):
                said = [*f.parts, f"out {f.output}", engine.kind, *chosen]
                yield from _stage_lines(plan, n, stage, said)
                continue
            more = ["residual"] * bool(f.skip_input) + ["bias"] * (f.bias is not None)
            more += ["ReLU" if f.top is None else f"ReLU to {f.top}"] * f.relu
            more += [f"table of {f.table.input}"] if f.table else []
            more += [f"window {stage.window}"] if stage.window else []
            parts = [str(f.pattern), f"weights {f.weights}", f"out {f.output}", *more, engine.kind, *chosen]
            yield from _stage_lines(plan, n, stage, parts)


def _stage_lines(plan, n, stage, parts):
    text = f"{_harmless(stage.name)}: {', '.join(parts)}"
    text += f", on {stage.shape}" * (stage.shape.positions > 1)
    first = f"  network{'.' if plan.target == 'plain' else '_'}stage_{n}  "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _harmless(name):
    """A stage's name, which may be a stranger's, without the words that tools read in comments."""
    return re.sub(r"(?i)verilator|import", "_", short_stage(name))[-60:]


def _target(plan, name):
    if plan.target == "plain":
        return f"plain: nothing but Verilog-2005, for any synthesis; {ROMS[plan.roms]}"
    return f"{plan.target}: primitives of that family are instanced; simulation needs their models, {name}_models.v"


def _frames(plan):
    if plan.count_beats:
        text = "beats are counted: s_axis_tlast is ignored; TUSER, frame_error and frame_errors stay 0"
        return _item("frames", text)
    text = (
        "TLAST ends a vector; where it comes early the rest is zeros, where it is late the surplus is dropped; what "
        "comes out has the right length, and TUSER on its last beat"
    )
    return [
        *_item("frames", text),
        *_item("frame_error", "such a frame came, since the last reset"),
        *_item("frame_errors", "how many, 65535 at most"),
    ]
