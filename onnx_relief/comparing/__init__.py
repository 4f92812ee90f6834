"""How good a model is, on labels or beside another model: metrics, distances, speed.

A distance of two arrays is in `gap`; what all samples come to, in `tally`; who runs the models, in
`evaluation` and, on a few samples for many variants of one model, in `divergence`.
"""
