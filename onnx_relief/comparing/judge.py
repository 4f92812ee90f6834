"""One number for how good a model is: on labels, or beside the dense model, but always alike."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_relief.comparing.evaluation import compare_models, evaluate_model
from onnx_relief.comparing.metrics import METRICS
from onnx_relief.data import Dataset
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document
from onnx_relief.progress import ticker
from onnx_relief.results import Progress, Score


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """How models are judged during a run.

    Attributes:
        data: What they are judged on.
        dense: What they are compared with where the metric wants that; None without.
        metric: Name in `METRICS`; None for the one that `compare_models` takes.
        output: The output that the metric looks at; None for the first that suits it.
        batch_size: Samples per run.
        provider: Execution provider of ONNX Runtime.
    """

    data: Dataset
    dense: Document | None
    metric: str | None = None
    output: str | None = None
    batch_size: int = 16
    provider: str = "auto"

    def score(self, model: Document, *, progress: Progress | None = None, stage: str = "") -> Score:
        """Return how good `model` is.

        Raises:
            SettingsError, DataError, ModelError: As `compare_models`.
        """
        tick = ticker(progress, stage or "judging the model", self.data.size)
        labelled = self.data.has_labels and self.metric in (None, *_LABELLED)
        if labelled:
            return evaluate_model(
                model,
                self.data,
                metric=self.metric,
                output=self.output,
                batch_size=self.batch_size,
                provider=self.provider,
                like=self.dense,
                tick=tick,
            )
        if self.dense is None:
            raise SettingsError(
                f"without labels a model is judged by how close it is to the dense one, which is "
                f"not known of {model.name}; give it with --teacher DENSE.onnx"
            )
        found = compare_models(
            self.dense,
            model,
            self.data,
            metric=self.metric,
            output=self.output,
            batch_size=self.batch_size,
            provider=self.provider,
            tick=tick,
        )
        if found.pruned is None:
            raise SettingsError(
                f"metric {found.metric} gives no number for {model.name}; choose another --metric"
            )
        return Score(
            metric=found.metric,
            unit=found.unit,
            output=found.output,
            value=found.pruned,
            samples=found.samples,
            data=found.data,
            notes=found.notes,
        )


_LABELLED = tuple(name for name, metric in METRICS.items() if metric.hits is not None)


def better(metric: str, value: float, than: float) -> bool:
    """Return whether a score beats another: the error should be small, all else large."""
    return value < than if metric == "error" else value > than


def points_lost(metric: str, unit: str, value: float, start: float) -> float:
    """Return how many points were lost since `start`, positive where it became worse.

    A percentage point is one; of a cosine or an error it is a hundredth.
    """
    lost = value - start if metric == "error" else start - value
    return lost if unit == "%" else 100 * lost
