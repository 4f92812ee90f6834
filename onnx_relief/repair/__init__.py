"""Repair: surviving weights and biases change, without labels, to undo what pruning did."""

from onnx_relief.repair.bias import match_moments
from onnx_relief.repair.guard import Guard
from onnx_relief.repair.kinds import KINDS, Repaired, check_repair, judged, not_repaired, repair
from onnx_relief.repair.mender import Mender

__all__ = [
    "KINDS",
    "Guard",
    "Mender",
    "Repaired",
    "check_repair",
    "judged",
    "match_moments",
    "not_repaired",
    "repair",
]
