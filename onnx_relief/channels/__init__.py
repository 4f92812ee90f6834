"""Pruning whole channels: which go, how many, and what makes up for them.

How channels are followed through a graph, and cut out of it, is in `onnx_relief.graph.channels`.
"""
