"""`retrain`, `to_torch` and `from_torch` for Python; each needs the extra `[retrain]`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from onnx_relief.bridge.extra import require_extra
from onnx_relief.data import Preprocess
from onnx_relief.errors import SettingsError
from onnx_relief.graph.document import Document, load
from onnx_relief.graph.layers import find_layers
from onnx_relief.graph.mask import nonzero_elements
from onnx_relief.graph.save import save
from onnx_relief.inspection import Model
from onnx_relief.job import read_plan
from onnx_relief.plan import PrunePlan
from onnx_relief.report.retrained import RetrainReport
from onnx_relief.results import Progress
from onnx_relief.retraining.job import account, judge_start, mask_by_plan, run
from onnx_relief.retraining.opening import TrainingSources, open_training
from onnx_relief.training import OnEpoch, train_settings

if TYPE_CHECKING:
    from onnx_relief.bridge.module import OnnxModule

Plan = PrunePlan | str | os.PathLike[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrainResult:
    """What `retrain` made.

    Attributes:
        document: The retrained model with everything that its file will hold.
        report: Scores before and after, and every epoch.
    """

    document: Document
    report: RetrainReport

    @property
    def model(self) -> onnx.ModelProto | Document:
        """The model; a document if it has data in other files, which only `save` writes."""
        return self.document if self.document.has_external_data else self.document.proto

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model, completely or not at all.

        Raises:
            OutputError: It cannot be written there, or is there already and `force` is not set.
        """
        save(self.document, path, force=force)


def retrain(
    model: Model,
    data: object,
    *,
    teacher: Model | None = None,
    distill: float | None = None,
    plan: Plan | None = None,
    eval_data: object | None = None,
    samples: int | None = None,
    metric: str | None = None,
    output: str | None = None,
    freeze: Sequence[str] = (),
    provider: str = "auto",
    preprocess: Preprocess | None = None,
    strict: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    **training: Any,  # noqa: ANN401 - the fields of TrainSettings
) -> RetrainResult:
    """Train the weights that pruning left; what is zero stays exactly zero.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        data: Training data of any form that `prune` takes, with or without labels.
        teacher: A model whose outputs to follow; without labels by default the dense model that
            `prune` noted.
        distill: Share of the teacher in the loss beside labels, 0 to 1.
        plan: What `prune` kept; by default the zeros of the model are held.
        eval_data: What the model is judged on; by default the part that is split off `data`.
        samples: At most so many samples of `data`, evenly spread; None for all.
        metric: As `prune` takes it.
        output: The output that labels and metric belong to.
        freeze: Patterns of weights that stay as they are.
        provider: Execution provider of ONNX Runtime, for the teacher and the checks.
        preprocess: How samples become what the model takes.
        strict: Whether a broken picture is an error.
        folder: Where checkpoints are kept; started again, training goes on from them. None keeps
            none.
        progress: Called with (stage, done, total or None).
        on_epoch: Called with an `EpochRow` after each epoch.
        training: Fields of `TrainSettings`: epochs, batch_size, lr, optimizer, schedule, ...

    Raises:
        ReliefError: One sentence that says what, where, and what to do.
    """
    require_extra()
    job = open_training(
        load(model),
        TrainingSources(
            data=data,
            eval_data=eval_data,
            samples=samples,
            preprocess=preprocess or Preprocess(),
            strict=strict,
        ),
        train_settings(training, output=output, distill=distill),
        teacher=None if teacher is None else load(teacher),
        distil=bool(distill),
        metric=metric,
        output=output,
        freeze=tuple(freeze),
        provider=provider,
    )
    kept = plan if plan is None or isinstance(plan, PrunePlan) else read_plan(Path(plan))
    before = judge_start(job, kept, progress=progress)
    with tempfile.TemporaryDirectory(prefix="onnx-relief-") as scratch:
        retrained = run(
            job,
            folder=Path(folder or scratch),
            plan=kept,
            progress=progress,
            on_epoch=on_epoch,
        )
    report = account(job, retrained, before, progress=progress)
    return RetrainResult(document=retrained.document, report=report)


def to_torch(model: Model, *, plan: Plan | None = None, freeze: Sequence[str] = ()) -> OnnxModule:
    """Return a model as a `torch.nn.Module` whose zeros are held in any training loop.

    Called with the inputs in order, by name or as one mapping, the module returns its float
    outputs by name. Parameters are the weights; ``module.masks`` says what is held at zero.

    Args:
        model: Path of an ONNX file, or a model in memory; it is not changed.
        plan: What `prune` kept; by default the zeros of the model are held.
        freeze: Patterns of weights that stay as they are.

    Raises:
        UnsupportedError: An operator has no converter to torch.
        SettingsError: The extra is missing, or the plan was made for another model.
    """
    require_extra()
    from onnx_relief.bridge.convert import convert, masks_for

    document = load(model)
    if plan is None:
        kept: Mapping[Any, Any] = nonzero_elements(find_layers(document))
    else:
        chosen = plan if isinstance(plan, PrunePlan) else read_plan(Path(plan))
        document, kept = mask_by_plan(document, chosen)
    module = convert(document, freeze=tuple(freeze))
    module.hold(masks_for(module, kept))
    return module


def from_torch(module: object, model: Model) -> onnx.ModelProto | Document:
    """Return `model` with the weights of a module that `to_torch` made of it.

    Names, shapes, types and everything else stay as they are; what is held is exactly zero. A model
    with data in other files comes back as a document, which `onnx_relief.graph.save.save` writes.

    Raises:
        SettingsError: The module was made of another model, or not by `to_torch`.
    """
    require_extra()
    from onnx_relief.bridge.back import write_back
    from onnx_relief.bridge.module import OnnxModule

    if not isinstance(module, OnnxModule):
        raise SettingsError(
            f"from_torch takes a module that to_torch made, not a {type(module).__name__}"
        )
    document = write_back(module, load(model))
    return document if document.has_external_data else document.proto
