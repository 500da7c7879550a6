"""Engines, each a file: whatever serves factors, from its specification to its component."""

from .engine import ENGINES, Engine, engine_class
from .folded import Folded
from .pipelined import Pipelined, fitting_lanes
from .spatial import Spatial

__all__ = ["ENGINES", "Engine", "Folded", "Pipelined", "Spatial", "engine_class", "fitting_lanes"]
