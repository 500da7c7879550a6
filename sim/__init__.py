"""Simulation of the emitted Verilog, driven by the manifest alone."""

from .simulate import Result, simulate

__all__ = ["Result", "simulate"]
