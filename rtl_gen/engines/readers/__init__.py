"""Readers of pipelined engines, each a file; the first of READERS that takes a factor serves it."""

from . import banked, direct, indexed, inplace  # noqa: F401  they join READERS
from .reader import READERS, Reader

__all__ = ["READERS", "Reader"]
