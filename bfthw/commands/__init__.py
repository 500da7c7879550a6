"""The commands, one function each: read, call, print. They alone reach for the packages above, and only when called."""
