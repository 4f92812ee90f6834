"""Retraining and the iterative algorithm: what a run needs, does, keeps and goes on from.

The training itself is in `onnx_relief.bridge`; what the user can say of it in `training.py`.
"""
