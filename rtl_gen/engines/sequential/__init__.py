"""A network's layers one after the other on one datapath, from a program in ROM, all maps in one memory."""

from .engine import MOST_LANES, Sequential, worth_a_thought

__all__ = ["MOST_LANES", "Sequential", "worth_a_thought"]
