"""A network's layers one after the other, tile by tile, out of a large memory with a single port."""

from .engine import Tiled

__all__ = ["Tiled"]
