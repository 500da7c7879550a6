"""A network's layers one after the other on one datapath, from a program in ROM, all maps in one memory."""

from .engine import Sequential

__all__ = ["Sequential"]
