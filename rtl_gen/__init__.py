"""Hardware: integers in, Amaranth components and Verilog out. Knows nothing of torch, files of others, or boards."""

from .choose import Choice, Impossible, choose, choose_for
from .emit import Design, check_name, load_design, make_plan, to_rtlil, to_verilog, write, write_plan
from .engines import ENGINES, Engine, Folded, Pipelined, Spatial, fitting_lanes
from .manifest import Manifest, read_manifest
from .pipeline import Network
from .plan import Plan
from .top import AxiStream, estimate

__all__ = [
    "ENGINES", "AxiStream", "Choice", "Design", "Engine", "Folded", "Impossible", "Manifest", "Network", "Pipelined",
    "Plan", "Spatial", "check_name", "choose", "choose_for", "estimate", "fitting_lanes", "load_design", "make_plan",
    "read_manifest", "to_rtlil", "to_verilog", "write", "write_plan",
]
