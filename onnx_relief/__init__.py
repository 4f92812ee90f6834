"""Prune any ONNX model with sample data, and say honestly what it cost.

>>> import onnx_relief as relief
>>> [name for name in relief.__all__ if name.islower() and name.isalpha()]
['analyze', 'compact', 'compare', 'evaluate', 'inspect', 'iterate', 'prune', 'retrain']

The names below are loaded when they are first used: importing the package itself loads neither
ONNX nor a runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_relief.analysis import Analysis, TrialRow
    from onnx_relief.api.analyze import analyze
    from onnx_relief.api.compact import compact, prune_channels
    from onnx_relief.api.compare import compare, evaluate
    from onnx_relief.api.iterate import iterate
    from onnx_relief.api.prune import prune
    from onnx_relief.api.retrain import RetrainResult, from_torch, retrain, to_torch
    from onnx_relief.channels.pruning import ChannelsPruned
    from onnx_relief.compaction.compact import Compacted
    from onnx_relief.data import Preprocess
    from onnx_relief.errors import (
        DataError,
        ModelError,
        OutputError,
        ReliefError,
        SettingsError,
        TargetError,
        UnsupportedError,
    )
    from onnx_relief.history import IterationRow
    from onnx_relief.inspection import inspect
    from onnx_relief.plan import PrunePlan
    from onnx_relief.report.build import Report
    from onnx_relief.report.compared import Comparison
    from onnx_relief.report.inspected import Inspection
    from onnx_relief.result import Result
    from onnx_relief.results import Evaluation
    from onnx_relief.retraining.iteration import Iterated
    from onnx_relief.training import EpochRow, TrainSettings

    __version__: str

_HOMES = {
    "Analysis": "analysis",
    "ChannelsPruned": "channels.pruning",
    "Compacted": "compaction.compact",
    "Comparison": "report.compared",
    "DataError": "errors",
    "EpochRow": "training",
    "Evaluation": "results",
    "Inspection": "report.inspected",
    "Iterated": "retraining.iteration",
    "IterationRow": "history",
    "ModelError": "errors",
    "OutputError": "errors",
    "Preprocess": "data",
    "PrunePlan": "plan",
    "ReliefError": "errors",
    "Report": "report.build",
    "Result": "result",
    "RetrainResult": "api.retrain",
    "SettingsError": "errors",
    "TargetError": "errors",
    "TrainSettings": "training",
    "TrialRow": "analysis",
    "UnsupportedError": "errors",
    "analyze": "api.analyze",
    "compact": "api.compact",
    "compare": "api.compare",
    "evaluate": "api.compare",
    "from_torch": "api.retrain",
    "inspect": "inspection",
    "iterate": "api.iterate",
    "prune": "api.prune",
    "prune_channels": "api.compact",
    "retrain": "api.retrain",
    "to_torch": "api.retrain",
}

__all__ = [
    "Analysis",
    "ChannelsPruned",
    "Compacted",
    "Comparison",
    "DataError",
    "EpochRow",
    "Evaluation",
    "Inspection",
    "Iterated",
    "IterationRow",
    "ModelError",
    "OutputError",
    "Preprocess",
    "PrunePlan",
    "ReliefError",
    "Report",
    "Result",
    "RetrainResult",
    "SettingsError",
    "TargetError",
    "TrainSettings",
    "TrialRow",
    "UnsupportedError",
    "__version__",
    "analyze",
    "compact",
    "compare",
    "evaluate",
    "from_torch",
    "inspect",
    "iterate",
    "prune",
    "prune_channels",
    "retrain",
    "to_torch",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name == "__version__":
        return _version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("onnx-relief")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
