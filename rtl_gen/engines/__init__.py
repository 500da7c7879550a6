"""Engines, each a file: whatever serves factors, from its specification to its component."""

from .engine import ENGINES, Engine, engine_class
from .folded import Folded
from .gating import Gating
from .pipelined import Pipelined, fitting_lanes
from .product import Turned
from .reduction import Reduction
from .sequential import Sequential
from .spatial import Spatial
from .tiled import Tiled
from .windowed import Convolution, Maximum

__all__ = [
    "ENGINES", "Convolution", "Engine", "Folded", "Gating", "Maximum", "Pipelined", "Reduction", "Sequential",
    "Spatial", "Tiled", "Turned", "engine_class", "fitting_lanes",
]
