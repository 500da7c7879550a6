"""Hardware: integers in, Amaranth components and Verilog out. Knows nothing of torch, files of others, or boards."""

from .choose import Choice, Impossible, choose, choose_for
from .emit import Design, check_name, load_design, make_spec, to_rtlil, to_verilog, write, write_spec
from .manifest import Manifest, read_manifest
from .netspec import NetworkSpec
from .network import Network
from .resources import estimate
from .spec import StageSpec, fitting_lanes
from .stage import Stage
from .top import AxiStream

__all__ = [
    "AxiStream",
    "Choice",
    "Design",
    "Impossible",
    "Manifest",
    "Network",
    "NetworkSpec",
    "Stage",
    "StageSpec",
    "check_name",
    "choose",
    "choose_for",
    "estimate",
    "fitting_lanes",
    "load_design",
    "make_spec",
    "read_manifest",
    "to_rtlil",
    "to_verilog",
    "write",
    "write_spec",
]
