"""The ports of a core, as the files that instance it need them."""

from typing import NamedTuple

from amaranth.hdl import Shape
from amaranth.lib.wiring import In

from .. import top


class Port(NamedTuple):
    name: str
    is_input: bool
    width: int


def ports(plan):
    """Those of the AxiStream of a Plan, in its order."""
    return [Port(name, member.flow == In, Shape.cast(member.shape).width) for name, member in top.ports(plan).items()]


def declarations(found, kind):
    """A declaration for each port, of a signal of its name; kind(port): its type, such as wire."""
    ranges = [f"[{port.width - 1}:0]" if port.width > 1 else "" for port in found]
    span = max(map(len, ranges))
    return [f"{kind(port)} {of:{span}} {port.name}" for port, of in zip(found, ranges)]


def instance(name, found, label, said=None):
    """Lines of an instance whose ports are joined to signals of their names; said: of some ports, a comment."""
    span, lines = max(len(port.name) for port in found), []
    for port in found:
        line = f"    .{port.name:{span}} ({port.name}){',' * (port is not found[-1])}"
        comment = (said or {}).get(port.name)
        lines.append(f"{line:{2 * span + 9}} // {comment}" if comment else line)
    return [f"{name} {label} (", *lines, ");"]
