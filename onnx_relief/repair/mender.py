"""Repair masked models on the way, where the settings ask for it, and remember what came of it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from onnx_relief.data import Dataset
from onnx_relief.data.held_out import held_out
from onnx_relief.graph.document import Document
from onnx_relief.plan import PrunePlan
from onnx_relief.repair.kinds import repair
from onnx_relief.results import Progress, RepairRow
from onnx_relief.settings import Settings


class Mender:
    """Repairs what a plan made of a dense model; several times where a target is searched for."""

    def __init__(
        self,
        dense: Document,
        data: Dataset | None,
        settings: Settings,
        progress: Progress | None = None,
    ) -> None:
        self._dense, self._data, self._settings = dense, data, settings
        self._progress = progress
        # Of models that were only tried, nothing is kept: they may be large.
        self._done: WeakKeyDictionary[Document, RepairRow] = WeakKeyDictionary()

    def finish(self, masked: Document, plan: PrunePlan) -> Document:
        """Return the masked model repaired, or as it is where there is nothing to do.

        Raises:
            ReliefError: As `repair`.
        """
        settings, data = self._settings, self._data
        if plan.drops_nothing or settings.repair == "none" or data is None:
            return masked
        repaired = repair(
            settings.repair,
            masked,
            self._dense,
            {},
            held_out(data, settings.samples),
            batch_size=settings.batch_size,
            provider=settings.provider,
            memory=settings.memory,
            training=settings.reconstruction,
            seed=settings.seed,
            progress=self._progress,
        )
        self._done[repaired.document] = repaired.row
        return repaired.document

    def told(self, document: Document) -> RepairRow | None:
        """Return how the repair that gave this document turned out; None where there was none."""
        return self._done.get(document)
