"""Weights that come closest to what a layer answered before. Knows NumPy only."""
