"""A core in LiteX: a module with two stream endpoints, and a design in which it has a clock of its own.

    python examples/litex_core.py build/fast/fast.json -o build/litex
"""

import argparse
from pathlib import Path

from litex.gen import LiteXModule
from litex.gen.fhdl import verilog
from litex.soc.interconnect import stream
from migen import ClockDomain, ClockSignal, Instance, ResetSignal, Signal

import rtl_gen

DEPTH = 16  # words of a FIFO between clocks: what it takes to pass one a cycle, and some


class Core(LiteXModule):
    """A generated core between `sink` and `source`, in a clock domain.

    manifest: path of its NAME.json, beside which lies NAME.v. `sink.last` ends a frame; `source.wrong` is TUSER, true
    on the last beat of a frame whose input had the wrong length; `wrong_frames` counts those since the reset.
    """

    def __init__(self, manifest, platform=None, domain="sys"):
        m = rtl_gen.read_manifest(manifest)
        bits_in, bits_out = (8 * m.vectors * port.lanes * port.lane_bytes for port in (m.input, m.output))
        self.sink = sink = stream.Endpoint([("data", bits_in)])
        self.source = source = stream.Endpoint([("data", bits_out), ("wrong", 1)])
        self.wrong_frames = Signal(16)
        self.specials += Instance(
            m.name,
            i_aclk=ClockSignal(domain),
            i_aresetn=~ResetSignal(domain),
            i_s_axis_tdata=sink.data,
            i_s_axis_tlast=sink.last,
            i_s_axis_tvalid=sink.valid,
            o_s_axis_tready=sink.ready,
            o_m_axis_tdata=source.data,
            o_m_axis_tlast=source.last,
            o_m_axis_tuser=source.wrong,
            o_m_axis_tvalid=source.valid,
            i_m_axis_tready=source.ready,
            o_frame_errors=self.wrong_frames,
        )
        if platform is not None:
            platform.add_source(str(Path(manifest).with_name(m.files.verilog.name)))


class OwnClock(LiteXModule):
    """A Core in the domain "core", between endpoints in "sys", with an asynchronous FIFO on either side.

    Both domains must be reset together: a FIFO of which one side alone is reset gives words it never got.
    """

    def __init__(self, manifest, platform=None):
        self.cd_core = ClockDomain()
        self.core = core = Core(manifest, platform, domain="core")
        self.entry = entry = stream.ClockDomainCrossing(core.sink.description, "sys", "core", depth=DEPTH)
        self.exit = leave = stream.ClockDomainCrossing(core.source.description, "core", "sys", depth=DEPTH)
        self.comb += [entry.source.connect(core.sink), core.source.connect(leave.sink)]
        self.sink, self.source = entry.sink, leave.source


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="NAME.json of a generated core")
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="where NAME_litex.v goes")
    given = parser.parse_args()
    design, name = OwnClock(given.manifest), f"{given.manifest.stem}_litex"
    design.cd_sys = ClockDomain()  # in a SoC it is there already
    ports = {signal for side in (design.sink, design.source) for signal in side.flatten()}
    ports |= {signal for domain in (design.cd_sys, design.cd_core) for signal in (domain.clk, domain.rst)}
    given.folder.mkdir(parents=True, exist_ok=True)
    verilog.convert(design, ios=ports, name=name).write(str(given.folder / f"{name}.v"))


if __name__ == "__main__":
    main()
