"""Hardware: integers in, Amaranth components and Verilog out. Knows nothing of torch, files of others, or boards."""

from .emit import Design, check_name, load_design, make_spec, to_rtlil, to_verilog, write, write_spec
from .manifest import Manifest, read_manifest
from .network import Network, NetworkSpec
from .spec import StageSpec, fitting_lanes
from .stage import Stage
from .top import AxiStream

__all__ = [
    "AxiStream",
    "Design",
    "Manifest",
    "Network",
    "NetworkSpec",
    "Stage",
    "StageSpec",
    "check_name",
    "fitting_lanes",
    "load_design",
    "make_spec",
    "read_manifest",
    "to_rtlil",
    "to_verilog",
    "write",
    "write_spec",
]
