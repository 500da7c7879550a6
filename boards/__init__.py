"""Boards: the link's two ends, bitstreams with open tools, programming. Needs no board to build and to test."""

from bfthw import packages

from .host import Board

packages.check()

__all__ = ["Board"]
