"""Hardware: integers in, Amaranth components and Verilog out. Knows nothing of torch, files of others, or boards."""
