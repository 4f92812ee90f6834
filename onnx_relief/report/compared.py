"""What `compare` found: a value, and the same as tables for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import evaluation_table, sentences, totals_table
from onnx_relief.results import Evaluation, Latency, ModelCost


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        first: Size and work of the first model.
        second: The same of the second.
        evaluation: How far their outputs lie apart; None without data.
        latency: How long each takes; None without data.
    """

    first: ModelCost
    second: ModelCost
    evaluation: Evaluation | None
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = as_plain(self)
        for name, cost in (("first", self.first), ("second", self.second)):
            plain[name] |= {"macs": cost.macs, "effective_macs": cost.effective_macs}
        return {"format": "onnx-relief comparison 1", **plain}

    def to_json(self) -> str:
        """Return it as JSON text."""
        return to_json(self.to_dict())


def comparison_table(found: Comparison) -> list[RenderableType]:
    """Return sizes, work and time side by side, then how far the outputs lie apart."""
    names = ("A", "B")
    parts: list[RenderableType] = [
        totals_table(found.first, found.second, found.latency, names=names)
    ]
    if found.evaluation is not None:
        parts += [evaluation_table(found.evaluation), *sentences(found.evaluation.notes)]
    return parts
