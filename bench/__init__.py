"""The benchmark: our designs beside rivals, with the same tools, device and seeds. `make bench` runs it."""
