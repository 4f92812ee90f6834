"""What is handed back to Python: a model, and of `prune` the plan, the report and the scores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_relief.errors import SettingsError
from onnx_relief.files import write_file
from onnx_relief.graph.document import Document
from onnx_relief.graph.save import save
from onnx_relief.plan import PrunePlan
from onnx_relief.report.build import Report
from onnx_relief.scores import Array, write_scores

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Made:
    """A model that was made.

    Attributes:
        document: The model with everything that its file will hold.
    """

    document: Document

    @property
    def model(self) -> onnx.ModelProto | Document:
        """The model; a document if it has data in other files, which only `save` writes."""
        return self.document if self.document.has_external_data else self.document.proto

    def save(self, path: PathLike, *, force: bool = False) -> None:
        """Write the model, completely or not at all.

        Raises:
            OutputError: It cannot be written there, or is there already and `force` is not set.
        """
        save(self.document, path, force=force)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Made):
    """What `prune` made.

    Attributes:
        document: The pruned model with everything that its file will hold.
        plan: What was kept.
        report: What was measured and what to make of it.
        scores: By weight, what each connection was worth to the criterion; empty where a plan was
            replayed. `obs` finds survivors together, so that they are not just the best ones.
    """

    plan: PrunePlan
    report: Report
    scores: Mapping[str, Array]

    def save_plan(self, path: PathLike, *, force: bool = False) -> None:
        """Write the plan as JSON; errors as `save`."""
        data = self.plan.to_json().encode()
        write_file(Path(path), "path", lambda file: file.write(data), force=force)

    def save_report(self, path: PathLike, *, force: bool = False) -> None:
        """Write the report as JSON; errors as `save`."""
        data = self.report.to_json().encode()
        write_file(Path(path), "path", lambda file: file.write(data), force=force)

    def save_scores(self, path: PathLike, *, force: bool = False) -> None:
        """Write the scores as ``.npz``, one array per weight; errors as `save`.

        Raises:
            SettingsError: There are none, because a plan was replayed.
        """
        if not self.scores:
            raise SettingsError("a replayed plan has no scores; prune with data to get them")
        write_file(Path(path), "path", lambda file: write_scores(file, self.scores), force=force)
