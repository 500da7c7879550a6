"""Simulation of the emitted Verilog, driven by the manifest alone."""
