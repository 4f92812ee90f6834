"""Repair: surviving weights and biases change, without labels, to undo what pruning did."""

from onnx_relief.repair.bias import match_moments
from onnx_relief.repair.guard import Judge
from onnx_relief.repair.kinds import KINDS, Repaired, repair
from onnx_relief.repair.mender import Mender

__all__ = [
    "KINDS",
    "Judge",
    "Mender",
    "Repaired",
    "match_moments",
    "repair",
]
