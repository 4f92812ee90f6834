"""Prune any ONNX model with sample data, and say honestly what it cost.

>>> import onnx_relief as relief
>>> [name for name in relief.__all__ if name.islower() and name.isalpha()]
['compare', 'evaluate', 'inspect', 'prune']

The names below are loaded when they are first used: importing the package itself loads neither
ONNX nor a runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_relief.api import compare, evaluate, prune
    from onnx_relief.data import Preprocess
    from onnx_relief.errors import (
        DataError,
        ModelError,
        OutputError,
        ReliefError,
        SettingsError,
        UnsupportedError,
    )
    from onnx_relief.inspection import inspect
    from onnx_relief.plan import PrunePlan
    from onnx_relief.report.build import Report
    from onnx_relief.report.compared import Comparison
    from onnx_relief.report.inspected import Inspection
    from onnx_relief.result import Result
    from onnx_relief.results import Evaluation

    __version__: str

_HOMES = {
    "Comparison": "report.compared",
    "DataError": "errors",
    "Evaluation": "results",
    "Inspection": "report.inspected",
    "ModelError": "errors",
    "OutputError": "errors",
    "Preprocess": "data",
    "PrunePlan": "plan",
    "ReliefError": "errors",
    "Report": "report.build",
    "Result": "result",
    "SettingsError": "errors",
    "UnsupportedError": "errors",
    "compare": "api",
    "evaluate": "api",
    "inspect": "inspection",
    "prune": "api",
}

__all__ = [
    "Comparison",
    "DataError",
    "Evaluation",
    "Inspection",
    "ModelError",
    "OutputError",
    "Preprocess",
    "PrunePlan",
    "ReliefError",
    "Report",
    "Result",
    "SettingsError",
    "UnsupportedError",
    "__version__",
    "compare",
    "evaluate",
    "inspect",
    "prune",
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
