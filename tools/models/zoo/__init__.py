"""Small PyTorch definitions of well-known topologies, with random weights, for coverage."""
