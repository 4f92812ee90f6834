"""`--sensitivity`: what `analyze` found out, as exchange rates between the layers of a budget."""

from __future__ import annotations

from pathlib import Path

from onnx_relief.analysis import LAYER, Analysis, Points, read_analysis
from onnx_relief.contents import digest_of_model
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.settings import Scope, Settings

_FLAG = "--sensitivity"


def losses_in(path: Path) -> tuple[tuple[str, Points], ...]:
    """Return by layer what it loses at which share that goes.

    Raises:
        SettingsError: The file holds no analysis, or one that did not try layers.
    """
    return tuple(read_analysis(path, _FLAG).losses().items())


def check_sensitivity(path: Path, document: Document, settings: Settings) -> None:
    """Refuse an analysis that says nothing about what is to be done.

    Raises:
        SettingsError: It was made of another model or in another way, or no budget is spread.
    """
    found = read_analysis(path, _FLAG)
    if settings.budget.name is None:
        raise SettingsError(f"{_FLAG} spreads a budget over the layers; give --sparsity or another")
    if settings.scope is Scope.LAYER or settings.has_exact_share:
        raise SettingsError(f"{_FLAG} needs --scope global, where layers keep different shares")
    reason = _unlike(found, document, settings)
    if reason is not None:
        raise SettingsError(f"{_FLAG} {path} was made {reason}; analyze again")


def _unlike(found: Analysis, document: Document, settings: Settings) -> str | None:
    if found.digest != digest_of_model(document):
        return f"of another model, {found.model}"
    if not found.names(LAYER):
        return "without trying layers"
    if found.criterion != settings.criterion:
        return f"with --criterion {found.criterion}"
    if str(settings.structure) not in found.granularity.split(","):
        return f"with --granularity {found.granularity}"
    return None
