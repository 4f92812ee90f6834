"""Compaction: `shrinking` cuts what is dead or unread, `compact` proves that the rest is equal.

How channels are followed through a graph, and cut out of it, is in `onnx_relief.graph.channels`.
"""
