"""NAME_inst.v: an instance of the core to copy, with widths and formats as comments."""

from ..header import code
from ..top import lane_bytes
from .ports import declarations, instance, ports


def template(plan, name):
    found, q, e = ports(plan), plan.network, plan.vectors
    together = f"{e} vectors side by side: element i of vector v is number i * {e} + v" if e > 1 else "a vector"
    said = {
        "aclk": "rising edge",
        "aresetn": "synchronous, active low",
        "s_axis_tdata": _data(q.input, plan.lanes_in * e),
        "s_axis_tlast": "ignored: beats are counted" if plan.count_beats else "with the last beat of a frame",
        "m_axis_tdata": _data(q.output, plan.lanes_out * e),
        "m_axis_tlast": "with the last beat of a frame",
        "m_axis_tuser": "with it: the frame that went in had a wrong length",
        "frame_error": "there was such a frame since the reset",
        "frame_errors": "how many, 65535 at most",
        "saturated": "values that were clipped, counted in each cycle; may stay open",
        "flash_select": "of a SPI flash: CS, low while it is asked",
        "flash_clock": "CLK, half of aclk",
        "flash_out": "DI",
        "flash_in": "DO",
    }
    return "\n".join(
        [
            f"// An instance of {name} to copy into a design. Into it go frames of {plan.beats_in} beats "
            f"({q.inputs * e} elements),",
            f"// out of it come frames of {plan.beats_out} beats ({q.outputs * e} elements), each {together}.",
            f"// Latency {plan.latency} cycles, interval {plan.interval} cycles a frame.",
            "",
            *(f"{line};" for line in declarations(found, lambda port: "wire")),
            "",
            *instance(name, found, f"{name}_0", said),
            "",
        ]
    )


def _data(q, elements):
    size = lane_bytes(q.width)
    kind = f"{code(q)} of" if q.signed else f"{code(q)},"
    each = f"{kind} {q.width} bits in {size} byte{'s' * (size > 1)}, times 2^{-q.frac}"
    return each if elements == 1 else f"{elements} elements, the first in the low bits: {each}"
