"""Training of a converted model: losses, schedules, batches, checkpoints, and the loop itself."""

from onnx_relief.bridge.train.loop import train
from onnx_relief.bridge.train.teacher import (
    ModuleTeacher,
    SessionTeacher,
    Teacher,
    module_teacher,
    open_teacher,
)

__all__ = [
    "ModuleTeacher",
    "SessionTeacher",
    "Teacher",
    "module_teacher",
    "open_teacher",
    "train",
]
