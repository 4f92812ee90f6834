"""Whether what training needs is installed; knows its names alone, and loads none of it."""

from __future__ import annotations

import importlib.util

from onnx_relief.errors import SettingsError


def require_extra() -> None:
    """Say how to install what training needs, if it is not there.

    Raises:
        SettingsError: PyTorch, onnx2fx or Lightning is missing.
    """
    missing = [name for name in ("torch", "onnx2fx", "lightning") if not _is_there(name)]
    if missing:
        raise SettingsError(
            f"retraining needs {', '.join(missing)}: pip install 'onnx-relief[retrain]'"
        )


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
