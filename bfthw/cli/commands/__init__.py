"""The commands, one function each: read, call, print. The packages above are imported when one is called, no sooner."""
