"""Boards: the link's two ends, bitstreams with open tools, programming. Needs no board to build and to test."""

from bfthw import packages

packages.check()  # before a module of somebody else's is taken for ours

from .host import Board  # noqa: E402

__all__ = ["Board"]
