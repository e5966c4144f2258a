"""Run a command so that it cannot tell the difference: streams, signals, terminals, the tree of its processes."""
