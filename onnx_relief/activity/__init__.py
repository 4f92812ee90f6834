"""Statistics of layer inputs: start, add, merge, finish. Knows NumPy only."""
